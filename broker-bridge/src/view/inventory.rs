//! What relays keep for their machines.

use std::{cmp::Reverse, collections::HashMap};

use signalbox_schemas::{
    api::{InventoryView, ReachView, Target},
    command::SSH_PORT,
    credential::CredentialMeta,
    host::{self, HostPattern, PatternError},
    id::MachineToken,
    inventory::Inventory,
    record::{AssignmentRecord, MachineRecord},
};

use super::View;
use crate::{
    projection::inventory::InventoryRow,
    store::{StoreError, key},
};

/// A host that somebody asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// As it was written.
    text: String,
    host: String,
    port: u16,
}

impl Place {
    pub(crate) fn parse(text: &str) -> Result<Self, PatternError> {
        let (host, port) = host::place(text)?;
        Ok(Self { text: text.to_owned(), host, port: port.unwrap_or(SSH_PORT) })
    }

    /// Those that mean it, as their relay would choose: the closest first, then by name.
    pub(crate) fn opened_by(&self, credentials: Vec<CredentialMeta>) -> Vec<CredentialMeta> {
        let mut found: Vec<_> = credentials
            .into_iter()
            .filter_map(|meta| {
                let pattern: HostPattern = meta.target_host.as_ref()?.parse().ok()?;
                Some((pattern.matches(&self.host, self.port)?, meta))
            })
            .collect();
        found.sort_by(|(a, x), (b, y)| {
            (Reverse(a), &x.credential_name).cmp(&(Reverse(b), &y.credential_name))
        });
        found.into_iter().map(|(_, meta)| meta).collect()
    }

    /// Whether one of a relay of the old contract does: it compares letter by letter.
    fn is_named_by(&self, meta: &CredentialMeta) -> bool {
        meta.target_host.as_deref().is_some_and(|host| host == self.text || host == self.host)
    }
}

/// What a relay has said; it was verified before it was stored.
fn said_in(row: &InventoryRow) -> Result<Inventory, StoreError> {
    row.envelope.peek().map_err(|_| StoreError::Damaged("inventory"))
}

impl View {
    /// What a machine's relay says that it keeps, if what stands last was signed with the key that it has now; and when the broker stored that, Unix ms.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be read.
    pub(crate) fn inventory_row(&self, mid: &MachineToken) -> Result<Option<InventoryRow>, StoreError> {
        let row: Option<InventoryRow> = self.shared.store.json(&key::inventory(mid), "inventory")?;
        let memory = self.shared.memory();
        let machine = memory.machines.get(mid);
        Ok(row.filter(|row| machine.is_some_and(|machine| row.counts_for(&machine.record))))
    }

    /// The same, read.
    pub(crate) fn inventory(&self, mid: &MachineToken) -> Result<Option<(u64, Inventory)>, StoreError> {
        let Some(row) = self.inventory_row(mid)? else { return Ok(None) };
        Ok(Some((row.stored_at, said_in(&row)?)))
    }

    /// The credentials that the relay of an assignment holds, and since when that is known, Unix ms: one with keys says it
    /// itself, of others it is their last report.
    pub(crate) fn held_by(
        &self,
        assignment: &AssignmentRecord,
    ) -> Result<Option<(u64, Vec<CredentialMeta>)>, StoreError> {
        let machine = self.machine(assignment.machine_id.as_str());
        let stands_for_it = |record: &MachineRecord| {
            record.enrolled_by.as_ref() == Some(&assignment.id) || !record.takes_legacy()
        };
        if let Some(machine) = machine.filter(stands_for_it)
            && let Some((stored_at, inventory)) = self.inventory(&machine.token)?
        {
            return Ok(Some((stored_at, inventory.credentials)));
        }
        Ok(self.relay(&assignment.id).map(|report| (report.reported_at, report.credentials)))
    }

