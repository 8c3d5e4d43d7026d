//! Changes of a vault: each is read, made and written under the lock.

use std::{fs, path::PathBuf, sync::Arc};

use signalbox_link::crash::{Part, Point, hit};
use signalbox_schemas::{
    credential::{CredentialLabel, CredentialValue},
    id::CredentialName,
    limit::{CREDENTIAL_VALUE_BYTES, CREDENTIALS},
};

use super::{
    Content, Entry, Vault, VaultError, disk,
    disk::failed,
    format::{File, Header},
    seal::{Kdf, Keys},
    secret::{LocalSecret, Readers},
    unwrap_with,
};
use crate::{
    clock::unix_ms,
    lock::make_store,
    private_file::{self, Draft},
};

/// Values are sealed in multiples of this, bytes.
const PADDED_BYTES: usize = 256;

/// A credential that comes from elsewhere, with the times that it has there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    /// What is known of it.
    pub label: CredentialLabel,
    /// The secret itself.
    pub value: CredentialValue,
    /// When it was made, Unix ms.
    pub created_at: u64,
    /// When it was last changed, Unix ms.
    pub updated_at: u64,
}

/// What became of an arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrived {
    /// It is new here.
    Added,
    /// It took the place of an older one.
    Replaced,
    /// The one of this name that is here is as new, or newer, and stays.
    Known,
    /// There is no room for more.
    Full,
}

/// The secret that a vault is to open with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NewSecret {
    /// A random one, in the store.
    Drawn,
    /// The one in this file, which is its place from then on.
    File(PathBuf),
}

impl Vault {
    /// Keeps a credential: a new one, or another value of one that is there, which keeps its time of making. The first one
    /// makes the vault, and its secret if none is named.
    ///
    /// # Errors
    /// [`VaultError`]; nothing has changed.
    pub fn put(&mut self, label: CredentialLabel, value: &CredentialValue) -> Result<(), VaultError> {
        check(&label, value)?;
        let _lock = self.begin()?;
        let mut content = self.content_or_new()?;
        let (place, known) = content.place_of(&label.name);
        if known.is_none() && content.entries.len() >= CREDENTIALS {
            return Err(VaultError::Full);
        }
        let now = unix_ms();
        let created_at = known.map_or(now, |known| known.created_at);
        let entry = content.seal(label, value, created_at, now.max(created_at))?;
        content.put(place, entry);
        self.commit(content)
    }

    /// Keeps credentials that come from elsewhere, all in one step, and says of each what became of it. One that is there
    /// gives way to a newer one only.
    ///
    /// # Errors
    /// [`VaultError`]; nothing has changed.
    pub fn take_in(&mut self, arrivals: &[Arrival]) -> Result<Vec<Arrived>, VaultError> {
        for arrival in arrivals {
            check(&arrival.label, &arrival.value)?;
        }
        if arrivals.is_empty() {
            return Ok(Vec::new());
        }
        let _lock = self.begin()?;
        let mut content = self.content_or_new()?;
        let mut outcomes = Vec::with_capacity(arrivals.len());
        for Arrival { label, value, created_at, updated_at } in arrivals {
            let (place, known) = content.place_of(&label.name);
            let outcome = match known {
                Some(known) if known.updated_at >= *updated_at => Arrived::Known,
                Some(_) => Arrived::Replaced,
                None if content.entries.len() >= CREDENTIALS => Arrived::Full,
                None => Arrived::Added,
            };
            if matches!(outcome, Arrived::Added | Arrived::Replaced) {
                let entry = content.seal(label.clone(), value, *created_at, *updated_at)?;
                content.put(place, entry);
            }
            outcomes.push(outcome);
        }
        if outcomes.iter().any(|outcome| matches!(outcome, Arrived::Added | Arrived::Replaced)) {
            self.commit(content)?;
        }
        Ok(outcomes)
    }

