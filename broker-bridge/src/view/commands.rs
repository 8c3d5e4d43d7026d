//! Commands, the parts that go ahead of them, and pages of them.

use std::sync::Arc;

use bytes::Bytes;
use signalbox_schemas::{
    api::{CommandSummary, CommandView, Listed, Page, RolloutView, RunView},
    command::CommandSpec,
    id::{CommandId, MachineId, MachineToken, Sha256},
    rollout::Progress,
    signed::PublicKey,
};

use super::{PAGE_BYTES, View, held_of};
use crate::{
    projection::{
        Counts,
        parts::{Gathered, gather, parse_row},
    },
    store::{StoreError, key},
};

/// Items of a page when no number is asked for, and the most there are.
const PAGE: u32 = 100;
const MAX_PAGE: u32 = 1_000;

/// A command as it was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredCommand {
    /// Exact bytes of the spec; once it stands in DONE without what was sealed in it.
    pub spec_bytes: Bytes,
    /// SHA-256 of its exact bytes.
    pub spec_sha256: Sha256,
    /// The spec.
    pub spec: CommandSpec,
    /// When the broker stored it, Unix ms.
    pub accepted_at: u64,
    /// Whose grants it came with.
    pub author: PublicKey,
    /// The machines it is for, sorted.
    pub machines: Vec<MachineToken>,
}

impl View {
    /// A command with its runs, sorted by machine id.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be read.
    pub fn command(&self, id: CommandId) -> Result<Option<CommandView>, StoreError> {
        self.command_page(id, None, None)
    }

    /// The same, or with a `limit` so many of its runs behind the machine `after`, as far as they fit a message.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be read.
    pub fn command_page(
        &self,
        id: CommandId,
        limit: Option<usize>,
        after: Option<&MachineId>,
    ) -> Result<Option<CommandView>, StoreError> {
        let Some(row) = self.command_row(id)? else { return Ok(None) };
        let Some(summary) = self.summary(id)? else { return Ok(None) };
        let mut machines: Vec<_> = row.machines.iter().map(|mid| (self.machine_id(mid), mid)).collect();
        machines.sort();
        let behind = machines.partition_point(|(machine, _)| after.is_some_and(|after| machine <= after));
        let mut runs: Vec<RunView> = Vec::new();
        let mut bytes = serde_json::to_vec(&summary).map_or(0, |json| json.len());
        for (_, mid) in machines.iter().skip(behind) {
            let run = self.run_view(id, mid)?;
            if let Some(limit) = limit {
                // With its comma.
                bytes += serde_json::to_vec(&run).map_or(0, |json| json.len() + 1);
                if runs.len() == limit || (bytes > PAGE_BYTES && !runs.is_empty()) {
                    let next = runs.last().map(|last| last.machine.to_string());
                    return Ok(Some(CommandView { summary, runs, next }));
                }
            }
            runs.push(run);
        }
        Ok(Some(CommandView { summary, runs, next: None }))
    }

    /// What shall run. Cheap: nothing is read of its machines.
    pub(crate) fn command_text(&self, id: CommandId) -> Result<Option<Arc<CommandSpec>>, StoreError> {
        if let Some(open) = self.shared.memory().open.get(&id) {
            return Ok(Some(Arc::clone(&open.spec)));
        }
        if !self.shared.store.has(&key::command(id))? {
            return Ok(None);
        }
        self.spec(id).map(|(spec, _)| Some(Arc::new(spec)))
    }

