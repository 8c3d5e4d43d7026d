//! Within a screen: rows, pages, sideways, and where the mouse points.

use crate::tui::{
    effect::Effect,
    keymap::Action,
    state::{Modal, Screen, State, page::Focus},
    view::{help, item, layout, palette},
};

/// Columns by which output moves sideways.
const SIDE_COLUMNS: usize = 8;
/// Most columns that are skipped at the left of the output: a line has no more.
const MOST_SKIPPED: usize = crate::tui::text::LINE_BYTES;
/// Rows by which one notch of the wheel moves.
const WHEEL_ROWS: isize = 3;

/// Moves as an action says.
pub(super) fn act(state: &mut State, action: Action) -> Vec<Effect> {
    if state.modal.is_none() && matches!(state.screen, Screen::Output(..)) {
        super::output::act(state, action);
        return vec![];
    }
    match action {
        Action::Step(rows) => step(state, rows),
        Action::HalfPage(pages) => step(state, pages * (page_rows(state) / 2).max(1)),
        Action::Page(pages) => page(state, pages),
        Action::Top => step(state, isize::MIN / 2),
        Action::Bottom => step(state, isize::MAX / 2),
        Action::Side(steps) => side(state, steps),
        Action::Follow => follow(state),
        _ => {}
    }
    vec![]
}

/// Moves by notches of the wheel, without leaving what lies over the screen.
pub(super) fn wheel(state: &mut State, notches: i8) -> Vec<Effect> {
    step(state, isize::from(notches) * WHEEL_ROWS);
    vec![]
}

/// Goes to the row that was pointed at; to the one under the cursor: in.
pub(super) fn click(state: &mut State, column: u16, row: u16) -> Vec<Effect> {
    let area = layout::areas(state).list;
    let is_inside = (area.x..area.right()).contains(&column) && (area.y..area.bottom()).contains(&row);
    if state.modal.is_some() || !is_inside {
        return vec![];
    }
    let line = usize::from(row - area.y);
    let cursor = match &state.screen {
        Screen::Machines => {
            let sight = state.sight();
            (sight.cursor.top(), sight.cursor.at(), sight.seen())
        }
        Screen::Commands => {
            (state.commands.cursor.top(), state.commands.cursor.at(), state.commands.order().len())
        }
        Screen::Command(_) => (state.page.cursor.top(), state.page.cursor.at(), state.page.rows().len()),
        Screen::Machine(_) | Screen::List(_) => {
            match state.list_of_rows().and_then(|kind| state.rows(kind)) {
                Some(rows) => (rows.cursor.top(), rows.cursor.at(), rows.order().len()),
                None => return vec![],
            }
        }
        Screen::Pulse | Screen::Output(..) | Screen::Item(..) => return vec![],
    };
    let (top, at, len) = cursor;
    let to = top + line;
    if to >= len {
        return vec![];
    }
    if to == at {
        return super::go::within(state);
    }
    let steps = isize::try_from(to).unwrap_or(0) - isize::try_from(at).unwrap_or(0);
    step(state, steps);
    vec![]
}

fn page_rows(state: &State) -> isize {
    let areas = layout::areas(state);
    let area = if is_on_output(state) { areas.output } else { areas.list };
    isize::try_from(area.height.max(1)).unwrap_or(1)
}

fn is_on_output(state: &State) -> bool {
    matches!(state.screen, Screen::Command(_)) && state.page.focus == Focus::Output
}

fn step(state: &mut State, rows: isize) {
    if step_over(state, rows) {
        return;
    }
    match &state.screen {
        Screen::Pulse => {
            let keys = state.pulse.keys();
            state.pulse.cursor.step(&keys, rows);
        }
        Screen::Machines => state.sight_mut().step(rows),
        Screen::Commands => state.commands.step(rows),
        Screen::Output(..) => super::output::scroll(state, rows),
        Screen::Command(_) if state.page.focus == Focus::Output => scroll(state, rows),
        Screen::Command(_) => state.page.go(state.page.cursor.at().saturating_add_signed(rows)),
        Screen::Machine(_) | Screen::List(_) => {
            if let Some(kind) = state.list_of_rows() {
                state.rows_mut(kind).step(rows);
            }
        }
        Screen::Item(..) => {
            let last = item::last_top(state);
            state.top = state.top.saturating_add_signed(rows).min(last);
        }
    }
}

/// Moves in what lies over the screen; `false`: nothing does, or the filter, under which rows move.
fn step_over(state: &mut State, rows: isize) -> bool {
    let last = match &state.modal {
        Some(Modal::Help { .. }) => help::last_top(state),
        Some(Modal::Columns { .. }) => state.choice().len().saturating_sub(1),
        _ => 0,
    };
    match &mut state.modal {
        Some(Modal::Help { top: at } | Modal::Columns { at }) => {
            *at = at.saturating_add_signed(rows).min(last);
        }
        Some(Modal::Palette(palette)) => palette::step(palette, rows),
        Some(Modal::Prompt(prompt)) if prompt.search.is_some() => super::prompt::choose(state, rows),
        Some(Modal::Prompt(_)) => super::prompt::scroll(state, rows),
        Some(Modal::Confirm(_)) => {}
        Some(Modal::Filter { .. } | Modal::Line(_)) | None => return false,
    }
    true
}

/// On a command a page is one of its output, wherever the focus is.
fn page(state: &mut State, pages: isize) {
    if state.modal.is_none() && matches!(state.screen, Screen::Command(_)) {
        let rows = isize::try_from(layout::areas(state).output.height).unwrap_or(1);
        scroll(state, pages * (rows - 1).max(1));
        return;
    }
    step(state, pages * (page_rows(state) - 1).max(1));
}

fn scroll(state: &mut State, by: isize) {
    let rows = usize::from(layout::areas(state).output.height);
    if let Some(diff) = &mut state.page.diff {
        diff.scroll_by(rows, by);
    } else if let Some(command) = state.shown_command().and_then(|id| state.commands.get(id)) {
        state.page.scroll_by(command, rows, by);
    }
}

fn follow(state: &mut State) {
    let rows = usize::from(layout::areas(state).output.height);
    if let Some(command) = state.shown_command().and_then(|id| state.commands.get(id)) {
        state.page.toggle_follow(command, rows);
    }
}

fn side(state: &mut State, steps: isize) {
    let columns = steps * isize::try_from(SIDE_COLUMNS).unwrap_or(1);
    state.page.skipped = state.page.skipped.saturating_add_signed(columns).min(MOST_SKIPPED);
}
