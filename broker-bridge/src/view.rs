//! The read side: what the streams say, folded, for every front.
//!
//! A [`View`] is cheap to clone and never waits for the broker, except where a function is `async`. What it
//! answers is a function of the streams alone: two bridges that read the same streams answer the same.

mod assignments;
mod commands;
mod cursor;
mod inventory;
mod runs;

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use signalbox_link::ReadError;
use signalbox_schemas::{
    api::{Liveness, MachineView, OutputView, RunView, Target, Warning},
    authors::Authors,
    command::CommandSpec,
    id::{CommandId, MachineId, MachineToken, OperatorId},
    limit::BROKER_PAYLOAD_BYTES,
    output::OutputStream,
    record::{MachineRecord, OperatorRecord},
    rollout::Progress,
    run::{Exit, InlineOutput, RunState, Via},
    selector::{Selector, Traits, Truth},
    signed::Signed,
    stream,
    subject::{FactKind, Subject},
};
use tokio::sync::broadcast;

use crate::{
    core::Shared,
    projection::{
        CommandRow, Counts, RunRow,
        memory::Machine,
        output::{ChunkRow, Received, place_end},
        rollout::OpenRollout,
    },
    store::{StoreError, key},
};

pub use assignments::{Contact, Enrolled};
pub use commands::StoredCommand;
pub(crate) use commands::is_place;
pub use cursor::{CursorError, Cursors};
pub(crate) use inventory::Place;
pub use runs::{RunPlace, RunsAsked};

/// Bytes of items in a page: with its frame it must fit one message of the broker.
pub(crate) const PAGE_BYTES: usize = BROKER_PAYLOAD_BYTES * 3 / 4;

/// Runs of one machine that may wait or run at once: some hours of work for a relay.
const WAITING: usize = 10_000;
/// Memory that open commands may take, bytes: some 400,000 runs of small commands.
const OPEN_BYTES: usize = 512 * 1024 * 1024;

/// Memory is kept from others no longer than this while a selector is looked at.
const AT_ONCE: Duration = Duration::from_millis(5);
/// A selector that takes longer is refused: a few of them at once would leave no time for anything else.
const PATIENCE: Duration = Duration::from_secs(2);

/// A selector takes too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it takes too long to look which machines it means; write fewer or plainer expressions")]
pub struct Tiresome;

/// What has no room for another command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoRoom {
    /// So many runs wait for this machine.
    Machine(MachineId),
    /// So many commands wait in all.
    Bridge,
}

/// Something that a front may want to read again.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// A run changed its state.
    Run {
        /// The command.
        cid: CommandId,
        /// The machine.
        mid: MachineToken,
    },
    /// Output of a run arrived.
    Output {
        /// The command.
        cid: CommandId,
        /// The machine.
        mid: MachineToken,
    },
    /// A command is new, or was asked to be cancelled.
    Command {
        /// The command.
        cid: CommandId,
    },
}

/// One stored chunk of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkRef {
    /// Its sequence in OUT: positions of a feed are these.
    pub position: u64,
    /// The machine's id.
    pub machine: MachineId,
    /// The machine's token.
    pub token: MachineToken,
    /// Its stream.
    pub stream: OutputStream,
    /// Absolute offset of its first byte in its stream.
    pub offset: u64,
    /// Bytes.
    pub len: u32,
    /// Bytes of the stored message before the first one that counts: an earlier chunk has them already.
    pub skip: u32,
}

/// The bytes of a chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChunkBody {
    /// Here they are.
    Kept(Bytes),
    /// They are no longer kept, and neither is anything from this chunk on up to a position.
    Gone {
        /// Everything below is gone; above the chunk's own position.
        below: u64,
    },
}

/// The body of a chunk could not be read; try again.
#[derive(Debug, thiserror::Error)]
#[error("cannot read output chunk {position} from the broker")]
pub struct BodyError {
    /// Sequence in OUT.
    pub position: u64,
    /// Why.
    #[source]
    pub source: ReadError,
}

