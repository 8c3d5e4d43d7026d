//! The credentials of a relay: one file, whose values open with a secret of this machine. Blocks.
//!
//! ```text
//! STORE/vault.json    0600  labels, times, sealed values; see `format`
//! STORE/vault.secret  0600  what it opens with, made with it; or the file that `vault_secret_file` in relay.toml names
//! STORE/vault.lock    0600  held with flock by who changes it
//! ```
//!
//! The relay and `signalbox-relay credentials` use it at once. A change is read, made and written under the lock: a draft
//! beside the file, synced, renamed over it, and the folder synced. So whoever reads sees one state or the next one,
//! without a lock, and who dies at any moment leaves one of them. What is in memory is read anew when the file is another.
//!
//! Whoever has file and secret has all values: the secret keeps those out who get hold of a copy of the store without it,
//! which is why a service manager may keep it elsewhere. What no seal shows is that the whole file was replaced by an older
//! one of its own.

mod disk;
mod edit;
mod error;
mod find;
mod format;
pub(crate) mod hold;
pub mod key;
mod seal;
mod secret;
pub mod seed;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use signalbox_schemas::{
    credential::{CredentialMeta, CredentialValue},
    id::CredentialName,
};

pub use edit::{Arrival, Arrived, NewSecret};
pub use error::VaultError;
pub use format::Entry;

pub(crate) use disk::Stamp;
use format::{Fault, File, Header, MAX_FILE_BYTES};
use seal::Keys;
use secret::{LocalSecret, Readers};

/// Names of the files in the store.
const FILE: &str = "vault.json";
const LOCK: &str = "vault.lock";
const SECRET: &str = "vault.secret";
/// The secret that is about to be [`SECRET`]: it is there before the vault is wrapped with it, and until it has its place.
const NEXT_SECRET: &str = "vault.secret.next";
/// A reader that meets a change reads again; changes follow one another, but not this often.
const READ_ATTEMPTS: u32 = 4;

/// Where a vault is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VaultPlace {
    store: PathBuf,
    secret_file: Option<PathBuf>,
}

impl VaultPlace {
    /// That of a store. `secret_file` is what relay.toml names as `vault_secret_file`: an absolute path of a file with 1 to
    /// 4096 bytes. Without it the secret lies in the store.
    pub fn new(store: &Path, secret_file: Option<&Path>) -> Self {
        Self { store: store.to_owned(), secret_file: secret_file.map(Path::to_owned) }
    }

    /// The vault's file.
    pub fn file(&self) -> PathBuf {
        self.store.join(FILE)
    }

    /// The file with the secret that it opens with.
    pub fn secret_file(&self) -> PathBuf {
        self.secret_file.clone().unwrap_or_else(|| self.store.join(SECRET))
    }

    fn lock_file(&self) -> PathBuf {
        self.store.join(LOCK)
    }

    fn next_secret_file(&self) -> PathBuf {
        self.store.join(NEXT_SECRET)
    }

    /// The secret that should open it.
    fn secret(&self) -> Result<LocalSecret, VaultError> {
        let readers = if self.secret_file.is_some() { Readers::Group } else { Readers::Owner };
        LocalSecret::read(&self.secret_file(), readers)
    }

