//! Who is who: keys, accounts, logins and documents of a state directory.
//!
//! [`init`] makes what is missing and renews what runs out; it can be repeated at any time, and be cut short at any
//! point and repeated. [`Identity::load`] reads what a bridge needs of it.
//!
//! The key that signs never logs in: every principal has a login key (in its `.creds`) and a signing key (a seed
//! beside it), and they are different seeds.
//!
//! | room | holds |
//! |---|---|
//! | `keys` | seeds and tokens on disk |
//! | `jwt` | NATS tokens, written and read |
//! | `accounts` | accounts and users from the permission table |
//! | `creds` | login files |
//! | `relay_logins` | logins for relays that enrol |
//! | `fleet` | the authors document, and what a machine is given |
//! | `public` | public halves of keys, for a bridge that must not have the rest |
//! | `state_dir` | the directory: whose it is, private files, atomic writes |

mod accounts;
mod creds;
mod fleet;
mod jwt;
mod keys;
mod public;
mod relay_logins;
mod state_dir;

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use signalbox_schemas::{
    authors::Authors,
    id::{IdError, MachineId, OperatorId, Workspace},
    layout::Layout,
    record::MachineRecord,
    signed::{PublicKey, Signed, SignedError, SigningKey},
};

use accounts::{AccountKeys, UserKind};
pub use keys::Secret;
pub use relay_logins::RelayLogins;
pub use state_dir::StateDirError;
pub(crate) use state_dir::write_private;

/// The broker's configuration as it is shipped; it includes the generated `operator.conf`.
const NATS_CONF: &str = include_str!("../../nats.conf");
/// Begin of the name of an operator's files.
const OPERATOR: &str = "operator-";
/// Name of the seed that API keys are hashed with.
const PEPPER: &str = "api-key-pepper";

/// Why a state directory could not be set up or read. None of these passes by trying again, except what
/// [`StateDirError`] says of itself.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The directory, or a file in it.
    #[error(transparent)]
    StateDir(#[from] StateDirError),
    /// A file holds no key of the kind that belongs there.
    #[error("{what} holds no usable key")]
    Key {
        /// The file.
        what: String,
    },
    /// The system gave no random bytes.
    #[error("the system gives no random bytes")]
    Random,
    /// The authors document could not be made or read.
    #[error("the authors document is unusable")]
    Authors {
        /// The cause.
        source: SignedError,
    },
    /// A record of a machine or of operators is not one.
    #[error("{} is not what it should be", .path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: serde_json::Error,
    },
    /// A machine's configuration is none.
    #[error("{} is not valid; correct it", .path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// The owner has taken the fleet key elsewhere.
    #[error("{} is not there, and the fleet key is needed; put it back, or remove {} for a new fleet that no relay trusts yet", .seed.display(), .public.display())]
    NoFleetKey {
        /// Where its seed would be.
        seed: PathBuf,
        /// What says that there is one.
        public: PathBuf,
    },
    /// A file or directory has a name that cannot be ours.
    #[error("{} has a name that is none of ours", .path.display())]
    Name {
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        source: IdError,
    },
    /// A directory could not be listed.
    #[error("cannot list {}", .path.display())]
    List {
        /// The directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The path cannot be written into the broker's configuration.
    #[error("{} has characters that the broker's configuration cannot hold; choose another with --state-dir", .path.display())]
    Path {
        /// The directory.
        path: PathBuf,
    },
}

/// What [`init`] shall see to.
#[derive(Debug, Clone)]
pub struct Init {
    /// The state directory, absolute.
    pub state_dir: PathBuf,
    /// Machines that shall be set up; those set up before stay.
    pub machines: Vec<MachineId>,
    /// Operators that shall be set up; those set up before stay.
    pub operators: Vec<OperatorId>,
}

