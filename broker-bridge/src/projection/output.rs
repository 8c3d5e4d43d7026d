//! Chunks of output: where they are, never what they say.
//!
//! A relay that starts again after a crash sends what was not acknowledged once more, possibly cut at other
//! places. Hence a chunk is indexed with only those bytes that no earlier chunk of its stream has.

use bytes::Bytes;
use signalbox_schemas::{
    id::{CommandId, MachineToken},
    output::{ChunkHead, OutputStream},
};

use super::{Applied, Outcome, Projection};
use crate::{
    store::{StoreError, key},
    view::Change,
};

/// Where a chunk lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ChunkRow {
    pub(crate) stream: OutputStream,
    /// Offset of its first byte that counts.
    pub(crate) offset: u64,
    /// Bytes of the body before that one.
    pub(crate) skip: u32,
    /// Bytes that count.
    pub(crate) len: u32,
    pub(crate) mid: MachineToken,
}

impl ChunkRow {
    fn to_bytes(&self) -> Vec<u8> {
        [
            &[key::stream_byte(self.stream)][..],
            &self.offset.to_be_bytes()[..],
            &self.skip.to_be_bytes()[..],
            &self.len.to_be_bytes()[..],
            self.mid.as_str().as_bytes(),
        ]
        .concat()
    }

    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let mut reader = key::Reader(bytes);
        Some(Self {
            stream: key::parse_stream(reader.u8()?)?,
            offset: reader.u64()?,
            skip: reader.u32()?,
            len: reader.u32()?,
            mid: reader.mid()?,
        })
    }
}

/// What was received of a run: bytes and whether it was cut, stdout and stderr.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Received {
    pub(crate) bytes: [u64; 2],
    pub(crate) cut: [bool; 2],
}

impl Received {
    fn to_bytes(self) -> Vec<u8> {
        let [out, err] = self.bytes;
        let cut = self.cut.map(u8::from);
        [&out.to_be_bytes()[..], &err.to_be_bytes()[..], &cut[..]].concat()
    }

    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let mut reader = key::Reader(bytes);
        let bytes = [reader.u64()?, reader.u64()?];
        Some(Self { bytes, cut: [reader.u8()? == 1, reader.u8()? == 1] })
    }
}

fn at<T>([out, err]: &mut [T; 2], stream: OutputStream) -> &mut T {
    match stream {
        OutputStream::Stdout => out,
        OutputStream::Stderr => err,
    }
}

impl Projection<'_> {
    pub(super) fn chunk(
        &mut self,
        sequence: u64,
        cid: CommandId,
        mid: &MachineToken,
        head: &ChunkHead,
        body: &Bytes,
    ) -> Outcome {
        if !self.is_run(cid, mid)? {
            return Ok(Applied::NotYet);
        }
        if self.txn.has(&key::chunk(cid, sequence))? {
            return Ok(Applied::Yes);
        }
        let mut received = self.received(cid, mid)?;
        if head.cut {
            *at(&mut received.cut, head.stream) = true;
            self.txn.put(key::received(cid, mid), received.to_bytes());
            self.changes.insert(Change::Output { cid });
            return Ok(Applied::Yes);
        }
        let Some(row) = self.fresh(cid, mid, head, body)? else {
            self.notes.push("chunk.duplicate");
            return Ok(Applied::Yes);
        };
        let total = at(&mut received.bytes, row.stream);
        *total = total.saturating_add(u64::from(row.len));
        self.txn.put(key::received(cid, mid), received.to_bytes());
        self.txn.put(key::chunk(cid, sequence), row.to_bytes());
        let place = [&sequence.to_be_bytes()[..], &row.len.to_be_bytes()[..]].concat();
        self.txn.put(key::place(cid, mid, row.stream, row.offset), place);
        self.changes.insert(Change::Output { cid });
        self.bodies.push((sequence, body.clone()));
        Ok(Applied::Yes)
    }

    fn received(&self, cid: CommandId, mid: &MachineToken) -> Result<Received, StoreError> {
        let row = self.txn.get(&key::received(cid, mid))?;
        Ok(row.and_then(|bytes| Received::parse(&bytes)).unwrap_or_default())
    }

    /// The part of a chunk that no earlier one has.
    fn fresh(
        &self,
        cid: CommandId,
        mid: &MachineToken,
        head: &ChunkHead,
        body: &Bytes,
    ) -> Result<Option<ChunkRow>, StoreError> {
        let place = |offset| key::place(cid, mid, head.stream, offset);
        let Some(end) = head.offset.checked_add(body.len() as u64) else { return Ok(None) };
        let before = self.txn.last_in(&place(0), &place(head.offset))?;
        let start = before.and_then(|(found, row)| place_end(&found, &row)).unwrap_or(0).max(head.offset);
        if start >= end {
            return Ok(None);
        }
        let behind = self.txn.first_in(&place(start), &place(end))?;
        let end = behind.and_then(|(found, _)| place_offset(&found)).unwrap_or(end);
        // Both are below the largest chunk, 128 KiB.
        let (Ok(skip), Ok(len)) =
            (u32::try_from(start - head.offset), u32::try_from(end.saturating_sub(start)))
        else {
            return Ok(None);
        };
        let row = ChunkRow { stream: head.stream, offset: start, skip, len, mid: mid.clone() };
        Ok((len > 0).then_some(row))
    }
}

/// Offset at the end of a key made by [`key::place`].
pub(crate) fn place_offset(found: &[u8]) -> Option<u64> {
    found.last_chunk::<8>().map(|bytes| u64::from_be_bytes(*bytes))
}

/// Where the chunk at such a key ends.
pub(crate) fn place_end(found: &[u8], row: &[u8]) -> Option<u64> {
    let len = key::Reader(row.get(8..)?).u32()?;
    place_offset(found)?.checked_add(u64::from(len))
}
