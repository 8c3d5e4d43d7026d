//! Logging in, and the nonce rule.
//!
//! The server sends a nonce, the client signs it with its login key. A hostile server therefore chooses what
//! that key signs. Two things keep this harmless: the login key signs nothing else in the whole system (the
//! signing key is another one), and a nonce is signed only if it looks like the server's own (a few random
//! characters): short and visible ASCII. Every text that this system signs contains a NUL byte and is longer.
//!
//! nats-server 2.15 draws 11 random bytes and sends them as 15 characters of unpadded base64url
//! (`server/nkey.go`).

use std::fmt;
use std::path::Path;
use std::sync::{Arc, RwLock};

use async_nats::{Auth, AuthError};
use data_encoding::BASE64URL_NOPAD;
use nkeys::KeyPair;

use crate::error::LoginError;

/// Longest nonce that is signed, bytes: four times what the server sends, a third of the shortest text that
/// this system signs.
pub const MAX_NONCE_BYTES: usize = 64;

/// Name of the block that holds the token.
const USER_JWT: &str = "USER JWT";

/// What a login token says about itself. Not verified here: that is the server's business.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// Name of the user: the machine's token, the operator's name.
    pub name: String,
    /// Public key that has to sign the nonce.
    pub subject: String,
    /// When it was made, Unix milliseconds.
    pub issued_at_ms: u64,
    /// When the server ends its connections, Unix milliseconds; none = never.
    pub expires_at_ms: Option<u64>,
}

/// The credentials of one principal. Cheap to clone; all clones see a replaced token.
#[derive(Clone)]
pub struct Login {
    key: Arc<KeyPair>,
    token: Arc<RwLock<(String, Claims)>>,
    /// Where it was read from: a token that is renewed there counts at the next login.
    file: Option<Arc<Path>>,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("name", &self.claims().name).finish_non_exhaustive()
    }
}

impl Login {
    /// From a token and the seed of its login key (`SU…`).
    ///
    /// # Errors
    /// [`LoginError`] when one of them cannot be read or they do not belong together.
    pub fn new(jwt: &str, seed: &str) -> Result<Self, LoginError> {
        let key = KeyPair::from_seed(seed.trim()).map_err(|_| LoginError::Seed)?;
        let claims = read_claims(jwt)?;
        if claims.subject != key.public_key() {
            return Err(LoginError::OtherKey);
        }
        Ok(Self {
            key: Arc::new(key),
            token: Arc::new(RwLock::new((jwt.trim().to_owned(), claims))),
            file: None,
        })
    }

    /// From a standard NATS credentials file. Blocks for one small read. Each login reads the file once more: a process
    /// may run for longer than a token counts.
    ///
    /// # Errors
    /// [`LoginError`] when it cannot be read or is none.
    pub fn from_creds_file(path: &Path) -> Result<Self, LoginError> {
        Ok(Self { file: Some(path.into()), ..Self::from_creds(&read(path)?)? })
    }

    /// Takes the token that stands in the file now, if it is for the same key.
    fn refresh(&self) -> Result<(), LoginError> {
        let Some(path) = &self.file else { return Ok(()) };
        let text = read(path)?;
        self.replace_jwt(block(&text, USER_JWT).ok_or(LoginError::MissingBlock { block: USER_JWT })?)
    }

    /// From the text of a standard NATS credentials file.
    ///
    /// # Errors
    /// [`LoginError`] when it is none.
    pub fn from_creds(text: &str) -> Result<Self, LoginError> {
        let block = |name: &'static str| block(text, name).ok_or(LoginError::MissingBlock { block: name });
        Self::new(block(USER_JWT)?, block("USER NKEY SEED")?)
    }

    /// Takes a renewed token for the next login. The connection that stands is not touched; see
    /// [`crate::Link::reconnect`].
    ///
    /// # Errors
    /// [`LoginError`] when it cannot be read or is for another key; the old one stays.
    pub fn replace_jwt(&self, jwt: &str) -> Result<(), LoginError> {
        let claims = read_claims(jwt)?;
        if claims.subject != self.key.public_key() {
            return Err(LoginError::OtherKey);
        }
        let mut token = self.token.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        *token = (jwt.trim().to_owned(), claims);
        Ok(())
    }

    /// What the present token says.
    pub fn claims(&self) -> Claims {
        self.token.read().unwrap_or_else(std::sync::PoisonError::into_inner).1.clone()
    }

    /// Name in the present token.
    pub fn user_name(&self) -> String {
        self.claims().name
    }

    /// The answer to a server's nonce.
    pub(crate) fn answer(&self, nonce: &[u8]) -> Result<Auth, AuthError> {
        if !is_acceptable_nonce(nonce) {
            tracing::error!(bytes = nonce.len(), "server asked for a signature over what is no nonce");
            return Err(AuthError::new("nonce is not short visible ascii"));
        }
        if let Err(error) = self.refresh() {
            tracing::warn!(%error, "the login file cannot be read again; logging in as before");
        }
        let signature = self.key.sign(nonce).map_err(|_| AuthError::new("login key cannot sign"))?;
        let mut auth = Auth::new();
        auth.jwt = Some(self.token.read().unwrap_or_else(std::sync::PoisonError::into_inner).0.clone());
        auth.signature = Some(signature);
        Ok(auth)
    }
}

