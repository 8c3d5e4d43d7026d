//! What of some lines is seen, and moving over them. Pure; costs what is seen, however much there is.

use unicode_width::UnicodeWidthChar as _;

use super::source::{Key, Shown, Source, Step};

/// Where the window begins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Top {
    /// It ends with the newest line.
    #[default]
    Follow,
    /// At this row of the line at this place, or near it.
    At(Key, usize),
}

/// How large the window is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Frame {
    /// Columns for text.
    pub columns: usize,
    /// Rows.
    pub rows: usize,
    /// Whether a line that is longer goes on in the next row.
    pub wraps: bool,
}

/// One row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its line.
    pub line: Shown,
    /// Which row of its line it is.
    pub nth: usize,
    /// Bytes of the line that are in it: from, to.
    pub bytes: (usize, usize),
}

/// What is seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Window {
    /// The rows.
    pub rows: Vec<Row>,
    /// Whether nothing follows them.
    pub is_end: bool,
    /// Whether rows are missing that are being read.
    pub is_reading: bool,
}

impl Window {
    /// Where it begins.
    pub fn top(&self) -> Option<Top> {
        self.rows.first().map(|row| Top::At(row.line.key, row.nth))
    }

    /// Whether a line is seen.
    pub fn has(&self, key: Key) -> bool {
        self.rows.iter().any(|row| row.line.key == key)
    }
}

/// Bytes at which the rows of a text begin.
pub fn breaks(text: &str, frame: Frame) -> Vec<usize> {
    let mut starts = vec![0];
    if !frame.wraps {
        return starts;
    }
    let mut used = 0;
    for (at, c) in text.char_indices() {
        let columns = c.width().unwrap_or(0);
        if used > 0 && used + columns > frame.columns.max(1) {
            starts.push(at);
            used = 0;
        }
        used += columns;
    }
    starts
}

fn rows(line: &Shown, frame: Frame) -> Vec<Row> {
    let starts = breaks(&line.text, frame);
    let ends = starts.iter().skip(1).copied().chain([line.text.len()]);
    let bytes = starts.iter().copied().zip(ends);
    bytes.enumerate().map(|(nth, bytes)| Row { line: line.clone(), nth, bytes }).collect()
}

/// What is seen from a place on; from nearer to the beginning where too little follows it.
pub fn fill(source: &mut dyn Source, top: Top, frame: Frame) -> Window {
    let Top::At(wanted, nth) = top else { return fill_back(source, frame) };
    let mut window = Window::default();
    let mut step = source.near(wanted);
    // The row counts for the very line only.
    let mut skipped = if step == Step::To(wanted) { nth } else { 0 };
    while let Step::To(key) = step
        && window.rows.len() < frame.rows
    {
        let Some(line) = source.line(key) else {
            step = Step::Missing;
            break;
        };
        let rows = rows(&line, frame);
        skipped = skipped.min(rows.len() - 1);
        window.rows.extend(rows.into_iter().skip(skipped));
        skipped = 0;
        step = source.after(key);
    }
    let is_cut = window.rows.len() > frame.rows;
    window.rows.truncate(frame.rows);
    window.is_end = step == Step::Over && !is_cut;
    window.is_reading = step == Step::Missing && window.rows.len() < frame.rows;
    if window.is_end && window.rows.len() < frame.rows {
        return fill_back(source, frame);
    }
    window
}

/// What is seen with the last row at the bottom.
fn fill_back(source: &mut dyn Source, frame: Frame) -> Window {
    let mut reversed = Vec::new();
    let mut step = source.last();
    let mut is_reading = step == Step::Missing;
    while let Step::To(key) = step
        && reversed.len() < frame.rows
    {
        let Some(line) = source.line(key) else { break };
        reversed.extend(rows(&line, frame).into_iter().rev());
        step = source.before(key);
        is_reading = step == Step::Missing;
    }
    let is_reading = is_reading && reversed.len() < frame.rows;
    reversed.truncate(frame.rows);
    reversed.reverse();
    Window { rows: reversed, is_end: true, is_reading }
}

