//! Bytes of a stored stream, as far as they were read: pages that are kept for a while, holes, and what to ask for next.
//!
//! What a bridge answers is foreign: a range may be shorter than what was asked for, begin later (what lies between was
//! left out), or have no byte of it. Each answer either brings a page further or is a failure, and after a failure
//! nothing is asked until somebody wants it to be.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::spans::Spans;
use crate::client::nats::OutputRange;

/// Bytes of a page: two messages of the size that relays send, and a range that bridges give at once.
pub const PAGE: u64 = 256 * 1024;
/// Bytes of pages that are kept.
pub const KEPT_BYTES: usize = 16 * 1024 * 1024;
/// Questions on their way at once.
pub const IN_FLIGHT: usize = 2;
/// Holes of one stream. An honest one has a few.
const MOST_HOLES: usize = 16 * 1024;
/// How often the size of a stream may change: a run that was lost may end after all.
const MOST_CHANGES: usize = 8;
/// Who has not answered for so long will not, ms: a client gives up much sooner.
const LATE_MS: u64 = 15_000;

/// A range to be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Offset of its first byte.
    pub from: u64,
    /// Bytes, at most [`PAGE`].
    pub most: u32,
}

/// The bytes of a page that are known.
#[derive(Debug, Clone, Default)]
struct Page {
    /// All of it is known up to this offset.
    known_to: u64,
    pieces: Vec<(u64, Bytes)>,
    used: u64,
}

impl Page {
    fn bytes(&self) -> usize {
        self.pieces.iter().map(|(_, bytes)| bytes.len()).sum()
    }
}

/// A range was asked for.
#[derive(Debug, Clone, Copy)]
struct Asked {
    from: u64,
    at_ms: u64,
}

/// A part of the stream: its bytes, zeroes where there are none.
#[derive(Debug, Clone, Default)]
pub struct Part {
    /// Offset of the first byte.
    pub from: u64,
    /// The bytes.
    pub bytes: Vec<u8>,
    /// What of it was left out.
    pub holes: Vec<(u64, u64)>,
}

/// What was read of a stream.
#[derive(Debug, Clone, Default)]
pub struct Pages {
    total: Option<u64>,
    kept: BTreeMap<u64, Page>,
    holes: Spans,
    /// Grows with each hole: what was made of the bytes before may be another now.
    shape: u64,
    bytes: usize,
    clock: u64,
    wanted: VecDeque<u64>,
    asked: Vec<Asked>,
    failure: Option<String>,
    /// How often its size was another one.
    changes: usize,
}

impl Pages {
    /// Bytes of the whole stream; `None`: no bridge has said it yet.
    pub fn total(&self) -> Option<u64> {
        self.total
    }

    /// What was left out.
    pub fn holes(&self) -> &Spans {
        &self.holes
    }

    /// Another number whenever holes were found.
    pub fn shape(&self) -> u64 {
        self.shape
    }

    /// Why nothing more is asked for.
    pub fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// Asks again for what could not be read.
    pub fn retry(&mut self) {
        self.failure = None;
        self.changes = 0;
    }

    /// Whether an answer is awaited.
    pub fn is_reading(&self) -> bool {
        !self.asked.is_empty()
    }

    /// What is kept, bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The bytes from one offset to another, which are at most a page apart; `None`: some of them are to be read first.
    pub fn part(&mut self, from: u64, to: u64) -> Option<Part> {
        let to = to.min(self.total.unwrap_or(u64::MAX)).max(from);
        let mut is_there = true;
        for page in from / PAGE..=to.saturating_sub(1).max(from) / PAGE {
            let end = to.min((page + 1).saturating_mul(PAGE));
            if self.known_to(page, from) < end {
                self.want(page);
                is_there = false;
            }
        }
        if !is_there || self.total.is_none() {
            return None;
        }
        let size = usize::try_from(to - from).ok()?;
        let mut part = Part { from, bytes: vec![0; size], holes: Vec::new() };
        self.clock += 1;
        for page in from / PAGE..=to.saturating_sub(1).max(from) / PAGE {
            if let Some(kept) = self.kept.get_mut(&page) {
                kept.used = self.clock;
                kept.pieces.iter().for_each(|(at, bytes)| copy(&mut part, *at, bytes));
            }
        }
        let mut at = from;
        while let Some((start, end)) = self.holes.behind(at).filter(|(start, _)| *start < to) {
            part.holes.push((start, end));
            at = end;
        }
        Some(part)
    }

    /// How far a page is known, from an offset in it on, or from its beginning.
    fn known_to(&self, page: u64, from: u64) -> u64 {
        let (start, end) = (page.saturating_mul(PAGE), (page + 1).saturating_mul(PAGE));
        // What lies in a hole is known without any page.
        if let Some((_, hole_end)) = self.holes.at(from.max(start)).filter(|(_, to)| *to >= end) {
            return hole_end;
        }
        self.kept.get(&page).map_or(start, |kept| kept.known_to)
    }

