//! Publishing: without acknowledgement, and stored with one.
//!
//! Message ids (`Nats-Msg-Id`) are never set: the server remembers them per stream and not per sender, so one
//! sender can burn another's. Repeats are made harmless by expected sequences and by the readers.

use std::time::Duration;

use async_nats::jetstream::context::{PublishAckFuture, PublishError as AckError, PublishErrorKind};
use async_nats::jetstream::publish::PublishAck;
use bytes::Bytes;
use tokio::time::{Instant, timeout, timeout_at};

use crate::api::words;
use crate::connect::Link;
use crate::error::{PublishError, StoreError};
use crate::header::Headers;

/// Most messages that the server stores as one (its own limit).
pub const MAX_BATCH: usize = 1_000;

const EXPECTED_LAST_SUBJECT_SEQUENCE: &str = "Nats-Expected-Last-Subject-Sequence";
/// Of which subjects that sequence is, when not of the message's own.
const EXPECTED_OF: &str = "Nats-Expected-Last-Subject-Sequence-Subject";
const BATCH_ID: &str = "Nats-Batch-Id";
const BATCH_SEQUENCE: &str = "Nats-Batch-Sequence";
const BATCH_COMMIT: &str = "Nats-Batch-Commit";

/// The subject's last sequence is not the expected one.
const WRONG_LAST_SEQUENCE: u64 = 10071;
/// The same on a replicated stream, while the other write is still under way.
const WRONG_LAST_SEQUENCE_IN_FLIGHT: u64 = 10164;
/// No room: stream (10077), file store (10047), memory (10028), server (10023), account (10002).
const NO_ROOM: [u64; 5] = [10077, 10047, 10028, 10023, 10002];
/// No leader, stream offline, JetStream not ready: the same message may be stored a moment later.
const NOT_NOW: [u64; 3] = [10008, 10009, 10118];

/// One message to be stored.
#[derive(Debug, Clone)]
pub struct Store {
    /// Its subject.
    pub subject: String,
    /// Its headers, `Sb-*` only.
    pub headers: Headers,
    /// Its body.
    pub payload: Bytes,
    /// Store it only if this is the sequence of the last message on the subject; 0 = there is none.
    pub expect_last_subject_seq: Option<u64>,
    /// On which subjects, with wildcards, when not on its own.
    pub expect_on: Option<String>,
}

impl Store {
    /// A message without headers and expectation.
    pub fn new(subject: impl Into<String>, payload: impl Into<Bytes>) -> Self {
        Self {
            subject: subject.into(),
            headers: Headers::new(),
            payload: payload.into(),
            expect_last_subject_seq: None,
            expect_on: None,
        }
    }

    /// Only as the first message of its subject.
    #[must_use]
    pub fn only_first(self) -> Self {
        self.only_after(0)
    }

    /// Only if the subject's last message has this sequence.
    #[must_use]
    pub fn only_after(self, sequence: u64) -> Self {
        Self { expect_last_subject_seq: Some(sequence), ..self }
    }

    /// Only if the last message of all subjects that match `subjects`, its own among them, has this sequence; 0 = there is
    /// none.
    #[must_use]
    pub fn only_after_all(self, subjects: &str, sequence: u64) -> Self {
        Self { expect_on: Some(subjects.to_owned()), ..self.only_after(sequence) }
    }

    /// With these headers.
    #[must_use]
    pub fn with_headers(self, headers: Headers) -> Self {
        Self { headers, ..self }
    }

    fn into_parts(self) -> (String, Headers, Bytes) {
        let mut headers = self.headers;
        if let Some(sequence) = self.expect_last_subject_seq {
            headers.set(EXPECTED_LAST_SUBJECT_SEQUENCE, &sequence.to_string());
        }
        if let Some(subjects) = &self.expect_on {
            headers.set(EXPECTED_OF, subjects);
        }
        (self.subject, headers, self.payload)
    }
}

/// Where a message was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The stream.
    pub stream: String,
    /// Its sequence there; of a batch: of the last message.
    pub sequence: u64,
}

