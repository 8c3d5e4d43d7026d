//! Tables that fit the terminal. Pure.

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// Space between two columns.
const GAP: &str = "  ";
/// The last column gives way, but stays as wide as this while others can be left out.
const LEAST_COLUMNS: usize = 16;
/// No column is cut to less than this.
const LEAST_CUT: usize = 4;

/// A column: its heading, and its rank. Columns of the highest rank are left out first, rank 0 stays.
pub type Column = (&'static str, u8);

/// Rows of text under headings.
#[derive(Debug, Default)]
pub struct Table {
    ranks: Vec<u8>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// With its columns. The last one is shortened where the terminal is narrow.
    pub fn new(columns: &[Column]) -> Self {
        Self {
            ranks: columns.iter().map(|(_, rank)| *rank).collect(),
            rows: vec![columns.iter().map(|(heading, _)| (*heading).to_owned()).collect()],
        }
    }

    /// Adds a row, with as many cells as there are columns. The text is clean.
    pub fn push(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// The table as lines; if `columns` are given, none is wider. Columns are left out by their rank; where those that stay
    /// have no room, the last one gives way, and then the widest.
    pub fn render(&self, columns: Option<usize>, ellipsis: char) -> String {
        let mut widths: Vec<usize> = (0..self.ranks.len()).map(|at| self.width(at)).collect();
        let shown = self.shown(&widths, columns);
        let Some((last, before)) = shown.split_last() else { return String::new() };
        if let Some(columns) = columns {
            squeeze(&mut widths, &shown, columns);
        }
        let width = |at: &usize| widths.get(*at).copied().unwrap_or(0);
        let mut out = String::new();
        for row in &self.rows {
            let cell = |at: &usize| shorten(row.get(*at).map_or("", String::as_str), width(at), ellipsis);
            let mut line = String::new();
            for at in before {
                let cell = cell(at);
                line.push_str(&cell);
                line.push_str(&" ".repeat(width(at).saturating_sub(cell.width())));
                line.push_str(GAP);
            }
            line.push_str(&cell(last));
            // Even the narrowest columns may be more than a very narrow terminal has room for.
            let line =
                columns.map_or_else(|| line.clone(), |columns| shorten(&line, columns.max(1), ellipsis));
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }

    fn width(&self, at: usize) -> usize {
        self.rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.width()).max().unwrap_or(0)
    }

    /// The columns that are shown.
    fn shown(&self, widths: &[usize], columns: Option<usize>) -> Vec<usize> {
        let mut shown: Vec<usize> = (0..self.ranks.len()).collect();
        let Some(columns) = columns else { return shown };
        let rank = |at: usize| self.ranks.get(at).copied().unwrap_or(0);
        loop {
            let width = |at: &usize| widths.get(*at).copied().unwrap_or(0);
            let (last, before) = match shown.split_last() {
                Some((last, before)) => (width(last).min(LEAST_COLUMNS), before),
                None => return shown,
            };
            let needed = last + before.iter().map(|at| width(at) + GAP.len()).sum::<usize>();
            let highest = shown.iter().copied().max_by_key(|at| rank(*at)).filter(|at| rank(*at) > 0);
            match highest {
                Some(at) if needed > columns => shown.retain(|kept| *kept != at),
                Some(_) | None => return shown,
            }
        }
    }
}

/// Makes columns narrower until they fit: the last one first, then the widest, none below [`LEAST_CUT`].
fn squeeze(widths: &mut [usize], shown: &[usize], columns: usize) {
    let gaps = shown.len().saturating_sub(1) * GAP.len();
    let taken = |widths: &[usize]| gaps + shown.iter().filter_map(|at| widths.get(*at)).sum::<usize>();
    let last = shown.last().and_then(|at| widths.get(*at).map(|width| (*at, *width)));
    if let Some((at, width)) = last {
        let over = taken(widths).saturating_sub(columns);
        if let Some(last) = widths.get_mut(at) {
            *last = width.saturating_sub(over).max(width.min(LEAST_COLUMNS));
        }
    }
    while taken(widths) > columns {
        let widest = shown.iter().copied().max_by_key(|at| widths.get(*at).copied().unwrap_or(0));
        let Some(width) = widest.and_then(|at| widths.get_mut(at)).filter(|width| **width > LEAST_CUT) else {
            return;
        };
        *width -= 1;
    }
}

/// Cuts a text to `columns`, with an ellipsis (one column wide) when something is missing.
pub fn shorten(text: &str, columns: usize, ellipsis: char) -> String {
    if text.width() <= columns {
        return text.to_owned();
    }
    let mut used = 1;
    let mut out = String::new();
    for c in text.chars() {
        used += c.width().unwrap_or(0);
        if used > columns {
            break;
        }
        out.push(c);
    }
    out.push(ellipsis);
    out
}
