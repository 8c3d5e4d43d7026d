//! How long a poll may be held: a little less than the time after which its client polls again.
//!
//! Old relays poll at a fixed rate and need work at once. A poll that is held until there is some gives them both; one
//! that is held longer than their rate makes them poll again beside it, and then it is over.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tokio::{sync::Notify, time::sleep};

/// Gaps that are looked at: the median of five forgets a single odd one.
const GAPS: usize = 5;
/// The longest that a poll is held: proxies and clients give up after 30 s.
const LONGEST: Duration = Duration::from_secs(25);

/// When every client polled, by assignment. Bounded by the number of assignments.
#[derive(Debug, Default)]
pub(super) struct Paces(Mutex<HashMap<String, Pace>>);

#[derive(Debug)]
struct Pace {
    last: Instant,
    /// The newest gaps, the oldest first.
    gaps: Vec<Duration>,
    /// Told when its client polls again.
    newer: Arc<Notify>,
}

/// How long one poll may be held.
#[derive(Debug)]
pub(super) struct Hold {
    longest: Duration,
    newer: Arc<Notify>,
}

impl Hold {
    /// Waits until it was held for long enough, or its client polls again.
    pub(super) async fn over(&self) {
        tokio::select! {
            () = sleep(self.longest) => {}
            () = self.newer.notified() => {}
        }
    }
}

impl Paces {
    /// A client polls. Answers how long it may be held: 0.9 × the median of its last five gaps; not at all when it is new.
    /// The poll before is held no longer.
    pub(super) fn arrives(&self, assignment: &str, now: Instant) -> Hold {
        let mut paces = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let Some(pace) = paces.get_mut(assignment) else {
            let newer = Arc::new(Notify::new());
            let pace = Pace { last: now, gaps: Vec::with_capacity(GAPS), newer: Arc::clone(&newer) };
            paces.insert(assignment.to_owned(), pace);
            return Hold { longest: Duration::ZERO, newer };
        };
        if pace.gaps.len() == GAPS {
            pace.gaps.remove(0);
        }
        pace.gaps.push(now.saturating_duration_since(pace.last));
        pace.last = now;
        // Kept for it, should it not wait yet.
        pace.newer.notify_one();
        pace.newer = Arc::new(Notify::new());
        Hold { longest: median(&pace.gaps).mul_f64(0.9).min(LONGEST), newer: Arc::clone(&pace.newer) }
    }
}

/// The middle one, or the lower of the two in the middle.
fn median(gaps: &[Duration]) -> Duration {
    let mut sorted = gaps.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len().saturating_sub(1) / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    /// How long polls at these times (ms) are held, ms.
    fn held(times: &[u64]) -> Vec<u128> {
        let (paces, begin) = (Paces::default(), Instant::now());
        let hold = |at: &u64| paces.arrives("a", begin + Duration::from_millis(*at)).longest.as_millis();
        times.iter().map(hold).collect()
    }

    #[test]
    fn a_poll_is_held_for_a_little_less_than_the_usual_gap() {
        assert_eq!(held(&[0, 5_000, 10_000, 15_000]), [0, 4_500, 4_500, 4_500]);
        // One late and one doubled poll change nothing.
        assert_eq!(held(&[0, 1_000, 2_000, 3_000, 63_000, 63_001, 64_000]).last(), Some(&900));
        // Who polls once a minute is held for 25 s.
        assert_eq!(held(&[0, 60_000]), [0, 25_000]);
        // A new rate is learned in three polls.
        let faster: Vec<u64> =
            (0..=5).map(|n| n * 5_000).chain((1..=3).map(|n| 25_000 + n * 1_000)).collect();
        assert_eq!(held(&faster).last(), Some(&900));
    }

    #[test]
    fn clients_have_a_pace_each() {
        let (paces, begin) = (Paces::default(), Instant::now());
        paces.arrives("a", begin);
        assert_eq!(paces.arrives("b", begin + Duration::from_secs(1)).longest, Duration::ZERO);
        assert_eq!(paces.arrives("a", begin + Duration::from_secs(2)).longest.as_millis(), 1_800);
    }

    #[tokio::test(start_paused = true)]
    async fn the_newest_poll_of_a_client_is_the_one_that_is_held() {
        let (paces, begin) = (Paces::default(), Instant::now());
        let poll = |client, at| paces.arrives(client, begin + Duration::from_secs(at));
        poll("a", 0);
        let (older, other) = (poll("a", 10), {
            poll("b", 0);
            poll("b", 10)
        });
        let newer = poll("a", 20);
        let held = |hold: Hold| async move { timeout(Duration::from_secs(1), hold.over()).await.is_err() };
        assert_eq!((held(older).await, held(newer).await, held(other).await), (false, true, true));
    }
}