/// The read side. Clones share everything.
#[derive(Debug, Clone)]
pub struct View {
    shared: Arc<Shared>,
}

impl View {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// All machines, sorted by token.
    pub fn machines(&self, now_ms: u64) -> Vec<MachineView> {
        self.shared.memory().machines.values().map(|machine| machine_view(machine, now_ms)).collect()
    }

    /// At most `most` machines, sorted by token, whose tokens come behind `after`, or from the first one on. Others are
    /// not touched: a page of ten thousand machines costs what a page costs.
    pub(crate) fn machines_behind(&self, after: Option<&str>, most: usize, now_ms: u64) -> Vec<MachineView> {
        let memory = self.shared.memory();
        let from = match after.map(MachineToken::new) {
            Some(Ok(after)) => Bound::Excluded(after),
            // No machine has such a token, and no page ended with one.
            Some(Err(_)) => return Vec::new(),
            None => Bound::Unbounded,
        };
        let behind = memory.machines.range((from, Bound::Unbounded));
        behind.take(most).map(|(_, machine)| machine_view(machine, now_ms)).collect()
    }

    /// A machine as it is shown.
    pub(crate) fn machine_as_shown(&self, mid: &MachineToken, now_ms: u64) -> Option<MachineView> {
        self.shared.memory().machines.get(mid).map(|machine| machine_view(machine, now_ms))
    }

    /// A machine by id or token.
    pub fn machine(&self, id_or_token: &str) -> Option<MachineRecord> {
        self.shared.memory().machine(id_or_token).map(|machine| machine.record.clone())
    }

    /// The machines that a selector means, sorted by token. What it takes a sample or the first of, is all of them. It may take
    /// a second: not on the event loop.
    ///
    /// # Errors
    /// [`Tiresome`].
    pub fn select(&self, selector: &Selector, now_ms: u64) -> Result<Vec<Target>, Tiresome> {
        self.meant(selector, false, now_ms)
    }

    /// The same where they are to be given a secret: what relays say of themselves selects none of them.
    ///
    /// # Errors
    /// [`Tiresome`].
    pub fn select_for_secret(&self, selector: &Selector, now_ms: u64) -> Result<Vec<Target>, Tiresome> {
        self.meant(selector, true, now_ms)
    }

    fn meant(
        &self,
        selector: &Selector,
        is_own_word_ignored: bool,
        now_ms: u64,
    ) -> Result<Vec<Target>, Tiresome> {
        let begun = Instant::now();
        let mut meant = Vec::new();
        let mut last: Option<MachineToken> = None;
        loop {
            let from = last.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
            last = self.meant_behind(selector, is_own_word_ignored, now_ms, from, &mut meant);
            if last.is_none() {
                return Ok(selector.some_of(meant, |target: &Target| (&target.id, &target.token)));
            }
            if begun.elapsed() > PATIENCE {
                return Err(Tiresome);
            }
        }
    }

    /// Takes those that are meant from a place on, as far as that goes without keeping others from memory; the last one that
    /// was looked at, unless there are no more.
    fn meant_behind(
        &self,
        selector: &Selector,
        is_own_word_ignored: bool,
        now_ms: u64,
        from: Bound<&MachineToken>,
        meant: &mut Vec<Target>,
    ) -> Option<MachineToken> {
        let memory = self.shared.memory();
        let begun = Instant::now();
        for (token, machine) in memory.machines.range::<MachineToken, _>((from, Bound::Unbounded)) {
            let traits = Traits { is_own_word_ignored, ..traits(machine, now_ms) };
            if selector.truth(&traits) == Truth::Yes {
                let id = machine.record.id.clone();
                meant.push(Target { id, token: token.clone(), state: liveness(machine, now_ms) });
            }
            if begun.elapsed() > AT_ONCE {
                return Some(token.clone());
            }
        }
        None
    }

