//! What keys mean, per mode. The one table from which keys, footer and help are made; an operator's own keys change a
//! copy of it.

pub mod key;
mod profile;
mod rebind;
mod table;

use std::sync::Arc;

pub use self::{
    key::Key,
    profile::Profile,
    rebind::{KeyProblem, Rebinding},
    table::Binding,
};
use crate::{
    settings,
    tui::{
        lists::{ListKind, Tab},
        state::{editor::Edit, fleet::Column},
    },
};

/// What takes the keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// How the fleet is.
    Pulse,
    /// All machines.
    Machines,
    /// One machine.
    Machine,
    /// All commands.
    Commands,
    /// One command.
    Command,
    /// Its output.
    Output,
    /// Rows of any other list.
    List,
    /// All of one row.
    Item,
    /// A filter is being written.
    Filter,
    /// A command is being written.
    Prompt,
    /// An earlier text is looked for.
    Search,
    /// What to do is being written.
    Palette,
    /// Something about an output is being written.
    Line,
    /// Columns are chosen.
    Columns,
    /// A question.
    Confirm,
    /// The keys are explained.
    Help,
}

impl Mode {
    /// All modes.
    pub const ALL: [Self; 16] = [
        Self::Pulse,
        Self::Machines,
        Self::Machine,
        Self::Commands,
        Self::Command,
        Self::Output,
        Self::List,
        Self::Item,
        Self::Filter,
        Self::Prompt,
        Self::Search,
        Self::Palette,
        Self::Line,
        Self::Columns,
        Self::Confirm,
        Self::Help,
    ];

    /// What it is called where keys are bound.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pulse => "pulse",
            Self::Machines => "machines",
            Self::Machine => "machine",
            Self::Commands => "commands",
            Self::Command => "command",
            Self::Output => "output",
            Self::List => "list",
            Self::Item => "item",
            Self::Filter => "filter",
            Self::Prompt => "prompt",
            Self::Search => "search",
            Self::Palette => "palette",
            Self::Line => "line",
            Self::Columns => "columns",
            Self::Confirm => "confirm",
            Self::Help => "help",
        }
    }

    /// Whether keys without another meaning write text.
    pub fn writes(self) -> bool {
        matches!(self, Self::Filter | Self::Prompt | Self::Search | Self::Palette | Self::Line)
    }

    /// Whether it is a screen, and nothing that lies over one.
    pub fn is_screen(self) -> bool {
        matches!(
            self,
            Self::Pulse
                | Self::Machines
                | Self::Machine
                | Self::Commands
                | Self::Command
                | Self::Output
                | Self::List
                | Self::Item
        )
    }
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
    /// Mark all from the last mark to the row.
    MarkRange,
    /// Mark all that are seen.
    MarkSeen,
    /// Mark those that are seen and are not marked, and no others.
    InvertMarks,
    /// Take all marks away.
    ClearMarks,
    /// Write a filter.
    Filter,
    /// Write a command for the marks or the row; on a command: the same once more.
    Run,
    /// The newest command text once more.
    Repeat,
    /// Write what to do.
    Palette,
    /// Complete what is written.
    Complete,
    /// To the pulse of the fleet.
    Pulse,
    /// To all machines.
    Machines,
    /// To all commands.
    Commands,
    /// To another list.
    List(ListKind),
    /// Back (-1) or forward (1) in the screens that were shown.
    Travel(isize),
    /// To the screen before, and back again.
    Other,
    /// Sort by a column.
    Sort(Column),
    /// Sort by the next column, or by the one before.
    SortNext(isize),
    /// The other way around.
    Reverse,
    /// Choose columns.
    Columns,
    /// Move the column.
    Shift(isize),
    /// As it was at first.
    Reset,
    /// Copy what the marks or the row are called.
    Copy,
    /// Hold what is shown still, or let it go on.
    Freeze,
    /// Read anew what is shown.
    Refresh,
    /// Take the mouse, or leave it to the terminal.
    Mouse,
    /// With or without the header.
    Header,
    /// Cancel the command, after a question.
    Cancel,
    /// Follow the newest output, or stay.
    Follow,
    /// The other half of the page.
    OtherHalf,
    /// Fold runs that ended alike, or show them one by one.
    Fold,
    /// What stands out comes first, or what is usual.
    Outliers,
    /// Compare others with this one.
    Base,
    /// Compare this one with another.
    Diff,
    /// To what there is of the machine.
    Tab(Tab),
    /// To the next of it, or to the one before.
    TabNext(isize),
    /// To the machine below in the list of all, or above.
    Neighbour(isize),
    /// Charts over a longer time (1) or a shorter one (-1).
    Zoom(isize),
    /// Charts fill the page, or leave room for rows.
    Charts,
    /// To how the machines were so many minutes earlier (negative) or later.
    Scrub(isize),
    /// The output, on the whole screen.
    Output,
    /// Long lines go on in the next row, or not.
    Wrap,
    /// With the times of lines, or without.
    Times,
    /// With the numbers of lines, or without.
    Numbers,
    /// The other stream.
    Streams,
    /// Write what is looked for.
    Search,
    /// To the next line with it (1), or the one before (-1).
    Match(isize),
    /// Only lines with it, or all.
    OnlyFound,
    /// Write how far to go, percent.
    Percent,
    /// Write where to save it to.
    Save,
    /// Explain the keys.
    Help,
    /// Change the line that is written.
    Edit(Edit),
    /// An earlier text (1) or a later one (-1).
    Recall(isize),
    /// Another of the times on offer.
    Timeout(isize),
    /// To another line of what is written.
    Field(isize),
    /// Look for an earlier text.
    LookBack,
    /// List the machines that are meant, or no longer.
    Targets,
    /// Once more where it did not end well.
    Retry,
    /// Pause its waves, or let them go on after a question.
    Pause,
    /// Let no further machine go, after a question.
    Abort,
    /// Give the terminal back for a while.
    Suspend,
    /// Draw everything anew.
    Redraw,
}

