//! What goes into the journal, now or as soon as it takes it. While it does not, as on a full disk, nothing new is claimed.

use std::{collections::BTreeMap, time::Duration};

use signalbox_schemas::{error::report, id::CommandId};
use tokio::time::Instant;

use super::worker::Worker;
use crate::journal::{Entry, JournalError, KeeperMark};

/// What the journal did not take is offered to it again after this time.
const WRITE_AGAIN: Duration = Duration::from_secs(1);
/// Room that is kept before a command is claimed, bytes: for the longest line that a claim can be, and for the ends of
/// those that run.
const CLAIM_ROOM: usize = 512 * 1024;

/// What the journal did not take.
#[derive(Debug, Default)]
pub(super) struct Unwritten {
    /// The life of the keeper that is there. No claim goes before it: what that keeper leaves behind when it dies is known
    /// by it.
    mark: Option<KeeperMark>,
    /// The newest word about each command. Nothing else is made of what the journal still tells of it.
    ends: BTreeMap<CommandId, Entry>,
    /// When it is offered again. Present while the journal takes nothing.
    pub(super) again_at: Option<Instant>,
    /// Whether that was said.
    is_said: bool,
}

impl Unwritten {
    /// Whether the journal takes nothing, as far as is known.
    pub(super) fn is_stuck(&self) -> bool {
        self.again_at.is_some()
    }

    /// Whether a command is over, and the journal does not know how far.
    pub(super) fn is_about(&self, cid: CommandId) -> bool {
        self.ends.contains_key(&cid)
    }

    /// Whether there is such a command.
    pub(super) fn has_ends(&self) -> bool {
        !self.ends.is_empty()
    }

    fn keep(&mut self, entry: Entry) {
        match entry {
            Entry::Keeper { mark } => self.mark = Some(mark),
            Entry::Fact { cid, .. }
            | Entry::Known { cid, .. }
            | Entry::Acked { cid }
            | Entry::Decided { cid } => {
                self.ends.insert(cid, entry);
            }
            // A claim is refused when it cannot be written, and this transport writes nothing else.
            Entry::Mailbox { .. }
            | Entry::Inventory { .. }
            | Entry::Applying { .. }
            | Entry::Claim { .. }
            | Entry::Unclaimed { .. }
            | Entry::Chunk { .. } => {}
        }
    }

    /// Takes the next one to be offered again.
    fn pop(&mut self) -> Option<Entry> {
        let mark = self.mark.take().map(|mark| Entry::Keeper { mark });
        mark.or_else(|| self.ends.pop_first().map(|(_, entry)| entry))
    }
}

impl Worker {
    /// Writes down a keeper's life, or how far a command that is over has come; later, where the journal does not take it now.
    /// Output is let go of once it is written that nobody needs it: a process after this one would not find it.
    pub(super) fn note(&mut self, entry: Entry) {
        let written = self.journal.append(entry.clone());
        match (written, entry) {
            (Ok(()), Entry::Known { cid, .. }) => {
                self.unwritten.ends.remove(&cid);
                self.unforgotten.push_back(cid);
            }
            (Ok(()), _) => {}
            (Err(error), entry) => {
                self.unwritten.keep(entry);
                self.write_later(&error);
            }
        }
    }

    /// Writes down a claim, unless the life that it belongs to cannot be.
    pub(super) fn write_claim(&mut self, claim: Entry) -> Result<(), JournalError> {
        let mark = self.unwritten.mark.clone();
        let life = mark.map_or(Ok(()), |mark| self.journal.append(Entry::Keeper { mark }));
        if life.is_ok() {
            self.unwritten.mark = None;
        }
        life.and_then(|()| self.journal.append(claim)).inspect_err(|error| self.write_later(error))
    }

    /// Whether the journal will take what is to be written about one more command.
    pub(super) fn keep_room(&mut self) -> bool {
        match self.journal.make_room(CLAIM_ROOM) {
            Ok(()) => true,
            Err(error) => {
                self.write_later(&error);
                false
            }
        }
    }

    /// Writes down what could not be before, as far as the journal takes it.
    pub(super) fn write_again(&mut self) {
        let is_stuck = self.unwritten.again_at.take().is_some();
        while let Some(entry) = self.unwritten.pop() {
            self.note(entry);
            if self.unwritten.is_stuck() {
                return;
            }
        }
        if is_stuck && self.keep_room() {
            self.unwritten.is_said = false;
            tracing::info!("The journal can be written again");
        }
    }

    fn write_later(&mut self, error: &JournalError) {
        self.unwritten.again_at = Some(Instant::now() + WRITE_AGAIN);
        if !std::mem::replace(&mut self.unwritten.is_said, true) {
            tracing::error!(
                error = report(error),
                "No more commands are claimed until the journal can be written"
            );
        }
    }
}
