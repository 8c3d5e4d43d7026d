//! One stream of a run that has ended, read in ranges: what is looked at, and a little around it.

use std::{collections::VecDeque, sync::Arc};

use signalbox_schemas::output::OutputStream;

use super::{
    blocks::{self, BLOCK, Block, StoredLine},
    pages::Pages,
    source::{Key, Shown, Source, Step, Voice},
};

/// Blocks whose lines are kept.
const MOST_BLOCKS: usize = 16;

/// One stream as it is stored.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Which.
    pub stream: OutputStream,
    /// Its bytes.
    pub pages: Pages,
    /// Lines of blocks, those used last at the end.
    blocks: VecDeque<(u64, Arc<Block>)>,
    /// What of the bytes they were made of.
    shape: u64,
}

impl Stored {
    /// A stream of which nothing was read.
    pub fn new(stream: OutputStream) -> Self {
        Self { stream, pages: Pages::default(), blocks: VecDeque::new(), shape: 0 }
    }

    /// How many blocks it has.
    pub fn blocks(&self) -> u64 {
        self.pages.total().unwrap_or(0).div_ceil(BLOCK)
    }

    /// The lines of a block; `None`: its bytes are to be read first.
    pub fn block(&mut self, at: u64) -> Option<Arc<Block>> {
        if self.shape != self.pages.shape() {
            self.shape = self.pages.shape();
            self.blocks.clear();
        }
        if let Some(place) = self.blocks.iter().position(|(known, _)| *known == at) {
            let kept = self.blocks.remove(place)?;
            let block = Arc::clone(&kept.1);
            self.blocks.push_back(kept);
            return Some(block);
        }
        let base = at.saturating_mul(BLOCK);
        let (from, to) = blocks::needed(base);
        let part = self.pages.part(from, to)?;
        let block = Arc::new(blocks::decode(base, self.pages.total()?, &part));
        self.blocks.push_back((at, Arc::clone(&block)));
        if self.blocks.len() > MOST_BLOCKS {
            self.blocks.pop_front();
        }
        Some(block)
    }

    /// The next block that may have a line, from one on: those within a hole have none.
    pub fn from_block(&self, at: u64) -> u64 {
        let base = at.saturating_mul(BLOCK);
        match self.pages.holes().at(base) {
            // A hole is a line where it begins.
            Some((from, to)) if from < base && to >= base.saturating_add(BLOCK) => to / BLOCK,
            _ => at,
        }
    }

    /// The same backwards.
    pub fn back_from_block(&self, at: u64) -> u64 {
        let base = at.saturating_mul(BLOCK);
        match self.pages.holes().at(base) {
            Some((from, to)) if from < base && to >= base.saturating_add(BLOCK) => from / BLOCK,
            _ => at,
        }
    }

    /// A line.
    pub fn stored(&mut self, key: Key) -> Option<StoredLine> {
        let block = self.block(key.at / BLOCK)?;
        let at = block.lines.binary_search_by_key(&key, |line| line.key).ok()?;
        block.lines.get(at).cloned()
    }

    /// A stored line as it is shown.
    pub fn shown(&self, line: StoredLine) -> Shown {
        Shown {
            key: line.key,
            number: line.key.at,
            text: line.text,
            strokes: line.strokes,
            voice: if line.hole.is_some() { Voice::Own } else { Voice::Machine(self.stream) },
            run: None,
            received_ms: None,
        }
    }

    /// Has read what lies beside a stretch of bytes, so that it is there when it is gone to.
    pub fn want_beside(&mut self, from: u64, to: u64) {
        self.pages.want_at(to.saturating_add(2 * BLOCK));
        self.pages.want_at(from.saturating_sub(2 * BLOCK));
    }
}

impl Source for Stored {
    fn first(&mut self) -> Step {
        let mut at = 0;
        while at < self.blocks() {
            match self.block(at).map(|block| block.lines.first().map(|line| line.key)) {
                None => return Step::Missing,
                Some(Some(key)) => return Step::To(key),
                Some(None) => at = self.from_block(at + 1),
            }
        }
        self.end()
    }

    fn last(&mut self) -> Step {
        if self.pages.total().is_none() {
            return self.end();
        }
        self.before(Key { at: u64::MAX, part: 0 })
    }

    fn after(&mut self, key: Key) -> Step {
        let mut at = self.from_block(key.at / BLOCK);
        while at < self.blocks() {
            let Some(block) = self.block(at) else { return Step::Missing };
            let place = block.lines.partition_point(|line| line.key <= key);
            if let Some(line) = block.lines.get(place) {
                return Step::To(line.key);
            }
            at = self.from_block(at + 1);
        }
        self.end()
    }

    fn before(&mut self, key: Key) -> Step {
        let Some(last) = self.blocks().checked_sub(1) else { return self.end() };
        let mut at = self.back_from_block((key.at / BLOCK).min(last));
        loop {
            let Some(block) = self.block(at) else { return Step::Missing };
            let place = block.lines.partition_point(|line| line.key < key);
            if let Some(line) = place.checked_sub(1).and_then(|place| block.lines.get(place)) {
                return Step::To(line.key);
            }
            let Some(before) = at.checked_sub(1) else { return Step::Over };
            at = self.back_from_block(before);
        }
    }

