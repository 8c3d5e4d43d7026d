//! Ending processes of a keeper that is gone, by the marks in their environment.
//!
//! A mark is what a process was started with: a process that changed its own environment block, or runs as
//! another user, is not found by itself, but ends with its group when a marked process is in it.

use std::{
    collections::HashSet,
    fs, io,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::{
    io::Errno,
    process::{
        Pid, PidfdFlags, Signal, getpgid, getpgrp, getpid, kill_process_group, pidfd_open, pidfd_send_signal,
    },
};
use signalbox_schemas::id::{CommandId, Nonce};

use super::{
    open::OpenRun,
    process::{KEEPER_VARIABLE, RUN_VARIABLE, STORE_VARIABLE},
};

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

/// Kills the processes that the keeper called `instance` started for `runs`, with their process groups. Not those of
/// other runs: an ended one may have left children on request.
///
/// Repeats until none is left, for at most 2 s. Reads `/proc` on a blocking thread. Kills neither this process
/// nor its group.
pub async fn end_marked(instance: Nonce, runs: &[CommandId]) -> EndedProcesses {
    let keeper = entry(KEEPER_VARIABLE, instance.to_string().as_bytes());
    let run = |cid: &CommandId| entry(RUN_VARIABLE, cid.to_string().as_bytes());
    end(Marks::Keeper { keeper, runs: runs.iter().map(run).collect() }).await
}

/// Kills what former keepers of `store` left running: processes whose mark names that store and another keeper than
/// `instance`, with their process groups; of `open` runs only, unless nothing is known about those. Only for the keeper
/// that holds the store's lock: there is no other one then whose they could be. Left alone are processes of other
/// containers, where the same path is another store.
///
/// Bounds as for [`end_marked`].
pub(crate) async fn end_left_behind(
    store: &Path,
    instance: Nonce,
    open: Option<&[OpenRun]>,
) -> EndedProcesses {
    if open.is_some_and(<[_]>::is_empty) {
        return EndedProcesses { ended: 0, none_left: true };
    }
    let Some(here) = Namespaces::of("self") else { return EndedProcesses { ended: 0, none_left: false } };
    let run = |(instance, cid): &OpenRun| {
        let keeper = entry(KEEPER_VARIABLE, instance.to_string().as_bytes());
        [keeper, entry(RUN_VARIABLE, cid.to_string().as_bytes())]
    };
    end(Marks::LeftBehind {
        store: entry(STORE_VARIABLE, store.as_os_str().as_bytes()),
        keeper: entry(KEEPER_VARIABLE, instance.to_string().as_bytes()),
        open: open.map(|open| open.iter().map(run).collect()),
        here,
    })
    .await
}

async fn end(marks: Marks) -> EndedProcesses {
    let began = Instant::now();
    let mut ended = HashSet::new();
    loop {
        let seen = marks.clone();
        let looked = tokio::task::spawn_blocking(move || kill_round(&seen)).await;
        // Who could not look cannot say that none is left.
        let killed = match looked.map_err(io::Error::other).flatten() {
            Ok(killed) => killed,
            Err(error) => {
                tracing::error!(%error, "processes cannot be searched");
                return EndedProcesses { ended: ended.len(), none_left: false };
            }
        };
        let none_left = killed.is_empty();
        ended.extend(killed);
        if none_left || began.elapsed() >= SEARCH_LIMIT {
            return EndedProcesses { ended: ended.len(), none_left };
        }
        tokio::time::sleep(ROUND).await;
    }
}

/// Processes to be ended, by entries of their environment block.
#[derive(Clone)]
enum Marks {
    /// Those of these runs of a keeper.
    Keeper { keeper: Vec<u8>, runs: HashSet<Vec<u8>> },
    /// Those of a store that are not of its present keeper, where that keeper is; by keeper and run, or all of them.
    LeftBehind { store: Vec<u8>, keeper: Vec<u8>, open: Option<Vec<[Vec<u8>; 2]>>, here: Namespaces },
}

/// An entry of an environment block.
fn entry(name: &str, value: &[u8]) -> Vec<u8> {
    [name.as_bytes(), b"=", value].concat()
}

impl Marks {
    /// Whether an environment block, entries ended by NUL, carries the marks.
    fn stand_in(&self, environment: &[u8]) -> bool {
        let has = |wanted: &[u8]| environment.split(|byte| *byte == 0).any(|entry| entry == wanted);
        match self {
            Self::Keeper { keeper, runs } => has(keeper) && runs.iter().any(|run| has(run)),
            Self::LeftBehind { store, keeper, open, .. } => {
                let of_run = |run: &[Vec<u8>; 2]| run.iter().all(|entry| has(entry));
                has(store) && !has(keeper) && open.as_ref().is_none_or(|open| open.iter().any(of_run))
            }
        }
    }

    /// Whether a process that carries the marks is one that they speak of.
    fn mean(&self, pid: Pid) -> bool {
        match self {
            Self::Keeper { .. } => true,
            Self::LeftBehind { here, .. } => {
                Namespaces::of(&pid.as_raw_pid().to_string()).as_ref() == Some(here)
            }
        }
    }
}

/// Where a process lives: what paths and process ids mean there, see namespaces(7).
#[derive(Clone, PartialEq, Eq)]
struct Namespaces([PathBuf; 2]);

impl Namespaces {
    /// Of a process in `/proc`. None when it is gone or somebody else's.
    fn of(process: &str) -> Option<Self> {
        let of = |kind: &str| fs::read_link(format!("/proc/{process}/ns/{kind}")).ok();
        Some(Self([of("mnt")?, of("pid")?]))
    }
}

/// One look at all processes; answers the marked ones, which were sent a KILL.
fn kill_round(marks: &Marks) -> io::Result<Vec<Pid>> {
    let mut killed = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let pid = name.to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
        killed.extend(pid.filter(|pid| *pid != getpid() && kill_if_marked(*pid, marks)));
    }
    Ok(killed)
}