    /// Forgets a credential; whether it was there.
    ///
    /// # Errors
    /// [`VaultError`]; nothing has changed.
    pub fn remove(&mut self, name: &CredentialName) -> Result<bool, VaultError> {
        if !self.is_there()? {
            return Ok(false);
        }
        let _lock = self.begin()?;
        let Some(mut content) = self.content.clone() else { return Ok(false) };
        let Ok(at) = content.entries.binary_search_by(|entry| entry.label.name.cmp(name)) else {
            return Ok(false);
        };
        content.entries.remove(at);
        self.commit(content)?;
        Ok(true)
    }

    /// Draws a new data key and seals everything with it. The secret stays.
    ///
    /// # Errors
    /// [`VaultError`]; nothing has changed.
    pub fn rotate(&mut self) -> Result<(), VaultError> {
        let (_lock, old) = self.begin_on_one()?;
        // By the secret that it opens with now: one that was replaced since this process began would lock everybody out.
        let wrapping = old.header.kdf.derive(self.place.secret()?.as_bytes())?;
        if Keys::unwrap(&wrapping, &old.header.wrapped_key, &old.header.kdf)?.is_none() {
            let secret = self.place.secret_file();
            return Err(VaultError::WrongSecret { path: self.place.file(), secret });
        }
        let (kdf, keys) = (old.header.kdf.clone(), Keys::draw()?);
        let wrapped_key = keys.wrap(&wrapping, &kdf)?;
        let header = Header { kdf, wrapped_key };
        let mut new =
            Content { header, keys: Arc::new(keys), entries: Vec::with_capacity(old.entries.len()) };
        for entry in &old.entries {
            let value = old.open(entry, &self.place)?;
            let entry = new.seal(entry.label.clone(), &value, entry.created_at, entry.updated_at)?;
            new.entries.push(entry);
        }
        self.commit(new)
    }

    /// Wraps the data key with another secret. One that lies in the store is gone afterwards, and where another process
    /// has the vault open it goes on with its key.
    ///
    /// # Errors
    /// [`VaultError`]; the vault opens with the secret that it had, unless the file had been replaced already: then it opens
    /// with either until the next change.
    pub fn rewrap(&mut self, to: &NewSecret) -> Result<(), VaultError> {
        let (_lock, mut content) = self.begin_on_one()?;
        let next = match to {
            NewSecret::Drawn => LocalSecret::draw()?,
            NewSecret::File(path) => LocalSecret::read(path, Readers::Group)?,
        };
        let kdf = Kdf::draw()?;
        let wrapped_key = content.keys.wrap(&kdf.derive(next.as_bytes())?, &kdf)?;
        content.header = Header { kdf, wrapped_key };
        let was_own = self.place.secret_file.is_none();
        match to {
            NewSecret::Drawn => {
                let path = self.place.next_secret_file();
                private_file::replace(&path, &next.to_file()).map_err(failed("written", &path))?;
                hit(Part::Relay, Point::VaultSecretDrafted);
                self.commit(content)?;
                self.place.secret_file = None;
                self.finish_rewrap()
            }
            NewSecret::File(path) => {
                self.commit(content)?;
                let own = self.place.secret_file();
                self.place.secret_file = Some(path.clone());
                if was_own && own != *path {
                    private_file::remove_if_there(&own).map_err(failed("removed", &own))?;
                }
                Ok(())
            }
        }
    }

    fn is_there(&self) -> Result<bool, VaultError> {
        Ok(disk::stamp(&self.place.file())?.is_some())
    }

    /// Takes the lock and reads what is there now.
    fn begin(&mut self) -> Result<fs::File, VaultError> {
        let store = &self.place.store;
        make_store(store).map_err(failed("made", store))?;
        disk::hide(store, 0o700)?;
        let lock = disk::lock(&self.place.lock_file(), &self.place.file())?;
        self.refresh()?;
        self.finish_rewrap()?;
        Ok(lock)
    }

    /// The same for what needs a vault to change.
    fn begin_on_one(&mut self) -> Result<(fs::File, Content), VaultError> {
        let none = VaultError::NoVault { path: self.place.file() };
        if !self.is_there()? {
            return Err(none);
        }
        let lock = self.begin()?;
        let content = self.content.clone().ok_or(none)?;
        Ok((lock, content))
    }

