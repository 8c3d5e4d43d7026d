//! Reading the streams: one task each, from its cursor on, in batches of what is ready, never by a timer.
//!
//! Decoding and applying overlap. A batch is applied in one go: memory, rows and cursor change together, then
//! readers are told. An event that speaks of something unknown makes its stream wait until the streams it
//! depends on were read up to the ends they have *now*; the dependencies have no cycle
//! (DOC ← state ← CMD, DONE ← RUN, OUT; state ← INV), so this ends. Nothing a stream holds can stop the reading: what cannot
//! be believed is counted and skipped.

pub(crate) mod decode;

use std::{sync::Arc, time::Duration};

use signalbox_link::{FollowError, Message, StreamError};
use signalbox_schemas::{
    error::report,
    id::Sha256,
    mailbox::Position,
    stream::{CMD, DOC, DONE, HB, INV, MBOX, OUT, RUN, STATE},
    subject::Subject,
};
use tokio::{sync::mpsc, task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    broker_link::BrokerLink,
    core::{CoreError, Shared},
    projection::{Applied, ApplyError, Cursor, Projection},
    store::StoreError,
};
use decode::{Event, Raw};

/// Streams with a cursor.
pub(crate) const FOLLOWED: [&str; 8] = [DOC, STATE, CMD, DONE, RUN, OUT, MBOX, INV];
/// Messages of one batch: a batch holds the lock of memory for a few milliseconds.
const BATCH: usize = 512;
/// Batches that are decoded ahead of the one being applied.
const AHEAD: usize = 2;
/// Batches up to this size are decoded and applied in place; handing over costs more.
const INLINE: usize = 8;
/// Pause between attempts while the broker does not answer.
const RETRY: Duration = Duration::from_millis(200);
/// How long to wait for a stream to be read on before asking again what it still holds.
const RECHECK: Duration = Duration::from_secs(1);

/// Reasons of refusals that another bridge might not give: a newer one, or one of another workspace.
const FOREIGN: [&str; 2] = ["critical", "workspace"];

/// What a stream's events may speak of.
fn depends_on(stream: &str) -> &'static [&'static str] {
    match stream {
        STATE => &[DOC],
        CMD | DONE | MBOX | INV => &[DOC, STATE],
        HB => &[STATE],
        RUN | OUT => &[DOC, STATE, CMD, DONE],
        _ => &[],
    }
}

/// A message, read.
struct Decoded {
    sequence: u64,
    stored_at: u64,
    event: Result<Event, &'static str>,
}

/// Starts a reader for each stream, and the one that says when all were read.
pub(crate) fn spawn(
    shared: &Arc<Shared>,
    broker: &BrokerLink,
    stop: &CancellationToken,
    tasks: &mut JoinSet<Result<(), CoreError>>,
) {
    for stream in FOLLOWED.into_iter().chain([HB]) {
        let reader = Reader { shared: shared.clone(), broker: broker.clone(), stream };
        let stop = stop.clone();
        tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => Ok(()),
                ended = reader.run() => ended,
            }
        });
    }
    let (shared, stop) = (shared.clone(), stop.clone());
    tasks.spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = read_to_end(&shared, &FOLLOWED) => {
                shared.caught_up.send_replace(true);
                info!("every stream was read up to its end at start");
                shared.dispatch.notify_one();
                shared.deadline.notify_one();
            }
        }
        Ok(())
    });
}

/// Waits until these streams were read up to the ends they have now. Waits for the broker however long.
pub(crate) async fn read_to_end(shared: &Shared, streams: &[&str]) {
    for stream in streams {
        while !read_one_to_end(shared, stream).await {
            sleep(RETRY).await;
        }
    }
}

