//! How a command spreads over its machines: in waves, so many at once, and no further when too many fail.
//!
//! A [`Rollout`] is what the author wishes and stands in the spec. How far it has come stands beside the command as
//! [`Progress`], written by bridges; [`step()`] says what comes next, and knows neither clock nor machines: only how many there
//! are of which kind. Relays read nothing of this: a run that is held is in nobody's mailbox.
//!
//! | room | holds |
//! |---|---|
//! | this one | the plan, and its text |
//! | `progress` | how far it has come |
//! | `step` | what comes next |

mod progress;
mod step;

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::limit;

pub use progress::{Counted, LetGo, Progress, RolloutState, Steer, WHY_BYTES};
pub use step::{Decision, Tally, step};

/// Most waves that a plan names.
pub const WAVES: usize = 32;

/// How many of a command's machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// So many, 1 to 10,000. In JSON a number.
    Count(u32),
    /// This part of all, 1 to 100 percent, rounded up. In JSON and as text `5%`.
    Percent(u8),
}

/// A text is no rollout, or no size in one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RolloutError(pub String);

const SIZE_RULE: &str = "a size is 1 to 10000 machines or 1% to 100%";

impl Size {
    /// So many of `all`, rounded up: at least one, and no more than there are.
    pub fn of(self, all: u32) -> u32 {
        let wanted = match self {
            Self::Count(count) => count,
            Self::Percent(percent) => {
                let part = (u64::from(all) * u64::from(percent)).div_ceil(100);
                u32::try_from(part).unwrap_or(u32::MAX)
            }
        };
        wanted.clamp(1, all.max(1))
    }

    fn is_in_range(self) -> bool {
        match self {
            Self::Count(count) => count >= 1 && count as usize <= limit::TARGETS,
            Self::Percent(percent) => (1..=100).contains(&percent),
        }
    }

    /// Whether it is surely smaller than another one: sizes of two kinds are compared by nobody who does not know the fleet.
    fn is_below(self, other: Self) -> bool {
        match (self, other) {
            (Self::Count(one), Self::Count(other)) => one < other,
            (Self::Percent(one), Self::Percent(other)) => one < other,
            _ => false,
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => write!(f, "{count}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

impl FromStr for Size {
    type Err = RolloutError;

    fn from_str(text: &str) -> Result<Self, RolloutError> {
        let text = text.trim();
        let size = match text.strip_suffix('%') {
            Some(percent) => digits(percent).map(Self::Percent),
            None => digits(text).map(Self::Count),
        };
        let shown: String = text.chars().take(20).collect();
        size.filter(|size| size.is_in_range())
            .ok_or_else(|| RolloutError(format!("`{shown}` is no size: {SIZE_RULE}")))
    }
}

/// A number in plain digits: `from_str` also takes `+7`.
fn digits<T: FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Count(count) => serializer.serialize_u32(*count),
            Self::Percent(_) => serializer.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Spelled {
            Count(u32),
            Text(String),
        }
        let size = match Spelled::deserialize(deserializer).map_err(|_| D::Error::custom(SIZE_RULE))? {
            Spelled::Count(count) => Some(Self::Count(count)),
            // One spelling each: a count is a number.
            Spelled::Text(text) => text.parse().ok().filter(|size| matches!(size, Self::Percent(_))),
        };
        size.filter(|size| size.is_in_range()).ok_or_else(|| D::Error::custom(SIZE_RULE))
    }
}

/// How a command spreads over its machines. Its text is `canary 1, 5%, 25%, parallel 20, pause after 2%, wait 60s`: every part
/// may be left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rollout {
    /// The first wave, before all others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<Size>,
    /// How many each further wave lets go, at most 32, of one kind never fewer than the wave before. The last one repeats until
    /// all have been let go; none at all: all the rest at once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waves: Vec<Size>,
    /// So many at most that were let go and have not settled. Absent: no bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parallel: Option<Size>,
    /// It pauses when so many have failed, or this part of those that have ended. Absent: it never does by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause_after: Option<Size>,
    /// Between the end of a wave and the beginning of the next, ms, 1 to 604,800,000. Absent: no wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_wait_ms: Option<u64>,
}

impl Rollout {
    /// Checks every range.
    ///
    /// # Errors
    /// What is wrong, for people.
    pub fn validate(&self) -> Result<(), &'static str> {
        let sizes = self.canary.iter().chain(&self.waves).chain(&self.parallel).chain(&self.pause_after);
        if !sizes.copied().all(Size::is_in_range) {
            return Err(SIZE_RULE);
        }
        if self.waves.len() > WAVES {
            return Err("at most 32 waves; the last one repeats by itself");
        }
        let shrinks = |pair: &[Size]| matches!(pair, [one, next] if next.is_below(*one));
        if self.waves.windows(2).any(shrinks) {
            return Err("a wave is never smaller than the one before");
        }
        if self.min_wait_ms.is_some_and(|ms| !(1..=limit::MAX_EXPIRES_IN_MS).contains(&ms)) {
            return Err("between two waves there are 1 ms to 7 days");
        }
        Ok(())
    }

