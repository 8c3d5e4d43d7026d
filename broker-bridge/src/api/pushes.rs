//! `config_pushes.*`: configuration for relays of the old contract.

use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use signalbox_schemas::{
    config::{ConfigPushRecord, PushState},
    error::{Problem, report},
    limit::FACT_TEXT_BYTES,
    record::{AssignmentRecord, table},
    stream::STATE,
};
use tokio::time::timeout;
use tracing::debug;

use super::{Api, now_ms, records::is_id, store_problem};

/// Pushes that are marked at once.
const MARKED_AT_ONCE: usize = 16;
/// How long an answer with pushes waits for them to be marked.
const MARKING: Duration = Duration::from_secs(1);

/// Pushes to an assignment's relay without an answer, oldest first, marked as sent. They are offered again until they are
/// answered, so a mark that cannot be set is only counted.
pub(crate) async fn offered(api: &Api, assignment_id: &str) -> Vec<ConfigPushRecord> {
    let mut pushes = api.view().open_pushes(assignment_id);
    let now = now_ms();
    let pending = pushes.iter_mut().filter(|push| push.state == PushState::Pending);
    let marking = stream::iter(pending).for_each_concurrent(MARKED_AT_ONCE, |push| async move {
        match mark_sent(api, &push.id, now).await {
            Ok(Some(marked)) => *push = marked,
            Ok(None) => {}
            Err(problem) => unmarked(api, &problem),
        }
    });
    if let Err(late) = timeout(MARKING, marking).await {
        unmarked(api, &late);
    }
    pushes
}

fn unmarked(api: &Api, error: &dyn std::error::Error) {
    api.count("pushes", "unmarked");
    debug!(error = report(error), "a push was not marked as sent");
}

/// Marks a push as sent if it is pending; answers it as it stands.
async fn mark_sent(api: &Api, id: &str, now: u64) -> Result<Option<ConfigPushRecord>, Problem> {
    let edit = |stands: Option<ConfigPushRecord>| {
        let pending = stands.filter(|push| push.state == PushState::Pending && push.removed_at.is_none())?;
        let sent_at = pending.sent_at.or(Some(now));
        Some(ConfigPushRecord { state: PushState::Sent, sent_at, ..pending })
    };
    let (stands, _) = api.edit("mark the push as sent", table::CONFIG_PUSHES, id, edit).await?;
    Ok(stands)
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
    let edited = acknowledge(api, id, success, error).await?;
    Ok(edited.is_some())
}

/// Writes down an answer; `None` when the push was removed.
async fn acknowledge(
    api: &Api,
    id: &str,
    success: bool,
    error: Option<String>,
) -> Result<Option<ConfigPushRecord>, Problem> {
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
    let (stands, _) = api.edit("take the answer to the push", table::CONFIG_PUSHES, id, edit).await?;
    Ok(stands.filter(|push| push.removed_at.is_none()))
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
