//! Machines: what is known of them, which are seen, in which order, and which are marked.

use std::collections::HashSet;

use signalbox_schemas::{
    api::Liveness,
    id::{MachineId, MachineToken},
    limit,
    selector::{Selector, fold_names},
};

use super::{
    Now,
    cursor::Cursor,
    lens::{self, Lens},
    machine::Machine,
    roster::{Moved, Place, Roster},
    vitals::Vitals,
};
use crate::{
    client::{Heard, Stretch},
    settings::views::View,
    tui::text,
};

/// Machines are counted no more often than this, ms, while all that passes is time.
const COUNT_MS: u64 = 1_000;

/// By what machines are sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Column {
    /// By name, numbers in it as numbers.
    Name,
    /// What needs a look first.
    State,
    /// By CPU use.
    Cpu,
    /// By memory in use.
    Memory,
    /// By the fullest disk.
    Disk,
    /// By the load of the last minute.
    Load,
    /// By when they were last heard.
    Heard,
    /// By runs.
    Runs,
}

impl Column {
    /// All of them.
    pub const ALL: [Self; 8] =
        [Self::Name, Self::State, Self::Cpu, Self::Memory, Self::Disk, Self::Load, Self::Heard, Self::Runs];

    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::State => "state",
            Self::Cpu => "cpu",
            Self::Memory => "mem",
            Self::Disk => "disk",
            Self::Load => "load",
            Self::Heard => "heard",
            Self::Runs => "run",
        }
    }

    /// Whether the largest comes first, unless it is reversed.
    pub fn is_largest_first(self) -> bool {
        !matches!(self, Self::Name | Self::State | Self::Heard)
    }
}

/// What is shown of a machine beside its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Figure {
    /// CPU use.
    Cpu,
    /// CPU use of the last minutes.
    Spark,
    /// Memory in use.
    Memory,
    /// The fullest disk.
    Disk,
    /// Load of the last minute.
    Load,
    /// When it was last heard.
    Heard,
    /// Runs.
    Runs,
    /// Version of its relay.
    Relay,
    /// Operating system.
    System,
    /// Labels, where any machine has one.
    Labels,
    /// Kernel.
    Kernel,
    /// Architecture.
    Arch,
    /// Host name.
    Host,
    /// Since it booted.
    Up,
}

impl Figure {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::Cpu,
        Self::Spark,
        Self::Memory,
        Self::Disk,
        Self::Load,
        Self::Heard,
        Self::Runs,
        Self::Relay,
        Self::System,
        Self::Labels,
        Self::Kernel,
        Self::Arch,
        Self::Host,
        Self::Up,
    ];
    /// Those that are shown unless others are chosen.
    pub const AT_FIRST: [Self; 10] = [
        Self::Cpu,
        Self::Spark,
        Self::Memory,
        Self::Disk,
        Self::Load,
        Self::Heard,
        Self::Runs,
        Self::Relay,
        Self::System,
        Self::Labels,
    ];

    /// What it is called where columns are chosen.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Spark => "history",
            Self::Memory => "mem",
            Self::Disk => "disk",
            Self::Load => "load",
            Self::Heard => "heard",
            Self::Runs => "run",
            Self::Relay => "relay",
            Self::System => "system",
            Self::Labels => "labels",
            Self::Kernel => "kernel",
            Self::Arch => "arch",
            Self::Host => "host",
            Self::Up => "up",
        }
    }

    /// By what it sorts.
    pub fn column(self) -> Option<Column> {
        match self {
            Self::Cpu => Some(Column::Cpu),
            Self::Memory => Some(Column::Memory),
            Self::Disk => Some(Column::Disk),
            Self::Load => Some(Column::Load),
            Self::Heard => Some(Column::Heard),
            Self::Runs => Some(Column::Runs),
            Self::Labels
            | Self::Spark
            | Self::Relay
            | Self::System
            | Self::Kernel
            | Self::Arch
            | Self::Host
            | Self::Up => None,
        }
    }
}

/// Machines by their liveness.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LivenessCounts {
    /// Heard lately.
    pub online: usize,
    /// Not heard for a while.
    pub stale: usize,
    /// Not heard for long, or never.
    pub offline: usize,
}

impl LivenessCounts {
    /// Counts one more.
    pub fn add(&mut self, state: Liveness) {
        match state {
            Liveness::Online => self.online += 1,
            Liveness::Stale => self.stale += 1,
            Liveness::Offline => self.offline += 1,
        }
    }
}

