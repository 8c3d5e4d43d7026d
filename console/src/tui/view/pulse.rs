//! How the fleet is: counts and rates, what needs a look, who is busiest, what is newest.

use ratatui::{buffer::Buffer, layout::Rect};
use signalbox_schemas::api::Liveness;

use super::{
    amount, commands, layout,
    pen::{self, Row},
};
use crate::tui::{
    state::{State, machine::Machine, pulse::Concern},
    text,
    theme::Theme,
};

/// Columns of the graph of signs of life.
const GRAPH_COLUMNS: usize = 24;
/// Columns of what needs a look.
const WHAT_COLUMNS: usize = 20;

/// Draws the pulse.
pub(super) fn draw(state: &State, buffer: &mut Buffer, theme: &Theme) {
    let areas = layout::pulse(state);
    counts(state, areas.counts, buffer, theme);
    concerns(state, areas.concerns, buffer, theme);
    busiest(state, areas.busiest, buffer, theme);
    newest(state, areas.newest, buffer, theme);
}

fn counts(state: &State, area: Rect, buffer: &mut Buffer, theme: &Theme) {
    let counts = state.fleet.counts();
    let machines = Row::margin().text(amount::machines(state.fleet.len()), theme.strong);
    let parts = [
        (Liveness::Online, counts.online),
        (Liveness::Stale, counts.stale),
        (Liveness::Offline, counts.offline),
    ];
    let machines = parts.into_iter().fold(machines, |row, (liveness, n)| {
        let (glyph, style) = theme.liveness(liveness);
        let (style, words) = if n == 0 { (theme.faint, theme.faint) } else { (style, theme.text) };
        row.space(2).text(glyph, style).text(format!(" {n} {}", liveness.as_str()), words)
    });
    let open = state.commands.open();
    let style = if open == 0 { theme.faint } else { theme.accent };
    let at_work = Row::default().text(format!("{open} commands at work"), style).space(1);
    pen::ends(buffer, area, 0, machines, at_work);

    let line = u16::from(area.height > 2) + 1;
    let columns = GRAPH_COLUMNS.min(usize::from(area.width) / 3);
    let rates = state.pulse.rates(columns);
    let most = rates.iter().copied().max().unwrap_or(0).max(1);
    let heights: Vec<Option<u8>> =
        rates.iter().map(|rate| u8::try_from(u64::from(*rate) * 100 / u64::from(most)).ok()).collect();
    let rate = rates.last().copied().unwrap_or(0);
    Row::margin()
        .text("heard/min ", theme.quiet)
        .text(pen::sparkline(&heights, theme), theme.figure)
        .text(format!(" {rate}"), theme.text)
        .draw_in(buffer, area, line);
}

fn concerns(state: &State, area: Rect, buffer: &mut Buffer, theme: &Theme) {
    if area.height == 0 {
        return;
    }
    let all = &state.pulse.concerns;
    let word = if all.is_empty() { String::new() } else { all.len().to_string() };
    let title = Row::default().text("needs a look", theme.quiet);
    pen::titled(buffer, area, title, &word, theme);
    let rows = Rect { y: area.y + 1, height: area.height - 1, ..area };
    if all.is_empty() {
        let text = match state.snapshot_ms {
            None => "asking for the machines",
            Some(_) if state.fleet.is_empty() => "there is no machine yet; the README says how to add one",
            Some(_) => "nothing: all is well",
        };
        let [good, ..] = theme.glyphs.severity;
        let glyph = if state.snapshot_ms.is_some() { good } else { theme.glyphs.dot };
        Row::margin().text(glyph, theme.good).space(1).text(text, theme.quiet).draw_in(buffer, rows, 0);
    }
    let cursor = &state.pulse.cursor;
    for (line, (at, concern)) in (0..rows.height).zip(all.iter().enumerate().skip(cursor.top())) {
        concerned(concern, at == cursor.at(), usize::from(rows.width), theme).draw_in(buffer, rows, line);
    }
}

fn concerned(concern: &Concern, is_here: bool, columns: usize, theme: &Theme) -> Row {
    let (glyph, style) = theme.severity(concern.severity);
    let what = WHAT_COLUMNS.min(columns.saturating_sub(4) / 2);
    let row = Row::default()
        .text(if is_here { theme.glyphs.cursor } else { " " }, theme.accent)
        .text(glyph, style)
        .space(1)
        .text(pen::padded(&concern.what, what, theme), if is_here { theme.accent } else { theme.text })
        .space(1);
    let room = columns.saturating_sub(row.columns() + 1);
    row.text(text::fit(&concern.why, room, theme.glyphs.ellipsis), theme.quiet)
}

fn busiest(state: &State, area: Rect, buffer: &mut Buffer, theme: &Theme) {
    if area.width == 0 || area.height == 0 {
        return;
    }
    pen::titled(buffer, area, Row::default().text("busiest", theme.quiet), "cpu", theme);
    let rows = Rect { y: area.y + 1, height: area.height - 1, ..area };
    let machines = state.pulse.busiest.iter().filter_map(|token| state.fleet.get(token));
    for (line, machine) in (0..rows.height).zip(machines) {
        busy(machine, usize::from(rows.width), theme).draw_in(buffer, rows, line);
    }
}

fn busy(machine: &Machine, columns: usize, theme: &Theme) -> Row {
    let cpu = machine.cpu_percent().unwrap_or(0);
    let style = theme.load(cpu);
    let bar_style = if style == theme.text { theme.figure } else { style };
    let cells = if columns >= 44 { 10 } else { 5 };
    let memory = machine.memory_percent().map(|memory| format!("  mem {memory:>3}%")).unwrap_or_default();
    let memory = if columns >= 44 { memory } else { String::new() };
    let name = columns.saturating_sub(1 + cells + 6 + memory.len() + 1);
    Row::margin()
        .text(pen::padded(&machine.name, name.min(24), theme), theme.text)
        .space(1)
        .text(pen::bar(u64::from(cpu), 100, cells, theme), bar_style)
        .text(format!("{cpu:>4}%"), style)
        .text(memory, theme.quiet)
}

fn newest(state: &State, area: Rect, buffer: &mut Buffer, theme: &Theme) {
    if area.height < 2 {
        return;
    }
    pen::titled(buffer, area, Row::default().text("newest", theme.quiet), "c all of them", theme);
    let rows = Rect { y: area.y + 1, height: area.height - 1, ..area };
    let newest = state.commands.newest();
    if newest.is_empty() {
        let text = "nothing was run yet: mark machines and press x";
        Row::margin().text(text, theme.faint).draw_in(buffer, rows, 0);
    }
    for (line, command) in (0..rows.height).zip(newest) {
        let row = commands::row(state, command, None, false, usize::from(rows.width), theme);
        row.draw_in(buffer, rows, line);
    }
}
