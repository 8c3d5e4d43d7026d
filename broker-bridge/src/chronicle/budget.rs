//! How much is told one by one. Pure.

use std::collections::BTreeMap;

use serde_json::json;
use signalbox_schemas::event::kind;

use super::told::News;

/// Events of one minute; what goes beyond is counted.
pub(super) const PER_MINUTE: u32 = 600;
const MINUTE_MS: u64 = 60_000;

/// What is left of a minute.
#[derive(Debug, Default)]
pub(super) struct Budget {
    /// When the minute began, Unix ms.
    began: u64,
    used: u32,
    dropped: BTreeMap<&'static str, u64>,
}

impl Budget {
    /// Whether one more may be told at `now`; if not, it is counted.
    pub(super) fn take(&mut self, kind: &'static str) -> bool {
        if self.used < PER_MINUTE {
            self.used += 1;
            return true;
        }
        *self.dropped.entry(kind).or_default() += 1;
        false
    }

    /// Begins another minute when it is time; answers what was only counted in the last one.
    pub(super) fn turn(&mut self, now: u64) -> Option<News> {
        // A clock that was set back begins one, too.
        if now.abs_diff(self.began) < MINUTE_MS {
            return None;
        }
        let dropped = std::mem::take(&mut self.dropped);
        (self.began, self.used) = (now, 0);
        let count: u64 = dropped.values().sum();
        (count > 0).then(|| {
            let text = format!("{count} events of one minute were counted and not told one by one");
            News::of(kind::EVENTS_DROPPED, text).with("count", json!(count)).with("types", json!(dropped))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_much_for_a_minute_is_counted() {
        let mut budget = Budget::default();
        assert_eq!(budget.turn(MINUTE_MS), None);
        let told = (0..10_000).filter(|_| budget.take(kind::MACHINE_OFFLINE)).count();
        assert_eq!(told, PER_MINUTE as usize);
        assert_eq!(budget.turn(MINUTE_MS * 2 - 1), None);
        let dropped = budget.turn(MINUTE_MS * 2).unwrap();
        assert_eq!(dropped.details["count"], 9_400);
        assert_eq!(dropped.details["types"], json!({"machine.offline": 9_400}));
        assert!(budget.take(kind::MACHINE_ONLINE));
        assert_eq!(budget.turn(0), None);
    }
}
