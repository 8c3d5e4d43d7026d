//! The end of the chain, and how it grows: each entry is stored only right behind the message that it names, and the next
//! one is sent when that is acknowledged.

use signalbox_link::{Message, Store, StoreError};
use signalbox_schemas::{
    audit::{AuditEntry, Entered, Link, Outcome, Reached},
    error::report,
    id::Sha256,
    signed::{PublicKey, Signed},
    stream::{AUDIT, DOC},
    subject::all_audits,
};
use tracing::warn;

use super::{Part, act::Act};
use crate::{
    broker_link::BrokerError,
    core::{Context, now_ms},
    ingest::read_to_end,
};

/// Tries to store one entry, against other bridges that write at the same time.
const TRIES: u32 = 16;
/// Messages at the end of the stream that may be no entries until the chain is given up: somebody with the broker's keys wrote
/// them.
const STRAY: u64 = 4_096;

/// The chain did not grow.
#[derive(Debug, thiserror::Error)]
pub(super) enum ChainError {
    /// Another bridge has entered it, or what comes after it.
    #[error("another bridge has entered it")]
    Entered,
    /// Others were faster each time.
    #[error("other bridges were faster {TRIES} times")]
    Contended,
    /// The broker did not answer, or refused.
    #[error("the broker did not take it")]
    Broker(#[from] BrokerError),
    /// The last messages are no entries of a bridge that is known.
    #[error("none of its last {STRAY} messages is an entry of a bridge")]
    Unreadable,
}

/// Where the chain ends, as far as it was read.
#[derive(Debug)]
pub(super) struct Chain {
    at: Link,
    entered: Entered,
}

/// An entry as it was signed.
struct Draft {
    entry: AuditEntry,
    message: Store,
    sha256: Sha256,
}

impl Chain {
    /// Looks where it ends: backwards, since it may be long.
    ///
    /// # Errors
    /// [`ChainError`].
    pub(super) async fn open(context: &Context) -> Result<Self, ChainError> {
        let subjects = all_audits(context.broker.ws());
        let Some(last) = context.broker.last(AUDIT, &subjects).await? else {
            return Ok(Self { at: Link::default(), entered: Entered::default() });
        };
        let (end, mut message) = (last.sequence, last);
        loop {
            if let Some(entry) = genuine(context, &message).await? {
                let at = Link { sequence: end, ..Link::of(message.sequence, &entry, &message.payload) };
                return Ok(Self { at, entered: entry.entered });
            }
            stray(context, &message);
            message = before(context, message.sequence, end).await?.ok_or(ChainError::Unreadable)?;
        }
    }

    /// How far the streams have been entered.
    pub(super) fn entered(&self) -> &Entered {
        &self.entered
    }

    /// Something was read that is nothing to enter; the next entry says so.
    pub(super) fn pass(&mut self, part: Part, reached: Reached) {
        *part.of(&mut self.entered) = reached;
    }

    /// Begins a stream again: it is not the one that was entered.
    pub(super) fn forget(&mut self, part: Part) {
        *part.of(&mut self.entered) = Reached::default();
    }

    /// Enters what was read at a place of a stream.
    ///
    /// # Errors
    /// [`ChainError`]. With [`ChainError::Entered`] it is known where the chain ends now.
    pub(super) async fn append(
        &mut self,
        context: &Context,
        act: &Act,
        (part, reached): (Part, Reached),
    ) -> Result<(), ChainError> {
        for _ in 0..TRIES {
            let entered = *part.of(&mut self.entered);
            if entered.covers(&reached) {
                return Err(ChainError::Entered);
            }
            let mut next = self.entered;
            *part.of(&mut next) = reached;
            if self.store(context, act, next).await? {
                return Ok(());
            }
        }
        Err(ChainError::Contended)
    }

    /// Enters what stands in no stream.
    ///
    /// # Errors
    /// [`ChainError`].
    pub(super) async fn append_refused(&mut self, context: &Context, act: &Act) -> Result<(), ChainError> {
        for _ in 0..TRIES {
            let entered = self.entered;
            if self.store(context, act, entered).await? {
                return Ok(());
            }
        }
        Err(ChainError::Contended)
    }

    /// Stores one entry; false: not here, where somebody else has written meanwhile.
    async fn store(&mut self, context: &Context, act: &Act, entered: Entered) -> Result<bool, ChainError> {
        let draft = self.draft(context, act, entered)?;
        match context.shared.link.store(draft.message).await {
            Ok(stored) => {
                self.at = Link { n: draft.entry.n, sha256: draft.sha256, sequence: stored.sequence };
                self.entered = entered;
                Ok(true)
            }
            // It may be there all the same: an answer was lost.
            Err(StoreError::Taken { .. } | StoreError::Unanswered { .. }) => {
                self.catch_up(context, draft.sha256).await
            }
            Err(source) => {
                Err(BrokerError::Store { what: "an entry of the audit chain".to_owned(), source }.into())
            }
        }
    }

