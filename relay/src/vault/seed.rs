//! Credentials of the relay that this program replaces: its store, and values that its center hands out. Pure.
//!
//! ```text
//! credentials.enc  {"salt", "data"}, data = iv ":" tag ":" ciphertext, all of them hexadecimal
//! key              PBKDF2-HMAC-SHA-256(API key ":" machine id; the salt's text; 100,000 rounds)
//! machine id       the first 32 digits of SHA-256(host name ":" platform ":" /etc/machine-id)
//! shared value     iv ":" tag ":" ciphertext, with the key SHA-256(shared secret)
//! ```
//!
//! Both are AES-256-GCM with an IV of any length.

mod gcm;

use data_encoding::HEXLOWER;
use orion::hazardous::kdf::pbkdf2::{Pbkdf2, SHA256};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use signalbox_schemas::{
    Secret,
    credential::{CredentialLabel, CredentialType, CredentialValue, StorageMode},
    host::HostPattern,
    id::CredentialName,
    limit::CREDENTIAL_VALUE_BYTES,
    number::as_amount,
};
use zeroize::Zeroizing;

use super::Arrival;

/// Rounds of PBKDF2.
const ROUNDS: usize = 100_000;
/// Digits of a salt.
const SALT_DIGITS: usize = 64;
/// Digits of a machine id.
const ID_DIGITS: usize = 32;
/// Largest store that is read, bytes.
pub const MAX_STORE_BYTES: u64 = 64 * 1024 * 1024;
/// Longest shared value that is read, bytes.
pub const MAX_SHARED_BYTES: usize = 256 * 1024;
/// So many characters of a foreign name are shown.
const SHOWN_CHARS: usize = 60;
/// The user of a private key that names none.
const DEFAULT_USER: &str = "root";

/// What was sealed elsewhere cannot be opened. Never retryable without help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SeedFault {
    /// It has not the form that it should have.
    #[error("it is no such store: {0}")]
    Malformed(&'static str),
    /// Key, host name or machine id are others, or it was changed.
    #[error(
        "it does not open: the API key is another than the one it was made with, it was made on a machine with another \
         host name or machine id (`--hostname`, `--machine-id`), or it was changed"
    )]
    Sealed,
}

/// What a store holds.
#[derive(Debug, PartialEq, Eq)]
pub struct Seed {
    /// What can be kept.
    pub arrivals: Vec<Arrival>,
    /// What cannot.
    pub refused: Vec<Refused>,
}

/// A credential that cannot be kept here.
#[derive(Debug, PartialEq, Eq)]
pub struct Refused {
    /// How it is called there, so that it can be shown.
    pub name: String,
    /// Why.
    pub why: String,
}

/// The id that a machine has for its store. `specific` is the text of `/etc/machine-id`; an empty one counts as none.
pub fn machine_id(hostname: &str, platform: &str, specific: &str) -> String {
    let specific = match specific.trim() {
        "" => "default",
        text => text,
    };
    let mut digits = HEXLOWER.encode(&Sha256::digest(format!("{hostname}:{platform}:{specific}")));
    digits.truncate(ID_DIGITS);
    digits
}

#[derive(Deserialize)]
struct Outer {
    salt: String,
    data: String,
}

#[derive(Deserialize)]
struct Inner {
    version: serde_json::Number,
    credentials: Vec<Kept>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kept {
    name: String,
    #[serde(rename = "type")]
    credential_type: CredentialType,
    value: Secret,
    #[serde(default)]
    target_host: Option<String>,
    storage_mode: StorageMode,
    created_at: serde_json::Number,
    updated_at: serde_json::Number,
}

/// Opens a store.
///
/// # Errors
/// [`SeedFault`]. What cannot be kept of what is in it is no error.
pub fn open_store(bytes: &[u8], api_key: &str, machine_id: &str) -> Result<Seed, SeedFault> {
    let (salt, sealed) = parse(bytes)?;
    let key = store_key(api_key, machine_id, &salt).ok_or(SeedFault::Malformed("no key can be derived"))?;
    let text = sealed.open(&key).ok_or(SeedFault::Sealed)?;
    read(&text)
}

/// Takes a store apart, before a key is derived, which takes a while.
fn parse(bytes: &[u8]) -> Result<(String, gcm::Sealed), SeedFault> {
    if bytes.len() as u64 > MAX_STORE_BYTES {
        return Err(SeedFault::Malformed("it is larger than any such store"));
    }
    let outer: Outer = serde_json::from_slice(bytes)
        .map_err(|_| SeedFault::Malformed("it is no JSON with `salt` and `data`"))?;
    if outer.salt.len() != SALT_DIGITS || !outer.salt.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Err(SeedFault::Malformed("its salt has not 64 hexadecimal digits"));
    }
    let sealed =
        gcm::parse(&outer.data).ok_or(SeedFault::Malformed("its data is not `iv:tag:ciphertext`"))?;
    Ok((outer.salt, sealed))
}

/// Reads what was sealed.
fn read(text: &[u8]) -> Result<Seed, SeedFault> {
    let no_list = SeedFault::Malformed("what is sealed in it is no list of credentials");
    let inner: Inner = serde_json::from_slice(text).map_err(|_| no_list)?;
    if inner.version.as_f64() != Some(1.0) {
        return Err(SeedFault::Malformed("its version is another than 1"));
    }
    let mut seed = Seed { arrivals: Vec::new(), refused: Vec::new() };
    for kept in inner.credentials {
        let name = shown(&kept.name);
        match arrival(kept) {
            Ok(arrival) => seed.arrivals.push(arrival),
            Err(why) => seed.refused.push(Refused { name, why }),
        }
    }
    Ok(seed)
}

