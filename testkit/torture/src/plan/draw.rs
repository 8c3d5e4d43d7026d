//! Numbers from a seed: the n-th is the beginning of SHA-256 over seed, purpose and n. So they are the same on every machine
//! and with every version of everything, by a standard that does not change.

use std::ops::RangeInclusive;

use signalbox_schemas::id::Sha256;

/// A sequence of numbers.
#[derive(Debug)]
pub(super) struct Draws {
    seed: u64,
    /// What they are for: to draw one more of these changes nothing of those.
    purpose: &'static str,
    drawn: u64,
}

impl Draws {
    pub(super) fn new(seed: u64, purpose: &'static str) -> Self {
        Self { seed, purpose, drawn: 0 }
    }

    fn next(&mut self) -> u64 {
        let bytes =
            [&self.seed.to_le_bytes()[..], &self.drawn.to_le_bytes(), self.purpose.as_bytes()].concat();
        self.drawn += 1;
        let digest = Sha256::of(&bytes).0;
        digest.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
    }

    /// A number below `end`; 0 where there is none. Of small ends all are equally likely, as far as anybody can tell.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        let product = u128::from(self.next()) * u128::from(end);
        u64::try_from(product >> 64).unwrap_or(0)
    }

    pub(super) fn within(&mut self, range: RangeInclusive<u64>) -> u64 {
        let (first, last) = range.into_inner();
        first + self.below(last.saturating_sub(first).saturating_add(1))
    }

    pub(super) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// One of few, by its weight; `None` where all weigh nothing.
    pub(super) fn weighted<T: Copy>(&mut self, choices: &[(u64, T)]) -> Option<T> {
        let mut at = self.below(choices.iter().map(|(weight, _)| weight).sum());
        for (weight, choice) in choices {
            if at < *weight {
                return Some(*choice);
            }
            at -= weight;
        }
        None
    }
}
