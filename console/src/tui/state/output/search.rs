//! Looking for a text in output: in what is kept at once, in what is stored block by block as it is read.

use std::collections::BTreeMap;

use super::{
    blocks::{BLOCK, Block, StoredLine},
    kept::Kept,
    pages::PAGE,
    source::{Key, Shown, Source, Step},
    spans::Spans,
    stored::Stored,
};
use crate::tui::needle::Needle;

/// Lines of a stored stream with what was looked for that are remembered; then those before are forgotten.
pub const MOST_FOUND: usize = 10_000;
/// And their text, bytes.
const FOUND_BYTES: usize = 4 * 1024 * 1024;
/// How far ahead of a block is read, bytes: to the page behind the one that it needs.
const BESIDE: u64 = PAGE + BLOCK;
/// Blocks that are looked into between two keys: 4 MiB, some ten milliseconds.
const BLOCKS_AT_ONCE: usize = 128;

/// What is looked for, and where it was found.
#[derive(Debug, Clone)]
pub struct Search {
    /// As it was written.
    pub text: String,
    /// What it means.
    pub needle: Needle,
    /// The line that was gone to.
    pub current: Option<Key>,
    found: Vec<Key>,
    /// Those of a stored stream: their blocks may be far apart, and are not kept.
    lines: BTreeMap<Key, StoredLine>,
    /// Of what is kept: all up to this number was looked into, when lines had been replaced so often.
    looked: (u64, u64),
    /// Of what is stored: blocks that were looked into.
    searched: Spans,
    /// Text of the lines that were found, bytes.
    found_bytes: usize,
    has_forgotten: bool,
    seek: Option<Seek>,
}

/// The next one is being looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seek {
    from: Option<Key>,
    is_forward: bool,
    is_around: bool,
}

/// What came of looking for the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sought {
    /// It is here; and whether an end was passed on the way.
    Here(Key, bool),
    /// It is nowhere.
    Nowhere,
}

