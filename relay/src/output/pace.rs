//! How much of a run's output may be on its way at once. Pure.
//!
//! One connection carries everything in order: what is handed to it faster than the link carries it away makes
//! claims, heartbeats and its own acknowledgement late, and what is sent again before the answer can be there makes
//! them later still. So the window follows the answers: it grows while they come about as soon as the soonest
//! did, and shrinks when they come much later. A fast link is kept full, a slow one busy for about a second.

use std::time::Duration;

use signalbox_link::ACK_TIMEOUT;
use signalbox_schemas::limit::{CHUNK_BYTES, CHUNKS_IN_FLIGHT};

use crate::nats_link::first_patience;

/// Smallest piece of output that is waiting: 172,800 of them in the longest run, if a link takes one per second.
const PIECE_MIN: usize = 16 * 1024;
/// Before anything is known: two of the smallest pieces.
const WINDOW_FIRST: usize = 2 * PIECE_MIN;
const WINDOW_MAX: usize = CHUNKS_IN_FLIGHT * CHUNK_BYTES;
/// A window holds this many pieces: the answer to one comes while others are on their way.
const PIECES: usize = 4;
/// Answers that come so much later than the soonest did are in time; twice that is too late.
const SLACK: Duration = Duration::from_millis(500);
/// An answer may take so many times as long as the last one did.
const PATIENCE_FACTOR: u32 = 4;
const PATIENCE_MAX: Duration = Duration::from_mins(1);

/// The window of one run. Bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pace {
    window: usize,
    soonest: Option<Duration>,
    patience: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { window: WINDOW_FIRST, soonest: None, patience: first_patience(WINDOW_FIRST) }
    }
}

impl Pace {
    /// Largest piece to be cut now, [`PIECE_MIN`] to [`CHUNK_BYTES`].
    pub(crate) fn piece(&self) -> usize {
        (self.window / PIECES).clamp(PIECE_MIN, CHUNK_BYTES)
    }

    /// Whether another piece may follow so many bytes that are on their way.
    pub(crate) fn has_room(&self, in_flight: usize) -> bool {
        in_flight == 0 || in_flight + self.piece() <= self.window
    }

    /// How long to wait for the answer to what is sent now.
    pub(crate) fn patience(&self) -> Duration {
        self.patience
    }

    /// So many bytes were acknowledged, so long after they were sent.
    pub(crate) fn answered(&mut self, bytes: usize, took: Duration) {
        let soonest = self.soonest.map_or(took, |soonest| soonest.min(took));
        self.soonest = Some(soonest);
        let late = took.saturating_sub(soonest);
        if late <= SLACK {
            self.window = (self.window + bytes).min(WINDOW_MAX);
        } else if late > 2 * SLACK {
            self.window = self.window.saturating_sub(bytes).max(PIECE_MIN);
        }
        self.patience = (took * PATIENCE_FACTOR).clamp(ACK_TIMEOUT, PATIENCE_MAX);
    }

    /// No answer came within `patience`. Several pieces that were sent with one patience say it once.
    pub(crate) fn unanswered(&mut self, patience: Duration) {
        self.window = PIECE_MIN;
        self.patience = self.patience.max(patience * 2).min(PATIENCE_MAX);
    }

    /// There is another connection: perhaps over another link.
    pub(crate) fn reconnected(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    /// How long a link that carries `rate` bytes per second is busy with so many.
    fn busy(bytes: usize, rate: u64) -> Duration {
        Duration::from_nanos(bytes as u64 * 1_000_000_000 / rate)
    }

    /// Brings `total` bytes over a link that answers `delay` after it has carried a piece; what is sent again takes its
    /// place behind everything else. Answers the time it took, and the longest queue.
    fn transfer(rate: u64, delay: Duration, total: usize) -> (Duration, Duration) {
        let mut pace = Pace::default();
        let [mut now, mut free, mut longest] = [Duration::ZERO; 3];
        let mut left = total;
        // When a piece was sent, when its answer comes, its size, the patience.
        let mut on_its_way: VecDeque<(Duration, Duration, usize, Duration)> = VecDeque::new();
        for _ in 0..1_000_000 {
            let in_flight: usize = on_its_way.iter().map(|sent| sent.2).sum();
            if left > 0 && pace.has_room(in_flight) && on_its_way.len() < CHUNKS_IN_FLIGHT {
                let bytes = pace.piece().min(left);
                left -= bytes;
                free = free.max(now) + busy(bytes, rate);
                on_its_way.push_back((now, free + delay, bytes, pace.patience()));
                longest = longest.max(free.saturating_sub(now));
                continue;
            }
            let Some((sent, answer, bytes, patience)) = on_its_way.pop_front() else { return (now, longest) };
            now = now.max(answer.min(sent + patience));
            if answer <= sent + patience {
                pace.answered(bytes, answer.saturating_sub(sent));
            } else {
                pace.unanswered(patience);
                left += bytes;
            }
        }
        panic!("it never ends");
    }

    #[test]
    fn every_link_is_used_and_none_is_flooded() {
        for (rate, delay_ms) in [
            (2_000, 1_000),
            (16_000, 800),
            (100_000, 300),
            (1_000_000, 50),
            (1_000_000, 800),
            (100_000_000, 1),
            (1_000_000_000, 0),
        ] {
            let delay = Duration::from_millis(delay_ms);
            let total = usize::try_from(rate * 60).unwrap().min(100 << 20);
            let (took, longest) = transfer(rate, delay, total);
            // On the slowest, the first pieces and one that is sent again too soon.
            let queue = Duration::from_secs(2).max(busy(3 * PIECE_MIN, rate));
            assert!(longest <= queue, "{rate} B/s, {delay_ms} ms: a queue of {longest:?}");
            // What limits a long and fast link is the window: 1 MiB per answer.
            let windows = u32::try_from(total / WINDOW_MAX).unwrap();
            let floor = (busy(total, rate) + delay).max(delay * windows);
            assert!(took < floor * 17 / 10 + delay * 5, "{rate} B/s, {delay_ms} ms: {took:?} for {floor:?}");
        }
    }

    #[test]
    fn silence_makes_it_patient_once_per_sending_and_only_so_far() {
        let mut pace = Pace::default();
        let first = pace.patience();
        for _ in 0..8 {
            pace.unanswered(first);
        }
        assert_eq!((pace.patience(), pace.piece()), (2 * first, PIECE_MIN));
        assert!(pace.has_room(0) && !pace.has_room(1));
        for _ in 0..8 {
            pace.unanswered(pace.patience());
        }
        assert_eq!(pace.patience(), PATIENCE_MAX);
        pace.answered(PIECE_MIN, Duration::from_millis(2));
        assert_eq!(pace.patience(), ACK_TIMEOUT);
    }
}
