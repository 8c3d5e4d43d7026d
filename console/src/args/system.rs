//! Words of `signalbox machines --at`, `history`, `events`, `operators` and `health`.

use std::str::FromStr;

use clap::Args as ClapArgs;

use super::{Listing, Plain};
use crate::cli::quantity;

/// A moment that was: so long ago, or a time of day (UTC) that was last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// So long ago, ms.
    Ago(u64),
    /// Milliseconds after midnight, UTC.
    TimeOfDay(u64),
}

const DAY_MS: u64 = 86_400_000;

impl Moment {
    /// The moment, Unix ms, as seen at `now`.
    pub fn before(self, now: u64) -> u64 {
        match self {
            Self::Ago(ms) => now.saturating_sub(ms),
            Self::TimeOfDay(ms) => {
                let today = now - now % DAY_MS + ms;
                if today <= now { today } else { today.saturating_sub(DAY_MS) }
            }
        }
    }
}

impl FromStr for Moment {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WRONG: &str = "write a duration such as 10m or 2h (ago), or a time of day in UTC such as 14:02";
        if let Some((hours, minutes)) = text.split_once(':') {
            let number = |text: &str, below: u64| {
                let is_plain = text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit());
                text.parse::<u64>().ok().filter(|number| is_plain && *number < below).ok_or(WRONG)
            };
            return Ok(Self::TimeOfDay((number(hours, 24)? * 60 + number(minutes, 60)?) * 60_000));
        }
        quantity::duration_ms(text).map(Self::Ago).map_err(|_| WRONG)
    }
}

/// `signalbox machines`.
#[derive(Debug, Clone, ClapArgs)]
pub struct Machines {
    /// Shows the fleet as it was: so long ago (10m, 2h), or at a time of day in UTC that was last (14:02).
    #[arg(long, value_name = "WHEN", conflicts_with_all = ["watch", "on"])]
    pub at: Option<Moment>,
    /// Those only that this means.
    #[arg(long, value_name = "SELECTOR")]
    pub on: Option<String>,
    /// Format and broker.
    #[command(flatten)]
    pub listing: Listing,
}

/// `signalbox history`.
#[derive(Debug, Clone, ClapArgs)]
pub struct History {
    /// The machine, by id or token.
    pub machine: String,
    /// How far back.
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = quantity::duration_ms)]
    pub since: u64,
    /// Format and broker.
    #[command(flatten)]
    pub plain: Plain,
}

/// `signalbox events`.
#[derive(Debug, Clone, ClapArgs)]
pub struct Events {
    /// Only about this machine, by id or token.
    #[arg(long, value_name = "MACHINE")]
    pub machine: Option<String>,
    /// Only of this type, such as machine.offline or run.lost.
    #[arg(long = "type", value_name = "TYPE")]
    pub kind: Option<String>,
    /// How far back.
    #[arg(long, value_name = "DURATION", value_parser = quantity::duration_ms)]
    pub since: Option<u64>,
    /// Most events.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub limit: u32,
    /// Format and broker.
    #[command(flatten)]
    pub listing: Listing,
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("10m", Some(DAY_MS * 10 - 600_000))]
    #[case("00:00", Some(DAY_MS * 10))]
    #[case("23:59", Some(DAY_MS * 10 - 60_000))]
    #[case("24:00", None)]
    #[case("1:00", None)]
    #[case("+1:00", None)]
    #[case("now", None)]
    fn a_moment_lies_in_the_past(#[case] text: &str, #[case] expected: Option<u64>) {
        assert_eq!(text.parse::<Moment>().ok().map(|moment| moment.before(DAY_MS * 10)), expected);
    }
}
