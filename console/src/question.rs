//! When the number of machines is asked for before a command runs: the rule, for the terminal and for the command line. Pure.
//!
//! It guards against slips, not against a bridge: which machines a selector means is a bridge's word here as everywhere.

use std::fmt;

use crate::settings::running::Running;

/// The rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// On more machines than this it is asked for.
    pub above: usize,
    /// A selector; on machines that it means, however few, it is asked for. Empty: none.
    pub protected: String,
    /// Why it is asked whatever machines it is, if it is: a clause.
    pub always: Option<String>,
    /// Whether a bridge told the text.
    pub is_told: bool,
}

/// Why the number is asked for: a clause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// Whatever machines it is.
    Always(String),
    /// So many of them are protected.
    Protected(usize),
    /// A bridge told the text.
    Told,
    /// They are more than this.
    Many(usize),
}

impl Default for Rule {
    fn default() -> Self {
        Self::new(&Running::default(), None)
    }
}

impl Rule {
    /// As it is configured. `context`: the one in use, where it is protected.
    pub fn new(run: &Running, context: Option<&str>) -> Self {
        Self {
            above: usize::try_from(run.confirm_above).unwrap_or(usize::MAX),
            protected: run.protected.clone(),
            always: context.map(|name| format!("the context {name} is protected")),
            is_told: false,
        }
    }

    /// The same for a saved command that wants it asked.
    #[must_use]
    pub fn of_saved(self) -> Self {
        let always = self.always.or_else(|| Some("the saved command asks for it".to_owned()));
        Self { always, ..self }
    }

    /// Whether, and why; `protected`: how many of the machines are.
    pub fn reason(&self, machines: usize, protected: usize) -> Option<Reason> {
        match &self.always {
            Some(why) => Some(Reason::Always(why.clone())),
            None if protected > 0 => Some(Reason::Protected(protected)),
            None if self.is_told => Some(Reason::Told),
            None if machines > self.above => Some(Reason::Many(self.above)),
            None => None,
        }
    }
}

impl Reason {
    /// Whether it may run where there is nobody to ask: a script that names its machines meant them.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Told | Self::Many(_))
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Always(why) => f.write_str(why),
            Self::Protected(1) => f.write_str("one of them is protected (run.protected)"),
            Self::Protected(count) => write!(f, "{count} of them are protected (run.protected)"),
            Self::Told => f.write_str("a bridge says that this is its text"),
            Self::Many(above) => write!(f, "they are more than {above}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_reason_that_there_is_counts() {
        let rule = Rule { above: 50, protected: "p".to_owned(), ..Rule::default() };
        assert_eq!(rule.reason(50, 0), None);
        assert_eq!(rule.reason(51, 0), Some(Reason::Many(50)));
        assert_eq!(rule.reason(1, 1), Some(Reason::Protected(1)));
        let told = Rule { is_told: true, ..rule.clone() };
        assert_eq!(told.reason(1, 0), Some(Reason::Told));
        let saved = rule.of_saved();
        assert!(matches!(saved.reason(1, 1), Some(Reason::Always(_))));
        let both = Rule { always: Some("so it is".to_owned()), ..Rule::default() }.of_saved();
        assert_eq!(
            both.reason(0, 0),
            Some(Reason::Always("so it is".to_owned())),
            "the context's is the stronger one"
        );
    }
}
