//! Accounts and users as the broker knows them, made from the permission table and nothing else.
//!
//! | account | holds | its signing key |
//! |---|---|---|
//! | CTRL | every stream; bridges and an administrator's NATS CLI | plain: signs users and activations |
//! | RELAY | relays | scoped: a user gets the table's template and nothing of its own |
//! | OPS | operators | scoped, the same |
//! | SYS | the broker's own | none |
//!
//! Everything that crosses is a private export: an import counts only with an activation that CTRL signed.

use nkeys::{KeyPair, KeyPairType};
use serde_json::{Value, json};
use signalbox_schemas::{
    id::Workspace,
    layout::Layout,
    limit::DAY_MS,
    permission::{self, Account, Crossing, NAME_TEMPLATE, Passage, Permissions},
};

use super::{
    InitError,
    jwt::{self, Claims},
    keys,
};

/// How long a user's token lives: longer than a year, so that a fleet on one machine needs `init` (which every
/// `up` calls) once in half of it.
const USER_VALID_SECS: u64 = 400 * DAY_MS / 1000;
/// «No limit» in a token.
const UNLIMITED: i64 = -1;

/// Keys of the operator and of the accounts.
pub(crate) struct AccountKeys {
    operator: KeyPair,
    system: KeyPair,
    ctrl: KeyPair,
    ctrl_signing: KeyPair,
    relay: KeyPair,
    relay_signing: KeyPair,
    ops: KeyPair,
    ops_signing: KeyPair,
}

/// What kind of user logs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UserKind {
    /// A bridge or an administrator: all of CTRL.
    Ctrl,
    /// A relay; its name is the machine's token.
    Relay,
    /// An operator; its name is its id.
    Operator,
}

/// An account's token.
pub(crate) struct AccountToken {
    /// The account's public key; also the name of its file.
    pub(crate) account: String,
    /// The token.
    pub(crate) token: String,
}

impl AccountKeys {
    /// Reads the keys of a state directory; makes those that are missing.
    pub(crate) fn at(layout: &Layout) -> Result<Self, InitError> {
        let account = |name: &str| keys::pair_at(&layout.seed(name), KeyPairType::Account);
        Ok(Self {
            operator: keys::pair_at(&layout.seed("operator"), KeyPairType::Operator)?,
            system: account("sys")?,
            ctrl: account("ctrl")?,
            ctrl_signing: account("ctrl-signing")?,
            relay: account("relay")?,
            relay_signing: account("relay-signing")?,
            ops: account("ops")?,
            ops_signing: account("ops-signing")?,
        })
    }

    /// The public key of the relays' account.
    pub(crate) fn relay_account(&self) -> String {
        self.relay.public_key()
    }

    /// The system account's public key.
    pub(crate) fn system_account(&self) -> String {
        self.system.public_key()
    }

    /// The operator's token, issued at `iat` (Unix seconds).
    pub(crate) fn operator(&self, iat: u64) -> Result<String, InitError> {
        let nats = json!({ "type": "operator", "version": 2, "system_account": self.system_account() });
        jwt::sign(Claims::new("signalbox", self.operator.public_key(), iat, nats), &self.operator)
    }

    /// The tokens of all accounts for one workspace, issued at `iat` (Unix seconds).
    pub(crate) fn accounts(&self, ws: &Workspace, iat: u64) -> Result<Vec<AccountToken>, InitError> {
        let passages = permission::passages(ws);
        let exports: Vec<Value> = passages.iter().map(export).collect();
        let scoped = |key: &KeyPair, role: &str, permissions: &Permissions| json!([{ "kind": "user_scope", "key": key.public_key(), "role": role, "template": template(permissions) }]);
        let relay = permission::relay(ws, NAME_TEMPLATE);
        let operator = permission::operator(ws, NAME_TEMPLATE);
        [
            ("SYS", &self.system, json!({ "type": "account", "version": 2, "limits": limits() })),
            (
                "CTRL",
                &self.ctrl,
                json!({
                    "type": "account",
                    "version": 2,
                    "limits": limits_with_jetstream(),
                    "exports": exports,
                    "signing_keys": [self.ctrl_signing.public_key()],
                }),
            ),
            (
                "RELAY",
                &self.relay,
                json!({
                    "type": "account",
                    "version": 2,
                    "limits": limits(),
                    "imports": self.imports(&passages, Account::Relay, iat)?,
                    "signing_keys": scoped(&self.relay_signing, "relay", &relay),
                }),
            ),
            (
                "OPS",
                &self.ops,
                json!({
                    "type": "account",
                    "version": 2,
                    "limits": limits(),
                    "imports": self.imports(&passages, Account::Ops, iat)?,
                    "signing_keys": scoped(&self.ops_signing, "operator", &operator),
                }),
            ),
        ]
        .into_iter()
        .map(|(name, key, nats)| {
            let account = key.public_key();
            let token = jwt::sign(Claims::new(name, account.clone(), iat, nats), &self.operator)?;
            Ok(AccountToken { account, token })
        })
        .collect()
    }

