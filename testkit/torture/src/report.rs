//! What is said about a torture: one line for each seed, everything about what was broken, and a summary.

use std::{collections::BTreeMap, fmt::Write as _};

use serde::Serialize;
use signalbox_schemas::run::RunState;

use crate::{
    check::{Ledger, Promise, Violation},
    observed::Observed,
    told::Word,
};

/// What came of one plan.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Outcome {
    /// Its seed.
    pub(crate) seed: u64,
    /// Harms that were done.
    pub(crate) harms: usize,
    /// Harms that could not be done here.
    pub(crate) skipped: usize,
    /// Harms that were done and met nobody.
    pub(crate) missed: usize,
    /// Commands that were asked for.
    pub(crate) commands: usize,
    /// Of which were accepted, refused, and of which nobody knows.
    pub(crate) accepted: usize,
    pub(crate) refused: usize,
    pub(crate) unknown: usize,
    /// Runs by how they ended.
    pub(crate) runs: BTreeMap<RunState, usize>,
    /// How parts ended that nobody had ended.
    pub(crate) ends: Vec<String>,
    /// Runs that began.
    pub(crate) started: usize,
    /// What was broken.
    pub(crate) violations: Vec<Violation>,
}

impl Outcome {
    /// Of what was observed, and what the checker says of it.
    pub(crate) fn new(observed: &Observed, violations: Vec<Violation>) -> Self {
        let ledger = Ledger::read(&observed.fleet_key, &observed.stored);
        let mut runs = BTreeMap::new();
        for (id, _, machine) in ledger.accepted() {
            *runs.entry(ledger.state(id, machine)).or_default() += 1;
        }
        let told = &observed.said.told;
        let count = |is: fn(&Word) -> bool| told.iter().filter(|told| is(&told.submit)).count();
        let starts = |marks: &str| marks.lines().filter(|line| line.starts_with("S ")).count();
        Self {
            seed: observed.plan.seed,
            harms: observed.plan.harms.len(),
            skipped: observed.skipped.len(),
            missed: observed.missed.len(),
            commands: told.len(),
            accepted: count(|word| matches!(word, Word::Accepted(_))),
            refused: count(|word| matches!(word, Word::Refused(..))),
            unknown: count(|word| matches!(word, Word::Unknown(_))),
            runs,
            ends: observed.ends.clone(),
            started: observed.machines.iter().map(|machine| starts(&machine.marks)).sum(),
            violations,
        }
    }

    /// Whether this promise was broken, among others or alone.
    pub(crate) fn breaks(&self, promise: Promise) -> bool {
        self.violations.iter().any(|violation| violation.promise == promise)
    }

    /// One line.
    pub(crate) fn line(&self) -> String {
        let Self { seed, harms, commands, accepted, refused, unknown, started, .. } = self;
        let mut line = format!("seed {seed}: {harms} harms");
        if self.skipped > 0 {
            let _ = write!(line, " ({} cannot be done here)", self.skipped);
        }
        if self.missed > 0 {
            let _ = write!(line, " ({} met nobody)", self.missed);
        }
        let _ = write!(
            line,
            ", {commands} commands ({accepted} accepted, {refused} refused, {unknown} unknown), "
        );
        let runs = self.runs.iter().map(|(state, count)| format!("{count} {state}")).collect::<Vec<_>>();
        let _ = write!(line, "{started} starts; runs: {}; ", runs.join(", "));
        if !self.ends.is_empty() {
            let _ = write!(line, "{} times a part ended by itself; ", self.ends.len());
        }
        match self.violations.len() {
            0 => line.push_str("every promise kept"),
            broken => {
                let _ = write!(line, "{broken} VIOLATIONS");
            }
        }
        line
    }
}

/// All outcomes of one call.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Summary {
    /// By the order in which they ended.
    pub(crate) outcomes: Vec<Outcome>,
    /// Seeds whose chamber failed, and why.
    pub(crate) failures: Vec<(u64, String)>,
}

