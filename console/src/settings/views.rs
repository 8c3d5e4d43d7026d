//! `[views.NAME]`: columns and order of a view of the console.

use serde::{Deserialize, Serialize};

/// Most columns of a view.
pub const COLUMNS: usize = 32;

/// How one view is shown. Names of columns are the view's own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct View {
    /// Its columns from left to right; `None`: those of the view.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub columns: Option<Vec<String>>,
    /// The column that it is sorted by, with `-` before it from the largest to the smallest; `None`: as the view does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sort: Option<String>,
}

impl View {
    /// The column to sort by, and whether the largest comes first.
    pub fn order(&self) -> Option<(&str, bool)> {
        let sort = self.sort.as_deref()?;
        Some(sort.strip_prefix('-').map_or((sort, false), |column| (column, true)))
    }
}
