//! The wall clock, read in one place, and whether somebody has set it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// How often the clock is looked at.
pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A wall clock that is off by more than this from what has passed was set.
const SET_BY_MS: u64 = 1_000;

/// Unix time by this machine's clock, ms.
pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Compares the wall clock with one that nobody sets. Pure: the caller looks at both.
#[derive(Debug)]
pub(crate) struct Watch {
    wall_ms: u64,
    at: Instant,
}

impl Watch {
    /// From this look on: the wall clock, Unix ms, and the other one.
    pub(crate) fn new(wall_ms: u64, at: Instant) -> Self {
        Self { wall_ms, at }
    }

    /// Whether the wall clock was set since the last time that this was answered with yes. A slow correction adds up
    /// and is one too, and so is the time that a machine slept, if only the wall clock went on.
    pub(crate) fn was_set(&mut self, wall_ms: u64, now: Instant) -> bool {
        let passed = u64::try_from(now.duration_since(self.at).as_millis()).unwrap_or(u64::MAX);
        let is_set = wall_ms.abs_diff(self.wall_ms.saturating_add(passed)) > SET_BY_MS;
        if is_set {
            *self = Self::new(wall_ms, now);
        }
        is_set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: u64 = 86_400_000;

    #[test]
    fn a_clock_that_is_set_is_noticed_once_each_time() {
        let start = Instant::now();
        let (wall, mut watch) = (5 * DAY_MS, Watch::new(5 * DAY_MS, start));
        let mut look = |seconds: u64, ahead_ms: i64| {
            let true_ms = wall + seconds * 1_000;
            watch.was_set(true_ms.saturating_add_signed(ahead_ms), start + Duration::from_secs(seconds))
        };
        let ahead = 86_400_000;
        assert!(!look(1, 0) && !look(3_600, 0), "time passes");
        assert!(look(3_601, ahead) && !look(3_602, ahead), "a day ahead");
        assert!(look(3_603, 0) && !look(3_604, 0), "right again");
        assert!(look(3_605, -ahead) && !look(3_606, -ahead), "a day behind");
        assert!(look(3_607, 0), "right again");
        assert!(!look(3_608, 400) && !look(3_609, 800) && look(3_610, 1_200), "slowly");
    }

    #[test]
    fn a_clock_before_1970_is_a_time_as_well() {
        let start = Instant::now();
        let mut watch = Watch::new(0, start);
        assert!(!watch.was_set(0, start + Duration::from_millis(SET_BY_MS)));
        assert!(watch.was_set(u64::MAX, start));
        assert!(watch.was_set(0, start + Duration::from_secs(1)));
    }
}