/// All machines. `order` is what is seen, `cursor` a row of it.
#[derive(Debug)]
pub struct Fleet {
    roster: Roster,
    order: Vec<Place>,
    marks: HashSet<MachineToken>,
    /// The machine that was marked last: where a range begins.
    marked_last: Option<MachineToken>,
    figures: Vec<Figure>,
    filter: String,
    lens: Lens,
    /// Why the filter is not understood; what was seen before is seen still.
    filter_problem: Option<String>,
    sort: Column,
    is_reversed: bool,
    /// Since rows were put in order, a machine was found to have other names, which a filter looks into.
    is_disturbed: bool,
    counts: LivenessCounts,
    /// When they were counted, ms by our steady clock; `None`: what is known has changed since.
    counted_ms: Option<u64>,
    /// The row the operator is on.
    pub cursor: Cursor<MachineToken>,
}

impl Default for Fleet {
    fn default() -> Self {
        Self {
            roster: Roster::default(),
            order: Vec::new(),
            marks: HashSet::new(),
            marked_last: None,
            figures: Figure::AT_FIRST.to_vec(),
            filter: String::new(),
            lens: Lens::default(),
            filter_problem: None,
            sort: Column::Name,
            is_reversed: false,
            is_disturbed: false,
            counts: LivenessCounts::default(),
            counted_ms: None,
            cursor: Cursor::default(),
        }
    }
}

impl Fleet {
    /// Takes a stretch of the list: it replaces what was known of that stretch, but for the history of machines that
    /// stay. While the list `is_growing`, a cursor on the first row stays there, whatever comes above it.
    pub fn replace(&mut self, stretch: Stretch, is_growing: bool, now: Now) {
        let moved = self.roster.replace(stretch, now);
        self.note(moved);
        if moved.is_other {
            self.marks.retain(|token| self.roster.place(token).is_some());
            let is_at_top = is_growing && self.cursor.at() == 0;
            self.arrange(now.ms);
            if is_at_top {
                self.go(0);
            }
        }
    }

    /// Filters and counts are of what was before.
    fn note(&mut self, moved: Moved) {
        self.is_disturbed |= moved.is_renamed;
        if moved.is_other || moved.has_turned {
            self.counted_ms = None;
        }
    }

    /// Nothing is known of these machines.
    pub fn set_unknown(&mut self, tokens: &[MachineToken]) {
        for token in tokens {
            self.roster.set_unknown(token);
        }
        self.counted_ms = None;
    }

    /// Is looked at as another one is: by the same filter, order, figures and marks, on the same row.
    pub fn see_as(&mut self, other: &Self, now_ms: u64) {
        self.marks = other.marks.iter().filter(|token| self.roster.place(token).is_some()).cloned().collect();
        self.marked_last.clone_from(&other.marked_last);
        self.figures.clone_from(&other.figures);
        self.filter.clone_from(&other.filter);
        self.lens = other.lens.clone();
        self.filter_problem.clone_from(&other.filter_problem);
        (self.sort, self.is_reversed) = (other.sort, other.is_reversed);
        self.cursor = other.cursor.clone();
        self.arrange(now_ms);
    }

    /// Takes a heartbeat. `false`: the machine is not known yet.
    pub fn hear(&mut self, heard: Heard, now_ms: u64) -> bool {
        let Some(moved) = self.roster.hear(heard, now_ms) else { return false };
        self.note(moved);
        true
    }

    /// One machine.
    pub fn get(&self, token: &MachineToken) -> Option<&Machine> {
        self.roster.get(token)
    }

    /// What a machine is called, clean; its id when it is not known.
    pub fn name_of(&self, id: &MachineId) -> String {
        self.get(&id.token()).map_or_else(|| text::line(id.as_str()), |machine| machine.name.clone())
    }

    /// All machines, by name.
    pub fn all(&self) -> impl Iterator<Item = &Machine> {
        self.roster.by_name().map(|(_, machine)| machine)
    }

    /// The machine with this name, id or token.
    pub fn named(&self, name: &str) -> Option<MachineToken> {
        let token = MachineId::new(name).ok().map(|id| id.token());
        token.filter(|token| self.get(token).is_some()).or_else(|| {
            self.roster.all().find(|machine| machine.token.as_str() == name).map(|m| m.token.clone())
        })
    }

