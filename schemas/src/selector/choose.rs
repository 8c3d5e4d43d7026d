//! Some of those that are meant: a sample, or the first of them.

use std::{cmp::Ordering, fmt};

use crate::id::{MachineToken, Sha256};

use super::parse::digits;

/// How many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Amount {
    Count(u64),
    /// 1 to 100.
    Percent(u64),
}

impl Amount {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let amount = match text.strip_suffix('%') {
            Some(text) => digits(text).filter(|percent| *percent <= 100).map(Self::Percent),
            None => digits(text).map(Self::Count),
        };
        amount.filter(|amount| !matches!(amount, Self::Count(0) | Self::Percent(0)))
    }

    /// The number, where it is one.
    pub(super) fn count(self) -> Option<u64> {
        if let Self::Count(count) = self { Some(count) } else { None }
    }

    /// How many of so many; a part of a machine counts as one, so that something stays of something.
    pub(super) fn of(self, total: usize) -> usize {
        match self {
            Self::Count(count) => usize::try_from(count).unwrap_or(usize::MAX).min(total),
            Self::Percent(percent) => {
                let part = (total as u128 * u128::from(percent)).div_ceil(100);
                usize::try_from(part).unwrap_or(total).min(total)
            }
        }
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => write!(f, "{count}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

/// Some of them, drawn by hash: the same ones as long as they are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sample {
    pub(super) amount: Amount,
    pub(super) seed: u64,
}

impl Sample {
    /// Where a machine stands among those that are drawn: the smallest first.
    pub(super) fn rank(self, token: &MachineToken) -> [u8; 32] {
        let mut bytes = self.seed.to_be_bytes().to_vec();
        bytes.extend_from_slice(token.as_str().as_bytes());
        Sha256::of(&bytes).0
    }
}

/// The order of names as people count: `web-2` before `web-10`. Names that differ in zeros only, or not at all so, are ordered as texts.
pub fn natural_order(a: &str, b: &str) -> Ordering {
    let (mut left, mut right) = (a, b);
    loop {
        let ((x, left_rest), (y, right_rest)) = match (take(left), take(right)) {
            (Some(x), Some(y)) => (x, y),
            (None, None) => return a.cmp(b),
            (x, y) => return x.is_some().cmp(&y.is_some()),
        };
        let is_number = |text: &str| text.starts_with(|c: char| c.is_ascii_digit());
        let order = if is_number(x) && is_number(y) {
            let (x, y) = (x.trim_start_matches('0'), y.trim_start_matches('0'));
            x.len().cmp(&y.len()).then_with(|| x.cmp(y))
        } else {
            x.cmp(y)
        };
        if order.is_ne() {
            return order;
        }
        (left, right) = (left_rest, right_rest);
    }
}

/// The digits at the front of a text, or its first character; and the rest.
fn take(text: &str) -> Option<(&str, &str)> {
    let first = text.chars().next()?;
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    text.split_at_checked(if digits > 0 { digits } else { first.len_utf8() })
}