    fn draft(&self, context: &Context, act: &Act, entered: Entered) -> Result<Draft, ChainError> {
        let broker = &context.broker;
        let entry = AuditEntry {
            ws: broker.ws().clone(),
            n: self.at.n.saturating_add(1),
            before: self.at.sha256,
            after: self.at.sequence,
            bridge: broker.bridge().clone(),
            written_at: now_ms(),
            actor: act.actor.clone(),
            action: act.action.clone(),
            about: act.about.clone(),
            outcome: act.outcome.clone(),
            entered,
        };
        let body = broker.signed(&entry)?;
        let summary = format!("{} {} {}", act.actor, act.action, act.about);
        let headers = broker.headers::<AuditEntry>(summary.trim_end());
        let sha256 = Sha256::of(&body);
        let message = Store::new(entry.subject().to_string(), body).with_headers(headers);
        let message = message.only_after_all(&all_audits(broker.ws()), self.at.sequence);
        Ok(Draft { entry, message, sha256 })
    }

    /// Reads on to the end; answers whether an entry of that hash stands there.
    async fn catch_up(&mut self, context: &Context, wanted: Sha256) -> Result<bool, ChainError> {
        let mut is_there = false;
        while let Some(message) = next(context, self.at.sequence + 1).await? {
            let entry = believed(context, &message).await;
            let followed =
                entry.filter(|entry| self.at.follow(message.sequence, entry, &message.payload).is_ok());
            if let Some(entry) = followed {
                self.entered = entry.entered;
                is_there |= self.at.sha256 == wanted;
            } else {
                stray(context, &message);
                self.at.sequence = message.sequence;
            }
        }
        Ok(is_there)
    }
}

/// The first message of the workspace from a sequence on.
async fn next(context: &Context, sequence: u64) -> Result<Option<Message>, BrokerError> {
    let subjects = all_audits(context.broker.ws());
    let found = context.shared.link.next_from_leader(AUDIT, sequence, &subjects).await;
    found.map_err(|source| BrokerError::Read { what: subjects, source })
}

/// The workspace's last message before one; none where there is none, or none among [`STRAY`] before the end.
async fn before(context: &Context, sequence: u64, end: u64) -> Result<Option<Message>, BrokerError> {
    for candidate in (end.saturating_sub(STRAY).max(1)..sequence).rev() {
        let found = next(context, candidate).await?;
        if let Some(message) = found.filter(|message| message.sequence < sequence) {
            return Ok(Some(message));
        }
    }
    Ok(None)
}

/// The entry that a message is, if it was written to stand there: an older one that was stored once more is none.
async fn genuine(context: &Context, message: &Message) -> Result<Option<AuditEntry>, BrokerError> {
    let Some(entry) = believed(context, message).await else { return Ok(None) };
    let first = next(context, entry.after.saturating_add(1)).await?;
    Ok(first.is_some_and(|first| first.sequence == message.sequence).then_some(entry))
}

/// What a bridge says there.
async fn believed(context: &Context, message: &Message) -> Option<AuditEntry> {
    let signed = Signed::<AuditEntry>::from_json(&message.payload).ok()?;
    // The hash is of the body, and what is read of it is written again by whoever checks.
    if signed.to_json() != *message.payload {
        return None;
    }
    let is_known = |key: &PublicKey| {
        let authors = context.shared.memory().authors.as_ref().map(|authors| authors.doc.clone());
        authors.is_some_and(|doc| doc.was_bridge(key, message.time_ms))
    };
    if !is_known(signed.key()) {
        // A bridge that has joined since its authors document was read.
        read_to_end(&context.shared, &[DOC]).await;
    }
    let entry = signed.open(is_known).ok()?;
    let is_its = entry.ws == *context.broker.ws() && entry.subject().to_string() == message.subject;
    is_its.then_some(entry)
}

/// Says that a message is no entry: somebody with the broker's keys wrote it.
fn stray(context: &Context, message: &Message) {
    let count = context.shared.counters.add("audit.stray");
    if count.is_power_of_two() {
        let sequence = message.sequence;
        warn!(sequence, count, "a message of the audit stream is no entry, and is passed over");
    }
}

impl Act {
    /// What was refused, so often.
    pub(super) fn refused(refusal: &super::refusals::Refusal, count: u64) -> Self {
        let outcome = Outcome::Refused { code: refusal.code, count };
        let (actor, action) = (refusal.actor.clone(), refusal.action.clone());
        Self { actor, action, about: String::new(), outcome }
    }
}

/// Logs what keeps the chain from growing, seldom.
pub(super) fn complain(context: &Context, error: &ChainError) {
    let count = context.shared.counters.add("audit.again");
    if count.is_power_of_two() {
        warn!(error = report(error), count, "the audit chain does not grow, it is tried again");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use signalbox_schemas::{authors::Authors, error::ErrorCode, id::Workspace, limit::DAY_MS};

    use super::*;
    use crate::{
        audit::refusals::Refusal,
        core::still::{Still, key},
        projection::memory::AuthorsDoc,
    };

    /// A bridge that knows itself, and a broker with streams.
    async fn bridge() -> Still {
        let still = Still::start().await.unwrap();
        still.context.broker.ensure_streams().await.unwrap();
        let doc = Authors {
            ws: Workspace::main(),
            version: 1,
            issued_at: now_ms(),
            not_after: now_ms() + DAY_MS,
            authors: vec![],
            issuers: vec![],
            bridges: vec![key(2).public().clone()],
            former_bridges: vec![],
            next_fleet_key: None,
            crit: vec![],
        };
        let doc = AuthorsDoc { doc: Arc::new(doc), sha256: Sha256::of(b"") };
        still.context.shared.memory_mut().authors = Some(doc);
        still
    }

    fn act(about: &str) -> Act {
        let refusal = Refusal { actor: "nobody".into(), action: "http".into(), code: ErrorCode::Forbidden };
        Act { about: about.to_owned(), ..Act::refused(&refusal, 1) }
    }

    /// What entries are about, which must be one chain.
    async fn entries(context: &Context) -> Vec<String> {
        let (mut at, mut about) = (Link::default(), Vec::new());
        while let Some(message) = next(context, at.sequence + 1).await.unwrap() {
            let entry = believed(context, &message).await.unwrap();
            at.follow(message.sequence, &entry, &message.payload).unwrap();
            about.push(entry.about);
        }
        about
    }

    /// Each of them is refused whenever the other was faster, and nothing of either is lost.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn two_who_write_at_once_make_one_chain() {
        let still = bridge().await;
        let write = async |who: &str| {
            let mut chain = Chain::open(&still.context).await.unwrap();
            for n in 0..50 {
                chain.append_refused(&still.context, &act(&format!("{who} {n}"))).await.unwrap();
            }
        };
        tokio::join!(write("one"), write("other"));
        let about = entries(&still.context).await;
        assert_eq!(about.len(), 100);
        for who in ["one", "other"] {
            let own: Vec<&String> = about.iter().filter(|about| about.starts_with(who)).collect();
            let expected: Vec<String> = (0..50).map(|n| format!("{who} {n}")).collect();
            assert_eq!(own, expected.iter().collect::<Vec<_>>());
        }
        assert_ne!(about[..50], about[50..], "they took turns");
    }

    /// A holder of the lease that does not know yet that it is none any more.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_two_want_to_enter_is_entered_once() {
        let still = bridge().await;
        let write = async || {
            let mut chain = Chain::open(&still.context).await.unwrap();
            let mut late = 0;
            for n in 1..=50 {
                let reached = Reached { created: 7, sequence: n, stored_at: n };
                match chain.append(&still.context, &act(&n.to_string()), (Part::Specs, reached)).await {
                    Ok(()) => {}
                    Err(ChainError::Entered) => late += 1,
                    Err(error) => panic!("{error}"),
                }
            }
            late
        };
        let (one, other) = tokio::join!(write(), write());
        // The same in the same millisecond is the same entry, of one bridge.
        assert!(one + other > 0, "they never met");
        assert_eq!(entries(&still.context).await, (1..=50).map(|n| n.to_string()).collect::<Vec<_>>());
    }

    /// An older entry that stands at the end once more is not taken for the end.
    #[tokio::test]
    async fn an_entry_counts_only_where_it_was_written_to_stand() {
        let still = bridge().await;
        let context = &still.context;
        let mut chain = Chain::open(context).await.unwrap();
        for n in 0..3 {
            chain.append_refused(context, &act(&n.to_string())).await.unwrap();
        }
        let first = next(context, 1).await.unwrap().unwrap();
        for _ in 0..3 {
            let again = Store::new(first.subject.clone(), first.payload.clone());
            context.shared.link.store(again).await.unwrap();
        }
        let opened = Chain::open(context).await.unwrap();
        assert_eq!((opened.at.n, opened.at.sequence), (3, 6));
        // Who was there before goes on behind them too.
        chain.append_refused(context, &act("3")).await.unwrap();
        assert_eq!((chain.at.n, chain.at.sequence), (4, 7));
    }
}
