//! A command that is being written, with those it is meant for.

use ratatui::{
    buffer::Buffer,
    layout::{Position, Rect},
    style::Style,
    widgets::{Clear, Widget as _},
};
use signalbox_schemas::{api::Liveness, id::MachineToken};
use unicode_width::UnicodeWidthStr as _;

use super::{amount, past, pen::Row};
use crate::tui::{
    state::{
        State,
        editor::Editor,
        prompt::{Field, Prompt, Search, Seen},
        survey::Survey,
    },
    text,
    theme::Theme,
};

/// Columns of the words at the left.
const WORD_COLUMNS: u16 = 9;
/// Widest box.
const MOST_COLUMNS: u16 = 100;
/// Most rows of a list in it.
const LISTED_ROWS: usize = 12;
/// What stands where no waves are written.
const WAVES: &str = "all at once; or such as: canary 1, 5%, 25%, pause after 2%";

/// One line of the box.
struct Line {
    field: Option<Field>,
    row: Row,
    /// Where the cursor is, if it is on this line: columns from the left.
    cursor: Option<usize>,
}

/// Draws it over the screen; answers where the cursor is.
pub(super) fn draw(state: &State, prompt: &Prompt, buffer: &mut Buffer, theme: &Theme) -> Option<Position> {
    let columns = state.size.0.saturating_sub(4).min(MOST_COLUMNS);
    let width = usize::from(columns.saturating_sub(4));
    let (title, lines, focus) = if let Some(search) = &prompt.search {
        let rows = LISTED_ROWS.min(usize::from(state.size.1.saturating_sub(7))).max(1);
        ("look for an earlier text".to_owned(), searching(search, rows, width, theme), 0)
    } else {
        let lines = written(state, prompt, width, theme);
        let focus = lines.iter().position(|line| line.field == Some(prompt.field)).unwrap_or(0);
        (title(state, prompt), lines, focus)
    };
    let last = last_line(state, prompt, width, theme);
    let wanted = u16::try_from(lines.len() + 3).unwrap_or(u16::MAX);
    let area = boxed(state, columns, wanted, &title, buffer, theme);
    let inner = Rect { x: area.x + 2, y: area.y + 1, width: area.width - 4, height: area.height - 2 };
    // Where not all of it has room: what is written on, and what is said about it.
    let rows = usize::from(inner.height.saturating_sub(1)).max(1);
    let top = (focus + 1).saturating_sub(rows).min(lines.len().saturating_sub(rows));
    let mut cursor = None;
    for (y, line) in (0..).zip(lines.into_iter().skip(top).take(rows)) {
        if let Some(x) = line.cursor.filter(|_| prompt.asked.is_none()) {
            let x = inner.x + u16::try_from(x).unwrap_or(0);
            cursor = Some(Position::new(x.min(inner.right()), inner.y + y));
        }
        line.row.draw_in(buffer, inner, y);
    }
    last.draw_in(buffer, inner, inner.height.saturating_sub(1));
    cursor
}

fn title(state: &State, prompt: &Prompt) -> String {
    let machines = match (prompt.targets.as_slice(), &prompt.seen) {
        ([], _) => text::line(prompt.on.text()),
        ([one], _) => name(state, one).to_owned(),
        (several, Seen::Guessed | Seen::Asked(_)) => format!("about {}", amount::machines(several.len())),
        (several, _) => amount::machines(several.len()),
    };
    let verb = if prompt.retry_of.is_some() { "run again" } else { "run" };
    match &prompt.ssh {
        Some(ssh) => format!("{verb} on {} via {machines}", text::line(&ssh.to_string())),
        None => format!("{verb} on {machines}"),
    }
}

fn name<'a>(state: &'a State, token: &'a MachineToken) -> &'a str {
    state.fleet.get(token).map_or(token.as_str(), |machine| machine.name.as_str())
}

