//! Output on its way: one pump per run, from the keeper's spool to the broker.
//!
//! [`planner`] is pure and says which piece goes next, [`pace`] is pure and says how large it is and when it may go;
//! [`Pump`] reads it, sends it, waits for the acknowledgements (up to eight at once), and sends again what was not
//! acknowledged. Each piece is in the journal before it is sent, so that the next relay process repeats it in
//! the same shape.

mod pace;
mod planner;

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    rc::Rc,
    time::Duration,
};

use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, future::LocalBoxFuture, stream::FuturesUnordered};
use sha2::{Digest as _, Sha256 as Hasher};
use signalbox_link::{
    StoreError,
    crash::{Part, Point, hit},
};
use signalbox_schemas::{
    Base64Url,
    id::{CommandId, Sha256},
    limit::{CHUNK_BYTES, CHUNKS_IN_FLIGHT, INLINE_OUTPUT_BYTES},
    output::{ChunkHead, OutputStream},
    run::InlineOutput,
};
use tokio::{
    sync::watch,
    task::yield_now,
    time::{Instant, sleep, sleep_until},
};

use self::{
    pace::Pace,
    planner::{Piece, Planner},
};
use crate::{
    backoff::Backoff,
    counters::Counters,
    journal::{ChunkRecord, Entry, Journal, ledger::ChunkLog},
    keeper::{
        protocol::{Phase, RunStatus, StreamStatus},
        spool::read_spool,
    },
    nats_link::Nats,
};

/// First and longest wait before a chunk is sent again.
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LONGEST_RETRY: Duration = Duration::from_secs(5);
/// A broker that refuses for this long is believed, and the rest of the run's output is given up. Silence is no
/// refusal, and neither is a broker that has no leader, no stream or no room just now: those are waited for.
const GIVE_UP_AFTER: Duration = Duration::from_secs(30);
/// An answer that came sooner than this was an answer and not a wait that ended.
const IS_AN_ANSWER: Duration = Duration::from_secs(1);

/// What a pump needs of the relay.
pub(crate) struct Pump {
    pub(crate) cid: CommandId,
    pub(crate) nats: Nats,
    pub(crate) store: PathBuf,
    pub(crate) journal: Rc<RefCell<Journal>>,
    pub(crate) counters: Counters,
    pub(crate) status: watch::Receiver<RunStatus>,
    /// Whether the run was lost: then no exit can carry its output.
    pub(crate) is_lost: bool,
}

/// What a pump brought out.
#[derive(Debug)]
pub(crate) struct Pumped {
    /// The run's last status.
    pub(crate) status: RunStatus,
    /// Chunks that were sent.
    pub(crate) chunks: u64,
    /// All of the output, when none of it was sent as chunks.
    pub(crate) inline: Option<InlineOutput>,
}

/// What became of one sending of a chunk.
struct Answer {
    counter: u64,
    result: Result<(), StoreError>,
    took: Duration,
    /// How long it would have been waited for.
    patience: Duration,
    /// Which connection it went over.
    connects: u64,
}

impl Pump {
    /// Brings out all output of a run; answers when the run has ended and the last chunk is acknowledged or
    /// given up. `None` when the run's end will never be known.
    pub(crate) async fn run(mut self, log: ChunkLog) -> Option<Pumped> {
        let mut hashes = Hashes::default();
        self.catch_up(&mut hashes, &log).await;
        let mut planner = Planner::new(log, Instant::now());
        let mut flow = Flow::default();
        loop {
            let status = self.status.borrow_and_update().clone();
            let ended = status.phase == Phase::Ended;
            if ended
                && !self.is_lost
                && !planner.has_sent()
                && let Some(all) = self.inline(&status)
            {
                let inline = Some(all).filter(|all| all.stdout.0.len() + all.stderr.0.len() > 0);
                return Some(Pumped { status, chunks: 0, inline });
            }
            self.send_what_may_go(&status, &mut planner, &mut hashes, &mut flow);
            if ended && flow.waiting.is_empty() {
                let status = planner.without_what_stayed_behind(status);
                return Some(Pumped { status, chunks: planner.chunks(), inline: None });
            }
            let has_room = flow.has_room_for_new(planner.chunks());
            let due = planner.due(Instant::now()).filter(|_| has_room);
            tokio::select! {
                biased;
                Some(answer) = flow.in_flight.next() => {
                    if self.take(answer, &mut flow).is_break() {
                        self.counters.count("output_given_up");
                        planner.give_up(flow.acknowledged(planner.chunks()), [true; 2]);
                        flow = Flow::default();
                    }
                }
                changed = self.status.changed(), if !ended => changed.ok()?,
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            }
        }
    }

