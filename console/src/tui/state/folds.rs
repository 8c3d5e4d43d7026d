//! Runs of one command, folded: those that ended in the same way with the same output are one group.
//!
//! What has not ended is folded by its state alone: output that grows would move a run from group to group. A run moves
//! once it ends, so what was looked at stays where it is. Outputs are compared by SHA-256: a machine that wants to hide
//! its output in another group's would have to find a collision.

use std::collections::{BTreeSet, HashMap};

use signalbox_schemas::{id::Sha256, run::RunState, selector::fold_names};

/// What the runs of a group have in common.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Fold {
    /// Their state.
    pub state: RunState,
    /// How they ended, in words; empty before they did.
    pub outcome: String,
    /// Their output, both streams; `None` before they ended.
    pub output: Option<Sha256>,
}

/// The runs of a group.
#[derive(Debug, Clone, Default)]
struct Members {
    /// Places in the command's runs.
    places: BTreeSet<usize>,
    /// What their machines are called, in few words.
    names: String,
    /// Runs have come or gone since `names` was made.
    is_stirred: bool,
}

/// All groups of a command.
#[derive(Debug, Clone, Default)]
pub struct Folds {
    groups: HashMap<Fold, Members>,
    /// The group of each run, by its place.
    of: Vec<Option<Fold>>,
}

/// A group as it is shown.
#[derive(Debug, Clone, Copy)]
pub struct Group<'a> {
    /// What its runs have in common.
    pub fold: &'a Fold,
    /// How many there are.
    pub len: usize,
    /// What their machines are called, in few words.
    pub names: &'a str,
}

impl Folds {
    /// A run is as it is now.
    pub fn put(&mut self, at: usize, fold: Fold) {
        if self.of.len() <= at {
            self.of.resize(at + 1, None);
        }
        let Some(slot) = self.of.get_mut(at) else { return };
        if slot.as_ref() == Some(&fold) {
            return;
        }
        if let Some(before) = slot.replace(fold.clone())
            && let Some(members) = self.groups.get_mut(&before)
        {
            members.places.remove(&at);
            members.is_stirred = true;
            if members.places.is_empty() {
                self.groups.remove(&before);
            }
        }
        let members = self.groups.entry(fold).or_default();
        members.places.insert(at);
        members.is_stirred = true;
    }

    /// Names groups that changed, by what the machine of the run at a place is called.
    pub fn settle<'a>(&mut self, name: impl Fn(usize) -> &'a str) {
        for members in self.groups.values_mut().filter(|members| members.is_stirred) {
            members.is_stirred = false;
            let names: Vec<&str> = members.places.iter().map(|at| name(*at)).collect();
            members.names = fold_names(names);
        }
    }

    /// All groups: what went wrong, then what ended otherwise, the largest first (or the smallest, which stand out), then
    /// what runs and what waits.
    pub fn groups(&self, outliers_first: bool) -> Vec<Group<'_>> {
        let group = |(fold, members): (&'_ Fold, &'_ Members)| {
            let first = members.places.first().copied();
            (fold.clone(), members.places.len(), first)
        };
        let mut all: Vec<(Fold, usize, Option<usize>)> = self.groups.iter().map(group).collect();
        all.sort_by(|(a, a_len, a_first), (b, b_len, b_first)| {
            let by_size = if outliers_first { a_len.cmp(b_len) } else { b_len.cmp(a_len) };
            rank(a.state).cmp(&rank(b.state)).then(by_size).then(a_first.cmp(b_first))
        });
        all.into_iter()
            .filter_map(|(fold, len, _)| {
                let (fold, members) = self.groups.get_key_value(&fold)?;
                Some(Group { fold, len, names: &members.names })
            })
            .collect()
    }

    /// One group.
    pub fn get(&self, fold: &Fold) -> Option<Group<'_>> {
        let (fold, members) = self.groups.get_key_value(fold)?;
        Some(Group { fold, len: members.places.len(), names: &members.names })
    }

    /// Places of the runs of a group.
    pub fn places(&self, fold: &Fold) -> impl Iterator<Item = usize> {
        self.groups.get(fold).into_iter().flat_map(|members| members.places.iter().copied())
    }

    /// How many groups there are.
    pub fn len(&self) -> usize {
        self.groups.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }
}

/// What went wrong comes first, then what ended otherwise, then what runs, then what waits.
fn rank(state: RunState) -> u8 {
    match state {
        RunState::Failed | RunState::Timeout | RunState::Lost | RunState::Rejected => 0,
        RunState::Completed | RunState::Expired | RunState::Cancelled => 1,
        RunState::Claimed | RunState::Executing => 2,
        RunState::Held | RunState::Pending => 3,
    }
}

#[cfg(test)]
mod tests {
    use RunState::{Completed, Executing, Failed, Pending};
    use proptest::prelude::*;

    use super::*;

    fn fold(n: u8) -> Fold {
        match n {
            0 => Fold { state: RunState::Pending, outcome: String::new(), output: None },
            1 => Fold { state: RunState::Executing, outcome: String::new(), output: None },
            n => Fold {
                state: if n == 2 { RunState::Failed } else { RunState::Completed },
                outcome: format!("exit {}", u8::from(n == 2)),
                output: Some(Sha256::of(&[n])),
            },
        }
    }

    fn shown(folds: &Folds, outliers_first: bool) -> Vec<(RunState, usize)> {
        folds.groups(outliers_first).iter().map(|group| (group.fold.state, group.len)).collect()
    }

    #[test]
    fn what_ended_alike_is_one_group_and_what_stands_out_can_come_first() {
        let mut folds = Folds::default();
        for (at, n) in [3, 3, 3, 2, 4, 4, 1, 0, 0].into_iter().enumerate() {
            folds.put(at, fold(n));
        }
        let ended = [(Failed, 1), (Completed, 3), (Completed, 2), (Executing, 1), (Pending, 2)];
        assert_eq!(shown(&folds, false), ended);
        let outliers = [(Failed, 1), (Completed, 2), (Completed, 3), (Executing, 1), (Pending, 2)];
        assert_eq!(shown(&folds, true), outliers);
        folds.put(7, fold(3));
        assert_eq!(shown(&folds, false)[1], (Completed, 4));
        assert_eq!(folds.places(&fold(3)).collect::<Vec<_>>(), [0, 1, 2, 7]);
    }

    proptest! {
        #[test]
        fn every_run_is_in_the_group_that_it_was_last_put_into(puts in prop::collection::vec((0..20_usize, 0..6_u8), 0..200)) {
            let (mut folds, mut naive) = (Folds::default(), HashMap::new());
            for (at, n) in puts {
                folds.put(at, fold(n));
                naive.insert(at, n);
            }
            for n in 0..6 {
                let mut expected: Vec<usize> = naive.iter().filter(|(_, m)| **m == n).map(|(at, _)| *at).collect();
                expected.sort_unstable();
                prop_assert_eq!(folds.places(&fold(n)).collect::<Vec<_>>(), expected);
            }
            prop_assert_eq!(folds.groups(false).iter().map(|group| group.len).sum::<usize>(), naive.len());
            prop_assert!(folds.groups(true).iter().all(|group| group.len > 0));
        }
    }
}
