//! `assignments.*`: which machine an API key of the old contract stands for.

pub(super) mod key;
mod remove;

use serde::{Deserialize, Serialize};
use signalbox_link::StoreError;
use signalbox_schemas::{
    api::{AssignmentView, ListAssignments, Listed, NewAssignment, UpdateAssignment},
    api_key::ApiKey,
    authors::Role,
    error::{ErrorCode, Problem},
    id::{MachineId, Sha256},
    label::{GivenLabels, LabelMap},
    limit::PRINCIPAL_BYTES,
    record::{ApiKeyRecord, AssignmentRecord, MachineRecord, table},
    stream::STATE,
};

use super::{
    Api, Caller, heard, labels, now_ms, page,
    records::{PutError, check_printable, is_id, new_id, stored_problem},
};
use crate::{broker_link::BrokerError, view::Cursors};

pub use remove::remove;

/// Longest name, in characters.
const NAME_CHARS: usize = 128;

const MAKING: &str = "make the assignment";

/// A wish for an assignment where nobody else reads: over HTTP the key itself may come, and go.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewKeyed {
    machine_id: String,
    name: String,
    #[serde(default)]
    created_by: Option<String>,
    /// A key that its relay has already.
    #[serde(default)]
    api_key: Option<String>,
    /// The hash of one; neither: a key is drawn.
    #[serde(default)]
    key_hash: Option<Sha256>,
    #[serde(default)]
    labels: LabelMap,
}

/// An assignment with its key, which is never shown again.
#[derive(Serialize)]
pub struct Assigned {
    #[serde(flatten)]
    assignment: AssignmentView,
    /// Absent: whoever asked has sent a hash alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    api_key: Option<String>,
}

/// Makes an assignment, and its key unless it comes with one.
///
/// # Errors
/// Those of [`create`]; `invalid` also for a key that is none, or comes with a hash.
pub async fn create_keyed(
    api: &Api,
    caller: &Caller,
    asked: NewKeyed,
) -> Result<(Assigned, Cursors), Problem> {
    let NewKeyed { machine_id, name, created_by, api_key, key_hash, labels } = asked;
    let invalid = |why: &str| Problem::new(ErrorCode::Invalid, format!("cannot {MAKING}: {why}"));
    let (key, key_hash) = match (api_key, key_hash) {
        (Some(_), Some(_)) => return Err(invalid("give either `api_key` or `key_hash`")),
        (None, Some(hash)) => (None, hash),
        (own, None) => {
            let own = own.map(ApiKey::new).transpose().map_err(|error| invalid(&error.to_string()))?;
            let key = own.map_or_else(key::draw, Ok)?;
            let hash = key.hash();
            (Some(key), hash)
        }
    };
    let asked = NewAssignment { machine_id, name, created_by, key_hash, labels };
    let (assignment, cursors) = create(api, caller, asked).await?;
    let api_key = key.map(|key| key.reveal().to_owned());
    Ok((Assigned { assignment, api_key }, cursors))
}

/// Makes an assignment for the key that has a hash. A machine that is not known becomes one without keys, whose work relays
/// of the old contract do.
///
/// # Errors
/// `forbidden`, `not_caught_up`, `invalid`, `id_conflict` when the key is, or was, another assignment's, `not_accepted`.
pub async fn create(
    api: &Api,
    caller: &Caller,
    asked: NewAssignment,
) -> Result<(AssignmentView, Cursors), Problem> {
    caller.require(Role::Admin, MAKING)?;
    api.ready()?;
    check_printable(MAKING, "name", &asked.name, NAME_CHARS)?;
    let created_by = asked.created_by.unwrap_or_else(|| caller.principal().to_owned());
    check_printable(MAKING, "created_by", &created_by, PRINCIPAL_BYTES)?;
    labels::check_count(MAKING, &asked.labels)?;
    let api_key_hash = key::kept(&api.settings.pepper, &asked.key_hash)?;
    if api.view().assignment_by_key(&api_key_hash).is_some() {
        return Err(key_taken());
    }
    let record = AssignmentRecord {
        ws: api.ws().clone(),
        id: new_id(),
        machine_id: machine(api, caller, &asked.machine_id).await?,
        name: asked.name,
        enabled: true,
        api_key_hash,
        created_at: now_ms(),
        created_by: Some(created_by),
        labels: asked.labels,
        updated_at: None,
        removed_at: None,
        revision: 0,
    };
    let cursors = store(api, caller, &record).await?;
    Ok((view(api, record), cursors))
}

fn key_taken() -> Problem {
    Problem::new(ErrorCode::IdConflict, "API key is already assigned to a machine")
}

/// The machine's id; it is made known if nobody knows it.
async fn machine(api: &Api, caller: &Caller, id_or_token: &str) -> Result<MachineId, Problem> {
    if let Some(known) = api.view().machine(id_or_token) {
        return Ok(known.id);
    }
    let id = MachineId::new(id_or_token).map_err(|error| {
        Problem::new(ErrorCode::Invalid, format!("cannot {MAKING}: machine_id is {error}"))
    })?;
    let new = MachineRecord {
        ws: api.ws().clone(),
        id: id.clone(),
        token: id.token(),
        keys: None,
        enrolled_at: now_ms(),
        enrolled_by: None,
        former_keys: Vec::new(),
        allow_legacy: false,
        labels: GivenLabels::default(),
        revision: 0,
    };
    // It may be there, and not have been read yet: then it stays as it is.
    let edit = |stands: Option<MachineRecord>| stands.is_none().then(|| new.clone());
    let doing = "make the machine known";
    api.edit(caller.principal(), doing, table::MACHINES, new.token.as_str(), edit).await?;
    Ok(id)
}

