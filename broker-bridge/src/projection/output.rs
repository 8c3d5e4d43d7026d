//! Chunks of output: where they are, never what they say.
//!
//! A relay that starts again after a crash sends what was not acknowledged once more, possibly cut at other
//! places. Hence a chunk is indexed with only those bytes that no earlier chunk of its stream has.

use bytes::Bytes;
use signalbox_schemas::{
    id::{CommandId, MachineToken},
    output::{ChunkHead, OutputStream},
};

use super::{Applied, ApplyError, Outcome, Projection};
use crate::{
    store::{StoreError, key},
    view::Change,
};

/// Chunks, and pieces of chunks, that are indexed of one run: as many as OUT keeps of one subject. An honest relay needs
/// 33,000 for the largest output there may be.
const CHUNKS_PER_RUN: u32 = 200_000;

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
    /// Rows of chunks.
    chunks: u32,
}

impl Received {
    fn to_bytes(self) -> Vec<u8> {
        let [out, err] = self.bytes;
        let cut = self.cut.map(u8::from);
        [&out.to_be_bytes()[..], &err.to_be_bytes()[..], &cut[..], &self.chunks.to_be_bytes()[..]].concat()
    }

    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let mut reader = key::Reader(bytes);
        let bytes = [reader.u64()?, reader.u64()?];
        Some(Self { bytes, cut: [reader.u8()? == 1, reader.u8()? == 1], chunks: reader.u32()? })
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
        let mut received = self.received(cid, mid)?;
        if head.cut {
            *at(&mut received.cut, head.stream) = true;
            self.txn.put(key::received(cid, mid), received.to_bytes());
            self.changes.insert(Change::Output { cid, mid: mid.clone() });
            return Ok(Applied::Yes);
        }
        if received.chunks >= CHUNKS_PER_RUN {
            return Err(ApplyError::Refused("too_many_chunks"));
        }
        let pieces = self.fresh(cid, mid, head, body)?;
        if pieces.is_empty() {
            self.notes.push("chunk.duplicate");
            return Ok(Applied::Yes);
        }
        for row in pieces {
            received.chunks = received.chunks.saturating_add(1);
            let total = at(&mut received.bytes, row.stream);
            *total = total.saturating_add(u64::from(row.len));
            self.txn.put(key::chunk(cid, sequence, row.skip), row.to_bytes());
            let place =
                [&sequence.to_be_bytes()[..], &row.len.to_be_bytes()[..], &row.skip.to_be_bytes()[..]];
            self.txn.put(key::place(cid, mid, row.stream, row.offset), place.concat());
        }
        self.txn.put(key::received(cid, mid), received.to_bytes());
        self.changes.insert(Change::Output { cid, mid: mid.clone() });
        self.bodies.push((sequence, body.clone()));
        Ok(Applied::Yes)
    }

    fn received(&self, cid: CommandId, mid: &MachineToken) -> Result<Received, StoreError> {
        let row = self.txn.get(&key::received(cid, mid))?;
        Ok(row.and_then(|bytes| Received::parse(&bytes)).unwrap_or_default())
    }

    /// The parts of a chunk that no earlier one has, in order.
    fn fresh(
        &self,
        cid: CommandId,
        mid: &MachineToken,
        head: &ChunkHead,
        body: &Bytes,
    ) -> Result<Vec<ChunkRow>, StoreError> {
        let place = |offset| key::place(cid, mid, head.stream, offset);
        let mut pieces = Vec::new();
        let mut start = head.offset;
        let Some(end) = start.checked_add(body.len() as u64) else { return Ok(pieces) };
        while start < end {
            let before = self.txn.last_in(&place(0), &place(start))?;
            if let Some(known) =
                before.and_then(|(found, row)| place_end(&found, &row)).filter(|at| *at > start)
            {
                start = known;
                continue;
            }
            let behind = self.txn.first_in(&place(start), &place(end))?;
            let stop = behind.and_then(|(found, _)| place_offset(&found)).unwrap_or(end);
            // Both are below the largest chunk, 128 KiB.
            let skip = u32::try_from(start - head.offset).unwrap_or(u32::MAX);
            let len = u32::try_from(stop - start).unwrap_or(u32::MAX);
            pieces.push(ChunkRow { stream: head.stream, offset: start, skip, len, mid: mid.clone() });
            start = stop;
        }
        Ok(pieces)
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

#[cfg(test)]
mod tests {
    use nkeys::{KeyPair, KeyPairType};
    use proptest::prelude::*;
    use signalbox_schemas::{id::Workspace, signed::SigningKey};

    use super::*;
    use crate::{
        ingest::decode::Decoder,
        projection::{CommandRow, RunRow, memory::Memory},
        store::Store,
    };

    /// A projection that knows one command on one machine.
    fn with_run<T>(test: impl FnOnce(&mut Projection<'_>, CommandId, &MachineToken) -> T) -> T {
        let pair = KeyPair::new_from_raw(KeyPairType::User, [1; 32]).unwrap();
        let key = SigningKey::from_seed(&pair.seed().unwrap()).unwrap().public().clone();
        let decoder = Decoder { ws: Workspace::main(), fleet_key: key.clone() };
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), "t").unwrap();
        let cid: CommandId = "0193a2b4-0000-7000-8000-000000000000".parse().unwrap();
        let mid = MachineToken::new("web-1").unwrap();
        let mut memory = Memory::default();
        let mut projection = Projection::new(&mut memory, &store, &decoder);
        let machines = vec![mid.clone()];
        let row = CommandRow {
            sequence: 1,
            accepted_at: 1,
            author: key,
            machines,
            expires_at: 1,
            done: false,
            spec_sha256: None,
        };
        projection.txn.put_json(key::command(cid), &row);
        projection.txn.put(key::run(cid, &mid), RunRow::default().to_bytes());
        test(&mut projection, cid, &mid)
    }

    fn head(offset: u64) -> ChunkHead {
        ChunkHead { stream: OutputStream::Stdout, offset, counter: 0, sha256: None, cut: false }
    }

    #[test]
    fn a_run_has_so_many_chunks_and_no_more() {
        with_run(|projection, cid, mid| {
            let body = Bytes::from_static(b"x");
            let mut nearly = projection.received(cid, mid).unwrap();
            nearly.chunks = CHUNKS_PER_RUN - 2;
            projection.txn.put(key::received(cid, mid), nearly.to_bytes());
            for sequence in 1..=2 {
                projection.chunk(sequence, cid, mid, &head(sequence), &body).unwrap();
            }
            let refused = projection.chunk(3, cid, mid, &head(3), &body);
            assert!(matches!(refused, Err(ApplyError::Refused("too_many_chunks"))), "{refused:?}");
            assert_eq!(projection.received(cid, mid).unwrap().bytes, [2, 0]);
        });
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// However a stream is cut into chunks, and cut again: every byte once, each in its place.
        #[test]
        fn every_byte_counts_once(chunks in prop::collection::vec((0..60_u64, 1..20_usize), 1..30)) {
            with_run(|projection, cid, mid| {
                let truth: Vec<u8> = (0..100).collect();
                let (mut sent, mut indexed) = ([false; 100], [false; 100]);
                for (i, (offset, len)) in chunks.iter().enumerate() {
                    let from = usize::try_from(*offset).unwrap();
                    sent[from..from + len].fill(true);
                    let body = Bytes::copy_from_slice(&truth[from..from + len]);
                    prop_assert_eq!(projection.chunk(i as u64 + 1, cid, mid, &head(*offset), &body).unwrap(), Applied::Yes);
                    let from = key::chunk(cid, i as u64 + 1, 0);
                    for (_, row) in projection.txn.scan(&from[..from.len() - 4]).unwrap() {
                        let row = ChunkRow::parse(&row).unwrap();
                        let (skip, len) = (row.skip as usize, row.len as usize);
                        for (i, byte) in body[skip..skip + len].iter().enumerate() {
                            let at = usize::try_from(row.offset).unwrap() + i;
                            prop_assert!(!indexed[at], "byte {} twice", at);
                            prop_assert_eq!(*byte, truth[at]);
                            indexed[at] = true;
                        }
                    }
                }
                prop_assert_eq!(indexed, sent);
                let total = indexed.iter().filter(|indexed| **indexed).count() as u64;
                prop_assert_eq!(projection.received(cid, mid).unwrap().bytes[0], total);
                Ok(())
            })?;
        }
    }
}