impl Summary {
    /// 0: all is well; 1: a promise was broken; 2: the chamber failed, and no promise was seen broken.
    pub(crate) fn exit_code(&self) -> u8 {
        if self.outcomes.iter().any(|outcome| !outcome.violations.is_empty()) {
            return 1;
        }
        if self.failures.is_empty() && !self.outcomes.is_empty() { 0 } else { 2 }
    }

    /// 1: this promise was broken; 0: it was kept, whatever became of the others; 2: nothing could be looked at.
    pub(crate) fn exit_code_until(&self, promise: Promise) -> u8 {
        if self.outcomes.is_empty() {
            return 2;
        }
        u8::from(self.outcomes.iter().any(|outcome| outcome.breaks(promise)))
    }

    /// For people.
    pub(crate) fn text(&self) -> String {
        let sum = |of: fn(&Outcome) -> usize| self.outcomes.iter().map(of).sum::<usize>();
        let mut runs: BTreeMap<RunState, usize> = BTreeMap::new();
        let mut broken: BTreeMap<Promise, usize> = BTreeMap::new();
        for outcome in &self.outcomes {
            outcome.runs.iter().for_each(|(state, count)| *runs.entry(*state).or_default() += count);
            outcome.violations.iter().for_each(|one| *broken.entry(one.promise).or_default() += 1);
        }
        let mut text = format!(
            "{} seeds, {} harms, {} commands, {} starts\n",
            self.outcomes.len(),
            sum(|outcome| outcome.harms),
            sum(|outcome| outcome.commands),
            sum(|outcome| outcome.started)
        );
        for (state, count) in runs {
            let _ = writeln!(text, "  {count:6} {state}");
        }
        for (promise, count) in &broken {
            let _ = writeln!(text, "BROKEN {count} times: {promise}");
        }
        for outcome in &self.outcomes {
            for end in &outcome.ends {
                let _ = writeln!(text, "with seed {} a part ended by itself: {end}", outcome.seed);
            }
        }
        for (seed, why) in &self.failures {
            let _ = writeln!(text, "the chamber failed with seed {seed}: {why}");
        }
        if broken.is_empty() && self.exit_code() == 0 {
            text.push_str("every promise was kept\n");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn outcome(violations: usize) -> Outcome {
        let violation = Violation {
            promise: Promise::Settles,
            machine: None,
            command: None,
            what: "it is pending".to_owned(),
            evidence: vec![],
        };
        Outcome { seed: 7, violations: vec![violation; violations], ..Outcome::default() }
    }

    #[rstest]
    #[case(&[0, 0], false, 0)]
    #[case(&[0, 2], false, 1)]
    #[case(&[0, 2], true, 1)]
    #[case(&[0], true, 2)]
    #[case(&[], false, 2)]
    fn what_was_broken_is_told_from_what_failed(
        #[case] broken: &[usize],
        #[case] failed: bool,
        #[case] code: u8,
    ) {
        let failures = if failed { vec![(1, "no room".to_owned())] } else { vec![] };
        let summary = Summary { outcomes: broken.iter().copied().map(outcome).collect(), failures };
        assert_eq!(summary.exit_code(), code);
        assert_eq!(summary.text().contains("BROKEN"), code == 1);
        assert_eq!(summary.text().contains("every promise was kept"), code == 0);
    }

    #[rstest]
    #[case(&[0, 0], 0)]
    #[case(&[0, 2], 1)]
    #[case(&[], 2)]
    fn only_the_promise_that_is_looked_for_counts(#[case] broken: &[usize], #[case] code: u8) {
        let outcomes: Vec<Outcome> = broken.iter().copied().map(outcome).collect();
        let summary = Summary { outcomes, failures: vec![(1, "no room".to_owned())] };
        assert_eq!(summary.exit_code_until(Promise::Settles), code);
        assert_eq!(summary.exit_code_until(Promise::Verifies), if code == 2 { 2 } else { 0 });
    }
}
