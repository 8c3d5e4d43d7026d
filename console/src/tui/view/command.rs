//! One command: its runs at the left, their output at the right. On a narrow screen one of the two.

use ratatui::{buffer::Buffer, layout::Rect, style::Style};
use signalbox_schemas::{id::CommandId, output::OutputStream, rollout::RolloutState, run::RunState};
use unicode_width::UnicodeWidthStr as _;

use super::{
    amount,
    layout::Areas,
    painted::{self, Part},
    pen::{self, Row},
};
use crate::tui::{
    state::{
        State,
        command::{Command, Run},
        diff::{Diff, Tag},
        folds::Group,
        page::{CommandPage, Focus, Row as PageRow, Scroll},
        scrollback::{Line, Scrollback},
    },
    text,
    theme::Theme,
};

/// With less room than this nothing is said about why a command spreads no further.
const WHY_COLUMNS: usize = 14;
/// Widest machine name before a merged line.
const PREFIX_COLUMNS: usize = 16;

/// Draws one command.
pub(super) fn draw(state: &State, id: CommandId, areas: &Areas, buffer: &mut Buffer, theme: &Theme) {
    let Some(command) = state.commands.get(id) else {
        let text = "this command is not known any more";
        Row::margin().space(2).text(text, theme.quiet).draw_in(buffer, areas.lead, 0);
        return;
    };
    lead(state, command, areas.lead, buffer, theme);
    runs(state, command, areas.list, buffer, theme);
    for line in 0..areas.between.height {
        Row::default().text(theme.glyphs.wall, theme.faint).draw_in(buffer, areas.between, line);
    }
    if areas.output.width > 0 {
        output(state, command, areas, buffer, theme);
    }
}

/// Text and id; counts and progress.
fn lead(state: &State, command: &Command, area: Rect, buffer: &mut Buffer, theme: &Theme) {
    let since = state.wall_ms.saturating_sub(command.created_at);
    let meta = |parts: &[String]| {
        let text = parts.join(&format!(" {} ", theme.glyphs.dot));
        Row::default().text(text, theme.quiet).space(1)
    };
    let age = format!("{} ago", amount::age(since));
    let limit = format!("timeout {}", amount::timeout(command.timeout_ms));
    let (by, id) = (format!("by {}", command.by), command.id.to_string());
    let on = format!("on {}", text::fit(&command.place, PREFIX_COLUMNS * 2, theme.glyphs.ellipsis));
    let choices = [
        meta(&[on.clone(), limit.clone(), by.clone(), age.clone(), id]),
        meta(&[on, limit, by.clone(), age.clone()]),
        meta(&[by, age.clone()]),
        meta(&[age]),
    ];
    let right = pen::fitting(choices, area, command.text.width().min(usize::from(area.width) / 2) + 2);
    let room = usize::from(area.width).saturating_sub(right.columns() + 2);
    let left = text::fit(&command.text, room, theme.glyphs.ellipsis);
    pen::ends(buffer, area, 0, Row::margin().text(left, theme.strong), right);

    let (settled, all) = command.progress();
    let cells = if area.width >= 100 { 24 } else { 10 };
    let bar = pen::bar(u64::from(settled), u64::from(all), cells, theme);
    let left = command.left_ms(state.wall_ms).map(|ms| format!("about {} left  ", amount::age(ms)));
    let progress = Row::default()
        .row(wave(command, theme))
        .text(left.filter(|_| area.width >= 60).unwrap_or_default(), theme.quiet)
        .text(bar, theme.figure)
        .text(format!(" {settled}/{all} "), theme.strong);
    let room = usize::from(area.width).saturating_sub(progress.columns() + 2);
    pen::ends(buffer, area, 1, counts(command, usize::from(area.width), room, theme), progress);
}

/// How far it has spread, and whether it goes on.
fn wave(command: &Command, theme: &Theme) -> Row {
    let Some(rollout) = &command.rollout else { return Row::default() };
    let wave = format!("wave {} of {}", rollout.wave, rollout.waves);
    match rollout.state {
        RolloutState::Going => Row::default().text(wave, theme.quiet),
        RolloutState::Paused => Row::default().text(wave, theme.quiet).space(1).text("paused", theme.warn),
        RolloutState::Aborted => Row::default().text(wave, theme.quiet).space(1).text("aborted", theme.bad),
    }
    .space(2)
}