    /// A machine with what its relay says; `None` where a host is asked for that it has no credential for.
    pub(crate) fn inventory_view(
        &self,
        target: Target,
        place: Option<&Place>,
    ) -> Result<Option<InventoryView>, StoreError> {
        let row = self.inventory_row(&target.token)?;
        if let Some(place) = place {
            let said = row.as_ref().map(said_in).transpose()?;
            if place.opened_by(said.map(|said| said.credentials).unwrap_or_default()).is_empty() {
                return Ok(None);
            }
        }
        let signing_key =
            self.machine(target.token.as_str()).and_then(|record| record.signing_key().cloned());
        let (seen_at, inventory) = row.map(|row| (row.stored_at, row.envelope)).unzip();
        let Target { id: machine, token, state } = target;
        Ok(Some(InventoryView { machine, token, state, signing_key, seen_at, inventory }))
    }

    /// What relays of the old contract have reported for a host, by machine.
    pub(crate) fn reported_for(&self, place: &Place) -> HashMap<MachineToken, Vec<CredentialMeta>> {
        let memory = self.shared.memory();
        let mut found: HashMap<_, Vec<_>> = HashMap::new();
        for report in memory.assignments.relays.values().filter(|report| report.removed_at.is_none()) {
            let Some(assignment) = memory.assignments.get(&report.assignment) else { continue };
            let machine = memory.machine(assignment.machine_id.as_str());
            let Some(machine) = machine.filter(|machine| machine.record.takes_legacy()) else { continue };
            let named: Vec<_> = report.credentials.iter().filter(|meta| place.is_named_by(meta)).collect();
            if !named.is_empty() {
                found.entry(machine.record.token.clone()).or_default().extend(named.into_iter().cloned());
            }
        }
        found
    }

    /// A machine with its credentials for a host, its own and what was `reported`; `None` where it has none.
    pub(crate) fn reach_view(
        &self,
        target: Target,
        place: &Place,
        reported: &mut HashMap<MachineToken, Vec<CredentialMeta>>,
    ) -> Result<Option<ReachView>, StoreError> {
        let kept = self.inventory(&target.token)?.map(|(_, inventory)| inventory.credentials);
        let mut credentials = place.opened_by(kept.unwrap_or_default());
        credentials.extend(reported.remove(&target.token).unwrap_or_default());
        if credentials.is_empty() {
            return Ok(None);
        }
        let Target { id: machine, token, state } = target;
        Ok(Some(ReachView { machine, token, state, credentials }))
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use signalbox_schemas::credential::{CredentialType, StorageMode};

    use super::*;

    fn meta(name: &str, target: &str) -> CredentialMeta {
        CredentialMeta {
            credential_name: name.to_owned(),
            credential_type: CredentialType::SshKey,
            target_host: Some(target.to_owned()).filter(|target| !target.is_empty()),
            storage_mode: StorageMode::RelayOnly,
            last_updated_at: 1,
            username: None,
            created_at: None,
        }
    }

    #[rstest]
    #[case("db-1.lan", &["one", "port-less", "glob", "star"])]
    #[case("DB-1.lan.:22", &["one", "port-less", "glob", "star"])]
    #[case("db-1.lan:2222", &["other-port", "port-less", "glob", "star"])]
    #[case("10.1.2.3", &["net", "star"])]
    fn the_closest_comes_first(#[case] place: &str, #[case] names: &[&str]) {
        let all = [
            ("star", "*"),
            ("glob", "*.lan"),
            ("net", "10.0.0.0/8"),
            ("port-less", "db-1.lan"),
            ("one", "db-1.lan:22"),
            ("other-port", "db-1.lan:2222"),
            ("none", ""),
            ("rubbish", "[["),
        ];
        let all = all.map(|(name, target)| meta(name, target)).to_vec();
        let found = Place::parse(place).unwrap().opened_by(all);
        assert_eq!(found.iter().map(|meta| meta.credential_name.as_str()).collect::<Vec<_>>(), names);
    }

    #[rstest]
    #[case("*.lan")]
    #[case("10.0.0.0/8")]
    #[case("a:0")]
    #[case("")]
    fn only_one_host_is_a_place(#[case] text: &str) {
        Place::parse(text).unwrap_err();
    }
}
