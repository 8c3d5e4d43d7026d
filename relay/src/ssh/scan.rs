//! Which keys a host shows, for somebody who compares them with those on the host itself.

use std::sync::{Arc, Mutex, PoisonError};

use data_encoding::BASE64;
use russh::{
    client::Handler,
    keys::{Algorithm, PublicKeyOrCertificate},
};
use signalbox_schemas::ssh::SshFault;

use super::{
    dial::{self, Ended, HOST_KEYS},
    failure::Failure,
    guard::Guard,
    known_hosts::{fingerprint, name_of},
    line::Line,
    no_channels::no_channels,
    route::{Hop, SetBy},
};

/// A key that a host showed, and proved to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostKey {
    /// What the host is called in a file of known hosts.
    pub name: String,
    /// The kind of key.
    pub key_type: String,
    /// Its fingerprint, `SHA256:…`.
    pub fingerprint: String,
    /// The line that makes it known.
    pub line: String,
}

/// A host does not tell its keys.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ScanError(String);

/// Takes the key that is shown, and no connection.
struct Taker(Arc<Mutex<Option<Vec<u8>>>>);

impl Handler for Taker {
    type Error = Ended;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, Ended> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = shown.public_key().to_bytes().ok();
        Ok(false)
    }

    no_channels!();
}

/// Asks a host for its keys: one connection for each kind. Any host is asked: a person does it, on the machine itself.
///
/// # Errors
/// [`ScanError`] when it cannot be reached, or shows none.
pub async fn scan(host: &str, port: u16) -> Result<Vec<HostKey>, ScanError> {
    let hop =
        Hop { host: host.to_owned(), port, user: String::new(), ways: Vec::new(), allow_non_strict: true };
    let name = name_of(host, port);
    let mut found: Vec<HostKey> = Vec::new();
    for kinds in kinds() {
        let shown = ask(&hop, &name, kinds).await.map_err(|failure| ScanError(failure.message))?;
        let Some(key) = shown else { continue };
        // The kind stands at the beginning of the key, behind its length.
        let key_type = key.get(4..).and_then(|rest| rest.get(..usize::from(*key.get(3)?)));
        let key_type = key_type.map(|kind| String::from_utf8_lossy(kind).into_owned()).unwrap_or_default();
        let line = format!("{name} {key_type} {}", BASE64.encode(&key));
        let found_now = HostKey { name: name.clone(), key_type, fingerprint: fingerprint(&key), line };
        if !found.contains(&found_now) {
            found.push(found_now);
        }
    }
    if found.is_empty() {
        Err(ScanError(format!("{name} shows no key of a kind that is known here")))
    } else {
        Ok(found)
    }
}

/// Kinds of key that are asked for together: those of RSA are one kind.
fn kinds() -> Vec<Vec<Algorithm>> {
    let (rsa, others): (Vec<_>, Vec<_>) =
        HOST_KEYS.into_iter().partition(|kind| matches!(kind, Algorithm::Rsa { .. }));
    others.into_iter().map(|kind| vec![kind]).chain([rsa]).collect()
}

async fn ask(hop: &Hop, name: &str, kinds: Vec<Algorithm>) -> Result<Option<Vec<u8>>, Failure> {
    let stream = dial::connect(hop, name, Guard::unguarded()).await?;
    let (line, _cutter) = Line::new(Box::new(stream));
    let taken = Arc::new(Mutex::new(None));
    let config = Arc::new(dial::config(dial::algorithms(kinds, Vec::new(), true)));
    let shaken = dial::shake_hands(config, line, Taker(Arc::clone(&taken)), (name, SetBy::Owner)).await;
    let key = taken.lock().unwrap_or_else(PoisonError::into_inner).take();
    match (key, shaken) {
        (Some(key), _) => Ok(Some(key)),
        // It has no key of this kind.
        (None, Err(failure)) if failure.code == SshFault::AlgorithmMismatch => Ok(None),
        (None, Err(failure)) => Err(failure),
        (None, Ok(_)) => Ok(None),
    }
}