/// How many there are of each state, and why it spreads no further, where that has `room`.
fn counts(command: &Command, columns: usize, room: usize, theme: &Theme) -> Row {
    let counts = command.counts();
    let known = RunState::ALL.iter().filter_map(|state| counts.get(state).map(|n| (*state, *n))).fold(
        Row::margin(),
        |row, (state, n)| {
            let (glyph, style) = theme.run(state);
            let row = if row.columns() > 1 { row.space(2) } else { row };
            let text = if columns >= 60 { format!(" {n} {state}") } else { format!(" {n}") };
            row.text(glyph, style).text(text, style)
        },
    );
    let known = if command.is_stale { known.space(2).text("may be old", theme.bad) } else { known };
    match command.rollout.as_ref().and_then(|rollout| rollout.why.as_deref()) {
        Some(why) if known.columns() + WHY_COLUMNS <= room => {
            let room = room - known.columns() - 2;
            known.space(2).text(text::fit(&text::line(why), room, theme.glyphs.ellipsis), theme.warn)
        }
        _ => known,
    }
}

fn runs(state: &State, command: &Command, area: Rect, buffer: &mut Buffer, theme: &Theme) {
    if area.width == 0 {
        return;
    }
    let cursor = &state.page.cursor;
    let columns = usize::from(area.width);
    let rows = state.page.rows().iter().enumerate().skip(cursor.top()).take(usize::from(area.height));
    for (line, (at, row)) in (0..).zip(rows) {
        let is_here = at == cursor.at();
        let row = match row {
            PageRow::All => all(command, is_here, columns, theme),
            PageRow::Group(fold) => match command.folds.get(fold) {
                Some(group) => folded(state, command, group, is_here, columns, theme),
                None => Row::default(),
            },
            PageRow::One(machine) => match command.run_on(machine) {
                Some(run) => one(state, run, is_here, columns, theme),
                None => Row::default(),
            },
        };
        row.draw_in(buffer, area, line);
    }
}

fn gutter(is_here: bool, theme: &Theme) -> Row {
    Row::default().text(if is_here { theme.glyphs.cursor } else { " " }, theme.accent)
}

fn all(command: &Command, is_here: bool, columns: usize, theme: &Theme) -> Row {
    let (_, n) = command.progress();
    let style = if is_here { theme.accent } else { theme.text };
    let text = format!("all {n} together");
    gutter(is_here, theme).space(2).text(pen::padded(&text, columns.saturating_sub(3), theme), style)
}

/// How many ended alike, how, and what their machines are called.
fn folded(
    state: &State,
    command: &Command,
    group: Group<'_>,
    is_here: bool,
    columns: usize,
    theme: &Theme,
) -> Row {
    let (glyph, style) = theme.run(group.fold.state);
    let [closed, open] = theme.glyphs.folds;
    let is_open = state.page.within.as_ref() == Some(group.fold);
    let word =
        if group.fold.outcome.is_empty() { group.fold.state.to_string() } else { group.fold.outcome.clone() };
    let marked = command.folds.places(group.fold).filter_map(|at| command.run_at(at));
    let marked = marked.filter(|run| state.fleet.is_marked(&run.machine.token())).count();
    let mark = if marked == group.len { theme.glyphs.mark } else { " " };
    let row = gutter(is_here, theme)
        .text(glyph, style)
        .space(1)
        .text(if is_open { open } else { closed }, theme.faint)
        .text(format!("{:>4} ", group.len), theme.strong)
        .text(pen::padded(&word, word.width().clamp(6, 11), theme), style)
        .text(mark, theme.chosen);
    let room = columns.saturating_sub(row.columns());
    row.text(pen::padded(group.names, room, theme), if is_here { theme.accent } else { theme.quiet })
}

fn one(state: &State, run: &Run, is_here: bool, columns: usize, theme: &Theme) -> Row {
    let (glyph, style) = theme.run(run.state);
    // State in a word unless the outcome says it as well.
    let word = match run.state {
        RunState::Completed | RunState::Failed if !run.outcome.is_empty() => run.outcome.clone(),
        state => state.to_string(),
    };
    let took = run.duration_ms.map(amount::duration).unwrap_or_default();
    let mark = if state.fleet.is_marked(&run.machine.token()) { theme.glyphs.mark } else { " " };
    let right = format!("{} {took:>6}", text::fit(&word, 11, theme.glyphs.ellipsis));
    let room = columns.saturating_sub(3 + right.width() + 2);
    gutter(is_here, theme)
        .text(glyph, style)
        .space(1)
        .text(pen::padded(&run.name, room, theme), if is_here { theme.accent } else { theme.text })
        .text(mark, theme.chosen)
        .text(right, style)
}

fn output(state: &State, command: &Command, areas: &Areas, buffer: &mut Buffer, theme: &Theme) {
    if let Some(diff) = &state.page.diff {
        compared(diff, areas, buffer, theme);
        return;
    }
    let lines = state.page.lines(command);
    let run = state.page.cursor.key().and_then(|row| CommandPage::run(command, row));
    head(state, command, run, lines, areas.output_head, buffer, theme);
    let area = areas.output;
    let rows = usize::from(area.height);
    let first = state.page.first_line(lines, rows);
    let is_merged = run.is_none() && command.progress().1 > 1;
    for (at, line) in (0..).zip(lines.window(first, rows)) {
        draw_line(state, command, line, is_merged, usize::from(area.width), theme).draw_in(buffer, area, at);
    }
    if lines.is_empty() {
        Row::default().text(nothing(command, run), theme.faint).draw_in(buffer, area, 0);
    }
}

