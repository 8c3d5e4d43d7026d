//! What becomes of a packet. Pure.

use std::time::Duration;

use crate::fault::Weather;

/// Random numbers from a seed (splitmix64): enough for weather, and the same everywhere.
#[derive(Debug, Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    /// The dice of this seed.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub(crate) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// The next number below `end`; 0 where that is 0.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        // The bias of a remainder is below 10⁻¹⁵ for ends of a few thousand.
        self.roll().checked_rem(end).unwrap_or(0)
    }
}

/// How a host's line is, both ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Line {
    /// Nothing passes.
    pub(crate) cut: bool,
    /// Something is lost, late or doubled; none = a line without faults.
    pub(crate) weather: Option<Weather>,
}

/// What arrives of one packet, each copy with its delay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Nothing.
    Lost,
    /// The packet.
    One(Duration),
    /// The packet twice.
    Two(Duration, Duration),
}

/// What the weather does to one packet.
pub(crate) fn fate(weather: Weather, dice: &mut Dice) -> Fate {
    if dice.below(1_000) < weather.lost.into() {
        return Fate::Lost;
    }
    let first = lateness(weather, dice);
    if dice.below(1_000) < weather.doubled.into() {
        return Fate::Two(first, lateness(weather, dice));
    }
    Fate::One(first)
}

/// Between `delay_ms − jitter_ms` (0 at least) and `delay_ms + jitter_ms`, in steps of 0.1 ms.
fn lateness(weather: Weather, dice: &mut Dice) -> Duration {
    let (delay, jitter) = (u64::from(weather.delay_ms) * 10, u64::from(weather.jitter_ms) * 10);
    let tenths = (delay + dice.below(2 * jitter + 1)).saturating_sub(jitter);
    Duration::from_micros(tenths * 100)
}

/// The delays of the copies that arrive of a packet which goes over two lines: its sender's and its receiver's.
pub(crate) fn through(lines: [&Line; 2], dice: &mut Dice) -> Vec<Duration> {
    if lines.iter().any(|line| line.cut) {
        return Vec::new();
    }
    let mut copies = vec![Duration::ZERO];
    for weather in lines.iter().filter_map(|line| line.weather) {
        let mut next = Vec::with_capacity(copies.len());
        for so_far in copies {
            match fate(weather, dice) {
                Fate::Lost => {}
                Fate::One(late) => next.push(so_far + late),
                Fate::Two(one, other) => next.extend([so_far + one, so_far + other]),
            }
        }
        copies = next;
    }
    copies
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn weather(delay_ms: u16, jitter_ms: u16, lost: u16, doubled: u16) -> Weather {
        Weather { delay_ms, jitter_ms, lost, doubled }
    }

    #[test]
    fn the_same_seed_is_the_same_weather() {
        let storm = weather(50, 50, 100, 100);
        let fates = |seed| {
            let mut dice = Dice::new(seed);
            (0..1_000).map(|_| fate(storm, &mut dice)).collect::<Vec<_>>()
        };
        assert_eq!(fates(7), fates(7));
        assert_ne!(fates(7), fates(8));
    }

    #[test]
    fn as_much_is_lost_and_doubled_as_is_said() {
        let mut dice = Dice::new(1);
        let fates: Vec<_> = (0..100_000).map(|_| fate(weather(1, 0, 100, 50), &mut dice)).collect();
        let lost = fates.iter().filter(|fate| **fate == Fate::Lost).count();
        let twice = fates.iter().filter(|fate| matches!(fate, Fate::Two(..))).count();
        assert!((9_000..11_000).contains(&lost), "{lost}");
        assert!((4_000..5_000).contains(&twice), "{twice} of those not lost");
    }

    #[test]
    fn jitter_lets_packets_overtake_each_other() {
        let mut dice = Dice::new(1);
        let late: Vec<_> = (0..100)
            .flat_map(|_| through([&line(weather(20, 10, 0, 0)), &Line::default()], &mut dice))
            .collect();
        assert!(late.windows(2).any(|pair| pair[1] + Duration::from_millis(5) < pair[0]), "{late:?}");
    }

    #[test]
    fn a_cut_line_takes_nothing_either_way() {
        let (cut, clear) = (Line { cut: true, weather: None }, Line::default());
        let mut dice = Dice::new(1);
        assert!(through([&cut, &clear], &mut dice).is_empty());
        assert!(through([&clear, &cut], &mut dice).is_empty());
        assert_eq!(through([&clear, &clear], &mut dice), [Duration::ZERO]);
    }

    #[test]
    fn weather_adds_up_over_two_lines() {
        let (one, other) = (line(weather(20, 0, 0, 1_000)), line(weather(5, 0, 0, 1_000)));
        let copies = through([&one, &other], &mut Dice::new(1));
        assert_eq!(copies, [Duration::from_millis(25); 4]);
    }

    fn line(weather: Weather) -> Line {
        Line { cut: false, weather: Some(weather) }
    }

    proptest! {
        #[test]
        fn delays_stay_in_their_bounds(delay in 0_u16..=2_000, jitter in 0_u16..=2_000, seed: u64) {
            let mut dice = Dice::new(seed);
            for late in through([&line(weather(delay, jitter, 0, 500)), &Line::default()], &mut dice) {
                prop_assert!(late >= Duration::from_millis(delay.saturating_sub(jitter).into()));
                prop_assert!(late <= Duration::from_millis(u64::from(delay) + u64::from(jitter)));
            }
        }

        #[test]
        fn what_is_lost_always_never_comes(seed: u64) {
            prop_assert_eq!(fate(weather(1, 1, 1_000, 1_000), &mut Dice::new(seed)), Fate::Lost);
        }
    }
}
