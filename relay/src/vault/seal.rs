//! Keys of a vault and what they seal. Pure, but for the random bytes.
//!
//! ```text
//! wrapping key = Argon2id(local secret; salt, memory, passes, lanes)     all but the secret in the header
//! wrapped      = XChaCha20-Poly1305(wrapping key; the header's other members; data key)
//! value key    = BLAKE2b(data key; "value")                seal key = BLAKE2b(data key; "seal")
//! sealed       = XChaCha20-Poly1305(value key; name, label and times; the value as JSON)      one record each
//! seal         = BLAKE2b(seal key; version, header and records, as JSON)                      over all of it
//! ```
//!
//! What is sealed is `nonce ‖ ciphertext ‖ tag`, with a nonce of 24 random bytes.

use std::fmt;

use orion::hazardous::{
    aead::xchacha20poly1305::{Nonce, SecretKey, XChaCha20Poly1305},
    mac::blake2b::{Blake2b, SecretKey as MacKey, Tag},
};
use orion::kdf::{self, CostParams, Password, Salt};
use serde::{Deserialize, Serialize};
use signalbox_schemas::Base64Url;
use zeroize::Zeroizing;

use super::VaultError;

/// Bytes of each key.
pub(super) const KEY_BYTES: usize = KEY_LENGTH as usize;
const KEY_LENGTH: u32 = 32;
const NONCE_BYTES: usize = 24;
const TAG_BYTES: usize = 16;
/// Bytes of the seal over a file.
pub(super) const SEAL_BYTES: usize = 32;
/// What is sealed is longer by so much.
pub(super) const EXTRA_BYTES: usize = NONCE_BYTES + TAG_BYTES;

/// What a vault of this program costs to open: 19 MiB, two passes, one lane.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;
const SALT_BYTES: usize = 16;
/// Most that a file may ask for, so that a foreign one costs little: 256 MiB, and about half a second.
const MOST_MEMORY_KIB: u32 = 256 * 1024;
const MOST_PASSES: u32 = 8;
const MOST_LANES: u32 = 4;
const MOST_WORK_KIB: u32 = 2 * MOST_MEMORY_KIB;
const SALT_RANGE: std::ops::RangeInclusive<usize> = 16..=64;

/// How a wrapping key is derived.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Kdf {
    algorithm: Algorithm,
    memory_kib: u32,
    passes: u32,
    lanes: u32,
    salt: Base64Url,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Algorithm {
    #[serde(rename = "argon2id")]
    Argon2id,
}

impl Kdf {
    /// The usual cost, and a salt of its own.
    pub(super) fn draw() -> Result<Self, VaultError> {
        let salt = Base64Url(random::<SALT_BYTES>()?.to_vec());
        Ok(Self {
            algorithm: Algorithm::Argon2id,
            memory_kib: MEMORY_KIB,
            passes: PASSES,
            lanes: LANES,
            salt,
        })
    }

    /// Whether a foreign header asks for no more than it may.
    pub(super) fn is_within_bounds(&self) -> bool {
        let Self { memory_kib, passes, lanes, salt, .. } = self;
        (1..=MOST_LANES).contains(lanes)
            && (8 * lanes..=MOST_MEMORY_KIB).contains(memory_kib)
            && (1..=MOST_PASSES).contains(passes)
            && memory_kib.saturating_mul(*passes) <= MOST_WORK_KIB
            && SALT_RANGE.contains(&salt.0.len())
    }

    /// The key that a local secret makes. Takes tens of milliseconds and [`MEMORY_KIB`].
    pub(super) fn derive(&self, secret: &[u8]) -> Result<Key, VaultError> {
        let failed = |_| VaultError::Seal("Argon2id refuses its parameters");
        let cost = CostParams::new(self.passes, self.memory_kib, self.lanes).map_err(failed)?;
        let salt = Salt::try_from(&self.salt.0[..]).map_err(failed)?;
        let secret = Password::try_from(secret).map_err(failed)?;
        let derived = kdf::derive_key(&secret, &salt, &cost, KEY_LENGTH).map_err(failed)?;
        Key::copy(derived.unprotected_as_ref())
    }

    /// What a wrapped data key is bound to.
    fn context(&self) -> Vec<u8> {
        context("data key", &serde_json::to_vec(self).unwrap_or_default())
    }
}

/// A key. Wiped when it is dropped, and never printed.
pub(super) struct Key(Zeroizing<[u8; KEY_BYTES]>);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

impl Key {
    fn copy(bytes: &[u8]) -> Result<Self, VaultError> {
        let bytes = bytes.try_into().map_err(|_| VaultError::Seal("a key has another length"))?;
        Ok(Self(Zeroizing::new(bytes)))
    }

