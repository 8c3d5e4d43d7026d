//! What goes into the journal, now or as soon as it takes it.

use std::{io, time::Duration};

use signalbox_schemas::id::CommandId;
use tokio::time::Instant;

use super::{Agent, Done, Stage};
use crate::{
    journal::{Entry, Report, Rewritten},
    nats_link::FactMessage,
};

/// What the journal did not take is offered to it again after this time.
const WRITE_AGAIN: Duration = Duration::from_secs(1);
/// The journal is written anew again after this time when that failed, such as on a full disk.
const REWRITE_AGAIN: Duration = Duration::from_secs(10);
/// What was added to the journal is on the disk this long after, at the latest; coalesces a busy relay's writes.
const SYNC_AFTER: Duration = Duration::from_millis(200);

/// An end that the journal did not take.
pub(super) struct Unwritten {
    pub(super) entry: Entry,
    /// What is sent once it is written.
    pub(super) fact: Option<(Report, FactMessage)>,
}

impl Agent {
    /// Adds to the journal. A failure is counted; the caller decides whether it can go on without.
    pub(super) fn note(&mut self, entry: Entry) -> bool {
        let noted = self.journal.borrow_mut().append(entry);
        if let Err(error) = &noted
            && self.counters.count("journal_write")
        {
            tracing::error!(error = signalbox_schemas::error::report(error), "nothing new is begun");
        }
        noted.is_ok()
    }

    /// Writes down how a command ended here and lets go of it; it stays until that is written.
    pub(super) fn settle(&mut self, cid: CommandId, entry: Entry) {
        self.look = true;
        self.unwritten.remove(&cid);
        if self.note(entry.clone()) {
            self.runs.remove(&cid);
            return;
        }
        if let Some(run) = self.runs.get_mut(&cid) {
            run.stage = Stage::Reporting;
        }
        self.write_later(cid, Unwritten { entry, fact: None });
    }

    pub(super) fn write_later(&mut self, cid: CommandId, unwritten: Unwritten) {
        self.unwritten.insert(cid, unwritten);
        self.wake_at(Instant::now() + WRITE_AGAIN);
    }

    /// Writes down what could not be before, as far as the journal takes it.
    pub(super) fn write_again(&mut self) {
        let cids: Vec<CommandId> = self.unwritten.keys().copied().collect();
        for cid in cids {
            let Some(Unwritten { entry, fact }) = self.unwritten.remove(&cid) else { continue };
            if !self.note(entry.clone()) {
                self.write_later(cid, Unwritten { entry, fact });
                return;
            }
            match fact {
                Some((report, fact)) => self.deliver(report, fact),
                // It was sent when it could not be written, and waits for its acknowledgement.
                None if matches!(entry, Entry::Fact { .. }) => {}
                None => {
                    self.runs.remove(&cid);
                    self.look = true;
                }
            }
        }
    }

    pub(super) fn sync_later(&mut self) {
        if self.timers.sync.is_none() && !self.syncing && self.journal.borrow().is_dirty() {
            self.timers.sync = Some(Instant::now() + SYNC_AFTER);
        }
    }

    pub(super) fn sync(&mut self) {
        let Some(file) = self.journal.borrow_mut().take_dirty() else { return };
        self.syncing = true;
        self.jobs.spawn_blocking(move || Done::Synced(file.and_then(|file| file.sync_data())));
    }

    /// Has the journal written anew when it should be, unless that failed lately.
    pub(super) fn rewrite_journal(&mut self) {
        let mut journal = self.journal.borrow_mut();
        if self.timers.rewrite.is_none() && journal.wants_rewrite() {
            let draft = journal.begin_rewrite();
            self.jobs.spawn_blocking(move || Done::Rewritten(draft.write()));
        }
    }

    pub(super) fn on_rewritten(&mut self, written: io::Result<Rewritten>) {
        let ended = self.journal.borrow_mut().end_rewrite(written);
        if let Err(error) = ended {
            self.timers.rewrite = Some(Instant::now() + REWRITE_AGAIN);
            if self.counters.count("journal_rewrite") {
                tracing::warn!(%error, "journal not written anew");
            }
        }
    }
}
