//! Names: what may be called what.
//!
//! A name that becomes part of a NATS subject is a *token*: `[a-z0-9][a-z0-9-]{0,62}`. It has no dot, no
//! wildcard, no white space and no upper case, so that a subject built from tokens means what it says.

use std::{fmt, str::FromStr};

use data_encoding::{BASE32_NOPAD, HEXLOWER};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256 as Hasher};
use uuid::{Uuid, Variant};

/// Longest token, in bytes.
pub const TOKEN_BYTES: usize = 63;
/// Longest outside machine id, in characters.
pub const MACHINE_ID_CHARS: usize = 128;

/// Longest name of a credential, in bytes.
pub const CREDENTIAL_NAME_BYTES: usize = 128;

/// A name does not follow its rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no {kind}: {rule}")]
pub struct IdError {
    kind: &'static str,
    rule: &'static str,
    text: String,
}

impl IdError {
    pub(crate) fn new(kind: &'static str, rule: &'static str, text: &str) -> Self {
        // Foreign text in an error is cut and made harmless: it may end in a log or on a terminal.
        let text = text.chars().take(64).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
        Self { kind, rule, text }
    }
}

fn is_token(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    text.len() <= TOKEN_BYTES
        && text.bytes().next().is_some_and(plain)
        && text.bytes().all(|b| plain(b) || b == b'-')
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $rule:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Checks the spelling and takes ownership.
            ///
            /// # Errors
            /// [`IdError`] when `text` does not follow the rule.
            pub fn new(text: impl Into<String>) -> Result<Self, IdError> {
                let text = text.into();
                let check: fn(&str) -> bool = $check;
                if check(&text) { Ok(Self(text)) } else { Err(IdError::new($kind, $rule, &text)) }
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;

            fn try_from(text: String) -> Result<Self, IdError> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }
    };
}
pub(crate) use text_id;

text_id!(
    /// A workspace: one fleet with its own streams of subjects. `main` until there are others.
    Workspace,
    "workspace",
    "1-63 of a-z, 0-9 and -, not starting with -",
    is_token
);
text_id!(
    /// A machine as it stands in subjects. Made from a [`MachineId`] by [`MachineId::token`].
    MachineToken,
    "machine token",
    "1-63 of a-z, 0-9 and -, not starting with -, not `main` or `all`",
    |text| is_token(text) && !RESERVED.contains(&text)
);
text_id!(
    /// A machine as people and applications call it: 1-128 printable characters, without white space at its ends, which
    /// headers and selectors lose.
    MachineId,
    "machine id",
    "1-128 printable characters without white space at the ends",
    |text| {
        let count = text.chars().count();
        let printable = !text.chars().any(char::is_control);
        (1..=MACHINE_ID_CHARS).contains(&count) && printable && text.trim().len() == text.len()
    }
);
text_id!(
    /// An operator as it stands in subjects.
    OperatorId,
    "operator id",
    "1-63 of a-z, 0-9 and -, not starting with -",
    is_token
);
text_id!(
    /// A bridge, as it stands in answers, in the lease and in audit subjects.
    BridgeId,
    "bridge id",
    "1-63 of a-z, 0-9 and -, not starting with -",
    is_token
);
text_id!(
    /// What a credential is called: 1-128 bytes of printable text, without white space at its ends.
    CredentialName,
    "credential name",
    "1-128 bytes of printable text without white space at the ends",
    |text| {
        let printable = !text.chars().any(char::is_control);
        (1..=CREDENTIAL_NAME_BYTES).contains(&text.len()) && printable && text.trim().len() == text.len()
    }
);
text_id!(
    /// One request of an operator and the name of its feed: 8-64 of `A-Z a-z 0-9 _ -`, drawn at random.
    RequestId,
    "request id",
    "8-64 of A-Z, a-z, 0-9, _ and -",
    |text| {
        (8..=64).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
    }
);

impl RequestId {
    /// The request id made of 16 random bytes: 22 characters of base64url.
    pub fn from_random(bytes: [u8; 16]) -> Self {
        Self(data_encoding::BASE64URL_NOPAD.encode(&bytes))
    }
}

/// Words that mean something else where a machine token could stand.
const RESERVED: [&str; 2] = ["main", "all"];

impl Workspace {
    /// The only workspace until there are others.
    pub fn main() -> Self {
        Self("main".to_owned())
    }
}

impl MachineId {
    /// The token under which this machine stands in subjects.
    ///
    /// An id that is a token already keeps its spelling. Every other one, and those that begin with `x-` or are
    /// reserved, become `x-` and 26 characters of lower-case base32 of their SHA-256 (130 bits), so that two
    /// ids never share a token by design.
    pub fn token(&self) -> MachineToken {
        let text = self.as_str();
        if is_token(text) && !text.starts_with("x-") && !RESERVED.contains(&text) {
            return MachineToken(text.to_owned());
        }
        let mut code = BASE32_NOPAD.encode(&Hasher::digest(text.as_bytes())).to_ascii_lowercase();
        code.truncate(26);
        MachineToken(format!("x-{code}"))
    }
}

/// One command. A UUIDv7 drawn by whoever submits it, or a UUIDv8 made from an idempotency key.
///
/// One id has one text: lower case with hyphens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CommandId(Uuid);

impl CommandId {
    /// Takes a UUID of version 7 or 8.
    ///
    /// # Errors
    /// [`IdError`] for every other version.
    pub fn new(uuid: Uuid) -> Result<Self, IdError> {
        let known = matches!(uuid.get_version_num(), 7 | 8) && uuid.get_variant() == Variant::RFC4122;
        if known { Ok(Self(uuid)) } else { Err(Self::error(&uuid.to_string())) }
    }

