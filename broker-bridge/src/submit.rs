//! Storing a command, and the wish to cancel one.
//!
//! The parts with the grants go first; the spec, written only as the first of its subject, is the commit. So a
//! submit can be repeated with the same bytes as often as one likes and is one command.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::try_join_all;
use signalbox_link::{
    Headers, Link, Message, ReadError, Store, StoreError, StreamError,
    crash::{self, Point},
};
use signalbox_schemas::{
    api::Request,
    command::{CommandSpec, Grant, parts},
    id::{CommandId, Workspace},
    mailbox::Position,
    output::eyes,
    signed::{Message as _, PublicKey, Signed},
    stream,
    subject::{CommandPiece, Subject},
};
use tokio::time::{Instant, sleep, timeout_at};

use crate::{broker_link::BrokerError, view::Cursors};

/// How long a submit takes at most, from its first question to its last, before it is reported as not accepted.
/// Clients wait 5 s for a first answer, so that this one comes before they give up.
const TRY_FOR: Duration = Duration::from_secs(4);
/// Pause between two tries.
const PAUSE: Duration = Duration::from_millis(100);

/// A command, or a wish to cancel, was not stored.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// Another command has this id. Not retryable.
    #[error("another command has this id")]
    IdConflict,
    /// No acknowledgement; it may or may not be stored. The same can be submitted again.
    #[error("the broker did not acknowledge it")]
    NotAccepted {
        /// Why.
        #[source]
        source: BrokerError,
    },
    /// More bytes than a message may have: too many grants. Not retryable.
    #[error("it is too large for one message")]
    TooLarge,
}

/// Stores a command: `spec_bytes` are the exact bytes of `spec`, `grants` one per target and sorted by machine
/// token, or none when their parts are stored already. When this answers, the command is accepted; the answer is where to
/// read it. Submitting the same again is the same command. `made` is when the stream of commands was made, Unix ms, where
/// that is known; else it is asked for.
///
/// # Errors
/// [`SubmitError`].
pub async fn store_command(
    link: &Link,
    ws: &Workspace,
    made: Option<u64>,
    spec_bytes: Bytes,
    spec: &CommandSpec,
    grants: Vec<Signed<Grant>>,
) -> Result<Cursors, SubmitError> {
    let cid = spec.cid;
    let by = grants.first().map_or_else(|| spec.by.clone(), |grant| grant.key().to_string());
    let until = Instant::now() + TRY_FOR;
    // First: nothing is stored that cannot be told, and nothing may fail once the spec is acknowledged.
    let created = created(link, made, until).await?;
    let ahead = if grants.is_empty() { Vec::new() } else { parts(cid, grants) };
    let ahead = ahead.iter().map(|part| async {
        let body = serde_json::to_vec(part).map_err(|_| SubmitError::TooLarge)?;
        until_stored(link, part_message(ws, cid, part.n, body, &by), until).await
    });
    try_join_all(ahead).await?;
    let subject = Subject::Command(ws.clone(), cid, CommandPiece::Spec).to_string();
    let message = Store::new(subject.clone(), spec_bytes.clone())
        .with_headers(headers("spec", &by).with(eyes::SUMMARY, &format!("{} machines", spec.targets)))
        .only_first();
    let sequence = match until_stored(link, message, until).await? {
        Some(sequence) => sequence,
        None => same_spec(link, &subject, &spec_bytes, until).await?,
    };
    crash::hit(crash::Part::Bridge, Point::SubmitAcked);
    Ok(Cursors::of(stream::CMD, Position { created, sequence }))
}

/// Stores a part of the grants of a command whose spec is yet to come; the answer is where to read it. `made` is as for
/// [`store_command`].
///
/// # Errors
/// [`SubmitError`].
pub async fn store_part(
    link: &Link,
    ws: &Workspace,
    made: Option<u64>,
    cid: CommandId,
    n: u32,
    body: Vec<u8>,
    by: &PublicKey,
) -> Result<Cursors, SubmitError> {
    let until = Instant::now() + TRY_FOR;
    let created = created(link, made, until).await?;
    let stored = until_stored(link, part_message(ws, cid, n, body, by.as_str()), until).await?;
    let sequence = stored.unwrap_or_default();
    Ok(Cursors::of(stream::CMD, Position { created, sequence }))
}

fn headers(kind: &str, by: &str) -> Headers {
    Headers::new().with(eyes::TYPE, kind).with(eyes::BY, by)
}

