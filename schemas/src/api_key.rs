//! The API key of an assignment: how one is spelled, and the hash that speaks for it where others could read.
//!
//! Whoever has the key can be the machine. It goes from a relay to a bridge over HTTP, and nowhere else: through the broker
//! goes its SHA-256, from which only a key that can be guessed can be found.

use std::fmt;

use data_encoding::BASE64URL_NOPAD;

use crate::id::Sha256;

/// Length of a key, characters.
const CHARS: std::ops::RangeInclusive<usize> = 16..=256;
/// What every key begins with that was drawn.
const PREFIX: &str = "sk_";

/// A key. It is shown by those only who ask for its text.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(String);

/// A text that is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "an API key has {} to {} printable ASCII characters without white space",
    CHARS.start(),
    CHARS.end()
)]
pub struct ApiKeyError;

impl ApiKey {
    /// The key made of 32 random bytes: `sk_` and 43 characters of base64url.
    pub fn from_random(bytes: [u8; 32]) -> Self {
        Self(format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&bytes)))
    }

    /// A key that was made elsewhere.
    ///
    /// # Errors
    /// [`ApiKeyError`] for what no header could carry, and for what is too short to be hard to guess.
    pub fn new(text: impl Into<String>) -> Result<Self, ApiKeyError> {
        let text = text.into();
        let fits = CHARS.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
        if fits { Ok(Self(text)) } else { Err(ApiKeyError) }
    }

    /// The hash by which an assignment is made.
    pub fn hash(&self) -> Sha256 {
        Self::hash_of(&self.0)
    }

    /// The same of whatever somebody brings as a key.
    pub fn hash_of(brought: &str) -> Sha256 {
        Sha256::of(brought.as_bytes())
    }

    /// The key itself, for whoever is to have it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey")
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[test]
    fn a_key_is_drawn_and_hashed_alike_everywhere() {
        let key = ApiKey::from_random([7; 32]);
        assert_eq!(key.reveal(), "sk_BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc");
        assert_eq!(ApiKey::new(key.reveal()), Ok(key.clone()));
        assert_eq!(key.hash(), Sha256::of(key.reveal().as_bytes()));
        assert_eq!(ApiKey::hash_of(key.reveal()), key.hash());
        assert!(!format!("{key:?}").contains("sk_"));
    }

    #[rstest]
    #[case("0123456789abcdef", true)]
    #[case("!~!~!~!~!~!~!~!~", true)]
    #[case("0123456789abcde", false)]
    #[case("0123456789 abcdef", false)]
    #[case("0123456789abcdef\n", false)]
    #[case("0123456789abcdeé", false)]
    #[case("", false)]
    fn a_key_that_was_made_elsewhere_must_fit_a_header(#[case] text: &str, #[case] fits: bool) {
        assert_eq!(ApiKey::new(text).is_ok(), fits);
    }

    #[test]
    fn a_key_has_an_end() {
        assert!(ApiKey::new("k".repeat(256)).is_ok());
        assert!(ApiKey::new("k".repeat(257)).is_err());
    }
}
