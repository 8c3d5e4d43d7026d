//! How far commands have spread: editions of [`Progress`], and what is kept in memory of those that still do.

use std::collections::BTreeSet;

use signalbox_schemas::{
    command::CommandSpec,
    id::{CommandId, MachineToken},
    rollout::{Progress, RolloutState},
    run::RunState,
    signed::PublicKey,
};

use super::{
    Applied, ApplyError, Outcome, Projection,
    memory::{Memory, Urgency},
};
use crate::{
    store::{StoreError, key},
    view::Change,
};

/// The rollout of an open command. Machines are named by their place in the command's list.
#[derive(Debug)]
pub(crate) struct OpenRollout {
    /// The newest edition; revision 0 before the first.
    pub(crate) progress: Progress,
    /// Sequence of the last message on its subject, whoever wrote it; 0 = there is none.
    pub(crate) last: u64,
    /// Those that were not let go, and were not found silent.
    held: BTreeSet<u32>,
    /// Those that were not let go, and were.
    silent: BTreeSet<u32>,
    /// Those that were let go and whose run nobody has claimed.
    waiting: BTreeSet<u32>,
    /// When a run settled last, Unix ms.
    pub(crate) settled_at: u64,
}

impl OpenRollout {
    /// That of a command, if it spreads. `known`: its newest edition.
    pub(super) fn of(cid: CommandId, spec: &CommandSpec, known: Option<Progress>) -> Option<Self> {
        spec.rollout.as_ref()?;
        let progress = known.unwrap_or_else(|| Progress::new(spec.ws.clone(), cid));
        let (held, silent, waiting) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        Some(Self { progress, last: 0, held, silent, waiting, settled_at: 0 })
    }

    pub(crate) fn is_aborted(&self) -> bool {
        self.progress.state == RolloutState::Aborted
    }

    /// Runs that were not let go and have not settled.
    pub(crate) fn held(&self) -> u32 {
        u32::try_from(self.held.len() + self.silent.len()).unwrap_or(u32::MAX)
    }

    /// Those of them that were not found silent when they were last looked at.
    pub(crate) fn present(&self) -> u32 {
        u32::try_from(self.held.len()).unwrap_or(u32::MAX)
    }

    /// Those that were let go and wait for their relays.
    pub(crate) fn waiting(&self) -> &BTreeSet<u32> {
        &self.waiting
    }

    /// A run is in this state now.
    pub(super) fn note(&mut self, place: u32, state: RunState) {
        for places in [&mut self.held, &mut self.silent, &mut self.waiting] {
            places.remove(&place);
        }
        if state.is_settled() || state.is_running() {
            return;
        }
        let is_released = self.progress.released.has(place);
        if is_released { &mut self.waiting } else { &mut self.held }.insert(place);
    }

    /// The first ones that are held, `most` at most; those that are silent are put aside.
    pub(crate) fn pick(&mut self, most: u32, is_silent: impl Fn(u32) -> bool) -> Vec<u32> {
        let (mut picked, mut silent) = (Vec::new(), Vec::new());
        for place in &self.held {
            if picked.len() >= most as usize {
                break;
            }
            if is_silent(*place) { silent.push(*place) } else { picked.push(*place) }
        }
        for place in silent {
            self.held.remove(&place);
            self.silent.insert(place);
        }
        picked
    }

    /// Looks at those that were silent once more.
    pub(crate) fn listen(&mut self, is_silent: impl Fn(u32) -> bool) {
        let back: Vec<u32> = self.silent.iter().copied().filter(|place| !is_silent(*place)).collect();
        for place in back {
            self.silent.remove(&place);
            self.held.insert(place);
        }
    }

    /// Takes the next edition; answers who may begin now.
    fn take(&mut self, progress: Progress) -> Vec<u32> {
        self.progress = progress;
        let released = &self.progress.released;
        let begins: Vec<u32> =
            self.held.iter().chain(&self.silent).copied().filter(|place| released.has(*place)).collect();
        for place in &begins {
            self.note(*place, RunState::Pending);
        }
        begins
    }
}