/// All lines but the last one.
fn written(state: &State, prompt: &Prompt, width: usize, theme: &Theme) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for field in prompt.fields() {
        if field == Field::Answer {
            continue;
        }
        lines.push(line(prompt, field, width, theme));
        match field {
            Field::On => {
                let row = word("", false, theme).row(meant(
                    state,
                    prompt,
                    width.saturating_sub(usize::from(WORD_COLUMNS)),
                    theme,
                ));
                lines.push(Line { field: None, row, cursor: None });
                lines.extend(listed(state, prompt, width, theme));
            }
            Field::Parameter(at) if at + 1 == prompt.parameters.len() => {
                let text = prompt.text().unwrap_or_default();
                let text =
                    text::fit(&text, width.saturating_sub(usize::from(WORD_COLUMNS)), theme.glyphs.ellipsis);
                let row = word("runs", false, theme).text(text, theme.quiet);
                lines.push(Line { field: None, row, cursor: None });
            }
            _ => {}
        }
    }
    if prompt.reason().is_some() {
        lines.push(answer(prompt, width, theme));
    }
    lines
}

/// Where the number of machines is typed.
fn answer(prompt: &Prompt, width: usize, theme: &Theme) -> Line {
    let has_focus = prompt.field == Field::Answer;
    let row = word("confirm", has_focus, theme).text(format!("type {}: ", prompt.targets.len()), theme.warn);
    let (shown, at) = prompt.answer.window(width.saturating_sub(row.columns()));
    let cursor = has_focus.then_some(row.columns() + at);
    Line { field: Some(Field::Answer), row: row.text(shown, theme.strong), cursor }
}

fn word(word: &str, has_focus: bool, theme: &Theme) -> Row {
    let style = if has_focus { theme.accent } else { theme.quiet };
    let columns = usize::from(WORD_COLUMNS);
    Row::default().text(text::fit(word, columns - 1, theme.glyphs.ellipsis), style).up_to(columns)
}

/// One line that is written on, or chosen from.
fn line(prompt: &Prompt, field: Field, width: usize, theme: &Theme) -> Line {
    let has_focus = prompt.field == field;
    let room = width.saturating_sub(usize::from(WORD_COLUMNS));
    let edited = |name: &str, editor: &Editor, style: Style, hint: &str| {
        let (shown, at) = editor.window(room);
        let row = word(name, has_focus, theme);
        let row = match (shown.is_empty(), has_focus) {
            (true, _) => row.text(text::fit(hint, room, theme.glyphs.ellipsis), theme.faint),
            (false, _) => row.text(shown, style),
        };
        Line { field: Some(field), row, cursor: has_focus.then_some(usize::from(WORD_COLUMNS) + at) }
    };
    let chosen = |name: &str, text: String| {
        let [before, after] = if has_focus { theme.glyphs.choice } else { ["", ""] };
        let style = if has_focus { theme.accent } else { theme.text };
        let row = word(name, has_focus, theme).text(format!("{before}{text}{after}"), style);
        Line { field: Some(field), row, cursor: None }
    };
    match field {
        Field::Command => edited("command", &prompt.command, theme.strong, "what to run"),
        Field::Parameter(at) => match prompt.parameters.get(at) {
            Some((name, editor)) => edited(name, editor, theme.strong, "what stands for it"),
            None => chosen("", String::new()),
        },
        Field::On => edited("on", &prompt.on, theme.text, "which machines"),
        Field::Waves => edited("waves", &prompt.waves, theme.text, WAVES),
        Field::Timeout => chosen("timeout", amount::timeout(prompt.timeout_ms)),
        Field::Wait => chosen("waits", format!("{} for the offline", amount::timeout(prompt.wait_ms))),
        Field::Answer => edited("", &prompt.answer, theme.strong, ""),
    }
}

/// How many machines, how they are and where; or why that is not known.
fn meant(state: &State, prompt: &Prompt, columns: usize, theme: &Theme) -> Row {
    match &prompt.seen {
        Seen::Failed(why) => {
            let [_, warn, _] = theme.glyphs.severity;
            let text = text::fit(why, columns.saturating_sub(2), theme.glyphs.ellipsis);
            return Row::default().text(format!("{warn} {text}"), theme.warn);
        }
        Seen::Guessed | Seen::Asked(_) if prompt.targets.is_empty() => {
            return Row::default().text("no machine that is known here", theme.quiet);
        }
        _ => {}
    }
    let survey = prompt.survey.as_ref();
    let row = survey.map(|survey| liveness(survey, theme)).unwrap_or_default();
    let room = columns.saturating_sub(row.columns() + 2);
    let places = survey.and_then(|survey| places(survey, room, theme));
    let names = places.unwrap_or_else(|| names(state, prompt, room, theme));
    if row.columns() + 2 + names.width() <= columns { row.space(2).text(names, theme.quiet) } else { row }
}

