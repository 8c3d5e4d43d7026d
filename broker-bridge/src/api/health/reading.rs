//! What broker and streams say when they are asked, at most every few seconds for all who want to know.
//!
//! Each question has its own end: one stream without a leader says nothing, and must not hide how the others are.

use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use signalbox_link::{AccountReport, StreamReport};
use signalbox_schemas::{
    error::report,
    id::BridgeId,
    record::Lease,
    stream::{LEASE, all},
    subject::Subject,
};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};
use tracing::debug;

use super::super::{Api, now_ms};

/// How old an attempt may be whose outcome is answered.
const FRESH: Duration = Duration::from_secs(5);
/// How long each of them may take to say how it is.
const PATIENCE: Duration = Duration::from_secs(1);
/// Streams that are asked at once: all there are.
const AT_ONCE: usize = 16;

/// The last reading, and when there was last tried to make one: also one that failed, so that those who wait for it do not
/// try again one after the other.
#[derive(Debug, Default)]
pub(crate) struct Cache(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    tried: Option<Instant>,
    reading: Option<Reading>,
}

/// Who dispatches, as far as the broker says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Holder {
    /// The broker did not say, or what it said is no lease.
    #[default]
    Unknown,
    Nobody,
    Bridge(BridgeId),
}

/// What broker and streams said.
#[derive(Debug, Clone, Default)]
pub(super) struct Reading {
    pub(super) at: u64,
    pub(super) account: AccountReport,
    pub(super) streams: Vec<(&'static str, StreamReport)>,
    /// Streams that did not answer.
    pub(super) silent: Vec<&'static str>,
    pub(super) holder: Holder,
    pub(super) clock_ahead_ms: Option<i64>,
}

/// A reading that is fresh, or the last one there was.
pub(super) async fn reading(api: &Api) -> Option<Reading> {
    let is_connected = api.link().state().borrow().is_connected;
    api.health.reading(is_connected, || read(api)).await
}

impl Cache {
    /// Whoever comes while one is made is answered by the same one. Without a connection nobody is asked.
    async fn reading<F: Future<Output = Option<Reading>>>(
        &self,
        is_connected: bool,
        read: impl FnOnce() -> F,
    ) -> Option<Reading> {
        let mut kept = self.0.lock().await;
        if is_connected && kept.tried.is_none_or(|at| at.elapsed() >= FRESH) {
            kept.tried = Some(Instant::now());
            if let Some(reading) = read().await {
                kept.reading = Some(reading);
            }
        }
        kept.reading.clone()
    }
}

/// Asks all of them at once; `None` when nobody answered, or the connection was lost meanwhile: then their silence says
/// nothing about them.
async fn read(api: &Api) -> Option<Reading> {
    let connects = api.link().state().borrow().connects;
    let asked = async {
        let streams: Vec<_> = all().into_iter().map(|def| of_stream(api, def.name)).collect();
        stream::iter(streams).buffered(AT_ONCE).collect::<Vec<_>>().await
    };
    let (account, asked, (holder, clock_ahead_ms)) =
        tokio::join!(answer("the account", api.link().account_report()), asked, holder(api));
    let mut reading = Reading { at: now_ms(), holder, clock_ahead_ms, ..Reading::default() };
    for (name, report) in asked {
        match report {
            Some(report) => reading.streams.push((name, report)),
            None => reading.silent.push(name),
        }
    }
    let state = *api.link().state().borrow();
    let is_same = state.is_connected && state.connects == connects;
    if !is_same || (account.is_none() && reading.streams.is_empty()) {
        debug!("broker and streams do not say how they are");
        return None;
    }
    reading.account = account.unwrap_or_default();
    Some(reading)
}

async fn of_stream(api: &Api, name: &'static str) -> (&'static str, Option<StreamReport>) {
    (name, answer(name, api.link().stream_report(name)).await)
}

/// What one of them says, if it does in time.
async fn answer<T, E: std::error::Error>(
    what: &'static str,
    asked: impl Future<Output = Result<T, E>>,
) -> Option<T> {
    match timeout(PATIENCE, asked).await {
        Ok(Ok(said)) => return Some(said),
        Ok(Err(error)) => debug!(what, error = report(&error), "it cannot be asked how it is"),
        Err(_) => debug!(what, "it does not say in time how it is"),
    }
    None
}

/// Who dispatches, and by how much his clock is ahead of the broker's, ms.
async fn holder(api: &Api) -> (Holder, Option<i64>) {
    let subject = Subject::Lease(api.ws().clone()).to_string();
    let message = match answer(LEASE, api.link().last_from_leader(LEASE, &subject)).await {
        Some(Some(message)) => message,
        Some(None) => return (Holder::Nobody, None),
        None => return (Holder::Unknown, None),
    };
    let Ok(lease) = serde_json::from_slice::<Lease>(&message.payload) else { return (Holder::Unknown, None) };
    // It was sent before it was stored: what is between counts as behind.
    let ahead = i128::from(lease.renewed_at) - i128::from(message.time_ms);
    (Holder::Bridge(lease.bridge), i64::try_from(ahead).ok())
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_a_reading_that_fails_does_not_try_again() {
        let (cache, tried) = (Cache::default(), Cell::new(0));
        let ask = |is_connected, said: Option<Reading>| {
            let (cache, tried) = (&cache, &tried);
            async move {
                let read = || async move {
                    tried.set(tried.get() + 1);
                    tokio::task::yield_now().await;
                    said
                };
                cache.reading(is_connected, read).await.map(|reading| reading.at)
            }
        };
        let known = || Some(Reading { at: 1, ..Reading::default() });
        assert_eq!(ask(false, known()).await, None);
        assert_eq!(tried.get(), 0, "without a connection nobody is asked");
        let all = futures_util::future::join_all((0..10).map(|_| ask(true, None))).await;
        assert_eq!((all, tried.get()), (vec![None; 10], 1));
        tokio::time::advance(FRESH).await;
        assert_eq!((ask(true, known()).await, tried.get()), (Some(1), 2));
        tokio::time::advance(FRESH).await;
        assert_eq!((ask(true, None).await, tried.get()), (Some(1), 3), "it forgot what it knew");
        assert_eq!((ask(true, known()).await, tried.get()), (Some(1), 3));
    }
}
