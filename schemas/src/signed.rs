//! The envelope around everything that must be believed.
//!
//! `{"payload": base64url(JSON bytes), "key": "U…", "sig": base64url}` with an ed25519 signature over
//!
//! ```text
//! "signalbox.v1" 0x00 type 0x00 payload
//! ```
//!
//! The type keeps a signature over one kind of message from being read as another. The signature is checked
//! over the very bytes that were signed, *before* they are parsed. A payload may list members in `crit`; a
//! reader that does not know one of them refuses the whole.
//!
//! The key that signs never logs in to a broker: login signs a nonce that the server chooses.

use std::{fmt, marker::PhantomData, str::FromStr};

use nkeys::{KeyPair, KeyPairType};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::bytes::Base64Url;

/// First bytes of everything that is signed.
const CONTEXT: &[u8] = b"signalbox.v1\0";

/// A kind of signed payload.
pub trait Message: Serialize + DeserializeOwned {
    /// Its name in the signature and in the `Sb-Type` header.
    const TYPE: &'static str;
    /// Largest encoded envelope, bytes.
    const MAX_BYTES: usize;
    /// Members this version understands, when `crit` names them.
    const CRIT: &'static [&'static str] = &[];
}

/// Why an envelope is not believed. None of these passes by trying again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignedError {
    /// More bytes than the message may have.
    #[error("envelope of {size} bytes is above {limit}")]
    TooLarge {
        /// Bytes received.
        size: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// The envelope is not the JSON it should be.
    #[error("malformed envelope")]
    Envelope,
    /// The key may not sign this.
    #[error("signed by {0}, which may not sign this")]
    Untrusted(PublicKey),
    /// The signature is not the key's over these bytes.
    #[error("wrong signature")]
    Signature,
    /// The payload is authentic and not what its type says.
    #[error("malformed payload: {0}")]
    Payload(String),
    /// The payload demands something this version does not know.
    #[error("payload needs `{0}`, which this version does not know")]
    Critical(String),
    /// The payload is authentic and speaks of something else.
    #[error("payload names another {0}")]
    Misplaced(&'static str),
}

impl SignedError {
    /// A short name for counters.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "too_large",
            Self::Envelope => "envelope",
            Self::Untrusted(_) => "untrusted",
            Self::Signature => "signature",
            Self::Payload(_) => "payload",
            Self::Critical(_) => "critical",
            Self::Misplaced(_) => "misplaced",
        }
    }
}

/// A text is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an nkey of kind user")]
pub struct KeyError;

/// The public half of a signing key: an nkey of kind user (`U…`, 56 characters).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicKey(String);

impl PublicKey {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `sig` is this key's ed25519 signature over `bytes`.
    pub fn verifies(&self, bytes: &[u8], sig: &[u8]) -> bool {
        KeyPair::from_public_key(&self.0).is_ok_and(|key| key.verify(bytes, sig).is_ok())
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let key = KeyPair::from_public_key(text).map_err(|_| KeyError)?;
        // One key, one text.
        let canonical = key.key_pair_type() == KeyPairType::User && key.public_key() == text;
        if canonical { Ok(Self(text.to_owned())) } else { Err(KeyError) }
    }
}

impl TryFrom<String> for PublicKey {
    type Error = KeyError;

    fn try_from(text: String) -> Result<Self, KeyError> {
        text.parse()
    }
}

impl From<PublicKey> for String {
    fn from(key: PublicKey) -> String {
        key.0
    }
}

/// A signing key. Its seed is never printed.
pub struct SigningKey {
    pair: KeyPair,
    public: PublicKey,
}

impl SigningKey {
    /// Reads an nkey seed of kind user (`SU…`); white space around it is allowed, as files end in a newline.
    ///
    /// # Errors
    /// [`KeyError`] when it is none.
    pub fn from_seed(seed: &str) -> Result<Self, KeyError> {
        let pair = KeyPair::from_seed(seed.trim()).map_err(|_| KeyError)?;
        let public = pair.public_key().parse()?;
        Ok(Self { pair, public })
    }

