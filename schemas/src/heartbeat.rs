//! A sign of life, with metrics. Unsigned on purpose: nothing that changes a decision is taken from it.

use serde::{Deserialize, Deserializer, Serialize};

use crate::{
    id::{MachineToken, Workspace},
    number,
};

/// One heartbeat; `hb.<ws>.<mid>`, every 10 s ± 10 %.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Workspace.
    pub ws: Workspace,
    /// The machine.
    pub mid: MachineToken,
    /// When, Unix ms by the relay's clock.
    pub at: u64,
    /// Version of the relay.
    pub relay: String,
    /// Generation of the newest mailbox it has seen; 0 = none.
    pub generation: u64,
    /// Version of the authors document it has; 0 = none.
    pub authors: u64,
    /// Runs whose processes are alive.
    pub running: u32,
    /// Facts that wait for their acknowledgement.
    pub outbox: u32,
    /// Since when this relay process runs, Unix ms.
    pub started_at: u64,
    /// What was refused, dropped or counted since then, by reason.
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub counters: std::collections::BTreeMap<String, u64>,
    /// What the machine is.
    pub facts: Facts,
    /// How the machine is. Absent when it could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<Metrics>,
    /// A relay of the old contract was heard by a bridge, which says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub legacy: Option<LegacyBeat>,
}

/// What a bridge heard of a relay of the old contract.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LegacyBeat {
    /// The assignment whose API key it brought.
    pub assignment: String,
    /// How its machine is, as it says itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<crate::relay::LegacyMetrics>,
}

/// What a machine is. Foreign text: cleaned before it is shown.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Host name.
    #[serde(default)]
    pub hostname: String,
    /// Operating system and its version, such as `Debian 12.11`.
    #[serde(default)]
    pub os: String,
    /// Kernel version.
    #[serde(default)]
    pub kernel: String,
    /// Architecture, such as `x86_64`.
    #[serde(default)]
    pub arch: String,
}

/// How a machine is. Figures are brought into their ranges when they are read.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// CPU use of the whole machine over the last interval, 0 to 100.
    #[serde(deserialize_with = "number::percent")]
    pub cpu_percent: f32,
    /// Logical CPUs.
    pub cpus: u32,
    /// Memory in use, bytes.
    pub memory_used_bytes: u64,
    /// Memory there is, bytes.
    pub memory_total_bytes: u64,
    /// Swap in use, bytes.
    pub swap_used_bytes: u64,
    /// Swap there is, bytes.
    pub swap_total_bytes: u64,
    /// Load averages over 1, 5 and 15 minutes.
    #[serde(deserialize_with = "number::amounts")]
    pub load: [f64; 3],
    /// Since the machine booted, seconds.
    pub uptime_secs: u64,
    /// File systems on disks, the largest first, at most 16.
    #[serde(default)]
    pub disks: Vec<Disk>,
}

/// Reads metrics in a list of machines: those that cannot be read are not known, and take no other machine along.
pub(crate) fn metrics_if_readable<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Metrics>, D::Error> {
    let metrics = Option::<serde_json::Value>::deserialize(from)?;
    Ok(metrics.and_then(|metrics| serde_json::from_value(metrics).ok()))
}

/// One file system.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// Where it is mounted.
    pub mount: String,
    /// In use, bytes.
    pub used_bytes: u64,
    /// There is for users, bytes: used and free, without what is reserved for root, as `df` counts percent.
    pub total_bytes: u64,
}
