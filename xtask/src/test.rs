//! `cargo xtask test`: everything a change must pass, and last of all the runner's own summary.

use std::process::{Command, ExitCode, ExitStatus, Stdio};

use anyhow::{Context, Result};
use clap::Args;

use crate::broker;
use crate::build::Workspace;
use crate::debian;
use crate::progress::Stages;
use crate::rules;

/// Test builds can kill themselves at named places.
const CRASH_POINTS: &str = "signalbox-relay/crash-points,signalbox-bridge/crash-points";

/// Stages with nothing but the fast checks, with filters, and without.
const FAST_STAGES: usize = 4;
const FILTERED_STAGES: usize = 4;
const ALL_STAGES: usize = 9;

/// What `cargo xtask test` was given.
#[derive(Debug, Args)]
pub(crate) struct TestArgs {
    /// Only the checks that run no test: format, house rules, clippy, documentation
    #[arg(long, conflicts_with = "filters")]
    fast_only: bool,
    /// Run only the tests whose name contains one of these, and no other check
    #[arg(value_name = "FILTER")]
    filters: Vec<String>,
}

/// Runs the stages. A failed check does not keep the later ones from running, so that one go shows everything;
/// the exit code is that of the first failure.
///
/// # Errors
/// When a stage cannot even be started, or what the tests need is missing.
pub(crate) fn run(workspace: &Workspace, args: &TestArgs) -> Result<ExitCode> {
    let total = match (args.fast_only, args.filters.is_empty()) {
        (true, _) => FAST_STAGES,
        (false, false) => FILTERED_STAGES,
        (false, true) => ALL_STAGES,
    };
    let mut run = Run { workspace, stages: Stages::new(total), failures: Vec::new() };
    if args.fast_only {
        run.fast_checks()?;
        run.report();
        return Ok(run.exit_code());
    }

    // First what can stop everything, so that nobody waits ten minutes to read that tmux is missing.
    let nats_server = run
        .stages
        .run("broker", "looking for nats-server", || broker::obtain(&workspace.tools()))?
        .into_os_string();
    run.stages.run("packages", "looking for the packages that the tests need", debian::install_missing)?;
    if args.filters.is_empty() {
        run.fast_checks()?;
    }
    // Tests and programs in one build: cargo then unites features the same way for both, and the runner below
    // finds everything built.
    let everything = ["build", "--locked", "--workspace", "--bins", "--tests", "--features", CRASH_POINTS];
    let built = run.check("build", "building programs and tests", workspace.cargo(&everything))?;
    if !built {
        run.report();
        return Ok(run.exit_code());
    }
    if args.filters.is_empty() {
        let mut doctests =
            workspace.cargo(&["test", "--doc", "--locked", "--workspace", "--features", CRASH_POINTS]);
        doctests.env(broker::PATH_VARIABLE, &nats_server);
        run.check("doctests", "running the documentation's examples", doctests)?;
    }
    run.report();
    let mut tests = runner(workspace, &args.filters);
    tests.env(broker::PATH_VARIABLE, &nats_server);
    run.check("tests", "running the tests", tests)?;
    Ok(run.exit_code())
}

/// The stages so far, and which of them failed.
struct Run<'a> {
    workspace: &'a Workspace,
    stages: Stages,
    failures: Vec<(&'static str, u8)>,
}

impl Run<'_> {
    fn fast_checks(&mut self) -> Result<()> {
        let workspace = self.workspace;
        self.check("fmt", "checking the format", workspace.cargo(&["fmt", "--all", "--", "--check"]))?;

        let broken = self.stages.run("rules", "checking the house rules", || rules::check(workspace))?;
        for violation in &broken {
            eprintln!("error: {violation}");
        }
        if !broken.is_empty() {
            self.failures.push(("rules", 1));
        }

        let clippy =
            ["clippy", "--locked", "--workspace", "--all-targets", "--all-features", "--", "-D", "warnings"];
        self.check("clippy", "running clippy", workspace.cargo(&clippy))?;

        let doc = ["doc", "--locked", "--workspace", "--no-deps", "--document-private-items"];
        let mut doc = workspace.cargo(&doc);
        doc.env("RUSTDOCFLAGS", "-D warnings");
        self.check("doc", "building the documentation", doc)?;
        Ok(())
    }

    /// Runs one program to its end; whether it succeeded. Its failure is kept for the exit code.
    fn check(&mut self, name: &'static str, what: &str, mut command: Command) -> Result<bool> {
        let status =
            self.stages.run(name, what, || command.status()).with_context(|| format!("starting {name}"))?;
        if !status.success() {
            self.failures.push((name, code(status)));
        }
        Ok(status.success())
    }

    /// Says how long everything took, and what failed.
    fn report(&self) {
        eprintln!("      {}", self.stages.times());
        if !self.failures.is_empty() {
            let names: Vec<&str> = self.failures.iter().map(|(name, _)| *name).collect();
            eprintln!("      FAILED: {}", names.join(", "));
        }
    }

    fn exit_code(&self) -> ExitCode {
        self.failures.first().map_or(ExitCode::SUCCESS, |(_, code)| ExitCode::from(*code))
    }
}

/// cargo-nextest where it is installed, else cargo's own runner.
fn runner(workspace: &Workspace, filters: &[String]) -> Command {
    let has_nextest = workspace
        .cargo(&["nextest", "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if has_nextest {
        let mut tests =
            workspace.cargo(&["nextest", "run", "--workspace", "--locked", "--features", CRASH_POINTS]);
        tests.args(filters);
        return tests;
    }
    // Without the documentation's examples, which ran before: the last line is then the tests' own.
    let mut tests = workspace.cargo(&["test", "--workspace", "--locked", "--tests", "--no-fail-fast"]);
    tests.args(["--features", CRASH_POINTS, "--"]).args(filters);
    tests
}

/// The exit code to hand on; a program that a signal ended counts as 1.
fn code(status: ExitStatus) -> u8 {
    status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn the_first_failure_gives_the_exit_code() {
        let workspace = Workspace { root: "/".into(), target: "/".into(), metadata: serde_json::Value::Null };
        let mut run = Run { workspace: &workspace, stages: Stages::new(3), failures: Vec::new() };
        let shell = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            command
        };
        assert!(run.check("one", "", shell("true")).unwrap());
        assert!(!run.check("two", "", shell("exit 7")).unwrap());
        assert!(!run.check("three", "", shell("exit 9")).unwrap());
        assert_eq!(run.failures, [("two", 7), ("three", 9)]);
        assert_eq!(run.exit_code(), ExitCode::from(7));
    }

    #[test]
    fn a_signal_counts_as_one() {
        assert_eq!(code(ExitStatus::from_raw(9)), 1);
        assert_eq!(code(ExitStatus::from_raw(100 << 8)), 100);
    }
}