/// Sees that a state directory holds everything that a broker, a bridge, its operators and its machines need.
///
/// Takes about 0.1 s for a new directory (every file is synced), and writes nothing when nothing is due.
///
/// # Errors
/// [`InitError`]. A foreign directory is left untouched; what was written before another error stays, and the next
/// `init` goes on from there.
pub fn init(wanted: &Init, now_ms: u64) -> Result<(), InitError> {
    let layout = Layout::new(&wanted.state_dir);
    let ws = Workspace::main();
    let _lock = state_dir::take(&layout)?;
    let now_secs = now_ms / 1000;

    let accounts = AccountKeys::at(&layout)?;
    ensure_broker_config(&layout, &accounts, &ws, now_secs)?;
    for name in ["ctrl", "bridge"] {
        creds::ensure(&layout.creds(name), &accounts, UserKind::Ctrl, name, now_secs)?;
    }
    keys::ensure_admin_token(&layout.admin_token())?;
    keys::ensure_pepper(&layout.seed(PEPPER))?;

    let fleet = fleet_key(&layout)?;
    let bridge = fleet::signing_key(&layout.seed("bridge"))?;
    let (mut operators, mut known) = (Vec::new(), Vec::new());
    for id in with_known(&wanted.operators, known_operators(&layout)?) {
        let name = format!("{OPERATOR}{id}");
        let path = layout.creds(&name);
        let login = creds::ensure(&path, &accounts, UserKind::Operator, id.as_str(), now_secs)?;
        let login_key = login.parse().map_err(|_| InitError::Key { what: path.display().to_string() })?;
        let key = fleet::signing_key(&layout.seed(&name))?;
        known.push(public::Operator { id: id.clone(), login_key });
        operators.push((id, key.public().clone()));
    }
    let own = fleet::OwnAuthors { ws: &ws, operators: &operators, bridge: bridge.public() };
    own.ensure(&layout, &fleet, now_ms)?;
    // After the document that names them: what a bridge reads fits together at any point.
    public::ensure(&layout, fleet.public(), &accounts.relay_account(), &known)?;

    let known = known_machines(&layout)?.into_iter().map(|record| record.id).collect();
    for id in with_known(&wanted.machines, known) {
        fleet::ensure_machine(&layout, &accounts, fleet.public(), &ws, &id, now_ms)?;
    }
    Ok(())
}

/// The fleet key, made at first use. One that was there is never replaced by another: relays have it pinned.
fn fleet_key(layout: &Layout) -> Result<SigningKey, InitError> {
    let (seed, public) = (layout.seed("fleet"), layout.fleet_pub());
    if state_dir::read_private(&seed)?.is_none() && state_dir::read_private(&public)?.is_some() {
        return Err(InitError::NoFleetKey { seed, public });
    }
    fleet::signing_key(&seed)
}

/// Both lists in one, sorted, each once.
fn with_known<T: Ord + Clone>(wanted: &[T], mut known: Vec<T>) -> Vec<T> {
    known.extend_from_slice(wanted);
    known.sort();
    known.dedup();
    known
}

/// Writes `nats.conf`, `operator.conf` and the accounts' tokens where they differ from what they should be.
fn ensure_broker_config(
    layout: &Layout,
    accounts: &AccountKeys,
    ws: &Workspace,
    now_secs: u64,
) -> Result<(), InitError> {
    // A token is the same, byte for byte, when nothing but the time changed: it keeps its time then.
    let old_iat = |path: &Path| -> Result<Option<(String, u64)>, InitError> {
        let text = state_dir::read_private(path)?.and_then(|bytes| String::from_utf8(bytes).ok());
        Ok(text.and_then(|text| jwt::read(&text).map(|claims| (text, claims.iat))))
    };
    for fresh in accounts.accounts(ws, now_secs)? {
        let path = layout.jwt_dir().join(format!("{}.jwt", fresh.account));
        if let Some((text, iat)) = old_iat(&path)? {
            let again = accounts.accounts(ws, iat)?;
            if again.iter().any(|token| token.token == text) {
                continue;
            }
        }
        state_dir::write_private(&path, fresh.token.as_bytes())?;
    }
    state_dir::update_private(&layout.nats_conf(), NATS_CONF.as_bytes())?;
    // The operator's token never changes while its keys do not: it is issued at 0, so to speak.
    let operator = accounts.operator(0)?;
    let text = operator_conf(&operator, &accounts.system_account(), &layout.jwt_dir())?;
    Ok(state_dir::update_private(&layout.operator_conf(), text.as_bytes())?)
}