    /// Has a page read, after those that are wanted already.
    pub fn want(&mut self, page: u64) {
        if !self.wanted.contains(&page) && self.wanted.len() < 64 {
            self.wanted.push_back(page);
        }
    }

    /// Has the page of an offset read, unless it is there.
    pub fn want_at(&mut self, offset: u64) {
        let page = offset / PAGE;
        let Some(total) = self.total.filter(|total| offset < *total) else { return };
        if self.known_to(page, offset) < total.min((page + 1).saturating_mul(PAGE)) {
            self.want(page);
        }
    }

    /// What is to be asked for now; what was wanted and is not asked for is forgotten.
    pub fn questions(&mut self, now_ms: u64) -> Vec<Wanted> {
        let is_late = |asked: &Asked| now_ms.saturating_sub(asked.at_ms) >= LATE_MS;
        if self.asked.iter().any(is_late) {
            self.asked.clear();
            self.fail(format!("no answer for {} s", LATE_MS / 1000));
        }
        let mut questions = Vec::new();
        for page in std::mem::take(&mut self.wanted) {
            if self.failure.is_some() || self.asked.len() >= IN_FLIGHT {
                break;
            }
            if self.asked.iter().any(|asked| asked.from / PAGE == page) {
                continue;
            }
            let start = page.saturating_mul(PAGE);
            let from = self.kept.get(&page).map_or(start, |kept| kept.known_to);
            let end = (page + 1).saturating_mul(PAGE);
            if let Some(most) = u32::try_from(end.saturating_sub(from)).ok().filter(|most| *most > 0) {
                self.asked.push(Asked { from, at_ms: now_ms });
                questions.push(Wanted { from, most });
            }
        }
        questions
    }

    /// It could not be read.
    pub fn fail(&mut self, why: String) {
        self.failure = Some(why);
    }

    /// Takes the answer to what was asked for from an offset on. What nobody asked for is left.
    pub fn tell(&mut self, from: u64, answer: Result<OutputRange, String>) {
        let Some(at) = self.asked.iter().position(|asked| asked.from == from) else { return };
        self.asked.remove(at);
        match answer {
            Ok(range) if range.offset < from => {
                self.fail("the answer begins before what was asked for".into());
            }
            Ok(range) => self.take(from, &range),
            Err(why) => self.fail(why),
        }
    }

    fn take(&mut self, from: u64, range: &OutputRange) {
        // A page that was forgotten since its beginning was read is read anew from there.
        if !from.is_multiple_of(PAGE) && !self.kept.contains_key(&(from / PAGE)) {
            return;
        }
        if self.total.is_some_and(|total| total != range.total_bytes) {
            self.shape += 1;
            self.changes += 1;
        }
        self.total = Some(range.total_bytes);
        if self.changes > MOST_CHANGES {
            self.fail("its size is another one each time".into());
        }
        let end = (from / PAGE + 1).saturating_mul(PAGE);
        let most = usize::try_from(end - from).unwrap_or(usize::MAX);
        let data = range.data.slice(..range.data.len().min(most));
        // Nothing, and nothing further on: the rest is not kept by anybody.
        let goes_on_at =
            if data.is_empty() && range.offset == from { range.total_bytes } else { range.offset };
        let goes_on_at = goes_on_at.min(range.total_bytes.max(from));
        if goes_on_at > from {
            self.holes.add(from, goes_on_at);
            self.shape += 1;
        }
        if self.holes.len() > MOST_HOLES {
            self.fail("more of it was left out than can be shown".into());
        }
        let page = self.kept.entry(from / PAGE).or_insert_with(|| Page { known_to: from, ..Page::default() });
        self.clock += 1;
        page.used = self.clock;
        page.known_to = from.max(goes_on_at.min(end));
        // What belongs to another page is asked for with that.
        let room = usize::try_from(end.saturating_sub(range.offset)).unwrap_or(0);
        let data = data.slice(..data.len().min(room));
        if range.offset >= from && range.offset < end && !data.is_empty() {
            page.known_to = range.offset.saturating_add(data.len() as u64);
            self.bytes += data.len();
            // A slice would keep all of the message that it came with.
            page.pieces.push((range.offset, Bytes::copy_from_slice(&data)));
        }
        // A hole that was found before is not asked for again.
        if let Some((_, to)) = self.holes.at(page.known_to) {
            page.known_to = to.min(end);
        }
        self.forget(from / PAGE);
    }

