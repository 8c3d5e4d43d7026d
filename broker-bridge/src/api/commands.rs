//! `commands.*`: previewing, submitting, cancelling and reading commands.

mod part;
mod steer;
mod submit;
mod wait;
mod wish;

use orion::util::secure_rand_bytes;
use signalbox_schemas::{
    api::{
        Cancel, Cancelling, CommandSummary, CommandView, Get, Listed, Page, Preview, Previewed, Request,
        Target, op,
    },
    authors::Role,
    error::{ErrorCode, Problem, report},
    id::{CommandId, MachineId, Nonce},
    limit::TARGETS,
    run::RunState,
    selector::Selector,
    signed::{PublicKey, Signed, SigningKey},
    stream,
};
use tracing::warn;

pub(super) use self::submit::check_author;
pub use self::{
    part::part,
    steer::steer,
    submit::{run, submit},
    wait::until_settled,
    wish::NewCommand,
};
use super::{
    Api, Caller,
    frozen::{Asked, Place},
    now_ms, page, store_problem,
};
use crate::{
    submit as storing,
    view::{self, Cursors, View},
};

/// Machines are meant, and none of them for a secret.
const ONLY_OWN_WORD: &str = "what a machine has in its own hand (its system, figures, version, and whether it is heard) selects \
    none that is to be given a secret; select by names";

/// Which machines a selector means now, or a page of them: the frozen list that grants are made out for.
///
/// # Errors
/// `forbidden`, `not_caught_up`, `invalid` for a malformed selector, one that means more than 10,000 machines, a limit out of
/// range or a place that is none, `no_targets` when it means none, `id_conflict` for a further page of a list that this bridge
/// cannot give again.
pub async fn preview(api: &Api, caller: &Caller, args: &Preview) -> Result<Previewed, Problem> {
    caller.require(Role::Viewer, "preview a command")?;
    api.ready()?;
    let selector = Selector::parse(&args.on)
        .map_err(|error| Problem::new(ErrorCode::Invalid, format!("cannot resolve `on`: {error}")))?;
    let place = Place::parse(args.after.as_deref())?;
    let limit = args.limit.map(|limit| page::limit(Some(limit))).transpose()?;
    let asked = Asked { selector: &selector, for_secret: args.secret };
    let list = api.list_of(asked, place.as_ref()).await?;
    if args.secret && list.targets.is_empty() && !api.meant(&selector, false).await?.is_empty() {
        return Err(Problem::new(ErrorCode::NoTargets, ONLY_OWN_WORD));
    }
    check_targets(&list.targets, &args.on)?;
    let behind = list.behind(place.as_ref()).iter().cloned();
    let page = page::cut_within(behind, limit, |target: &Target| list.place(&target.token));
    api.remember(asked, &list, &page);
    let (at, sha256, cursor) = (Some(list.at), Some(list.sha256), list.cursor.clone());
    Ok(Previewed { targets: page.items, next: page.next, at, cursor, sha256 })
}

fn check_targets(targets: &[Target], on: &str) -> Result<(), Problem> {
    let on: String = on.chars().take(64).collect();
    if targets.is_empty() {
        let message = format!(
            "no machine is certainly meant by `{on}`; list them to see their names and what is known of them"
        );
        return Err(Problem::new(ErrorCode::NoTargets, message));
    }
    if targets.len() > TARGETS {
        let message = format!(
            "`{on}` means {} machines, more than the {TARGETS} of one command; use narrower selectors",
            targets.len()
        );
        return Err(Problem::new(ErrorCode::Invalid, message));
    }
    Ok(())
}

/// A page of commands, newest first.
///
/// # Errors
/// `forbidden`, `not_caught_up`, or `invalid` for a limit out of range or a place that is none.
pub async fn list(api: &Api, caller: &Caller, args: &Page) -> Result<Listed<CommandSummary>, Problem> {
    caller.require(Role::Viewer, "list commands")?;
    api.ready()?;
    let limit = page::limit(args.limit)?;
    page::check_after(args.after.as_deref(), view::is_place)?;
    let asked = Page { limit: u32::try_from(limit).ok(), after: args.after.clone() };
    api.read(move |view| view.commands(&asked)).await
}

/// One command with its runs, or a page of them.
///
/// # Errors
/// `forbidden`, `not_caught_up`, `not_found`, `invalid` for a limit out of range or a place that is none.
pub async fn get(api: &Api, caller: &Caller, args: Get) -> Result<CommandView, Problem> {
    caller.require(Role::Viewer, "show a command")?;
    let Get { id, limit, after } = args;
    let limit = limit.map(|limit| page::limit(Some(limit))).transpose()?;
    page::check_after(after.as_deref(), |after| MachineId::new(after).is_ok())?;
    let after = after.and_then(|after| MachineId::new(after).ok());
    known(api, id).await?;
    let read = move |view: &View| view.command_page(id, limit, after.as_ref());
    api.read(read).await?.ok_or_else(|| not_found(id))
}

