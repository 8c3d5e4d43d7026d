//! Enrolment: a relay trades the API key of an assignment for a login of its machine.
//!
//! The relay draws both of its keys itself and sends their public halves, signed by the one that will sign for the machine:
//! so nobody can have a key believed that he does not hold. The API key goes beside it, in a header, and stands nowhere here.

use serde::{Deserialize, Serialize};

use crate::{
    id::{MachineId, MachineToken, Workspace},
    limit,
    signed::{Message, PublicKey, Signed, SignedError},
};

/// Where an enrolment is sent to.
pub const PATH: &str = "/enroll";
/// Header with the API key.
pub const KEY_HEADER: &str = "x-api-key";
/// Largest envelope of an enrolment, bytes: ten times what one needs. Anybody may send one.
pub const ENROLMENT_BYTES: usize = 8 * 1024;
/// Longest host name, bytes.
const HOSTNAME_BYTES: usize = 255;
/// Longest version, bytes.
const VERSION_BYTES: usize = 64;

/// A relay's wish to speak for a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolment {
    /// The workspace that it was enrolled in before; absent: whatever the API key belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ws: Option<Workspace>,
    /// The key that it will log in with.
    pub login_key: PublicKey,
    /// The key that it will sign with; it signs this too.
    pub signing_key: PublicKey,
    /// Host name, up to 255 bytes, for people.
    pub hostname: String,
    /// The relay's version, up to 64 bytes, for people.
    pub version: String,
    /// When it was signed, Unix ms by the relay's clock.
    pub requested_at: u64,
    /// Whether relays of the old contract may still take the machine's work.
    #[serde(default)]
    pub allow_legacy: bool,
}

impl Message for Enrolment {
    const TYPE: &'static str = "enrolment";
    const MAX_BYTES: usize = ENROLMENT_BYTES;
}

/// Why an enrolment does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// The envelope.
    #[error("the enrolment is not signed as it should be: {0}")]
    Signed(#[from] SignedError),
    /// Another key signed it.
    #[error("the enrolment is not signed by the signing key in it")]
    OtherKey,
    /// One key for two purposes.
    #[error("login key and signing key are the same; the key that signs must not log in")]
    SharedKey,
    /// Issued too long ago, or ahead.
    #[error("the enrolment was signed more than 5 minutes from now; set the clock right")]
    Skewed,
    /// A text for people is too long or has control characters.
    #[error("hostname and version must be short printable texts")]
    Text,
}

impl Enrolment {
    /// Looks into an envelope at `now_ms` (Unix ms), and sees that it was signed by the key that it names, lately.
    ///
    /// # Errors
    /// [`Unfit`]; none passes by sending the same again.
    pub fn open(signed: &Signed<Self>, now_ms: u64) -> Result<Self, Unfit> {
        let enrolment = signed.open(|_| true)?;
        if enrolment.signing_key != *signed.key() {
            return Err(Unfit::OtherKey);
        }
        if enrolment.login_key == enrolment.signing_key {
            return Err(Unfit::SharedKey);
        }
        if now_ms.abs_diff(enrolment.requested_at) > limit::REQUEST_SKEW_MS {
            return Err(Unfit::Skewed);
        }
        let fits = |text: &str, bytes| text.len() <= bytes && !text.chars().any(char::is_control);
        if fits(&enrolment.hostname, HOSTNAME_BYTES) && fits(&enrolment.version, VERSION_BYTES) {
            Ok(enrolment)
        } else {
            Err(Unfit::Text)
        }
    }
}

/// The answer to an enrolment: all that a relay needs beside its keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolled {
    /// Workspace.
    pub ws: Workspace,
    /// The machine that it speaks for.
    pub machine_id: MachineId,
    /// The same, as it stands in subjects.
    pub token: MachineToken,
    /// The assignment whose key was used.
    pub assignment_id: String,
    /// What people call that.
    pub name: String,
    /// Token for the login key that was sent.
    pub jwt: String,
    /// Brokers, in the order in which they are to be tried.
    pub nats: Vec<String>,
    /// Signs who may author what.
    pub fleet_key: PublicKey,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signed::SigningKey;
    use nkeys::KeyPair;

    const NOW: u64 = 1_795_000_000_000;

    fn key() -> SigningKey {
        SigningKey::from_seed(&KeyPair::new_user().seed().unwrap()).unwrap()
    }

    fn enrolment(signing: &SigningKey) -> Enrolment {
        Enrolment {
            ws: None,
            login_key: key().public().clone(),
            signing_key: signing.public().clone(),
            hostname: "web-1".into(),
            version: "1.0.0".into(),
            requested_at: NOW,
            allow_legacy: false,
        }
    }

    #[test]
    fn what_its_own_key_signed_lately_counts() {
        let signing = key();
        let good = enrolment(&signing);
        let open = |enrolment: &Enrolment, by: &SigningKey, now| {
            Enrolment::open(&Signed::sign(enrolment, by).unwrap(), now)
        };
        for now in [NOW, NOW - limit::REQUEST_SKEW_MS, NOW + limit::REQUEST_SKEW_MS] {
            assert_eq!(open(&good, &signing, now), Ok(good.clone()));
        }
        for now in [0, NOW - limit::REQUEST_SKEW_MS - 1, NOW + limit::REQUEST_SKEW_MS + 1] {
            assert_eq!(open(&good, &signing, now), Err(Unfit::Skewed));
        }
        assert_eq!(open(&good, &key(), NOW), Err(Unfit::OtherKey));
        let shared = Enrolment { login_key: signing.public().clone(), ..good.clone() };
        assert_eq!(open(&shared, &signing, NOW), Err(Unfit::SharedKey));
        for hostname in ["x".repeat(256), "a\nb".to_owned()] {
            assert_eq!(open(&Enrolment { hostname, ..good.clone() }, &signing, NOW), Err(Unfit::Text));
        }
        let version = "1".repeat(65);
        assert_eq!(open(&Enrolment { version, ..good }, &signing, NOW), Err(Unfit::Text));
    }

    #[test]
    fn a_signature_that_is_not_over_it_is_refused() {
        let (signing, other) = (key(), key());
        let mut first = serde_json::to_value(Signed::sign(&enrolment(&signing), &signing).unwrap()).unwrap();
        let second = serde_json::to_value(Signed::sign(&enrolment(&other), &other).unwrap()).unwrap();
        first["payload"] = second["payload"].clone();
        let mixed: Signed<Enrolment> = serde_json::from_value(first).unwrap();
        assert_eq!(Enrolment::open(&mixed, NOW), Err(Unfit::Signed(SignedError::Signature)));
    }
}
