//! Reading stored messages one by one, and a few at a time.
//!
//! Two ways, and the difference matters. *Direct* reads are answered by any replica (a lagging one may not
//! know the newest message) and are what relays may do. Reads *from the leader* are exact, and they are safe
//! to use on streams that others write to: whatever a publisher stored as headers comes wrapped in JSON,
//! whereas in a direct read it stands raw in the protocol, and a header that is no header makes the client
//! drop its connection. So: the bridge reads facts and output from the leader.

use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::RawMessage;
use async_nats::{RequestErrorKind, StatusCode};
use bytes::Bytes;
use data_encoding::BASE64;
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout, timeout_at};

use crate::api::{ApiError, MESSAGE_NOT_FOUND};
use crate::connect::Link;
use crate::error::ReadError;
use crate::header::Headers;

/// Most messages of one batched read: they wait in memory together.
pub const MAX_READ_BATCH: usize = 512;
/// Most bytes of one batched read. The server stops after the message that passes it.
const MAX_READ_BYTES: usize = 4 * 1024 * 1024;

/// A stored message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The subject it is stored under, from the server.
    pub subject: String,
    /// Its sequence, from the server.
    pub sequence: u64,
    /// The stream.
    pub stream: String,
    /// When it was stored, Unix milliseconds, from the server.
    pub time_ms: u64,
    /// Its headers.
    pub headers: Headers,
    /// Its body.
    pub payload: Bytes,
}

impl Link {
    /// The last message on a subject, from any replica; none if there is none. With a wildcard: the last of
    /// all that match.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn last(&self, stream: &str, subject: &str) -> Result<Option<Message>, ReadError> {
        self.direct(stream, format!("$JS.API.DIRECT.GET.{stream}.{subject}"), Bytes::new()).await
    }

    /// The message with that sequence, from any replica; none if there is none (any more).
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn by_sequence(&self, stream: &str, sequence: u64) -> Result<Option<Message>, ReadError> {
        let body = json!({ "seq": sequence }).to_string();
        self.direct(stream, format!("$JS.API.DIRECT.GET.{stream}"), body.into()).await
    }

    /// The last message on a subject, from the leader; none if there is none.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn last_from_leader(&self, stream: &str, subject: &str) -> Result<Option<Message>, ReadError> {
        self.ask_leader(stream, &json!({ "last_by_subj": subject })).await
    }

    /// The first message at or after `sequence` whose subject matches, from the leader; none if there is none.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn next_from_leader(
        &self,
        stream: &str,
        sequence: u64,
        subject: &str,
    ) -> Result<Option<Message>, ReadError> {
        self.ask_leader(stream, &json!({ "seq": sequence.max(1), "next_by_subj": subject })).await
    }

    /// The messages at or after `sequence` whose subject matches, in order, at most `count` and
    /// [`MAX_READ_BATCH`], and about 4 MiB. Fewer than asked for does not mean that there are no more.
    ///
    /// # Errors
    /// [`ReadError`]; what arrived before is lost with it.
    pub async fn next_by_subject(
        &self,
        stream: &str,
        sequence: u64,
        subject: &str,
        count: usize,
    ) -> Result<Vec<Message>, ReadError> {
        let count = count.clamp(1, MAX_READ_BATCH.min(self.subscription_capacity.saturating_sub(1).max(1)));
        let body = json!({
            "seq": sequence.max(1), "next_by_subj": subject, "batch": count, "max_bytes": MAX_READ_BYTES,
        });
        self.direct_batch(stream, body.to_string()).await
    }

    /// A question that is answered by messages and a word that there are no more.
    async fn direct_batch(&self, stream: &str, body: String) -> Result<Vec<Message>, ReadError> {
        let unanswered = || ReadError::Unanswered { stream: stream.to_owned(), waited: self.ack_timeout };
        let deadline = Instant::now() + self.ack_timeout;
        let inbox = self.client.new_inbox();
        let asked = async {
            let answers = self.client.subscribe(inbox.clone()).await.ok()?;
            let subject = format!("$JS.API.DIRECT.GET.{stream}");
            self.client.publish_with_reply(subject, inbox, body.into()).await.ok()?;
            Some(answers)
        };
        let mut answers =
            timeout_at(deadline, asked).await.map_err(|_| unanswered())?.ok_or_else(unanswered)?;
        let mut messages = Vec::new();
        loop {
            // The bound is on silence: a large batch over a slow line may take longer than one answer.
            let answer = timeout(self.ack_timeout, answers.next()).await.map_err(|_| unanswered())?;
            let answer = answer.ok_or_else(unanswered)?;
            match direct_answer(stream, answer)? {
                Direct::Message(message) => messages.push(message),
                Direct::None => return Ok(messages),
            }
        }
    }

    /// The first message that was stored at or after `time_ms` (Unix ms, the server's clock) and whose subject matches, from
    /// any replica; none if there is none. Only for streams that nobody but bridges can write to.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn next_at(
        &self,
        stream: &str,
        time_ms: u64,
        subject: &str,
    ) -> Result<Option<Message>, ReadError> {
        let body = json!({ "next_by_subj": subject, "start_time": rfc3339(time_ms) });
        self.direct(stream, format!("$JS.API.DIRECT.GET.{stream}"), body.to_string().into()).await
    }

    /// The last message on a subject that was stored at or before `time_ms` (Unix ms, the server's clock), from any replica;
    /// none if there is none. Only for streams that nobody but bridges can write to. The subject has no wildcards.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn last_at(
        &self,
        stream: &str,
        time_ms: u64,
        subject: &str,
    ) -> Result<Option<Message>, ReadError> {
        // The server means what was stored before that time.
        let until = rfc3339(time_ms.saturating_add(1));
        let body = json!({ "multi_last": [subject], "up_to_time": until }).to_string();
        Ok(self.direct_batch(stream, body).await?.pop())
    }

    async fn direct(&self, stream: &str, subject: String, body: Bytes) -> Result<Option<Message>, ReadError> {
        let unanswered = || ReadError::Unanswered { stream: stream.to_owned(), waited: self.ack_timeout };
        match timeout(self.ack_timeout, self.client.request(subject, body)).await {
            Ok(Ok(answer)) => match direct_answer(stream, answer)? {
                Direct::Message(message) => Ok(Some(message)),
                Direct::None => Ok(None),
            },
            Ok(Err(error)) if error.kind() == RequestErrorKind::NoResponders => Err(ReadError::Refused {
                stream: stream.to_owned(),
                code: 503,
                description: "no such stream".to_owned(),
            }),
            Ok(Err(_)) | Err(_) => Err(unanswered()),
        }
    }

    async fn ask_leader(&self, stream: &str, body: &Value) -> Result<Option<Message>, ReadError> {
        #[derive(serde::Deserialize)]
        struct Answer {
            message: RawMessage,
        }
        let asked = self.api::<Answer>(format!("STREAM.MSG.GET.{stream}"), body);
        let stream = stream.to_owned();
        let Ok(answer) = timeout(self.ack_timeout, asked).await else {
            return Err(ReadError::Unanswered { stream, waited: self.ack_timeout });
        };
        match answer {
            Ok(Answer { message }) => from_raw(stream, message).map(Some),
            Err(ApiError::Refused { code: MESSAGE_NOT_FOUND, .. }) => Ok(None),
            Err(ApiError::Refused { code, description }) => {
                Err(ReadError::Refused { stream, code, description })
            }
            Err(ApiError::Unanswered(_)) => Err(ReadError::Unanswered { stream, waited: self.ack_timeout }),
        }
    }
}

