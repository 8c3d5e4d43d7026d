//! Credentials: what is known of those that relays hold, and those that are shared, whose values nobody here can read.

use serde::{Deserialize, Serialize};

use zeroize::Zeroizing;

use crate::{
    bytes::Base64Url,
    host::HostPattern,
    id::{CommandId, CredentialName, MachineToken, Workspace},
    limit,
    record::{Edition, is_first},
    sealed::{BODY_EXTRA_BYTES, SealingKey, WRAPPED_BYTES},
    secret::Secret,
    signed::{Message, Signed},
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
    /// The login name that goes with it. Relays of the old contract do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// When it was made, Unix ms by the relay's clock. Relays of the old contract do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<u64>,
}

/// What is known of a credential without its value; the same for the relay that keeps it and for whoever gives it one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CredentialLabel {
    /// What it is called: unique on one relay.
    pub name: CredentialName,
    /// What it is good for.
    pub credential_type: CredentialType,
    /// The hosts it opens. Absent: none, unless a command names the credential.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<HostPattern>,
    /// The login name that goes with it, 1 to 128 bytes; a command that names one goes before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// Where its value lives.
    pub storage_mode: StorageMode,
}

impl CredentialLabel {
    /// Checks what its types do not say.
    ///
    /// # Errors
    /// A rule that is broken.
    pub fn validate(&self) -> Result<(), &'static str> {
        if self.username.as_deref().is_none_or(is_username) {
            return Ok(());
        }
        Err("a login name has 1 to 128 bytes, without white space")
    }
}

/// Whether a text can be a login name: 1 to 128 bytes, without white space and control characters.
pub fn is_username(text: &str) -> bool {
    (1..=limit::PRINCIPAL_BYTES).contains(&text.len())
        && !text.chars().any(|c| c.is_control() || c.is_whitespace())
}

/// The secret itself. In JSON it is what is sealed, at most [`limit::CREDENTIAL_VALUE_BYTES`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum CredentialValue {
    /// A private key, OpenSSH or PEM.
    SshKey {
        /// The text of its file.
        key: Secret,
        /// What it is encrypted with, if it is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        passphrase: Option<Secret>,
        /// The certificate that goes with it (`…-cert.pub`), if one does.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        certificate: Option<String>,
    },
    /// A password.
    Password {
        /// The text.
        password: Secret,
    },
    /// A token of some service.
    ApiKey {
        /// The text.
        key: Secret,
    },
}

impl CredentialValue {
    /// What it is good for.
    pub fn credential_type(&self) -> CredentialType {
        match self {
            Self::SshKey { .. } => CredentialType::SshKey,
            Self::Password { .. } => CredentialType::Password,
            Self::ApiKey { .. } => CredentialType::ApiKey,
        }
    }

    /// Its JSON, to be sealed.
    pub fn to_json(&self) -> Zeroizing<Vec<u8>> {
        // Room for all of it, so that nothing is left behind where it grew.
        let mut json = Zeroizing::new(Vec::with_capacity(2 * limit::CREDENTIAL_VALUE_BYTES));
        // Texts always have a JSON form, and a vector takes it.
        drop(serde_json::to_writer(&mut *json, self));
        json
    }

    /// Reads what was sealed.
    ///
    /// # Errors
    /// [`NoValue`], which says nothing of what it read.
    pub fn from_json(json: &[u8]) -> Result<Self, NoValue> {
        if json.len() > limit::CREDENTIAL_VALUE_BYTES {
            return Err(NoValue);
        }
        serde_json::from_slice(json).map_err(|_| NoValue)
    }
}

/// The bytes are no credential's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("what was sealed is no credential's value")]
pub struct NoValue;

/// A credential that is given to relays. Whoever made it sealed its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedCredentialRecord {
    /// Workspace.
    pub ws: Workspace,
    /// Its id: a UUIDv7, or where relays with keys share it a UUIDv8 made from its name.
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
    /// What relays with keys are given instead. Then there is no `encrypted_value`, and it is assigned to no relay of the
    /// old contract.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<Box<SharedKept>>,
    /// When it was removed, Unix ms; its value is gone from this edition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removed_at: Option<u64>,
    /// Grows with each edition, so that an older one that is published again changes nothing.
    #[serde(default, skip_serializing_if = "is_first")]
    pub revision: u64,
}

/// A shared credential of relays with keys: who has it, and its value for whoever gives it to more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedKept {
    /// All but the value.
    pub label: CredentialLabel,
    /// The value, for the recovery key; absent where there was none when it was pushed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Signed<SharedSecret>>,
    /// The machines that it is assigned to, sorted.
    pub machines: Vec<MachineToken>,
}

/// A credential that is sealed for the organisation's recovery key, signed by who pushed it: anybody can seal something for a
/// key that is public, so what is given to more machines must be somebody's word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedSecret {
    /// Workspace.
    pub ws: Workspace,
    /// All but its value.
    pub label: CredentialLabel,
    /// What it is bound to: drawn for this.
    pub cid: CommandId,
    /// The value, sealed with a content key.
    pub body: Base64Url,
    /// The content key, wrapped for the recovery key.
    pub wrapped: Base64Url,
    /// That key.
    pub recovery_key: SealingKey,
    /// When it was sealed, Unix ms by its author's clock.
    pub sealed_at: u64,
}

impl Message for SharedSecret {
    const TYPE: &'static str = "shared_secret";
    // The body as base64, and once more in the envelope.
    const MAX_BYTES: usize = 64 * 1024;
}

impl SharedSecret {
    /// Checks what its types do not say.
    ///
    /// # Errors
    /// A rule that is broken.
    pub fn validate(&self) -> Result<(), &'static str> {
        self.label.validate()?;
        let most = limit::CREDENTIAL_VALUE_BYTES + BODY_EXTRA_BYTES;
        if !(BODY_EXTRA_BYTES + 1..=most).contains(&self.body.0.len()) {
            return Err("a sealed value has 1 byte to 24 KiB");
        }
        if self.wrapped.0.len() != WRAPPED_BYTES {
            return Err("a wrapped key has 80 bytes");
        }
        if self.label.storage_mode != StorageMode::Shared {
            return Err("its mode is shared");
        }
        Ok(())
    }
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