/// Answers whether it was done; if not, the broker did not answer, or it takes long and has to be looked at anew:
/// the stream may have been made anew, or its messages purged.
async fn read_one_to_end(shared: &Shared, stream: &str) -> bool {
    let Ok(state) = shared.link.stream_state(stream).await else { return false };
    let end = Position { created: state.created_ms, sequence: state.last };
    let is_read = |at: Position| at.created == end.created && at.sequence >= end.sequence;
    let at = shared.cursor(stream);
    if !is_read(at) && at.created == end.created {
        // What lies between may have been purged or be too old: then nothing will ever come.
        let Ok(next) = shared.link.next_from_leader(stream, at.sequence + 1, ">").await else { return false };
        if next.is_none_or(|next| next.sequence > end.sequence) {
            // Not written to the store: after a start it is found again.
            shared.cursors.send_modify(|cursors| {
                if cursors.get(stream).sequence < end.sequence {
                    cursors.set(stream, end);
                }
            });
        }
    }
    let mut cursors = shared.cursors.subscribe();
    let reading = cursors.wait_for(|cursors| is_read(cursors.get(stream)));
    tokio::time::timeout(RECHECK, reading).await.is_ok_and(|read| read.is_ok())
}

/// Reads one stream.
struct Reader {
    shared: Arc<Shared>,
    broker: BrokerLink,
    stream: &'static str,
}

impl Reader {
    fn has_cursor(&self) -> bool {
        self.stream != HB
    }

    async fn run(self) -> Result<(), CoreError> {
        loop {
            let start = match self.start().await {
                Ok(start) => start,
                Err(Retry::End(error)) => return Err(error),
                Err(Retry::Broker) => {
                    sleep(RETRY).await;
                    continue;
                }
            };
            let ended = match self.follow(start).await {
                Ok(()) | Err(Ended::Follow(FollowError::Closed)) => return Ok(()),
                Err(Ended::Store(error)) => return Err(error.into()),
                Err(Ended::Panicked) => return Err(CoreError::Ended("projection")),
                Err(Ended::Follow(FollowError::Rewound { .. })) if self.has_cursor() => {
                    return Err(self.lost().await);
                }
                Err(Ended::Follow(error)) => error,
            };
            self.shared.counters.add(&format!("restarted.{}", self.stream));
            warn!(stream = self.stream, error = report(&ended), "reading starts again");
            sleep(RETRY).await;
        }
    }

    /// Where to read on from.
    async fn start(&self) -> Result<Start, Retry> {
        let state = match self.shared.link.stream_state(self.stream).await {
            Ok(state) => state,
            Err(StreamError::Missing { .. }) => {
                self.shared.counters.add(&format!("missing.{}", self.stream));
                if let Err(error) = self.broker.ensure_streams().await {
                    self.complain(&error, "a missing stream cannot be made");
                }
                return Err(Retry::Broker);
            }
            Err(error) => {
                self.complain(&error, "stream cannot be asked");
                return Err(Retry::Broker);
            }
        };
        let at = Position { created: state.created_ms, sequence: 0 };
        if !self.has_cursor() {
            return Ok(Start { at, stored_at: None });
        }
        let known = self.shared.cursor(self.stream);
        if known.created == state.created_ms && known.sequence <= state.last {
            let stored_at = self.shared.store.cursor_time(self.stream);
            return Ok(Start { at: known, stored_at: stored_at.map_err(|error| Retry::End(error.into()))? });
        }
        if known.sequence > 0 {
            return Err(Retry::End(self.lost().await));
        }
        let (shared, stream) = (self.shared.clone(), self.stream);
        let written = tokio::task::spawn_blocking(move || {
            let mut memory = shared.memory_mut();
            let projection = Projection::new(&mut memory, &shared.store, &shared.decoder);
            projection.commit(Some(Cursor { stream, at, stored_at: None }))
        });
        let written = written.await.map_err(|_| Retry::Broker)?;
        written.map_err(|error| Retry::End(error.into()))?;
        self.shared.cursors.send_modify(|cursors| cursors.set(self.stream, at));
        Ok(Start { at, stored_at: None })
    }