enum Direct {
    Message(Message),
    /// Nothing there, or nothing more.
    None,
}

/// Reads one answer to a direct get. The server marks every message with its sequence, and a status never:
/// so what a publisher wrote into a message cannot make it look like a status.
fn direct_answer(stream: &str, answer: async_nats::Message) -> Result<Direct, ReadError> {
    let has_sequence = answer.headers.as_ref().is_some_and(|headers| headers.get("Nats-Sequence").is_some());
    if !has_sequence {
        return match answer.status {
            // 204: end of a batch.
            Some(StatusCode::NOT_FOUND) => Ok(Direct::None),
            Some(status) if status.as_u16() == 204 => Ok(Direct::None),
            Some(status) => Err(ReadError::Refused {
                stream: stream.to_owned(),
                code: u64::from(status.as_u16()),
                description: answer.description.unwrap_or_default(),
            }),
            None => Err(ReadError::Malformed { stream: stream.to_owned() }),
        };
    }
    // Takes the last value of each `Nats-*` header, which is the rule of `header`.
    let message =
        StreamMessage::try_from(answer).map_err(|_| ReadError::Malformed { stream: stream.to_owned() })?;
    Ok(Direct::Message(Message {
        subject: message.subject.into_string(),
        sequence: message.sequence,
        stream: stream.to_owned(),
        time_ms: unix_ms(message.time),
        headers: Headers::from_received(Some(message.headers)),
        payload: message.payload,
    }))
}

fn from_raw(stream: String, raw: RawMessage) -> Result<Message, ReadError> {
    let decode = |text: &str| BASE64.decode(text.as_bytes()).ok();
    let headers = raw.headers.as_deref().map_or(Some(Vec::new()), decode);
    let (Some(payload), Some(headers)) = (decode(&raw.payload), headers) else {
        return Err(ReadError::Malformed { stream });
    };
    Ok(Message {
        subject: raw.subject,
        sequence: raw.sequence,
        stream,
        time_ms: unix_ms(raw.time),
        headers: Headers::from_block(&headers),
        payload: payload.into(),
    })
}

/// Last millisecond that is asked for, in the year 2200: the server counts nanoseconds, and none beyond 2262.
const LAST_MS: u64 = 7_258_118_400_000;

/// A time as the server reads it.
fn rfc3339(time_ms: u64) -> String {
    let nanos = i128::from(time_ms.min(LAST_MS)) * 1_000_000;
    let time = time::OffsetDateTime::from_unix_timestamp_nanos(nanos);
    let text = time.ok().and_then(|time| time.format(&time::format_description::well_known::Rfc3339).ok());
    // Every millisecond up to that one has a form.
    text.unwrap_or_default()
}

/// Unix milliseconds; 0 for what lies before 1970.
pub(crate) fn unix_ms(time: time::OffsetDateTime) -> u64 {
    u64::try_from(time.unix_timestamp_nanos() / 1_000_000).unwrap_or(0)
}
