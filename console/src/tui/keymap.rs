//! What keys mean, per mode. The one table from which keys, footer and help are made.

pub mod key;
mod table;

pub use self::{
    key::Key,
    table::{Binding, bindings},
};
use crate::tui::state::{editor::Edit, fleet::Column};

/// What takes the keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// All machines.
    Machines,
    /// One machine.
    Machine,
    /// All commands.
    Commands,
    /// One command.
    Command,
    /// A filter is being written.
    Filter,
    /// A command is being written.
    Prompt,
    /// A question.
    Confirm,
    /// The keys are explained.
    Help,
}

/// What the operator wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Leave the console.
    Quit,
    /// Out by one layer.
    Back,
    /// In, or yes to what has the focus.
    Enter,
    /// By rows.
    Step(isize),
    /// By halves of a page.
    HalfPage(isize),
    /// By pages.
    Page(isize),
    /// To the first row.
    Top,
    /// To the last row.
    Bottom,
    /// Sideways.
    Side(isize),
    /// Mark the row and go on.
    Mark,
    /// Mark all that are seen.
    MarkSeen,
    /// Take all marks away.
    ClearMarks,
    /// Write a filter.
    Filter,
    /// Write a command for the marks or the row; on a command: the same once more.
    Run,
    /// The newest command text once more.
    Repeat,
    /// To all machines.
    Machines,
    /// To all commands.
    Commands,
    /// Sort by a column.
    Sort(Column),
    /// Take a new snapshot.
    Refresh,
    /// Cancel the command, after a question.
    Cancel,
    /// Follow the newest output, or stay.
    Follow,
    /// The other half of the page.
    OtherHalf,
    /// Explain the keys.
    Help,
    /// Change the line that is written.
    Edit(Edit),
    /// An earlier text (1) or a later one (-1).
    Recall(isize),
    /// Another timeout.
    Timeout(isize),
    /// Give the terminal back for a while.
    Suspend,
    /// Draw everything anew.
    Redraw,
}

/// What a key means; `None` = nothing.
pub fn action(mode: Mode, key: Key) -> Option<Action> {
    let notation = key.to_string();
    let bound = bindings(mode).find(|binding| binding.keys.contains(&notation.as_str()));
    bound.map(|binding| binding.action).or_else(|| match (mode, key.character()) {
        (Mode::Filter | Mode::Prompt, Some(c)) => Some(Action::Edit(Edit::Insert(c))),
        _ => None,
    })
}

/// A key as the footer and the help show it.
pub fn label(notation: &str) -> String {
    match notation {
        "<enter>" => "enter".to_owned(),
        "<lt>" => "<".to_owned(),
        _ => match notation.strip_prefix("<c-").and_then(|rest| rest.strip_suffix('>')) {
            Some(key) => format!("^{}", key.to_uppercase()),
            None => notation.trim_start_matches('<').trim_end_matches('>').to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    const MODES: [Mode; 8] = [
        Mode::Machines,
        Mode::Machine,
        Mode::Commands,
        Mode::Command,
        Mode::Filter,
        Mode::Prompt,
        Mode::Confirm,
        Mode::Help,
    ];

    #[test]
    fn no_key_means_two_things_in_one_mode() {
        for mode in MODES {
            let mut seen = HashSet::new();
            for key in bindings(mode).flat_map(|binding| binding.keys) {
                assert!(seen.insert(*key), "{key} is bound twice in {mode:?}");
            }
        }
    }

    #[test]
    fn every_bound_key_can_be_pressed() {
        for mode in MODES {
            for notation in bindings(mode).flat_map(|binding| binding.keys) {
                let keys = key::parse(notation).unwrap();
                assert_eq!(keys.len(), 1, "{notation} is not one key");
                assert_eq!(keys[0].to_string(), *notation);
                assert!(action(mode, keys[0]).is_some());
            }
        }
    }

    #[test]
    fn one_gesture_means_the_same_everywhere() {
        for mode in [Mode::Machines, Mode::Machine, Mode::Commands, Mode::Command] {
            for (key, action_) in [("<esc>", Action::Back), ("?", Action::Help), ("x", Action::Run)] {
                assert_eq!(action(mode, key::parse(key).unwrap()[0]), Some(action_), "{key} in {mode:?}");
            }
        }
    }

    #[test]
    fn nothing_dangerous_by_one_small_letter() {
        for mode in MODES {
            let cancels = bindings(mode).filter(|binding| binding.action == Action::Cancel);
            for key in cancels.flat_map(|binding| binding.keys) {
                assert!(!key.chars().all(|c| c.is_ascii_lowercase()), "{key} cancels");
            }
        }
    }
}
