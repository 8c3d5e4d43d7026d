//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

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
    #[arg(long, global = true, value_name = "FILTER", env = "RUST_LOG", default_value = signalbox_link::DEFAULT_LOG)]
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
        /// The broker, such as `nats://127.0.0.1:4222`.
        #[arg(long, value_name = "URL")]
        nats: String,
    },
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
