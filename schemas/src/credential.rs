//! Credentials: what is known of those that relays hold, and those that are shared, whose values nobody here can read.

use serde::{Deserialize, Serialize};

use crate::{
    id::Workspace,
    limit,
    record::{Edition, is_first},
    signed::Message,
};

/// What a credential is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CredentialType {
    /// A private key.
    SshKey,
    /// A password.
    Password,
    /// A token of some service.
    ApiKey,
}

impl CredentialType {
    /// All types.
    pub const ALL: [Self; 3] = [Self::SshKey, Self::Password, Self::ApiKey];

    /// The spelling on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SshKey => "ssh_key",
            Self::Password => "password",
            Self::ApiKey => "api_key",
        }
    }
}

/// Where a credential's value lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StorageMode {
    /// It never leaves the relay.
    RelayOnly,
    /// It came from the center.
    Shared,
}

impl StorageMode {
    /// The spelling on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RelayOnly => "relay_only",
            Self::Shared => "shared",
        }
    }
}

/// A credential that a relay holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CredentialMeta {
    /// What it is called.
    pub credential_name: String,
    /// What it is good for.
    pub credential_type: CredentialType,
    /// The host it opens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_host: Option<String>,
    /// Where its value lives.
    pub storage_mode: StorageMode,
    /// When it was last changed, Unix ms by the relay's clock.
    pub last_updated_at: u64,
}

/// A credential that is given to relays. Whoever made it sealed its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedCredentialRecord {
    /// Workspace.
    pub ws: Workspace,
    /// Its id, a UUIDv7.
    pub id: String,
    /// What it is called; names are not unique.
    pub name: String,
    /// What it is good for.
    pub credential_type: CredentialType,
    /// The host it opens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_host: Option<String>,
    /// Ciphertext, opaque here.
    pub encrypted_value: String,
    /// Assignments whose relays get it, sorted.
    pub assigned: Vec<String>,
    /// Who made it.
    pub created_by: String,
    /// Since when, Unix ms.
    pub created_at: u64,
    /// When it was last changed, Unix ms.
    pub updated_at: u64,
    /// When it was removed, Unix ms; its value is gone from this edition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removed_at: Option<u64>,
    /// Grows with each edition, so that an older one that is published again changes nothing.
    #[serde(default, skip_serializing_if = "is_first")]
    pub revision: u64,
}

impl Message for SharedCredentialRecord {
    const TYPE: &'static str = "shared_credential";
    const MAX_BYTES: usize = limit::RECORD_BYTES;
}

impl Edition for SharedCredentialRecord {
    fn revision(&mut self) -> &mut u64 {
        &mut self.revision
    }
}
