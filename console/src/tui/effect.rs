//! What an event makes the shell do.

use crate::client::Ask;

/// Something that only the shell can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Ask the session. Never waited for: when the channel is full, that is said.
    Ask(Ask),
    /// Give the terminal back and stop, as Ctrl-Z does.
    Suspend,
    /// Take the terminal again, as somebody had us stopped, and draw everything anew.
    Resume,
    /// Draw everything anew.
    Redraw,
    /// Put text on the clipboard.
    Copy(String),
    /// Take the mouse, or leave it to the terminal.
    Mouse(bool),
}
