//! Real programs as children of a test: started in a process group of their own, watched, and gone with the test.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::io::Errno;
use rustix::process::{Pid, kill_process, kill_process_group};
use tempfile::TempDir;
use tokio::sync::watch;

pub use rustix::process::Signal;

use crate::eventually::{eventually, eventually_within};

/// How long a dropped [`Daemon`] may take to end after TERM. `signalbox up` promises 5 s; one more is slack.
const DROP_GRACE: Duration = Duration::from_secs(6);

/// How long the end of a killed process may take to arrive.
const KILL_GRACE: Duration = Duration::from_secs(5);

/// How much of a dead program's stderr an error quotes, in bytes.
const QUOTED_STDERR_BYTES: usize = 2_000;

/// Path of a program of this workspace, as built beside the running one.
///
/// # Errors
/// When it is not built; the error says how to build it.
pub fn bin(name: &str) -> Result<PathBuf> {
    let running = std::env::current_exe().context("finding the running program's own path")?;
    // …/target/<profile>/deps/<test>-<hash>, or …/target/<profile>/<program>
    let folder = running.parent().context("the running program lies in no folder")?;
    let built = if folder.ends_with("deps") { folder.parent() } else { Some(folder) };
    let program = built.context("the running test lies in no build folder")?.join(name);
    if !program.is_file() {
        bail!("{} is not built: run `cargo xtask test`, which builds the programs first", program.display());
    }
    Ok(program)
}

/// A program in `PATH`, or where servers are.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders =
        std::env::split_paths(&path).chain(["/usr/sbin", "/usr/local/sbin", "/sbin"].map(PathBuf::from));
    folders.map(|folder| folder.join(program)).find(|path| path.is_file())
}

/// A running program. Its stdin is closed, its stdout and stderr go to files.
///
/// When dropped it is asked to end (TERM), then made to (KILL), with everything left in its process group.
#[derive(Debug)]
pub struct Daemon {
    name: String,
    pid: Pid,
    status: watch::Receiver<Option<ExitStatus>>,
    ended: mpsc::Receiver<()>,
    logs: TempDir,
}

