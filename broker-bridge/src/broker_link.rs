//! What the bridge writes to the broker, and how: streams, records, documents, signed facts.
//!
//! The broker's acknowledgement is the only promise. Writes that must not overwrite name the sequence they
//! expect; a lost acknowledgement is followed by reading back, never by guessing.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use signalbox_link::{Headers, Link, ReadError, Store, StoreError, Stored, StreamError};
use signalbox_schemas::{
    authors::Authors,
    error::report,
    id::{BridgeId, CommandId, MachineToken, Workspace},
    mailbox::Position,
    output::eyes,
    record::Edition,
    signed::{Message, PublicKey, Signed, SignedError, SigningKey},
    stream,
    subject::{FactKind, Subject},
};

use tokio::time::sleep;
use tracing::warn;

use crate::{core::now_ms, view::Cursors};

/// Tries for one record against writers of the same record: of two that write all the time, each wins half of them.
const RECORD_TRIES: u32 = 16;
/// Editions of one record that are read: more than the bucket keeps.
const EDITIONS: usize = 16;
/// Pause before the broker is asked again for what a start needs; each question has waited for seconds before.
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// Something could not be written to, or read from, the broker.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// A stream is missing, differs or cannot be asked about.
    #[error("stream {name} is not usable")]
    Stream {
        /// Which.
        name: String,
        /// Why.
        #[source]
        source: StreamError,
    },
    /// A write was not acknowledged; retryable if the cause is.
    #[error("cannot store {what}")]
    Store {
        /// What was written.
        what: String,
        /// Why.
        #[source]
        source: StoreError,
    },
    /// A read failed; retryable.
    #[error("cannot read {what}")]
    Read {
        /// What was read.
        what: String,
        /// Why.
        #[source]
        source: ReadError,
    },
    /// Somebody else writes the same record all the time; retryable.
    #[error("record {0} is written by somebody else at the same time")]
    Contended(String),
    /// The payload is above its limit. Not retryable.
    #[error("cannot sign {what}")]
    Sign {
        /// What was to be signed.
        what: String,
        /// Why.
        #[source]
        source: SignedError,
    },
}

impl BrokerError {
    /// Whether the broker only did not answer, or somebody else was faster: the same may succeed in a moment.
    fn is_passing(&self) -> bool {
        match self {
            Self::Stream { source, .. } => matches!(source, StreamError::Unanswered { .. }),
            Self::Store { source, .. } => matches!(source, StoreError::Unanswered { .. }),
            Self::Read { source, .. } => matches!(source, ReadError::Unanswered { .. }),
            Self::Contended(_) => true,
            Self::Sign { .. } => false,
        }
    }
}

/// Does what a start cannot do without, again for as long as the broker does not answer. A bridge that gave up would
/// take its embedded broker along, and every relay's connection with it, because of one lost answer.
///
/// # Errors
/// [`BrokerError`], when trying again would not help.
pub(crate) async fn until_answered<T, F>(mut attempt: impl FnMut() -> F) -> Result<T, BrokerError>
where
    F: Future<Output = Result<T, BrokerError>>,
{
    loop {
        match attempt().await {
            Err(error) if error.is_passing() => {
                warn!(error = report(&error), "the broker did not answer, it is asked again");
            }
            ended => return ended,
        }
        sleep(ASK_AGAIN).await;
    }
}

/// A record ready to be written: signed, with its subject.
#[derive(Debug, Clone)]
pub struct NewRecord {
    subject: String,
    body: Bytes,
    headers: Headers,
}

/// The write side. Clones share the connection.
#[derive(Debug, Clone)]
pub struct BrokerLink {
    link: Link,
    ws: Workspace,
    bridge: BridgeId,
    key: Arc<SigningKey>,
    /// In whose name, where it is not this bridge's own business.
    by: Option<Arc<str>>,
}

impl BrokerLink {
    /// Writes for `bridge`, signed with `key`.
    pub fn new(link: Link, ws: Workspace, bridge: BridgeId, key: Arc<SigningKey>) -> Self {
        Self { link, ws, bridge, key, by: None }
    }

    /// The same, in the name of somebody who asked for it: records say so to the audit.
    #[must_use]
    pub fn asked_by(&self, principal: &str) -> Self {
        Self { by: Some(principal.into()), ..self.clone() }
    }

    /// The connection.
    pub fn link(&self) -> &Link {
        &self.link
    }

    /// The workspace.
    pub fn ws(&self) -> &Workspace {
        &self.ws
    }

    /// This bridge.
    pub fn bridge(&self) -> &BridgeId {
        &self.bridge
    }

    /// This bridge's public key.
    pub fn public(&self) -> &PublicKey {
        self.key.public()
    }

    /// Makes every stream that is missing. One that exists keeps the administrator's sizes and ages.
    ///
    /// # Errors
    /// [`BrokerError::Stream`], naming the first that is not usable.
    pub async fn ensure_streams(&self) -> Result<(), BrokerError> {
        for def in stream::all() {
            let made = self.link.ensure_stream(&def).await;
            made.map_err(|source| BrokerError::Stream { name: def.name.to_owned(), source })?;
        }
        Ok(())
    }

