//! How far a command has spread.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    bytes::Base64Url,
    id::{CommandId, Workspace},
    limit,
    signed::Message,
};

/// Longest reason of a pause, bytes.
pub const WHY_BYTES: usize = 256;

/// Whether a command spreads further.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RolloutState {
    /// It does.
    #[default]
    Going,
    /// Not until somebody says so.
    Paused,
    /// Never again: what has not begun is cancelled.
    Aborted,
}

impl RolloutState {
    /// The spelling on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Going => "going",
            Self::Paused => "paused",
            Self::Aborted => "aborted",
        }
    }
}

impl fmt::Display for RolloutState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What somebody wants of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Steer {
    /// Let nobody else go.
    Pause,
    /// Go on.
    Resume,
    /// End it: what has not begun is cancelled, what runs goes on.
    Abort,
}

impl Steer {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Pause, Self::Resume, Self::Abort];

    /// The verb.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Abort => "abort",
        }
    }
}

/// Runs that have been taken into account.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// Runs that failed, timed out, were lost or rejected.
    pub failed: u32,
    /// Those, and runs that completed.
    pub ended: u32,
}

impl Counted {
    /// No more than these. Totals fall where a late exit takes the place of `lost`; what was forgiven beyond them would hide as
    /// many later failures.
    #[must_use]
    pub fn at_most(self, counted: Self) -> Self {
        Self { failed: self.failed.min(counted.failed), ended: self.ended.min(counted.ended) }
    }
}

/// Which machines of a command have been let go: a bit for each of its machines in their order, the lowest bit of the first
/// byte first. Bytes at the end that are zero are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LetGo(Base64Url);

impl LetGo {
    /// Whether the machine at this place has been.
    pub fn has(&self, place: u32) -> bool {
        let byte = self.0.0.get(place as usize / 8);
        byte.is_some_and(|byte| byte >> (place % 8) & 1 == 1)
    }

    /// Lets the machine at this place go.
    pub fn insert(&mut self, place: u32) {
        let at = place as usize / 8;
        if self.0.0.len() <= at {
            self.0.0.resize(at + 1, 0);
        }
        if let Some(byte) = self.0.0.get_mut(at) {
            *byte |= 1 << (place % 8);
        }
    }

    /// How many.
    pub fn count(&self) -> u32 {
        self.0.0.iter().map(|byte| byte.count_ones()).sum()
    }

    /// Whether all of them are among `targets` machines.
    pub fn fits(&self, targets: u32) -> bool {
        let bits = self.0.0.len().saturating_mul(8);
        bits < targets as usize + 8
            && (targets..u32::try_from(bits).unwrap_or(0)).all(|place| !self.has(place))
    }

    /// These and those of another one.
    #[must_use]
    pub fn with(mut self, other: &Self) -> Self {
        if self.0.0.len() < other.0.0.len() {
            self.0.0.resize(other.0.0.len(), 0);
        }
        self.0.0.iter_mut().zip(&other.0.0).for_each(|(byte, other)| *byte |= other);
        self
    }
}

/// How far a command has spread; `cmd.<ws>.<cid>.rollout`. The edition with the highest revision counts, and is stored only
/// behind the one that it follows, so that two bridges never let go what together is too much.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Workspace.
    pub ws: Workspace,
    /// The command.
    pub cid: CommandId,
    /// Grows by one with each edition, from 1.
    pub revision: u64,
    /// The wave that is under way, from 1.
    pub wave: u32,
    /// Who was let go. Nobody is taken back.
    pub released: LetGo,
    /// Whether it goes on.
    pub state: RolloutState,
    /// Why it does not, where nobody asked for that; up to 256 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// What somebody asked for; absent when the bridge went on by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<Steer>,
    /// What had failed when somebody said that it shall go on: it does not stop it again. No more than what was counted when the
    /// edition was written.
    #[serde(default)]
    pub forgiven: Counted,
    /// Whose wish this edition is: `operator:<id>`, `token:<id>`, or `bridge:<id>`.
    pub by: String,
    /// When it was written, Unix ms by that bridge's clock.
    pub at: u64,
}

impl Message for Progress {
    const TYPE: &'static str = "rollout";
    const MAX_BYTES: usize = 4 * 1024;
}

/// The largest one fits: a bit for each machine as base64, and below 1 KiB of the rest.
const _: () = assert!(limit::TARGETS / 8 * 4 / 3 + WHY_BYTES + 1024 < <Progress as Message>::MAX_BYTES);

impl Progress {
    /// Before anybody was let go.
    pub fn new(ws: Workspace, cid: CommandId) -> Self {
        Self {
            ws,
            cid,
            revision: 0,
            wave: 1,
            released: LetGo::default(),
            state: RolloutState::Going,
            why: None,
            asked: None,
            forgiven: Counted::default(),
            by: String::new(),
            at: 0,
        }
    }

    /// Whether it can be one of a command on so many machines.
    pub fn is_of(&self, targets: u32) -> bool {
        self.revision > 0
            && self.wave > 0
            && self.released.fits(targets)
            && self.by.len() <= limit::PRINCIPAL_BYTES
            && self.why.as_ref().is_none_or(|why| why.len() <= WHY_BYTES)
    }

