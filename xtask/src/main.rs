//! The project's own tasks: from a fresh clone to the console, all checks, figures, and harm on purpose.
//!
//! Needs nothing but Rust, and Python's pip where no `nats-server` is installed. Everything here is plain,
//! synchronous code: start a program, watch it end, say what happened on stderr. Stdout belongs to the
//! programs that are started, so that `cargo xtask up --headless` prints one line there like `signalbox` does.

#![expect(clippy::print_stderr, reason = "a task runner speaks to the person at the terminal")]

mod broker;
mod build;
mod debian;
mod fuzz;
mod mutations;
mod profile;
mod program;
mod progress;
mod rules;
mod test;
mod up;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::build::Workspace;

/// The project's own tasks.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Get what is missing, build in release, start everything and open the console
    Up(up::UpArgs),
    /// Get what the tests need and run all of them
    Test(test::TestArgs),
    /// Measure: all figures or the named ones, as a table and as JSON in target/bench
    Bench(program::Handed),
    /// Keep a fleet of simulated relays alive beside a real system, for looking at
    Fleet(program::Handed),
    /// Draw every screen of the console as SVG, dark and light, in docs/gallery
    Gallery(program::Handed),
    /// Hurt a whole system by a seed, and check what must be true afterwards
    Torture(program::Handed),
    /// Draw where the time of a figure goes: a flame graph in target/profile
    Profile(profile::ProfileArgs),
    /// Break one rule after the other in a copy, and see that the torture notices
    Mutations(mutations::MutationsArgs),
    /// Feed the parsers of foreign bytes with what a fuzzer makes
    Fuzz(fuzz::FuzzArgs),
}

fn main() -> ExitCode {
    let args = Args::parse();
    let outcome = Workspace::locate().and_then(|workspace| match args.task {
        Task::Up(up_args) => up::run(&workspace, &up_args),
        Task::Test(test_args) => test::run(&workspace, &test_args),
        Task::Bench(handed) => program::METER.run(&workspace, &["bench"], &handed),
        Task::Fleet(handed) => program::METER.run(&workspace, &["fleet"], &handed),
        Task::Gallery(handed) => program::METER.run(&workspace, &["gallery"], &handed),
        Task::Torture(handed) => program::TORTURE.run(&workspace, &["run"], &handed),
        Task::Profile(profile_args) => profile::run(&workspace, &profile_args),
        Task::Mutations(mutations_args) => mutations::run(&workspace, &mutations_args),
        Task::Fuzz(fuzz_args) => fuzz::run(&workspace, &fuzz_args),
    });
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Args::command().debug_assert();
    }

    #[test]
    fn up_hands_every_argument_on() {
        let args = Args::try_parse_from(["cargo xtask", "up", "--headless", "--relays", "5"]).unwrap();
        let Task::Up(up) = args.task else { panic!("not up") };
        assert_eq!(up.args, ["--headless", "--relays", "5"]);
    }
}
