//! What an enrolled relay keeps in its store. Blocks.
//!
//! ```text
//! STORE/identity/       0700
//!   login.seed          0600  made first, with the next one, before the center is asked
//!   signing.seed        0600
//!   relay.toml          0600  made once: it is the owner's
//!   enrolled.json       0600  where the brokers are
//!   relay.creds         0600  written last: a store that has it is enrolled
//! ```
//!
//! Each file is there whole or not at all, and still there after a power failure.

use std::{
    io,
    path::{Path, PathBuf},
};

use nkeys::KeyPair;
use serde::{Deserialize, Serialize};
use signalbox_link::{Login, LoginError};
use signalbox_schemas::{
    enrol::Enrolled,
    layout::{RELAY_CREDS, RELAY_TOML, SIGNING_SEED},
    relay_files::{login_file, relay_toml},
    signed::{PublicKey, SigningKey},
};

use super::Ready;
use crate::{
    config::{Config, ConfigError},
    identity::{IdentityError, read_secret},
    keeper::make_private_folder,
    private_file,
};

/// Name of the folder in the store.
const FOLDER: &str = "identity";
/// Name of the file with the seed that logs in.
const LOGIN_SEED: &str = "login.seed";
/// Name of the file that says where the brokers are.
const ENROLLED: &str = "enrolled.json";

/// The identity in a store cannot be made or read. Never retryable without help.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// A file or folder cannot be made, or looked for.
    #[error("`{}` cannot be {what}", path.display())]
    System {
        /// What was tried.
        what: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file cannot be read.
    #[error(transparent)]
    Read(#[from] IdentityError),
    /// A seed is none.
    #[error(
        "`{}` holds no seed; remove the folder it is in, and have the owner of the machine remove its keys, to enrol \
         with others",
        path.display()
    )]
    Seed {
        /// The file.
        path: PathBuf,
    },
    /// The brokers' file is not what it should be.
    #[error("`{}` does not say where the brokers are", path.display())]
    Brokers {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The login file is none.
    #[error("`{}` is no login file", path.display())]
    Login {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: LoginError,
    },
}

/// Both keys of a relay.
pub(super) struct Keys {
    login_seed: String,
    pub(super) login: PublicKey,
    pub(super) signing: SigningKey,
}

impl Keys {
    /// The login that a token makes with these keys.
    pub(super) fn login(&self, jwt: &str) -> Result<Login, LoginError> {
        Login::new(jwt, &self.login_seed)
    }
}

/// What is kept of an answer, beside login and configuration.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    assignment_id: String,
    name: String,
    nats: Vec<String>,
}

/// The identity in a store.
#[derive(Debug, Clone)]
pub(crate) struct Folder {
    path: PathBuf,
}

impl Folder {
    /// That of a store, whether it is there or not.
    pub(crate) fn of(store: &Path) -> Self {
        Self { path: store.join(FOLDER) }
    }

    /// The login file.
    pub(crate) fn creds(&self) -> PathBuf {
        self.path.join(RELAY_CREDS)
    }

    /// Whether a center has enrolled this store's relay.
    pub(crate) fn is_enrolled(&self) -> Result<bool, FilesError> {
        is_there(&self.creds())
    }

    /// Whether keys were made for it: a center may have enrolled them, and its answer been lost.
    pub(super) fn has_keys(&self) -> Result<bool, FilesError> {
        is_there(&self.path.join(SIGNING_SEED))
    }

