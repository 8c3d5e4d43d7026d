//! `inventory.list` and `credentials.reach`: what relays keep, and which of them have something for a host.

use signalbox_schemas::{
    api::{InventoryView, ListInventory, Listed, Reach, ReachView, Target},
    authors::Role,
    error::{ErrorCode, Problem},
    id::MachineToken,
    selector::Selector,
};

use super::{Api, Caller, page};
use crate::{
    store::StoreError,
    view::{Place, View},
};

/// A page of machines, sorted by token, with what their relays say; `after` is the last token of the page before. A machine
/// whose relay has said nothing is there, too, unless a host is asked for.
///
/// # Errors
/// `forbidden`, `not_caught_up`, `invalid`.
pub async fn list(api: &Api, caller: &Caller, args: ListInventory) -> Result<Listed<InventoryView>, Problem> {
    const DOING: &str = "list what relays keep";
    caller.require(Role::Viewer, DOING)?;
    api.ready()?;
    let limit = page::limit(args.limit)?;
    let targets = meant(api, DOING, &args.on, args.after.as_deref()).await?;
    let place = args.target.as_deref().map(|target| place(DOING, target)).transpose()?;
    api.read(move |view: &View| {
        let views = targets.into_iter().map(|target| view.inventory_view(target, place.as_ref()));
        cut(views, limit, |view| view.token.to_string())
    })
    .await
}

/// A page of machines with a credential for a host, sorted by token.
///
/// # Errors
/// `forbidden`, `not_caught_up`, `invalid`.
pub async fn reach(api: &Api, caller: &Caller, args: Reach) -> Result<Listed<ReachView>, Problem> {
    const DOING: &str = "list who reaches the host";
    caller.require(Role::Viewer, DOING)?;
    api.ready()?;
    let limit = page::limit(args.limit)?;
    let targets = meant(api, DOING, args.on.as_deref().unwrap_or("all"), args.after.as_deref()).await?;
    let place = place(DOING, &args.target)?;
    api.read(move |view: &View| {
        let mut reported = view.reported_for(&place);
        let views = targets.into_iter().map(|target| view.reach_view(target, &place, &mut reported));
        cut(views, limit, |view| view.token.to_string())
    })
    .await
}

/// The machines that a selector means, behind a place.
async fn meant(api: &Api, doing: &str, on: &str, after: Option<&str>) -> Result<Vec<Target>, Problem> {
    page::check_after(after, |after| MachineToken::new(after).is_ok())?;
    let selector = Selector::parse(on)
        .map_err(|error| Problem::new(ErrorCode::Invalid, format!("cannot {doing}: `on` is {error}")))?;
    let mut targets = api.meant(&selector, false).await?;
    targets.retain(|target| after.is_none_or(|after| target.token.as_str() > after));
    Ok(targets)
}

fn place(doing: &str, target: &str) -> Result<Place, Problem> {
    Place::parse(target).map_err(|_| {
        let message =
            format!("cannot {doing}: the target is no host; write `host`, `host:port` or `[address]:port`");
        Problem::new(ErrorCode::Invalid, message)
    })
}

/// The page that they begin with; nothing behind it is read.
fn cut<T: serde::Serialize>(
    views: impl Iterator<Item = Result<Option<T>, StoreError>>,
    limit: usize,
    place: impl Fn(&T) -> String,
) -> Result<Listed<T>, StoreError> {
    let mut failed = None;
    let read = views.filter_map(Result::transpose).map_while(|view| match view {
        Ok(view) => Some(view),
        Err(error) => {
            failed = Some(error);
            None
        }
    });
    let page = page::cut(read, limit, place);
    failed.map_or(Ok(page), Err)
}