    /// Discards the view: rows that were made from messages that are no more contradict the truth, and nobody could
    /// tell them from the others.
    async fn lost(&self) -> CoreError {
        warn!(
            stream = self.stream,
            "stream was made anew or has lost its end; the view is discarded and built again"
        );
        let store = self.shared.store.clone();
        match tokio::task::spawn_blocking(move || store.discard()).await {
            Ok(Ok(())) => CoreError::StreamLost(self.stream),
            Ok(Err(error)) => error.into(),
            Err(_) => CoreError::Ended("discard"),
        }
    }

    /// Logs what keeps a stream from being read when its count is a power of two: it is tried five times a second.
    fn complain(&self, error: &dyn std::error::Error, what: &str) {
        let count = self.shared.counters.add(&format!("unreadable.{}", self.stream));
        if count.is_power_of_two() {
            warn!(stream = self.stream, error = report(error), count, "{what}");
        }
    }

    /// Fetches, decodes and applies until the stream cannot be followed any more.
    async fn follow(&self, Start { at: start, stored_at }: Start) -> Result<(), Ended> {
        let (tx, mut rx) = mpsc::channel::<Vec<Decoded>>(AHEAD);
        let fetch = async {
            let follow = self.shared.link.follow(self.stream, start.sequence + 1, None);
            let mut follow = follow.after(stored_at);
            loop {
                let messages = follow.next_batch(BATCH).await.map_err(Ended::Follow)?;
                if follow.created_ms().is_some_and(|created| created != start.created) {
                    let stream = self.stream.to_owned();
                    let created_ms = follow.created_ms().unwrap_or_default();
                    return Err(Ended::Follow(FollowError::Recreated { stream, created_ms }));
                }
                if tx.send(self.decode(messages).await?).await.is_err() {
                    return Ok(());
                }
            }
        };
        let apply = async {
            while let Some(batch) = rx.recv().await {
                self.apply(start.created, batch).await?;
            }
            Ok(())
        };
        tokio::try_join!(fetch, apply).map(|_: ((), ())| ())
    }

    /// Decodes a batch, a large one on two threads: signatures are what costs.
    async fn decode(&self, mut messages: Vec<Message>) -> Result<Vec<Decoded>, Ended> {
        if messages.len() <= INLINE {
            return Ok(decode_all(&self.shared, &messages));
        }
        let behind = messages.split_off(messages.len() / 2);
        let half = |messages: Vec<Message>| {
            let shared = self.shared.clone();
            tokio::task::spawn_blocking(move || decode_all(&shared, &messages))
        };
        let (first, second) = tokio::join!(half(messages), half(behind));
        let mut decoded = first.map_err(|_| Ended::Panicked)?;
        decoded.extend(second.map_err(|_| Ended::Panicked)?);
        Ok(decoded)
    }

    async fn apply(&self, created: u64, batch: Vec<Decoded>) -> Result<(), Ended> {
        let mut rest: Arc<[Decoded]> = batch.into();
        let (mut done, mut last_chance) = (0, false);
        while done < rest.len() {
            let (shared, stream) = (self.shared.clone(), self.stream);
            let cursor = self.has_cursor().then_some(created);
            let apply = move |batch: Arc<[Decoded]>| {
                let some = batch.get(done..).unwrap_or_default();
                apply_some(&shared, stream, cursor, some, last_chance).map(|count| (batch, count))
            };
            let applied = if rest.len() <= INLINE {
                apply(rest)
            } else {
                tokio::task::spawn_blocking(move || apply(rest)).await.map_err(|_| Ended::Panicked)?
            };
            let (back, count) = applied.map_err(Ended::Store)?;
            rest = back;
            done += count;
            if done < rest.len() {
                read_to_end(&self.shared, depends_on(self.stream)).await;
                last_chance = true;
            }
        }
        Ok(())
    }
}

enum Retry {
    Broker,
    End(CoreError),
}

/// Where reading begins.
#[derive(Debug, Clone, Copy)]
struct Start {
    at: Position,
    /// When the message there was stored, Unix ms.
    stored_at: Option<u64>,
}

