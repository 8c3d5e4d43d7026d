//! The audit chain, as it is looked at.

use serde::{Deserialize, Serialize};

use crate::{audit::AuditEntry, signed::Signed};

/// A message of the audit stream. Its envelope lets everybody check it anew; `entry` is what a bridge made of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditView {
    /// Its sequence in the stream.
    pub sequence: u64,
    /// When the broker stored it, Unix ms.
    pub stored_at: u64,
    /// What it says; absent where it is no entry of a bridge of this fleet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry: Option<AuditEntry>,
    /// The message itself; absent where it is no signed message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub envelope: Option<Signed<AuditEntry>>,
}
