//! Who this relay is: its login, its signing key and its configuration, from three files that lie together.
//!
//! The key that signs never logs in: the login file and `signing.seed` hold different seeds.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use signalbox_link::{Login, LoginError};
use signalbox_schemas::{
    layout::{RELAY_TOML, SIGNING_SEED},
    signed::{PublicKey, SigningKey},
};

use crate::config::{Config, ConfigError};

/// The files do not make an identity. Never retryable without help.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file cannot be read.
    #[error("`{}` cannot be read", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A secret is not secret.
    #[error("`{}` can be read by others (mode {mode:03o}); make it 0600", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
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
    /// The login is another machine's.
    #[error("`{}` is the login of `{name}`, and this is machine `{expected}`", path.display())]
    OtherMachine {
        /// The login file.
        path: PathBuf,
        /// Whose it is.
        name: String,
        /// The token of the configured machine.
        expected: String,
    },
    /// The seed is none.
    #[error("`{}` holds no signing seed", path.display())]
    Seed {
        /// The file.
        path: PathBuf,
    },
    /// One seed for both purposes.
    #[error("`{}` holds the login's own seed; the key that signs must not log in", path.display())]
    SharedSeed {
        /// The seed file.
        path: PathBuf,
    },
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// Who this relay is.
#[derive(Debug)]
pub struct Identity {
    /// What it is called and what its machine allows.
    pub config: Config,
    /// How it logs in.
    pub login: Login,
    /// How it signs.
    pub key: SigningKey,
}

impl Identity {
    /// Reads the login file `creds` and its two neighbours.
    ///
    /// # Errors
    /// [`IdentityError`] naming the file that is wrong.
    pub fn read(creds: &Path) -> Result<Self, IdentityError> {
        let folder = creds.parent().unwrap_or(Path::new(""));
        let config = Config::read(&folder.join(RELAY_TOML))?;
        // Read once for its mode, and from then on at each login: it may be renewed meanwhile.
        read_secret(creds)?;
        let login = Login::from_creds_file(creds)
            .map_err(|source| IdentityError::Login { path: creds.to_owned(), source })?;
        let claims = login.claims();
        if claims.name != config.mid.as_str() {
            let expected = config.mid.to_string();
            return Err(IdentityError::OtherMachine { path: creds.to_owned(), name: claims.name, expected });
        }
        let seed_path = folder.join(SIGNING_SEED);
        let key = SigningKey::from_seed(&read_secret(&seed_path)?)
            .map_err(|_| IdentityError::Seed { path: seed_path.clone() })?;
        if key.public().as_str() == claims.subject {
            return Err(IdentityError::SharedSeed { path: seed_path });
        }
        Ok(Self { config, login, key })
    }

    /// The key that verifies what this relay signs.
    pub fn public_key(&self) -> &PublicKey {
        self.key.public()
    }
}

/// A file that this user alone can read.
pub(crate) fn read_secret(path: &Path) -> Result<String, IdentityError> {
    let failed = |source| IdentityError::File { path: path.to_owned(), source };
    let mode = fs::metadata(path).map_err(failed)?.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(IdentityError::Exposed { path: path.to_owned(), mode });
    }
    fs::read_to_string(path).map_err(failed)
}
