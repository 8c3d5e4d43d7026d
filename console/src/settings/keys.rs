//! `[keys]`: a profile, and keys that mean something else.
//!
//! Which modes and actions there are is the console's to say. Here they are texts; a [`KeyCheck`] of the console looks
//! at them, for `signalbox config check` as for the console itself.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{IgnoredAny, MapAccess, Visitor},
};

use super::problem::Problem;
use crate::tui::keymap::{KeyProblem, Keymap};

/// The action of a key that shall do nothing.
pub const NO_ACTION: &str = "none";
/// Most keys that can be given another meaning.
pub const REBINDINGS: usize = 1_000;

/// Looks at the keys of a file; answers what is wrong with them: no such mode, no such key, no such action, two actions
/// on one key. Each problem has the place of its rebinding.
pub type KeyCheck = fn(Profile, &[Rebinding]) -> Vec<Problem>;

/// The check that `signalbox config check` and every reading of the file go by.
pub const CHECK: KeyCheck = |profile, rebindings| {
    let keys = Keys { profile, rebindings: rebindings.to_vec() };
    let (_, problems) = Keymap::of(&keys);
    let placed = |problem: &KeyProblem| {
        let of = problem.of.and_then(|at| rebindings.get(at)).or_else(|| rebindings.first())?;
        Some(of.problem(problem.to_string()))
    };
    problems.iter().filter_map(placed).collect()
};

/// `[keys]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Keys {
    /// What the keys mean that are not named below.
    pub profile: Profile,
    /// The others, in the order of the file.
    #[serde(skip)]
    pub rebindings: Vec<Rebinding>,
}

/// A set of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    /// The console's own.
    #[default]
    Default,
    /// As in vi.
    Vim,
    /// As in Emacs.
    Emacs,
}

/// One line of a table `[keys.MODE]`: `"<c-x>" = "action-name"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rebinding {
    /// The mode, as written.
    pub mode: String,
    /// The key, as written.
    pub key: String,
    /// The action, as written; [`NO_ACTION`]: none.
    pub action: String,
    /// Where it stands: the line, from 1.
    pub line: usize,
    /// And the column, from 1.
    pub column: usize,
}

impl Rebinding {
    /// Something that is wrong with it.
    pub fn problem(&self, what: impl Into<String>) -> Problem {
        let key = format!("keys.{}.{:?}", self.mode, self.key);
        Problem { line: self.line, column: self.column, key, what: what.into() }
    }
}

impl<'de> Deserialize<'de> for Keys {
    /// The profile only: the tables beside it were read with their places before.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ProfileOnly;
        impl<'de> Visitor<'de> for ProfileOnly {
            type Value = Keys;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a table of keys")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Keys, A::Error> {
                let mut keys = Keys::default();
                while let Some(name) = map.next_key::<String>()? {
                    if name == "profile" {
                        keys.profile = map.next_value()?;
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(keys)
            }
        }
        deserializer.deserialize_map(ProfileOnly)
    }
}
