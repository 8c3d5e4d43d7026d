//! How machines are that a command is written for, and where: a look at all of them, and so not for every frame.

use std::collections::BTreeMap;

use signalbox_schemas::{id::MachineToken, label::LabelKey};

use super::fleet::{Fleet, LivenessCounts};
use crate::tui::text;

/// It is made anew after this long, ms: machines fall silent with the seconds.
const OLD_MS: u64 = 1_000;

/// What a look at some machines has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survey {
    made_ms: u64,
    /// How they are, as far as they are known here.
    pub counts: LivenessCounts,
    /// Where they are, most machines first: how many, and the place, clean.
    pub places: Vec<(usize, String)>,
    /// How many are at no place that anybody names.
    pub elsewhere: usize,
}

impl Survey {
    /// Looks at machines; `place` is the label that says where one is.
    pub fn of(fleet: &Fleet, machines: &[MachineToken], place: &str, now_ms: u64) -> Self {
        let place: Option<LabelKey> = place.parse().ok();
        let mut counts = LivenessCounts::default();
        let mut places: BTreeMap<&str, usize> = BTreeMap::new();
        for machine in machines.iter().filter_map(|token| fleet.get(token)) {
            counts.add(machine.state(now_ms));
            if let Some(label) = place.as_ref().and_then(|key| machine.labels.get(key)) {
                *places.entry(label.value.as_str()).or_default() += 1;
            }
        }
        let named: usize = places.values().sum();
        let mut places: Vec<(usize, String)> =
            places.into_iter().map(|(it, n)| (n, text::line(it))).collect();
        places.sort_by(|(n, place), (other, of_other)| other.cmp(n).then_with(|| place.cmp(of_other)));
        Self { made_ms: now_ms, counts, places, elsewhere: machines.len().saturating_sub(named) }
    }

    /// Whether it is to be made anew.
    pub fn is_old(&self, now_ms: u64) -> bool {
        now_ms.abs_diff(self.made_ms) >= OLD_MS
    }
}
