//! `signalbox runs`, and `signalbox work` for programs that act for a relay of the older system.

use std::path::Path;

use signalbox_schemas::api::{
    ClaimRun, ClaimedRun, CompleteRun, CompletedRun, ListRuns, MachineRunView, StartedRun, op,
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

/// Most output of one stream: both, in base64 and in JSON, must fit into one message.
const OUTPUT_BYTES: usize = 256 * 1024;

impl Row for MachineRunView {
    const COLUMNS: &'static [Column] =
        &[("ID", 0), ("MACHINE", 0), ("STATE", 0), ("EXIT", 1), ("TOOK", 3), ("AGE", 2), ("COMMAND", 0)];

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
    let call = Call::new(config, args.listing.json, "list the runs");
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
            let call = call(format!("complete {id}"));
            let completed: CompletedRun = call.change(op::RUNS_COMPLETE, &asked).await?;
            Ok(call.show(&completed).await?.max(unless(completed.accepted)))
        }
    }
}

/// The exit code for an answer that says yes or no.
fn unless(is_so: bool) -> u8 {
    if is_so { exit::OK } else { exit::NOT_RUN }
}

/// Output from a file. What is no text is replaced, as relays of the older system do.
async fn output(path: Option<&Path>, what: &'static str) -> Result<String, Failure> {
    match path {
        Some(path) => {
            let bytes = input::bytes(path, OUTPUT_BYTES, what).await?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        }
        None => Ok(String::new()),
    }
}
