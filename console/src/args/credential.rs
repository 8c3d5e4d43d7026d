//! `signalbox credentials`, `signalbox shared-credentials` and `signalbox shared-credential`.

use std::path::PathBuf;

use clap::{ArgGroup, Args as ClapArgs, Subcommand};
use signalbox_schemas::credential::CredentialType;

use super::{Listing, Within, choice::one_of};

/// `signalbox credentials`.
#[derive(Debug, Clone, ClapArgs)]
#[command(group = ArgGroup::new("which").multiple(true).required(true))]
pub struct Credentials {
    /// Those that the relay of this assignment holds.
    #[arg(long, value_name = "ASSIGNMENT", group = "which")]
    pub relay: Option<String>,
    /// Those that open this host.
    #[arg(long, value_name = "HOST", group = "which")]
    pub target: Option<String>,
    /// Format and broker.
    #[command(flatten)]
    pub listing: Listing,
}

/// `signalbox shared-credential`.
#[derive(Debug, Clone, ClapArgs)]
pub struct SharedCredential {
    /// What to do with it.
    #[command(subcommand)]
    pub action: SharedAction,
    /// Format and broker.
    #[command(flatten)]
    pub within: Within,
}

/// One thing to do with a shared credential.
#[derive(Debug, Clone, Subcommand)]
pub enum SharedAction {
    /// Keeps a sealed value and gives it to relays. Nobody here can read it.
    Create {
        /// What it is called.
        name: String,
        /// What it is good for.
        #[arg(long = "type", value_name = "TYPE", value_parser = one_of::<CredentialType>(CredentialType::ALL.map(CredentialType::as_str)))]
        credential_type: CredentialType,
        /// The host it opens.
        #[arg(long, value_name = "HOST")]
        target: Option<String>,
        /// The value, encrypted for the relays, from a file, or from stdin with `-`; up to 64 KiB.
        #[arg(long, value_name = "FILE")]
        value_file: PathBuf,
        /// An assignment whose relay gets it; may be given several times.
        #[arg(long, value_name = "ASSIGNMENT")]
        to: Vec<String>,
    },
    /// Changes what is given; the rest stays.
    #[command(group = ArgGroup::new("change").multiple(true).required(true))]
    Update {
        /// The shared credential's id.
        id: String,
        /// What it shall be called.
        #[arg(long, value_name = "NAME", group = "change")]
        name: Option<String>,
        /// The host it opens.
        #[arg(long, value_name = "HOST", group = "change")]
        target: Option<String>,
        /// A new value, encrypted for the relays, from a file, or from stdin with `-`; up to 64 KiB.
        #[arg(long, value_name = "FILE", group = "change")]
        value_file: Option<PathBuf>,
        /// An assignment whose relay gets it, instead of those that got it; may be given several times.
        #[arg(long, value_name = "ASSIGNMENT", group = "change")]
        to: Vec<String>,
        /// No relay gets it any more.
        #[arg(long, conflicts_with = "to", group = "change")]
        to_nobody: bool,
    },
    /// Shows one, without its value.
    Show(SharedId),
    /// Removes one: no relay gets it any more. Earlier editions of it, sealed as it is, stay with the broker for a while.
    Remove(SharedId),
}

/// Which shared credential.
#[derive(Debug, Clone, ClapArgs)]
pub struct SharedId {
    /// The shared credential's id.
    pub id: String,
}