/// Opens a value that a center of the older system hands out, with the secret that it shares with its relays.
///
/// # Errors
/// [`SeedFault`].
pub fn open_shared_value(secret: &str, text: &str) -> Result<Secret, SeedFault> {
    if text.len() > MAX_SHARED_BYTES {
        return Err(SeedFault::Malformed("it is longer than any shared value"));
    }
    let sealed = gcm::parse(text).ok_or(SeedFault::Malformed("it is not `iv:tag:ciphertext`"))?;
    let key = Zeroizing::new(Sha256::digest(secret.as_bytes()).into());
    let value = sealed.open(&key).ok_or(SeedFault::Sealed)?;
    let text = std::str::from_utf8(&value).map_err(|_| SeedFault::Malformed("what is sealed is no text"))?;
    Ok(Secret::new(text.to_owned()))
}

/// A credential that a center of the older system hands out.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SharedCredential {
    /// What it is called.
    pub name: String,
    credential_type: CredentialType,
    #[serde(default)]
    target_host: Option<String>,
    encrypted_value: String,
    updated_at: serde_json::Number,
}

impl SharedCredential {
    /// Opens it with the secret that center and relays share.
    ///
    /// # Errors
    /// Why it cannot be kept, for people.
    pub fn open(&self, secret: &Secret) -> Result<Arrival, String> {
        let value = open_shared_value(secret.expose(), &self.encrypted_value);
        let value = value.map_err(|fault| match fault {
            SeedFault::Sealed => "it does not open: it was sealed with another secret, or changed".to_owned(),
            fault @ SeedFault::Malformed(_) => fault.to_string(),
        })?;
        arrival(Kept {
            name: self.name.clone(),
            credential_type: self.credential_type,
            value,
            target_host: self.target_host.clone(),
            storage_mode: StorageMode::Shared,
            created_at: self.updated_at.clone(),
            updated_at: self.updated_at.clone(),
        })
    }
}

fn store_key(api_key: &str, machine_id: &str, salt: &str) -> Option<Zeroizing<[u8; 32]>> {
    let mut password = Zeroizing::new(String::with_capacity(api_key.len() + machine_id.len() + 1));
    password.push_str(api_key);
    password.push(':');
    password.push_str(machine_id);
    let mut key = Zeroizing::new([0; 32]);
    Pbkdf2::<SHA256>::derive_key(password.as_bytes(), salt.as_bytes(), ROUNDS, &mut key[..]).ok()?;
    Some(key)
}

fn arrival(kept: Kept) -> Result<Arrival, String> {
    let name = CredentialName::new(&kept.name).map_err(|error| error.to_string())?;
    // A host and nothing else: a star there was a letter.
    let target = kept.target_host.as_deref().map(|host| HostPattern::of(host, None)).transpose();
    let target = target.map_err(|_| {
        format!("its target {:?} is no host", shown(kept.target_host.as_deref().unwrap_or_default()))
    })?;
    let (username, value) = value(kept.credential_type, kept.value)?;
    let credential_type = kept.credential_type;
    let label = CredentialLabel { name, credential_type, target, username, storage_mode: kept.storage_mode };
    label.validate().map_err(str::to_owned)?;
    if value.to_json().len() > CREDENTIAL_VALUE_BYTES {
        return Err("its value is longer than a relay keeps".to_owned());
    }
    Ok(Arrival { label, value, created_at: unix_ms(&kept.created_at), updated_at: unix_ms(&kept.updated_at) })
}

/// A private key with its user, as an older relay keeps it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct UserKey {
    username: String,
    private_key: Secret,
}

/// A value and its user. A private key is its text, of `root`, or JSON that names the user too.
fn value(credential_type: CredentialType, text: Secret) -> Result<(Option<String>, CredentialValue), String> {
    if text.expose().is_empty() {
        return Err("its value is empty".to_owned());
    }
    Ok(match credential_type {
        CredentialType::Password => (None, CredentialValue::Password { password: text }),
        CredentialType::ApiKey => (None, CredentialValue::ApiKey { key: text }),
        CredentialType::SshKey => {
            let is_json = text.expose().trim_start().starts_with('{');
            let (username, key) = if is_json {
                let no_key = |_| "its value is JSON without `username` and `privateKey`".to_owned();
                let UserKey { username, private_key } =
                    serde_json::from_str(text.expose()).map_err(no_key)?;
                (username, private_key)
            } else {
                (DEFAULT_USER.to_owned(), text)
            };
            (Some(username), CredentialValue::SshKey { key, passphrase: None, certificate: None })
        }
    })
}

/// A time as it was counted there: a number of any kind, brought into its range.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is within the range")]
fn unix_ms(number: &serde_json::Number) -> u64 {
    as_amount(number.as_f64().unwrap_or_default()) as u64
}

/// A foreign text, so that it can be shown.
fn shown(text: &str) -> String {
    text.chars().take(SHOWN_CHARS).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(fuzzing)]
pub(crate) mod fuzzing {
    use super::{parse, read};

    /// A store and, as if it had been sealed, what is in one.
    pub(crate) fn store(bytes: &[u8]) {
        if let Ok((_, sealed)) = parse(bytes) {
            assert!(sealed.open(&[7; 32]).is_none(), "another key opens it");
        }
        if let Ok(seed) = read(bytes) {
            assert!(seed.arrivals.iter().all(|arrival| arrival.label.validate().is_ok()));
            assert!(seed.refused.iter().all(|refused| !refused.name.contains(char::is_control)));
        }
    }
}

#[cfg(test)]
mod tests;
