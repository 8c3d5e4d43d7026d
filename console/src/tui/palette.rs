//! What can be written after `:`: where to go and what to do, by name. Pure.
//!
//! A line is a word and what follows it: `machines role=web`, `machine web-1`, `run uptime`, `sort -cpu`. What a key does
//! here can be written, too. While it is written, what it may become is offered: names by how well they match, then what
//! can follow them.

use std::collections::BTreeMap;

use nucleo_matcher::{
    Config, Matcher, Utf32Str,
    pattern::{AtomKind, CaseMatching, Normalization, Pattern},
};

use crate::args::system::Moment;

use super::{
    keymap::{Action, Mode},
    lists::ListKind,
    state::{Screen, State, fleet::Column},
    text,
    theme::Tone,
};
use crate::settings::saved::SavedCommand;

/// Most that is offered.
pub const OFFERS: usize = 100;

/// What a word does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    /// Goes to a list; what follows is its filter.
    Go(Place),
    /// Goes to the machine that is named.
    Machine,
    /// Goes to the command whose id is named.
    Command,
    /// Opens the line of a command, with what follows.
    Run,
    /// Opens it with the saved command that is named.
    Saved,
    /// Filters by what follows.
    Filter,
    /// Sorts by the column that is named; `-` before it: the other way around.
    Sort,
    /// Shows the columns that are named, in this order.
    Columns,
    /// Draws in another theme.
    Theme,
    /// Shows the machines as they were at the moment that follows.
    At,
    /// Does what a key does.
    Act(Action),
}

/// A list that a word leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// All machines.
    Machines,
    /// All commands.
    Commands,
    /// Another list.
    List(ListKind),
}

impl Place {
    /// Its screen.
    pub fn screen(self) -> Screen {
        match self {
            Self::Machines => Screen::Machines,
            Self::Commands => Screen::Commands,
            Self::List(kind) => Screen::List(kind),
        }
    }
}

/// A word with what it does.
#[derive(Debug, Clone, Copy)]
struct Entry {
    word: &'static str,
    /// Other words for it.
    aliases: &'static [&'static str],
    about: &'static str,
    verb: Verb,
}

const fn entry(
    word: &'static str,
    aliases: &'static [&'static str],
    about: &'static str,
    verb: Verb,
) -> Entry {
    Entry { word, aliases, about, verb }
}

/// Words that are there on every screen, beside lists and what keys do.
const WORDS: &[Entry] = &[
    entry("pulse", &["p", "home"], "how the fleet is, and what needs a look", Verb::Act(Action::Pulse)),
    entry("machines", &["m", "hosts"], "all machines, or those of a filter", Verb::Go(Place::Machines)),
    entry("commands", &["c"], "all commands, or those of a filter", Verb::Go(Place::Commands)),
    entry("machine", &[], "one machine, by its name", Verb::Machine),
    entry("command", &["show"], "one command, by its id", Verb::Command),
    entry("run", &["x"], "run a command on the marks or on the row", Verb::Run),
    entry(
        "saved",
        &["do"],
        "run a saved command: its name, and what stands for its placeholders",
        Verb::Saved,
    ),
    entry("filter", &[], "show only some rows; without anything: all", Verb::Filter),
    entry("sort", &[], "sort by a column; -column: the other way around", Verb::Sort),
    entry("columns", &[], "show these columns, in this order; without any: choose", Verb::Columns),
    entry("at", &[], "the machines as they were: at 14:05 (UTC), at -2h, at now", Verb::At),
    entry("theme", &[], "draw in other colours", Verb::Theme),
    entry("quit", &["q", "exit"], "leave the console; what runs goes on", Verb::Act(Action::Quit)),
];

/// What was written, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Go to a screen, and filter it where a filter was written.
    Go(Screen, Option<String>),
    /// Open the line of a command with this text.
    Run(String),
    /// Open it with a saved command, and what stands for its placeholders.
    Saved(Box<SavedCommand>, BTreeMap<String, String>),
    /// Filter what is shown.
    Filter(String),
    /// Sort by a column, the other way around or not.
    Sort(String, bool),
    /// Show these columns; none: choose them.
    Columns(Vec<String>),
    /// Draw in another theme.
    Theme(Tone),
    /// Show the machines as they were at a moment, Unix ms; `None`: as they are.
    At(Option<u64>),
    /// What a key does.
    Act(Action),
}