    fn draw() -> Result<Self, VaultError> {
        let mut key = Self(Zeroizing::new([0; KEY_BYTES]));
        fill(&mut key.0[..])?;
        Ok(key)
    }

    fn seal(&self, value: &[u8], context: &[u8]) -> Result<Base64Url, VaultError> {
        let failed = |_| VaultError::Seal("a value cannot be empty");
        let nonce = random::<NONCE_BYTES>()?;
        let mut body = nonce.to_vec();
        body.resize(NONCE_BYTES + value.len() + TAG_BYTES, 0);
        let (_, sealed) = body.split_at_mut(NONCE_BYTES);
        let key = SecretKey::try_from(&self.0[..]).map_err(failed)?;
        XChaCha20Poly1305::seal(&key, &Nonce::from(nonce), value, Some(context), sealed).map_err(failed)?;
        Ok(Base64Url(body))
    }

    fn open(&self, body: &Base64Url, context: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (nonce, sealed) = body.0.split_first_chunk::<NONCE_BYTES>()?;
        let mut value = Zeroizing::new(vec![0; sealed.len().checked_sub(TAG_BYTES)?]);
        let key = SecretKey::try_from(&self.0[..]).ok()?;
        XChaCha20Poly1305::open(&key, &Nonce::from(*nonce), sealed, Some(context), &mut value).ok()?;
        Some(value)
    }

    fn mac(&self, bytes: &[u8]) -> Option<Tag> {
        let key = MacKey::try_from(&self.0[..]).ok()?;
        let mut mac = Blake2b::new(&key, SEAL_BYTES).ok()?;
        mac.update(bytes).ok()?;
        mac.finalize().ok()
    }

    /// The key for one purpose.
    fn for_purpose(&self, purpose: &str) -> Result<Self, VaultError> {
        let tag = self.mac(&context(purpose, &[])).ok_or(VaultError::Seal("no key can be derived"))?;
        Self::copy(tag.unprotected_as_ref())
    }
}

/// The keys of an opened vault.
pub(super) struct Keys {
    data: Key,
    value: Key,
    seal: Key,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys")
    }
}

impl Keys {
    /// New ones.
    pub(super) fn draw() -> Result<Self, VaultError> {
        Self::of(Key::draw()?)
    }

    fn of(data: Key) -> Result<Self, VaultError> {
        Ok(Self { value: data.for_purpose("value")?, seal: data.for_purpose("seal")?, data })
    }

    /// Those that a header has wrapped; absent with another wrapping key.
    pub(super) fn unwrap(wrapping: &Key, wrapped: &Base64Url, kdf: &Kdf) -> Result<Option<Self>, VaultError> {
        let Some(data) = wrapping.open(wrapped, &kdf.context()) else { return Ok(None) };
        let Ok(data) = <[u8; KEY_BYTES]>::try_from(&data[..]) else { return Ok(None) };
        Self::of(Key(Zeroizing::new(data))).map(Some)
    }

    /// The data key as it stands in a header.
    pub(super) fn wrap(&self, wrapping: &Key, kdf: &Kdf) -> Result<Base64Url, VaultError> {
        wrapping.seal(&self.data.0[..], &kdf.context())
    }

    /// Seals one value, bound to what stands beside it.
    pub(super) fn seal_value(&self, value: &[u8], bound_to: &[u8]) -> Result<Base64Url, VaultError> {
        self.value.seal(value, &context("value", bound_to))
    }

    /// Opens one value; absent where it was not sealed with this key and for this place.
    pub(super) fn open_value(&self, sealed: &Base64Url, bound_to: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        self.value.open(sealed, &context("value", bound_to))
    }

    /// The seal over a whole file.
    pub(super) fn seal_all(&self, bytes: &[u8]) -> Result<Base64Url, VaultError> {
        let tag = self.seal.mac(bytes).ok_or(VaultError::Seal("the file cannot be sealed"))?;
        Ok(Base64Url(tag.unprotected_as_ref().to_vec()))
    }

    /// Whether a seal is that of a whole file. Takes the same time wherever it differs.
    pub(super) fn is_seal_of(&self, seal: &Base64Url, bytes: &[u8]) -> bool {
        let expected = Tag::try_from(&seal.0[..]);
        let found = self.seal.mac(bytes);
        matches!((expected, found), (Ok(expected), Some(found)) if expected == found)
    }
}

fn context(purpose: &str, rest: &[u8]) -> Vec<u8> {
    let mut bytes = format!("signalbox.vault.v1\0{purpose}\0").into_bytes();
    bytes.extend(rest);
    bytes
}

