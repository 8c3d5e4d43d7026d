//! The table of keys, as they are unless somebody binds them otherwise. Its order is the order of the help; what has a
//! footer word is in the footer.

use super::{Action, Mode};
use crate::tui::{
    lists::{ListKind, Tab},
    state::{editor::Edit, fleet::Column},
};

/// Keys that mean one thing.
#[derive(Debug)]
pub struct Binding {
    /// What it is called where keys are bound: unique within a mode, and the same thing has one name in all of them.
    pub name: &'static str,
    /// The keys as they are written; the first stands in the footer.
    pub keys: &'static [&'static str],
    /// What they mean.
    pub action: Action,
    /// One or two words for the footer; empty = not there.
    pub footer: &'static str,
    /// What they do, for the help.
    pub help: &'static str,
}

const fn key(
    name: &'static str,
    keys: &'static [&'static str],
    action: Action,
    footer: &'static str,
    help: &'static str,
) -> Binding {
    Binding { name, keys, action, footer, help }
}

/// Bindings of a mode, those of its own first.
pub(super) fn bindings(mode: Mode) -> impl Iterator<Item = &'static Binding> {
    let tables: &[&'static [Binding]] = match mode {
        Mode::Pulse => &[PULSE, LIST, TO_AND_FRO, HERE, ANYWHERE],
        Mode::Machines => &[MACHINES, TABLE, LIST, TO_AND_FRO, HERE, ANYWHERE],
        Mode::Machine => &[MACHINE, TABS, TABLE, LIST, HERE, ANYWHERE],
        Mode::Commands => &[COMMANDS, LIST, TO_AND_FRO, HERE, ANYWHERE],
        Mode::Command => &[COMMAND, LIST, TO_AND_FRO, HERE, ANYWHERE],
        Mode::Output => &[OUTPUT, OUTPUT_MOVES, OUTPUT_HERE, TO_AND_FRO, ANYWHERE],
        Mode::List => &[ROWS, TABLE, LIST, TO_AND_FRO, HERE, ANYWHERE],
        Mode::Item => &[ITEM, LIST, TO_AND_FRO, HERE, ANYWHERE],
        Mode::Filter => &[FILTER, EDIT],
        Mode::Prompt => &[PROMPT, EDIT],
        Mode::Search => &[SEARCH, EDIT],
        Mode::Palette => &[PALETTE, EDIT],
        Mode::Line => &[LINE, EDIT],
        Mode::Columns => &[COLUMNS],
        Mode::Confirm => &[CONFIRM],
        Mode::Help => &[HELP],
    };
    tables.iter().copied().flatten()
}

const PULSE: &[Binding] = &[
    key("open", &["<enter>", "<right>", "l"], Action::Enter, "open", "to what needs a look"),
    key("out", &["<left>", "h"], Action::Back, "", "out by one layer"),
];

const MACHINES: &[Binding] = &[
    key("open", &["<enter>", "<right>", "l"], Action::Enter, "open", "open the machine"),
    key("run", &["x"], Action::Run, "run", "run a command on the marks or on the row"),
    key(
        "mark",
        &["<space>"],
        Action::Mark,
        "mark",
        "mark it and go on; actions mean the marks, else the row",
    ),
    key(
        "filter",
        &["/"],
        Action::Filter,
        "filter",
        "show only some: a text, web-*, /regex/, cpu>80 and os=debian",
    ),
    key("mark-range", &["v"], Action::MarkRange, "", "mark all from the last mark to the row"),
    key("mark-shown", &["a"], Action::MarkSeen, "", "mark all that are shown"),
    key("mark-others", &["*"], Action::InvertMarks, "", "mark the others of those that are shown"),
    key("unmark", &["A"], Action::ClearMarks, "", "take all marks away"),
    key("earlier", &["{"], Action::Scrub(-1), "", "how they were a minute earlier; esc: now"),
    key("later", &["}"], Action::Scrub(1), "", "how they were a minute later"),
    key("hour-earlier", &["("], Action::Scrub(-60), "", "how they were an hour earlier"),
    key("hour-later", &[")"], Action::Scrub(60), "", "how they were an hour later"),
    key("sort-name", &["N"], Action::Sort(Column::Name), "", "sort by name; twice: the other way around"),
    key("sort-state", &["S"], Action::Sort(Column::State), "", "sort by state: what is offline first"),
    key("sort-cpu", &["C"], Action::Sort(Column::Cpu), "", "sort by cpu"),
    key("sort-memory", &["M"], Action::Sort(Column::Memory), "", "sort by memory"),
    key("sort-disk", &["D"], Action::Sort(Column::Disk), "", "sort by the fullest disk"),
    key("sort-load", &["L"], Action::Sort(Column::Load), "", "sort by load"),
    key("sort-heard", &["H"], Action::Sort(Column::Heard), "", "sort by when it was heard"),
    key("sort-runs", &["R"], Action::Sort(Column::Runs), "", "sort by runs"),
];

