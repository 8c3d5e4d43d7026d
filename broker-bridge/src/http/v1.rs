//! `/api/v1`: requests are read, handed to an operation, and its answer is written. No rule lives here.

mod assignments;
mod audit;
mod credentials;
mod labels;
mod pushes;
mod relays;
mod runs;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::{FromRequestParts, Path, Query, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header, request::Parts},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, stream};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use signalbox_schemas::{
    api::{Accepted, Get, ListMachines, Page, ReadOutput},
    error::{ErrorCode, Problem},
    id::{CommandId, MachineId},
    limit::IDEMPOTENCY_KEY_BYTES,
    output::OutputStream,
    rollout::Steer,
};
use tokio::time::timeout;

use super::{Shared, problem::Refusal};
use crate::{
    api::{Caller, commands, machines, output as ranges, output::PieceError},
    view::Cursors,
};

type Answer = Result<Response, Refusal>;
type At = State<Arc<Shared>>;
type Who = axum::Extension<Caller>;

/// How far the streams must have been read: on answers to writes, and on reads that want to see them.
const CURSOR: HeaderName = HeaderName::from_static("signalbox-cursor");
/// Bytes of the whole stream, as far as it is known.
const TOTAL: HeaderName = HeaderName::from_static("signalbox-total");
/// Whether bytes of the stream were left out.
const TRUNCATED: HeaderName = HeaderName::from_static("signalbox-truncated");
/// The bytes that were asked for were left out: the stream goes on here.
const NEXT_OFFSET: HeaderName = HeaderName::from_static("signalbox-next-offset");
/// Makes a submit repeatable.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Largest request body. The largest command is 64 KiB of text, at most 6 bytes each as JSON.
const BODY_BYTES: usize = 1024 * 1024;
/// Longest time for a request's body to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest wait of a read for its cursor.
const CURSOR_WAIT: Duration = Duration::from_secs(5);
/// Longest long poll, and the one when none is given.
const WAIT_MS: std::ops::RangeInclusive<u64> = 0..=60_000;
const DEFAULT_WAIT_MS: u64 = 30_000;
/// Bytes of output that are looked up at once; an answer is as long as is wanted.
const RANGE_BYTES: u32 = 4 * 1024 * 1024;
/// Machines of a page when no limit is given: fleets up to this size need no paging.
const DEFAULT_MACHINES: u32 = 1000;

/// The routes of the rooms below.
pub(super) fn rooms() -> Router<Arc<Shared>> {
    assignments::routes()
        .merge(audit::routes())
        .merge(credentials::routes())
        .merge(labels::routes())
        .merge(pushes::routes())
        .merge(relays::routes())
        .merge(runs::routes())
}

fn invalid(message: impl Into<String>) -> Refusal {
    Problem::new(ErrorCode::Invalid, message).into()
}

/// Lets a request wait until its cursor was read.
pub(super) async fn after_cursor(State(shared): At, request: Request, next: Next) -> Answer {
    if let Some(value) = request.headers().get(CURSOR) {
        let cursors: Option<Cursors> = value.to_str().ok().and_then(|text| text.parse().ok());
        let cursors = cursors.ok_or_else(|| invalid("Signalbox-Cursor is not one that was answered here"))?;
        if !shared.front.api.view().reached(&cursors, CURSOR_WAIT).await {
            let message = "this bridge has not read as far as Signalbox-Cursor; try again in a moment";
            return Err(Problem::new(ErrorCode::NotCaughtUp, message).into());
        }
    }
    Ok(next.run(request).await)
}

/// `GET /machines`
pub(super) async fn machines(State(shared): At, axum::Extension(caller): Who, uri: Uri) -> Answer {
    let MachinesQuery { on, limit, after } = query(&uri)?;
    let asked = ListMachines { on, limit: limit.or(Some(DEFAULT_MACHINES)), after };
    let listed = machines::list(&shared.front.api, &caller, &asked).await?;
    Ok(json(StatusCode::OK, &listed, None))
}

