//! Where the operator is on the page of one machine, and what was told of it.

use std::collections::{HashMap, HashSet};

use signalbox_schemas::{
    api::{CommandSummary, Kept, MachineSeries, PointView},
    id::{CommandId, MachineToken},
};

use super::{
    chart::{self, Kind, Line, Reading},
    machine::Machine,
};
use crate::client::machine::{Span, Tab};

/// Points that are asked for at most: each is a frame that the bridge reads.
const POINTS: u32 = 240;
const MINUTE_MS: u64 = 60_000;

/// How much time the charts show.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Zoom {
    /// Ten minutes.
    #[default]
    Minutes,
    /// An hour.
    Hour,
    /// Six hours.
    SixHours,
    /// A day.
    Day,
    /// A week.
    Week,
}

impl Zoom {
    /// All of them, the shortest first.
    pub const ALL: [Self; 5] = [Self::Minutes, Self::Hour, Self::SixHours, Self::Day, Self::Week];

    /// How long it is, ms.
    pub fn ms(self) -> u64 {
        let minutes = match self {
            Self::Minutes => 10,
            Self::Hour => 60,
            Self::SixHours => 6 * 60,
            Self::Day => 24 * 60,
            Self::Week => 7 * 24 * 60,
        };
        minutes * MINUTE_MS
    }

    /// What it is called.
    pub fn word(self) -> &'static str {
        match self {
            Self::Minutes => "10 min",
            Self::Hour => "1 h",
            Self::SixHours => "6 h",
            Self::Day => "1 d",
            Self::Week => "7 d",
        }
    }

    /// The same where there is little room.
    pub fn short(self) -> &'static str {
        match self {
            Self::Minutes => "10m",
            Self::Hour => "1h",
            Self::SixHours => "6h",
            Self::Day => "1d",
            Self::Week => "7d",
        }
    }

    fn place(self) -> usize {
        Self::ALL.iter().position(|zoom| *zoom == self).unwrap_or(0)
    }

    /// The one so many steps further out (1) or in (-1); at the ends itself.
    #[must_use]
    pub fn further(self, steps: isize) -> Self {
        let at = self.place().saturating_add_signed(steps).min(Self::ALL.len() - 1);
        Self::ALL.get(at).copied().unwrap_or(self)
    }

    /// What is asked for at `wall_ms`, Unix ms.
    pub fn span(self, wall_ms: u64) -> Span {
        let points = u32::try_from(self.ms() / MINUTE_MS).unwrap_or(POINTS).min(POINTS);
        Span { from: wall_ms.saturating_sub(self.ms()), to: wall_ms.max(1), points }
    }
}

/// Figures as they were told.
#[derive(Debug, Clone, Default)]
pub struct Series {
    /// When they were asked for last, ms; `None` = never.
    pub tried_ms: Option<u64>,
    /// Time between two points where nothing is missing, ms.
    pub step_ms: u64,
    /// The points, the oldest first.
    pub points: Vec<PointView>,
    /// What the history holds.
    pub kept: Option<Kept>,
    /// Why the last asking brought nothing; clean.
    pub problem: Option<String>,
}

impl Series {
    /// How old it may become, ms: before that nothing new was written that would be seen.
    pub fn lasts_ms(&self) -> u64 {
        self.step_ms.max(MINUTE_MS)
    }
}

/// The page of one machine.
#[derive(Debug, Default)]
pub struct MachinePage {
    /// Whose page it is; `None`: none was opened yet.
    pub token: Option<MachineToken>,
    /// What of it is shown.
    pub tab: Tab,
    /// How much time the charts show.
    pub zoom: Zoom,
    /// Charts fill the page.
    pub is_charts: bool,
    /// When rows were asked for, ms, while that is not answered, whatever page that was for.
    pub rows_asked_ms: Option<u64>,
    /// When figures were asked for, ms, while that is not answered.
    pub figures_asked_ms: Option<u64>,
    series: [Series; Zoom::ALL.len()],
    /// Tabs whose rows may not be all there is.
    cut: HashSet<Tab>,
    /// Commands of the rows, by which they are opened.
    pub commands: HashMap<CommandId, CommandSummary>,
}

