//! How much is told one by one. Pure.
//!
//! A relay can have its own machine be in the news as often as it likes. So each machine has a share, lost runs have room of
//! their own, and what the system says of itself is always told.

use std::collections::BTreeMap;

use serde_json::json;
use signalbox_schemas::{event::kind, id::MachineToken};

use super::told::News;

/// Events about machines of one minute; what goes beyond is counted.
pub(super) const PER_MINUTE: u32 = 600;
/// Those of them that are about one machine.
const PER_MACHINE: u32 = 6;
/// Lost runs of one minute.
const LOST_PER_MINUTE: u32 = 200;
/// Those of them on one machine.
const LOST_PER_MACHINE: u32 = 20;
const MINUTE_MS: u64 = 60_000;

/// What is left of a minute.
#[derive(Debug, Default)]
pub(super) struct Budget {
    /// When the minute began, Unix ms.
    began: u64,
    of_machines: Used,
    of_lost: Used,
    /// What was only counted in this minute.
    dropped: BTreeMap<&'static str, u64>,
    /// The same of minutes that are over, and not told yet.
    untold: BTreeMap<&'static str, u64>,
}

/// What was told; bounded by the number of machines.
#[derive(Debug, Default)]
struct Used {
    all: u32,
    by_machine: BTreeMap<MachineToken, u32>,
}

impl Used {
    fn take(&mut self, machine: &MachineToken, most: u32, most_of_one: u32) -> bool {
        let used = self.by_machine.entry(machine.clone()).or_default();
        let has_room = self.all < most && *used < most_of_one;
        if has_room {
            self.all += 1;
            *used += 1;
        }
        has_room
    }
}

impl Budget {
    /// Whether this may be told one by one; if not, it is counted.
    pub(super) fn take(&mut self, news: &News) -> bool {
        let is_told = match &news.machine {
            None => true,
            Some((machine, _)) if news.kind == kind::RUN_LOST => {
                self.of_lost.take(machine, LOST_PER_MINUTE, LOST_PER_MACHINE)
            }
            Some((machine, _)) => self.of_machines.take(machine, PER_MINUTE, PER_MACHINE),
        };
        if !is_told {
            *self.dropped.entry(news.kind).or_default() += 1;
        }
        is_told
    }

    /// Begins another minute when it is time.
    pub(super) fn turn(&mut self, now: u64) {
        // A clock that was set back begins one, too.
        if now.abs_diff(self.began) < MINUTE_MS {
            return;
        }
        self.began = now;
        (self.of_machines, self.of_lost) = (Used::default(), Used::default());
        for (kind, count) in std::mem::take(&mut self.dropped) {
            *self.untold.entry(kind).or_default() += count;
        }
    }

    /// What was only counted in minutes that are over, until that is [`Budget::told`].
    pub(super) fn untold(&self) -> Option<News> {
        let count: u64 = self.untold.values().sum();
        (count > 0).then(|| {
            let text = format!("{count} events were counted and not told one by one");
            let news = News::of(kind::EVENTS_DROPPED, text);
            news.with("count", json!(count)).with("types", json!(self.untold))
        })
    }

    /// It was.
    pub(super) fn told(&mut self) {
        self.untold.clear();
    }
}

#[cfg(test)]
mod tests {
    use signalbox_schemas::id::MachineId;

    use super::*;

    fn of(machine: u32, kind: &'static str) -> News {
        let (token, id) = (format!("web-{machine}"), format!("web-{machine}"));
        let machine = Some((MachineToken::new(&token).unwrap(), MachineId::new(&id).unwrap()));
        News { machine, ..News::of(kind, String::new()) }
    }

    #[test]
    fn what_is_too_much_for_a_minute_is_counted_until_it_is_told() {
        let mut budget = Budget::default();
        budget.turn(MINUTE_MS);
        assert_eq!(budget.untold(), None);
        let told = (0..10_000).filter(|n| budget.take(&of(*n, kind::MACHINE_OFFLINE))).count();
        assert_eq!(told, PER_MINUTE as usize);
        budget.turn(MINUTE_MS * 2 - 1);
        assert_eq!(budget.untold(), None);
        budget.turn(MINUTE_MS * 2);
        let dropped = budget.untold().unwrap();
        assert_eq!(dropped.details["count"], 9_400);
        assert_eq!(dropped.details["types"], json!({"machine.offline": 9_400}));
        assert!(budget.take(&of(0, kind::MACHINE_ONLINE)));
        // Nobody took it: it is still to be told a minute later, with what has come since.
        let more = (0..10).filter(|_| !budget.take(&of(0, kind::MACHINE_ONLINE))).count();
        assert_eq!(more, 5);
        budget.turn(MINUTE_MS * 3);
        assert_eq!(budget.untold().unwrap().details["count"], 9_405);
        budget.told();
        assert_eq!(budget.untold(), None);
        budget.turn(0);
        assert_eq!(budget.untold(), None);
    }

    #[test]
    fn one_machine_takes_nobody_elses_place() {
        let mut budget = Budget::default();
        let told = (0..10_000).filter(|_| budget.take(&of(1, kind::RELAY_RESTARTED))).count();
        assert_eq!(told, PER_MACHINE as usize);
        assert!(budget.take(&of(2, kind::MACHINE_OFFLINE)));
        assert!(budget.take(&of(1, kind::RUN_LOST)), "lost runs have room of their own");
        let lost = (0..10_000).filter(|_| budget.take(&of(1, kind::RUN_LOST))).count();
        assert_eq!(lost + 1, LOST_PER_MACHINE as usize);
        assert!(budget.take(&of(2, kind::RUN_LOST)));
        let all = (0..10_000).filter(|n| budget.take(&of(*n, kind::MACHINE_OFFLINE))).count();
        assert!(all < 10_000);
        let full = News::of(kind::STREAM_NEARLY_FULL, String::new());
        assert!((0..10_000).all(|_| budget.take(&full)), "what the system says of itself is always told");
    }
}