    /// What all machines are called, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.all().map(|machine| machine.name.as_str())
    }

    /// What is shown of a machine, from left to right.
    pub fn figures(&self) -> &[Figure] {
        &self.figures
    }

    /// Shows these figures, in this order. Names that there are not are left out; without any nothing changes.
    pub fn choose<'a>(&mut self, names: impl IntoIterator<Item = &'a str>) {
        let figure = |name: &str| Figure::ALL.into_iter().find(|figure| figure.name() == name);
        let figures: Vec<Figure> = names.into_iter().filter_map(figure).collect();
        if !figures.is_empty() {
            self.figures = figures;
        }
    }

    /// Shows figures and order as an operator has set them; names that there are not change nothing.
    pub fn set_view(&mut self, view: &View, now_ms: u64) {
        self.choose(view.columns.iter().flatten().map(String::as_str));
        if let Some((name, largest_first)) = view.order()
            && let Some(column) = Column::ALL.into_iter().find(|column| column.word() == name)
        {
            self.sort_as(column, column.is_largest_first() != largest_first, now_ms);
        }
    }

    /// All figures by name, those that are shown first, and whether they are.
    pub fn choice(&self) -> Vec<(&'static str, bool)> {
        let there = self.figures.iter().map(|figure| (figure.name(), true));
        let others = Figure::ALL.into_iter().filter(|figure| !self.figures.contains(figure));
        there.chain(others.map(|figure| (figure.name(), false))).collect()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.roster.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.roster.is_empty()
    }

    /// How many are seen.
    pub fn seen(&self) -> usize {
        self.order.len()
    }

    /// What is seen, in order.
    pub fn order(&self) -> impl Iterator<Item = &MachineToken> {
        self.order.iter().filter_map(|place| self.roster.at(*place)).map(|machine| &machine.token)
    }

    /// The rows that are seen when so many are shown.
    pub fn rows(&self, rows: usize) -> impl Iterator<Item = &Machine> {
        let places = self.order.get(self.cursor.top()..).unwrap_or_default().iter().take(rows);
        places.filter_map(|place| self.roster.at(*place))
    }

    /// All machines by liveness, as of the last [`Self::settle`].
    pub fn counts(&self) -> LivenessCounts {
        self.counts
    }

    /// Counts them, if what is known has changed or they are a second older: what falls silent does so with the seconds.
    pub fn settle(&mut self, now_ms: u64) {
        if self.counted_ms.is_some_and(|counted_ms| now_ms.abs_diff(counted_ms) < COUNT_MS) {
            return;
        }
        self.counted_ms = Some(now_ms);
        self.counts = LivenessCounts::default();
        let known = self.roster.all_vitals().filter(|vitals| !vitals.is_unknown);
        known.for_each(|vitals| self.counts.add(vitals.state(now_ms)));
    }

    /// The filter as it was written; empty = none.
    pub fn filter(&self) -> &str {
        &self.filter
    }

    /// Why the filter is not understood, where it is not: what was seen before is seen still.
    pub fn filter_problem(&self) -> Option<&str> {
        self.filter_problem.as_deref()
    }

    /// Shows only machines whose id, token or host name has this text, or those that it means as a selector.
    pub fn set_filter(&mut self, filter: &str, now_ms: u64) {
        filter.clone_into(&mut self.filter);
        match Lens::new(filter) {
            Ok(lens) => {
                (self.lens, self.filter_problem) = (lens, None);
                self.arrange(now_ms);
            }
            Err(problem) => self.filter_problem = Some(problem),
        }
    }

    /// By what they are sorted, and whether the other way around.
    pub fn sort(&self) -> (Column, bool) {
        (self.sort, self.is_reversed)
    }

    /// Sorts by a column; the same once more turns the order around.
    pub fn sort_by(&mut self, column: Column, now_ms: u64) {
        self.sort_as(column, self.sort == column && !self.is_reversed, now_ms);
    }

    /// Sorts by a column, the other way around or not.
    pub fn sort_as(&mut self, column: Column, is_reversed: bool, now_ms: u64) {
        (self.sort, self.is_reversed) = (column, is_reversed);
        self.arrange(now_ms);
    }

    /// Sorts by the column so many further on, of those that are shown.
    pub fn sort_next(&mut self, steps: isize, now_ms: u64) {
        let shown = self.figures.iter().filter_map(|figure| figure.column());
        let columns: Vec<Column> = [Column::Name, Column::State].into_iter().chain(shown).collect();
        let at = columns.iter().position(|column| *column == self.sort).unwrap_or(0);
        let slots = isize::try_from(columns.len()).unwrap_or(1);
        let next = (isize::try_from(at).unwrap_or(0) + steps).rem_euclid(slots);
        if let Some(column) = usize::try_from(next).ok().and_then(|at| columns.get(at)) {
            self.sort_as(*column, false, now_ms);
        }
    }

    /// Filters and sorts anew, if figures that moved may have changed what comes of it.
    pub fn rearrange(&mut self, now_ms: u64) {
        let is_disturbed = self.is_disturbed && !self.filter.is_empty();
        if self.sort != Column::Name || self.lens.is_live() || is_disturbed {
            self.arrange(now_ms);
        }
    }

    /// Filters and sorts anew. Cost: n log n; called for what the operator does, and where machines come or go.
    fn arrange(&mut self, now_ms: u64) {
        self.is_disturbed = false;
        self.order = self.lens.seen(&self.roster, now_ms);
        if self.sort != Column::Name {
            self.order = self.sorted(now_ms);
        } else if self.is_reversed {
            self.order.reverse();
        }
        let row = self.cursor.key().and_then(|token| self.row_of(token));
        self.go(row.unwrap_or(self.cursor.at()));
    }

    /// What is seen, by the figure that it is sorted by; equals stay in the order in which they come.
    fn sorted(&self, now_ms: u64) -> Vec<Place> {
        let largest_first = self.sort.is_largest_first() != self.is_reversed;
        let with_rank = |place: &Place| {
            let known = self.roster.vitals(*place).and_then(|vitals| figure(vitals, self.sort, now_ms));
            (rank(known, largest_first), *place)
        };
        let mut ranked: Vec<(u64, Place)> = self.order.iter().map(with_rank).collect();
        ranked.sort_by_key(|(rank, _)| *rank);
        ranked.into_iter().map(|(_, place)| place).collect()
    }

    /// The row of a machine, where it is seen.
    fn row_of(&self, token: &MachineToken) -> Option<usize> {
        let place = self.roster.place(token)?;
        self.order.iter().position(|seen| *seen == place)
    }

    /// Goes to a row, or to the last.
    fn go(&mut self, row: usize) {
        let row = row.min(self.order.len().saturating_sub(1));
        let machine = self.order.get(row).and_then(|place| self.roster.at(*place));
        self.cursor.put(row, machine.map(|machine| machine.token.clone()));
    }

    /// Moves the cursor by rows.
    pub fn step(&mut self, rows: isize) {
        self.go(self.cursor.at().saturating_add_signed(rows));
    }

    /// Goes to a machine, where it is seen.
    pub fn go_to(&mut self, token: &MachineToken) {
        if let Some(row) = self.row_of(token) {
            self.go(row);
        }
    }

    /// How many are marked.
    pub fn marked(&self) -> usize {
        self.marks.len()
    }

    /// Whether one is marked.
    pub fn is_marked(&self, token: &MachineToken) -> bool {
        self.marks.contains(token)
    }

    /// Marks the row under the cursor, or takes its mark away, and goes on to the next.
    pub fn toggle_mark(&mut self) {
        if let Some(token) = self.cursor.key().cloned() {
            if !self.marks.remove(&token) {
                self.marks.insert(token.clone());
            }
            self.marked_last = Some(token);
            self.step(1);
        }
    }

    /// Marks all rows from the one that was marked last to the one under the cursor.
    pub fn mark_range(&mut self) {
        let to = self.cursor.at();
        let from = self.marked_last.as_ref().and_then(|token| self.row_of(token)).unwrap_or(to);
        let range = self.order().take(from.max(to) + 1).skip(from.min(to)).cloned();
        let range: Vec<MachineToken> = range.collect();
        self.marks.extend(range);
        self.marked_last = self.cursor.key().cloned();
    }

    /// Marks those that are seen and were not marked; those that were are no more. What is not seen stays as it is.
    pub fn invert_marks(&mut self) {
        let seen: Vec<MachineToken> = self.order().cloned().collect();
        for token in seen {
            if !self.marks.remove(&token) {
                self.marks.insert(token);
            }
        }
    }

    /// Takes the marks of these machines away.
    pub fn unmark(&mut self, tokens: &[MachineToken]) {
        for token in tokens {
            self.marks.remove(token);
        }
    }

    /// Marks these machines, as far as there are such.
    pub fn mark(&mut self, tokens: impl IntoIterator<Item = MachineToken>) {
        self.marks.extend(tokens.into_iter().filter(|token| self.roster.place(token).is_some()));
    }

    /// Marks all that are seen. What is marked already stays marked.
    pub fn mark_seen(&mut self) {
        let seen: Vec<MachineToken> = self.order().cloned().collect();
        self.marks.extend(seen);
    }

    /// Takes all marks away.
    pub fn clear_marks(&mut self) {
        self.marks.clear();
    }

    /// What an action means: the marks, else the row under the cursor. By name.
    pub fn meant(&self) -> Vec<MachineToken> {
        if self.marks.is_empty() {
            return self.cursor.key().cloned().into_iter().collect();
        }
        let marked = self.all().map(|machine| &machine.token).filter(|token| self.marks.contains(*token));
        marked.cloned().collect()
    }

    /// Machines that a selector means as far as is known here, by name.
    pub fn meant_by(&self, selector: &Selector, now_ms: u64) -> Vec<MachineToken> {
        lens::meant(selector, self.all(), now_ms).into_iter().map(|machine| machine.token.clone()).collect()
    }

    /// Machines that a selector means by their names alone, by name.
    fn matching(&self, selector: &Selector) -> Vec<MachineToken> {
        self.all().filter(|m| selector.matches(&m.id, &m.token)).map(|m| m.token.clone()).collect()
    }

    /// A selector that means exactly these machines; `None` when it would be too long to send.
    ///
    /// Tokens are used, as no two machines share one, in ranges where they differ in a number. Where there are too many of
    /// them: `all`, or the filter, when that means the same machines by their names.
    pub fn selector_of(&self, tokens: &[MachineToken]) -> Option<String> {
        let text = match tokens {
            [] => return None,
            // It is that machine's, whether it is known here or not.
            [one] => return Some(Selector::of_machine(one.as_str())),
            several => fold_names(several.iter().map(MachineToken::as_str)),
        };
        let wanted: HashSet<&MachineToken> = tokens.iter().collect();
        let filter = self.filter.trim();
        // A name may be the id of another machine, and a range reach further than what is known here.
        let candidates = [text, "all".to_owned(), filter.to_owned(), format!("*{filter}*")];
        candidates.into_iter().filter(|text| text.len() <= limit::SELECTOR_BYTES).find(|text| {
            Selector::parse(text).is_ok_and(|selector| {
                let meant = self.matching(&selector);
                meant.len() == wanted.len() && meant.iter().all(|token| wanted.contains(token))
            })
        })
    }
}

