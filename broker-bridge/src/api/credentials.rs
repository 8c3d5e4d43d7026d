//! `credentials.list` and `shared_credentials.*`: what relays hold, and ciphertext that is given to them. Nobody here can
//! read a value: whoever makes a shared credential seals it, and its relay opens it.

use signalbox_schemas::{
    api::{
        CredentialView, ListCredentials, Listed, NewSharedCredential, Page, SharedCredentialView,
        UpdateSharedCredential,
    },
    authors::Role,
    credential::{SharedCredentialRecord, SharedKept, StorageMode},
    error::{ErrorCode, Problem},
    limit::SSH_HOST_BYTES,
    record::{AssignmentRecord, table},
    stream::STATE,
};

use super::{
    Api, Caller, assignments, now_ms, page,
    records::{check_printable, check_size, is_id, new_id, stored_problem},
};
use crate::{
    store::StoreError,
    view::{Cursors, View},
};

/// Longest name, in characters.
const NAME_CHARS: usize = 128;
/// Largest sealed value, bytes.
const VALUE_BYTES: usize = 64 * 1024;
/// Most assignments of one shared credential.
const ASSIGNED: usize = 1_000;
/// Most shared credentials: all of them are in memory.
pub(super) const SHARED: usize = 1_000;

const MAKING: &str = "make the shared credential";
const CHANGING: &str = "change the shared credential";

/// A page of what relays hold: of one of them, or what opens one host, which is compared letter by letter. `after` is
/// `next` of the page before.
///
/// # Errors
/// `forbidden`, `not_caught_up`, `invalid` also when neither is named, `not_found` for an unknown assignment.
pub async fn list(
    api: &Api,
    caller: &Caller,
    args: &ListCredentials,
) -> Result<Listed<CredentialView>, Problem> {
    caller.require(Role::Viewer, "list credentials")?;
    api.ready()?;
    let limit = page::limit(args.limit)?;
    page::check_after(args.after.as_deref(), |after| parse_place(after).is_some())?;
    let assignments = match (&args.assignment_id, &args.target_host) {
        (None, None) => {
            let message = "cannot list credentials: name a relay (assignment_id) or a host (target_host)";
            return Err(Problem::new(ErrorCode::Invalid, message));
        }
        (Some(id), _) => {
            vec![assignments::known(api, id).await?]
        }
        (None, Some(_)) => api.view().assignments(),
    };
    let (after, host) = (args.after.clone(), args.target_host.clone());
    let page = api.read(move |view| {
        let after = after.as_deref().and_then(parse_place);
        let mut failed = None;
        let relays = assignments.into_iter().filter(|it| after.is_none_or(|(id, _)| it.id.as_str() >= id));
        let held = relays.map_while(|assignment| match held(view, &assignment) {
            Ok(held) => Some(held),
            Err(error) => {
                failed = Some(error);
                None
            }
        });
        let is_behind = |(n, view): &(usize, CredentialView)| {
            after.is_none_or(|(id, last)| (view.assignment_id.as_str(), *n) > (id, last))
        };
        let opens = |view: &CredentialView| {
            host.as_ref().is_none_or(|host| view.meta.target_host.as_ref() == Some(host))
        };
        let held = held.flatten().filter(|found| is_behind(found) && opens(&found.1));
        let page = page::cut(held, limit, |(n, view)| format!("{}.{n}", view.assignment_id));
        failed.map_or(Ok(page), Err)
    });
    let page = page.await?;
    Ok(Listed { items: page.items.into_iter().map(|(_, view)| view).collect(), next: page.next })
}

/// The credential behind which a page begins: its assignment, and which of its credentials.
fn parse_place(after: &str) -> Option<(&str, usize)> {
    let (id, n) = after.split_once('.')?;
    Some((id, n.parse().ok()?)).filter(|_| is_id(id))
}

/// What the relay of an assignment holds, each with its number.
fn held(view: &View, assignment: &AssignmentRecord) -> Result<Vec<(usize, CredentialView)>, StoreError> {
    let Some((reported_at, credentials)) = view.held_by(assignment)? else { return Ok(Vec::new()) };
    let views = credentials.into_iter().map(|meta| CredentialView {
        assignment_id: assignment.id.clone(),
        machine_id: assignment.machine_id.clone(),
        meta,
        reported_at,
    });
    Ok(views.enumerate().collect())
}

