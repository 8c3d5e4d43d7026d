//! The line on which a command is written, with those it is meant for.

use ratatui::{
    buffer::Buffer,
    layout::{Position, Rect},
    widgets::{Clear, Widget as _},
};
use signalbox_schemas::{api::Liveness, limit};
use unicode_width::UnicodeWidthStr as _;

use super::{amount, pen::Row};
use crate::tui::{
    state::{Prompt, State, fleet::LivenessCounts},
    text,
    theme::Theme,
};

/// Columns of the words at the left.
const WORD_COLUMNS: u16 = 9;
/// Widest box.
const MOST_COLUMNS: u16 = 100;

/// Draws the line over the screen; answers where the cursor is.
pub(super) fn draw(state: &State, prompt: &Prompt, buffer: &mut Buffer, theme: &Theme) -> Option<Position> {
    let columns = state.size.0.saturating_sub(4).min(MOST_COLUMNS);
    let machines = match prompt.targets.as_slice() {
        [] => prompt.on.clone(),
        [one] => state.fleet.get(one).map_or(one.as_str(), |m| m.name.as_str()).to_owned(),
        several => amount::machines(several.len()),
    };
    let title = match &prompt.ssh {
        Some(ssh) => format!("run on {} via {machines}", text::line(&ssh.to_string())),
        None => format!("run on {machines}"),
    };
    let area = boxed(state, columns, 7, &title, buffer, theme);
    let inner = Rect { x: area.x + 2, y: area.y + 1, width: area.width - 4, height: area.height - 2 };
    let room = inner.width.saturating_sub(WORD_COLUMNS);
    let word =
        |word: &str| Row::default().text(word.to_owned(), theme.quiet).up_to(usize::from(WORD_COLUMNS));

    let (shown, at) = prompt.editor.window(usize::from(room));
    word("command").text(shown, theme.strong).draw_in(buffer, inner, 0);
    word("on").text(names(state, prompt, usize::from(room), theme), theme.text).draw_in(buffer, inner, 1);
    word("").row(liveness(state, prompt, usize::from(room), theme)).draw_in(buffer, inner, 2);
    word("timeout").text(amount::timeout(prompt.timeout_ms), theme.text).draw_in(buffer, inner, 3);

    let left = match (&prompt.refusal, prompt.asked) {
        (Some(refusal), _) => {
            let text = text::fit(refusal, usize::from(inner.width) - 2, theme.glyphs.ellipsis);
            let [_, _, bad] = theme.glyphs.severity;
            Row::default().text(format!("{bad} {text}"), theme.bad)
        }
        (None, Some(_)) if !state.link.connected => {
            Row::default().text("sent; the broker is not reached", theme.warn)
        }
        (None, Some(_)) => Row::default().text("asking the bridge", theme.accent),
        (None, None) => Row::default(),
    };
    left.draw_in(buffer, inner, 4);
    let x = inner.x + WORD_COLUMNS + u16::try_from(at).unwrap_or(0);
    prompt.asked.is_none().then(|| Position::new(x.min(inner.right()), inner.y))
}

fn names(state: &State, prompt: &Prompt, columns: usize, theme: &Theme) -> String {
    if prompt.targets.is_empty() {
        return text::fit(&prompt.on, columns, theme.glyphs.ellipsis);
    }
    let mut names = String::new();
    for (at, token) in prompt.targets.iter().enumerate() {
        let name = state.fleet.get(token).map_or(token.as_str(), |machine| machine.name.as_str());
        let more = format!(" and {} more", prompt.targets.len() - at);
        let is_last = at + 1 == prompt.targets.len();
        let room = columns.saturating_sub(if is_last { 0 } else { more.width() });
        if at > 0 && names.width() + 1 + name.width() > room {
            return names + &more;
        }
        if at > 0 {
            names.push(' ');
        }
        names.push_str(&text::fit(name, room, theme.glyphs.ellipsis));
    }
    names
}

fn liveness(state: &State, prompt: &Prompt, columns: usize, theme: &Theme) -> Row {
    let mut counts = LivenessCounts::default();
    let known = prompt.targets.iter().filter_map(|token| state.fleet.get(token));
    known.for_each(|machine| counts.add(machine.state(state.now_ms)));
    let parts = [
        (Liveness::Online, counts.online),
        (Liveness::Stale, counts.stale),
        (Liveness::Offline, counts.offline),
    ];
    let row = parts.into_iter().filter(|(_, n)| *n > 0).fold(Row::default(), |row, (liveness, n)| {
        let (glyph, style) = theme.liveness(liveness);
        let row = if row.columns() > 0 { row.space(2) } else { row };
        row.text(format!("{glyph} {n} {}", liveness.as_str()), style)
    });
    let waits = format!("  waits {} for the offline", amount::timeout(limit::DEFAULT_EXPIRES_IN_MS));
    if counts.offline + counts.stale > 0 && row.columns() + waits.width() <= columns {
        return row.text(waits, theme.quiet);
    }
    row
}

/// An empty box in the upper half of the screen; answers where it is.
pub(super) fn boxed(
    state: &State,
    columns: u16,
    rows: u16,
    title: &str,
    buffer: &mut Buffer,
    theme: &Theme,
) -> Rect {
    let (width, height) = state.size;
    let (columns, rows) = (columns.min(width), rows.min(height.saturating_sub(2)));
    let area = Rect::new((width - columns) / 2, 1 + (height - rows - 2) / 3, columns, rows);
    let [top_left, top_right, bottom_left, bottom_right] = theme.glyphs.corners;
    Clear.render(area, buffer);
    let inside = usize::from(columns.saturating_sub(2));
    let title = text::fit(title, inside.saturating_sub(4), theme.glyphs.ellipsis);
    let rest = inside.saturating_sub(title.width() + 3);
    Row::default()
        .text(format!("{top_left}{} ", theme.glyphs.rule), theme.accent)
        .text(title, theme.accent)
        .text(format!(" {}{top_right}", theme.glyphs.rule.repeat(rest)), theme.accent)
        .draw_in(buffer, area, 0);
    for line in 1..rows.saturating_sub(1) {
        Row::default()
            .text(theme.glyphs.wall, theme.accent)
            .space(inside)
            .text(theme.glyphs.wall, theme.accent)
            .draw_in(buffer, area, line);
    }
    Row::default()
        .text(format!("{bottom_left}{}{bottom_right}", theme.glyphs.rule.repeat(inside)), theme.accent)
        .draw_in(buffer, area, rows - 1);
    area
}
