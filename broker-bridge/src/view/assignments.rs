//! Assignments and what stands beside them, and the work of machines whose relays speak the old contract.

use std::sync::Arc;

use signalbox_schemas::{
    api::Liveness,
    command::CommandSpec,
    config::ConfigPushRecord,
    credential::SharedCredentialRecord,
    heartbeat::Facts,
    id::{CommandId, MachineId, MachineToken, Nonce},
    record::{AssignmentRecord, table},
    relay::{LegacyMetrics, RelayRecord},
    run::{RunFacts, RunState},
    signed::PublicKey,
};

use super::View;
use crate::{
    projection::RunRow,
    store::{StoreError, key, parse},
    waiters::Waiter,
};

/// When the relay of an assignment was last heard.
#[derive(Debug, Clone, PartialEq)]
pub struct Contact {
    /// When, Unix ms by the broker's clock; `None` = not since the broker forgot.
    pub seen_at: Option<u64>,
    /// Whether that was in the last minute.
    pub is_online: bool,
    /// How its machine was.
    pub metrics: Option<LegacyMetrics>,
    /// The relay with keys that stands for it since it was enrolled, unless one without keys was heard later.
    pub enrolled: Option<Enrolled>,
}

/// A relay that has enrolled with an assignment's key.
#[derive(Debug, Clone, PartialEq)]
pub struct Enrolled {
    /// Since when, Unix ms.
    pub since: u64,
    /// Its version and its machine, as it says itself; `None` = not heard since the broker forgot.
    pub said: Option<(String, Facts)>,
}

/// Where a run of an open command stands.
#[derive(Debug, Clone)]
pub(crate) struct Standing {
    pub(crate) spec: Arc<CommandSpec>,
    /// Whether it may be claimed now.
    pub(crate) waits: bool,
}

impl View {
    /// The assignment that an API key with this hash stands for, also one that was removed.
    pub(crate) fn assignment_by_key(&self, hash: &str) -> Option<AssignmentRecord> {
        self.shared.memory().assignments.by_key(hash).cloned()
    }

    /// Whether a machine has or had this signing key.
    pub(crate) fn had_key(&self, mid: &MachineToken, key: &PublicKey) -> bool {
        self.shared.memory().machines.get(mid).is_some_and(|machine| machine.keys.contains(key))
    }

    /// An assignment that was not removed.
    pub fn assignment(&self, id: &str) -> Option<AssignmentRecord> {
        self.shared.memory().assignments.get(id).cloned()
    }

    /// An assignment, also one that was removed.
    pub(crate) fn assignment_ever(&self, id: &str) -> Option<AssignmentRecord> {
        self.shared.memory().assignments.all.get(id).cloned()
    }

    /// All assignments that were not removed, sorted by id: oldest first.
    pub fn assignments(&self) -> Vec<AssignmentRecord> {
        let memory = self.shared.memory();
        memory.assignments.all.values().filter(|record| record.removed_at.is_none()).cloned().collect()
    }

    /// When an assignment's relay was last heard: by a bridge, or by itself once it was enrolled.
    pub fn contact(&self, assignment: &str, now_ms: u64) -> Contact {
        let memory = self.shared.memory();
        let heard = memory.assignments.heard.get(assignment);
        let machine =
            memory.assignments.all.get(assignment).and_then(|it| memory.machine(it.machine_id.as_str()));
        let enrolled = machine.filter(|machine| machine.record.enrolled_by.as_deref() == Some(assignment));
        let beat = enrolled.and_then(|machine| machine.beat.as_ref());
        let seen_at = heard.map(|heard| heard.seen_at).max(beat.map(|beat| beat.seen_at));
        let is_online =
            |at: Option<u64>| Liveness::of(at.map(|at| now_ms.saturating_sub(at))) != Liveness::Offline;
        // What a bridge said of the machine before that is no word of the relay with keys.
        let own = beat.filter(|beat| beat.beat.legacy.is_none());
        let own_at = own.map(|own| own.seen_at);
        let enrolled = enrolled.filter(|machine| {
            let since = own_at.unwrap_or_default().max(machine.record.enrolled_at);
            is_online(own_at) || heard.is_none_or(|heard| heard.seen_at <= since)
        });
        let metrics = match enrolled {
            Some(_) => own.and_then(|own| own.beat.metrics.as_ref()).map(LegacyMetrics::from),
            None => heard.and_then(|heard| heard.metrics.clone()),
        };
        let enrolled = enrolled.map(|machine| Enrolled {
            since: machine.record.enrolled_at,
            said: own.map(|own| (own.beat.relay.clone(), own.beat.facts.clone())),
        });
        Contact { seen_at, is_online: is_online(seen_at), metrics, enrolled }
    }

