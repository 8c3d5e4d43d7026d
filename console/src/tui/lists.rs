//! Lists of rows that are shown as they were told: which there are, what their columns are, and what stands in a row.
//!
//! | room | rows |
//! |---|---|
//! | `credentials` | what relays keep, and what is shared among them |
//! | `assignments` | assignments, relays of the older system, configuration pushes |
//! | `audit` | who did what |
//! | [`machine`] | what there is of one machine |
//! | [`system`] | operators, events, streams, health |

mod assignments;
mod audit;
mod credentials;
pub mod machine;
pub mod system;

use signalbox_schemas::id::MachineToken;

pub use crate::client::{look::ListKind, machine::Tab};
use crate::{
    client::look::Found,
    tui::{state::Severity, text},
};

impl ListKind {
    /// All of them, in the order in which the palette offers them.
    pub const ALL: [Self; 11] = [
        Self::Credentials,
        Self::Shared,
        Self::Assignments,
        Self::Pushes,
        Self::Relays,
        Self::Held,
        Self::Audit,
        Self::Events,
        Self::Operators,
        Self::Streams,
        Self::Health,
    ];

    /// What it is called: in the path, in the palette, where columns are kept.
    pub fn name(self) -> &'static str {
        match self {
            Self::Credentials => "credentials",
            Self::Held => "held-credentials",
            Self::Shared => "shared-credentials",
            Self::Assignments => "assignments",
            Self::Relays => "relays",
            Self::Pushes => "pushes",
            Self::Audit => "audit",
            Self::Events => "events",
            Self::Operators => "operators",
            Self::Streams => "streams",
            Self::Health => "health",
            Self::Of(tab) => machine::name(tab),
        }
    }

    /// What is in it, for the palette.
    pub fn about(self) -> &'static str {
        match self {
            Self::Credentials => "what relays keep for hosts behind their machines",
            Self::Held => "what relays of the older system hold",
            Self::Shared => "credentials that are given to several relays",
            Self::Assignments => "API keys, and which machine each stands for",
            Self::Relays => "relays of the older system, and what they say of themselves",
            Self::Pushes => "configuration that is pushed to relays, and what became of it",
            Self::Audit => "who did what, and what was refused",
            Self::Events => "what happened to machines, runs and the system",
            Self::Operators => "who may use the console, and what they may author",
            Self::Streams => "the streams of the broker: size, copies, readers",
            Self::Health => "how bridge and broker are, and what should be done",
            Self::Of(tab) => machine::about(tab),
        }
    }

    /// What to do where there is nothing.
    pub fn hint(self) -> &'static str {
        match self {
            Self::Credentials => "no relay says that it keeps one; give it one: signalbox credential push",
            Self::Held => "no relay of the older system holds one",
            Self::Shared => "none is shared; share one: signalbox credential push --mode shared",
            Self::Assignments => "there is no API key; make one: signalbox assignment create",
            Self::Relays => "no relay of the older system has reported",
            Self::Pushes => "nothing was pushed; push something: signalbox push create",
            Self::Audit => "nothing was done yet",
            Self::Events => "nothing has happened yet",
            Self::Operators => "nobody may use the console; signalbox-bridge init makes the first operator",
            Self::Streams => "the broker has not answered yet",
            Self::Health => "no bridge has answered yet",
            Self::Of(tab) => machine::hint(tab),
        }
    }

    /// Its columns, from left to right.
    pub fn columns(self) -> &'static [Column] {
        match self {
            Self::Credentials | Self::Held => credentials::COLUMNS,
            Self::Shared => credentials::SHARED,
            Self::Assignments => assignments::COLUMNS,
            Self::Relays => assignments::RELAYS,
            Self::Pushes => assignments::PUSHES,
            Self::Audit => audit::COLUMNS,
            Self::Events => system::EVENTS,
            Self::Operators => system::OPERATORS,
            Self::Streams => system::STREAMS,
            Self::Health => system::HEALTH,
            Self::Of(tab) => machine::columns(tab),
        }
    }
}

/// A column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    /// Its head, also what it is called where columns are chosen.
    pub name: &'static str,
    /// Fewest columns of the screen, and most; what is left over goes to those that may have more.
    pub width: (u16, u16),
    /// In which order columns leave where there is no room: 1 first, 0 never.
    pub leaves: u8,
    /// Whether it is there unless it is chosen.
    pub is_shown: bool,
}

/// A column that is there unless it is hidden.
const fn column(name: &'static str, width: (u16, u16), leaves: u8) -> Column {
    Column { name, width, leaves, is_shown: true }
}

/// A column that is there when it is chosen.
const fn hidden(name: &'static str, width: (u16, u16)) -> Column {
    Column { name, width, leaves: 1, is_shown: false }
}

/// What stands in one column of a row. Text is clean.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    /// Not known, or none.
    Nothing,
    /// Text.
    Text(String),
    /// Text that says how it is.
    Word(Severity, String),
    /// Text that explains.
    Quiet(String),
    /// A number.
    Number(u64),
    /// A moment, Unix ms: shown by how long ago it is, or how far ahead.
    Time(u64),
}

impl Cell {
    /// Foreign text, made harmless.
    fn foreign(text: &str) -> Self {
        Self::Text(text::line(text))
    }

    fn foreign_or_nothing(text: Option<&str>) -> Self {
        text.map_or(Self::Nothing, Self::foreign)
    }

    fn time(at: Option<u64>) -> Self {
        at.map_or(Self::Nothing, Self::Time)
    }

    /// As a filter and the clipboard see it; moments as they are seen at `wall_ms`, Unix ms.
    pub fn plain(&self, wall_ms: u64) -> String {
        match self {
            Self::Nothing => String::new(),
            Self::Text(text) | Self::Word(_, text) | Self::Quiet(text) => text.clone(),
            Self::Number(n) => n.to_string(),
            Self::Time(at) => crate::tui::view::amount::moment(*at, wall_ms),
        }
    }
}

/// A row.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// Which one it is, whatever changes in it.
    pub key: String,
    /// One for each column.
    pub cells: Vec<Cell>,
    /// All that there is to say of it, in order: what it is called, and what it is. Clean.
    pub details: Vec<(&'static str, String)>,
    /// The machine that it is about.
    pub machine: Option<MachineToken>,
}

/// The rows of a list as they were told, made harmless.
pub fn items(found: Found) -> Vec<Item> {
    match found {
        Found::Kept(views) => views.into_iter().map(credentials::kept).collect(),
        Found::Held(views) => views.iter().map(credentials::held).collect(),
        Found::Shared(views) => views.into_iter().map(credentials::shared).collect(),
        Found::Assignments(views) => views.into_iter().map(assignments::assignment).collect(),
        Found::Relays(views) => views.into_iter().map(assignments::relay).collect(),
        Found::Pushes(views) => views.into_iter().map(assignments::push).collect(),
        Found::Audit(views) => views.into_iter().map(audit::entry).collect(),
        Found::Events(views) => views.into_iter().map(system::event).collect(),
        Found::Operators(views) => views.iter().map(system::operator).collect(),
        Found::Streams(views) => views.iter().map(system::stream).collect(),
        Found::Health(view) => system::health(&view),
    }
}

/// Yes or no, in a word.
fn yes(is: bool) -> String {
    if is { "yes" } else { "no" }.to_owned()
}

/// A moment as a detail tells it.
fn moment(at: u64) -> String {
    crate::tui::view::amount::date(at)
}

/// The members of a JSON document, one line; foreign.
fn json(value: &serde_json::Value) -> String {
    text::line(&value.to_string())
}