    /// An operator.
    pub fn operator(&self, id: &OperatorId) -> Option<OperatorRecord> {
        self.shared.memory().operators.get(id).cloned()
    }

    /// The newest authors document.
    pub fn authors(&self) -> Option<Arc<Authors>> {
        self.shared.memory().authors.as_ref().map(|known| known.doc.clone())
    }

    /// Commands with runs that have not settled.
    pub(crate) fn open_commands(&self) -> Vec<CommandId> {
        self.shared.memory().open.keys().copied().collect()
    }

    /// One run.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be read.
    pub fn run(&self, id: CommandId, mid: &MachineToken) -> Result<Option<RunView>, StoreError> {
        if !self.is_run(id, mid)? {
            return Ok(None);
        }
        self.run_view(id, mid).map(Some)
    }

    /// Whether the command is known and meant for the machine. Of one that has settled every run has a row.
    fn is_run(&self, id: CommandId, mid: &MachineToken) -> Result<bool, StoreError> {
        if let Some(open) = self.shared.memory().open.get(&id) {
            return Ok(open.machines.binary_search(mid).is_ok());
        }
        Ok(self.shared.store.has(&key::command(id))? && self.shared.store.has(&key::run(id, mid))?)
    }

    /// Chunks of a command after a position, in the order in which they were stored: `max`, and those that share the
    /// last one's position. A message overlapped by earlier ones is several chunks, and a position is that of a message.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be read.
    pub fn chunks_after(
        &self,
        id: CommandId,
        position: u64,
        max: usize,
    ) -> Result<Vec<ChunkRef>, StoreError> {
        let from = key::chunk(id, position.saturating_add(1), 0);
        let rows = self.shared.store.range(from, key::after(&key::chunks(id)));
        let mut chunks: Vec<ChunkRef> = Vec::new();
        for row in rows {
            let (found, row) = row?;
            let chunk = self.chunk_ref(&found, &row)?;
            if chunks.len() >= max && chunks.last().is_none_or(|last| last.position != chunk.position) {
                break;
            }
            chunks.push(chunk);
        }
        Ok(chunks)
    }

    /// The chunk that holds the byte at `offset`, or, when that byte was left out or has not arrived, the next
    /// chunk behind it.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be read.
    pub fn chunk_covering(
        &self,
        id: CommandId,
        mid: &MachineToken,
        stream: OutputStream,
        offset: u64,
    ) -> Result<Option<ChunkRef>, StoreError> {
        let place = |offset| key::place(id, mid, stream, offset);
        let mut end = place(offset);
        end.push(0);
        let before = self.shared.store.range(place(0), end).next_back().transpose()?;
        let holds = before.filter(|(found, row)| place_end(found, row).is_some_and(|end| end > offset));
        let found = if holds.is_some() {
            holds
        } else {
            let mut end = place(u64::MAX);
            end.push(0);
            self.shared.store.range(place(offset), end).next().transpose()?
        };
        let Some((_, row)) = found else { return Ok(None) };
        let mut reader = key::Reader(&row);
        let (Some(sequence), Some(_len), Some(skip)) = (reader.u64(), reader.u32(), reader.u32()) else {
            return Err(StoreError::Damaged("chunk"));
        };
        let place = key::chunk(id, sequence, skip);
        let row = self.shared.store.get(&place)?;
        row.map(|row| self.chunk_ref(&place, &row)).transpose()
    }

    /// The output that a run's exit carried itself.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be read.
    pub fn inline(&self, id: CommandId, mid: &MachineToken) -> Result<Option<InlineOutput>, StoreError> {
        let row = RunRow::of(&self.shared.store, id, mid)?;
        let fact = row.facts.exit().and_then(|_| row.message(FactKind::Exit));
        let exit = fact.and_then(|fact| Signed::<Exit>::from_json(&fact.body).ok()?.peek().ok());
        Ok(exit.and_then(|exit| exit.inline))
    }

