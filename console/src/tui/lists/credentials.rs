//! Credentials: what relays keep, what those of the older system hold, and what is shared.

use signalbox_schemas::{
    api::{CredentialView, SharedCredentialView},
    credential::{CredentialMeta, StorageMode},
    id::MachineToken,
};

use super::{Cell, Column, Item, column, hidden, moment};
use crate::{
    client::look::KeptView,
    tui::{state::Severity, text},
};

pub(super) const COLUMNS: &[Column] = &[
    column("machine", (10, 28), 0),
    column("name", (8, 30), 0),
    column("type", (8, 8), 2),
    column("opens", (8, 40), 4),
    column("user", (4, 16), 3),
    column("mode", (10, 10), 1),
    column("changed", (7, 7), 2),
    hidden("told", (7, 7)),
];

pub(super) const SHARED: &[Column] = &[
    column("name", (8, 30), 0),
    column("type", (8, 8), 2),
    column("opens", (8, 40), 3),
    column("given", (5, 5), 4),
    column("by", (6, 20), 1),
    column("changed", (7, 7), 2),
];

fn mode(mode: StorageMode) -> Cell {
    match mode {
        StorageMode::RelayOnly => Cell::Quiet(mode.as_str().to_owned()),
        StorageMode::Shared => Cell::Text(mode.as_str().to_owned()),
    }
}

fn cells(machine: &str, meta: &CredentialMeta, told_at: Option<u64>) -> Vec<Cell> {
    vec![
        Cell::foreign(machine),
        Cell::foreign(&meta.credential_name),
        Cell::Quiet(meta.credential_type.as_str().to_owned()),
        Cell::foreign_or_nothing(meta.target_host.as_deref()),
        Cell::foreign_or_nothing(meta.username.as_deref()),
        mode(meta.storage_mode),
        Cell::Time(meta.last_updated_at),
        Cell::time(told_at),
    ]
}

fn details(machine: &str, meta: &CredentialMeta) -> Vec<(&'static str, String)> {
    let or_none = |text: Option<&str>| text.map_or_else(|| "-".to_owned(), text::line);
    vec![
        ("machine", text::line(machine)),
        ("name", text::line(&meta.credential_name)),
        ("type", meta.credential_type.as_str().to_owned()),
        ("opens", or_none(meta.target_host.as_deref())),
        ("user", or_none(meta.username.as_deref())),
        ("mode", meta.storage_mode.as_str().to_owned()),
        ("made", meta.created_at.map_or_else(|| "-".to_owned(), moment)),
        ("changed", moment(meta.last_updated_at)),
    ]
}

pub(super) fn kept(view: KeptView) -> Item {
    let machine = view.machine.as_str();
    let token = Some(view.machine.token());
    match view.meta {
        Ok(meta) => Item {
            // Neither name has a line end in it.
            key: format!("{machine}\n{}", meta.credential_name),
            cells: cells(machine, &meta, view.seen_at),
            details: details(machine, &meta),
            machine: token,
        },
        Err(why) => {
            let mut cells = vec![Cell::Nothing; COLUMNS.len()];
            let told = [Cell::foreign(machine), Cell::Word(Severity::Bad, "not its own word".to_owned())];
            cells.iter_mut().zip(told).for_each(|(cell, told)| *cell = told);
            let details = vec![("machine", text::line(machine)), ("not believed", text::line(&why))];
            Item { key: format!("{machine}\n"), cells, details, machine: token }
        }
    }
}

pub(super) fn held(view: &CredentialView) -> Item {
    let machine = view.machine_id.as_str();
    let mut details = details(machine, &view.meta);
    details.push(("assignment", text::line(&view.assignment_id)));
    details.push(("told", moment(view.reported_at)));
    Item {
        key: format!("{}\n{}", view.assignment_id, view.meta.credential_name),
        cells: cells(machine, &view.meta, Some(view.reported_at)),
        details,
        machine: Some(view.machine_id.token()),
    }
}

pub(super) fn shared(view: SharedCredentialView) -> Item {
    let given = view.assigned.len() + view.machines.len();
    let names =
        view.assigned.iter().map(String::as_str).chain(view.machines.iter().map(MachineToken::as_str));
    let names: Vec<String> = names.map(text::line).collect();
    Item {
        cells: vec![
            Cell::foreign(&view.name),
            Cell::Quiet(view.credential_type.as_str().to_owned()),
            Cell::foreign_or_nothing(view.target_host.as_deref()),
            Cell::Number(given as u64),
            Cell::Quiet(text::line(&view.created_by)),
            Cell::Time(view.updated_at),
        ],
        details: vec![
            ("name", text::line(&view.name)),
            ("type", view.credential_type.as_str().to_owned()),
            ("opens", view.target_host.as_deref().map_or_else(|| "-".to_owned(), text::line)),
            ("mode", view.storage_mode.as_str().to_owned()),
            ("given to", names.join(", ")),
            ("by", text::line(&view.created_by)),
            ("made", moment(view.created_at)),
            ("changed", moment(view.updated_at)),
            ("id", text::line(&view.id)),
        ],
        key: view.id,
        machine: None,
    }
}
