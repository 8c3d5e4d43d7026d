//! Lines of a stored stream, wherever its reading begins. Pure.
//!
//! A stream is cut into blocks of a fixed size, and where the lines of a block begin follows from the bytes shortly before it
//! and in it: a line begins behind a line end and behind a hole, where one before it has the most bytes that a line may
//! have, and at the beginning of a block that no line end is shortly before. A character is not cut in two. Colours and
//! sequences that were not ended go on from line to line within a block, and not from block to block.

use std::sync::Arc;

use super::{pages::Part, source::Key};
use crate::tui::text::{
    LINE_BYTES, Lines,
    paint::{Painted, Stroke},
};

/// Bytes of a block.
pub const BLOCK: u64 = 32 * 1024;
/// Most bytes of a line, but for the rest of a character.
const LINE: u64 = LINE_BYTES as u64;

/// A line of a stored stream, or a hole in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredLine {
    /// Where it is.
    pub key: Key,
    /// Its text, clean.
    pub text: Arc<str>,
    /// How it is painted.
    pub strokes: Option<Arc<[Stroke]>>,
    /// It is no output: so many bytes were left out.
    pub hole: Option<u64>,
}

/// The lines that begin in a block, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Block {
    /// The lines.
    pub lines: Vec<StoredLine>,
}

/// The bytes that decide about the block at `base`: from, to.
pub fn needed(base: u64) -> (u64, u64) {
    (base.saturating_sub(LINE), base.saturating_add(BLOCK + LINE + 4))
}

/// The lines of the block at `base` of a stream of `total` bytes, from the part of it that [`needed`] names.
pub fn decode(base: u64, total: u64, part: &Part) -> Block {
    let raw = Raw { part, total };
    let mut lines = Lines::default();
    let mut block = Block::default();
    let (mut start, mut is_own) = raw.first_start(base);
    let end = base.saturating_add(BLOCK).min(total);
    while start < end {
        let (next, is_next_own) = raw.end_of(start, is_own);
        if start >= base {
            match raw.hole_at(start) {
                Some((from, to)) => {
                    lines.finish();
                    block.hole(from, to.min(total) - from);
                }
                None => block.line(start, raw.bytes(start, next), &mut lines),
            }
        }
        // It always goes on: whatever the bytes are, this ends.
        (start, is_own) = (next.max(start + 1), is_next_own);
    }
    block
}

impl Block {
    fn hole(&mut self, at: u64, bytes: u64) {
        let text = format!("{} left out", crate::tui::view::amount::bytes(bytes));
        self.lines.push(StoredLine {
            key: Key { at, part: 0 },
            text: text.into(),
            strokes: None,
            hole: Some(bytes),
        });
    }

    /// What is shown may be longer than what it is made of: then a line has several parts.
    fn line(&mut self, at: u64, bytes: &[u8], lines: &mut Lines) {
        let mut all = Vec::new();
        let text = bytes.strip_suffix(b"\n");
        lines.push(text.unwrap_or(bytes), |painted| all.push(painted));
        // A line end closes what was never closed; a break does not.
        let last = if text.is_some() { lines.finish() } else { lines.cut() };
        if all.is_empty() || !last.text.is_empty() {
            all.push(last);
        }
        self.lines.extend((0..).zip(all).map(|(part, Painted { text, strokes })| StoredLine {
            key: Key { at, part },
            text: text.into(),
            strokes: (!strokes.is_empty()).then(|| strokes.into()),
            hole: None,
        }));
    }
}

/// Where lines begin in a part of a stream.
struct Raw<'a> {
    part: &'a Part,
    total: u64,
}

