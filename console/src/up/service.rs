//! One child process: started, heard, logged, started again.
//!
//! A child says on stdout, in one line of JSON, that it is ready; what it says on stderr goes to its log.

use std::{
    ffi::OsString,
    fs::{File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use rustix::process::Signal;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout},
};

use super::{lock::write_private, process};

/// How often a child's log is looked at, whether it has grown too large.
const LOG_EVERY: Duration = Duration::from_secs(1);
/// Most of the end of a log that is searched for the child's last line.
const TAIL_BYTES: u64 = 64 * 1024;
/// A child is ready by then, or it is ended. A bridge reads a million events in 40 s.
const READY_WITHIN: Duration = Duration::from_mins(2);
/// A child that is asked to end has ended by then: a bridge needs up to 4 s.
const END_WITHIN: Duration = Duration::from_secs(5);
/// Wait before a child that died is started again.
const RESTART_AFTER: Duration = Duration::from_secs(1);

/// What the parent wants of a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Run, and come back when you die.
    Run,
    /// End in good order.
    Term,
    /// End.
    Kill,
}

/// How a child is.
#[derive(Debug, Clone, PartialEq)]
pub enum State {
    /// Started, not ready.
    Starting,
    /// Ready; this is what it said.
    Ready(Value),
    /// It ended before it was ever ready: its last line.
    Failed(String),
    /// It ended, and is not started again.
    Ended,
}

/// A child.
#[derive(Debug)]
pub struct Service {
    /// `bridge`, or a relay's token.
    pub name: String,
    /// The binary.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Where its stderr goes.
    pub log: PathBuf,
    /// Where its pid is written; none for one that writes it itself.
    pub pid_file: Option<PathBuf>,
    /// Whether it is started again when it dies.
    pub restarts: bool,
    /// Changes the arguments after the first start: a port that was any free one stays the same.
    pub settle: fn(&mut [OsString], &Value),
}

impl Service {
    /// Runs the child until it is told to end. Tells in `state` how it is.
    pub async fn run(mut self, mut order: watch::Receiver<Order>, state: watch::Sender<State>) {
        let mut was_ready = false;
        while *order.borrow() == Order::Run {
            let (log_start, why) = match self.spawn() {
                Ok((child, log_start)) => {
                    (log_start, self.live(child, &mut order, &state, &mut was_ready).await)
                }
                Err(error) => {
                    tracing::error!(name = self.name, %error, "child cannot be started");
                    if !was_ready {
                        state.send_replace(State::Failed(format!(
                            "{} cannot be started: {error}",
                            self.program.display()
                        )));
                        return;
                    }
                    (0, None)
                }
            };
            if *order.borrow() != Order::Run {
                break;
            }
            if !was_ready {
                let line = why.or_else(|| last_line(&self.log, log_start));
                state.send_replace(State::Failed(line.unwrap_or_else(|| "it said nothing".to_owned())));
                return;
            }
            if !self.restarts {
                tracing::warn!(name = self.name, "child died, it is not started again");
                break;
            }
            tracing::warn!(name = self.name, "child died, it is started again");
            state.send_replace(State::Starting);
            tokio::select! {
                () = sleep(RESTART_AFTER) => {}
                _ = order.wait_for(|order| *order != Order::Run) => {}
            }
        }
        state.send_replace(State::Ended);
    }

    fn spawn(&self) -> io::Result<(Child, u64)> {
        let mut log = OpenOptions::new().create(true).append(true).mode(0o600).open(&self.log)?;
        self.cap_log();
        let log_start = log.seek(SeekFrom::End(0))?;
        let child = Command::new(&self.program)
            .args(&self.args)
            // Where others find a broker; ours is told by its arguments.
            .env_remove("SIGNALBOX_NATS")
            // For the next `up`, in case that this one is killed.
            .env(process::MARK, "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            // Ctrl-C at the terminal is for us alone; we end our children in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        if let (Some(pid), Some(path)) = (child.id(), &self.pid_file) {
            write_private(path, &format!("{pid}\n"))?;
        }
        Ok((child, log_start))
    }

