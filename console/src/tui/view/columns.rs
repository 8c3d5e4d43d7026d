//! Choosing columns: those that are shown first, in their order.

use ratatui::{buffer::Buffer, layout::Rect};

use super::{pen::Row, prompt::boxed};
use crate::tui::{state::State, theme::Theme};

/// Widest box.
const MOST_COLUMNS: u16 = 40;

/// Draws the choice over the screen.
pub(super) fn draw(state: &State, at: usize, buffer: &mut Buffer, theme: &Theme) {
    let choice = state.choice();
    let rows = u16::try_from(choice.len()).unwrap_or(u16::MAX).min(state.size.1.saturating_sub(4));
    let columns = state.size.0.saturating_sub(4).min(MOST_COLUMNS);
    let area = boxed(state, columns, rows + 2, "columns", buffer, theme);
    let inner = Rect { x: area.x + 2, y: area.y + 1, width: area.width - 4, height: area.height - 2 };
    let top = (at + 1).saturating_sub(usize::from(inner.height));
    for (line, (place, (name, is_shown))) in (0..inner.height).zip(choice.iter().enumerate().skip(top)) {
        let is_here = place == at;
        let gutter = if is_here { theme.glyphs.cursor } else { " " };
        let mark = if *is_shown { theme.glyphs.mark } else { " " };
        let style = match (is_here, is_shown) {
            (true, _) => theme.accent,
            (false, true) => theme.text,
            (false, false) => theme.faint,
        };
        let word = if *is_shown { "shown" } else { "hidden" };
        Row::default()
            .text(gutter, theme.accent)
            .text(mark, theme.chosen)
            .space(1)
            .text((*name).to_owned(), style)
            .up_to(usize::from(inner.width).saturating_sub(word.len()))
            .text(word, theme.faint)
            .draw_in(buffer, inner, line);
    }
}