const TABLE: &[Binding] = &[
    key("sort-next", &[">"], Action::SortNext(1), "", "sort by the next column"),
    key("sort-before", &["<lt>"], Action::SortNext(-1), "", "sort by the column before"),
    key("reverse", &["I"], Action::Reverse, "", "the other way around"),
    key("columns", &["|"], Action::Columns, "", "choose columns"),
];

const MACHINE: &[Binding] = &[
    key(
        "open",
        &["<enter>", "<right>", "l"],
        Action::Enter,
        "open",
        "open the command, or show all of the row",
    ),
    key("run", &["x"], Action::Run, "run", "run a command on this machine"),
    key("next-tab", &["<tab>", "L"], Action::TabNext(1), "tabs", "the next tab"),
    key("tab-before", &["<s-tab>", "H"], Action::TabNext(-1), "", "the tab before"),
    key("zoom-in", &["+"], Action::Zoom(-1), "zoom", "charts over a shorter time"),
    key("zoom-out", &["-"], Action::Zoom(1), "", "charts over a longer time, up to a week"),
    key("charts", &["z"], Action::Charts, "charts", "charts on the whole page, or beside the rows"),
    key(
        "cancel",
        &["X", "<c-k>"],
        Action::Cancel,
        "cancel",
        "cancel the command of the row, after a question",
    ),
    key("filter", &["/"], Action::Filter, "", "show only rows with a text, or /regex/; ! turns it around"),
    key("next-machine", &["J"], Action::Neighbour(1), "", "the machine below in the list of all"),
    key("machine-before", &["K"], Action::Neighbour(-1), "", "the machine above in the list of all"),
    key("other", &["_"], Action::Other, "", "to and fro between the last two screens"),
    key("out", &["<left>", "h"], Action::Back, "", "out, to all machines"),
];

const TABS: &[Binding] = &[
    key("tab-commands", &["1"], Action::Tab(Tab::Commands), "", "what ran on it"),
    key(
        "tab-inbox",
        &["2"],
        Action::Tab(Tab::Inbox),
        "",
        "what waits for it, in the order in which it will run",
    ),
    key("tab-config", &["3"], Action::Tab(Tab::Config), "", "what it should be like, and what it is like"),
    key("tab-credentials", &["4"], Action::Tab(Tab::Credentials), "", "what its relay keeps"),
    key("tab-facts", &["5"], Action::Tab(Tab::Facts), "", "what it is"),
    key("tab-events", &["6"], Action::Tab(Tab::Events), "", "what happened to it"),
    key("tab-audit", &["7"], Action::Tab(Tab::Audit), "", "who did what with it"),
];

const COMMANDS: &[Binding] = &[
    key("open", &["<enter>", "<right>", "l"], Action::Enter, "open", "open the command"),
    key("run", &["x"], Action::Run, "run again", "write the same command once more, to be run again"),
    key("filter", &["/"], Action::Filter, "filter", "show only commands with a text in them"),
    key("cancel", &["X", "<c-k>"], Action::Cancel, "cancel", "cancel the command, after a question"),
    key("pause", &["P"], Action::Pause, "", "pause its waves, or let them go on after a question"),
    key("abort", &["B"], Action::Abort, "", "let no further machine go, after a question"),
];

