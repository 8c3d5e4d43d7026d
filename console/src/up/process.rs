//! Processes by their pid, and what an earlier `up` left behind.
//!
//! A pid alone proves nothing: it is signalled only while its command line names our state directory.

use std::{
    fs,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use signalbox_schemas::layout::{KEEPER_LOCK, Layout};
use tokio::time::{Instant, sleep};

use super::lock::read_pid;

/// Steps in which the end of a process that is not our child is looked for.
const STEP: Duration = Duration::from_millis(20);
/// Leftovers have this long after TERM.
const LEFTOVER_TERM: Duration = Duration::from_secs(3);
/// And this long after KILL.
const LEFTOVER_KILL: Duration = Duration::from_secs(2);

/// Stands in the environment of whatever `up` starts, and of what that starts in turn.
pub const MARK: &str = "SIGNALBOX_UP";

/// A process of a state directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stranger {
    pid: u32,
    /// Its command line names this.
    path: PathBuf,
}

impl Stranger {
    /// The process, if it is there and its command line names `path`.
    pub fn find(pid: u32, path: &Path) -> Option<Self> {
        let found = Self { pid, path: path.to_owned() };
        found.is_alive().then_some(found)
    }

    /// Whether it is still there, and still the one.
    pub fn is_alive(&self) -> bool {
        // Empty for a process that has ended and was not reaped.
        let line = fs::read(format!("/proc/{}/cmdline", self.pid)).unwrap_or_default();
        let path = self.path.as_os_str().as_bytes();
        line.split(|byte| *byte == 0).any(|argument| names(argument, path))
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether an `up` started it; one that cannot be asked is somebody else's.
    pub fn is_of_up(&self) -> bool {
        let environment = fs::read(format!("/proc/{}/environ", self.pid)).unwrap_or_default();
        let mark = MARK.as_bytes();
        environment
            .split(|byte| *byte == 0)
            .any(|pair| pair.strip_prefix(mark).is_some_and(|rest| rest.starts_with(b"=")))
    }

    /// Signals it, if it is still the one.
    pub fn signal(&self, signal: Signal) {
        if self.is_alive() {
            send(self.pid, signal);
        }
    }
}

/// Whether an argument is `path`, something below it, or `--option=` with either.
fn names(argument: &[u8], path: &[u8]) -> bool {
    let value = argument.iter().position(|byte| *byte == b'/').and_then(|at| argument.get(at..));
    let rest = value.and_then(|value| value.strip_prefix(path));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

/// Sends a signal; a process that is gone is what one wants. One that stands still would not hear TERM, and leave
/// what it holds when it is killed: it is set going too.
pub fn send(pid: u32, signal: Signal) {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return };
    let resume = (signal == Signal::TERM).then_some(Signal::CONT);
    for signal in std::iter::once(signal).chain(resume) {
        if let Err(error) = kill_process(pid, signal) {
            tracing::debug!(%error, "process is gone");
        }
    }
}

/// Signals each that is still the one.
pub fn signal_all(processes: &[Stranger], signal: Signal) {
    for process in processes {
        process.signal(signal);
    }
}

/// The keepers of all machines that were set up here.
pub fn keepers(layout: &Layout) -> Vec<Stranger> {
    #[derive(Deserialize)]
    struct Lock {
        pid: u32,
    }
    let machines = fs::read_dir(layout.machines_dir()).into_iter().flatten().flatten();
    let keeper = |machine: fs::DirEntry| {
        let store = machine.path().join("store");
        let text = fs::read(store.join(KEEPER_LOCK)).ok()?;
        Stranger::find(serde_json::from_slice::<Lock>(&text).ok()?.pid, &store)
    };
    machines.filter_map(keeper).collect()
}

/// The process of a pid file.
pub fn by_name(layout: &Layout, name: &str) -> Option<Stranger> {
    Stranger::find(read_pid(&layout.pid(name))?, layout.root())
}

/// Waits until all are gone; false when they are not by then.
pub async fn gone(processes: &[Stranger], within: Duration) -> bool {
    let give_up = Instant::now() + within;
    loop {
        if !processes.iter().any(Stranger::is_alive) {
            return true;
        }
        if Instant::now() >= give_up {
            return false;
        }
        sleep(STEP).await;
    }
}

/// Ends processes: TERM, then KILL.
pub async fn end(processes: &[Stranger]) {
    signal_all(processes, Signal::TERM);
    if !gone(processes, LEFTOVER_TERM).await {
        signal_all(processes, Signal::KILL);
        if !gone(processes, LEFTOVER_KILL).await {
            tracing::error!("processes of an earlier start do not end");
        }
    }
}

/// What runs on a state directory, in the order in which it is ended: relays first, so that they start no new keepers,
/// and the broker last, so that the bridge can say goodbye.
struct Running([Vec<Stranger>; 3]);

impl Running {
    fn find(layout: &Layout) -> Self {
        let files = fs::read_dir(layout.root().join("run")).into_iter().flatten().flatten();
        let names =
            files.filter_map(|file| file.file_name().to_str()?.strip_suffix(".pid").map(str::to_owned));
        let relays = names
            .filter(|name| !matches!(name.as_str(), "broker" | "bridge"))
            .filter_map(|name| by_name(layout, &name));
        let rest = keepers(layout).into_iter().chain(by_name(layout, "bridge"));
        Self([relays.collect(), rest.collect(), by_name(layout, "broker").into_iter().collect()])
    }
}

/// A process on this state directory that no `up` started, such as a bridge of the system's service manager.
pub fn foreign(layout: &Layout) -> Option<Stranger> {
    let Running(groups) = Running::find(layout);
    // The bridge before its broker: it is the one to be stopped.
    groups.into_iter().flatten().find(|process| !process.is_of_up())
}

/// Ends what an earlier `up` that was killed left behind.
pub async fn end_leftovers(layout: &Layout) {
    let mut count = 0;
    // Looked for anew each time: a relay may have started a keeper meanwhile.
    for group in 0..3 {
        let Running(groups) = Running::find(layout);
        let ours: Vec<Stranger> = groups
            .into_iter()
            .nth(group)
            .unwrap_or_default()
            .into_iter()
            .filter(Stranger::is_of_up)
            .collect();
        end(&ours).await;
        count += ours.len();
    }
    if count > 0 {
        tracing::info!(count, "processes of an earlier start were ended");
    }
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;

    use anyhow::Context as _;

    use super::*;

    #[test]
    fn a_command_line_names_a_directory_and_what_is_below_it() {
        for (argument, named) in [
            ("/s/t", true),
            ("/s/t/nats.conf", true),
            ("--state-dir=/s/t", true),
            ("/s/t2", false),
            ("/s", false),
            ("s/t", false),
            ("", false),
        ] {
            assert_eq!(names(argument.as_bytes(), b"/s/t"), named, "{argument}");
        }
    }

    #[tokio::test]
    async fn only_what_an_up_started_is_ended() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        fs::create_dir(dir.path().join("run")).unwrap();
        let start = |name: &str, mark: bool| {
            let mut command = tokio::process::Command::new("/bin/sh");
            command.args(["-c", "read line", "sh"]).arg(dir.path()).stdin(Stdio::piped()).env_remove(MARK);
            if mark {
                command.env(MARK, "1");
            }
            let child = command.kill_on_drop(true).spawn().unwrap();
            fs::write(layout.pid(name), format!("{}\n", child.id().unwrap())).unwrap();
            child
        };
        let mut ours = start("demo-1", true);
        let mut theirs = start("bridge", false);
        // A program that has just begun shows its command line a moment later.
        for name in ["demo-1", "bridge"] {
            signalbox_testkit::eventually(name, || async { by_name(&layout, name).context("not there") })
                .await
                .unwrap();
        }
        assert_eq!(foreign(&layout).map(|process| process.pid()), theirs.id());
        end_leftovers(&layout).await;
        assert!(ours.try_wait().unwrap().is_some(), "a leftover is alive");
        assert!(theirs.try_wait().unwrap().is_none(), "somebody else's bridge was ended");
    }

    #[test]
    fn a_pid_of_somebody_else_is_not_found() {
        assert_eq!(Stranger::find(std::process::id(), Path::new("/no/such/directory")), None);
    }
}
