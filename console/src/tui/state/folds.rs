//! Runs of one command, folded: those that ended in the same way with the same output are one group.
//!
//! What has not ended is folded by its state alone: output that grows would move a run from group to group. A run moves
//! once it ends, so what was looked at stays where it is. Outputs are compared by SHA-256: a machine that wants to hide
//! its output in another group's would have to find a collision. Outputs that are not told are compared by what their
//! machines say of them, and never with one that was.

use std::collections::{BTreeSet, HashMap};

use signalbox_schemas::{id::Sha256, run::RunState, selector::fold_names};

/// Groups of more runs than this are large.
const LARGE: usize = 200;
/// A large group is named no more often than this, ms.
const NAME_EVERY_MS: u64 = 500;

/// What all bytes of a run's output come to, both streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Print {
    /// They were told, and hashed here.
    Told(Sha256),
    /// They are too many to be told: this is what the machine says of them.
    Claimed(Sha256),
}

/// What the runs of a group have in common.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Fold {
    /// Their state.
    pub state: RunState,
    /// How they ended, in words; empty before they did.
    pub outcome: String,
    /// Their output; `None` before they ended.
    pub output: Option<Print>,
}

/// The runs of a group.
#[derive(Debug, Clone, Default)]
struct Members {
    /// Places in the command's runs.
    places: BTreeSet<usize>,
    /// What their machines are called, in few words.
    names: String,
    /// When `names` was made, ms; `None` = never.
    named_ms: Option<u64>,
    /// Runs have come or gone since.
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

    /// Names groups that changed, by what the machine of the run at a place is called. Large ones are named no more often
    /// than every so often, as runs that come and go would have all of their names folded for each frame.
    pub fn settle<'a>(&mut self, now_ms: u64, name: impl Fn(usize) -> &'a str) {
        for members in self.groups.values_mut().filter(|members| members.is_stirred) {
            let is_lately = members.named_ms.is_some_and(|at| now_ms.saturating_sub(at) < NAME_EVERY_MS);
            if is_lately && members.places.len() > LARGE {
                continue;
            }
            members.is_stirred = false;
            members.named_ms = Some(now_ms);
            members.names = fold_names(members.places.iter().map(|at| name(*at)));
        }
    }

    /// All groups: what went wrong, then what ended otherwise, the largest first (or the smallest, which stand out), then
    /// what runs and what waits.
    pub fn groups(&self, outliers_first: bool) -> Vec<Group<'_>> {
        let mut all: Vec<(&Fold, &Members)> = self.groups.iter().collect();
        all.sort_by(|(a, a_members), (b, b_members)| {
            let by_size = a_members.places.len().cmp(&b_members.places.len());
            let by_size = if outliers_first { by_size } else { by_size.reverse() };
            let by_first = a_members.places.first().cmp(&b_members.places.first());
            rank(a.state).cmp(&rank(b.state)).then(by_size).then(by_first)
        });
        all.into_iter().map(|(fold, members)| group(fold, members)).collect()
    }

    /// One group.
    pub fn get(&self, fold: &Fold) -> Option<Group<'_>> {
        self.groups.get_key_value(fold).map(|(fold, members)| group(fold, members))
    }

    /// Whether the run at a place is of a group.
    pub fn has(&self, fold: &Fold, at: usize) -> bool {
        self.groups.get(fold).is_some_and(|members| members.places.contains(&at))
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

fn group<'a>(fold: &'a Fold, members: &'a Members) -> Group<'a> {
    Group { fold, len: members.places.len(), names: &members.names }
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
                output: Some(Print::Told(Sha256::of(&[n]))),
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

    #[test]
    fn a_large_group_is_named_now_and_then_and_in_the_end() {
        let names: Vec<String> = (0..1_000).map(|n| format!("web-{n}")).collect();
        let mut folds = Folds::default();
        let told = |folds: &Folds| folds.get(&fold(3)).unwrap().names.to_owned();
        for at in 0..1_000 {
            folds.put(at, fold(3));
            folds.settle(1_000, |at| names[at].as_str());
        }
        assert_eq!(told(&folds), "web-[0-199]", "the rest came too soon");
        folds.settle(1_500, |at| names[at].as_str());
        assert_eq!(told(&folds), "web-[0-999]");
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