const COMMAND: &[Binding] = &[
    key(
        "other-half",
        &["<tab>", "<s-tab>"],
        Action::OtherHalf,
        "runs/output",
        "to the other half: runs, output",
    ),
    key("open", &["<enter>"], Action::Enter, "", "from a group to its machines, from a run to its output"),
    key(
        "mark",
        &["<space>"],
        Action::Mark,
        "mark",
        "mark the machines of the row and go on; x runs on the marks",
    ),
    key("fold", &["z"], Action::Fold, "fold", "fold runs that ended alike, or show them one by one"),
    key("outliers", &["O"], Action::Outliers, "", "what stands out first, or what is usual"),
    key("diff", &["d"], Action::Diff, "diff", "what differs from the largest other group, or from the base"),
    key("output", &["o"], Action::Output, "whole", "its output on the whole screen, to search and save it"),
    key("base", &["="], Action::Base, "", "compare others with this one"),
    key("unmark", &["A"], Action::ClearMarks, "", "take all marks away"),
    key("follow", &["f"], Action::Follow, "follow", "follow the newest output, or stay"),
    key("run", &["x"], Action::Run, "run again", "write the same command once more, to be run again"),
    key("retry", &["r"], Action::Retry, "", "write it once more, for the machines where it failed"),
    key("cancel", &["X", "<c-k>"], Action::Cancel, "cancel", "cancel the command, after a question"),
    key("pause", &["P"], Action::Pause, "", "pause its waves, or let them go on after a question"),
    key("abort", &["B"], Action::Abort, "", "let no further machine go, after a question"),
    key("left", &["<left>", "h"], Action::Side(-1), "", "show what is further left in the output"),
    key("right", &["<right>", "l"], Action::Side(1), "", "show what is further right in the output"),
];

const OUTPUT: &[Binding] = &[
    key("search", &["/"], Action::Search, "search", "look for a text, or /regex/; ! turns it around"),
    key("next-found", &["n"], Action::Match(1), "next", "to the next line with it"),
    key("found-before", &["N"], Action::Match(-1), "", "to the line with it before"),
    key("only-found", &["&"], Action::OnlyFound, "only found", "only lines with it, or all"),
    key("follow", &["f"], Action::Follow, "follow", "follow the newest output, or stay"),
    key("wrap", &["w"], Action::Wrap, "wrap", "long lines go on in the next row, or not"),
    key("times", &["t"], Action::Times, "", "when lines were received here"),
    key("numbers", &["#"], Action::Numbers, "", "numbers of lines; of a large output: the bytes before them"),
    key("streams", &["<tab>", "<s-tab>"], Action::Streams, "stream", "both streams, or one of them"),
    key("save", &["s"], Action::Save, "save", "save it to files, byte for byte"),
    key("percent", &["%"], Action::Percent, "", "to so many percent of it"),
    key("left", &["<left>", "h"], Action::Side(-1), "", "show what is further left"),
    key("right", &["<right>", "l"], Action::Side(1), "", "show what is further right"),
];

const OUTPUT_MOVES: &[Binding] = &[
    key("down", &["<down>", "j"], Action::Step(1), "", "down"),
    key("up", &["<up>", "k"], Action::Step(-1), "", "up"),
    key("half-down", &["<c-d>"], Action::HalfPage(1), "", "half a page down"),
    key("half-up", &["<c-u>"], Action::HalfPage(-1), "", "half a page up"),
    key("page-down", &["<pgdn>", "<c-f>", "<space>"], Action::Page(1), "", "a page down"),
    key("page-up", &["<pgup>", "<c-b>", "b"], Action::Page(-1), "", "a page up"),
    key("first", &["<home>", "g"], Action::Top, "", "to the beginning"),
    key("last", &["<end>", "G"], Action::Bottom, "", "to the end, and follow it"),
];

/// As on other screens; `w` means another thing here.
const OUTPUT_HERE: &[Binding] = &[
    key("back", &["<esc>", "<backspace>"], Action::Back, "back", "out by one layer: search, save, page"),
    key("audit", &[], Action::List(ListKind::Audit), "", "who did what"),
    key("copy", &["y"], Action::Copy, "", "copy the line that was found, or the first one"),
    key("refresh", &["<c-r>"], Action::Refresh, "", "ask again for what could not be read"),
];

const LINE: &[Binding] = &[
    key("do", &["<enter>"], Action::Enter, "do it", "do it"),
    key("leave", &["<esc>", "<c-c>"], Action::Back, "leave it", "leave it"),
    key("down", &["<down>"], Action::Step(1), "", "down in what is shown"),
    key("up", &["<up>"], Action::Step(-1), "", "up in what is shown"),
];

const ROWS: &[Binding] = &[
    key("open", &["<enter>", "<right>", "l", "d"], Action::Enter, "open", "show all of the row"),
    key(
        "filter",
        &["/"],
        Action::Filter,
        "filter",
        "show only rows with a text, or /regex/; ! turns it around",
    ),
    key("out", &["<left>", "h"], Action::Back, "", "out by one layer"),
];

