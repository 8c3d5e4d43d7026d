//! What says that the machines are shown as they were.

use super::{amount, pen::Row};
use crate::tui::{
    keymap::{self, Action, Mode},
    state::{Screen, State},
    text,
    theme::Theme,
};

/// From this age on the day is said, ms.
const DAY_MS: u64 = 86_400_000;
/// From this width on it is said where the history begins.
const KEPT_COLUMNS: u16 = 110;
/// Columns of what is done where there is little room.
const SHORT_COLUMNS: usize = 12;
/// Longest reason, columns.
const REASON_COLUMNS: usize = 40;

fn is_looked_at(state: &State) -> bool {
    state.past.is_looked_at() && state.screen == Screen::Machines
}

/// A moment of the past: the time of day, and the day where that is not clear.
fn moment(state: &State, at: u64) -> String {
    if state.real_wall_ms.saturating_sub(at) < DAY_MS {
        return format!("{}Z", amount::minute(at));
    }
    format!("{} {}Z", amount::day(at), amount::minute(at))
}

/// Which moment it is and how to leave it, the longest first; `None`: it is now.
pub(super) fn header(state: &State, theme: &Theme) -> Option<[Row; 3]> {
    if !is_looked_at(state) {
        return None;
    }
    let [_, warn, _] = theme.glyphs.severity;
    let ago = |at: u64| amount::age(state.real_wall_ms.saturating_sub(at));
    let shown_at = state.past.shown_at();
    let when = shown_at.map_or_else(|| "still now".to_owned(), |at| format!("as of {}", moment(state, at)));
    let age = shown_at.map(|at| format!(", {} ago", ago(at))).unwrap_or_default();
    let wanted = state.past.wanted().map(|at| moment(state, at)).unwrap_or_default();
    let doing = match state.past.problem() {
        Some(problem) => {
            let why = text::fit(problem, REASON_COLUMNS, theme.glyphs.ellipsis);
            format!(", cannot show {wanted}: {why}")
        }
        None if state.past.is_awaited() => format!(", asking for {wanted}"),
        None => String::new(),
    };
    let dot = theme.glyphs.dot;
    let key = |action: Action, word: &str| {
        let bound = state.options.keymap.bindings(Mode::Machines);
        let mut keys = bound.filter(|bound| bound.binding.action == action);
        let key = keys.next().and_then(|bound| bound.keys.first()).map(|key| keymap::label(key));
        key.map(|key| format!(" {dot} {key} {word}")).unwrap_or_default()
    };
    let later = key(Action::Scrub(1), "later");
    let now = key(Action::Back, "now");
    let row = |text: String| Row::default().text(format!("{warn} {text}"), theme.warn).space(1);
    Some([
        row(format!("{when}{age}{doing}{later}{now}")),
        row(format!("{when}{age}{doing}{now}")),
        row(format!("{when}{}{now}", text::fit(&doing, SHORT_COLUMNS, theme.glyphs.ellipsis))),
    ])
}

/// How many machines nothing is known of then.
pub(super) fn unknown(state: &State, theme: &Theme) -> Row {
    match state.past.unknown() {
        0 => Row::default(),
        n => {
            Row::default().space(2).text(format!("{} {n} not known then", theme.glyphs.unknown), theme.quiet)
        }
    }
}

/// Where the history begins, where there is room for it.
pub(super) fn kept(state: &State, theme: &Theme) -> Row {
    let sight = state.sight();
    let has_room = state.size.0 >= KEPT_COLUMNS && sight.filter().is_empty() && sight.marked() == 0;
    match state.past.kept().filter(|_| is_looked_at(state) && has_room) {
        Some(kept) => {
            let text = format!("history begins {}", moment(state, kept.earliest));
            Row::default().text(text, theme.quiet).space(3)
        }
        None => Row::default(),
    }
}

/// On a prompt that was opened over the past: what runs, runs now.
pub(super) fn on_the_prompt(state: &State, theme: &Theme) -> Row {
    if !is_looked_at(state) {
        return Row::default();
    }
    let [_, warn, _] = theme.glyphs.severity;
    let text = match state.past.shown_at() {
        Some(at) => format!("{warn} on the machines as they are now, not as of {}", moment(state, at)),
        None => format!("{warn} on the machines as they are now"),
    };
    Row::default().text(text, theme.warn)
}
