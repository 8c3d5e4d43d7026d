//! Secrets on their way to a machine: nobody between the one who seals and the one who is meant can read them.
//!
//! ```text
//! body      XChaCha20-Poly1305(content key, nonce, context, value)        nonce ‖ ciphertext ‖ tag, once for all
//! wrapped   HPKE base mode, DHKEM(X25519, HKDF-SHA256) + HKDF-SHA256 + ChaCha20Poly1305 (RFC 9180)
//!           of the content key to one recipient's sealing key, with context and recipient as associated data
//! context   "signalbox.v1" 00 "credential" 00 ws 00 name 00 cid
//! ```
//!
//! So a push on ten thousand machines carries its value once and 80 bytes for each of them; what was sealed for one machine, one
//! name and one push opens as nothing else.

use std::fmt;

use orion::{
    KP as _,
    hazardous::{
        aead::xchacha20poly1305::{Nonce, SecretKey, XChaCha20Poly1305},
        hpke::{DHKEM_X25519_SHA256_CHACHA20, ModeBase},
        kem::x25519_hkdf_sha256::{KeyPair, PrivateKey, PublicKey},
    },
};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{
    bytes::Base64Url,
    id::{CommandId, MachineToken, Workspace},
    signed::SigningKey,
};

type Hpke = ModeBase<DHKEM_X25519_SHA256_CHACHA20>;

/// Bytes of a content key.
pub const CONTENT_KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 24;
const TAG_BYTES: usize = 16;
const POINT_BYTES: usize = 32;
/// Bytes of a wrapped content key: the encapsulated key, the ciphertext, its tag.
pub const WRAPPED_BYTES: usize = POINT_BYTES + CONTENT_KEY_BYTES + TAG_BYTES;

/// What a body is longer by than what is in it.
pub const BODY_EXTRA_BYTES: usize = NONCE_BYTES + TAG_BYTES;

/// The public half of a recipient's key: 32 bytes, as base64url.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Base64Url", into = "Base64Url")]
pub struct SealingKey([u8; POINT_BYTES]);

impl SealingKey {
    /// The key with these bytes.
    pub fn from_bytes(bytes: [u8; POINT_BYTES]) -> Self {
        Self(bytes)
    }
}

/// The bytes are not 32.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a sealing key: it has 32 bytes")]
pub struct NoSealingKey;

impl TryFrom<Base64Url> for SealingKey {
    type Error = NoSealingKey;

    fn try_from(bytes: Base64Url) -> Result<Self, NoSealingKey> {
        bytes.0.try_into().map(Self).map_err(|_| NoSealingKey)
    }
}

impl From<SealingKey> for Base64Url {
    fn from(key: SealingKey) -> Self {
        Self(key.0.to_vec())
    }
}

impl fmt::Display for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::BASE64URL_NOPAD.encode(&self.0))
    }
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealingKey({self})")
    }
}

/// The private half. Never printed.
pub struct OpeningKey {
    pair: KeyPair,
    public: SealingKey,
}

impl OpeningKey {
    /// The key that goes with a machine's signing key: it needs no file of its own, and changes with that key.
    ///
    /// # Errors
    /// [`SealError`], which cannot be with a key that has its private half.
    pub fn of_machine(key: &SigningKey) -> Result<Self, SealError> {
        let material = Zeroizing::new(key.derive("sealing"));
        Self::from_material(&material[..])
    }

    /// The key that is made from 32 secret bytes or more.
    ///
    /// # Errors
    /// [`SealError`] when they are fewer.
    pub fn from_material(material: &[u8]) -> Result<Self, SealError> {
        if material.len() < CONTENT_KEY_BYTES {
            return Err(SealError);
        }
        let pair = KeyPair::derive(material).map_err(|_| SealError)?;
        let public = pair.public().as_ref().try_into().map_err(|_| SealError)?;
        Ok(Self { pair, public: SealingKey(public) })
    }

    /// The public half.
    pub fn public(&self) -> &SealingKey {
        &self.public
    }
}

impl fmt::Debug for OpeningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OpeningKey({})", self.public)
    }
}

/// Whom a content key is wrapped for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recipient<'a> {
    /// The relay of a machine.
    Machine(&'a MachineToken),
    /// Whoever holds the organisation's recovery key.
    Recovery,
}

/// What a secret is bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context<'a> {
    /// Workspace.
    pub ws: &'a Workspace,
    /// What the credential is called.
    pub name: &'a str,
    /// The push.
    pub cid: CommandId,
}