const ITEM: &[Binding] = &[key("out", &["<left>", "h"], Action::Back, "", "out, to the list")];

const LIST: &[Binding] = &[
    key("down", &["<down>", "j"], Action::Step(1), "", "down"),
    key("up", &["<up>", "k"], Action::Step(-1), "", "up"),
    key("half-down", &["<c-d>"], Action::HalfPage(1), "", "half a page down"),
    key("half-up", &["<c-u>"], Action::HalfPage(-1), "", "half a page up"),
    key("page-down", &["<pgdn>", "<c-f>"], Action::Page(1), "", "a page down; on a command: of its output"),
    key("page-up", &["<pgup>", "<c-b>"], Action::Page(-1), "", "a page up"),
    key("first", &["<home>", "g"], Action::Top, "", "to the first"),
    key("last", &["<end>", "G"], Action::Bottom, "", "to the last"),
];

const TO_AND_FRO: &[Binding] =
    &[key("other", &["-"], Action::Other, "", "to and fro between the last two screens")];

/// What means this screen.
const HERE: &[Binding] = &[
    key("back", &["<esc>", "<backspace>"], Action::Back, "back", "out by one layer: filter, marks, page"),
    key("audit", &["w"], Action::List(ListKind::Audit), "", "who did what"),
    key("copy", &["y"], Action::Copy, "", "copy the names of the marks, or of the row"),
    key("refresh", &["<c-r>"], Action::Refresh, "", "read anew what is shown"),
];

/// What is the same on every screen.
const ANYWHERE: &[Binding] = &[
    key("palette", &[":"], Action::Palette, "command", "go or do anything by its name"),
    key("pulse", &["p"], Action::Pulse, "pulse", "how the fleet is, and what needs a look"),
    key("commands", &["c"], Action::Commands, "commands", "all commands"),
    key("machines", &["m"], Action::Machines, "machines", "all machines"),
    key("events", &["e"], Action::List(ListKind::Events), "", "what happened"),
    key("before", &["["], Action::Travel(-1), "", "to the screen before"),
    key("after", &["]"], Action::Travel(1), "", "forward again"),
    key("repeat", &["."], Action::Repeat, "", "the newest command text once more"),
    key("freeze", &["F"], Action::Freeze, "", "hold machines and lists still, or let them go on"),
    key("mouse", &["<c-o>"], Action::Mouse, "", "the mouse for the console, or for the terminal"),
    key("header", &["<c-e>"], Action::Header, "", "with or without the header"),
    key("redraw", &["<c-l>"], Action::Redraw, "", "draw the screen anew"),
    key("suspend", &["<c-z>"], Action::Suspend, "", "back to the shell; `fg` brings the console back"),
    key("help", &["?"], Action::Help, "help", "these keys"),
    key("quit", &["q", "<c-c>"], Action::Quit, "quit", "leave the console; what runs goes on"),
];

const FILTER: &[Binding] = &[
    key("keep", &["<enter>"], Action::Enter, "keep", "keep the filter"),
    key("leave", &["<esc>", "<c-c>"], Action::Back, "as it was", "the filter as it was"),
    key("down", &["<down>"], Action::Step(1), "", "down in what is shown"),
    key("up", &["<up>"], Action::Step(-1), "", "up in what is shown"),
];

const PROMPT: &[Binding] = &[
    key("run", &["<enter>"], Action::Enter, "run", "run it"),
    key("leave", &["<esc>", "<c-c>"], Action::Back, "leave it", "leave it; nothing is run"),
    key("earlier", &["<up>", "<c-p>"], Action::Recall(1), "earlier", "an earlier text"),
    key("later", &["<down>", "<c-n>"], Action::Recall(-1), "", "a later text"),
    key(
        "next-line",
        &["<tab>"],
        Action::Field(1),
        "next",
        "to the next line: on what, in which waves, how long",
    ),
    key("line-before", &["<s-tab>"], Action::Field(-1), "", "to the line before"),
    key("search", &["<c-r>"], Action::LookBack, "search", "look for an earlier text, also of others"),
    key("targets", &["<c-t>"], Action::Targets, "machines", "list the machines that are meant, or no longer"),
    key("page-down", &["<pgdn>"], Action::Step(10), "", "further down in the list of machines"),
    key("page-up", &["<pgup>"], Action::Step(-10), "", "further up"),
    key("longer", &["<a-up>"], Action::Timeout(1), "", "a longer time"),
    key("shorter", &["<a-down>"], Action::Timeout(-1), "", "a shorter time"),
];

