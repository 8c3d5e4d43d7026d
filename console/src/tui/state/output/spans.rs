//! Stretches of numbers: sorted, apart, and one where they meet.

/// Stretches, each from its first number up to, and without, its second.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spans(Vec<(u64, u64)>);

impl Spans {
    /// Adds a stretch. Cost: that of moving those behind it.
    pub fn add(&mut self, from: u64, to: u64) {
        if from >= to {
            return;
        }
        let first = self.0.partition_point(|(_, end)| *end < from);
        let behind = self.0.partition_point(|(start, _)| *start <= to);
        let touched = self.0.get(first..behind).unwrap_or_default();
        let from = touched.first().map_or(from, |(start, _)| from.min(*start));
        let to = touched.last().map_or(to, |(_, end)| to.max(*end));
        self.0.splice(first..behind, [(from, to)]);
    }

    /// The stretch that a number lies in.
    pub fn at(&self, number: u64) -> Option<(u64, u64)> {
        self.behind(number).filter(|(from, _)| *from <= number)
    }

    /// The stretch that a number lies in, else the first one behind it.
    pub fn behind(&self, number: u64) -> Option<(u64, u64)> {
        self.0.get(self.0.partition_point(|(_, end)| *end <= number)).copied()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Numbers in all of them.
    pub fn total(&self) -> u64 {
        self.0.iter().fold(0, |all, (from, to)| all.saturating_add(to - from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn those_that_meet_are_one() {
        let mut spans = Spans::default();
        for (from, to) in [(10, 20), (30, 40), (5, 5), (20, 30), (50, 60)] {
            spans.add(from, to);
        }
        assert_eq!(spans, Spans(vec![(10, 40), (50, 60)]));
        assert_eq!((spans.at(39), spans.at(40), spans.behind(40)), (Some((10, 40)), None, Some((50, 60))));
        assert_eq!((spans.len(), spans.total(), spans.is_empty()), (2, 40, false));
    }

    proptest! {
        #[test]
        fn they_hold_what_was_added(added in prop::collection::vec((0_u64..60, 0_u64..20), 0..20)) {
            let (mut spans, mut all) = (Spans::default(), BTreeSet::new());
            for (from, len) in added {
                spans.add(from, from + len);
                all.extend(from..from + len);
            }
            for number in 0..90 {
                prop_assert_eq!(spans.at(number).is_some(), all.contains(&number));
            }
            prop_assert_eq!(spans.total(), all.len() as u64);
            prop_assert!(spans.0.is_sorted_by(|a, b| a.1 < b.0));
        }
    }
}
