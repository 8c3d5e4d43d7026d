//! The authors document, and what each machine is given.

use nkeys::KeyPairType;
use signalbox_schemas::{
    authors::{Author, Authors, FORMER_BRIDGES, FormerBridge, Right, Role},
    id::{MachineId, OperatorId, Workspace},
    label::GivenLabels,
    layout::{self, Layout},
    limit::{AUTHORS_VALID_MS, DAY_MS},
    record::{MachineRecord, RelayKeys},
    relay_files::relay_toml,
    signed::{PublicKey, Signed, SigningKey},
};

use super::{
    InitError,
    accounts::{AccountKeys, UserKind},
    creds,
    keys::{self, Secret},
    state_dir,
};

/// The authors document is issued anew when less than this is left of its 90 days.
const RENEW_BEFORE_MS: u64 = 45 * DAY_MS;

/// The signing key at `path`, made at first use.
pub(crate) fn signing_key(path: &std::path::Path) -> Result<SigningKey, InitError> {
    let pair = keys::pair_at(path, KeyPairType::User)?;
    let seed = keys::seed_of(&pair)?;
    SigningKey::from_seed(seed.text()).map_err(|_| InitError::Key { what: path.display().to_string() })
}

/// Everything that shall stand in the authors document of this state directory.
pub(crate) struct OwnAuthors<'a> {
    /// Workspace.
    pub(crate) ws: &'a Workspace,
    /// Operators with their signing keys.
    pub(crate) operators: &'a [(OperatorId, PublicKey)],
    /// The bridge's signing key.
    pub(crate) bridge: &'a PublicKey,
}

impl OwnAuthors<'_> {
    fn list(&self) -> Vec<Author> {
        let operators = self.operators.iter().map(|(id, key)| Author {
            key: key.clone(),
            name: format!("operator:{id}"),
            role: Role::Owner,
            rights: vec![Right::Command, Right::Root, Right::Terminal, Right::Config, Right::Credential],
        });
        let bridge = Author {
            key: self.bridge.clone(),
            name: "bridge:local".to_owned(),
            role: Role::Member,
            rights: vec![Right::Command],
        };
        operators.chain(std::iter::once(bridge)).collect()
    }

    /// The edition that follows `old`; `None` when `old` still says it all and lives long enough.
    ///
    /// Authors and bridges that somebody else put into `old` are kept. A bridge key that is replaced becomes a former
    /// one: what it has signed is history, and stays believed.
    fn next(&self, old: Option<&Authors>, now_ms: u64) -> Option<Authors> {
        let own = self.list();
        let is_own = |author: &Author| own.iter().any(|o| o.key == author.key || o.name == author.name);
        let mut authors = own.clone();
        let mut bridges = vec![self.bridge.clone()];
        let mut former_bridges = Vec::new();
        if let Some(old) = old {
            authors.extend(old.authors.iter().filter(|author| !is_own(author)).cloned());
            let replaced = |key: &PublicKey| old.author(key).is_some_and(is_own);
            bridges.extend(old.bridges.iter().filter(|key| *key != self.bridge && !replaced(key)).cloned());
            let gone = old.bridges.iter().filter(|key| *key != self.bridge && replaced(key));
            let gone = gone.map(|key| FormerBridge { key: key.clone(), until: now_ms });
            former_bridges = old.former_bridges.iter().cloned().chain(gone).collect();
            former_bridges.drain(..former_bridges.len().saturating_sub(FORMER_BRIDGES));
        }
        if let Some(old) = old
            && old.ws == *self.ws
            && old.authors == authors
            && old.bridges == bridges
            && old.issued_at <= now_ms
            && now_ms + RENEW_BEFORE_MS <= old.not_after
        {
            return None;
        }
        Some(Authors {
            ws: self.ws.clone(),
            // Seconds since 1970 rather than 1, 2, 3: a document that was lost is followed by a higher one too.
            version: old.map_or(0, |old| old.version + 1).max(now_ms / 1000),
            issued_at: now_ms,
            not_after: now_ms + AUTHORS_VALID_MS,
            authors,
            issuers: old.map_or_else(Vec::new, |old| old.issuers.clone()),
            bridges,
            former_bridges,
            next_fleet_key: old.and_then(|old| old.next_fleet_key.clone()),
            crit: Vec::new(),
        })
    }

    /// Sees that `authors.json` holds a valid edition, signed by the fleet key.
    pub(crate) fn ensure(&self, layout: &Layout, fleet: &SigningKey, now_ms: u64) -> Result<(), InitError> {
        let old = state_dir::read_private(&layout.authors())?;
        let old = old.and_then(|bytes| Signed::<Authors>::from_json(&bytes).ok());
        let old = old.and_then(|signed| signed.open(|key| key == fleet.public()).ok());
        let Some(next) = self.next(old.as_ref(), now_ms) else { return Ok(()) };
        let signed = Signed::sign(&next, fleet).map_err(|source| InitError::Authors { source })?;
        Ok(state_dir::write_private(&layout.authors(), &signed.to_json())?)
    }
}

