//! `machines.list`.

use signalbox_schemas::{
    api::{Listed, MachineView, Page},
    authors::Role,
    error::Problem,
    id::MachineToken,
};

use super::{Api, Caller, now_ms, page};

/// A page of machines, sorted by token; `after` is the last token of the page before.
///
/// # Errors
/// `forbidden`, `not_caught_up`, or `invalid` for a limit out of range or a place that is none.
pub fn list(api: &Api, caller: &Caller, args: &Page) -> Result<Listed<MachineView>, Problem> {
    caller.require(Role::Viewer, "list machines")?;
    api.ready()?;
    let limit = page::limit(args.limit)?;
    page::check_after(args.after.as_deref(), |after| MachineToken::new(after).is_ok())?;
    // One more tells whether anything follows.
    let machines = api.view().machines_behind(args.after.as_deref(), limit + 1, now_ms());
    Ok(page::cut(machines.into_iter(), limit, |machine| machine.token.to_string()))
}
