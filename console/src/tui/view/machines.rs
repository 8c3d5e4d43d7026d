//! All machines: one row each. Columns leave by priority when there is no room.

use ratatui::{buffer::Buffer, layout::Rect, style::Style};
use signalbox_schemas::{api::Liveness, heartbeat::Facts};
use unicode_width::UnicodeWidthStr as _;

use super::{
    amount, commands,
    layout::Areas,
    past,
    pen::{self, Row},
};
use crate::tui::{
    state::{
        State,
        fleet::{Column, Figure},
        machine::Machine,
    },
    theme::Theme,
};

/// Cursor, state and a space, then name, then the mark.
const GUTTER_COLUMNS: usize = 3;
/// Columns after the name for the mark.
const MARK_COLUMNS: usize = 2;
/// A name is cut below this only when nothing else is left to cut.
const NAME_COLUMNS: usize = 12;
/// Longest part of a name that is shown.
const MOST_NAME_COLUMNS: usize = 40;
/// Widest sparkline: a stretch of ten seconds each.
const MOST_SPARK_COLUMNS: usize = 30;
/// From this width on there are two columns between columns.
const SPACED_COLUMNS: u16 = 90;
/// Most of the newest commands below the machines.
const NEWEST_ROWS: u16 = 6;
/// From this width on bars have six cells.
const WIDE_COLUMNS: u16 = 100;

/// Columns for labels.
const LABELS_COLUMNS: usize = 20;

/// In which order they leave where there is no room.
const LEAVES: [Figure; 14] = [
    Figure::Labels,
    Figure::Arch,
    Figure::Kernel,
    Figure::Host,
    Figure::Up,
    Figure::System,
    Figure::Relay,
    Figure::Load,
    Figure::Spark,
    Figure::Disk,
    Figure::Memory,
    Figure::Runs,
    Figure::Cpu,
    Figure::Heard,
];

fn head(figure: Figure) -> &'static str {
    if figure == Figure::Spark { "last 10 min" } else { figure.name() }
}

fn is_left_aligned(figure: Figure) -> bool {
    !matches!(figure, Figure::Cpu | Figure::Load | Figure::Heard | Figure::Runs | Figure::Up)
}

/// Columns as they are shown at this width.
struct Table {
    cells: Vec<(Figure, usize)>,
    gap: usize,
    name: usize,
    bar: usize,
}

impl Table {
    fn new(figures: &[Figure], columns: u16, longest_name: usize) -> Self {
        let bar = if columns >= WIDE_COLUMNS { 6 } else { 4 };
        let gap = if columns >= SPACED_COLUMNS { 2 } else { 1 };
        let width = |figure: Figure| match figure {
            Figure::Cpu => 4,
            Figure::Spark => 10,
            Figure::Heard => 11,
            Figure::Memory | Figure::Disk => bar + 5,
            Figure::Load | Figure::Runs => 5,
            Figure::System | Figure::Kernel | Figure::Host => 13,
            Figure::Labels => LABELS_COLUMNS,
            Figure::Relay | Figure::Arch => 7,
            Figure::Up => 6,
        };
        let mut cells: Vec<(Figure, usize)> =
            figures.iter().map(|figure| (*figure, width(*figure))).collect();
        let used = |cells: &[(Figure, usize)]| {
            GUTTER_COLUMNS + MARK_COLUMNS + cells.iter().map(|(_, width)| width + gap).sum::<usize>()
        };
        let columns = usize::from(columns);
        for leaving in LEAVES {
            if used(&cells) + NAME_COLUMNS <= columns {
                break;
            }
            cells.retain(|(cell, _)| *cell != leaving);
        }
        let room = columns.saturating_sub(used(&cells));
        let name = longest_name.clamp(NAME_COLUMNS, MOST_NAME_COLUMNS).min(room.max(1));
        if let Some((_, spark)) = cells.iter_mut().find(|(cell, _)| *cell == Figure::Spark) {
            *spark = (*spark + room - name).min(MOST_SPARK_COLUMNS);
        }
        Self { cells, gap, name, bar }
    }
}

/// Draws the list.
pub(super) fn draw(state: &State, areas: &Areas, buffer: &mut Buffer, theme: &Theme) {
    let fleet = state.sight();
    let seen: Vec<&Machine> = fleet.rows(usize::from(areas.list.height)).collect();
    let longest = seen.iter().map(|machine| machine.name.width()).max().unwrap_or(0);
    // A column in which nothing stands is no use.
    let is_used = |figure: &Figure| *figure != Figure::Labels || seen.iter().any(|it| !it.labels.is_empty());
    let figures: Vec<Figure> = fleet.figures().iter().copied().filter(is_used).collect();
    let table = Table::new(&figures, areas.list.width, longest);
    if areas.lead.height > 1 {
        summary(state, areas, buffer, theme);
    }
    heads(state, &table, theme).draw_in(buffer, areas.lead, areas.lead.height - 1);
    for (line, machine) in (0..).zip(&seen) {
        let is_here = fleet.cursor.key() == Some(&machine.token);
        row(state, machine, is_here, &table, theme).draw_in(buffer, areas.list, line);
    }
    if seen.is_empty() {
        empty(state, theme).draw_in(buffer, areas.list, 1);
    }
    if !state.past.is_looked_at() {
        newest(state, seen.len(), areas.list, buffer, theme);
    }
}

