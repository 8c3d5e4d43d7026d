//! NATS JSON web tokens, written and read.
//!
//! ```text
//! base64url({"typ":"JWT","alg":"ed25519-nkey"}) "." base64url(claims) "." base64url(ed25519 over what stands before)
//! ```
//!
//! `jti` is the base32 of the SHA-256 of the claims with an empty `jti`. The same claims signed by the same key are
//! the same token, byte for byte: that is how `init` sees whether one must be written anew.
//!
//! Source: <https://docs.nats.io/running-a-nats-service/configuration/securing_nats/auth_intro/jwt> and the `jwt/v2`
//! library of the broker.

use data_encoding::{BASE32_NOPAD, BASE64URL_NOPAD};
use nkeys::KeyPair;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::InitError;

/// The header of every token, exactly as the broker expects it.
const HEADER: &[u8] = br#"{"typ":"JWT","alg":"ed25519-nkey"}"#;

/// What a token says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Claims {
    /// Its id; filled in by [`sign`].
    pub(crate) jti: String,
    /// When it was issued, Unix seconds.
    pub(crate) iat: u64,
    /// When it ends, Unix seconds; absent = never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) exp: Option<u64>,
    /// Who signed; filled in by [`sign`].
    pub(crate) iss: String,
    /// For people; of a user: what its permissions are made from.
    pub(crate) name: String,
    /// Whom it speaks of.
    pub(crate) sub: String,
    /// The broker's part.
    pub(crate) nats: Value,
}

impl Claims {
    /// Claims about `sub`, issued at `iat` (Unix seconds), without an end.
    pub(crate) fn new(name: &str, sub: String, iat: u64, nats: Value) -> Self {
        Self { jti: String::new(), iat, exp: None, iss: String::new(), name: name.to_owned(), sub, nats }
    }
}

/// Signs `claims`.
pub(crate) fn sign(mut claims: Claims, issuer: &KeyPair) -> Result<String, InitError> {
    let unusable = || InitError::Key { what: "the signing key of a token".into() };
    claims.iss = issuer.public_key();
    claims.jti = String::new();
    let unnamed = serde_json::to_vec(&claims).map_err(|_| unusable())?;
    claims.jti = BASE32_NOPAD.encode(&Sha256::digest(&unnamed));
    let body = serde_json::to_vec(&claims).map_err(|_| unusable())?;
    let text = format!("{}.{}", BASE64URL_NOPAD.encode(HEADER), BASE64URL_NOPAD.encode(&body));
    let signature = issuer.sign(text.as_bytes()).map_err(|_| unusable())?;
    Ok(format!("{text}.{}", BASE64URL_NOPAD.encode(&signature)))
}

/// Reads the claims of one of our own tokens. The signature is not looked at: who needs certainty signs the claims
/// again and compares.
pub(crate) fn read(token: &str) -> Option<Claims> {
    let body = token.trim().split('.').nth(1)?;
    serde_json::from_slice(&BASE64URL_NOPAD.decode(body.as_bytes()).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn tokens_read_back_verify_and_repeat() {
        let key = KeyPair::new_account();
        let claims = Claims::new("a", "U1".into(), 7, json!({"type": "user", "version": 2}));
        let token = sign(claims.clone(), &key).unwrap();
        let read = read(&token).unwrap();
        assert_eq!((&read.name, read.iat, &read.nats), (&claims.name, 7, &claims.nats));
        assert_eq!(read.iss, key.public_key());
        let (text, signature) = token.rsplit_once('.').unwrap();
        key.verify(text.as_bytes(), &BASE64URL_NOPAD.decode(signature.as_bytes()).unwrap()).unwrap();
        assert_eq!(sign(read, &key).unwrap(), token);
    }

    #[test]
    fn what_is_no_token_is_none() {
        for bad in ["", "a", "a.b", "a.e30.c", "....", "a.\u{fffd}.c"] {
            assert!(read(bad).is_none(), "read {bad:?}");
        }
    }
}