    /// A user's token, issued at `iat` (Unix seconds).
    ///
    /// Users of the scoped keys carry no permissions and no limits: with any, the broker refuses them.
    pub(crate) fn user(&self, kind: UserKind, name: &str, key: &str, iat: u64) -> Result<String, InitError> {
        let (account, issuer) = match kind {
            UserKind::Ctrl => (&self.ctrl, &self.ctrl_signing),
            UserKind::Relay => (&self.relay, &self.relay_signing),
            UserKind::Operator => (&self.ops, &self.ops_signing),
        };
        let issuer_account = account.public_key();
        let nats = match kind {
            UserKind::Ctrl => json!({
                "type": "user",
                "version": 2,
                "issuer_account": issuer_account,
                "tags": tags(),
                "subs": UNLIMITED,
                "data": UNLIMITED,
                "payload": UNLIMITED,
            }),
            UserKind::Relay | UserKind::Operator => scoped_user(&issuer_account),
        };
        let mut claims = Claims::new(name, key.to_owned(), iat, nats);
        claims.exp = Some(iat + USER_VALID_SECS);
        jwt::sign(claims, issuer)
    }

    /// Whether `token` is what [`user`](Self::user) would mint, and has at least half of its life before it.
    pub(crate) fn is_current(&self, token: &str, kind: UserKind, name: &str, now_secs: u64) -> bool {
        let Some(claims) = jwt::read(token) else { return false };
        let same = self.user(kind, name, &claims.sub, claims.iat).is_ok_and(|minted| minted == token);
        // A token from the future was issued by a clock that went wrong: mint it anew.
        same && claims.iat <= now_secs && now_secs < claims.iat + USER_VALID_SECS / 2
    }

    /// The imports of one account, each with its activation.
    fn imports(&self, passages: &[Passage], account: Account, iat: u64) -> Result<Vec<Value>, InitError> {
        let importer = match account {
            Account::Relay => self.relay.public_key(),
            Account::Ops => self.ops.public_key(),
        };
        let own = passages.iter().filter(|passage| passage.account == account);
        own.map(|passage| {
            let kind = kind(passage.crossing);
            let nats = json!({
                "type": "activation",
                "version": 2,
                "kind": kind,
                "subject": passage.import,
                "issuer_account": self.ctrl.public_key(),
            });
            let claims = Claims::new(&passage.import, importer.clone(), iat, nats);
            Ok(json!({
                "name": passage.import,
                "subject": passage.import,
                "account": self.ctrl.public_key(),
                "token": jwt::sign(claims, &self.ctrl_signing)?,
                "type": kind,
            }))
        })
        .collect()
    }
}

/// The broker's part of a token that a scoped key signs: permissions or limits of its own would have it refused.
pub(crate) fn scoped_user(issuer_account: &str) -> Value {
    json!({ "type": "user", "version": 2, "issuer_account": issuer_account, "tags": tags() })
}

/// Says from which table the permissions came.
fn tags() -> [String; 1] {
    [format!("permissions:{}", permission::VERSION)]
}

fn kind(crossing: Crossing) -> &'static str {
    match crossing {
        Crossing::Service => "service",
        Crossing::Stream => "stream",
    }
}

