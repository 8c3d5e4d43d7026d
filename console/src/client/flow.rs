//! What a feed has delivered: numbers, positions, credit, and output put in order.
//!
//! Pure. The broker may drop messages, a bridge may die, a feed may be opened anew at its last position: what
//! comes out of here is each byte once and in order per machine and stream. Output that arrives ahead of a
//! hole is held back until the hole is filled or the run has ended, within a bound.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use signalbox_schemas::{
    id::MachineId,
    limit::{FEED_CREDIT_BYTES, TARGETS},
    output::OutputStream,
};

/// Credit is given back in steps of a quarter of the window: few messages, and the window never runs dry while
/// the reader keeps up.
const CREDIT_STEP_BYTES: u64 = FEED_CREDIT_BYTES / 4;
/// Output held back behind holes, all streams together. A relay has at most 1 MiB in flight and a tail is at
/// most 1 MiB, so what belongs together fits many times over.
const HELD_BYTES: usize = 16 * 1024 * 1024;
/// Streams of one command: a bridge that names more machines than a command may have makes them up.
const TRACKS: usize = TARGETS * OutputStream::ALL.len();

/// A message of the feed is missing, or another bridge speaks: it must be opened anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap;

/// A piece of output that is next in its stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// The machine.
    pub machine: MachineId,
    /// The stream.
    pub stream: OutputStream,
    /// Offset of its first byte. A jump means that bytes in between do not exist any more.
    pub offset: u64,
    /// The bytes.
    pub data: Bytes,
}

/// One stream of one run.
#[derive(Debug, Default)]
struct Track {
    /// Everything before this offset was given out.
    next: u64,
    /// Chunks ahead of a hole, by offset.
    held: BTreeMap<u64, Bytes>,
}

/// The state of one feed over all its openings.
#[derive(Debug, Default)]
pub struct Flow {
    next_seq: u64,
    bridge: Option<String>,
    position: u64,
    tracks: HashMap<(MachineId, OutputStream), Track>,
    held_bytes: usize,
    consumed: u64,
}

impl Flow {
    /// The feed is opened anew: numbers start at 0, credit is full.
    pub fn reopen(&mut self) {
        self.next_seq = 0;
        self.bridge = None;
        self.consumed = 0;
    }

    /// Where to resume; `None` = from the first byte.
    pub fn position(&self) -> Option<u64> {
        (self.position > 0).then_some(self.position)
    }

    /// Whether anything was answered since it was opened.
    pub fn is_answered(&self) -> bool {
        self.next_seq > 0
    }

    /// Takes the number of an answer and who gave it.
    ///
    /// # Errors
    /// [`Gap`] when it is not the next one, or not from the same bridge.
    pub fn number(&mut self, seq: u64, bridge: &str) -> Result<(), Gap> {
        let same = self.bridge.as_deref().is_none_or(|known| known == bridge);
        if seq != self.next_seq || !same {
            return Err(Gap);
        }
        self.next_seq += 1;
        if self.bridge.is_none() {
            self.bridge = Some(bridge.to_owned());
        }
        Ok(())
    }

    /// The bridge has passed over output that is gone.
    pub fn reached(&mut self, position: u64) {
        self.position = self.position.max(position);
    }

    /// Takes a chunk; answers what is next in its stream now.
    pub fn chunk(&mut self, piece: Piece, position: u64) -> Vec<Piece> {
        self.reached(position);
        self.consumed += piece.data.len() as u64;
        let Piece { machine, stream, offset, data } = piece;
        let key = (machine, stream);
        if self.tracks.len() >= TRACKS && !self.tracks.contains_key(&key) {
            return Vec::new();
        }
        let track = self.tracks.entry(key.clone()).or_default();
        let end = offset.saturating_add(data.len() as u64);
        if end <= track.next {
            return Vec::new();
        }
        // Of two chunks at one offset the longer stands.
        let before = track.held.get(&offset).map_or(0, Bytes::len);
        if data.len() > before {
            self.held_bytes += data.len() - before;
            track.held.insert(offset, data);
        }
        let must_jump = self.held_bytes > HELD_BYTES;
        self.release(&key, must_jump)
    }

    /// A run has ended and all its output was sent: what is still held follows now.
    pub fn settled(&mut self, machine: &MachineId) -> Vec<Piece> {
        let keys = OutputStream::ALL.map(|stream| (machine.clone(), stream));
        keys.iter().flat_map(|key| self.release(key, true)).collect()
    }

    /// Credit to give back, once it is worth a message. Call [`Self::credited`] when it was sent.
    pub fn credit_due(&self) -> Option<u64> {
        (self.consumed >= CREDIT_STEP_BYTES).then_some(self.consumed)
    }

    /// So much credit was given.
    pub fn credited(&mut self, bytes: u64) {
        self.consumed = self.consumed.saturating_sub(bytes);
    }

