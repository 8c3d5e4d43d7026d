//! Which columns a list has, and by which it is sorted.

use crate::tui::{
    keymap::Action,
    state::{
        Modal, Screen, Severity, State,
        fleet::{Column, Figure},
    },
};

/// Sorts as an action says.
pub(super) fn sort(state: &mut State, action: Action) {
    let (now_ms, wall_ms) = (state.sight_ms(), state.wall_ms);
    match (&state.screen, action) {
        (Screen::Machines, Action::Sort(column)) => state.sight_mut().sort_by(column, now_ms),
        (Screen::Machines, Action::SortNext(steps)) => state.sight_mut().sort_next(steps, now_ms),
        (Screen::Machines, Action::Reverse) => {
            let (column, is_reversed) = state.sight().sort();
            state.sight_mut().sort_as(column, !is_reversed, now_ms);
        }
        (Screen::Machine(_) | Screen::List(_), action) => {
            let Some(kind) = state.list_of_rows() else { return };
            let rows = state.rows_mut(kind);
            match action {
                Action::SortNext(steps) => rows.sort_next(steps, wall_ms),
                Action::Reverse => rows.reverse(wall_ms),
                _ => {}
            }
        }
        _ => {}
    }
}

/// Sorts by the column of this name, as the palette and the configuration write it.
pub(super) fn sort_named(state: &mut State, name: &str, is_reversed: bool) {
    let (now_ms, wall_ms) = (state.sight_ms(), state.wall_ms);
    let is_known = match &state.screen {
        Screen::Machines => {
            let column = Column::ALL.into_iter().find(|column| column.word() == name);
            if let Some(column) = column {
                state.sight_mut().sort_as(column, is_reversed, now_ms);
            }
            column.is_some()
        }
        _ => state
            .list_of_rows()
            .is_some_and(|kind| state.rows_mut(kind).sort_named(name, is_reversed, wall_ms)),
    };
    if !is_known {
        state.say(Severity::Warn, format!("nothing is sorted by `{name}` here"));
    }
}

/// Shows these columns, in this order.
pub(super) fn choose(state: &mut State, names: &[&str]) {
    match &state.screen {
        Screen::Machines => state.sight_mut().choose(names.iter().copied()),
        _ => {
            if let Some(kind) = state.list_of_rows() {
                state.rows_mut(kind).choose(names.iter().copied());
            }
        }
    }
}

/// Shows the column under the cursor, or hides it; the last one stays.
pub(super) fn toggle(state: &mut State) {
    let Some(Modal::Columns { at }) = state.modal else { return };
    let all = state.choice();
    let Some((name, is_shown)) = all.get(at).copied() else { return };
    let mut names: Vec<&str> = all.iter().filter(|(_, is_shown)| *is_shown).map(|(name, _)| *name).collect();
    if is_shown {
        names.retain(|other| *other != name);
    } else {
        names.push(name);
    }
    choose(state, &names);
    follow(state, name);
}

/// Moves the column under the cursor among those that are shown.
pub(super) fn shift(state: &mut State, steps: isize) {
    let Some(Modal::Columns { at }) = state.modal else { return };
    let mut names: Vec<&str> =
        state.choice().iter().filter(|(_, is_shown)| *is_shown).map(|(name, _)| *name).collect();
    if at >= names.len() {
        return;
    }
    let name = names.remove(at);
    names.insert(at.saturating_add_signed(steps).min(names.len()), name);
    choose(state, &names);
    follow(state, name);
}

/// The cursor stays on its column.
fn follow(state: &mut State, name: &str) {
    if let Some(to) = state.choice().iter().position(|(other, _)| *other == name) {
        state.modal = Some(Modal::Columns { at: to });
    }
}

/// Columns as they were at first.
pub(super) fn reset(state: &mut State) {
    match &state.screen {
        Screen::Machines => state.sight_mut().choose(Figure::AT_FIRST.map(Figure::name)),
        _ => {
            if let Some(kind) = state.list_of_rows() {
                state.rows_mut(kind).reset_columns();
            }
        }
    }
}
