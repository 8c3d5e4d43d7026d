//! Output on its way: one pump per run, from the keeper's spool to the broker.
//!
//! [`Planner`] is pure and says which piece goes next; [`Pump`] reads it, sends it, waits for the
//! acknowledgements (up to eight at once), and sends again what was not acknowledged. Each piece is in the
//! journal before it is sent, so that the next relay process repeats it in the same shape.

use std::{cell::RefCell, collections::VecDeque, path::PathBuf, rc::Rc, time::Duration};

use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, future::LocalBoxFuture, stream::FuturesOrdered};
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
    time::{Instant, sleep, sleep_until},
};

use crate::{
    backoff::Backoff,
    counters::Counters,
    journal::{ChunkRecord, Entry, Journal, Progress, ledger::ChunkLog},
    keeper::{
        protocol::{Phase, RunStatus, StreamStatus},
        spool::read_spool,
    },
    nats_link::Nats,
};

/// Shortest and longest wait of a first byte for company.
const FLUSH_MIN: Duration = Duration::from_millis(25);
const FLUSH_MAX: Duration = Duration::from_secs(5);
/// A run that has lasted for this many times a delay may have that delay: at most some 4,000 chunks per day and
/// stream beyond the first minutes.
const FLUSH_RUN_SHARE: u32 = 4_000;
/// First and longest wait before a chunk is sent again.
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LONGEST_RETRY: Duration = Duration::from_secs(5);
/// A broker that says no for this long is believed, and the rest of the run's output is given up. Silence is not
/// a no: then the broker is waited for.
const GIVE_UP_AFTER: Duration = Duration::from_secs(30);
/// An answer that came sooner than this was an answer and not a wait that ended.
const IS_AN_ANSWER: Duration = Duration::from_secs(1);

/// Which piece of a run's output goes next. Pure.
#[derive(Debug)]
pub(crate) struct Planner {
    progress: Progress,
    /// Sent by an earlier relay process and perhaps not acknowledged.
    again: VecDeque<ChunkRecord>,
    /// Since when the next bytes of a stream wait.
    waiting_since: [Option<Instant>; 2],
    began: Instant,
    /// Nothing more is sent, and these streams lack bytes that were.
    given_up: Option<[bool; 2]>,
}

/// A piece to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) chunk: ChunkRecord,
    pub(crate) counter: u64,
    /// Whether it was never sent before.
    pub(crate) is_new: bool,
}

fn stream_of(status: &RunStatus, stream: OutputStream) -> &StreamStatus {
    match stream {
        OutputStream::Stdout => &status.stdout,
        OutputStream::Stderr => &status.stderr,
    }
}

fn at<T: Copy + Default>(pair: &[T; 2], stream: OutputStream) -> T {
    pair.get(stream as usize).copied().unwrap_or_default()
}

impl Planner {
    pub(crate) fn new(log: ChunkLog, began: Instant) -> Self {
        Self { progress: log.before, again: log.window, waiting_since: [None; 2], began, given_up: None }
    }

    /// Chunks sent so far.
    pub(crate) fn chunks(&self) -> u64 {
        self.progress.counter
    }

    /// The piece that is due, if any.
    pub(crate) fn next(&mut self, status: &RunStatus, now: Instant) -> Option<Piece> {
        if self.given_up.is_some() {
            return None;
        }
        if let Some(chunk) = self.again.pop_front() {
            return Some(self.take(chunk, false));
        }
        OutputStream::ALL.into_iter().find_map(|stream| self.next_of(stream, status, now))
    }

