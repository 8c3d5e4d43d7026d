//! What relays keep for their machines, as each says itself.
//!
//! The broker keeps one message for each machine, the last. That one decides, whatever stood there before and whoever signed it, so
//! that a view which is built anew says the same as one that has read along: it is kept as it came, and shown as long as the key
//! that signed it is the one that the machine has. What a relay's own login can spoil is its own list, and the next one puts it
//! right.

use serde::{Deserialize, Serialize};
use signalbox_schemas::{id::MachineToken, inventory::Inventory, record::MachineRecord, signed::Signed};

use super::{Applied, ApplyError, Outcome, Projection, said::Said};
use crate::store::key;

/// Lists that are kept of machines without a record, which may yet come. Only who can make logins of relays can have more stored.
pub(crate) const MAX_WAITING_LISTS: usize = 10_000;

/// The last list of a machine's relay, as it was signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct InventoryRow {
    /// When the broker stored it, Unix ms.
    pub(crate) stored_at: u64,
    /// The message.
    pub(crate) envelope: Signed<Inventory>,
}

impl InventoryRow {
    /// Whether it is the word of the key that the machine has now.
    pub(crate) fn counts_for(&self, machine: &MachineRecord) -> bool {
        machine.signing_key() == Some(self.envelope.key())
    }
}

impl Projection<'_> {
    /// Keeps what stands last in a machine's place. A machine that is not known may become so.
    pub(super) fn inventory(
        &mut self,
        stored_at: u64,
        mid: &MachineToken,
        list: Result<&Signed<Inventory>, &'static str>,
        last_chance: bool,
    ) -> Outcome {
        let place = key::inventory(mid);
        let envelope = match list {
            Ok(envelope) => envelope.clone(),
            Err(reason) => {
                // It stands where the list stood, which a view that is built anew never sees.
                self.txn.delete(place);
                self.memory.waiting_lists.remove(mid);
                self.memory.put_said(mid, None);
                return Err(ApplyError::Refused(reason));
            }
        };
        if !self.memory.machines.contains_key(mid) {
            if !last_chance {
                return Ok(Applied::NotYet);
            }
            let waiting = &mut self.memory.waiting_lists;
            if waiting.len() >= MAX_WAITING_LISTS && !waiting.contains(mid) {
                return Err(ApplyError::Refused("too_many_unknown"));
            }
            waiting.insert(mid.clone());
            self.notes.push("inventory.unknown");
        }
        let row = InventoryRow { stored_at, envelope };
        self.memory.put_said(mid, Said::of(&row));
        self.txn.put_json(place, &row);
        Ok(Applied::Yes)
    }
}

#[cfg(test)]
mod tests;
