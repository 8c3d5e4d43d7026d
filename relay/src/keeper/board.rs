//! The keeper's memory: which runs there are, how they stand, and who has to be told.
//!
//! A connection is told by name only ("this run changed") and reads the newest status when it can write, so a
//! slow relay costs one entry per run and never sees an older status after a newer one.

use std::{
    cell::RefCell,
    collections::{BTreeSet, HashMap, HashSet},
    rc::{Rc, Weak},
};

use signalbox_schemas::id::CommandId;
use tokio::sync::Notify;

use super::{
    process::Group,
    protocol::{Phase, Refusal, RunStatus},
};

/// Runs that go on or wait to be forgotten. A relay has few slots and forgets what was acknowledged, so this
/// many mean that it does not come to that; they take about 2 MB.
const MAX_RUNS: usize = 4096;
/// Ids remembered in one keeper's life, 16 bytes each.
const MAX_REMEMBERED: usize = 200_000;

/// All runs of this keeper's life.
#[derive(Default)]
pub(crate) struct Board(RefCell<Inner>);

#[derive(Default)]
struct Inner {
    runs: HashMap<CommandId, Entry>,
    forgotten: HashSet<CommandId>,
    watchers: Vec<Weak<Watcher>>,
    closed: bool,
}

struct Entry {
    status: RunStatus,
    /// Present until the group was ended; afterwards its id may be somebody else's.
    group: Option<Group>,
    cancel: Rc<Notify>,
}

/// What a `start` comes to.
pub(crate) enum Admission {
    /// Never seen: start it.
    New,
    /// Started earlier in this life.
    Known,
}

impl Board {
    /// Decides about a `start`.
    pub(crate) fn admit(&self, cid: CommandId) -> Result<Admission, Refusal> {
        let inner = self.0.borrow();
        if inner.runs.contains_key(&cid) {
            Ok(Admission::Known)
        } else if inner.forgotten.contains(&cid) {
            Err(Refusal::Forgotten)
        } else if inner.closed {
            Err(Refusal::ShuttingDown)
        } else if inner.runs.len() + inner.forgotten.len() >= MAX_REMEMBERED {
            Err(Refusal::JournalFull)
        } else if inner.runs.len() >= MAX_RUNS {
            Err(Refusal::Busy)
        } else {
            Ok(Admission::New)
        }
    }

    /// Remembers a run that was just started, or failed to; answers what its cancelling will ring.
    pub(crate) fn insert(&self, status: RunStatus, group: Option<Group>) -> Rc<Notify> {
        let cancel = Rc::new(Notify::new());
        let cid = status.cid;
        self.0.borrow_mut().runs.insert(cid, Entry { status, group, cancel: Rc::clone(&cancel) });
        self.tell(cid);
        cancel
    }

    /// Records the newest status of a run; nobody is told yet.
    pub(crate) fn record(&self, status: RunStatus) {
        if let Some(entry) = self.0.borrow_mut().runs.get_mut(&status.cid) {
            if status.phase == Phase::Ended {
                entry.group = None;
            }
            entry.status = status;
        }
    }

    /// Tells every connection that a run changed.
    pub(crate) fn tell(&self, cid: CommandId) {
        let mut inner = self.0.borrow_mut();
        if inner.closed {
            return;
        }
        inner.watchers.retain(|watcher| {
            let Some(watcher) = watcher.upgrade() else { return false };
            watcher.changed.borrow_mut().insert(cid);
            watcher.ring.notify_one();
            true
        });
    }

    /// Asks a run to end, if it goes on.
    pub(crate) fn cancel(&self, cid: CommandId) {
        let inner = self.0.borrow();
        if let Some(entry) = inner.runs.get(&cid).filter(|entry| entry.status.phase == Phase::Running) {
            entry.cancel.notify_one();
        }
    }

