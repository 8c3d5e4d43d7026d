//! What relays keep for their machines, as each says itself.
//!
//! Nobody but the machine's own key is believed, and a list that it made later is not replaced by an earlier one that somebody
//! stores again. The broker keeps one message for each machine, so that a view which is built anew knows the last that was
//! stored there: what a relay's own login can spoil is its own list, and the next one puts it right.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use signalbox_schemas::{id::MachineToken, inventory::Inventory, signed::PublicKey, signed::Signed};

use super::{Applied, ApplyError, Outcome, Projection};
use crate::store::key;

/// The newest list of a machine's relay, as it was signed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct InventoryRow {
    /// When the broker stored it, Unix ms.
    pub(crate) stored_at: u64,
    /// Its revision.
    pub(crate) revision: u64,
    /// The message.
    pub(crate) envelope: Signed<Inventory>,
}

impl Projection<'_> {
    pub(super) fn inventory(
        &mut self,
        stored_at: u64,
        mid: &MachineToken,
        (revision, signer): (u64, &PublicKey),
        envelope: &Bytes,
    ) -> Outcome {
        let Some(machine) = self.memory.machines.get(mid) else { return Ok(Applied::NotYet) };
        if !machine.keys.contains(signer) {
            return Ok(Applied::NotYet);
        }
        let has = |key: &PublicKey| machine.record.signing_key() == Some(key);
        if let Some(known) = self.txn.json::<InventoryRow>(&key::inventory(mid), "inventory")? {
            let is_newer = if known.envelope.key() == signer {
                known.revision < revision
            } else {
                // A key that was replaced does not take the word of the one that replaced it.
                has(signer) || !has(known.envelope.key())
            };
            if !is_newer {
                return Err(ApplyError::Refused("older_revision"));
            }
        }
        let envelope = Signed::from_json(envelope).map_err(|error| ApplyError::Refused(error.reason()))?;
        self.txn.put_json(key::inventory(mid), &InventoryRow { stored_at, revision, envelope });
        Ok(Applied::Yes)
    }
}
