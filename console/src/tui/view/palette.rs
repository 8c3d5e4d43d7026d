//! The palette: the line, and below it what it may become.

use ratatui::{
    buffer::Buffer,
    layout::{Position, Rect},
};
use unicode_width::UnicodeWidthStr as _;

use super::{pen::Row, prompt::boxed};
use crate::tui::{
    state::{Palette, State},
    text,
    theme::Theme,
};

/// Widest box.
const MOST_COLUMNS: u16 = 90;
/// Most offers that are seen at once.
const MOST_ROWS: u16 = 12;
/// Columns of what is offered.
const LINE_COLUMNS: usize = 30;

/// Chooses another offer, so many further on; before the first one is the line as it is written.
pub fn step(palette: &mut Palette, rows: isize) {
    let slots = palette.offers.len() + 1;
    let at = palette.chosen.map_or(0, |at| at + 1);
    let to = at.saturating_add_signed(rows).min(slots - 1);
    palette.chosen = to.checked_sub(1);
}

/// Draws the palette over the screen; answers where the cursor is.
pub(super) fn draw(state: &State, palette: &Palette, buffer: &mut Buffer, theme: &Theme) -> Position {
    let columns = state.size.0.saturating_sub(4).min(MOST_COLUMNS);
    let offers = MOST_ROWS.min(state.size.1.saturating_sub(6)).max(1);
    let area = boxed(state, columns, offers + 3, "go or do", buffer, theme);
    let inner = Rect { x: area.x + 2, y: area.y + 1, width: area.width - 4, height: area.height - 2 };
    let room = usize::from(inner.width).saturating_sub(2);
    let (shown, at) = palette.editor.window(room);
    Row::default().text(":", theme.chosen).text(shown, theme.strong).draw_in(buffer, inner, 0);
    let list = Rect { y: inner.y + 1, height: inner.height.saturating_sub(1), ..inner };
    if let Some(problem) = &palette.problem {
        let [_, _, bad] = theme.glyphs.severity;
        let problem = text::fit(problem, room.saturating_sub(2), theme.glyphs.ellipsis);
        Row::default().text(format!("{bad} {problem}"), theme.bad).draw_in(buffer, list, 0);
    } else {
        offered(palette, list, buffer, theme);
    }
    let x = inner.x + 1 + u16::try_from(at).unwrap_or(0);
    Position::new(x.min(inner.right()), inner.y)
}

fn offered(palette: &Palette, area: Rect, buffer: &mut Buffer, theme: &Theme) {
    let rows = usize::from(area.height);
    let top = palette.chosen.map_or(0, |at| (at + 1).saturating_sub(rows));
    let width = usize::from(area.width);
    let lines = LINE_COLUMNS.min(width);
    for (line, (at, offer)) in (0..area.height).zip(palette.offers.iter().enumerate().skip(top)) {
        let is_chosen = palette.chosen == Some(at);
        let gutter = if is_chosen { theme.glyphs.cursor } else { " " };
        let style = if is_chosen { theme.accent } else { theme.text };
        let key = offer.key.as_deref().unwrap_or_default();
        let what = text::fit(&offer.line, lines.saturating_sub(2), theme.glyphs.ellipsis);
        let room = width.saturating_sub(lines + key.width() + 2);
        Row::default()
            .text(gutter, theme.accent)
            .text(what, style)
            .up_to(lines)
            .text(text::fit(&offer.about, room, theme.glyphs.ellipsis), theme.quiet)
            .up_to(width.saturating_sub(key.width()))
            .text(key.to_owned(), theme.accent)
            .draw_in(buffer, area, line);
    }
    if palette.offers.is_empty() {
        Row::margin().text("nothing is called like that", theme.faint).draw_in(buffer, area, 0);
    }
}
