//! An output that fills the screen.
//!
//! The first columns are the console's: what it says itself is marked there, and no machine can write there.

use std::borrow::Cow;

use ratatui::{buffer::Buffer, layout::Position, layout::Rect, style::Style};
use signalbox_schemas::{id::CommandId, output::OutputStream};
use unicode_width::UnicodeWidthStr as _;

use super::{
    amount,
    layout::Areas,
    painted::{self, Part},
    pen::{self, Row},
};
use crate::tui::{
    needle::Needle,
    state::{
        About, Line, Modal, Screen, State,
        command::Command,
        output::{
            Streams, Whose, kept,
            source::Voice,
            window::{self, Top},
        },
    },
    text,
    theme::Theme,
};

/// Columns of the gutter.
const GUTTER_COLUMNS: usize = 3;
/// Columns of a time.
const TIME_COLUMNS: usize = 9;
/// Columns of a line's number, and of the bytes before a line.
const NUMBER_COLUMNS: [usize; 2] = [8, 13];
/// Widest machine name before a merged line.
const NAME_COLUMNS: usize = 16;
/// Most places in a line that are marked.
const MOST_PLACES: usize = 100;

/// What it is called.
pub(super) fn name(command: Option<&Command>, whose: &Whose) -> String {
    match whose {
        Whose::All => "output of all".to_owned(),
        Whose::One(machine) => {
            let run = command.and_then(|command| command.run_on(machine));
            let name = run.map_or_else(|| text::line(machine.as_str()), |run| run.name.clone());
            format!("output of {name}")
        }
    }
}

/// Columns beside the text.
pub(super) fn beside(state: &State) -> usize {
    let look = state.output.look;
    let time = if look.has_times { TIME_COLUMNS } else { 0 };
    GUTTER_COLUMNS + time + number_columns(state) + name_columns(state).map_or(0, |columns| columns + 3)
}

fn number_columns(state: &State) -> usize {
    let [lines, bytes] = NUMBER_COLUMNS;
    match (state.output.look.has_numbers, &state.output.stored) {
        (false, _) => 0,
        (true, None) => lines,
        (true, Some(_)) => bytes,
    }
}

/// Columns of the machine names before merged lines; `None`: all lines are of one machine.
fn name_columns(state: &State) -> Option<usize> {
    let Screen::Output(id, Whose::All) = &state.screen else { return None };
    let command = state.commands.get(*id).filter(|command| command.progress().1 > 1)?;
    Some(command.runs().map(|run| run.name.width()).max().unwrap_or(0).min(NAME_COLUMNS))
}

/// Draws the output.
pub(super) fn draw(
    state: &State,
    id: CommandId,
    whose: &Whose,
    areas: &Areas,
    buffer: &mut Buffer,
    theme: &Theme,
) {
    let Some(command) = state.commands.get(id) else {
        let text = "this command is not known any more";
        Row::margin().text(text, theme.quiet).draw_in(buffer, areas.lead, 0);
        return;
    };
    lead(state, command, whose, areas.lead, buffer, theme);
    let area = areas.list;
    let output = &state.output;
    let (names, needle) = (name_columns(state), needle(state));
    let here = output.here().map(|line| line.key);
    for (at, row) in (0..).zip(&output.window.rows) {
        let is_here = Some(row.line.key) == here;
        line_row(state, command, row, (names, needle.as_deref()), is_here, theme).draw_in(buffer, area, at);
    }
    if let Some((text, style)) = note(state, command, theme) {
        // Where nothing is missing at the top, it is at the bottom that it is missing.
        let rows = u16::try_from(output.window.rows.len()).unwrap_or(u16::MAX);
        let at = rows.min(area.height.saturating_sub(1));
        let room = usize::from(area.width).saturating_sub(GUTTER_COLUMNS);
        let text = text::fit(&text, room, theme.glyphs.ellipsis);
        let columns = text::fit(&" ".repeat(room), room, ' ');
        Row::default().space(GUTTER_COLUMNS).text(columns, theme.text).draw_in(buffer, area, at);
        own(theme).text(text, style).draw_in(buffer, area, at);
    }
}