/// Makes a shared credential.
///
/// # Errors
/// `forbidden`, `not_caught_up`, `invalid`, `rate_limited` when there are 1,000 already, `not_accepted`.
pub async fn create(
    api: &Api,
    caller: &Caller,
    asked: NewSharedCredential,
) -> Result<(SharedCredentialView, Cursors), Problem> {
    caller.require(Role::Admin, MAKING)?;
    api.ready()?;
    check_printable(MAKING, "name", &asked.name, NAME_CHARS)?;
    check_host(MAKING, asked.target_host.as_deref())?;
    check_value(MAKING, &asked.encrypted_value)?;
    let assigned = assigned(api, MAKING, asked.assigned).await?;
    // Two at once would both find room.
    let _turn = api.edits.of(&table::SHARED_CREDENTIALS).await;
    if api.view().shared_count() >= SHARED {
        let message = format!("cannot {MAKING}: there are {SHARED} already; remove some");
        return Err(Problem::new(ErrorCode::RateLimited, message));
    }
    let now = now_ms();
    let record = SharedCredentialRecord {
        ws: api.ws().clone(),
        id: new_id(),
        name: asked.name,
        credential_type: asked.credential_type,
        target_host: asked.target_host,
        encrypted_value: asked.encrypted_value,
        assigned,
        created_by: caller.principal().to_owned(),
        created_at: now,
        updated_at: now,
        kept: None,
        removed_at: None,
        revision: 0,
    };
    let signed =
        api.broker.asked_by(caller.principal()).record(table::SHARED_CREDENTIALS, &record.id, &record);
    let signed = signed.map_err(|error| stored_problem(MAKING, &error))?;
    let cursors = api.put_new(vec![signed]).await.map_err(|error| error.problem(MAKING))?;
    Ok((view(record), cursors))
}

fn check_value(doing: &str, value: &str) -> Result<(), Problem> {
    if value.is_empty() {
        let message = format!("cannot {doing}: encrypted_value must not be empty");
        return Err(Problem::new(ErrorCode::Invalid, message));
    }
    check_size(doing, "encrypted_value", value, VALUE_BYTES)
}

fn check_host(doing: &str, host: Option<&str>) -> Result<(), Problem> {
    host.map_or(Ok(()), |host| check_printable(doing, "target_host", host, SSH_HOST_BYTES))
}

/// The assignments as they are stored: sorted, each once, and each one that there is.
async fn assigned(api: &Api, doing: &str, mut ids: Vec<String>) -> Result<Vec<String>, Problem> {
    ids.sort();
    ids.dedup();
    if ids.len() > ASSIGNED {
        let message = format!("cannot {doing}: it is for {} assignments, at most {ASSIGNED}", ids.len());
        return Err(Problem::new(ErrorCode::Invalid, message));
    }
    if ids.iter().any(|id| api.view().assignment(id).is_none()) {
        api.read_through(STATE).await?;
    }
    if let Some(unknown) = ids.iter().find(|id| api.view().assignment(id).is_none()) {
        let unknown: String = unknown.chars().filter(|c| !c.is_control()).take(64).collect();
        let message = format!("cannot {doing}: there is no assignment `{unknown}`; list them");
        return Err(Problem::new(ErrorCode::Invalid, message));
    }
    Ok(ids)
}

/// A page of shared credentials, by id; `after` is the last id of the page before.
///
/// # Errors
/// `forbidden`, `not_caught_up`, `invalid`.
pub fn list_shared(api: &Api, caller: &Caller, args: &Page) -> Result<Listed<SharedCredentialView>, Problem> {
    caller.require(Role::Viewer, "list shared credentials")?;
    api.ready()?;
    page_of(api.view().shared_credentials(), args)
}

/// A page of the shared credentials that the relay of one assignment gets.
///
/// # Errors
/// `forbidden`, `not_caught_up`, `invalid`, `not_found`.
pub async fn list_shared_with(
    api: &Api,
    caller: &Caller,
    id: &str,
    args: &Page,
) -> Result<Listed<SharedCredentialView>, Problem> {
    caller.require(Role::Viewer, "list shared credentials")?;
    assignments::known(api, id).await?;
    page_of(api.view().shared_with(id), args)
}

fn page_of(
    records: Vec<SharedCredentialRecord>,
    args: &Page,
) -> Result<Listed<SharedCredentialView>, Problem> {
    let limit = page::limit(args.limit)?;
    page::check_after(args.after.as_deref(), is_id)?;
    let is_behind =
        |record: &SharedCredentialRecord| args.after.as_ref().is_none_or(|after| record.id > *after);
    Ok(page::cut(records.into_iter().filter(is_behind).map(view), limit, |view| view.id.clone()))
}