    /// The secret of a change of secrets that was cut short, if there is one.
    fn next_secret(&self) -> Result<Option<LocalSecret>, VaultError> {
        if self.secret_file.is_some() {
            return Ok(None);
        }
        match LocalSecret::read(&self.next_secret_file(), Readers::Owner) {
            Ok(secret) => Ok(Some(secret)),
            Err(VaultError::NoSecret { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// An opened vault: labels in clear, the key in memory, values sealed until they are asked for.
#[derive(Debug)]
pub struct Vault {
    place: VaultPlace,
    stamp: Option<Stamp>,
    content: Option<Content>,
}

/// What a file says that was believed.
#[derive(Debug, Clone)]
struct Content {
    header: Header,
    keys: Arc<Keys>,
    entries: Vec<Entry>,
}

impl Vault {
    /// Opens the vault of a place. Where there is no file it is empty, and none is made. Takes some ten milliseconds, and as
    /// much memory as the file's header says, at most 256 MiB.
    ///
    /// # Errors
    /// [`VaultError`].
    pub fn open(place: VaultPlace) -> Result<Self, VaultError> {
        let mut vault = Self { place, stamp: None, content: None };
        vault.refresh()?;
        Ok(vault)
    }

    /// Where it is.
    pub fn place(&self) -> &VaultPlace {
        &self.place
    }

    /// Reads it anew if the file is another than the one that was read; whether it was. Otherwise it costs one look. The
    /// secret is needed only where the key is another.
    ///
    /// # Errors
    /// [`VaultError`]; then it has what it had, and the next refresh tries again.
    pub fn refresh(&mut self) -> Result<bool, VaultError> {
        let path = self.place.file();
        let mut attempts = READ_ATTEMPTS;
        loop {
            attempts -= 1;
            let before = disk::stamp(&path)?;
            if before == self.stamp {
                return Ok(false);
            }
            match self.read(&path) {
                Ok(read) => (self.content, self.stamp) = read,
                // It was replaced meanwhile, and with it perhaps the secret.
                Err(_) if attempts > 0 && disk::stamp(&path)? != before => continue,
                Err(error) => return Err(error),
            }
            return Ok(true);
        }
    }

    fn read(&self, path: &Path) -> Result<(Option<Content>, Option<Stamp>), VaultError> {
        if disk::stamp(path)?.is_some() {
            disk::hide(path, 0o600)?;
        }
        let Some((bytes, stamp)) = disk::read(path, MAX_FILE_BYTES)? else { return Ok((None, None)) };
        Ok((Some(self.believe(&bytes)?), Some(stamp)))
    }

    /// Checks a file by the key that is in memory, or by the one that the secret unwraps.
    fn believe(&self, bytes: &[u8]) -> Result<Content, VaultError> {
        let path = self.place.file();
        let file = File::parse(bytes).map_err(|fault| match fault {
            Fault::Damaged(why) => VaultError::Damaged { path: path.clone(), why },
            Fault::Newer(version) => VaultError::Newer { path: path.clone(), version },
        })?;
        let sealed = File::sealed_bytes(&file.header, &file.records);
        let is_sealed = |keys: &Keys| keys.is_seal_of(&file.seal, &sealed);
        let known = self.content.as_ref().map(|content| &content.keys).filter(|keys| is_sealed(keys));
        let keys = match known {
            Some(keys) => Arc::clone(keys),
            None => Arc::new(self.unwrap(&file.header)?),
        };
        if !is_sealed(&keys) {
            return Err(VaultError::Tampered { path });
        }
        Ok(Content { header: file.header, keys, entries: file.records })
    }

    fn unwrap(&self, header: &Header) -> Result<Keys, VaultError> {
        let own = self.place.secret();
        for secret in [own.as_ref().ok(), self.place.next_secret()?.as_ref()].into_iter().flatten() {
            if let Some(keys) = unwrap_with(header, secret)? {
                return Ok(keys);
            }
        }
        own?;
        Err(VaultError::WrongSecret { path: self.place.file(), secret: self.place.secret_file() })
    }

    /// Its credentials, sorted by name.
    pub fn entries(&self) -> &[Entry] {
        self.content.as_ref().map_or(&[], |content| &content.entries)
    }

    /// One of its credentials.
    pub fn entry(&self, name: &CredentialName) -> Option<&Entry> {
        let at = self.entries().binary_search_by(|entry| entry.label.name.cmp(name)).ok()?;
        self.entries().get(at)
    }

    /// Opens one value.
    ///
    /// # Errors
    /// [`VaultError::Unknown`]; [`VaultError::Tampered`], which cannot be after the file was believed.
    pub fn value(&self, name: &CredentialName) -> Result<CredentialValue, VaultError> {
        let unknown = || VaultError::Unknown { name: name.clone() };
        let entry = self.entry(name).ok_or_else(unknown)?;
        self.content.as_ref().ok_or_else(unknown)?.open(entry, &self.place)
    }

    /// The credentials for a host, the best first:
    ///
    /// 1. whose pattern means it most closely (the host itself before a network before a glob, the longer one first, one with
    ///    a port before one without);
    /// 2. of equally close ones, when a `username` is asked for: those that have exactly this one, then those that have none.
    ///    Those that have another are used too, with the user that was asked for, but only where no equally close one has
    ///    exactly that user;
    /// 3. the one that was changed last;
    /// 4. by name.
    ///
    /// So the closeness of a pattern goes before the user, and the user that a command names goes before the credential's
    /// own. Credentials of every type are answered; those without a target never are.
    pub fn find(&self, host: &str, port: u16, username: Option<&str>) -> Vec<&Entry> {
        find::find(self.entries(), host, port, username)
    }
}

fn unwrap_with(header: &Header, secret: &LocalSecret) -> Result<Option<Keys>, VaultError> {
    let wrapping = header.kdf.derive(secret.as_bytes())?;
    Keys::unwrap(&wrapping, &header.wrapped_key, &header.kdf)
}

impl Content {
    fn open(&self, entry: &Entry, place: &VaultPlace) -> Result<CredentialValue, VaultError> {
        let context = Entry::context(&entry.label, entry.created_at, entry.updated_at);
        let json = self.keys.open_value(&entry.sealed, &context);
        let value = json.and_then(|json| CredentialValue::from_json(&json).ok());
        value.ok_or_else(|| VaultError::Tampered { path: place.file() })
    }
}

impl Entry {
    /// What others are told of it.
    pub fn meta(&self) -> CredentialMeta {
        let Self { label, created_at, updated_at, .. } = self;
        CredentialMeta {
            credential_name: label.name.to_string(),
            credential_type: label.credential_type,
            target_host: label.target.as_ref().map(ToString::to_string),
            storage_mode: label.storage_mode,
            last_updated_at: *updated_at,
            username: label.username.clone(),
            created_at: Some(*created_at),
        }
    }
}

#[cfg(fuzzing)]
pub(crate) mod fuzzing {
    use super::{File, Keys};

    /// A file is what it says, and nobody's who has not its key.
    pub(crate) fn file(bytes: &[u8]) {
        let Ok(file) = File::parse(bytes) else { return };
        let sealed = File::sealed_bytes(&file.header, &file.records);
        assert_eq!(File::parse(&file.to_bytes()).as_ref(), Ok(&file), "it is read back as another");
        let Ok(keys) = Keys::draw() else { return };
        assert!(!keys.is_seal_of(&file.seal, &sealed), "somebody else's seal counts");
        assert!(file.records.iter().all(|entry| keys.open_value(&entry.sealed, b"").is_none()));
    }
}

#[cfg(test)]
mod tests;