/// Something that may be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// The whole line.
    pub line: String,
    /// What it does.
    pub about: String,
    /// The key that does it, too.
    pub key: Option<String>,
}

/// Every word of this screen.
fn entries(state: &State) -> Vec<Entry> {
    let lists = ListKind::ALL
        .map(|kind| entry(kind.name(), aliases(kind), kind.about(), Verb::Go(Place::List(kind))));
    let mode = state.screen.mode();
    let acts = state
        .options
        .keymap
        .bindings(mode)
        .map(|bound| entry(bound.binding.name, &[], bound.binding.help, Verb::Act(bound.binding.action)));
    let has_saved = !state.options.saved.is_empty();
    let words = WORDS.iter().copied().filter(|entry| has_saved || entry.verb != Verb::Saved);
    let mut all: Vec<Entry> = words.chain(lists).collect();
    for act in acts.filter(|act| is_worth_a_word(act.verb)) {
        if !all.iter().any(|known| known.word == act.word) {
            all.push(act);
        }
    }
    all
}

fn aliases(kind: ListKind) -> &'static [&'static str] {
    match kind {
        ListKind::Credentials => &["creds", "keys"],
        ListKind::Shared => &["shared"],
        ListKind::Pushes => &["config"],
        ListKind::Audit => &["log", "who"],
        ListKind::Events => &["ev"],
        ListKind::Operators => &["users"],
        ListKind::Streams => &["broker"],
        ListKind::Health => &["bridge"],
        ListKind::Held | ListKind::Assignments | ListKind::Relays | ListKind::Of(_) => &[],
    }
}

/// Moving about is for keys.
fn is_worth_a_word(verb: Verb) -> bool {
    !matches!(
        verb,
        Verb::Act(
            Action::Step(_)
                | Action::HalfPage(_)
                | Action::Page(_)
                | Action::Top
                | Action::Bottom
                | Action::Side(_)
                | Action::Palette
                | Action::Enter
                | Action::Filter
                | Action::Run
                | Action::Columns
                | Action::Machines
                | Action::Commands
                | Action::List(_)
        )
    )
}

/// Understands a line.
///
/// # Errors
/// What is wrong with it, and what to write.
pub fn understand(state: &State, line: &str) -> Result<Order, String> {
    let (word, rest) = split(line);
    let entries = entries(state);
    let known = entries.iter().find(|entry| entry.word == word || entry.aliases.contains(&word));
    let Some(entry) = known else {
        return Err(format!("`{word}` is nothing that can be done here; tab completes, ? shows the keys"));
    };
    match entry.verb {
        Verb::Go(place) => Ok(Order::Go(place.screen(), (!rest.is_empty()).then(|| rest.to_owned()))),
        Verb::Machine => {
            let found = state.fleet.named(rest).ok_or_else(|| no_such("machine", rest))?;
            Ok(Order::Go(Screen::Machine(found), None))
        }
        Verb::Command => {
            let id = rest.parse().map_err(|_| no_such("command", rest))?;
            match state.commands.get(id) {
                Some(_) => Ok(Order::Go(Screen::Command(id), None)),
                None => Err(format!("this console does not know it; `signalbox show {id}` may")),
            }
        }
        Verb::Run => Ok(Order::Run(rest.to_owned())),
        Verb::Saved => saved(state, rest),
        Verb::Filter => match state.screen {
            Screen::Machines | Screen::Machine(_) | Screen::Commands | Screen::List(_) => {
                Ok(Order::Filter(rest.to_owned()))
            }
            _ => Err("there are no rows to filter here".to_owned()),
        },
        Verb::Sort => {
            let (is_reversed, name) = rest.strip_prefix('-').map_or((false, rest), |name| (true, name));
            let columns = columns(state);
            if columns.iter().any(|known| known == name) {
                return Ok(Order::Sort(name.to_owned(), is_reversed));
            }
            Err(format!("there is no column `{name}` here; there are {}", columns.join(", ")))
        }
        Verb::Columns => {
            let names: Vec<String> =
                rest.split([',', ' ']).filter(|name| !name.is_empty()).map(str::to_owned).collect();
            let known = columns(state);
            match names.iter().find(|name| !known.contains(name)) {
                Some(name) => {
                    Err(format!("there is no column `{name}` here; there are {}", known.join(", ")))
                }
                None => Ok(Order::Columns(names)),
            }
        }
        Verb::Theme => {
            let names = Tone::ALL.map(Tone::name).join(", ");
            Tone::named(rest)
                .map(Order::Theme)
                .ok_or_else(|| format!("there is no theme `{rest}`; there are {names}"))
        }
        Verb::At if rest == "now" => Ok(Order::At(None)),
        Verb::At => {
            let wrong = "write a time of day in UTC such as 14:05, how long ago such as -2h, or now";
            let moment: Moment = rest.strip_prefix('-').unwrap_or(rest).parse().map_err(|_| wrong)?;
            Ok(Order::At(Some(moment.before(state.real_wall_ms))))
        }
        Verb::Act(_) if !rest.is_empty() => Err(format!("nothing follows `{word}`")),
        Verb::Act(action) => Ok(Order::Act(action)),
    }
}