/// What two outputs differ in.
fn compared(diff: &Diff, areas: &Areas, buffer: &mut Buffer, theme: &Theme) {
    let half = (usize::from(areas.output_head.width) / 2).saturating_sub(4);
    let name = |name: &str| text::fit(name, half, theme.glyphs.ellipsis);
    let head = Row::default()
        .text(format!("- {}", name(&diff.first)), theme.bad)
        .text(format!("  + {}", name(&diff.second)), theme.good);
    head.draw_in(buffer, areas.output_head, 0);
    if diff.lines.is_empty() {
        let text = "no line of their outputs differs";
        Row::default().text(text, theme.quiet).draw_in(buffer, areas.output, 0);
    }
    let room = usize::from(areas.output.width).saturating_sub(2);
    for (at, (tag, line)) in (0..areas.output.height).zip(diff.lines.iter().skip(diff.top)) {
        let (sign, style) = match tag {
            Tag::Same => (" ", theme.text),
            Tag::First => ("-", theme.bad),
            Tag::Second => ("+", theme.good),
            Tag::Cut => (theme.glyphs.dot, theme.faint),
        };
        let line = if *tag == Tag::Cut { theme.glyphs.rule.repeat(room.min(8)) } else { line.to_string() };
        Row::default()
            .text(sign, style)
            .space(1)
            .text(text::fit(&line, room, theme.glyphs.ellipsis), style)
            .draw_in(buffer, areas.output, at);
    }
}

fn nothing(command: &Command, run: Option<&Run>) -> &'static str {
    let is_open = run.map_or_else(|| command.is_open(), |run| !run.state.is_settled());
    if is_open { "no output yet" } else { "no output" }
}

/// Which output, whether it is followed, and what of it is not here.
fn head(
    state: &State,
    command: &Command,
    run: Option<&Run>,
    lines: &Scrollback,
    area: Rect,
    buffer: &mut Buffer,
    theme: &Theme,
) {
    let has_focus = state.page.focus == Focus::Output;
    let title = match state.page.cursor.key() {
        Some(PageRow::Group(fold)) => command.folds.get(fold).map_or("output", |group| group.names),
        _ => run.map_or("output", |run| run.name.as_str()),
    };
    let title = text::fit(title, usize::from(area.width) * 2 / 3, theme.glyphs.ellipsis);
    let style = if has_focus { theme.accent } else { theme.quiet };
    let left = Row::default().text(title, style);
    let left = match run {
        Some(run) if !run.message.is_empty() => left.space(2).text(run.message.clone(), theme.warn),
        Some(run) if run.is_left_behind => left.space(2).text("processes may be left", theme.warn),
        _ => left,
    };
    let mut right = Row::default();
    let dropped = lines.dropped_bytes();
    if dropped > 0 {
        right = right.text(format!("{} dropped", amount::bytes(dropped)), theme.warn).space(2);
    }
    if run.is_some_and(|run| run.is_truncated) {
        right = right.text("cut by the machine", theme.warn).space(2);
    }
    if state.page.skipped > 0 {
        right = right.text(format!("from column {}", state.page.skipped + 1), theme.quiet).space(2);
    }
    let rows = usize::from(area.height).max(1);
    right = match state.page.scroll {
        Scroll::Follow if command.is_open() => right.text("following", theme.quiet),
        Scroll::Follow => right.text(format!("{} lines", lines.len()), theme.quiet),
        Scroll::From(_) => {
            let first = state.page.first_line(lines, rows) + 1;
            right.text(format!("line {first} of {}, f follows", lines.len()), theme.chosen)
        }
    };
    pen::ends(buffer, area, 0, left, right.space(1));
}

fn draw_line(
    state: &State,
    command: &Command,
    line: &Line,
    is_merged: bool,
    columns: usize,
    theme: &Theme,
) -> Row {
    let style: Style = match line.stream {
        Some(OutputStream::Stdout) => theme.text,
        Some(OutputStream::Stderr) => theme.warn,
        None => theme.faint,
    };
    let mut row = Row::default();
    if is_merged {
        let longest = command.runs().map(|run| run.name.width()).max().unwrap_or(0).min(PREFIX_COLUMNS);
        let name = command.run_at(line.run).map_or("", |run| run.name.as_str());
        row = row
            .text(pen::padded(name, longest, theme), theme.quiet)
            .text(format!(" {} ", theme.glyphs.wall), theme.faint);
    }
    let part = Part { skipped: state.page.skipped, room: columns.saturating_sub(row.columns()) };
    row.row(painted::row(&line.text, line.strokes(), &[], part, style, theme))
}
