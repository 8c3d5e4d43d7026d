//! How far a command has spread, as it is shown, and wishes about it.

use serde::{Deserialize, Serialize};

use super::{Counts, op};
use crate::{
    id::CommandId,
    rollout::{Counted, Progress, Rollout, RolloutState, Steer},
    run::RunState,
};

/// How far a command has spread.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutView {
    /// The plan.
    pub plan: Rollout,
    /// Whether it goes on.
    pub state: RolloutState,
    /// Why it does not, where nobody asked for that; `null` when it goes on, or somebody did.
    pub why: Option<String>,
    /// The wave that is under way, from 1.
    pub wave: u32,
    /// Of how many.
    pub waves: u32,
    /// Machines that were let go.
    pub released: u32,
    /// Runs that failed, timed out, were lost or rejected. A command that expires or is cancelled before it begins fails nowhere.
    pub failures: u32,
    /// Whose wish, or which bridge's work, it is as it is; empty before anybody was let go.
    pub by: String,
    /// Since when it is as it is, Unix ms; 0 before anybody was let go.
    pub at: u64,
}

impl RolloutView {
    /// Of a plan for so many machines, of which runs are in these states. `progress`: `None` before anybody was let go.
    pub fn new(plan: Rollout, targets: u32, progress: Option<&Progress>, counts: &Counts) -> Self {
        let waves = plan.waves_of(targets);
        Self {
            state: progress.map_or(RolloutState::Going, |known| known.state),
            why: progress.and_then(|known| known.why.clone()),
            wave: progress.map_or(1, |known| known.wave.min(waves)),
            waves,
            released: progress.map_or(0, |known| known.released.count()),
            failures: counted(counts).failed,
            by: progress.map(|known| known.by.clone()).unwrap_or_default(),
            at: progress.map_or(0, |known| known.at),
            plan,
        }
    }
}

/// What counts for a pause, of runs in these states.
pub fn counted(counts: &Counts) -> Counted {
    let of = |states: &[RunState]| {
        states.iter().filter_map(|state| counts.get(state)).fold(0_u32, |sum, n| sum.saturating_add(*n))
    };
    let failed = of(&[RunState::Failed, RunState::Timeout, RunState::Lost, RunState::Rejected]);
    Counted { failed, ended: failed.saturating_add(of(&[RunState::Completed])) }
}

/// Pause, resume or abort the rollout of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SteerRollout {
    /// The command.
    pub id: CommandId,
}

/// The wish is stored, or it was so already.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Steered {
    /// How it stands.
    pub rollout: RolloutView,
}

impl Steer {
    /// The operation that wishes it.
    pub fn op(self) -> &'static str {
        match self {
            Self::Pause => op::COMMANDS_PAUSE,
            Self::Resume => op::COMMANDS_RESUME,
            Self::Abort => op::COMMANDS_ABORT,
        }
    }
}