    /// Bytes of output that are indexed of a run, stdout and stderr.
    pub(crate) fn received(&self, id: CommandId, mid: &MachineToken) -> Result<[u64; 2], StoreError> {
        let row = self.shared.store.get(&key::received(id, mid))?;
        Ok(row.and_then(|row| Received::parse(&row)).unwrap_or_default().bytes)
    }

    /// The position of the last chunk that is indexed of a run; 0 when there is none. Reads a row for each of its chunks:
    /// for a thread that may block.
    pub(crate) fn last_of_run(&self, id: CommandId, mid: &MachineToken) -> Result<u64, StoreError> {
        let mut last = 0;
        for stream in OutputStream::ALL {
            let end = key::after(&key::place(id, mid, stream, u64::MAX));
            for row in self.shared.store.range(key::place(id, mid, stream, 0), end) {
                let (_, row) = row?;
                last = last.max(key::Reader(&row).u64().ok_or(StoreError::Damaged("chunk"))?);
            }
        }
        Ok(last)
    }

    /// The position of the last chunk that is indexed of a command; 0 when there is none.
    pub(crate) fn last_of_command(&self, id: CommandId) -> Result<u64, StoreError> {
        let chunks = key::chunks(id);
        let last = self.shared.store.range(chunks.clone(), key::after(&chunks)).next_back().transpose()?;
        let position = |(found, _): &(Vec<u8>, Vec<u8>)| {
            let mut reader = key::Reader(found.get(1..).unwrap_or_default());
            reader.cid().and(reader.u64()).ok_or(StoreError::Damaged("chunk"))
        };
        last.as_ref().map_or(Ok(0), position)
    }

    /// The bytes of a chunk: from memory when it is young, else from the broker.
    ///
    /// # Errors
    /// [`BodyError`] when the broker does not answer; try again.
    pub async fn chunk_body(&self, chunk: &ChunkRef) -> Result<ChunkBody, BodyError> {
        let part = |body: &Bytes| {
            let (from, len) = (chunk.skip as usize, chunk.len as usize);
            let part = (body.len() >= from + len).then(|| body.slice(from..from + len));
            part.map_or(ChunkBody::Gone { below: chunk.position.saturating_add(1) }, ChunkBody::Kept)
        };
        let young = self.shared.cache.lock().unwrap_or_else(PoisonError::into_inner).get(chunk.position);
        if let Some(body) = young {
            return Ok(part(&body));
        }
        // Before it is asked: what comes later may be there.
        let read_to = self.shared.cursor(stream::OUT).sequence;
        // From the leader: headers of a relay stand raw in a direct read, and can break the connection.
        let found = self.shared.link.next_from_leader(stream::OUT, chunk.position, ">").await;
        let found = found.map_err(|source| BodyError { position: chunk.position, source })?;
        let is_it = |message: &signalbox_link::Message| {
            let of_run = matches!(
                Subject::parse(&message.subject),
                Ok(Subject::Output(_, mid, _)) if mid == chunk.token
            );
            message.sequence == chunk.position && of_run
        };
        Ok(match found {
            Some(message) if is_it(&message) => part(&message.payload),
            found => {
                let next = found.map_or(read_to.saturating_add(1), |message| message.sequence);
                ChunkBody::Gone { below: next.max(chunk.position.saturating_add(1)) }
            }
        })
    }

    /// How far each stream was read.
    pub fn cursors(&self) -> Cursors {
        self.shared.cursors.borrow().clone()
    }

    /// When a stream was made, Unix ms, as who reads it knows; `None` before it was read to its end. It cannot change: a
    /// bridge whose stream is made anew ends.
    pub fn made(&self, stream: &str) -> Option<u64> {
        let is_read = *self.shared.caught_up.borrow();
        let created = self.shared.cursor(stream).created;
        (is_read && created > 0).then_some(created)
    }

