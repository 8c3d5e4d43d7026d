//! Requests and answers over the broker.
//!
//! A request is published to `api.<ws>.<op>.<noun>.<verb>.<rid>` without a reply subject; its answer comes on
//! `feed.<ws>.<op>.<rid>`, which is subscribed first. What changes something is signed.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use signalbox_link::{Delivery, Link, Options, Subscription};
use signalbox_schemas::{
    api::{Answer, AnswerBody, ReadOutput, Request, chunk, op},
    error::{ErrorCode, Problem},
    id::{Nonce, RequestId},
    limit,
    signed::Signed,
    subject::Subject,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};
use uuid::Uuid;

use super::{Access, ClientError, clock::now_ms, feed::Feed};

/// How long a bridge may be still reading its streams before a request gives up.
const CATCH_UP: Duration = Duration::from_secs(10);
/// Wait between two tries meanwhile.
const CATCH_UP_STEP: Duration = Duration::from_millis(250);

/// A range of output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputRange {
    /// Offset of the first byte: beyond what was asked for when bytes in between were left out.
    pub offset: u64,
    /// Bytes the stream has in all.
    pub total_bytes: u64,
    /// Whether bytes were left out.
    pub is_truncated: bool,
    /// The bytes; empty at the end.
    #[serde(with = "super::in_base64")]
    pub data: Bytes,
}

/// An [`Answer`] to a request, its result read in one go: a page of a list has half a megabyte, which would be read
/// three times on the way through a [`serde_json::Value`].
#[derive(Deserialize)]
struct Reply<R> {
    bridge: String,
    ok: Option<R>,
    error: Option<Problem>,
}

/// An operator's connection. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    link: Link,
    access: Access,
    bridge: Arc<watch::Sender<Option<String>>>,
}

impl Client {
    /// Connects. With `for_ever` it returns at once and keeps trying in the background.
    ///
    /// # Errors
    /// [`ClientError::Connect`].
    pub async fn connect(access: Access, for_ever: bool) -> Result<Self, ClientError> {
        let options =
            Options { retry_forever: for_ever, ..Options::operator(&access.nats_url, access.login.clone()) };
        let link = Link::connect(options).await.map_err(ClientError::Connect)?;
        Ok(Self { link, access, bridge: Arc::new(watch::Sender::new(None)) })
    }

    /// The connection itself.
    pub fn link(&self) -> &Link {
        &self.link
    }

    /// Who asks.
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// The bridge that answered last, to be read or awaited.
    pub fn bridge(&self) -> watch::Receiver<Option<String>> {
        self.bridge.subscribe()
    }

    /// Forgets who answered last: the connection was lost, or nobody answers.
    pub fn forget_bridge(&self) {
        self.bridge.send_if_modified(|bridge| bridge.take().is_some());
    }