    /// Keeps within bounds; what was just read stays.
    fn forget(&mut self, but: u64) {
        while self.bytes > KEPT_BYTES {
            let others = self.kept.iter().filter(|(at, _)| **at != but);
            let Some(oldest) = others.min_by_key(|(_, page)| page.used).map(|(at, _)| *at) else { return };
            if let Some(page) = self.kept.remove(&oldest) {
                self.bytes -= page.bytes();
            }
        }
    }
}

/// Copies what of a piece lies in a part.
fn copy(part: &mut Part, at: u64, bytes: &Bytes) {
    let skip = usize::try_from(part.from.saturating_sub(at)).unwrap_or(usize::MAX);
    let to = usize::try_from(at.saturating_sub(part.from)).unwrap_or(usize::MAX);
    let Some(source) = bytes.get(skip..) else { return };
    let Some(target) = part.bytes.get_mut(to..) else { return };
    let len = source.len().min(target.len());
    if let (Some(target), Some(source)) = (target.get_mut(..len), source.get(..len)) {
        target.copy_from_slice(source);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tell(pages: &mut Pages, from: u64, offset: u64, total_bytes: u64, data: &[u8]) {
        let data = Bytes::copy_from_slice(data);
        pages.tell(from, Ok(OutputRange { offset, total_bytes, is_truncated: false, data }));
    }

    /// Asks for what is wanted, and answers it out of `stream`, at most `most` bytes at a time.
    fn serve(pages: &mut Pages, stream: &[u8], most: usize) -> usize {
        let mut questions = 0;
        for wanted in pages.questions(0) {
            questions += 1;
            let from = usize::try_from(wanted.from).unwrap();
            let to = stream.len().min(from + (wanted.most as usize).min(most));
            tell(pages, wanted.from, wanted.from, stream.len() as u64, &stream[from.min(to)..to]);
        }
        questions
    }

    #[test]
    fn a_page_comes_in_as_many_answers_as_it_takes() {
        let stream: Vec<u8> = (0..PAGE + 5_000).map(|n| u8::try_from(n % 251).unwrap()).collect();
        let mut pages = Pages::default();
        let mut questions = 0;
        let part = loop {
            if let Some(part) = pages.part(PAGE - 4, PAGE + 4) {
                break part;
            }
            questions += serve(&mut pages, &stream, 100_000);
            assert!(questions < 20, "it goes in a circle");
        };
        let at = usize::try_from(PAGE).unwrap();
        assert_eq!(part.bytes, stream[at - 4..at + 4]);
        assert_eq!(questions, 4);
    }

    #[test]
    fn a_hole_over_many_pages_is_read_once() {
        let mut pages = Pages::default();
        assert!(pages.part(0, 100).is_none());
        assert_eq!(pages.questions(0).len(), 1);
        let far = 1_000 * PAGE;
        tell(&mut pages, 0, far, far + 10, b"0123456789");
        assert_eq!(pages.holes().at(0), Some((0, far)));
        assert!(pages.part(500 * PAGE, 501 * PAGE).is_some_and(|part| part.holes == [(0, far)]));
        assert!(pages.questions(0).is_empty());
        assert!(pages.part(far, far + 10).is_none(), "those bytes are asked for with their page");
    }

    #[test]
    fn what_makes_no_sense_ends_in_a_failure_and_not_in_a_circle() {
        let mut pages = Pages::default();
        assert!(pages.part(0, 100).is_none());
        pages.questions(0);
        tell(&mut pages, 7, 7, 100, b"x");
        assert_eq!(pages.total(), None, "nobody asked for that");
        // Nothing although there should be something: it is gone.
        tell(&mut pages, 0, 0, 100, b"");
        assert!(pages.part(0, 100).is_some_and(|part| part.holes == [(0, 100)]));
        let mut pages = Pages::default();
        pages.part(PAGE, PAGE + 1);
        pages.questions(0);
        tell(&mut pages, PAGE, 3, u64::MAX, b"x");
        assert!(pages.failure().is_some());
        pages.part(0, 1);
        assert!(pages.questions(0).is_empty(), "it asks on after a failure");
        pages.retry();
        pages.part(0, 1);
        assert_eq!(pages.questions(0), [Wanted { from: 0, most: 262_144 }]);
        pages.part(0, 1);
        assert!(pages.questions(LATE_MS).is_empty() && pages.failure().is_some(), "it waits for ever");
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let stream = vec![b'x'; 3 * KEPT_BYTES];
        let mut pages = Pages::default();
        for page in 0..stream.len() as u64 / PAGE {
            while pages.part(page * PAGE, (page + 1) * PAGE).is_none() {
                serve(&mut pages, &stream, usize::MAX);
            }
            assert!(pages.bytes() <= KEPT_BYTES);
        }
        assert!(pages.part(0, 1).is_none(), "the oldest are forgotten");
    }
}
