//! The events as they are stored: each only behind the last one that is known, so that none is told twice.

use signalbox_link::{Message, Store, StoreError};
use signalbox_schemas::{
    event::{Event, TEXT_BYTES, kind, token},
    signed::{PublicKey, Signed},
    stream::EVT,
    subject::{Subject, all_events},
};

use super::told::{News, Told};
use crate::{broker_link::BrokerError, core::Context};

/// Most events that are read behind the newest frames: more than bridges tell in the minutes that a frame may be late.
const MOST_BEHIND: usize = 50_000;

/// Signs an event.
pub(super) fn event(context: &Context, news: News, now: u64) -> Event {
    let (machine, machine_id) = news.machine.unzip();
    let mut text = news.text;
    text.truncate(text.floor_char_boundary(TEXT_BYTES));
    Event {
        ws: context.broker.ws().clone(),
        kind: news.kind.to_owned(),
        at: now,
        bridge: context.broker.bridge().clone(),
        machine,
        machine_id,
        command: news.command,
        text,
        details: news.details,
        told_runs: news.told_runs,
    }
}

/// An event, signed.
///
/// # Errors
/// [`BrokerError::Sign`].
pub(super) fn message(context: &Context, event: &Event) -> Result<Store, BrokerError> {
    let body = context.broker.signed(event)?;
    let headers = context.broker.headers::<Event>(&event.kind);
    Ok(Store::new(event.subject().to_string(), body).with_headers(headers))
}

/// Stores one event behind all that is known. False: others have told something meanwhile, which is known now; what there
/// is to tell has to be looked at anew.
///
/// # Errors
/// [`BrokerError`].
pub(super) async fn append(context: &Context, told: &mut Told, event: &Event) -> Result<bool, BrokerError> {
    let all = all_events(context.broker.ws());
    let message = message(context, event)?.only_after_all(&all, told.events);
    match context.shared.link.store(message).await {
        Ok(stored) => {
            told.events = stored.sequence;
            told.apply(event);
            Ok(true)
        }
        // It may stand there all the same: an answer was lost.
        Err(StoreError::Taken { .. } | StoreError::Unanswered { .. }) => {
            catch_up(context, told).await?;
            Ok(false)
        }
        Err(source) => Err(BrokerError::Store { what: "an event".to_owned(), source }),
    }
}

/// Reads what was told behind what is known, from the leader.
///
/// # Errors
/// [`BrokerError`].
pub(super) async fn catch_up(context: &Context, told: &mut Told) -> Result<(), BrokerError> {
    let all = all_events(context.broker.ws());
    let last = context.broker.last(EVT, &all).await?.map_or(0, |message| message.sequence);
    if last < told.events {
        // The stream was made anew, or has lost its end.
        told.events = last;
    }
    for _ in 0..MOST_BEHIND {
        if told.events >= last {
            return Ok(());
        }
        let next = context.shared.link.next_from_leader(EVT, told.events + 1, &all).await;
        let next = next.map_err(|source| BrokerError::Read { what: "events".to_owned(), source })?;
        let Some(message) = next else { return Ok(()) };
        told.events = message.sequence;
        if let Some(event) = read(context, &message) {
            told.apply(&event);
        }
    }
    // Older than what anybody remembers: from here on.
    told.events = last;
    Ok(())
}

/// Whether RUN was told to be nearly full, by the last word about it.
///
/// # Errors
/// [`BrokerError`].
pub(super) async fn was_full(context: &Context) -> Result<bool, BrokerError> {
    let mut last = [0; 2];
    for (last, kind) in last.iter_mut().zip([kind::STREAM_NEARLY_FULL, kind::STREAM_RELIEVED]) {
        let subject = Subject::Event(context.broker.ws().clone(), token(kind)).to_string();
        *last = context.broker.last(EVT, &subject).await?.map_or(0, |message| message.sequence);
    }
    let [full, relieved] = last;
    Ok(full > relieved)
}

/// An event of a bridge of this fleet.
fn read(context: &Context, message: &Message) -> Option<Event> {
    let signed = Signed::<Event>::from_json(&message.payload).ok()?;
    let authors = context.shared.memory().authors.as_ref().map(|known| known.doc.clone());
    let is_bridge =
        |key: &PublicKey| authors.as_ref().is_some_and(|doc| doc.was_bridge(key, message.time_ms));
    signed.open(is_bridge).ok().filter(|event| event.ws == *context.broker.ws())
}
