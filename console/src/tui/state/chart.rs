//! Figures of one machine over time, cut into slots of one length. Pure.
//!
//! A slot has a value where the machine was heard: between two readings that both have one and are no further apart than
//! readings are where nothing is missing. Everything else is silence, and stays empty: no line is drawn over it.

use signalbox_schemas::{
    api::{Liveness, PointView},
    limit,
};

use super::history::Sample;

/// A figure that is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// CPU use, percent.
    Cpu,
    /// Memory in use, percent.
    Memory,
    /// The fullest disk, percent.
    Disk,
    /// Load of a minute, in tenths.
    Load,
}

impl Kind {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Self; 4] = [Self::Cpu, Self::Memory, Self::Disk, Self::Load];

    /// What it is called.
    pub fn word(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "mem",
            Self::Disk => "disk",
            Self::Load => "load",
        }
    }

    /// A value as it is read.
    pub fn show(self, value: u32) -> String {
        match self {
            Self::Load => format!("{}.{}", value / 10, value % 10),
            Self::Cpu | Self::Memory | Self::Disk => format!("{value}%"),
        }
    }

    fn of_point(self, point: &PointView) -> Option<u32> {
        let figures = &point.figures;
        match self {
            Self::Cpu => figures.cpu_percent.map(u32::from),
            Self::Memory => figures.memory_percent.map(u32::from),
            Self::Disk => figures.disk_percent.map(u32::from),
            Self::Load => figures.load_tenths,
        }
    }

    fn of_sample(self, sample: &Sample) -> Option<u32> {
        match self {
            Self::Cpu => Some(u32::from(sample.cpu_percent)),
            Self::Memory => Some(u32::from(sample.memory_percent)),
            Self::Disk => sample.disk_percent.map(u32::from),
            Self::Load => Some(u32::from(sample.load_tenths)),
        }
    }
}

/// One figure at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// When, Unix ms.
    pub at: u64,
    /// `None`: the machine was silent, or the figure is not known.
    pub value: Option<u32>,
    /// The next one is no further away where nothing is missing, ms.
    pub reach_ms: u64,
}

/// What the history says, up to where heartbeats were heard here, and those.
///
/// A machine that had not been heard lately has its last figures still: they are not how it was then.
pub fn readings<'a>(
    kind: Kind,
    points: &[PointView],
    step_ms: u64,
    samples: impl Iterator<Item = (u64, &'a Sample)>,
) -> Vec<Reading> {
    let heard =
        samples.map(|(at, sample)| Reading { at, value: kind.of_sample(sample), reach_ms: limit::STALE_MS });
    let heard: Vec<Reading> = heard.collect();
    let begin = heard.first().map_or(u64::MAX, |reading| reading.at);
    let told = points.iter().take_while(|point| point.at < begin).map(|point| Reading {
        at: point.at,
        value: if point.state == Liveness::Online { kind.of_point(point) } else { None },
        // Frames are written once a minute, a little sooner or later.
        reach_ms: step_ms.saturating_add(step_ms / 2),
    });
    told.chain(heard).collect()
}

/// Figures of a stretch of time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Line {
    /// Means of the slots, the oldest first; `None` where nothing was heard.
    pub slots: Vec<Option<u32>>,
    /// The least reading.
    pub least: Option<u32>,
    /// The largest one.
    pub most: Option<u32>,
}

