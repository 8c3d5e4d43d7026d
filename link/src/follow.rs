//! Following a stream in order, from a sequence on, without losing or doubling anything.
//!
//! An ordered consumer of our own: an ephemeral pull consumer without acknowledgements whose numbering is
//! checked. At a gap, a lost connection or silence it is made anew after the last message delivered. The
//! client library has one too; it is not used because it retries for ever, silently, when the stream is deleted.
//! A message is told from the server's own words by its acknowledgement subject, which only the server can set;
//! sequence and time come from there. (nats-server 2.15 also removes a status line from what it stores, but the
//! reader does not rely on it.)
//!
//! After a lost connection the next message is read alone, through the JSON interface, before a consumer is
//! made: a publisher can store headers that are none, the client drops its connection when it meets them, and
//! a reader that only reconnected would meet them again for ever. So each of them costs one reconnect; where they
//! come in numbers, each further one doubles how many messages are read alone, and so a thousand cost ten.

mod consumer;

use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::stream::ConsumerErrorKind;
use futures_util::{FutureExt as _, StreamExt as _};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::api::{STREAM_NOT_FOUND, words};
use crate::connect::{Link, LinkState};
use crate::error::{FollowError, StreamError};
use crate::read::Message;
use crate::stream::state;
use consumer::{Consumer, Received};

/// Messages of one pull: at 100,000 a second still only 200 pulls a second.
const PULL_MESSAGES: usize = 500;
/// Bytes of one pull: what may wait in memory, and on the broker for one connection, with one follow per stream.
/// Above the largest message, which must fit.
const PULL_BYTES: usize = 2 * 1024 * 1024;
/// How long a pull may stay without messages before it is asked again.
const PULL_EXPIRES: Duration = Duration::from_secs(30);
/// The server speaks at least this often while a pull waits …
const IDLE_HEARTBEAT: Duration = Duration::from_secs(4);
/// … and is taken for gone after two of them were missed.
const SILENCE: Duration = Duration::from_secs(9);
/// The server forgets a consumer that nobody pulls from after this.
const INACTIVE: Duration = Duration::from_secs(30);
/// Most messages that are read alone after a lost connection: each is two questions, together below 1 ms.
const ALONE_MAX: u32 = 512;
/// Pause between attempts to make the consumer while the server cannot: doubles up to the second value.
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(2);

/// A reader of one stream. Its consumer ends with it.
#[derive(Debug)]
pub struct Follow {
    link: Link,
    state: watch::Receiver<LinkState>,
    stream: String,
    filter: Option<String>,
    /// The next message has this sequence or a higher one.
    next_sequence: u64,
    /// Time of the message before that one, if it was read, Unix milliseconds.
    last_ms: Option<u64>,
    /// Creation time of the stream as first seen.
    created_ms: Option<u64>,
    pending: u64,
    consumer: Option<Consumer>,
    /// Inbox of the consumer that is being made, and where it begins: an attempt that was given up may have reached the
    /// server, and the next one asks for the same consumer instead of leaving one behind.
    making: Option<(String, u64)>,
    /// The connection was lost under a consumer: read so many messages alone before the next one.
    alone: u32,
    /// How many that were after the last loss; 0 when the end of the stream was reached since.
    alone_last: u32,
    /// The last consumer delivered nothing: do not make the next one at once.
    barren: bool,
    /// Received while waiting, to be looked at first.
    received: Option<async_nats::Message>,
}

impl Link {
    /// Follows `stream` from `from_sequence` on (0 and 1: from its beginning), optionally only subjects that
    /// match `filter`. Nothing is asked before the first [`Follow::next_batch`].
    pub fn follow(&self, stream: &str, from_sequence: u64, filter: Option<&str>) -> Follow {
        Follow {
            link: self.clone(),
            state: self.state(),
            stream: stream.to_owned(),
            filter: filter.map(str::to_owned),
            next_sequence: from_sequence.max(1),
            last_ms: None,
            created_ms: None,
            pending: 0,
            consumer: None,
            making: None,
            alone: 0,
            alone_last: 0,
            barren: false,
            received: None,
        }
    }
}

impl Follow {
    /// Says when the message before the first one was stored, Unix milliseconds: if another one stands there, the stream
    /// has lost its end since, and has grown again.
    #[must_use]
    pub fn after(mut self, stored_ms: Option<u64>) -> Self {
        self.last_ms = stored_ms;
        self
    }

    /// Waits for at least one message, then takes what is ready without waiting, at most `max`, in order.
    /// Waits through disconnections, however long. Cancel safe: nothing is lost or doubled.
    ///
    /// # Errors
    /// [`FollowError`]: the stream is not the one that was followed; this reader is of no more use.
    pub async fn next_batch(&mut self, max: usize) -> Result<Vec<Message>, FollowError> {
        loop {
            if self.consumer.is_none()
                && let Some(message) = self.open().await?
            {
                return Ok(vec![message]);
            }
            let batch = self.take_ready(max.max(1));
            if !batch.is_empty() {
                // The next pull travels while the caller works.
                self.pull_if_exhausted().now_or_never();
                return Ok(batch);
            }
            self.pull_if_exhausted().await;
            self.wait().await?;
        }
    }

