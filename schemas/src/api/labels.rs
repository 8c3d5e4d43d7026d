//! What operators say machines are for.

use serde::{Deserialize, Serialize};

use crate::{
    error::Problem,
    id::MachineId,
    label::{LabelKey, LabelMap},
};

/// Most machines of one request.
pub const LABELLED: usize = 1_000;

/// Gives labels to machines, and takes them away; others stay. What an assignment or a relay has given stays, too, and counts
/// where the operator says nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetLabels {
    /// Selector, as the bridge resolves it; absent where machines are named. Who trusts no bridge names them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on: Option<String>,
    /// The machines, by id or token.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub machines: Vec<String>,
    /// What they are given, at most [`LABELS`](crate::label::LABELS).
    #[serde(default, skip_serializing_if = "LabelMap::is_empty")]
    pub set: LabelMap,
    /// What is taken away, none of it in `set`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<LabelKey>,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabelsSet {
    /// One for each machine, in the order of the request; of a selector sorted by token.
    pub machines: Vec<Labelled>,
    /// Give it back to read what you wrote.
    #[serde(default)]
    pub cursor: String,
}

/// What became of one machine's labels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Labelled {
    /// The machine; of one that is not known, as it was named.
    pub machine: String,
    /// What came of it.
    pub outcome: LabelOutcome,
    /// Why not, where it was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LabelOutcome {
    /// It has them now.
    Changed,
    /// They were so already.
    Unchanged,
    /// It stays as it was, as far as is known.
    Refused,
}

impl LabelOutcome {
    /// The spelling on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::Unchanged => "unchanged",
            Self::Refused => "refused",
        }
    }
}

impl Labelled {
    /// It was not done, and why.
    pub fn refused(machine: String, problem: Problem) -> Self {
        Self { machine, outcome: LabelOutcome::Refused, problem: Some(problem) }
    }

    /// It was done: whether that changed anything.
    pub fn done(machine: &MachineId, is_changed: bool) -> Self {
        let outcome = if is_changed { LabelOutcome::Changed } else { LabelOutcome::Unchanged };
        Self { machine: machine.to_string(), outcome, problem: None }
    }
}
