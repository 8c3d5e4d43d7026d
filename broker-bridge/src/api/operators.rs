//! `operators.list`.

use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use signalbox_link::ReadError;
use signalbox_schemas::{
    api::{Listed, OperatorView, Page},
    authors::Role,
    error::{ErrorCode, Problem, report},
    id::OperatorId,
    record::OperatorRecord,
    stream::AUDIT,
};
use tokio::time::timeout;
use tracing::warn;

use super::{Api, Caller, now_ms, page};

/// Operators whose last entry is looked for at once.
const IN_FLIGHT: usize = 16;
/// How long that may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// A page of operators, sorted by id; `after` is the last id of the page before.
///
/// # Errors
/// `forbidden`, `not_caught_up` also when the broker does not answer, or `invalid` for a limit out of range or a place that
/// is none.
pub async fn list(api: &Api, caller: &Caller, args: &Page) -> Result<Listed<OperatorView>, Problem> {
    caller.require(Role::Viewer, "list operators")?;
    api.ready()?;
    let limit = page::limit(args.limit)?;
    page::check_after(args.after.as_deref(), |after| OperatorId::new(after).is_ok())?;
    let records: Vec<OperatorRecord> = {
        let memory = api.view().shared().memory();
        let behind = |id: &OperatorId| args.after.as_deref().is_none_or(|after| id.as_str() > after);
        let records = memory.operators.values().filter(|record| behind(&record.id));
        // One more tells whether anything follows.
        records.take(limit + 1).cloned().collect()
    };
    let seen: Vec<_> = records.iter().map(|record| last_seen(api, &record.id)).collect();
    let seen: Result<Vec<Option<u64>>, ReadError> =
        timeout(PATIENCE, stream::iter(seen).buffered(IN_FLIGHT).try_collect())
            .await
            .map_err(|late| unreadable(&late))?;
    let seen = seen.map_err(|error| unreadable(&error))?;
    let views = records.into_iter().zip(seen).map(|(record, seen)| view(api, record, seen));
    Ok(page::cut(views, limit, |view| view.id.to_string()))
}

/// When the audit chain last named an operator: each entry has its actor in its subject.
async fn last_seen(api: &Api, id: &OperatorId) -> Result<Option<u64>, ReadError> {
    let subject = format!("audit.{}.*.operator-{id}.*", api.ws());
    Ok(api.link().last(AUDIT, &subject).await?.map(|message| message.time_ms))
}

fn view(api: &Api, record: OperatorRecord, last_seen_at: Option<u64>) -> OperatorView {
    let authors = api.view().authors().filter(|authors| authors.is_valid_at(now_ms()));
    let author = authors.as_ref().and_then(|authors| authors.author(&record.signing_key));
    OperatorView {
        role: author.map(|author| author.role),
        rights: author.map(|author| author.rights.clone()).unwrap_or_default(),
        valid_until: authors.as_ref().filter(|_| author.is_some()).map(|authors| authors.not_after),
        id: record.id,
        created_at: record.created_at,
        login_key: record.login_key,
        signing_key: record.signing_key,
        last_seen_at,
    }
}

fn unreadable(error: &dyn std::error::Error) -> Problem {
    warn!(error = report(error), "when operators were seen cannot be read");
    let message = "cannot list operators: the broker does not answer in time; try again in a moment";
    Problem::new(ErrorCode::NotCaughtUp, message)
}
