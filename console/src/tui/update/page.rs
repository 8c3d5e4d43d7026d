//! On one command: groups, their machines, marks, and what two outputs differ in.

use signalbox_schemas::id::MachineId;

use crate::tui::{
    keymap::Action,
    state::{
        Severity, State,
        command::Command,
        diff::Diff,
        page::{CommandPage, Focus, Row},
    },
};

/// Does what an action means on the page of a command.
pub(super) fn act(state: &mut State, action: Action) {
    match action {
        Action::Fold => {
            state.page.is_unfolded = !state.page.is_unfolded;
            state.page.within = None;
        }
        Action::Outliers => state.page.outliers_first = !state.page.outliers_first,
        Action::Base => base(state),
        Action::Diff => diff(state),
        _ => {}
    }
}

/// In: from a group to its machines, from a run to its output.
pub(super) fn enter(state: &mut State) {
    match state.page.cursor.key() {
        Some(Row::Group(fold)) if state.page.within.is_none() => state.page.within = Some(fold.clone()),
        _ => state.page.focus = Focus::Output,
    }
}

/// Out by one layer of the page; `false`: it has no more.
pub(super) fn leave(state: &mut State) -> bool {
    if state.page.diff.take().is_some() {
        return true;
    }
    if state.page.focus == Focus::Output {
        state.page.focus = Focus::Runs;
        return true;
    }
    match state.page.within.take() {
        Some(fold) => {
            state.page.cursor = crate::tui::state::cursor::Cursor::on(Row::Group(fold));
            true
        }
        None => false,
    }
}

/// Marks the machines of the row, or takes the marks away where all of them have one; then goes on.
pub(super) fn mark(state: &mut State) {
    let Some(command) = state.shown_command().and_then(|id| state.commands.get(id)) else { return };
    let Some(row) = state.page.cursor.key() else { return };
    let tokens: Vec<_> = CommandPage::machines(command, row).iter().map(MachineId::token).collect();
    if tokens.iter().all(|token| state.fleet.is_marked(token)) {
        state.fleet.unmark(&tokens);
    } else {
        state.fleet.mark(tokens);
    }
    state.page.go(state.page.cursor.at() + 1);
}

fn base(state: &mut State) {
    state.page.base = state.page.cursor.key().filter(|row| **row != Row::All).cloned();
    match &state.page.base {
        Some(_) => state.say(Severity::Good, "d on another row shows what differs from this one"),
        None => state.say(Severity::Warn, "choose a group or a run to compare others with"),
    }
}

/// Shows what differs between the row and another one, or the output again.
fn diff(state: &mut State) {
    if state.page.diff.take().is_some() {
        return;
    }
    let compared = state.shown_command().and_then(|id| state.commands.get(id)).and_then(|command| {
        let here = state.page.cursor.key()?;
        let other = state.page.other(here)?;
        let lines = |row| CommandPage::run(command, row).map(|run| &run.lines);
        Some(Diff::new((name(command, other), lines(other)?), (name(command, here), lines(here)?)))
    });
    if compared.is_none() {
        state.say(Severity::Warn, "there is nothing to compare this with: go to one group of several");
    }
    state.page.diff = compared;
}

/// What a row is called.
fn name(command: &Command, row: &Row) -> String {
    match row {
        Row::All => "all".to_owned(),
        Row::Group(fold) => command.folds.get(fold).map_or_else(String::new, |group| group.names.to_owned()),
        Row::One(machine) => command.run_on(machine).map_or_else(String::new, |run| run.name.clone()),
    }
}
