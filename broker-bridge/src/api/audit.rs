//! `audit.list`.

use std::time::Duration;

use signalbox_link::{FollowError, Message};
use signalbox_schemas::{
    api::{AuditView, Listed, Page},
    audit::AuditEntry,
    authors::{Authors, Role},
    error::{ErrorCode, Problem, report},
    id::Workspace,
    signed::{PublicKey, Signed},
    stream::AUDIT,
};
use tokio::{task::spawn_blocking, time::timeout};
use tracing::warn;

use super::{Api, Caller, page};

/// Messages that are looked at in one go.
const STEP: u64 = 256;
const BATCH: usize = 256;
/// How long they may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// A page of the audit chain, newest first; `after` is the sequence of the last entry of the page before. It is read from
/// the broker: no bridge keeps a copy that could say something else.
///
/// # Errors
/// `forbidden`, `not_caught_up`, or `invalid` for a limit out of range or a place that is none.
pub async fn list(api: &Api, caller: &Caller, args: &Page) -> Result<Listed<AuditView>, Problem> {
    caller.require(Role::Admin, "read the audit chain")?;
    api.ready()?;
    let limit = page::limit(args.limit)?;
    let place = |text: &str| text.parse::<u64>().ok().filter(|at| *at > 0);
    page::check_after(args.after.as_deref(), |after| place(after).is_some())?;
    let state = api.link().stream_state(AUDIT).await.map_err(|error| unreadable(&error))?;
    let before = args.after.as_deref().and_then(place).unwrap_or(u64::MAX).min(state.last + 1);
    let mut items = Vec::new();
    let mut end = before;
    // Downwards in steps, as there may be messages of other workspaces between.
    while items.len() <= limit && end > state.first {
        let begin = end.saturating_sub(STEP).max(state.first);
        let mut step = read(api, begin, end).await?;
        step.reverse();
        items.extend(step);
        end = begin;
    }
    Ok(page::cut(items.into_iter(), limit, |view| view.sequence.to_string()))
}

/// The workspace's messages from `begin` on, below `end`. Nothing is taken out of that stream, so each message comes.
async fn read(api: &Api, begin: u64, end: u64) -> Result<Vec<AuditView>, Problem> {
    let mut follow = api.link().follow(AUDIT, begin, None);
    let mut messages = Vec::new();
    let reading = async {
        while follow.next_sequence() < end {
            messages.extend(follow.next_batch(BATCH).await?);
        }
        Ok::<_, FollowError>(())
    };
    let read = timeout(PATIENCE, reading).await.map_err(|late| unreadable(&late))?;
    read.map_err(|error| unreadable(&error))?;
    messages.retain(|message| message.sequence < end && is_of(&message.subject, api.ws()));
    let (authors, ws) = (api.view().authors(), api.ws().clone());
    let views = spawn_blocking(move || {
        messages.iter().map(|message| view(message, authors.as_deref(), &ws)).collect()
    });
    views.await.map_err(|error| unreadable(&error))
}

fn is_of(subject: &str, ws: &Workspace) -> bool {
    subject.split('.').nth(1) == Some(ws.as_str())
}

fn view(message: &Message, authors: Option<&Authors>, ws: &Workspace) -> AuditView {
    let envelope = Signed::<AuditEntry>::from_json(&message.payload).ok();
    let is_bridge = |key: &PublicKey| authors.is_some_and(|doc| doc.was_bridge(key, message.time_ms));
    let entry = envelope.as_ref().and_then(|signed| signed.open(is_bridge).ok());
    let entry = entry.filter(|entry| entry.ws == *ws);
    AuditView { sequence: message.sequence, stored_at: message.time_ms, entry, envelope }
}

fn unreadable(error: &dyn std::error::Error) -> Problem {
    warn!(error = report(error), "the audit chain cannot be read");
    let message = "cannot read the audit chain: the broker does not answer; try again in a moment";
    Problem::new(ErrorCode::NotCaughtUp, message)
}