    /// The grants that were sent ahead of a spec, if they fit it; else why not, for counters. Blocks for some tens of
    /// milliseconds.
    pub(crate) fn gather(
        &self,
        spec: &CommandSpec,
        sha256: Sha256,
    ) -> Result<Result<Gathered, &'static str>, StoreError> {
        gather(spec, sha256, |prefix| self.shared.store.scan(prefix).collect())
    }

    /// Parts that wait for a command, and in all.
    pub(crate) fn waiting_parts(&self, id: CommandId) -> (usize, u64) {
        let of_one = key::all_parts(id)
            .iter()
            .map(|prefix| self.shared.store.keys(prefix.clone(), key::after(prefix)).count())
            .sum();
        (of_one, self.shared.memory().waiting_parts)
    }

    /// When the newest copy of a part that waits was stored, Unix ms; `None`: this very part does not wait.
    pub(crate) fn waits_since(&self, id: CommandId, n: u32, body: &[u8]) -> Result<Option<u64>, StoreError> {
        for row in self.shared.store.scan(&key::parts(id, n)).rev() {
            let (_, row) = row?;
            let (stored_at, waiting) = parse_row(&row).ok_or(StoreError::Damaged("part"))?;
            if waiting == body {
                return Ok(Some(stored_at));
            }
        }
        Ok(None)
    }

    /// A command as it was accepted.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be read.
    pub fn command_spec(&self, id: CommandId) -> Result<Option<StoredCommand>, StoreError> {
        let Some(row) = self.command_row(id)? else { return Ok(None) };
        let (spec, spec_bytes) = self.spec(id)?;
        Ok(Some(StoredCommand {
            spec_sha256: row.spec_sha256.unwrap_or_else(|| Sha256::of(&spec_bytes)),
            spec_bytes,
            spec,
            accepted_at: row.accepted_at,
            author: row.author,
            machines: row.machines,
        }))
    }

    /// The line about a command.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be read.
    pub fn summary(&self, id: CommandId) -> Result<Option<CommandSummary>, StoreError> {
        let counts: Option<Counts> = self.shared.store.json(&key::counts(id), "counts")?;
        let Some(counts) = counts else { return Ok(None) };
        let (spec, _) = self.spec(id)?;
        let (held, progress) = self.held(id);
        let rollout = self.rollout(id, &spec, progress, &counts)?;
        let counts = held_of(counts, held);
        Ok(Some(CommandSummary {
            id,
            command: spec.command,
            on: spec.on,
            by: spec.by,
            created_at: spec.created_at,
            expires_at: spec.expires_at,
            timeout_ms: spec.timeout_ms,
            settled: counts.keys().all(|state| state.is_settled()),
            counts,
            created_by: spec.created_by,
            target: spec.target,
            changes: spec.change.is_some(),
            rollout: rollout.map(Box::new),
            retry_of: spec.retry_of,
        }))
    }

    fn rollout(
        &self,
        id: CommandId,
        spec: &CommandSpec,
        progress: Option<Progress>,
        counts: &Counts,
    ) -> Result<Option<RolloutView>, StoreError> {
        let Some(plan) = spec.rollout.clone() else { return Ok(None) };
        let progress = match progress {
            Some(progress) => Some(progress),
            None => self.shared.store.json(&key::rollout(id), "rollout")?,
        };
        Ok(Some(RolloutView::new(plan, spec.targets, progress.as_ref(), counts)))
    }

    /// A page of commands, newest first, as many as fit a message: at least one. `after` is opaque; one that is not
    /// ours answers the first page.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be read.
    pub fn commands(&self, page: &Page) -> Result<Listed<CommandSummary>, StoreError> {
        let limit = page.limit.unwrap_or(PAGE).clamp(1, MAX_PAGE) as usize;
        let after = page.after.as_deref().and_then(parse_after);
        let end = after.map_or_else(|| key::after(&[key::ORDER]), |(at, sequence)| key::order(at, sequence));
        let mut items = Vec::new();
        let mut last = None;
        let mut bytes = 0;
        for row in self.shared.store.range(vec![key::ORDER], end).rev() {
            let (found, cid) = row?;
            if items.len() == limit {
                return Ok(Listed { items, next: last });
            }
            let cid = key::Reader(&cid).cid().ok_or(StoreError::Damaged("order"))?;
            let item = self.summary(cid)?;
            // With its comma.
            bytes +=
                item.as_ref().map_or(0, |item| serde_json::to_vec(item).map_or(0, |json| json.len() + 1));
            if bytes > PAGE_BYTES && !items.is_empty() {
                return Ok(Listed { items, next: last });
            }
            let mut reader = key::Reader(found.get(1..).unwrap_or_default());
            last = reader.u64().zip(reader.u64()).map(|(at, sequence)| format!("{at}.{sequence}"));
            items.extend(item);
        }
        Ok(Listed { items, next: None })
    }

    /// The newest commands, `max` at most, newest first.
    pub(crate) fn newest(&self, max: usize) -> Result<Vec<CommandId>, StoreError> {
        let rows = self.shared.store.range(vec![key::ORDER], key::after(&[key::ORDER])).rev().take(max);
        rows.map(|row| key::Reader(&row?.1).cid().ok_or(StoreError::Damaged("order"))).collect()
    }
}

/// Whether a page of commands may begin behind this.
pub(crate) fn is_place(after: &str) -> bool {
    parse_after(after).is_some()
}

fn parse_after(text: &str) -> Option<(u64, u64)> {
    let (at, sequence) = text.split_once('.')?;
    Some((at.parse().ok()?, sequence.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use signalbox_schemas::{limit::BROKER_PAYLOAD_BYTES, run::RunState};
    use uuid::Uuid;

    use super::*;
    use crate::{
        stage::{Stage, spec},
        store::Txn,
    };

    #[tokio::test]
    async fn a_page_of_commands_fits_a_message_and_the_next_one_goes_on() {
        const COMMANDS: usize = 30;
        let stage = Stage::start().await;
        let mut txn = Txn::new(&stage.still.context.shared.store);
        let mut all = Vec::new();
        for n in 0..COMMANDS as u64 {
            let cid = Uuid::from_u128(0x0193_a2b4_0000_7000_8000_0000_0000_0000 + u128::from(n));
            let cid = CommandId::new(cid).unwrap();
            txn.put(key::order(n, n), cid.uuid().as_bytes().to_vec());
            txn.put(key::spec(cid), spec(cid, &"x".repeat(64 * 1024)).into());
            txn.put_json(key::counts(cid), &Counts::from([(RunState::Completed, 1)]));
            all.insert(0, cid);
        }
        txn.commit().unwrap();
        let (mut listed, mut after) = (Vec::new(), None);
        loop {
            let page = stage.api.view().commands(&Page { limit: Some(1_000), after }).unwrap();
            assert!((1..12).contains(&page.items.len()), "{} commands at once", page.items.len());
            assert!(serde_json::to_vec(&page).unwrap().len() <= BROKER_PAYLOAD_BYTES);
            listed.extend(page.items.iter().map(|item| item.id));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(listed, all);
    }
}
