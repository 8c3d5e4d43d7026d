//! `config_pushes.*`: configuration for relays of the old contract.

mod payload;

use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use signalbox_schemas::{
    api::{AckConfigPush, ConfigPushView, ListConfigPushes, Listed, NewConfigPush},
    authors::Role,
    config::{ConfigPushRecord, PushState},
    error::{ErrorCode, Problem, report},
    limit::{DAY_MS, FACT_TEXT_BYTES},
    record::{AssignmentRecord, table},
    stream::STATE,
};
use tokio::time::timeout;
use tracing::debug;

use super::{
    Api, Caller, assignments, now_ms, page,
    records::{is_id, new_id, stored_problem},
    store_problem,
};
use crate::view::Cursors;

/// Most pushes to one assignment without an answer: they are in memory, and offered together.
const OPEN: usize = 1_000;
/// Most bytes of their payloads: all of them go out in one answer, twice.
const OPEN_BYTES: usize = 1024 * 1024;
/// Answered pushes are shown for so long, ms.
const SHOWN_MS: u64 = 90 * DAY_MS;
const MAKING: &str = "queue the push";
/// Pushes that are marked at once.
const MARKED_AT_ONCE: usize = 16;
/// How long an answer with pushes waits for them to be marked.
const MARKING: Duration = Duration::from_secs(1);

/// Queues a push.
///
/// # Errors
/// `forbidden`, `not_caught_up`, `invalid` for a payload that is no object and when the assignment's relay has enrolled,
/// `too_large`, `not_found` for an unknown assignment, `rate_limited` when 1,000 pushes to it have no answer, `not_accepted`.
pub async fn create(
    api: &Api,
    caller: &Caller,
    asked: NewConfigPush,
) -> Result<(ConfigPushView, Cursors), Problem> {
    caller.require(Role::Admin, MAKING)?;
    let payload = payload::to_text(&asked.payload)?;
    let assignment = assignments::known(api, &asked.assignment_id).await?;
    check_fetched(api, MAKING, &assignment)?;
    // Two at once would both find room.
    let _turn = api.edits.of(&(table::CONFIG_PUSHES, &assignment.id)).await;
    check_room(api, MAKING, &assignment.id)?;
    let record = ConfigPushRecord {
        ws: api.ws().clone(),
        id: new_id(),
        assignment: assignment.id,
        push_type: asked.push_type,
        payload,
        state: PushState::Pending,
        error: None,
        created_by: caller.principal().to_owned(),
        created_at: now_ms(),
        sent_at: None,
        acked_at: None,
        removed_at: None,
        revision: 0,
    };
    let signed = api.broker.asked_by(caller.principal()).record(table::CONFIG_PUSHES, &record.id, &record);
    let signed = signed.map_err(|error| stored_problem(MAKING, &error))?;
    let cursors = api.put_new(vec![signed]).await.map_err(|error| error.problem(MAKING))?;
    Ok((view(record), cursors))
}

/// A relay with keys asks for no pushes: what is queued for it would wait for ever.
fn check_fetched(api: &Api, doing: &str, assignment: &AssignmentRecord) -> Result<(), Problem> {
    let Some(machine) = api.view().enrolled_machine(assignment) else { return Ok(()) };
    let message = format!(
        "cannot {doing}: the relay of machine {machine} has enrolled with this assignment, and pushes to relays with keys \
         are not built yet; change `relay.toml` on the machine instead"
    );
    Err(Problem::new(ErrorCode::Invalid, message))
}

fn check_room(api: &Api, doing: &str, assignment: &str) -> Result<(), Problem> {
    let (open, bytes) = api.view().open_push_load(assignment);
    if open < OPEN && bytes < OPEN_BYTES {
        return Ok(());
    }
    let message = format!(
        "cannot {doing}: {open} pushes of {bytes} bytes to this relay have no answer yet; see that it runs"
    );
    Err(Problem::new(ErrorCode::RateLimited, message))
}

/// A page of pushes, oldest first; `after` is the last id of the page before. Those that were answered more than 90 days ago
/// are left out.
///
/// # Errors
/// `forbidden`, `not_caught_up`, `invalid`.
pub async fn list(
    api: &Api,
    caller: &Caller,
    args: &ListConfigPushes,
) -> Result<Listed<ConfigPushView>, Problem> {
    caller.require(Role::Viewer, "list pushes")?;
    api.ready()?;
    let limit = page::limit(args.limit)?;
    page::check_after(args.after.as_deref(), is_id)?;
    let (args, now) = (args.clone(), now_ms());
    let is_meant = move |push: &ConfigPushRecord| {
        args.assignment_id.as_ref().is_none_or(|id| push.assignment == *id)
            && args.state.is_none_or(|state| push.state == state)
            && is_shown(push, now)
    };
    let after = args.after.clone();
    api.read(move |store| {
        let mut failed = Ok(());
        let pushes = store.config_pushes(after.as_deref());
        // The first row that cannot be read ends the page, and is the answer.
        let pushes = pushes.map_while(|push| push.map_err(|error| failed = Err(error)).ok());
        let listed = page::cut(pushes.filter(is_meant).map(view), limit, |push| push.id.clone());
        failed.map(|()| listed)
    })
    .await
}