impl Daemon {
    /// Starts a command, as the leader of a new process group.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn spawn(command: &mut Command) -> Result<Self> {
        let program = command.get_program().to_owned();
        let name = Path::new(&program).file_name().unwrap_or(&program).to_string_lossy().into_owned();
        let logs = tempfile::tempdir().context("making a folder for the logs")?;
        let mut child = command
            .stdin(Stdio::null())
            .stdout(File::create(logs.path().join("stdout")).context("making the stdout file")?)
            .stderr(File::create(logs.path().join("stderr")).context("making the stderr file")?)
            .process_group(0)
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        let pid = pid(child.id())?;
        let (status, ended) = watch_end(move || child.wait());
        Ok(Self { name, pid, status, ended, logs })
    }

    /// The process id. It may belong to nobody, later to somebody else, once the program has ended.
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// How the program ended, or `None` while it runs.
    pub fn exit_status(&self) -> Option<ExitStatus> {
        *self.status.borrow()
    }

    /// Waits for the program's end.
    ///
    /// # Errors
    /// When it still runs after `bound`; the error quotes the end of its stderr.
    pub async fn wait(&self, bound: Duration) -> Result<ExitStatus> {
        match tokio::time::timeout(bound, self.end()).await {
            Ok(status) => status,
            Err(_) => bail!("{} still runs after {bound:?}; it said: {}", self.name, self.last_words()),
        }
    }

    /// Waits for the first whole line on stdout and returns it without its line end.
    ///
    /// # Errors
    /// When the program ends first, or says nothing within `bound`; the error quotes the end of its stderr.
    pub async fn first_line(&self, bound: Duration) -> Result<String> {
        let path = self.logs.path().join("stdout");
        let line = eventually_within("the first line", bound, || async {
            let stdout = fs::read(&path).context("reading stdout")?;
            let end = stdout.iter().position(|byte| *byte == b'\n').context("no whole line yet")?;
            Ok(String::from_utf8_lossy(stdout.get(..end).unwrap_or_default()).into_owned())
        });
        tokio::select! {
            biased;
            line = line => line.with_context(|| format!("{} said on stderr: {}", self.name, self.last_words())),
            _ = self.end() => {
                let stdout = self.stdout()?;
                let (line, _) = stdout.split_once('\n').with_context(|| {
                    format!("{} ended without a line on stdout; it said: {}", self.name, self.last_words())
                })?;
                Ok(line.to_owned())
            }
        }
    }

    /// Everything on stdout so far; bytes that are no UTF-8 are replaced.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn stdout(&self) -> Result<String> {
        read_lossy(&self.logs.path().join("stdout"))
    }

    /// Everything on stderr so far; bytes that are no UTF-8 are replaced.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn stderr(&self) -> Result<String> {
        read_lossy(&self.logs.path().join("stderr"))
    }

    /// Sends a signal to this one process. Does nothing when it has ended.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        if self.exit_status().is_some() {
            return Ok(());
        }
        send(self.pid, signal)
    }

    /// Kills this one process with -9, as a crash would.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill(&self) -> Result<()> {
        self.signal(Signal::KILL)
    }

    /// Asks this one process to end (TERM).
    ///
    /// # Errors
    /// When the system refuses.
    pub fn terminate(&self) -> Result<()> {
        self.signal(Signal::TERM)
    }

    /// Halts this one process (STOP) until [`Daemon::resume`], and returns once it stands still.
    ///
    /// # Errors
    /// When the system refuses, or the process goes on.
    pub async fn stop(&self) -> Result<()> {
        self.signal(Signal::STOP)?;
        eventually("the halt", || async {
            ensure!(stands_still(self.pid()), "{} goes on", self.name);
            Ok(())
        })
        .await
    }

    /// Lets a halted process go on (CONT).
    ///
    /// # Errors
    /// When the system refuses.
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    async fn end(&self) -> Result<ExitStatus> {
        let mut status = self.status.clone();
        let ended = status.wait_for(Option::is_some).await.context("nobody watches the program any more")?;
        ended.context("invariant: waited for some status")
    }

    fn last_words(&self) -> String {
        let stderr = self.stderr().unwrap_or_default();
        let mut start = stderr.len().saturating_sub(QUOTED_STDERR_BYTES);
        while !stderr.is_char_boundary(start) {
            start += 1;
        }
        stderr.get(start..).unwrap_or_default().to_owned()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.exit_status().is_none() {
            // A halted process takes its TERM only when it goes on.
            kill_group(self.pid, Signal::TERM);
            kill_group(self.pid, Signal::CONT);
            let _in_time = self.ended.recv_timeout(DROP_GRACE);
        }
        kill_group(self.pid, Signal::KILL);
        let _in_time = self.ended.recv_timeout(KILL_GRACE);
    }
}

/// Reaps a child with `wait` on a thread of its own, which ends with the child.
///
/// The status reaches whoever awaits it; the second channel closes at the same moment, for those who cannot await.
pub(crate) fn watch_end<S: Send + Sync + 'static>(
    wait: impl FnOnce() -> io::Result<S> + Send + 'static,
) -> (watch::Receiver<Option<S>>, mpsc::Receiver<()>) {
    let (status_tx, status_rx) = watch::channel(None);
    let (ended_tx, ended_rx) = mpsc::sync_channel::<()>(0);
    std::thread::spawn(move || {
        // An error means that there is no such child, which the closed channels say as well.
        if let Ok(status) = wait() {
            status_tx.send_replace(Some(status));
        }
        drop(ended_tx);
    });
    (status_rx, ended_rx)
}

/// Sends a signal to a process that is no child of the test. Nobody there is no error.
///
/// # Errors
/// When `process_id` can be no process, or the system refuses.
pub fn signal(process_id: u32, signal: Signal) -> Result<()> {
    send(pid(process_id)?, signal)
}

/// Waits until a process is gone.
///
/// # Errors
/// When it is there for 20 s.
pub async fn dead(process_id: u32) -> Result<()> {
    eventually_within("the end of a process", Duration::from_secs(20), || async move {
        ensure!(!is_alive(process_id), "{process_id} is alive");
        Ok(())
    })
    .await
}

/// Kills a process that is no child of the test with -9, and waits until it is gone: until then it holds its locks.
///
/// # Errors
/// When `process_id` can be no process, the system refuses, or it does not go.
pub async fn kill(process_id: u32) -> Result<()> {
    signal(process_id, Signal::KILL)?;
    dead(process_id).await
}

