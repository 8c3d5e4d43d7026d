//! The terminal console.
//!
//! | room | holds |
//! |---|---|
//! | [`event`] | what can happen |
//! | [`urgency`] | how soon what happened is to be seen (pure) |
//! | [`keymap`] | what keys mean, per mode; footer and help are made from it |
//! | [`palette`] | what can be written after `:` (pure) |
//! | [`lists`] | lists that are shown as they were told: columns and rows (pure) |
//! | [`needle`] | what a filter looks for (pure) |
//! | [`state`] | everything the screen shows |
//! | [`mod@update`] | what an event changes, and what it causes (pure) |
//! | [`effect`] | what only the shell can do |
//! | [`mod@view`] | the state, drawn (pure) |
//! | [`text`] | foreign text, made harmless before it enters the state |
//! | [`theme`] | colours and glyphs by meaning |
//! | [`recorder`] | what happened, written down and replayed |
//! | [`runtime`] | the only part that waits, draws or sends |
//! | [`terminal`] | raw mode and alternate screen, given back however the console ends |
//!
//! The console holds nothing that is not elsewhere: it can be left and opened again at any time.

pub mod effect;
pub mod event;
pub mod keymap;
pub mod lists;
pub mod needle;
pub mod palette;
pub mod recorder;
pub mod runtime;
pub mod state;
pub mod terminal;
pub mod text;
pub mod theme;
pub mod update;
pub mod urgency;
pub mod view;

#[cfg(test)]
mod preview;
#[cfg(test)]
mod scenes;
#[cfg(test)]
mod stage;
#[cfg(test)]
mod tests;

use tokio::sync::mpsc;

use crate::client::{Ask, Told};

/// How the terminal is drawn.
#[expect(clippy::struct_excessive_bools, reason = "switches that have nothing to do with each other")]
#[derive(Debug, Clone, Default)]
pub struct TuiOptions {
    /// No colours.
    pub no_color: bool,
    /// ASCII only.
    pub ascii: bool,
    /// Which colours.
    pub tone: theme::Tone,
    /// No animation; rows that sort themselves do so less often.
    pub reduced_motion: bool,
    /// What keys mean.
    pub keymap: keymap::Keymap,
    /// By what text comes to the clipboard.
    pub clipboard: terminal::Clipboard,
    /// Longest text that is copied, bytes.
    pub most_copied: usize,
    /// Whether the place on the screen is left out of the header.
    pub no_crumbs: bool,
    /// Whether the console begins with the mouse.
    pub mouse: bool,
    /// Whether it begins without the header.
    pub headless: bool,
    /// Whether commands on this fleet are worth a question: its name stands in red.
    pub is_protected: bool,
    /// When the number of machines is asked for before a command runs.
    pub rule: crate::question::Rule,
    /// How long things take unless other times are chosen.
    pub run: crate::settings::running::Running,
    /// Commands with a name.
    pub saved: Vec<crate::settings::saved::SavedCommand>,
    /// The label that says where a machine is; empty: none does.
    pub place: String,
    /// Columns and order of lists, by their names.
    pub views: std::collections::BTreeMap<String, crate::settings::views::View>,
    /// Where what happens is written down, and the keys that this begins with.
    pub record: Option<(std::path::PathBuf, crate::settings::keys::Keys)>,
    /// Who is asking.
    pub who: String,
    /// Which fleet.
    pub fleet: String,
    /// Where its broker is: what is tried while it is not reached.
    pub broker: String,
}

/// The terminal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TuiError {
    /// Raw mode or the alternate screen was refused. Not retryable: this is no terminal, or it is gone.
    #[error("the terminal cannot be prepared")]
    Prepare(#[source] std::io::Error),
    /// A frame could not be written. Not retryable: the terminal is gone.
    #[error("the terminal cannot be drawn on")]
    Draw(#[source] std::io::Error),
    /// What happens cannot be written down, as was asked for. Not retryable: the file is there already, or cannot be made.
    #[error("what happens cannot be written down")]
    Record(#[source] std::io::Error),
    /// Signals cannot be listened for.
    #[error("signals cannot be listened for")]
    Signals(#[source] std::io::Error),
    /// A task panicked; its message went to the terminal after that was given back.
    #[error("a part of the console panicked")]
    Panicked,
}

/// Shows the console until it is left, or a signal asks to end.
///
/// Gives the terminal back as it was, also when it fails. Dropping the future gives it back too.
///
/// # Errors
/// [`TuiError`].
pub async fn run(
    told: mpsc::Receiver<Told>,
    asks: mpsc::Sender<Ask>,
    options: TuiOptions,
) -> Result<(), TuiError> {
    runtime::run(told, asks, options).await
}
