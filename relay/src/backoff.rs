//! Waiting before trying again: doubling with full jitter, up to a bound.

use std::time::Duration;

use signalbox_link::random_ratio;

/// Delays that double from a first one to a longest one. Each is drawn between half of itself and itself, so
/// that those who failed together do not try again together.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    next: Duration,
    longest: Duration,
}

impl Backoff {
    pub(crate) fn new(first: Duration, longest: Duration) -> Self {
        Self { next: first, longest }
    }

    /// The next delay.
    pub(crate) fn delay(&mut self) -> Duration {
        let whole = self.next;
        self.next = (whole * 2).min(self.longest);
        whole.mul_f64(0.5 + random_ratio() / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_their_bound_and_differ() {
        let (first, longest) = (Duration::from_millis(100), Duration::from_secs(1));
        let mut backoff = Backoff::new(first, longest);
        let delays: Vec<Duration> = (0..50).map(|_| backoff.delay()).collect();
        assert!(delays[0] >= first / 2 && delays[0] <= first);
        assert!(delays[10..].iter().all(|delay| *delay >= longest / 2 && *delay <= longest));
        let different: std::collections::HashSet<_> = delays[10..].iter().collect();
        assert!(different.len() > 20);
    }
}
