//! Bodies: read in pieces, bounded in size and in time, and parsed as the original's server would.
//!
//! | a body of | is kept |
//! |---|---|
//! | up to 64 KiB; of a report, up to 256 KiB | in memory, whoever sends it, for 30 s |
//! | a result of up to 256 KiB, of a client whose key is known | in memory |
//! | a result of up to 16 MiB, of such a client | in a file without a name, [`SPOOLED`] at once, [`SPOOLED_OF_ONE`] of one client |
//! | more | not at all |
//!
//! A body in a file takes memory only while it is parsed and stored, which is some 100 ms with a broker that answers:
//! at most its decoded text and one copy of the longest member, [`DIGESTED`] at once. So clients on slow links cost a
//! buffer each, and 128 MiB are the most that all of them together can take.

mod wanted;

use std::{
    collections::HashMap,
    io::{BufReader, Seek as _, Write as _},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    body::{Body, BodyDataStream},
    http::{HeaderMap, header},
};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use serde_json::{Map, Value};
use signalbox_schemas::error::{ErrorCode, Problem, report};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tracing::warn;

pub(super) use self::wanted::Wanted;
use super::answer::Refused;

/// Most of a body that is read before it is known who sends it.
pub(super) const SMALL: usize = 64 * 1024;
/// Most of a body that is kept in memory.
pub(super) const IN_MEMORY: usize = 256 * 1024;
/// Largest body.
const LARGEST: usize = 16 * 1024 * 1024;
/// Bodies in files at once: at most 1 GiB of the disk.
const SPOOLED: usize = 64;
/// And of one client.
const SPOOLED_OF_ONE: usize = 2;
/// Bodies that are parsed and stored at once.
const DIGESTED: usize = 4;
/// Longest time without a byte of a body.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longest time for a small body, or the small part of a large one.
const SMALL_WITHIN: Duration = Duration::from_secs(30);
/// Longest time for a large one: 16 MiB at 4 KiB/s.
const LARGE_WITHIN: Duration = Duration::from_mins(70);
/// Longest wait for a place in a file, or for a turn to be parsed.
const TURN: Duration = Duration::from_mins(2);

/// Places for large bodies.
#[derive(Debug)]
pub(super) struct Bodies {
    spool: PathBuf,
    spooled: Arc<Semaphore>,
    digested: Arc<Semaphore>,
    /// Places of each client that ever needed one. Bounded by the number of assignments.
    of_one: Mutex<HashMap<String, Arc<Semaphore>>>,
}

/// A body that has arrived.
pub(super) enum Arrived {
    Small(Bytes),
    Large(Large),
}

/// A body in a file.
pub(super) struct Large {
    file: std::fs::File,
    digested: Arc<Semaphore>,
    _places: [OwnedSemaphorePermit; 2],
}

/// A parsed object, with the turn that it was given if it is large.
pub(super) struct Parsed {
    pub(super) members: Map<String, Value>,
    _turn: Option<OwnedSemaphorePermit>,
}

/// What has come of a body, and what is still to come.
pub(super) struct Reading {
    begun: BytesMut,
    rest: Option<BodyDataStream>,
}

fn too_large(limit: usize) -> Refused {
    Refused::TooLarge(format!("the body is above {limit} bytes; send less"))
}

fn no_place(why: &'static str) -> Refused {
    Problem::new(ErrorCode::RateLimited, format!("{why}; try again in a moment")).into()
}

impl Bodies {
    pub(super) fn new(spool: PathBuf) -> Self {
        let [spooled, digested] = [SPOOLED, DIGESTED].map(|count| Arc::new(Semaphore::new(count)));
        Self { spool, spooled, digested, of_one: Mutex::default() }
    }

    /// Reads the rest of a body that `client` sends: into memory while it is meant for that, else into a file.
    pub(super) async fn read_on(&self, reading: Reading, client: &str) -> Result<Arrived, Refused> {
        let Reading { mut begun, rest: Some(mut rest) } = reading else {
            return Ok(Arrived::Small(reading.begun.freeze()));
        };
        let reading = async {
            if fill(&mut begun, &mut rest, IN_MEMORY).await? {
                return Ok(Arrived::Small(begun.freeze()));
            }
            let places = [self.place_of(client).await?, place(&self.spooled).await?];
            let file = self.to_file(begun, rest).await?;
            Ok(Arrived::Large(Large { file, digested: Arc::clone(&self.digested), _places: places }))
        };
        timeout(LARGE_WITHIN, reading).await.map_err(|_| late(LARGE_WITHIN))?
    }

