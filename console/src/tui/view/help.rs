//! The keys of a screen, explained: made from the key map.

use ratatui::{buffer::Buffer, layout::Rect};

use super::{pen::Row, prompt::boxed};
use crate::tui::{
    keymap::{self, Mode},
    state::{Screen, State},
    text,
    theme::Theme,
};

/// Columns of the keys.
const KEY_COLUMNS: usize = 16;
/// Widest box.
const MOST_COLUMNS: u16 = 84;

/// Keys and what they do, in the order of the key map.
fn lines(mode: Mode) -> Vec<(String, &'static str)> {
    let keys = |binding: &keymap::Binding| {
        binding.keys.iter().map(|key| keymap::label(key)).collect::<Vec<_>>().join(" ")
    };
    keymap::bindings(mode).map(|binding| (keys(binding), binding.help)).collect()
}

fn rows(size: (u16, u16), mode: Mode) -> u16 {
    let all = u16::try_from(lines(mode).len()).unwrap_or(u16::MAX);
    all.min(size.1.saturating_sub(4))
}

/// The furthest that the help can be scrolled.
pub fn last_top(size: (u16, u16), screen: &Screen) -> usize {
    lines(screen.mode()).len() - usize::from(rows(size, screen.mode()))
}

/// Draws the help over the screen.
pub(super) fn draw(state: &State, top: usize, buffer: &mut Buffer, theme: &Theme) {
    let mode = state.screen.mode();
    let shown = rows(state.size, mode);
    let columns = state.size.0.saturating_sub(4).min(MOST_COLUMNS);
    let name = match state.screen {
        Screen::Machines => "keys: machines",
        Screen::Machine(_) => "keys: one machine",
        Screen::Commands => "keys: commands",
        Screen::Command(_) => "keys: one command",
    };
    let area = boxed(state, columns, shown + 2, name, buffer, theme);
    let inner = Rect { x: area.x + 2, y: area.y + 1, width: area.width - 4, height: area.height - 2 };
    let all = lines(mode);
    for (line, (keys, what)) in
        (0..inner.height).zip(all.iter().skip(top.min(last_top(state.size, &state.screen))))
    {
        let keys = text::fit(keys, KEY_COLUMNS - 1, theme.glyphs.ellipsis);
        let room = usize::from(inner.width).saturating_sub(KEY_COLUMNS);
        let what = text::fit(what, room, theme.glyphs.ellipsis);
        Row::default()
            .text(keys, theme.accent)
            .up_to(KEY_COLUMNS)
            .text(what, theme.text)
            .draw_in(buffer, inner, line);
    }
    if all.len() > usize::from(inner.height) {
        let [down, _] = theme.glyphs.arrows;
        let below = Rect { x: area.right().saturating_sub(10), y: area.bottom() - 1, width: 9, height: 1 };
        Row::margin().text(format!("{down} more "), theme.quiet).draw_in(buffer, below, 0);
    }
}
