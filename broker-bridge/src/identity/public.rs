//! What a bridge needs of keys that are not its own: their public halves.
//!
//! `init` writes them beside the seeds, so that `serve` reads no seed but its own: the host of a bridge needs neither the
//! fleet key, which decides who may author what, nor any operator's login.

use nkeys::{KeyPair, KeyPairType};
use serde::{Deserialize, Serialize};
use signalbox_schemas::{id::OperatorId, layout::Layout, signed::PublicKey};

use super::{InitError, state_dir};

/// An operator in `operators.json`. Its signing key stands in the authors document, where the fleet key vouches for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Operator {
    /// Its id.
    pub(crate) id: OperatorId,
    /// Its login key.
    pub(crate) login_key: PublicKey,
}

/// Sees that the public files say what they should.
pub(crate) fn ensure(
    layout: &Layout,
    fleet: &PublicKey,
    relay_account: &str,
    operators: &[Operator],
) -> Result<(), InitError> {
    state_dir::update_private(&layout.fleet_pub(), format!("{fleet}\n").as_bytes())?;
    state_dir::update_private(&layout.relay_account_pub(), format!("{relay_account}\n").as_bytes())?;
    // Two plain members always have a JSON form.
    let mut text = serde_json::to_vec_pretty(operators).unwrap_or_default();
    text.push(b'\n');
    Ok(state_dir::update_private(&layout.operators(), &text)?)
}

/// The fleet key.
pub(crate) fn fleet_key(layout: &Layout) -> Result<PublicKey, InitError> {
    let path = layout.fleet_pub();
    let text = String::from_utf8(state_dir::require_private(&path)?).unwrap_or_default();
    text.trim().parse().map_err(|_| InitError::Key { what: path.display().to_string() })
}

/// The public key of the relays' account.
pub(crate) fn relay_account(layout: &Layout) -> Result<String, InitError> {
    let path = layout.relay_account_pub();
    let text = String::from_utf8(state_dir::require_private(&path)?).unwrap_or_default();
    let key = KeyPair::from_public_key(text.trim()).ok();
    let key = key.filter(|key| key.key_pair_type() == KeyPairType::Account);
    key.map(|key| key.public_key()).ok_or_else(|| InitError::Key { what: path.display().to_string() })
}

/// The operators, sorted by id.
pub(crate) fn operators(layout: &Layout) -> Result<Vec<Operator>, InitError> {
    let path = layout.operators();
    let text = state_dir::require_private(&path)?;
    serde_json::from_slice(&text).map_err(|source| InitError::Record { path, source })
}
