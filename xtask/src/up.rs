//! `cargo xtask up`: from a fresh clone to the console.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use clap::Args;

use crate::broker;
use crate::build::Workspace;
use crate::progress::Stages;

/// What `cargo xtask up` was given.
#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    /// Handed on to `signalbox up`, for example `--relays 5` or `--headless`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) args: Vec<OsString>,
}

/// Gets the broker, builds, and becomes `signalbox up`: signals and the exit code are then its own.
///
/// # Errors
/// When a stage fails. Never returns otherwise.
pub(crate) fn run(workspace: &Workspace, args: &UpArgs) -> Result<ExitCode> {
    let mut stages = Stages::new(3);
    let nats_server =
        stages.run("broker", "looking for nats-server", || broker::obtain(&workspace.tools()))?;
    let programs = stages.run(
        "build",
        "building signalbox, signalbox-bridge and signalbox-relay in release (minutes, the first time)",
        || workspace.build_release(&[]),
    )?;
    let program = programs.join("signalbox");
    stages.announce("starting signalbox up");
    let error =
        Command::new(&program).arg("up").args(&args.args).env(broker::PATH_VARIABLE, nats_server).exec();
    Err(error).with_context(|| format!("starting {}", program.display()))
}
