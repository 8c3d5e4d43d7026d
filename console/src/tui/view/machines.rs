//! All machines: one row each. Columns leave by priority when there is no room.

use ratatui::{buffer::Buffer, layout::Rect, style::Style};
use signalbox_schemas::api::Liveness;
use unicode_width::UnicodeWidthStr as _;

use super::{
    amount, commands,
    layout::Areas,
    pen::{self, Row},
};
use crate::tui::{
    state::{State, fleet::Column, machine::Machine},
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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cell {
    Cpu,
    Spark,
    Memory,
    Disk,
    Load,
    Heard,
    Runs,
    Relay,
    System,
}

/// As they stand from left to right.
const CELLS: [Cell; 9] = [
    Cell::Cpu,
    Cell::Spark,
    Cell::Memory,
    Cell::Disk,
    Cell::Load,
    Cell::Heard,
    Cell::Runs,
    Cell::Relay,
    Cell::System,
];
/// In which order they leave.
const LEAVES: [Cell; 9] = [
    Cell::System,
    Cell::Relay,
    Cell::Load,
    Cell::Spark,
    Cell::Disk,
    Cell::Memory,
    Cell::Runs,
    Cell::Cpu,
    Cell::Heard,
];

impl Cell {
    fn head(self) -> (&'static str, Option<Column>) {
        match self {
            Self::Cpu => ("cpu", Some(Column::Cpu)),
            Self::Spark => ("last 10 min", None),
            Self::Memory => ("mem", Some(Column::Memory)),
            Self::Disk => ("disk", Some(Column::Disk)),
            Self::Load => ("load", Some(Column::Load)),
            Self::Heard => ("heard", Some(Column::Heard)),
            Self::Runs => ("run", Some(Column::Runs)),
            Self::Relay => ("relay", None),
            Self::System => ("system", None),
        }
    }

    fn is_left_aligned(self) -> bool {
        matches!(self, Self::Spark | Self::Memory | Self::Disk | Self::Relay | Self::System)
    }
}

/// Columns as they are shown at this width.
struct Table {
    cells: Vec<(Cell, usize)>,
    gap: usize,
    name: usize,
    bar: usize,
}

impl Table {
    fn new(columns: u16, longest_name: usize) -> Self {
        let bar = if columns >= WIDE_COLUMNS { 6 } else { 4 };
        let gap = if columns >= SPACED_COLUMNS { 2 } else { 1 };
        let width = |cell: Cell| match cell {
            Cell::Cpu => 4,
            Cell::Spark => 10,
            Cell::Heard => 11,
            Cell::Memory | Cell::Disk => bar + 5,
            Cell::Load | Cell::Runs => 5,
            Cell::Relay => 7,
            Cell::System => 13,
        };
        let mut cells: Vec<(Cell, usize)> = CELLS.into_iter().map(|cell| (cell, width(cell))).collect();
        let used = |cells: &[(Cell, usize)]| {
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
        if let Some((_, spark)) = cells.iter_mut().find(|(cell, _)| *cell == Cell::Spark) {
            *spark = (*spark + room - name).min(MOST_SPARK_COLUMNS);
        }
        Self { cells, gap, name, bar }
    }
}

/// Draws the list.
pub(super) fn draw(state: &State, areas: &Areas, buffer: &mut Buffer, theme: &Theme) {
    let fleet = &state.fleet;
    let tokens = fleet.order().iter().skip(fleet.cursor.top()).take(usize::from(areas.list.height));
    let seen: Vec<&Machine> = tokens.filter_map(|token| fleet.get(token)).collect();
    let longest = seen.iter().map(|machine| machine.name.width()).max().unwrap_or(0);
    let table = Table::new(areas.list.width, longest);
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
    newest(state, seen.len(), areas.list, buffer, theme);
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
    let text = match (state.snapshot_ms, state.fleet.len()) {
        (None, _) => "waiting for the fleet …",
        (Some(_), 0) => "no machines yet: start a relay, and it appears here",
        (Some(_), _) => "no machine matches the filter; esc clears it",
    };
    let text = if state.options.ascii { text.replace(" …", "") } else { text.to_owned() };
    Row::margin().space(2).text(text, theme.quiet)
}

fn summary(state: &State, areas: &Areas, buffer: &mut Buffer, theme: &Theme) {
    let counts = state.fleet.count(state.now_ms);
    let row = Row::margin().text(amount::machines(state.fleet.len()), theme.strong);
    // The first page is shown before the others are here.
    let is_growing = state.snapshot_ms.is_none() && !state.fleet.is_empty();
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
    let (column, _) = state.fleet.sort();
    let open = state.commands.open();
    let row = match open {
        0 => row,
        1 => row.space(3).text("1 command at work", theme.accent),
        n => row.space(3).text(format!("{n} commands at work"), theme.accent),
    };
    let mut right = Row::default();
    if !state.fleet.filter().is_empty() {
        let text =
            format!("/{} {} of {}", state.fleet.filter(), state.fleet.order().len(), state.fleet.len());
        right = right.text(text, theme.chosen).space(3);
    }
    if state.fleet.marked() > 0 {
        right = right.text(format!("{} marked", state.fleet.marked()), theme.chosen).space(3);
    }
    let arrow = arrow(state, theme);
    right = right.text(format!("sort: {} {arrow}", column.word()), theme.quiet).space(1);
    pen::ends(buffer, areas.lead, 0, row, right);
}

fn arrow(state: &State, theme: &Theme) -> &'static str {
    let (column, is_reversed) = state.fleet.sort();
    let [down, up] = theme.glyphs.arrows;
    if column.is_largest_first() == is_reversed { up } else { down }
}

fn heads(state: &State, table: &Table, theme: &Theme) -> Row {
    let (sorted, _) = state.fleet.sort();
    let style = |column: Option<Column>| if column == Some(sorted) { theme.chosen } else { theme.quiet };
    let name = pen::padded("machine", table.name, theme);
    let row = Row::default().space(GUTTER_COLUMNS).text(name, style(Some(Column::Name))).space(MARK_COLUMNS);
    table.cells.iter().fold(row, |row, (cell, width)| {
        let (word, column) = cell.head();
        let word = if *cell == Cell::Spark && *width < word.len() { "10 min" } else { word };
        row.space(table.gap).row(aligned(
            word.to_owned(),
            *width,
            cell.is_left_aligned(),
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
    let liveness = machine.state(state.now_ms);
    let (glyph, style) = theme.liveness(liveness);
    let is_marked = state.fleet.is_marked(&machine.token);
    let name_style = match (is_here, liveness) {
        (true, _) => theme.accent,
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
    cell: Cell,
    width: usize,
    bar: usize,
    theme: &Theme,
) -> Row {
    let is_old = liveness != Liveness::Online;
    let tone = |style: Style| if is_old { theme.faint } else { style };
    let unknown = || theme.glyphs.unknown.to_owned();
    let right = |text: String, style: Style| aligned(text, width, false, style, theme);
    let left = |text: &str| aligned(text.to_owned(), width, true, theme.quiet, theme);
    match cell {
        Cell::Cpu => match machine.cpu_percent() {
            Some(cpu) => right(format!("{cpu}%"), tone(theme.load(cpu))),
            None => right(unknown(), theme.faint),
        },
        Cell::Spark => {
            let now_secs = u32::try_from(state.now_ms / 1000).unwrap_or(u32::MAX);
            let means = machine.history.means(now_secs, width, |sample| sample.cpu_percent);
            Row::default().text(pen::sparkline(&means, theme), tone(theme.figure))
        }
        Cell::Memory => part(machine.memory_percent(), tone, Theme::load, bar, theme),
        Cell::Disk => part(machine.disk_percent(), tone, Theme::disk, bar, theme),
        Cell::Load => match machine.load() {
            Some(load) => right(format!("{load:.1}"), tone(theme.text)),
            None => right(unknown(), theme.faint),
        },
        Cell::Heard => heard(state, machine, liveness, width, theme),
        Cell::Runs => match (machine.running, machine.pending) {
            (0, 0) => right(theme.glyphs.dot.to_owned(), theme.faint),
            (running, 0) => right(running.to_string(), theme.accent),
            (running, pending) => right(format!("{running}+{pending}"), theme.accent),
        },
        Cell::Relay => left(machine.relay.as_deref().unwrap_or(theme.glyphs.unknown)),
        Cell::System => left(machine.facts.as_ref().map_or(theme.glyphs.unknown, |facts| facts.os.as_str())),
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
    let age = machine.age_ms(state.now_ms).map(amount::age);
    let text = match (liveness, age) {
        (Liveness::Online, Some(age)) => age,
        (_, Some(age)) => format!("{} {age:>3}", liveness.as_str()),
        (_, None) => "never".to_owned(),
    };
    let style = if liveness == Liveness::Online { theme.quiet } else { theme.liveness(liveness).1 };
    aligned(text, width, false, style, theme)
}
