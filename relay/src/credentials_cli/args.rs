//! What `signalbox-relay credentials` is told.

use std::path::PathBuf;

use clap::{Args, Subcommand, builder::PossibleValuesParser, builder::TypedValueParser as _};
use signalbox_schemas::{
    credential::{CredentialType, StorageMode},
    host::HostPattern,
    id::CredentialName,
};

/// What to do with the credentials of a store.
#[derive(Debug, Subcommand)]
pub enum CredentialsAction {
    /// Shows what there is, without values.
    List {
        /// Which vault.
        #[command(flatten)]
        vault: VaultArgs,
        /// As JSON: an array of labels.
        #[arg(long)]
        json: bool,
    },
    /// Keeps a credential; one of this name that is there gets this value.
    Add(Box<AddArgs>),
    /// Forgets a credential.
    Remove {
        /// How it is called.
        name: CredentialName,
        /// Which vault.
        #[command(flatten)]
        vault: VaultArgs,
    },
    /// Prints what others may know of the credentials, as JSON: an array of labels, no values.
    ExportMetadata {
        /// Which vault.
        #[command(flatten)]
        vault: VaultArgs,
        /// It is JSON with and without this.
        #[arg(long)]
        json: bool,
    },
    /// Takes the credentials of an older relay's store (`credentials.enc`), which stays as it is. Of one that is here already
    /// the newer one counts.
    Import(Box<ImportArgs>),
    /// Seals all values anew with another key. The secret stays.
    Rotate {
        /// Which vault.
        #[command(flatten)]
        vault: VaultArgs,
    },
    /// Changes the secret that the vault opens with.
    Rewrap {
        /// Which vault.
        #[command(flatten)]
        vault: VaultArgs,
        /// File with the new one, 1 to 4096 bytes, which is its place from then on; without it one is drawn, in the store.
        #[arg(long, value_name = "FILE")]
        new_secret_file: Option<PathBuf>,
    },
}

/// Which vault.
#[derive(Debug, Args)]
pub struct VaultArgs {
    /// The relay's store.
    #[arg(long, value_name = "DIR")]
    pub store: PathBuf,
    /// The relay's `relay.toml`, which may name the vault's secret [default: the one in the store's `identity`, if there is
    /// one].
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// What to keep. No value is an argument, since everybody on a machine sees those.
#[derive(Debug, Args)]
pub struct AddArgs {
    /// How it is called.
    pub name: CredentialName,
    /// What it is good for.
    #[arg(long = "type", value_name = "TYPE", value_parser = types())]
    pub credential_type: CredentialType,
    /// The hosts that it opens: `host`, `host:port`, a glob such as `*.lan`, or a network such as `10.0.0.0/8`.
    #[arg(long, value_name = "PATTERN")]
    pub target: Option<HostPattern>,
    /// The login name that goes with it; one that a command names goes before it.
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    /// Where its value lives.
    #[arg(long, value_name = "MODE", default_value = "relay_only", value_parser = modes())]
    pub mode: StorageMode,
    /// File with the private key, OpenSSH or PEM; `-` is standard input.
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// File with the certificate that goes with the key (`…-cert.pub`).
    #[arg(long, value_name = "FILE")]
    pub cert_file: Option<PathBuf>,
    /// File with the passphrase of the key; `-` is standard input. Without it a terminal is asked, if the key needs one.
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
    /// File with the password or token; `-` is standard input. Without it a terminal is asked.
    #[arg(long, value_name = "FILE")]
    pub value_file: Option<PathBuf>,
    /// Which vault.
    #[command(flatten)]
    pub vault: VaultArgs,
}

/// What to take.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// The older store's file.
    pub file: PathBuf,
    /// File with the API key that it was made with, readable by this user alone; `-` is standard input [default: the variable
    /// `SIGNALBOX_API_KEY`, or else the terminal is asked]
    #[arg(long, value_name = "FILE")]
    pub api_key_file: Option<PathBuf>,
    /// The host name of the machine that it was made on [default: this one's]
    #[arg(long, value_name = "NAME")]
    pub hostname: Option<String>,
    /// The text of `/etc/machine-id` on the machine that it was made on [default: this one's]
    #[arg(long, value_name = "ID")]
    pub machine_id: Option<String>,
    /// Which vault.
    #[command(flatten)]
    pub vault: VaultArgs,
}

fn types() -> impl clap::builder::TypedValueParser<Value = CredentialType> {
    let of = |text: String| CredentialType::ALL.into_iter().find(|known| known.as_str() == text);
    PossibleValuesParser::new(CredentialType::ALL.map(CredentialType::as_str))
        .try_map(move |text| of(text).ok_or("no such type"))
}

fn modes() -> impl clap::builder::TypedValueParser<Value = StorageMode> {
    let all = [StorageMode::RelayOnly, StorageMode::Shared];
    let of = move |text: String| all.into_iter().find(|known| known.as_str() == text);
    PossibleValuesParser::new(all.map(StorageMode::as_str))
        .try_map(move |text| of(text).ok_or("no such mode"))
}