/// A saved command by its name, which may have spaces, and `name=value` for its placeholders.
fn saved(state: &State, rest: &str) -> Result<Order, String> {
    let named = |saved: &&SavedCommand| {
        let after = rest.strip_prefix(saved.name.as_str());
        after.is_some_and(|after| after.is_empty() || after.starts_with(' '))
    };
    let longest = state.options.saved.iter().filter(named).max_by_key(|saved| saved.name.len());
    let Some(saved) = longest else { return Err(no_such("saved command", rest)) };
    let mut given = BTreeMap::new();
    let known = saved.parameters();
    for word in rest.get(saved.name.len()..).unwrap_or_default().split_whitespace() {
        let (name, value) = word.split_once('=').ok_or_else(|| format!("`{word}` is no name=value"))?;
        if !known.iter().any(|parameter| parameter.name == name) {
            return Err(format!("`{}` has no placeholder `{name}`", saved.name));
        }
        given.insert(name.to_owned(), value.to_owned());
    }
    Ok(Order::Saved(Box::new(saved.clone()), given))
}

fn no_such(what: &str, name: &str) -> String {
    if name.is_empty() { format!("which {what}?") } else { format!("there is no {what} `{name}`") }
}

fn split(line: &str) -> (&str, &str) {
    let line = line.trim_start();
    line.split_once(' ').map_or((line.trim_end(), ""), |(word, rest)| (word, rest.trim()))
}

/// Columns of the list that is shown, by name.
fn columns(state: &State) -> Vec<String> {
    if state.screen == Screen::Machines {
        let figures = crate::tui::state::fleet::Figure::ALL.map(|figure| figure.name().to_owned());
        let sorted = [Column::Name, Column::State].map(|column| column.word().to_owned());
        return figures.into_iter().chain(sorted).collect();
    }
    let columns = state.list_of_rows().map(ListKind::columns).unwrap_or_default();
    columns.iter().map(|column| column.name.to_owned()).collect()
}

/// What a line may become, the best first.
pub fn offers(state: &State, line: &str) -> Vec<Offer> {
    let entries = entries(state);
    let (word, rest) = split(line);
    let has_word = line.trim_start().contains(' ');
    let known = entries.iter().find(|entry| entry.word == word || entry.aliases.contains(&word));
    match known {
        Some(entry) if has_word => following(state, entry, rest),
        _ => {
            let words = entries.iter().map(|entry| (entry.word.to_owned(), entry));
            ranked(words, word).into_iter().map(|(line, entry)| offer(state, line, entry)).collect()
        }
    }
}

