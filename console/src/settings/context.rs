//! `[contexts.NAME]`: several fleets.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Most contexts.
pub const CONTEXTS: usize = 100;

/// One fleet: whose keys are used, and which broker.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Context {
    /// The state directory, as written; `None`: one of its own, `signalbox-contexts/NAME` beside the default one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_dir: Option<PathBuf>,
    /// The operator's login for the broker (a `.creds` file), as written; `None`: that of the state directory. Comes with
    /// [`Self::signing_key`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub login: Option<PathBuf>,
    /// The operator's signing seed, as written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signing_key: Option<PathBuf>,
    /// The broker's address; `None`: where `signalbox up` started it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nats: Option<String>,
    /// Whether this fleet is worth a question before each command.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub protected: bool,
    /// How the console shows its name; a protected one is red unless it is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub colour: Option<Colour>,
}

impl Context {
    /// Whether it has an identity or a broker of its own, and is not what `signalbox up` starts in its state directory.
    pub fn is_elsewhere(&self) -> bool {
        self.login.is_some() || self.nats.is_some()
    }

    /// The colour of its name, if it has one.
    pub fn shown_in(&self) -> Option<Colour> {
        self.colour.or(self.protected.then_some(Colour::Red))
    }
}

/// A colour of a context's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Colour {
    /// Red.
    Red,
    /// Yellow.
    Yellow,
    /// Green.
    Green,
    /// Cyan.
    Cyan,
    /// Blue.
    Blue,
    /// Magenta.
    Magenta,
}

/// Whether a text may be the name of a context: 1 to 63 ASCII letters, digits, `.`, `_` and `-`, beginning with a letter or
/// a digit. So it is a file name, and never `-`, which means the one before.
pub fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    let first = bytes.next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    first
        && text.len() <= 63
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}
