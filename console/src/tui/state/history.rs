//! What a machine's heartbeats said over the last ten minutes.

use std::collections::VecDeque;

/// How far back samples are kept, seconds.
pub const SPAN_SECS: u32 = 600;
/// Most samples of a machine: ten minutes at one each 5 s, twice the rate of heartbeats.
const MOST: usize = 120;

/// One heartbeat's figures. Small: ten thousand machines keep seventy each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// When, Unix seconds.
    pub at_secs: u32,
    /// CPU use, percent.
    pub cpu_percent: u8,
    /// Memory in use, percent.
    pub memory_percent: u8,
    /// Use of the fullest disk, percent; `None` = not known.
    pub disk_percent: Option<u8>,
    /// Load of the last minute, in tenths; as much as fits.
    pub load_tenths: u16,
}

/// Samples in the order of time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    samples: VecDeque<Sample>,
}

impl History {
    /// Adds a sample; one that is not newer than the last is left out.
    pub fn push(&mut self, sample: Sample) {
        if self.samples.back().is_some_and(|last| last.at_secs >= sample.at_secs) {
            return;
        }
        while self.samples.len() >= MOST
            || self.samples.front().is_some_and(|first| first.at_secs + SPAN_SECS < sample.at_secs)
        {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
    }

    /// The samples, the oldest first.
    pub fn samples(&self) -> impl Iterator<Item = &Sample> {
        self.samples.iter()
    }

    /// Means over `count` stretches of time, the newest last; `None` where nothing was heard.
    ///
    /// Stretches begin at whole multiples of their length, so that a bar does not change while time passes.
    pub fn means(&self, now_secs: u32, count: usize, of: fn(&Sample) -> u8) -> Vec<Option<u8>> {
        let count = count.max(1);
        let stretch = SPAN_SECS.div_ceil(u32::try_from(count).unwrap_or(u32::MAX)).max(1);
        let newest = now_secs / stretch;
        let mut sums = vec![(0_u32, 0_u32); count];
        for sample in &self.samples {
            let back = newest.saturating_sub(sample.at_secs / stretch) as usize;
            if let Some((sum, n)) = (count - 1).checked_sub(back).and_then(|at| sums.get_mut(at)) {
                *sum += u32::from(of(sample));
                *n += 1;
            }
        }
        sums.into_iter().map(|(sum, n)| sum.checked_div(n).and_then(|mean| u8::try_from(mean).ok())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(at_secs: u32, cpu_percent: u8) -> Sample {
        Sample { at_secs, cpu_percent, memory_percent: 0, disk_percent: None, load_tenths: 0 }
    }

    #[test]
    fn means_are_of_stretches_and_gaps_stay_gaps() {
        let mut history = History::default();
        for (at, cpu) in [(6000, 10), (6010, 30), (6130, 50)] {
            history.push(sample(at, cpu));
        }
        let means = history.means(6139, 10, |sample| sample.cpu_percent);
        assert_eq!(means.get(7..), Some([Some(20), None, Some(50)].as_slice()));
    }

    #[test]
    fn it_forgets_and_is_bounded() {
        let mut history = History::default();
        (0..10_000).for_each(|at| history.push(sample(at, 1)));
        assert_eq!(history.samples.len(), MOST);
        history.push(sample(20_000, 1));
        history.push(sample(19_000, 1));
        assert_eq!(history.samples.len(), 1);
    }
}