    /// The public half.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    fn sign_bytes(&self, bytes: &[u8]) -> Vec<u8> {
        // Fails only for a pair without its private half, which `from_seed` cannot make. An empty signature
        // verifies nowhere.
        self.pair.sign(bytes).unwrap_or_default()
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.public)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    payload: Base64Url,
    key: PublicKey,
    sig: Base64Url,
}

/// A signed `T` that was not looked into yet. [`open`](Self::open) is the only way to the content.
#[derive(Serialize, Deserialize)]
#[serde(transparent, bound = "")]
pub struct Signed<T> {
    envelope: Envelope,
    #[serde(skip)]
    content: PhantomData<fn() -> T>,
}

impl<T> Clone for Signed<T> {
    fn clone(&self) -> Self {
        Self { envelope: self.envelope.clone(), content: PhantomData }
    }
}

impl<T> PartialEq for Signed<T> {
    fn eq(&self, other: &Self) -> bool {
        self.envelope == other.envelope
    }
}

impl<T> Eq for Signed<T> {}

impl<T> fmt::Debug for Signed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signed({} by {})", std::any::type_name::<T>(), self.envelope.key)
    }
}

impl<T: Message> Signed<T> {
    /// Signs `message`.
    ///
    /// # Errors
    /// [`SignedError::Payload`] when it has no JSON form, [`SignedError::TooLarge`] when the envelope would be
    /// above the limit of its type.
    pub fn sign(message: &T, key: &SigningKey) -> Result<Self, SignedError> {
        let payload = serde_json::to_vec(message).map_err(|error| SignedError::Payload(error.to_string()))?;
        let sig = key.sign_bytes(&preimage(T::TYPE, &payload));
        let envelope =
            Envelope { payload: Base64Url(payload), key: key.public().clone(), sig: Base64Url(sig) };
        let size = envelope.payload.0.len() * 4 / 3 + 200;
        if size > T::MAX_BYTES {
            return Err(SignedError::TooLarge { size, limit: T::MAX_BYTES });
        }
        Ok(Self { envelope, content: PhantomData })
    }

    /// Reads an envelope. Nothing of the payload is looked at.
    ///
    /// # Errors
    /// [`SignedError::TooLarge`] or [`SignedError::Envelope`].
    pub fn from_json(bytes: &[u8]) -> Result<Self, SignedError> {
        if bytes.len() > T::MAX_BYTES {
            return Err(SignedError::TooLarge { size: bytes.len(), limit: T::MAX_BYTES });
        }
        serde_json::from_slice(bytes).map_err(|_| SignedError::Envelope)
    }

    /// The envelope as JSON.
    pub fn to_json(&self) -> Vec<u8> {
        // Three strings always have a JSON form.
        serde_json::to_vec(&self.envelope).unwrap_or_default()
    }

    /// Checks key and signature, then parses the payload.
    ///
    /// `trusted` says whether a key may sign this message at all.
    ///
    /// # Errors
    /// [`SignedError::Untrusted`], [`SignedError::Signature`], [`SignedError::Payload`] or
    /// [`SignedError::Critical`], in this order.
    pub fn open(&self, trusted: impl FnOnce(&PublicKey) -> bool) -> Result<T, SignedError> {
        if !trusted(self.key()) {
            return Err(SignedError::Untrusted(self.key().clone()));
        }
        if !self.key().verifies(&preimage(T::TYPE, &self.envelope.payload.0), &self.envelope.sig.0) {
            return Err(SignedError::Signature);
        }
        self.parse()
    }

    /// Parses the payload **without** checking the signature: for `decode` and other eyes, never for
    /// decisions.
    ///
    /// # Errors
    /// [`SignedError::Payload`] or [`SignedError::Critical`].
    pub fn peek(&self) -> Result<T, SignedError> {
        self.parse()
    }

    fn parse(&self) -> Result<T, SignedError> {
        let payload = &self.envelope.payload.0;
        let critical: Critical = parse_json(payload)?;
        if let Some(unknown) = critical.crit.into_iter().find(|name| !T::CRIT.contains(&name.as_str())) {
            return Err(SignedError::Critical(unknown.chars().take(64).collect()));
        }
        parse_json(payload)
    }
}

