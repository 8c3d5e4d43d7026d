//! Specs and cancels.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use signalbox_schemas::{
    command::{CommandSpec, Grant},
    id::{CommandId, MachineToken, Sha256},
    run::RunState,
    signed::{PublicKey, Signed},
    subject::FactKind,
};

use super::{
    Applied, ApplyError, CommandRow, Counts, Outcome, Projection, RunRow,
    grant::by_machine,
    memory::{OpenCommand, Order, Urgency},
    parse_fact_row,
    parts::{Gathered, gather},
    rollout::OpenRollout,
};
use crate::{
    ingest::decode::FactMessage,
    store::{StoreError, key},
    view::Change,
};

/// A command that is to be made known.
pub(super) struct NewCommand<'a> {
    pub(super) row: CommandRow,
    pub(super) spec: &'a CommandSpec,
    pub(super) spec_bytes: Bytes,
    pub(super) grants: Vec<Signed<Grant>>,
}

impl Projection<'_> {
    pub(super) fn spec(
        &mut self,
        sequence: u64,
        stored_at: u64,
        cid: CommandId,
        spec: &CommandSpec,
        bytes: &Bytes,
    ) -> Outcome {
        if let Some(known) = self.command_row(cid)? {
            // Read again from the beginning, known from DONE, or a second spec, which changes nothing.
            if known.sequence != sequence {
                self.notes.push("command.second_spec");
            }
            return Ok(Applied::Yes);
        }
        let gathered = match gather(spec, Sha256::of(bytes), |prefix| self.txn.scan(prefix))? {
            Ok(gathered) => gathered,
            Err(reason) => return Err(ApplyError::Refused(reason)),
        };
        let Gathered { granted, grants, bodies, .. } = gathered;
        if !granted.machines.iter().all(|mid| self.memory.machines.contains_key(mid)) {
            return Ok(Applied::NotYet);
        }
        for (n, body) in (1..).zip(bodies) {
            self.txn.put(key::grants_part(cid, n), body);
        }
        let row = CommandRow {
            sequence,
            accepted_at: stored_at,
            author: granted.author,
            machines: granted.machines,
            expires_at: spec.expires_at,
            done: false,
            spec_sha256: None,
        };
        self.new_command(cid, NewCommand { row, spec, spec_bytes: bytes.clone(), grants })?;
        Ok(Applied::Yes)
    }

    /// Makes a command known, with what is known of its runs already.
    pub(super) fn new_command(&mut self, cid: CommandId, new: NewCommand<'_>) -> Result<(), StoreError> {
        self.forget_parts(cid)?;
        let order: Order = (new.row.accepted_at, new.row.sequence);
        self.txn.put_json(key::command(cid), &new.row);
        self.txn.put(key::spec(cid), new.spec_bytes.to_vec());
        self.txn.put(key::order(order.0, order.1), cid.uuid().as_bytes().to_vec());
        let runs = self.runs_of(cid, &new.row.machines)?;
        let mut counts = Counts::new();
        for (_, run) in &runs {
            *counts.entry(run.state()).or_default() += 1;
        }
        self.txn.put_json(key::counts(cid), &counts);
        let settled = runs.iter().all(|(_, run)| run.state().is_settled());
        if settled {
            let at = runs.iter().filter_map(|(_, run)| run.settled_at).max().unwrap_or(order.0);
            if !new.row.done {
                self.command_settled(cid, at);
            }
        } else {
            self.txn.put(key::open(cid), Vec::new());
            let command = OpenCommand {
                order,
                spec_bytes: new.spec_bytes,
                spec: Arc::new(new.spec.clone()),
                machines: new.row.machines.clone().into(),
                grants: by_machine(new.grants),
                cancelled: self.txn.has(&key::cancel(cid))?,
                held: new.spec.not_before.is_some(),
                rollout: OpenRollout::of(cid, new.spec, self.txn.json(&key::rollout(cid), "rollout")?),
                runs: BTreeMap::new(),
            };
            self.memory.put_command(cid, command);
            for (mid, run) in &runs {
                self.memory.settled(cid, run.settled_at.unwrap_or_default());
                self.memory.set_run(cid, mid, run.state(), run.facts.claim());
                self.memory.soil(mid, Urgency::Now);
            }
        }
        self.changes.insert(Change::Command { cid });
        self.recall(cid)
    }

    fn runs_of(
        &self,
        cid: CommandId,
        machines: &[MachineToken],
    ) -> Result<Vec<(MachineToken, RunRow)>, StoreError> {
        machines.iter().map(|mid| Ok((mid.clone(), self.run_row(cid, mid)?))).collect()
    }

    /// Applies facts that came before their command.
    fn recall(&mut self, cid: CommandId) -> Result<(), StoreError> {
        for (found, row) in self.txn.scan(&key::unknown_of(cid))? {
            self.txn.delete(found.clone());
            self.memory.unknown_facts = self.memory.unknown_facts.saturating_sub(1);
            let Some((mid, stored)) = parse_unknown(&found, &row) else {
                return Err(StoreError::Damaged("unknown fact"));
            };
            if let Ok(fact) = self.decoder.fact(cid, mid, stored) {
                match self.fact(&fact) {
                    Ok(_) | Err(ApplyError::Refused(_)) => {}
                    Err(ApplyError::Store(error)) => return Err(error),
                }
            }
        }
        Ok(())
    }

    pub(super) fn cancel(
        &mut self,
        sequence: u64,
        stored_at: u64,
        cid: CommandId,
        signer: &PublicKey,
    ) -> Outcome {
        if !self.may_cancel(signer, stored_at) {
            return Ok(Applied::NotYet);
        }
        if self.txn.has(&key::cancel(cid))? {
            return Ok(Applied::Yes);
        }
        self.txn.put(key::cancel(cid), sequence.to_be_bytes().to_vec());
        self.memory.set_cancelled(cid);
        self.changes.insert(Change::Command { cid });
        Ok(Applied::Yes)
    }

    /// Counts a run in its new state.
    pub(super) fn count(
        &mut self,
        cid: CommandId,
        from: RunState,
        to: RunState,
        at: u64,
    ) -> Result<(), StoreError> {
        let Some(mut counts) = self.txn.json::<Counts>(&key::counts(cid), "counts")? else { return Ok(()) };
        let was_settled = counts.keys().all(|state| state.is_settled());
        if let Some(count) = counts.get_mut(&from) {
            *count = count.saturating_sub(1);
        }
        counts.retain(|_, count| *count > 0);
        *counts.entry(to).or_default() += 1;
        self.txn.put_json(key::counts(cid), &counts);
        if !was_settled && counts.keys().all(|state| state.is_settled()) {
            self.txn.delete(key::open(cid));
            self.command_settled(cid, at);
            self.memory.remove_command(cid);
        }
        Ok(())
    }

    fn command_settled(&mut self, cid: CommandId, at: u64) {
        self.txn.put(key::settled_command(at, cid), Vec::new());
        self.txn.put(key::settled_at(cid), at.to_be_bytes().to_vec());
    }
}

/// Reads a fact that was put aside.
pub(crate) fn parse_unknown(found: &[u8], row: &[u8]) -> Option<(MachineToken, FactMessage)> {
    let mut reader = key::Reader(found.get(1..)?);
    reader.cid()?;
    let mid = reader.mid_and_zero()?;
    let kind = reader.rest();
    let kind = FactKind::ALL.into_iter().find(|known| known.as_str().as_bytes() == kind)?;
    Some((mid, parse_fact_row(kind, row)?))
}