/// The newest commands, where rows are left over.
fn newest(state: &State, used: usize, area: Rect, buffer: &mut Buffer, theme: &Theme) {
    let used = u16::try_from(used.max(2)).unwrap_or(u16::MAX);
    let rows = area.height.saturating_sub(used + 2).min(NEWEST_ROWS + 1);
    if rows < 3 || state.commands.is_empty() {
        return;
    }
    let panel = Rect { x: area.x + 1, y: area.bottom() - rows, width: area.width - 2, height: rows };
    pen::titled(buffer, panel, Row::default().text("commands", theme.quiet), "c all of them", theme);
    let columns = usize::from(area.width);
    for (line, command) in (1..rows).zip(state.commands.newest()) {
        let row = commands::row(state, command, None, false, columns, theme);
        row.draw_in(buffer, Rect { x: area.x, width: area.width, ..panel }, line);
    }
}

fn empty(state: &State, theme: &Theme) -> Row {
    let text = match (state.snapshot_ms, state.sight().len()) {
        (None, _) => "waiting for the fleet …",
        (Some(_), 0) => "no machines yet: start a relay, and it appears here",
        (Some(_), _) => "no machine matches the filter; esc clears it",
    };
    let text = if state.options.ascii { text.replace(" …", "") } else { text.to_owned() };
    Row::margin().space(2).text(text, theme.quiet)
}

fn summary(state: &State, areas: &Areas, buffer: &mut Buffer, theme: &Theme) {
    let sight = state.sight();
    let counts = sight.counts();
    let row = Row::margin().text(amount::machines(sight.len()), theme.strong);
    // The first page is shown before the others are here.
    let is_growing = state.snapshot_ms.is_none() && !sight.is_empty();
    let row = if is_growing { row.text(" so far", theme.quiet) } else { row };
    let parts = [
        (Liveness::Online, counts.online),
        (Liveness::Stale, counts.stale),
        (Liveness::Offline, counts.offline),
    ];
    let row = parts.into_iter().fold(row, |row, (liveness, n)| {
        let (glyph, style) = theme.liveness(liveness);
        let style = if n == 0 { theme.faint } else { style };
        let words = if n == 0 { theme.faint } else { theme.text };
        row.space(2).text(glyph, style).text(format!(" {n} {}", liveness.as_str()), words)
    });
    let (column, _) = sight.sort();
    let open = state.commands.open();
    let row = match open {
        _ if state.past.is_looked_at() => row.row(past::unknown(state, theme)),
        0 => row,
        1 => row.space(3).text("1 command at work", theme.accent),
        n => row.space(3).text(format!("{n} commands at work"), theme.accent),
    };
    let mut right = past::kept(state, theme);
    if !sight.filter().is_empty() {
        let text = format!("/{} {} of {}", sight.filter(), sight.seen(), sight.len());
        right = match sight.filter_problem() {
            Some(problem) => right.text(format!("/{} {problem}", sight.filter()), theme.bad).space(3),
            None => right.text(text, theme.chosen).space(3),
        };
    }
    if sight.marked() > 0 {
        right = right.text(format!("{} marked", sight.marked()), theme.chosen).space(3);
    }
    let arrow = arrow(state, theme);
    right = right.text(format!("sort: {} {arrow}", column.word()), theme.quiet).space(1);
    pen::ends(buffer, areas.lead, 0, row, right);
}

fn arrow(state: &State, theme: &Theme) -> &'static str {
    let (column, is_reversed) = state.sight().sort();
    let [down, up] = theme.glyphs.arrows;
    if column.is_largest_first() == is_reversed { up } else { down }
}

fn heads(state: &State, table: &Table, theme: &Theme) -> Row {
    let (sorted, _) = state.sight().sort();
    let style = |column: Option<Column>| if column == Some(sorted) { theme.chosen } else { theme.quiet };
    let name = pen::padded("machine", table.name, theme);
    let row = Row::default().space(GUTTER_COLUMNS).text(name, style(Some(Column::Name))).space(MARK_COLUMNS);
    table.cells.iter().fold(row, |row, (cell, width)| {
        let (word, column) = (head(*cell), cell.column());
        let word = if *cell == Figure::Spark && *width < word.len() { "10 min" } else { word };
        row.space(table.gap).row(aligned(
            word.to_owned(),
            *width,
            is_left_aligned(*cell),
            style(column),
            theme,
        ))
    })
}

fn aligned(text: String, columns: usize, left: bool, style: Style, theme: &Theme) -> Row {
    if left {
        return Row::default().text(pen::padded(&text, columns, theme), style);
    }
    let text = if text.width() > columns { pen::padded(&text, columns, theme) } else { text };
    Row::default().space(columns - text.width().min(columns)).text(text, style)
}