/// Waits until a command is known here, or surely nowhere.
///
/// # Errors
/// `not_caught_up`, `not_found`.
pub(crate) async fn known(api: &Api, id: CommandId) -> Result<CommandSummary, Problem> {
    api.ready()?;
    if let Some(summary) = summary(api, id)? {
        return Ok(summary);
    }
    api.read_through(stream::CMD).await?;
    summary(api, id)?.ok_or_else(|| not_found(id))
}

fn summary(api: &Api, id: CommandId) -> Result<Option<CommandSummary>, Problem> {
    api.view().summary(id).map_err(|error| store_problem(&error))
}

fn not_found(id: CommandId) -> Problem {
    let message =
        format!("there is no command {id}; it may have been forgotten, list them to see those kept");
    Problem::new(ErrorCode::NotFound, message)
}

/// Stores an operator's wish to cancel. `signed` is its verified request.
///
/// # Errors
/// `forbidden`, `not_caught_up`, `not_found`, `not_accepted`.
pub async fn cancel_signed(
    api: &Api,
    caller: &Caller,
    args: Cancel,
    signed: &Signed<Request>,
) -> Result<(Cancelling, Cursors), Problem> {
    let cancelling = cancellable(api, caller, args.id).await?;
    store_cancel(api, caller, args.id, cancelling, || Ok(signed.clone())).await
}

/// Cancels in the name of a caller who signs nothing: the bridge does.
///
/// # Errors
/// `forbidden`, `not_caught_up`, `not_found`, `not_accepted`.
pub async fn cancel(api: &Api, caller: &Caller, id: CommandId) -> Result<(Cancelling, Cursors), Problem> {
    let cancelling = cancellable(api, caller, id).await?;
    store_cancel(api, caller, id, cancelling, || sign_cancel(api, id, &api.settings.key)).await
}

/// How many runs of the command have not ended.
async fn cancellable(api: &Api, caller: &Caller, id: CommandId) -> Result<u32, Problem> {
    caller.require(Role::Member, "cancel a command")?;
    let summary = known(api, id).await?;
    Ok(summary
        .counts
        .iter()
        .filter(|(state, _)| !RunState::is_settled(**state))
        .map(|(_, count)| count)
        .sum())
}

async fn store_cancel(
    api: &Api,
    caller: &Caller,
    id: CommandId,
    cancelling: u32,
    signed: impl FnOnce() -> Result<Signed<Request>, Problem>,
) -> Result<(Cancelling, Cursors), Problem> {
    if cancelling == 0 {
        // Nothing to take back: the state says so already.
        return Ok((Cancelling { cancelling }, api.view().cursors()));
    }
    let stands = |body: &[u8]| is_cancel(api, id, body);
    let cursors = storing::store_cancel(
        api.link(),
        api.ws(),
        api.view().made(stream::CMD),
        (id, caller.principal()),
        &signed()?,
        stands,
    )
    .await
    .map_err(|error| submit::storing_problem("cancel", id, &error))?;
    api.settle_write(&cursors).await;
    Ok((Cancelling { cancelling }, cursors))
}

/// Whether a stored message cancels the command for everybody who reads it now.
fn is_cancel(api: &Api, id: CommandId, body: &[u8]) -> bool {
    let Some(authors) = api.view().authors() else { return false };
    let member = |key: &PublicKey| authors.author(key).is_some_and(|author| author.role != Role::Viewer);
    let may = |key: &PublicKey| member(key) || authors.is_bridge(key);
    let request = Signed::<Request>::from_json(body).and_then(|signed| signed.open(may));
    let request = request.ok().filter(|request| request.ws == *api.ws() && request.op == op::COMMANDS_CANCEL);
    let cancel = request.and_then(|request| serde_json::from_value::<Cancel>(request.args).ok());
    cancel.is_some_and(|cancel| cancel.id == id)
}

fn sign_cancel(api: &Api, id: CommandId, key: &SigningKey) -> Result<Signed<Request>, Problem> {
    let failed = |error: &dyn std::error::Error| {
        warn!(error = report(error), "cannot sign a cancel");
        Problem::new(ErrorCode::NotAccepted, format!("cannot cancel {id}: the bridge cannot sign; try again"))
    };
    let mut nonce = [0; 16];
    secure_rand_bytes(&mut nonce).map_err(|error| failed(&error))?;
    let request = Request {
        ws: api.ws().clone(),
        op: op::COMMANDS_CANCEL.to_owned(),
        args: serde_json::json!({ "id": id }),
        nonce: Nonce(nonce),
        issued_at: now_ms(),
    };
    Signed::sign(&request, key).map_err(|error| failed(&error))
}