enum Ended {
    Follow(FollowError),
    Store(StoreError),
    Panicked,
}

fn decode_all(shared: &Shared, messages: &[Message]) -> Vec<Decoded> {
    let own: Vec<_> = messages.iter().map(|message| own_mailbox(shared, message)).collect();
    let others = messages.iter().zip(&own).filter(|(_, own)| own.is_none());
    let raw: Vec<_> = others.map(|(message, _)| Raw::of(message)).collect();
    let mut events = shared.decoder.decode_all(&raw).into_iter();
    let decoded = |(message, own): (&Message, Option<Event>)| {
        let event = own.map_or_else(|| events.next().unwrap_or(Err("unread")), Ok);
        if let Err(reason) = event {
            refuse(shared, &message.stream, message.sequence, reason);
        }
        Decoded { sequence: message.sequence, stored_at: message.time_ms, event }
    };
    messages.iter().zip(own).map(decoded).collect()
}

/// What the dispatcher has written and knows, to the byte: reading and believing it anew would be half of its cost.
fn own_mailbox(shared: &Shared, message: &Message) -> Option<Event> {
    if message.stream != MBOX {
        return None;
    }
    let Ok(Subject::Mailbox(_, mid)) = Subject::parse(&message.subject) else { return None };
    let known = {
        let memory = shared.memory();
        let row = memory.mailboxes.get(&mid).filter(|row| row.sequence == message.sequence);
        row.map(|row| row.sha256)
    };
    (known? == Sha256::of(&message.payload)).then_some(Event::OwnMailbox { mid })
}

/// Counts a refusal, and logs it when the count is a power of two: a flood must not flood the log.
fn refuse(shared: &Shared, stream: &str, sequence: u64, reason: &str) {
    let count = shared.counters.add(&format!("refused.{stream}.{reason}"));
    if count.is_power_of_two() {
        warn!(stream, sequence, reason, count, "message refused");
    }
}

/// Applies events up to the first that has to wait; answers how many. Blocks.
fn apply_some(
    shared: &Shared,
    stream: &'static str,
    created: Option<u64>,
    batch: &[Decoded],
    last_chance: bool,
) -> Result<usize, StoreError> {
    let mut memory = shared.memory_mut();
    let mut projection = Projection::new(&mut memory, &shared.store, &shared.decoder);
    let (mut count, mut at) = (0, None);
    for decoded in batch {
        let said = match &decoded.event {
            Ok(event) => projection.apply(decoded.sequence, decoded.stored_at, event, last_chance),
            Err(reason) => Err(ApplyError::Refused(reason)),
        };
        match said {
            Ok(Applied::Yes) => {}
            Ok(Applied::NotYet) => break,
            Err(ApplyError::Refused(reason)) => {
                if decoded.event.is_ok() {
                    refuse(shared, stream, decoded.sequence, reason);
                }
                if stream == RUN && !FOREIGN.contains(&reason) {
                    projection.litter(decoded.sequence);
                }
            }
            Err(ApplyError::Store(error)) => return Err(error),
        }
        at = Some((decoded.sequence, decoded.stored_at));
        count += 1;
    }
    let cursor = created.zip(at).map(|(created, (sequence, stored_at))| {
        let at = Position { created, sequence };
        Cursor { stream, at, stored_at: Some(stored_at) }
    });
    let effects = projection.commit(cursor)?;
    let cursor = cursor.map(|cursor| cursor.at);
    let woken = std::mem::take(&mut memory.woken);
    let stirs = !memory.stirred.is_empty();
    drop(memory);
    shared.waiters.wake(&woken);
    if stirs {
        shared.rollout.notify_one();
    }
    if !effects.bodies.is_empty() {
        let mut cache = shared.cache.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        effects.bodies.iter().for_each(|(sequence, body)| cache.put(*sequence, body));
    }
    effects.notes.iter().for_each(|name| {
        shared.counters.add(name);
    });
    if let Some(at) = cursor {
        shared.cursors.send_modify(|cursors| {
            if cursors.get(stream).sequence < at.sequence {
                cursors.set(stream, at);
            }
        });
    }
    shared.tell(effects.changes);
    if ![OUT, HB, INV].contains(&stream) {
        shared.dispatch.notify_one();
        shared.deadline.notify_one();
        shared.held.notify_one();
    }
    Ok(count)
}