fn kill_if_marked(pid: Pid, marks: &Marks) -> bool {
    // The descriptor comes first: it stays with this process if the id is given to another one meanwhile.
    let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { return false };
    // Zombies, kernel threads and other users' processes have nothing to read.
    let Ok(environment) = fs::read(format!("/proc/{}/environ", pid.as_raw_pid())) else { return false };
    if !marks.stand_in(&environment) || !marks.mean(pid) {
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
    #[case(b"A=1\0SIGNALBOX_KEEPER=k\0SIGNALBOX_RUN=r\0", true)]
    #[case(b"SIGNALBOX_RUN=other\0SIGNALBOX_KEEPER=k\0", false)]
    #[case(b"SIGNALBOX_KEEPER=kk\0SIGNALBOX_RUN=r\0", false)]
    #[case(b"X=SIGNALBOX_KEEPER=k\0SIGNALBOX_RUN=r\0", false)]
    #[case(b"", false)]
    fn marks_are_whole_entries(#[case] environment: &[u8], #[case] of_run: bool) {
        let keeper = b"SIGNALBOX_KEEPER=k".to_vec();
        let runs = HashSet::from([b"SIGNALBOX_RUN=r".to_vec()]);
        assert_eq!(Marks::Keeper { keeper, runs }.stand_in(environment), of_run);
    }

    #[rstest]
    #[case(b"SIGNALBOX_STORE=/s\0SIGNALBOX_KEEPER=former\0SIGNALBOX_RUN=r\0", true, true)]
    #[case(b"SIGNALBOX_STORE=/s\0SIGNALBOX_KEEPER=former\0SIGNALBOX_RUN=ended\0", true, false)]
    #[case(b"SIGNALBOX_STORE=/s\0SIGNALBOX_KEEPER=another\0SIGNALBOX_RUN=r\0", true, false)]
    #[case(b"SIGNALBOX_STORE=/s\0SIGNALBOX_KEEPER=k\0SIGNALBOX_RUN=r\0", false, false)]
    #[case(b"SIGNALBOX_STORE=/s/t\0SIGNALBOX_KEEPER=former\0SIGNALBOX_RUN=r\0", false, false)]
    #[case(b"SIGNALBOX_KEEPER=former\0SIGNALBOX_RUN=r\0", false, false)]
    fn left_behind_is_what_another_keeper_of_the_store_started(
        #[case] environment: &[u8],
        #[case] with_nothing_known: bool,
        #[case] with_one_open: bool,
    ) {
        let open = vec![[entry(KEEPER_VARIABLE, b"former"), entry(RUN_VARIABLE, b"r")]];
        let is_left_behind = |open| {
            let here = Namespaces::of("self").unwrap();
            let (store, keeper) = (entry(STORE_VARIABLE, b"/s"), entry(KEEPER_VARIABLE, b"k"));
            Marks::LeftBehind { store, keeper, open, here }.stand_in(environment)
        };
        assert_eq!((is_left_behind(None), is_left_behind(Some(open))), (with_nothing_known, with_one_open));
    }
}
