//! Why a vault cannot be used, and what to do about it.

use std::{io, path::PathBuf};

use signalbox_schemas::{
    credential::CredentialType,
    id::CredentialName,
    limit::{CREDENTIAL_VALUE_BYTES, CREDENTIALS},
};

use super::format::VERSION;

/// A vault cannot be used, or not in this way. Whatever was to be changed is what it was.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// The system refused.
    #[error("`{}` cannot be {what}{}", path.display(), advice(source))]
    System {
        /// What was tried.
        what: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Another process is changing it, for longer than one takes. Retryable.
    #[error(
        "the vault `{}` is being changed by another process{}; try again, or end that process if it hangs",
        path.display(), pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default()
    )]
    Busy {
        /// The vault.
        path: PathBuf,
        /// The other process, where it says so.
        pid: Option<u32>,
    },
    /// Others can read what is this user's alone.
    #[error(
        "`{}` can be read by others (mode {mode:03o}); make it 0600, and if somebody may have read it, draw another \
         with `signalbox-relay credentials rewrap`",
        path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// There is nothing to change.
    #[error("there is no vault `{}`; `signalbox-relay credentials add` makes one", path.display())]
    NoVault {
        /// Where it would be.
        path: PathBuf,
    },
    /// The file is none of a vault, is cut off or was damaged.
    #[error("`{}` is damaged: {why}; put it back from a copy, or remove it and add its credentials anew", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// In which way.
        why: String,
    },
    /// A newer program made it.
    #[error(
        "the vault `{}` has format version {version}, and this program reads versions up to {VERSION}; upgrade \
         signalbox-relay",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u64,
    },
    /// What opens it is not there.
    #[error(
        "the secret `{}` of the vault is not there; put it back, or name its place with vault_secret_file in relay.toml \
         (`--config`)",
        path.display()
    )]
    NoSecret {
        /// Where it should be.
        path: PathBuf,
    },
    /// What should open it cannot be a secret.
    #[error("`{}` cannot be the secret of a vault: it has 1 to 4096 bytes", path.display())]
    BadSecret {
        /// The file.
        path: PathBuf,
    },
    /// What should open it does not.
    #[error(
        "the secret `{}` does not open the vault `{}`: one of them is another relay's, or was damaged; put the right \
         secret there, or name its place with vault_secret_file in relay.toml (`--config`)",
        secret.display(), path.display()
    )]
    WrongSecret {
        /// The vault.
        path: PathBuf,
        /// The secret.
        secret: PathBuf,
    },
    /// It opens, and somebody has changed it who could not.
    #[error(
        "the vault `{}` was changed by somebody who does not have its key: a record or its header is not what was \
         written; put it back from a copy",
        path.display()
    )]
    Tampered {
        /// The file.
        path: PathBuf,
    },
    /// No such credential.
    #[error(
        "there is no credential `{name}` in this vault; `signalbox-relay credentials list` names those that are"
    )]
    Unknown {
        /// How it was called.
        name: CredentialName,
    },
    /// It has all that it may.
    #[error("the vault is full: it has {CREDENTIALS} credentials; remove one first")]
    Full,
    /// The label breaks a rule.
    #[error("credential `{name}`: {rule}")]
    Label {
        /// How it is called.
        name: CredentialName,
        /// The rule.
        rule: &'static str,
    },
    /// Label and value speak of different things.
    #[error("credential `{name}` is said to be of type {}, and its value is of type {}", label.as_str(), value.as_str())]
    Type {
        /// How it is called.
        name: CredentialName,
        /// What the label says.
        label: CredentialType,
        /// What the value is.
        value: CredentialType,
    },
    /// The value is too long.
    #[error("credential `{name}`: its value has more than {CREDENTIAL_VALUE_BYTES} bytes as JSON")]
    TooLarge {
        /// How it is called.
        name: CredentialName,
    },
    /// Random bytes cannot be had, or a cipher refuses.
    #[error("the vault cannot be sealed: {0}")]
    Seal(&'static str),
}

fn advice(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; what was there is unchanged: make room on its disk and repeat"
        }
        io::ErrorKind::PermissionDenied => "; run as the user that owns the store",
        _ => "",
    }
}
