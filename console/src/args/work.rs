//! `signalbox runs` and `signalbox work`.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};
use signalbox_schemas::{id::CommandId, run::RunState};

use super::{Listing, Within, choice::one_of};
use crate::cli::{exit, quantity};

/// `signalbox runs`.
#[derive(Debug, Clone, ClapArgs)]
pub struct Runs {
    /// Those of this machine only.
    #[arg(long, value_name = "MACHINE")]
    pub machine: Option<String>,
    /// Those in this state only.
    #[arg(long, value_name = "STATE", value_parser = one_of::<RunState>(RunState::ALL.map(RunState::as_str)))]
    pub state: Option<RunState>,
    /// Most runs.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub limit: u32,
    /// Format and broker.
    #[command(flatten)]
    pub listing: Listing,
}

/// `signalbox work`.
#[derive(Debug, Clone, ClapArgs)]
#[command(after_help = exit::TABLE)]
pub struct Work {
    /// What to do.
    #[command(subcommand)]
    pub action: WorkAction,
    /// Format and broker.
    #[command(flatten)]
    pub within: Within,
}

/// One thing that is done in the name of a relay of the older system.
#[derive(Debug, Clone, Subcommand)]
pub enum WorkAction {
    /// Takes a run; ends with 4 when somebody else has it, or it has ended.
    Claim(Taken),
    /// Says that a claimed run has begun; ends with 4 when it was not claimed by this assignment.
    Start(Taken),
    /// Says how a claimed run ended; ends with 4 when it was not claimed by this assignment.
    Complete {
        /// Which run.
        #[command(flatten)]
        taken: Taken,
        /// It did not do what it should [default: what --exit-code says].
        #[arg(long)]
        failed: bool,
        /// Exit code of the process, if it had one.
        #[arg(long, value_name = "N", allow_negative_numbers = true)]
        exit_code: Option<i64>,
        /// Standard output, from a file, or from stdin with `-`. Both streams together have 750 KiB as JSON; over HTTP 16 MiB
        /// are taken (`POST /api/v1/commands/ID/complete`).
        #[arg(long, value_name = "FILE")]
        stdout_file: Option<PathBuf>,
        /// Standard error, in the same way; stdin can be one of both.
        #[arg(long, value_name = "FILE")]
        stderr_file: Option<PathBuf>,
        /// What went wrong beside it.
        #[arg(long, value_name = "TEXT")]
        error: Option<String>,
        /// How long it ran.
        #[arg(long, value_name = "TIME", default_value = "0ms", value_parser = quantity::duration_ms)]
        took: u64,
    },
}

/// A run, by its command and by the assignment that takes it.
#[derive(Debug, Clone, ClapArgs)]
pub struct Taken {
    /// The command's id.
    pub id: CommandId,
    /// In whose name.
    #[arg(long, value_name = "ASSIGNMENT")]
    pub assignment: String,
}