    async fn place_of(&self, client: &str) -> Result<OwnedSemaphorePermit, Refused> {
        let places = {
            let mut of_one = self.of_one.lock().unwrap_or_else(PoisonError::into_inner);
            let places = of_one.entry(client.to_owned());
            Arc::clone(places.or_insert_with(|| Arc::new(Semaphore::new(SPOOLED_OF_ONE))))
        };
        place(&places).await
    }

    async fn to_file(&self, mut piece: BytesMut, mut rest: BodyDataStream) -> Result<std::fs::File, Refused> {
        let spool = self.spool.clone();
        let mut file = on_disk(move || tempfile::tempfile_in(spool)).await?;
        let mut len = 0;
        while !piece.is_empty() {
            len += piece.len();
            if len > LARGEST {
                return Err(too_large(LARGEST));
            }
            let bytes = piece.split().freeze();
            file = on_disk(move || file.write_all(&bytes).map(|()| file)).await?;
            // A write for each piece of the network would be a thread's turn for each.
            fill(&mut piece, &mut rest, IN_MEMORY).await?;
        }
        on_disk(move || file.rewind().map(|()| file)).await
    }
}

async fn place(places: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Refused> {
    let place = timeout(TURN, Arc::clone(places).acquire_owned()).await;
    let Ok(Ok(place)) = place else { return Err(no_place("too many large bodies are on their way")) };
    Ok(place)
}

/// Reads until there are `most` bytes or more. Answers whether the body has ended.
async fn fill(begun: &mut BytesMut, rest: &mut BodyDataStream, most: usize) -> Result<bool, Refused> {
    while begun.len() < most {
        match next(rest).await? {
            Some(bytes) => begun.extend_from_slice(&bytes),
            None => return Ok(true),
        }
    }
    Ok(false)
}

fn late(within: Duration) -> Refused {
    Refused::Malformed(format!("the body did not arrive within {} s; send it again", within.as_secs()))
}

async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, Refused> {
    let done = tokio::task::spawn_blocking(work).await;
    let failed = |error: &dyn std::error::Error| {
        warn!(error = report(error), "a large body cannot be kept on disk");
        Refused::Problem(Problem::new(ErrorCode::NotAccepted, "the body cannot be kept here; try again"))
    };
    done.map_err(|error| failed(&error))?.map_err(|error| failed(&error))
}

async fn next(rest: &mut BodyDataStream) -> Result<Option<Bytes>, Refused> {
    match timeout(PATIENCE, rest.next()).await {
        Ok(None) => Ok(None),
        Ok(Some(Ok(bytes))) => Ok(Some(bytes)),
        Ok(Some(Err(_))) => Err(Refused::Malformed("the body ended early; send it again".to_owned())),
        Err(_) => {
            let message = format!("nothing of the body came for {} s; send it again", PATIENCE.as_secs());
            Err(Refused::Malformed(message))
        }
    }
}

impl Reading {
    /// Reads the first `most` bytes of a body, and a little more.
    pub(super) async fn begin(headers: &HeaderMap, body: Body, most: usize) -> Result<Self, Refused> {
        let promised = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
        if promised.and_then(|text| text.parse().ok()).is_some_and(|len: u64| len > LARGEST as u64) {
            return Err(too_large(LARGEST));
        }
        let mut begun = BytesMut::new();
        let mut rest = body.into_data_stream();
        let ended = timeout(SMALL_WITHIN, fill(&mut begun, &mut rest, most + 1)).await;
        let ended = ended.map_err(|_| late(SMALL_WITHIN))??;
        Ok(Self { begun, rest: (!ended).then_some(rest) })
    }

    /// Whether there is more.
    pub(super) fn is_large(&self) -> bool {
        self.rest.is_some()
    }
}

impl Arrived {
    /// The members of the body's object. What is JSON and no object has none; `null` is refused, as it always was. Of a
    /// large body only those that are `wanted` are kept, and of what is no text, number or truth value only that it is there.
    pub(super) async fn parse(self, wanted: Wanted) -> Result<Parsed, Refused> {
        let (value, turn) = match self {
            Self::Small(bytes) => (serde_json::from_slice(&bytes), None),
            Self::Large(large) => {
                let turn = timeout(TURN, Arc::clone(&large.digested).acquire_owned()).await;
                let Ok(Ok(turn)) = turn else { return Err(no_place("too many large bodies wait")) };
                let parsed = tokio::task::spawn_blocking(move || {
                    let parsed = wanted.read(BufReader::with_capacity(IN_MEMORY, &large.file));
                    drop(large);
                    parsed
                });
                let unparsed = || Refused::Malformed("the body cannot be read".to_owned());
                (parsed.await.map_err(|_| unparsed())?, Some(turn))
            }
        };
        match value {
            Ok(Value::Object(members)) => Ok(Parsed { members, _turn: turn }),
            Ok(Value::Null) | Err(_) => Err(Refused::Malformed("the body is not valid JSON".to_owned())),
            Ok(_) => Ok(Parsed { members: Map::new(), _turn: turn }),
        }
    }
}

/// The members of a body of at most `most` bytes.
pub(super) async fn small(
    headers: &HeaderMap,
    body: Body,
    most: usize,
) -> Result<Map<String, Value>, Refused> {
    let reading = Reading::begin(headers, body, most).await?;
    if reading.is_large() {
        return Err(too_large(most));
    }
    Ok(Arrived::Small(reading.begun.freeze()).parse(Wanted(&[])).await?.members)
}

/// A text that must be there and not be empty; `missing` is what is said otherwise.
pub(super) fn required_text(
    members: &Map<String, Value>,
    name: &str,
    missing: impl FnOnce() -> Refused,
) -> Result<String, Refused> {
    match members.get(name) {
        Some(Value::String(text)) if !text.is_empty() => Ok(text.clone()),
        Some(value) if !is_falsy(value) => Err(Refused::Malformed(format!("{name} must be a string"))),
        _ => Err(missing()),
    }
}

/// A text that may be absent, or `null`.
pub(super) fn optional_text(members: &mut Map<String, Value>, name: &str) -> Result<Option<String>, Refused> {
    match members.remove(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(Refused::Malformed(format!("{name} must be a string"))),
    }
}

/// A number that may be absent, or `null`: `1` and `1.0` are the same.
pub(super) fn optional_number(members: &Map<String, Value>, name: &str) -> Result<Option<f64>, Refused> {
    match members.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Number(number)) => Ok(number.as_f64()),
        Some(_) => Err(Refused::Malformed(format!("{name} must be a number"))),
    }
}

