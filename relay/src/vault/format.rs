//! The file of a vault, as it is written and as it is read. Pure.
//!
//! ```text
//! {"format": "signalbox-vault", "version": 1,
//!  "header":  {"kdf": {"algorithm", "memory_kib", "passes", "lanes", "salt"}, "wrapped_key"},
//!  "records": [{"label", "created_at", "updated_at", "sealed"}, …],     sorted by name
//!  "seal"}
//! ```
//!
//! Labels and times can be read by whoever can read the file, and changed by nobody who has not the key.

use serde::{Deserialize, Serialize};
use signalbox_schemas::{
    Base64Url,
    credential::CredentialLabel,
    limit::{CREDENTIAL_VALUE_BYTES, CREDENTIALS},
};

use super::seal::{EXTRA_BYTES, KEY_BYTES, Kdf, SEAL_BYTES};

/// What the file calls itself.
const FORMAT: &str = "signalbox-vault";
/// The version that is written, and the newest one that is read.
pub(super) const VERSION: u64 = 1;
/// Largest file: as many credentials as may be, each as large as it may be, in base64 and with its label.
pub(super) const MAX_FILE_BYTES: u64 = 40 * 1024 * 1024;

/// A credential of a vault; its value is sealed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// What is known of it without its value.
    pub label: CredentialLabel,
    /// When it was made, Unix ms by this machine's clock.
    pub created_at: u64,
    /// When it was last changed, Unix ms by this machine's clock.
    pub updated_at: u64,
    pub(super) sealed: Base64Url,
}

impl Entry {
    /// What its value is bound to: its name and the rest of its label, and its times.
    pub(super) fn context(label: &CredentialLabel, created_at: u64, updated_at: u64) -> Vec<u8> {
        // Texts and numbers always have a JSON form.
        serde_json::to_vec(&(label.name.as_str(), label, created_at, updated_at)).unwrap_or_default()
    }
}

/// How the data key is wrapped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Header {
    pub(super) kdf: Kdf,
    pub(super) wrapped_key: Base64Url,
}

/// The whole file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    format: String,
    version: u64,
    pub(super) header: Header,
    pub(super) records: Vec<Entry>,
    pub(super) seal: Base64Url,
}

/// What every version of the file says.
#[derive(Deserialize)]
struct Begin {
    format: String,
    version: u64,
}

/// The bytes are no file of a vault that can be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// They never were, or were cut off or changed: in which way.
    Damaged(String),
    /// A newer program made them.
    Newer(u64),
}

impl File {
    pub(super) fn new(header: Header, records: Vec<Entry>, seal: Base64Url) -> Self {
        Self { format: FORMAT.to_owned(), version: VERSION, header, records, seal }
    }

    /// What the seal is over.
    pub(super) fn sealed_bytes(header: &Header, records: &[Entry]) -> Vec<u8> {
        // Texts and numbers always have a JSON form.
        serde_json::to_vec(&(FORMAT, VERSION, header, records)).unwrap_or_default()
    }

    /// Reads a file. What it says is checked against its form and its bounds, and not yet believed.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Fault> {
        let damaged = |why: &str| Fault::Damaged(why.to_owned());
        if bytes.is_empty() {
            return Err(damaged("it is empty"));
        }
        if bytes.len() as u64 > MAX_FILE_BYTES {
            return Err(damaged("it is larger than any vault can be"));
        }
        let no_json = |error: serde_json::Error| Fault::Damaged(error.to_string());
        let begin: Begin = serde_json::from_slice(bytes).map_err(no_json)?;
        if begin.format != FORMAT {
            return Err(damaged("it does not call itself a vault"));
        }
        match begin.version {
            VERSION => {}
            0 => return Err(damaged("there is no version 0")),
            newer => return Err(Fault::Newer(newer)),
        }
        let file: Self = serde_json::from_slice(bytes).map_err(no_json)?;
        file.check().map_err(damaged)?;
        Ok(file)
    }

    fn check(&self) -> Result<(), &'static str> {
        if !self.header.kdf.is_within_bounds() {
            return Err("its header asks for more memory or time than a vault may take");
        }
        if self.header.wrapped_key.0.len() != KEY_BYTES + EXTRA_BYTES || self.seal.0.len() != SEAL_BYTES {
            return Err("its header or its seal is cut off");
        }
        if self.records.len() > CREDENTIALS {
            return Err("it has more credentials than a vault may");
        }
        if !self.records.is_sorted_by(|one, next| one.label.name < next.label.name) {
            return Err("its credentials are not sorted, or one is there twice");
        }
        let fits = |entry: &Entry| {
            let sealed = entry.sealed.0.len();
            entry.label.validate().is_ok()
                && (EXTRA_BYTES..=CREDENTIAL_VALUE_BYTES + EXTRA_BYTES).contains(&sealed)
        };
        if self.records.iter().all(fits) { Ok(()) } else { Err("a credential in it breaks a rule") }
    }

    /// The bytes of the file.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        // Texts and numbers always have a JSON form.
        let mut bytes = serde_json::to_vec_pretty(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }
}