    /// Gives out what is in order; over holes too, when `jump`.
    fn release(&mut self, key: &(MachineId, OutputStream), jump: bool) -> Vec<Piece> {
        let Some(track) = self.tracks.get_mut(key) else { return Vec::new() };
        let mut pieces = Vec::new();
        while let Some(entry) = track.held.first_entry() {
            if *entry.key() > track.next && !jump {
                break;
            }
            let (offset, data) = entry.remove_entry();
            self.held_bytes = self.held_bytes.saturating_sub(data.len());
            let known = track.next.saturating_sub(offset);
            let Some(rest) = usize::try_from(known).ok().filter(|skip| *skip < data.len()) else { continue };
            let piece = Piece {
                machine: key.0.clone(),
                stream: key.1,
                offset: offset + known,
                data: data.slice(rest..),
            };
            track.next = piece.offset + piece.data.len() as u64;
            pieces.push(piece);
        }
        pieces
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn piece(offset: u64, data: &[u8]) -> Piece {
        let machine = MachineId::new("demo-1").unwrap();
        Piece { machine, stream: OutputStream::Stdout, offset, data: Bytes::copy_from_slice(data) }
    }

    fn text(pieces: &[Piece]) -> Vec<(u64, String)> {
        pieces.iter().map(|p| (p.offset, String::from_utf8(p.data.to_vec()).unwrap())).collect()
    }

    #[test]
    fn what_was_seen_is_dropped_and_overlaps_are_cut() {
        let mut flow = Flow::default();
        assert_eq!(text(&flow.chunk(piece(0, b"abcd"), 1)), [(0, "abcd".to_owned())]);
        assert_eq!(flow.chunk(piece(0, b"abcd"), 1), []);
        assert_eq!(text(&flow.chunk(piece(2, b"cdef"), 2)), [(4, "ef".to_owned())]);
        assert_eq!(flow.position(), Some(2));
        flow.reached(0);
        assert_eq!(flow.position(), Some(2));
        flow.reached(9);
        assert_eq!(flow.position(), Some(9), "what is gone is asked for again");
    }

    #[test]
    fn a_hole_is_waited_for_until_it_is_filled() {
        let mut flow = Flow::default();
        assert_eq!(flow.chunk(piece(4, b"ef"), 1), []);
        assert_eq!(text(&flow.chunk(piece(0, b"abcd"), 2)), [(0, "abcd".to_owned()), (4, "ef".to_owned())]);
    }

    #[test]
    fn a_hole_that_stays_is_jumped_over_when_the_run_has_ended() {
        let mut flow = Flow::default();
        assert_eq!(text(&flow.chunk(piece(0, b"ab"), 1)), [(0, "ab".to_owned())]);
        assert_eq!(flow.chunk(piece(900, b"yz"), 2), []);
        assert_eq!(text(&flow.settled(&MachineId::new("demo-1").unwrap())), [(900, "yz".to_owned())]);
    }

    #[test]
    fn what_is_held_is_bounded() {
        let mut flow = Flow::default();
        let big = vec![b'x'; 1024 * 1024];
        let given: usize = (1..=40).map(|n| flow.chunk(piece(n * 1_048_577, &big), n).len()).sum();
        assert!(given > 0, "nothing was given out");
        assert!(flow.held_bytes <= HELD_BYTES, "{} bytes are held", flow.held_bytes);
    }

    #[test]
    fn machines_that_no_command_could_have_are_not_kept() {
        let mut flow = Flow::default();
        for n in 0..20_500 {
            let machine = MachineId::new(format!("made-up-{n}")).unwrap();
            flow.chunk(Piece { machine, ..piece(0, b"ab") }, n + 1);
        }
        assert_eq!(flow.tracks.len(), 20_000);
        assert_eq!(flow.credit_due().unwrap_or(flow.consumed), 41_000, "credit for what was dropped is lost");
    }

    #[test]
    fn a_missing_number_and_a_second_bridge_are_gaps() {
        let mut flow = Flow::default();
        assert_eq!(flow.number(1, "b1"), Err(Gap));
        assert_eq!(flow.number(0, "b1"), Ok(()));
        assert_eq!(flow.number(1, "b2"), Err(Gap));
        assert_eq!(flow.number(1, "b1"), Ok(()));
        flow.reopen();
        assert_eq!(flow.number(0, "b2"), Ok(()));
    }

    #[test]
    fn credit_is_given_back_in_steps_also_for_repeats() {
        let mut flow = Flow::default();
        let chunk = vec![0; 128 * 1024];
        flow.chunk(piece(0, &chunk), 1);
        assert_eq!(flow.credit_due(), None);
        flow.chunk(piece(0, &chunk), 1);
        assert_eq!(flow.credit_due(), Some(256 * 1024));
        flow.credited(256 * 1024);
        assert_eq!(flow.credit_due(), None);
    }

    proptest! {
        /// Chunks of one text in any order, any of them twice: the text comes out once.
        #[test]
        fn any_order_gives_the_text(
            sizes in prop::collection::vec(1usize..20, 1..20),
            order in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
        ) {
            let total: usize = sizes.iter().sum();
            let whole: Vec<u8> = (0..total).map(|i| u8::try_from(i % 251).unwrap()).collect();
            let mut chunks = Vec::new();
            let mut at = 0;
            for size in sizes {
                chunks.push((at, whole[at..at + size].to_vec()));
                at += size;
            }
            let mut arriving: Vec<_> = order.iter().map(|i| chunks[i.index(chunks.len())].clone()).collect();
            arriving.extend(chunks);
            let mut flow = Flow::default();
            let mut out = Vec::new();
            for (offset, data) in arriving {
                for piece in flow.chunk(piece(offset as u64, &data), 1) {
                    prop_assert_eq!(piece.offset, out.len() as u64);
                    out.extend_from_slice(&piece.data);
                }
            }
            prop_assert_eq!(out, whole);
            prop_assert_eq!(flow.held_bytes, 0);
        }
    }
}
