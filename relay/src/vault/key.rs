//! Private keys of credentials: the formats that are read, and what opening a foreign one may cost. Pure.
//!
//! | text begins with | is |
//! |---|---|
//! | `-----BEGIN OPENSSH PRIVATE KEY-----` | what `ssh-keygen` makes |
//! | `-----BEGIN PRIVATE KEY-----`, `-----BEGIN ENCRYPTED PRIVATE KEY-----` | PKCS#8 |
//! | `-----BEGIN RSA PRIVATE KEY-----` | PKCS#1; encrypted with AES-128-CBC only |
//! | `-----BEGIN EC PRIVATE KEY-----` | SEC 1 |

use pkcs8::{EncryptedPrivateKeyInfoRef, pkcs5::EncryptionScheme, pkcs5::pbes2::Kdf as Pbes2Kdf};
use russh::keys::{
    Certificate, Error as KeyError, PrivateKey, decode_secret_key,
    ssh_key::{Error as SshKeyError, Kdf},
};
use signalbox_schemas::{Secret, credential::CredentialValue};
use zeroize::Zeroizing;

/// Most rounds of bcrypt: `ssh-keygen -a` takes 16 unless it is told otherwise, and each is some milliseconds.
const MOST_BCRYPT_ROUNDS: u32 = 256;
/// Most rounds of PBKDF2: programs take 2,048 to 600,000.
const MOST_PBKDF2_ROUNDS: u32 = 2_000_000;
/// Most memory of scrypt, bytes, over all its lanes: OpenSSL takes no more than half of it.
const MOST_SCRYPT_BYTES: u64 = 64 * 1024 * 1024;

/// A private key cannot be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyFault {
    /// It is encrypted, and not with this passphrase, or none is known.
    #[error("the private key is encrypted, and its passphrase is another, or was not given")]
    Passphrase,
    /// It is no key that is read here: why.
    #[error("the private key cannot be read: {0}")]
    Malformed(&'static str),
}

/// What encrypts a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lock {
    None,
    OpenSsh,
    Pkcs8,
    Pem,
}

/// Opens the private key of a credential with its passphrase. One that is not encrypted needs none, and a passphrase that
/// stands beside it is not looked at. May take seconds for a foreign key that asks for them.
///
/// # Errors
/// [`KeyFault`], which says nothing of the key's text.
pub fn open(value: &CredentialValue) -> Result<PrivateKey, KeyFault> {
    let CredentialValue::SshKey { key, passphrase, .. } = value else {
        return Err(KeyFault::Malformed("the credential is no private key"));
    };
    open_text(key, passphrase.as_ref())
}

/// The certificate that goes with the key of a credential, if one does: it must be of this very key.
///
/// # Errors
/// [`KeyFault::Malformed`].
pub fn certificate(value: &CredentialValue, key: &PrivateKey) -> Result<Option<Certificate>, KeyFault> {
    let CredentialValue::SshKey { certificate: Some(text), .. } = value else { return Ok(None) };
    let malformed = |_| KeyFault::Malformed("its certificate is none in OpenSSH's format");
    let certificate = Certificate::from_openssh(text.trim()).map_err(malformed)?;
    if certificate.public_key() != key.public_key().key_data() {
        return Err(KeyFault::Malformed("its certificate is another key's"));
    }
    Ok(Some(certificate))
}

/// Whether the text of a private key is encrypted.
///
/// # Errors
/// [`KeyFault::Malformed`] where it has no form that is read here.
pub fn is_encrypted(key: &Secret) -> Result<bool, KeyFault> {
    lock_of(&normalised(key)).map(|lock| lock != Lock::None)
}

fn open_text(key: &Secret, passphrase: Option<&Secret>) -> Result<PrivateKey, KeyFault> {
    let text = normalised(key);
    let lock = lock_of(&text)?;
    if lock == Lock::None {
        return decode_secret_key(&text, None).map_err(|error| malformed(&error));
    }
    let Some(passphrase) = passphrase else { return Err(KeyFault::Passphrase) };
    decode_secret_key(&text, Some(passphrase.expose())).map_err(|error| match error {
        KeyError::UnsupportedKeyType { .. } | KeyError::UnknownAlgorithm(_) => malformed(&error),
        KeyError::SshKey(SshKeyError::AlgorithmUnknown | SshKeyError::AlgorithmUnsupported { .. }) => {
            malformed(&error)
        }
        // What opens with a wrong passphrase is rubbish, and may be wrong in any way.
        _ => KeyFault::Passphrase,
    })
}

