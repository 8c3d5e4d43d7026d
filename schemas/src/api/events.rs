//! Events, as they are looked at.

use serde::{Deserialize, Serialize};

use crate::event::Event;

/// Which events, newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListEvents {
    /// Only about this machine, by id or token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<String>,
    /// Only of this type, such as `machine.offline`.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Only those that the broker stored at or after this moment, Unix ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
    /// Only those behind this sequence: what is new since a list was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub behind: Option<u64>,
    /// Most items, 1 to 1,000; 100 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// An event that a bridge of this fleet has signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventView {
    /// Its sequence: grows from event to event.
    pub sequence: u64,
    /// When the broker stored it, Unix ms.
    pub stored_at: u64,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}
