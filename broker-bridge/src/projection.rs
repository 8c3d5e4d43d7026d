//! What the streams say, folded into rows and into the small part that is kept in memory.
//!
//! [`Projection`] applies the events of one batch to memory and to a transaction of the store. It neither waits
//! nor talks to anybody. Applying is idempotent, and where streams depend on each other (a fact needs its
//! command, a record needs the authors document that names its signer) an event that comes too early is handed
//! back as [`Applied::NotYet`]; the caller reads the other streams up to their present ends and tries again,
//! once. So the order in which streams are read changes nothing.
//!
//! | room | applies |
//! |---|---|
//! | `entity` | authors document, records, heartbeats, mailboxes |
//! | `command` | specs, cancels |
//! | `parts` | parts, until their spec comes |
//! | `grant` | whether a grant is believed |
//! | `rollout` | how far commands have spread |
//! | `run`, `run_row` | facts |
//! | `output` | chunks |
//! | `history` | settled runs and commands of DONE |
//! | [`inventory`] | what relays keep |
//! | `said` | what they say of themselves there, and the labels that count |
//! | [`memory`], [`assignments`] | what is kept in memory |

pub(crate) mod assignments;
pub(crate) mod command;
mod entity;
pub(crate) mod grant;
mod history;
pub(crate) mod inventory;
pub(crate) mod memory;
pub(crate) mod output;
pub(crate) mod parts;
pub(crate) mod rollout;
mod run;
mod run_row;
mod said;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use signalbox_schemas::{
    authors::Role,
    command::CommandSpec,
    id::{CommandId, MachineToken, Sha256},
    mailbox::{AuthorsRef, Basis, Mailbox, Position},
    run::RunState,
    signed::PublicKey,
    subject::FactKind,
};

use crate::{
    ingest::decode::{Decoder, Event, FactMessage},
    store::{Store, StoreError, Txn, key},
    view::Change,
};
use memory::Memory;

pub(crate) use run_row::RunRow;

/// Facts of runs that are not known, kept until the lease holder has purged them. A hostile relay writes them; beyond
/// this they are litter at once.
pub(crate) const MAX_UNKNOWN_FACTS: u64 = 10_000;

/// A command as it was accepted. Its spec and its grants are rows of their own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CommandRow {
    /// Sequence of the spec in CMD.
    pub(crate) sequence: u64,
    /// When the broker stored the spec, Unix ms.
    pub(crate) accepted_at: u64,
    /// Whose grants it came with.
    pub(crate) author: PublicKey,
    /// The machines, sorted.
    pub(crate) machines: Vec<MachineToken>,
    /// Its `expires_at`, Unix ms.
    pub(crate) expires_at: u64,
    /// Whether it stands in DONE.
    pub(crate) done: bool,
    /// SHA-256 of the spec's exact bytes, where what is kept of them is less.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) spec_sha256: Option<Sha256>,
}

/// The mailbox that stands in MBOX.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MailboxRow {
    /// Its sequence in MBOX.
    pub(crate) sequence: u64,
    pub(crate) epoch: u64,
    pub(crate) generation: u64,
    pub(crate) basis: Basis,
    pub(crate) authors: Option<AuthorsRef>,
    pub(crate) offers: Vec<CommandId>,
    pub(crate) cancels: Vec<CommandId>,
    /// SHA-256 of the whole message.
    pub(crate) sha256: Sha256,
}

impl MailboxRow {
    pub(crate) fn of(mailbox: &Mailbox, sequence: u64, sha256: Sha256) -> Self {
        let cid = |offer: &signalbox_schemas::mailbox::Offer| offer.grant.peek().ok().map(|grant| grant.cid);
        Self {
            sequence,
            epoch: mailbox.epoch,
            generation: mailbox.generation,
            basis: mailbox.basis,
            authors: Some(mailbox.authors),
            offers: mailbox.offers.iter().filter_map(cid).collect(),
            cancels: mailbox.cancels.clone(),
            sha256,
        }
    }

