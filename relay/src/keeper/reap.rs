//! Ending processes of a keeper that is gone, by the marks in their environment.
//!
//! A mark is what a process was started with: a process that changed its own environment block, or runs as
//! another user, is not found by itself, but ends with its group when a marked process is in it.

use std::{
    collections::HashSet,
    fs,
    time::{Duration, Instant},
};

use rustix::{
    io::Errno,
    process::{
        Pid, PidfdFlags, Signal, getpgid, getpgrp, getpid, kill_process_group, pidfd_open, pidfd_send_signal,
    },
};
use signalbox_schemas::id::{CommandId, Nonce};

use super::process::{KEEPER_VARIABLE, RUN_VARIABLE};

/// Longest search for marked processes that come into being while others are ended.
const SEARCH_LIMIT: Duration = Duration::from_secs(2);
/// Time for the killed ones to go before the next look.
const ROUND: Duration = Duration::from_millis(10);

/// What came of ending marked processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndedProcesses {
    /// How many marked processes were killed; those that died with their group only are not counted.
    pub ended: usize,
    /// Whether the last look found none.
    pub none_left: bool,
}

/// Kills the processes that the keeper called `instance` started, with their process groups: those of `runs`,
/// or of all its runs, also of ended ones whose children were left on request, when `runs` is absent.
///
/// Repeats until none is left, for at most 2 s. Reads `/proc` on a blocking thread. Kills neither this process
/// nor its group.
pub async fn end_marked(instance: Nonce, runs: Option<&[CommandId]>) -> EndedProcesses {
    let marks = Marks {
        keeper: format!("{KEEPER_VARIABLE}={instance}").into_bytes(),
        runs: runs.map(|runs| runs.iter().map(|cid| format!("{RUN_VARIABLE}={cid}").into_bytes()).collect()),
    };
    let began = Instant::now();
    let mut ended = HashSet::new();
    loop {
        let seen = marks.clone();
        let killed = tokio::task::spawn_blocking(move || kill_round(&seen)).await.unwrap_or_default();
        let none_left = killed.is_empty();
        ended.extend(killed);
        if none_left || began.elapsed() >= SEARCH_LIMIT {
            return EndedProcesses { ended: ended.len(), none_left };
        }
        tokio::time::sleep(ROUND).await;
    }
}

/// Entries of an environment block that name a keeper and its runs.
#[derive(Clone)]
struct Marks {
    keeper: Vec<u8>,
    runs: Option<HashSet<Vec<u8>>>,
}

impl Marks {
    /// Whether an environment block, entries ended by NUL, carries the marks.
    fn stand_in(&self, environment: &[u8]) -> bool {
        let mut entries = environment.split(|byte| *byte == 0);
        let of_keeper = entries.clone().any(|entry| entry == self.keeper);
        of_keeper && self.runs.as_ref().is_none_or(|runs| entries.any(|entry| runs.contains(entry)))
    }
}

/// One look at all processes; answers the marked ones, which were sent a KILL.
fn kill_round(marks: &Marks) -> Vec<Pid> {
    let Ok(folder) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = folder.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(Pid::from_raw).filter(|pid| *pid != getpid() && kill_if_marked(*pid, marks)).collect()
}

fn kill_if_marked(pid: Pid, marks: &Marks) -> bool {
    // The descriptor comes first: it stays with this process if the id is given to another one meanwhile.
    let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { return false };
    // Zombies, kernel threads and other users' processes have nothing to read.
    let Ok(environment) = fs::read(format!("/proc/{}/environ", pid.as_raw_pid())) else { return false };
    if !marks.stand_in(&environment) {
        return false;
    }
    let group = getpgid(Some(pid)).ok();
    match pidfd_send_signal(&process, Signal::KILL) {
        Ok(()) => {}
        Err(Errno::SRCH) => return false,
        Err(errno) => tracing::warn!(pid = pid.as_raw_pid(), %errno, "marked process not ended"),
    }
    // A group that a marked process is in was made by it or by its ancestors in the run.
    if let Some(group) = group.filter(|group| *group != getpgrp())
        && let Err(errno) = kill_process_group(group, Signal::KILL)
        && errno != Errno::SRCH
    {
        tracing::warn!(group = group.as_raw_pid(), %errno, "group of a marked process not ended");
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(b"A=1\0SIGNALBOX_KEEPER=k\0SIGNALBOX_RUN=r\0", true, true)]
    #[case(b"SIGNALBOX_RUN=other\0SIGNALBOX_KEEPER=k\0", true, false)]
    #[case(b"SIGNALBOX_KEEPER=kk\0SIGNALBOX_RUN=r\0", false, false)]
    #[case(b"X=SIGNALBOX_KEEPER=k\0SIGNALBOX_RUN=r\0", false, false)]
    #[case(b"", false, false)]
    fn marks_are_whole_entries(#[case] environment: &[u8], #[case] of_keeper: bool, #[case] of_run: bool) {
        let keeper = b"SIGNALBOX_KEEPER=k".to_vec();
        let runs = HashSet::from([b"SIGNALBOX_RUN=r".to_vec()]);
        assert_eq!(Marks { keeper: keeper.clone(), runs: None }.stand_in(environment), of_keeper);
        assert_eq!(Marks { keeper, runs: Some(runs) }.stand_in(environment), of_run);
    }
}