/// What counts as missing.
pub(super) fn is_falsy(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(_) | Value::Object(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn members(body: &'static str) -> Result<Map<String, Value>, Refused> {
        small(&HeaderMap::new(), Body::from(body), SMALL).await
    }

    #[tokio::test]
    async fn what_is_no_object_has_no_members_and_what_is_no_json_is_refused() {
        assert_eq!(members(r#"{"a":1}"#).await.unwrap().len(), 1);
        for body in ["[]", "7", "\"x\"", "true"] {
            assert!(members(body).await.unwrap().is_empty(), "{body}");
        }
        for body in ["", "null", "{", "{\"a\":1}x", "\u{feff}{}"] {
            assert!(matches!(members(body).await, Err(Refused::Malformed(_))), "{body}");
        }
    }

    #[tokio::test]
    async fn a_large_body_goes_through_a_file_and_is_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let bodies = Bodies::new(dir.path().to_owned());
        let text = format!("é\0\u{fffd}{}", "x".repeat(5 * 1024 * 1024));
        let body = serde_json::json!({ "output": text }).to_string();
        let reading = Reading::begin(&HeaderMap::new(), Body::from(body), SMALL).await.unwrap();
        assert!(reading.is_large());
        let arrived = bodies.read_on(reading, "a").await.unwrap();
        assert!(matches!(arrived, Arrived::Large(_)));
        let parsed = arrived.parse(Wanted(&["output"])).await.unwrap();
        assert_eq!(parsed.members["output"], text.as_str());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "its file has a name");
        drop(parsed);
        assert_eq!(
            (bodies.spooled.available_permits(), bodies.digested.available_permits()),
            (SPOOLED, DIGESTED)
        );
    }

    #[tokio::test]
    async fn there_is_an_end_to_bodies() {
        let dir = tempfile::tempdir().unwrap();
        let bodies = Bodies::new(dir.path().to_owned());
        let reading =
            Reading::begin(&HeaderMap::new(), Body::from(vec![b' '; LARGEST + 1]), SMALL).await.unwrap();
        assert!(matches!(bodies.read_on(reading, "a").await, Err(Refused::TooLarge(_))));
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_LENGTH, ((LARGEST + 1) as u64).into());
        assert!(matches!(Reading::begin(&headers, Body::empty(), SMALL).await, Err(Refused::TooLarge(_))));
    }

    #[test]
    fn what_is_empty_is_missing() {
        let members = serde_json::json!({"a": "", "b": 0, "c": false, "d": null, "e": 7, "f": "x"});
        let Value::Object(members) = members else { panic!("it is one") };
        let missing = || Refused::NoKey;
        for name in ["a", "b", "c", "d", "z"] {
            assert!(matches!(required_text(&members, name, missing), Err(Refused::NoKey)), "{name}");
        }
        assert!(matches!(required_text(&members, "e", missing), Err(Refused::Malformed(_))));
        assert_eq!(required_text(&members, "f", missing).unwrap(), "x");
    }
}
