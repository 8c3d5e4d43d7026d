//! How a command line ends: its exit code and its one line. Pure.

use signalbox_schemas::{api::Counts, error::report, run::RunState, selector::SelectorError};

use crate::client::ClientError;

use super::clean;

/// Everything as it should be.
pub const OK: u8 = 0;
/// A run failed, timed out or was cancelled; or something here failed.
pub const FAILED: u8 = 1;
/// The command line or a selector is wrong.
pub const USAGE: u8 = 2;
/// Not accepted, no bridge, no machine matched, no such command; for `run` also no identity.
pub const NOT_ACCEPTED: u8 = 3;
/// A run was lost, expired or rejected; a wait was over; a run belongs to somebody else.
pub const NOT_RUN: u8 = 4;
/// Interrupted: the command goes on without us.
pub const INTERRUPTED: u8 = 130;
/// Whoever read our output is gone.
pub const HANGUP: u8 = 141;

/// The table, for `--help`.
pub const TABLE: &str = "\
Exit codes of `run`, `exec`, `retry` and `output --follow`, the first that applies:
  2    usage, selector syntax, a wrong configuration, or a question that nobody could be asked
  3    not accepted, no bridge, no machine matched, another answer to a question, or no identity to ask with
  4    a run was lost, expired or rejected; or the wait of `exec` was over
  1    a run failed, timed out or was cancelled
  0    every run completed
  130  interrupted: the command goes on, `signalbox show ID` comes back to it
Other commands: 0, 1 (failed here), 2 (usage), 3 (refused, or no bridge).
`--watch` ends with 0 on Ctrl-C, `config check` with 2 when something is wrong.
`decode` ends with 1 when a signature is wrong, `work` with 4 when the run is not the assignment's.
141 when the reader of the output went away.";

/// The exit code that the runs of a command amount to.
pub fn of_counts(counts: &Counts) -> u8 {
    let any = |states: &[RunState]| states.iter().any(|state| counts.get(state).is_some_and(|n| *n > 0));
    if any(&[RunState::Lost, RunState::Expired, RunState::Rejected]) {
        NOT_RUN
    } else if any(&[RunState::Failed, RunState::Timeout, RunState::Cancelled]) {
        FAILED
    } else {
        OK
    }
}

/// Why a command line ends early.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Exit code.
    pub code: u8,
    /// The line for stderr, or several, without the program's name; `None`: nothing to say.
    pub line: Option<String>,
}

impl Failure {
    /// With a line.
    pub fn new(code: u8, line: impl Into<String>) -> Self {
        Self { code, line: Some(line.into()) }
    }

    /// Something of the client went wrong while doing `what` (`run the command`).
    pub fn client(what: &str, error: &ClientError) -> Self {
        let code = match error {
            ClientError::Identity { .. } | ClientError::Seed(_) | ClientError::Login(_) => FAILED,
            _ => NOT_ACCEPTED,
        };
        let advice = error.advice().map(|advice| format!("; {advice}")).unwrap_or_default();
        Self::new(code, format!("cannot {what}: {}{advice}", clean::line(&report(error))))
    }

    /// The same for a change that was asked for: without an answer it may have been made.
    pub fn change(what: &str, error: &ClientError) -> Self {
        let mut failure = Self::client(what, error);
        if let (ClientError::NoBridge(_), Some(line)) = (error, &mut failure.line) {
            line.push_str("; whether it was done is not known");
        }
        failure
    }

    /// Something of the system went wrong while doing `what`.
    pub fn system(what: &str, error: &dyn std::error::Error) -> Self {
        Self::new(FAILED, format!("cannot {what}: {}", report(error)))
    }

    /// A selector is none: it is shown, with what is wrong with it marked.
    pub fn selector(what: &str, error: &SelectorError) -> Self {
        let shown: Vec<String> = error.shown().split('\n').map(clean::line).collect();
        Self::new(USAGE, format!("cannot {what}: not a selector:\n{}", shown.join("\n")))
    }

    /// The same as a matter of what was typed, or set.
    #[must_use]
    pub fn usage(self) -> Self {
        Self { code: USAGE, ..self }
    }

    /// What was printed is not all there.
    pub fn written(error: &std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Self::hangup(),
            _ => Self::system("write the output", error),
        }
    }

    /// Our reader went away: nothing to say.
    pub fn hangup() -> Self {
        Self { code: HANGUP, line: None }
    }
}