/// A binding with the keys that it has here.
#[derive(Debug, Clone)]
pub struct Bound {
    /// What it means.
    pub binding: &'static Binding,
    /// The keys as they are written; the first stands in the footer. None: it is reached by the palette only.
    pub keys: Vec<String>,
}

/// The keys that count.
#[derive(Debug, Clone)]
pub struct Keymap(Arc<Vec<Vec<Bound>>>);

impl Default for Keymap {
    fn default() -> Self {
        let bound = |binding: &'static Binding| Bound {
            binding,
            keys: binding.keys.iter().map(|key| (*key).to_owned()).collect(),
        };
        Self(Arc::new(Mode::ALL.map(|mode| table::bindings(mode).map(bound).collect()).into()))
    }
}

impl Keymap {
    /// The keys of a profile, and what an operator binds otherwise. What cannot be bound is told, and stays as it was.
    pub fn new(profile: Profile, own: &[Rebinding]) -> (Self, Vec<KeyProblem>) {
        let mut keymap = Self::default();
        let modes = Arc::make_mut(&mut keymap.0);
        rebind::apply(modes, &profile.rebindings());
        let problems = rebind::apply(modes, own);
        (keymap, problems)
    }

    /// The keys that an operator has set.
    pub fn of(keys: &settings::keys::Keys) -> (Self, Vec<KeyProblem>) {
        let profile = match keys.profile {
            settings::keys::Profile::Default => Profile::Default,
            settings::keys::Profile::Vim => Profile::Vim,
            settings::keys::Profile::Emacs => Profile::Emacs,
        };
        let own = keys.rebindings.iter().map(|set| Rebinding {
            mode: set.mode.clone(),
            key: set.key.clone(),
            name: set.action.clone(),
        });
        Self::new(profile, &own.collect::<Vec<_>>())
    }

    /// Bindings of a mode, in the order of the help.
    pub fn bindings(&self, mode: Mode) -> impl Iterator<Item = &Bound> {
        let at = Mode::ALL.iter().position(|known| *known == mode);
        at.and_then(|at| self.0.get(at)).into_iter().flatten()
    }

    /// What a key means; `None` = nothing.
    pub fn action(&self, mode: Mode, key: Key) -> Option<Action> {
        let notation = key.to_string();
        let bound = self.bindings(mode).find(|bound| bound.keys.contains(&notation));
        bound.map(|bound| bound.binding.action).or_else(|| match key.character() {
            Some(c) if mode.writes() => Some(Action::Edit(Edit::Insert(c))),
            _ => None,
        })
    }
}

/// A key as the footer and the help show it.
pub fn label(notation: &str) -> String {
    match notation {
        "<enter>" => "enter".to_owned(),
        "<lt>" => "<".to_owned(),
        _ => match notation.strip_prefix("<c-").and_then(|rest| rest.strip_suffix('>')) {
            Some(key) => format!("^{}", key.to_uppercase()),
            // `>` and `<` themselves have no name around them.
            None if notation.len() > 2 => notation.trim_start_matches('<').trim_end_matches('>').to_owned(),
            None => notation.to_owned(),
        },
    }
}

#[cfg(test)]
mod tests;