impl Context<'_> {
    fn bytes(&self) -> Vec<u8> {
        let Self { ws, name, cid } = self;
        format!("signalbox.v1\0credential\0{ws}\0{name}\0{cid}").into_bytes()
    }

    fn bytes_for(&self, recipient: Recipient<'_>) -> Vec<u8> {
        let mut bytes = self.bytes();
        match recipient {
            Recipient::Machine(mid) => bytes.extend(format!("\0machine\0{mid}").into_bytes()),
            Recipient::Recovery => bytes.extend(b"\0recovery"),
        }
        bytes
    }
}

/// It cannot be sealed or opened: another key, another context, or changed bytes. Which of them cannot be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it was sealed for another key, another machine, name or push, or it was changed")]
pub struct SealError;

/// The key that a body is sealed with. Wiped when dropped, never printed.
pub struct ContentKey(Zeroizing<[u8; CONTENT_KEY_BYTES]>);

impl fmt::Debug for ContentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ContentKey")
    }
}

impl ContentKey {
    /// Takes 32 random bytes, used for one body.
    pub fn new(random: [u8; CONTENT_KEY_BYTES]) -> Self {
        Self(Zeroizing::new(random))
    }

    fn key(&self) -> Result<SecretKey, SealError> {
        SecretKey::try_from(&self.0[..]).map_err(|_| SealError)
    }

    /// Seals a value. `nonce` is random.
    ///
    /// # Errors
    /// [`SealError`] for an empty value.
    pub fn seal(
        &self,
        value: &[u8],
        context: Context<'_>,
        nonce: [u8; NONCE_BYTES],
    ) -> Result<Base64Url, SealError> {
        let mut body = nonce.to_vec();
        let mut sealed = vec![0; value.len() + TAG_BYTES];
        XChaCha20Poly1305::seal(
            &self.key()?,
            &Nonce::from(nonce),
            value,
            Some(&context.bytes()),
            &mut sealed,
        )
        .map_err(|_| SealError)?;
        body.append(&mut sealed);
        Ok(Base64Url(body))
    }

    /// Opens a body.
    ///
    /// # Errors
    /// [`SealError`].
    pub fn open(&self, body: &Base64Url, context: Context<'_>) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let (nonce, sealed) = body.0.split_first_chunk::<NONCE_BYTES>().ok_or(SealError)?;
        let length = sealed.len().checked_sub(TAG_BYTES).ok_or(SealError)?;
        let mut value = Zeroizing::new(vec![0; length]);
        XChaCha20Poly1305::open(
            &self.key()?,
            &Nonce::from(*nonce),
            sealed,
            Some(&context.bytes()),
            &mut value,
        )
        .map_err(|_| SealError)?;
        Ok(value)
    }

    /// Wraps the key for one recipient. `ephemeral` is 32 random bytes, used once.
    ///
    /// # Errors
    /// [`SealError`] for a sealing key that is no point to agree with.
    pub fn wrap(
        &self,
        to: &SealingKey,
        context: Context<'_>,
        recipient: Recipient<'_>,
        ephemeral: [u8; CONTENT_KEY_BYTES],
    ) -> Result<Base64Url, SealError> {
        let to = PublicKey::from(to.0);
        let aad = context.bytes_for(recipient);
        let (mut sender, point) =
            Hpke::new_sender_deterministic(&to, &context.bytes(), PrivateKey::from(ephemeral))
                .map_err(|_| SealError)?;
        let mut wrapped = point.as_ref().to_vec();
        let mut sealed = [0; CONTENT_KEY_BYTES + TAG_BYTES];
        sender.seal(&self.0[..], &aad, &mut sealed).map_err(|_| SealError)?;
        wrapped.extend(sealed);
        Ok(Base64Url(wrapped))
    }

    /// Unwraps a key that was wrapped for this recipient.
    ///
    /// # Errors
    /// [`SealError`].
    pub fn unwrap(
        wrapped: &Base64Url,
        with: &OpeningKey,
        context: Context<'_>,
        recipient: Recipient<'_>,
    ) -> Result<Self, SealError> {
        if wrapped.0.len() != WRAPPED_BYTES {
            return Err(SealError);
        }
        let (point, sealed) = wrapped.0.split_first_chunk::<POINT_BYTES>().ok_or(SealError)?;
        let point = PublicKey::from(*point);
        let mut key = Zeroizing::new([0; CONTENT_KEY_BYTES]);
        let aad = context.bytes_for(recipient);
        Hpke::base_open(&point, with.pair.private(), &context.bytes(), sealed, &aad, &mut key[..])
            .map_err(|_| SealError)?;
        Ok(Self(key))
    }
}

#[cfg(test)]
mod tests {
    use nkeys::{KeyPair, KeyPairType};
    use proptest::prelude::*;

    use super::*;

