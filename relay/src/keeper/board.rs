//! The keeper's memory: which runs there are, how they stand, and who has to be told.
//!
//! A connection is told by name only ("this run changed") and reads the newest status when it can write, so a
//! slow relay costs one entry per run and never sees an older status after a newer one.

use std::{
    cell::RefCell,
    collections::{BTreeSet, HashMap},
    rc::{Rc, Weak},
};

use signalbox_schemas::{id::CommandId, limit::DAY_MS};
use tokio::sync::Notify;

use super::{
    process::Group,
    protocol::{Phase, Refusal, RunStatus},
};

/// Runs that go on or wait to be forgotten. A relay has few slots and forgets what was acknowledged, so this
/// many mean that it does not come to that; they take about 2 MB.
const MAX_RUNS: usize = 4096;
/// Ids remembered at once, 24 bytes each. Those of runs that were forgotten go a day after their command has expired,
/// as in the relay's journal.
const MAX_REMEMBERED: usize = 200_000;
/// Expiry of a command whose relay does not name one: its id stays.
const NEVER: u64 = u64::MAX;

/// All runs of this keeper's life.
#[derive(Default)]
pub(crate) struct Board(RefCell<Inner>);

#[derive(Default)]
struct Inner {
    runs: HashMap<CommandId, Entry>,
    /// When they expire, Unix ms.
    forgotten: HashMap<CommandId, u64>,
    /// Latest expiry of an id that is not remembered any more. It rests on what was said and not on the clock of the
    /// moment, so that no clock that is set makes a command start twice.
    dropped_until: u64,
    watchers: Vec<Weak<Watcher>>,
    closed: bool,
}

struct Entry {
    status: RunStatus,
    expires_at: u64,
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
    /// Decides about a `start`. `expires_at` is 0 when it is not known.
    pub(crate) fn admit(&self, cid: CommandId, expires_at: u64) -> Result<Admission, Refusal> {
        let inner = self.0.borrow();
        if inner.runs.contains_key(&cid) {
            Ok(Admission::Known)
        } else if inner.forgotten.contains_key(&cid) {
            Err(Refusal::Forgotten)
        } else if inner.closed {
            Err(Refusal::ShuttingDown)
        } else if expires_at > 0 && expires_at <= inner.dropped_until {
            Err(Refusal::Expired)
        } else if inner.free() == 0 {
            Err(Refusal::JournalFull)
        } else if inner.runs.len() >= MAX_RUNS {
            Err(Refusal::Busy)
        } else {
            Ok(Admission::New)
        }
    }

