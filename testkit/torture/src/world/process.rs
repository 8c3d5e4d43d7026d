//! A part's process and whoever looks after it: started again half a second after its end, unless it is to be down.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use signalbox_testkit::process::{Daemon, Signal};
use signalbox_testkit::{eventually, eventually_within};
use tokio::task::JoinSet;
use tokio::time::{Instant, interval};

/// Pause before what ended by itself is started again, as service managers have it.
const PAUSE: Duration = Duration::from_millis(500);
/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// Ends that are remembered; the log has all.
const ENDS: usize = 1_000;
/// So much of a process's stderr is quoted in errors, characters.
const QUOTED: usize = 2_000;

/// How a process is started.
pub(crate) type Start = Box<dyn Fn() -> Result<Command> + Send + Sync>;

/// A part's process, of which there is at most one at a time.
pub(crate) struct Process {
    name: String,
    start: Start,
    log: PathBuf,
    state: Mutex<State>,
    looks: AtomicU64,
    // Dropped with the rest: nobody starts anything then.
    tender: Mutex<JoinSet<()>>,
}

#[derive(Default)]
struct State {
    daemon: Option<Daemon>,
    is_down: bool,
    is_halted: bool,
    /// It was asked to end, and its end is no news.
    is_asked: bool,
    /// When it ended without being told to.
    ended: Option<Instant>,
    ends: Vec<String>,
}