    /// The configuration and where it lies, once there is one.
    pub(super) fn config(&self) -> Result<Option<(PathBuf, Config)>, super::EnrollError> {
        let path = self.path.join(RELAY_TOML);
        match Config::read(&path) {
            Ok(config) => Ok(Some((path, config))),
            Err(ConfigError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The keys; those that are missing are made.
    pub(super) fn keys(&self) -> Result<Keys, FilesError> {
        if let Some(store) = self.path.parent() {
            make_folder(store)?;
        }
        make_folder(&self.path)?;
        let (login_path, signing_path) = (self.path.join(LOGIN_SEED), self.path.join(SIGNING_SEED));
        let login_seed = seed_at(&login_path)?;
        let login =
            KeyPair::from_seed(login_seed.trim()).ok().and_then(|pair| pair.public_key().parse().ok());
        let signing = SigningKey::from_seed(&seed_at(&signing_path)?).ok();
        Ok(Keys {
            login: login.ok_or(FilesError::Seed { path: login_path })?,
            signing: signing.ok_or(FilesError::Seed { path: signing_path })?,
            login_seed,
        })
    }

    /// Keeps an answer that was checked.
    pub(super) fn keep(&self, keys: &Keys, enrolled: &Enrolled) -> Result<(), FilesError> {
        let config = self.path.join(RELAY_TOML);
        if !is_there(&config)? {
            let text = relay_toml(&enrolled.ws, &enrolled.machine_id, &enrolled.fleet_key);
            write_private(&config, text.as_bytes())?;
        }
        let Enrolled { assignment_id, name, nats, .. } = enrolled.clone();
        // Strings always have a JSON form.
        let kept = serde_json::to_vec_pretty(&Kept { assignment_id, name, nats }).unwrap_or_default();
        write_private(&self.path.join(ENROLLED), &kept)?;
        write_private(&self.creds(), login_file(&enrolled.jwt, keys.login_seed.trim()).as_bytes())
    }

    /// What a store that is enrolled runs on.
    pub(super) fn ready(&self) -> Result<Ready, FilesError> {
        let (creds, path) = (self.creds(), self.path.join(ENROLLED));
        let kept: Kept = serde_json::from_str(&read_secret(&path)?)
            .map_err(|source| FilesError::Brokers { path, source })?;
        let login = Login::from_creds(&read_secret(&creds)?);
        let login = login.map_err(|source| FilesError::Login { path: creds.clone(), source })?;
        Ok(Ready { creds, nats: kept.nats.join(","), claims: login.claims() })
    }
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FilesError {
    let path = path.to_owned();
    move |source| FilesError::System { what, path, source }
}

fn is_there(path: &Path) -> Result<bool, FilesError> {
    path.try_exists().map_err(failed("looked for", path))
}

fn make_folder(path: &Path) -> Result<(), FilesError> {
    let made =
        make_private_folder(path).and_then(|()| path.parent().map_or(Ok(()), private_file::sync_folder));
    made.map_err(failed("made", path))
}

/// The seed at `path`; drawn at first use.
fn seed_at(path: &Path) -> Result<String, FilesError> {
    if is_there(path)? {
        return Ok(read_secret(path)?);
    }
    let seed = KeyPair::new_user().seed().map_err(|_| FilesError::Seed { path: path.to_owned() })?;
    write_private(path, format!("{seed}\n").as_bytes())?;
    Ok(seed)
}

fn write_private(path: &Path, bytes: &[u8]) -> Result<(), FilesError> {
    private_file::replace(path, bytes).map_err(failed("written", path))
}

#[cfg(test)]
pub(super) mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;
    use data_encoding::BASE64URL_NOPAD;
    use rstest::rstest;
    use signalbox_schemas::id::{MachineId, Workspace};

    use crate::identity::Identity;

    /// Keys of a relay that has no store.
    pub(in crate::enroll) fn keys() -> Keys {
        Folder::of(tempfile::tempdir().unwrap().path()).keys().unwrap()
    }

    /// An answer for a machine of a fleet of its own.
    pub(in crate::enroll) fn enrolled(keys: &Keys, machine: &str) -> Enrolled {
        let machine_id = MachineId::new(machine).unwrap();
        let answer = Enrolled {
            ws: Workspace::main(),
            token: machine_id.token(),
            machine_id,
            assignment_id: "a1".to_owned(),
            name: "web".to_owned(),
            jwt: String::new(),
            nats: vec!["nats://a:4222".to_owned(), "nats://b:4222".to_owned()],
            fleet_key: KeyPair::new_user().public_key().parse().unwrap(),
        };
        Enrolled { jwt: token(keys, &answer, 7_000, 9_000), ..answer }
    }

    /// A token that nobody signed; times are Unix ms.
    pub(in crate::enroll) fn token(keys: &Keys, answer: &Enrolled, from_ms: u64, to_ms: u64) -> String {
        let (iat, exp) = (from_ms / 1000, to_ms / 1000);
        let claims = serde_json::json!({"sub": keys.login, "name": answer.token, "iat": iat, "exp": exp});
        format!("e30.{}.AAAA", BASE64URL_NOPAD.encode(claims.to_string().as_bytes()))
    }

    fn publics(keys: &Keys) -> [String; 2] {
        [keys.login.to_string(), keys.signing.public().to_string()]
    }

    #[test]
    fn keys_are_made_once_and_are_private() {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("store");
        let folder = Folder::of(&store);
        assert!(!folder.has_keys().unwrap() && !folder.is_enrolled().unwrap());
        let first = folder.keys().unwrap();
        assert_eq!(publics(&folder.keys().unwrap()), publics(&first));
        assert_ne!(first.login, *first.signing.public(), "one key logs in and signs");
        assert!(folder.has_keys().unwrap() && !folder.is_enrolled().unwrap());
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&store), mode(&folder.path)), (0o700, 0o700));
        for entry in fs::read_dir(&folder.path).unwrap() {
            assert_eq!(mode(&entry.unwrap().path()), 0o600);
        }
    }

