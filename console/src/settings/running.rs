//! `[run]`: what is asked before a command runs, and how long things take.

use serde::{Deserialize, Serialize};
use signalbox_schemas::limit;

use super::value::Time;

/// `[run]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Running {
    /// On more machines than this a command asks for their number to be typed first.
    pub confirm_above: u32,
    /// A selector: on machines that it means, however few, the number is always asked for. Empty: on none.
    pub protected: String,
    /// How long a command may run unless it says so itself.
    pub timeout: Time,
    /// How long it waits for machines that are offline unless it says so itself.
    pub expires_in: Time,
    /// Whether the console only looks.
    pub read_only: bool,
}

impl Default for Running {
    fn default() -> Self {
        Self {
            confirm_above: 50,
            protected: String::new(),
            timeout: Time::of_ms(30_000),
            expires_in: Time::of_ms(limit::DEFAULT_EXPIRES_IN_MS),
            read_only: false,
        }
    }
}