    /// How many more messages the stream held when the last one was delivered: 0 means that the reader had
    /// then seen all.
    pub fn pending(&self) -> u64 {
        self.pending
    }

    /// Sequence from which the next message comes.
    pub fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    /// When the stream was made, Unix milliseconds; known after the first [`Follow::next_batch`].
    pub fn created_ms(&self) -> Option<u64> {
        self.created_ms
    }

    /// Makes the consumer after the last message delivered, trying until there is a connection and a server
    /// that can. Gives a message instead if it had to read one alone.
    async fn open(&mut self) -> Result<Option<Message>, FollowError> {
        if std::mem::take(&mut self.barren) {
            sleep(RETRY_MAX).await;
        }
        let mut pause = RETRY_MIN;
        loop {
            let connected = self.state.wait_for(|state| state.is_connected || state.is_closed).await;
            let state = connected.map(|state| *state).map_err(|_| FollowError::Closed)?;
            if state.is_closed {
                return Err(FollowError::Closed);
            }
            let connects = state.connects;
            let mut state = self.state.clone();
            let made = tokio::select! {
                made = self.try_open(connects) => made,
                // What was asked on the old connection is never answered.
                _ = state.wait_for(|state| state.connects != connects || state.is_closed) => continue,
            };
            match made {
                Ok(found) => return Ok(found),
                Err(Some(error)) => return Err(error),
                // The server cannot just now: starting, or electing.
                Err(None) => sleep(pause).await,
            }
            pause = (pause * 2).min(RETRY_MAX);
        }
    }

    /// One attempt. `Err(None)`: try again.
    async fn try_open(&mut self, connects: u64) -> Result<Option<Message>, Option<FollowError>> {
        if self.alone > 0 {
            self.check_stream().await?;
            let filter = self.filter.as_deref().unwrap_or(">");
            let next = self.link.next_from_leader(&self.stream, self.next_sequence, filter).await;
            let next = next.map_err(|_| None)?;
            self.alone -= 1;
            if let Some(message) = next {
                (self.next_sequence, self.last_ms) = (message.sequence + 1, Some(message.time_ms));
                // Not known here; the consumer will tell.
                self.pending = 1;
                return Ok(Some(message));
            }
            (self.alone, self.alone_last) = (0, 0);
        }
        let consumer = self.create(connects).await?;
        // After the consumer: if the stream is replaced from now on, the consumer goes with it, and we learn.
        self.check_stream().await?;
        self.consumer = Some(consumer);
        self.making = None;
        Ok(None)
    }