/// Applies one fact that was read alone, beside the reader of RUN. Its place in the stream makes that harmless. As
/// there, one that cannot be placed waits for the streams it depends on, once.
///
/// # Errors
/// [`CoreError`] when the store failed or the projection panicked: what memory says of the run is not to be relied on.
pub(crate) async fn apply_fact(shared: &Arc<Shared>, message: Message) -> Result<(), CoreError> {
    apply_alone(shared, RUN, message).await
}

/// The same with how far a command has spread: an edition that was applied once changes nothing when it is read again.
///
/// # Errors
/// As [`apply_fact`].
pub(crate) async fn apply_rollout(shared: &Arc<Shared>, message: Message) -> Result<(), CoreError> {
    apply_alone(shared, CMD, message).await
}

async fn apply_alone(shared: &Arc<Shared>, stream: &'static str, message: Message) -> Result<(), CoreError> {
    let message = Arc::new(message);
    for last_chance in [false, true] {
        let (state, message) = (shared.clone(), message.clone());
        let job = tokio::task::spawn_blocking(move || {
            let batch = decode_all(&state, std::slice::from_ref(&*message));
            apply_some(&state, stream, None, &batch, last_chance)
        });
        if job.await.map_err(|_| CoreError::Ended("projection"))?? > 0 {
            break;
        }
        read_to_end(shared, depends_on(stream)).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use signalbox_link::Headers;
    use signalbox_schemas::id::{CommandId, MachineToken};

    use super::*;
    use crate::{
        core::still::Still,
        projection::MailboxRow,
        store::{StoreError, Txn, key},
    };

    const CID: &str = "0193a2b4-0000-7000-8000-000000000000";

    fn message(stream: &str, subject: &str, sequence: u64, payload: &'static str) -> Message {
        let (stream, subject) = (stream.to_owned(), subject.to_owned());
        Message { stream, subject, sequence, time_ms: 1, headers: Headers::new(), payload: payload.into() }
    }

    #[tokio::test]
    async fn only_what_was_written_here_to_the_byte_is_ones_own_mailbox() {
        let still = Still::start().await.unwrap();
        let shared = &still.context.shared;
        let mid = MachineToken::new("web-1").unwrap();
        let row = MailboxRow { sha256: Sha256::of(b"mine"), ..MailboxRow::foreign(5) };
        shared.memory_mut().mailboxes.insert(mid, row);
        let is_own = |subject, sequence, payload| {
            let decoded = decode_all(shared, &[message(MBOX, subject, sequence, payload)]);
            matches!(decoded.first().unwrap().event, Ok(Event::OwnMailbox { .. }))
        };
        assert!(is_own("mbox.main.web-1", 5, "mine"));
        assert!(!is_own("mbox.main.web-1", 5, "theirs"));
        assert!(!is_own("mbox.main.web-1", 6, "mine"));
        assert!(!is_own("mbox.main.web-2", 5, "mine"));
    }

    #[tokio::test]
    async fn a_fact_that_cannot_be_applied_is_an_error() {
        let still = Still::start().await.unwrap();
        let cid: CommandId = CID.parse().unwrap();
        let mut txn = Txn::new(&still.context.shared.store);
        txn.put(key::command(cid), b"{}".to_vec());
        txn.put(key::run(cid, &MachineToken::new("web-1").unwrap()), b"rubbish".to_vec());
        txn.commit().unwrap();
        let message = message(RUN, &format!("run.main.web-1.{CID}.claim"), 1, "{}");
        let applied = apply_fact(&still.context.shared, message).await;
        assert!(matches!(applied, Err(CoreError::Store(StoreError::Damaged(_)))), "{applied:?}");
    }
}
