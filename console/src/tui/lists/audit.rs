//! The audit chain: one row for each entry.

use signalbox_schemas::{api::AuditView, audit::Outcome};

use super::{Cell, Column, Item, column, hidden, moment};
use crate::tui::{state::Severity, text};

pub(super) const COLUMNS: &[Column] = &[
    column("n", (5, 8), 1),
    column("when", (7, 7), 0),
    column("who", (8, 28), 4),
    column("what", (10, 28), 0),
    column("outcome", (8, 20), 2),
    column("about", (8, 60), 3),
    hidden("bridge", (8, 24)),
];

pub(super) fn entry(view: AuditView) -> Item {
    let key = view.sequence.to_string();
    let Some(entry) = view.entry else {
        let text = format!("message {key} is no entry of a bridge");
        let mut cells = vec![Cell::Nothing; COLUMNS.len()];
        let told = [Cell::Nothing, Cell::Time(view.stored_at), Cell::Word(Severity::Bad, text.clone())];
        cells.iter_mut().zip(told).for_each(|(cell, told)| *cell = told);
        let details = vec![("entry", text), ("stored", moment(view.stored_at))];
        return Item { key, cells, details, machine: None };
    };
    let (outcome, told) = match &entry.outcome {
        Outcome::Stored { stream, sequence, stored_at, sha256 } => (
            Cell::Word(Severity::Good, "stored".to_owned()),
            format!("{} {sequence}, {}, SHA-256 {sha256}", text::line(stream), moment(*stored_at)),
        ),
        Outcome::Refused { code, count } => {
            let told = format!("{code} × {count}");
            (Cell::Word(Severity::Bad, told.clone()), format!("refused: {told}"))
        }
    };
    Item {
        key,
        cells: vec![
            Cell::Number(entry.n),
            Cell::Time(entry.written_at),
            Cell::foreign(&entry.actor),
            Cell::foreign(&entry.action),
            outcome,
            Cell::Quiet(text::line(&entry.about)),
            Cell::Quiet(entry.bridge.to_string()),
        ],
        details: vec![
            ("entry", entry.n.to_string()),
            ("when", moment(entry.written_at)),
            ("who", text::line(&entry.actor)),
            ("what", text::line(&entry.action)),
            ("about", text::line(&entry.about)),
            ("outcome", told),
            ("bridge", entry.bridge.to_string()),
            ("before it", entry.before.to_string()),
        ],
        machine: None,
    }
}