/// The gutter before what the console says itself.
fn own(theme: &Theme) -> Row {
    let [_, mark, _] = theme.glyphs.severity;
    Row::default().space(1).text(mark, theme.chosen).space(1)
}

/// What is said in place of lines.
fn note(state: &State, command: &Command, theme: &Theme) -> Option<(String, Style)> {
    let output = &state.output;
    let failure = output.stored.as_ref().and_then(|stored| stored.pages.failure());
    if let Some(failure) = failure.filter(|_| output.window.is_reading || output.window.rows.is_empty()) {
        let again = state.options.keymap.bindings(state.screen.mode());
        let key = again.filter(|bound| bound.binding.name == "refresh").find_map(|bound| bound.keys.first());
        let again =
            key.map_or_else(String::new, |key| format!("; {} asks again", crate::tui::keymap::label(key)));
        return Some((format!("cannot be read: {failure}{again}"), theme.bad));
    }
    if output.window.is_reading {
        return Some(("reading".to_owned(), theme.quiet));
    }
    if !output.window.rows.is_empty() {
        return None;
    }
    let is_open = output.run(command).map_or_else(|| command.is_open(), |run| !run.state.is_settled());
    let text = match (output.is_only_found, is_open) {
        (true, _) => "no line has it",
        (false, true) => "no output yet",
        (false, false) => "no output",
    };
    Some((text.to_owned(), theme.faint))
}

/// Whose output it is and how that went; what is seen of it, and what is looked for.
fn lead(state: &State, command: &Command, whose: &Whose, area: Rect, buffer: &mut Buffer, theme: &Theme) {
    let output = &state.output;
    let run = output.run(command);
    let (glyph, style) = theme.run(run.map_or_else(|| command.state(), |run| run.state));
    let mut left = Row::margin().text(glyph, style).space(1);
    left = match run {
        Some(run) => {
            let word = if run.outcome.is_empty() { run.state.to_string() } else { run.outcome.clone() };
            left.text(run.name.clone(), theme.strong).space(2).text(word, style)
        }
        None => left.text(name(Some(command), whose), theme.strong),
    };
    if run.is_some_and(|run| run.is_truncated) {
        left = left.space(2).text("cut by the machine", theme.warn);
    }
    let dropped = output.lines(command).dropped_bytes();
    if output.stored.is_none() && dropped > 0 {
        left = left.space(2).text(format!("{} dropped", amount::bytes(dropped)), theme.warn);
    }
    let word = |row: Row, text: String| {
        let row =
            if row.columns() > 0 { row.text(format!(" {} ", theme.glyphs.dot), theme.faint) } else { row };
        row.text(text, theme.quiet)
    };
    let mut right = Row::default();
    if let Some(found) = found(state) {
        right = right.text(found, theme.chosen);
    }
    if output.is_only_found {
        right = word(right, "only these".to_owned());
    }
    if let Streams::Only(stream) = output.streams {
        right = word(right, kept::name(stream).to_owned());
    }
    if output.skipped > 0 {
        right = word(right, format!("from column {}", output.skipped + 1));
    }
    if output.top == Top::Follow && command.is_open() {
        right = word(right, "following".to_owned());
    }
    pen::ends(buffer, area, 0, left, right.space(1));
}

/// What is looked for and how often it was found, or how far it was looked.
fn found(state: &State) -> Option<String> {
    let output = &state.output;
    let search = output.search.as_ref()?;
    let is_through = output.stored.as_ref().is_none_or(|stored| search.is_through(stored));
    let total = output.stored.as_ref().and_then(|stored| stored.pages.total());
    if let Some(total) = total.filter(|_| search.is_seeking() || output.is_only_found && !is_through) {
        let part = amount::part(search.searched_bytes().min(total), total).replace('/', " of ");
        return Some(format!("searched {part}"));
    }
    let count = search.count(is_through);
    Some(format!("{}: {count}", text::fit(&search.text, NAME_COLUMNS, '~')))
}

