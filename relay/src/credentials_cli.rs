//! `signalbox-relay credentials`: what a machine's owner does with its vault. It works while the relay runs, and without it.
//!
//! | room | holds |
//! |---|---|
//! | [`args`] | the command line |
//! | `input` | values, which are never arguments |
//! | `import` | the store of an older relay |
//! | `table` | what people read |

pub mod args;
mod import;
mod input;
mod table;

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use signalbox_schemas::{
    credential::{CredentialLabel, CredentialMeta},
    id::CredentialName,
    layout::RELAY_TOML,
};
use signalbox_tty::AskError;

use args::{AddArgs, CredentialsAction, ImportArgs, VaultArgs};

use crate::{
    config::{Config, ConfigError},
    identity::IdentityError,
    vault::{Entry, NewSecret, Vault, VaultError, VaultPlace, key::KeyFault, seed::SeedFault},
};

/// Where an enrolled relay's store has its configuration.
const IDENTITY: &str = "identity";

/// What was asked for is not done.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The command line asks for nothing that can be done.
    #[error("{0}")]
    Usage(String),
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The vault.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// A file with a value.
    #[error("`{}` cannot be read", path.display())]
    Input {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file that must be private.
    #[error(transparent)]
    Private(#[from] IdentityError),
    /// A private key.
    #[error("`{}` is not kept{}", path.display(), advice(*fault))]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        fault: KeyFault,
    },
    /// The store of an older relay.
    #[error("nothing of `{}` is imported", path.display())]
    Seed {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        fault: SeedFault,
    },
    /// Some of it is imported.
    #[error("not all of `{}` is imported: see what is refused above", path.display())]
    Refused {
        /// The file.
        path: PathBuf,
    },
    /// Nobody answered.
    #[error("{what} is not known, and nothing was kept")]
    Prompt {
        /// What was asked for.
        what: &'static str,
        /// Why.
        #[source]
        source: AskError,
    },
    /// Two answers to one question.
    #[error("the two values differ, and nothing was kept; try again")]
    Differ,
    /// What was done cannot be told.
    #[error("the answer cannot be written")]
    Output(#[from] io::Error),
}

fn advice(fault: KeyFault) -> &'static str {
    match fault {
        KeyFault::Passphrase => " (its passphrase: --passphrase-file FILE, or a terminal that can be asked)",
        KeyFault::Malformed(_) => "",
    }
}

impl CliError {
    /// Whether the command line is what is wrong.
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Usage(_))
    }
}

/// Does what is asked for.
///
/// # Errors
/// [`CliError`].
pub fn main_blocking(action: CredentialsAction) -> Result<(), CliError> {
    match action {
        CredentialsAction::List { vault, json } => list(&open(&vault)?, json),
        CredentialsAction::ExportMetadata { vault, json: _ } => list(&open(&vault)?, true),
        CredentialsAction::Add(args) => add(*args),
        CredentialsAction::Remove { name, vault } => remove(open(&vault)?, name),
        CredentialsAction::Import(args) => import(&args),
        CredentialsAction::Rotate { vault } => rotate(open(&vault)?),
        CredentialsAction::Rewrap { vault, new_secret_file } => rewrap(open(&vault)?, new_secret_file),
    }
}

fn open(args: &VaultArgs) -> Result<Vault, CliError> {
    let enrolled = args.store.join(IDENTITY).join(RELAY_TOML);
    let config = args.config.clone().or_else(|| enrolled.exists().then_some(enrolled));
    let secret_file = match config {
        Some(path) => Config::read(&path)?.vault_secret_file,
        None => None,
    };
    Ok(Vault::open(VaultPlace::new(&args.store, secret_file.as_deref()))?)
}

fn print(text: &str) -> Result<(), CliError> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    Ok(stdout.flush()?)
}

fn list(vault: &Vault, as_json: bool) -> Result<(), CliError> {
    let metas: Vec<CredentialMeta> = vault.entries().iter().map(Entry::meta).collect();
    if as_json {
        let json = serde_json::to_string_pretty(&metas).map_err(io::Error::from)?;
        return print(&format!("{json}\n"));
    }
    if metas.is_empty() {
        return print(&format!("There are no credentials in `{}`.\n", vault.place().file().display()));
    }
    print(&table::table(&metas))
}

fn add(args: AddArgs) -> Result<(), CliError> {
    let mut vault = open(&args.vault)?;
    let value = input::value(&args)?;
    let AddArgs { name, credential_type, target, user, mode, .. } = args;
    let was_there = vault.entry(&name).is_some();
    let label =
        CredentialLabel { name: name.clone(), credential_type, target, username: user, storage_mode: mode };
    label.validate().map_err(|rule| CliError::Usage(format!("--user: {rule}")))?;
    vault.put(label, &value)?;
    print(&format!("{} `{name}`\n", if was_there { "changed" } else { "added" }))
}

fn remove(mut vault: Vault, name: CredentialName) -> Result<(), CliError> {
    if !vault.remove(&name)? {
        return Err(VaultError::Unknown { name }.into());
    }
    print(&format!("removed `{name}`\n"))
}

fn import(args: &ImportArgs) -> Result<(), CliError> {
    let (lines, is_whole) = import::import(&mut open(&args.vault)?, args)?;
    print(&format!("{}\n", lines.join("\n")))?;
    if is_whole { Ok(()) } else { Err(CliError::Refused { path: args.file.clone() }) }
}

fn rotate(mut vault: Vault) -> Result<(), CliError> {
    vault.rotate()?;
    print(&format!("{} credentials are sealed with a new key\n", vault.entries().len()))
}

fn rewrap(mut vault: Vault, new_secret_file: Option<PathBuf>) -> Result<(), CliError> {
    let named = |path: &Path| format!("in relay.toml: vault_secret_file = {:?}", path.display().to_string());
    let before = vault.place().secret_file();
    let to = match new_secret_file {
        // It stands in a configuration later, which is read from anywhere.
        Some(path) => NewSecret::File(std::path::absolute(path)?),
        None => NewSecret::Drawn,
    };
    vault.rewrap(&to)?;
    let now = vault.place().secret_file();
    let next = match &to {
        NewSecret::File(path) => {
            format!("; say so {}, or put its content where the relay looks for it", named(path))
        }
        NewSecret::Drawn if now != before => "; take vault_secret_file out of relay.toml".to_owned(),
        NewSecret::Drawn => String::new(),
    };
    print(&format!("the vault opens with `{}` now{next}\n", now.display()))
}
