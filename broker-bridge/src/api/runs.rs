//! `runs.*`: runs by machine and state.

use signalbox_schemas::{
    api::{ListRuns, Listed, MachineRunView},
    authors::Role,
    error::{ErrorCode, Problem},
    record::MachineRecord,
    stream::STATE,
};

use super::{Api, Caller, page};
use crate::view::{RunPlace, RunsAsked};

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