fn export(passage: &Passage) -> Value {
    let (name, kind) = (&passage.export, kind(passage.crossing));
    match passage.crossing {
        Crossing::Stream => json!({ "name": name, "subject": name, "type": kind, "token_req": true }),
        Crossing::Service => json!({
            "name": name,
            "subject": name,
            "type": kind,
            "token_req": true,
            "response_type": "Singleton",
            // Nanoseconds.
            "response_threshold": permission::RESPONSE_THRESHOLD_MS * 1_000_000,
        }),
    }
}

fn template(permissions: &Permissions) -> Value {
    json!({
        "pub": { "allow": permissions.publish },
        "sub": { "allow": permissions.subscribe },
        "subs": permissions.subscriptions,
        "data": UNLIMITED,
        "payload": permissions.payload_bytes,
    })
}

/// An account's limits: none, and no JetStream.
fn limits() -> Value {
    json!({
        "subs": UNLIMITED,
        "data": UNLIMITED,
        "payload": UNLIMITED,
        "imports": UNLIMITED,
        "exports": UNLIMITED,
        "wildcards": true,
        "conn": UNLIMITED,
        "leaf": UNLIMITED,
    })
}

/// The limits of CTRL: none at all.
fn limits_with_jetstream() -> Value {
    let mut limits = limits();
    let jetstream = ["mem_storage", "disk_storage", "streams", "consumer"];
    if let Value::Object(members) = &mut limits {
        members.extend(jetstream.map(|name| (name.to_owned(), UNLIMITED.into())));
    }
    limits
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn keys() -> (tempfile::TempDir, AccountKeys) {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        std::fs::create_dir(dir.path().join("keys")).unwrap();
        let keys = AccountKeys::at(&layout).unwrap();
        (dir, keys)
    }

    #[test]
    fn scoped_users_carry_nothing_of_their_own() {
        let (_dir, keys) = keys();
        for kind in [UserKind::Relay, UserKind::Operator] {
            let claims = jwt::read(&keys.user(kind, "web-1", "U", 1).unwrap()).unwrap();
            let members: BTreeSet<_> = claims.nats.as_object().unwrap().keys().map(String::as_str).collect();
            assert_eq!(members, BTreeSet::from(["issuer_account", "tags", "type", "version"]));
        }
    }

    #[test]
    fn only_ctrl_has_jetstream_and_exports_are_private() {
        let (_dir, keys) = keys();
        for token in keys.accounts(&Workspace::main(), 1).unwrap() {
            let claims = jwt::read(&token.token).unwrap();
            assert_eq!(claims.sub, token.account);
            let is_ctrl = claims.name == "CTRL";
            assert_eq!(claims.nats["limits"].get("disk_storage").is_some(), is_ctrl, "{}", claims.name);
            let exports = claims.nats["exports"].as_array().cloned().unwrap_or_default();
            assert_eq!(exports.is_empty(), !is_ctrl);
            assert!(exports.iter().all(|export| export["token_req"] == true));
            let imports = claims.nats["imports"].as_array().cloned().unwrap_or_default();
            for import in imports {
                let activation = jwt::read(import["token"].as_str().unwrap()).unwrap();
                assert_eq!((&activation.sub, &activation.nats["subject"]), (&claims.sub, &import["subject"]));
            }
        }
    }

    #[test]
    fn a_token_is_renewed_at_half_life_or_when_it_differs() {
        let (_dir, keys) = keys();
        let token = keys.user(UserKind::Relay, "web-1", "U", 1_000).unwrap();
        let current = |name, kind, now| keys.is_current(&token, kind, name, now);
        assert!(current("web-1", UserKind::Relay, 1_000));
        assert!(current("web-1", UserKind::Relay, 1_000 + USER_VALID_SECS / 2 - 1));
        assert!(!current("web-1", UserKind::Relay, 1_000 + USER_VALID_SECS / 2));
        assert!(!current("web-1", UserKind::Relay, 999));
        assert!(!current("web-2", UserKind::Relay, 1_000));
        assert!(!current("web-1", UserKind::Operator, 1_000));
        assert!(!keys.is_current("x", UserKind::Relay, "web-1", 1_000));
    }
}
