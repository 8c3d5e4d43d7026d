//! A command that may run: what is carried from the offer to its end, and written down in between.

use serde::{Deserialize, Serialize};
use signalbox_schemas::{Base64Url, command::CommandSpec};

/// A command that may run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Work {
    /// What shall run.
    #[serde(flatten)]
    pub(crate) spec: CommandSpec,
    /// The key to the secret that it brings, wrapped for this relay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) sealed: Option<Base64Url>,
}