/// A message on its way. Dropping it forgets the acknowledgement, not the message.
#[derive(Debug)]
pub struct PendingStore {
    ack: PublishAckFuture,
    began: Instant,
    patience: Duration,
}

impl PendingStore {
    /// Waits for the acknowledgement, until `ack_timeout` after the message was sent. Not cancel safe: the
    /// answer is lost with the future.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn stored(self) -> Result<Stored, StoreError> {
        let patience = self.patience;
        self.stored_within(patience).await
    }

    /// The same, until `patience` after the message was sent: a slow link needs more of it for a large message.
    /// Not cancel safe.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn stored_within(self, patience: Duration) -> Result<Stored, StoreError> {
        match timeout_at(self.began + patience, self.ack).await {
            Ok(Ok(ack)) => Ok(stored(ack)),
            Ok(Err(error)) => Err(meaning(&error, patience)),
            Err(_) => Err(StoreError::Unanswered { waited: patience }),
        }
    }
}

impl Link {
    /// Publishes without acknowledgement: at most once, and no word if nobody was there or it was not allowed.
    ///
    /// # Errors
    /// [`PublishError`]: it was not even handed to the connection.
    pub async fn publish(
        &self,
        subject: &str,
        headers: Option<Headers>,
        payload: Bytes,
    ) -> Result<(), PublishError> {
        let headers = headers.unwrap_or_default();
        self.check_size(&headers, &payload)
            .map_err(|(size, limit)| PublishError::TooLarge { size, limit })?;
        let subject = subject.to_owned();
        let sent = async {
            if headers.is_empty() {
                self.client.publish(subject.clone(), payload).await
            } else {
                self.client.publish_with_headers(subject.clone(), headers.into_inner(), payload).await
            }
        };
        match timeout(self.ack_timeout, sent).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) if error.kind() == async_nats::PublishErrorKind::InvalidSubject => {
                Err(PublishError::Subject { subject })
            }
            Ok(Err(_)) | Err(_) => Err(PublishError::Stalled { waited: self.ack_timeout }),
        }
    }

    /// Stores one message and waits for the acknowledgement, at most `ack_timeout`, connected or not.
    ///
    /// # Errors
    /// [`StoreError`]; its variants say what to do.
    pub async fn store(&self, message: Store) -> Result<Stored, StoreError> {
        self.store_pipelined(message).await?.stored().await
    }

    /// Sends one message and returns as soon as it is on its way, so that many acknowledgements can be awaited
    /// together. Messages of one task are sent in the order of the calls.
    ///
    /// # Errors
    /// [`StoreError`], when it could not be sent.
    pub async fn store_pipelined(&self, message: Store) -> Result<PendingStore, StoreError> {
        let (subject, headers, payload) = message.into_parts();
        self.check_size(&headers, &payload).map_err(|(size, limit)| StoreError::TooLarge { size, limit })?;
        self.send(subject, headers, payload, Instant::now()).await
    }

    /// Stores all of the messages or none, in order, in one stream that allows it. At most [`MAX_BATCH`].
    /// Expectations are checked against the stream before the batch.
    ///
    /// # Errors
    /// [`StoreError`]; with [`StoreError::Taken`] nothing is stored.
    pub async fn store_batch(&self, messages: Vec<Store>) -> Result<Stored, StoreError> {
        let count = messages.len();
        if count == 0 || count > MAX_BATCH {
            let description = format!("a batch has 1 to {MAX_BATCH} messages, not {count}");
            return Err(StoreError::Refused { code: 0, description });
        }
        let inbox = self.client.new_inbox();
        let batch = inbox.rsplit('.').next().unwrap_or(&inbox);
        let mut parts = Vec::with_capacity(count);
        for (index, message) in messages.into_iter().enumerate() {
            let (subject, mut headers, payload) = message.into_parts();
            headers.set(BATCH_ID, batch);
            headers.set(BATCH_SEQUENCE, &(index + 1).to_string());
            if index + 1 == count {
                headers.set(BATCH_COMMIT, "1");
            }
            // All sizes before the first message: a batch without its end occupies the server for 10 s.
            self.check_size(&headers, &payload)
                .map_err(|(size, limit)| StoreError::TooLarge { size, limit })?;
            parts.push((subject, headers, payload));
        }
        let waited = self.ack_timeout;
        let began = Instant::now();
        let deadline = began + waited;
        let last = parts.pop();
        for (subject, headers, payload) in parts {
            let sent = self.client.publish_with_headers(subject.clone(), headers.into_inner(), payload);
            match timeout_at(deadline, sent).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) if error.kind() == async_nats::PublishErrorKind::InvalidSubject => {
                    let description = format!("subject {subject:?} is not valid");
                    return Err(StoreError::Refused { code: 0, description });
                }
                Ok(Err(_)) | Err(_) => return Err(StoreError::Unanswered { waited }),
            }
        }
        match last {
            Some((subject, headers, payload)) => {
                self.send(subject, headers, payload, began).await?.stored().await
            }
            None => Err(StoreError::Unanswered { waited }),
        }
    }

    async fn send(
        &self,
        subject: String,
        headers: Headers,
        payload: Bytes,
        began: Instant,
    ) -> Result<PendingStore, StoreError> {
        let patience = self.ack_timeout;
        let sent = async {
            if headers.is_empty() {
                self.jetstream.publish(subject, payload).await
            } else {
                self.jetstream.publish_with_headers(subject, headers.into_inner(), payload).await
            }
        };
        match timeout_at(began + patience, sent).await {
            Ok(Ok(ack)) => Ok(PendingStore { ack, began, patience }),
            Ok(Err(error)) => Err(meaning(&error, patience)),
            Err(_) => Err(StoreError::Unanswered { waited: patience }),
        }
    }

    fn check_size(&self, headers: &Headers, payload: &Bytes) -> Result<(), (usize, usize)> {
        let (size, limit) = (headers.wire_bytes() + payload.len(), self.max_payload());
        if size > limit { Err((size, limit)) } else { Ok(()) }
    }
}

