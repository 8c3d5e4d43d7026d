//! This relay's side of the broker: its own subjects and nothing else. The shell around `signalbox-link`.

use std::time::Duration;

use bytes::Bytes;
use signalbox_link::{
    ACK_TIMEOUT, Headers, Link, LinkState, Message, PendingStore, PublishError, ReadError, Store, StoreError,
    SubscribeError, Subscription,
};
use signalbox_schemas::{
    id::{CommandId, MachineToken, Workspace},
    inventory::Inventory,
    output::{ChunkHead, eyes},
    signed::{Message as _, PublicKey, Signed},
    stream::{DOC, MBOX, RUN},
    subject::{FactKind, Subject},
};
use tokio::{sync::watch, time::Instant};

/// A signed fact, ready to be stored.
#[derive(Debug, Clone)]
pub(crate) struct FactMessage {
    pub(crate) cid: CommandId,
    pub(crate) kind: FactKind,
    /// For eyes: the type of the payload.
    pub(crate) type_name: &'static str,
    /// For eyes: one line.
    pub(crate) summary: String,
    /// The envelope.
    pub(crate) body: Bytes,
}

impl FactMessage {
    /// A fact of type `T`.
    pub(crate) fn new<T: signalbox_schemas::signed::Message>(
        cid: CommandId,
        kind: FactKind,
        signed: &Signed<T>,
        summary: String,
    ) -> Self {
        Self { cid, kind, type_name: T::TYPE, summary, body: signed.to_json().into() }
    }
}

/// The connection, with this machine's names in it. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Nats {
    link: Link,
    ws: Workspace,
    mid: MachineToken,
    by: PublicKey,
}

impl Nats {
    pub(crate) fn new(link: Link, ws: Workspace, mid: MachineToken, by: PublicKey) -> Self {
        Self { link, ws, mid, by }
    }

    /// Whether there is a connection, to be read or awaited.
    pub(crate) fn state(&self) -> watch::Receiver<LinkState> {
        self.link.state()
    }

    /// Waits for a connection; at once if there is one. For ever, if the link was closed.
    pub(crate) async fn connected(&self) {
        reach(self.link.state(), |state| state.is_connected).await;
    }

    /// How often a connection was made: the present one's number.
    pub(crate) fn connects(&self) -> u64 {
        self.link.state().borrow().connects
    }

    /// What the connection itself dropped or was denied.
    pub(crate) fn counters(&self) -> signalbox_link::Counters {
        self.link.counters()
    }

    /// Hears of every mailbox from now on.
    pub(crate) async fn subscribe_mailbox(&self) -> Result<Subscription, SubscribeError> {
        let subject = Subject::LiveMailbox(self.ws.clone(), self.mid.clone());
        self.link.subscribe(&subject.to_string()).await
    }

    /// The mailbox as it stands. Asked on the same connection as the subscription, so nothing falls between.
    pub(crate) async fn read_mailbox(&self) -> Result<Option<Message>, ReadError> {
        let subject = Subject::Mailbox(self.ws.clone(), self.mid.clone());
        self.link.last(MBOX, &subject.to_string()).await
    }

    /// The authors document as it stands.
    pub(crate) async fn read_authors(&self) -> Result<Option<Message>, ReadError> {
        self.link.last(DOC, &Subject::Authors(self.ws.clone()).to_string()).await
    }

    /// A run's register as it stands. What was sent before on this connection is seen.
    pub(crate) async fn read_register(&self, cid: CommandId) -> Result<Option<Message>, ReadError> {
        self.link.last(RUN, &self.run_subject(cid, FactKind::Claim)).await
    }

    /// Sends a fact, once, as the first message of its subject.
    pub(crate) async fn send_fact(&self, fact: &FactMessage) -> Result<OnItsWay, StoreError> {
        let headers = Headers::new()
            .with(eyes::TYPE, fact.type_name)
            .with(eyes::BY, self.by.as_str())
            .with(eyes::SUMMARY, &fact.summary);
        let message = Store::new(self.run_subject(fact.cid, fact.kind), fact.body.clone());
        self.send(message.with_headers(headers).only_first()).await
    }

