//! Answers to one request, numbered from 0.

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;
use signalbox_link::{Headers, Link, PublishError};
use signalbox_schemas::{
    api::{Answer, AnswerBody, FeedEvent, chunk},
    error::{ErrorCode, Problem, report},
    id::{MachineId, OperatorId, RequestId},
    output::OutputStream,
    subject::Subject,
};
use tokio::time::Instant;
use tracing::{debug, warn};

use super::End;
use crate::{api::Api, rpc::OutputAnswer};

/// Where the answers to one request go, and how many went.
pub(crate) struct Answers {
    link: Link,
    subject: String,
    bridge: String,
    seq: u64,
    spoke_at: Instant,
}

/// An [`Answer`] with a result, as [`AnswerBody::Ok`] is written. The result is put in as it was written: a page of a list
/// has half a megabyte, and would become a tree of values and text once more.
#[derive(Serialize)]
struct Done<'a> {
    seq: u64,
    bridge: &'a str,
    ok: &'a RawValue,
}

/// What a chunk message says of its bytes.
pub(super) struct ChunkHead<'a> {
    pub(super) machine: &'a MachineId,
    pub(super) stream: OutputStream,
    pub(super) offset: u64,
    pub(super) position: u64,
}

impl Answers {
    pub(crate) fn new(api: &Api, operator: &OperatorId, rid: &RequestId) -> Self {
        Self {
            link: api.operators().clone(),
            subject: Subject::Feed(api.ws().clone(), operator.clone(), rid.clone()).to_string(),
            bridge: api.bridge().to_string(),
            seq: 0,
            spoke_at: Instant::now(),
        }
    }

    /// When the last answer went.
    pub(super) fn spoke_at(&self) -> Instant {
        self.spoke_at
    }

    /// The only answer: a result. One that is too large for a message is refused instead.
    pub(crate) async fn ok(&mut self, result: &RawValue) {
        let done = Done { seq: self.seq, bridge: &self.bridge, ok: result };
        // It is JSON already.
        let json = serde_json::to_vec(&done).unwrap_or_default();
        match self.publish(None, json.into()).await {
            Err(PublishError::TooLarge { size, limit }) => {
                let message =
                    format!("the answer is {size} bytes, above {limit}; ask for less, or open a feed");
                self.refuse(Problem::new(ErrorCode::TooLarge, message)).await;
            }
            sent => log_unsent(sent),
        }
    }

    /// The only answer: a refusal.
    pub(crate) async fn refuse(&mut self, problem: Problem) {
        log_unsent(self.send(AnswerBody::Error(problem)).await);
    }

    /// The only answer: output.
    pub(crate) async fn range(&mut self, range: &OutputAnswer) {
        let headers = self
            .head(&range.machine, range.stream, range.offset)
            .with(chunk::TOTAL, &range.total.to_string())
            .with(chunk::TRUNCATED, if range.truncated { "true" } else { "false" });
        log_unsent(self.publish(Some(headers), range.bytes.clone()).await);
    }

    /// Something happened. An event that is above the limit of a message is left out, without a number.
    pub(super) async fn event(&mut self, event: &FeedEvent) -> Result<(), End> {
        match self.send(AnswerBody::Event(Box::new(event.clone()))).await {
            Err(PublishError::TooLarge { size, limit }) => {
                warn!(size, limit, "a feed's event is too large and was left out");
                Ok(())
            }
            sent => sent.map_err(|error| unsent(&error)),
        }
    }

    /// Output, as it is.
    pub(super) async fn chunk(&mut self, head: ChunkHead<'_>, bytes: Bytes) -> Result<(), End> {
        let headers = self
            .head(head.machine, head.stream, head.offset)
            .with(chunk::POSITION, &head.position.to_string());
        self.publish(Some(headers), bytes).await.map_err(|error| unsent(&error))
    }

    fn head(&self, machine: &MachineId, stream: OutputStream, offset: u64) -> Headers {
        Headers::new()
            .with(chunk::SEQ, &self.seq.to_string())
            .with(chunk::BRIDGE, &self.bridge)
            .with(chunk::MACHINE, machine.as_str())
            .with(chunk::STREAM, stream.as_str())
            .with(chunk::OFFSET, &offset.to_string())
    }

    async fn send(&mut self, body: AnswerBody) -> Result<(), PublishError> {
        let answer = Answer { seq: self.seq, bridge: self.bridge.clone(), body };
        // Every body has a JSON form: texts, numbers and values that were JSON before.
        let json = serde_json::to_vec(&answer).unwrap_or_default();
        self.publish(None, json.into()).await
    }

    async fn publish(&mut self, headers: Option<Headers>, payload: Bytes) -> Result<(), PublishError> {
        self.link.publish(&self.subject, headers, payload).await?;
        self.seq += 1;
        self.spoke_at = Instant::now();
        Ok(())
    }
}

fn unsent(error: &PublishError) -> End {
    debug!(error = report(error), "a feed's message was not taken");
    End::Unsent
}

fn log_unsent(sent: Result<(), PublishError>) {
    if let Err(error) = sent {
        debug!(error = report(&error), "an answer was not taken");
    }
}