    fn cap_log(&self) {
        if let Err(error) = crate::log::cap(&self.log) {
            tracing::warn!(name = self.name, %error, "log cannot be kept small");
        }
    }

    /// One life of the child; why it was ended, where nobody ordered that.
    async fn live(
        &mut self,
        mut child: Child,
        order: &mut watch::Receiver<Order>,
        state: &watch::Sender<State>,
        was_ready: &mut bool,
    ) -> Option<String> {
        let stdout = child.stdout.take()?;
        let mut lines = BufReader::new(stdout).lines();
        let (mut is_ready, mut is_open) = (false, true);
        let ready_by = Instant::now() + READY_WITHIN;
        let mut look = interval(LOG_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                status = child.wait() => {
                    let code = status.ok().and_then(|status| status.code());
                    tracing::info!(name = self.name, code, "child ended");
                    return None;
                }
                line = lines.next_line(), if is_open => match line {
                    Ok(Some(line)) if !is_ready => {
                        let said = serde_json::from_str::<Value>(&line);
                        if let Ok(said) = said {
                            (self.settle)(&mut self.args, &said);
                            (is_ready, *was_ready) = (true, true);
                            state.send_replace(State::Ready(said));
                        } else {
                            tracing::warn!(name = self.name, "child says what is not JSON");
                        }
                    }
                    Ok(Some(_)) => {}
                    Ok(None) | Err(_) => is_open = false,
                },
                changed = order.changed() => {
                    // Without a parent that could order anything it ends.
                    let wanted = if changed.is_ok() { *order.borrow() } else { Order::Kill };
                    let signal = if wanted == Order::Term { Signal::TERM } else { Signal::KILL };
                    if let Some(pid) = child.id().filter(|_| wanted != Order::Run) {
                        process::send(pid, signal);
                    }
                    if changed.is_err() {
                        // How it ends is of no interest any more.
                        let _ = child.wait().await;
                        return None;
                    }
                }
                _ = look.tick() => self.cap_log(),
                () = sleep_until(ready_by), if !is_ready => {
                    tracing::error!(name = self.name, "child is not ready in time, it is ended");
                    end(&mut child).await;
                    let (secs, log) = (READY_WITHIN.as_secs(), self.log.display());
                    return Some(format!("it was not ready within {secs} s, and was ended; its log is {log}"));
                }
            }
        }
    }
}

/// Asks a child to end, since a bridge that is killed leaves its broker; kills it when it does not listen.
async fn end(child: &mut Child) {
    if let Some(pid) = child.id() {
        process::send(pid, Signal::TERM);
    }
    if timeout(END_WITHIN, child.wait()).await.is_err() {
        // Nothing is left to do for one that cannot be killed.
        let _ = child.kill().await;
    }
}

/// The last line of a log that was written after `start`, without the name of the program before it.
fn last_line(log: &Path, start: u64) -> Option<String> {
    let mut file = File::open(log).ok()?;
    let end = file.metadata().ok()?.len();
    // It may have begun anew since.
    let start = if start > end { 0 } else { start };
    file.seek(SeekFrom::Start(start.max(end.saturating_sub(TAIL_BYTES)))).ok()?;
    let mut text = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut text).ok()?;
    own_line(&String::from_utf8_lossy(&text))
}

