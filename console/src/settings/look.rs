//! `[look]`, `[where]` and `[clipboard]`: how the console looks, what tells where a machine is, and copying.

use serde::{Deserialize, Serialize};

use super::value::{Choice, Size};

/// Most bytes that may be asked for in one copy.
pub const CLIPBOARD_MOST: u64 = 16 << 20;

/// `[look]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(clippy::struct_excessive_bools, reason = "each is one switch of the file")]
pub struct Look {
    /// Colours.
    pub theme: Theme,
    /// No characters beyond ASCII; by the locale unless it is said.
    pub ascii: Choice,
    /// No animation; `SIGNALBOX_REDUCED_MOTION` asks for the same.
    pub reduced_motion: bool,
    /// Whether the console takes the mouse, which the terminal then cannot select with.
    pub mouse: bool,
    /// The line with the fleet's figures.
    pub header: bool,
    /// The line that says where one is.
    pub crumbs: bool,
}

impl Default for Look {
    fn default() -> Self {
        Self {
            theme: Theme::Auto,
            ascii: Choice::Auto,
            reduced_motion: false,
            mouse: false,
            header: true,
            crumbs: true,
        }
    }
}

/// Colours of the console.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Theme {
    /// By what the terminal says of itself.
    #[default]
    Auto,
    /// For a dark background.
    Dark,
    /// For a light one.
    Light,
    /// The terminal's own sixteen colours.
    #[serde(rename = "16")]
    Sixteen,
    /// None.
    Mono,
}

/// `[where]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Where {
    /// The label that says where a machine is; groups are made by it.
    pub label: String,
}

impl Default for Where {
    fn default() -> Self {
        Self { label: "dc".to_owned() }
    }
}

/// `[clipboard]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Clipboard {
    /// The way.
    pub via: ClipboardVia,
    /// What is longer is not copied, up to [`CLIPBOARD_MOST`].
    pub max_bytes: Size,
}

impl Default for Clipboard {
    fn default() -> Self {
        Self { via: ClipboardVia::Auto, max_bytes: Size { bytes: 100 << 10 } }
    }
}

/// How a text gets to the clipboard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClipboardVia {
    /// By a program of this machine where there is one and no SSH is between, otherwise by the terminal.
    #[default]
    Auto,
    /// By the terminal's sequence 52, which works through SSH.
    Osc52,
    /// By a program of this machine.
    Native,
    /// Nothing is copied.
    None,
}