    /// What stands for a message that no bridge wrote: it is to be replaced.
    pub(crate) fn foreign(sequence: u64) -> Self {
        Self {
            sequence,
            epoch: 0,
            generation: 0,
            basis: Basis::default(),
            authors: None,
            offers: Vec::new(),
            cancels: Vec::new(),
            sha256: Sha256::of(b""),
        }
    }

    /// Whether no bridge wrote it: terms of office begin at 1.
    pub(crate) fn is_foreign(&self) -> bool {
        self.epoch == 0
    }
}

/// What became of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Applied {
    /// It changed something, or there was nothing to change.
    Yes,
    /// It speaks of something that is not known (yet). Nothing was changed.
    NotYet,
}

/// Why an event could not be applied.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApplyError {
    /// It says something that does not count; the rest goes on.
    #[error("refused: {0}")]
    Refused(&'static str),
    /// The store failed; nothing goes on.
    #[error("the store failed")]
    Store(#[from] StoreError),
}

type Outcome = Result<Applied, ApplyError>;

/// Applies events to memory and to one transaction.
pub(crate) struct Projection<'a> {
    memory: &'a mut Memory,
    txn: Txn<'a>,
    decoder: &'a Decoder,
    changes: BTreeSet<Change>,
    /// Bodies of chunks that are new, by sequence.
    bodies: Vec<(u64, Bytes)>,
    /// Things to be counted that were no refusal of a whole message.
    notes: Vec<&'static str>,
}

/// How far a stream was read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cursor<'a> {
    pub(crate) stream: &'a str,
    pub(crate) at: Position,
    /// When the message there was stored, Unix ms.
    pub(crate) stored_at: Option<u64>,
}

/// What a batch did, once it is written.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    pub(crate) changes: BTreeSet<Change>,
    pub(crate) bodies: Vec<(u64, Bytes)>,
    pub(crate) notes: Vec<&'static str>,
}

impl<'a> Projection<'a> {
    pub(crate) fn new(memory: &'a mut Memory, store: &'a Store, decoder: &'a Decoder) -> Self {
        let (changes, bodies, notes) = (BTreeSet::new(), Vec::new(), Vec::new());
        Self { memory, txn: Txn::new(store), decoder, changes, bodies, notes }
    }

    /// Applies one event. With `last_chance` nothing is [`Applied::NotYet`]: what is still not known is refused
    /// or put aside.
    ///
    /// # Errors
    /// [`ApplyError`].
    pub(crate) fn apply(
        &mut self,
        sequence: u64,
        stored_at: u64,
        event: &Event,
        last_chance: bool,
    ) -> Outcome {
        let outcome = match event {
            Event::Authors { doc, sha256, envelope } => self.authors(sequence, doc, *sha256, envelope),
            Event::Record(record, key) => self.record(stored_at, record, key),
            Event::Part { cid, n, body } => self.part((sequence, stored_at), (*cid, *n), body),
            Event::Spec { cid, spec, bytes } => self.spec(sequence, stored_at, *cid, spec, bytes),
            Event::Cancel { cid, key } => self.cancel(sequence, stored_at, *cid, key),
            Event::Rollout { cid, progress, key } => self.rollout((sequence, stored_at), *cid, progress, key),
            Event::OwnMailbox { mid } => {
                self.own_mailbox(mid, sequence);
                Ok(Applied::Yes)
            }
            Event::Mailbox { mid, row } => Ok(self.mailbox(mid, sequence, row.as_ref(), last_chance)),
            Event::Fact(fact) if last_chance => self.fact_or_aside(fact),
            Event::Fact(fact) => self.fact(fact),
            Event::Chunk { cid, mid, head, body } => self.chunk(sequence, *cid, mid, head, body),
            Event::DoneRun { cid, mid, state, facts, key } => {
                self.done_run(stored_at, (*cid, mid), (*state, facts), key)
            }
            Event::DoneCommand { done, spec, key } => self.done_command(stored_at, done, spec, key),
            Event::Heartbeat(beat) => Ok(self.heartbeat(stored_at, beat)),
            Event::Inventory { mid, list } => {
                self.inventory(stored_at, mid, list.as_deref().map_err(|reason| *reason), last_chance)
            }
        };
        match outcome {
            Ok(Applied::NotYet) if last_chance => Err(ApplyError::Refused("unknown")),
            outcome => outcome,
        }
    }