    /// How many of `targets` machines may have been let go when `wave` waves have begun; waves count from 1.
    pub fn bound(&self, wave: u32, targets: u32) -> u32 {
        let canary = self.canary.map(|size| u64::from(size.of(targets)));
        let mut left = u64::from(wave);
        let mut bound = 0;
        if let Some(canary) = canary.filter(|_| left > 0) {
            (bound, left) = (canary, left - 1);
        }
        let named = self.waves.iter().map(|size| u64::from(size.of(targets)));
        for size in named.take(usize::try_from(left).unwrap_or(usize::MAX)) {
            (bound, left) = (bound + size, left - 1);
        }
        if left > 0 {
            let last = self.waves.last().map_or(targets, |size| size.of(targets));
            bound += u64::from(last).saturating_mul(left);
        }
        u32::try_from(bound.min(u64::from(targets))).unwrap_or(targets)
    }

    /// How many waves `targets` machines make.
    pub fn waves_of(&self, targets: u32) -> u32 {
        let named = u32::try_from(self.waves.len()).unwrap_or(u32::MAX) + u32::from(self.canary.is_some());
        if let Some(wave) = (1..=named).find(|wave| self.bound(*wave, targets) >= targets) {
            return wave;
        }
        let left = targets - self.bound(named, targets);
        let each = self.waves.last().map_or(targets, |size| size.of(targets));
        named + left.div_ceil(each.max(1))
    }
}

impl fmt::Display for Rollout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts: Vec<String> = Vec::new();
        parts.extend(self.canary.map(|size| format!("canary {size}")));
        parts.extend(self.waves.iter().map(Size::to_string));
        parts.extend(self.parallel.map(|size| format!("parallel {size}")));
        parts.extend(self.pause_after.map(|size| format!("pause after {size}")));
        parts.extend(self.min_wait_ms.map(|ms| format!("wait {}", Wait(ms))));
        f.write_str(if parts.is_empty() { "all at once" } else { "" })?;
        f.write_str(&parts.join(", "))
    }
}

/// A time in the largest unit that says it in whole.
struct Wait(u64);

const UNITS: [(&str, u64); 5] =
    [("d", limit::DAY_MS), ("h", limit::HOUR_MS), ("m", 60_000), ("s", 1_000), ("ms", 1)];

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = |(_, ms): &&(&str, u64)| self.0.is_multiple_of(*ms);
        let (unit, ms) = UNITS.iter().find(whole).copied().unwrap_or(("ms", 1));
        write!(f, "{}{unit}", self.0 / ms)
    }
}

fn wait_ms(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at_checked(end)?;
    let (_, ms) = UNITS.iter().find(|(name, _)| *name == unit)?;
    digits::<u64>(number)?.checked_mul(*ms)
}

impl FromStr for Rollout {
    type Err = RolloutError;

    fn from_str(text: &str) -> Result<Self, RolloutError> {
        let mut rollout = Self::default();
        if text.trim() == "all at once" {
            return Ok(rollout);
        }
        for part in text.split(',').map(str::trim) {
            rollout.take(part)?;
        }
        rollout.validate().map_err(|rule| RolloutError(rule.to_owned()))?;
        Ok(rollout)
    }
}