/// The lines of a text without what stands at their ends, from its first one that begins something.
fn normalised(key: &Secret) -> Zeroizing<String> {
    // Room for all of it, so that nothing is left behind where it grew.
    let mut text = Zeroizing::new(String::with_capacity(key.expose().len() + 1));
    for line in key.expose().lines() {
        text.push_str(line.trim());
        text.push('\n');
    }
    text
}

/// What encrypts a text, if it asks for no more than it may.
fn lock_of(text: &str) -> Result<Lock, KeyFault> {
    let begins = |name: &str| text.lines().any(|line| line == format!("-----BEGIN {name}-----"));
    if text.starts_with("PuTTY-User-Key-File-") {
        return Err(KeyFault::Malformed("it is in PuTTY's format; write it as OpenSSH's with puttygen"));
    }
    if begins("OPENSSH PRIVATE KEY") {
        return lock_of_openssh(text);
    }
    if begins("ENCRYPTED PRIVATE KEY") {
        return lock_of_pkcs8(text).map(|()| Lock::Pkcs8);
    }
    if let Some(cipher) = text.lines().find_map(|line| line.strip_prefix("DEK-Info:")) {
        if begins("RSA PRIVATE KEY") && cipher.trim_start().starts_with("AES-128-CBC,") {
            return Ok(Lock::Pem);
        }
        return Err(KeyFault::Malformed(
            "its encryption is not known here; write it anew with `ssh-keygen -p -f FILE`, which makes it OpenSSH's",
        ));
    }
    if ["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY"].into_iter().any(begins) {
        return Ok(Lock::None);
    }
    Err(KeyFault::Malformed("no private key begins in it: OpenSSH's format and PEM are read"))
}

/// The bytes between the lines that begin and end a block.
fn body(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let lines = text.lines().skip_while(|line| !line.starts_with("-----BEGIN ")).skip(1);
    let mut digits = Zeroizing::new(String::with_capacity(text.len()));
    lines.take_while(|line| !line.starts_with("-----END ")).for_each(|line| digits.push_str(line));
    data_encoding::BASE64.decode(digits.as_bytes()).ok().map(Zeroizing::new)
}

fn lock_of_openssh(text: &str) -> Result<Lock, KeyFault> {
    let key = body(text).and_then(|bytes| PrivateKey::from_bytes(&bytes).ok());
    match key.ok_or(KeyFault::Malformed("its block is cut off or damaged"))?.kdf() {
        Kdf::None => Ok(Lock::None),
        Kdf::Bcrypt { rounds, .. } if *rounds <= MOST_BCRYPT_ROUNDS => Ok(Lock::OpenSsh),
        _ => Err(KeyFault::Malformed("it asks for more rounds of bcrypt than are done here")),
    }
}

fn lock_of_pkcs8(text: &str) -> Result<(), KeyFault> {
    let bytes = body(text).ok_or(KeyFault::Malformed("its block is cut off or damaged"))?;
    let info = EncryptedPrivateKeyInfoRef::try_from(&bytes[..]);
    let info = info.map_err(|_| KeyFault::Malformed("its block is cut off or damaged"))?;
    let EncryptionScheme::Pbes2(parameters) = &info.encryption_algorithm else {
        return Err(KeyFault::Malformed(
            "it is encrypted in a way of long ago; write it anew with `openssl pkcs8 -v2 aes-256-cbc`",
        ));
    };
    let is_within_bounds = match &parameters.kdf {
        Pbes2Kdf::Pbkdf2(pbkdf2) => pbkdf2.iteration_count <= MOST_PBKDF2_ROUNDS,
        Pbes2Kdf::Scrypt(scrypt) => {
            let lanes = u64::from(scrypt.block_size).saturating_mul(scrypt.parallelization.into());
            scrypt.cost_parameter.saturating_mul(128).saturating_mul(lanes) <= MOST_SCRYPT_BYTES
        }
        _ => false,
    };
    if is_within_bounds {
        Ok(())
    } else {
        Err(KeyFault::Malformed("it asks for more time or memory than is spent here"))
    }
}

fn malformed(error: &KeyError) -> KeyFault {
    KeyFault::Malformed(match error {
        KeyError::UnsupportedKeyType { .. } | KeyError::UnknownAlgorithm(_) => {
            "its algorithm is not known here: Ed25519, ECDSA (P-256, P-384, P-521) and RSA are"
        }
        _ => "its block is cut off or damaged",
    })
}

#[cfg(test)]
mod tests;
