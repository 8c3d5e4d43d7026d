//! A question whose safe answer has the focus.

use ratatui::{buffer::Buffer, layout::Rect};

use super::{
    pen::{self, Row},
    prompt::boxed,
};
use crate::tui::{
    state::{Confirm, Deed, State, command::Command},
    text,
    theme::Theme,
};

/// What is asked: the title, what is so, what follows, the safe answer, the other one.
fn asked(deed: Deed, command: &Command) -> [String; 5] {
    let (settled, all) = command.progress();
    let (open, held) = (all - settled, command.held());
    match deed {
        Deed::Cancel => {
            let verb = if open == 1 { "has" } else { "have" };
            [
                "cancel".to_owned(),
                format!("{open} of {all} runs {verb} not ended"),
                "what runs is ended, what waits never starts".to_owned(),
                "no, let it run".to_owned(),
                "yes, cancel".to_owned(),
            ]
        }
        Deed::Resume => [
            "let it go on".to_owned(),
            format!("{held} of {all} machines wait to be let go"),
            "the next wave begins at once".to_owned(),
            "no, stay paused".to_owned(),
            "yes, go on".to_owned(),
        ],
        Deed::Abort => [
            "abort".to_owned(),
            format!("{held} of {all} machines are never let go then"),
            "what was let go runs to its end".to_owned(),
            "no, leave it".to_owned(),
            "yes, abort".to_owned(),
        ],
    }
}

/// Draws the question over the screen.
pub(super) fn draw(state: &State, confirm: &Confirm, buffer: &mut Buffer, theme: &Theme) {
    let Some(command) = state.commands.get(confirm.id) else { return };
    let [title, so, then, no, yes] = asked(confirm.deed, command);
    let columns = state.size.0.saturating_sub(4).min(64);
    let area = boxed(state, columns, 7, &title, buffer, theme);
    let inner = Rect { x: area.x + 2, y: area.y + 1, width: area.width - 4, height: area.height - 2 };
    let fit = |text: &str| text::fit(text, usize::from(inner.width), theme.glyphs.ellipsis);
    Row::default().text(fit(&command.text), theme.strong).draw_in(buffer, inner, 0);
    Row::default().text(fit(&so), theme.text).draw_in(buffer, inner, 1);
    Row::default().text(fit(&then), theme.quiet).draw_in(buffer, inner, 2);
    let answer = |word: String, has_focus: bool| {
        let cursor = if has_focus { theme.glyphs.cursor } else { " " };
        let style = if has_focus { theme.accent } else { theme.quiet };
        Row::default().text(cursor.to_owned(), theme.accent).text(word, style)
    };
    let right = answer(no, !confirm.is_yes).space(3).row(answer(yes, confirm.is_yes));
    pen::ends(buffer, inner, 4, Row::default(), right);
}
