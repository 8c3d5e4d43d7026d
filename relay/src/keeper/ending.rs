//! Ending a run that does not end by itself: TERM, and KILL where that does not help.

use std::time::Duration;

use tokio::time::Instant;

/// A TERM has this long before it becomes a KILL.
pub(crate) const TERM_GRACE: Duration = Duration::from_secs(5);

/// What the keeper did to a run before it ended by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Forced {
    Timeout,
    Cancelled,
}

/// How far the ending of a run has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ending {
    stage: Stage,
    /// A run that is still there so long after its KILL is given up.
    kill_grace: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    NotBegun,
    Terminated(Instant),
    Killed(Instant),
}

/// What is to be done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Wait,
    Terminate,
    Kill,
    GiveUp,
}

impl Ending {
    pub(crate) fn new(kill_grace: Duration) -> Self {
        Self { stage: Stage::NotBegun, kill_grace }
    }

    pub(crate) fn has_begun(self) -> bool {
        self.stage != Stage::NotBegun
    }

    /// When the next step is due. Absent when nothing was begun.
    pub(crate) fn due(self) -> Option<Instant> {
        match self.stage {
            Stage::NotBegun => None,
            Stage::Terminated(at) => Some(at + TERM_GRACE),
            Stage::Killed(at) => Some(at + self.kill_grace),
        }
    }

    /// Whether all was done, and nothing came of it.
    pub(crate) fn is_given_up(self, now: Instant) -> bool {
        matches!(self.stage, Stage::Killed(at) if now >= at + self.kill_grace)
    }

    /// Takes the step that is due; the first one always is.
    pub(crate) fn advance(&mut self, now: Instant) -> Step {
        if self.due().is_some_and(|due| now < due) {
            return Step::Wait;
        }
        let (stage, step) = match self.stage {
            Stage::NotBegun => (Stage::Terminated(now), Step::Terminate),
            Stage::Terminated(_) => (Stage::Killed(now), Step::Kill),
            Stage::Killed(_) => (self.stage, Step::GiveUp),
        };
        self.stage = stage;
        step
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_step_follows_the_other_in_its_time() {
        let (mut ending, begin) = (Ending::new(Duration::from_secs(10)), Instant::now());
        assert_eq!((ending.has_begun(), ending.due()), (false, None));
        let at = |seconds| begin + Duration::from_secs(seconds);
        let steps =
            [(0, Step::Terminate), (4, Step::Wait), (5, Step::Kill), (14, Step::Wait), (15, Step::GiveUp)];
        for (second, step) in steps {
            assert_eq!(ending.advance(at(second)), step, "after {second} s");
        }
        assert!(ending.is_given_up(at(15)) && !ending.is_given_up(at(14)));
    }
}