/// Fills a buffer with random bytes.
pub(super) fn fill(bytes: &mut [u8]) -> Result<(), VaultError> {
    getrandom::fill(bytes).map_err(|_| VaultError::Seal("the system gives no random bytes"))
}

fn random<const N: usize>() -> Result<[u8; N], VaultError> {
    let mut bytes = [0; N];
    fill(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn kdf(memory_kib: u32, passes: u32, lanes: u32, salt: usize) -> Kdf {
        Kdf { algorithm: Algorithm::Argon2id, memory_kib, passes, lanes, salt: Base64Url(vec![7; salt]) }
    }

    /// Against the reference implementation: its answer for `password`, a salt of 16 bytes, two passes and 256 KiB.
    #[test]
    fn keys_are_those_of_argon2id() {
        let salt = Base64Url(b"somesaltsomesalt".to_vec());
        let kdf = Kdf { salt, ..kdf(256, 2, 1, 16) };
        let key = kdf.derive(b"password").unwrap();
        assert_eq!(data_encoding::HEXLOWER.encode(&key.0[..]), EXPECTED);
    }

    const EXPECTED: &str = "cab746b4621993fdc91ec50787980b414a90a692f0bc68dfe19f9c25b3cba9ec";

    #[test]
    fn what_this_program_makes_is_within_its_bounds() {
        assert!(Kdf::draw().unwrap().is_within_bounds());
    }

    #[rstest]
    #[case::memory(256 * 1024 + 1, 1, 1, 16)]
    #[case::too_little(7, 1, 1, 16)]
    #[case::too_little_for_its_lanes(16, 1, 4, 16)]
    #[case::passes(8, 9, 1, 16)]
    #[case::no_pass(8, 0, 1, 16)]
    #[case::work(256 * 1024, 3, 1, 16)]
    #[case::lanes(1024, 1, 5, 16)]
    #[case::no_lane(1024, 1, 0, 16)]
    #[case::salt(1024, 1, 1, 15)]
    #[case::long_salt(1024, 1, 1, 65)]
    #[case::all(u32::MAX, u32::MAX, u32::MAX, 16)]
    fn a_header_that_asks_for_too_much_is_refused(
        #[case] memory_kib: u32,
        #[case] passes: u32,
        #[case] lanes: u32,
        #[case] salt: usize,
    ) {
        assert!(!kdf(memory_kib, passes, lanes, salt).is_within_bounds());
    }

    #[test]
    fn a_data_key_is_bound_to_how_it_was_wrapped() {
        let (made_by, other) = (kdf(8, 1, 1, 16), kdf(16, 1, 1, 16));
        let wrapping = made_by.derive(b"secret").unwrap();
        let keys = Keys::draw().unwrap();
        let wrapped = keys.wrap(&wrapping, &made_by).unwrap();
        assert!(Keys::unwrap(&wrapping, &wrapped, &made_by).unwrap().is_some());
        assert!(Keys::unwrap(&wrapping, &wrapped, &other).unwrap().is_none());
        assert!(Keys::unwrap(&made_by.derive(b"Secret").unwrap(), &wrapped, &made_by).unwrap().is_none());
    }

    #[test]
    fn a_value_opens_where_it_belongs_and_nowhere_else() {
        let (keys, others) = (Keys::draw().unwrap(), Keys::draw().unwrap());
        let sealed = keys.seal_value(b"hunter2", b"db-1").unwrap();
        assert_eq!(keys.open_value(&sealed, b"db-1").unwrap()[..], b"hunter2"[..]);
        assert!(keys.open_value(&sealed, b"db-2").is_none());
        assert!(others.open_value(&sealed, b"db-1").is_none());
        for at in 0..sealed.0.len() {
            let mut changed = sealed.clone();
            changed.0[at] ^= 1;
            assert!(keys.open_value(&changed, b"db-1").is_none(), "byte {at} does not count");
        }
        assert!(keys.open_value(&Base64Url(vec![0; EXTRA_BYTES - 1]), b"db-1").is_none());
    }

    #[test]
    fn a_seal_is_that_of_one_text_and_one_key() {
        let (keys, others) = (Keys::draw().unwrap(), Keys::draw().unwrap());
        let seal = keys.seal_all(b"all of it").unwrap();
        assert_eq!(seal.0.len(), SEAL_BYTES);
        assert!(keys.is_seal_of(&seal, b"all of it"));
        assert!(!keys.is_seal_of(&seal, b"all of it."));
        assert!(!others.is_seal_of(&seal, b"all of it"));
        assert!(!keys.is_seal_of(&Base64Url(seal.0[..16].to_vec()), b"all of it"));
    }

    #[test]
    fn keys_are_not_printed() {
        assert_eq!(format!("{:?}", Keys::draw().unwrap()), "Keys");
    }
}
