//! `signalbox credential` and `signalbox host-keys`: what relays keep, and how it is changed.

use std::path::PathBuf;

use clap::{ArgGroup, Args as ClapArgs, Subcommand};
use signalbox_schemas::{
    credential::{CredentialType, StorageMode, is_username},
    host::HostPattern,
    id::CredentialName,
    signed::PublicKey,
};

use super::{Within, choice::one_of};
use crate::cli::{exit, quantity};

/// `signalbox credential`.
#[derive(Debug, Clone, ClapArgs)]
pub struct Credential {
    /// What to do.
    #[command(subcommand)]
    pub action: CredentialAction,
    /// Format and broker.
    #[command(flatten)]
    pub within: Within,
}

/// One thing to do with credentials that relays keep.
#[derive(Debug, Clone, Subcommand)]
pub enum CredentialAction {
    /// Lists what relays with keys say that they keep, or who reaches a host.
    List {
        /// Which machines.
        #[arg(long, value_name = "SELECTOR", default_value = "all")]
        on: String,
        /// Those that have a credential for this host, relays of the older system too; the one that is used first comes
        /// first.
        #[arg(long, value_name = "HOST[:PORT]")]
        reaches: Option<String>,
    },
    /// Gives a credential to machines, in place of one with the same name. Its value is sealed here for each relay: nobody
    /// on the way can read it.
    Push(Box<Push>),
    /// Gives a shared credential to more machines: whoever holds the recovery key can.
    #[command(after_help = exit::TABLE)]
    Assign {
        /// What it is called.
        name: CredentialName,
        /// The private half of the recovery key, as `recovery-key create` wrote it; stdin with `-`.
        #[arg(long, value_name = "FILE")]
        recovery_key: PathBuf,
        /// Whom it can be sealed for.
        #[command(flatten)]
        trust: Trust,
        /// To whom, and how.
        #[command(flatten)]
        to: To,
    },
    /// Takes a shared credential from machines; those that have removed it are no longer assigned to it.
    #[command(after_help = exit::TABLE)]
    Unassign {
        /// What it is called.
        name: CredentialName,
        /// To whom, and how.
        #[command(flatten)]
        to: To,
    },
    /// Takes a credential from machines.
    #[command(after_help = exit::TABLE)]
    Remove {
        /// What it is called.
        name: CredentialName,
        /// To whom, and how.
        #[command(flatten)]
        to: To,
    },
}

/// `signalbox credential push`. The value is asked for, or comes from a file: an argument could be seen by others.
#[derive(Debug, Clone, ClapArgs)]
#[command(after_help = exit::TABLE, group = ArgGroup::new("value").multiple(false))]
pub struct Push {
    /// What it is called.
    pub name: CredentialName,
    /// What it is good for.
    #[arg(long = "type", value_name = "TYPE", value_parser = one_of::<CredentialType>(CredentialType::ALL.map(CredentialType::as_str)))]
    pub credential_type: CredentialType,
    /// The hosts that it opens: `db-1`, `db-1:2222`, '*.lan', 10.0.0.0/8 [default: those of commands that name it].
    #[arg(long, value_name = "PATTERN")]
    pub target: Option<HostPattern>,
    /// The login name that goes with it.
    #[arg(long, value_name = "USER", value_parser = username)]
    pub user: Option<String>,
    /// Whether relays of more machines may get it later.
    #[arg(long, value_name = "MODE", default_value = "relay_only", value_parser = one_of::<StorageMode>(["relay_only", "shared"]))]
    pub mode: StorageMode,
    /// The private key, OpenSSH or PEM; stdin with `-`.
    #[arg(long, value_name = "FILE", group = "value")]
    pub key_file: Option<PathBuf>,
    /// The password or token [default: it is asked for]; stdin with `-`.
    #[arg(long, value_name = "FILE", group = "value")]
    pub value_file: Option<PathBuf>,
    /// The certificate that goes with the key (…-cert.pub).
    #[arg(long, value_name = "FILE", requires = "key_file")]
    pub cert_file: Option<PathBuf>,
    /// What the key is encrypted with.
    #[arg(long, value_name = "FILE", requires = "key_file")]
    pub passphrase_file: Option<PathBuf>,
    /// Whom it can be sealed for.
    #[command(flatten)]
    pub trust: Trust,
    /// To whom, and how.
    #[command(flatten)]
    pub to: To,
}