    /// What counts when this one is read behind `before`: nobody is taken back, and what was aborted stays so, whatever an
    /// edition says. `None`: it says nothing new.
    #[must_use]
    pub fn behind(mut self, before: &Self) -> Option<Self> {
        if self.revision <= before.revision {
            return None;
        }
        self.released = self.released.with(&before.released);
        self.wave = self.wave.max(before.wave);
        if before.state == RolloutState::Aborted {
            self.state = RolloutState::Aborted;
        }
        Some(self)
    }

    /// What a wish makes of it, in the name of `by` at `at`, Unix ms. `counted`: what has ended by now, of which nothing
    /// stops it again. `None`: it is so already.
    ///
    /// # Errors
    /// Why it cannot be, for people.
    pub fn steered(
        &self,
        steer: Steer,
        counted: Counted,
        by: &str,
        at: u64,
    ) -> Result<Option<Self>, &'static str> {
        let state = match (steer, self.state) {
            (Steer::Pause, RolloutState::Going) => RolloutState::Paused,
            (Steer::Resume, RolloutState::Paused) => RolloutState::Going,
            (Steer::Abort, RolloutState::Going | RolloutState::Paused) => RolloutState::Aborted,
            (Steer::Pause, RolloutState::Paused)
            | (Steer::Resume, RolloutState::Going)
            | (Steer::Abort, RolloutState::Aborted) => return Ok(None),
            (Steer::Pause | Steer::Resume, RolloutState::Aborted) => {
                return Err("it was aborted; run it again on those that are left");
            }
        };
        let forgiven = if steer == Steer::Resume { counted } else { self.forgiven.at_most(counted) };
        Ok(Some(Self {
            revision: self.revision.saturating_add(1),
            state,
            why: None,
            asked: Some(steer),
            forgiven,
            by: by.to_owned(),
            at,
            ..self.clone()
        }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    use super::*;

    fn let_go(places: impl IntoIterator<Item = u32>) -> LetGo {
        let mut all = LetGo::default();
        for place in places {
            all.insert(place);
        }
        all
    }

    fn progress() -> Progress {
        let cid = "0193a2b4-0000-7000-8000-000000000000".parse().unwrap();
        Progress { revision: 1, ..Progress::new(Workspace::main(), cid) }
    }

    proptest! {
        #[test]
        fn a_place_is_in_it_once_it_was_put_there(
            one in proptest::collection::btree_set(0..10_000u32, 0..50),
            other in proptest::collection::btree_set(0..10_000u32, 0..50),
        ) {
            let both: BTreeSet<u32> = one.union(&other).copied().collect();
            let all = let_go(one.clone()).with(&let_go(other));
            prop_assert_eq!(all.count() as usize, both.len());
            prop_assert!((0..10_000).all(|place| all.has(place) == both.contains(&place)));
            let most = both.last().map_or(0, |last| last + 1);
            prop_assert!(all.fits(most) && all.fits(10_000));
            prop_assert!(most == 0 || !all.fits(most - 1));
        }
    }

    #[test]
    fn nobody_is_taken_back_and_an_abort_is_for_good() {
        let before = Progress {
            revision: 4,
            wave: 3,
            released: let_go([0, 1]),
            state: RolloutState::Aborted,
            ..progress()
        };
        let after = Progress { revision: 5, released: let_go([9]), ..progress() }.behind(&before).unwrap();
        assert_eq!((after.wave, &after.released), (3, &let_go([0, 1, 9])));
        assert_eq!(after.state, RolloutState::Aborted);
        assert_eq!(Progress { revision: 4, ..progress() }.behind(&before), None);
    }

    #[test]
    fn a_wish_makes_one_edition_of_what_stands() {
        let counted = Counted { failed: 2, ended: 5 };
        let going = progress();
        let steer = |it: &Progress, steer| it.steered(steer, counted, "operator:a", 7);
        let paused = steer(&going, Steer::Pause).unwrap().unwrap();
        assert_eq!(
            (paused.revision, paused.state, paused.forgiven),
            (2, RolloutState::Paused, going.forgiven)
        );
        assert_eq!((paused.by.as_str(), paused.at, paused.asked), ("operator:a", 7, Some(Steer::Pause)));
        assert_eq!(steer(&paused, Steer::Pause), Ok(None));
        let resumed = steer(&paused, Steer::Resume).unwrap().unwrap();
        assert_eq!((resumed.state, resumed.forgiven), (RolloutState::Going, counted));
        // One of them was lost and has completed after all: it is forgiven no more.
        let fewer = Counted { failed: 1, ended: 5 };
        let again = resumed.steered(Steer::Pause, fewer, "operator:a", 8).unwrap().unwrap();
        assert_eq!(again.forgiven, fewer);
        let aborted = steer(&resumed, Steer::Abort).unwrap().unwrap();
        assert_eq!(steer(&aborted, Steer::Abort), Ok(None));
        assert!(steer(&aborted, Steer::Resume).is_err() && steer(&aborted, Steer::Pause).is_err());
    }
}