fn part_message(ws: &Workspace, cid: CommandId, n: u32, body: Vec<u8>, by: &str) -> Store {
    let subject = Subject::Command(ws.clone(), cid, CommandPiece::Part(n)).to_string();
    Store::new(subject, body).with_headers(headers("part", by))
}

/// Stores the wish to cancel a command, unless one that `stands` for everybody who reads it is there: then the answer
/// is where that one is. `by` is who asks. The request was checked by the caller, and is checked again by everybody who reads it. `made` is as
/// for [`store_command`].
///
/// # Errors
/// [`SubmitError`].
pub async fn store_cancel(
    link: &Link,
    ws: &Workspace,
    made: Option<u64>,
    (cid, by): (CommandId, &str),
    request: &Signed<Request>,
    stands: impl Fn(&[u8]) -> bool,
) -> Result<Cursors, SubmitError> {
    let subject = Subject::Command(ws.clone(), cid, CommandPiece::Cancel).to_string();
    let headers = Headers::new().with(eyes::TYPE, Request::TYPE).with(eyes::BY, request.key().as_str());
    let headers = headers.with(eyes::FOR, by);
    let message = Store::new(subject.clone(), request.to_json()).with_headers(headers);
    let until = Instant::now() + TRY_FOR;
    let created = created(link, made, until).await?;
    let sequence = match until_stored(link, message.clone().only_first(), until).await? {
        Some(sequence) => sequence,
        None => match standing(link, &subject, until).await? {
            Some(first) if stands(&first.payload) => first.sequence,
            // Its author may cancel nothing any more, or it never was one.
            _ => until_stored(link, message, until).await?.unwrap_or_default(),
        },
    };
    Ok(Cursors::of(stream::CMD, Position { created, sequence }))
}

/// When the stream of commands was made, Unix ms: half of every cursor. To ask takes longer than to store a message.
async fn created(link: &Link, made: Option<u64>, until: Instant) -> Result<u64, SubmitError> {
    if let Some(made) = made {
        return Ok(made);
    }
    let failed = |source| SubmitError::NotAccepted {
        source: BrokerError::Stream { name: stream::CMD.to_owned(), source },
    };
    let asked = timeout_at(until, link.stream_state(stream::CMD)).await;
    let late = |_| StreamError::Unanswered { stream: stream::CMD.to_owned(), source: "too late".into() };
    Ok(asked.map_err(late).flatten().map_err(failed)?.created_ms)
}

/// Stores a message, again after a lost acknowledgement, until the time is over. `None`: somebody, perhaps an
/// earlier try, was first.
async fn until_stored(link: &Link, message: Store, until: Instant) -> Result<Option<u64>, SubmitError> {
    loop {
        let late = |_| StoreError::Unanswered { waited: TRY_FOR };
        match timeout_at(until, link.store(message.clone())).await.map_err(late).flatten() {
            Ok(stored) => return Ok(Some(stored.sequence)),
            Err(StoreError::Taken { .. }) => return Ok(None),
            Err(StoreError::TooLarge { .. }) => return Err(SubmitError::TooLarge),
            Err(StoreError::Unanswered { .. }) if Instant::now() < until => sleep(PAUSE).await,
            Err(source) => {
                let source = BrokerError::Store { what: message.subject, source };
                return Err(SubmitError::NotAccepted { source });
            }
        }
    }
}

/// What stands on a subject of CMD. Asked again until the time is over: it may be our own, and then it counts.
async fn standing(link: &Link, subject: &str, until: Instant) -> Result<Option<Message>, SubmitError> {
    loop {
        let (stream, waited) = (stream::CMD.to_owned(), TRY_FOR);
        let late = |_| ReadError::Unanswered { stream, waited };
        match timeout_at(until, link.last_from_leader(stream::CMD, subject)).await.map_err(late).flatten() {
            Ok(found) => return Ok(found),
            Err(ReadError::Unanswered { .. }) if Instant::now() < until => sleep(PAUSE).await,
            Err(source) => {
                let source = BrokerError::Read { what: subject.to_owned(), source };
                return Err(SubmitError::NotAccepted { source });
            }
        }
    }
}

/// The sequence of the spec that stands there, if it is this one.
async fn same_spec(link: &Link, subject: &str, bytes: &Bytes, until: Instant) -> Result<u64, SubmitError> {
    match standing(link, subject, until).await? {
        Some(message) if message.payload == *bytes => Ok(message.sequence),
        Some(_) => Err(SubmitError::IdConflict),
        // It was there a moment ago and is gone: the administrator purges.
        None => Err(SubmitError::NotAccepted { source: BrokerError::Contended(subject.to_owned()) }),
    }
}