/// Whom something is sealed for.
#[derive(Debug, Clone, ClapArgs)]
pub struct Trust {
    /// This machine's relay has this key now, and no other one; may be given several times.
    #[arg(long, value_name = "MACHINE=KEY", value_parser = accepted)]
    pub accept_key: Vec<(String, PublicKey)>,
}

/// `web-1=U…`: a machine, and the key that it signs with.
fn accepted(text: &str) -> Result<(String, PublicKey), String> {
    let wrong = || "write MACHINE=KEY, with the whole key: U and 55 characters".to_owned();
    // A machine's id may have the sign in it, and no key has.
    let (machine, key) = text.rsplit_once('=').ok_or_else(wrong)?;
    let key = key.parse().map_err(|_| wrong())?;
    if machine.is_empty() { Err(wrong()) } else { Ok((machine.to_owned(), key)) }
}

/// `signalbox recovery-key`.
#[derive(Debug, Clone, ClapArgs)]
pub struct RecoveryKey {
    /// What to do.
    #[command(subcommand)]
    pub action: RecoveryAction,
}

/// One thing to do with the recovery key.
#[derive(Debug, Clone, Subcommand)]
pub enum RecoveryAction {
    /// Makes a key that shared credentials are sealed for, too, from now on; prints its public half.
    Create {
        /// Where the private half goes: a new file. Keep it apart from this machine.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// There is a key already: what was sealed for that one stays so until it is pushed anew.
        #[arg(long)]
        replace: bool,
    },
}

/// `signalbox host-keys`.
#[derive(Debug, Clone, ClapArgs)]
pub struct HostKeys {
    /// What to do.
    #[command(subcommand)]
    pub action: HostKeysAction,
    /// Format and broker.
    #[command(flatten)]
    pub within: Within,
}

/// One thing to do with the host keys that relays know.
#[derive(Debug, Clone, Subcommand)]
pub enum HostKeysAction {
    /// Has relays know these keys.
    #[command(after_help = exit::TABLE, group = ArgGroup::new("which").required(true))]
    Add {
        /// Lines as `known_hosts` has them, from a file, or from stdin with `-`; up to 256.
        #[arg(long, value_name = "FILE", group = "which")]
        file: Option<PathBuf>,
        /// Such lines themselves.
        #[arg(value_name = "LINE", group = "which")]
        lines: Vec<String>,
        /// To whom, and how.
        #[command(flatten)]
        to: To,
    },
    /// Has relays forget the keys of these hosts.
    #[command(after_help = exit::TABLE)]
    Remove {
        /// As `host` or `[host]:port`.
        #[arg(value_name = "HOST", required = true)]
        hosts: Vec<String>,
        /// To whom, and how.
        #[command(flatten)]
        to: To,
    },
}

/// Whose relays, and how long it is waited for them.
#[derive(Debug, Clone, ClapArgs)]
pub struct To {
    /// Which machines: a name, a glob such as 'web-*', or `all`.
    #[arg(long = "to", value_name = "SELECTOR")]
    pub on: String,
    /// How long it waits for machines that are offline, up to 7d.
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = quantity::duration_ms)]
    pub expires_in: u64,
    /// Leaves machines out, instead of refusing them all: those whose relay is of the older system, and where a credential is given
    /// those that it cannot be sealed for.
    #[arg(long)]
    pub skip_unsealable: bool,
    /// Prints the id once it is accepted, and leaves.
    #[arg(long)]
    pub no_wait: bool,
}

fn username(text: &str) -> Result<String, String> {
    if is_username(text) {
        return Ok(text.to_owned());
    }
    Err("a login name has 1 to 128 bytes, without white space".to_owned())
}
