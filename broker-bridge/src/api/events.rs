//! `events.list`: read from EVT, of which no bridge keeps a copy.

use std::time::Duration;

use signalbox_link::{Message, ReadError};
use signalbox_schemas::{
    api::{EventView, ListEvents, Listed},
    authors::{Authors, Role},
    error::{ErrorCode, Problem, report},
    event::{Event, TYPE_BYTES, token},
    id::{MachineToken, Workspace},
    signed::{PublicKey, Signed},
    stream::EVT,
    subject::{Subject, all_events},
};
use tokio::{task::spawn_blocking, time::timeout};
use tracing::warn;

use super::{Api, Caller, page};

/// Sequences that are looked at in one go, and so most messages.
const STEP: u64 = 256;
/// Steps of one page: where few events are meant, it ends there and says where to go on.
const STEPS: usize = 32;
/// How long they may take.
const PATIENCE: Duration = Duration::from_secs(4);

/// Which events are meant.
struct Meant {
    machine: Option<MachineToken>,
    kind: Option<String>,
    since: u64,
}

impl Meant {
    fn takes(&self, view: &EventView) -> bool {
        let event = &view.event;
        view.stored_at >= self.since
            && self.machine.as_ref().is_none_or(|mid| event.machine.as_ref() == Some(mid))
            && self.kind.as_ref().is_none_or(|kind| event.kind == *kind)
    }
}

/// A page of events, newest first; `after` is a sequence, below which it goes on.
///
/// # Errors
/// `forbidden`, `not_caught_up` also when the broker does not answer, `not_found` for an unknown machine, or `invalid` for a
/// limit out of range, a type that is too long or a place that is none.
pub async fn list(api: &Api, caller: &Caller, args: &ListEvents) -> Result<Listed<EventView>, Problem> {
    caller.require(Role::Viewer, "list events")?;
    api.ready()?;
    let limit = page::limit(args.limit)?;
    let place = |text: &str| text.parse::<u64>().ok().filter(|at| *at > 0);
    page::check_after(args.after.as_deref(), |after| place(after).is_some())?;
    if args.kind.as_ref().is_some_and(|kind| kind.len() > TYPE_BYTES) {
        let message = format!("cannot list events: a type has at most {TYPE_BYTES} bytes");
        return Err(Problem::new(ErrorCode::Invalid, message));
    }
    let meant = Meant {
        machine: args.machine.as_deref().map(|machine| known(api, machine)).transpose()?,
        kind: args.kind.clone(),
        since: args.since.unwrap_or_default(),
    };
    let before = args.after.as_deref().and_then(place);
    let reading = read(api, &meant, args.behind.unwrap_or_default(), before, limit);
    timeout(PATIENCE, reading).await.map_err(|late| unreadable(&late))?
}

fn known(api: &Api, machine: &str) -> Result<MachineToken, Problem> {
    let record = api.view().machine(machine).ok_or_else(|| {
        let message = "there is no such machine; `machines.list` names those that are known";
        Problem::new(ErrorCode::NotFound, message)
    })?;
    Ok(record.token)
}

async fn read(
    api: &Api,
    meant: &Meant,
    behind: u64,
    before: Option<u64>,
    limit: usize,
) -> Result<Listed<EventView>, Problem> {
    let state = api.link().stream_state(EVT).await.map_err(|error| unreadable(&error))?;
    let first = state.first.max(behind.saturating_add(1));
    let mut end = before.unwrap_or(u64::MAX).min(state.last.saturating_add(1));
    let mut items: Vec<EventView> = Vec::new();
    // Downwards in steps.
    for _ in 0..STEPS {
        if items.len() > limit || end <= first {
            break;
        }
        let begin = end.saturating_sub(STEP).max(first);
        let (mut step, oldest) = step(api, meant, begin, end).await?;
        step.reverse();
        items.extend(step);
        // Older ones are not meant.
        end = if oldest.is_some_and(|at| at < meant.since) { first } else { begin };
    }
    let mut listed = page::cut(items.into_iter(), limit, |view| view.sequence.to_string());
    if listed.next.is_none() && end > first {
        listed.next = Some(end.to_string());
    }
    Ok(listed)
}

/// Those that are meant from `begin` on, below `end`; and when the oldest message there was stored, Unix ms.
async fn step(
    api: &Api,
    meant: &Meant,
    begin: u64,
    end: u64,
) -> Result<(Vec<EventView>, Option<u64>), Problem> {
    let subject = meant.kind.as_ref().map_or_else(
        || all_events(api.ws()),
        |kind| Subject::Event(api.ws().clone(), token(kind)).to_string(),
    );
    let mut messages: Vec<Message> = Vec::new();
    let mut next = begin;
    // What was deleted leaves holes, and a read ends after 4 MiB.
    while next < end {
        let count = usize::try_from(end - next).unwrap_or(usize::MAX);
        let read = api.link().next_by_subject(EVT, next, &subject, count).await;
        let read = read.map_err(|error: ReadError| unreadable(&error))?;
        let Some(last) = read.last().map(|message| message.sequence) else { break };
        messages.extend(read.into_iter().filter(|message| message.sequence < end));
        next = last.saturating_add(1);
    }
    let oldest = messages.first().map(|message| message.time_ms);
    let (authors, ws) = (api.view().authors(), api.ws().clone());
    let views = spawn_blocking(move || {
        let view = |message: &Message| view(message, authors.as_deref(), &ws);
        messages.iter().filter_map(view).collect::<Vec<_>>()
    });
    let views = views.await.map_err(|error| unreadable(&error))?;
    Ok((views.into_iter().filter(|view| meant.takes(view)).collect(), oldest))
}

/// What a bridge of this fleet has signed; anything else is passed over.
fn view(message: &Message, authors: Option<&Authors>, ws: &Workspace) -> Option<EventView> {
    let is_bridge = |key: &PublicKey| authors.is_some_and(|doc| doc.was_bridge(key, message.time_ms));
    let event = Signed::<Event>::from_json(&message.payload).ok()?.open(is_bridge).ok()?;
    let is_there = event.ws == *ws && event.subject().to_string() == message.subject;
    is_there.then_some(EventView { sequence: message.sequence, stored_at: message.time_ms, event })
}

fn unreadable(error: &dyn std::error::Error) -> Problem {
    warn!(error = report(error), "events cannot be read");
    let message = "cannot read the events: the broker does not answer in time; try again in a moment";
    Problem::new(ErrorCode::NotCaughtUp, message)
}
