//! Lines of output that are kept: bounded, and what is dropped is counted.

use std::{collections::VecDeque, sync::Arc};

use signalbox_schemas::output::OutputStream;

use crate::tui::text::paint::{Painted, Stroke};

/// What a kept line costs beside its text, bytes. Counted, so that empty lines are bounded too.
const LINE_OVERHEAD_BYTES: usize = 64;

/// Replacements that are remembered one by one, for those who looked at the lines before.
const MOST_REPLACED: usize = 256;

/// One line of output, clean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Number within its command, growing in the order in which lines began.
    pub number: u64,
    /// Place of its run within the command.
    pub run: usize,
    /// Its stream; `None` for what the console says itself.
    pub stream: Option<OutputStream>,
    /// The text; shared between a run's lines and the merged ones.
    pub text: Arc<str>,
    /// How it is painted; `None` for a line without colours.
    pub strokes: Option<Arc<[Stroke]>>,
    /// When its newest byte was received here, Unix ms; `None`: nobody says.
    pub received_ms: Option<u64>,
}

impl Line {
    /// A line of output.
    pub fn new(number: u64, run: usize, stream: Option<OutputStream>, painted: Painted) -> Self {
        let Painted { text, strokes } = painted;
        let strokes = (!strokes.is_empty()).then(|| strokes.into());
        Self { number, run, stream, text: text.into(), strokes, received_ms: None }
    }

    /// As it was received at this moment, Unix ms.
    #[must_use]
    pub fn received(self, wall_ms: u64) -> Self {
        Self { received_ms: Some(wall_ms), ..self }
    }

    /// Where its paint changes.
    pub fn strokes(&self) -> &[Stroke] {
        self.strokes.as_deref().unwrap_or_default()
    }

    fn cost(&self) -> usize {
        self.text.len() + size_of_val(self.strokes()) + LINE_OVERHEAD_BYTES
    }
}

/// Lines in order of their numbers. Cost of a push: constant; of a change: a binary search.
#[derive(Debug, Clone)]
pub struct Scrollback {
    lines: VecDeque<Line>,
    bytes: usize,
    most_bytes: usize,
    dropped_bytes: u64,
    dropped_lines: u64,
    text_bytes: u64,
    /// Numbers of lines that were replaced, the newest last, and how many there ever were.
    replaced: VecDeque<u64>,
    replacements: u64,
}

impl Scrollback {
    /// Keeps at most `most_bytes`.
    pub fn new(most_bytes: usize) -> Self {
        Self {
            lines: VecDeque::new(),
            bytes: 0,
            most_bytes,
            dropped_bytes: 0,
            dropped_lines: 0,
            text_bytes: 0,
            replaced: VecDeque::new(),
            replacements: 0,
        }
    }

    /// Adds a line, or replaces the one of its number. One that was dropped before stays dropped.
    pub fn put(&mut self, line: Line) {
        match self.lines.back() {
            Some(last) if line.number <= last.number => {
                if let Ok(at) = self.lines.binary_search_by_key(&line.number, |line| line.number)
                    && let Some(kept) = self.lines.get_mut(at)
                {
                    self.bytes = self.bytes - kept.cost() + line.cost();
                    self.text_bytes = self.text_bytes - kept.text.len() as u64 + line.text.len() as u64;
                    let number = line.number;
                    *kept = line;
                    self.was_replaced(number);
                }
            }
            _ => {
                self.bytes += line.cost();
                self.text_bytes += line.text.len() as u64 + 1;
                self.lines.push_back(line);
            }
        }
        self.trim(self.most_bytes);
    }

    fn was_replaced(&mut self, number: u64) {
        self.replacements += 1;
        self.replaced.push_back(number);
        if self.replaced.len() > MOST_REPLACED {
            self.replaced.pop_front();
        }
    }

    /// How many lines were ever replaced.
    pub fn replacements(&self) -> u64 {
        self.replacements
    }

    /// Numbers of the lines that were replaced since there were so many replacements; `None`: that is too long ago.
    pub fn replaced_since(&self, replacements: u64) -> Option<impl Iterator<Item = u64>> {
        let new = usize::try_from(self.replacements.saturating_sub(replacements)).ok()?;
        let old = self.replaced.len().checked_sub(new)?;
        Some(self.replaced.iter().skip(old).copied())
    }

    /// Drops the oldest lines until no more than `most_bytes` are kept.
    pub fn trim(&mut self, most_bytes: usize) {
        while self.bytes > most_bytes {
            let Some(line) = self.lines.pop_front() else { return };
            self.bytes -= line.cost();
            self.text_bytes -= line.text.len() as u64 + 1;
            self.dropped_bytes += line.text.len() as u64 + 1;
            self.dropped_lines += 1;
        }
    }

    /// What is kept, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Text that is kept, in bytes, with line ends.
    pub fn text_bytes(&self) -> u64 {
        self.text_bytes
    }

    /// What was dropped, in bytes.
    pub fn dropped_bytes(&self) -> u64 {
        self.dropped_bytes
    }

    /// How many lines were dropped.
    pub fn dropped_lines(&self) -> u64 {
        self.dropped_lines
    }

    /// How many lines are kept.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Where the line of this number is, or the first after it.
    pub fn position(&self, number: u64) -> usize {
        self.lines.partition_point(|line| line.number < number)
    }

    /// The line at a position.
    pub fn get(&self, at: usize) -> Option<&Line> {
        self.lines.get(at)
    }

    /// Up to `count` lines from a position on.
    pub fn window(&self, from: usize, count: usize) -> impl Iterator<Item = &Line> {
        self.lines.range(from.min(self.lines.len())..).take(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(number: u64, text: &str) -> Line {
        let painted = Painted { text: text.to_owned(), strokes: Vec::new() };
        Line::new(number, 0, Some(OutputStream::Stdout), painted)
    }

    #[test]
    fn the_oldest_lines_go_and_are_counted() {
        let mut kept = Scrollback::new(3 * (LINE_OVERHEAD_BYTES + 4));
        (0..10).for_each(|number| kept.put(line(number, "four")));
        assert_eq!((kept.len(), kept.dropped_bytes()), (3, 7 * 5));
        assert_eq!(kept.get(0).map(|line| line.number), Some(7));
    }

    #[test]
    fn an_open_line_grows_in_its_place() {
        let mut kept = Scrollback::new(10_000);
        kept.put(line(1, "a"));
        kept.put(line(2, "b"));
        kept.put(line(1, "a longer"));
        let texts: Vec<&str> = kept.window(0, 9).map(|line| &*line.text).collect();
        assert_eq!(texts, ["a longer", "b"]);
        assert_eq!(kept.bytes(), 2 * LINE_OVERHEAD_BYTES + 9);
    }

    #[test]
    fn a_dropped_line_stays_dropped() {
        let mut kept = Scrollback::new(LINE_OVERHEAD_BYTES + 1);
        kept.put(line(1, "a"));
        kept.put(line(2, "b"));
        kept.put(line(1, "again"));
        assert_eq!(kept.len(), 1);
        assert_eq!(kept.position(1), 0);
    }
}