fn offer(state: &State, line: String, entry: &Entry) -> Offer {
    let mode = state.screen.mode();
    Offer { line, about: entry.about.to_owned(), key: key_of(state, mode, entry) }
}

/// The key that does the same.
fn key_of(state: &State, mode: Mode, entry: &Entry) -> Option<String> {
    let is_same = |action: Action| match (entry.verb, action) {
        (Verb::Go(Place::Machines), Action::Machines)
        | (Verb::Go(Place::Commands), Action::Commands)
        | (Verb::Run, Action::Run)
        | (Verb::Filter, Action::Filter)
        | (Verb::Columns, Action::Columns) => true,
        (Verb::Go(Place::List(kind)), Action::List(other)) => kind == other,
        (Verb::Act(wanted), other) => wanted == other,
        _ => false,
    };
    let bound = state.options.keymap.bindings(mode).find(|bound| is_same(bound.binding.action))?;
    bound.keys.first().map(|key| super::keymap::label(key))
}

/// What can follow a word.
fn following(state: &State, entry: &Entry, rest: &str) -> Vec<Offer> {
    let names: Vec<String> = match entry.verb {
        Verb::Machine => state.fleet.names().map(str::to_owned).collect(),
        Verb::Sort | Verb::Columns => columns(state),
        Verb::Theme => Tone::ALL.map(|tone| tone.name().to_owned()).into(),
        Verb::At => ["now", "-10m", "-1h", "-6h", "-24h"].map(str::to_owned).into(),
        Verb::Command => state.commands.newest().iter().map(|command| command.id.to_string()).collect(),
        Verb::Saved => state.options.saved.iter().map(|saved| saved.name.clone()).collect(),
        Verb::Go(_) | Verb::Run | Verb::Filter | Verb::Act(_) => Vec::new(),
    };
    if names.is_empty() {
        return vec![Offer {
            line: format!("{} {rest}", entry.word).trim_end().to_owned(),
            about: entry.about.to_owned(),
            key: None,
        }];
    }
    let (before, last) = match entry.verb {
        Verb::Columns => rest.rsplit_once([',', ' ']).map_or(("", rest), |(before, last)| (before, last)),
        _ => ("", rest),
    };
    let offers = ranked(names.into_iter().map(|name| (name, ())), last);
    let line = |name: &str| match before {
        "" => format!("{} {name}", entry.word),
        before => format!("{} {before},{name}", entry.word),
    };
    let about = |name: &str| match entry.verb {
        Verb::Command => {
            let id = name.parse().ok().and_then(|id| state.commands.get(id));
            id.map(|command| command.text.clone()).unwrap_or_default()
        }
        Verb::Saved => {
            let saved = state.options.saved.iter().find(|saved| saved.name == name);
            saved.map(|saved| text::line(&saved.text)).unwrap_or_default()
        }
        _ => String::new(),
    };
    offers.into_iter().map(|(name, ())| Offer { line: line(&name), about: about(&name), key: None }).collect()
}

/// Those that match, the best first; all of them as they are where nothing is written.
fn ranked<T>(names: impl IntoIterator<Item = (String, T)>, wanted: &str) -> Vec<(String, T)> {
    if wanted.is_empty() {
        return names.into_iter().take(OFFERS).collect();
    }
    let pattern = Pattern::new(wanted, CaseMatching::Ignore, Normalization::Never, AtomKind::Fuzzy);
    let mut matcher = Matcher::new(Config::DEFAULT);
    let mut letters = Vec::new();
    let mut scored: Vec<(u32, usize, String, T)> = names
        .into_iter()
        .filter_map(|(name, thing)| {
            let score = pattern.score(Utf32Str::new(&name, &mut letters), &mut matcher)?;
            // What begins like that was meant, however well something longer matches inside.
            let bonus = if name.starts_with(wanted) { 1_000 } else { 0 };
            Some((score + bonus, name.len(), name, thing))
        })
        .collect();
    scored.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)).then_with(|| a.2.cmp(&b.2)));
    scored.into_iter().take(OFFERS).map(|(_, _, name, thing)| (name, thing)).collect()
}

#[cfg(test)]
mod tests;