impl MachinePage {
    /// Turns to a machine; `false`: its page is open already.
    pub fn turn_to(&mut self, token: &MachineToken) -> bool {
        if self.token.as_ref() == Some(token) {
            return false;
        }
        self.token = Some(token.clone());
        self.series = std::array::from_fn(|_| Series::default());
        self.commands.clear();
        self.cut.clear();
        true
    }

    /// Remembers whether more may be there than the rows of a tab.
    pub fn cut(&mut self, tab: Tab, is_cut: bool) {
        if is_cut {
            self.cut.insert(tab);
        } else {
            self.cut.remove(&tab);
        }
    }

    /// Whether more may be there than the rows of the tab that is shown.
    pub fn is_cut(&self) -> bool {
        self.cut.contains(&self.tab)
    }

    /// Whether it is the page of this machine.
    pub fn is_of(&self, token: &MachineToken) -> bool {
        self.token.as_ref() == Some(token)
    }

    /// The figures of the time that is shown.
    pub fn series(&self) -> &Series {
        let [first, ..] = &self.series;
        self.series.get(self.zoom.place()).unwrap_or(first)
    }

    /// Those of one length of time, to be changed.
    pub fn series_mut(&mut self, zoom: Zoom) -> Option<&mut Series> {
        self.series.get_mut(zoom.place())
    }

    /// Takes figures as they were told for a stretch of time of this length.
    pub fn tell(&mut self, length_ms: u64, told: MachineSeries) {
        let zoom = Zoom::ALL.into_iter().find(|zoom| zoom.ms() == length_ms);
        let Some(series) = zoom.and_then(|zoom| self.series_mut(zoom)) else { return };
        (series.step_ms, series.kept, series.problem) = (told.step_ms, told.kept, None);
        series.points = told.points;
        series.points.sort_by_key(|point| point.at);
    }

    /// Takes that they could not be read.
    pub fn fail(&mut self, length_ms: u64, why: String) {
        let zoom = Zoom::ALL.into_iter().find(|zoom| zoom.ms() == length_ms);
        if let Some(series) = zoom.and_then(|zoom| self.series_mut(zoom)) {
            series.problem = Some(why);
        }
    }

    /// One figure of a machine over the time that is shown, up to `wall_ms`, in so many slots. `now_ms` is the same moment by
    /// the steady clock, by which heartbeats were heard.
    pub fn line(&self, kind: Kind, machine: &Machine, (now_ms, wall_ms): (u64, u64), slots: usize) -> Line {
        let readings = self.readings(kind, machine, (now_ms, wall_ms));
        chart::line(&readings, self.time(wall_ms, slots), slots)
    }

    /// From when to when so many slots show the time, Unix ms: they begin at whole multiples of their length, so that none
    /// changes while time passes.
    pub fn time(&self, wall_ms: u64, slots: usize) -> (u64, u64) {
        let slots = u64::try_from(slots.max(1)).unwrap_or(1);
        let slot_ms = (self.zoom.ms() / slots).max(1);
        let to = (wall_ms / slot_ms + 1).saturating_mul(slot_ms);
        (to.saturating_sub(slot_ms * slots), to)
    }

    fn readings(&self, kind: Kind, machine: &Machine, (now_ms, wall_ms): (u64, u64)) -> Vec<Reading> {
        let series = self.series();
        let samples = machine.history.samples().map(|sample| {
            let age_ms = now_ms.saturating_sub(u64::from(sample.at_secs) * 1_000);
            (wall_ms.saturating_sub(age_ms), sample)
        });
        chart::readings(kind, &series.points, series.step_ms.max(MINUTE_MS), samples)
    }
}