/// Sees that a machine has its directory: login, signing key, configuration, and the bridge's record of it.
///
/// The configuration belongs to the machine's owner: it is written once.
pub(crate) fn ensure_machine(
    layout: &Layout,
    accounts: &AccountKeys,
    fleet: &PublicKey,
    ws: &Workspace,
    id: &MachineId,
    now_ms: u64,
) -> Result<(), InitError> {
    let token = id.token();
    let dir = layout.machine_dir(&token);
    state_dir::make_private(&dir)?;
    let login =
        creds::ensure(&layout.relay_creds(&token), accounts, UserKind::Relay, token.as_str(), now_ms / 1000)?;
    let signing = signing_key(&dir.join(layout::SIGNING_SEED))?;
    let config_path = dir.join(layout::RELAY_TOML);
    let config = state_dir::read_private(&config_path)?;
    if config.is_none() {
        state_dir::write_private(&config_path, relay_toml(ws, id, fleet).as_bytes())?;
    }
    let allow_legacy = config.map_or(Ok(false), |text| allows_legacy(&config_path, &text))?;
    let record_path = layout.machine_json(&token);
    let old = read_record(&record_path)?;
    let record = MachineRecord {
        ws: ws.clone(),
        id: id.clone(),
        token,
        keys: Some(RelayKeys {
            login_key: login.parse().map_err(|_| InitError::Key { what: "a login key".into() })?,
            signing_key: signing.public().clone(),
        }),
        enrolled_at: old.map_or(now_ms, |old| old.enrolled_at),
        enrolled_by: None,
        former_keys: Vec::new(),
        allow_legacy,
        labels: GivenLabels::default(),
        revision: 0,
    };
    let text = Secret::new(serde_json::to_vec_pretty(&record).unwrap_or_default());
    Ok(state_dir::update_private(&record_path, text.bytes())?)
}

/// What a machine's configuration says of relays of the old contract. The rest of it is the relay's business.
fn allows_legacy(path: &std::path::Path, text: &[u8]) -> Result<bool, InitError> {
    #[derive(serde::Deserialize)]
    struct File {
        #[serde(default)]
        allow_legacy: bool,
    }
    let failed = |source| InitError::Config { path: path.to_owned(), source: Box::new(source) };
    toml::from_slice::<File>(text).map(|file| file.allow_legacy).map_err(failed)
}

/// Reads a `machine.json`; `None` when there is none.
pub(crate) fn read_record(path: &std::path::Path) -> Result<Option<MachineRecord>, InitError> {
    let Some(bytes) = state_dir::read_private(path)? else { return Ok(None) };
    let record = serde_json::from_slice(&bytes);
    record.map(Some).map_err(|source| InitError::Record { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> PublicKey {
        nkeys::KeyPair::new_user().public_key().parse().unwrap()
    }

    #[test]
    fn an_edition_follows_only_when_something_changed_or_time_runs_out() {
        let ws = Workspace::main();
        let operators = [(OperatorId::new("local").unwrap(), key())];
        let (bridge, other) = (key(), key());
        let own = OwnAuthors { ws: &ws, operators: &operators, bridge: &bridge };
        let now = 1_800_000_000_000;
        let first = own.next(None, now).unwrap();
        assert!(first.is_valid_at(now));
        assert!(first.may_author(&operators[0].1, Right::Root) && !first.may_author(&bridge, Right::Root));
        assert!(first.may_author(&bridge, Right::Command) && first.is_bridge(&bridge));

        assert_eq!(own.next(Some(&first), now + 45 * DAY_MS), None);
        let later = own.next(Some(&first), now + 45 * DAY_MS + 1).unwrap();
        assert!(later.version > first.version && later.issued_at > first.issued_at);

        let changed = OwnAuthors { ws: &ws, operators: &operators, bridge: &other };
        let next = changed.next(Some(&first), now).unwrap();
        assert_eq!(next.version, first.version + 1);
        assert_eq!(
            next.bridges,
            std::slice::from_ref(&other),
            "the key that was replaced is trusted no longer"
        );
        assert!(
            next.was_bridge(&bridge, now) && !next.was_bridge(&bridge, now + 1),
            "but for what it had said"
        );
        let kept = changed.next(Some(&next), now + 46 * DAY_MS).unwrap();
        assert_eq!(kept.former_bridges, next.former_bridges);
    }
}
