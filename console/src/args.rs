//! The command line as it is typed.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args as ClapArgs, Parser, Subcommand};
use signalbox_schemas::id::CommandId;

use crate::cli::{exit, quantity};

/// Runs commands on machines that nothing can dial into. Without a command it opens the console.
#[derive(Debug, Parser)]
#[command(name = "signalbox", version, after_help = exit::TABLE)]
pub struct Args {
    /// Directory with keys, credentials and everything that is kept
    /// [default: `$XDG_STATE_HOME/signalbox`] [env: `SIGNALBOX_STATE_DIR`].
    #[arg(long, global = true, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Which broker.
    #[command(flatten)]
    pub reach: Reach,
    /// What to do.
    #[command(subcommand)]
    pub action: Option<Action>,
}

/// Where the broker is.
#[derive(Debug, Clone, Default, ClapArgs)]
pub struct Reach {
    /// The broker's address [default: where `signalbox up` started it] [env: `SIGNALBOX_NATS`].
    // Not read from the environment here: it may stand before and after the subcommand, and either goes before the
    // environment.
    #[arg(long = "nats", id = "nats_url", value_name = "URL")]
    pub nats_url: Option<String>,
}

/// One thing to do.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Starts broker, bridge and demo relays, opens the console, and stops them all when it is left.
    Up(Up),
    /// Runs a command on machines and shows its output as it comes.
    Run(Run),
    /// Lists the machines.
    Machines(Listing),
    /// Lists commands, newest first.
    Commands(Commands),
    /// Shows a command: its runs and their output.
    Show(Show),
    /// Cancels a command wherever it has not ended.
    Cancel(One),
    /// Explains signed messages: reads what `nats` prints, or bare JSON, from stdin.
    Decode(Decode),
    /// Prints what a shell needs to complete these commands.
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
}

/// `signalbox up`.
#[derive(Debug, Clone, ClapArgs)]
pub struct Up {
    /// Demo relays, 0 to 64: demo-1, demo-2, ….
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(0..=64))]
    pub relays: u8,
    /// Where HTTP listens; port 0 is any free one.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:4280")]
    pub http: SocketAddr,
    /// Where the broker listens; port 0 is any free one.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:4281")]
    pub nats: SocketAddr,
    /// No console: prints one line of JSON when everything is ready, and runs until SIGTERM or Ctrl-C.
    #[arg(long)]
    pub headless: bool,
    /// What dies stays dead.
    #[arg(long)]
    pub no_restart: bool,
}

/// `signalbox run`.
#[derive(Debug, Clone, ClapArgs)]
#[command(after_help = exit::TABLE)]
pub struct Run {
    /// Which machines: a name, a glob such as 'web-*', or `all`.
    #[arg(long, value_name = "SELECTOR")]
    pub on: String,
    /// How long it may run: 250ms, 30s, 5m, 2h; up to 2d.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = quantity::duration_ms)]
    pub timeout: u64,
    /// How long it waits for machines that are offline; up to 7d.
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = quantity::duration_ms)]
    pub expires_in: u64,
    /// Output kept per machine: 10MiB, 1GiB; up to 4GiB.
    #[arg(long, value_name = "SIZE", default_value = "128MiB", value_parser = quantity::size_bytes)]
    pub max_output: u64,
    /// Prints the id once the command is accepted, and leaves.
    #[arg(long)]
    pub no_wait: bool,
    /// Prints events, one JSON document per line.
    #[arg(long)]
    pub json: bool,
    /// Which broker.
    #[command(flatten)]
    pub reach: Reach,
    /// The command, for `sh -c`, after `--`; several words are joined by spaces.
    #[arg(value_name = "COMMAND", required = true, last = true)]
    pub command: Vec<String>,
}

/// A list.
#[derive(Debug, Clone, ClapArgs)]
pub struct Listing {
    /// One JSON document per line.
    #[arg(long)]
    pub json: bool,
    /// Which broker.
    #[command(flatten)]
    pub reach: Reach,
}

/// `signalbox commands`.
#[derive(Debug, Clone, ClapArgs)]
pub struct Commands {
    /// Most commands.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub limit: u32,
    /// Format and broker.
    #[command(flatten)]
    pub listing: Listing,
}

/// `signalbox show`.
#[derive(Debug, Clone, ClapArgs)]
pub struct Show {
    /// With --json: output too, in lines as `run --json` prints them.
    #[arg(long)]
    pub output: bool,
    /// Which, and how.
    #[command(flatten)]
    pub one: One,
}

/// One command.
#[derive(Debug, Clone, ClapArgs)]
pub struct One {
    /// The command's id.
    pub id: CommandId,
    /// Format and broker.
    #[command(flatten)]
    pub listing: Listing,
}

/// `signalbox decode`.
#[derive(Debug, Clone, Copy, ClapArgs)]
pub struct Decode {
    /// One JSON document per line.
    #[arg(long)]
    pub json: bool,
}

impl Action {
    /// The broker named after the action.
    pub fn nats_url(&self) -> Option<String> {
        let reach = match self {
            Self::Run(run) => &run.reach,
            Self::Machines(listing) => &listing.reach,
            Self::Commands(commands) => &commands.listing.reach,
            Self::Show(show) => &show.one.listing.reach,
            Self::Cancel(one) => &one.listing.reach,
            Self::Up(_) | Self::Decode(_) | Self::Completions { .. } => return None,
        };
        reach.nats_url.clone()
    }
}