    /// Signs a payload of ours and encodes it.
    pub(crate) fn signed<T: Message>(&self, payload: &T) -> Result<Bytes, BrokerError> {
        let failed = |source| BrokerError::Sign { what: T::TYPE.to_owned(), source };
        Ok(Signed::sign(payload, &self.key).map_err(failed)?.to_json().into())
    }

    /// Headers for eyes.
    pub(crate) fn headers<T: Message>(&self, summary: &str) -> Headers {
        let headers = Headers::new()
            .with(eyes::TYPE, T::TYPE)
            .with(eyes::BY, &format!("bridge:{}", self.bridge))
            .with(eyes::SUMMARY, summary);
        match &self.by {
            Some(by) => headers.with(eyes::FOR, by),
            None => headers,
        }
    }

    /// Publishes the authors document, if none or an older one stands there. The caller has checked it.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn publish_authors(&self, envelope: &[u8], doc: &Authors) -> Result<(), BrokerError> {
        let subject = Subject::Authors(self.ws.clone()).to_string();
        for _ in 0..RECORD_TRIES {
            let known = self.last(stream::DOC, &subject).await?;
            let known_doc =
                known.as_ref().and_then(|message| Signed::<Authors>::from_json(&message.payload).ok());
            let version = known_doc.and_then(|signed| signed.peek().ok()).map(|doc| doc.version);
            if version.is_some_and(|version| version >= doc.version) {
                return Ok(());
            }
            let message = Store::new(subject.clone(), envelope.to_vec())
                .with_headers(self.headers::<Authors>(&format!("version {}", doc.version)))
                .only_after(known.map_or(0, |message| message.sequence));
            match self.link.store(message).await {
                Ok(_) => return Ok(()),
                Err(StoreError::Taken { .. }) => {}
                Err(source) => return Err(BrokerError::Store { what: subject, source }),
            }
        }
        Err(BrokerError::Contended(subject))
    }

    /// Signs a record of the `state` bucket.
    ///
    /// # Errors
    /// [`BrokerError::Sign`], when it is too large.
    pub fn record<T: Message>(&self, table: &str, id: &str, record: &T) -> Result<NewRecord, BrokerError> {
        let subject = Subject::State(self.ws.clone(), table.to_owned(), id.to_owned()).to_string();
        Ok(NewRecord { subject, body: self.signed(record)?, headers: self.headers::<T>(id) })
    }

    /// Writes one record over whatever stands there, as its next edition; nothing is written if the same stands there
    /// already. Only what this bridge has signed counts as standing there. The answer is where to read it.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn put_record<T: Edition>(
        &self,
        table: &str,
        id: &str,
        record: &T,
    ) -> Result<Cursors, BrokerError> {
        let own = |key: &PublicKey, _| key == self.public();
        self.edit_record(table, id, own, |_| Some(record.clone())).await.map(|(_, cursors)| cursors)
    }

    /// Changes one record: `edit` makes the next edition of the newest one that a bridge has signed, or leaves it as it is
    /// (`None`). Nothing is written if it makes the same. A writer that was faster is no loss: `edit` is asked again, about
    /// what that one wrote. `is_bridge` says whether a key was a bridge's at a time, Unix ms.
    ///
    /// The answer is what stands there afterwards, if anything does, and where to read it.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn edit_record<T: Edition>(
        &self,
        table: &str,
        id: &str,
        is_bridge: impl Fn(&PublicKey, u64) -> bool,
        edit: impl Fn(Option<T>) -> Option<T>,
    ) -> Result<(Option<T>, Cursors), BrokerError> {
        let subject = Subject::State(self.ws.clone(), table.to_owned(), id.to_owned()).to_string();
        let created = self.created(stream::STATE).await?;
        let cursor = |sequence| Cursors::of(stream::STATE, Position { created, sequence });
        for _ in 0..RECORD_TRIES {
            let (last, stands) = self.standing::<T>(&subject, &is_bridge).await?;
            let revision = stands.clone().map_or(0, |mut record| *record.revision());
            let Some(mut next) = edit(stands.clone()) else { return Ok((stands, cursor(last))) };
            *next.revision() = revision;
            if stands.is_some_and(|stands| stands == next) {
                return Ok((Some(next), cursor(last)));
            }
            *next.revision() = now_ms().max(revision.saturating_add(1));
            let message = Store::new(subject.clone(), self.signed(&next)?)
                .with_headers(self.headers::<T>(id))
                .only_after(last);
            match self.link.store(message).await {
                Ok(stored) => return Ok((Some(next), cursor(stored.sequence))),
                // An earlier attempt of ours, or another bridge: look again.
                Err(StoreError::Taken { .. } | StoreError::Unanswered { .. }) => {}
                Err(source) => return Err(BrokerError::Store { what: subject, source }),
            }
        }
        Err(BrokerError::Contended(subject))
    }

    /// The sequence of the last message of a record's subject, 0 when there is none, and the newest edition that a bridge
    /// has signed. It counts wherever it stands: an older one may have been published again after it.
    async fn standing<T: Edition>(
        &self,
        subject: &str,
        is_bridge: &impl Fn(&PublicKey, u64) -> bool,
    ) -> Result<(u64, Option<T>), BrokerError> {
        // The leader knows the last one; the history comes from any replica, which may lag.
        let Some(last) = self.last(stream::STATE, subject).await? else { return Ok((0, None)) };
        let read = self.link.next_by_subject(stream::STATE, 1, subject, EDITIONS).await;
        let read = read.map_err(|source| BrokerError::Read { what: subject.to_owned(), source })?;
        let edition = |message: &signalbox_link::Message| {
            let signed = Signed::<T>::from_json(&message.payload).ok()?;
            let mut record = signed.open(|key| is_bridge(key, message.time_ms)).ok()?;
            Some((*record.revision(), record))
        };
        let newest = read.iter().chain([&last]).filter_map(edition).max_by_key(|(revision, _)| *revision);
        Ok((last.sequence, newest.map(|(_, record)| record)))
    }

    /// Writes new records, all or none; each must be the first of its subject. The answer is where to read them.
    ///
    /// # Errors
    /// [`BrokerError::Store`] with [`StoreError::Taken`] as cause when one of them exists.
    pub async fn put_records_atomic(&self, records: Vec<NewRecord>) -> Result<Cursors, BrokerError> {
        // Asked first: nothing may fail once the records are acknowledged.
        let created = self.created(stream::STATE).await?;
        let what = records.first().map(|record| record.subject.clone()).unwrap_or_default();
        let messages = records
            .into_iter()
            .map(|record| Store::new(record.subject, record.body).with_headers(record.headers).only_first());
        let stored = self.link.store_batch(messages.collect()).await;
        let stored = stored.map_err(|source| BrokerError::Store { what, source })?;
        Ok(Cursors::of(stream::STATE, Position { created, sequence: stored.sequence }))
    }

    /// The cursor that says that a stream was read up to `sequence`.
    pub(crate) async fn cursor(&self, name: &str, sequence: u64) -> Result<Cursors, BrokerError> {
        let created = self.created(name).await?;
        Ok(Cursors::of(name, Position { created, sequence }))
    }

    /// When a stream was made, Unix ms.
    async fn created(&self, name: &str) -> Result<u64, BrokerError> {
        let state = self.link.stream_state(name).await;
        let state = state.map_err(|source| BrokerError::Stream { name: name.to_owned(), source })?;
        Ok(state.created_ms)
    }

    /// The last message of a subject, from the leader.
    pub(crate) async fn last(
        &self,
        stream: &str,
        subject: &str,
    ) -> Result<Option<signalbox_link::Message>, BrokerError> {
        let read = self.link.last_from_leader(stream, subject).await;
        read.map_err(|source| BrokerError::Read { what: subject.to_owned(), source })
    }

    /// Writes a fact of ours as the first message of its subject.
    ///
    /// # Errors
    /// The link's [`StoreError`]: [`StoreError::Taken`] when somebody was first.
    pub(crate) async fn store_fact<T: Message>(
        &self,
        mid: &MachineToken,
        cid: CommandId,
        kind: FactKind,
        fact: &T,
        summary: &str,
    ) -> Result<Stored, StoreError> {
        let subject = Subject::Run(self.ws.clone(), mid.clone(), cid, kind).to_string();
        let refused = |error: &BrokerError| StoreError::Refused { code: 0, description: error.to_string() };
        let body = self.signed(fact).map_err(|error| refused(&error))?;
        self.link.store(Store::new(subject, body).with_headers(self.headers::<T>(summary)).only_first()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unanswered() -> BrokerError {
        let source = StreamError::Unanswered { stream: "RUN".to_owned(), source: "too late".into() };
        BrokerError::Stream { name: "RUN".to_owned(), source }
    }

    #[tokio::test]
    async fn what_was_not_answered_is_asked_again_and_what_was_refused_is_not() {
        let mut answers = vec![Ok(7), Err(unanswered()), Err(BrokerError::Contended("a".to_owned()))];
        let done = until_answered(|| std::future::ready(answers.pop().unwrap())).await;
        assert_eq!(done.unwrap(), 7);

        let refused = || StreamError::Mismatch { stream: "RUN".to_owned(), setting: "discard" };
        let refused = || BrokerError::Stream { name: "RUN".to_owned(), source: refused() };
        let mut asked = 0;
        let ended = until_answered(|| {
            asked += 1;
            std::future::ready(Err::<(), _>(refused()))
        });
        assert!(matches!(ended.await, Err(BrokerError::Stream { .. })));
        assert_eq!(asked, 1);
    }
}
