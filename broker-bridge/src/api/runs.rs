//! `runs.*`: runs by machine and state.

use signalbox_schemas::{
    api::{ClaimRun, ClaimedRun, CompleteRun, CompletedRun, ListRuns, Listed, MachineRunView, StartedRun},
    authors::Role,
    error::{ErrorCode, Problem},
    mailbox::Position,
    record::{AssignmentRecord, MachineRecord},
    stream::{RUN, STATE},
};

use super::{
    Api, Caller, assignments, commands, page,
    work::{self, Claimed, Ended},
};
use crate::view::{Cursors, RunPlace, RunsAsked};

/// A page of runs, newest first; `after` is `next` of the page before. A page may hold few, or none, and still have a next
/// one: where few runs are meant, only some thousands are looked at for one page.
///
/// # Errors
/// `forbidden`, `not_caught_up`, `invalid`, `not_found` for a machine that is not known.
pub async fn list(api: &Api, caller: &Caller, args: &ListRuns) -> Result<Listed<MachineRunView>, Problem> {
    caller.require(Role::Viewer, "list runs")?;
    api.ready()?;
    let limit = page::limit(args.limit)?;
    page::check_after(args.after.as_deref(), |after| after.parse::<RunPlace>().is_ok())?;
    let mid = match &args.machine_id {
        Some(machine) => Some(known(api, machine).await?.token),
        None => None,
    };
    let after = args.after.as_deref().and_then(|after| after.parse().ok());
    let asked = RunsAsked { mid, state: args.state, after, limit };
    api.read(move |view| view.runs(&asked)).await
}

async fn known(api: &Api, machine: &str) -> Result<MachineRecord, Problem> {
    if let Some(record) = api.view().machine(machine) {
        return Ok(record);
    }
    api.read_through(STATE).await?;
    api.view().machine(machine).ok_or_else(|| {
        let machine: String = machine.chars().filter(|c| !c.is_control()).take(64).collect();
        let message = format!("there is no machine `{machine}`; list them to see their names");
        Problem::new(ErrorCode::NotFound, message)
    })
}

/// Takes a run in the name of an assignment's relay.
///
/// # Errors
/// `forbidden` also when the assignment is disabled or its machine has a relay with keys, `not_caught_up`, `not_found`,
/// `not_accepted`.
pub async fn claim(api: &Api, caller: &Caller, args: ClaimRun) -> Result<(ClaimedRun, Cursors), Problem> {
    let assignment = speak_for(api, caller, &args.assignment_id).await?;
    let mid = assignment.machine_id.token();
    if !api.view().takes_legacy(&mid) {
        let message = "cannot claim the run: the machine has a relay with keys, which takes its work itself";
        return Err(Problem::new(ErrorCode::Forbidden, message));
    }
    let claimed = match work::claim(api, &assignment.id, &mid, args.id).await? {
        Claimed::Won(_) => true,
        Claimed::NotPending => false,
        Claimed::NotFound => return Err(Problem::new(ErrorCode::NotFound, "Command not found")),
    };
    Ok((ClaimedRun { claimed }, written(api).await))
}

/// Says that a run has begun, in the name of the relay that has claimed it.
///
/// # Errors
/// `forbidden` also when the assignment is disabled, `not_caught_up`, `not_found`, `not_accepted`.
pub async fn start(api: &Api, caller: &Caller, args: ClaimRun) -> Result<(StartedRun, Cursors), Problem> {
    let assignment = speak_for(api, caller, &args.assignment_id).await?;
    commands::known(api, args.id).await?;
    let started = work::start(api, &assignment.id, &assignment.machine_id.token(), args.id).await?;
    Ok((StartedRun { started }, written(api).await))
}

/// Ends a run in the name of the relay that has claimed it.
///
/// # Errors
/// `forbidden` also when the assignment is disabled, `not_caught_up`, `not_found`, `not_accepted`.
pub async fn complete(
    api: &Api,
    caller: &Caller,
    args: CompleteRun,
) -> Result<(CompletedRun, Cursors), Problem> {
    let assignment = speak_for(api, caller, &args.assignment_id).await?;
    commands::known(api, args.id).await?;
    let ended = Ended {
        success: args.success,
        output: args.output,
        stderr: args.stderr,
        exit_code: args.exit_code,
        error: args.error,
        duration_ms: args.duration_ms,
    };
    let mid = assignment.machine_id.token();
    let accepted = work::complete(api, &assignment.id, &mid, args.id, ended).await?;
    Ok((CompletedRun { accepted }, written(api).await))
}

/// The assignment in whose name the caller speaks.
async fn speak_for(api: &Api, caller: &Caller, id: &str) -> Result<AssignmentRecord, Problem> {
    caller.require(Role::Admin, "speak for a relay")?;
    let assignment = assignments::known(api, id).await?;
    if assignment.enabled {
        return Ok(assignment);
    }
    Err(Problem::new(ErrorCode::Forbidden, "Relay assignment is disabled"))
}

/// Where facts are that were written a moment ago.
async fn written(api: &Api) -> Cursors {
    let state = api.link().stream_state(RUN).await;
    let end = |state: signalbox_link::StreamState| {
        Cursors::of(RUN, Position { created: state.created_ms, sequence: state.last })
    };
    // What was written is acknowledged: that nobody says where it stands is no failure.
    state.map_or_else(|_| api.view().cursors(), end)
}
