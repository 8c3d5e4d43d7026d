//! How a run ends, in words of the contract. Pure.

use signalbox_schemas::{
    Base64Url,
    id::{CommandId, MachineToken, Nonce, Sha256, Workspace},
    run::{Exit, ExitState, InlineOutput, RunError, StreamSummary},
};

use crate::{
    keeper::protocol::{Cause, Fault, ShellEnd, StreamStatus},
    output::Pumped,
};

/// Which run is meant, and in whose name.
#[derive(Debug, Clone)]
pub(crate) struct RunNames {
    pub(crate) ws: Workspace,
    pub(crate) mid: MachineToken,
    pub(crate) cid: CommandId,
    /// The claim's nonce.
    pub(crate) nonce: Nonce,
}

/// Why a claimed run was never started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NotStarted {
    /// Its time had passed when it could have been.
    Expired,
    /// An operator asked for its end first.
    Cancelled,
    /// The keeper takes no more.
    KeeperRefused,
    /// The keeper is older than commands on other hosts.
    KeeperIsOlder,
    /// What was written down about it cannot be read.
    Unreadable,
    /// There is no way to its host.
    Fault(RunError),
}

impl NotStarted {
    fn error(&self) -> RunError {
        let (code, message) = match self {
            Self::Fault(error) => return error.clone(),
            Self::Expired => ("expired", "the command expired before it could be started"),
            Self::Cancelled => ("cancelled", "the command was cancelled before it was started"),
            Self::KeeperRefused => ("keeper_refused", "the keeper takes no more runs"),
            Self::KeeperIsOlder => (
                "keeper_refused",
                "the keeper is older than this relay and runs nothing on other hosts; end it when nothing else runs",
            ),
            Self::Unreadable => ("unreadable", "the claimed command cannot be read back"),
        };
        RunError { code: code.to_owned(), message: message.to_owned() }
    }
}

/// The exit of a run that was claimed and never started.
pub(crate) fn exit_not_started(names: RunNames, why: &NotStarted, now_ms: u64) -> Exit {
    let state = if *why == NotStarted::Cancelled { ExitState::Cancelled } else { ExitState::Failed };
    Exit { state, error: Some(why.error()), started_at: now_ms, ..blank(names) }
}

/// The exit of a change of what the relay keeps: what was done is its output.
pub(crate) fn exit_changed(
    names: RunNames,
    done: Result<String, RunError>,
    started_at: u64,
    ended_at: u64,
) -> Exit {
    let exit = Exit { started_at, duration_ms: ended_at.saturating_sub(started_at), ..blank(names) };
    match done {
        Ok(what) => {
            let said = format!("{what}\n").into_bytes();
            let stdout =
                StreamSummary { bytes: said.len() as u64, sha256: Sha256::of(&said), truncated: false };
            let inline = Some(InlineOutput { stdout: Base64Url(said), stderr: Base64Url::default() });
            Exit { state: ExitState::Completed, exit_code: Some(0), stdout, inline, ..exit }
        }
        Err(error) => Exit { error: Some(error), ..exit },
    }
}

/// The exit of a run that its keeper reported as ended.
pub(crate) fn exit(names: RunNames, pumped: Pumped) -> Exit {
    let Pumped { status, chunks, inline } = pumped;
    let mut exit = Exit {
        started_at: status.started_at_ms,
        stdout: summary(&status.stdout),
        stderr: summary(&status.stderr),
        chunks,
        inline,
        ..blank(names)
    };
    let Some(end) = status.end else { return exit };
    exit.duration_ms = end.duration_ms;
    exit.group_dead = end.group_dead;
    exit.error = end.fault.map(error);
    let shell = match end.cause {
        Cause::Exited { code } => {
            exit.state = if code == 0 { ExitState::Completed } else { ExitState::Failed };
            Some(ShellEnd::Exited(code))
        }
        Cause::Signalled { name } => Some(ShellEnd::Signalled(name)),
        Cause::Timeout { shell } => {
            exit.state = ExitState::Timeout;
            shell
        }
        Cause::Cancelled { shell } => {
            exit.state = ExitState::Cancelled;
            shell
        }
        Cause::SpawnFailed { message } => {
            exit.error = Some(RunError { code: "spawn_failed".to_owned(), message });
            None
        }
        Cause::Fault(fault) => {
            exit.error = Some(error(fault));
            None
        }
    };
    match shell {
        Some(ShellEnd::Exited(code)) => exit.exit_code = Some(i32::from(code)),
        Some(ShellEnd::Signalled(name)) => exit.signal = Some(name),
        None => {}
    }
    exit
}

