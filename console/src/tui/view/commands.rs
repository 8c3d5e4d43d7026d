//! All commands: one row each, newest first.

use ratatui::{buffer::Buffer, style::Style};
use signalbox_schemas::rollout::RolloutState;
use unicode_width::UnicodeWidthStr as _;

use super::{
    amount,
    layout::Areas,
    pen::{self, Row},
};
use crate::tui::{
    state::{
        State,
        command::{Command, Run},
    },
    theme::Theme,
};

/// Cursor, state glyph and a space.
const GUTTER_COLUMNS: usize = 3;
const STATE_COLUMNS: usize = 9;
const COUNT_COLUMNS: usize = 7;
const AGE_COLUMNS: usize = 4;
const ON_COLUMNS: usize = 18;
const BY_COLUMNS: usize = 10;
/// From these widths on the columns are there.
const WITH_ON_COLUMNS: usize = 70;
const WITH_BY_COLUMNS: usize = 90;

/// Draws the list.
pub(super) fn draw(state: &State, areas: &Areas, buffer: &mut Buffer, theme: &Theme) {
    let columns = usize::from(areas.list.width);
    heads(state, columns, theme).draw_in(buffer, areas.lead, 0);
    let cursor = &state.commands.cursor;
    for (line, command) in (0..areas.list.height).zip(state.commands.seen().skip(cursor.top())) {
        let is_here = cursor.key() == Some(&command.id);
        row(state, command, None, is_here, columns, theme).draw_in(buffer, areas.list, line);
    }
    if state.commands.order().is_empty() {
        let text = if state.commands.is_empty() {
            "no commands yet: mark machines and press x"
        } else {
            "no command matches the filter; esc clears it"
        };
        Row::margin().space(2).text(text, theme.quiet).draw_in(buffer, areas.list, 1);
    }
}

fn text_columns(columns: usize) -> usize {
    let fixed = GUTTER_COLUMNS + STATE_COLUMNS + 1 + COUNT_COLUMNS + 2 + AGE_COLUMNS + 3;
    let on = if columns >= WITH_ON_COLUMNS { ON_COLUMNS + 2 } else { 0 };
    let by = if columns >= WITH_BY_COLUMNS { BY_COLUMNS + 2 } else { 0 };
    columns.saturating_sub(fixed + on + by)
}

fn heads(state: &State, columns: usize, theme: &Theme) -> Row {
    let title = if state.commands.is_stale() {
        "command   may be old: no bridge tells of them".to_owned()
    } else if let Some(problem) = state.commands.filter_problem() {
        format!("command   /{} {problem}", state.commands.filter())
    } else if state.commands.filter().is_empty() {
        "command".to_owned()
    } else {
        let (seen, all) = (state.commands.order().len(), state.commands.len());
        format!("command   /{} {seen} of {all}", state.commands.filter())
    };
    let style = match (state.commands.is_stale(), state.commands.filter().is_empty()) {
        (true, _) => theme.bad,
        (false, true) => theme.quiet,
        (false, false) if state.commands.filter_problem().is_some() => theme.bad,
        (false, false) => theme.chosen,
    };
    let mut row = Row::default()
        .space(GUTTER_COLUMNS)
        .text(pen::padded("state", STATE_COLUMNS + 1, theme), theme.quiet)
        .text(pen::padded("done", COUNT_COLUMNS + 2, theme), theme.quiet)
        .text(pen::padded(&title, text_columns(columns), theme), style);
    if columns >= WITH_ON_COLUMNS {
        row = row.space(2).text(pen::padded("on", ON_COLUMNS, theme), theme.quiet);
    }
    if columns >= WITH_BY_COLUMNS {
        row = row.space(2).text(pen::padded("by", BY_COLUMNS, theme), theme.quiet);
    }
    row.space(2).text(format!("{:>AGE_COLUMNS$}", "age"), theme.quiet)
}

/// Its text, and behind it how far it has spread while it does.
fn what_it_is(command: &Command, columns: usize, style: Style, theme: &Theme) -> Row {
    let spreads = command.rollout.as_ref().filter(|_| command.is_open());
    let Some(rollout) = spreads else {
        return Row::default().text(pen::padded(&command.text, columns, theme), style);
    };
    let (word, wave_style) = match rollout.state {
        RolloutState::Going => ("wave", theme.quiet),
        RolloutState::Paused => ("paused in wave", theme.warn),
        RolloutState::Aborted => ("aborted in wave", theme.bad),
    };
    let wave = format!("  {word} {} of {}", rollout.wave, rollout.waves);
    let room = columns.saturating_sub(wave.width());
    Row::default().text(pen::padded(&command.text, room, theme), style).text(wave, wave_style).up_to(columns)
}

/// One command; with a run, what became of that run.
pub(super) fn row(
    state: &State,
    command: &Command,
    run: Option<&Run>,
    is_here: bool,
    columns: usize,
    theme: &Theme,
) -> Row {
    let what = run.map_or_else(|| command.state(), |run| run.state);
    let (glyph, style) = theme.run(what);
    let (settled, all) = command.progress();
    let done = match run {
        Some(run) if !run.outcome.is_empty() => run.outcome.clone(),
        _ => format!("{settled}/{all}"),
    };
    let text_style = if is_here { theme.accent } else { theme.text };
    let mut row = Row::default()
        .text(if is_here { theme.glyphs.cursor } else { " " }, theme.accent)
        .text(glyph, style)
        .space(1)
        .text(pen::padded(what.as_str(), STATE_COLUMNS, theme), style)
        .space(1)
        .text(pen::padded(&done, COUNT_COLUMNS, theme), theme.text)
        .space(2)
        .row(what_it_is(command, text_columns(columns), text_style, theme));
    if columns >= WITH_ON_COLUMNS {
        row = row.space(2).text(pen::padded(&command.place, ON_COLUMNS, theme), theme.quiet);
    }
    if columns >= WITH_BY_COLUMNS {
        row = row.space(2).text(pen::padded(&command.by, BY_COLUMNS, theme), theme.quiet);
    }
    let age = amount::age(state.wall_ms.saturating_sub(command.created_at));
    row.space(2).text(format!("{age:>AGE_COLUMNS$}"), theme.quiet)
}