impl std::fmt::Debug for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Process").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Process {
    /// Starts it and looks after it. Its stderr goes to `logs/NAME.log` when it ends.
    ///
    /// # Errors
    /// When it cannot be started now.
    pub(crate) fn run(name: &str, logs: &Path, start: Start) -> Result<Arc<Self>> {
        let process = Self {
            name: name.to_owned(),
            start,
            log: logs.join(format!("{name}.log")),
            state: Mutex::default(),
            looks: AtomicU64::new(0),
            tender: Mutex::default(),
        };
        process.state().daemon = Some(process.spawn()?);
        let process = Arc::new(process);
        let weak = Arc::downgrade(&process);
        process.tender.lock().unwrap_or_else(PoisonError::into_inner).spawn(async move {
            let mut looks = interval(LOOK);
            loop {
                looks.tick().await;
                let Some(process) = weak.upgrade() else { return };
                process.tend();
            }
        });
        Ok(process)
    }

    /// Its process id, while it runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.state().running().map(Daemon::pid)
    }

    /// How it ended without being told to, each time, with its last words.
    pub(crate) fn ends(&self) -> Vec<String> {
        self.state().ends.clone()
    }

    /// From now on it is down (KILL, and gone when this returns), or runs again.
    ///
    /// # Errors
    /// When it does not end.
    pub(crate) async fn set_down(&self, is_down: bool) -> Result<()> {
        {
            let mut state = self.state();
            state.is_down = is_down;
            if !is_down {
                // Not after a pause: whoever heals starts it.
                state.ended = None;
                return Ok(());
            }
            if let Some(daemon) = state.running() {
                daemon.kill()?;
            }
        }
        let gone = eventually(&self.name, || async {
            ensure!(self.state().running().is_none(), "it does not end");
            Ok(())
        });
        gone.await?;
        self.bury(false);
        Ok(())
    }

    /// From now on it stands still, or goes on.
    ///
    /// # Errors
    /// When the system refuses.
    pub(crate) fn set_halted(&self, is_halted: bool) -> Result<()> {
        let mut state = self.state();
        state.is_halted = is_halted;
        match state.running() {
            Some(daemon) if is_halted => daemon.signal(Signal::STOP),
            Some(daemon) => daemon.resume(),
            None => Ok(()),
        }
    }

    /// Asks it to end (TERM); it is started again.
    ///
    /// # Errors
    /// When the system refuses.
    pub(crate) fn terminate(&self) -> Result<()> {
        let mut state = self.state();
        if let Some(daemon) = state.running() {
            daemon.terminate()?;
            state.is_asked = true;
        }
        Ok(())
    }

    /// Asks it to end (TERM), and starts it no more. One that stands still goes on for it.
    ///
    /// # Errors
    /// When the system refuses.
    pub(crate) fn retire(&self) -> Result<()> {
        let mut state = self.state();
        state.is_down = true;
        let Some(daemon) = state.running() else { return Ok(()) };
        daemon.terminate()?;
        daemon.resume()
    }

    /// Waits until it runs and has said its first line, at most `bound`; answers the line.
    ///
    /// # Errors
    /// When it does not in time; the error quotes its stderr.
    pub(crate) async fn ready(&self, bound: Duration) -> Result<String> {
        eventually_within(&format!("{} is ready", self.name), bound, || async {
            let state = self.state();
            let Some(daemon) = state.running() else {
                bail!(
                    "it does not run; {}",
                    state.ends.last().map_or("it has not ended before", String::as_str)
                );
            };
            let stdout = daemon.stdout()?;
            let line = stdout.split_once('\n').map(|(line, _)| line.to_owned());
            line.with_context(|| {
                format!("it says nothing; on stderr: {}", tail(&daemon.stderr().unwrap_or_default()))
            })
        })
        .await
    }

    /// The end of what it has said on stderr since it was started.
    pub(crate) fn last_words(&self) -> String {
        let state = self.state();
        let words = state.daemon.as_ref().and_then(|daemon| daemon.stderr().ok());
        tail(&words.unwrap_or_default())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spawn(&self) -> Result<Daemon> {
        let mut command = (self.start)().with_context(|| format!("starting {}", self.name))?;
        Daemon::spawn(&mut command).with_context(|| format!("starting {}", self.name))
    }

    /// One look: what ended is started again.
    fn tend(&self) {
        self.looks.fetch_add(1, Ordering::Relaxed);
        if self.state().running().is_some() {
            return;
        }
        // The end of one that is to be down is no news, whoever sees it first.
        let by_itself = !self.state().is_down;
        self.bury(by_itself);
        let mut state = self.state();
        let is_due = state.ended.is_none_or(|ended| ended.elapsed() >= PAUSE);
        if state.is_down || state.is_halted || !is_due || state.daemon.is_some() {
            return;
        }
        match self.spawn() {
            Ok(daemon) => state.daemon = Some(daemon),
            Err(error) => {
                state.ended = Some(Instant::now());
                state.remember(format!("{error:#}"));
            }
        }
    }

    /// Writes the log of one that has ended. `by_itself` = it is remembered, and started after a pause.
    fn bury(&self, by_itself: bool) {
        let Some(daemon) = self.state().take_ended() else { return };
        let words = daemon.stderr().unwrap_or_default();
        let end = daemon.exit_status().map_or("?".to_owned(), |status| status.to_string());
        let mut state = self.state();
        if by_itself && !std::mem::take(&mut state.is_asked) {
            state.ended = Some(Instant::now());
            state.remember(format!("{} ended ({end}): {}", self.name, tail(&words)));
        }
        let log = OpenOptions::new().create(true).append(true).open(&self.log);
        // A log that cannot be written must not end a torture; the end is remembered above.
        let _ = log.and_then(|mut log| writeln!(log, "{words}--- {} ended: {end}", self.name));
    }

    /// Kills it without ceremony, writes its log, and starts it no more.
    pub(crate) fn end(&self) {
        let mut state = self.state();
        state.is_down = true;
        if let Some(daemon) = state.running() {
            let _ = daemon.kill();
            let words = daemon.stderr().unwrap_or_default();
            let log = OpenOptions::new().create(true).append(true).open(&self.log);
            let _ = log.and_then(|mut log| writeln!(log, "{words}--- {}: end of the world", self.name));
        }
    }
}

impl State {
    fn running(&self) -> Option<&Daemon> {
        self.daemon.as_ref().filter(|daemon| daemon.exit_status().is_none())
    }

    fn take_ended(&mut self) -> Option<Daemon> {
        if self.running().is_some() { None } else { self.daemon.take() }
    }

    fn remember(&mut self, end: String) {
        if self.ends.len() < ENDS {
            self.ends.push(end);
        }
    }
}

