//! Runs of one machine: what waits for it, runs there, or ran.

use signalbox_schemas::{api::MachineRunView, run::RunState};

use super::{Cell, Item, moment};
use crate::tui::{state::Severity, text};

/// How a run's state is to be looked at.
fn severity(state: RunState) -> Severity {
    match state {
        RunState::Completed => Severity::Good,
        RunState::Failed | RunState::Lost | RunState::Rejected => Severity::Bad,
        _ => Severity::Warn,
    }
}

/// State, outcome, command, who, since when, until when it may wait, how long it ran.
pub(super) fn run(view: MachineRunView) -> Item {
    let MachineRunView { command, run } = view;
    let outcome = match (&run.signal, run.exit_code, &run.error) {
        (Some(signal), _, _) => text::line(signal),
        (None, Some(code), _) => format!("exit {code}"),
        (None, None, Some(error)) => text::line(&error.code),
        (None, None, None) => String::new(),
    };
    let is_waiting = matches!(run.state, RunState::Held | RunState::Pending);
    let took = run.duration_ms.map(crate::tui::view::amount::duration);
    Item {
        key: command.id.to_string(),
        cells: vec![
            Cell::Word(severity(run.state), run.state.to_string()),
            if outcome.is_empty() { Cell::Nothing } else { Cell::Text(outcome.clone()) },
            Cell::foreign(&command.command),
            Cell::Quiet(text::line(&command.by)),
            Cell::Time(command.created_at),
            if is_waiting { Cell::Time(command.expires_at) } else { Cell::Nothing },
            took.clone().map_or(Cell::Nothing, Cell::Text),
        ],
        details: vec![
            ("command", text::line(&command.command)),
            ("state", run.state.to_string()),
            ("outcome", outcome),
            ("took", took.unwrap_or_else(|| "-".to_owned())),
            ("by", text::line(&command.by)),
            ("made", moment(command.created_at)),
            ("expires", moment(command.expires_at)),
            ("id", command.id.to_string()),
        ],
        machine: Some(run.machine.token()),
    }
}
