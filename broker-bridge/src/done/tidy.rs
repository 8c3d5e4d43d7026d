//! What belongs to nothing: parts whose spec never came, facts about runs that are not known, messages of RUN that say
//! nothing to anybody.
//!
//! The holder of the lease removes them from their streams, by sequence, so that what was stored meanwhile under the
//! same subject stays; other bridges forget that they have seen them. Nothing is judged by a clock: a row counts as
//! old when this process has looked at it for long enough, and as unknown only when the streams that could explain
//! it were read once more after it was found.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use signalbox_link::StreamError;
use signalbox_schemas::{
    id::CommandId,
    limit::DAY_MS,
    stream::{CMD, DOC, DONE, RUN, STATE},
    subject::{CommandPiece, Subject},
};
use tokio::task::{JoinError, JoinSet};
use tracing::{info, warn};

use super::{HashSet, IN_FLIGHT, Keeper, RoundError};
use crate::{
    core::now_ms,
    ingest::read_to_end,
    projection::command::parse_unknown,
    store::{StoreError, key},
};

/// Parts whose spec did not come for this long belong to nothing.
const ORPHAN: Duration = Duration::from_mins(10);

/// Since when this process has seen rows; bounded by what is looked at in one round.
#[derive(Debug, Default)]
pub(super) struct Aged(HashMap<Vec<u8>, Instant>);

impl Aged {
    /// Of these keys of one kind those that were there for [`ORPHAN`]; forgets what is there no longer.
    fn old(&mut self, kind: u8, keys: &[Vec<u8>], now: Instant) -> Vec<Vec<u8>> {
        let there: HashSet<&Vec<u8>> = keys.iter().collect();
        self.0.retain(|found, _| found.first() != Some(&kind) || there.contains(found));
        let is_old = |found: &Vec<u8>, seen: &mut HashMap<Vec<u8>, Instant>| {
            now.duration_since(*seen.entry(found.clone()).or_insert(now)) >= ORPHAN
        };
        keys.iter().filter(|found| is_old(found, &mut self.0)).cloned().collect()
    }
}

impl Keeper {
    /// Removes what belongs to nothing from its streams.
    pub(super) async fn tidy(&mut self) -> Result<(), RoundError> {
        self.delete_litter().await?;
        self.delete_unknown().await?;
        self.delete_orphans(key::PART).await?;
        self.delete_orphans(key::FURTHER_PART).await
    }

    /// On a bridge that does not dispatch: forgets what the one that does has removed by now.
    pub(super) async fn forget(&mut self) -> Result<(), RoundError> {
        // Here a day of grace: whoever becomes the holder goes on with what is left.
        let purged = now_ms().saturating_sub(self.after_ms).saturating_sub(DAY_MS);
        let kinds = [key::UNKNOWN, key::PART, key::FURTHER_PART, key::LITTER, key::RELEASE];
        let kinds = kinds.map(|kind| (kind, None));
        for (kind, until) in kinds.into_iter().chain([(key::PURGE, Some(purged))]) {
            let keys = self.keys(kind, until).await?;
            let old = self.aged.old(kind, &keys, Instant::now());
            if !old.is_empty() {
                read_to_end(&self.context.shared, &[DOC, STATE, CMD, DONE]).await;
                self.delete(old).await?;
            }
        }
        Ok(())
    }

    async fn delete_litter(&self) -> Result<(), RoundError> {
        let keys = self.keys(key::LITTER, None).await?;
        let sequence = |found: &Vec<u8>| key::Reader(found.get(1..)?).u64();
        let sequences: Vec<u64> = keys.iter().filter_map(sequence).collect();
        self.delete_messages(RUN, &sequences).await?;
        if let Some(count) = self.counted("run.litter_deleted", sequences.len()) {
            warn!(count, "messages of RUN that say nothing were deleted");
        }
        Ok(self.delete(keys).await?)
    }

    /// Removes facts about runs that are not known from RUN.
    async fn delete_unknown(&self) -> Result<(), RoundError> {
        if self.context.shared.memory().unknown_facts == 0 {
            return Ok(());
        }
        let found = self.rows(key::UNKNOWN).await?;
        read_to_end(&self.context.shared, &[DOC, STATE, CMD, DONE]).await;
        let (mut rows, mut sequences, mut accepted) = (Vec::new(), Vec::new(), HashMap::new());
        for (found, row) in found {
            if !self.context.shared.store.has(&found)? {
                // Its command is known by now.
                continue;
            }
            let cid = found.get(1..).and_then(|rest| key::Reader(rest).cid());
            let (Some(cid), Some((_, fact))) = (cid, parse_unknown(&found, &row)) else {
                return Err(StoreError::Damaged("unknown fact").into());
            };
            if let std::collections::hash_map::Entry::Vacant(free) = accepted.entry(cid) {
                free.insert(self.is_accepted(cid).await?);
            }
            if accepted.get(&cid) == Some(&false) {
                sequences.push(fact.sequence);
                rows.push(found);
            }
        }
        self.delete_messages(RUN, &sequences).await?;
        if let Some(count) = self.counted("run.unknown_purged", sequences.len()) {
            warn!(count, "facts about unknown runs were deleted");
        }
        Ok(self.delete(rows).await?)
    }