    /// Ends a change of secrets: the next one takes its place if it is the one that the vault opens with.
    fn finish_rewrap(&self) -> Result<(), VaultError> {
        let Some(next) = self.place.next_secret()? else { return Ok(()) };
        let (own, path) = (self.place.secret_file(), self.place.next_secret_file());
        let opens = match &self.content {
            Some(content) => unwrap_with(&content.header, &next)?.is_some(),
            None => false,
        };
        if !opens {
            return fs::remove_file(&path).map_err(failed("removed", &path));
        }
        fs::rename(&path, &own).map_err(failed("put in place", &path))?;
        private_file::sync_folder(&self.place.store).map_err(failed("synced", &self.place.store))
    }

    /// What is there, or a new vault that is not written yet.
    fn content_or_new(&self) -> Result<Content, VaultError> {
        if let Some(content) = &self.content {
            return Ok(content.clone());
        }
        let secret = match self.place.secret() {
            Err(VaultError::NoSecret { .. }) if self.place.secret_file.is_none() => {
                let (path, secret) = (self.place.secret_file(), LocalSecret::draw()?);
                private_file::replace(&path, &secret.to_file()).map_err(failed("written", &path))?;
                secret
            }
            secret => secret?,
        };
        let (kdf, keys) = (Kdf::draw()?, Keys::draw()?);
        let wrapped_key = keys.wrap(&kdf.derive(secret.as_bytes())?, &kdf)?;
        Ok(Content { header: Header { kdf, wrapped_key }, keys: Arc::new(keys), entries: Vec::new() })
    }

    /// Writes the next state. Until the file is replaced, whatever fails leaves the old one.
    fn commit(&mut self, content: Content) -> Result<(), VaultError> {
        let path = self.place.file();
        let seal = content.keys.seal_all(&File::sealed_bytes(&content.header, &content.entries))?;
        let bytes = File::new(content.header.clone(), content.entries.clone(), seal).to_bytes();
        let draft = Draft::write(&path, &bytes).map_err(failed("written", &path))?;
        hit(Part::Relay, Point::VaultDrafted);
        draft.put_in_place().map_err(failed("written", &path))?;
        hit(Part::Relay, Point::VaultReplaced);
        self.stamp = disk::stamp(&path)?;
        self.content = Some(content);
        Ok(())
    }
}

/// The rules for what is kept.
fn check(label: &CredentialLabel, value: &CredentialValue) -> Result<(), VaultError> {
    let name = || label.name.clone();
    label.validate().map_err(|rule| VaultError::Label { name: name(), rule })?;
    if label.credential_type != value.credential_type() {
        let (label, value) = (label.credential_type, value.credential_type());
        return Err(VaultError::Type { name: name(), label, value });
    }
    if value.to_json().len() > CREDENTIAL_VALUE_BYTES {
        return Err(VaultError::TooLarge { name: name() });
    }
    Ok(())
}

impl Content {
    /// Where a name stands or would stand, and what stands there.
    fn place_of(&self, name: &CredentialName) -> (Result<usize, usize>, Option<&Entry>) {
        let place = self.entries.binary_search_by(|entry| entry.label.name.cmp(name));
        (place, place.ok().and_then(|at| self.entries.get(at)))
    }

    fn put(&mut self, place: Result<usize, usize>, entry: Entry) {
        match place {
            Ok(at) => self.entries.splice(at..=at, [entry]).for_each(drop),
            Err(at) => self.entries.insert(at, entry),
        }
    }

    fn seal(
        &self,
        label: CredentialLabel,
        value: &CredentialValue,
        created_at: u64,
        updated_at: u64,
    ) -> Result<Entry, VaultError> {
        let context = Entry::context(&label, created_at, updated_at);
        let mut json = value.to_json();
        // White space behind it is still JSON, and how long a password is stays unknown.
        let length = json.len();
        json.resize(length.next_multiple_of(PADDED_BYTES).min(CREDENTIAL_VALUE_BYTES).max(length), b' ');
        let sealed = self.keys.seal_value(&json, &context)?;
        Ok(Entry { label, created_at, updated_at, sealed })
    }
}