fn read(path: &Path) -> Result<String, LoginError> {
    let read = std::fs::read_to_string(path);
    read.map_err(|source| LoginError::File { path: path.display().to_string(), source })
}

/// The nonce rule: 1 to [`MAX_NONCE_BYTES`] bytes of visible ASCII.
fn is_acceptable_nonce(nonce: &[u8]) -> bool {
    (1..=MAX_NONCE_BYTES).contains(&nonce.len()) && nonce.iter().all(u8::is_ascii_graphic)
}

/// The text between `-----BEGIN NATS <name>-----` (or without `NATS`) and the next line of dashes.
fn block<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let begin = text
        .lines()
        .position(|line| line.starts_with("-----BEGIN ") && line.trim_matches('-').trim().ends_with(name))?;
    text.lines().skip(begin + 1).map(str::trim).find(|line| !line.is_empty())
}

fn read_claims(jwt: &str) -> Result<Claims, LoginError> {
    #[derive(serde::Deserialize)]
    struct Body {
        sub: String,
        #[serde(default)]
        name: String,
        #[serde(default)]
        iat: u64,
        #[serde(default)]
        exp: u64,
    }
    let body = jwt.trim().split('.').nth(1).ok_or(LoginError::Token)?;
    let body = BASE64URL_NOPAD.decode(body.as_bytes()).map_err(|_| LoginError::Token)?;
    let body: Body = serde_json::from_slice(&body).map_err(|_| LoginError::Token)?;
    Ok(Claims {
        name: body.name,
        subject: body.sub,
        issued_at_ms: body.iat.saturating_mul(1000),
        expires_at_ms: (body.exp > 0).then(|| body.exp.saturating_mul(1000)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(subject: &str, name: &str) -> String {
        let claims = serde_json::json!({"sub": subject, "name": name, "iat": 7, "exp": 9}).to_string();
        format!("e30.{}.AAAA", BASE64URL_NOPAD.encode(claims.as_bytes()))
    }

    #[test]
    fn only_short_visible_ascii_is_signed() {
        assert!(is_acceptable_nonce(b"3AxZ_-Qw81kPm2s"));
        assert!(is_acceptable_nonce(&[b'a'; 64]));
        for nonce in
            [&b""[..], &[b'a'; 65], b"two words", b"nul\0", b"tab\t", b"\xc3\xa9", b"line\n", b"\x7f"]
        {
            assert!(!is_acceptable_nonce(nonce), "{nonce:?}");
        }
        assert!(!is_acceptable_nonce(b"signalbox.v1\0command\0{}"));
    }

    #[test]
    fn credentials_are_read() {
        let key = KeyPair::new_user();
        let jwt = token(&key.public_key(), "demo-1");
        let text = format!(
            "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n*** IMPORTANT ***\n\n\
             -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
            key.seed().unwrap()
        );
        let login = Login::from_creds(&text).unwrap();
        assert_eq!(login.user_name(), "demo-1");
        assert_eq!(login.claims().expires_at_ms, Some(9000));
        assert!(matches!(Login::from_creds(&jwt), Err(LoginError::MissingBlock { block: "USER JWT" })));
        assert!(!format!("{login:?}").contains(&key.seed().unwrap()));
        assert!(!format!("{login:?}").contains(&jwt));
    }

    #[test]
    fn a_token_that_is_renewed_in_its_file_counts_at_the_next_login() {
        let (key, other) = (KeyPair::new_user(), KeyPair::new_user());
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("relay.creds");
        let write = |key: &KeyPair, name: &str| {
            let (jwt, seed) = (token(&key.public_key(), name), key.seed().unwrap());
            let text =
                format!("-----BEGIN NATS USER JWT-----\n{jwt}\n-----BEGIN USER NKEY SEED-----\n{seed}\n");
            std::fs::write(&path, text).unwrap();
        };
        write(&key, "first");
        let login = Login::from_creds_file(&path).unwrap();
        write(&key, "second");
        assert_eq!(login.user_name(), "first");
        login.answer(b"nonce").unwrap();
        assert_eq!(login.user_name(), "second");
        // What cannot be used changes nothing.
        write(&other, "third");
        login.answer(b"nonce").unwrap();
        std::fs::remove_file(&path).unwrap();
        login.answer(b"nonce").unwrap();
        assert_eq!(login.user_name(), "second");
    }

    #[test]
    fn a_token_for_another_key_is_refused() {
        let (mine, other) = (KeyPair::new_user(), KeyPair::new_user());
        let seed = mine.seed().unwrap();
        let foreign = token(&other.public_key(), "x");
        assert!(matches!(Login::new(&foreign, &seed), Err(LoginError::OtherKey)));
        let login = Login::new(&token(&mine.public_key(), "a"), &seed).unwrap();
        assert!(matches!(login.replace_jwt(&foreign), Err(LoginError::OtherKey)));
        assert!(matches!(login.replace_jwt("rubbish"), Err(LoginError::Token)));
        login.clone().replace_jwt(&token(&mine.public_key(), "b")).unwrap();
        assert_eq!(login.user_name(), "b");
    }
}
