//! The fleet at an earlier moment, and the figures of a machine over time.

use serde::{Deserialize, Serialize};

use super::{Listed, Liveness};
use crate::id::{MachineId, MachineToken};

/// Most points of one series.
pub const MOST_POINTS: u32 = 500;

/// Arguments of `history.fleet`: a moment and a page.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FleetAt {
    /// The moment, Unix ms by the broker's clock.
    pub at: u64,
    /// Most items, 1 to 1,000; 100 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// From when to when something is kept, Unix ms by the broker's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The oldest frame.
    pub earliest: u64,
    /// The newest one.
    pub latest: u64,
}

/// A page of the fleet as it was, sorted by token. Machines that were not known then are not in it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FleetThen {
    /// The machines, and where they go on.
    #[serde(flatten)]
    pub listed: Listed<MomentView>,
    /// When they really were so, Unix ms: the newest frame at or before the moment that was asked for. `null`: there is none.
    pub at: Option<u64>,
    /// What the history holds; `null` while it is empty.
    pub kept: Option<Kept>,
}

/// A machine as it was.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MomentView {
    /// What people call it.
    pub id: MachineId,
    /// What subjects call it.
    pub token: MachineToken,
    /// When it was so, Unix ms.
    pub at: u64,
    /// Whether it had been heard lately.
    pub state: Liveness,
    /// When it had last been heard, Unix ms, to the second; `null` = never.
    pub last_seen_at: Option<u64>,
    /// How it was.
    #[serde(flatten)]
    pub figures: FiguresView,
    /// Version of its relay; `null` = not known.
    pub relay: Option<String>,
}

/// How a machine was, at one moment. `null` = not known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct FiguresView {
    /// CPU use, 0 to 100.
    pub cpu_percent: Option<u8>,
    /// Memory in use, 0 to 100.
    pub memory_percent: Option<u8>,
    /// Use of the fullest disk, 0 to 100.
    pub disk_percent: Option<u8>,
    /// Load average over 1 minute, in tenths.
    pub load_tenths: Option<u32>,
    /// Runs that its relay had.
    pub running: u32,
    /// Runs that waited.
    pub pending: u32,
}

/// The figures of one machine, please.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MachineOver {
    /// The machine, by id or token.
    pub machine: String,
    /// From when on, Unix ms by the broker's clock.
    pub from: u64,
    /// Up to when; above `from`.
    pub to: u64,
    /// Most points, 1 to [`MOST_POINTS`]; 120 when absent. The time is cut into so many parts of one length, and of each the
    /// first frame is read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub points: Option<u32>,
}

/// The figures of one machine over time, the oldest first. Where nothing was written there is no point.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MachineSeries {
    /// What people call it.
    pub id: MachineId,
    /// What subjects call it.
    pub token: MachineToken,
    /// Time between two points where nothing is missing, ms: a part of the time that was asked for, at least a minute.
    pub step_ms: u64,
    /// The points.
    pub points: Vec<PointView>,
    /// What the history holds; `null` while it is empty.
    pub kept: Option<Kept>,
}

/// A machine at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PointView {
    /// When, Unix ms.
    pub at: u64,
    /// Whether it had been heard lately.
    pub state: Liveness,
    /// How it was.
    #[serde(flatten)]
    pub figures: FiguresView,
}
