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
    let Some(compared) = compare(state) else {
        return state
            .say(Severity::Warn, "there is nothing to compare this with: go to one group of several");
    };
    match compared {
        Compared::Absent => {
            let text = "outputs of more than 1 MiB are not compared here: save both, and compare the files";
            state.say(Severity::Warn, text);
        }
        Compared::Whole(diff) => state.page.diff = Some(diff),
        Compared::Last(diff) => {
            state.page.diff = Some(diff);
            state.say(Severity::Warn, "only the last lines of these outputs are kept here and were compared");
        }
    }
}

/// Two outputs beside each other.
enum Compared {
    /// One is not here.
    Absent,
    /// Both, from the first line to the last.
    Whole(Diff),
    /// What is kept of them.
    Last(Diff),
}

/// Compares the output under the cursor with another one; `None` where there are not two.
fn compare(state: &State) -> Option<Compared> {
    let command = state.shown_command().and_then(|id| state.commands.get(id))?;
    let here = state.page.cursor.key()?;
    let other = state.page.other(here)?;
    let run = |row| CommandPage::run(command, row);
    let (first, second) = (run(other)?, run(here)?);
    if first.absent_bytes() > 0 || second.absent_bytes() > 0 {
        return Some(Compared::Absent);
    }
    let diff = Diff::new((name(command, other), &first.lines), (name(command, here), &second.lines));
    let is_whole = first.dropped_bytes() == 0 && second.dropped_bytes() == 0;
    Some(if is_whole { Compared::Whole(diff) } else { Compared::Last(diff) })
}

/// What a row is called.
fn name(command: &Command, row: &Row) -> String {
    match row {
        Row::All => "all".to_owned(),
        Row::Group(fold) => command.folds.get(fold).map_or_else(String::new, |group| group.names.to_owned()),
        Row::One(machine) => command.run_on(machine).map_or_else(String::new, |run| run.name.clone()),
    }
}