    /// Remembers a message of RUN that says nothing to anybody, for the holder of the lease to delete: the stream's room
    /// is everybody's. One row for each such message, so that RUN's own limit bounds them.
    pub(crate) fn litter(&mut self, sequence: u64) {
        self.txn.put(key::litter(sequence), Vec::new());
    }

    /// Writes the rows and the cursor of the stream they came from, all or nothing.
    ///
    /// # Errors
    /// [`StoreError`]: memory and store differ from now on, the caller ends.
    pub(crate) fn commit(mut self, cursor: Option<Cursor<'_>>) -> Result<Effects, StoreError> {
        if let Some(Cursor { stream, at, stored_at }) = cursor {
            self.txn.put(key::cursor(stream), key::position(at, stored_at));
        }
        // Most batches of heartbeats write nothing, and an empty batch would cost the store's log all the same.
        if !self.txn.is_empty() {
            self.txn.commit()?;
        }
        Ok(Effects { changes: self.changes, bodies: self.bodies, notes: self.notes })
    }

    fn is_bridge(&self, key: &PublicKey) -> bool {
        self.memory.authors.as_ref().is_some_and(|known| known.doc.is_bridge(key))
    }

    /// Whether a key was a bridge's when the broker stored what it signed: belief must not depend on when a bridge reads.
    fn was_bridge(&self, key: &PublicKey, stored_at: u64) -> bool {
        self.memory.authors.as_ref().is_some_and(|known| known.doc.was_bridge(key, stored_at))
    }

    fn may_cancel(&self, key: &PublicKey, stored_at: u64) -> bool {
        let author = self.memory.authors.as_ref().and_then(|known| known.doc.author(key));
        let member = author.is_some_and(|author| !matches!(author.role, Role::Viewer));
        member || self.was_bridge(key, stored_at)
    }

    fn command_row(&self, cid: CommandId) -> Result<Option<CommandRow>, StoreError> {
        self.txn.json(&key::command(cid), "command")
    }

    /// What was asked for; what was sealed in it may be gone.
    fn spec_of(&self, cid: CommandId) -> Result<Option<CommandSpec>, StoreError> {
        let spec = self.txn.get(&key::spec(cid))?.map(|bytes| CommandSpec::from_settled_bytes(&bytes));
        spec.transpose().map_err(|_| StoreError::Damaged("spec"))
    }

    fn run_row(&self, cid: CommandId, mid: &MachineToken) -> Result<RunRow, StoreError> {
        self.txn.get(&key::run(cid, mid))?.map_or(Ok(RunRow::default()), RunRow::parse)
    }
}

/// Runs by state.
pub(crate) type Counts = BTreeMap<RunState, u32>;

/// The row of a fact as it stood in RUN.
pub(crate) fn fact_row(sequence: u64, stored_at: u64, body: &[u8]) -> Vec<u8> {
    [&sequence.to_be_bytes()[..], &stored_at.to_be_bytes()[..], body].concat()
}

/// Reads [`fact_row`].
pub(crate) fn parse_fact_row(kind: FactKind, row: &[u8]) -> Option<FactMessage> {
    let mut reader = key::Reader(row);
    let (sequence, stored_at) = (reader.u64()?, reader.u64()?);
    let body = Bytes::copy_from_slice(reader.rest());
    Some(FactMessage { kind, sequence, stored_at, body })
}
