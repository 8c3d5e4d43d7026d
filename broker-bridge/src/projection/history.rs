//! Settled runs and commands of DONE. They say again what RUN and CMD said, and stay when those are gone.

use signalbox_schemas::{
    command::CommandSpec,
    id::{CommandId, MachineToken},
    record::DoneCommand,
    run::{Fact, Register, RunState},
    signed::PublicKey,
    subject::FactKind,
};

use super::{Applied, CommandRow, Outcome, Projection, command::NewCommand};
use crate::{
    ingest::decode::{FactEvent, SignedFact},
    store::key,
};

impl Projection<'_> {
    /// Applies the facts of a settled run. The command may come later: runs are written first.
    pub(super) fn done_run(
        &mut self,
        cid: CommandId,
        mid: &MachineToken,
        (state, facts): (RunState, &[FactEvent]),
        signer: &PublicKey,
    ) -> Outcome {
        if !self.is_bridge(signer) || !self.memory.machines.contains_key(mid) {
            return Ok(Applied::NotYet);
        }
        for fact in facts {
            self.done_fact(state, fact)?;
        }
        let mut row = self.run_row(cid, mid)?;
        row.done = Some(row.state());
        if let Some(at) = row.settled_at {
            self.txn.delete(key::settled_run(at, cid, mid));
        }
        self.txn.put_json(key::run(cid, mid), &row);
        Ok(Applied::Yes)
    }

    /// A fact of a settled run. Bridges that wrote withdrawals and `lost` may have other keys by now: the state
    /// in the record says whether they were believed.
    fn done_fact(&mut self, state: RunState, event: &FactEvent) -> Outcome {
        let fact = match &event.fact {
            Ok((fact, signer)) => {
                let believed = match fact {
                    SignedFact::Withdrawal(_) => matches!(state, RunState::Expired | RunState::Cancelled),
                    SignedFact::Lost(_) => state == RunState::Lost,
                    _ => false,
                };
                if believed || self.may_say(fact, &event.mid, signer) {
                    fact.to_fact(event.stored_at)
                } else if event.kind == FactKind::Claim {
                    Fact::Register(Register::bad("untrusted"))
                } else {
                    return Ok(Applied::Yes);
                }
            }
            Err(reason) => Fact::Register(Register::bad(reason)),
        };
        self.place(event, fact)
    }

    pub(super) fn done_command(
        &mut self,
        done: &DoneCommand,
        spec: &CommandSpec,
        signer: &PublicKey,
    ) -> Outcome {
        if !self.is_bridge(signer) {
            return Ok(Applied::NotYet);
        }
        let cid = done.cid;
        let known = self.command_row(cid)?;
        if known.as_ref().is_some_and(|row| row.done) {
            return Ok(Applied::Yes);
        }
        if let Some(mut row) = known {
            row.done = true;
            self.txn.put_json(key::command(cid), &row);
            if let Some(at) = self.txn.get(&key::settled_at(cid))?.and_then(|at| key::Reader(&at).u64()) {
                self.txn.delete(key::settled_command(at, cid));
            }
        } else {
            let mut machines = done.machines.clone();
            machines.sort();
            machines.dedup();
            let row = CommandRow {
                sequence: done.sequence,
                accepted_at: done.accepted_at,
                author: done.author.clone(),
                machines,
                expires_at: spec.expires_at,
                done: true,
            };
            let spec_bytes = done.spec.0.clone().into();
            self.new_command(cid, NewCommand { row, spec, spec_bytes, grants: Vec::new() })?;
        }
        self.txn.put(key::purge(spec.expires_at, cid), Vec::new());
        Ok(Applied::Yes)
    }
}
