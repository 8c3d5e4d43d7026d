//! `cargo xtask mutations`: does the torture notice? Each patch of `testkit/mutations` breaks one rule of the product in a
//! scratch copy; the torture must then find what that rule promises.
//!
//! A patch begins with lines that say what is broken and where it must show:
//!
//! ```text
//! Breaks: a keeper starts a command once in its life
//! Promise: starts_once
//! Seed: 7
//! ```
//!
//! Promises are those that `signalbox-torture run --help` lists at `--until-broken`. The seed is the first one that is tried.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use crate::broker;
use crate::build::Workspace;
use crate::program::TORTURE;
use crate::progress::Stages;

/// What is built: the torture, and what it starts.
const PROGRAMS: [&str; 3] = ["signalbox-bridge", "signalbox-relay", TORTURE.name];
/// Worlds side by side: as many as two cores serve without falling behind, so that a seed shows the same again.
const PARALLEL: &str = "3";
/// What is said of a patch that was seen.
const NOTICED: &str = "noticed";
/// Exit code of a torture that found a broken promise.
const BROKEN: i32 = 1;

/// What `cargo xtask mutations` was given.
#[derive(Debug, Args)]
pub(crate) struct MutationsArgs {
    /// Patches by name, without `.patch` [default: all]
    names: Vec<String>,
    /// How long each is tortured, minutes
    #[arg(long, default_value_t = 4, value_name = "M", value_parser = clap::value_parser!(u32).range(1..=60))]
    minutes: u32,
}

/// One patch.
struct Mutation {
    name: String,
    path: PathBuf,
    breaks: String,
    promise: String,
    seed: u64,
}

/// Tries each patch, and says of each whether it was noticed. That the unbroken product keeps its promises is what
/// `cargo xtask torture` shows.
///
/// # Errors
/// When the patches cannot be read, or there is no broker.
pub(crate) fn run(workspace: &Workspace, args: &MutationsArgs) -> Result<ExitCode> {
    let mutations = chosen(workspace, &args.names)?;
    let mut stages = Stages::new(1 + 2 * mutations.len());
    let nats_server =
        stages.run("broker", "looking for nats-server", || broker::obtain(&workspace.tools()))?;
    let scratch = Scratch::new(workspace, nats_server);
    let mut table = String::new();
    let mut noticed = 0;
    for mutation in &mutations {
        let began = Instant::now();
        let verdict = tried(&scratch, mutation, args.minutes, &mut stages);
        noticed += usize::from(verdict == NOTICED);
        let Mutation { name, promise, .. } = mutation;
        let _ = writeln!(table, "      {name:36} {promise:18} {verdict} ({} s)", began.elapsed().as_secs());
    }
    eprintln!("{table}      {noticed} of {} noticed", mutations.len());
    Ok(if noticed == mutations.len() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// One patch: [`NOTICED`], or what is wrong.
fn tried(scratch: &Scratch<'_>, mutation: &Mutation, minutes: u32, stages: &mut Stages) -> String {
    let what = format!("{}: building it. It breaks this: {}", mutation.name, mutation.breaks);
    if let Err(error) = stages.run("build", &what, || scratch.build_with(mutation)) {
        return format!("FAILED: {error:#}");
    }
    let what = format!("{}: looking for what breaks {}", mutation.name, mutation.promise);
    match stages.run("torture", &what, || scratch.notices(mutation, minutes)) {
        Ok(true) => NOTICED.to_owned(),
        Ok(false) => "NOT NOTICED".to_owned(),
        Err(error) => format!("FAILED: {error:#}"),
    }
}

fn chosen(workspace: &Workspace, names: &[String]) -> Result<Vec<Mutation>> {
    let folder = workspace.root.join("testkit/mutations");
    let entries = fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))?;
    let mut all = Vec::new();
    for entry in entries {
        let path = entry.with_context(|| format!("reading {}", folder.display()))?.path();
        if path.extension().is_some_and(|ending| ending == "patch") {
            let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
            all.push(read(&path, &text).with_context(|| format!("reading {}", path.display()))?);
        }
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    for name in names {
        ensure!(
            all.iter().any(|mutation| mutation.name == *name),
            "there is no {name} in {}",
            folder.display()
        );
    }
    all.retain(|mutation| names.is_empty() || names.contains(&mutation.name));
    Ok(all)
}

/// Reads the lines before the patch itself.
fn read(path: &Path, text: &str) -> Result<Mutation> {
    let line = |name: &str| {
        let lines = text.lines().take_while(|line| !line.starts_with("--- ") && !line.starts_with("diff "));
        let found = lines.filter_map(|line| line.strip_prefix(name)).find_map(|rest| rest.strip_prefix(": "));
        found.with_context(|| format!("a patch needs a line «{name}: …» before its changes"))
    };
    Ok(Mutation {
        name: path.file_stem().context("a patch without a name")?.to_string_lossy().into_owned(),
        path: path.to_owned(),
        breaks: line("Breaks")?.to_owned(),
        promise: line("Promise")?.to_owned(),
        seed: line("Seed")?.parse().context("a seed is a whole number")?,
    })
}

/// The copy, and where its programs are built.
struct Scratch<'a> {
    workspace: &'a Workspace,
    tree: PathBuf,
    target: PathBuf,
    /// What was observed, by patch.
    found: PathBuf,
    nats_server: PathBuf,
}