/// What a machine is sorted by; `None` = not known, which comes last either way.
#[expect(clippy::cast_precision_loss, reason = "ages in ms stay far below 2^52")]
fn figure(vitals: &Vitals, column: Column, now_ms: u64) -> Option<f64> {
    match column {
        _ if vitals.is_unknown => None,
        Column::Name => None,
        Column::State => Some(match vitals.state(now_ms) {
            Liveness::Offline => 0.0,
            Liveness::Stale => 1.0,
            Liveness::Online => 2.0,
        }),
        Column::Cpu => vitals.cpu_percent.map(f64::from),
        Column::Memory => vitals.memory_percent.map(f64::from),
        Column::Disk => vitals.disk_percent.map(f64::from),
        Column::Load => vitals.load,
        Column::Heard => vitals.age_ms(now_ms).map(|age| age as f64),
        Column::Runs => Some(f64::from(vitals.running) + f64::from(vitals.pending) / 1e6),
    }
}

/// Where a figure comes: those with a lower rank come first. Numbers are compared, not figures: it is done some million times
/// for a large fleet.
fn rank(figure: Option<f64>, largest_first: bool) -> u64 {
    // What is not known comes last, whatever the direction.
    let Some(figure) = figure else { return u64::MAX };
    let bits = figure.to_bits();
    // The order of `f64::total_cmp`: of negative numbers the one with more bits is the smaller.
    let rank = if figure.is_sign_negative() { !bits } else { bits | 1 << 63 };
    (if largest_first { !rank } else { rank }).min(u64::MAX - 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ranks_are_in_the_order_of_figures(a in any::<f64>(), b in any::<f64>()) {
            prop_assume!(!a.is_nan() && !b.is_nan());
            prop_assert_eq!(rank(Some(a), false).cmp(&rank(Some(b), false)), a.total_cmp(&b));
            prop_assert_eq!(rank(Some(a), true).cmp(&rank(Some(b), true)), b.total_cmp(&a));
            prop_assert!(rank(Some(a), true) < rank(None, true) && rank(Some(a), false) < rank(None, false));
        }
    }
}