fn liveness(survey: &Survey, theme: &Theme) -> Row {
    let counts = survey.counts;
    let parts = [
        (Liveness::Online, counts.online),
        (Liveness::Stale, counts.stale),
        (Liveness::Offline, counts.offline),
    ];
    parts.into_iter().filter(|(_, n)| *n > 0).fold(Row::default(), |row, (liveness, n)| {
        let (glyph, style) = theme.liveness(liveness);
        let row = if row.columns() > 0 { row.space(2) } else { row };
        row.text(format!("{glyph} {n} {}", liveness.as_str()), style)
    })
}

/// Where they are, most machines first; `None`: nobody says of any of them. What has no room is counted.
fn places(survey: &Survey, columns: usize, theme: &Theme) -> Option<String> {
    if survey.places.is_empty() {
        return None;
    }
    let mut parts: Vec<String> = survey.places.iter().map(|(n, place)| format!("{place} {n}")).collect();
    parts.extend((survey.elsewhere > 0).then(|| format!("{} elsewhere", survey.elsewhere)));
    let between = format!(" {} ", theme.glyphs.dot);
    let all = parts.join(&between);
    if all.width() <= columns {
        return Some(all);
    }
    let mut shown = String::new();
    for (at, part) in parts.iter().enumerate() {
        let more = format!("{between}{} more", parts.len() - at);
        let gap = if at > 0 { between.as_str() } else { "" };
        if shown.width() + gap.width() + part.width() + more.width() > columns {
            return (at > 0).then_some(shown + &more);
        }
        shown += gap;
        shown += part;
    }
    Some(shown)
}

/// As many names as have room.
fn names(state: &State, prompt: &Prompt, columns: usize, theme: &Theme) -> String {
    let mut names = String::new();
    for (at, token) in prompt.targets.iter().enumerate() {
        let name = name(state, token);
        let more = format!(" and {} more", prompt.targets.len() - at);
        let is_last = at + 1 == prompt.targets.len();
        let room = columns.saturating_sub(if is_last { 0 } else { more.width() });
        if at > 0 && names.width() + 1 + name.width() > room {
            return names + &more;
        }
        if at > 0 {
            names.push(' ');
        }
        names.push_str(&text::fit(name, room, theme.glyphs.ellipsis));
    }
    names
}

/// The machines one by one, those that were not heard first.
fn listed(state: &State, prompt: &Prompt, width: usize, theme: &Theme) -> Vec<Line> {
    let Some(top) = prompt.listed else { return vec![] };
    let room = width.saturating_sub(usize::from(WORD_COLUMNS));
    let shown = prompt.targets.iter().skip(top).take(LISTED_ROWS);
    let mut lines: Vec<Line> = shown
        .map(|token| {
            let row = word("", false, theme);
            let row = match state.fleet.get(token) {
                Some(machine) => {
                    let (glyph, style) = theme.liveness(machine.state(state.now_ms));
                    let heard =
                        machine.age_ms(state.now_ms).map(|ms| format!("  heard {} ago", amount::age(ms)));
                    let name = text::fit(&machine.name, room.saturating_sub(20), theme.glyphs.ellipsis);
                    row.text(glyph, style)
                        .space(1)
                        .text(name, theme.text)
                        .text(heard.unwrap_or_default(), theme.quiet)
                }
                None => row.space(2).text(token.as_str().to_owned(), theme.text),
            };
            Line { field: None, row, cursor: None }
        })
        .collect();
    let below = prompt.targets.len().saturating_sub(top + lines.len());
    if below > 0 {
        let row = word("", false, theme).text(format!("and {below} more: page down"), theme.quiet);
        lines.push(Line { field: None, row, cursor: None });
    }
    lines
}