fn is_shown(push: &ConfigPushRecord, now: u64) -> bool {
    push.state.is_open() || push.acked_at.is_none_or(|at| now.saturating_sub(at) <= SHOWN_MS)
}

/// One push.
///
/// # Errors
/// `forbidden`, `not_caught_up`, `not_found`.
pub async fn get(api: &Api, caller: &Caller, id: &str) -> Result<ConfigPushView, Problem> {
    caller.require(Role::Viewer, "show a push")?;
    known(api, id).await.map(view)
}

async fn known(api: &Api, id: &str) -> Result<ConfigPushRecord, Problem> {
    api.ready()?;
    find(api, id).await?.filter(|push| is_shown(push, now_ms())).ok_or_else(not_found)
}

fn not_found() -> Problem {
    Problem::new(ErrorCode::NotFound, "there is no such push; list them to see those there are")
}

/// Its relay was told of a push. One that was told of stays as it is.
///
/// # Errors
/// `forbidden`, `not_caught_up`, `not_found`, `invalid` when it was answered, `not_accepted`.
pub async fn sent(api: &Api, caller: &Caller, id: &str) -> Result<(ConfigPushView, Cursors), Problem> {
    caller.require(Role::Admin, "mark a push as sent")?;
    known(api, id).await?;
    let (stands, cursors) = mark_sent(api, caller.principal(), id, now_ms()).await?;
    let push = stands.filter(|push| push.removed_at.is_none()).ok_or_else(not_found)?;
    if !push.state.is_open() {
        let message =
            "cannot mark the push as sent: it was answered already; retry it if it shall be sent again";
        return Err(Problem::new(ErrorCode::Invalid, message));
    }
    Ok((view(push), cursors))
}

/// Its relay has answered, whatever state the push is in.
///
/// # Errors
/// `forbidden`, `not_caught_up`, `not_found`, `not_accepted`.
pub async fn ack(
    api: &Api,
    caller: &Caller,
    args: AckConfigPush,
) -> Result<(ConfigPushView, Cursors), Problem> {
    caller.require(Role::Admin, "answer a push")?;
    known(api, &args.id).await?;
    let (stands, cursors) = acknowledge(api, caller.principal(), &args.id, args.success, args.error).await?;
    Ok((view(stands.ok_or_else(not_found)?), cursors))
}

/// A push that its relay was told of, or that failed, waits again.
///
/// # Errors
/// `forbidden`, `not_caught_up`, `not_found`, `invalid` when it is applied or its relay has enrolled, `rate_limited`,
/// `not_accepted`.
pub async fn retry(api: &Api, caller: &Caller, id: &str) -> Result<(ConfigPushView, Cursors), Problem> {
    let doing = "retry the push";
    caller.require(Role::Admin, doing)?;
    let push = known(api, id).await?;
    if let Some(assignment) = api.view().assignment(&push.assignment) {
        check_fetched(api, doing, &assignment)?;
    }
    if push.state == PushState::Failed {
        check_room(api, doing, &push.assignment)?;
    }
    let edit = |stands: Option<ConfigPushRecord>| {
        let push = stands.filter(|push| push.removed_at.is_none() && push.state != PushState::Acked)?;
        Some(ConfigPushRecord { state: PushState::Pending, error: None, acked_at: None, ..push })
    };
    let (stands, cursors) = api.edit(caller.principal(), doing, table::CONFIG_PUSHES, id, edit).await?;
    let push = stands.filter(|push| push.removed_at.is_none()).ok_or_else(not_found)?;
    if push.state == PushState::Acked {
        let message = "cannot retry the push: its relay says that it is applied; queue a new one";
        return Err(Problem::new(ErrorCode::Invalid, message));
    }
    Ok((view(push), cursors))
}

fn view(push: ConfigPushRecord) -> ConfigPushView {
    ConfigPushView {
        id: push.id,
        assignment_id: push.assignment,
        push_type: push.push_type,
        payload: payload::shown(push.push_type, push.payload),
        state: push.state,
        error: push.error,
        created_by: push.created_by,
        created_at: push.created_at,
        sent_at: push.sent_at,
        acked_at: push.acked_at,
    }
}

