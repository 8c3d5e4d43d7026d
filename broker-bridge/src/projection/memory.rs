//! What is kept in memory: machines, operators, the authors document, and every run that did not settle.
//!
//! All of it can be read from the store again. Settled runs are not here; their number is not bounded by
//! anything but time.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use signalbox_schemas::{
    authors::Authors,
    command::{CommandSpec, Part},
    heartbeat::Heartbeat,
    id::{CommandId, MachineId, MachineToken, Nonce, OperatorId, Sha256},
    label::Labels,
    limit,
    mailbox::AuthorsRef,
    record::{MachineRecord, OperatorRecord, table},
    rollout::RolloutState,
    run::RunState,
    signed::{PublicKey, Signed},
};

use super::{
    CommandRow, MailboxRow, RunRow,
    assignments::Assignments,
    grant::{KnownGrant, by_machine},
    rollout::OpenRollout,
    said::Said,
};
use crate::store::{Store, StoreError, key, parse};

/// Place of a command in the order of all: when it was accepted (Unix ms) and its sequence in CMD.
pub(crate) type Order = (u64, u64);

/// The newest authors document.
#[derive(Debug, Clone)]
pub(crate) struct AuthorsDoc {
    pub(crate) doc: Arc<Authors>,
    pub(crate) sha256: Sha256,
}

impl AuthorsDoc {
    pub(crate) fn reference(&self) -> AuthorsRef {
        AuthorsRef { version: self.doc.version, sha256: self.sha256 }
    }
}

/// The newest heartbeat.
#[derive(Debug, Clone)]
pub(crate) struct Beat {
    pub(crate) beat: Heartbeat,
    /// When the broker stored it, Unix ms.
    pub(crate) seen_at: u64,
}

/// A machine and what is open on it.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) record: MachineRecord,
    /// Signing keys it has or had: facts outlive a change of keys.
    pub(crate) keys: HashSet<PublicKey>,
    pub(crate) beat: Option<Beat>,
    /// What its relay says of itself in the list that stands last.
    pub(crate) said: Option<Said>,
    /// The labels that count.
    pub(crate) labels: Labels,
    /// Commands with an open run here, in their order.
    pub(crate) queue: BTreeMap<Order, CommandId>,
    /// Open runs that a relay has.
    pub(crate) running: u32,
}

impl Machine {
    /// For how long it was not heard at `now`, Unix ms; `None` = never.
    pub(crate) fn silence(&self, now: u64) -> Option<u64> {
        self.beat.as_ref().map(|beat| now.saturating_sub(beat.seen_at))
    }

    pub(crate) fn pending(&self) -> u32 {
        u32::try_from(self.queue.len()).unwrap_or(u32::MAX).saturating_sub(self.running)
    }
}

/// A run that did not settle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OpenRun {
    pub(crate) state: RunState,
    /// The claim's nonce and when the broker stored it, Unix ms.
    pub(crate) claim: Option<(Nonce, u64)>,
    /// When something has to be decided about it, Unix ms.
    pub(crate) due: u64,
}

/// A command with runs that did not settle.
#[derive(Debug)]
pub(crate) struct OpenCommand {
    pub(crate) order: Order,
    pub(crate) spec_bytes: Bytes,
    pub(crate) spec: Arc<CommandSpec>,
    /// The machines it is for, sorted.
    pub(crate) machines: Arc<[MachineToken]>,
    /// Absent for one that is known from DONE alone.
    pub(crate) grants: HashMap<MachineToken, KnownGrant>,
    pub(crate) cancelled: bool,
    /// Its `not_before` has not come: nobody is offered it.
    pub(crate) held: bool,
    /// How far it has spread; absent: it goes to all at once.
    pub(crate) rollout: Option<OpenRollout>,
    pub(crate) runs: BTreeMap<MachineToken, OpenRun>,
}

/// What one run of an open command takes in memory, about: its grant, and its places in queue, deadlines and states.
const RUN_BYTES: usize = 1_200;

impl OpenCommand {
    /// What it takes in memory, about, bytes: its spec twice, as bytes and parsed.
    fn weight(&self) -> usize {
        self.spec_bytes.len() * 2 + self.machines.len() * RUN_BYTES
    }

