//! Who is asking: the assignment that an API key stands for, and nobody else.

use std::time::Duration;

use axum::http::HeaderMap;
use signalbox_schemas::{record::AssignmentRecord, stream::STATE};
use tokio::{
    sync::Mutex,
    time::{Instant, sleep_until, timeout},
};

use super::{super::Shared, answer::Refused};
use crate::api::{Api, heard};

/// Name of the header with the key.
const API_KEY: &str = "x-api-key";
/// A bridge that has just started reads for a moment: old relays end when their first request fails.
const READY_WITHIN: Duration = Duration::from_secs(10);
/// Unknown keys make a bridge ask how far it has read at most this often.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// When it was last begun to make sure that every key is known.
#[derive(Debug, Default)]
pub(super) struct Keys(Mutex<Option<Instant>>);

impl Keys {
    /// Makes sure that every key is known which was made before this call. One question answers all who came before it, so
    /// that a flood of keys that nobody made is not a flood of questions.
    async fn make_sure(&self, api: &Api) -> Result<(), Refused> {
        let came = Instant::now();
        let mut last = self.0.lock().await;
        if last.is_none_or(|began| began < came) {
            if let Some(began) = *last {
                sleep_until(began + ASK_EVERY).await;
            }
            let began = Instant::now();
            api.read_through(STATE).await?;
            *last = Some(began);
        }
        Ok(())
    }
}

/// What a key stands for.
#[derive(Debug)]
pub(super) enum Known {
    /// An assignment, enabled or not.
    Assigned(Box<AssignmentRecord>),
    /// One that was removed.
    Unassigned,
}

impl Known {
    /// The assignment, if it counts.
    pub(super) fn enabled(self) -> Result<Box<AssignmentRecord>, Refused> {
        match self {
            Self::Assigned(assignment) if assignment.enabled => Ok(assignment),
            Self::Assigned(_) => Err(Refused::Disabled),
            Self::Unassigned => Err(Refused::Unassigned),
        }
    }
}

/// The key of a request; the empty one is none.
fn given(headers: &HeaderMap) -> Result<Option<&str>, Refused> {
    let mut values = headers.get_all(API_KEY).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => {
            let text = value.to_str().map_err(|_| Refused::UnknownKey)?.trim();
            Ok(Some(text).filter(|text| !text.is_empty()))
        }
        (Some(_), Some(_)) => Err(Refused::UnknownKey),
    }
}

/// Who sent a request. To be seen asking is a sign of life.
pub(super) async fn identify(shared: &Shared, headers: &HeaderMap) -> Result<Known, Refused> {
    let key = given(headers)?.ok_or(Refused::NoKey)?;
    let known = lookup(shared, key).await?;
    if let Known::Assigned(assignment) = &known
        && assignment.enabled
    {
        heard::touch(&shared.front.api, assignment).await;
    }
    Ok(known)
}

/// What a key stands for.
pub(super) async fn lookup(shared: &Shared, key: &str) -> Result<Known, Refused> {
    let api = &shared.front.api;
    ready(api).await?;
    let hash = api.hash_key(key)?;
    let mut found = api.view().assignment_by_key(&hash);
    if found.is_none() {
        // Made a moment ago, through another bridge.
        shared.legacy.keys.make_sure(api).await?;
        found = api.view().assignment_by_key(&hash);
    }
    match found {
        None => Err(Refused::UnknownKey),
        Some(record) if record.removed_at.is_some() => Ok(Known::Unassigned),
        Some(record) => Ok(Known::Assigned(Box::new(record))),
    }
}

/// Waits a while for a bridge that is still reading: it does not know all keys yet.
async fn ready(api: &Api) -> Result<(), Refused> {
    if api.ready().is_err() {
        // Not in time: the refusal below says so.
        let _ = timeout(READY_WITHIN, api.view().caught_up()).await;
    }
    Ok(api.ready()?)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn one_key_and_not_the_empty_one() {
        let headers = |values: &[&'static [u8]]| {
            let values = values.iter().map(|value| HeaderValue::from_bytes(value).unwrap());
            values.map(|value| (axum::http::HeaderName::from_static(API_KEY), value)).fold(
                HeaderMap::new(),
                |mut headers, (name, value)| {
                    headers.append(name, value);
                    headers
                },
            )
        };
        assert!(matches!(given(&headers(&[])), Ok(None)));
        assert!(matches!(given(&headers(&[b""])), Ok(None)));
        assert!(matches!(given(&headers(&[b" "])), Ok(None)));
        assert!(matches!(given(&headers(&[b"sk_x"])), Ok(Some("sk_x"))));
        assert!(matches!(given(&headers(&[b"sk_x", b"sk_y"])), Err(Refused::UnknownKey)));
        assert!(matches!(given(&headers(&[b"\xff"])), Err(Refused::UnknownKey)));
    }
}
