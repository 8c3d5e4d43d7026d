//! Settled runs and commands of DONE. They say again what RUN and CMD said, and stay when those are gone.

use signalbox_schemas::{
    command::CommandSpec,
    id::{CommandId, MachineToken},
    record::DoneCommand,
    run::{Fact, Register, RunFacts, RunKind, RunState},
    signed::PublicKey,
    subject::FactKind,
};

use super::{Applied, ApplyError, CommandRow, Outcome, Projection, command::NewCommand};
use crate::{
    ingest::decode::{FactEvent, SignedFact},
    store::key,
};

impl Projection<'_> {
    /// Applies the facts of a settled run. The command may come later: runs are written first. What one of them lacks to
    /// count does not keep the others from it.
    pub(super) fn done_run(
        &mut self,
        stored_at: u64,
        (cid, mid): (CommandId, &MachineToken),
        (state, facts): (RunState, &[FactEvent]),
        signer: &PublicKey,
    ) -> Outcome {
        if !self.was_bridge(signer, stored_at) || !self.memory.machines.contains_key(mid) {
            return Ok(Applied::NotYet);
        }
        let mut told = RunFacts::default();
        for event in facts {
            let Some(fact) = self.believed(state, event) else { continue };
            told.apply(event.sequence, fact.clone());
            match self.place(event, fact) {
                Ok(_) => {}
                Err(ApplyError::Refused(_)) => self.notes.push("done.fact"),
                Err(ApplyError::Store(error)) => return Err(error.into()),
            }
        }
        let mut row = self.run_row(cid, mid)?;
        let (now, told) = (row.state(), told.state(RunKind::default()));
        if row.done == Some(now) {
            // A record that was written before the one that says what is.
            return Ok(Applied::Yes);
        }
        row.done = Some(told);
        if told == now {
            if let Some(at) = row.settled_at {
                self.txn.delete(key::settled_run(at, cid, mid));
            }
            let newest = facts.iter().map(|fact| fact.stored_at).max().unwrap_or_default();
            self.txn.put(key::release(newest, cid, mid), Vec::new());
        }
        self.txn.put(key::run(cid, mid), row.to_bytes());
        Ok(Applied::Yes)
    }

    /// What a fact of a settled run means. Whoever wrote it may have other keys by now: the state in the record, which a
    /// bridge has signed, says whether it was believed.
    fn believed(&self, state: RunState, event: &FactEvent) -> Option<Fact> {
        let (fact, signer) = match &event.fact {
            Ok(said) => said,
            Err(reason) => return Some(Fact::Register(Register::bad(reason))),
        };
        let was_believed = match fact {
            SignedFact::Withdrawal(_) => matches!(state, RunState::Expired | RunState::Cancelled),
            SignedFact::Lost(_) => state == RunState::Lost,
            SignedFact::Claim(_) => !matches!(state, RunState::Rejected | RunState::Expired),
            SignedFact::Exit(_) => matches!(
                state,
                RunState::Completed | RunState::Failed | RunState::Timeout | RunState::Cancelled
            ),
            SignedFact::Rejection(_) | SignedFact::Start(_) => false,
        };
        if was_believed || self.may_say(fact, event, signer) {
            Some(fact.to_fact(event.stored_at))
        } else {
            (event.kind == FactKind::Claim).then(|| Fact::Register(Register::bad("untrusted")))
        }
    }

    pub(super) fn done_command(
        &mut self,
        stored_at: u64,
        done: &DoneCommand,
        spec: &CommandSpec,
        signer: &PublicKey,
    ) -> Outcome {
        if !self.was_bridge(signer, stored_at) {
            return Ok(Applied::NotYet);
        }
        let cid = done.cid;
        let known = self.command_row(cid)?;
        if known.as_ref().is_some_and(|row| row.done) {
            return Ok(Applied::Yes);
        }
        // CMD may have forgotten the last editions before this bridge read them.
        if let Some(progress) = done.rollout.as_ref().filter(|progress| progress.is_of(spec.targets)) {
            self.spread(cid, progress)?;
        }
        if let Some(mut row) = known {
            row.done = true;
            if done.spec_sha256.is_some() {
                // The record has left out what was sealed, and so does this view.
                row.spec_sha256 = done.spec_sha256;
                self.txn.put(key::spec(cid), done.spec.0.clone());
                for (part, _) in self.txn.scan(&key::grants(cid))? {
                    self.txn.delete(part);
                }
            }
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
                spec_sha256: done.spec_sha256,
            };
            let spec_bytes = done.spec.0.clone().into();
            self.new_command(cid, NewCommand { row, spec, spec_bytes, grants: Vec::new() })?;
        }
        self.txn.put(key::purge(spec.expires_at, cid), Vec::new());
        Ok(Applied::Yes)
    }
}
