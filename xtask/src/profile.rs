//! `cargo xtask profile`: a figure under `perf`, drawn as a flame graph.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use crate::broker;
use crate::build::{SHIPPED, Workspace};
use crate::debian;
use crate::program::METER;
use crate::progress::Stages;

/// Samples per second and processor: not a divisor of anything that happens by the clock.
const FREQUENCY: &str = "499";

/// What `cargo xtask profile` was given.
#[derive(Debug, Args)]
pub(crate) struct ProfileArgs {
    /// The figure, as `cargo xtask bench` names it
    name: String,
}

/// Builds with frame pointers in a folder of its own, measures under `perf`, and draws `target/profile/NAME.svg`.
///
/// # Errors
/// When `perf` is missing or may not look, the build fails, or the figure cannot be measured.
pub(crate) fn run(workspace: &Workspace, args: &ProfileArgs) -> Result<ExitCode> {
    let folder = workspace.target.join("profile");
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let place = |ending: &str| folder.join(format!("{}.{ending}", args.name));
    let mut stages = Stages::new(5);
    let nats_server =
        stages.run("broker", "looking for nats-server", || broker::obtain(&workspace.tools()))?;
    stages.run("packages", "looking for perf", || debian::install_what_can_be(&[("perf", "linux-perf")]));
    stages.run("build", "building with frame pointers (minutes, the first time)", || {
        build(workspace, &folder)
    })?;
    let meter = folder.join("release").join(METER.name);
    let what = format!("measuring {} under perf", args.name);
    stages.run("perf", &what, || {
        let mut perf = Command::new("perf");
        perf.args(["record", "--quiet", "-e", "cpu-clock", "-F", FREQUENCY, "--call-graph", "fp", "-o"]);
        perf.arg(place("data")).arg("--").arg(&meter).args(["bench", &args.name]);
        // What was measured under perf is not what is published.
        perf.arg("--out").arg(&folder);
        perf.env(broker::PATH_VARIABLE, &nats_server).current_dir(&workspace.root);
        done(perf, "perf record")
    })?;
    let svg = place("svg");
    stages.run("draw", "drawing", || draw(&meter, &place("data"), &svg))?;
    eprintln!("      {}", stages.times());
    eprintln!("      {}", svg.display());
    Ok(ExitCode::SUCCESS)
}

fn build(workspace: &Workspace, folder: &Path) -> Result<()> {
    let mut cargo = workspace.cargo(&["build", "--release", "--locked", "--target-dir"]);
    cargo.arg(folder).env("RUSTFLAGS", "-Cforce-frame-pointers=yes");
    // Names of functions, and no link that takes minutes.
    cargo.env("CARGO_PROFILE_RELEASE_LTO", "off").env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16");
    for package in SHIPPED.iter().chain([&METER.name]) {
        cargo.args(["-p", package]);
    }
    done(cargo, "the build")
}

/// `perf script` tells every sample, and the meter folds and draws them.
fn draw(meter: &Path, data: &Path, svg: &Path) -> Result<()> {
    let mut script = Command::new("perf");
    script.arg("script").arg("-i").arg(data).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut told = script.stderr(Stdio::null()).spawn().context("starting perf script")?;
    let samples = told.stdout.take().context("perf script has no output")?;
    let picture = File::create(svg).with_context(|| format!("making {}", svg.display()))?;
    let drawn = Command::new(meter).arg("flames").stdin(samples).stdout(picture).status();
    let told = told.wait().context("waiting for perf script")?;
    ensure!(told.success(), "perf script ended with {told}");
    ensure!(drawn.context("starting the drawing")?.success(), "the flame graph cannot be drawn");
    Ok(())
}

fn done(mut command: Command, what: &str) -> Result<()> {
    let status = command.stdin(Stdio::null()).status().with_context(|| format!("starting {what}"))?;
    if !status.success() {
        bail!("{what} ended with {status}");
    }
    Ok(())
}