/// Pushes to an assignment's relay without an answer, oldest first, marked as sent. They are offered again until they are
/// answered, so a mark that cannot be set is only counted.
pub(crate) async fn offered(api: &Api, assignment_id: &str) -> Vec<ConfigPushRecord> {
    let mut pushes = api.view().open_pushes(assignment_id);
    let now = now_ms();
    let relay = format!("relay:{assignment_id}");
    let relay = &relay;
    let pending = pushes.iter_mut().filter(|push| push.state == PushState::Pending);
    let marking = stream::iter(pending).for_each_concurrent(MARKED_AT_ONCE, |push| async move {
        match mark_sent(api, relay, &push.id, now).await {
            Ok((Some(marked), _)) => *push = marked,
            Ok((None, _)) => {}
            Err(problem) => unmarked(api, &problem),
        }
    });
    if let Err(late) = timeout(MARKING, marking).await {
        unmarked(api, &late);
    }
    // Answered through another bridge, or removed, since it was read here.
    pushes.retain(|push| push.state.is_open() && push.removed_at.is_none());
    pushes
}

fn unmarked(api: &Api, error: &dyn std::error::Error) {
    api.count("pushes", "unmarked");
    debug!(error = report(error), "a push was not marked as sent");
}

/// Marks a push as sent if it is pending; answers it as it stands.
async fn mark_sent(
    api: &Api,
    by: &str,
    id: &str,
    now: u64,
) -> Result<(Option<ConfigPushRecord>, Cursors), Problem> {
    let edit = |stands: Option<ConfigPushRecord>| {
        let pending = stands.filter(|push| push.state == PushState::Pending && push.removed_at.is_none())?;
        let sent_at = pending.sent_at.or(Some(now));
        Some(ConfigPushRecord { state: PushState::Sent, sent_at, ..pending })
    };
    api.edit(by, "mark the push as sent", table::CONFIG_PUSHES, id, edit).await
}

/// Takes an answer of an assignment's relay to a push, in whatever state that is. False: there is no such push, or it is
/// for another one.
///
/// # Errors
/// `not_accepted`, `not_caught_up`.
pub(crate) async fn answered(
    api: &Api,
    assignment: &AssignmentRecord,
    id: &str,
    success: bool,
    error: Option<String>,
) -> Result<bool, Problem> {
    let Some(push) = find(api, id).await? else { return Ok(false) };
    if push.assignment != assignment.id {
        return Ok(false);
    }
    let by = format!("relay:{}", assignment.id);
    let (stands, _) = acknowledge(api, &by, id, success, error).await?;
    Ok(stands.is_some())
}

/// Writes down an answer; answers the push unless it was removed.
async fn acknowledge(
    api: &Api,
    by: &str,
    id: &str,
    success: bool,
    error: Option<String>,
) -> Result<(Option<ConfigPushRecord>, Cursors), Problem> {
    let now = now_ms();
    let error = error.map(|mut text| {
        text.truncate(text.floor_char_boundary(FACT_TEXT_BYTES));
        text
    });
    let edit = |stands: Option<ConfigPushRecord>| {
        let push = stands.filter(|push| push.removed_at.is_none())?;
        let state = if success { PushState::Acked } else { PushState::Failed };
        Some(ConfigPushRecord {
            state,
            error: error.clone().filter(|_| !success),
            acked_at: Some(now),
            ..push
        })
    };
    let (stands, cursors) =
        api.edit(by, "take the answer to the push", table::CONFIG_PUSHES, id, edit).await?;
    Ok((stands.filter(|push| push.removed_at.is_none()), cursors))
}

/// A push that was not removed, or surely none.
async fn find(api: &Api, id: &str) -> Result<Option<ConfigPushRecord>, Problem> {
    if !is_id(id) {
        return Ok(None);
    }
    let read = || api.view().config_push(id).map_err(|error| store_problem(&error));
    if let Some(push) = read()? {
        return Ok(Some(push));
    }
    api.read_through(STATE).await?;
    read()
}

#[cfg(test)]
mod tests {
    use signalbox_schemas::{config::PushType, id::Workspace};

    use super::*;
    use crate::{
        core::still::Still,
        store::{Txn, key},
    };

    const ASSIGNMENT: &str = "0193a2b4-0000-7000-8000-00000000000a";

    fn push(n: u8, state: PushState) -> ConfigPushRecord {
        ConfigPushRecord {
            ws: Workspace::main(),
            id: format!("0193a2b4-0000-7000-8000-0000000000b{n}"),
            assignment: ASSIGNMENT.to_owned(),
            push_type: PushType::SshTargets,
            payload: "{}".to_owned(),
            state,
            error: None,
            created_by: "token:admin".to_owned(),
            created_at: 1,
            sent_at: None,
            acked_at: None,
            removed_at: None,
            revision: 0,
        }
    }