impl Rollout {
    /// Takes one part of the text.
    fn take(&mut self, part: &str) -> Result<(), RolloutError> {
        let twice = |name: &str| RolloutError(format!("`{name}` is given twice"));
        if let Some(size) = part.strip_prefix("canary ") {
            if self.canary.is_some() || !self.waves.is_empty() {
                return Err(RolloutError("the canary comes first, and once".to_owned()));
            }
            self.canary = Some(size.parse()?);
        } else if let Some(size) = part.strip_prefix("parallel ") {
            if self.parallel.replace(size.parse()?).is_some() {
                return Err(twice("parallel"));
            }
        } else if let Some(size) = part.strip_prefix("pause after ") {
            if self.pause_after.replace(size.parse()?).is_some() {
                return Err(twice("pause after"));
            }
        } else if let Some(time) = part.strip_prefix("wait ") {
            let shown: String = time.chars().take(20).collect();
            let why = || RolloutError(format!("`{shown}` is no time: write 500ms, 30s, 5m, 2h or 1d"));
            if self.min_wait_ms.replace(wait_ms(time.trim()).ok_or_else(why)?).is_some() {
                return Err(twice("wait"));
            }
        } else {
            self.waves.push(part.parse()?);
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::{collection::vec, option, prelude::*};
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    pub(crate) fn any_size() -> impl Strategy<Value = Size> {
        prop_oneof![(1..=10_000u32).prop_map(Size::Count), (1..=100u8).prop_map(Size::Percent)]
    }

    pub(crate) fn any_rollout() -> impl Strategy<Value = Rollout> {
        let waves = vec(any_size(), 0..6).prop_map(|mut waves| {
            waves.sort_by_key(|size| size.of(10_000));
            waves
        });
        let wait = option::of(1..=limit::MAX_EXPIRES_IN_MS);
        (option::of(any_size()), waves, option::of(any_size()), option::of(any_size()), wait).prop_map(
            |(canary, waves, parallel, pause_after, min_wait_ms)| Rollout {
                canary,
                waves,
                parallel,
                pause_after,
                min_wait_ms,
            },
        )
    }

    proptest! {
        #[test]
        fn a_rollout_is_read_as_it_was_written(rollout in any_rollout()) {
            prop_assert_eq!(rollout.validate(), Ok(()));
            prop_assert_eq!(rollout.to_string().parse(), Ok(rollout.clone()));
            let json = serde_json::to_string(&rollout).unwrap();
            prop_assert_eq!(serde_json::from_str::<Rollout>(&json).unwrap(), rollout);
        }

        #[test]
        fn waves_grow_until_all_are_let_go(rollout in any_rollout(), targets in 1..=10_000u32) {
            let waves = rollout.waves_of(targets);
            prop_assert_eq!(rollout.bound(0, targets), 0);
            prop_assert_eq!(rollout.bound(waves, targets), targets);
            prop_assert_eq!(rollout.bound(u32::MAX, targets), targets);
            for wave in [1, waves / 2, waves].into_iter().filter(|wave| *wave > 0) {
                prop_assert!(rollout.bound(wave - 1, targets) < rollout.bound(wave, targets), "wave {} of {}", wave, waves);
            }
        }
    }

    #[rstest]
    #[case(Size::Percent(5), 10, 1)]
    #[case(Size::Percent(5), 100, 5)]
    #[case(Size::Percent(5), 101, 6)]
    #[case(Size::Percent(1), 1, 1)]
    #[case(Size::Percent(100), 10_000, 10_000)]
    #[case(Size::Count(20), 7, 7)]
    #[case(Size::Count(3), 7, 3)]
    fn percents_are_rounded_up(#[case] size: Size, #[case] all: u32, #[case] count: u32) {
        assert_eq!(size.of(all), count);
    }

    #[test]
    fn a_plan_is_written_as_people_say_it() {
        let plan: Rollout = "canary 1, 5%, 25%, parallel 20, pause after 2%, wait 90s".parse().unwrap();
        let json = json!({"canary": 1, "waves": ["5%", "25%"], "parallel": 20, "pause_after": "2%", "min_wait_ms": 90_000});
        assert_eq!(serde_json::to_value(&plan).unwrap(), json);
        assert_eq!(
            (1..=7).map(|wave| plan.bound(wave, 100)).collect::<Vec<_>>(),
            [1, 6, 31, 56, 81, 100, 100]
        );
        assert_eq!(plan.waves_of(100), 6);
        assert_eq!("canary 1".parse::<Rollout>().unwrap().waves_of(100), 2);
        assert_eq!(Rollout::default().to_string(), "all at once");
    }

    #[rstest]
    #[case("")]
    #[case("0")]
    #[case("0%")]
    #[case("101%")]
    #[case("10001")]
    #[case("+5")]
    #[case("5 %x")]
    #[case("5%, 1%")]
    #[case("5, canary 1")]
    #[case("canary 1, canary 1")]
    #[case("parallel 1, parallel 2")]
    #[case("wait 5")]
    #[case("wait 8d")]
    #[case("wait 0s")]
    #[case("1,")]
    fn refuses(#[case] text: &str) {
        let refused = text.parse::<Rollout>();
        assert!(refused.is_err(), "{text:?} is {refused:?}");
    }

    #[rstest]
    #[case(json!({"canary": 0}))]
    #[case(json!({"canary": "1"}))]
    #[case(json!({"canary": "0%"}))]
    #[case(json!({"canary": 1.5}))]
    #[case(json!({"waves": [1], "sandbox": true}))]
    fn json_is_read_strictly(#[case] json: serde_json::Value) {
        assert!(serde_json::from_value::<Rollout>(json.clone()).is_err(), "{json}");
    }

    #[test]
    fn there_is_an_end_to_waves() {
        let plan = |waves| Rollout { waves: vec![Size::Count(1); waves], ..Rollout::default() };
        assert!(plan(WAVES).validate().is_ok() && plan(WAVES + 1).validate().is_err());
    }
}
