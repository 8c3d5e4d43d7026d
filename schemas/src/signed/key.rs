//! Keys: nkeys of kind user, ed25519.
//!
//! What makes a signature valid is ZIP 215: the same for one signature as for many that are checked together, and the same for
//! everybody. By the rules of RFC 8032, which leave that open, whoever holds a key can make a signature that one reader
//! believes and another does not.

use std::{fmt, str::FromStr};

use ed25519_zebra::{Signature, VerificationKey, VerificationKeyBytes, batch::Item};
use nkeys::KeyPair;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha512};
use zeroize::Zeroizing;

/// First byte of a public key of kind user, before base32.
const USER: u8 = 20 << 3;

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
        let (Some(key), Ok(sig)) = (self.raw(), Signature::from_slice(sig)) else { return false };
        VerificationKey::try_from(key).is_ok_and(|key| key.verify(&sig, bytes).is_ok())
    }

    /// What is to be checked for `sig` to be this key's signature over `bytes`; `None`: it is not.
    pub(super) fn check(&self, bytes: &[u8], sig: &[u8]) -> Option<Item> {
        Some(Item::from((self.raw()?, Signature::from_slice(sig).ok()?, bytes)))
    }

    fn raw(&self) -> Option<VerificationKeyBytes> {
        nkeys::from_public_key(&self.0).ok().map(|(_, raw)| raw.into())
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
        // 56 characters of base32 are 35 bytes without a bit left over: one key, one text. That the bytes are a point of the
        // curve costs as much as a tenth of a signature, and shows with the first that is to be checked.
        match nkeys::from_public_key(text) {
            Ok((USER, _)) => Ok(Self(text.to_owned())),
            _ => Err(KeyError),
        }
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

    /// A secret of its own for another purpose. It tells nothing of the key, and nothing of secrets with other labels.
    pub(crate) fn derive(&self, label: &str) -> [u8; 64] {
        // Fails only for a pair without its private half, which `from_seed` cannot make.
        let seed = Zeroizing::new(self.pair.seed().unwrap_or_default());
        Sha512::new()
            .chain_update(b"signalbox.v1\0derived\0")
            .chain_update(label)
            .chain_update(b"\0")
            .chain_update(seed.as_bytes())
            .finalize()
            .into()
    }

    pub(super) fn sign_bytes(&self, bytes: &[u8]) -> Vec<u8> {
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

#[cfg(test)]
pub(super) mod tests {
    use curve25519_dalek::{Scalar, constants, edwards::EdwardsPoint};
    use nkeys::KeyPairType;

    use super::*;

    /// The text of these 32 bytes, whatever they are.
    pub(in super::super) fn encode(raw: &[u8; 32]) -> PublicKey {
        let mut bytes = [&[USER][..], raw].concat();
        let crc = crc16(&bytes);
        bytes.extend(crc.to_le_bytes());
        data_encoding::BASE32_NOPAD.encode(&bytes).parse().unwrap()
    }

    fn crc16(bytes: &[u8]) -> u16 {
        let step = |crc: u16| if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 };
        bytes.iter().fold(0, |crc, byte| (0..8).fold(crc ^ u16::from(*byte) << 8, |crc, _| step(crc)))
    }

    /// A key and its signature, with a point of order 8 added to what hides the key.
    pub(in super::super) fn with_torsion(bytes: &[u8]) -> (PublicKey, [u8; 64]) {
        let (secret, hiding) = (Scalar::from(1_234_567_u64), Scalar::from(7_654_321_u64));
        let public = EdwardsPoint::mul_base(&secret).compress().to_bytes();
        let hidden = EdwardsPoint::mul_base(&hiding) + constants::EIGHT_TORSION[1];
        let hidden = hidden.compress().to_bytes();
        let hash = Sha512::new().chain_update(hidden).chain_update(public).chain_update(bytes).finalize();
        let proof = hiding + Scalar::from_bytes_mod_order_wide(&hash.into()) * secret;
        let mut sig = [0; 64];
        sig[..32].copy_from_slice(&hidden);
        sig[32..].copy_from_slice(proof.as_bytes());
        (encode(&public), sig)
    }

    #[test]
    fn only_keys_of_kind_user_are_keys_and_each_has_one_text() {
        let pair = KeyPair::new_from_raw(KeyPairType::User, [3; 32]).unwrap();
        let text = pair.public_key();
        assert_eq!(text.parse::<PublicKey>().unwrap().as_str(), text);
        let account = KeyPair::new_from_raw(KeyPairType::Account, [3; 32]).unwrap().public_key();
        let seed = pair.seed().unwrap();
        let lower = text.to_lowercase();
        let typo = format!("{}A", &text[..55]);
        for bad in [&account, &seed, &lower, &typo, &format!("{text}="), &format!(" {text}"), ""] {
            assert_eq!(bad.parse::<PublicKey>(), Err(KeyError), "{bad}");
        }
    }
}
