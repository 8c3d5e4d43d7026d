//! `signalbox runs`, and `signalbox work` for programs that act for a relay of the older system.

use std::path::Path;

use signalbox_schemas::{
    api::{ClaimRun, ClaimedRun, CompleteRun, CompletedRun, ListRuns, MachineRunView, StartedRun, op},
    limit::BROKER_PAYLOAD_BYTES,
};

use super::{
    call::{Call, Row},
    card::{NOTHING, moment},
    clean,
    exit::{self, Failure},
    input, quantity, show,
    table::Column,
};
use crate::{
    args::work::{Runs, Taken, Work, WorkAction},
    client::clock::now_ms,
    config::Config,
};

/// Most bytes of what is said of an ended run, as JSON: it travels in one message, signed and in base64, which makes four
/// bytes of three. Text has no more than that of its own; each control byte has six, and each that is no UTF-8 has three.
const ENDED_BYTES: usize = (BROKER_PAYLOAD_BYTES - OVERHEAD_BYTES) / 4 * 3;
/// What a request has beside its arguments: its own members, the key and the signature.
const OVERHEAD_BYTES: usize = 4 * 1024;
/// Where larger ones are taken.
const OVER_HTTP: &str = "over HTTP 16 MiB are taken: POST /api/v1/commands/ID/complete";

impl Row for MachineRunView {
    const COLUMNS: &'static [Column] =
        &[("ID", 0), ("MACHINE", 0), ("STATE", 0), ("EXIT", 1), ("TOOK", 3), ("AGE", 2), ("COMMAND", 0)];

    fn key(&self) -> String {
        format!("{} {}", self.command.id, self.run.machine)
    }

    fn cells(&self, _ellipsis: char) -> Vec<String> {
        vec![
            self.command.id.to_string(),
            clean::line(self.run.machine.as_str()),
            self.run.state.to_string(),
            show::exit_of(&self.run),
            self.run.duration_ms.map_or_else(|| NOTHING.to_owned(), quantity::show_ms),
            moment(self.command.created_at, now_ms()),
            clean::line(&self.command.command),
        ]
    }
}

/// Lists runs.
///
/// # Errors
/// [`Failure`].
pub async fn list(config: &Config, args: Runs) -> Result<u8, Failure> {
    let call = Call::of(config, &args.listing, "list the runs");
    let asked = ListRuns { machine_id: args.machine, state: args.state, ..ListRuns::default() };
    call.list::<_, MachineRunView>(op::RUNS_LIST, asked, Some(args.limit)).await
}

/// Claims, starts or completes a run.
///
/// # Errors
/// [`Failure`].
pub async fn act(config: &Config, args: Work) -> Result<u8, Failure> {
    let call = |what: String| Call::new(config, args.within.json, what);
    match args.action {
        WorkAction::Claim(Taken { id, assignment }) => {
            let call = call(format!("claim {id}"));
            let asked = ClaimRun { id, assignment_id: assignment };
            let claimed: ClaimedRun = call.change(op::RUNS_CLAIM, &asked).await?;
            Ok(call.show(&claimed).await?.max(unless(claimed.claimed)))
        }
        WorkAction::Start(Taken { id, assignment }) => {
            let call = call(format!("start {id}"));
            let asked = ClaimRun { id, assignment_id: assignment };
            let started: StartedRun = call.change(op::RUNS_START, &asked).await?;
            Ok(call.show(&started).await?.max(unless(started.started)))
        }
        WorkAction::Complete { taken, failed, exit_code, stdout_file, stderr_file, error, took } => {
            let Taken { id, assignment } = taken;
            if [&stdout_file, &stderr_file].into_iter().flatten().filter(|path| input::is_stdin(path)).count()
                > 1
            {
                let line = format!(
                    "cannot complete {id}: stdin is one of --stdout-file and --stderr-file, not both"
                );
                return Err(Failure::new(exit::USAGE, line));
            }
            let asked = CompleteRun {
                id,
                assignment_id: assignment,
                success: !failed && exit_code.unwrap_or(0) == 0 && error.is_none(),
                output: output(stdout_file.as_deref(), "standard output").await?,
                stderr: output(stderr_file.as_deref(), "standard error").await?,
                exit_code,
                error,
                duration_ms: took,
            };
            check_size(&asked)?;
            let call = call(format!("complete {id}"));
            let completed: CompletedRun = call.change(op::RUNS_COMPLETE, &asked).await?;
            Ok(call.show(&completed).await?.max(unless(completed.accepted)))
        }
    }
}

/// Whether an end fits into a message.
fn check_size(asked: &CompleteRun) -> Result<(), Failure> {
    let id = asked.id;
    let bytes =
        serde_json::to_vec(asked).map_err(|error| Failure::system(&format!("complete {id}"), &error))?;
    if bytes.len() <= ENDED_BYTES {
        return Ok(());
    }
    let line = format!(
        "cannot complete {id}: its output has {} bytes as JSON, {ENDED_BYTES} fit into a message; {OVER_HTTP}",
        bytes.len()
    );
    Err(Failure::new(exit::USAGE, line))
}

/// The exit code for an answer that says yes or no.
fn unless(is_so: bool) -> u8 {
    if is_so { exit::OK } else { exit::NOT_RUN }
}

/// Output from a file. What is no text is replaced, as relays of the older system do.
async fn output(path: Option<&Path>, what: &'static str) -> Result<String, Failure> {
    match path {
        Some(path) => {
            let bytes = input::bytes(path, ENDED_BYTES, what).await.map_err(|mut failure| {
                if let (exit::USAGE, Some(line)) = (failure.code, &mut failure.line) {
                    line.push_str("; ");
                    line.push_str(OVER_HTTP);
                }
                failure
            })?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        }
        None => Ok(String::new()),
    }
}

#[cfg(test)]
mod tests {
    use signalbox_schemas::{
        api::Request,
        id::{Nonce, Workspace},
        signed::{Signed, SigningKey},
    };

    use super::*;

    fn ended(output: String) -> CompleteRun {
        CompleteRun {
            id: "0193a2b4-0000-7000-8000-00000000c1d1".parse().unwrap(),
            assignment_id: "a".to_owned(),
            success: true,
            output,
            stderr: String::new(),
            exit_code: Some(0),
            error: None,
            duration_ms: 1,
        }
    }

    #[test]
    fn what_fits_can_be_sent() {
        let room = ENDED_BYTES - serde_json::to_vec(&ended(String::new())).unwrap().len();
        let largest = ended("x".repeat(room));
        check_size(&largest).unwrap();
        let request = Request {
            ws: Workspace::main(),
            op: op::RUNS_COMPLETE.to_owned(),
            args: serde_json::to_value(&largest).unwrap(),
            nonce: Nonce([0; 16]),
            issued_at: now_ms(),
        };
        let key = SigningKey::from_seed(include_str!("../../tests/seven.seed")).unwrap();
        assert!(Signed::sign(&request, &key).unwrap().to_json().len() <= BROKER_PAYLOAD_BYTES);
        for larger in ["x".repeat(room + 1), "\u{1}".repeat(room / 6 + 1), "\"".repeat(room / 2 + 1)] {
            let line = check_size(&ended(larger)).unwrap_err().line.unwrap();
            assert!(line.contains("POST /api/v1/commands/ID/complete"), "{line}");
        }
    }
}