impl Search {
    /// A text that was not looked for yet.
    pub fn new(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            needle: Needle::new(text),
            current: None,
            found: Vec::new(),
            lines: BTreeMap::new(),
            looked: (0, 0),
            searched: Spans::default(),
            found_bytes: 0,
            has_forgotten: false,
            seek: None,
        }
    }

    /// Looks for the next one behind a place, or before it; without a place: from the first, or the last.
    pub fn seek(&mut self, from: Option<Key>, is_forward: bool) {
        self.seek = Some(Seek { from, is_forward, is_around: false });
    }

    /// Whether the next one is being looked for.
    pub fn is_seeking(&self) -> bool {
        self.seek.is_some()
    }

    /// Looks no further.
    pub fn stop(&mut self) {
        self.seek = None;
    }

    /// All that were found, in order.
    pub fn found(&self) -> &[Key] {
        &self.found
    }

    /// What was found is of other lines: it is looked for anew.
    pub fn forget(&mut self) {
        *self = Self { seek: self.seek, ..Self::new(&self.text) };
    }

    /// Bytes of a stored stream that were looked into.
    pub fn searched_bytes(&self) -> u64 {
        self.searched.total().saturating_mul(BLOCK)
    }

    /// Which one it is of how many: `3 of 17`, with a `+` where there may be more.
    pub fn count(&self, is_all: bool) -> String {
        let more = if is_all && !self.has_forgotten { "" } else { "+" };
        let place = self.current.and_then(|current| self.found.binary_search(&current).ok());
        match place {
            Some(place) => format!("{} of {}{more}", place + 1, self.found.len()),
            None => format!("{}{more}", self.found.len()),
        }
    }

    /// Whether all of a stored stream was looked into.
    pub fn is_through(&self, stored: &Stored) -> bool {
        stored.pages.total().is_some() && self.searched.total() >= stored.blocks() && !self.has_forgotten
    }

    /// Looks into what is kept: what is new, and what was replaced.
    pub fn look_into(&mut self, kept: Kept<'_>) {
        let (upto, replacements) = self.looked;
        let replaced: Option<Vec<u64>> = kept.lines.replaced_since(replacements).map(Iterator::collect);
        let from = if let Some(replaced) = replaced {
            for number in replaced.into_iter().filter(|number| *number <= upto) {
                self.look_at(kept, number);
            }
            upto
        } else {
            self.found.clear();
            0
        };
        let first = kept.lines.get(0).map_or(0, |line| line.number);
        let dropped = self.found.partition_point(|key| key.at < first);
        self.found.drain(..dropped);
        let position = kept.lines.position(from + 1);
        let mut last = from;
        for line in kept.lines.window(position, usize::MAX) {
            last = line.number;
            if kept.is_seen(line) && self.needle.is_in([&*line.text]) {
                self.found.push(Key { at: line.number, part: 0 });
            }
        }
        self.looked = (last, kept.lines.replacements());
    }

    fn look_at(&mut self, kept: Kept<'_>, number: u64) {
        let key = Key { at: number, part: 0 };
        let line = kept.lines.get(kept.lines.position(number)).filter(|line| line.number == number);
        let has = line.is_some_and(|line| kept.is_seen(line) && self.needle.is_in([&*line.text]));
        match (self.found.binary_search(&key), has) {
            (Err(at), true) => self.found.insert(at, key),
            (Ok(at), false) => {
                self.found.remove(at);
            }
            _ => {}
        }
    }

    /// Goes on looking for the next one in what is kept.
    pub fn go_on_kept(&mut self) -> Option<Sought> {
        let seek = self.seek.take()?;
        let found = &self.found;
        let (next, end) = if seek.is_forward {
            let at = seek.from.map_or(0, |from| found.partition_point(|key| *key <= from));
            (found.get(at), found.first())
        } else {
            let at = seek.from.map_or(found.len(), |from| found.partition_point(|key| *key < from));
            (at.checked_sub(1).and_then(|at| found.get(at)), found.last())
        };
        Some(match (next, end) {
            (Some(key), _) => Sought::Here(*key, false),
            (None, Some(key)) => Sought::Here(*key, true),
            (None, None) => Sought::Nowhere,
        })
    }

    /// Goes on looking for the next one in what is stored; `None`: nothing is looked for, or more is to be read first.
    pub fn go_on_stored(&mut self, stored: &mut Stored) -> Option<Sought> {
        let mut budget = BLOCKS_AT_ONCE;
        loop {
            let seek = self.seek?;
            match self.next_stored(stored, seek.from, seek.is_forward, &mut budget) {
                Step::To(key) => {
                    self.seek = None;
                    return Some(Sought::Here(key, seek.is_around));
                }
                Step::Missing => return None,
                Step::Over if seek.is_around => {
                    self.seek = None;
                    return Some(Sought::Nowhere);
                }
                Step::Over => self.seek = Some(Seek { from: None, is_around: true, ..seek }),
            }
        }
    }

    /// The next one of a stored stream.
    fn next_stored(
        &mut self,
        stored: &mut Stored,
        from: Option<Key>,
        is_forward: bool,
        budget: &mut usize,
    ) -> Step {
        let Some(last) = stored.blocks().checked_sub(1) else { return stored.first() };
        let end = if is_forward { 0 } else { last };
        let mut at = from.map_or(end, |from| (from.at / BLOCK).min(last));
        loop {
            self.pass_over_a_hole(stored, at);
            if self.searched.at(at).is_none() {
                if *budget == 0 {
                    return Step::Missing;
                }
                *budget -= 1;
                let Some(block) = stored.block(at) else {
                    let base = at.saturating_mul(BLOCK);
                    let beside = if is_forward { base.checked_add(BESIDE) } else { base.checked_sub(BESIDE) };
                    if let Some(offset) = beside {
                        stored.pages.want_at(offset);
                    }
                    return Step::Missing;
                };
                self.add(at, &block);
            }
            let (first, behind) = self.searched.at(at).unwrap_or((at, at + 1));
            let next = if is_forward {
                let at = from.map_or(0, |from| self.found.partition_point(|key| *key <= from));
                self.found.get(at).filter(|key| key.at / BLOCK < behind)
            } else {
                let at = from.map_or(self.found.len(), |from| self.found.partition_point(|key| *key < from));
                at.checked_sub(1).and_then(|at| self.found.get(at)).filter(|key| key.at / BLOCK >= first)
            };
            if let Some(key) = next {
                return Step::To(*key);
            }
            let beside =
                if is_forward { Some(behind).filter(|at| *at <= last) } else { first.checked_sub(1) };
            let Some(beside) = beside else { return Step::Over };
            at = beside;
        }
    }

    /// Blocks that lie within a hole have nothing to be looked into.
    fn pass_over_a_hole(&mut self, stored: &Stored, at: u64) {
        let (first, behind) = (stored.back_from_block(at), stored.from_block(at));
        if first < at && behind > at {
            self.searched.add(first + 1, behind);
        }
    }

    fn add(&mut self, at: u64, block: &Block) {
        if self.found.len() >= MOST_FOUND || self.found_bytes >= FOUND_BYTES {
            self.found.clear();
            self.lines.clear();
            self.searched = Spans::default();
            self.found_bytes = 0;
            self.has_forgotten = true;
        }
        let lines = block.lines.iter().filter(|line| line.hole.is_none());
        let new: Vec<Key> = lines
            .filter(|line| self.needle.is_in([&*line.text]))
            .map(|line| {
                self.found_bytes += line.text.len() + line.strokes.as_deref().map_or(0, size_of_val);
                self.lines.insert(line.key, line.clone());
                line.key
            })
            .collect();
        if let Some(first) = new.first() {
            let place = self.found.partition_point(|key| key < first);
            self.found.splice(place..place, new);
        }
        self.searched.add(at, at + 1);
    }
}

/// Lines of a stored stream with what is looked for, and no others. They are looked for as they are gone to.
#[derive(Debug)]
pub struct OnlyFound<'a> {
    /// The stream.
    pub stored: &'a mut Stored,
    /// What is looked for.
    pub search: &'a mut Search,
    budget: usize,
}

impl<'a> OnlyFound<'a> {
    /// Those of a stream.
    pub fn new(stored: &'a mut Stored, search: &'a mut Search) -> Self {
        Self { stored, search, budget: BLOCKS_AT_ONCE }
    }

    fn next(&mut self, from: Option<Key>, is_forward: bool) -> Step {
        self.search.next_stored(self.stored, from, is_forward, &mut self.budget)
    }
}

impl Source for OnlyFound<'_> {
    fn first(&mut self) -> Step {
        self.next(None, true)
    }

    fn last(&mut self) -> Step {
        self.next(None, false)
    }

    fn after(&mut self, key: Key) -> Step {
        self.next(Some(key), true)
    }

    fn before(&mut self, key: Key) -> Step {
        self.next(Some(key), false)
    }

    fn line(&mut self, key: Key) -> Option<Shown> {
        let line = self.search.lines.get(&key).cloned();
        line.map(|line| self.stored.shown(line)).or_else(|| self.stored.line(key))
    }
}
