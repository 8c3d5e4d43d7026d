//! What is shown of a list.

use crate::tui::state::{Modal, Screen, State, editor::Editor};

/// Opens the line of the filter.
pub(super) fn open(state: &mut State) {
    let before = of(state).to_owned();
    state.modal = Some(Modal::Filter { editor: Editor::new(&before), before });
}

/// The filter of what is shown; empty = none.
pub(super) fn of(state: &State) -> &str {
    match &state.screen {
        Screen::Machines => state.fleet.filter(),
        Screen::Commands => state.commands.filter(),
        Screen::List(kind) => state.rows(*kind).map_or("", |rows| rows.filter()),
        Screen::Pulse | Screen::Machine(_) | Screen::Command(_) | Screen::Item(..) => "",
    }
}

/// Filters by what is written.
pub(super) fn apply(state: &mut State) {
    if let Some(Modal::Filter { editor, .. }) = &state.modal {
        let text = editor.text().to_owned();
        set(state, &text);
    }
}

/// Filters by a text.
pub(super) fn set(state: &mut State, text: &str) {
    match &state.screen {
        Screen::Machines => state.fleet.set_filter(text, state.now_ms),
        Screen::Commands => state.commands.set_filter(text),
        Screen::List(kind) => {
            let (kind, wall_ms) = (*kind, state.wall_ms);
            state.rows_mut(kind).set_filter(text, wall_ms);
        }
        Screen::Pulse | Screen::Machine(_) | Screen::Command(_) | Screen::Item(..) => {}
    }
}
