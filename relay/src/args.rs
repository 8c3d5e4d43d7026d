//! The command line.

use std::{ffi::OsStr, path::PathBuf};

use clap::{CommandFactory as _, Parser, Subcommand, ValueEnum};

use crate::credentials_cli::args::CredentialsAction;
use crate::known_hosts_cli::KnownHostsArgs;

/// Says what is logged, where no argument does.
pub const LOG_VARIABLE: &str = "RUST_LOG";

/// The agent on each machine.
#[derive(Debug, Parser)]
#[command(name = "signalbox-relay", version)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub action: Action,
    /// How log lines look.
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// What is logged, such as `info` or `signalbox_relay=debug`.
    #[arg(long, global = true, value_name = "FILTER", env = LOG_VARIABLE, default_value = signalbox_link::DEFAULT_LOG)]
    pub log: String,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Runs the agent until it is told to stop.
    Run {
        /// Journal, spool and keeper socket; made where it is missing.
        #[arg(long, value_name = "DIR")]
        store: PathBuf,
        /// Login file; `signing.seed` and `relay.toml` lie beside it.
        #[arg(long, value_name = "FILE")]
        creds: PathBuf,
        /// The broker, such as `nats://127.0.0.1:4222`; several URLs are separated by commas.
        #[arg(long, value_name = "URL")]
        nats: String,
    },
    /// Credentials that this machine keeps for hosts behind it.
    Credentials {
        /// What to do with them.
        #[command(subcommand)]
        action: CredentialsAction,
    },
    /// Shows and changes which host keys a relay knows.
    KnownHosts(KnownHostsArgs),
    /// Keeps the processes of a store's runs; started by the agent itself.
    #[command(hide = true)]
    Keeper {
        /// The relay's store.
        #[arg(long, value_name = "DIR")]
        store: PathBuf,
    },
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Whether a command line that begins with this argument is the positional one, of [`legacy_args`](crate::legacy_args), and
/// not the one with a word for what to do. An API key that is such a word comes by its variable or file.
pub fn is_positional(first: Option<&OsStr>) -> bool {
    let Some(first) = first.and_then(OsStr::to_str) else { return true };
    let options = ["--log", "--log-format"];
    let is_option = options.into_iter().any(|option| {
        first.strip_prefix(option).is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
    });
    let command = Args::command();
    let is_word = command.get_subcommands().any(|word| word.get_name() == first);
    !is_word && !is_option && first != "help"
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(None, true)]
    #[case(Some("run"), false)]
    #[case(Some("keeper"), false)]
    #[case(Some("credentials"), false)]
    #[case(Some("credential"), true)]
    #[case(Some("known-hosts"), false)]
    #[case(Some("help"), false)]
    #[case(Some("--log=info"), false)]
    #[case(Some("--log-format"), false)]
    #[case(Some("--log-level"), true)]
    #[case(Some("--help"), true)]
    #[case(Some("-v"), true)]
    #[case(Some("-"), true)]
    #[case(Some("sk_live_1"), true)]
    fn the_first_argument_says_which_line_it_is(#[case] first: Option<&str>, #[case] positional: bool) {
        assert_eq!(is_positional(first.map(OsStr::new)), positional);
    }
}
