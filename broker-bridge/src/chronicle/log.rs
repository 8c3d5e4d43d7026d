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

/// Most events that are read behind the newest frames: more than bridges tell in the minutes that a frame may be late. Where
/// more lie there, the newest of them say how machines are.
const MOST_BEHIND: u64 = 5_000;

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
    let message = message(context, event)?;
    let body = message.payload.clone();
    let message = message.only_after_all(&all, told.events);
    match context.shared.link.store(message).await {
        Ok(stored) => {
            told.events = stored.sequence;
            told.apply(event);
            Ok(true)
        }
        // It may stand there all the same: an answer was lost.
        Err(StoreError::Taken { .. } | StoreError::Unanswered { .. }) => {
            catch_up(context, told, Some(&body)).await
        }
        Err(source) => Err(BrokerError::Store { what: "an event".to_owned(), source }),
    }
}

/// Reads what was told behind what is known, from the leader. Answers whether the message `wanted` is among it.
///
/// # Errors
/// [`BrokerError`].
pub(super) async fn catch_up(
    context: &Context,
    told: &mut Told,
    wanted: Option<&[u8]>,
) -> Result<bool, BrokerError> {
    let all = all_events(context.broker.ws());
    let last = context.broker.last(EVT, &all).await?.map_or(0, |message| message.sequence);
    told.events = begin(told.events, last);
    let mut is_there = false;
    for _ in 0..MOST_BEHIND {
        if told.events >= last {
            break;
        }
        let next = context.shared.link.next_from_leader(EVT, told.events + 1, &all).await;
        let next = next.map_err(|source| BrokerError::Read { what: "events".to_owned(), source })?;
        let Some(message) = next else { break };
        told.events = message.sequence;
        is_there |= wanted.is_some_and(|wanted| *wanted == *message.payload);
        if let Some(event) = read(context, &message) {
            told.apply(&event);
        }
    }
    Ok(is_there)
}

/// Behind which event is read when `known` is the last one that is known, and `last` stands at the end.
fn begin(known: u64, last: u64) -> u64 {
    // Where the stream was made anew, or has lost its end, nothing lies behind.
    known.max(last.saturating_sub(MOST_BEHIND)).min(last)
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

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::nothing_behind(7, 7, 7)]
    #[case::some_behind(3, 7, 3)]
    #[case::lost_its_end(9, 7, 7)]
    #[case::too_much_behind(3, 10_003, 5_003)]
    fn the_newest_events_are_read(#[case] known: u64, #[case] last: u64, #[case] expected: u64) {
        assert_eq!(begin(known, last), expected);
    }
}