    /// Lets go of an ended run and keeps its id.
    pub(crate) fn forget(&self, cid: CommandId) -> Result<(), Refusal> {
        let mut inner = self.0.borrow_mut();
        match inner.runs.get(&cid).map(|entry| entry.status.phase) {
            Some(Phase::Running) => Err(Refusal::Running),
            Some(Phase::Ended) => {
                inner.runs.remove(&cid);
                inner.forgotten.insert(cid);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// All runs as they stand, and a watcher that hears of every change from now on.
    pub(crate) fn watch(&self) -> (Vec<RunStatus>, Rc<Watcher>) {
        let mut inner = self.0.borrow_mut();
        let watcher = Rc::new(Watcher::default());
        inner.watchers.push(Rc::downgrade(&watcher));
        (inner.runs.values().map(|entry| entry.status.clone()).collect(), watcher)
    }

    /// The newest status of each of these runs that is still known.
    pub(crate) fn newest(&self, cids: &BTreeSet<CommandId>) -> Vec<RunStatus> {
        let inner = self.0.borrow();
        cids.iter().filter_map(|cid| inner.runs.get(cid)).map(|entry| entry.status.clone()).collect()
    }

    /// Starts nothing and tells nobody any more: what ends from now on was ended by the keeper's own end, which
    /// the relay calls `lost`. Answers the runs that go on.
    pub(crate) fn close(&self) -> Vec<(CommandId, Group)> {
        let mut inner = self.0.borrow_mut();
        inner.closed = true;
        inner.runs.iter().filter_map(|(cid, entry)| Some((*cid, entry.group?))).collect()
    }
}

/// One connection's list of runs that changed since it last looked.
#[derive(Default)]
pub(crate) struct Watcher {
    changed: RefCell<BTreeSet<CommandId>>,
    ring: Notify,
}

impl Watcher {
    /// Waits until a run changed and takes the list. Cancel-safe.
    pub(crate) async fn changed(&self) -> BTreeSet<CommandId> {
        loop {
            let changed = self.changed.take();
            if !changed.is_empty() {
                return changed;
            }
            self.ring.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keeper::protocol::StreamStatus;

    fn status(number: u128, phase: Phase) -> RunStatus {
        let cid = CommandId::new(uuid::Builder::from_custom_bytes(number.to_be_bytes()).into_uuid()).unwrap();
        let stream = StreamStatus::default();
        RunStatus { cid, phase, started_at_ms: 1, pid: None, stdout: stream, stderr: stream, end: None }
    }

    #[test]
    fn an_id_is_started_once_in_a_life() {
        let board = Board::default();
        let run = status(1, Phase::Running);
        assert!(matches!(board.admit(run.cid), Ok(Admission::New)));
        board.insert(run.clone(), None);
        assert!(matches!(board.admit(run.cid), Ok(Admission::Known)));
        assert_eq!(board.forget(run.cid), Err(Refusal::Running));
        board.record(status(1, Phase::Ended));
        assert!(matches!(board.admit(run.cid), Ok(Admission::Known)));
        assert_eq!(board.forget(run.cid), Ok(()));
        assert_eq!(board.admit(run.cid).err(), Some(Refusal::Forgotten));
    }

    #[test]
    fn memory_is_bounded() {
        let board = Board::default();
        for number in 0..MAX_RUNS as u128 {
            board.insert(status(number, Phase::Ended), None);
        }
        let next = status(u128::from(u64::MAX), Phase::Running).cid;
        assert_eq!(board.admit(next).err(), Some(Refusal::Busy));
        for number in 0..MAX_REMEMBERED as u128 {
            let run = status(number, Phase::Ended);
            board.insert(run.clone(), None);
            board.forget(run.cid).unwrap();
        }
        assert_eq!(board.admit(next).err(), Some(Refusal::JournalFull));
    }

    #[tokio::test]
    async fn a_slow_watcher_sees_the_newest_status_once() {
        let board = Board::default();
        let (_, watcher) = board.watch();
        let mut run = status(1, Phase::Running);
        board.insert(run.clone(), None);
        for bytes in 1..=1000 {
            run.stdout.bytes = bytes;
            board.record(run.clone());
            board.tell(run.cid);
        }
        let changed = watcher.changed().await;
        assert_eq!(board.newest(&changed), [run]);
        assert!(watcher.changed.borrow().is_empty());
    }
}
