//! Parts, specs and cancels.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use signalbox_schemas::{
    command::{CommandSpec, Grant, Part, granted},
    id::{CommandId, MachineToken, Sha256},
    run::RunState,
    signed::{PublicKey, Signed},
    subject::FactKind,
};

use super::{
    Applied, ApplyError, CommandRow, Counts, MAX_WAITING_PARTS, Outcome, Projection, RunRow,
    grant::by_machine,
    memory::{OpenCommand, Order, Urgency},
    parse_fact_row,
};
use crate::{
    ingest::decode::FactMessage,
    store::{StoreError, key, parse},
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
    pub(super) fn part(&mut self, sequence: u64, stored_at: u64, cid: CommandId, body: &Bytes) -> Outcome {
        if self.txn.has(&key::command(cid))? {
            // A submit that is tried again after its commit.
            return Ok(Applied::Yes);
        }
        let mut waiting = self.txn.scan(&key::parts(cid))?;
        let again = waiting.iter().rposition(|(_, row)| row.get(8..) == Some(body));
        let place = key::part(cid, sequence);
        if let Some(again) = again {
            // The same part once more: it is as young as its newest copy.
            let (found, _) = waiting.remove(again);
            if found >= place {
                return Ok(Applied::Yes);
            }
            self.txn.delete(found);
        }
        self.txn.put(place, [&stored_at.to_be_bytes()[..], body].concat());
        if waiting.len() >= MAX_WAITING_PARTS {
            // The oldest goes: the newest is the one whose spec is on its way.
            for (oldest, _) in self.txn.scan(&key::parts(cid))?.into_iter().take(1) {
                self.txn.delete(oldest);
                self.notes.push("part.dropped");
            }
        }
        Ok(Applied::Yes)
    }

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
        let sha256 = Sha256::of(bytes);
        let mut reason = "no_grants";
        // The newest part first; one that belongs to another spec with the same id does not fit.
        for (_, row) in self.txn.scan(&key::parts(cid))?.iter().rev() {
            let body = row.get(8..).unwrap_or_default();
            let part: Part = parse(body, "part")?;
            match granted(spec, sha256, &part.grants) {
                Ok(granted) if granted.machines.iter().all(|mid| self.memory.machines.contains_key(mid)) => {
                    self.txn.put(key::grants(cid), body.to_vec());
                    let row = CommandRow {
                        sequence,
                        accepted_at: stored_at,
                        author: granted.author,
                        machines: granted.machines,
                        expires_at: spec.expires_at,
                        done: false,
                    };
                    self.new_command(
                        cid,
                        NewCommand { row, spec, spec_bytes: bytes.clone(), grants: part.grants },
                    )?;
                    return Ok(Applied::Yes);
                }
                Ok(_) => return Ok(Applied::NotYet),
                Err(why) => reason = why.reason(),
            }
        }
        Err(ApplyError::Refused(reason))
    }

    /// Makes a command known, with what is known of its runs already.
    pub(super) fn new_command(&mut self, cid: CommandId, new: NewCommand<'_>) -> Result<(), StoreError> {
        for (waiting, _) in self.txn.scan(&key::parts(cid))? {
            self.txn.delete(waiting);
        }
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
                runs: BTreeMap::new(),
            };
            self.memory.put_command(cid, command);
            for (mid, run) in &runs {
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

#[cfg(test)]
mod tests {
    use nkeys::{KeyPair, KeyPairType};
    use signalbox_schemas::{
        id::{MachineId, Workspace},
        record::{MachineRecord, RelayKeys},
        signed::SigningKey,
    };

    use super::*;
    use crate::{ingest::decode::Decoder, projection::memory::Memory, store::Store};

    const CID: &str = "0193a2b4-0000-7000-8000-000000000000";

    fn key(byte: u8) -> SigningKey {
        let pair = KeyPair::new_from_raw(KeyPairType::User, [byte; 32]).unwrap();
        SigningKey::from_seed(&pair.seed().unwrap()).unwrap()
    }

    /// The spec and the part of one try of a submit, which differ from try to try.
    fn attempt(expires_at: u64) -> (CommandSpec, Bytes, Bytes) {
        let (ws, cid) = (Workspace::main(), CID.parse().unwrap());
        let spec = serde_json::json!({
            "ws": ws, "cid": cid, "command": "true", "timeout_ms": 1, "created_at": 0, "expires_at": expires_at,
            "max_output": 1, "on": "all", "targets": 1, "by": "operator:local",
        });
        let spec_bytes = Bytes::from(spec.to_string());
        let spec = CommandSpec::from_bytes(&spec_bytes).unwrap();
        let mid = MachineToken::new("web-1").unwrap();
        let grant = Grant { ws, cid, mid, spec_sha256: Sha256::of(&spec_bytes), expires_at };
        let part = Part { cid, n: 1, of: 1, grants: vec![Signed::sign(&grant, &key(3)).unwrap()] };
        (spec, spec_bytes, Bytes::from(serde_json::to_vec(&part).unwrap()))
    }

    /// Applies the parts of these attempts, then the spec of one of them; answers what becomes of it.
    fn after_parts(attempts: impl IntoIterator<Item = u64>, of: u64) -> (Outcome, Vec<&'static str>) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), "t").unwrap();
        let decoder = Decoder { ws: Workspace::main(), fleet_key: key(1).public().clone() };
        let mut memory = Memory::default();
        memory.put_machine(MachineRecord {
            ws: Workspace::main(),
            id: MachineId::new("web-1").unwrap(),
            token: MachineToken::new("web-1").unwrap(),
            keys: Some(RelayKeys {
                login_key: key(4).public().clone(),
                signing_key: key(5).public().clone(),
            }),
            enrolled_at: 1,
            enrolled_by: None,
            former_keys: Vec::new(),
            allow_legacy: false,
            revision: 0,
        });
        let mut projection = Projection::new(&mut memory, &store, &decoder);
        let cid = CID.parse().unwrap();
        for (sequence, expires_at) in attempts.into_iter().enumerate() {
            projection.part(sequence as u64 + 1, 1, cid, &attempt(expires_at).2).unwrap();
        }
        let (spec, bytes, _) = attempt(of);
        let outcome = projection.spec(1_000, 1, cid, &spec, &bytes);
        (outcome, projection.notes)
    }

    #[test]
    fn however_often_a_submit_was_tried_its_last_part_counts() {
        let (outcome, notes) = after_parts(100..120, 119);
        assert_eq!(outcome.unwrap(), Applied::Yes);
        assert_eq!(notes, ["part.dropped"; 20 - MAX_WAITING_PARTS]);
    }

    #[test]
    fn a_part_that_comes_again_is_young_again() {
        // As many as may wait, the first of them once more, and one that has no room.
        let parts = (1..=MAX_WAITING_PARTS as u64).chain([1, 100]);
        assert_eq!(after_parts(parts.clone(), 1).0.unwrap(), Applied::Yes);
        assert!(after_parts(parts, 2).0.is_err());
    }
}