fn stored(ack: PublishAck) -> Stored {
    Stored { stream: ack.stream, sequence: ack.sequence }
}

/// What a failed publish means. By code: the client knows only some of them by kind.
fn meaning(error: &AckError, waited: Duration) -> StoreError {
    let source = std::error::Error::source(error);
    if let Some(refusal) = source.and_then(|source| source.downcast_ref::<async_nats::jetstream::Error>()) {
        return by_code(refusal.error_code().0, &words(refusal), waited);
    }
    match error.kind() {
        PublishErrorKind::Other => {
            let description = source.map_or_else(|| error.to_string(), ToString::to_string);
            StoreError::Refused { code: 0, description }
        }
        // No stream there may as well mean that JetStream is still starting.
        _ => StoreError::Unanswered { waited },
    }
}

fn by_code(code: u64, description: &str, waited: Duration) -> StoreError {
    match code {
        WRONG_LAST_SEQUENCE => {
            let last = description.rsplit(' ').next().and_then(|word| word.parse().ok());
            StoreError::Taken { last }
        }
        WRONG_LAST_SEQUENCE_IN_FLIGHT => StoreError::Taken { last: None },
        code if NO_ROOM.contains(&code) => StoreError::Full,
        code if NOT_NOW.contains(&code) => StoreError::Unanswered { waited },
        code => StoreError::Refused { code, description: description.to_owned() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_meanings() {
        let meaning = |code, text| by_code(code, text, Duration::ZERO);
        assert!(matches!(meaning(10071, "wrong last sequence: 42"), StoreError::Taken { last: Some(42) }));
        assert!(matches!(meaning(10071, "wrong last sequence"), StoreError::Taken { last: None }));
        assert!(matches!(meaning(10164, "another write"), StoreError::Taken { last: None }));
        assert!(matches!(meaning(10077, "maximum bytes exceeded"), StoreError::Full));
        assert!(matches!(meaning(10008, "temporarily unavailable"), StoreError::Unanswered { .. }));
        assert!(matches!(meaning(10111, "rollup not permitted"), StoreError::Refused { code: 10111, .. }));
    }
}