fn operator_conf(operator: &str, system_account: &str, jwt_dir: &Path) -> Result<String, InitError> {
    let unfit = || InitError::Path { path: jwt_dir.to_owned() };
    let path = jwt_dir.to_str().ok_or_else(unfit)?;
    if path.contains(|c: char| c.is_control() || c == '"' || c == '\\') {
        return Err(unfit());
    }
    Ok(format!(
        "# Made by `signalbox-bridge init`; changes are overwritten.\n\
         operator: {operator}\n\
         system_account: {system_account}\n\
         resolver {{\n  type: full\n  dir: \"{path}\"\n  allow_delete: false\n  interval: \"2m\"\n}}\n"
    ))
}

/// Names of the entries of `dir`, sorted; none when it is absent.
fn entries(dir: &Path) -> Result<Vec<PathBuf>, InitError> {
    let failed = |source| InitError::List { path: dir.to_owned(), source };
    let found = match fs::read_dir(dir) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut paths: Vec<_> =
        found.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>().map_err(failed)?;
    paths.sort();
    Ok(paths)
}

/// Operators that have a login file.
fn known_operators(layout: &Layout) -> Result<Vec<OperatorId>, InitError> {
    let any = layout.creds("any");
    let mut operators = Vec::new();
    for path in entries(any.parent().unwrap_or(layout.root()))? {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if let Some(id) = name.strip_prefix(OPERATOR).and_then(|rest| rest.strip_suffix(".creds")) {
            let id = OperatorId::new(id).map_err(|source| InitError::Name { path: path.clone(), source })?;
            operators.push(id);
        }
    }
    Ok(operators)
}

/// Machines that have a record. A directory without one was cut short; it is finished when its machine is named.
fn known_machines(layout: &Layout) -> Result<Vec<MachineRecord>, InitError> {
    let mut machines = Vec::new();
    for path in entries(&layout.machines_dir())? {
        machines.extend(fleet::read_record(&path.join("machine.json"))?);
    }
    Ok(machines)
}

/// An operator, as far as a bridge must know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperatorKeys {
    /// Its id.
    pub id: OperatorId,
    /// Its login key.
    pub login_key: PublicKey,
    /// Its signing key.
    pub signing_key: PublicKey,
}

/// What a bridge needs of its state directory.
pub struct Identity {
    /// Where things lie.
    pub layout: Layout,
    /// Workspace.
    pub ws: Workspace,
    /// Signs the authors document; its owner keeps the seed.
    pub fleet_key: PublicKey,
    /// Signs mailboxes, withdrawals, records, and grants for work that comes by HTTP.
    pub bridge_key: Arc<SigningKey>,
    /// The bearer token of HTTP administrators.
    pub admin_token: Secret,
    /// What API keys are hashed with.
    pub pepper: [u8; 32],
    /// What makes logins for relays that enrol; absent where its seed is kept elsewhere.
    pub relay_logins: Option<RelayLogins>,
    /// The authors document, opened.
    pub authors: Authors,
    /// The same: its envelope's exact bytes.
    pub authors_bytes: Vec<u8>,
    /// Machines that were set up here.
    pub machines: Vec<MachineRecord>,
    /// Operators that were set up here.
    pub operators: Vec<OperatorKeys>,
}