    /// Sends a chunk of output, once.
    pub(crate) async fn send_chunk(
        &self,
        cid: CommandId,
        head: &ChunkHead,
        body: Bytes,
    ) -> Result<OnItsWay, StoreError> {
        let headers = head.to_headers().into_iter();
        let headers = headers.fold(Headers::new(), |headers, (name, value)| headers.with(name, &value));
        let subject = Subject::Output(self.ws.clone(), self.mid.clone(), cid).to_string();
        self.send(Store::new(subject, body).with_headers(headers)).await
    }

    /// Sends what this relay keeps, once.
    pub(crate) async fn send_inventory(&self, body: Bytes) -> Result<OnItsWay, StoreError> {
        let headers = Headers::new().with(eyes::TYPE, Inventory::TYPE).with(eyes::BY, self.by.as_str());
        let subject = Subject::Inventory(self.ws.clone(), self.mid.clone()).to_string();
        self.send(Store::new(subject, body).with_headers(headers)).await
    }

    async fn send(&self, message: Store) -> Result<OnItsWay, StoreError> {
        let (state, connects) = (self.link.state(), self.connects());
        let pending = self.link.store_pipelined(message).await?;
        Ok(OnItsWay { pending, state, connects })
    }

    /// Publishes a heartbeat without acknowledgement.
    pub(crate) async fn publish_heartbeat(&self, body: Bytes) -> Result<(), PublishError> {
        let subject = Subject::Heartbeat(self.ws.clone(), self.mid.clone());
        self.link.publish(&subject.to_string(), None, body).await
    }

    /// Hands over what was published.
    #[cfg(feature = "crash-points")]
    pub(crate) async fn flush(&self) -> bool {
        self.link.flush().await
    }

    /// Ends the connection, sending what waits for at most `within`.
    pub(crate) async fn close(&self, within: Duration) {
        if tokio::time::timeout(within, self.link.close()).await.is_err() {
            tracing::debug!("link closed with unsent messages");
        }
    }

    fn run_subject(&self, cid: CommandId, kind: FactKind) -> String {
        Subject::Run(self.ws.clone(), self.mid.clone(), cid, kind).to_string()
    }
}

/// Slowest link on which nothing is sent twice for its slowness, bytes per second.
const SLOWEST: u64 = 4_096;

/// How long to wait for the acknowledgement of so many bytes when nothing is known about the link.
pub(crate) fn first_patience(bytes: usize) -> Duration {
    ACK_TIMEOUT + Duration::from_secs(bytes as u64 / SLOWEST)
}

/// A message that was sent over one connection: its acknowledgement comes over that one or not at all.
#[derive(Debug)]
pub(crate) struct OnItsWay {
    pending: PendingStore,
    state: watch::Receiver<LinkState>,
    connects: u64,
}

impl OnItsWay {
    /// Waits for the acknowledgement until `patience` after the message was sent, or until there is another
    /// connection. Not cancel safe: the answer is lost with the future.
    pub(crate) async fn stored(self, patience: Duration) -> Result<(), StoreError> {
        let began = Instant::now();
        let connects = self.connects;
        tokio::select! {
            biased;
            stored = self.pending.stored_within(patience) => stored.map(|_| ()),
            () = reach(self.state, |state| state.connects != connects) => {
                Err(StoreError::Unanswered { waited: began.elapsed() })
            }
        }
    }
}

/// Waits for a state of the link; for ever, if the link is gone.
async fn reach(mut state: watch::Receiver<LinkState>, is_reached: impl FnMut(&LinkState) -> bool) {
    if state.wait_for(is_reached).await.is_err() {
        std::future::pending::<()>().await;
    }
}