    fn line(&mut self, key: Key) -> Option<Shown> {
        self.stored(key).map(|line| self.shown(line))
    }
}

impl Stored {
    /// Nothing more; of a stream of which nothing was read that is not known.
    fn end(&mut self) -> Step {
        if self.pages.total().is_some() {
            return Step::Over;
        }
        self.pages.want(0);
        Step::Missing
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::nats::OutputRange;
    use bytes::Bytes;
    use proptest::prelude::*;

    /// Answers all that is asked for, at most `most` bytes at a time, with holes of `hole` bytes before each full 100,000.
    fn serve(stored: &mut Stored, stream: &[u8], most: usize, hole: u64) -> usize {
        let questions = stored.pages.questions(0);
        for wanted in &questions {
            let total = stream.len() as u64;
            let mut offset = wanted.from;
            let left = 100_000 - offset % 100_000;
            if left <= hole {
                offset = (offset + left).min(total);
            }
            let next_hole = offset + (100_000 - offset % 100_000).saturating_sub(hole);
            let end =
                (offset + u64::from(wanted.most).min(most as u64)).min(next_hole.max(offset)).min(total);
            let place = |at: u64| usize::try_from(at).unwrap();
            let data = Bytes::copy_from_slice(&stream[place(offset)..place(end)]);
            let range = OutputRange { offset, total_bytes: total, is_truncated: false, data };
            stored.pages.tell(wanted.from, Ok(range));
        }
        questions.len()
    }

    fn stepped(
        stored: &mut Stored,
        stream: &[u8],
        most: usize,
        hole: u64,
        step: impl Fn(&mut Stored) -> Step,
    ) -> Option<Key> {
        for _ in 0..10_000 {
            match step(stored) {
                Step::To(key) => return Some(key),
                Step::Over => return None,
                Step::Missing => assert!(serve(stored, stream, most, hole) > 0, "nothing is asked for"),
            }
        }
        panic!("it goes in a circle");
    }

    fn all(stored: &mut Stored, stream: &[u8], most: usize, hole: u64) -> Vec<StoredLine> {
        let mut lines = vec![];
        let mut next = stepped(stored, stream, most, hole, Source::first);
        while let Some(key) = next {
            lines.push(stored.stored(key).unwrap());
            next = stepped(stored, stream, most, hole, |stored| stored.after(key));
        }
        lines
    }

    fn stream(seed: u64, len: usize) -> Vec<u8> {
        let mut state = seed | 1;
        let mut next = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state >> 33
        };
        let mut bytes = vec![];
        while bytes.len() < len {
            let run = next() % 6_000;
            let what = next() % 5;
            match what {
                0 => bytes.extend("\u{4f60}\u{597d} ".repeat(usize::try_from(run).unwrap() / 7 + 1).bytes()),
                1 => bytes.extend(vec![b'\n'; usize::try_from(run).unwrap() % 90 + 1]),
                2 => bytes.extend(vec![0xf0; usize::try_from(run).unwrap() % 900 + 1]),
                _ => {
                    bytes.extend((0..=run % 90).flat_map(|n| format!("{n} of some lines\n").into_bytes()));
                }
            }
        }
        bytes.truncate(len);
        bytes
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(8))]

        #[test]
        fn lines_are_the_same_in_whatever_order_their_pages_are_read(
            seed in any::<u64>(),
            len in 0_usize..700_000,
            jumps in prop::collection::vec(any::<u32>(), 0..12),
            most in 20_000_usize..300_000,
            hole in prop_oneof![Just(0_u64), 1_u64..99_000],
        ) {
            let stream = stream(seed, len);
            let expected = all(&mut Stored::new(OutputStream::Stdout), &stream, usize::MAX, hole);
            let mut stored = Stored::new(OutputStream::Stdout);
            for jump in jumps {
                let key = Key { at: u64::from(jump) % (len as u64 + 1), part: 0 };
                let found = stepped(&mut stored, &stream, most, hole, |stored| stored.near(key));
                if let Some(found) = found {
                    stepped(&mut stored, &stream, most, hole, |stored| stored.before(found));
                }
            }
            let mut backwards = vec![];
            let mut next = stepped(&mut stored, &stream, most, hole, Source::last);
            while let Some(key) = next {
                backwards.push(stored.stored(key).unwrap());
                next = stepped(&mut stored, &stream, most, hole, |stored| stored.before(key));
            }
            backwards.reverse();
            prop_assert_eq!(&backwards, &expected);
            prop_assert_eq!(all(&mut stored, &stream, most, hole), expected);
        }
    }

    #[test]
    fn a_stream_with_nothing_in_it_has_no_lines() {
        let mut stored = Stored::new(OutputStream::Stderr);
        assert_eq!(all(&mut stored, b"", usize::MAX, 0), []);
        assert_eq!(stored.last(), Step::Over);
    }
}