    fn send_what_may_go(
        &self,
        status: &RunStatus,
        planner: &mut Planner,
        hashes: &mut Hashes,
        flow: &mut Flow,
    ) {
        while let Some(&counter) = flow.again.first()
            && flow.pace.has_room(flow.bytes)
        {
            flow.again.remove(&counter);
            let delay = flow.retry.backoff.delay();
            flow.send(self, counter, delay);
        }
        while flow.has_room_for_new(planner.chunks())
            && let Some(piece) = planner.next(status, Instant::now(), flow.pace.piece())
        {
            let Some(chunk) = self.read(piece, hashes) else {
                if self.counters.count("output_unreadable") {
                    tracing::warn!(cid = %self.cid, "output cannot be read back, the rest of it stays behind");
                }
                planner.give_up(piece.counter, OutputStream::ALL.map(|it| it == piece.chunk.stream));
                break;
            };
            flow.waiting.insert(piece.counter, chunk);
            flow.send(self, piece.counter, Duration::ZERO);
        }
    }

    /// Takes the answer about a chunk; breaks when the output is to be given up.
    fn take(&self, answer: Answer, flow: &mut Flow) -> std::ops::ControlFlow<()> {
        let bytes = flow.waiting.get(&answer.counter).map_or(0, |(_, body)| body.len());
        flow.bytes -= bytes;
        let Err(error) = answer.result else {
            flow.waiting.remove(&answer.counter);
            flow.pace.answered(bytes, answer.took);
            flow.retry = Retry::default();
            hit(Part::Relay, Point::OutputHalf);
            return std::ops::ControlFlow::Continue(());
        };
        let is_cut_off = self.nats.connects() != answer.connects;
        let is_silent = matches!(error, StoreError::Unanswered { .. }) && answer.took >= IS_AN_ANSWER;
        if is_cut_off {
            flow.pace.reconnected();
        } else if is_silent {
            flow.pace.unanswered(answer.patience);
        }
        if flow.retry.is_hopeless(&error, Instant::now()) {
            tracing::warn!(cid = %self.cid, %error, "output given up");
            return std::ops::ControlFlow::Break(());
        }
        if self.counters.count("output_repeated") {
            tracing::warn!(cid = %self.cid, %error, "output chunk sent again");
        }
        flow.again.insert(answer.counter);
        std::ops::ControlFlow::Continue(())
    }

    /// All output, when it fits into the exit.
    fn inline(&self, status: &RunStatus) -> Option<InlineOutput> {
        let [out, err] = [&status.stdout, &status.stderr];
        if out.bytes + err.bytes > INLINE_OUTPUT_BYTES as u64 || out.truncated || err.truncated {
            return None;
        }
        let read = |stream, of: &StreamStatus| {
            if of.bytes == 0 {
                return Some(Base64Url::default());
            }
            let bytes = read_spool(&self.store, self.cid, stream, 0, INLINE_OUTPUT_BYTES).ok()?;
            (bytes.len() as u64 == of.bytes).then(|| Base64Url(bytes.into()))
        };
        let stdout = read(OutputStream::Stdout, out)?;
        let stderr = read(OutputStream::Stderr, err)?;
        Some(InlineOutput { stdout, stderr })
    }

    /// Reads a piece from the spool and writes it down as about to be sent.
    fn read(&self, piece: Piece, hashes: &mut Hashes) -> Option<(ChunkHead, Bytes)> {
        let Piece { chunk, counter, is_new } = piece;
        let ChunkRecord { stream, offset, len, is_tail } = chunk;
        let is_cut = len == 0;
        let body = self.read_exactly(stream, offset, len)?;
        let sha256 = if is_cut || is_tail { None } else { Some(self.hash(hashes, chunk, &body)?) };
        if is_new && let Err(error) = self.journal.borrow_mut().append(Entry::Chunk { cid: self.cid, chunk })
        {
            // A restart would then send other pieces from here on, which readers put right.
            tracing::debug!(%error, "chunk not written down");
            self.counters.count("journal_write");
        }
        Some((ChunkHead { stream, offset, counter, sha256, cut: is_cut }, body))
    }

    fn read_exactly(&self, stream: OutputStream, offset: u64, len: u64) -> Option<Bytes> {
        let len = usize::try_from(len).ok()?;
        if len == 0 {
            return Some(Bytes::new());
        }
        let bytes = read_spool(&self.store, self.cid, stream, offset, len).ok()?;
        (bytes.len() == len).then_some(bytes)
    }

