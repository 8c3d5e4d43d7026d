//! What relays keep, and which of them reach a host.

use serde::{Deserialize, Serialize};

use super::Liveness;
use crate::{
    credential::CredentialMeta,
    id::{MachineId, MachineToken},
    inventory::Inventory,
    signed::{PublicKey, Signed},
};

/// Which machines' lists.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListInventory {
    /// Selector.
    pub on: String,
    /// Those only that have a credential for this host: `host`, `host:port` or `[address]:port`; without a port that of SSH.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Most items, 1 to 1,000; 100 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// A machine, and what its relay says that it keeps. Whoever seals something for it checks the message with a key of the
/// machine that he knows himself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InventoryView {
    /// What people call it.
    pub machine: MachineId,
    /// What subjects call it.
    pub token: MachineToken,
    /// Whether it was heard lately.
    pub state: Liveness,
    /// The key that its relay signs with, as the bridge knows it; absent: it has a relay of the old contract, without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signing_key: Option<PublicKey>,
    /// When the broker stored what follows, Unix ms; absent: with this key its relay has said nothing yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen_at: Option<u64>,
    /// The message as its relay signed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inventory: Option<Signed<Inventory>>,
}

/// Which relays have a credential for a host?
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reach {
    /// `host`, `host:port` or `[address]:port`; without a port that of SSH.
    pub target: String,
    /// Selector; absent: all machines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on: Option<String>,
    /// Most items, 1 to 1,000; 100 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// A machine that has credentials for a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReachView {
    /// What people call it.
    pub machine: MachineId,
    /// What subjects call it.
    pub token: MachineToken,
    /// Whether it was heard lately.
    pub state: Liveness,
    /// Those that mean the host, the closest first. Of a relay of the old contract those that name it letter by letter.
    pub credentials: Vec<CredentialMeta>,
}
