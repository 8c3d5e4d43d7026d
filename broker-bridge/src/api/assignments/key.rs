//! API keys. A key is shown once. What is kept is its keyed BLAKE2b-256, so that neither the streams nor a copy of the store
//! let anybody in.

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use orion::{auth, util::secure_rand_bytes};
use signalbox_schemas::error::{ErrorCode, Problem, report};
use tracing::warn;

/// Random bytes of an API key.
const KEY_BYTES: usize = 32;
/// Length of a key that was made elsewhere, characters.
const OWN_CHARS: std::ops::RangeInclusive<usize> = 16..=256;

/// A key and the hash under which it is kept.
pub(super) struct ApiKey {
    pub(super) key: String,
    pub(super) hash: String,
}

/// The key that its relay has already, or a new one.
///
/// # Errors
/// `invalid` for a key that nobody could bring as a header, `not_accepted` when none can be made.
pub(super) fn take_or_draw(own: Option<String>, pepper: &[u8; 32]) -> Result<ApiKey, Problem> {
    let failed = |error: &dyn std::error::Error| {
        warn!(error = report(error), "an API key was not made");
        let message = "cannot make the assignment: this bridge cannot make an API key now; try again";
        Problem::new(ErrorCode::NotAccepted, message)
    };
    let key = match own {
        Some(key) => check(key)?,
        None => draw().map_err(|error| failed(&error))?,
    };
    let hash = hash(pepper, &key).map_err(|error| failed(&error))?;
    Ok(ApiKey { key, hash })
}

fn check(key: String) -> Result<String, Problem> {
    if OWN_CHARS.contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(key);
    }
    let message = format!(
        "cannot make the assignment: api_key must be {} to {} printable ASCII characters without white space",
        OWN_CHARS.start(),
        OWN_CHARS.end()
    );
    Err(Problem::new(ErrorCode::Invalid, message))
}

fn draw() -> Result<String, orion::errors::UnknownCryptoError> {
    let mut bytes = [0; KEY_BYTES];
    secure_rand_bytes(&mut bytes)?;
    Ok(format!("sk_{}", BASE64URL_NOPAD.encode(&bytes)))
}

/// Keyed BLAKE2b-256 of an API key, lower-case hex.
pub(crate) fn hash(pepper: &[u8; 32], key: &str) -> Result<String, orion::errors::UnknownCryptoError> {
    let secret = auth::SecretKey::try_from(pepper.as_slice())?;
    let tag = auth::authenticate(&secret, key.as_bytes())?;
    Ok(HEXLOWER.encode(tag.unprotected_as_ref()))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[test]
    fn keys_differ_and_their_hash_depends_on_the_pepper() {
        let [a, b] = [(); 2].map(|()| take_or_draw(None, &[7; 32]).unwrap());
        assert!(a.key.starts_with("sk_") && a.key.len() == 46, "{}", a.key);
        assert_ne!(a.key, b.key);
        assert_ne!(a.hash, b.hash);
        assert_eq!(hash(&[7; 32], &a.key).unwrap(), a.hash);
        assert_ne!(hash(&[8; 32], &a.key).unwrap(), a.hash);
        assert_eq!(a.hash.len(), 64);
        assert!(!a.hash.contains(a.key.trim_start_matches("sk_")));
    }

    #[rstest]
    #[case("0123456789abcdef", true)]
    #[case("!~!~!~!~!~!~!~!~", true)]
    #[case("0123456789abcde", false)]
    #[case("0123456789 abcdef", false)]
    #[case("0123456789abcdef\n", false)]
    #[case("0123456789abcdeé", false)]
    #[case("", false)]
    fn a_key_that_was_made_elsewhere_must_fit_a_header(#[case] key: &str, #[case] fits: bool) {
        let taken = take_or_draw(Some(key.to_owned()), &[7; 32]).ok();
        assert_eq!(taken.map(|taken| taken.key), fits.then(|| key.to_owned()));
    }

    #[test]
    fn a_key_has_an_end() {
        assert!(check("k".repeat(256)).is_ok());
        assert!(check("k".repeat(257)).is_err());
    }
}
