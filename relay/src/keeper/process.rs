//! Processes: starting a shell in a group of its own, ending a group, and collecting the dead.
//!
//! The keeper is a child subreaper (prctl(2)): orphans of a run become its children, are reaped here, and so do
//! not keep a group looking alive. That is why every wait goes through [`Reaper`] and none through
//! `std::process::Child`.

use std::{
    cell::RefCell,
    collections::HashMap,
    env, io,
    os::{
        fd::OwnedFd,
        unix::process::{CommandExt as _, ExitStatusExt as _},
    },
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    rc::Rc,
};

use rustix::{
    io::Errno,
    process::{
        Pid, Signal, WaitOptions, getpid, kill_process_group, set_child_subreaper, test_kill_process_group,
        wait,
    },
};
use signalbox_schemas::id::{CommandId, Nonce};
use tokio::{net::unix::pipe, sync::Notify};

use super::protocol::ShellEnd;

/// Environment variable that names the command a process belongs to.
pub const RUN_VARIABLE: &str = "SIGNALBOX_RUN";
/// Environment variable that names the keeper's life a process belongs to.
pub const KEEPER_VARIABLE: &str = "SIGNALBOX_KEEPER";
/// Environment variable that names the store of that keeper, absent where children may outlive it: what a dead
/// keeper left behind is found by it even when the store, and with it all knowledge of that keeper, is gone.
pub const STORE_VARIABLE: &str = "SIGNALBOX_STORE";

/// The shell. Named by path, so that a run's shell does not depend on the relay's `PATH`.
const SHELL: &str = "/bin/sh";

/// First real-time signal as the C library hands them out (glibc keeps 32 and 33 for itself), and the last one.
const REAL_TIME_SIGNALS: std::ops::RangeInclusive<i32> = 34..=64;

/// Signals 1 to 31 (signal(7), the same on x86-64 and arm64).
const SIGNAL_NAMES: [&str; 31] = [
    "SIGHUP",
    "SIGINT",
    "SIGQUIT",
    "SIGILL",
    "SIGTRAP",
    "SIGABRT",
    "SIGBUS",
    "SIGFPE",
    "SIGKILL",
    "SIGUSR1",
    "SIGSEGV",
    "SIGUSR2",
    "SIGPIPE",
    "SIGALRM",
    "SIGTERM",
    "SIGSTKFLT",
    "SIGCHLD",
    "SIGCONT",
    "SIGSTOP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGXCPU",
    "SIGXFSZ",
    "SIGVTALRM",
    "SIGPROF",
    "SIGWINCH",
    "SIGIO",
    "SIGPWR",
    "SIGSYS",
];

/// The name of a signal: `SIGKILL`, `SIGRTMIN+1`, or `SIG32` where there is none.
pub(crate) fn signal_name(number: i32) -> String {
    if REAL_TIME_SIGNALS.contains(&number) {
        let above = number - REAL_TIME_SIGNALS.start();
        return if above == 0 { "SIGRTMIN".to_owned() } else { format!("SIGRTMIN+{above}") };
    }
    let index = usize::try_from(number).ok().and_then(|number| number.checked_sub(1));
    let name = index.and_then(|index| SIGNAL_NAMES.get(index));
    name.map_or_else(|| format!("SIG{number}"), |name| (*name).to_owned())
}

/// The number of a signal that has such a name.
pub(crate) fn signal_number(name: &str) -> Option<i32> {
    (1..=*REAL_TIME_SIGNALS.end()).find(|number| signal_name(*number) == name)
}

fn shell_end(status: ExitStatus) -> ShellEnd {
    match status.code() {
        Some(code) => ShellEnd::Exited(u8::try_from(code).unwrap_or(u8::MAX)),
        None => ShellEnd::Signalled(signal_name(status.signal().unwrap_or_default())),
    }
}

/// A process group that a run was started as.
///
/// Its id stays taken while any process is in it; once it was seen empty it must not be signalled again.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Group(Pid);

impl Group {
    pub(crate) fn pid(self) -> u32 {
        self.0.as_raw_pid().unsigned_abs()
    }

    /// Asks every process in the group to end.
    pub(crate) fn terminate(self) {
        self.signal(Signal::TERM);
    }

    /// Ends every process in the group.
    pub(crate) fn kill(self) {
        self.signal(Signal::KILL);
    }

    fn signal(self, signal: Signal) {
        match kill_process_group(self.0, signal) {
            Ok(()) | Err(Errno::SRCH) => {}
            // Processes of another user (set-user-id) stay; the end of the run says so by `group_dead`.
            Err(errno) => tracing::warn!(group = self.pid(), %errno, "process group not signalled"),
        }
    }

    /// Whether no process is left in the group. Zombies that somebody else has to reap count as processes.
    pub(crate) fn is_empty(self) -> bool {
        test_kill_process_group(self.0) == Err(Errno::SRCH)
    }
}

