//! The command line as it is typed.
//!
//! | room | holds |
//! |---|---|
//! | [`order`] | `run`, `exec` |
//! | [`rollout`] | waves, `retry` |
//! | [`assignment`] | `assignments`, `assignment`, `relays`, `relay` |
//! | [`credential`] | `credentials`, `shared-credentials`, `shared-credential` |
//! | [`keep`] | `credential`, `host-keys` |
//! | [`push`] | `pushes`, `push` |
//! | [`work`] | `runs`, `work` |
//! | [`audit`] | `audit` |
//! | [`system`] | `machines`, `history`, `events`, `operators`, `health` |
//! | [`label`] | `label` |
//! | [`look`] | `machine`, `status`, `output` |
//! | [`fleet`] | `context`, `config` |
//! | [`example`] | examples of every command |
//! | [`ssh`], `choice` | values of arguments |

pub mod assignment;
pub mod audit;
mod choice;
pub mod credential;
pub mod example;
pub mod fleet;
pub mod keep;
pub mod label;
pub mod look;
pub mod order;
pub mod push;
pub mod rollout;
pub mod ssh;
pub mod system;
pub mod work;

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args as ClapArgs, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use signalbox_schemas::id::CommandId;

use crate::cli::exit;

use assignment::{Assignment, Assignments, Relay, Relays};
pub use audit::Audit;
use credential::{Credentials, SharedCredential};
use fleet::{Config, Context};
use keep::{Credential, HostKeys, RecoveryKey};
use label::Label;
use look::{Machine, Output};
use order::{Exec, Run};
use push::{Push, Pushes};
use rollout::Retry;
use work::{Runs, Work};

/// Runs commands on machines that nothing can dial into. Without a command it opens the console.
#[derive(Debug, Parser)]
#[command(name = "signalbox", version, after_help = exit::TABLE)]
pub struct Args {
    /// Directory with keys, credentials and everything that is kept
    /// [default: `$XDG_STATE_HOME/signalbox`] [env: `SIGNALBOX_STATE_DIR`].
    #[arg(long, global = true, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// The fleet, by the name of its context; `default` is none [default: the one that is used] [env: `SIGNALBOX_CONTEXT`].
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,
    /// Which broker.
    #[command(flatten)]
    pub reach: Reach,
    /// What to do.
    #[command(subcommand)]
    pub action: Option<Action>,
}

impl Args {
    /// The whole command line, with its examples.
    pub fn whole() -> clap::Command {
        example::add(Self::command())
    }