/// What is wrong, or what is being waited for.
fn last_line(state: &State, prompt: &Prompt, width: usize, theme: &Theme) -> Row {
    if let Some(refusal) = &prompt.refusal {
        // Of an error that marks a place the last line says what to do.
        let line = refusal.lines().last().unwrap_or_default();
        let text = text::fit(line, width.saturating_sub(2), theme.glyphs.ellipsis);
        let [_, _, bad] = theme.glyphs.severity;
        return Row::default().text(format!("{bad} {text}"), theme.bad);
    }
    match (prompt.asked, &prompt.seen) {
        (Some(_), _) | (None, Seen::Asked(_)) if !state.link.connected => {
            Row::default().text("sent; the broker is not reached", theme.warn)
        }
        (Some(_), _) => Row::default().text("asking the bridge", theme.accent),
        (None, Seen::Asked(_)) => Row::default().text("looking which machines that means", theme.accent),
        (None, _) => match prompt.reason() {
            Some(reason) => {
                let text = text::fit(&reason.to_string(), width.saturating_sub(2), theme.glyphs.ellipsis);
                let [_, warn, _] = theme.glyphs.severity;
                Row::default().text(format!("{warn} {text}"), theme.warn)
            }
            None => past::on_the_prompt(state, theme),
        },
    }
}

/// Earlier texts, and the words that are looked for in them.
fn searching(search: &Search, rows: usize, width: usize, theme: &Theme) -> Vec<Line> {
    let (shown, at) = search.editor.window(width.saturating_sub(2));
    let row = Row::default().text("/ ", theme.chosen).text(shown, theme.strong);
    let mut lines = vec![Line { field: None, row, cursor: Some(2 + at) }];
    let top = (search.chosen + 1).saturating_sub(rows);
    for (at, text) in search.found.iter().enumerate().skip(top).take(rows) {
        let is_chosen = at == search.chosen;
        let gutter = if is_chosen { theme.glyphs.cursor } else { " " };
        let style = if is_chosen { theme.accent } else { theme.text };
        let text = text::fit(text, width.saturating_sub(1), theme.glyphs.ellipsis);
        let row = Row::default().text(gutter, theme.accent).text(text, style);
        lines.push(Line { field: None, row, cursor: None });
    }
    if search.found.is_empty() {
        let row = Row::margin().text("no text has these words in it", theme.faint);
        lines.push(Line { field: None, row, cursor: None });
    }
    lines
}

/// An empty box in the upper half of the screen; answers where it is.
pub(super) fn boxed(
    state: &State,
    columns: u16,
    rows: u16,
    title: &str,
    buffer: &mut Buffer,
    theme: &Theme,
) -> Rect {
    let (width, height) = state.size;
    let (columns, rows) = (columns.min(width), rows.min(height.saturating_sub(2)));
    let area = Rect::new((width - columns) / 2, 1 + (height - rows - 2) / 3, columns, rows);
    let [top_left, top_right, bottom_left, bottom_right] = theme.glyphs.corners;
    Clear.render(area, buffer);
    let inside = usize::from(columns.saturating_sub(2));
    let title = text::fit(title, inside.saturating_sub(4), theme.glyphs.ellipsis);
    let rest = inside.saturating_sub(title.width() + 3);
    Row::default()
        .text(format!("{top_left}{} ", theme.glyphs.rule), theme.accent)
        .text(title, theme.accent)
        .text(format!(" {}{top_right}", theme.glyphs.rule.repeat(rest)), theme.accent)
        .draw_in(buffer, area, 0);
    for line in 1..rows.saturating_sub(1) {
        Row::default()
            .text(theme.glyphs.wall, theme.accent)
            .space(inside)
            .text(theme.glyphs.wall, theme.accent)
            .draw_in(buffer, area, line);
    }
    Row::default()
        .text(format!("{bottom_left}{}{bottom_right}", theme.glyphs.rule.repeat(inside)), theme.accent)
        .draw_in(buffer, area, rows - 1);
    area
}