    /// Whether a spec stands in CMD: one that this bridge refused, for a newer one may have accepted it.
    async fn is_accepted(&self, cid: CommandId) -> Result<bool, RoundError> {
        let subject = Subject::Command(self.context.broker.ws().clone(), cid, CommandPiece::Spec).to_string();
        let accepted = self.context.broker.last(CMD, &subject).await?.is_some();
        if accepted {
            self.context.shared.counters.add("run.not_understood");
        }
        Ok(accepted)
    }

    /// Removes parts whose spec never came from CMD.
    async fn delete_orphans(&mut self, kind: u8) -> Result<(), RoundError> {
        let keys = self.keys(kind, None).await?;
        let old = self.aged.old(kind, &keys, Instant::now());
        if old.is_empty() {
            return Ok(());
        }
        read_to_end(&self.context.shared, &[DOC, STATE, CMD]).await;
        let (mut gone, mut sequences, mut accepted) = (Vec::new(), Vec::new(), HashMap::new());
        for found in old {
            let (cid, sequence) = key::parse_part(&found).ok_or(StoreError::Damaged("part"))?;
            if let std::collections::hash_map::Entry::Vacant(free) = accepted.entry(cid) {
                free.insert(self.is_accepted(cid).await?);
            }
            if self.context.shared.store.has(&found)? && accepted.get(&cid) == Some(&false) {
                sequences.push(sequence);
            }
            gone.push(found);
        }
        self.delete_messages(CMD, &sequences).await?;
        info!(parts = sequences.len(), "parts without a spec were deleted");
        Ok(self.delete(gone).await?)
    }

    /// Deletes messages; one that is gone already is no matter.
    async fn delete_messages(&self, stream: &'static str, sequences: &[u64]) -> Result<(), RoundError> {
        let mut deletions = JoinSet::new();
        for sequence in sequences.iter().copied() {
            while deletions.len() >= IN_FLIGHT {
                deleted(deletions.join_next().await)?;
            }
            let link = self.context.broker.link().clone();
            deletions.spawn(async move { link.delete_message(stream, sequence).await });
        }
        while !deletions.is_empty() {
            deleted(deletions.join_next().await)?;
        }
        Ok(())
    }

    /// Counts; answers the count when it passed a power of two, which is when it is logged.
    fn counted(&self, name: &str, times: usize) -> Option<u64> {
        let mut passed = None;
        for _ in 0..times {
            let count = self.context.shared.counters.add(name);
            passed = count.is_power_of_two().then_some(count).or(passed);
        }
        passed
    }
}

fn deleted(ended: Option<Result<Result<bool, StreamError>, JoinError>>) -> Result<(), RoundError> {
    match ended {
        Some(Ok(deleted)) => Ok(deleted.map(drop)?),
        Some(Err(_)) => Err(StoreError::Damaged("deletion").into()),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_old_when_it_was_looked_at_for_long_enough_whatever_time_it_names() {
        let (first, second, other) = (b"p1".to_vec(), b"p2".to_vec(), b"U1".to_vec());
        let (mut aged, begun) = (Aged::default(), Instant::now());
        let one = std::slice::from_ref(&first);
        assert!(aged.old(b'p', one, begun).is_empty());
        assert!(aged.old(b'U', std::slice::from_ref(&other), begun).is_empty());
        let both = [first.clone(), second.clone()];
        assert!(aged.old(b'p', &both, begun + ORPHAN / 2).is_empty());
        assert_eq!(aged.old(b'p', &both, begun + ORPHAN), one);
        // One that went and came again is young again; those of another kind are none of its business.
        assert!(aged.old(b'p', &[], begun + ORPHAN).is_empty());
        assert!(aged.old(b'p', &both, begun + 2 * ORPHAN).is_empty());
        assert_eq!(aged.old(b'U', std::slice::from_ref(&other), begun + ORPHAN), [other]);
    }
}