    /// After a restart: reads once more what was acknowledged before, to go on with its hash. It may be much, and
    /// the relay has other things to do meanwhile.
    async fn catch_up(&self, hashes: &mut Hashes, log: &ChunkLog) {
        for (stream, &until) in OutputStream::ALL.into_iter().zip(&log.before.bulk) {
            let Some(hash) = hashes.0.get_mut(stream as usize) else { continue };
            while hash.position < until {
                let len = (until - hash.position).min(CHUNK_BYTES as u64);
                // What cannot be read leaves the hash behind, and the next piece says so.
                let Some(bytes) = self.read_exactly(stream, hash.position, len) else { break };
                hash.add(&bytes);
                yield_now().await;
            }
        }
    }

    /// The running hash up to and with a piece. A piece that was not written down lies before it unread.
    fn hash(&self, hashes: &mut Hashes, chunk: ChunkRecord, body: &[u8]) -> Option<Sha256> {
        let hash = hashes.0.get_mut(chunk.stream as usize)?;
        while hash.position < chunk.offset {
            let len = (chunk.offset - hash.position).min(CHUNK_BYTES as u64);
            hash.add(&self.read_exactly(chunk.stream, hash.position, len)?);
        }
        hash.add(body);
        Some(Sha256(hash.hasher.clone().finalize().into()))
    }
}

/// Running hashes of both streams.
#[derive(Default)]
struct Hashes([RunningHash; 2]);

#[derive(Default)]
struct RunningHash {
    position: u64,
    hasher: Hasher,
}

impl RunningHash {
    fn add(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.position += bytes.len() as u64;
    }
}

/// What is on its way, and what waits to go again.
#[derive(Default)]
struct Flow {
    pace: Pace,
    /// By number, all that was sent and is not acknowledged.
    waiting: BTreeMap<u64, (ChunkHead, Bytes)>,
    /// Those of them that are to be sent again.
    again: BTreeSet<u64>,
    /// The others.
    in_flight: FuturesUnordered<LocalBoxFuture<'static, Answer>>,
    /// Their bytes.
    bytes: usize,
    retry: Retry,
}

impl Flow {
    /// Whether a new chunk may follow, after so many. The newest ones are what a restarted relay repeats, so none
    /// may go before all but those are acknowledged.
    fn has_room_for_new(&self, chunks: u64) -> bool {
        let unsure = chunks - self.acknowledged(chunks);
        self.again.is_empty() && unsure < CHUNKS_IN_FLIGHT as u64 && self.pace.has_room(self.bytes)
    }

    /// So many of `chunks` are acknowledged, with all before them.
    fn acknowledged(&self, chunks: u64) -> u64 {
        self.waiting.first_key_value().map_or(chunks, |(&counter, _)| counter)
    }

    fn send(&mut self, pump: &Pump, counter: u64, delay: Duration) {
        let Some((head, body)) = self.waiting.get(&counter).cloned() else { return };
        self.bytes += body.len();
        let (nats, cid, patience) = (pump.nats.clone(), pump.cid, self.pace.patience());
        let sending = async move {
            sleep(delay).await;
            nats.connected().await;
            let (connects, began) = (nats.connects(), Instant::now());
            let result = match nats.send_chunk(cid, &head, body).await {
                Ok(sent) => sent.stored(patience).await,
                Err(error) => Err(error),
            };
            Answer { counter, result, took: began.elapsed(), patience, connects }
        };
        self.in_flight.push(sending.boxed_local());
    }
}

/// How the broker has been taking it lately.
struct Retry {
    backoff: Backoff,
    refused_since: Option<Instant>,
}

impl Retry {
    /// Takes an error and says whether to give up.
    fn is_hopeless(&mut self, error: &StoreError, now: Instant) -> bool {
        if error.is_retryable() {
            self.refused_since = None;
            return false;
        }
        now >= *self.refused_since.get_or_insert(now) + GIVE_UP_AFTER
    }
}

impl Default for Retry {
    fn default() -> Self {
        Self { backoff: Backoff::new(FIRST_RETRY, LONGEST_RETRY), refused_since: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_broker_that_refuses_is_believed() {
        let refused = StoreError::Refused { code: 10_003, description: "bad request".into() };
        let unanswered = StoreError::Unanswered { waited: Duration::ZERO };
        let now = Instant::now();
        let mut retry = Retry::default();
        for waits in [StoreError::Full, unanswered] {
            assert!(!retry.is_hopeless(&waits, now));
            assert!(!retry.is_hopeless(&waits, now + 10 * GIVE_UP_AFTER));
        }
        assert!(!retry.is_hopeless(&refused, now));
        assert!(!retry.is_hopeless(&StoreError::Full, now + GIVE_UP_AFTER));
        assert!(!retry.is_hopeless(&refused, now + GIVE_UP_AFTER), "it began anew");
        assert!(retry.is_hopeless(&refused, now + 2 * GIVE_UP_AFTER));
        assert!(StoreError::TooLarge { size: 2, limit: 1 }.is_retryable() == refused.is_retryable());
    }
}