    fn assignment(id: &str) -> AssignmentRecord {
        serde_json::from_value(serde_json::json!({
            "ws": "main", "id": id, "machine_id": "web-1", "name": "n", "enabled": true, "api_key_hash": "h",
            "created_at": 1,
        }))
        .unwrap()
    }

    /// A bridge that has read these pushes.
    async fn bridge(pushes: &[ConfigPushRecord]) -> Still {
        let still = Still::start().await.unwrap();
        let mut txn = Txn::new(&still.context.shared.store);
        for push in pushes {
            txn.put_json(key::record(table::CONFIG_PUSHES, &push.id), push);
            still.context.shared.memory_mut().assignments.put_push(push.clone());
        }
        txn.commit().unwrap();
        still
    }

    async fn stored(still: &Still, push: &ConfigPushRecord) -> ConfigPushRecord {
        let any = |_: &_, _| true;
        let broker = &still.context.broker;
        let read = broker.edit_record::<ConfigPushRecord>(table::CONFIG_PUSHES, &push.id, any, |_| None);
        read.await.unwrap().0.unwrap()
    }

    #[tokio::test]
    async fn what_is_offered_is_marked_once() {
        let pushes = [push(1, PushState::Pending), push(2, PushState::Sent), push(3, PushState::Failed)];
        let still = bridge(&pushes).await;
        still.context.broker.ensure_streams().await.unwrap();
        for push in &pushes {
            still.context.broker.put_record(table::CONFIG_PUSHES, &push.id, push).await.unwrap();
        }
        let api = still.api();
        let offered = offered(&api, ASSIGNMENT).await;
        let seen: Vec<_> = offered.iter().map(|push| (push.id.as_str(), push.state)).collect();
        assert_eq!(seen, [(&*pushes[0].id, PushState::Sent), (&*pushes[1].id, PushState::Sent)]);
        let marked = stored(&still, &pushes[0]).await;
        assert!(marked.state == PushState::Sent && marked.sent_at.is_some(), "{marked:?}");
        let before = stored(&still, &pushes[1]).await;
        assert_eq!((before.state, before.sent_at), (PushState::Sent, None), "it is left as it was");
        assert_eq!(api.counters().get("pushes.unmarked"), None);
    }

    #[tokio::test]
    async fn what_cannot_be_marked_is_offered_all_the_same() {
        // There are no streams to write to.
        let still = bridge(&[push(1, PushState::Pending), push(2, PushState::Pending)]).await;
        let api = still.api();
        let offered = offered(&api, ASSIGNMENT).await;
        assert_eq!(offered.iter().filter(|push| push.state == PushState::Pending).count(), 2);
        assert_eq!(api.counters().get("pushes.unmarked"), Some(&2));
    }

    #[tokio::test]
    async fn only_its_own_relay_answers_a_push() {
        let pushes = [push(1, PushState::Acked)];
        let still = bridge(&pushes).await;
        still.context.broker.ensure_streams().await.unwrap();
        still.context.broker.put_record(table::CONFIG_PUSHES, &pushes[0].id, &pushes[0]).await.unwrap();
        let api = still.api();
        let (own, other) = (assignment(ASSIGNMENT), assignment("0193a2b4-0000-7000-8000-00000000000c"));
        let id = pushes[0].id.as_str();
        assert_eq!(answered(&api, &other, id, false, None).await, Ok(false));
        assert_eq!(stored(&still, &pushes[0]).await.state, PushState::Acked);
        assert_eq!(answered(&api, &own, "*", true, None).await, Ok(false));
        let error = Some("no room".to_owned());
        assert_eq!(answered(&api, &own, id, false, error.clone()).await, Ok(true));
        let failed = stored(&still, &pushes[0]).await;
        assert_eq!((failed.state, failed.error, failed.acked_at > Some(1)), (PushState::Failed, error, true));
        assert_eq!(answered(&api, &own, id, true, None).await, Ok(true));
        let acked = stored(&still, &pushes[0]).await;
        assert_eq!((acked.state, acked.error), (PushState::Acked, None));
    }

    #[test]
    fn answered_pushes_are_shown_for_a_while() {
        let acked = ConfigPushRecord { acked_at: Some(1_000), ..push(1, PushState::Acked) };
        assert!(is_shown(&acked, 1_000 + SHOWN_MS) && !is_shown(&acked, 1_001 + SHOWN_MS));
        assert!(is_shown(&push(1, PushState::Pending), u64::MAX));
    }
}