    #[rstest]
    #[case(LOGIN_SEED)]
    #[case(SIGNING_SEED)]
    fn making_keys_can_be_cut_short_and_repeated(#[case] missing: &str) {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::of(dir.path());
        let [login, signing] = publics(&folder.keys().unwrap());
        fs::remove_file(folder.path.join(missing)).unwrap();
        fs::write(folder.path.join(format!("{missing}.new")), "SU").unwrap();
        let again = publics(&folder.keys().unwrap());
        assert_eq!(again[0] == login, missing != LOGIN_SEED);
        assert_eq!(again[1] == signing, missing != SIGNING_SEED);
        // What is there and is no key is somebody's mistake, and nothing to make anew.
        fs::write(folder.path.join(missing), "SU").unwrap();
        assert!(matches!(folder.keys(), Err(FilesError::Seed { .. })));
        fs::set_permissions(folder.path.join(missing), fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(folder.keys(), Err(FilesError::Read(IdentityError::Exposed { .. }))));
    }

    #[test]
    fn what_is_kept_is_an_identity() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::of(dir.path());
        let keys = folder.keys().unwrap();
        assert!(folder.config().unwrap().is_none());
        let answer = enrolled(&keys, "Web \"1\"");
        folder.keep(&keys, &answer).unwrap();
        assert!(folder.is_enrolled().unwrap());
        let identity = Identity::read(&folder.creds()).unwrap();
        assert_eq!(identity.config.machine_id, answer.machine_id);
        assert_eq!(identity.config.fleet_key, answer.fleet_key);
        assert_eq!(identity.public_key(), keys.signing.public());
        let ready = folder.ready().unwrap();
        assert_eq!(
            (ready.nats.as_str(), ready.claims.expires_at_ms),
            ("nats://a:4222,nats://b:4222", Some(9_000))
        );
        let mode = |name: &str| fs::metadata(folder.path.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!([RELAY_CREDS, RELAY_TOML, ENROLLED].map(mode), [0o600; 3]);
    }

    #[test]
    fn a_later_answer_renews_the_login_and_leaves_the_owners_file_alone() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::of(dir.path());
        let keys = folder.keys().unwrap();
        folder.keep(&keys, &enrolled(&keys, "web-1")).unwrap();
        let config = folder.path.join(RELAY_TOML);
        let own = fs::read_to_string(&config).unwrap().replace("max_parallel = 4", "max_parallel = 1");
        fs::write(&config, &own).unwrap();
        let login = Identity::read(&folder.creds()).unwrap().login;
        let later = Enrolled { nats: vec!["tls://c:1".to_owned()], ..enrolled(&keys, "web-1") };
        folder.keep(&keys, &later).unwrap();
        assert_eq!(fs::read_to_string(&config).unwrap(), own);
        assert_eq!(folder.ready().unwrap().nats, "tls://c:1");
        assert_eq!(login.claims(), folder.ready().unwrap().claims);
    }
}