/// A shell that was just started.
pub(crate) struct Shell {
    pub(crate) group: Group,
    pub(crate) exit: Rc<Exit>,
    /// Standard output and standard error.
    pub(crate) pipes: [pipe::Receiver; 2],
}

/// How a shell ended, as soon as it was reaped.
#[derive(Default)]
pub(crate) struct Exit {
    end: RefCell<Option<ShellEnd>>,
    reaped: Notify,
}

impl Exit {
    /// The end, if the shell was reaped already.
    pub(crate) fn now(&self) -> Option<ShellEnd> {
        self.end.borrow().clone()
    }

    /// Waits for the end. Cancel-safe; one waiter.
    pub(crate) async fn reaped(&self) -> ShellEnd {
        loop {
            if let Some(end) = self.now() {
                return end;
            }
            self.reaped.notified().await;
        }
    }
}

/// Collects every child that died, and tells the runs that wait for theirs.
#[derive(Default)]
pub(crate) struct Reaper {
    shells: RefCell<HashMap<Pid, Rc<Exit>>>,
}

impl Reaper {
    /// Makes orphans of the runs children of this process.
    pub(crate) fn adopt_orphans() -> io::Result<()> {
        Ok(set_child_subreaper(Some(getpid()))?)
    }

    /// Starts `sh -c command` in a process group of its own, without standard input, in `folder` or at home. `store` is
    /// absent when its children may outlive the keeper.
    ///
    /// Blocks until the shell is there or is known to have failed (about 1 ms).
    pub(crate) fn spawn(
        &self,
        cid: CommandId,
        command: &str,
        folder: Option<&Path>,
        instance: Nonce,
        store: Option<&Path>,
    ) -> io::Result<Shell> {
        let mut shell = Command::new(SHELL);
        match store {
            Some(store) => shell.env(STORE_VARIABLE, store),
            // A relay that is itself a run of another one has inherited that one's.
            None => shell.env_remove(STORE_VARIABLE),
        };
        let mut child = shell
            .arg("-c")
            .arg(command)
            .current_dir(folder.map_or_else(working_folder, Path::to_owned))
            .env(RUN_VARIABLE, cid.to_string())
            .env(KEEPER_VARIABLE, instance.to_string())
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let group = Group(Pid::from_child(&child));
        let exit = Rc::new(Exit::default());
        self.shells.borrow_mut().insert(group.0, Rc::clone(&exit));
        let pipes = child.stdout.take().zip(child.stderr.take());
        let pipes = pipes.ok_or_else(|| io::Error::other("no pipes")).and_then(|(stdout, stderr)| {
            Ok([receiver(OwnedFd::from(stdout))?, receiver(OwnedFd::from(stderr))?])
        });
        match pipes {
            Ok(pipes) => Ok(Shell { group, exit, pipes }),
            Err(error) => {
                group.kill();
                Err(error)
            }
        }
    }

    /// Reaps all that are dead now. Call it on SIGCHLD, and before a decision that an exit would forestall.
    pub(crate) fn collect(&self) {
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            if let Some(exit) = self.shells.borrow_mut().remove(&pid) {
                *exit.end.borrow_mut() = Some(shell_end(ExitStatus::from_raw(status.as_raw())));
                exit.reaped.notify_one();
            }
        }
    }
}

fn receiver(fd: OwnedFd) -> io::Result<pipe::Receiver> {
    pipe::Receiver::from_owned_fd(fd)
}

/// Where commands begin: the home folder as everywhere else where one gives commands, or the root.
fn working_folder() -> PathBuf {
    let home = env::var_os("HOME").map(PathBuf::from);
    home.filter(|home| home.is_absolute() && home.is_dir()).unwrap_or_else(|| Path::new("/").to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(1, "SIGHUP")]
    #[case(9, "SIGKILL")]
    #[case(15, "SIGTERM")]
    #[case(31, "SIGSYS")]
    #[case(32, "SIG32")]
    #[case(34, "SIGRTMIN")]
    #[case(35, "SIGRTMIN+1")]
    #[case(64, "SIGRTMIN+30")]
    #[case(0, "SIG0")]
    #[case(-1, "SIG-1")]
    fn signals_have_names(#[case] number: i32, #[case] name: &str) {
        assert_eq!(signal_name(number), name);
        assert_eq!(signal_number(name), (1..=64).contains(&number).then_some(number));
    }

    #[rstest]
    #[case(0, ShellEnd::Exited(0))]
    #[case(255 << 8, ShellEnd::Exited(255))]
    #[case(9, ShellEnd::Signalled("SIGKILL".into()))]
    #[case(9 | 0x80, ShellEnd::Signalled("SIGKILL".into()))]
    fn wait_statuses_become_ends(#[case] raw: i32, #[case] end: ShellEnd) {
        assert_eq!(shell_end(ExitStatus::from_raw(raw)), end);
    }
}