    /// What the relay without keys of an assignment last reported of its machine.
    pub(crate) fn reported_metrics(&self, assignment: &str) -> Option<LegacyMetrics> {
        self.shared.memory().assignments.heard.get(assignment).and_then(|heard| heard.metrics.clone())
    }

    /// The machine of an assignment whose relay has enrolled with it and takes its work itself: nobody asks with its API
    /// key any more.
    pub(crate) fn enrolled_machine(&self, assignment: &AssignmentRecord) -> Option<MachineId> {
        let memory = self.shared.memory();
        let machine = &memory.machine(assignment.machine_id.as_str())?.record;
        let is_its = machine.enrolled_by.as_ref() == Some(&assignment.id);
        (is_its && !machine.takes_legacy()).then(|| machine.id.clone())
    }

    /// What an assignment's relay last said about itself.
    pub fn relay(&self, assignment: &str) -> Option<RelayRecord> {
        let memory = self.shared.memory();
        memory.assignments.relays.get(assignment).filter(|record| record.removed_at.is_none()).cloned()
    }

    /// All relays of the old contract that ever reported, sorted by assignment.
    pub fn relays(&self) -> Vec<RelayRecord> {
        let memory = self.shared.memory();
        memory.assignments.relays.values().filter(|record| record.removed_at.is_none()).cloned().collect()
    }

    /// A shared credential.
    pub fn shared_credential(&self, id: &str) -> Option<SharedCredentialRecord> {
        let memory = self.shared.memory();
        memory.assignments.shared.get(id).filter(|record| record.removed_at.is_none()).cloned()
    }

    /// All shared credentials, by id.
    pub fn shared_credentials(&self) -> Vec<SharedCredentialRecord> {
        let memory = self.shared.memory();
        memory.assignments.shared.values().filter(|record| record.removed_at.is_none()).cloned().collect()
    }

    /// Shared credentials that an assignment's relay gets, by id.
    pub fn shared_with(&self, assignment: &str) -> Vec<SharedCredentialRecord> {
        self.shared.memory().assignments.shared_with(assignment).cloned().collect()
    }

    /// Pushes to an assignment's relay without an answer, oldest first.
    pub fn open_pushes(&self, assignment: &str) -> Vec<ConfigPushRecord> {
        self.shared.memory().assignments.open_pushes(assignment).cloned().collect()
    }

    /// How many pushes to an assignment's relay have no answer, and bytes of their payloads.
    pub(crate) fn open_push_load(&self, assignment: &str) -> (usize, usize) {
        let memory = self.shared.memory();
        let load = memory.assignments.open_pushes(assignment);
        load.fold((0, 0), |(count, bytes), push| (count + 1, bytes + push.payload.len()))
    }

    /// How many shared credentials there are.
    pub(crate) fn shared_count(&self) -> usize {
        let memory = self.shared.memory();
        memory.assignments.shared.values().filter(|record| record.removed_at.is_none()).count()
    }

    /// How many pushes to an assignment's relay have no answer, and how many shared credentials it gets.
    pub(crate) fn waiting_for_relay(&self, assignment: &str) -> (u64, u64) {
        let memory = self.shared.memory();
        let pushes = memory.assignments.open_pushes(assignment).count() as u64;
        (pushes, memory.assignments.shared_with(assignment).count() as u64)
    }