    /// The id of the command that `principal` submits under an idempotency `key`: UUIDv8 of the first 16 bytes
    /// of SHA-256 over `principal`, a NUL, and `key`.
    pub fn from_idempotency_key(principal: &str, key: &str) -> Self {
        let mut hasher = Hasher::new();
        hasher.update(principal.as_bytes());
        hasher.update([0]);
        hasher.update(key.as_bytes());
        let digest: [u8; 32] = hasher.finalize().into();
        let mut bytes = [0; 16];
        bytes.copy_from_slice(digest.split_at(16).0);
        Self(uuid::Builder::from_custom_bytes(bytes).into_uuid())
    }

    /// Whether it was made from an idempotency key.
    pub fn is_of_key(self) -> bool {
        self.0.get_version_num() == 8
    }

    /// The UUID.
    pub fn uuid(self) -> Uuid {
        self.0
    }

    fn error(text: &str) -> IdError {
        IdError::new("command id", "a UUID of version 7 or 8 in lower case with hyphens", text)
    }
}

impl fmt::Display for CommandId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl FromStr for CommandId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let canonical = text.len() == 36 && !text.bytes().any(|b| b.is_ascii_uppercase());
        let uuid =
            canonical.then(|| Uuid::try_parse(text).ok()).flatten().ok_or_else(|| Self::error(text))?;
        Self::new(uuid)
    }
}

impl TryFrom<String> for CommandId {
    type Error = IdError;

    fn try_from(text: String) -> Result<Self, IdError> {
        text.parse()
    }
}

impl From<CommandId> for String {
    fn from(id: CommandId) -> String {
        id.to_string()
    }
}

macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident, $len:literal, $kind:literal, $rule:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(pub [u8; $len]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&HEXLOWER.encode(&self.0))
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let bytes = HEXLOWER.decode(text.as_bytes()).ok();
                let bytes = bytes.and_then(|bytes| <[u8; $len]>::try_from(bytes).ok());
                bytes.map(Self).ok_or_else(|| IdError::new($kind, $rule, text))
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;

            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.to_string()
            }
        }
    };
}

hex_id!(
    /// 16 random bytes: the keeper's claim nonce, and the nonce of a signed request. 32 lower-case hex digits.
    Nonce,
    16,
    "nonce",
    "32 lower-case hexadecimal digits"
);
hex_id!(
    /// A SHA-256. 64 lower-case hex digits.
    Sha256,
    32,
    "SHA-256",
    "64 lower-case hexadecimal digits"
);

impl Sha256 {
    /// The SHA-256 of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Hasher::digest(bytes).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    #[rstest]
    #[case("web-1", "web-1")]
    #[case("Web 1", "x-wlufh433nuqzvf3724ixe7ju4b")]
    #[case("main", "x-")]
    #[case("x-web", "x-")]
    #[case("-web", "x-")]
    #[case("_", "x-")]
    #[case("größe", "x-")]
    fn machine_ids_have_a_token(#[case] id: &str, #[case] begins: &str) {
        let token = MachineId::new(id).unwrap().token();
        assert!(token.as_str().starts_with(begins), "{id} became {token}");
        assert!(MachineToken::new(token.as_str()).is_ok(), "{token} is no token");
    }

    #[rstest]
    #[case("")]
    #[case(" ")]
    #[case(" web")]
    #[case("web\u{a0}")]
    #[case("we\nb")]
    fn refuses_machine_ids(#[case] text: &str) {
        assert!(MachineId::new(text).is_err(), "accepted {text:?}");
    }

    #[rstest]
    #[case("")]
    #[case("a.b")]
    #[case("a*")]
    #[case(">")]
    #[case("A")]
    #[case("a b")]
    #[case("all")]
    #[case("_")]
    #[case("a123456789012345678901234567890123456789012345678901234567890123")]
    fn refuses_tokens(#[case] text: &str) {
        assert!(MachineToken::new(text).is_err(), "accepted {text:?}");
    }

    #[rstest]
    #[case("0193a2b4-0000-7000-8000-000000000000", true)]
    #[case("0193a2b4-0000-8000-8000-000000000000", true)]
    #[case("0193a2b4-0000-4000-8000-000000000000", false)]
    #[case("0193A2B4-0000-7000-8000-000000000000", false)]
    #[case("0193a2b4000070008000000000000000", false)]
    #[case("0193a2b4-0000-7000-c000-000000000000", false)]
    fn command_ids_are_canonical(#[case] text: &str, #[case] good: bool) {
        assert_eq!(text.parse::<CommandId>().is_ok(), good);
    }

    #[test]
    fn an_idempotency_key_belongs_to_its_principal() {
        let id = CommandId::from_idempotency_key("token:admin", "k1");
        assert_eq!(id, CommandId::from_idempotency_key("token:admin", "k1"));
        assert_ne!(id, CommandId::from_idempotency_key("token:admin", "k2"));
        assert_ne!(id, CommandId::from_idempotency_key("token:admi", "nk1"));
        assert_eq!(id.to_string(), "7f45528f-c488-8ccd-b191-0b316b3e6976", "it was another one once");
        assert_eq!(id.uuid().get_version_num(), 8);
        assert!(id.is_of_key());
        assert_eq!(id.to_string().parse::<CommandId>().unwrap(), id);
    }

    proptest! {
        #[test]
        fn every_machine_id_has_a_good_token(id in "\\PC{1,128}") {
            prop_assume!(id.trim() == id);
            let token = MachineId::new(id).unwrap().token();
            prop_assert!(MachineToken::new(token.as_str()).is_ok());
        }
    }
}