/// `GET /commands`
pub(super) async fn list(State(shared): At, axum::Extension(caller): Who, uri: Uri) -> Answer {
    let page = query::<Paging>(&uri)?.into();
    let listed = commands::list(&shared.front.api, &caller, &page).await?;
    Ok(json(StatusCode::OK, &listed, None))
}

#[derive(Serialize)]
struct Submitted {
    id: CommandId,
    targets: Vec<MachineId>,
}

/// `POST /commands`
pub(super) async fn submit(State(shared): At, axum::Extension(caller): Who, request: Request) -> Answer {
    query::<Nothing>(request.uri())?;
    let key = idempotency_key(request.headers())?;
    let asked = body(request).await?;
    let (Accepted { id, targets, .. }, cursors) =
        commands::run(&shared.front.api, &caller, asked, key.as_deref()).await?;
    Ok(json(StatusCode::ACCEPTED, &Submitted { id, targets }, Some(&cursors)))
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Refusal> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let text = value.to_str().ok().filter(|text| (1..=IDEMPOTENCY_KEY_BYTES).contains(&text.len()));
    match (text, values.next()) {
        (Some(text), None) => Ok(Some(text.to_owned())),
        _ => Err(invalid(format!(
            "Idempotency-Key must be one value of 1 to {IDEMPOTENCY_KEY_BYTES} ASCII characters"
        ))),
    }
}