impl<T> Signed<T> {
    /// The key that claims to have signed.
    pub fn key(&self) -> &PublicKey {
        &self.envelope.key
    }

    /// The payload's exact bytes, unchecked.
    pub fn payload(&self) -> &[u8] {
        &self.envelope.payload.0
    }
}

#[derive(Deserialize)]
struct Critical {
    #[serde(default)]
    crit: Vec<String>,
}

fn parse_json<T: DeserializeOwned>(payload: &[u8]) -> Result<T, SignedError> {
    serde_json::from_slice(payload).map_err(|error| SignedError::Payload(error.to_string()))
}

fn preimage(kind: &str, payload: &[u8]) -> Vec<u8> {
    [CONTEXT, kind.as_bytes(), b"\0", payload].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Note {
        text: String,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        crit: Vec<String>,
    }

    impl Message for Note {
        const TYPE: &'static str = "note";
        const MAX_BYTES: usize = 2000;
        const CRIT: &'static [&'static str] = &["text"];
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Other {
        text: String,
    }

    impl Message for Other {
        const TYPE: &'static str = "other";
        const MAX_BYTES: usize = 2000;
    }

    fn key(byte: u8) -> SigningKey {
        let pair = KeyPair::new_from_raw(KeyPairType::User, [byte; 32]).unwrap();
        SigningKey::from_seed(&pair.seed().unwrap()).unwrap()
    }

    fn note(crit: &[&str]) -> Note {
        Note { text: "hello".into(), crit: crit.iter().map(ToString::to_string).collect() }
    }

    #[test]
    fn what_was_signed_opens_for_who_is_trusted() {
        let signed = Signed::sign(&note(&["text"]), &key(1)).unwrap();
        let read = Signed::<Note>::from_json(&signed.to_json()).unwrap();
        assert_eq!(read.open(|k| k == key(1).public()).unwrap(), note(&["text"]));
        assert!(matches!(read.open(|_| false), Err(SignedError::Untrusted(_))));
    }

    #[test]
    fn a_signature_is_for_one_type_only() {
        let signed = Signed::sign(&note(&[]), &key(1)).unwrap();
        let other = Signed::<Other>::from_json(&signed.to_json()).unwrap();
        assert_eq!(other.open(|_| true), Err(SignedError::Signature));
    }

    #[test]
    fn an_unknown_critical_member_is_refused() {
        let signed = Signed::sign(&note(&["future"]), &key(1)).unwrap();
        assert_eq!(signed.open(|_| true), Err(SignedError::Critical("future".into())));
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let good = Signed::sign(&note(&[]), &key(1)).unwrap();
        for i in 0..good.envelope.payload.0.len() {
            let mut bad = good.clone();
            bad.envelope.payload.0[i] ^= 1;
            assert_eq!(bad.open(|_| true), Err(SignedError::Signature));
        }
        for i in 0..good.envelope.sig.0.len() {
            let mut bad = good.clone();
            bad.envelope.sig.0[i] ^= 1;
            assert_eq!(bad.open(|_| true), Err(SignedError::Signature));
        }
        let mut bad = good.clone();
        bad.envelope.key = key(2).public().clone();
        assert_eq!(bad.open(|_| true), Err(SignedError::Signature));
    }

    #[test]
    fn sizes_and_shapes_are_checked_first() {
        let huge = vec![b' '; 2001];
        assert!(matches!(Signed::<Note>::from_json(&huge), Err(SignedError::TooLarge { .. })));
        for bad in ["", "{}", "[]", r#"{"payload":"","key":"U","sig":""}"#] {
            assert_eq!(Signed::<Note>::from_json(bad.as_bytes()), Err(SignedError::Envelope));
        }
    }

    #[test]
    fn a_seed_is_never_printed() {
        assert!(!format!("{:?}", key(1)).contains("SU"));
    }
}
