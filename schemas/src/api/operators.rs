//! Who may use the console.

use serde::{Deserialize, Serialize};

use crate::{
    authors::{Right, Role},
    id::OperatorId,
    signed::PublicKey,
};

/// An operator as he is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorView {
    /// Its id.
    pub id: OperatorId,
    /// What he may do by the authors document; `null`: it does not name his signing key, or it has expired, and he may do
    /// nothing.
    pub role: Option<Role>,
    /// What he may author.
    pub rights: Vec<Right>,
    /// Until when that counts, Unix ms: the end of the authors document, which is issued anew before.
    pub valid_until: Option<u64>,
    /// Since when he is known, Unix ms.
    pub created_at: u64,
    /// The key that logs in to the broker.
    pub login_key: PublicKey,
    /// The key that signs.
    pub signing_key: PublicKey,
    /// When the audit chain last named him, Unix ms: something was changed in his name, or refused to him. `null`: it does not
    /// name him. Whoever only looks leaves nothing there.
    pub last_seen_at: Option<u64>,
}
