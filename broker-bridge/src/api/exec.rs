//! A command on one machine, with its end and its output in one answer: what a caller does who cannot do without.

use std::time::Duration;

use serde::Serialize;
use signalbox_schemas::{
    api::RunView,
    error::{ErrorCode, Problem},
    id::CommandId,
    limit::{DEFAULT_TIMEOUT_MS, MAX_EXPIRES_IN_MS},
    output::OutputStream,
    run::{RunError, RunState},
};
use tokio::time::sleep;

use super::{Api, Caller, commands, output};
use crate::view::Cursors;

/// Longest wait, ms.
const WAIT_MS: std::ops::RangeInclusive<u64> = 0..=600_000;
/// What a wait is longer than the run may take, unless it is given: for the way there and back.
const BEYOND_TIMEOUT_MS: u64 = 5_000;
/// Output in the answer, bytes of each stream.
const OUTPUT_BYTES: u64 = 1024 * 1024;

/// A command, and how long its caller waits.
#[derive(Debug, Clone)]
pub struct NewExec {
    /// The command, on one machine. Unless it says how long it may wait to start, that is as long as its caller waits: nothing
    /// starts that nobody waits for. Whoever does not wait at all gets what other commands get.
    pub command: commands::NewCommand,
    /// How long the caller waits, ms, 0 to 600,000; `timeout_ms` and 5 s when absent.
    pub wait_ms: Option<u64>,
    /// Whether the command is cancelled when that is over.
    pub cancel_on_give_up: bool,
}

/// What became of it.
#[derive(Debug, Serialize)]
pub struct Executed {
    /// The command.
    pub id: CommandId,
    /// Whether it has ended; otherwise the wait was over.
    pub settled: bool,
    /// The run; its error says so when the wait was over.
    #[serde(flatten)]
    pub run: RunView,
    /// The beginning of its standard output, at most 1 MiB, with U+FFFD for what is no UTF-8.
    pub output: String,
    /// Whether that is not all of it.
    pub output_cut: bool,
    /// The same of its standard error.
    pub stderr_output: String,
    /// Whether that is not all of it.
    pub stderr_output_cut: bool,
}

/// Submits a command, waits for its end, and answers it with its output. `stop` ends the wait.
///
/// # Errors
/// `invalid` when it names no single machine, or a wait out of range; those of a submit, and of reading.
pub async fn exec(
    api: &Api,
    caller: &Caller,
    asked: NewExec,
    idempotency_key: Option<&str>,
    stop: impl Future<Output = ()>,
) -> Result<(Executed, Cursors), Problem> {
    let NewExec { mut command, wait_ms, cancel_on_give_up } = asked;
    let invalid =
        |why: String| Problem::new(ErrorCode::Invalid, format!("cannot execute the command: {why}"));
    let Some(machine_id) = command.machine_id.clone() else {
        return Err(invalid("name one machine as `machine_id`".to_owned()));
    };
    let beyond = command.timeout_ms.unwrap_or(DEFAULT_TIMEOUT_MS).saturating_add(BEYOND_TIMEOUT_MS);
    let wait_ms = wait_ms.unwrap_or(beyond.min(*WAIT_MS.end()));
    if !WAIT_MS.contains(&wait_ms) {
        return Err(invalid(format!("wait_ms must be 0 to {}, not {wait_ms}", WAIT_MS.end())));
    }
    if command.expires_in_ms.is_none() {
        command.expires_in_ms = (wait_ms > 0).then_some(wait_ms.min(MAX_EXPIRES_IN_MS));
        command.expiry_is_patience = true;
    }
    let (accepted, mut cursors) = commands::run(api, caller, command, idempotency_key).await?;
    let id = accepted.id;
    let over = async {
        tokio::select! {
            () = sleep(Duration::from_millis(wait_ms)) => {}
            () = stop => {}
        }
    };
    let settled = commands::until_settled(api, id, over).await?;
    if !settled && cancel_on_give_up {
        cursors.advance(&commands::cancel(api, caller, id).await?.1);
    }
    let machine = api.view().machine(&machine_id).ok_or_else(|| gone(id))?;
    let token = machine.token.clone();
    let run = api.read(move |view| view.run(id, &token)).await?.ok_or_else(|| gone(id))?;
    let of = |stream| output::head(api, caller, id, machine.id.as_str(), stream, OUTPUT_BYTES);
    let (stdout, output_cut) = of(OutputStream::Stdout).await?;
    let (stderr, stderr_output_cut) = of(OutputStream::Stderr).await?;
    let executed = Executed {
        id,
        settled,
        run: RunView { error: error_of(&run, settled, wait_ms), ..run },
        output: text(&stdout),
        output_cut,
        stderr_output: text(&stderr),
        stderr_output_cut,
    };
    Ok((executed, cursors))
}

fn gone(id: CommandId) -> Problem {
    let message = format!("command {id} was forgotten while its end was waited for; list those kept");
    Problem::new(ErrorCode::NotFound, message)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What went wrong, in words, also where the run itself has none.
fn error_of(run: &RunView, settled: bool, wait_ms: u64) -> Option<RunError> {
    let error = |code: &str, message: String| Some(RunError { code: code.to_owned(), message });
    if !settled {
        return error("wait_over", format!("RPC timeout: command did not complete within {wait_ms}ms"));
    }
    let given = run.error.clone();
    match run.state {
        RunState::Timeout if given.is_none() => {
            error("timeout", "Command execution timed out on relay".to_owned())
        }
        _ => given,
    }
}