fn error(fault: Fault) -> RunError {
    RunError { code: fault.code, message: fault.message }
}

/// An exit that says nothing yet; `failed`, so that nothing forgotten can look like success.
fn blank(names: RunNames) -> Exit {
    let RunNames { ws, mid, cid, nonce } = names;
    Exit {
        ws,
        mid,
        cid,
        nonce,
        state: ExitState::Failed,
        exit_code: None,
        signal: None,
        error: None,
        started_at: 0,
        duration_ms: 0,
        group_dead: true,
        stdout: StreamSummary::empty(),
        stderr: StreamSummary::empty(),
        chunks: 0,
        inline: None,
        via: None,
    }
}

fn summary(stream: &StreamStatus) -> StreamSummary {
    StreamSummary {
        bytes: stream.bytes,
        sha256: stream.sha256.unwrap_or_else(|| Sha256::of(b"")),
        truncated: stream.truncated,
    }
}

/// One line for eyes.
pub(crate) fn summary_line(exit: &Exit) -> String {
    let state = match exit.state {
        ExitState::Completed => "completed",
        ExitState::Failed => "failed",
        ExitState::Timeout => "timeout",
        ExitState::Cancelled => "cancelled",
    };
    let how = match (exit.exit_code, &exit.signal, &exit.error) {
        (Some(code), ..) => format!(" code {code}"),
        (_, Some(signal), _) => format!(" by {signal}"),
        (.., Some(error)) => format!(" ({})", error.code),
        _ => String::new(),
    };
    format!("{state}{how} after {} ms", exit.duration_ms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        keeper::protocol::{End, Phase, RunStatus},
        policy::tests::cid,
    };
    use rstest::rstest;

    fn names() -> RunNames {
        let mid = MachineToken::new("web-1").unwrap();
        RunNames { ws: Workspace::main(), mid, cid: cid(1), nonce: Nonce([1; 16]) }
    }

    fn pumped(cause: Cause) -> Pumped {
        let end = End { ended_at_ms: 9, duration_ms: 4, cause, group_dead: true, fault: None };
        let stream = StreamStatus::default();
        let status = RunStatus {
            cid: cid(1),
            phase: Phase::Ended,
            started_at_ms: 5,
            begun_at_ms: None,
            pid: None,
            stdout: stream,
            stderr: stream,
            end: Some(end),
        };
        Pumped { status, chunks: 0, inline: None }
    }

    #[rstest]
    #[case(Cause::Exited { code: 0 }, ExitState::Completed, "completed code 0 after 4 ms")]
    #[case(Cause::Exited { code: 3 }, ExitState::Failed, "failed code 3 after 4 ms")]
    #[case(Cause::Signalled { name: "SIGKILL".into() }, ExitState::Failed, "failed by SIGKILL after 4 ms")]
    #[case(Cause::Timeout { shell: None }, ExitState::Timeout, "timeout after 4 ms")]
    #[case(Cause::Timeout { shell: Some(ShellEnd::Exited(0)) }, ExitState::Timeout, "timeout code 0 after 4 ms")]
    #[case(Cause::Cancelled { shell: None }, ExitState::Cancelled, "cancelled after 4 ms")]
    #[case(Cause::SpawnFailed { message: "no".into() }, ExitState::Failed, "failed (spawn_failed) after 4 ms")]
    #[case(Cause::Fault(Fault { code: "dns".into(), message: "no".into() }), ExitState::Failed, "failed (dns) after 4 ms")]
    fn ends_have_states(#[case] cause: Cause, #[case] state: ExitState, #[case] line: &str) {
        let exit = exit(names(), pumped(cause));
        assert_eq!(exit.state, state);
        assert!(exit.is_consistent());
        assert_eq!(summary_line(&exit), line);
    }

    #[rstest]
    #[case(NotStarted::Expired, ExitState::Failed)]
    #[case(NotStarted::Cancelled, ExitState::Cancelled)]
    fn what_never_started_never_completed(#[case] why: NotStarted, #[case] state: ExitState) {
        let exit = exit_not_started(names(), &why, 7);
        assert_eq!(exit.state, state);
        assert!(exit.is_consistent() && exit.error.is_some());
    }
}