    /// A push.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be read.
    pub fn config_push(&self, id: &str) -> Result<Option<ConfigPushRecord>, StoreError> {
        let record: Option<ConfigPushRecord> =
            self.shared.store.json(&key::record(table::CONFIG_PUSHES, id), "push")?;
        Ok(record.filter(|record| record.removed_at.is_none()))
    }

    /// All pushes, or those whose id follows `after`, oldest first. For a thread that may block.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be read.
    pub fn config_pushes(
        &self,
        after: Option<&str>,
    ) -> impl Iterator<Item = Result<ConfigPushRecord, StoreError>> + '_ {
        let all = key::table(table::CONFIG_PUSHES);
        let mut from = key::record(table::CONFIG_PUSHES, after.unwrap_or_default());
        if after.is_some() {
            from.push(0);
        }
        let rows = self.shared.store.range(from, key::after(&all));
        let records = rows.map(|row| parse::<ConfigPushRecord>(&row?.1, "push"));
        records.filter(|record| record.as_ref().map_or(true, |record| record.removed_at.is_none()))
    }

    /// Open runs that a machine's relay has.
    pub(crate) fn running(&self, mid: &MachineToken) -> u32 {
        self.shared.memory().machines.get(mid).map_or(0, |machine| machine.running)
    }

    /// Whether relays of the old contract may take a machine's work.
    pub(crate) fn takes_legacy(&self, mid: &MachineToken) -> bool {
        self.shared.memory().machines.get(mid).is_some_and(|machine| machine.record.takes_legacy())
    }

    /// Begins to wait for a machine's work.
    pub(crate) fn wait_for_work(&self, mid: &MachineToken) -> Waiter<'_> {
        self.shared.waiters.wait_for(mid)
    }

    /// Work of a machine that nobody has claimed and that is granted as it must be, `max` at most, oldest first.
    pub(crate) fn waiting_work(&self, mid: &MachineToken, max: usize, now_ms: u64) -> Vec<Arc<CommandSpec>> {
        let memory = self.shared.memory();
        let Some(machine) = memory.machines.get(mid) else { return Vec::new() };
        let waiting = machine.queue.values().filter_map(|cid| {
            let command = memory.open.get(cid)?;
            memory.may_be_claimed(command, mid, now_ms).then(|| Arc::clone(&command.spec))
        });
        waiting.take(max).collect()
    }

    /// A machine's runs that have not settled, held ones too, oldest first, each with the nonce of its claim if it has one.
    pub(crate) fn open_runs(&self, mid: &MachineToken) -> Vec<(CommandId, Option<Nonce>)> {
        let memory = self.shared.memory();
        let Some(machine) = memory.machines.get(mid) else { return Vec::new() };
        let open = machine.queue.values().filter_map(|cid| {
            let run = memory.open.get(cid)?.runs.get(mid)?;
            Some((*cid, run.claim.map(|(nonce, _)| nonce)))
        });
        open.collect()
    }

    /// Where a run of a command stands that has not settled everywhere; `None` when there is no such open command for the
    /// machine.
    pub(crate) fn standing(&self, cid: CommandId, mid: &MachineToken, now_ms: u64) -> Option<Standing> {
        let memory = self.shared.memory();
        let command = memory.open.get(&cid)?;
        command.machines.binary_search(mid).ok()?;
        Some(Standing { spec: Arc::clone(&command.spec), waits: memory.may_be_claimed(command, mid, now_ms) })
    }

    /// The facts about a run, and the state they fold to.
    pub(crate) fn run_facts(
        &self,
        cid: CommandId,
        mid: &MachineToken,
    ) -> Result<(RunFacts, RunState), StoreError> {
        let row = RunRow::of(&self.shared.store, cid, mid)?;
        let state = row.state();
        Ok((row.facts, state))
    }
}