    /// Remembers a run that was just started, or failed to; answers what its cancelling will ring.
    pub(crate) fn insert(&self, status: RunStatus, group: Option<Group>, expires_at: u64) -> Rc<Notify> {
        let cancel = Rc::new(Notify::new());
        let cid = status.cid;
        let expires_at = if expires_at == 0 { NEVER } else { expires_at };
        let entry = Entry { status, expires_at, group, cancel: Rc::clone(&cancel) };
        self.0.borrow_mut().runs.insert(cid, entry);
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
        match inner.runs.get(&cid).map(|entry| (entry.status.phase, entry.expires_at)) {
            Some((Phase::Running, _)) => Err(Refusal::Running),
            Some((Phase::Ended, expires_at)) => {
                inner.runs.remove(&cid);
                inner.forgotten.insert(cid, expires_at);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Remembers a run that was never started as one that is over. One that was started stays what it is. Some are taken
    /// above the limit: what was claimed before it was reached may have to be declined after.
    pub(crate) fn decline(&self, cid: CommandId, expires_at: u64) {
        let mut inner = self.0.borrow_mut();
        let remembered = inner.runs.len() + inner.forgotten.len();
        if !inner.runs.contains_key(&cid) && remembered < MAX_REMEMBERED + MAX_RUNS {
            inner.forgotten.insert(cid, expires_at);
        }
    }

    /// Makes room when half of it is used up. Not before: where a clock jumped ahead and back, commands that expire no
    /// later than one that was dropped too early are not started.
    pub(crate) fn prune_when_short(&self, now_ms: u64) {
        if self.free() < MAX_REMEMBERED / 2 {
            self.prune(now_ms);
        }
    }

    /// Drops ids of forgotten runs whose command expired more than a day ago.
    fn prune(&self, now_ms: u64) {
        let mut inner = self.0.borrow_mut();
        let mut dropped_until = inner.dropped_until;
        inner.forgotten.retain(|_, expires_at| {
            let stays = now_ms < expires_at.saturating_add(DAY_MS);
            if !stays {
                dropped_until = dropped_until.max(*expires_at);
            }
            stays
        });
        inner.dropped_until = dropped_until;
    }

    /// How many more ids can be remembered.
    pub(crate) fn free(&self) -> usize {
        self.0.borrow().free()
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

    /// How many runs go on that have no processes here.
    pub(crate) fn remote_runs(&self) -> usize {
        self.0.borrow().remote_runs().count()
    }

    /// Starts nothing and tells nobody any more: what ends from now on was ended by the keeper's own end, which
    /// the relay calls `lost`. Answers the runs that go on here; those elsewhere are asked to end.
    pub(crate) fn close(&self) -> Vec<(CommandId, Group)> {
        let mut inner = self.0.borrow_mut();
        inner.closed = true;
        inner.remote_runs().for_each(|entry| entry.cancel.notify_one());
        inner.runs.iter().filter_map(|(cid, entry)| Some((*cid, entry.group?))).collect()
    }
}

impl Inner {
    fn remote_runs(&self) -> impl Iterator<Item = &Entry> {
        self.runs.values().filter(|entry| entry.status.phase == Phase::Running && entry.group.is_none())
    }

    fn free(&self) -> usize {
        MAX_REMEMBERED.saturating_sub(self.runs.len() + self.forgotten.len())
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
        RunStatus {
            cid,
            phase,
            started_at_ms: 1,
            begun_at_ms: None,
            pid: None,
            stdout: stream,
            stderr: stream,
            end: None,
        }
    }

    #[test]
    fn an_id_is_started_once_in_a_life() {
        let board = Board::default();
        let run = status(1, Phase::Running);
        assert!(matches!(board.admit(run.cid, 9), Ok(Admission::New)));
        board.insert(run.clone(), None, 9);
        assert!(matches!(board.admit(run.cid, 9), Ok(Admission::Known)));
        assert_eq!(board.forget(run.cid), Err(Refusal::Running));
        board.record(status(1, Phase::Ended));
        assert!(matches!(board.admit(run.cid, 9), Ok(Admission::Known)));
        assert_eq!(board.forget(run.cid), Ok(()));
        assert_eq!(board.admit(run.cid, 9).err(), Some(Refusal::Forgotten));
    }

    #[test]
    fn memory_is_bounded() {
        let board = Board::default();
        for number in 0..MAX_RUNS as u128 {
            board.insert(status(number, Phase::Ended), None, 5);
        }
        let next = status(u128::from(u64::MAX), Phase::Running).cid;
        assert_eq!(board.admit(next, 9).err(), Some(Refusal::Busy));
        for number in 0..MAX_REMEMBERED as u128 {
            let run = status(number, Phase::Ended);
            board.insert(run.clone(), None, 5);
            board.forget(run.cid).unwrap();
        }
        board.prune_when_short(5 + DAY_MS - 1);
        assert_eq!(board.admit(next, 9).err(), Some(Refusal::JournalFull));
        board.prune_when_short(5 + DAY_MS);
        assert!(matches!(board.admit(next, 9), Ok(Admission::New)));
    }

    #[test]
    fn what_was_declined_is_never_started() {
        let board = Board::default();
        let (never, running) = (status(1, Phase::Running), status(2, Phase::Running));
        board.decline(never.cid, 9);
        assert_eq!(board.admit(never.cid, 9).err(), Some(Refusal::Forgotten));
        board.insert(running.clone(), None, 9);
        board.decline(running.cid, 9);
        assert!(matches!(board.admit(running.cid, 9), Ok(Admission::Known)));
        assert_eq!(board.forget(running.cid), Err(Refusal::Running));
        board.prune(9 + DAY_MS);
        assert_eq!(board.admit(never.cid, 9).err(), Some(Refusal::Expired));
    }

    #[test]
    fn an_id_that_is_not_remembered_any_more_is_started_by_no_clock() {
        let board = Board::default();
        let started = |number, expires_at| {
            let run = status(number, Phase::Ended);
            board.insert(run.clone(), None, expires_at);
            board.forget(run.cid).unwrap();
            run.cid
        };
        let (old, newer, nameless) = (started(1, 5), started(2, 6), started(3, 0));
        board.prune_when_short(5 + DAY_MS);
        assert_eq!(board.admit(old, 5).err(), Some(Refusal::Forgotten), "there is room");
        board.prune(5 + DAY_MS);
        assert_eq!(board.admit(old, 5).err(), Some(Refusal::Expired));
        assert_eq!(board.admit(newer, 6).err(), Some(Refusal::Forgotten));
        board.prune(u64::MAX - 1);
        assert_eq!(board.admit(newer, 6).err(), Some(Refusal::Expired));
        assert_eq!(
            board.admit(nameless, 0).err(),
            Some(Refusal::Forgotten),
            "an older relay names no expiry"
        );
    }

    #[tokio::test]
    async fn a_slow_watcher_sees_the_newest_status_once() {
        let board = Board::default();
        let (_, watcher) = board.watch();
        let mut run = status(1, Phase::Running);
        board.insert(run.clone(), None, 9);
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