    /// Waits until everything that `cursors` names was read, at most `within`. Answers whether it was.
    pub async fn reached(&self, cursors: &Cursors, within: Duration) -> bool {
        let mut read = self.shared.cursors.subscribe();
        let reached = read.wait_for(|read| read.cover(cursors));
        tokio::time::timeout(within, reached).await.is_ok_and(|reached| reached.is_ok())
    }

    /// What has no room for another command on these machines, if anything has not.
    pub fn no_room(&self, machines: &[MachineToken]) -> Option<NoRoom> {
        let memory = self.shared.memory();
        if memory.open_bytes >= OPEN_BYTES {
            return Some(NoRoom::Bridge);
        }
        let full =
            |mid: &&MachineToken| memory.machines.get(*mid).is_some_and(|it| it.queue.len() >= WAITING);
        let full = machines.iter().find(full)?;
        memory.machines.get(full).map(|machine| NoRoom::Machine(machine.record.id.clone()))
    }

    /// What an operator should know before it hurts.
    pub fn warnings(&self, now_ms: u64) -> Vec<Warning> {
        self.shared.gauge.warnings(self.authors().map(|doc| doc.not_after), now_ms)
    }

    /// Whether the store can still be asked; if not, this bridge is about to end.
    pub fn is_sound(&self) -> bool {
        !self.shared.store.is_broken()
    }

    /// Whether every stream was read up to the end it had when this bridge started.
    pub fn is_caught_up(&self) -> bool {
        *self.shared.caught_up.borrow()
    }

    /// Waits until it is.
    pub(crate) async fn caught_up(&self) {
        // The bridge is gone with its view, and whoever waits with it.
        let _ = self.shared.caught_up.subscribe().wait_for(|is| *is).await;
    }

    /// What changes from now on. A reader that lags reads everything it cares about again.
    pub fn changes(&self) -> broadcast::Receiver<Arc<[Change]>> {
        self.shared.changes()
    }

    /// Everything refused, dropped or doubled, by reason.
    pub fn counters(&self) -> BTreeMap<String, u64> {
        self.shared.counters.all()
    }

    fn command_row(&self, id: CommandId) -> Result<Option<CommandRow>, StoreError> {
        self.shared.store.json(&key::command(id), "command")
    }

    fn spec(&self, id: CommandId) -> Result<(CommandSpec, Bytes), StoreError> {
        let bytes = self.shared.store.get(&key::spec(id))?.ok_or(StoreError::Damaged("spec"))?;
        let spec = CommandSpec::from_settled_bytes(&bytes).map_err(|_| StoreError::Damaged("spec"))?;
        Ok((spec, bytes.into()))
    }

    fn run_view(&self, id: CommandId, mid: &MachineToken) -> Result<RunView, StoreError> {
        let row = RunRow::of(&self.shared.store, id, mid)?;
        let received = self.shared.store.get(&key::received(id, mid))?;
        let received = received.and_then(|row| Received::parse(&row)).unwrap_or_default();
        let exit = row.facts.exit();
        let [out, err] = [0, 1].map(|i| OutputView {
            bytes: received.bytes.get(i).copied().unwrap_or_default(),
            sha256: None,
            truncated: received.cut.get(i).copied().unwrap_or_default(),
        });
        Ok(RunView {
            machine: self.machine_id(mid),
            state: if row.state() == RunState::Pending && self.is_held(id, mid) {
                RunState::Held
            } else {
                row.state()
            },
            exit_code: exit.and_then(|exit| exit.exit_code),
            signal: exit.and_then(|exit| exit.signal.clone()),
            error: row.facts.error(),
            duration_ms: exit.map(|exit| exit.duration_ms),
            group_dead: exit.map(|exit| exit.group_dead),
            stdout: exit.map_or(out, |exit| (&exit.stdout).into()),
            stderr: exit.map_or(err, |exit| (&exit.stderr).into()),
            claimed_by: row.facts.via().map(|Via::Legacy(assignment)| assignment.clone()),
            claimed_at: row.facts.claim().map(|(_, at)| at),
            ended_at: row.settled_at,
        })
    }

