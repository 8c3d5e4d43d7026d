//! A feed: what is, then what changes, for as long as one listens.
//!
//! It is opened anew at its last position whenever an answer is missing, the bridge is silent or says that it
//! stops. What it has given out is never given out again.

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use signalbox_link::{Delivery, Subscription};
use signalbox_schemas::{
    api::{
        Answer, AnswerBody, CommandSummary, Counts, Credit, FeedEvent, OpenFeed, RunView, Watch, chunk, op,
    },
    error::ErrorCode,
    id::{MachineId, RequestId},
    limit,
    output::OutputStream,
};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::{
    Client, ClientError,
    flow::{Flow, Gap, Piece},
};

/// First and longest wait before a feed is opened anew.
const REOPEN_MIN: Duration = Duration::from_millis(100);
const REOPEN_MAX: Duration = Duration::from_secs(3);
/// A listener that has nothing to credit says so this often, so that a bridge can tell it from one that died.
const SIGN_OF_LIFE: Duration = Duration::from_secs(10);

/// Something a feed tells.
#[derive(Debug, Clone, PartialEq)]
pub enum FeedItem {
    /// A command is new or changed.
    Command(CommandSummary),
    /// A run, as it is now.
    Run(RunView),
    /// Output, each byte once and in order.
    Output(Piece),
    /// Every run has settled and all output was told.
    Settled(Counts),
}

/// One opening of a feed.
#[derive(Debug)]
struct Opening {
    rid: RequestId,
    answers: Subscription,
    heard_at: Instant,
    spoke_at: Instant,
}

/// A feed. [`Self::close`] it when done, or the bridge keeps talking until it notices.
#[derive(Debug)]
pub struct Feed {
    client: Client,
    watch: Watch,
    flow: Flow,
    opening: Option<Opening>,
    /// An opening that was left and not closed yet.
    stale: Option<RequestId>,
    open_at: Instant,
    delay: Duration,
    ready: VecDeque<FeedItem>,
}

impl Feed {
    pub(super) fn new(client: Client, watch: Watch) -> Self {
        Self {
            client,
            watch,
            flow: Flow::default(),
            opening: None,
            stale: None,
            open_at: Instant::now(),
            delay: REOPEN_MIN,
            ready: VecDeque::new(),
        }
    }

