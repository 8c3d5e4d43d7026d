//! Facts on their way: each is sent again until it is acknowledged, for as long as it takes.
//!
//! A fact lies in the journal before it is sent, so it survives a restart. Subjects of facts are write-once: one
//! that stands there already has arrived, so repeats are harmless and «taken» is as good as «stored».

use std::time::Duration;

use signalbox_link::{
    StoreError,
    crash::{Part, Point, hit},
};
use signalbox_schemas::subject::FactKind;

use crate::{
    backoff::Backoff,
    counters::Counters,
    nats_link::{FactMessage, Nats, first_patience},
};

/// First and longest wait before a fact is sent again: a full stream or a missing leader is asked ten times a
/// minute, and a lost acknowledgement is made good at once.
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LONGEST_RETRY: Duration = Duration::from_secs(5);
/// Longest wait for one acknowledgement. It doubles with every silence: over a slow link, behind the output of other
/// runs, an exit takes its time, and what is sent again makes all else later.
const LONGEST_PATIENCE: Duration = Duration::from_mins(1);

/// What became of a fact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivered {
    /// Acknowledged.
    Stored,
    /// Something stands there. At the first try it is not ours.
    Taken { first_try: bool },
    /// No broker will ever take it.
    Impossible,
}

/// Sends a fact until it is acknowledged. Waits for a connection where there is none.
pub(crate) async fn deliver(nats: Nats, fact: FactMessage, counters: Counters) -> Delivered {
    let mut backoff = Backoff::new(FIRST_RETRY, LONGEST_RETRY);
    let mut first_try = true;
    let mut patience = first_patience(fact.body.len());
    loop {
        nats.connected().await;
        match attempt(&nats, &fact, patience).await {
            Ok(()) => return Delivered::Stored,
            Err(StoreError::Taken { .. }) => return Delivered::Taken { first_try },
            Err(error @ StoreError::TooLarge { .. }) => {
                tracing::error!(cid = %fact.cid, kind = fact.kind.as_str(), %error, "fact cannot be sent");
                return Delivered::Impossible;
            }
            Err(error) => {
                let reason = match error {
                    StoreError::Full => "fact_full",
                    StoreError::Refused { .. } => "fact_refused",
                    _ => "fact_unanswered",
                };
                if matches!(error, StoreError::Unanswered { waited } if waited >= patience) {
                    patience = (patience * 2).min(LONGEST_PATIENCE);
                }
                if counters.count(reason) {
                    tracing::warn!(cid = %fact.cid, kind = fact.kind.as_str(), %error, "fact waits");
                }
            }
        }
        first_try = false;
        tokio::time::sleep(backoff.delay()).await;
    }
}

/// Sends a fact once and waits for its acknowledgement.
pub(crate) async fn attempt(nats: &Nats, fact: &FactMessage, patience: Duration) -> Result<(), StoreError> {
    let pending = nats.send_fact(fact).await?;
    if fact.kind == FactKind::Exit {
        #[cfg(feature = "crash-points")]
        nats.flush().await;
        hit(Part::Relay, Point::ExitUnacked);
    }
    pending.stored(patience).await
}
