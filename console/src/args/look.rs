//! `signalbox machine`, `signalbox status` and `signalbox output`.

use std::path::PathBuf;

use clap::{Args as ClapArgs, ValueEnum};
use signalbox_schemas::id::CommandId;

use super::Plain;
use crate::cli::exit;

/// `signalbox machine`.
#[derive(Debug, Clone, ClapArgs)]
pub struct Machine {
    /// Its name.
    pub name: String,
    /// Format and broker.
    #[command(flatten)]
    pub plain: Plain,
}

/// `signalbox output`.
#[derive(Debug, Clone, ClapArgs)]
#[command(after_help = exit::TABLE)]
pub struct Output {
    /// The command's id.
    pub id: CommandId,
    /// That of this machine only; may be given several times.
    #[arg(long, value_name = "MACHINE")]
    pub machine: Vec<String>,
    /// Goes on until the command has ended, and ends with its exit code.
    #[arg(long)]
    pub follow: bool,
    /// Into files in this folder, MACHINE.stdout and MACHINE.stderr, none of which may be there yet.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["follow", "by", "json"])]
    pub save: Option<PathBuf>,
    /// In which order.
    #[arg(long, value_name = "ORDER", value_enum, default_value_t = By::Machine)]
    pub by: By,
    /// Format and broker.
    #[command(flatten)]
    pub plain: Plain,
}

/// The order of output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum By {
    /// One machine after another.
    Machine,
    /// As it came, lines of several machines among each other; until the command has ended, with --follow only.
    Time,
    /// Once for all machines whose output and end are the same.
    Group,
}