impl Identity {
    /// Reads a state directory; writes nothing. Of all seeds it reads the bridge's own, its login, and where it is there
    /// the one that signs logins of relays.
    ///
    /// # Errors
    /// [`InitError`], with [`StateDirError::Missing`] when `init` was never there.
    pub fn load(state_dir: &Path) -> Result<Self, InitError> {
        state_dir::require(state_dir)?;
        // The one true path: the running broker of this directory is known by it.
        let root = fs::canonicalize(state_dir)
            .map_err(|source| InitError::List { path: state_dir.to_owned(), source })?;
        let layout = Layout::new(root);
        let read_seed = |name: &str| -> Result<SigningKey, InitError> {
            let path = layout.seed(name);
            let seed = Secret::new(state_dir::require_private(&path)?);
            SigningKey::from_seed(seed.text())
                .map_err(|_| InitError::Key { what: path.display().to_string() })
        };
        let fleet_key = public::fleet_key(&layout)?;
        let authors_bytes = state_dir::require_private(&layout.authors())?;
        let authors = Signed::<Authors>::from_json(&authors_bytes)
            .and_then(|signed| signed.open(|key| *key == fleet_key))
            .map_err(|source| InitError::Authors { source })?;
        let operators = public::operators(&layout)?
            .into_iter()
            .map(|operator| operator_keys(&layout, &authors, operator))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            ws: authors.ws.clone(),
            fleet_key,
            bridge_key: Arc::new(read_seed("bridge")?),
            admin_token: Secret::new(state_dir::require_private(&layout.admin_token())?),
            pepper: keys::read_pepper(&layout.seed(PEPPER))?,
            relay_logins: RelayLogins::load(&layout)?,
            machines: known_machines(&layout)?,
            operators,
            authors,
            authors_bytes,
            layout,
        })
    }

    /// The edition of the authors document that stands in the state directory now, with its envelope.
    ///
    /// # Errors
    /// [`InitError`], when it is missing or not signed by the fleet key.
    pub(crate) fn read_authors(&self) -> Result<(Vec<u8>, Authors), InitError> {
        let bytes = state_dir::require_private(&self.layout.authors())?;
        let authors =
            Signed::<Authors>::from_json(&bytes).and_then(|signed| signed.open(|key| *key == self.fleet_key));
        authors.map(|authors| (bytes, authors)).map_err(|source| InitError::Authors { source })
    }
}