    fn opening(byte: u8) -> OpeningKey {
        let pair = KeyPair::new_from_raw(KeyPairType::User, [byte; 32]).unwrap();
        OpeningKey::of_machine(&SigningKey::from_seed(&pair.seed().unwrap()).unwrap()).unwrap()
    }

    fn cid(last: u8) -> CommandId {
        format!("0193a2b4-0000-7000-8000-0000000000{last:02x}").parse().unwrap()
    }

    fn mid(name: &str) -> MachineToken {
        MachineToken::new(name).unwrap()
    }

    fn context<'a>(ws: &'a Workspace, name: &'a str) -> Context<'a> {
        Context { ws, name, cid: cid(1) }
    }

    #[test]
    fn what_was_sealed_opens_for_whom_it_was_sealed() {
        let (ws, web1, relay) = (Workspace::main(), mid("web-1"), opening(1));
        let context = context(&ws, "db");
        let key = ContentKey::new([9; 32]);
        let body = key.seal(b"hunter2", context, [3; NONCE_BYTES]).unwrap();
        let wrapped = key.wrap(relay.public(), context, Recipient::Machine(&web1), [4; 32]).unwrap();
        assert_eq!((body.0.len(), wrapped.0.len()), (7 + BODY_EXTRA_BYTES, WRAPPED_BYTES));
        let unwrapped = ContentKey::unwrap(&wrapped, &relay, context, Recipient::Machine(&web1)).unwrap();
        assert_eq!(&unwrapped.open(&body, context).unwrap()[..], b"hunter2");
    }

    #[test]
    fn it_opens_as_nothing_else() {
        let (ws, other_ws) = (Workspace::main(), Workspace::new("other").unwrap());
        let (web1, web2, relay) = (mid("web-1"), mid("web-2"), opening(1));
        let there = context(&ws, "db");
        let key = ContentKey::new([9; 32]);
        let wrapped = key.wrap(relay.public(), there, Recipient::Machine(&web1), [4; 32]).unwrap();
        let body = key.seal(b"hunter2", there, [3; NONCE_BYTES]).unwrap();
        let fails = |with: &OpeningKey, context, recipient| {
            ContentKey::unwrap(&wrapped, with, context, recipient).unwrap_err();
        };
        fails(&opening(2), there, Recipient::Machine(&web1));
        fails(&relay, there, Recipient::Machine(&web2));
        fails(&relay, there, Recipient::Recovery);
        for elsewhere in [
            Context { ws: &other_ws, ..there },
            Context { name: "db2", ..there },
            Context { cid: cid(2), ..there },
        ] {
            fails(&relay, elsewhere, Recipient::Machine(&web1));
            key.open(&body, elsewhere).unwrap_err();
        }
    }

    #[test]
    fn a_sealing_key_changes_with_the_signing_key_alone() {
        assert_eq!(opening(1).public(), opening(1).public());
        assert_ne!(opening(1).public(), opening(2).public());
        assert!(OpeningKey::from_material(&[1; 31]).is_err());
        assert!(!format!("{:?}", opening(1)).contains("private"));
    }

    #[test]
    fn a_key_that_is_no_point_to_agree_with_is_refused() {
        let ws = Workspace::main();
        let none = SealingKey::from_bytes([0; 32]);
        let key = ContentKey::new([9; 32]);
        assert_eq!(key.wrap(&none, context(&ws, "db"), Recipient::Recovery, [4; 32]), Err(SealError));
    }

    proptest! {
        #[test]
        fn every_flipped_bit_is_noticed(bit in 0..(8 * (WRAPPED_BYTES + 7 + BODY_EXTRA_BYTES))) {
            let (ws, web1, relay) = (Workspace::main(), mid("web-1"), opening(1));
            let context = context(&ws, "db");
            let key = ContentKey::new([9; 32]);
            let mut wrapped = key.wrap(relay.public(), context, Recipient::Machine(&web1), [4; 32]).unwrap();
            let mut body = key.seal(b"hunter2", context, [3; NONCE_BYTES]).unwrap();
            let (byte, mask) = (bit / 8, 1 << (bit % 8));
            if byte < WRAPPED_BYTES { wrapped.0[byte] ^= mask } else { body.0[byte - WRAPPED_BYTES] ^= mask }
            let opened = ContentKey::unwrap(&wrapped, &relay, context, Recipient::Machine(&web1))
                .and_then(|key| key.open(&body, context));
            // The highest bit of a point says nothing (RFC 7748).
            let says_nothing = byte == POINT_BYTES - 1 && mask == 0x80;
            prop_assert!(opened.is_err() || says_nothing);
        }
    }
}
