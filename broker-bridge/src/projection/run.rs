//! Facts about runs.

use signalbox_schemas::{
    id::{CommandId, MachineToken, Nonce},
    run::{Claim, Exit, Fact, Register, RunState},
    signed::PublicKey,
    subject::FactKind,
};

use super::{Applied, ApplyError, MAX_UNKNOWN_FACTS, Outcome, Projection, fact_row, memory::Urgency};
use crate::{
    ingest::decode::{FactEvent, SignedFact},
    store::{StoreError, key},
    view::Change,
};

impl SignedFact {
    /// What it means for the fold, without output that an exit carries.
    pub(super) fn to_fact(&self, stored_at: u64) -> Fact {
        match self {
            Self::Claim(claim) => {
                Fact::Register(Register::Claimed { nonce: claim.nonce, stored_at, via: claim.via.clone() })
            }
            Self::Rejection(rejection) => Fact::Register(Register::Rejected {
                reason: rejection.reason,
                message: rejection.message.clone(),
            }),
            Self::Withdrawal(withdrawal) => Fact::Register(Register::Withdrawn(withdrawal.reason)),
            Self::Start(start) => Fact::Start(start.clone()),
            Self::Exit(exit) => Fact::Exit(Box::new(Exit { inline: None, ..(**exit).clone() })),
            Self::Lost(lost) => Fact::Lost(lost.clone()),
        }
    }
}

impl Projection<'_> {
    /// Applies a fact, or puts it aside when its run is not known.
    pub(super) fn fact_or_aside(&mut self, event: &FactEvent) -> Outcome {
        if !self.is_run(event.cid, &event.mid)? {
            return self.put_aside(event);
        }
        match self.fact(event)? {
            Applied::Yes => Ok(Applied::Yes),
            // The run is known, so it is the key that is not.
            Applied::NotYet if event.kind == FactKind::Claim => {
                self.place(event, Fact::Register(Register::bad("untrusted")))
            }
            Applied::NotYet => Err(ApplyError::Refused("untrusted")),
        }
    }

    /// Applies a fact of a run that is known, by a key that is known.
    pub(super) fn fact(&mut self, event: &FactEvent) -> Outcome {
        if !self.is_run(event.cid, &event.mid)? {
            return Ok(Applied::NotYet);
        }
        let (fact, signer) = match &event.fact {
            Ok(fact) => fact,
            // The first message in a register decides, also when it says nothing.
            Err(reason) => return self.place(event, Fact::Register(Register::bad(reason))),
        };
        if !self.may_say(fact, event, signer) {
            return Ok(Applied::NotYet);
        }
        self.place(event, fact.to_fact(event.stored_at))
    }

    /// Whether a key may say this: withdrawals are a bridge's, `lost` and rejections a bridge's or the
    /// machine's, the rest is the machine's own.
    pub(super) fn may_say(&self, fact: &SignedFact, event: &FactEvent, signer: &PublicKey) -> bool {
        let machine = self.memory.machines.get(&event.mid);
        let own = machine.is_some_and(|machine| machine.keys.contains(signer));
        match fact {
            // A relay without a key has a bridge speak for it, and one with a key nobody.
            SignedFact::Withdrawal(_) | SignedFact::Claim(Claim { via: Some(_), .. }) => {
                self.was_bridge(signer, event.stored_at)
            }
            // A bridge judges the grants of relays that cannot.
            SignedFact::Lost(_) | SignedFact::Rejection(_) => own || self.was_bridge(signer, event.stored_at),
            SignedFact::Start(start) if start.via.is_some() => self.was_bridge(signer, event.stored_at),
            SignedFact::Exit(exit) if exit.via.is_some() => self.was_bridge(signer, event.stored_at),
            _ => own,
        }
    }

    /// Whether the command is known and meant for the machine.
    pub(super) fn is_run(&self, cid: CommandId, mid: &MachineToken) -> Result<bool, StoreError> {
        if let Some(command) = self.memory.open.get(&cid) {
            return Ok(command.machines.binary_search(mid).is_ok());
        }
        // Of one that has settled every run has a row, and its own would have to be parsed whole: it names 10,000 machines.
        Ok(self.txn.has(&key::command(cid))? && self.txn.has(&key::run(cid, mid))?)
    }

    /// Folds a fact into its run. The fold decides what it changes; everything else follows from that.
    pub(super) fn place(&mut self, event: &FactEvent, fact: Fact) -> Outcome {
        let (cid, mid) = (event.cid, &event.mid);
        let mut row = self.run_row(cid, mid)?;
        let before = row.state();
        if let (Fact::Lost(lost), Some((nonce, _))) = (&fact, row.facts.claim())
            && lost.nonce != nonce
        {
            // It must not stand in the way of the one that a bridge writes when the time is over.
            return Err(ApplyError::Refused("nonce"));
        }
        if !row.facts.apply(event.sequence, fact) {
            return Ok(Applied::Yes);
        }
        let (after, claim) = (row.state(), row.facts.claim());
        row.keep(event.kind, (event.sequence, event.stored_at), &event.body);
        // One that was stored earlier may have taken the place of the one that ended it: DONE is read beside RUN.
        if after.is_settled() && (after != before || row.ended_by() == event.kind) {
            if let Some(at) = row.settled_at.take() {
                self.txn.delete(key::settled_run(at, cid, mid));
            }
            row.settled_at = Some(event.stored_at);
            self.memory.settled(cid, event.stored_at);
            self.txn.put(key::settled_run(event.stored_at, cid, mid), Vec::new());
            if row.done.is_some() {
                // It stands in DONE as it was, and what came now stands in RUN: to be purged again, and not before the
                // last offer of it is void.
                let expires_at = self.spec_of(cid)?.map_or(0, |spec| spec.expires_at);
                self.txn.put(key::purge(event.stored_at.max(expires_at), cid), Vec::new());
            }
        }
        self.txn.put(key::run(cid, mid), row.to_bytes());
        self.changes.insert(Change::Run { cid, mid: mid.clone() });
        if after != before {
            self.moved(cid, mid, (after, claim));
            self.count(cid, before, after, event.stored_at)?;
        }
        Ok(Applied::Yes)
    }

    fn moved(
        &mut self,
        cid: CommandId,
        mid: &MachineToken,
        (state, claim): (RunState, Option<(Nonce, u64)>),
    ) {
        self.memory.set_run(cid, mid, state, claim);
        let cancelled = self.memory.open.get(&cid).is_some_and(|command| command.cancelled);
        // A claim of a cancelled command is to be told at once; a settled offer can wait.
        let urgency = if cancelled && state.is_running() { Urgency::Now } else { Urgency::Later };
        self.memory.soil(mid, urgency);
    }

    /// Keeps a fact whose run is not known, for its command may yet come, and the lease holder purges it.
    fn put_aside(&mut self, event: &FactEvent) -> Outcome {
        let place = key::unknown(event.cid, &event.mid, event.kind);
        if self.txn.has(&place)? {
            return Ok(Applied::Yes);
        }
        self.notes.push("run.unknown");
        if self.memory.unknown_facts >= MAX_UNKNOWN_FACTS {
            return Err(ApplyError::Refused("too_many_unknown"));
        }
        self.memory.unknown_facts += 1;
        self.txn.put(place, fact_row(event.sequence, event.stored_at, &event.body));
        Ok(Applied::Yes)
    }
}