/// The end of a text.
fn tail(text: &str) -> String {
    let from = text.char_indices().rev().nth(QUOTED).map_or(0, |(at, _)| at);
    text.get(from..).unwrap_or_default().to_owned()
}

/// Processes whose command line has these arguments one after another. A keeper outlives who started it, and the file that
/// names it may be on a full disk.
pub(crate) fn find(arguments: &[&[u8]]) -> Vec<u32> {
    let Ok(all) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = all.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let has = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        line.windows(arguments.len()).any(|window| window == arguments)
    };
    pids.filter(has).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &'static str, logs: &Path) -> Arc<Process> {
        let start = move || {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            Ok(command)
        };
        Process::run("part", logs, Box::new(start)).unwrap()
    }

    const BOUND: Duration = Duration::from_secs(10);

    /// Whatever a look makes of it has been done since.
    async fn looked_at(process: &Process) {
        let since = process.looks.load(Ordering::Relaxed);
        eventually("looks", || async {
            ensure!(process.looks.load(Ordering::Relaxed) >= since + 3);
            Ok(())
        })
        .await
        .unwrap();
    }

    async fn pid_other_than(process: &Process, old: u32) -> u32 {
        eventually("another process", || async {
            process.pid().filter(|pid| *pid != old).context("still the old one, or none")
        })
        .await
        .unwrap()
    }

    #[tokio::test]
    async fn what_is_down_stays_down_until_it_is_healed() {
        let dir = tempfile::tempdir().unwrap();
        let process = sh("echo ready; echo words >&2; exec sleep 60", dir.path());
        assert_eq!(process.ready(BOUND).await.unwrap(), "ready");
        let first = process.pid().unwrap();
        process.set_down(true).await.unwrap();
        looked_at(&process).await;
        assert_eq!(process.pid(), None);
        assert!(fs::read_to_string(dir.path().join("part.log")).unwrap().starts_with("words\n"));
        process.set_down(false).await.unwrap();
        pid_other_than(&process, first).await;
        assert!(process.ends().is_empty(), "it was told to end");
        process.ready(BOUND).await.unwrap();
    }

    #[tokio::test]
    async fn what_ends_by_itself_is_remembered_and_started_again() {
        let dir = tempfile::tempdir().unwrap();
        let process = sh("echo why >&2; exit 3", dir.path());
        eventually("two ends", || async {
            ensure!(process.ends().len() >= 2);
            Ok(())
        })
        .await
        .unwrap();
        let end = &process.ends()[0];
        assert!(end.contains("exit status: 3") && end.contains("why"), "{end}");
        let error = process.ready(Duration::from_millis(100)).await.unwrap_err().to_string();
        assert!(error.contains("part is ready"), "{error}");
    }

    #[tokio::test]
    async fn what_is_halted_goes_on_and_can_be_killed() {
        let dir = tempfile::tempdir().unwrap();
        let process = sh("echo ready; exec sleep 60", dir.path());
        process.ready(BOUND).await.unwrap();
        let first = process.pid().unwrap();
        process.set_halted(true).unwrap();
        eventually("the halt", || async {
            ensure!(signalbox_testkit::process::stands_still(first));
            Ok(())
        })
        .await
        .unwrap();
        process.set_down(true).await.unwrap();
        process.set_down(false).await.unwrap();
        looked_at(&process).await;
        assert_eq!(process.pid(), None, "a halted one was started");
        process.set_halted(false).unwrap();
        pid_other_than(&process, first).await;
    }

    #[tokio::test]
    async fn processes_are_found_by_their_arguments() {
        let dir = tempfile::tempdir().unwrap();
        let process = sh("echo ready; exec sleep 61.75", dir.path());
        process.ready(BOUND).await.unwrap();
        eventually("the sleep", || async {
            ensure!(find(&[b"sleep", b"61.75"]) == [process.pid().unwrap_or_default()]);
            Ok(())
        })
        .await
        .unwrap();
        assert!(find(&[b"sleep", b"61.76"]).is_empty());
        assert_eq!(tail(&"ä".repeat(QUOTED * 2)).chars().count(), QUOTED + 1);
    }
}