/// Another top, so many rows further down, and how many of them are to be gone when what lies between was read.
pub fn moved(source: &mut dyn Source, top: Top, by: isize, frame: Frame) -> (Top, isize) {
    let window = match top {
        Top::Follow if by >= 0 => return (top, 0),
        _ => fill(source, top, Frame { rows: frame.rows.max(1), ..frame }),
    };
    // A window that is not known yet moves when it is.
    let is_known = !window.is_reading || matches!(top, Top::At(..)) && !window.rows.is_empty();
    let Some(Top::At(mut key, mut nth)) = window.top().filter(|_| is_known) else {
        return (top, if window.is_reading { by } else { 0 });
    };
    let mut left = by;
    while left != 0 {
        if left < 0 && nth > 0 {
            (nth, left) = (nth - 1, left + 1);
            continue;
        }
        let height = source.line(key).map_or(1, |line| breaks(&line.text, frame).len());
        if left > 0 && nth + 1 < height {
            (nth, left) = (nth + 1, left - 1);
            continue;
        }
        match if left > 0 { source.after(key) } else { source.before(key) } {
            Step::Over => left = 0,
            Step::Missing => return (Top::At(key, nth), left),
            Step::To(next) => {
                let height = source.line(next).map_or(1, |line| breaks(&line.text, frame).len());
                nth = if left > 0 { 0 } else { height - 1 };
                key = next;
                left -= left.signum();
            }
        }
    }
    // At the end it follows again.
    let top = Top::At(key, nth);
    if fill(source, top, frame).is_end { (Top::Follow, 0) } else { (top, 0) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tui::state::output::source::Voice;
    use proptest::prelude::*;
    use signalbox_schemas::output::OutputStream;

    /// Lines that are all there.
    struct Plain(Vec<String>);

    impl Plain {
        fn step(&self, at: Option<u64>) -> Step {
            match at.filter(|at| *at < self.0.len() as u64) {
                Some(at) => Step::To(Key { at, part: 0 }),
                None => Step::Over,
            }
        }
    }

    impl Source for Plain {
        fn first(&mut self) -> Step {
            self.step(Some(0))
        }
        fn last(&mut self) -> Step {
            self.step((self.0.len() as u64).checked_sub(1))
        }
        fn after(&mut self, key: Key) -> Step {
            self.step(Some(key.at + 1))
        }
        fn before(&mut self, key: Key) -> Step {
            let at = if key.part > 0 { Some(key.at) } else { key.at.checked_sub(1) };
            self.step(at.map(|at| at.min((self.0.len() as u64).saturating_sub(1))))
        }
        fn line(&mut self, key: Key) -> Option<Shown> {
            let text = self.0.get(usize::try_from(key.at).unwrap())?.as_str().into();
            let voice = Voice::Machine(OutputStream::Stdout);
            let number = key.at + 1;
            Some(Shown { key, text, strokes: None, voice, run: None, received_ms: None, number })
        }
    }

    fn texts(window: &Window) -> Vec<&str> {
        window.rows.iter().map(|row| &row.line.text[row.bytes.0..row.bytes.1]).collect()
    }

    #[test]
    fn long_lines_go_on_in_the_next_row_and_nothing_is_cut_in_two() {
        let mut source = Plain(vec!["abcdef".into(), "你好吗".into(), String::new()]);
        let frame = Frame { columns: 3, rows: 9, wraps: true };
        assert_eq!(texts(&fill(&mut source, Top::Follow, frame)), ["abc", "def", "你", "好", "吗", ""]);
        let narrow = Frame { columns: 1, ..frame };
        assert_eq!(texts(&fill(&mut source, Top::Follow, narrow)).len(), 9);
    }

    proptest! {
        /// Moving is moving over the rows of all lines, and it stops at both ends.
        #[test]
        fn moving_is_over_rows(
            lens in prop::collection::vec(0_usize..12, 0..30),
            moves in prop::collection::vec(-9_isize..9, 1..20),
            columns in 1_usize..6, rows in 1_usize..8, wraps: bool,
        ) {
            let mut source = Plain(lens.iter().map(|len| "x".repeat(*len)).collect());
            let frame = Frame { columns, rows, wraps };
            let all = fill(&mut source, Top::At(Key::FIRST, 0), Frame { rows: 1_000, ..frame }).rows;
            let (mut top, mut at) = (Top::Follow, all.len().saturating_sub(rows));
            for by in moves {
                let (moved, owed) = moved(&mut source, top, by, frame);
                prop_assert_eq!(owed, 0);
                top = moved;
                at = at.saturating_add_signed(by).min(all.len().saturating_sub(rows));
                let window = fill(&mut source, top, frame);
                prop_assert_eq!(&window.rows[..], &all[at..all.len().min(at + rows)]);
                prop_assert_eq!(window.is_end, at + rows >= all.len());
                prop_assert_eq!(top == Top::Follow, window.is_end);
            }
        }
    }
}
