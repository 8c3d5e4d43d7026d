//! Assignments and what stands beside them: relays of the old contract, shared credentials, configuration pushes.
//!
//! All of it is kept in memory, because every request of an old relay asks for some of it. Only pushes that were
//! answered are not: their number is bounded by nothing but time.

use std::collections::{BTreeMap, HashMap};

use signalbox_schemas::{
    config::ConfigPushRecord,
    credential::SharedCredentialRecord,
    id::MachineToken,
    record::{ApiKeyRecord, AssignmentRecord, table},
    relay::{LegacyMetrics, RelayRecord},
};

use crate::store::{Store, StoreError, key, parse};

/// When a relay of the old contract was last heard, and how its machine was.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Heard {
    /// When the broker stored it, Unix ms.
    pub(crate) seen_at: u64,
    pub(crate) metrics: Option<LegacyMetrics>,
}

/// Everything about assignments, removed ones included: their keys are known, and count no more.
#[derive(Debug, Default)]
pub(crate) struct Assignments {
    pub(crate) all: BTreeMap<String, AssignmentRecord>,
    /// Assignments by the hash of their API key.
    pub(crate) by_key: HashMap<String, String>,
    pub(crate) relays: BTreeMap<String, RelayRecord>,
    pub(crate) heard: HashMap<String, Heard>,
    pub(crate) shared: BTreeMap<String, SharedCredentialRecord>,
    /// Pushes without an answer, by assignment and id: oldest first.
    pub(crate) pushes: HashMap<String, BTreeMap<String, ConfigPushRecord>>,
}

impl Assignments {
    /// Reads what the store has.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) fn load(store: &Store) -> Result<Self, StoreError> {
        let mut known = Self::default();
        for row in store.scan(&key::table(table::ASSIGNMENTS)) {
            known.put(parse(&row?.1, "assignment")?);
        }
        for row in store.scan(&key::table(table::API_KEYS)) {
            let (found, row) = row?;
            let hash = found.get(key::table(table::API_KEYS).len()..).map(String::from_utf8_lossy);
            let record: ApiKeyRecord = parse(&row, "API key")?;
            known.put_key(&hash.unwrap_or_default(), record);
        }
        for row in store.scan(&key::table(table::RELAYS)) {
            let record: RelayRecord = parse(&row?.1, "relay")?;
            known.relays.insert(record.assignment.clone(), record);
        }
        for row in store.scan(&key::table(table::SHARED_CREDENTIALS)) {
            let record: SharedCredentialRecord = parse(&row?.1, "shared credential")?;
            known.shared.insert(record.id.clone(), record);
        }
        for row in store.scan(&key::table(table::CONFIG_PUSHES)) {
            known.put_push(parse(&row?.1, "push")?);
        }
        Ok(known)
    }

    pub(crate) fn put(&mut self, record: AssignmentRecord) {
        self.all.insert(record.id.clone(), record);
    }

    pub(crate) fn put_key(&mut self, hash: &str, record: ApiKeyRecord) {
        self.by_key.insert(hash.to_owned(), record.assignment);
    }

    pub(crate) fn put_push(&mut self, record: ConfigPushRecord) {
        let is_open = record.state.is_open() && record.removed_at.is_none();
        let open = self.pushes.entry(record.assignment.clone()).or_default();
        if is_open {
            open.insert(record.id.clone(), record);
            return;
        }
        open.remove(&record.id);
        if open.is_empty() {
            self.pushes.remove(&record.assignment);
        }
    }

    /// The assignment that an API key stands for. The hash in its own record must be the same: a record of the key alone
    /// gives nobody a machine.
    pub(crate) fn by_key(&self, hash: &str) -> Option<&AssignmentRecord> {
        self.all.get(self.by_key.get(hash)?).filter(|record| record.api_key_hash == hash)
    }

    /// An assignment that was not removed.
    pub(crate) fn get(&self, id: &str) -> Option<&AssignmentRecord> {
        self.all.get(id).filter(|record| record.removed_at.is_none())
    }

    /// Shared credentials that an assignment's relay gets, by id.
    pub(crate) fn shared_with<'a>(
        &'a self,
        assignment: &'a str,
    ) -> impl Iterator<Item = &'a SharedCredentialRecord> + 'a {
        let is_for = move |record: &&SharedCredentialRecord| {
            record.removed_at.is_none()
                // What is kept for relays with keys is none that these could open.
                && record.kept.is_none()
                && record.assigned.binary_search_by(|id| id.as_str().cmp(assignment)).is_ok()
        };
        self.shared.values().filter(is_for)
    }

    /// Pushes without an answer, oldest first.
    pub(crate) fn open_pushes<'a>(
        &'a self,
        assignment: &str,
    ) -> impl Iterator<Item = &'a ConfigPushRecord> + 'a {
        self.pushes.get(assignment).into_iter().flat_map(BTreeMap::values)
    }

    /// A bridge says that it heard an assignment's relay. Answers whether it is one of that machine.
    pub(crate) fn hear(
        &mut self,
        assignment: &str,
        machine: &MachineToken,
        seen_at: u64,
        metrics: Option<LegacyMetrics>,
    ) -> bool {
        let is_its = self.get(assignment).is_some_and(|record| record.machine_id.token() == *machine);
        if is_its {
            let heard = self.heard.entry(assignment.to_owned()).or_default();
            if heard.seen_at <= seen_at {
                *heard = Heard { seen_at, metrics };
            }
        }
        is_its
    }
}
