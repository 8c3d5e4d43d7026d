//! `cargo xtask test`: everything a change must pass, and last of all the runner's own summary.

use std::ffi::OsStr;
use std::process::{Command, ExitCode, ExitStatus, Stdio};

use anyhow::{Context, Result};
use clap::Args;

use crate::broker;
use crate::build::Workspace;
use crate::debian;
use crate::program::TORTURE;
use crate::progress::Stages;
use crate::rules;

/// Test builds can kill themselves at named places.
const CRASH_POINTS: &str = "signalbox-relay/crash-points,signalbox-bridge/crash-points";

/// Stages with nothing but the fast checks, and those before the tests, with filters and without.
const FAST_STAGES: usize = 4;
const FILTERED_STAGES: usize = 3;
const ALL_STAGES: usize = 9;

/// How long whole systems are tortured. A seed takes about one; what they find takes hours, elsewhere.
const TORTURE_MINUTES: &str = "4";

/// Tests that start whole systems, and measurements, by parts of their names: one at a time, as in
/// `.config/nextest.toml`.
const ONE_AT_A_TIME: [&str; 3] = ["e2e", "heavy", "figures"];

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
    let runners = if args.fast_only { Vec::new() } else { runners(has_nextest(workspace), &args.filters) };
    let total = match (args.fast_only, args.filters.is_empty()) {
        (true, _) => FAST_STAGES,
        (false, false) => FILTERED_STAGES + runners.len(),
        (false, true) => ALL_STAGES + runners.len(),
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
        // Before the tests, whose runner has the last word.
        let what = format!("torturing whole systems with fixed seeds, {TORTURE_MINUTES} min");
        run.check("torture", &what, torture(workspace, &nats_server))?;
    }
    run.report();
    for (name, what, arguments) in runners {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let mut tests = workspace.cargo(&arguments);
        tests.env(broker::PATH_VARIABLE, &nats_server);
        run.check(name, what, tests)?;
    }
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

/// Seed after seed from the first, and the plans that failed once, on the programs that were built for the tests.
fn torture(workspace: &Workspace, nats_server: &OsStr) -> Command {
    let mut torture = Command::new(workspace.target.join("debug").join(TORTURE.name));
    torture.args(["run", "--seed", "1", "--minutes", TORTURE_MINUTES, "--parallel", "2", "--regressions"]);
    torture.env(broker::PATH_VARIABLE, nats_server).current_dir(&workspace.root).stdin(Stdio::null());
    torture
}

fn has_nextest(workspace: &Workspace) -> bool {
    let mut probe = workspace.cargo(&["nextest", "--version"]);
    let status = probe.stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// A stage's name, what it does, and cargo's arguments for it.
type Runner = (&'static str, &'static str, Vec<String>);

/// cargo-nextest where it is installed, else cargo's own runner: that one knows no groups, and so takes the tests that
/// must be alone in a second pass.
fn runners(has_nextest: bool, filters: &[String]) -> Vec<Runner> {
    let all = ["--workspace", "--locked", "--features", CRASH_POINTS];
    let command = |parts: &[&[&str]]| -> Vec<String> {
        let own = parts.concat().into_iter().map(str::to_owned);
        own.chain(filters.iter().cloned()).collect()
    };
    if has_nextest {
        return vec![("tests", "running the tests", command(&[&["nextest", "run"], &all]))];
    }
    // Without the documentation's examples, which ran before: the last line is then the tests' own.
    let test = ["test", "--tests", "--no-fail-fast"];
    if !filters.is_empty() {
        // These may be any tests, and are few.
        let arguments = command(&[&test, &all, &["--", "--test-threads=1"]]);
        return vec![("tests", "running the tests", arguments)];
    }
    let skip: Vec<&str> = ONE_AT_A_TIME.into_iter().flat_map(|name| ["--skip", name]).collect();
    let alone = command(&[&test, &all, &["--", "--test-threads=1"], &ONE_AT_A_TIME]);
    vec![
        ("tests", "running the tests", command(&[&test, &all, &["--"], &skip])),
        ("alone", "running the tests that must be alone", alone),
    ]
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
    fn without_groups_heavy_tests_run_in_a_pass_of_their_own() {
        let texts = |has_nextest, filters: &[&str]| -> Vec<String> {
            let filters: Vec<String> = filters.iter().map(|filter| (*filter).to_owned()).collect();
            runners(has_nextest, &filters).into_iter().map(|(_, _, arguments)| arguments.join(" ")).collect()
        };
        let [one] = &texts(true, &["word"])[..] else { panic!("not one pass") };
        assert!(one.starts_with("nextest run ") && one.ends_with(" word"), "{one}");
        let [light, alone] = &texts(false, &[])[..] else { panic!("not two passes") };
        assert!(light.ends_with(" -- --skip e2e --skip heavy --skip figures"), "{light}");
        assert!(alone.ends_with(" -- --test-threads=1 e2e heavy figures"), "{alone}");
        let [some] = &texts(false, &["word"])[..] else { panic!("not one pass") };
        assert!(some.ends_with(" -- --test-threads=1 word"), "{some}");
    }

    #[test]
    fn a_signal_counts_as_one() {
        assert_eq!(code(ExitStatus::from_raw(9)), 1);
        assert_eq!(code(ExitStatus::from_raw(100 << 8)), 100);
    }
}