/// An operator's public keys: the signing key is the one that the authors document names.
fn operator_keys(
    layout: &Layout,
    authors: &Authors,
    operator: public::Operator,
) -> Result<OperatorKeys, InitError> {
    let public::Operator { id, login_key } = operator;
    let name = format!("operator:{id}");
    let author = authors.authors.iter().find(|author| author.name == name);
    let unusable = || InitError::Key { what: layout.authors().display().to_string() };
    Ok(OperatorKeys { id, login_key, signing_key: author.ok_or_else(unusable)?.key.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    use signalbox_schemas::limit::DAY_MS;

    const NOW_MS: u64 = 1_800_000_000_000;

    fn wanted(root: &Path, machines: &[&str]) -> Init {
        Init {
            state_dir: root.to_owned(),
            machines: machines.iter().map(|id| MachineId::new(*id).unwrap()).collect(),
            operators: vec![OperatorId::new("local").unwrap()],
        }
    }

    /// Path and content of every file below `dir`.
    fn files(dir: &Path, into: &mut BTreeMap<PathBuf, Vec<u8>>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                files(&path, into);
            } else {
                into.insert(path.clone(), fs::read(&path).unwrap());
            }
        }
    }

    fn snapshot(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut all = BTreeMap::new();
        files(dir, &mut all);
        all
    }

    #[test]
    fn a_machine_takes_old_relays_when_its_own_file_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("state");
        let machine = || Identity::load(&root).unwrap().machines.remove(0);
        init(&wanted(&root, &["demo-1"]), NOW_MS).unwrap();
        assert!(!machine().takes_legacy());
        let path = Layout::new(&root).machine_dir(&machine().token).join("relay.toml");
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replace("allow_legacy = false", "allow_legacy = true")).unwrap();
        init(&wanted(&root, &[]), NOW_MS).unwrap();
        assert!(machine().takes_legacy());
        fs::write(&path, "allow_legacy = 7").unwrap();
        assert!(matches!(init(&wanted(&root, &[]), NOW_MS), Err(InitError::Config { .. })));
    }

    #[test]
    fn a_second_init_changes_nothing_and_a_later_one_renews() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("state");
        init(&wanted(&root, &["demo-1", "Größe 1"]), NOW_MS).unwrap();
        let first = snapshot(&root);
        init(&wanted(&root, &[]), NOW_MS + DAY_MS).unwrap();
        assert_eq!(snapshot(&root).keys().collect::<Vec<_>>(), first.keys().collect::<Vec<_>>());
        assert!(snapshot(&root) == first, "a second init wrote something else");

        init(&wanted(&root, &[]), NOW_MS + 250 * DAY_MS).unwrap();
        let later = snapshot(&root);
        let changed: Vec<_> = later.iter().filter(|(path, text)| first.get(*path) != Some(text)).collect();
        let names: Vec<_> =
            changed.iter().map(|(path, _)| path.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(
            names,
            [
                "authors.json",
                "bridge.creds",
                "ctrl.creds",
                "operator-local.creds",
                "relay.creds",
                "relay.creds"
            ]
        );
    }

    #[test]
    fn what_init_makes_a_bridge_reads() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("state");
        assert!(matches!(Identity::load(&root), Err(InitError::StateDir(StateDirError::Missing { .. }))));
        init(&wanted(&root, &["demo-1"]), NOW_MS).unwrap();
        let identity = Identity::load(&root).unwrap();
        assert!(identity.admin_token.text().starts_with("sbt_"));
        assert!(identity.authors.is_bridge(identity.bridge_key.public()));
        assert_eq!(identity.machines.len(), 1);
        assert_eq!(identity.machines[0].enrolled_at, NOW_MS);
        assert_eq!(identity.operators.len(), 1);
        let operator = &identity.operators[0];
        assert_ne!(operator.login_key, operator.signing_key, "one key logs in and signs");
        let keys = identity.machines[0].keys.as_ref().unwrap();
        assert_ne!(keys.login_key, keys.signing_key);
    }

    #[test]
    fn a_bridge_needs_no_seed_but_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("state");
        init(&wanted(&root, &["demo-1"]), NOW_MS).unwrap();
        let before = Identity::load(&root).unwrap();
        let layout = Layout::new(&root);
        let kept = ["keys/bridge.seed", "keys/api-key-pepper.seed", "creds/bridge.creds"];
        for path in snapshot(&root).keys() {
            let is_secret = path.extension().is_some_and(|kind| kind == "seed" || kind == "creds");
            if is_secret && !kept.iter().any(|name| path.ends_with(name)) {
                fs::remove_file(path).unwrap();
            }
        }
        let after = Identity::load(&root).unwrap();
        assert_eq!((after.fleet_key, after.operators), (before.fleet_key, before.operators));
        assert!(
            before.relay_logins.is_some() && after.relay_logins.is_none(),
            "relays are enrolled with a key"
        );
        // A fleet key that is elsewhere is not replaced.
        let authors = fs::read(layout.authors()).unwrap();
        let refused = init(&wanted(&root, &[]), NOW_MS);
        assert!(matches!(refused, Err(InitError::NoFleetKey { .. })), "{refused:?}");
        assert!(fs::read(layout.authors()).unwrap() == authors && !layout.seed("fleet").exists());
    }

    #[test]
    fn a_directory_without_public_files_is_completed() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("state");
        init(&wanted(&root, &["demo-1"]), NOW_MS).unwrap();
        let whole = snapshot(&root);
        let layout = Layout::new(&root);
        fs::remove_file(layout.fleet_pub()).unwrap();
        fs::remove_file(layout.operators()).unwrap();
        let missing = Identity::load(&root).err().unwrap().to_string();
        assert!(missing.contains("fleet.pub") && missing.contains("signalbox-bridge init"), "{missing}");
        init(&wanted(&root, &[]), NOW_MS).unwrap();
        Identity::load(&root).unwrap();
        assert!(snapshot(&root) == whole, "something else was written");
    }

    #[test]
    fn an_interrupted_init_is_finished_by_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("state");
        init(&wanted(&root, &["demo-1"]), NOW_MS).unwrap();
        let whole = snapshot(&root);
        for path in whole.keys().filter(|path| !path.ends_with("state.json")) {
            fs::remove_file(path).unwrap();
            if path.ends_with("fleet.seed") {
                // What says that there was one is written after it.
                fs::remove_file(root.join("keys/fleet.pub")).unwrap();
            }
            init(&wanted(&root, &["demo-1"]), NOW_MS).unwrap();
            Identity::load(&root).unwrap();
            let again = snapshot(&root);
            let missing: Vec<_> = whole.keys().filter(|path| !again.contains_key(*path)).collect();
            assert!(missing.is_empty(), "without {}: {missing:?} did not come back", path.display());
        }
    }
}
