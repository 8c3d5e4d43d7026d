//! Which piece of a run's output goes next. Pure.

use std::{collections::VecDeque, time::Duration};

use signalbox_schemas::{limit::CHUNK_BYTES, output::OutputStream};
use tokio::time::Instant;

use crate::{
    journal::{ChunkRecord, Progress, ledger::ChunkLog},
    keeper::protocol::{Phase, RunStatus, StreamStatus},
};

/// Shortest and longest wait of a first byte for company.
const FLUSH_MIN: Duration = Duration::from_millis(25);
const FLUSH_MAX: Duration = Duration::from_secs(5);
/// A run that has lasted for this many times a delay may have that delay: at most some 4,000 chunks per day and
/// stream beyond the first minutes.
const FLUSH_RUN_SHARE: u32 = 4_000;
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
    has_sent: bool,
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
        let has_sent = log.before.counter > 0 || !log.window.is_empty();
        let (progress, again) = (log.before, log.window);
        Self { progress, again, waiting_since: [None; 2], began, given_up: None, has_sent }
    }

    /// Whether a chunk was ever sent, by this process or a former one, acknowledged or not: what was may be there, and
    /// the same bytes in the exit would come twice.
    pub(crate) fn has_sent(&self) -> bool {
        self.has_sent
    }

    /// Chunks sent so far.
    pub(crate) fn chunks(&self) -> u64 {
        self.progress.counter
    }

    /// The piece that is due, if any, of at most `most` bytes ([`CHUNK_BYTES`] at most; what was cut before keeps its shape).
    pub(crate) fn next(&mut self, status: &RunStatus, now: Instant, most: usize) -> Option<Piece> {
        if self.given_up.is_some() {
            return None;
        }
        if let Some(chunk) = self.again.pop_front() {
            return Some(self.take(chunk, false));
        }
        let most = most.min(CHUNK_BYTES) as u64;
        OutputStream::ALL.into_iter().find_map(|stream| self.next_of(stream, status, now, most))
    }

    fn next_of(
        &mut self,
        stream: OutputStream,
        status: &RunStatus,
        now: Instant,
        most: u64,
    ) -> Option<Piece> {
        let (of, ended) = (stream_of(status, stream), status.phase == Phase::Ended);
        let offset = at(&self.progress.bulk, stream);
        let waiting = of.kept.saturating_sub(offset);
        if waiting > 0 {
            let since = at(&self.waiting_since, stream).unwrap_or(now);
            let due = waiting >= most || ended || of.truncated || now >= since + self.delay(now);
            let rest = waiting.saturating_sub(most);
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
        let len = (tail.offset + tail.len).saturating_sub(offset).min(most);
        (len > 0).then(|| self.take(ChunkRecord { stream, offset, len, is_tail: true }, true))
    }

    fn take(&mut self, chunk: ChunkRecord, is_new: bool) -> Piece {
        self.has_sent = true;
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

#[cfg(test)]
mod tests;