fn row(state: &State, machine: &Machine, is_here: bool, table: &Table, theme: &Theme) -> Row {
    let liveness = machine.state(state.sight_ms());
    let (glyph, style) =
        if machine.is_unknown { (theme.glyphs.unknown, theme.faint) } else { theme.liveness(liveness) };
    let is_marked = state.sight().is_marked(&machine.token);
    let name_style = match (is_here, liveness) {
        (true, _) => theme.accent,
        (false, Liveness::Online) if state.past.is_looked_at() => theme.quiet,
        (false, Liveness::Online) => theme.text,
        (false, Liveness::Stale | Liveness::Offline) => theme.faint,
    };
    let row = Row::default()
        .text(if is_here { theme.glyphs.cursor } else { " " }, theme.accent)
        .text(glyph, style)
        .space(1)
        .text(pen::padded(&machine.name, table.name, theme), name_style)
        .text(if is_marked { theme.glyphs.mark } else { " " }, theme.chosen)
        .space(MARK_COLUMNS - 1);
    table.cells.iter().fold(row, |row, (cell, width)| {
        row.space(table.gap).row(figure(state, machine, liveness, *cell, *width, table.bar, theme))
    })
}

fn figure(
    state: &State,
    machine: &Machine,
    liveness: Liveness,
    cell: Figure,
    width: usize,
    bar: usize,
    theme: &Theme,
) -> Row {
    let is_old = liveness != Liveness::Online;
    let tone = |style: Style| if is_old { theme.faint } else { style };
    let unknown = || theme.glyphs.unknown.to_owned();
    let right = |text: String, style: Style| aligned(text, width, false, style, theme);
    let left = |text: &str| aligned(text.to_owned(), width, true, theme.quiet, theme);
    let fact = |of: fn(&Facts) -> &str| left(machine.facts.as_ref().map_or(theme.glyphs.unknown, of));
    match cell {
        Figure::Cpu => match machine.cpu_percent() {
            Some(cpu) => right(format!("{cpu}%"), tone(theme.load(cpu))),
            None => right(unknown(), theme.faint),
        },
        Figure::Spark => {
            let now_secs = u32::try_from(state.sight_ms() / 1000).unwrap_or(u32::MAX);
            let means = machine.history.means(now_secs, width, |sample| sample.cpu_percent);
            Row::default().text(pen::sparkline(&means, theme), tone(theme.figure))
        }
        Figure::Memory => part(machine.memory_percent(), tone, Theme::load, bar, theme),
        Figure::Disk => part(machine.disk_percent(), tone, Theme::disk, bar, theme),
        Figure::Load => match machine.load() {
            Some(load) => right(format!("{load:.1}"), tone(theme.text)),
            None => right(unknown(), theme.faint),
        },
        Figure::Heard => heard(state, machine, liveness, width, theme),
        Figure::Runs => match (machine.running, machine.pending) {
            (0, 0) => right(theme.glyphs.dot.to_owned(), theme.faint),
            (running, 0) => right(running.to_string(), theme.accent),
            (running, pending) => right(format!("{running}+{pending}"), theme.accent),
        },
        Figure::Relay => left(machine.relay.as_deref().unwrap_or(theme.glyphs.unknown)),
        Figure::System => fact(|facts| &facts.os),
        Figure::Labels => left(&machine.labels_line()),
        Figure::Kernel => fact(|facts| &facts.kernel),
        Figure::Arch => fact(|facts| &facts.arch),
        Figure::Host => fact(|facts| &facts.hostname),
        Figure::Up => match machine.metrics.as_ref() {
            Some(metrics) => right(amount::age(metrics.uptime_secs.saturating_mul(1000)), theme.quiet),
            None => right(unknown(), theme.faint),
        },
    }
}

fn part(
    percent: Option<u8>,
    tone: impl Fn(Style) -> Style,
    limits: fn(&Theme, u8) -> Style,
    bar: usize,
    theme: &Theme,
) -> Row {
    let Some(percent) = percent else {
        return Row::default().space(bar + 4).text(theme.glyphs.unknown, theme.faint);
    };
    let limited = limits(theme, percent);
    let bar_style = if limited == theme.text { theme.figure } else { limited };
    Row::default()
        .text(pen::bar(u64::from(percent), 100, bar, theme), tone(bar_style))
        .text(format!("{percent:>4}%"), tone(limited))
}

/// The age, and the word when it is not what it should be.
fn heard(state: &State, machine: &Machine, liveness: Liveness, width: usize, theme: &Theme) -> Row {
    if machine.is_unknown {
        return aligned("not known".to_owned(), width, false, theme.faint, theme);
    }
    let age = machine.age_ms(state.sight_ms()).map(amount::age);
    let text = match (liveness, age) {
        (Liveness::Online, Some(age)) => age,
        (_, Some(age)) => format!("{} {age:>3}", liveness.as_str()),
        (_, None) => "never".to_owned(),
    };
    let style = if liveness == Liveness::Online { theme.quiet } else { theme.liveness(liveness).1 };
    aligned(text, width, false, style, theme)
}
