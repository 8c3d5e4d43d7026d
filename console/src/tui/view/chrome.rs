//! What every screen has: header, rules, footer.

use ratatui::{Frame, buffer::Buffer, layout::Position};
use signalbox_schemas::{api::Severity, limit};
use unicode_width::UnicodeWidthStr as _;

use super::{
    amount,
    layout::{Areas, SMALLEST},
    past,
    pen::{self, Row},
};
use crate::tui::{
    keymap::{self, Action, Bound},
    lists::{self, ListKind, Tab, system},
    state::{Modal, Screen, State},
    text,
    theme::Theme,
};

/// Longest part of a command's text in the path, columns.
const PATH_COLUMNS: usize = 32;

/// Says that nothing can be drawn here.
pub(super) fn too_small(frame: &mut Frame<'_>, theme: &Theme) {
    let text = format!("needs {}x{}", SMALLEST.0, SMALLEST.1);
    let area = frame.area();
    Row::default().text(text, theme.warn).draw_in(frame.buffer_mut(), area, 0);
}

/// Where one is at the left; who, broker, bridge and time at the right.
pub(super) fn header(state: &State, areas: &Areas, buffer: &mut Buffer, theme: &Theme) {
    let titled = Row::margin().text("signalbox", theme.strong).space(2);
    let who = || Row::default().text(state.options.who.clone(), theme.quiet).space(3);
    let clock = || Row::default().space(3).row(clock(state, theme));
    let broker = || broker(state, theme);
    let held = if state.is_frozen { clock() } else { Row::default() };
    let past = past::header(state, theme);
    let choices = past.unwrap_or_else(|| {
        [
            who().row(broker()).space(3).row(bridge(state, theme)).row(clock()).space(1),
            who().row(broker()).row(clock()).space(1),
            broker().row(held).space(1),
        ]
    });
    let path = path(state, theme);
    let right = pen::fitting(choices, areas.header, titled.columns() + path.0.columns() + 2);
    let room = usize::from(areas.header.width).saturating_sub(right.columns() + 2);
    let (whole, last) = path;
    let left = if state.options.no_crumbs {
        titled
    } else if titled.columns() + whole.columns() <= room {
        titled.row(whole)
    } else if whole.columns() < room {
        Row::margin().row(whole)
    } else {
        Row::margin().row(last)
    };
    pen::ends(buffer, areas.header, 0, left, right);
    for area in areas.rules {
        pen::rule(buffer, area, theme);
    }
}

/// The moment that is shown, with a mark where that is not now.
fn clock(state: &State, theme: &Theme) -> Row {
    let clock = amount::clock(state.wall_ms);
    if state.is_frozen {
        return Row::default().text(format!("held at {clock}"), theme.chosen);
    }
    Row::default().text(clock, theme.quiet)
}

/// The path, and its last part alone.
fn path(state: &State, theme: &Theme) -> (Row, Row) {
    let separator = format!(" {} ", theme.glyphs.path);
    let mut parts = vec![state.options.fleet.clone()];
    match &state.screen {
        Screen::Pulse => parts.push("pulse".to_owned()),
        Screen::Machines => parts.push("machines".to_owned()),
        Screen::Machine(token) => {
            parts.push("machines".to_owned());
            parts.push(state.fleet.get(token).map_or_else(|| token.to_string(), |m| m.name.clone()));
        }
        Screen::Commands => parts.push("commands".to_owned()),
        Screen::Command(id) => {
            parts.push("commands".to_owned());
            parts.push(state.commands.get(*id).map_or_else(|| id.to_string(), |c| c.text.clone()));
        }
        Screen::Output(id, whose) => {
            let command = state.commands.get(*id);
            parts.push("commands".to_owned());
            let text = command.map_or_else(|| id.to_string(), |c| c.text.clone());
            parts.push(text::fit(&text, PATH_COLUMNS, theme.glyphs.ellipsis));
            parts.push(super::output::name(command, whose));
        }
        Screen::List(kind) => parts.push(kind.name().to_owned()),
        Screen::Item(ListKind::Of(tab), key) => {
            let name = state.one.token.as_ref().and_then(|token| state.fleet.get(token));
            parts.extend(name.map(|machine| machine.name.clone()));
            parts.push(lists::machine::word(*tab).to_owned());
            parts.push(text::line(key));
        }
        Screen::Item(kind, key) => {
            parts.push(kind.name().to_owned());
            parts.push(text::line(key));
        }
    }
    let last = parts.pop().unwrap_or_default();
    let fleet = parts.remove(0);
    let style = if state.options.is_protected { theme.bad } else { theme.quiet };
    let last = text::fit(&last, PATH_COLUMNS, theme.glyphs.ellipsis);
    let begin = Row::default().text(fleet, style);
    let whole = parts
        .into_iter()
        .fold(begin, |row, part| row.text(separator.clone(), theme.quiet).text(part, theme.quiet));
    let whole = whole.text(separator, theme.faint);
    (whole.text(last.clone(), theme.accent), Row::default().text(last, theme.accent))
}

