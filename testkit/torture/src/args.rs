//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::check::Promise;

/// Tortures a whole Signalbox by a seed, and says which promise was broken.
///
/// Ends with 0 when every promise was kept, with 1 when one was broken, and with 2 when the chamber itself failed.
#[derive(Debug, Parser)]
#[command(name = "signalbox-torture", version)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) what: What,
}

#[derive(Debug, Subcommand)]
pub(crate) enum What {
    /// Tortures seed after seed until the time is over; at least one.
    Run(Run),
    /// Prints a seed's plan.
    Plan(Seed),
    /// Checks again what was observed.
    Check {
        /// An `observed.json` of a run.
        file: PathBuf,
    },
    /// One world: what `run` starts for each plan.
    #[command(hide = true)]
    World {
        /// The plan.
        plan: PathBuf,
        /// Folder for what was observed, and for the logs.
        into: PathBuf,
        /// Folder of the built programs.
        #[arg(long)]
        programs: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Seed {
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// How long harm is done to each, s.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(5..=600))]
    pub(crate) length: u64,
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) seed: Seed,
    /// The whole time. No world is begun that would probably not be done in it; but one at least is.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=1_440))]
    pub(crate) minutes: u64,
    /// No more seeds than this.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub(crate) seeds: Option<u64>,
    /// So many worlds side by side.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=16))]
    pub(crate) parallel: u64,
    /// First the plans that failed once.
    #[arg(long)]
    pub(crate) regressions: bool,
    /// Goes on until a seed breaks this promise and ends with 1 then, and with 0 when the time is over first; other
    /// promises may break meanwhile. No shortest prefix is looked for.
    #[arg(long, value_name = "PROMISE", conflicts_with = "regressions")]
    pub(crate) until_broken: Option<Promise>,
    /// The summary as JSON on stdout.
    #[arg(long)]
    pub(crate) json: bool,
    /// Where what failed is kept: the plan, its shortest prefix, and what was observed.
    #[arg(long, default_value = "target/torture")]
    pub(crate) out: PathBuf,
    /// How often a plan that failed is run again to find its shortest prefix; 0: not at all.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u32).range(0..=20))]
    pub(crate) shrink: u32,
    /// Folder of the built programs.
    #[arg(long)]
    pub(crate) programs: Option<PathBuf>,
}