impl Memory {
    /// Makes the next edition of a command's rollout known; answers which machines may begin now.
    pub(super) fn set_progress(&mut self, cid: CommandId, progress: Progress) -> Vec<MachineToken> {
        let Some(command) = self.open.get_mut(&cid) else { return Vec::new() };
        let machines = command.machines.clone();
        let Some(rollout) = &mut command.rollout else { return Vec::new() };
        let was_aborted = rollout.is_aborted();
        let begins = rollout.take(progress);
        let ends = rollout.is_aborted() && !was_aborted;
        let begins: Vec<MachineToken> =
            begins.iter().filter_map(|place| machines.get(*place as usize).cloned()).collect();
        for mid in &begins {
            self.soil(mid, Urgency::Now);
            self.judge(cid, mid);
        }
        if ends {
            self.decide_anew(cid);
        }
        self.woken.extend(begins.iter().cloned());
        self.stirred.insert(cid);
        begins
    }

    /// Something stands on the subject of a rollout, whether it counts or not: what is written next follows it.
    pub(crate) fn saw_rollout(&mut self, cid: CommandId, sequence: u64) {
        if let Some(rollout) = self.open.get_mut(&cid).and_then(|command| command.rollout.as_mut()) {
            rollout.last = sequence;
        }
    }

    /// A run of a command has settled at `at`, Unix ms.
    pub(super) fn settled(&mut self, cid: CommandId, at: u64) {
        if let Some(rollout) = self.open.get_mut(&cid).and_then(|command| command.rollout.as_mut()) {
            rollout.settled_at = rollout.settled_at.max(at);
        }
    }
}

impl Projection<'_> {
    pub(super) fn rollout(
        &mut self,
        (sequence, stored_at): (u64, u64),
        cid: CommandId,
        progress: &Progress,
        signer: &PublicKey,
    ) -> Outcome {
        // Stored behind its spec, in the same stream.
        if !self.txn.has(&key::command(cid))? {
            return Err(ApplyError::Refused("unknown"));
        }
        if !self.was_bridge(signer, stored_at) {
            return Ok(Applied::NotYet);
        }
        let Some(targets) = self.spreads_over(cid)? else { return Err(ApplyError::Refused("rollout")) };
        if !progress.is_of(targets) {
            return Err(ApplyError::Refused("rollout"));
        }
        if let Some(rollout) = self.memory.open.get_mut(&cid).and_then(|command| command.rollout.as_mut()) {
            rollout.last = rollout.last.max(sequence);
        }
        self.spread(cid, progress)?;
        Ok(Applied::Yes)
    }

    /// Makes an edition known that is believed, if it says something new, wherever it was read.
    pub(super) fn spread(&mut self, cid: CommandId, progress: &Progress) -> Result<(), StoreError> {
        let known: Option<Progress> = self.txn.json(&key::rollout(cid), "rollout")?;
        let before = known.unwrap_or_else(|| Progress::new(progress.ws.clone(), cid));
        let Some(progress) = progress.clone().behind(&before) else { return Ok(()) };
        self.txn.put_json(key::rollout(cid), &progress);
        let begins = self.memory.set_progress(cid, progress);
        self.changes.extend(begins.into_iter().map(|mid| Change::Run { cid, mid }));
        self.changes.insert(Change::Command { cid });
        Ok(())
    }

    /// Over how many machines a command spreads; `None` = it goes to all at once.
    fn spreads_over(&self, cid: CommandId) -> Result<Option<u32>, ApplyError> {
        if let Some(open) = self.memory.open.get(&cid) {
            return Ok(open.rollout.as_ref().map(|_| open.spec.targets));
        }
        let spec = self.spec_of(cid)?;
        Ok(spec.filter(|spec| spec.rollout.is_some()).map(|spec| spec.targets))
    }
}