    /// The next thing. Cancel safe.
    ///
    /// Calling it means that what it gave before is consumed: credit for it goes back to the bridge.
    ///
    /// # Errors
    /// [`ClientError::NoBridge`] and other retryable errors: call it again and it opens the feed anew.
    /// [`ClientError::Refused`]: there is no such feed. [`ClientError::Closed`]: never again.
    pub async fn next(&mut self) -> Result<FeedItem, ClientError> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Ok(item);
            }
            self.ensure_open().await?;
            self.give_credit().await?;
            let answered = self.flow.is_answered();
            let patience =
                Duration::from_millis(if answered { limit::FEED_SILENCE_MS } else { limit::FIRST_ANSWER_MS });
            let Some(opening) = &mut self.opening else { continue };
            let silent_at = opening.heard_at + patience;
            let wake_at = silent_at.min(opening.spoke_at + SIGN_OF_LIFE);
            match timeout_at(wake_at, opening.answers.next()).await {
                Ok(Some(delivery)) => {
                    opening.heard_at = Instant::now();
                    self.take(&delivery)?;
                }
                Ok(None) => return Err(ClientError::Closed),
                Err(_) if Instant::now() < silent_at => {}
                Err(_) => {
                    tracing::debug!(answered, "feed is silent, opened anew");
                    self.abandon();
                    if !answered {
                        self.client.forget_bridge();
                        return Err(ClientError::NoBridge(patience));
                    }
                }
            }
        }
    }

    /// Ends the feed.
    pub async fn close(mut self) {
        if let Some(opening) = self.opening.take() {
            // Best effort: a bridge that does not hear it notices by the missing credit.
            if let Err(error) = self.client.send(op::FEED_CLOSE, &opening.rid, Bytes::new()).await {
                tracing::debug!(error = signalbox_schemas::error::report(&error), "feed was not closed");
            }
            self.client.link().flush().await;
        }
    }

    async fn ensure_open(&mut self) -> Result<(), ClientError> {
        if self.opening.is_some() {
            return Ok(());
        }
        sleep_until(self.open_at).await;
        if let Some(rid) = self.stale.clone() {
            self.client.send(op::FEED_CLOSE, &rid, Bytes::new()).await?;
            self.stale = None;
        }
        let (rid, answers) = self.client.listen().await?;
        self.flow.reopen();
        let request = OpenFeed {
            watch: self.watch.clone(),
            position: self.flow.position(),
            credit: limit::FEED_CREDIT_BYTES,
        };
        let body = serde_json::to_vec(&request).map_err(|_| ClientError::Malformed(op::FEED_OPEN))?;
        let sent = self.client.send(op::FEED_OPEN, &rid, body.into()).await;
        let now = Instant::now();
        self.open_at = now + self.delay;
        self.delay = (self.delay * 2).min(REOPEN_MAX);
        sent?;
        self.opening = Some(Opening { rid, answers, heard_at: now, spoke_at: now });
        Ok(())
    }

    async fn give_credit(&mut self) -> Result<(), ClientError> {
        let Some(opening) = &mut self.opening else { return Ok(()) };
        let is_due = opening.spoke_at + SIGN_OF_LIFE <= Instant::now();
        let Some(bytes) = self.flow.credit_due().or(is_due.then_some(0)) else { return Ok(()) };
        let body =
            serde_json::to_vec(&Credit { bytes }).map_err(|_| ClientError::Malformed(op::FEED_CREDIT))?;
        self.client.send(op::FEED_CREDIT, &opening.rid, body.into()).await?;
        self.flow.credited(bytes);
        opening.spoke_at = Instant::now();
        Ok(())
    }

    /// Leaves this opening; the next one begins where it got to.
    fn abandon(&mut self) {
        self.stale = self.opening.take().map(|opening| opening.rid);
    }

    fn take(&mut self, delivery: &Delivery) -> Result<(), ClientError> {
        let taken = if delivery.headers.get(chunk::SEQ).is_some() {
            self.take_chunk(delivery)
        } else {
            self.take_answer(delivery)?
        };
        if taken == Err(Gap) {
            tracing::debug!("feed has a gap, opened anew");
            self.abandon();
        }
        Ok(())
    }

    fn take_chunk(&mut self, delivery: &Delivery) -> Result<(), Gap> {
        let head = ChunkHead::read(delivery).ok_or(Gap)?;
        self.flow.number(head.seq, &head.bridge)?;
        self.client.heard(&head.bridge);
        let piece = Piece {
            machine: head.machine,
            stream: head.stream,
            offset: head.offset,
            data: delivery.payload.clone(),
        };
        self.ready.extend(self.flow.chunk(piece, head.position).into_iter().map(FeedItem::Output));
        Ok(())
    }

    fn take_answer(&mut self, delivery: &Delivery) -> Result<Result<(), Gap>, ClientError> {
        let Ok(answer) = serde_json::from_slice::<Answer>(&delivery.payload) else { return Ok(Err(Gap)) };
        if let Err(gap) = self.flow.number(answer.seq, &answer.bridge) {
            return Ok(Err(gap));
        }
        self.client.heard(&answer.bridge);
        match answer.body {
            AnswerBody::Event(event) => Ok(self.take_event(*event)),
            AnswerBody::Error(problem) => {
                self.abandon();
                // These pass by themselves, the first in a moment: the feed is opened anew after its delay.
                match problem.code {
                    ErrorCode::NotCaughtUp => Ok(Ok(())),
                    ErrorCode::RateLimited => Err(ClientError::Busy(problem)),
                    _ => Err(ClientError::Refused(problem)),
                }
            }
            AnswerBody::Ok(_) => Err(ClientError::Malformed(op::FEED_OPEN)),
        }
    }

    fn take_event(&mut self, event: FeedEvent) -> Result<(), Gap> {
        self.delay = REOPEN_MIN;
        match event {
            FeedEvent::Command(summary) => self.ready.push_back(FeedItem::Command(summary)),
            FeedEvent::Run(run) => {
                if run.state.is_settled() {
                    let rest = self.flow.settled(&run.machine);
                    self.ready.extend(rest.into_iter().map(FeedItem::Output));
                }
                self.ready.push_back(FeedItem::Run(run));
            }
            FeedEvent::Settled { counts } => self.ready.push_back(FeedItem::Settled(counts)),
            FeedEvent::Alive { position } => self.flow.reached(position.unwrap_or_default()),
            FeedEvent::Closed => return Err(Gap),
        }
        Ok(())
    }
}

/// The headers of a chunk in a feed.
struct ChunkHead {
    seq: u64,
    bridge: String,
    machine: MachineId,
    stream: OutputStream,
    offset: u64,
    position: u64,
}

impl ChunkHead {
    fn read(delivery: &Delivery) -> Option<Self> {
        let get = |name| delivery.headers.get(name);
        Some(Self {
            seq: get(chunk::SEQ)?.parse().ok()?,
            bridge: get(chunk::BRIDGE)?.to_owned(),
            machine: MachineId::new(get(chunk::MACHINE)?).ok()?,
            stream: get(chunk::STREAM)?.parse().ok()?,
            offset: get(chunk::OFFSET)?.parse().ok()?,
            position: get(chunk::POSITION)?.parse().ok()?,
        })
    }
}
