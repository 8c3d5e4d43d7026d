//! A report: rows of figures beside their floors and budgets, and where they were measured. Pure; the JSON is this.

mod table;

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

pub(crate) use table::{Style, number, table};

/// What a number counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Unit {
    /// Milliseconds.
    Ms,
    /// Kibibytes.
    Kib,
    /// Parts of a processor's time, in percent of one.
    Percent,
    /// Events per second.
    PerSecond,
    /// Bytes per second.
    BytesPerSecond,
    /// Bytes.
    Bytes,
    /// Things.
    Count,
}

/// Numbers of one kind, in the order in which they were measured.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Samples {
    unit: Unit,
    all: Vec<f64>,
}

impl Samples {
    pub(crate) fn of(unit: Unit) -> Self {
        Self { unit, all: Vec::new() }
    }

    /// Durations.
    pub(crate) fn ms() -> Self {
        Self::of(Unit::Ms)
    }

    pub(crate) fn add(&mut self, sample: f64) {
        self.all.push(sample);
    }

    pub(crate) fn took(&mut self, sample: Duration) {
        self.all.push(sample.as_secs_f64() * 1e3);
    }

    pub(crate) fn append(&mut self, others: impl IntoIterator<Item = Duration>) {
        others.into_iter().for_each(|sample| self.took(sample));
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    /// The sample that `permille` of all do not exceed (nearest rank); none of none.
    pub(crate) fn at(&self, permille: usize) -> Option<f64> {
        let mut sorted = self.all.clone();
        sorted.sort_by(f64::total_cmp);
        let rank = (sorted.len() * permille).div_ceil(1000).max(1);
        sorted.get(rank - 1).copied()
    }
}

/// Where in the samples a budget looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum At {
    /// The median.
    P50,
    /// One in a hundred is worse.
    P99,
}

/// What a figure may be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Budget {
    /// The rule, such as `floor + spawn + 1.5 ms`.
    pub(crate) says: String,
    /// The rule as a number of this run, in the row's unit.
    pub(crate) limit: f64,
    /// Which of the row's numbers it is about.
    pub(crate) at: At,
    /// The number may be no lower, instead of no higher.
    pub(crate) at_least: bool,
    /// Whether it is so.
    pub(crate) met: bool,
}

impl Budget {
    /// No more than this at the median.
    pub(crate) fn most(limit: f64, says: &str) -> Self {
        Self { says: says.to_owned(), limit, at: At::P50, at_least: false, met: false }
    }

    /// No less than this at the median.
    pub(crate) fn least(limit: f64, says: &str) -> Self {
        Self { at_least: true, ..Self::most(limit, says) }
    }

    /// The same, but of the slowest in a hundred.
    pub(crate) fn p99(self) -> Self {
        Self { at: At::P99, ..self }
    }
}

/// One figure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    /// What was measured; floors begin with `floor: `, peers with `peer: `.
    pub(crate) what: String,
    /// Samples.
    pub(crate) n: usize,
    /// What the numbers count.
    pub(crate) unit: Unit,
    /// The median; none where nothing could be measured.
    pub(crate) p50: Option<f64>,
    /// Nine in ten are no higher.
    pub(crate) p90: Option<f64>,
    /// Ninety-nine in a hundred are no higher.
    pub(crate) p99: Option<f64>,
    /// The row of the same report that it is compared with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) floor: Option<String>,
    /// Its median by the floor's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ratio: Option<f64>,
    /// What it may be.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) budgets: Vec<Budget>,
    /// What must be known to read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) remark: Option<String>,
}

impl Row {
    pub(crate) fn new(what: &str, samples: &Samples) -> Self {
        Self {
            what: what.to_owned(),
            n: samples.len(),
            unit: samples.unit,
            p50: samples.at(500),
            p90: samples.at(900),
            p99: samples.at(990),
            floor: None,
            ratio: None,
            budgets: Vec::new(),
            remark: None,
        }
    }

    /// A single number.
    pub(crate) fn one(what: &str, unit: Unit, value: f64) -> Self {
        let mut samples = Samples::of(unit);
        samples.add(value);
        Self { p90: None, p99: None, ..Self::new(what, &samples) }
    }

    /// A row that could not be measured here.
    pub(crate) fn absent(what: &str, why: &str) -> Self {
        Self::new(what, &Samples::ms()).remark(why)
    }

    /// Compared with a row that the report has already.
    pub(crate) fn over(self, floor: &str) -> Self {
        Self { floor: Some(floor.to_owned()), ..self }
    }

    pub(crate) fn within(mut self, budget: Budget) -> Self {
        self.budgets.push(budget);
        self
    }

    pub(crate) fn remark(self, remark: &str) -> Self {
        Self { remark: Some(remark.to_owned()), ..self }
    }

    /// The number that a budget looks at. A single one is all of its percentiles.
    pub(crate) fn at(&self, at: At) -> Option<f64> {
        match at {
            At::P50 => self.p50,
            At::P99 => self.p99.or(self.p50),
        }
    }

