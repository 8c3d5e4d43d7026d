//! Configuration that is pushed to relays of the old contract.

use serde::{Deserialize, Serialize};

use crate::{
    id::Workspace,
    limit,
    record::{Edition, is_first},
    signed::Message,
};

/// What a push changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PushType {
    /// A shared credential.
    Credential,
    /// Hosts that may be dialled by SSH.
    SshTargets,
    /// Commands that may run.
    AllowedCommands,
    /// How often metrics are reported.
    MetricsInterval,
}

impl PushType {
    /// All types.
    pub const ALL: [Self; 4] =
        [Self::Credential, Self::SshTargets, Self::AllowedCommands, Self::MetricsInterval];

    /// The spelling on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Credential => "credential",
            Self::SshTargets => "ssh_targets",
            Self::AllowedCommands => "allowed_commands",
            Self::MetricsInterval => "metrics_interval",
        }
    }
}

/// How far a push came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PushState {
    /// It waits for its relay.
    Pending,
    /// Its relay was told.
    Sent,
    /// Its relay says that it is applied.
    Acked,
    /// Its relay says that it is not.
    Failed,
}

impl PushState {
    /// All states, in the order of a push's life.
    pub const ALL: [Self; 4] = [Self::Pending, Self::Sent, Self::Acked, Self::Failed];

    /// The spelling on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Sent => "sent",
            Self::Acked => "acked",
            Self::Failed => "failed",
        }
    }

    /// Whether its relay has not answered yet.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Pending | Self::Sent)
    }
}

/// One push to the relay of one assignment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigPushRecord {
    /// Workspace.
    pub ws: Workspace,
    /// Its id, a UUIDv7.
    pub id: String,
    /// The assignment.
    pub assignment: String,
    /// What it changes.
    pub push_type: PushType,
    /// A JSON document, as text.
    pub payload: String,
    /// How far it came.
    pub state: PushState,
    /// Why it failed, in its relay's words; at most 512 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Who queued it.
    pub created_by: String,
    /// Since when, Unix ms.
    pub created_at: u64,
    /// When its relay was first told, Unix ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent_at: Option<u64>,
    /// When its relay answered, Unix ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acked_at: Option<u64>,
    /// When it was removed together with its assignment, Unix ms; its payload is gone from this edition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removed_at: Option<u64>,
    /// Grows with each edition, so that an older one that is published again changes nothing.
    #[serde(default, skip_serializing_if = "is_first")]
    pub revision: u64,
}

impl Message for ConfigPushRecord {
    const TYPE: &'static str = "config_push";
    const MAX_BYTES: usize = limit::RECORD_BYTES;
}

impl Edition for ConfigPushRecord {
    fn revision(&mut self) -> &mut u64 {
        &mut self.revision
    }
}