    fn next_of(&mut self, stream: OutputStream, status: &RunStatus, now: Instant) -> Option<Piece> {
        let (of, ended) = (stream_of(status, stream), status.phase == Phase::Ended);
        let offset = at(&self.progress.bulk, stream);
        let waiting = of.kept.saturating_sub(offset);
        if waiting > 0 {
            let since = at(&self.waiting_since, stream).unwrap_or(now);
            let due =
                waiting >= CHUNK_BYTES as u64 || ended || of.truncated || now >= since + self.delay(now);
            let rest = waiting.saturating_sub(CHUNK_BYTES as u64);
            if let Some(waits) = self.waiting_since.get_mut(stream as usize) {
                *waits = if due { (rest > 0).then_some(now) } else { Some(since) };
            }
            let chunk = ChunkRecord { stream, offset, len: waiting - rest, is_tail: false };
            return due.then(|| self.take(chunk, true));
        }
        if of.truncated && !at(&self.progress.cut, stream) {
            return Some(self.take(ChunkRecord { stream, offset, len: 0, is_tail: false }, true));
        }
        let tail = of.tail.filter(|_| ended)?;
        let offset = at(&self.progress.tail, stream).max(tail.offset);
        let len = (tail.offset + tail.len).saturating_sub(offset).min(CHUNK_BYTES as u64);
        (len > 0).then(|| self.take(ChunkRecord { stream, offset, len, is_tail: true }, true))
    }

    fn take(&mut self, chunk: ChunkRecord, is_new: bool) -> Piece {
        let piece = Piece { chunk, counter: self.progress.counter, is_new };
        self.progress.add(chunk);
        piece
    }

    fn delay(&self, now: Instant) -> Duration {
        (now.saturating_duration_since(self.began) / FLUSH_RUN_SHARE).clamp(FLUSH_MIN, FLUSH_MAX)
    }

    /// Plans nothing more. Only the first `chunks` got through; the streams of the others are `lacking`.
    pub(crate) fn give_up(&mut self, chunks: u64, lacking: [bool; 2]) {
        self.progress.counter = chunks;
        self.waiting_since = [None; 2];
        self.given_up = Some(lacking);
    }

    /// The status that an exit may sign: a stream of which bytes stayed behind is not whole.
    pub(crate) fn without_what_stayed_behind(&self, mut status: RunStatus) -> RunStatus {
        let Some(lacking) = self.given_up else { return status };
        for stream in OutputStream::ALL {
            let of = match stream {
                OutputStream::Stdout => &mut status.stdout,
                OutputStream::Stderr => &mut status.stderr,
            };
            let lacks = at(&lacking, stream) || of.kept > at(&self.progress.bulk, stream);
            of.truncated |= of.bytes > 0 && lacks;
        }
        status
    }

    /// When to ask again at the latest.
    pub(crate) fn due(&self, now: Instant) -> Option<Instant> {
        self.waiting_since.iter().flatten().min().map(|since| *since + self.delay(now))
    }
}

/// What a pump needs of the relay.
pub(crate) struct Pump {
    pub(crate) cid: CommandId,
    pub(crate) nats: Nats,
    pub(crate) store: PathBuf,
    pub(crate) journal: Rc<RefCell<Journal>>,
    pub(crate) counters: Counters,
    pub(crate) status: watch::Receiver<RunStatus>,
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

/// A chunk in flight, and what became of it.
struct Sent {
    head: ChunkHead,
    body: Bytes,
    result: Result<(), StoreError>,
    took: Duration,
}

type InFlight = FuturesOrdered<LocalBoxFuture<'static, Sent>>;

impl Pump {
    /// Brings out all output of a run; answers when the run has ended and the last chunk is acknowledged or
    /// given up. `None` when the run's end will never be known.
    pub(crate) async fn run(mut self, log: ChunkLog) -> Option<Pumped> {
        let mut planner = Planner::new(log, Instant::now());
        let mut hashes = Hashes::default();
        let mut in_flight = InFlight::new();
        let mut retry = Retry::default();
        loop {
            let status = self.status.borrow_and_update().clone();
            let ended = status.phase == Phase::Ended;
            if ended
                && planner.chunks() == 0
                && let Some(all) = self.inline(&status)
            {
                let inline = Some(all).filter(|all| all.stdout.0.len() + all.stderr.0.len() > 0);
                return Some(Pumped { status, chunks: 0, inline });
            }
            while in_flight.len() < CHUNKS_IN_FLIGHT
                && let Some(piece) = planner.next(&status, Instant::now())
            {
                let Some((head, body)) = self.read(piece, &mut hashes) else {
                    if self.counters.count("output_unreadable") {
                        tracing::warn!(cid = %self.cid, "output cannot be read back, the rest of it stays behind");
                    }
                    planner.give_up(piece.counter, OutputStream::ALL.map(|it| it == piece.chunk.stream));
                    break;
                };
                in_flight
                    .push_back(send(self.nats.clone(), self.cid, head, body, Duration::ZERO).boxed_local());
            }
            if ended && in_flight.is_empty() {
                let status = planner.without_what_stayed_behind(status);
                return Some(Pumped { status, chunks: planner.chunks(), inline: None });
            }
            let has_room = in_flight.len() < CHUNKS_IN_FLIGHT;
            let due = planner.due(Instant::now()).filter(|_| has_room);
            tokio::select! {
                biased;
                Some(sent) = in_flight.next() => {
                    if self.acknowledge(sent, &mut in_flight, &mut retry).is_break() {
                        self.counters.count("output_given_up");
                        let acknowledged = planner.chunks() - in_flight.len() as u64 - 1;
                        in_flight = InFlight::new();
                        planner.give_up(acknowledged, [true; 2]);
                    }
                }
                changed = self.status.changed(), if !ended => changed.ok()?,
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            }
        }
    }

