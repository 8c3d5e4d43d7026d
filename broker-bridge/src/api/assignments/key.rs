//! API keys. A key is shown once. What is kept is the keyed BLAKE2b-256 of its SHA-256, so that neither the streams nor a copy
//! of the store let anybody in, and whoever makes an assignment through the broker need not send the key.

use data_encoding::HEXLOWER;
use orion::{auth, util::secure_rand_bytes};
use signalbox_schemas::{
    api_key::ApiKey,
    error::{ErrorCode, Problem, report},
    id::Sha256,
};
use tracing::warn;

/// A new key.
///
/// # Errors
/// `not_accepted` when none can be made.
pub(super) fn draw() -> Result<ApiKey, Problem> {
    let mut bytes = [0; 32];
    secure_rand_bytes(&mut bytes).map_err(|error| failed(&error))?;
    Ok(ApiKey::from_random(bytes))
}

/// The form in which a key is kept: keyed BLAKE2b-256 of its hash, lower-case hex.
///
/// # Errors
/// `not_accepted` when it cannot be made.
pub(super) fn kept(pepper: &[u8; 32], key_hash: &Sha256) -> Result<String, Problem> {
    keyed(pepper, key_hash).map_err(|error| failed(&error))
}

/// The same of a key that somebody brings.
pub(crate) fn hash(pepper: &[u8; 32], key: &str) -> Result<String, orion::errors::UnknownCryptoError> {
    keyed(pepper, &ApiKey::hash_of(key))
}

fn keyed(pepper: &[u8; 32], key_hash: &Sha256) -> Result<String, orion::errors::UnknownCryptoError> {
    let secret = auth::SecretKey::try_from(pepper.as_slice())?;
    let tag = auth::authenticate(&secret, &key_hash.0)?;
    Ok(HEXLOWER.encode(tag.unprotected_as_ref()))
}

fn failed(error: &dyn std::error::Error) -> Problem {
    warn!(error = report(error), "an API key was not made");
    let message = "cannot make the assignment: this bridge cannot make an API key now; try again";
    Problem::new(ErrorCode::NotAccepted, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_differ_and_what_is_kept_depends_on_the_pepper() {
        let [a, b] = [(); 2].map(|()| draw().unwrap());
        assert!(a.reveal().starts_with("sk_") && a.reveal().len() == 46, "{}", a.reveal());
        assert_ne!(a, b);
        let kept_of = |pepper, key: &ApiKey| kept(&[pepper; 32], &key.hash()).unwrap();
        assert_ne!(kept_of(7, &a), kept_of(7, &b));
        assert_ne!(kept_of(7, &a), kept_of(8, &a));
        assert_eq!(hash(&[7; 32], a.reveal()).unwrap(), kept_of(7, &a), "who brings it is known by it");
        assert_ne!(hash(&[7; 32], &a.hash().to_string()).unwrap(), kept_of(7, &a), "the hash is no key");
        assert_eq!(kept_of(7, &a).len(), 64);
    }
}
