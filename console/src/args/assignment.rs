//! `signalbox assignments`, `signalbox assignment`, `signalbox relays` and `signalbox relay`.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};

use super::{Listing, Within, label::Pair};

/// `signalbox assignments`.
#[derive(Debug, Clone, ClapArgs)]
pub struct Assignments {
    /// Those of this machine only.
    #[arg(long, value_name = "MACHINE")]
    pub machine: Option<String>,
    /// Format and broker.
    #[command(flatten)]
    pub listing: Listing,
}

/// `signalbox assignment`.
#[derive(Debug, Clone, ClapArgs)]
pub struct Assignment {
    /// What to do with it.
    #[command(subcommand)]
    pub action: AssignmentAction,
    /// Format and broker.
    #[command(flatten)]
    pub within: Within,
}

/// One thing to do with an assignment.
#[derive(Debug, Clone, Subcommand)]
pub enum AssignmentAction {
    /// Lets a relay of the older system in as a machine; prints its API key, this once.
    Create {
        /// The machine; one that is not known is made.
        machine: String,
        /// What people call it.
        name: String,
        /// A key that the relay has already, from a file, or from stdin with `-`; otherwise one is drawn. The broker
        /// sees a hash of it: 16 to 256 characters that nobody can guess.
        #[arg(long, value_name = "FILE")]
        key_file: Option<PathBuf>,
        /// In whose name, for those who read it later.
        #[arg(long, value_name = "NAME")]
        created_by: Option<String>,
        /// What the machine is for; repeated for several. The relay brings it when it enrols, which one of the older system never
        /// does.
        #[arg(long = "label", value_name = "KEY=VALUE")]
        labels: Vec<Pair>,
    },
    /// Shows one.
    Show(AssignmentId),
    /// Calls it something else.
    Rename {
        /// The assignment's id.
        id: String,
        /// What people shall call it.
        name: String,
    },
    /// Its key counts again.
    Enable(AssignmentId),
    /// Its key counts no longer.
    Disable(AssignmentId),
    /// Removes it: its key never counts again.
    Remove {
        /// The assignment's id.
        id: String,
        /// With its report, inventory, pushes and place in shared credentials, and with the machine's open work if
        /// nobody else can do it.
        #[arg(long)]
        cascade: bool,
    },
    /// Gives a sign of life of its relay.
    Heartbeat(AssignmentId),
}

/// Which assignment.
#[derive(Debug, Clone, ClapArgs)]
pub struct AssignmentId {
    /// The assignment's id.
    pub id: String,
}

/// `signalbox relays`.
#[derive(Debug, Clone, ClapArgs)]
pub struct Relays {
    /// Those that can do this only, such as `ssh`.
    #[arg(long, value_name = "CAPABILITY")]
    pub capability: Option<String>,
    /// Those only that were heard in the last minute.
    #[arg(long, conflicts_with = "offline")]
    pub online: bool,
    /// Those only that were not.
    #[arg(long)]
    pub offline: bool,
    /// Format and broker.
    #[command(flatten)]
    pub listing: Listing,
}

impl Relays {
    /// Whether those that are online are meant; `None`: all.
    pub fn wanted_online(&self) -> Option<bool> {
        match (self.online, self.offline) {
            (true, _) => Some(true),
            (_, true) => Some(false),
            (false, false) => None,
        }
    }
}

/// `signalbox relay`.
#[derive(Debug, Clone, ClapArgs)]
pub struct Relay {
    /// What to do with it.
    #[command(subcommand)]
    pub action: RelayAction,
    /// Format and broker.
    #[command(flatten)]
    pub within: Within,
}

/// One thing to do with a relay of the older system.
#[derive(Debug, Clone, Subcommand)]
pub enum RelayAction {
    /// Shows what it says of itself.
    Show(AssignmentId),
    /// Reports in its name; answers what waits for it.
    Report {
        /// The assignment's id.
        id: String,
        /// A report as a JSON object, from a file, or from stdin with `-`.
        #[arg(long, value_name = "FILE")]
        file: PathBuf,
    },
}
