//! One broker process: started here, or found running.

use std::{
    fs::{self, OpenOptions},
    io,
    net::SocketAddr,
    os::{
        fd::OwnedFd,
        unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    },
    path::Path,
    process::Stdio,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, geteuid, pidfd_open, pidfd_send_signal},
};
use signalbox_schemas::layout::Layout;
use tokio::{
    process::{Child, Command},
    time::{sleep, timeout},
};

use super::BrokerError;

/// Most bytes of the log's end that are looked at for last words.
const LAST_WORDS_BYTES: usize = 4096;
/// Pause between two looks at a broker that is not our child.
const LOOK_STEP: Duration = Duration::from_millis(100);

/// A process, held by a file descriptor: its number may be given to another one, the descriptor never.
///
/// A broker does not outlive this: what is dropped without [`Process::end`], such as in a start that is given up, is
/// ended.
pub(super) struct Process {
    pid: u32,
    fd: OwnedFd,
    /// Ours to reap, unless it was found running.
    child: Option<Child>,
    /// It was found running and is a broker: ours to end.
    pub(super) is_adopted: bool,
}

impl Process {
    fn hold(pid: u32) -> io::Result<Self> {
        let number = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let number = number.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(Self { pid, fd: pidfd_open(number, PidfdFlags::empty())?, child: None, is_adopted: false })
    }

    /// Holds a child just started; ends it when that is impossible, since nobody else could.
    fn hold_child(child: Child) -> io::Result<Self> {
        let pid = child.id().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        let mut process = Self::hold(pid)?;
        process.child = Some(child);
        Ok(process)
    }

    /// Its number.
    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// Waits for its end. Cancel safe; answers at once when it ended before.
    pub(super) async fn ended(&mut self) -> Result<(), BrokerError> {
        let failed = |source| BrokerError::Process { doing: "watch", source };
        if let Some(child) = &mut self.child {
            return child.wait().await.map(drop).map_err(failed);
        }
        while !self.has_ended().map_err(failed)? {
            sleep(LOOK_STEP).await;
        }
        Ok(())
    }

    fn has_ended(&self) -> io::Result<bool> {
        let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
        Ok(poll(&mut fds, Some(&Timespec::default()))? > 0)
    }

    /// Ends it: asked first, killed after `patience`.
    pub(super) async fn end(&mut self, patience: Duration) -> Result<(), BrokerError> {
        self.signal(Signal::TERM)?;
        if let Ok(ended) = timeout(patience, self.ended()).await {
            return ended;
        }
        self.signal(Signal::KILL)?;
        self.ended().await
    }

    fn signal(&self, signal: Signal) -> Result<(), BrokerError> {
        match pidfd_send_signal(&self.fd, signal) {
            // It is gone already.
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(BrokerError::Process { doing: "signal", source: error.into() }),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A child is killed by its own handle.
        if self.is_adopted {
            // Best effort: nobody is left to hear of it.
            let _ = self.signal(Signal::TERM);
        }
    }
}

/// Starts a broker on the state directory's configuration and store.
pub(super) fn spawn(layout: &Layout, server: &Path, listen: SocketAddr) -> Result<Process, BrokerError> {
    let failed = |source| BrokerError::Process { doing: "start", source };
    let log_path = layout.log("broker");
    // What it says before it has opened its log goes there as well.
    let log = OpenOptions::new().create(true).append(true).mode(0o600).open(&log_path).map_err(failed)?;
    let child = Command::new(server)
        .arg("-c")
        .arg(layout.nats_conf())
        .args(["--addr", &listen.ip().to_string(), "--port", &listen.port().to_string()])
        .arg("--store_dir")
        .arg(layout.jetstream_dir())
        .arg("-l")
        .arg(&log_path)
        .current_dir(layout.root())
        // A Ctrl-C in the terminal is for the bridge, which ends the broker last.
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        // Only a bridge that is killed leaves its broker behind.
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    Process::hold_child(child).map_err(failed)
}

/// The running broker of this state directory, and where it listens.
///
/// It is recognised by its command line, not by a pid file: a bridge that was killed may not have written one. Nor by
/// its binary, which may have another name or have been replaced since: one that is not found means two on one store.
pub(super) fn find(layout: &Layout) -> Result<Option<(Process, SocketAddr)>, BrokerError> {
    let failed = |source| BrokerError::Process { doing: "look for", source };
    for entry in fs::read_dir("/proc").map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let pid = entry.file_name().to_str().and_then(|name| name.parse().ok());
        let Some(pid) = pid.filter(|pid| listen_of(*pid, layout).is_some()) else { continue };
        // Held first, then looked at again: in between, the number may have changed its owner.
        let Ok(mut process) = Process::hold(pid) else { continue };
        if let Some(listen) = listen_of(pid, layout) {
            process.is_adopted = true;
            return Ok(Some((process, listen)));
        }
    }
    Ok(None)
}