/// The assignment and the record that makes its key unique, or neither.
async fn store(api: &Api, caller: &Caller, record: &AssignmentRecord) -> Result<Cursors, Problem> {
    let unique = ApiKeyRecord { ws: record.ws.clone(), assignment: record.id.clone() };
    let broker = api.broker.asked_by(caller.principal());
    let records = broker
        .record(table::ASSIGNMENTS, &record.id, record)
        .and_then(|first| Ok(vec![first, broker.record(table::API_KEYS, &record.api_key_hash, &unique)?]))
        .map_err(|error| stored_problem(MAKING, &error))?;
    api.put_new(records).await.map_err(|error| match error {
        // The id was drawn just now: it is the key that somebody has.
        PutError::Refused(BrokerError::Store { source: StoreError::Taken { .. }, .. }) => key_taken(),
        error => error.problem(MAKING),
    })
}

/// A page of assignments, newest first; `after` is the last id of the page before.
///
/// # Errors
/// `forbidden`, `not_caught_up`, `invalid`.
pub fn list(api: &Api, caller: &Caller, args: &ListAssignments) -> Result<Listed<AssignmentView>, Problem> {
    caller.require(Role::Viewer, "list assignments")?;
    api.ready()?;
    let limit = page::limit(args.limit)?;
    page::check_after(args.after.as_deref(), is_id)?;
    let mut records = api.view().assignments();
    records.reverse();
    if let Some(asked) = &args.machine_id {
        let machine = api.view().machine(asked).map(|machine| machine.id);
        records.retain(|record| machine.as_ref() == Some(&record.machine_id));
    }
    let is_behind = |record: &AssignmentRecord| args.after.as_ref().is_none_or(|after| record.id < *after);
    let views = records.into_iter().filter(is_behind).map(|record| view(api, record));
    Ok(page::cut(views, limit, |view| view.id.clone()))
}

/// One assignment.
///
/// # Errors
/// `forbidden`, `not_caught_up`, `not_found`.
pub async fn get(api: &Api, caller: &Caller, id: &str) -> Result<AssignmentView, Problem> {
    caller.require(Role::Viewer, "show an assignment")?;
    Ok(view(api, known(api, id).await?))
}

/// Changes an assignment; the key of one that is disabled counts no more.
///
/// # Errors
/// `forbidden`, `not_caught_up`, `invalid`, `not_found`, `not_accepted`.
pub async fn update(
    api: &Api,
    caller: &Caller,
    args: UpdateAssignment,
) -> Result<(AssignmentView, Cursors), Problem> {
    let doing = "change the assignment";
    caller.require(Role::Admin, doing)?;
    if let Some(name) = &args.name {
        check_printable(doing, "name", name, NAME_CHARS)?;
    }
    known(api, &args.id).await?;
    let now = now_ms();
    let edit = |stands: Option<AssignmentRecord>| {
        let record = stands.filter(|record| record.removed_at.is_none())?;
        Some(AssignmentRecord {
            name: args.name.clone().unwrap_or_else(|| record.name.clone()),
            enabled: args.enabled.unwrap_or(record.enabled),
            updated_at: Some(now),
            ..record
        })
    };
    let (stands, cursors) = api.edit(caller.principal(), doing, table::ASSIGNMENTS, &args.id, edit).await?;
    let record = stands.filter(|record| record.removed_at.is_none()).ok_or_else(not_found)?;
    Ok((view(api, record), cursors))
}

/// A sign of life in the name of an assignment's relay.
///
/// # Errors
/// `forbidden`, `not_caught_up`, `not_found`.
pub async fn heartbeat(api: &Api, caller: &Caller, id: &str) -> Result<AssignmentView, Problem> {
    caller.require(Role::Admin, "speak for a relay")?;
    let record = known(api, id).await?;
    heard::heartbeat(api, &record).await;
    Ok(view(api, record))
}

/// An assignment that was not removed.
///
/// # Errors
/// `not_caught_up`, `not_found`.
pub(crate) async fn known(api: &Api, id: &str) -> Result<AssignmentRecord, Problem> {
    api.ready()?;
    if !is_id(id) {
        return Err(not_found());
    }
    if let Some(record) = api.view().assignment(id) {
        return Ok(record);
    }
    api.read_through(STATE).await?;
    api.view().assignment(id).ok_or_else(not_found)
}

pub(super) fn not_found() -> Problem {
    Problem::new(ErrorCode::NotFound, "Relay assignment not found")
}

fn view(api: &Api, record: AssignmentRecord) -> AssignmentView {
    let contact = api.view().contact(&record.id, now_ms());
    AssignmentView {
        id: record.id,
        machine_id: record.machine_id,
        name: record.name,
        enabled: record.enabled,
        created_by: record.created_by,
        created_at: record.created_at,
        updated_at: record.updated_at.unwrap_or(record.created_at),
        last_seen_at: contact.seen_at,
        is_online: contact.is_online,
        labels: record.labels,
    }
}