/// One shared credential, without its value.
///
/// # Errors
/// `forbidden`, `not_caught_up`, `not_found`.
pub async fn get(api: &Api, caller: &Caller, id: &str) -> Result<SharedCredentialView, Problem> {
    caller.require(Role::Viewer, "show a shared credential")?;
    known(api, id).await.map(view)
}

async fn known(api: &Api, id: &str) -> Result<SharedCredentialRecord, Problem> {
    api.ready()?;
    if !is_id(id) {
        return Err(not_found());
    }
    if let Some(record) = api.view().shared_credential(id) {
        return Ok(record);
    }
    api.read_through(STATE).await?;
    api.view().shared_credential(id).ok_or_else(not_found)
}

fn not_found() -> Problem {
    Problem::new(ErrorCode::NotFound, "there is no such shared credential; list them to see those there are")
}

/// Changes a shared credential; what is absent stays.
///
/// # Errors
/// `forbidden`, `not_caught_up`, `invalid`, `not_found`, `not_accepted`.
pub async fn update(
    api: &Api,
    caller: &Caller,
    args: UpdateSharedCredential,
) -> Result<(SharedCredentialView, Cursors), Problem> {
    caller.require(Role::Admin, CHANGING)?;
    let known = known(api, &args.id).await?;
    if let Some(name) = &args.name {
        check_printable(CHANGING, "name", name, NAME_CHARS)?;
    }
    check_host(CHANGING, args.target_host.as_deref())?;
    if let Some(value) = &args.encrypted_value {
        check_value(CHANGING, value)?;
    }
    let assigned = match args.assigned {
        Some(ids) => Some(assigned(api, CHANGING, ids).await?),
        None => None,
    };
    if known.kept.is_some() {
        // Its value is none that could be opened by a relay of the old contract, and its name is what it is bound to.
        let message =
            format!("cannot {CHANGING}: it belongs to relays with keys; push it anew, assign or unassign it");
        return Err(Problem::new(ErrorCode::Invalid, message));
    }
    let now = now_ms();
    let edit = |stands: Option<SharedCredentialRecord>| {
        let record = stands.filter(|record| record.removed_at.is_none())?;
        Some(SharedCredentialRecord {
            name: args.name.clone().unwrap_or_else(|| record.name.clone()),
            target_host: args.target_host.clone().or_else(|| record.target_host.clone()),
            encrypted_value: args.encrypted_value.clone().unwrap_or_else(|| record.encrypted_value.clone()),
            assigned: assigned.clone().unwrap_or_else(|| record.assigned.clone()),
            updated_at: now,
            ..record
        })
    };
    let (stands, cursors) =
        api.edit(caller.principal(), CHANGING, table::SHARED_CREDENTIALS, &args.id, edit).await?;
    let record = stands.filter(|record| record.removed_at.is_none()).ok_or_else(not_found)?;
    Ok((view(record), cursors))
}

/// Removes a shared credential, and its value from the edition that stands; relays that have it keep it.
///
/// # Errors
/// `forbidden`, `not_caught_up`, `not_found`, `not_accepted`.
pub async fn remove(
    api: &Api,
    caller: &Caller,
    id: &str,
) -> Result<(SharedCredentialView, Cursors), Problem> {
    let doing = "remove the shared credential";
    caller.require(Role::Admin, doing)?;
    known(api, id).await?;
    let now = now_ms();
    let edit = |stands: Option<SharedCredentialRecord>| {
        let record = stands.filter(|record| record.removed_at.is_none())?;
        let encrypted_value = String::new();
        let kept = record.kept.clone().map(|kept| Box::new(SharedKept { secret: None, ..*kept }));
        Some(SharedCredentialRecord {
            encrypted_value,
            kept,
            updated_at: now,
            removed_at: Some(now),
            ..record
        })
    };
    let (stands, cursors) = api.edit(caller.principal(), doing, table::SHARED_CREDENTIALS, id, edit).await?;
    Ok((view(stands.ok_or_else(not_found)?), cursors))
}

pub(super) fn view(record: SharedCredentialRecord) -> SharedCredentialView {
    SharedCredentialView {
        id: record.id,
        name: record.name,
        credential_type: record.credential_type,
        target_host: record.target_host,
        storage_mode: StorageMode::Shared,
        assigned: record.assigned,
        machines: record.kept.map(|kept| kept.machines).unwrap_or_default(),
        created_by: record.created_by,
        created_at: record.created_at,
        updated_at: record.updated_at,
    }
}