/// Where the process listens, when it is the broker of this state directory.
fn listen_of(pid: u32, layout: &Layout) -> Option<SocketAddr> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    listen_in(&line, &layout.nats_conf()).filter(|_| is_own(pid))
}

/// Whether the process runs as our own user: anybody can give a process any command line.
fn is_own(pid: u32) -> bool {
    let found = fs::metadata(format!("/proc/{pid}"));
    found.is_ok_and(|found| found.uid() == geteuid().as_raw())
}

/// Reads a command line as [`spawn`] writes it.
fn listen_in(line: &[u8], conf: &Path) -> Option<SocketAddr> {
    let words: Vec<&str> =
        line.split(|byte| *byte == 0).filter_map(|word| str::from_utf8(word).ok()).collect();
    let after = |flag| words.iter().skip_while(|word| **word != flag).nth(1);
    let is_ours = words.get(1) == Some(&"-c") && words.get(2).is_some_and(|word| Path::new(word) == conf);
    is_ours.then(|| Some(SocketAddr::new(after("--addr")?.parse().ok()?, after("--port")?.parse().ok()?)))?
}

/// The last line of the broker's log, without its time and level.
pub(super) fn last_words(layout: &Layout) -> String {
    let log = fs::read(layout.log("broker")).unwrap_or_default();
    let tail = log.get(log.len().saturating_sub(LAST_WORDS_BYTES)..).unwrap_or_default();
    let tail = String::from_utf8_lossy(tail);
    let line = tail.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it left no word").trim();
    let words =
        line.rsplit_once("[FTL] ").or_else(|| line.rsplit_once("[ERR] ")).map_or(line, |(_, words)| words);
    words.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt as _;

    #[test]
    fn a_broker_is_known_by_its_command_line() {
        let conf = Path::new("/s/nats.conf");
        let line =
            |words: &[&str]| words.iter().flat_map(|w| [w.as_bytes(), b"\0"].concat()).collect::<Vec<_>>();
        let ours = ["/x/nats-server", "-c", "/s/nats.conf", "--addr", "127.0.0.1", "--port", "4222"];
        assert_eq!(listen_in(&line(&ours), conf), Some("127.0.0.1:4222".parse().unwrap()));
        assert_eq!(listen_in(&line(&ours), Path::new("/t/nats.conf")), None);
        let mut other = ours;
        other[0] = "/opt/nats-server-2.15.1";
        assert!(listen_in(&line(&other), conf).is_some());
        other[1] = "--config";
        assert_eq!(listen_in(&line(&other), conf), None);
        assert_eq!(listen_in(b"", conf), None);
        assert_eq!(listen_in(&line(&ours[..3]), conf), None);
    }

    #[tokio::test]
    async fn a_process_of_another_user_is_none_of_ours() {
        assert!(is_own(std::process::id()));
        // Root can play somebody else, and for everybody else there is the first process.
        let root = geteuid().is_root();
        let mut other = Command::new("cat");
        other.stdin(Stdio::piped()).kill_on_drop(true);
        let other = root.then(|| other.uid(65_534).spawn().unwrap());
        assert!(!is_own(other.as_ref().map_or(1, |child| child.id().unwrap())));
    }

    #[tokio::test]
    async fn a_process_that_was_found_ends_with_whoever_held_it() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let mut process = Process::hold(child.id().unwrap()).unwrap();
        process.is_adopted = true;
        drop(process);
        let ended = timeout(Duration::from_secs(10), child.wait()).await.expect("it goes on");
        assert!(!ended.unwrap().success());
    }

    #[tokio::test]
    async fn a_process_that_does_not_listen_to_reason_is_killed() {
        let mut child = Command::new("sh")
            .args(["-c", "trap '' TERM; echo ready; read -r line"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        let _open = child.stdin.take();
        let mut ready = [0; 5];
        child.stdout.as_mut().unwrap().read_exact(&mut ready).await.unwrap();
        let mut process = Process::hold_child(child).unwrap();
        let began = std::time::Instant::now();
        process.end(Duration::from_millis(100)).await.unwrap();
        assert!(began.elapsed() >= Duration::from_millis(100), "it listened to reason");
        // A second end of the same process is quick and quiet.
        process.end(Duration::from_mins(1)).await.unwrap();
    }
}
