//! The envelope around everything that must be believed.
//!
//! `{"payload": base64url(JSON bytes), "key": "U…", "sig": base64url}` with an ed25519 signature over
//!
//! ```text
//! "signalbox.v1" 0x00 type 0x00 payload
//! ```
//!
//! The type keeps a signature over one kind of message from being read as another. The signature is checked
//! over the very bytes that were signed, before anything of them is believed. A payload may list members in `crit`; a
//! reader that does not know one of them refuses the whole.
//!
//! The key that signs never logs in to a broker: login signs a nonce that the server chooses.

mod check;
mod key;

use std::{fmt, marker::PhantomData};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::bytes::Base64Url;

pub use check::Checks;
pub use key::{KeyError, PublicKey, SigningKey};

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

    /// The same envelope, taken for one of another type: it does not name its type itself, and the signature, which covers the
    /// type, tells who was right.
    ///
    /// # Errors
    /// [`SignedError::TooLarge`], where `size` is what [`from_json`](Self::from_json) read.
    pub fn taken_for<U: Message>(self, size: usize) -> Result<Signed<U>, SignedError> {
        if size > U::MAX_BYTES {
            return Err(SignedError::TooLarge { size, limit: U::MAX_BYTES });
        }
        Ok(Signed { envelope: self.envelope, content: PhantomData })
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

    /// As [`open`](Self::open) for whoever may sign, but an envelope that is right in everything else has its signature
    /// put off, to be checked together with others: that takes half the time. Until `checks` has said so, nothing of the answer
    /// is to be believed.
    ///
    /// # Errors
    /// Those of [`open`](Self::open), of which [`SignedError::Signature`] is told only where the payload could not be
    /// read either.
    pub fn open_unchecked(&self, checks: &mut Checks) -> Result<T, SignedError> {
        let Ok(payload) = self.parse() else { return self.open(|_| true) };
        checks.put_off(self.key(), &preimage(T::TYPE, &self.envelope.payload.0), &self.envelope.sig.0);
        Ok(payload)
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
        if payload.trim_ascii_start().first() != Some(&b'{') {
            // A list would be read as the members in their order, and a name that must be known would have no letters.
            return Err(SignedError::Payload("not an object".to_owned()));
        }
        if may_be_critical(payload) {
            let critical: Critical = parse_json(payload)?;
            if let Some(unknown) = critical.crit.into_iter().find(|name| !T::CRIT.contains(&name.as_str())) {
                return Err(SignedError::Critical(unknown.chars().take(64).collect()));
            }
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

/// Whether JSON may have a member `crit`: its letters stand there, or an escape that may stand for some of them. Nearly nothing
/// has one, and reading everything twice to know costs more than this.
fn may_be_critical(payload: &[u8]) -> bool {
    payload.contains(&b'\\') || payload.windows(4).any(|letters| letters == b"crit")
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
    use nkeys::{KeyPair, KeyPairType};

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
        // However the name is written.
        let mut escaped = signed.clone();
        let text = String::from_utf8(escaped.envelope.payload.0).unwrap();
        assert!(text.contains("\"crit\""));
        escaped.envelope.payload.0 = text.replace("crit", "cr\\u0069t").into_bytes();
        escaped.envelope.sig.0 = key(1).sign_bytes(&preimage(Note::TYPE, &escaped.envelope.payload.0));
        assert_eq!(escaped.open(|_| true), Err(SignedError::Critical("future".into())));
    }

    #[test]
    fn a_list_is_no_message() {
        let mut list = Signed::sign(&note(&[]), &key(1)).unwrap();
        list.envelope.payload.0 = br#" ["hello", ["future"]]"#.to_vec();
        list.envelope.sig.0 = key(1).sign_bytes(&preimage(Note::TYPE, &list.envelope.payload.0));
        assert!(matches!(list.open(|_| true), Err(SignedError::Payload(_))));
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

    /// Signatures that are checked together get the verdict of each by itself, whatever is wrong, and wherever.
    #[test]
    fn together_is_as_one_by_one() {
        let good = Signed::sign(&note(&[]), &key(1)).unwrap();
        let mut short = good.clone();
        short.envelope.sig.0.pop();
        let mut flipped = good.clone();
        flipped.envelope.sig.0[3] ^= 1;
        let mut other = good.clone();
        other.envelope.key = key(2).public().clone();
        // A text that is a key, and no point of the curve.
        let mut pointless = good.clone();
        pointless.envelope.key = no_point();
        for bad in [&short, &flipped, &other, &pointless] {
            assert_eq!(bad.open(|_| true), Err(SignedError::Signature));
            for (count, at) in [(1, 0), (3, 1), (40, 0), (40, 17), (40, 39)] {
                let mut checks = Checks::default();
                for i in 0..count {
                    let signed = if i == at { bad } else { &good };
                    assert_eq!(signed.open_unchecked(&mut checks).unwrap(), note(&[]));
                }
                assert_eq!(checks.len(), count);
                let verdicts = checks.verdicts();
                assert!(verdicts.iter().enumerate().all(|(i, valid)| *valid == (i != at)), "{count}, {at}");
            }
        }
        let mut checks = Checks::default();
        for by in 1..=40 {
            Signed::sign(&note(&[]), &key(by)).unwrap().open_unchecked(&mut checks).unwrap();
        }
        assert_eq!(checks.verdicts(), [true; 40]);
        assert_eq!(Checks::default().verdicts(), [true; 0]);
    }

    fn no_point() -> PublicKey {
        // y = 2 has no x.
        let mut raw = [0; 32];
        raw[0] = 2;
        let point = ed25519_zebra::VerificationKey::try_from(raw);
        assert!(point.is_err());
        key::tests::encode(&raw)
    }

    /// A signature with a part of small order beside what is right: RFC 8032 leaves open whether it is valid, and readers of it
    /// differ. Here it is, together and alone.
    #[test]
    fn what_the_standard_leaves_open_is_the_same_for_everybody() {
        let text = "the key holder made this";
        let (public, sig) = key::tests::with_torsion(&preimage("note", text.as_bytes()));
        assert!(public.verifies(&preimage("note", text.as_bytes()), &sig));
        for count in [1, 2, 8, 64] {
            let mut checks = Checks::default();
            for _ in 0..count {
                checks.put_off(&public, &preimage("note", text.as_bytes()), &sig);
            }
            assert_eq!(checks.verdicts(), vec![true; count]);
        }
    }
}
