//! `cargo xtask bench`, `fleet` and `torture`: a program of this workspace that does the work, built in release beside
//! those that it measures or hurts.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use clap::Args;

use crate::broker;
use crate::build::Workspace;
use crate::debian;
use crate::progress::Stages;

/// What is handed on.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Handed {
    /// Handed on; `--help` says what is understood
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

/// A program that is built for developers only.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Program {
    /// Package and program.
    pub(crate) name: &'static str,
    /// Programs that it needs, and the packages that bring them.
    needs: &'static [(&'static str, &'static str)],
}

/// Figures and fleets.
pub(crate) const METER: Program = Program { name: "signalbox-meter", needs: &[] };
/// Harm.
pub(crate) const TORTURE: Program =
    Program { name: "signalbox-torture", needs: &[("ip", "iproute2"), ("faketime", "faketime")] };

impl Program {
    /// Gets the broker, builds, and becomes the program: signals and the exit code are then its own.
    ///
    /// # Errors
    /// When a stage fails. Never returns otherwise.
    pub(crate) fn run(self, workspace: &Workspace, task: &[&str], handed: &Handed) -> Result<ExitCode> {
        let mut stages = Stages::new(4);
        let nats_server =
            stages.run("broker", "looking for nats-server", || broker::obtain(&workspace.tools()))?;
        stages.run("packages", "looking for the packages that it needs", || {
            debian::install_what_can_be(self.needs);
        });
        let programs = stages.run(
            "build",
            "building it and what is shipped in release (minutes, the first time)",
            || workspace.build_release(&[self.name]),
        )?;
        let program = programs.join(self.name);
        stages.announce(&format!("starting {} {}", self.name, task.join(" ")));
        let error = Command::new(&program)
            .args(task)
            .args(&handed.args)
            .env(broker::PATH_VARIABLE, nats_server)
            .current_dir(&workspace.root)
            .exec();
        Err(error).with_context(|| format!("starting {}", program.display()))
    }
}
