//! The authors document, records, heartbeats and mailboxes.

use std::sync::Arc;

use bytes::Bytes;
use signalbox_schemas::{
    authors::Authors,
    config::ConfigPushRecord,
    heartbeat::Heartbeat,
    id::{MachineToken, Sha256},
    record::table,
    signed::PublicKey,
};

use super::{
    Applied, ApplyError, MailboxRow, Outcome, Projection,
    inventory::InventoryRow,
    memory::{AuthorsDoc, Urgency},
    said::Said,
};
use crate::{ingest::decode::Record, store::key};

impl Projection<'_> {
    pub(super) fn authors(
        &mut self,
        sequence: u64,
        doc: &Authors,
        sha256: Sha256,
        envelope: &Bytes,
    ) -> Outcome {
        let known = self.memory.authors.as_ref();
        if known.is_some_and(|known| known.sha256 == sha256) {
            return Ok(Applied::Yes);
        }
        if known.is_some_and(|known| known.doc.version >= doc.version) {
            return Err(ApplyError::Refused("older_version"));
        }
        tracing::info!(version = doc.version, sequence, "authors document taken");
        self.txn.put(key::AUTHORS.to_vec(), envelope.to_vec());
        self.memory.authors = Some(AuthorsDoc { doc: Arc::new(doc.clone()), sha256 });
        let machines: Vec<_> = self.memory.machines.keys().cloned().collect();
        for mid in &machines {
            self.memory.soil(mid, Urgency::Now);
        }
        self.memory.judge_all();
        Ok(Applied::Yes)
    }

    pub(super) fn record(&mut self, stored_at: u64, record: &Record, signer: &PublicKey) -> Outcome {
        if !self.was_bridge(signer, stored_at) {
            return Ok(Applied::NotYet);
        }
        match record {
            Record::Machine(record) => {
                let known = self.memory.machines.get(&record.token);
                newer(record.revision, known.map(|known| known.record.revision))?;
                self.txn.put_json(key::record(table::MACHINES, record.token.as_str()), record);
                for signing_key in record.signing_key().into_iter().chain(&record.former_keys) {
                    self.txn.put(key::machine_key(&record.token, signing_key.as_str()), Vec::new());
                }
                let is_new = known.is_none();
                self.memory.put_machine(record.clone());
                if is_new {
                    // Its relay may have said something before it was known.
                    let row: Option<InventoryRow> =
                        self.txn.json(&key::inventory(&record.token), "inventory")?;
                    self.memory.put_said(&record.token, row.as_ref().and_then(Said::of));
                }
                // Whoever waits for its work may have it now, or have it no more.
                self.memory.woken.insert(record.token.clone());
                self.memory.soil(&record.token, Urgency::Now);
            }
            Record::Operator(record) => {
                newer(record.revision, self.memory.operators.get(&record.id).map(|known| known.revision))?;
                self.txn.put_json(key::record(table::OPERATORS, record.id.as_str()), record);
                self.memory.operators.insert(record.id.clone(), record.clone());
            }
            Record::Assignment(record) => {
                let known = self.memory.assignments.all.get(&record.id).map(|known| known.revision);
                newer(record.revision, known)?;
                self.txn.put_json(key::record(table::ASSIGNMENTS, &record.id), record);
                // Whoever waits with its key asks again whether that still counts, and so must what is on offer.
                self.memory.woken.insert(record.machine_id.token());
                self.memory.soil(&record.machine_id.token(), Urgency::Now);
                self.memory.assignments.put(record.clone());
            }
            Record::ApiKey(id, record) => {
                self.txn.put_json(key::record(table::API_KEYS, id), record);
                self.memory.assignments.put_key(id, record.clone());
            }
            Record::Relay(record) => {
                let known = self.memory.assignments.relays.get(&record.assignment);
                newer(record.revision, known.map(|known| known.revision))?;
                self.txn.put_json(key::record(table::RELAYS, &record.assignment), record);
                self.memory.assignments.relays.insert(record.assignment.clone(), record.clone());
            }
            Record::SharedCredential(record) => {
                let known = self.memory.assignments.shared.get(&record.id).map(|known| known.revision);
                newer(record.revision, known)?;
                self.txn.put_json(key::record(table::SHARED_CREDENTIALS, &record.id), record);
                self.memory.assignments.shared.insert(record.id.clone(), record.clone());
            }
            Record::ConfigPush(record) => {
                let place = key::record(table::CONFIG_PUSHES, &record.id);
                let known: Option<ConfigPushRecord> = self.txn.json(&place, "push")?;
                newer(record.revision, known.map(|known| known.revision))?;
                self.txn.put_json(place, record);
                self.memory.assignments.put_push((**record).clone());
            }
        }
        Ok(Applied::Yes)
    }

    pub(super) fn heartbeat(&mut self, stored_at: u64, beat: &Heartbeat) -> Applied {
        if self.memory.heartbeat(stored_at, beat) { Applied::Yes } else { Applied::NotYet }
    }

    /// What the dispatcher wrote and put down. It looked at what changed meanwhile itself.
    pub(super) fn own_mailbox(&mut self, mid: &MachineToken, sequence: u64) {
        let row = self.memory.mailboxes.get(mid);
        // It may have written another one since.
        if let Some(row) = row.filter(|row| row.sequence == sequence) {
            self.txn.put_json(key::mailbox(mid), row);
        }
    }

    pub(super) fn mailbox(
        &mut self,
        mid: &MachineToken,
        sequence: u64,
        found: Option<&(MailboxRow, PublicKey)>,
        last_chance: bool,
    ) -> Applied {
        let row = match found {
            Some((row, signer)) if self.is_bridge(signer) => row.clone(),
            Some(_) if !last_chance => return Applied::NotYet,
            Some(_) | None => MailboxRow::foreign(sequence),
        };
        let known = self.memory.mailboxes.get(mid).map_or(0, |known| known.sequence);
        // The dispatcher puts down what it wrote itself, and may be ahead.
        if known > sequence {
            return Applied::Yes;
        }
        // One that it has run into is counted there.
        if row.is_foreign() && known < sequence {
            self.notes.push("mailbox.foreign");
        }
        self.memory.soil(mid, Urgency::Now);
        let row = self.memory.take_mailbox(mid, row);
        self.txn.put_json(key::mailbox(mid), row);
        Applied::Yes
    }
}

/// Refuses an edition below the one that is known.
fn newer(revision: u64, known: Option<u64>) -> Result<(), ApplyError> {
    let is_older = known.is_some_and(|known| revision < known);
    if is_older { Err(ApplyError::Refused("older_revision")) } else { Ok(()) }
}
