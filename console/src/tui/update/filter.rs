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
        Screen::Machines => state.sight().filter(),
        Screen::Commands => state.commands.filter(),
        Screen::Machine(_) | Screen::List(_) => {
            state.list_of_rows().and_then(|kind| state.rows(kind)).map_or("", |rows| rows.filter())
        }
        Screen::Pulse | Screen::Command(_) | Screen::Output(..) | Screen::Item(..) => "",
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
        Screen::Machines => {
            let now_ms = state.sight_ms();
            state.sight_mut().set_filter(text, now_ms);
        }
        Screen::Commands => state.commands.set_filter(text),
        Screen::Machine(_) | Screen::List(_) => {
            let (kind, wall_ms) = (state.list_of_rows(), state.wall_ms);
            if let Some(kind) = kind {
                state.rows_mut(kind).set_filter(text, wall_ms);
            }
        }
        Screen::Pulse | Screen::Command(_) | Screen::Output(..) | Screen::Item(..) => {}
    }
}