/// `GET /commands/{id}`
pub(super) async fn show(State(shared): At, axum::Extension(caller): Who, Id(id): Id, uri: Uri) -> Answer {
    let Paging { limit, after } = query(&uri)?;
    let command = commands::get(&shared.front.api, &caller, Get { id, limit, after }).await?;
    Ok(json(StatusCode::OK, &command, None))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Waiting {
    timeout_ms: Option<u64>,
    limit: Option<u32>,
    after: Option<String>,
}

/// `GET /commands/{id}/wait`
pub(super) async fn wait(State(shared): At, axum::Extension(caller): Who, Id(id): Id, uri: Uri) -> Answer {
    let Waiting { timeout_ms, limit, after } = query(&uri)?;
    let wait_ms = timeout_ms.unwrap_or(DEFAULT_WAIT_MS);
    if !WAIT_MS.contains(&wait_ms) {
        return Err(invalid(format!(
            "timeout_ms must be 0 to {}; ask again for longer waits",
            WAIT_MS.end()
        )));
    }
    let api = &shared.front.api;
    let over = async {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(wait_ms)) => {}
            () = shared.stop.cancelled() => {}
        }
    };
    let settled = commands::until_settled(api, id, over).await?;
    let command = commands::get(api, &caller, Get { id, limit, after }).await?;
    let status = if settled { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok(json(status, &command, None))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OutputQuery {
    machine: String,
    stream: OutputStream,
    #[serde(default)]
    offset: u64,
    limit: Option<u64>,
}

/// `GET /commands/{id}/output`
pub(super) async fn output(State(shared): At, axum::Extension(caller): Who, Id(id): Id, uri: Uri) -> Answer {
    let OutputQuery { machine, stream, offset, limit } = query(&uri)?;
    if limit == Some(0) {
        return Err(invalid("limit must be 1 or more; leave it out to read to the end"));
    }
    let wanted = limit.unwrap_or(u64::MAX);
    let api = &shared.front.api;
    let asked = ReadOutput { id, machine, stream, offset, limit: at_once(wanted) };
    let mut range = ranges::range(api, &caller, &asked).await?;
    let (mut len, total) = (range.len, range.total);
    let (mut next, mut truncated) = (range.next_offset, range.truncated);
    // Otherwise more may follow, and nobody has counted it.
    let mut is_all = len == wanted || range.end() >= total;
    let mut pieces = range.take_pieces();
    // The first piece is read before the head is sent: only then can its loss be told.
    let first = match pieces.next(api.view()).await {
        None => Bytes::new(),
        Some(Ok(bytes)) => bytes,
        Some(Err(PieceError::Gone { len: gone })) => {
            (len, next, truncated, is_all) = (0, Some(offset.saturating_add(gone)), true, true);
            Bytes::new()
        }
        Some(Err(error)) => return Err(error.problem().into()),
    };
    is_all |= len == 0;
    let rest = Rest {
        shared: Arc::clone(&shared),
        caller,
        asked,
        at: range.end(),
        left: wanted - range.len,
        pieces,
    };
    let body = if len == 0 { Body::empty() } else { piecewise(first, rest) };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    if is_all {
        headers.insert(header::CONTENT_LENGTH, len.into());
    }
    headers.insert(TOTAL, total.into());
    headers.insert(TRUNCATED, HeaderValue::from_static(if truncated { "true" } else { "false" }));
    headers.extend(next.map(|next| (NEXT_OFFSET, next.into())));
    Ok(response)
}

/// Bytes of output that are looked up at once: what is in memory of them is where they are.
fn at_once(wanted: u64) -> u32 {
    u32::try_from(wanted).unwrap_or(u32::MAX).min(RANGE_BYTES)
}

/// Output that follows, looked up range by range and read piece by piece.
struct Rest {
    shared: Arc<Shared>,
    caller: Caller,
    asked: ReadOutput,
    /// Where the next range begins.
    at: u64,
    /// Bytes of it that are still wanted.
    left: u64,
    pieces: ranges::Pieces,
}

impl Rest {
    /// The next piece; `None` where the output ends for now, or bytes were left out.
    async fn next(&mut self) -> Option<Result<Bytes, axum::Error>> {
        let api = &self.shared.front.api;
        if let Some(piece) = self.pieces.next(api.view()).await {
            return Some(piece.map_err(axum::Error::new));
        }
        if self.left == 0 {
            return None;
        }
        let asked = ReadOutput { offset: self.at, limit: at_once(self.left), ..self.asked.clone() };
        match ranges::range(api, &self.caller, &asked).await {
            Ok(mut range) => {
                (self.at, self.left) = (range.end(), self.left.saturating_sub(range.len));
                self.pieces = range.take_pieces();
                self.pieces.next(api.view()).await.map(|piece| piece.map_err(axum::Error::new))
            }
            Err(problem) => Some(Err(axum::Error::new(problem))),
        }
    }
}

/// A body that reads a piece when the one before was taken. A piece that cannot be had breaks the connection: nobody
/// may take less for the whole.
fn piecewise(first: Bytes, rest: Rest) -> Body {
    let rest = stream::unfold(rest, |mut rest| async move {
        let next = rest.next().await?;
        Some((next, rest))
    });
    Body::from_stream(stream::once(async { Ok(first) }).chain(rest))
}

/// `POST /commands/{id}/cancel`
pub(super) async fn cancel(State(shared): At, axum::Extension(caller): Who, Id(id): Id, uri: Uri) -> Answer {
    query::<Nothing>(&uri)?;
    let (cancelling, cursors) = commands::cancel(&shared.front.api, &caller, id).await?;
    Ok(json(StatusCode::ACCEPTED, &cancelling, Some(&cursors)))
}

/// `POST /commands/{id}/pause`
pub(super) async fn pause(shared: At, caller: Who, id: Id, uri: Uri) -> Answer {
    steer(shared, caller, id, uri, Steer::Pause).await
}

/// `POST /commands/{id}/resume`
pub(super) async fn resume(shared: At, caller: Who, id: Id, uri: Uri) -> Answer {
    steer(shared, caller, id, uri, Steer::Resume).await
}

/// `POST /commands/{id}/abort`
pub(super) async fn abort(shared: At, caller: Who, id: Id, uri: Uri) -> Answer {
    steer(shared, caller, id, uri, Steer::Abort).await
}

async fn steer(State(shared): At, axum::Extension(caller): Who, Id(id): Id, uri: Uri, wish: Steer) -> Answer {
    query::<Nothing>(&uri)?;
    let (steered, cursors) = commands::steer(&shared.front.api, &caller, id, wish).await?;
    Ok(json(StatusCode::ACCEPTED, &steered, Some(&cursors)))
}

/// The command id in the path.
pub(super) struct Id(CommandId);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        // A path that is no UTF-8 names no command either.
        let text = Path::<String>::from_request_parts(parts, state).await.ok();
        let id = text.and_then(|Path(text)| text.parse().ok());
        let no_such = "there is no such command; its id would be a UUID";
        id.map(Self).ok_or_else(|| Problem::new(ErrorCode::NotFound, no_such).into())
    }
}