fn broker(state: &State, theme: &Theme) -> Row {
    let [on, _, off] = theme.glyphs.liveness;
    if state.link.connected {
        let rtt = state.link.rtt_ms.map(|rtt_ms| format!(" {rtt_ms:.1}ms")).unwrap_or_default();
        let row = Row::default().text("broker ", theme.quiet).text(on, theme.good);
        return row.text(rtt, theme.quiet);
    }
    if state.is_session_over {
        return Row::default().text(format!("broker {off} connection ended"), theme.bad);
    }
    let since = amount::age(state.real_ms.saturating_sub(state.link_since_ms));
    let word = if state.snapshot_ms.is_none() { "connecting" } else { "not reached" };
    Row::default().text(format!("broker {off} {word} for {since}"), theme.bad)
}

fn bridge(state: &State, theme: &Theme) -> Row {
    let [on, _, off] = theme.glyphs.liveness;
    let since_ms = state.real_ms.saturating_sub(state.link_since_ms);
    match &state.link.bridge {
        Some(_) => {
            Row::default().text("bridge ", theme.quiet).text(on, theme.good).row(warnings(state, theme))
        }
        None if state.link.connected && since_ms > limit::FIRST_ANSWER_MS => {
            Row::default().text(format!("bridge {off} silent"), theme.bad)
        }
        None => Row::default().text(format!("bridge {off}"), theme.faint),
    }
}

/// How much a bridge says should be done.
fn warnings(state: &State, theme: &Theme) -> Row {
    let all = state.health.iter().flat_map(|health| &health.warnings);
    let serious: Vec<_> = all.filter(|warning| warning.severity > Severity::Info).collect();
    match serious.iter().map(|warning| warning.severity).max() {
        Some(worst) => {
            let (glyph, style) = theme.severity(system::shown(worst));
            Row::default().text(format!(" {glyph} {}", serious.len()), style)
        }
        None => Row::default(),
    }
}

/// The filter that is written, what happened, or the keys that matter here. Answers where the cursor is.
pub(super) fn footer(state: &State, areas: &Areas, buffer: &mut Buffer, theme: &Theme) -> Option<Position> {
    let area = areas.footer;
    if let Some(Modal::Filter { editor, .. }) = &state.modal {
        let columns = usize::from(area.width / 2);
        let (shown, at) = editor.window(columns);
        let line = Row::margin().text("/", theme.chosen).text(shown, theme.strong);
        pen::ends(buffer, area, 0, line, keys(state, usize::from(area.width) - columns - 4, theme));
        return Some(Position::new(area.x + 2 + u16::try_from(at).unwrap_or(0), area.y));
    }
    if let Some(Modal::Line(line)) = &state.modal {
        return Some(super::output::line(line, area, buffer, theme));
    }
    let right = super::output::place(state, theme).row(tried(state, usize::from(area.width) / 2, theme));
    let columns = usize::from(area.width).saturating_sub(right.columns());
    let line = match &state.status {
        Some(status) => {
            let (glyph, style) = theme.severity(status.severity);
            let text = text::fit(&status.text, columns.saturating_sub(4), theme.glyphs.ellipsis);
            Row::margin().text(glyph, style).space(1).text(text, style)
        }
        None => Row::margin().row(keys(state, columns.saturating_sub(2), theme)),
    };
    pen::ends(buffer, area, 0, line, right);
    None
}