    /// Judges the budgets; one whose number is not there is not met.
    fn judge(&mut self) {
        let numbers = [At::P50, At::P99].map(|at| (at, self.at(at)));
        for budget in &mut self.budgets {
            let value = numbers.iter().find(|(at, _)| *at == budget.at).and_then(|(_, value)| *value);
            budget.met = value.is_some_and(|value| {
                if budget.at_least { value >= budget.limit } else { value <= budget.limit }
            });
        }
    }
}

/// Where it was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Machine {
    /// Processors that the system shows.
    pub(crate) processors: usize,
    /// Their model.
    pub(crate) model: String,
    /// Memory, MiB.
    pub(crate) memory_mib: u64,
    /// Version of the kernel.
    pub(crate) kernel: String,
    /// Load of the last minute when it began.
    pub(crate) load: f64,
}

/// What was measured, and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// The name on the command line.
    pub(crate) name: String,
    /// Where.
    pub(crate) machine: Machine,
    /// Versions of what took part.
    pub(crate) versions: BTreeMap<String, String>,
    /// What else decides about the numbers.
    pub(crate) settings: BTreeMap<String, String>,
    /// The figures.
    pub(crate) rows: Vec<Row>,
}

impl Report {
    pub(crate) fn new(name: &str, machine: Machine, versions: BTreeMap<String, String>) -> Self {
        Self { name: name.to_owned(), machine, versions, settings: BTreeMap::new(), rows: Vec::new() }
    }

    pub(crate) fn set(&mut self, name: &str, value: impl Into<String>) {
        self.settings.insert(name.to_owned(), value.into());
    }

    /// Appends a row, with its ratio to its floor and its budgets judged.
    pub(crate) fn add(&mut self, mut row: Row) {
        let floor = row.floor.as_deref().and_then(|floor| self.p50(floor));
        row.ratio = row.p50.zip(floor).filter(|(_, floor)| *floor > 0.0).map(|(value, floor)| value / floor);
        row.judge();
        self.rows.push(row);
    }

    /// The median of a row that is there.
    pub(crate) fn p50(&self, what: &str) -> Option<f64> {
        self.rows.iter().find(|row| row.what == what)?.p50
    }

    /// Rows beyond a budget, with that budget.
    pub(crate) fn misses(&self) -> impl Iterator<Item = (&Row, &Budget)> {
        let all = self.rows.iter().flat_map(|row| row.budgets.iter().map(move |budget| (row, budget)));
        all.filter(|(_, budget)| !budget.met)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use rstest::rstest;

    use super::*;

    pub(crate) fn report() -> Report {
        let machine = Machine {
            processors: 2,
            model: "a processor".into(),
            memory_mib: 4096,
            kernel: "6.1".into(),
            load: 0.25,
        };
        Report::new("dispatch", machine, BTreeMap::from([("signalbox".into(), "0.1.0 (abc)".into())]))
    }

    fn samples(all: &[f64]) -> Samples {
        let mut samples = Samples::ms();
        for sample in all {
            samples.add(*sample);
        }
        samples
    }

    #[rstest]
    #[case::none(&[], 500, None)]
    #[case::one(&[7.0], 500, Some(7.0))]
    #[case::the_lower_of_two(&[2.0, 1.0], 500, Some(1.0))]
    #[case::unsorted(&[3.0, 1.0, 2.0], 500, Some(2.0))]
    #[case::most_of_few(&[3.0, 1.0, 2.0], 990, Some(3.0))]
    #[case::least(&[3.0, 1.0, 2.0], 0, Some(1.0))]
    fn percentiles_are_samples(#[case] all: &[f64], #[case] permille: usize, #[case] expected: Option<f64>) {
        assert_eq!(samples(all).at(permille), expected);
    }

    #[test]
    fn of_a_hundred_the_second_highest_is_the_99th_percentile() {
        let all: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!((samples(&all).at(900), samples(&all).at(990)), (Some(90.0), Some(99.0)));
    }

    #[test]
    fn a_row_is_compared_with_a_floor_of_the_same_report() {
        let mut report = report();
        report.add(Row::new("floor: spawn", &samples(&[2.0])));
        report.add(Row::new("chain", &samples(&[5.0])).over("floor: spawn"));
        report.add(Row::new("lonely", &samples(&[5.0])).over("floor: nothing"));
        assert_eq!(report.rows.iter().map(|row| row.ratio).collect::<Vec<_>>(), [None, Some(2.5), None]);
    }

    #[test]
    fn budgets_are_judged_where_they_look() {
        let mut report = report();
        let all: Vec<f64> = (1..=100).map(f64::from).collect();
        let row = Row::new("chain", &samples(&all))
            .within(Budget::most(50.0, "fifty"))
            .within(Budget::most(50.0, "fifty of the worst").p99())
            .within(Budget::least(51.0, "many"));
        report.add(row);
        report.add(Row::absent("peer: salt", "not installed").within(Budget::most(1.0, "one")));
        let misses: Vec<_> = report.misses().map(|(_, budget)| budget.says.as_str()).collect();
        assert_eq!(misses, ["fifty of the worst", "many", "one"]);
    }

    #[test]
    fn the_json_is_read_back() {
        let mut report = report();
        report.set("replicas", "1");
        report.add(Row::one("memory", Unit::Kib, 12.5).within(Budget::most(13.0, "13 KiB")));
        let text = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
    }
}
