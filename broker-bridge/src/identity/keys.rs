//! Secrets on disk: nkey seeds and random tokens, made once and kept.
//!
//! Every secret lies in a file of its own, 0600. In memory it is a [`Secret`], which is wiped when it goes and
//! never printed.

use std::{fmt, hint::black_box, path::Path};

use data_encoding::BASE64URL_NOPAD;
use nkeys::{KeyPair, KeyPairType};

use super::{InitError, state_dir};

/// First characters of an administrator's bearer token, so that one is recognised where it should not be.
const ADMIN_TOKEN_PREFIX: &str = "sbt_";
/// Random bytes of a bearer token and of the pepper.
const RANDOM_BYTES: usize = 32;

/// Bytes that are wiped when they go, and never printed.
pub struct Secret(Vec<u8>);

impl Secret {
    /// Takes ownership of `bytes`.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The bytes, white space at both ends left out: files end in a newline.
    pub fn bytes(&self) -> &[u8] {
        self.0.trim_ascii()
    }

    /// The same as text; empty when it is none, which is a valid secret nowhere.
    pub fn text(&self) -> &str {
        std::str::from_utf8(self.bytes()).unwrap_or_default()
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.fill(0);
        // Keeps the compiler from leaving the fill out because nobody reads it.
        black_box(&self.0);
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(<set>)")
    }
}

/// The seed of `pair`.
pub(crate) fn seed_of(pair: &KeyPair) -> Result<Secret, InitError> {
    let seed = pair.seed().map_err(|_| InitError::Key { what: "a new key".into() })?;
    Ok(Secret::new(seed.into_bytes()))
}

/// Reads a seed of `kind`.
pub(crate) fn pair_from(seed: &Secret, kind: &KeyPairType, path: &Path) -> Result<KeyPair, InitError> {
    let pair = KeyPair::from_seed(seed.text()).ok();
    let pair = pair.filter(|pair| pair.key_pair_type() == *kind);
    pair.ok_or_else(|| InitError::Key { what: path.display().to_string() })
}

/// The key whose seed lies at `path`; made at first use.
pub(crate) fn pair_at(path: &Path, kind: KeyPairType) -> Result<KeyPair, InitError> {
    if let Some(seed) = state_dir::read_private(path)? {
        return pair_from(&Secret::new(seed), &kind, path);
    }
    let pair = KeyPair::new(kind);
    let seed = seed_of(&pair)?;
    state_dir::write_private(path, &[seed.bytes(), b"\n"].concat())?;
    Ok(pair)
}

/// The bearer token at `path`, made at first use.
pub(crate) fn ensure_admin_token(path: &Path) -> Result<(), InitError> {
    ensure_random(path, ADMIN_TOKEN_PREFIX)
}

/// The secret that API keys are hashed with, at `path`, made at first use.
pub(crate) fn ensure_pepper(path: &Path) -> Result<(), InitError> {
    ensure_random(path, "")
}

fn ensure_random(path: &Path, prefix: &str) -> Result<(), InitError> {
    if state_dir::read_private(path)?.is_some() {
        return Ok(());
    }
    let mut bytes = [0; RANDOM_BYTES];
    orion::util::secure_rand_bytes(&mut bytes).map_err(|_| InitError::Random)?;
    let text = Secret::new(format!("{prefix}{}\n", BASE64URL_NOPAD.encode(&bytes)).into_bytes());
    bytes.fill(0);
    Ok(state_dir::write_private(path, &text.0)?)
}

/// Reads back what [`ensure_pepper`] wrote.
pub(crate) fn read_pepper(path: &Path) -> Result<[u8; RANDOM_BYTES], InitError> {
    let text = Secret::new(state_dir::require_private(path)?);
    let bytes = BASE64URL_NOPAD.decode(text.bytes()).ok().and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or_else(|| InitError::Key { what: path.display().to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_made_once_and_never_printed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.seed");
        let first = pair_at(&path, KeyPairType::Account).unwrap();
        let second = pair_at(&path, KeyPairType::Account).unwrap();
        assert_eq!(first.public_key(), second.public_key());
        assert!(pair_at(&path, KeyPairType::User).is_err(), "a key of another kind was taken");
        assert!(!format!("{:?}", seed_of(&first).unwrap()).contains("SA"));
    }

    #[test]
    fn the_pepper_is_read_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.seed");
        ensure_pepper(&path).unwrap();
        let pepper = read_pepper(&path).unwrap();
        ensure_pepper(&path).unwrap();
        assert_eq!(read_pepper(&path).unwrap(), pepper);
        assert_ne!(pepper, [0; RANDOM_BYTES]);
    }
}