impl<'a> Scratch<'a> {
    fn new(workspace: &'a Workspace, nats_server: PathBuf) -> Self {
        let folder = workspace.target.join("mutations");
        Self {
            workspace,
            tree: folder.join("tree"),
            target: folder.join("build"),
            found: folder.join("found"),
            nats_server,
        }
    }

    /// Makes the copy what the working folder is, with this patch, and builds its programs.
    fn build_with(&self, mutation: &Mutation) -> Result<()> {
        self.copy()?;
        let mut apply = Command::new("git");
        // Outside of any repository, so that paths count from here.
        apply.args(["apply", "--whitespace=nowarn"]).arg(&mutation.path).env("GIT_DIR", "/nonexistent");
        let status = apply.current_dir(&self.tree).stdin(Stdio::null()).status().context("starting git")?;
        ensure!(status.success(), "{} does not apply any more: make it anew", mutation.path.display());
        let mut cargo = self.workspace.cargo(&["build", "--locked"]);
        cargo.current_dir(&self.tree).env("CARGO_TARGET_DIR", &self.target);
        for package in PROGRAMS {
            cargo.args(["-p", package]);
        }
        let status = cargo.status().context("starting cargo")?;
        ensure!(status.success(), "{} does not build", mutation.name);
        Ok(())
    }

    /// Writes what differs, and nothing else: what stays keeps its time, and is not built again.
    fn copy(&self) -> Result<()> {
        let wanted = listed(&self.workspace.root)?;
        for place in &wanted {
            let (from, to) = (self.workspace.root.join(place), self.tree.join(place));
            // A file that git still lists may be gone.
            let Ok(content) = fs::read(&from) else { continue };
            if fs::read(&to).is_ok_and(|there| there == content) {
                continue;
            }
            let folder = to.parent().context("a file without a folder")?;
            fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
            fs::write(&to, content).with_context(|| format!("writing {}", to.display()))?;
        }
        Ok(())
    }

    /// Whether the torture finds the promise broken.
    fn notices(&self, mutation: &Mutation, minutes: u32) -> Result<bool> {
        let program = self.target.join("debug").join(TORTURE.name);
        let mut torture = Command::new(&program);
        torture.args(["run", "--seed", &mutation.seed.to_string(), "--minutes", &minutes.to_string()]);
        torture.args(["--until-broken", &mutation.promise, "--parallel", PARALLEL]);
        torture.arg("--out").arg(self.found.join(&mutation.name));
        torture.env(broker::PATH_VARIABLE, &self.nats_server);
        let status = torture
            .current_dir(&self.tree)
            .stdin(Stdio::null())
            .status()
            .with_context(|| format!("starting {}", program.display()))?;
        match status.code() {
            Some(0) => Ok(false),
            Some(BROKEN) => Ok(true),
            _ => bail!("the torture of {} ended with {status}", mutation.name),
        }
    }
}

/// What git knows, and what it would: places from the root.
fn listed(root: &Path) -> Result<Vec<String>> {
    let output = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .stdin(Stdio::null())
        .output()
        .context("starting git")?;
    ensure!(output.status.success(), "git cannot list {}", root.display());
    let text = String::from_utf8(output.stdout).context("a file name that is no UTF-8")?;
    Ok(text.split('\0').filter(|place| !place.is_empty()).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATCH: &str = "Breaks: a rule\nPromise: starts_once\nSeed: 7\n\n--- a/x\n+++ b/x\nSeed: 9\n";

    #[test]
    fn a_patch_says_what_it_breaks() {
        let mutation = read(Path::new("/m/twice.patch"), PATCH).unwrap();
        assert_eq!((mutation.name.as_str(), mutation.breaks.as_str()), ("twice", "a rule"));
        assert_eq!((mutation.promise.as_str(), mutation.seed), ("starts_once", 7));
    }

    #[test]
    fn a_patch_that_says_too_little_is_refused() {
        for text in
            [PATCH.replace("Seed: 7\n", ""), PATCH.replace("Breaks", "Broke"), PATCH.replace('7', "x")]
        {
            assert!(read(Path::new("/m/twice.patch"), &text).is_err(), "{text}");
        }
    }
}
