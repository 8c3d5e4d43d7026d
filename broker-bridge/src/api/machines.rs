//! `machines.list`.

use signalbox_schemas::{
    api::{ListMachines, Listed, MachineView},
    authors::Role,
    error::{ErrorCode, Problem},
    id::MachineToken,
    selector::Selector,
};

use super::{
    Api, Caller,
    frozen::{Asked, Place},
    now_ms, page,
};

/// A page of machines, sorted by token: of all of them, or of those that a selector means.
///
/// # Errors
/// `forbidden`, `not_caught_up`, `invalid` for a malformed selector, a limit out of range or a place that is none, `id_conflict`
/// for a further page of a list that this bridge cannot give again.
pub async fn list(api: &Api, caller: &Caller, args: &ListMachines) -> Result<Listed<MachineView>, Problem> {
    caller.require(Role::Viewer, "list machines")?;
    api.ready()?;
    let limit = page::limit(args.limit)?;
    if let Some(on) = &args.on {
        return meant(api, on, limit, args.after.as_deref()).await;
    }
    page::check_after(args.after.as_deref(), |after| MachineToken::new(after).is_ok())?;
    // One more tells whether anything follows.
    let machines = api.view().machines_behind(args.after.as_deref(), limit + 1, now_ms());
    Ok(page::cut(machines.into_iter(), limit, |machine| machine.token.to_string()))
}

async fn meant(
    api: &Api,
    on: &str,
    limit: usize,
    after: Option<&str>,
) -> Result<Listed<MachineView>, Problem> {
    let selector = Selector::parse(on).map_err(|error| {
        Problem::new(ErrorCode::Invalid, format!("cannot list machines: `on` is {error}"))
    })?;
    let place = Place::parse(after)?;
    let asked = Asked { selector: &selector, for_secret: false };
    let list = api.list_of(asked, place.as_ref()).await?;
    let now = now_ms();
    let views =
        list.behind(place.as_ref()).iter().filter_map(|it| api.view().machine_as_shown(&it.token, now));
    let page = page::cut(views, limit, |machine| list.place(&machine.token));
    api.remember(asked, &list, &page);
    Ok(page)
}
