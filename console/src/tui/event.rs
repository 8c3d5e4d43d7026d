//! What can happen.
//!
//! What the operator does, signals and ticks come through one channel, in one order. What the session tells comes
//! through another, so that no key waits behind it.

use serde::{Deserialize, Serialize};

use crate::{client::Told, tui::keymap::Key};

/// Most events that wait, what the session tells aside.
pub const EVENTS: usize = 256;

/// One thing that happened; as JSON a line of a [recording](super::recorder).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A key was pressed.
    Key(Key),
    /// Text was pasted.
    Paste(String),
    /// The wheel was turned by so many notches: 1 is down.
    Wheel(i8),
    /// The first button was pressed: column, row.
    Click(u16, u16),
    /// The screen has another size: columns, rows.
    Resize(u16, u16),
    /// The session told something.
    Told(Box<Told>),
    /// The session has ended; nothing more will be told.
    SessionEnded,
    /// A second has passed.
    Tick,
    /// A signal asks to stop, as Ctrl-Z does.
    Stop,
    /// We were stopped and go on.
    Continued,
    /// A signal asks to end.
    Terminate,
}
