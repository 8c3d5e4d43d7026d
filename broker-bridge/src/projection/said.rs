//! What a machine's relay says of itself in its list, and the labels that count for the machine.

use signalbox_schemas::{
    heartbeat::Facts,
    inventory::Inventory,
    label::{LabelMap, LabelViews, Labels},
    limit::FACT_TEXT_BYTES,
    signed::PublicKey,
};

use super::{inventory::InventoryRow, memory::Machine};

/// What a list says beside credentials. It is kept whoever signed it, since the machine may get that key yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Said {
    by: PublicKey,
    labels: LabelMap,
    facts: Option<Facts>,
}

impl Said {
    pub(super) fn new(by: PublicKey, list: Inventory) -> Self {
        Self { by, labels: list.labels, facts: list.facts.map(short) }
    }

    /// What a stored list says; `None` for one that cannot be read, which nobody has stored.
    pub(super) fn of(row: &InventoryRow) -> Option<Self> {
        let list = row.envelope.peek().ok()?;
        Some(Self::new(row.envelope.key().clone(), list))
    }
}

/// A text that is too long to be kept for each machine is not known.
fn short(facts: Facts) -> Facts {
    let short = |text: String| if text.len() <= FACT_TEXT_BYTES { text } else { String::new() };
    let Facts { hostname, os, kernel, arch } = facts;
    Facts { hostname: short(hostname), os: short(os), kernel: short(kernel), arch: short(arch) }
}

impl Machine {
    /// What its relay says of itself, if the key that it has now said so.
    fn word(&self) -> Option<&Said> {
        self.said.as_ref().filter(|said| self.record.signing_key() == Some(&said.by))
    }

    /// What it is: as it was heard last, else as its relay has said in its list.
    pub(crate) fn facts(&self) -> Option<&Facts> {
        let beat = self.beat.as_ref().map(|beat| &beat.beat.facts);
        beat.or_else(|| self.word()?.facts.as_ref())
    }

    /// Its relay has keys, and has said no labels of its own yet, nor that it has none.
    pub(crate) fn is_relay_unheard(&self) -> bool {
        self.record.keys.is_some() && self.word().is_none()
    }

    /// The labels that count.
    pub(crate) fn labels(&self) -> &Labels {
        &self.labels
    }

    /// The same as they are shown.
    pub(crate) fn shown_labels(&self) -> LabelViews {
        self.record.labels.shown(self.word().map_or(&LabelMap::new(), |said| &said.labels))
    }

    /// Finds out anew which labels count: the record is another one, or the list.
    pub(super) fn relabel(&mut self) {
        self.labels = self.record.labels.counting(self.word().map_or(&LabelMap::new(), |said| &said.labels));
    }
}