    /// Reads what was typed. Where that is wrong, or asks for help, this ends the program.
    pub fn typed() -> Self {
        match Self::from_arg_matches(&Self::whole().get_matches()) {
            Ok(args) => args,
            Err(error) => error.exit(),
        }
    }
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
    /// Runs a command on one machine, waits a while for its end, and gives back its output.
    Exec(Exec),
    /// Lists the machines, as they are or as they were.
    Machines(system::Machines),
    /// Shows a machine: what it is, how it is, and its last runs.
    Machine(Machine),
    /// Lists, gives and takes labels: what machines are for.
    Label(Label),
    /// Says how the fleet is: machines, open commands, what failed in the last hour, broker and bridge.
    Status(Plain),
    /// Shows the figures of a machine over time.
    History(system::History),
    /// Lists what happened: machines, runs and the system itself.
    Events(system::Events),
    /// Lists who may use the console.
    Operators(Listing),
    /// Shows how bridge, broker and streams are: ends with 1 when a warning stands.
    Health(Plain),
    /// Lists commands, newest first.
    Commands(Commands),
    /// Shows a command: its runs and their output.
    Show(Show),
    /// Prints the output of a command, by machine, by time, or once for all that have the same.
    Output(Output),
    /// Cancels a command wherever it has not ended.
    Cancel(One),
    /// Lets no other machine begin a command that spreads in waves.
    Pause(One),
    /// Lets it go on; what has failed so far does not stop it again.
    Resume(One),
    /// Ends it: what has not begun is cancelled, and what runs goes on.
    Abort(One),
    /// Runs a command again where it failed, timed out, was lost or rejected.
    Retry(Retry),
    /// Lists runs: what waits for a machine, or is in a state.
    Runs(Runs),
    /// Lists assignments: which relay of the older system, by its API key, is which machine.
    Assignments(Assignments),
    /// Makes, changes and removes assignments.
    Assignment(Assignment),
    /// Lists relays of the older system, with what they say of themselves.
    Relays(Relays),
    /// Shows one of them, or reports in its name.
    Relay(Relay),
    /// Lists, gives and takes credentials that relays keep.
    Credential(Credential),
    /// Makes the key that shared credentials are given to more machines with.
    RecoveryKey(RecoveryKey),
    /// Says which SSH host keys relays shall know.
    HostKeys(HostKeys),
    /// Lists credentials that those relays hold: of one relay, or for a host.
    Credentials(Credentials),
    /// Lists credentials that are given to those relays.
    SharedCredentials(Listing),
    /// Makes, changes and removes shared credentials.
    SharedCredential(SharedCredential),
    /// Lists configuration that is pushed to those relays, oldest first.
    Pushes(Pushes),
    /// Pushes configuration, and says what became of it.
    Push(Push),
    /// Claims and completes runs in the name of a relay of the older system, for programs.
    Work(Work),
    /// Lists who did what, newest first, or checks that nobody has changed it.
    Audit(Audit),
    /// Explains signed messages: reads what `nats` prints, or bare JSON, from stdin.
    Decode(Decode),
    /// Lists, chooses and keeps contexts: one for each fleet.
    Context(Context),
    /// Says where the configuration is, prints one, and checks it.
    Config(Config),
    /// Prints what a shell needs to complete these commands, names of machines, commands and contexts included.
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
    /// Prints the page of man, or writes one for each command into a folder.
    Man {
        /// The folder; it is made if it is missing.
        dir: Option<PathBuf>,
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

/// A list.
#[derive(Debug, Clone, ClapArgs)]
pub struct Listing {
    /// One JSON document per line.
    #[arg(long)]
    pub json: bool,
    /// Reads it each second until Ctrl-C: drawn over itself on a terminal; elsewhere, and with --json, a line of JSON for each
    /// row that is new, changed or gone.
    #[arg(long)]
    pub watch: bool,
    /// Which broker.
    #[command(flatten)]
    pub reach: Reach,
}

/// Format and broker.
#[derive(Debug, Clone, ClapArgs)]
pub struct Plain {
    /// One JSON document per line.
    #[arg(long)]
    pub json: bool,
    /// Which broker.
    #[command(flatten)]
    pub reach: Reach,
}

/// Format and broker, wherever they stand after the first word of `signalbox push ack`.
#[derive(Debug, Clone, ClapArgs)]
pub struct Within {
    /// One JSON document per line.
    #[arg(long, global = true)]
    pub json: bool,
    /// The broker's address [default: where `signalbox up` started it] [env: `SIGNALBOX_NATS`].
    #[arg(long = "nats", id = "nats_url", value_name = "URL", global = true)]
    pub nats_url: Option<String>,
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
    pub listing: Plain,
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
            Self::Run(run) => &run.order.reach.nats_url,
            Self::Exec(exec) => &exec.order.reach.nats_url,
            Self::Machines(machines) => &machines.listing.reach.nats_url,
            Self::History(history) => &history.plain.reach.nats_url,
            Self::Events(events) => &events.listing.reach.nats_url,
            Self::SharedCredentials(listing) | Self::Operators(listing) => &listing.reach.nats_url,
            Self::Commands(commands) => &commands.listing.reach.nats_url,
            Self::Show(show) => &show.one.listing.reach.nats_url,
            Self::Cancel(one) | Self::Pause(one) | Self::Resume(one) | Self::Abort(one) => {
                &one.listing.reach.nats_url
            }
            Self::Retry(retry) => &retry.reach.nats_url,
            Self::Runs(runs) => &runs.listing.reach.nats_url,
            Self::Assignments(assignments) => &assignments.listing.reach.nats_url,
            Self::Assignment(assignment) => &assignment.within.nats_url,
            Self::Relays(relays) => &relays.listing.reach.nats_url,
            Self::Relay(relay) => &relay.within.nats_url,
            Self::Credential(credential) => &credential.within.nats_url,
            Self::HostKeys(keys) => &keys.within.nats_url,
            Self::Credentials(credentials) => &credentials.listing.reach.nats_url,
            Self::SharedCredential(shared) => &shared.within.nats_url,
            Self::Pushes(pushes) => &pushes.listing.reach.nats_url,
            Self::Push(push) => &push.within.nats_url,
            Self::Work(work) => &work.within.nats_url,
            Self::Audit(audit) => &audit.listing.reach.nats_url,
            Self::Label(label) => &label.within.nats_url,
            Self::Machine(machine) => &machine.plain.reach.nats_url,
            Self::Status(plain) | Self::Health(plain) => &plain.reach.nats_url,
            Self::Output(output) => &output.plain.reach.nats_url,
            Self::Up(_)
            | Self::Decode(_)
            | Self::Completions { .. }
            | Self::RecoveryKey(_)
            | Self::Context(_)
            | Self::Config(_)
            | Self::Man { .. } => return None,
        };
        reach.clone()
    }
}
