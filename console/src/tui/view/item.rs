//! All of one row: what it is called at the left, what it is at the right, in as many lines as that takes.

use ratatui::{buffer::Buffer, layout::Rect};
use unicode_width::UnicodeWidthStr as _;

use super::{layout, pen::Row};
use crate::tui::{
    lists::{Item, ListKind},
    state::{Screen, State},
    text,
    theme::Theme,
};

/// Most columns of the names.
const NAME_COLUMNS: usize = 14;
/// Margin at the left and between names and what they are.
const MARGIN_COLUMNS: usize = 2;

/// Name, empty where a text goes on, and text of each line.
fn lines(item: &Item, columns: usize) -> Vec<(&'static str, String)> {
    let room = columns.saturating_sub(MARGIN_COLUMNS * 2 + NAME_COLUMNS).max(8);
    let mut lines = Vec::new();
    for (name, what) in &item.details {
        let mut rest = what.as_str();
        let mut name = *name;
        loop {
            let piece = text::beginning(rest, room);
            // One character that is wider than the room would never end.
            let piece = if piece.is_empty() { rest } else { piece };
            lines.push((name, piece.to_owned()));
            rest = rest.get(piece.len()..).unwrap_or_default();
            name = "";
            if rest.is_empty() {
                break;
            }
        }
    }
    lines
}

/// The furthest that the row on the screen can be scrolled.
pub fn last_top(state: &State) -> usize {
    let Screen::Item(kind, key) = &state.screen else { return 0 };
    let area = layout::areas(state).list;
    let item = state.rows(*kind).and_then(|rows| rows.get(key));
    item.map_or(0, |item| lines(item, usize::from(area.width)).len().saturating_sub(usize::from(area.height)))
}

/// Draws the row.
pub(super) fn draw(state: &State, kind: ListKind, key: &str, area: Rect, buffer: &mut Buffer, theme: &Theme) {
    let Some(item) = state.rows(kind).and_then(|rows| rows.get(key)) else {
        let text = "this row is no more; esc leads back to the list";
        Row::margin().space(1).text(text, theme.quiet).draw_in(buffer, area, 1);
        return;
    };
    let lines = lines(item, usize::from(area.width));
    let longest = item.details.iter().map(|(name, _)| name.width()).max().unwrap_or(0).min(NAME_COLUMNS);
    for (line, (name, what)) in (0..area.height).zip(lines.iter().skip(state.top)) {
        Row::default()
            .space(MARGIN_COLUMNS)
            .text((*name).to_owned(), theme.quiet)
            .up_to(MARGIN_COLUMNS * 2 + longest)
            .text(what.clone(), theme.text)
            .draw_in(buffer, area, line);
    }
}
