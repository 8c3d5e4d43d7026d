//! Logins for relays that enrol with an API key.
//!
//! The key that signs them is scoped: a login has what the permission table gives to a relay of that name, whatever is
//! written into it. A bridge reads that one seed, and of the account it belongs to the public half only.

use std::{fmt, sync::Arc};

use nkeys::{KeyPair, KeyPairType};
use signalbox_schemas::{id::MachineToken, layout::Layout, limit::DAY_MS, signed::PublicKey};

use super::{
    InitError, accounts,
    jwt::{self, Claims},
    keys::{self, Secret},
    public, state_dir,
};

/// How long such a login counts, s: its relay asks for another one in the middle of it. No longer, because a login cannot
/// be taken back.
const VALID_SECS: u64 = 30 * DAY_MS / 1000;
/// Name of the seed.
const SEED: &str = "relay-signing";

/// What makes logins for relays. Cheap to clone.
#[derive(Clone)]
pub struct RelayLogins {
    issuer: Arc<KeyPair>,
    account: String,
}

impl fmt::Debug for RelayLogins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RelayLogins").field("account", &self.account).finish_non_exhaustive()
    }
}

impl RelayLogins {
    /// Reads the seed of a state directory; `None` when it is not there.
    ///
    /// # Errors
    /// [`InitError`], when one of the two files is not what it should be.
    pub fn load(layout: &Layout) -> Result<Option<Self>, InitError> {
        let path = layout.seed(SEED);
        let Some(seed) = state_dir::read_private(&path)?.map(Secret::new) else { return Ok(None) };
        let issuer = keys::pair_from(&seed, &KeyPairType::Account, &path)?;
        Ok(Some(Self { issuer: Arc::new(issuer), account: public::relay_account(layout)? }))
    }

    /// A token for the relay of a machine, with which `login_key` logs in for 30 days from `now_ms` (Unix ms) on.
    ///
    /// # Errors
    /// [`InitError::Key`], when the key cannot sign.
    pub fn mint(&self, mid: &MachineToken, login_key: &PublicKey, now_ms: u64) -> Result<String, InitError> {
        let iat = now_ms / 1000;
        let nats = accounts::scoped_user(&self.account);
        let mut claims = Claims::new(mid.as_str(), login_key.to_string(), iat, nats);
        claims.exp = Some(iat + VALID_SECS);
        jwt::sign(claims, &self.issuer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::accounts::{AccountKeys, UserKind};

    #[test]
    fn a_login_is_that_of_init_but_for_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        std::fs::create_dir(dir.path().join("keys")).unwrap();
        assert!(RelayLogins::load(&layout).unwrap().is_none());
        let accounts = AccountKeys::at(&layout).unwrap();
        let missing = RelayLogins::load(&layout).unwrap_err().to_string();
        assert!(missing.contains("relay.pub") && missing.contains("signalbox-bridge init"), "{missing}");
        state_dir::write_private(&layout.relay_account_pub(), accounts.relay_account().as_bytes()).unwrap();

        let logins = RelayLogins::load(&layout).unwrap().unwrap();
        let key = KeyPair::new_user().public_key().parse().unwrap();
        let mid = MachineToken::new("web-1").unwrap();
        let minted = jwt::read(&logins.mint(&mid, &key, 7_000).unwrap()).unwrap();
        let made = jwt::read(&accounts.user(UserKind::Relay, "web-1", key.as_str(), 7).unwrap()).unwrap();
        assert_eq!(minted.exp, Some(7 + 30 * 86_400));
        assert_eq!(Claims { exp: made.exp, jti: made.jti.clone(), ..minted }, made);
    }

    #[test]
    fn a_key_of_another_kind_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        std::fs::create_dir(dir.path().join("keys")).unwrap();
        AccountKeys::at(&layout).unwrap();
        let user = KeyPair::new_user().public_key();
        state_dir::write_private(&layout.relay_account_pub(), user.as_bytes()).unwrap();
        assert!(matches!(RelayLogins::load(&layout), Err(InitError::Key { .. })));
    }
}
