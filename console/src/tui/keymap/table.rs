//! The table of keys. Its order is the order of the help; what has a footer word is in the footer.

use super::{Action, Mode};
use crate::tui::state::{editor::Edit, fleet::Column};

/// Keys that mean one thing.
#[derive(Debug)]
pub struct Binding {
    /// The keys as they are written; the first stands in the footer.
    pub keys: &'static [&'static str],
    /// What they mean.
    pub action: Action,
    /// One or two words for the footer; empty = not there.
    pub footer: &'static str,
    /// What they do, for the help; empty = told together with the binding before.
    pub help: &'static str,
}

const fn binding(
    keys: &'static [&'static str],
    action: Action,
    footer: &'static str,
    help: &'static str,
) -> Binding {
    Binding { keys, action, footer, help }
}

/// Keys of a mode, those of its own first.
pub fn bindings(mode: Mode) -> impl Iterator<Item = &'static Binding> {
    let tables: &[&'static [Binding]] = match mode {
        Mode::Machines => &[MACHINES, LIST, SCREEN],
        Mode::Machine => &[MACHINE, LIST, SCREEN],
        Mode::Commands => &[COMMANDS, LIST, SCREEN],
        Mode::Command => &[COMMAND, LIST, SCREEN],
        Mode::Filter => &[FILTER, EDIT],
        Mode::Prompt => &[PROMPT, EDIT],
        Mode::Confirm => &[CONFIRM],
        Mode::Help => &[HELP],
    };
    tables.iter().copied().flatten()
}

const MACHINES: &[Binding] = &[
    binding(&["<enter>", "<right>", "l"], Action::Enter, "open", "open the machine"),
    binding(&["x", ":"], Action::Run, "run", "run a command on the marks or on the row"),
    binding(&["<space>"], Action::Mark, "mark", "mark it and go on; actions mean the marks, else the row"),
    binding(&["/"], Action::Filter, "filter", "show only names with a text in them, or like web-*"),
    binding(&["a"], Action::MarkSeen, "", "mark all that are shown"),
    binding(&["A"], Action::ClearMarks, "", "take all marks away"),
    binding(&["N"], Action::Sort(Column::Name), "", "sort by name; twice: the other way around"),
    binding(&["S"], Action::Sort(Column::State), "", "sort by state: what is offline first"),
    binding(&["C"], Action::Sort(Column::Cpu), "", "sort by cpu"),
    binding(&["M"], Action::Sort(Column::Memory), "", "sort by memory"),
    binding(&["D"], Action::Sort(Column::Disk), "", "sort by the fullest disk"),
    binding(&["L"], Action::Sort(Column::Load), "", "sort by load"),
    binding(&["H"], Action::Sort(Column::Heard), "", "sort by when it was heard"),
    binding(&["R"], Action::Sort(Column::Runs), "", "sort by runs"),
];

const MACHINE: &[Binding] = &[
    binding(&["x", ":"], Action::Run, "run", "run a command on this machine"),
    binding(&["<left>", "h"], Action::Back, "", "out, to all machines"),
];

const COMMANDS: &[Binding] = &[
    binding(&["<enter>", "<right>", "l"], Action::Enter, "open", "open the command"),
    binding(&["x"], Action::Run, "run again", "write the same command once more, to be run again"),
    binding(&["/"], Action::Filter, "filter", "show only commands with a text in them"),
    binding(&["X", "<c-k>"], Action::Cancel, "cancel", "cancel the command, after a question"),
];

const COMMAND: &[Binding] = &[
    binding(&["<tab>", "<s-tab>"], Action::OtherHalf, "runs/output", "to the other half: runs, output"),
    binding(&["<enter>"], Action::Enter, "", "from a run to its output"),
    binding(&["f"], Action::Follow, "follow", "follow the newest output, or stay"),
    binding(&["x"], Action::Run, "run again", "write the same command once more, to be run again"),
    binding(&["X", "<c-k>"], Action::Cancel, "cancel", "cancel the command, after a question"),
    binding(&["<left>", "h"], Action::Side(-1), "", "show what is further left in the output"),
    binding(&["<right>", "l"], Action::Side(1), "", "show what is further right in the output"),
];