    /// Whether its run on a machine waits for somebody at `now`, Unix ms.
    pub(crate) fn waits(&self, mid: &MachineToken, now: u64) -> bool {
        let waits = self.runs.get(mid).is_some_and(|run| !run.state.is_running());
        waits && self.may_begin(mid, now)
    }

    /// Whether its run on a machine may begin at `now`, Unix ms.
    pub(crate) fn may_begin(&self, mid: &MachineToken, now: u64) -> bool {
        !self.is_withdrawn() && !self.is_held(mid) && self.spec.expires_at > now
    }

    /// Whether what has not begun is taken back.
    pub(crate) fn is_withdrawn(&self) -> bool {
        self.cancelled || self.rollout.as_ref().is_some_and(OpenRollout::is_aborted)
    }

    /// Whether somebody of it may be let go: it spreads, its time has come, it goes on, and not all have been.
    pub(crate) fn spreads(&self) -> bool {
        let goes_on =
            |rollout: &OpenRollout| rollout.progress.state == RolloutState::Going && rollout.held() > 0;
        !self.held && !self.cancelled && self.rollout.as_ref().is_some_and(goes_on)
    }

    /// Whether its run on a machine is not to be offered yet: its time has not come, or its wave.
    pub(crate) fn is_held(&self, mid: &MachineToken) -> bool {
        let is_released =
            |rollout: &OpenRollout| self.place(mid).is_some_and(|place| rollout.progress.released.has(place));
        self.held || self.rollout.as_ref().is_some_and(|rollout| !is_released(rollout))
    }

    /// The place of a machine in its list.
    fn place(&self, mid: &MachineToken) -> Option<u32> {
        self.machines.binary_search(mid).ok().and_then(|place| u32::try_from(place).ok())
    }

    /// When something has to be decided about a run in this state, Unix ms by the broker's clock.
    fn due(&self, claim: Option<(Nonce, u64)>, lost_grace: u64) -> u64 {
        match claim {
            Some((_, at)) => at.saturating_add(self.spec.timeout_ms).saturating_add(lost_grace),
            None if self.is_withdrawn() => 0,
            None => self.spec.expires_at.saturating_add(limit::EXPIRY_GRACE_MS),
        }
    }
}

/// How soon a mailbox should be written anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Urgency {
    /// Something can be taken out.
    Later,
    /// Something is new.
    Now,
}

/// Everything in memory.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    pub(crate) authors: Option<AuthorsDoc>,
    pub(crate) machines: BTreeMap<MachineToken, Machine>,
    pub(crate) by_id: HashMap<MachineId, MachineToken>,
    pub(crate) operators: BTreeMap<OperatorId, OperatorRecord>,
    pub(crate) mailboxes: HashMap<MachineToken, MailboxRow>,
    pub(crate) open: HashMap<CommandId, OpenCommand>,
    /// What they take, about, bytes.
    pub(crate) open_bytes: usize,
    /// Open runs by when something has to be decided about them.
    pub(crate) deadlines: BTreeSet<(u64, CommandId, MachineToken)>,
    /// Held commands by their `not_before`, Unix ms.
    pub(crate) held: BTreeSet<(u64, CommandId)>,
    /// Open commands that spread in waves.
    pub(crate) rollouts: BTreeSet<CommandId>,
    /// Those of them of which something has changed.
    pub(crate) stirred: BTreeSet<CommandId>,
    /// Mailboxes that may not say what they should; bounded by the number of machines.
    pub(crate) dirty: BTreeMap<MachineToken, Urgency>,
    /// Assignments and what stands beside them.
    pub(crate) assignments: Assignments,
    /// Machines of which somebody who waits for work should look again.
    pub(crate) woken: BTreeSet<MachineToken>,
    /// Facts put aside because their run is not known.
    pub(crate) unknown_facts: u64,
    /// Rows of parts that wait for their spec.
    pub(crate) waiting_parts: u64,
    /// Machines without a record of which a list of what their relay keeps was stored.
    pub(crate) waiting_lists: BTreeSet<MachineToken>,
    /// A claimed run without an exit is lost this long after claim time and `timeout_ms`, ms.
    lost_grace_ms: u64,
}

