//! What can be measured, each in a room of its own.

mod console;
mod dispatch;
mod fanout;
mod idle;
mod login;
mod old_relays;
mod output;
mod project;
mod ssh;
mod submit;

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use clap::ValueEnum;

use crate::{
    machine,
    report::{Report, Row, Samples},
};

/// A figure's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Figure {
    /// One command on one machine: from the submission to the exit code, beside SSH
    Dispatch,
    /// One command on many machines
    Fanout,
    /// Submissions: how long, and how many in a second
    Submit,
    /// What nothing costs: memory, processor and network of everything
    Idle,
    /// 100 MiB of output, beside SSH
    Output,
    /// How fast the streams are read into a bridge's view
    Project,
    /// Logins, and a fleet that comes back
    Login,
    /// The console with a large fleet, in a real terminal
    Console,
    /// The console with 100,000 machines
    ConsoleMany,
    /// Relays of the older system
    OldRelays,
    /// Commands on a host behind a machine, beside SSH
    Ssh,
}

impl Figure {
    /// The name on the command line and of the JSON.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// Measures it.
    pub(crate) async fn measure(self, scope: Scope) -> Result<Report> {
        let mut report = Report::new(&self.name(), machine::machine()?, machine::versions()?);
        report.set("replicas", "1");
        report.set("sync_interval", "2m (the broker's default)");
        report.set("rounds", if scope.quick { "quick" } else { "full" });
        let to = &mut report;
        match self {
            Self::Dispatch => Box::pin(dispatch::measure(scope, to)).await,
            Self::Fanout => Box::pin(fanout::measure(scope, to)).await,
            Self::Submit => Box::pin(submit::measure(scope, to)).await,
            Self::Idle => Box::pin(idle::measure(scope, to)).await,
            Self::Output => Box::pin(output::measure(scope, to)).await,
            Self::Project => Box::pin(project::measure(scope, to)).await,
            Self::Login => Box::pin(login::measure(scope, to)).await,
            Self::Console => Box::pin(console::measure(scope, to)).await,
            Self::ConsoleMany => Box::pin(console::many::measure(scope, to)).await,
            Self::OldRelays => Box::pin(old_relays::measure(scope, to)).await,
            Self::Ssh => Box::pin(ssh::measure(scope, to)).await,
        }?;
        Ok(report)
    }
}

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scope {
    /// A tenth of it, to see that it works.
    pub(crate) quick: bool,
}

impl Scope {
    /// So many, or a tenth.
    fn of(self, full: usize) -> usize {
        if self.quick { (full / 10).max(3) } else { full }
    }

    fn time(self, full: Duration) -> Duration {
        if self.quick { full / 10 } else { full }
    }
}

/// From the start of a program to its end, which must be a good one.
fn timed(mut command: Command) -> Result<Duration> {
    let since = Instant::now();
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    let took = since.elapsed();
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(took)
}

/// `sh -c TEXT`
fn shell(text: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", text]);
    command
}

/// A peer's row, or why there is none.
fn peer_row(what: &str, samples: &Samples, why_not: Option<&anyhow::Error>) -> Row {
    match why_not {
        Some(why) if samples.len() == 0 => Row::absent(what, &format!("{why:#}")),
        _ => Row::new(what, samples),
    }
}

/// A count as a number that can be divided.
fn float(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::INFINITY, f64::from)
}

/// The same.
fn float64(count: u64) -> f64 {
    u32::try_from(count).map_or(f64::INFINITY, f64::from)
}