/// Cuts the time from `from` to `to`, Unix ms, into `count` slots.
pub fn line(readings: &[Reading], (from, to): (u64, u64), count: usize) -> Line {
    let count = count.max(1);
    let length = u128::from(to.saturating_sub(from).max(1));
    let slot = |at: u64| {
        let into = u128::from(at.clamp(from, to) - from);
        usize::try_from(into * count as u128 / length).unwrap_or(count).min(count - 1)
    };
    let mut sums = vec![(0_u64, 0_u64); count];
    let inside = |at: u64| at >= from && at <= to;
    let following = readings.iter().skip(1).map(Some).chain([None]);
    for (reading, next) in readings.iter().zip(following) {
        let Some(value) = reading.value else { continue };
        let is_joined = next
            .filter(|next| next.value.is_some() && next.at.saturating_sub(reading.at) <= reading.reach_ms);
        let end = is_joined.map_or(reading.at, |next| next.at);
        if reading.at > to || end < from {
            continue;
        }
        let slots = sums.iter_mut().take(slot(end) + 1).skip(slot(reading.at));
        slots.for_each(|(sum, n)| {
            *sum += u64::from(value);
            *n += 1;
        });
    }
    let values = || readings.iter().filter(|reading| inside(reading.at)).filter_map(|reading| reading.value);
    let mean = |(sum, n): (u64, u64)| sum.checked_div(n).and_then(|mean| u32::try_from(mean).ok());
    Line { slots: sums.into_iter().map(mean).collect(), least: values().min(), most: values().max() }
}

#[cfg(test)]
mod tests {
    use signalbox_schemas::api::FiguresView;

    use super::*;

    fn point(at: u64, cpu: u8, state: Liveness) -> PointView {
        PointView { at, state, figures: FiguresView { cpu_percent: Some(cpu), ..FiguresView::default() } }
    }

    fn sample(cpu_percent: u8) -> Sample {
        Sample { at_secs: 0, cpu_percent, memory_percent: 0, disk_percent: None, load_tenths: 0 }
    }

    fn slots(points: &[PointView], heard: &[(u64, Sample)], count: usize) -> Vec<Option<u32>> {
        let heard = heard.iter().map(|(at, sample)| (*at, sample));
        line(&readings(Kind::Cpu, points, 60_000, heard), (0, 600_000), count).slots
    }

    #[test]
    fn no_line_is_drawn_over_silence() {
        use Liveness::{Offline, Online, Stale};
        let minute = 60_000;
        let points = [
            point(0, 10, Online),
            point(minute, 20, Online),
            // It has its last figures still.
            point(2 * minute, 20, Stale),
            point(3 * minute, 20, Offline),
            point(4 * minute, 40, Online),
            // No frame was written for three minutes.
            point(8 * minute, 80, Online),
        ];
        let (ten, twenty) = (Some(10), Some(20));
        let expected = [ten, Some(15), None, None, Some(40), None, None, None, Some(80), None];
        assert_eq!(slots(&points, &[], 10), expected);
        let fine = slots(&points, &[], 20);
        assert_eq!(fine.get(..5), Some([ten, ten, Some(15), None, None].as_slice()));
        assert_eq!(twenty, Some(20));
    }

    #[test]
    fn what_was_heard_here_goes_before_what_the_history_says() {
        let points = [point(0, 10, Liveness::Online), point(60_000, 10, Liveness::Online)];
        let heard = [(50_000, sample(50)), (60_000, sample(50)), (120_000, sample(90))];
        let slots = slots(&points, &heard, 60);
        assert_eq!(
            slots.get(..13),
            Some(
                {
                    // The frame of second 0 stands alone before the first sample, but within its reach.
                    let mut expected = vec![Some(10); 5];
                    expected.push(Some(30));
                    expected.push(Some(50));
                    expected.extend([None; 5]);
                    expected.push(Some(90));
                    expected
                }
                .as_slice()
            )
        );
    }

    #[test]
    fn least_and_most_are_of_the_time_that_is_shown() {
        let points = [10, 20, 90].map(|cpu| point(u64::from(cpu) * 1_000, cpu, Liveness::Online));
        let line = line(&readings(Kind::Cpu, &points, 60_000, [].into_iter()), (15_000, 60_000), 4);
        assert_eq!((line.least, line.most), (Some(20), Some(20)));
        assert_eq!(super::line(&[], (0, 0), 0).slots, [None]);
    }
}