impl Memory {
    /// Reads what the store has.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) fn load(store: &Store, lost_grace: Duration) -> Result<Self, StoreError> {
        let lost_grace_ms = u64::try_from(lost_grace.as_millis()).unwrap_or(u64::MAX);
        let mut memory = Self { lost_grace_ms, ..Self::default() };
        if let Some(envelope) = store.get(key::AUTHORS)? {
            let signed = Signed::<Authors>::from_json(&envelope);
            // It was verified before it was stored.
            let doc = signed.and_then(|signed| signed.peek()).map_err(|_| StoreError::Damaged("authors"))?;
            memory.authors = Some(AuthorsDoc { doc: Arc::new(doc), sha256: Sha256::of(&envelope) });
        }
        for row in store.scan(&key::table(table::MACHINES)) {
            memory.put_machine(parse(&row?.1, "machine")?);
        }
        for row in store.scan(&[key::MACHINE_KEY]) {
            let (found, _) = row?;
            let mut reader = key::Reader(found.get(1..).unwrap_or_default());
            let mid = reader.mid_and_zero().ok_or(StoreError::Damaged("machine key"))?;
            let key = std::str::from_utf8(reader.rest()).ok().and_then(|text| text.parse().ok());
            let key = key.ok_or(StoreError::Damaged("machine key"))?;
            if let Some(machine) = memory.machines.get_mut(&mid) {
                machine.keys.insert(key);
            }
        }
        for row in store.scan(&key::table(table::OPERATORS)) {
            let record: OperatorRecord = parse(&row?.1, "operator")?;
            memory.operators.insert(record.id.clone(), record);
        }
        for row in store.scan(&[key::MAILBOX]) {
            let (found, row) = row?;
            let mid = key::Reader(found.get(1..).unwrap_or_default()).mid();
            memory.mailboxes.insert(mid.ok_or(StoreError::Damaged("mailbox"))?, parse(&row, "mailbox")?);
        }
        for row in store.scan(&[key::OPEN]) {
            let (found, _) = row?;
            let cid = key::Reader(found.get(1..).unwrap_or_default()).cid();
            memory.load_open(store, cid.ok_or(StoreError::Damaged("open command"))?)?;
        }
        memory.assignments = Assignments::load(store)?;
        let count = |kind| store.keys(vec![kind], key::after(&[kind])).count() as u64;
        memory.unknown_facts = count(key::UNKNOWN);
        memory.waiting_parts = count(key::PART) + count(key::FURTHER_PART);
        for row in store.scan(&[key::INVENTORY]) {
            let (found, row) = row?;
            let mid = key::Reader(found.get(1..).unwrap_or_default()).mid();
            let mid = mid.ok_or(StoreError::Damaged("inventory"))?;
            if memory.machines.contains_key(&mid) {
                memory.put_said(&mid, Said::of(&parse(&row, "inventory")?));
            } else {
                memory.waiting_lists.insert(mid);
            }
        }
        Ok(memory)
    }

    fn load_open(&mut self, store: &Store, cid: CommandId) -> Result<(), StoreError> {
        let row: Option<CommandRow> = store.json(&key::command(cid), "command")?;
        let (Some(row), Some(bytes)) = (row, store.get(&key::spec(cid))?) else {
            return Err(StoreError::Damaged("open command"));
        };
        let spec = CommandSpec::from_settled_bytes(&bytes).map_err(|_| StoreError::Damaged("spec"))?;
        let mut grants = Vec::new();
        for part in store.scan(&key::grants(cid)) {
            grants.extend(parse::<Part>(&part?.1, "grants")?.grants);
        }
        let cancelled = store.has(&key::cancel(cid))?;
        let mut runs = Vec::new();
        for mid in &row.machines {
            runs.push((mid.clone(), RunRow::of(store, cid, mid)?));
        }
        let rollout = OpenRollout::of(cid, &spec, store.json(&key::rollout(cid), "rollout")?);
        let command = OpenCommand {
            order: (row.accepted_at, row.sequence),
            spec_bytes: bytes.into(),
            held: spec.not_before.is_some(),
            spec: Arc::new(spec),
            machines: row.machines.into(),
            grants: by_machine(grants),
            cancelled,
            rollout,
            runs: BTreeMap::new(),
        };
        self.put_command(cid, command);
        for (mid, run) in runs {
            self.settled(cid, run.settled_at.unwrap_or_default());
            self.set_run(cid, &mid, run.state(), run.facts.claim());
        }
        Ok(())
    }

    /// Makes an open command known, without its runs.
    pub(crate) fn put_command(&mut self, cid: CommandId, command: OpenCommand) {
        if let Some(at) = command.spec.not_before.filter(|_| command.held) {
            self.held.insert((at, cid));
        }
        if command.rollout.is_some() {
            self.rollouts.insert(cid);
        }
        self.open_bytes = self.open_bytes.saturating_add(command.weight());
        if let Some(replaced) = self.open.insert(cid, command) {
            self.open_bytes = self.open_bytes.saturating_sub(replaced.weight());
        }
    }

    /// An open command has settled.
    pub(crate) fn remove_command(&mut self, cid: CommandId) {
        self.rollouts.remove(&cid);
        self.stirred.remove(&cid);
        if let Some(command) = self.open.remove(&cid) {
            self.open_bytes = self.open_bytes.saturating_sub(command.weight());
        }
    }

    /// Lets go of the commands whose `not_before` has come; answers them with the machines that may begin: of one that spreads
    /// only those that were let go.
    pub(crate) fn release(&mut self, now: u64) -> Vec<(CommandId, Vec<MachineToken>)> {
        let mut released = Vec::new();
        while let Some((at, cid)) = self.held.first().copied().filter(|(at, _)| *at <= now) {
            self.held.remove(&(at, cid));
            let Some(command) = self.open.get_mut(&cid) else { continue };
            command.held = false;
            let machines: Vec<MachineToken> = match &command.rollout {
                Some(rollout) => {
                    self.stirred.insert(cid);
                    let places = command.machines.iter().zip(0..);
                    let begins = places.filter(|(_, place)| rollout.progress.released.has(*place));
                    begins.map(|(mid, _)| mid.clone()).collect()
                }
                None => command.machines.to_vec(),
            };
            for mid in &machines {
                self.soil(mid, Urgency::Now);
                self.judge(cid, mid);
            }
            self.woken.extend(machines.iter().cloned());
            released.push((cid, machines));
        }
        released
    }

    /// Takes what stands in a mailbox, whoever wrote it. Relays ignore what is lower than they saw, so the next one must be
    /// higher than all before.
    pub(crate) fn take_mailbox(&mut self, mid: &MachineToken, mut row: MailboxRow) -> &MailboxRow {
        let known = self.mailboxes.get(mid).map_or(0, |known| known.generation);
        row.generation = row.generation.max(known);
        self.mailboxes.entry(mid.clone()).insert_entry(row).into_mut()
    }

    /// Makes a machine known, or changes it.
    pub(crate) fn put_machine(&mut self, record: MachineRecord) {
        self.by_id.insert(record.id.clone(), record.token.clone());
        self.waiting_lists.remove(&record.token);
        let keys: Vec<PublicKey> =
            record.signing_key().into_iter().chain(&record.former_keys).cloned().collect();
        let token = record.token.clone();
        let machine = match self.machines.entry(token) {
            std::collections::btree_map::Entry::Occupied(known) => {
                let machine = known.into_mut();
                machine.record = record;
                machine
            }
            std::collections::btree_map::Entry::Vacant(free) => free.insert(Machine {
                record,
                keys: HashSet::new(),
                beat: None,
                said: None,
                labels: Labels::new(),
                queue: BTreeMap::new(),
                running: 0,
            }),
        };
        machine.keys.extend(keys);
        machine.relabel();
    }

    /// Takes what a machine's relay says of itself in the list that stands last, or that none stands there.
    pub(super) fn put_said(&mut self, mid: &MachineToken, said: Option<Said>) {
        if let Some(machine) = self.machines.get_mut(mid) {
            machine.said = said;
            machine.relabel();
        }
    }

    /// Makes the state of a run of an open command known; a settled one leaves.
    pub(crate) fn set_run(
        &mut self,
        cid: CommandId,
        mid: &MachineToken,
        state: RunState,
        claim: Option<(Nonce, u64)>,
    ) {
        let Some(command) = self.open.get_mut(&cid) else { return };
        let place = command.place(mid);
        if let (Some(rollout), Some(place)) = (&mut command.rollout, place) {
            rollout.note(place, state);
            self.stirred.insert(cid);
        }
        let before = command.runs.remove(mid);
        if let Some(before) = &before {
            self.deadlines.remove(&(before.due, cid, mid.clone()));
        }
        let due = command.due(claim, self.lost_grace_ms);
        let order = command.order;
        let is_new = before.is_none();
        if !state.is_settled() {
            command.runs.insert(mid.clone(), OpenRun { state, claim, due });
            self.deadlines.insert((due, cid, mid.clone()));
        }
        if let Some(machine) = self.machines.get_mut(mid) {
            if before.as_ref().is_some_and(|run| run.state.is_running()) {
                machine.running = machine.running.saturating_sub(1);
            }
            if state.is_settled() {
                machine.queue.remove(&order);
            } else {
                if is_new {
                    self.woken.insert(mid.clone());
                }
                machine.queue.insert(order, cid);
                machine.running += u32::from(state.is_running());
            }
        }
        if is_new {
            self.judge(cid, mid);
        }
    }

    /// Has it looked at whether the grant of a run is believed, if it is to begin and its machine has no relay with a key
    /// that does so.
    pub(super) fn judge(&mut self, cid: CommandId, mid: &MachineToken) {
        let keyless = self.machines.get(mid).is_some_and(|machine| machine.record.keys.is_none());
        let Some(command) = self.open.get(&cid).filter(|command| keyless && !command.is_held(mid)) else {
            return;
        };
        if command.runs.get(mid).is_some_and(|run| run.claim.is_none()) {
            self.put_off(cid, mid, 0);
        }
    }

    /// Has all of them looked at, and wakes who waits for what was not believed before: others may author commands now.
    pub(crate) fn judge_all(&mut self) {
        let open = self
            .machines
            .iter()
            .flat_map(|(mid, machine)| machine.queue.values().map(|cid| (*cid, mid.clone())));
        for (cid, mid) in open.collect::<Vec<_>>() {
            self.judge(cid, &mid);
        }
        self.woken.extend(self.machines.keys().cloned());
    }

    /// Marks a command as cancelled: what is not claimed is to be withdrawn at once.
    pub(crate) fn set_cancelled(&mut self, cid: CommandId) {
        let Some(command) = self.open.get_mut(&cid) else { return };
        if std::mem::replace(&mut command.cancelled, true) {
            return;
        }
        self.decide_anew(cid);
    }

    /// Has all of its runs decided about, now that it is another matter when.
    pub(super) fn decide_anew(&mut self, cid: CommandId) {
        let Some(command) = self.open.get(&cid) else { return };
        let runs: Vec<_> = command.runs.iter().map(|(mid, run)| (mid.clone(), run.clone())).collect();
        for (mid, run) in runs {
            self.set_run(cid, &mid, run.state, run.claim);
            self.soil(&mid, Urgency::Now);
        }
    }

    /// Takes a heartbeat that the broker stored at `stored_at`, Unix ms. Answers whether its machine is known.
    pub(crate) fn heartbeat(&mut self, stored_at: u64, beat: &Heartbeat) -> bool {
        let Some(machine) = self.machines.get_mut(&beat.mid) else { return false };
        if let Some(legacy) = &beat.legacy {
            let metrics = legacy.metrics.clone();
            let is_its = self.assignments.hear(&legacy.assignment, &beat.mid, stored_at, metrics);
            // A relay with a key speaks for its machine itself.
            if !is_its || machine.record.keys.is_some() {
                return true;
            }
        }
        if machine.beat.as_ref().is_none_or(|known| known.seen_at <= stored_at) {
            machine.beat = Some(Beat { beat: beat.clone(), seen_at: stored_at });
        }
        true
    }

    /// Has something decided about a run at `due`, Unix ms, and not when it was due.
    pub(crate) fn put_off(&mut self, cid: CommandId, mid: &MachineToken, due: u64) {
        let Some(run) = self.open.get_mut(&cid).and_then(|command| command.runs.get_mut(mid)) else { return };
        self.deadlines.remove(&(run.due, cid, mid.clone()));
        run.due = due;
        self.deadlines.insert((due, cid, mid.clone()));
    }

    /// Whether a machine's relay, which has keys, is given work: not while the assignment that it was enrolled with does not
    /// count.
    pub(crate) fn is_served(&self, machine: &Machine) -> bool {
        let counts = |id: &String| self.assignments.get(id).is_some_and(|assignment| assignment.enabled);
        machine.record.keys.is_some() && machine.record.enrolled_by.as_ref().is_none_or(counts)
    }

    /// A machine's mailbox may not say what it should.
    pub(crate) fn soil(&mut self, mid: &MachineToken, urgency: Urgency) {
        let entry = self.dirty.entry(mid.clone()).or_insert(urgency);
        *entry = (*entry).max(urgency);
    }

    /// A machine by token or id.
    pub(crate) fn machine(&self, id_or_token: &str) -> Option<&Machine> {
        let by_token = MachineToken::new(id_or_token).ok().and_then(|token| self.machines.get(&token));
        by_token.or_else(|| {
            let id = MachineId::new(id_or_token).ok()?;
            self.machines.get(self.by_id.get(&id)?)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::{NoRoom, View};

    /// A command on two machines that waits for its time.
    fn waiting(plan: Option<&str>) -> (Memory, CommandId) {
        let cid = crate::stage::CID.parse().unwrap();
        let bytes = crate::stage::spec(cid, "true");
        let mut spec = CommandSpec::from_bytes(bytes.as_bytes()).unwrap();
        (spec.not_before, spec.targets) = (Some(5), 2);
        spec.rollout = plan.map(|plan| plan.parse().unwrap());
        let mut memory = Memory::default();
        let command = OpenCommand {
            order: (1, 1),
            spec_bytes: bytes.into(),
            machines: ["m-0", "m-1"].map(|name| MachineToken::new(name).unwrap()).into(),
            grants: HashMap::new(),
            cancelled: false,
            held: true,
            rollout: OpenRollout::of(cid, &spec, None),
            runs: BTreeMap::new(),
            spec: Arc::new(spec),
        };
        memory.put_command(cid, command);
        (memory, cid)
    }

    #[test]
    fn when_its_time_comes_only_those_may_begin_that_were_let_go() {
        let (mut memory, cid) = waiting(None);
        assert_eq!(memory.release(4), []);
        let all = memory.open[&cid].machines.to_vec();
        assert_eq!((memory.release(5), memory.dirty.len()), (vec![(cid, all)], 2));
        // Nobody was let go yet: that is the rollout's business.
        let (mut memory, cid) = waiting(Some("canary 1"));
        assert_eq!((memory.release(5), memory.dirty.len()), (vec![(cid, vec![])], 0));
        assert!(memory.stirred.contains(&cid) && memory.woken.is_empty());
    }

    #[tokio::test]
    async fn there_is_an_end_to_what_may_wait() {
        let stage = crate::stage::Stage::start().await;
        let shared = stage.still.context.shared.clone();
        let (view, mid) = (View::new(shared.clone()), stage.mid.clone());
        let machines = [mid.clone()];
        assert_eq!(view.no_room(&machines), None);
        {
            let mut memory = shared.memory_mut();
            let machine = memory.machines.get_mut(&mid).unwrap();
            machine.queue.extend((0..10_000).map(|n| ((n, n), stage.id)));
        }
        assert_eq!(view.no_room(&machines), Some(NoRoom::Machine(MachineId::new("web-1").unwrap())));
        assert_eq!(view.no_room(&[]), None);
        shared.memory_mut().open_bytes = 512 * 1024 * 1024;
        assert_eq!(view.no_room(&[]), Some(NoRoom::Bridge));
    }
}