    /// Asks for something that changes nothing.
    ///
    /// # Errors
    /// [`ClientError`]; all but [`ClientError::Refused`] and [`ClientError::Malformed`] are retryable.
    pub async fn ask<A, R>(&self, op: &'static str, args: &A) -> Result<R, ClientError>
    where
        A: Serialize + Sync,
        R: DeserializeOwned,
    {
        let body = serde_json::to_vec(args).map_err(|_| ClientError::Malformed(op))?;
        self.until_caught_up(op, || Ok(body.clone())).await
    }

    /// Asks for a change, signed. Each try has a nonce of its own.
    ///
    /// # Errors
    /// [`ClientError`]; after [`ClientError::NoBridge`] it is not known whether the change was made.
    pub async fn change<A, R>(&self, op: &'static str, args: &A) -> Result<R, ClientError>
    where
        A: Serialize + Sync,
        R: DeserializeOwned,
    {
        let args = serde_json::to_value(args).map_err(|_| ClientError::Malformed(op))?;
        self.until_caught_up(op, || {
            let request = Request {
                ws: self.access.ws.clone(),
                op: op.to_owned(),
                args: args.clone(),
                nonce: Nonce(random()),
                issued_at: now_ms(),
            };
            Ok(Signed::sign(&request, &self.access.key).map_err(ClientError::Sign)?.to_json())
        })
        .await
    }

    /// Reads a range of output.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn read_output(&self, asked: &ReadOutput) -> Result<OutputRange, ClientError> {
        let body = serde_json::to_vec(asked).map_err(|_| ClientError::Malformed(op::COMMANDS_OUTPUT))?;
        let answer = self.exchange(op::COMMANDS_OUTPUT, body.into()).await?;
        if answer.headers.get(chunk::SEQ).is_none() {
            let problem = match self.parse(op::COMMANDS_OUTPUT, &answer)? {
                AnswerBody::Error(problem) => ClientError::Refused(problem),
                AnswerBody::Ok(_) | AnswerBody::Event(_) => ClientError::Malformed(op::COMMANDS_OUTPUT),
            };
            return Err(problem);
        }
        let number = |name| answer.headers.get(name).and_then(|text| text.parse::<u64>().ok());
        let (Some(offset), Some(total_bytes)) = (number(chunk::OFFSET), number(chunk::TOTAL)) else {
            return Err(ClientError::Malformed(op::COMMANDS_OUTPUT));
        };
        let is_truncated = answer.headers.get(chunk::TRUNCATED) == Some("true");
        Ok(OutputRange { offset, total_bytes, is_truncated, data: answer.payload })
    }

    /// A feed; it is opened by its first [`Feed::next`].
    pub fn feed(&self, watch: signalbox_schemas::api::Watch) -> Feed {
        Feed::new(self.clone(), watch)
    }

    /// Subscribes where the answers of a new request will come.
    pub(super) async fn listen(&self) -> Result<(RequestId, Subscription), ClientError> {
        let rid = RequestId::from_random(random());
        let subject = Subject::Feed(self.access.ws.clone(), self.access.operator.clone(), rid.clone());
        let answers = self.link.subscribe(&subject.to_string()).await.map_err(ClientError::Subscribe)?;
        Ok((rid, answers))
    }

    /// Publishes a request.
    pub(super) async fn send(&self, op: &str, rid: &RequestId, body: Bytes) -> Result<(), ClientError> {
        let (noun, verb) = op.split_once('.').unwrap_or((op, ""));
        let access = &self.access;
        let subject = Subject::Api(
            access.ws.clone(),
            access.operator.clone(),
            noun.to_owned(),
            verb.to_owned(),
            rid.clone(),
        );
        self.link.publish(&subject.to_string(), None, body).await.map_err(ClientError::Publish)
    }

    /// Remembers who answered.
    pub(super) fn heard(&self, bridge: &str) {
        self.bridge.send_if_modified(|known| {
            let is_new = known.as_deref() != Some(bridge);
            if is_new {
                *known = Some(bridge.to_owned());
            }
            is_new
        });
    }

    async fn until_caught_up<R: DeserializeOwned>(
        &self,
        op: &'static str,
        body: impl Fn() -> Result<Vec<u8>, ClientError>,
    ) -> Result<R, ClientError> {
        let give_up = Instant::now() + CATCH_UP;
        loop {
            let answer = self.exchange(op, body()?.into()).await?;
            let Ok(reply) = serde_json::from_slice::<Reply<R>>(&answer.payload) else {
                // Whoever answers something else answers all the same.
                self.parse(op, &answer)?;
                return Err(ClientError::Malformed(op));
            };
            self.heard(&reply.bridge);
            match (reply.ok, reply.error) {
                (Some(result), None) => return Ok(result),
                (None, Some(Problem { code: ErrorCode::NotCaughtUp, .. })) if Instant::now() < give_up => {
                    sleep(CATCH_UP_STEP).await;
                }
                (None, Some(problem)) => return Err(ClientError::Refused(problem)),
                _ => return Err(ClientError::Malformed(op)),
            }
        }
    }

    /// One request, one answer.
    async fn exchange(&self, op: &'static str, body: Bytes) -> Result<Delivery, ClientError> {
        let first_answer = Duration::from_millis(limit::FIRST_ANSWER_MS);
        let (rid, mut answers) = self.listen().await?;
        self.send(op, &rid, body).await?;
        match timeout(first_answer, answers.next()).await {
            Ok(Some(answer)) => {
                if let Some(bridge) = answer.headers.get(chunk::BRIDGE) {
                    self.heard(bridge);
                }
                Ok(answer)
            }
            Ok(None) => Err(ClientError::Closed),
            Err(_) => {
                self.forget_bridge();
                Err(ClientError::NoBridge(first_answer))
            }
        }
    }

    fn parse(&self, op: &'static str, answer: &Delivery) -> Result<AnswerBody, ClientError> {
        let answer: Answer =
            serde_json::from_slice(&answer.payload).map_err(|_| ClientError::Malformed(op))?;
        self.heard(&answer.bridge);
        Ok(answer.body)
    }
}

/// 16 bytes with 122 random bits from the operating system.
fn random() -> [u8; 16] {
    Uuid::new_v4().into_bytes()
}