    /// Whether a run is not to be offered yet.
    fn is_held(&self, id: CommandId, mid: &MachineToken) -> bool {
        self.shared.memory().open.get(&id).is_some_and(|command| command.is_held(mid))
    }

    /// How many runs of a command wait that are not to be offered yet, and how far it has spread: one goes with the other.
    fn held(&self, id: CommandId) -> (u32, Option<Progress>) {
        let memory = self.shared.memory();
        let Some(command) = memory.open.get(&id) else { return (0, None) };
        let held = command.rollout.as_ref().map_or(0, OpenRollout::held);
        let progress = command.rollout.as_ref().map(|rollout| rollout.progress.clone());
        (if command.held { u32::MAX } else { held }, progress.filter(|progress| progress.revision > 0))
    }

    fn machine_id(&self, mid: &MachineToken) -> MachineId {
        let memory = self.shared.memory();
        let known = memory.machines.get(mid).map(|machine| machine.record.id.clone());
        known.unwrap_or_else(|| token_as_id(mid))
    }

    fn chunk_ref(&self, found: &[u8], row: &[u8]) -> Result<ChunkRef, StoreError> {
        let mut reader = key::Reader(found.get(1..).unwrap_or_default());
        let position = reader.cid().and(reader.u64());
        let (Some(position), Some(row)) = (position, ChunkRow::parse(row)) else {
            return Err(StoreError::Damaged("chunk"));
        };
        let ChunkRow { stream, offset, skip, len, mid } = row;
        Ok(ChunkRef { position, machine: self.machine_id(&mid), token: mid, stream, offset, len, skip })
    }
}

/// So many of those that wait are held back.
fn held_of(mut counts: Counts, held: u32) -> Counts {
    let Some(pending) = counts.remove(&RunState::Pending) else { return counts };
    let held = held.min(pending);
    for (state, count) in [(RunState::Held, held), (RunState::Pending, pending - held)] {
        if count > 0 {
            *counts.entry(state).or_default() += count;
        }
    }
    counts
}

fn liveness(machine: &Machine, now_ms: u64) -> Liveness {
    Liveness::of(machine.silence(now_ms))
}

/// What is known of a machine, for selectors.
fn traits(machine: &Machine, now_ms: u64) -> Traits<'_> {
    let beat = machine.beat.as_ref();
    Traits {
        labels: Some(machine.labels()),
        is_relay_unheard: machine.is_relay_unheard(),
        facts: machine.facts(),
        metrics: beat.and_then(|beat| beat.beat.metrics.as_ref()),
        relay: beat.map(|beat| beat.beat.relay.as_str()),
        state: Some(liveness(machine, now_ms)),
        heard_ms: beat.map(|beat| now_ms.saturating_sub(beat.seen_at)),
        running: Some(machine.running),
        waiting: Some(machine.pending()),
        ..Traits::named(&machine.record.id, &machine.record.token)
    }
}

fn machine_view(machine: &Machine, now_ms: u64) -> MachineView {
    let beat = machine.beat.as_ref();
    MachineView {
        id: machine.record.id.clone(),
        token: machine.record.token.clone(),
        state: liveness(machine, now_ms),
        last_seen_at: beat.map(|beat| beat.seen_at),
        running: machine.running,
        pending: machine.pending(),
        relay: beat.map(|beat| beat.beat.relay.clone()),
        facts: machine.facts().cloned(),
        metrics: beat.and_then(|beat| beat.beat.metrics.clone()),
        labels: machine.shown_labels(),
        labels_unheard: machine.is_relay_unheard(),
    }
}

#[expect(clippy::expect_used, reason = "the rule of tokens is narrower than that of ids")]
fn token_as_id(mid: &MachineToken) -> MachineId {
    MachineId::new(mid.as_str()).expect("invariant: every token has the spelling of an id")
}