    async fn create(&mut self, connects: u64) -> Result<Consumer, Option<FollowError>> {
        let begins_here = self.making.take_if(|(_, sequence)| *sequence == self.next_sequence);
        let (inbox, _) = begins_here.unwrap_or_else(|| (self.link.client.new_inbox(), self.next_sequence));
        self.making = Some((inbox.clone(), self.next_sequence));
        let config = pull::Config {
            name: Some(consumer_name(&inbox)),
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: self.next_sequence },
            ack_policy: AckPolicy::None,
            filter_subject: self.filter.clone().unwrap_or_default(),
            inactive_threshold: INACTIVE,
            num_replicas: 1,
            memory_storage: true,
            ..pull::Config::default()
        };
        let made = timeout(
            crate::connect::API_TIMEOUT,
            self.link.jetstream.create_consumer_on_stream(config, &self.stream),
        );
        let made = match made.await.map_err(|_| None)? {
            Ok(made) => made,
            Err(error) => return Err(self.create_failed(&error.kind())),
        };
        let subscribed = timeout(self.link.ack_timeout, self.link.client.subscribe(format!("{inbox}.*")));
        let Ok(Ok(messages)) = subscribed.await else { return Err(None) };
        let info = made.cached_info();
        self.pending = info.num_pending;
        Ok(Consumer {
            name: info.name.clone(),
            inbox,
            messages,
            connects,
            delivered: 0,
            pulls: 0,
            awaited: 0,
        })
    }

    fn create_failed(&self, kind: &ConsumerErrorKind) -> Option<FollowError> {
        let ConsumerErrorKind::JetStream(error) = kind else { return None };
        let stream = self.stream.clone();
        match error.error_code().0 {
            STREAM_NOT_FOUND => Some(FollowError::Gone { stream }),
            // 5xx: no leader, no resources, starting. Everything else will be refused again.
            code if error.code() < 500 => {
                Some(FollowError::Refused { stream, code, description: words(error) })
            }
            _ => None,
        }
    }

    /// Is it still the stream that was followed?
    async fn check_stream(&mut self) -> Result<(), Option<FollowError>> {
        let stream = self.stream.clone();
        let now = match self.link.stream_info(&stream).await {
            Ok(info) => state(&info),
            Err(StreamError::Missing { .. }) => return Err(Some(FollowError::Gone { stream })),
            Err(_) => return Err(None),
        };
        let known = *self.created_ms.get_or_insert(now.created_ms);
        if known != now.created_ms {
            return Err(Some(FollowError::Recreated { stream, created_ms: now.created_ms }));
        }
        let position = self.next_sequence - 1;
        if now.last < position || self.is_overwritten(position).await? {
            return Err(Some(FollowError::Rewound { stream, last: now.last, position }));
        }
        Ok(())
    }

    /// Whether the message that was read last is another one now: after a power failure a stream may have lost its end,
    /// and have grown past it before anybody looked. One that was purged since cannot tell.
    async fn is_overwritten(&self, position: u64) -> Result<bool, Option<FollowError>> {
        let Some(last_ms) = self.last_ms.filter(|_| position > 0) else { return Ok(false) };
        let stands = self.link.next_from_leader(&self.stream, position, ">").await.map_err(|_| None)?;
        Ok(stands.is_some_and(|message| message.sequence == position && message.time_ms != last_ms))
    }

    /// Asks for more if the present pull is exhausted.
    async fn pull_if_exhausted(&mut self) {
        let Some(consumer) = self.consumer.as_mut().filter(|consumer| consumer.awaited == 0) else { return };
        let batch = PULL_MESSAGES.min(self.link.subscription_capacity.saturating_sub(2).max(1));
        let body = json!({
            "batch": batch,
            "max_bytes": PULL_BYTES,
            "expires": nanos(PULL_EXPIRES),
            "idle_heartbeat": nanos(IDLE_HEARTBEAT),
        });
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{}.{}", self.stream, consumer.name);
        let reply = format!("{}.{}", consumer.inbox, consumer.pulls + 1);
        let sent = self.link.client.publish_with_reply(subject, reply, body.to_string().into());
        // A pull that could not be sent is noticed as silence.
        if timeout(self.link.ack_timeout, sent).await.is_ok_and(|sent| sent.is_ok()) {
            consumer.pulls += 1;
            consumer.awaited = batch;
        }
    }

    /// Waits until something was received or the consumer has to be made anew.
    async fn wait(&mut self) -> Result<(), FollowError> {
        let Some(consumer) = self.consumer.as_mut() else { return Ok(()) };
        let connects = consumer.connects;
        let lost = async {
            let lost = self.state.wait_for(|state| state.is_closed || state.connects != connects).await;
            lost.is_ok_and(|state| !state.is_closed)
        };
        tokio::select! {
            // What was received before the connection broke is good, and comes first.
            biased;
            message = consumer.messages.next() => match message {
                Some(message) => self.received = Some(message),
                None => return Err(FollowError::Closed),
            },
            is_back = lost => {
                if !is_back {
                    return Err(FollowError::Closed);
                }
                self.alone_last = (self.alone_last * 2).clamp(1, ALONE_MAX);
                self.alone = self.alone_last;
                self.consumer = None;
            }
            () = sleep(SILENCE) => self.abandon("silent"),
        }
        Ok(())
    }

    /// Takes what is ready, at most `max`. Does not wait.
    fn take_ready(&mut self, max: usize) -> Vec<Message> {
        let mut batch = Vec::new();
        while batch.len() < max {
            let Some(consumer) = self.consumer.as_mut() else { break };
            let next = match self.received.take() {
                Some(message) => Some(message),
                // Without the budget of the runtime: it would show a full queue as empty after 128 messages.
                None => tokio::task::coop::unconstrained(consumer.messages.next()).now_or_never().flatten(),
            };
            let Some(next) = next else { break };
            match consumer.look(&self.stream, next) {
                Received::Message(message, pending) => {
                    (self.next_sequence, self.last_ms) = (message.sequence + 1, Some(message.time_ms));
                    self.pending = pending;
                    batch.push(message);
                }
                Received::Broken => self.abandon("broken"),
                Received::Nothing => {}
            }
        }
        batch
    }

    /// Lets the server forget the consumer; a new one follows.
    fn abandon(&mut self, why: &'static str) {
        let Some(consumer) = self.consumer.take() else { return };
        self.barren = consumer.delivered == 0;
        tracing::debug!(stream = self.stream, why, "consumer is given up");
        self.delete(&consumer.name);
    }

    /// Has the server delete a consumer. If this does not get there, the server forgets it by itself.
    fn delete(&self, name: &str) {
        let subject = format!("$JS.API.CONSUMER.DELETE.{}.{name}", self.stream);
        let _ = self.link.client.publish(subject, bytes::Bytes::new()).now_or_never();
    }
}

impl Drop for Follow {
    fn drop(&mut self) {
        self.abandon("dropped");
        if let Some((inbox, _)) = self.making.take() {
            self.delete(&consumer_name(&inbox));
        }
    }
}

/// A consumer is named after its inbox, so that its name is as hard to guess.
fn consumer_name(inbox: &str) -> String {
    format!("follow-{}", inbox.rsplit('.').next().unwrap_or(inbox))
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
