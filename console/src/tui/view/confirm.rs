//! A question whose safe answer has the focus.

use ratatui::{buffer::Buffer, layout::Rect};

use super::{
    pen::{self, Row},
    prompt::boxed,
};
use crate::tui::{
    state::{Confirm, State},
    text,
    theme::Theme,
};

/// Draws the question over the screen.
pub(super) fn draw(state: &State, confirm: &Confirm, buffer: &mut Buffer, theme: &Theme) {
    let Some(command) = state.commands.get(confirm.id) else { return };
    let (settled, all) = command.progress();
    let columns = state.size.0.saturating_sub(4).min(64);
    let area = boxed(state, columns, 7, "cancel", buffer, theme);
    let inner = Rect { x: area.x + 2, y: area.y + 1, width: area.width - 4, height: area.height - 2 };
    let text = text::fit(&command.text, usize::from(inner.width), theme.glyphs.ellipsis);
    Row::default().text(text, theme.strong).draw_in(buffer, inner, 0);
    let open = all - settled;
    let verb = if open == 1 { "has" } else { "have" };
    let runs = format!("{open} of {all} runs {verb} not ended");
    Row::default().text(runs, theme.text).draw_in(buffer, inner, 1);
    let text = "what runs is ended, what waits never starts";
    let text = text::fit(text, usize::from(inner.width), theme.glyphs.ellipsis);
    Row::default().text(text, theme.quiet).draw_in(buffer, inner, 2);
    let answer = |word: &str, has_focus: bool| {
        let cursor = if has_focus { theme.glyphs.cursor } else { " " };
        let style = if has_focus { theme.accent } else { theme.quiet };
        Row::default().text(cursor.to_owned(), theme.accent).text(word.to_owned(), style)
    };
    let right = answer("no, let it run", !confirm.is_yes).space(3).row(answer("yes, cancel", confirm.is_yes));
    pen::ends(buffer, inner, 4, Row::default(), right);
}
