//! The project's own tasks: `cargo xtask up` and `cargo xtask test`.
//!
//! Needs nothing but Rust, and Python's pip where no `nats-server` is installed. Everything here is plain,
//! synchronous code: start a program, watch it end, say what happened on stderr. Stdout belongs to the
//! programs that are started, so that `cargo xtask up --headless` prints one line there like `signalbox` does.

#![expect(clippy::print_stderr, reason = "a task runner speaks to the person at the terminal")]

mod broker;
mod build;
mod debian;
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
}

fn main() -> ExitCode {
    let args = Args::parse();
    let outcome = Workspace::locate().and_then(|workspace| match args.task {
        Task::Up(up_args) => up::run(&workspace, &up_args),
        Task::Test(test_args) => test::run(&workspace, &test_args),
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
