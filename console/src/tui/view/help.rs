//! The keys of a screen, explained: made from the key map.

use ratatui::{buffer::Buffer, layout::Rect};

use super::{pen::Row, prompt::boxed};
use crate::tui::{
    keymap::{self, Bound},
    state::{Screen, State},
    text,
    theme::Theme,
};

/// Columns of the keys.
const KEY_COLUMNS: usize = 16;
/// Widest box.
const MOST_COLUMNS: u16 = 84;

/// Keys and what they do, in the order of the key map. What has no key is left out.
fn lines(state: &State) -> Vec<(String, &'static str)> {
    let bindings = state.options.keymap.bindings(state.screen.mode());
    let keyed = bindings.filter(|bound| !bound.keys.is_empty());
    let keys = |bound: &Bound| bound.keys.iter().map(|key| keymap::label(key)).collect::<Vec<_>>().join(" ");
    keyed.map(|bound| (keys(bound), bound.binding.help)).collect()
}

fn rows(state: &State) -> u16 {
    let all = u16::try_from(lines(state).len()).unwrap_or(u16::MAX);
    all.min(state.size.1.saturating_sub(4))
}

/// The furthest that the help can be scrolled.
pub fn last_top(state: &State) -> usize {
    lines(state).len().saturating_sub(usize::from(rows(state)))
}

/// Draws the help over the screen.
pub(super) fn draw(state: &State, top: usize, buffer: &mut Buffer, theme: &Theme) {
    let shown = rows(state);
    let columns = state.size.0.saturating_sub(4).min(MOST_COLUMNS);
    let name = match &state.screen {
        Screen::Pulse => "keys: pulse".to_owned(),
        Screen::Machines => "keys: machines".to_owned(),
        Screen::Machine(_) => "keys: one machine".to_owned(),
        Screen::Commands => "keys: commands".to_owned(),
        Screen::Command(_) => "keys: one command".to_owned(),
        Screen::Output(..) => "keys: an output".to_owned(),
        Screen::List(kind) => format!("keys: {}", kind.name()),
        Screen::Item(kind, _) => format!("keys: one of {}", kind.name()),
    };
    let name = name.as_str();
    let area = boxed(state, columns, shown + 2, name, buffer, theme);
    let inner = Rect { x: area.x + 2, y: area.y + 1, width: area.width - 4, height: area.height - 2 };
    let all = lines(state);
    for (line, (keys, what)) in (0..inner.height).zip(all.iter().skip(top.min(last_top(state)))) {
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