fn line_row(
    state: &State,
    command: &Command,
    row: &window::Row,
    (names, needle): (Option<usize>, Option<&Needle>),
    is_here: bool,
    theme: &Theme,
) -> Row {
    let (line, look) = (&row.line, state.output.look);
    let is_first = row.nth == 0;
    let (mark, mark_style, style) = match line.voice {
        Voice::Machine(OutputStream::Stdout) => (" ", theme.text, theme.text),
        Voice::Machine(OutputStream::Stderr) => ("e", theme.warn, theme.warn),
        Voice::Own => (theme.glyphs.severity[1], theme.chosen, theme.faint),
    };
    let cursor = if is_here && is_first { theme.glyphs.cursor } else { " " };
    let mut drawn = Row::default().text(cursor, theme.accent).text(mark, mark_style).space(1);
    if look.has_times {
        let time = line.received_ms.filter(|_| is_first).map(amount::clock).unwrap_or_default();
        let time = time.trim_end_matches('Z').to_owned();
        drawn = drawn.text(pen::padded(&time, TIME_COLUMNS, theme), theme.faint);
    }
    if look.has_numbers {
        let columns = number_columns(state).saturating_sub(1);
        let number = if is_first { line.number.to_string() } else { String::new() };
        drawn = drawn.text(format!("{number:>columns$} "), theme.faint);
    }
    if let Some(columns) = names {
        let run = line.run.and_then(|at| command.run_at(at));
        let name = run.map_or("", |run| run.name.as_str());
        drawn = drawn
            .text(pen::padded(name, columns, theme), theme.quiet)
            .text(format!(" {} ", theme.glyphs.wall), theme.faint);
    }
    let room = usize::from(state.size.0).saturating_sub(drawn.columns());
    let places = needle.map(|needle| needle.places(&line.text, MOST_PLACES)).unwrap_or_default();
    if state.output.look.wraps {
        return drawn.row(painted::piece(&line.text, line.strokes(), &places, row.bytes, style, theme));
    }
    let part = Part { skipped: state.output.skipped, room };
    drawn.row(painted::row(&line.text, line.strokes(), &places, part, style, theme))
}

/// What is marked: what is being written, else what was looked for. Once for a frame: an expression is dear to read.
fn needle(state: &State) -> Option<Cow<'_, Needle>> {
    match &state.modal {
        Some(Modal::Line(Line { about: About::Search, editor, .. })) => {
            Some(Cow::Owned(Needle::new(editor.text())))
        }
        _ => state.output.search.as_ref().map(|search| Cow::Borrowed(&search.needle)),
    }
}

/// The line that is being written, in the footer; answers where its cursor is.
pub(super) fn line(line: &Line, area: Rect, buffer: &mut Buffer, theme: &Theme) -> Position {
    let sign = match line.about {
        About::Search => "/",
        About::Save => "save to ",
        About::Percent => "percent ",
    };
    let problem = line.problem.as_deref().unwrap_or_default();
    let columns = usize::from(area.width).saturating_sub(sign.width() + 3);
    let columns = columns.saturating_sub(problem.width().min(columns / 2) + 1).max(1);
    let (shown, at) = line.editor.window(columns);
    let left = Row::margin().text(sign, theme.chosen).text(shown, theme.strong);
    let room = usize::from(area.width).saturating_sub(left.columns() + 2);
    let right = Row::default().text(text::fit(problem, room, theme.glyphs.ellipsis), theme.bad).space(1);
    pen::ends(buffer, area, 0, left, right);
    Position::new(area.x + 1 + u16::try_from(sign.width() + at).unwrap_or(0), area.y)
}

/// How far one has got, and what is being saved; nothing on other screens.
pub(super) fn place(state: &State, theme: &Theme) -> Row {
    let Screen::Output(id, _) = &state.screen else { return Row::default() };
    let Some(command) = state.commands.get(*id) else { return Row::default() };
    let (percent, bytes) = state.output.place(command);
    let mut row = Row::default();
    if let Some(saving) = &state.saving {
        let part = amount::part(saving.bytes.min(saving.of), saving.of.max(1));
        row = row.text(format!("saving {part}"), theme.chosen).space(2);
    }
    row.text(format!("{percent}% of {}", amount::bytes(bytes)), theme.quiet).space(1)
}