const SEARCH: &[Binding] = &[
    key("take", &["<enter>", "<tab>"], Action::Enter, "take", "write it, to be changed or run"),
    key("leave", &["<esc>", "<c-c>"], Action::Back, "leave it", "back to what is written"),
    key("older", &["<down>", "<c-n>", "<c-r>"], Action::Step(1), "choose", "the next one, which is older"),
    key("newer", &["<up>", "<c-p>"], Action::Step(-1), "", "the one before, which is newer"),
];

const PALETTE: &[Binding] = &[
    key("do", &["<enter>"], Action::Enter, "do it", "do it"),
    key("leave", &["<esc>", "<c-c>"], Action::Back, "leave it", "leave it"),
    key("complete", &["<tab>"], Action::Complete, "complete", "complete what is written"),
    key("down", &["<down>", "<c-n>"], Action::Step(1), "choose", "the next one"),
    key("up", &["<up>", "<c-p>"], Action::Step(-1), "", "the one before"),
    key("earlier", &["<a-p>", "<c-r>"], Action::Recall(1), "earlier", "what was written before"),
    key("later", &["<a-n>"], Action::Recall(-1), "", "what was written later"),
];

const COLUMNS: &[Binding] = &[
    key("toggle", &["<space>", "<enter>"], Action::Mark, "show/hide", "show the column, or hide it"),
    key("down", &["<down>", "j"], Action::Step(1), "", "the next one"),
    key("up", &["<up>", "k"], Action::Step(-1), "", "the one before"),
    key("later", &["J", "<right>"], Action::Shift(1), "move", "further right"),
    key("sooner", &["K", "<left>"], Action::Shift(-1), "", "further left"),
    key("reset", &["r"], Action::Reset, "reset", "as they were at first"),
    key("leave", &["<esc>", "q", "|", "<c-c>"], Action::Back, "back", "back"),
];

const CONFIRM: &[Binding] = &[
    key("answer", &["<enter>"], Action::Enter, "answer", "give the answer that has the focus"),
    key(
        "other-answer",
        &["<left>", "<right>", "<tab>", "<s-tab>", "h", "l"],
        Action::OtherHalf,
        "other answer",
        "the other answer",
    ),
    key("no", &["<esc>", "<c-c>", "q", "n"], Action::Back, "no", "no"),
];

const HELP: &[Binding] = &[
    key("leave", &["<esc>", "?", "q", "<enter>", "<c-c>", "<backspace>"], Action::Back, "back", "back"),
    key("down", &["<down>", "j"], Action::Step(1), "scroll", "down"),
    key("up", &["<up>", "k"], Action::Step(-1), "", "up"),
    key("page-down", &["<pgdn>", "<space>", "<c-f>", "<c-d>"], Action::Page(1), "", "a page down"),
    key("page-up", &["<pgup>", "<c-b>", "<c-u>"], Action::Page(-1), "", "a page up"),
];

const EDIT: &[Binding] = &[
    key("char-left", &["<left>", "<c-b>"], Action::Edit(Edit::Left), "", "one character back"),
    key("char-right", &["<right>", "<c-f>"], Action::Edit(Edit::Right), "", "one character on"),
    key("word-left", &["<a-b>", "<c-left>", "<a-left>"], Action::Edit(Edit::WordLeft), "", "one word back"),
    key("word-right", &["<a-f>", "<c-right>", "<a-right>"], Action::Edit(Edit::WordRight), "", "one word on"),
    key("line-start", &["<home>", "<c-a>"], Action::Edit(Edit::Home), "", "to the beginning"),
    key("line-end", &["<end>", "<c-e>"], Action::Edit(Edit::End), "", "to the end"),
    key("erase", &["<backspace>", "<c-h>"], Action::Edit(Edit::Backspace), "", "remove a character"),
    key(
        "delete",
        &["<delete>", "<c-d>"],
        Action::Edit(Edit::Delete),
        "",
        "remove the character under the cursor",
    ),
    key("erase-word", &["<c-w>", "<a-backspace>"], Action::Edit(Edit::DeleteWord), "", "remove a word"),
    key("erase-start", &["<c-u>"], Action::Edit(Edit::DeleteToHome), "", "remove all before the cursor"),
    key("erase-end", &["<c-k>"], Action::Edit(Edit::DeleteToEnd), "", "remove all behind the cursor"),
];
