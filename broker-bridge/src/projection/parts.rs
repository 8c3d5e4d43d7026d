//! Parts that wait for their spec.
//!
//! A submit that is tried again writes its parts again, and its grants may be others by then: what belongs together is told
//! by the spec that the grants speak of, never by numbers alone. So whatever comes twice, or between the parts of another
//! try, the spec finds the same grants.

use std::collections::BTreeSet;

use bytes::Bytes;
use signalbox_schemas::{
    command::{CommandSpec, Grant, Granted, Part, granted},
    id::{CommandId, Sha256},
    signed::Signed,
};

use super::{Applied, Outcome, Projection};
use crate::store::{Row, StoreError, key, parse};

/// Parts with the same number that wait for one spec: a submit that is tried again writes its parts again.
pub(crate) const MAX_WAITING_PARTS: usize = 8;

/// The grants that a spec was waited for with.
#[derive(Debug)]
pub(crate) struct Gathered {
    pub(crate) granted: Granted,
    /// Sorted by machine.
    pub(crate) grants: Vec<Signed<Grant>>,
    /// The parts as they stood in CMD, in their order.
    pub(crate) bodies: Vec<Vec<u8>>,
    /// When the broker stored the oldest of them, Unix ms.
    pub(crate) stored_at: u64,
}

/// A part that waits, with when the broker stored it, Unix ms.
struct Waiting {
    part: Part,
    stored_at: u64,
    body: Vec<u8>,
}

/// A row of a part: its body is empty once there was no room for it.
pub(crate) fn parse_row(row: &[u8]) -> Option<(u64, &[u8])> {
    let mut reader = key::Reader(row);
    Some((reader.u64()?, reader.rest()))
}

/// Finds the newest parts that fit a spec; what does not fit belongs to another try. `scan` answers rows by prefix, in
/// order. The error names why there are none, for counters.
///
/// Whoever accepts a command and whoever reads it later must agree on this, or an accepted command is none.
///
/// # Errors
/// [`StoreError`].
pub(crate) fn gather(
    spec: &CommandSpec,
    sha256: Sha256,
    scan: impl Fn(&[u8]) -> Result<Vec<Row>, StoreError>,
) -> Result<Result<Gathered, &'static str>, StoreError> {
    let mut reason = "no_grants";
    // Of each number of parts that there may be the newest are tried, and no others: they would fit no better.
    let mut tried = BTreeSet::new();
    for first in waiting(spec.cid, 1, &scan)? {
        let first = first?;
        let of = first.part.of;
        if of > 1 && (first.part.spec_sha256() != Some(sha256) || !tried.insert(of)) {
            continue;
        }
        let mut parts = vec![first];
        for n in 2..=of {
            let is_meant = |it: &Waiting| it.part.of == of && it.part.spec_sha256() == Some(sha256);
            // What cannot be read ends the search too.
            let found = waiting(spec.cid, n, &scan)?.find(|it| it.as_ref().map_or(true, is_meant));
            parts.extend(found.transpose()?);
        }
        if parts.len() < of as usize {
            reason = "parts_missing";
            continue;
        }
        let stored_at = parts.iter().map(|it| it.stored_at).min().unwrap_or_default();
        let (grants, bodies): (Vec<_>, Vec<_>) =
            parts.into_iter().map(|it| (it.part.grants, it.body)).unzip();
        let grants = grants.concat();
        match granted(spec, sha256, &grants) {
            Ok(granted) => return Ok(Ok(Gathered { granted, grants, bodies, stored_at })),
            Err(why) => reason = why.reason(),
        }
    }
    Ok(Err(reason))
}

/// The parts of a number that wait, the newest first. Each is half a megabyte of grants, and read only when it is asked for.
fn waiting(
    cid: CommandId,
    n: u32,
    scan: impl Fn(&[u8]) -> Result<Vec<Row>, StoreError>,
) -> Result<impl Iterator<Item = Result<Waiting, StoreError>>, StoreError> {
    let read = |(_, row): Row| {
        let (stored_at, body) = parse_row(&row).ok_or(StoreError::Damaged("part"))?;
        let waiting = || Ok(Waiting { part: parse(body, "part")?, stored_at, body: body.to_vec() });
        if body.is_empty() { Ok(None) } else { waiting().map(Some) }
    };
    Ok(scan(&key::parts(cid, n))?.into_iter().rev().filter_map(move |row| read(row).transpose()))
}

impl Projection<'_> {
    pub(super) fn part(
        &mut self,
        (sequence, stored_at): (u64, u64),
        (cid, n): (CommandId, u32),
        body: &Bytes,
    ) -> Outcome {
        let place = key::part(cid, n, sequence);
        // A submit that is tried again after its commit, or a part that is read again.
        if self.txn.has(&key::command(cid))? || self.txn.has(&place)? {
            return Ok(Applied::Yes);
        }
        let rows = self.txn.scan(&key::parts(cid, n))?;
        let mut waiting: Vec<&Row> = rows.iter().filter(|(_, row)| row.len() > 8).collect();
        if let Some(again) = waiting.iter().position(|(_, row)| row.get(8..) == Some(body)) {
            // The same part once more: it is as young as its newest copy.
            let (found, row) = waiting.remove(again);
            if *found > place {
                self.put_part(place, stored_at, &[]);
                return Ok(Applied::Yes);
            }
            self.empty_part(found, row);
        }
        if waiting.len() >= MAX_WAITING_PARTS
            && let Some((oldest, row)) = waiting.first()
        {
            // The oldest goes: the newest is the one whose spec is on its way.
            self.empty_part(oldest, row);
            self.notes.push("part.dropped");
        }
        self.put_part(place, stored_at, body);
        Ok(Applied::Yes)
    }

    fn put_part(&mut self, place: Vec<u8>, stored_at: u64, body: &[u8]) {
        self.memory.waiting_parts += 1;
        self.txn.put(place, [&stored_at.to_be_bytes()[..], body].concat());
    }

    /// Forgets what a part says, and not where it stands: it is deleted there with the others, should no spec come.
    fn empty_part(&mut self, place: &[u8], row: &[u8]) {
        self.txn.put(place.to_vec(), row.get(..8).unwrap_or_default().to_vec());
    }

    /// No part of this command is waited with any more.
    pub(super) fn forget_parts(&mut self, cid: CommandId) -> Result<(), StoreError> {
        for prefix in key::all_parts(cid) {
            for (waiting, _) in self.txn.scan(&prefix)? {
                self.txn.delete(waiting);
                self.memory.waiting_parts = self.memory.waiting_parts.saturating_sub(1);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
