//! The authors document: who may author what. Signed by the fleet key, which its owner keeps.
//!
//! A relay pins the fleet key when it is set up, takes a version only if it is higher than the one it has,
//! and runs nothing under a version older than its mailbox names.

use serde::{Deserialize, Serialize};

use crate::{
    id::Workspace,
    limit,
    signed::{Message, PublicKey},
};

/// Former bridge keys that a document names; the oldest leave first.
pub const FORMER_BRIDGES: usize = 64;

/// Something that an author may be allowed to author.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Right {
    /// A command as the relay's own user.
    Command,
    /// A command that asks for a user other than the relay's own.
    Root,
    /// A terminal.
    Terminal,
    /// Configuration.
    Config,
    /// Credentials.
    Credential,
}

impl Right {
    /// The spelling on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::Root => "root",
            Self::Terminal => "terminal",
            Self::Config => "config",
            Self::Credential => "credential",
        }
    }
}

/// What a person or a bridge is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Sees.
    Viewer,
    /// Runs.
    Member,
    /// Configures, manages machines and credentials.
    Admin,
    /// Manages operators and keys.
    Owner,
}

/// One author.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Author {
    /// Signing key.
    pub key: PublicKey,
    /// Who, for people: `operator:<id>` or `bridge:<id>`.
    pub name: String,
    /// Role.
    pub role: Role,
    /// What it may author.
    pub rights: Vec<Right>,
}

/// A bridge key that was replaced: what it signed before still counts, what it signs later does not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FormerBridge {
    /// Its signing key.
    pub key: PublicKey,
    /// What the broker stored up to then counts, Unix ms.
    pub until: u64,
}

/// The document; `doc.<ws>.authors`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authors {
    /// Workspace.
    pub ws: Workspace,
    /// Grows with each edition.
    pub version: u64,
    /// When it was issued, Unix ms.
    pub issued_at: u64,
    /// It counts for nothing from then on, Unix ms; at most 90 d after `issued_at`.
    pub not_after: u64,
    /// Who may author what.
    pub authors: Vec<Author>,
    /// Keys that may sign machine certificates.
    pub issuers: Vec<PublicKey>,
    /// Keys that may sign mailboxes, withdrawals, records.
    pub bridges: Vec<PublicKey>,
    /// Keys that once might: history is read with them. At most [`FORMER_BRIDGES`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub former_bridges: Vec<FormerBridge>,
    /// The fleet key that follows this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_fleet_key: Option<PublicKey>,
    /// Members that a reader must understand.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub crit: Vec<String>,
}

impl Message for Authors {
    const TYPE: &'static str = "authors";
    const MAX_BYTES: usize = limit::AUTHORS_BYTES;
    const CRIT: &'static [&'static str] = &["authors", "bridges", "issuers"];
}

impl Authors {
    /// Whether the document counts at `now`, Unix ms.
    pub fn is_valid_at(&self, now: u64) -> bool {
        let life = self.not_after.checked_sub(self.issued_at);
        life.is_some_and(|ms| ms <= limit::AUTHORS_VALID_MS) && now < self.not_after
    }

    /// Whether `key` may author `right`. A bridge key authors only when it stands among the authors too.
    pub fn may_author(&self, key: &PublicKey, right: Right) -> bool {
        self.authors.iter().any(|author| author.key == *key && author.rights.contains(&right))
    }

    /// Whether `key` is a bridge's.
    pub fn is_bridge(&self, key: &PublicKey) -> bool {
        self.bridges.contains(key)
    }

    /// Whether `key` was a bridge's when the broker stored something it signed, at `stored_at`, Unix ms.
    pub fn was_bridge(&self, key: &PublicKey, stored_at: u64) -> bool {
        let former = |former: &FormerBridge| former.key == *key && stored_at <= former.until;
        self.is_bridge(key) || self.former_bridges.iter().any(former)
    }

    /// The author that signs with `key`.
    pub fn author(&self, key: &PublicKey) -> Option<&Author> {
        self.authors.iter().find(|author| author.key == *key)
    }
}
