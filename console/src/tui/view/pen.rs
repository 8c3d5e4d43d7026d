//! Small things that are drawn everywhere: texts from left to right, bars, graphs.

use ratatui::{
    buffer::Buffer,
    layout::Rect,
    style::Style,
    text::{Line, Span},
};
use unicode_width::UnicodeWidthStr as _;

use crate::tui::{text, theme::Theme};

/// A line that grows to the right.
#[derive(Debug, Default)]
pub(super) struct Row {
    spans: Vec<Span<'static>>,
    columns: usize,
}

impl Row {
    /// A row that begins with one column of margin.
    pub(super) fn margin() -> Self {
        Self::default().space(1)
    }

    /// Adds text.
    #[must_use]
    pub(super) fn text(mut self, text: impl Into<String>, style: Style) -> Self {
        let text = text.into();
        self.columns += text.width();
        self.spans.push(Span::styled(text, style));
        self
    }

    /// Adds spaces.
    #[must_use]
    pub(super) fn space(self, columns: usize) -> Self {
        self.text(" ".repeat(columns), Style::new())
    }

    /// Adds spaces up to a column.
    #[must_use]
    pub(super) fn up_to(self, column: usize) -> Self {
        let columns = column.saturating_sub(self.columns);
        self.space(columns)
    }

    /// Adds another row.
    #[must_use]
    pub(super) fn row(mut self, other: Self) -> Self {
        self.columns += other.columns;
        self.spans.extend(other.spans);
        self
    }

    /// What it reads.
    #[cfg(test)]
    pub(super) fn plain(&self) -> String {
        self.spans.iter().map(|span| &*span.content).collect()
    }

    /// Columns used so far.
    pub(super) fn columns(&self) -> usize {
        self.columns
    }

    /// Draws it on a line of the screen, cut at its right end.
    pub(super) fn draw(self, buffer: &mut Buffer, x: u16, y: u16, columns: u16) {
        // The screen may have shrunk since the layout was made; the next frame has it right.
        let columns = columns.min(buffer.area.right().saturating_sub(x));
        if columns > 0 && y < buffer.area.bottom() {
            buffer.set_line(x, y, &Line::from(self.spans), columns);
        }
    }

    /// Draws it at a line of an area, when there is such a line.
    pub(super) fn draw_in(self, buffer: &mut Buffer, area: Rect, line: u16) {
        if line < area.height {
            self.draw(buffer, area.x, area.y + line, area.width);
        }
    }
}

/// Draws one row at the left and one at the right of a line; the left one is cut where they meet.
pub(super) fn ends(buffer: &mut Buffer, area: Rect, line: u16, left: Row, right: Row) {
    if line >= area.height {
        return;
    }
    let columns = u16::try_from(right.columns()).unwrap_or(u16::MAX).min(area.width);
    let room = area.width.saturating_sub(columns + u16::from(columns > 0));
    left.draw(buffer, area.x, area.y + line, room);
    right.draw(buffer, area.right() - columns, area.y + line, columns);
}

/// The first of several rows that leaves `room` columns of the area; the last when none does.
pub(super) fn fitting(rows: impl IntoIterator<Item = Row>, area: Rect, room: usize) -> Row {
    let mut last = Row::default();
    for row in rows {
        last = row;
        if last.columns() + room < usize::from(area.width) {
            break;
        }
    }
    last
}

/// Text cut or filled to exactly `columns`.
pub(super) fn padded(text: &str, columns: usize, theme: &Theme) -> String {
    let mut fitted = text::fit(text, columns, theme.glyphs.ellipsis);
    fitted.extend(std::iter::repeat_n(' ', columns.saturating_sub(fitted.width())));
    fitted
}

/// A horizontal rule over an area.
pub(super) fn rule(buffer: &mut Buffer, area: Rect, theme: &Theme) {
    for line in 0..area.height {
        let text = theme.glyphs.rule.repeat(usize::from(area.width));
        Row::default().text(text, theme.faint).draw_in(buffer, area, line);
    }
}

/// A rule with a title at its left and a word at its right.
pub(super) fn titled(buffer: &mut Buffer, area: Rect, title: Row, word: &str, theme: &Theme) {
    if area.height == 0 || area.width == 0 {
        return;
    }
    rule(buffer, Rect { height: 1, ..area }, theme);
    let columns = u16::try_from(title.columns()).unwrap_or(u16::MAX);
    Row::margin().row(title).space(1).draw(buffer, area.x + 1, area.y, area.width.saturating_sub(1));
    let word = Row::margin().text(word, theme.faint).space(1);
    let word_columns = u16::try_from(word.columns()).unwrap_or(u16::MAX);
    if columns + word_columns + 6 < area.width && word_columns > 2 {
        word.draw(buffer, area.right() - word_columns - 1, area.y, word_columns);
    }
}

/// A part of a whole as a bar of `cells`.
pub(super) fn bar(part: u64, whole: u64, cells: usize, theme: &Theme) -> String {
    let [full_glyph, empty] = theme.glyphs.bar;
    let filled = (u128::from(part) * cells as u128 * 2 / u128::from(whole.max(1))).div_ceil(2);
    // Something is never nothing, and all is only all.
    let filled = usize::try_from(filled).unwrap_or(cells).min(cells);
    let filled = if part > 0 && part < whole { filled.clamp(1, cells.max(2) - 1) } else { filled };
    full_glyph.repeat(filled) + &empty.repeat(cells - filled)
}

/// Percentages as one line of heights.
pub(super) fn sparkline(means: &[Option<u8>], theme: &Theme) -> String {
    means.iter().map(|mean| mean.map_or(theme.glyphs.gap, |mean| height(mean, theme))).collect()
}

fn height(percent: u8, theme: &Theme) -> &'static str {
    theme.glyphs.heights.get(usize::from(percent) * 8 / 101).copied().unwrap_or(theme.glyphs.gap)
}

/// Percentages as columns over several lines.
pub(super) fn graph(buffer: &mut Buffer, area: Rect, means: &[Option<u8>], theme: &Theme, style: Style) {
    let rows = usize::from(area.height);
    for (x, mean) in (area.x..area.right()).zip(means) {
        let Some(mean) = mean else { continue };
        // Eighths of a cell; at least one, so that an idle machine is not taken for a silent one.
        let eighths = (usize::from(*mean) * rows * 8 / 100).max(1);
        for line in 0..rows {
            let left = eighths.saturating_sub(line * 8).min(8);
            let glyph = left.checked_sub(1).and_then(|at| theme.glyphs.heights.get(at)).copied();
            let y = area.bottom().saturating_sub(u16::try_from(line).unwrap_or(0) + 1);
            if let (Some(glyph), Some(cell)) = (glyph, buffer.cell_mut((x, y))) {
                cell.set_symbol(glyph).set_style(style);
            }
        }
    }
}