const LIST: &[Binding] = &[
    binding(&["<down>", "j"], Action::Step(1), "", "down"),
    binding(&["<up>", "k"], Action::Step(-1), "", "up"),
    binding(&["<c-d>"], Action::HalfPage(1), "", "half a page down"),
    binding(&["<c-u>"], Action::HalfPage(-1), "", "half a page up"),
    binding(&["<pgdn>", "<c-f>"], Action::Page(1), "", "a page down; on a command: of its output"),
    binding(&["<pgup>", "<c-b>"], Action::Page(-1), "", "a page up"),
    binding(&["<home>", "g"], Action::Top, "", "to the first"),
    binding(&["<end>", "G"], Action::Bottom, "", "to the last"),
];

const SCREEN: &[Binding] = &[
    binding(&["<esc>", "<backspace>"], Action::Back, "back", "out by one layer: filter, marks, page"),
    binding(&["c"], Action::Commands, "commands", "all commands"),
    binding(&["m"], Action::Machines, "machines", "all machines"),
    binding(&["."], Action::Repeat, "", "the newest command text once more"),
    binding(&["<c-r>"], Action::Refresh, "", "take a new snapshot of the machines"),
    binding(&["<c-l>"], Action::Redraw, "", "draw the screen anew"),
    binding(&["<c-z>"], Action::Suspend, "", "back to the shell; `fg` brings the console back"),
    binding(&["?"], Action::Help, "help", "these keys"),
    binding(&["q", "<c-c>"], Action::Quit, "quit", "leave the console; what runs goes on"),
];

const FILTER: &[Binding] = &[
    binding(&["<enter>"], Action::Enter, "keep", "keep the filter"),
    binding(&["<esc>", "<c-c>"], Action::Back, "as it was", "the filter as it was"),
    binding(&["<down>"], Action::Step(1), "", "down in what is shown"),
    binding(&["<up>"], Action::Step(-1), "", "up in what is shown"),
];

const PROMPT: &[Binding] = &[
    binding(&["<enter>"], Action::Enter, "run", "run it"),
    binding(&["<esc>", "<c-c>"], Action::Back, "leave it", "leave it; nothing is run"),
    binding(&["<up>", "<c-p>"], Action::Recall(1), "earlier", "an earlier text"),
    binding(&["<down>", "<c-n>"], Action::Recall(-1), "", "a later text"),
    binding(&["<tab>"], Action::Timeout(1), "timeout", "a longer timeout"),
    binding(&["<s-tab>"], Action::Timeout(-1), "", "a shorter timeout"),
];

const CONFIRM: &[Binding] = &[
    binding(&["<enter>"], Action::Enter, "answer", "give the answer that has the focus"),
    binding(
        &["<left>", "<right>", "<tab>", "<s-tab>", "h", "l"],
        Action::OtherHalf,
        "other answer",
        "the other answer",
    ),
    binding(&["<esc>", "<c-c>", "q", "n"], Action::Back, "no", "no"),
];

const HELP: &[Binding] = &[
    binding(&["<esc>", "?", "q", "<enter>", "<c-c>", "<backspace>"], Action::Back, "back", "back"),
    binding(&["<down>", "j"], Action::Step(1), "scroll", "down"),
    binding(&["<up>", "k"], Action::Step(-1), "", "up"),
    binding(&["<pgdn>", "<space>", "<c-f>", "<c-d>"], Action::Page(1), "", "a page down"),
    binding(&["<pgup>", "<c-b>", "<c-u>"], Action::Page(-1), "", "a page up"),
];

const EDIT: &[Binding] = &[
    binding(&["<left>", "<c-b>"], Action::Edit(Edit::Left), "", "one character back"),
    binding(&["<right>", "<c-f>"], Action::Edit(Edit::Right), "", "one character on"),
    binding(&["<a-b>", "<c-left>", "<a-left>"], Action::Edit(Edit::WordLeft), "", "one word back"),
    binding(&["<a-f>", "<c-right>", "<a-right>"], Action::Edit(Edit::WordRight), "", "one word on"),
    binding(&["<home>", "<c-a>"], Action::Edit(Edit::Home), "", "to the beginning"),
    binding(&["<end>", "<c-e>"], Action::Edit(Edit::End), "", "to the end"),
    binding(&["<backspace>", "<c-h>"], Action::Edit(Edit::Backspace), "", "remove a character"),
    binding(&["<delete>", "<c-d>"], Action::Edit(Edit::Delete), "", "remove the character under the cursor"),
    binding(&["<c-w>", "<a-backspace>"], Action::Edit(Edit::DeleteWord), "", "remove a word"),
    binding(&["<c-u>"], Action::Edit(Edit::DeleteToHome), "", "remove all before the cursor"),
    binding(&["<c-k>"], Action::Edit(Edit::DeleteToEnd), "", "remove all behind the cursor"),
];
