//! `cargo xtask fuzz`: libFuzzer over the parsers of foreign bytes, with the stable toolchain.
//!
//! The instrumentation is LLVM's own and is asked for by stable flags, so that neither another toolchain nor cargo-fuzz is
//! needed; what is missing is the address sanitizer, which has little to say of code without `unsafe`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus, Stdio};

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::build::Workspace;
use crate::progress::Stages;

/// What the compiler is told, so that libFuzzer sees edges and comparisons.
const INSTRUMENTED: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
     -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 --cfg fuzzing";

/// An input may be as large as the largest message.
const INPUT_BYTES: usize = 256 * 1024;

/// What is kept is small: this many bytes an input.
const KEPT_BYTES: usize = 2048;

/// One input may take so long, seconds; then it is a finding.
const INPUT_SECONDS: u32 = 10;

/// What `cargo xtask fuzz` was given.
#[derive(Debug, Args)]
pub(crate) struct FuzzArgs {
    /// Targets by name [default: all]
    targets: Vec<String>,
    /// How long each is fed
    #[arg(long, default_value_t = 60, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=86_400))]
    seconds: u32,
    /// Then keep of what was tried what reaches code that nothing kept reaches, in `testkit/fuzz/corpus`
    #[arg(long)]
    keep: bool,
}

/// Builds the targets and runs one after the other. What one finds is left in `target/fuzz/findings`.
///
/// # Errors
/// When the build fails, a name is unknown, or a target cannot be started.
pub(crate) fn run(workspace: &Workspace, args: &FuzzArgs) -> Result<ExitCode> {
    let home = workspace.root.join("testkit/fuzz");
    let all = targets(&home)?;
    for name in &args.targets {
        ensure!(all.contains(name), "there is no target {name}: there are {}", all.join(", "));
    }
    let chosen = if args.targets.is_empty() { &all } else { &args.targets };
    let mut stages = Stages::new(1 + chosen.len() * (1 + usize::from(args.keep)));
    let built = stages.run("build", "building the targets, instrumented", || build(workspace, &home))?;
    let mut found = Vec::new();
    for name in chosen {
        let what = format!("feeding {name} for {} s", args.seconds);
        let is_fine =
            stages.run("fuzz", &what, || feed(workspace, &home, &built.join(name), args.seconds))?;
        if !is_fine {
            found.push(name.as_str());
        }
        if args.keep {
            let what = format!("keeping what {name} learnt");
            stages.run("keep", &what, || keep(workspace, &home, &built.join(name)))?;
        }
    }
    eprintln!("      {}", stages.times());
    if found.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("      FOUND: {}; the inputs lie in target/fuzz/findings", found.join(", "));
    Ok(ExitCode::FAILURE)
}

/// The targets, by their files.
fn targets(home: &Path) -> Result<Vec<String>> {
    let folder = home.join("targets");
    let entries = fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        let path = entry.with_context(|| format!("reading {}", folder.display()))?.path();
        names.extend(path.file_stem().map(|name| name.to_string_lossy().into_owned()));
    }
    names.sort();
    Ok(names)
}

/// Builds everything with instrumentation, in a build folder of its own; answers where the programs lie.
fn build(workspace: &Workspace, home: &Path) -> Result<PathBuf> {
    let host = host()?;
    let folder = workspace.target.join("fuzz");
    let mut cargo = workspace.cargo(&["build", "--release", "--target", &host, "--manifest-path"]);
    cargo.arg(home.join("Cargo.toml")).arg("--target-dir").arg(&folder).env("RUSTFLAGS", INSTRUMENTED);
    let status = cargo.status().context("starting cargo")?;
    ensure!(status.success(), "the build failed");
    Ok(folder.join(host).join("release"))
}

/// The target triple of this toolchain. Naming it keeps build scripts and macros free of the instrumentation.
fn host() -> Result<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).arg("-vV").stdin(Stdio::null()).output().context("starting rustc")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc -vV names no host")?.to_owned())
}

/// Runs one target on its kept corpus and the fixtures; new inputs go to the build folder. Whether nothing was found.
fn feed(workspace: &Workspace, home: &Path, program: &Path, seconds: u32) -> Result<bool> {
    let corpora = Corpora::of(workspace, home, program)?;
    let findings = workspace.target.join("fuzz/findings");
    fs::create_dir_all(&findings).with_context(|| format!("making {}", findings.display()))?;
    let mut command = Command::new(program);
    command.arg(&corpora.grown).arg(&corpora.kept).arg(workspace.root.join("schemas/fixtures/v1"));
    command.arg(format!("-max_total_time={seconds}")).arg(format!("-max_len={INPUT_BYTES}"));
    command.arg(format!("-timeout={INPUT_SECONDS}")).arg("-rss_limit_mb=2048").arg("-print_final_stats=1");
    command.arg(format!("-artifact_prefix={}/{}-", findings.display(), corpora.name));
    command.arg(format!("-dict={}", home.join("words.dict").display())).arg("-verbosity=0");
    Ok(finished(command, program)?.success())
}

/// Adds to the kept corpus what reaches more than it does, the smallest inputs first.
fn keep(workspace: &Workspace, home: &Path, program: &Path) -> Result<()> {
    let corpora = Corpora::of(workspace, home, program)?;
    let mut command = Command::new(program);
    // By the code that is reached, and not by how often, nor by what was nearly equal: a tenth of the files.
    command.args(["-set_cover_merge=1", "-use_counters=0", "-use_cmp=0"]);
    command.arg(format!("-max_len={KEPT_BYTES}")).arg("-verbosity=0");
    command.arg(&corpora.kept).arg(&corpora.grown);
    ensure!(finished(command, program)?.success(), "the corpus of {} cannot be merged", corpora.name);
    Ok(())
}

/// Where the inputs of one target lie: those of this checkout, and those of the repository.
struct Corpora {
    name: String,
    grown: PathBuf,
    kept: PathBuf,
}

impl Corpora {
    /// Makes the folders where they are missing.
    fn of(workspace: &Workspace, home: &Path, program: &Path) -> Result<Self> {
        let name = program.file_name().context("a target without a name")?.to_string_lossy().into_owned();
        let (grown, kept) =
            (workspace.target.join("fuzz/corpus").join(&name), home.join("corpus").join(&name));
        for folder in [&grown, &kept] {
            fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        }
        Ok(Self { name, grown, kept })
    }
}

fn finished(mut command: Command, program: &Path) -> Result<ExitStatus> {
    command.stdin(Stdio::null()).status().with_context(|| format!("starting {}", program.display()))
}
