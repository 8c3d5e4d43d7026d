//! Assignments, and what stands beside them: relays of the older system, and what is pushed to those.

use signalbox_schemas::{
    api::{AssignmentView, ConfigPushView, RelayView},
    config::PushState,
};

use super::{Cell, Column, Item, column, hidden, json, moment, yes};
use crate::tui::{state::Severity, text};

pub(super) const COLUMNS: &[Column] = &[
    column("name", (8, 30), 0),
    column("machine", (8, 30), 0),
    column("key", (8, 8), 4),
    column("heard", (7, 7), 3),
    column("by", (6, 24), 1),
    column("made", (7, 7), 2),
    hidden("id", (8, 36)),
];

pub(super) const RELAYS: &[Column] = &[
    column("machine", (8, 30), 0),
    column("state", (7, 7), 5),
    column("heard", (7, 7), 4),
    column("version", (7, 10), 3),
    column("host", (6, 24), 2),
    column("platform", (8, 24), 1),
    hidden("capabilities", (8, 40)),
];

pub(super) const PUSHES: &[Column] = &[
    column("state", (7, 7), 0),
    column("changes", (10, 16), 0),
    column("assignment", (8, 36), 2),
    column("by", (6, 20), 1),
    column("age", (7, 7), 3),
    column("error", (8, 60), 4),
];

pub(super) fn assignment(view: AssignmentView) -> Item {
    let key = if view.enabled {
        Cell::Word(Severity::Good, "enabled".to_owned())
    } else {
        Cell::Word(Severity::Warn, "disabled".to_owned())
    };
    Item {
        cells: vec![
            Cell::foreign(&view.name),
            Cell::foreign(view.machine_id.as_str()),
            key,
            Cell::time(view.last_seen_at),
            view.created_by.as_deref().map_or(Cell::Nothing, |by| Cell::Quiet(text::line(by))),
            Cell::Time(view.created_at),
            Cell::Quiet(text::line(&view.id)),
        ],
        details: vec![
            ("name", text::line(&view.name)),
            ("machine", text::line(view.machine_id.as_str())),
            ("key counts", yes(view.enabled)),
            ("relay online", yes(view.is_online)),
            ("heard", view.last_seen_at.map_or_else(|| "not lately".to_owned(), moment)),
            ("by", view.created_by.as_deref().map_or_else(|| "-".to_owned(), text::line)),
            ("made", moment(view.created_at)),
            ("changed", moment(view.updated_at)),
            ("id", text::line(&view.id)),
        ],
        machine: Some(view.machine_id.token()),
        key: view.id,
    }
}

pub(super) fn relay(view: RelayView) -> Item {
    let state = if view.is_online {
        Cell::Word(Severity::Good, "online".to_owned())
    } else {
        Cell::Word(Severity::Bad, "offline".to_owned())
    };
    let or_none = |text: Option<&str>| text.map_or_else(|| "-".to_owned(), text::line);
    Item {
        cells: vec![
            Cell::foreign(view.machine_id.as_str()),
            state,
            Cell::time(view.last_heartbeat_at),
            Cell::foreign_or_nothing(view.version.as_deref()),
            Cell::foreign_or_nothing(view.hostname.as_deref()),
            Cell::foreign_or_nothing(view.platform.as_deref()),
            Cell::Quiet(text::line(&view.capabilities.join(", "))),
        ],
        details: vec![
            ("machine", text::line(view.machine_id.as_str())),
            ("online", yes(view.is_online)),
            ("heard", view.last_heartbeat_at.map_or_else(|| "not lately".to_owned(), moment)),
            ("version", or_none(view.version.as_deref())),
            ("host", or_none(view.hostname.as_deref())),
            ("platform", or_none(view.platform.as_deref())),
            ("can", text::line(&view.capabilities.join(", "))),
            ("first heard", moment(view.created_at)),
            ("assignment", text::line(&view.assignment_id)),
        ],
        machine: Some(view.machine_id.token()),
        key: view.assignment_id,
    }
}

pub(super) fn push(view: ConfigPushView) -> Item {
    let severity = match view.state {
        PushState::Acked => Severity::Good,
        PushState::Failed => Severity::Bad,
        PushState::Pending | PushState::Sent => Severity::Warn,
    };
    let state = view.state.as_str().to_owned();
    let or_not = |at: Option<u64>| at.map_or_else(|| "not yet".to_owned(), moment);
    Item {
        cells: vec![
            Cell::Word(severity, state.clone()),
            Cell::Text(view.push_type.as_str().to_owned()),
            Cell::Quiet(text::line(&view.assignment_id)),
            Cell::Quiet(text::line(&view.created_by)),
            Cell::Time(view.created_at),
            Cell::foreign_or_nothing(view.error.as_deref()),
        ],
        details: vec![
            ("state", state),
            ("changes", view.push_type.as_str().to_owned()),
            ("document", json(&view.payload)),
            ("error", view.error.as_deref().map_or_else(|| "-".to_owned(), text::line)),
            ("assignment", text::line(&view.assignment_id)),
            ("by", text::line(&view.created_by)),
            ("queued", moment(view.created_at)),
            ("sent", or_not(view.sent_at)),
            ("answered", or_not(view.acked_at)),
            ("id", text::line(&view.id)),
        ],
        key: view.id,
        machine: None,
    }
}