impl Raw<'_> {
    /// The first line that begins at the base or behind it, or the one before that; and whether it begins behind a line end
    /// or a hole.
    fn first_start(&self, base: u64) -> (u64, bool) {
        if base == 0 {
            return (0, true);
        }
        if let Some((from, to)) = self.hole_at(base)
            && from < base
        {
            return (to, true);
        }
        let before = self.bytes(self.part.from, base);
        let line_end =
            before.iter().rposition(|byte| *byte == b'\n').map(|at| self.part.from + at as u64 + 1);
        let is_near = |to: &u64| (self.part.from + 1..=base).contains(to);
        let hole_end = self.part.holes.iter().map(|(_, to)| *to).filter(is_near).max();
        line_end.max(hole_end).map_or_else(|| self.broken(base), |start| (start, true))
    }

    /// Where the line that begins at `start` ends and the next one begins, and whether that one begins by itself.
    fn end_of(&self, start: u64, is_own: bool) -> (u64, bool) {
        if let Some((_, to)) = self.hole_at(start) {
            return (to, true);
        }
        let hole = self.part.holes.iter().map(|(from, _)| *from).find(|from| *from > start);
        let limit = hole.unwrap_or(u64::MAX).min(self.total);
        let base = (start / BLOCK + 1).saturating_mul(BLOCK);
        let longest = start.saturating_add(LINE);
        let is_over_the_base = is_own && start.saturating_add(LINE - 1) >= base;
        let most = if is_over_the_base { longest } else { longest.min(base) };
        let bytes = self.bytes(start, most.min(limit));
        if let Some(at) = bytes.iter().position(|byte| *byte == b'\n') {
            return (start + at as u64 + 1, true);
        }
        if limit <= most {
            return (limit, true);
        }
        let (end, is_own) = self.broken(most);
        (end.min(limit), is_own)
    }

    /// Where a line that is too long is broken: not within a character, and not just before a line end, which would make a
    /// line with nothing.
    fn broken(&self, at: u64) -> (u64, bool) {
        if self.byte(at) == Some(b'\n') {
            return (at + 1, true);
        }
        (self.behind_character(at), false)
    }

    /// The end of the character that `at` lies within; `at` where it lies within none.
    fn behind_character(&self, at: u64) -> u64 {
        let is_rest = |byte: Option<u8>| byte.is_some_and(|byte| byte & 0xc0 == 0x80);
        if !is_rest(self.byte(at)) {
            return at;
        }
        let Some(lead) = (1..=3).map(|back| at.saturating_sub(back)).find(|at| !is_rest(self.byte(*at)))
        else {
            return at;
        };
        let len = match self.byte(lead) {
            Some(0xc2..=0xdf) => 2,
            Some(0xe0..=0xef) => 3,
            Some(0xf0..=0xf4) => 4,
            _ => return at,
        };
        let end = lead + len;
        let is_whole = end > at && (at..end).all(|at| is_rest(self.byte(at)));
        if is_whole { end } else { at }
    }

    fn byte(&self, at: u64) -> Option<u8> {
        let place = usize::try_from(at.checked_sub(self.part.from)?).ok()?;
        self.part.bytes.get(place).copied()
    }

    fn bytes(&self, from: u64, to: u64) -> &[u8] {
        let place = |at: u64| usize::try_from(at.saturating_sub(self.part.from)).unwrap_or(usize::MAX);
        let to = place(to).min(self.part.bytes.len());
        self.part.bytes.get(place(from).min(to)..to).unwrap_or_default()
    }

    fn hole_at(&self, at: u64) -> Option<(u64, u64)> {
        self.part.holes.iter().copied().find(|(from, to)| (*from..*to).contains(&at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A stream with holes, whole.
    fn part(bytes: &[u8], holes: &[(u64, u64)], from: u64, to: u64) -> Part {
        let to = to.min(bytes.len() as u64);
        let place = |at: u64| usize::try_from(at).unwrap();
        let mut part = Part { from, bytes: bytes[place(from)..place(to)].to_vec(), holes: vec![] };
        for (start, end) in holes.iter().filter(|(start, end)| *start < to && *end > from) {
            part.bytes[place(start.saturating_sub(from))..place(end.min(&to) - from)].fill(0);
            part.holes.push((*start, *end));
        }
        part
    }

    fn blocks(bytes: &[u8], holes: &[(u64, u64)]) -> Vec<Block> {
        let total = bytes.len() as u64;
        let bases = (0..total.div_ceil(BLOCK)).map(|block| block * BLOCK);
        bases.map(|base| decode(base, total, &part(bytes, holes, needed(base).0, needed(base).1))).collect()
    }

    /// The beginnings of lines, found by going through the whole stream from its beginning.
    fn starts_from_the_beginning(bytes: &[u8], holes: &[(u64, u64)]) -> Vec<u64> {
        let total = bytes.len() as u64;
        let whole = part(bytes, holes, 0, total);
        let raw = Raw { part: &whole, total };
        let (mut starts, mut start, mut is_own) = (vec![], 0, true);
        while start < total {
            starts.push(start);
            (start, is_own) = raw.end_of(start, is_own);
        }
        starts
    }

    fn starts(blocks: &[Block]) -> Vec<u64> {
        let mut starts: Vec<u64> =
            blocks.iter().flat_map(|block| &block.lines).map(|line| line.key.at).collect();
        starts.dedup();
        starts
    }

    #[test]
    fn short_lines_are_what_they_are() {
        let text = (0..20_000).map(|n| format!("line {n}")).collect::<Vec<_>>().join("\n");
        let lines: Vec<String> = blocks(text.as_bytes(), &[])
            .into_iter()
            .flat_map(|block| block.lines)
            .map(|line| line.text.to_string())
            .collect();
        assert_eq!(lines, text.lines().collect::<Vec<_>>());
    }

    #[test]
    fn a_line_without_end_is_broken_and_none_is_empty() {
        let mut bytes = vec![b'x'; 100_000];
        bytes[2 * LINE_BYTES] = b'\n';
        let blocks = blocks(&bytes, &[]);
        let all: Vec<&StoredLine> = blocks.iter().flat_map(|block| &block.lines).collect();
        assert!(all.iter().all(|line| (1..=LINE_BYTES).contains(&line.text.len())));
        assert_eq!(all.iter().map(|line| line.text.len()).sum::<usize>(), 99_999);
    }

    #[test]
    fn a_sequence_goes_on_over_a_break_and_a_colour_over_line_ends() {
        let mut bytes = b"\x1b[31mred\nstill \x1b]52;c;".to_vec();
        bytes.extend(vec![b'A'; 6_000]);
        bytes.extend(b"\x07text\n");
        let block = blocks(&bytes, &[]).remove(0);
        let texts: Vec<&str> = block.lines.iter().map(|line| &*line.text).collect();
        assert_eq!(texts, ["red", "still ", "text"], "what was hidden in a sequence is shown");
        assert!(block.lines.iter().all(|line| line.strokes.is_some()));
    }

    /// What a hostile machine could print: long lines, cut characters, no line ends.
    fn stream() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            (1_usize..9_000).prop_map(|n| vec![b'a'; n]),
            (1_usize..3_000).prop_map(|n| "\u{1f600}".repeat(n).into_bytes()),
            (1_usize..9_000).prop_map(|n| vec![0x80; n]),
            (1_usize..200).prop_map(|n| b"\xf0\x9f\x98".repeat(n)),
            Just(b"\n".to_vec()),
            Just(b"\x1b]0;title".to_vec()),
            (3_990_usize..4_100).prop_map(|n| [vec![b'b'; n], b"\n".to_vec()].concat()),
            (1_usize..100).prop_map(|n| b"\n".repeat(n)),
        ];
        prop::collection::vec(piece, 1..40).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]

        #[test]
        fn lines_are_the_same_wherever_reading_begins(
            bytes in stream(),
            holes in prop::collection::vec((any::<prop::sample::Index>(), 1_u64..50_000), 0..4),
        ) {
            let total = bytes.len() as u64;
            let mut spans = super::super::spans::Spans::default();
            for (at, len) in holes {
                let from = at.index(bytes.len()) as u64;
                spans.add(from, (from + len).min(total));
            }
            let mut holes = vec![];
            let mut at = 0;
            while let Some((from, to)) = spans.behind(at) {
                holes.push((from, to));
                at = to;
            }
            let blocks = blocks(&bytes, &holes);
            prop_assert_eq!(starts(&blocks), starts_from_the_beginning(&bytes, &holes));
            for line in blocks.iter().flat_map(|block| &block.lines) {
                prop_assert!(line.text.len() < LINE_BYTES + 8);
                prop_assert!(!line.text.chars().any(char::is_control));
            }
        }
    }
}