/// Whether a process exists and is more than a zombie.
pub fn is_alive(process_id: u32) -> bool {
    state(process_id).is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

/// Whether a process was halted (STOP) and does not go on yet.
pub fn stands_still(process_id: u32) -> bool {
    state(process_id) == Some('T')
}

/// The letter that says what a process does, see `proc_pid_stat(5)`; none when there is no such process.
fn state(process_id: u32) -> Option<char> {
    // "<pid> (<name>) <state> …", and the name may contain anything, also ")".
    let stat = fs::read_to_string(format!("/proc/{process_id}/stat")).ok()?;
    stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next())
}

/// Memory that a process holds in RAM (`VmRSS`), in bytes.
///
/// # Errors
/// When there is no such process.
pub fn rss_bytes(process_id: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{process_id}/status"))
        .with_context(|| format!("reading the memory of process {process_id}"))?;
    let line =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("the process has no memory")?;
    let kib = line.trim().strip_suffix(" kB").context("VmRSS is not in kB")?;
    Ok(kib.trim().parse::<u64>().context("VmRSS is no number")? * 1024)
}

pub(crate) fn pid(process_id: u32) -> Result<Pid> {
    i32::try_from(process_id).ok().and_then(Pid::from_raw).context("no process has this id")
}

/// Ends a whole process group. Failure is no news: the group may be gone, and nobody is left to tell.
pub(crate) fn kill_group(leader: Pid, signal: Signal) {
    let _gone_already = kill_process_group(leader, signal);
}

fn send(pid: Pid, signal: Signal) -> Result<()> {
    match kill_process(pid, signal) {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(error) => Err(error).context("sending a signal"),
    }
}

fn read_lossy(path: &Path) -> Result<String> {
    let bytes = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    const BOUND: Duration = Duration::from_secs(10);

    fn sh(script: &str) -> Daemon {
        Daemon::spawn(Command::new("sh").args(["-c", script])).unwrap()
    }

    #[tokio::test]
    async fn output_and_exit_code_are_kept() {
        let daemon = sh("echo out; echo err >&2; exit 7");
        assert_eq!(daemon.wait(BOUND).await.unwrap().code(), Some(7));
        assert_eq!(daemon.stdout().unwrap(), "out\n");
        assert_eq!(daemon.stderr().unwrap(), "err\n");
    }

    #[tokio::test]
    async fn the_first_line_arrives_while_the_program_runs() {
        let daemon = sh("echo ready; echo more; exec sleep 60");
        assert_eq!(daemon.first_line(BOUND).await.unwrap(), "ready");
        assert!(daemon.exit_status().is_none());
        let still = daemon.wait(Duration::from_millis(50)).await.unwrap_err();
        assert!(still.to_string().starts_with("sh still runs"), "{still}");
    }

    #[tokio::test]
    async fn a_program_that_dies_without_a_line_is_quoted() {
        let error = sh("echo port taken >&2; exit 1").first_line(BOUND).await.unwrap_err();
        assert!(error.to_string().contains("port taken"), "{error}");
    }

    #[tokio::test]
    async fn signals_reach_the_process() {
        let daemon = sh("exec sleep 60");
        assert!(!stands_still(daemon.pid()));
        daemon.stop().await.unwrap();
        assert!(stands_still(daemon.pid()));
        daemon.terminate().unwrap();
        assert!(daemon.wait(Duration::from_millis(50)).await.is_err(), "a halted process ended");
        daemon.resume().unwrap();
        assert_eq!(daemon.wait(BOUND).await.unwrap().signal(), Some(15));
        daemon.kill().unwrap();
    }

    #[tokio::test]
    async fn dropping_ends_the_children_too() {
        let daemon = sh("trap '' TERM; sleep 60 & echo $!; exec sleep 60");
        let grandchild: u32 = daemon.first_line(BOUND).await.unwrap().parse().unwrap();
        let leader = daemon.pid();
        assert!(is_alive(leader) && is_alive(grandchild));
        assert!(rss_bytes(leader).unwrap() > 0);
        daemon.kill().unwrap();
        daemon.wait(BOUND).await.unwrap();
        assert!(!is_alive(leader) && is_alive(grandchild), "only the one process was killed");
        drop(daemon);
        eventually("the grandchild's end", || async {
            anyhow::ensure!(!is_alive(grandchild), "it still runs");
            Ok(())
        })
        .await
        .unwrap();
    }

    #[test]
    fn a_program_that_is_not_built_is_named() {
        let error = bin("signalbox-nothing").unwrap_err().to_string();
        assert!(error.contains("signalbox-nothing is not built: run `cargo xtask test`"), "{error}");
    }
}
