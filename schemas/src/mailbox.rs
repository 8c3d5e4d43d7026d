//! The mailbox: what should be true of one machine now.
//!
//! Delivery is level-triggered. A relay reconciles with the newest mailbox it has seen, so a missed one never
//! loses a command. It is composed by the bridge that holds the lease and signed with the bridge's key.

use serde::{Deserialize, Serialize};

use crate::{
    bytes::Base64Url,
    command::Grant,
    id::{CommandId, MachineToken, Sha256, Workspace},
    limit,
    signed::{Message, Signed},
};

/// Where a stream had been read to: its creation time tells a recreated stream from the one before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// When the stream was created, Unix ms.
    pub created: u64,
    /// Last sequence that was applied.
    pub sequence: u64,
}

/// What the composing bridge had read when it composed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Basis {
    /// Commands.
    pub cmd: Position,
    /// Entities.
    pub kv: Position,
    /// Facts.
    pub run: Position,
}

/// Which authors document the machine must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthorsRef {
    /// Its version.
    pub version: u64,
    /// SHA-256 of its envelope's bytes.
    pub sha256: Sha256,
}

/// Which configuration the machine should have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigRef {
    /// Its revision.
    pub revision: u64,
    /// SHA-256 of its exact bytes.
    pub sha256: Sha256,
}

/// A command on offer: the spec's exact bytes and this machine's grant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// Exact bytes of the [`CommandSpec`](crate::command::CommandSpec).
    pub spec: Base64Url,
    /// The author's word.
    pub grant: Signed<Grant>,
}

impl Offer {
    /// About how many bytes this offer takes in an encoded mailbox.
    ///
    /// The spec is encoded twice (in the offer, and with the whole payload in the envelope).
    pub fn encoded_bytes(&self) -> usize {
        (self.spec.0.len() * 4 / 3 + self.grant.payload().len() * 4 / 3 + 250) * 4 / 3
    }
}

/// What should be true of a machine now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mailbox {
    /// Workspace.
    pub ws: Workspace,
    /// The machine.
    pub mid: MachineToken,
    /// Revision at which the composing bridge acquired the lease.
    pub epoch: u64,
    /// Grows with every write: max(previous + 1, Unix ms). A relay ignores anything lower than it saw.
    pub generation: u64,
    /// What the composer had read.
    pub basis: Basis,
    /// When, Unix ms by the bridge's clock.
    pub composed_at: u64,
    /// The authors document the machine must have.
    pub authors: AuthorsRef,
    /// A renewed login JWT; worthless without the login key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwt: Option<String>,
    /// Desired configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<ConfigRef>,
    /// Commands on offer, in the order of CMD.
    pub offers: Vec<Offer>,
    /// Claimed commands that shall be ended.
    pub cancels: Vec<CommandId>,
    /// Members that a reader must understand.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub crit: Vec<String>,
}

impl Message for Mailbox {
    const TYPE: &'static str = "mailbox";
    const MAX_BYTES: usize = limit::MAILBOX_BYTES;
    const CRIT: &'static [&'static str] = &["offers", "cancels", "authors", "generation"];
}