/// The last line of a text that is not empty, without the name of the program before it.
pub fn own_line(text: &str) -> Option<String> {
    let line = text.lines().rev().find(|line| !line.trim().is_empty())?.trim();
    let line = line
        .strip_prefix("signalbox-bridge: ")
        .or_else(|| line.strip_prefix("signalbox-relay: "))
        .unwrap_or(line);
    // Our user knows it under another name.
    let line = line.replace("--nats-listen", "--nats").replace("--nats-server", "SIGNALBOX_NATS_SERVER");
    Some(crate::cli::clean::line(line.strip_prefix("Error: ").unwrap_or(&line)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_is_the_reason() {
        let log = "info: starting\nsignalbox-bridge: port 4280 is taken; choose another with --http\n\n";
        assert_eq!(own_line(log).unwrap(), "port 4280 is taken; choose another with --http");
        assert_eq!(own_line("\n \n"), None);
        let log = "signalbox-bridge: no nats-server; name it with --nats-server";
        assert_eq!(own_line(log).unwrap(), "no nats-server; name it with SIGNALBOX_NATS_SERVER");
    }

    fn shell(dir: &Path, script: &str, restarts: bool) -> Service {
        Service {
            name: "test".to_owned(),
            program: "/bin/sh".into(),
            args: vec!["-c".into(), script.into()],
            log: dir.join("log"),
            pid_file: Some(dir.join("pid")),
            restarts,
            settle: |_, _| {},
        }
    }

    #[tokio::test]
    async fn a_child_that_talks_without_end_fills_no_disk() {
        let dir = tempfile::tempdir().unwrap();
        let (order, orders) = watch::channel(Order::Run);
        let (state, _states) = watch::channel(State::Starting);
        let mut tasks = tokio::task::JoinSet::new();
        let script = "head -c 20000000 /dev/zero | tr '\\0' x >&2; echo end >&2; exec sleep 60";
        tasks.spawn(shell(dir.path(), script, true).run(orders, state));
        let size = |name: &str| std::fs::metadata(dir.path().join(name)).map(|meta| meta.len());
        signalbox_testkit::eventually("a log that began anew", || async {
            anyhow::ensure!(size("log")? < 9_000_000 && size("log.old")? <= 9_000_000, "{}", size("log")?);
            Ok(())
        })
        .await
        .unwrap();
        order.send_replace(Order::Kill);
        tasks.join_next().await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_child_that_is_never_ready_is_said_to_be_so() {
        let dir = tempfile::tempdir().unwrap();
        let (_order, orders) = watch::channel(Order::Run);
        let (state, states) = watch::channel(State::Starting);
        shell(dir.path(), "echo working >&2; exec sleep 600", true).run(orders, state).await;
        let State::Failed(why) = states.borrow().clone() else { panic!("it is ready") };
        assert!(why.starts_with("it was not ready within 120 s, and was ended; its log is "), "{why}");
    }

    #[tokio::test]
    async fn a_child_that_fails_gives_its_last_line() {
        let dir = tempfile::tempdir().unwrap();
        let (_order, orders) = watch::channel(Order::Run);
        let (state, states) = watch::channel(State::Starting);
        shell(dir.path(), "echo first >&2; echo 'port taken' >&2; exit 1", true).run(orders, state).await;
        assert_eq!(*states.borrow(), State::Failed("port taken".to_owned()));
    }

    #[tokio::test]
    async fn a_child_that_died_comes_back_and_ends_when_told() {
        let dir = tempfile::tempdir().unwrap();
        let (order, orders) = watch::channel(Order::Run);
        let (state, mut states) = watch::channel(State::Starting);
        let mut tasks = tokio::task::JoinSet::new();
        let script = "echo \"{\\\"pid\\\":$$}\"; exec sleep 60";
        tasks.spawn(shell(dir.path(), script, true).run(orders, state));
        let pid = |state: &State| match state {
            State::Ready(said) => said["pid"].as_u64(),
            _ => None,
        };
        let first = pid(&states.wait_for(|state| pid(state).is_some()).await.unwrap().clone()).unwrap();
        assert_eq!(super::super::lock::read_pid(&dir.path().join("pid")).map(u64::from), Some(first));
        process::send(u32::try_from(first).unwrap(), Signal::KILL);
        let again = |state: &State| pid(state).is_some_and(|pid| pid != first);
        states.wait_for(again).await.unwrap();
        order.send_replace(Order::Term);
        tasks.join_next().await.unwrap().unwrap();
        assert_eq!(*states.borrow(), State::Ended);
    }
}
