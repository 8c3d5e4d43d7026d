//! What the operator has set once: `config.toml`.
//!
//! | room | holds |
//! |---|---|
//! | [`look`] | `[look]`, `[where]`, `[clipboard]` |
//! | [`keys`] | `[keys]`: a profile, and keys that mean something else |
//! | [`views`] | `[views.NAME]`: columns and order |
//! | [`running`] | `[run]`: what `run` asks before it runs, and how long things take |
//! | [`saved`] | `[[command]]`: commands with a name, and their placeholders |
//! | [`context`] | `[contexts.NAME]`: several fleets |
//! | [`value`] | times, sizes and choices as they are written |
//! | [`field`] | every key there is, with its kind, its default and its words: what is read, printed and checked comes from here |
//! | `check` | a text, looked at against the fields: everything that is wrong with it, with its place |
//! | [`page`] | the commented default file, and the JSON schema (pure) |
//! | [`problem`] | something that is wrong, and where |
//! | [`mod@file`] | where the file lies, and reading it |
//! | [`near`] | the name that was probably meant |
//!
//! Everything but [`mod@file`] is pure. A file that does not exist is one that sets nothing. One that is wrong stops every
//! command that would go by it: what an operator has set to be careful must not be passed over because of a slip in
//! another line.

mod check;
pub mod context;
pub mod field;
pub mod file;
pub mod keys;
pub mod look;
pub mod near;
pub mod page;
pub mod problem;
pub mod running;
pub mod saved;
pub mod value;
pub mod views;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use context::Context;
use keys::Keys;
use look::{Clipboard, Look, Where};
use problem::Problem;
use running::Running;
use saved::SavedCommand;
use views::View;

/// Everything that can be set. Its default is what counts where there is no file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// How the console looks.
    pub look: Look,
    /// What keys mean in it.
    pub keys: Keys,
    /// Columns and order of its views, by the view's name (`machines`). Names of views and columns are the console's; a
    /// view that is not named has its own.
    pub views: BTreeMap<String, View>,
    /// How commands are run.
    pub run: Running,
    /// Where machines are.
    #[serde(rename = "where")]
    pub place: Where,
    /// How texts get to the clipboard.
    pub clipboard: Clipboard,
    /// Saved commands, in the order of the file; their names differ.
    #[serde(rename = "command")]
    pub commands: Vec<SavedCommand>,
    /// Fleets, by name.
    pub contexts: BTreeMap<String, Context>,
}

impl Settings {
    /// Reads a text strictly.
    ///
    /// # Errors
    /// Everything that is wrong with it, in the order of its lines, at most [`problem::MOST`] of it.
    pub fn read(text: &str) -> Result<Self, Vec<Problem>> {
        let (problems, rebindings) = check::check(text);
        if !problems.is_empty() {
            return Err(problems);
        }
        let mut settings: Self = toml::from_str(text).map_err(|error| {
            let offset = error.span().map_or(0, |span| span.start);
            vec![Problem::at(text, offset, "", error.message())]
        })?;
        settings.keys.rebindings = rebindings;
        Ok(settings)
    }

    /// The saved command of this name.
    pub fn saved(&self, name: &str) -> Option<&SavedCommand> {
        self.commands.iter().find(|command| command.name == name)
    }
}

#[cfg(test)]
mod tests;
