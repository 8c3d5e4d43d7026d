//! Subscriptions: what passes by now, at most once.
//!
//! The reply subject of a message is never shown: whoever publishes to one lets its sender choose who hears
//! it.

use async_nats::{SubscribeErrorKind, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::time::timeout;

use crate::connect::Link;
use crate::error::SubscribeError;
use crate::header::Headers;

/// A message that passed by.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// Its subject.
    pub subject: String,
    /// Its headers.
    pub headers: Headers,
    /// Its body.
    pub payload: Bytes,
    /// Whether the sender asked for an answer on a subject of its own. Nobody gives one; see the module.
    pub has_reply: bool,
}

/// Where a republished message is stored, in the server's own words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The stream.
    pub stream: String,
    /// The subject it is stored under.
    pub subject: String,
    /// Its sequence.
    pub sequence: u64,
    /// Sequence of the message that was last on this subject before, 0 if none: a hole if it is not the one
    /// that was seen last.
    pub last_sequence: u64,
}

impl Delivery {
    /// For a message from a *republished* subject (`live.…`): where it is stored. On any other subject these
    /// headers are the sender's and mean nothing.
    pub fn origin(&self) -> Option<Origin> {
        Some(Origin {
            stream: self.headers.nats("Nats-Stream")?.to_owned(),
            subject: self.headers.nats("Nats-Subject")?.to_owned(),
            sequence: self.headers.nats_number("Nats-Sequence")?,
            last_sequence: self.headers.nats_number("Nats-Last-Sequence")?,
        })
    }
}

/// A subscription. Ends when dropped; comes back by itself after a reconnect, without what was missed.
#[derive(Debug)]
pub struct Subscription {
    subscriber: Subscriber,
}

impl Subscription {
    /// The next message; none after the link was closed. Cancel safe.
    pub async fn next(&mut self) -> Option<Delivery> {
        let message = self.subscriber.next().await?;
        Some(Delivery {
            subject: message.subject.into_string(),
            headers: Headers::from_received(message.headers),
            payload: message.payload,
            has_reply: message.reply.is_some(),
        })
    }
}

impl Link {
    /// Subscribes. When it returns, the request is on its way to the server, before anything that the same
    /// task publishes afterwards.
    ///
    /// # Errors
    /// [`SubscribeError`]. A subject that is not allowed is no error here: the server complains later, see
    /// [`crate::Counters::denied`].
    pub async fn subscribe(&self, subject: &str) -> Result<Subscription, SubscribeError> {
        self.bounded(subject, self.client.subscribe(subject.to_owned())).await
    }

    /// Subscribes as one of a group: each message reaches one member.
    ///
    /// # Errors
    /// [`SubscribeError`].
    pub async fn queue_subscribe(&self, subject: &str, group: &str) -> Result<Subscription, SubscribeError> {
        self.bounded(subject, self.client.queue_subscribe(subject.to_owned(), group.to_owned())).await
    }

    async fn bounded(
        &self,
        subject: &str,
        asked: impl Future<Output = Result<Subscriber, async_nats::SubscribeError>>,
    ) -> Result<Subscription, SubscribeError> {
        match timeout(self.ack_timeout, asked).await {
            Ok(Ok(subscriber)) => Ok(Subscription { subscriber }),
            Ok(Err(error)) if error.kind() != SubscribeErrorKind::Other => {
                Err(SubscribeError::Subject { subject: subject.to_owned() })
            }
            Ok(Err(_)) | Err(_) => Err(SubscribeError::Stalled { waited: self.ack_timeout }),
        }
    }
}