    /// Takes the answer about the oldest chunk in flight; breaks when the output is to be given up.
    fn acknowledge(
        &self,
        sent: Sent,
        in_flight: &mut InFlight,
        retry: &mut Retry,
    ) -> std::ops::ControlFlow<()> {
        let Err(error) = sent.result else {
            *retry = Retry::default();
            hit(Part::Relay, Point::OutputHalf);
            return std::ops::ControlFlow::Continue(());
        };
        let silent = matches!(error, StoreError::Unanswered { .. }) && sent.took >= IS_AN_ANSWER;
        if silent {
            retry.refused_since = None;
        } else if retry.refused_since.get_or_insert_with(Instant::now).elapsed() >= GIVE_UP_AFTER {
            tracing::warn!(cid = %self.cid, %error, "output given up");
            return std::ops::ControlFlow::Break(());
        }
        if self.counters.count("output_repeated") {
            tracing::warn!(cid = %self.cid, %error, "output chunk sent again");
        }
        let delay = retry.backoff.delay();
        in_flight.push_front(send(self.nats.clone(), self.cid, sent.head, sent.body, delay).boxed_local());
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

    /// The running hash up to and with a piece. After a restart what lies before it is read once more.
    fn hash(&self, hashes: &mut Hashes, chunk: ChunkRecord, body: &[u8]) -> Option<Sha256> {
        let hash = hashes.0.get_mut(chunk.stream as usize)?;
        while hash.position < chunk.offset {
            let len = (chunk.offset - hash.position).min(CHUNK_BYTES as u64);
            let bytes = self.read_exactly(chunk.stream, hash.position, len)?;
            hash.hasher.update(&bytes);
            hash.position += len;
        }
        hash.hasher.update(body);
        hash.position += body.len() as u64;
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

/// How the broker has been taking it lately.
struct Retry {
    backoff: Backoff,
    refused_since: Option<Instant>,
}

impl Default for Retry {
    fn default() -> Self {
        Self { backoff: Backoff::new(FIRST_RETRY, LONGEST_RETRY), refused_since: None }
    }
}

async fn send(nats: Nats, cid: CommandId, head: ChunkHead, body: Bytes, delay: Duration) -> Sent {
    sleep(delay).await;
    nats.connected().await;
    let began = Instant::now();
    let result = match nats.send_chunk(cid, &head, body.clone()).await {
        Ok(pending) => pending.stored().await.map(|_| ()),
        Err(error) => Err(error),
    };
    Sent { head, body, result, took: began.elapsed() }
}

#[cfg(test)]
mod tests;
