//! A run as it is stored: what is known of it, and its facts as they stood in RUN, in one row.
//!
//! A leaf of sled holds sixteen rows, however small, and is written whole when it is split: so a row less is worth more than
//! bytes less.
//!
//! ```text
//! length of the head (u32), head (JSON), then for each fact:
//! kind (its first letter), sequence, stored_at (2 × u64), length of the body (u32), body
//! ```

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use signalbox_schemas::{
    id::{CommandId, MachineToken},
    run::{RunFacts, RunKind, RunState},
    subject::FactKind,
};

use crate::{
    ingest::decode::FactMessage,
    store::{Store, StoreError, key, parse},
};

/// One run. Absent = nothing is known, it is pending.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RunRow {
    /// Facts, without output that an exit carries: that stays in the message.
    pub(crate) facts: RunFacts,
    /// When it settled as it is, Unix ms of the broker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) settled_at: Option<u64>,
    /// The state that stands in DONE.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) done: Option<RunState>,
    /// The messages, as they are stored.
    #[serde(skip)]
    messages: Vec<u8>,
}

impl RunRow {
    /// A run of which these are known, without their messages.
    #[cfg(test)]
    pub(crate) fn told(facts: RunFacts) -> Self {
        Self { facts, ..Self::default() }
    }

    pub(crate) fn state(&self) -> RunState {
        // Runs are on the relay's own machine, as long as this version knows nothing else. That a command is held back
        // is no fact but a matter of time: the view adds it.
        self.facts.state(RunKind::default())
    }

    /// The kind of the fact that says how it ended, if it has.
    pub(crate) fn ended_by(&self) -> FactKind {
        match (self.facts.exit(), self.facts.lost()) {
            (Some(_), _) => FactKind::Exit,
            (None, Some(_)) => FactKind::Lost,
            (None, None) => FactKind::Claim,
        }
    }

    /// The row of a run as the store has it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) fn of(store: &Store, cid: CommandId, mid: &MachineToken) -> Result<Self, StoreError> {
        store.get(&key::run(cid, mid))?.map_or(Ok(Self::default()), Self::parse)
    }

    /// # Errors
    /// [`StoreError::Damaged`] when it is none.
    pub(crate) fn parse(mut row: Vec<u8>) -> Result<Self, StoreError> {
        let damaged = || StoreError::Damaged("run");
        let mut reader = key::Reader(&row);
        let head = reader.u32().and_then(|length| reader.bytes(length as usize)).ok_or_else(damaged)?;
        let parsed: Self = parse(head, "run")?;
        row.drain(..4 + head.len());
        Ok(Self { messages: row, ..parsed })
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        // Our own rows are maps with text keys: they always have a JSON form.
        let head = serde_json::to_vec(self).unwrap_or_default();
        let length = u32::try_from(head.len()).unwrap_or_default();
        [&length.to_be_bytes()[..], &head, &self.messages].concat()
    }

    /// Keeps a fact's message, in the place of one of the same kind.
    pub(crate) fn keep(&mut self, kind: FactKind, (sequence, stored_at): (u64, u64), body: &[u8]) {
        let others: Vec<_> = self.messages().filter(|(known, ..)| *known != kind).collect();
        let size = self.messages.len() + HEAD + body.len();
        let mut messages = Vec::with_capacity(size);
        for (kind, sequence, stored_at, body) in others.into_iter().chain([(kind, sequence, stored_at, body)])
        {
            messages.push(letter(kind));
            messages.extend(sequence.to_be_bytes());
            messages.extend(stored_at.to_be_bytes());
            // Messages of the broker are below 4 GiB.
            messages.extend(u32::try_from(body.len()).unwrap_or_default().to_be_bytes());
            messages.extend(body);
        }
        self.messages = messages;
    }

    /// The message of a fact.
    pub(crate) fn message(&self, kind: FactKind) -> Option<FactMessage> {
        let (kind, sequence, stored_at, body) = self.messages().find(|(known, ..)| *known == kind)?;
        Some(FactMessage { kind, sequence, stored_at, body: Bytes::copy_from_slice(body) })
    }

    fn messages(&self) -> impl Iterator<Item = (FactKind, u64, u64, &[u8])> {
        let mut reader = key::Reader(&self.messages);
        std::iter::from_fn(move || {
            let letter_of = reader.u8()?;
            let kind = FactKind::ALL.into_iter().find(|kind| letter(*kind) == letter_of)?;
            let (sequence, stored_at, length) = (reader.u64()?, reader.u64()?, reader.u32()?);
            Some((kind, sequence, stored_at, reader.bytes(length as usize)?))
        })
    }
}

/// Bytes of a message beside its body.
const HEAD: usize = 1 + 8 + 8 + 4;

/// They all begin with another one.
fn letter(kind: FactKind) -> u8 {
    kind.as_str().as_bytes().first().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn what_was_kept_is_there_the_newest_of_each_kind() {
        let mut row = RunRow { settled_at: Some(7), ..RunRow::default() };
        row.keep(FactKind::Claim, (1, 10), b"claim");
        row.keep(FactKind::Lost, (2, 20), b"");
        row.keep(FactKind::Exit, (3, 30), &vec![0xff; 70_000]);
        row.keep(FactKind::Lost, (4, 40), b"lost");
        let row = RunRow::parse(row.to_bytes()).unwrap();
        assert_eq!(row.settled_at, Some(7));
        let kept = |kind| {
            let message = row.message(kind)?;
            Some((message.sequence, message.stored_at, message.body))
        };
        assert_eq!(kept(FactKind::Claim), Some((1, 10, Bytes::from_static(b"claim"))));
        assert_eq!(kept(FactKind::Exit), Some((3, 30, Bytes::from(vec![0xff; 70_000]))));
        assert_eq!(kept(FactKind::Lost), Some((4, 40, Bytes::from_static(b"lost"))));
        assert_eq!(kept(FactKind::Start), None);
    }

    #[test]
    fn a_row_that_is_none_is_damage() {
        for bad in [&b""[..], b"{}", &[0, 0, 0, 9, b'{', b'}'], &[0, 0, 0, 2, b'{', b'x']] {
            assert!(RunRow::parse(bad.to_vec()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn each_kind_has_a_letter_of_its_own() {
        let letters: BTreeSet<u8> = FactKind::ALL.into_iter().map(letter).collect();
        assert_eq!(letters.len(), FactKind::ALL.len());
    }
}