/// What is tried while the broker is not reached.
fn tried(state: &State, columns: usize, theme: &Theme) -> Row {
    if state.link.connected || state.is_session_over || state.options.broker.is_empty() {
        return Row::default();
    }
    let columns = columns.saturating_sub(1);
    let address = text::line(&state.options.broker);
    // How it is spoken there says less than where.
    let short = address.split_once("://").map_or(address.as_str(), |(_, place)| place);
    let whole = format!("trying {address}");
    let said = if whole.width() <= columns { whole } else { format!("trying {short}") };
    Row::default().text(text::fit(&said, columns, theme.glyphs.ellipsis), theme.warn).space(1)
}

/// The keys of this mode that have a footer word, as many as fit. Help and quit are kept to the last.
fn keys(state: &State, columns: usize, theme: &Theme) -> Row {
    let mode = state.mode();
    let is_shown = |bound: &&Bound| {
        !bound.binding.footer.is_empty() && !bound.keys.is_empty() && is_of_use(state, bound.binding.action)
    };
    let mut bound: Vec<&Bound> = state.options.keymap.bindings(mode).filter(is_shown).collect();
    let all = |bound: &[&Bound]| {
        bound.iter().enumerate().fold(Row::default(), |row, (at, bound)| {
            let key = bound.keys.first().map(|key| keymap::label(key)).unwrap_or_default();
            let row = if at > 0 { row.space(2) } else { row };
            row.text(key, theme.accent).space(1).text(word(state, bound.binding), theme.quiet)
        })
    };
    while all(&bound).columns() > columns && !bound.is_empty() {
        let kept = |bound: &&Bound| matches!(bound.binding.action, Action::Help | Action::Quit);
        let at = bound.iter().rposition(|binding| !kept(binding)).unwrap_or(bound.len() - 1);
        bound.remove(at);
    }
    all(&bound)
}

/// Whether a key would do anything here.
fn is_of_use(state: &State, action: Action) -> bool {
    match (action, &state.screen) {
        _ if state.modal.is_some() => true,
        (Action::Machines, Screen::Machines)
        | (Action::Commands, Screen::Commands)
        | (Action::Pulse, Screen::Pulse) => false,
        (Action::List(kind), Screen::List(here)) => kind != *here,
        (Action::Cancel, Screen::Machine(_)) => {
            matches!(state.one.tab, Tab::Commands | Tab::Inbox | Tab::Config) && !state.one.is_charts
        }
        (Action::Back, Screen::Machines) => {
            let sight = state.sight();
            let is_bare = sight.filter().is_empty() && sight.marked() == 0 && state.under.is_empty();
            !is_bare || state.past.is_looked_at()
        }
        _ => true,
    }
}

/// What a key does here; a run says on how many.
fn word(state: &State, binding: &keymap::Binding) -> String {
    match (binding.action, &state.screen) {
        (Action::Run, Screen::Machines) if state.sight().marked() > 0 => {
            format!("run on {}", state.sight().marked())
        }
        (Action::Run, Screen::Command(_)) if state.fleet.marked() > 0 => {
            format!("run on {}", state.fleet.marked())
        }
        (Action::Back, Screen::Machines) if state.modal.is_none() && state.past.is_looked_at() => {
            "now".to_owned()
        }
        (Action::Back, Screen::Machines) if state.modal.is_none() => "clear".to_owned(),
        _ => binding.footer.to_owned(),
    }
}
