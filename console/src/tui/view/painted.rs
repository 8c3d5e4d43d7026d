//! A line of remote output, drawn with its own colours as far as the theme shows them.

use ratatui::style::Style;
use unicode_width::UnicodeWidthChar as _;

use super::pen::Row;
use crate::tui::{
    text::paint::{Paint, Stroke},
    theme::Theme,
};

/// What of a line is drawn.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part {
    /// Columns that are skipped at its left.
    pub(super) skipped: usize,
    /// Columns there are for it.
    pub(super) room: usize,
}

/// The part of a line, ending in an ellipsis where something was left out at its right. A wide character that is cut at
/// the left leaves a space. `places` are drawn as what was looked for: bytes from and to, in order.
pub(super) fn row(
    text: &str,
    strokes: &[Stroke],
    places: &[(usize, usize)],
    part: Part,
    base: Style,
    theme: &Theme,
) -> Row {
    let mut row = Row::default();
    let mut piece = String::new();
    let mut style = base;
    let (mut strokes, mut places) = (strokes.iter().peekable(), places.iter().peekable());
    let mut paint = Paint::default();
    let (mut column, end) = (0, part.skipped.saturating_add(part.room));
    for (at, c) in text.char_indices() {
        while let Some(stroke) = strokes.next_if(|stroke| usize::from(stroke.from) <= at) {
            paint = stroke.paint;
        }
        while places.next_if(|(_, to)| *to <= at).is_some() {}
        let is_found = places.peek().is_some_and(|(from, _)| *from <= at);
        let now = if is_found { theme.found } else { theme.remote.style(base, paint) };
        if now != style {
            row = row.text(std::mem::take(&mut piece), style);
            style = now;
        }
        let columns = c.width().unwrap_or(0);
        let (before, after) = (column, column + columns);
        column = after;
        // The last column is the ellipsis's where something follows.
        if after > end || (after == end && has_more(text, at + c.len_utf8())) {
            let fill = end.saturating_sub(1).saturating_sub(before.max(part.skipped));
            piece.extend(std::iter::repeat_n(' ', fill));
            row = row.text(piece, style);
            return if part.room > 0 { row.text(theme.glyphs.ellipsis, base) } else { row };
        }
        if before >= part.skipped && (columns > 0 || before > part.skipped) {
            piece.push(c);
        } else if after > part.skipped {
            piece.extend(std::iter::repeat_n(' ', after - part.skipped));
        }
    }
    row.text(piece, style)
}

/// The part of a line between two of its bytes, whole.
pub(super) fn piece(
    text: &str,
    strokes: &[Stroke],
    places: &[(usize, usize)],
    (from, to): (usize, usize),
    base: Style,
    theme: &Theme,
) -> Row {
    let mut row = Row::default();
    let mut piece = String::new();
    let mut style = base;
    for (at, c) in text.get(from..to).unwrap_or_default().char_indices() {
        let at = from + at;
        let next = strokes.partition_point(|stroke| usize::from(stroke.from) <= at);
        let paint = next.checked_sub(1).and_then(|place| strokes.get(place));
        let found = places.partition_point(|(_, to)| *to <= at);
        let is_found = places.get(found).is_some_and(|(from, _)| *from <= at);
        let paint = paint.map_or_else(Paint::default, |stroke| stroke.paint);
        let now = if is_found { theme.found } else { theme.remote.style(base, paint) };
        if now != style {
            row = row.text(std::mem::take(&mut piece), style);
            style = now;
        }
        piece.push(c);
    }
    row.text(piece, style)
}

/// Whether anything that has a width follows.
fn has_more(text: &str, from: usize) -> bool {
    text.get(from..).is_some_and(|rest| rest.chars().any(|c| c.width().unwrap_or(0) > 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tui::{TuiOptions, text};
    use proptest::prelude::*;

    proptest! {
        /// Colours aside it is what a line without them would be.
        #[test]
        fn it_reads_as_plain_text_does(line in "[a-c你好\u{301}]{0,12}", skipped in 0..8_usize, room in 0..8_usize) {
            let theme = Theme::new(&TuiOptions::default());
            let row = row(&line, &[], &[], Part { skipped, room }, theme.text, &theme);
            let plain = text::fit(&text::skip(&line, skipped), room, '…');
            let width = |text: &str| unicode_width::UnicodeWidthStr::width(text);
            prop_assert!(row.columns() <= room);
            prop_assert_eq!(row.plain().contains('…'), plain.contains('…'));
            prop_assert!(width(&plain) <= row.columns());
        }
    }
}