/// The name in the path, whatever it names.
pub(super) struct Named(String);

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        // A path that is no UTF-8 names nothing.
        let text = Path::<String>::from_request_parts(parts, state).await;
        text.map(|Path(text)| Self(text)).map_err(|_| Refusal::no_such_path())
    }
}

/// The id of what is changed stands in the path, and in the body not at all, or once more.
fn same_id(in_body: &str, in_path: String) -> Result<String, Refusal> {
    if in_body.is_empty() || in_body == in_path {
        return Ok(in_path);
    }
    Err(invalid("the id in the body is not the one in the path; leave it out"))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MachinesQuery {
    on: Option<String>,
    limit: Option<u32>,
    after: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Paging {
    limit: Option<u32>,
    after: Option<String>,
}

impl From<Paging> for Page {
    fn from(paging: Paging) -> Self {
        Self { limit: paging.limit, after: paging.after }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

/// The query, every member of which must be known.
fn query<T: DeserializeOwned>(uri: &Uri) -> Result<T, Refusal> {
    let parsed = Query::<T>::try_from_uri(uri);
    parsed.map(|Query(query)| query).map_err(|error| {
        let source = std::error::Error::source(&error).map(ToString::to_string);
        invalid(format!("cannot read the query: {}", cut(&source.unwrap_or_default())))
    })
}

/// The body as JSON, every member of which must be known.
async fn body<T: DeserializeOwned>(request: Request) -> Result<T, Refusal> {
    let too_large = || {
        let message = format!("the body is above {BODY_BYTES} bytes; send less");
        Refusal::from(Problem::new(ErrorCode::TooLarge, message))
    };
    let promised = request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    if promised.and_then(|text| text.parse().ok()).is_some_and(|len: u64| len > BODY_BYTES as u64) {
        return Err(too_large());
    }
    let read = async {
        let mut body = BytesMut::new();
        let mut data = request.into_body().into_data_stream();
        while let Some(bytes) = data.next().await {
            let bytes = bytes.map_err(|_| invalid("the body ended early; send it again"))?;
            if body.len() + bytes.len() > BODY_BYTES {
                return Err(too_large());
            }
            body.extend_from_slice(&bytes);
        }
        Ok(body)
    };
    let late =
        |_| invalid(format!("the body did not arrive within {} s; send it again", BODY_TIMEOUT.as_secs()));
    let body = timeout(BODY_TIMEOUT, read).await.map_err(late)??;
    // The parser would take an array for the members in their order, and a mistake for a wish.
    if body.trim_ascii_start().first() == Some(&b'[') {
        return Err(invalid("cannot read the body as JSON: it must be one object, not an array"));
    }
    serde_json::from_slice(&body)
        .map_err(|error| invalid(format!("cannot read the body as JSON: {}", cut(&error.to_string()))))
}

/// Text of a parser, which quotes what it read: short, and without control characters.
fn cut(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

fn json<T: Serialize>(status: StatusCode, value: &T, cursors: Option<&Cursors>) -> Response {
    let mut response = (status, axum::Json(value)).into_response();
    if let Some(cursors) = cursors
        && let Ok(value) = HeaderValue::from_str(&cursors.to_string())
    {
        response.headers_mut().insert(CURSOR, value);
    }
    response
}
