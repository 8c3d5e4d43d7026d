//! One machine: what it is, how it is, what ran on it.

use ratatui::{buffer::Buffer, layout::Rect};
use signalbox_schemas::{api::Liveness, heartbeat::Metrics, id::MachineToken};

use super::{
    amount, commands,
    pen::{self, Row},
};
use crate::tui::{
    state::{
        State,
        history::Sample,
        machine::{self, Machine},
    },
    theme::Theme,
};

/// Rows of a graph, its title not counted.
const GRAPH_ROWS: std::ops::RangeInclusive<u16> = 3..=10;
/// From this width on graphs and disks stand side by side.
const SIDE_BY_SIDE_COLUMNS: u16 = 100;
/// Columns between two panels.
const GAP_COLUMNS: u16 = 2;

/// Draws one machine.
pub(super) fn draw(state: &State, token: &MachineToken, area: Rect, buffer: &mut Buffer, theme: &Theme) {
    let Some(machine) = state.fleet.get(token) else {
        let text = "this machine is not known any more";
        Row::margin().space(2).text(text, theme.quiet).draw_in(buffer, area, 1);
        return;
    };
    let facts = facts(state, machine, usize::from(area.width), theme);
    let used = u16::try_from(facts.len()).unwrap_or(u16::MAX).min(area.height);
    for (line, row) in (0..).zip(facts) {
        row.draw_in(buffer, area, line);
    }
    let mut rest = below(area, used + u16::from(area.height > 12));
    rest = figures(state, machine, rest, buffer, theme);
    recent(state, machine, rest, buffer, theme);
}

/// What is left of an area below its first rows.
fn below(area: Rect, rows: u16) -> Rect {
    let rows = rows.min(area.height);
    Rect { y: area.y + rows, height: area.height - rows, ..area }
}

/// State and facts, broken into lines of this width.
fn facts(state: &State, machine: &Machine, columns: usize, theme: &Theme) -> Vec<Row> {
    let liveness = machine.state(state.now_ms);
    let (glyph, style) = theme.liveness(liveness);
    let mut parts = vec![
        Row::default().text(format!("{glyph} {}", liveness.as_str()), style),
        Row::default().text(
            match machine.age_ms(state.now_ms) {
                Some(age) => format!("heard {} ago", amount::age(age)),
                None => "never heard".to_owned(),
            },
            theme.text,
        ),
    ];
    let mut add = |text: String| parts.push(Row::default().text(text, theme.quiet));
    if let Some(metrics) = &machine.metrics {
        add(format!("up {}", amount::age(metrics.uptime_secs.saturating_mul(1000))));
    }
    if let Some(facts) = &machine.facts {
        let texts = [&facts.os, &facts.kernel, &facts.arch].into_iter().filter(|text| !text.is_empty());
        texts.for_each(|text| add(text.clone()));
        if facts.hostname != machine.name && !facts.hostname.is_empty() {
            add(format!("host {}", facts.hostname));
        }
    }
    if let Some(relay) = &machine.relay {
        add(format!("relay {relay}"));
    }
    if machine.running + machine.pending > 0 {
        let text = format!("{} running, {} waiting", machine.running, machine.pending);
        parts.push(Row::default().text(text, theme.accent));
    }
    if machine.outbox > 0 {
        parts.push(Row::default().text(format!("{} unacknowledged", machine.outbox), theme.warn));
    }
    wrapped(parts, columns)
}

fn wrapped(parts: Vec<Row>, columns: usize) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut row = Row::margin();
    for part in parts {
        let is_first = row.columns() <= 1;
        if !is_first && row.columns() + 3 + part.columns() > columns {
            rows.push(std::mem::replace(&mut row, Row::margin()).row(Row::default()));
            row = row.row(part);
        } else {
            row = if is_first { row.row(part) } else { row.space(3).row(part) };
        }
    }
    rows.push(row);
    rows
}

/// Graphs and disks; answers what is left below them.
fn figures(state: &State, machine: &Machine, area: Rect, buffer: &mut Buffer, theme: &Theme) -> Rect {
    let Some(metrics) = &machine.metrics else {
        Row::margin().text("no figures yet", theme.faint).draw_in(buffer, area, 0);
        return below(area, 1);
    };
    if area.height < 10 || area.width < 60 {
        return figures_as_lines(state, machine, metrics, area, buffer, theme);
    }
    let rows = (area.height / 3).clamp(*GRAPH_ROWS.start(), *GRAPH_ROWS.end()) + 1;
    let count: u16 = if area.width >= SIDE_BY_SIDE_COLUMNS { 3 } else { 2 };
    let width = (area.width - 2 - GAP_COLUMNS * (count - 1)) / count;
    let panel = |at: u16| Rect { x: area.x + 1 + at * (width + GAP_COLUMNS), width, height: rows, ..area };
    // Old figures are told in a quiet voice, and with their age.
    let is_old = machine.state(state.now_ms) != Liveness::Online;
    let word = is_old.then(|| machine.age_ms(state.now_ms)).flatten();
    let word = word.map_or_else(|| "10 min".to_owned(), |age| format!("{} old", amount::age(age)));
    let cpu = machine.cpu_percent().unwrap_or(0);
    let title = Row::default()
        .text("cpu ", theme.quiet)
        .text(format!("{cpu}%"), theme.load(cpu))
        .text(format!(" of {}   load {}", metrics.cpus, loads(metrics)), theme.quiet);
    pen::titled(buffer, panel(0), title, &word, theme);
    graph(state, machine, below(panel(0), 1), |sample| sample.cpu_percent, buffer, theme);
    let memory = machine.memory_percent().unwrap_or(0);
    let title = Row::default()
        .text("memory ", theme.quiet)
        .text(format!("{memory}%"), theme.load(memory))
        .text(format!(" of {}", amount::bytes(metrics.memory_total_bytes)), theme.quiet);
    pen::titled(buffer, panel(1), title, &word, theme);
    graph(state, machine, below(panel(1), 1), |sample| sample.memory_percent, buffer, theme);
    if count == 3 {
        disks(metrics, panel(2), buffer, theme);
        return below(area, rows + 1);
    }
    let rest = below(area, rows);
    let shown = u16::try_from(metrics.disks.len()).unwrap_or(u16::MAX).min(rest.height / 3);
    disks(metrics, Rect { x: area.x + 1, width: area.width - 2, height: shown + 1, ..rest }, buffer, theme);
    below(rest, shown + 1)
}

fn loads(metrics: &Metrics) -> String {
    let [one, five, fifteen] = metrics.load;
    format!("{one:.1} {five:.1} {fifteen:.1}")
}

fn graph(
    state: &State,
    machine: &Machine,
    area: Rect,
    of: fn(&Sample) -> u8,
    buffer: &mut Buffer,
    theme: &Theme,
) {
    let now_secs = u32::try_from(state.now_ms / 1000).unwrap_or(u32::MAX);
    // One column for each heartbeat is as fine as it gets; stretches grow to fill the width.
    let stretches = usize::from(area.width).min(60);
    let means = machine.history.means(now_secs, stretches, of);
    let wide: Vec<Option<u8>> = (0..usize::from(area.width))
        .map(|x| means.get(x * stretches / usize::from(area.width.max(1))).copied().flatten())
        .collect();
    let is_old = machine.state(state.now_ms) != Liveness::Online;
    pen::graph(buffer, area, &wide, theme, if is_old { theme.faint } else { theme.figure });
}

fn disks(metrics: &Metrics, area: Rect, buffer: &mut Buffer, theme: &Theme) {
    let title = Row::default().text("disks", theme.quiet);
    pen::titled(buffer, area, title, "", theme);
    let rows = below(area, 1);
    for (line, disk) in (0..rows.height).zip(&metrics.disks) {
        let percent = machine::disk_percent(disk).unwrap_or(0);
        let style = theme.disk(percent);
        let bar_style = if style == theme.text { theme.figure } else { style };
        let sizes = amount::part(disk.used_bytes, disk.total_bytes);
        // Mount, bar and percentage with the spaces between; sizes have what is left.
        let mount = usize::from(rows.width).saturating_sub(1 + 6 + 5 + 2 + 13).clamp(6, 30);
        Row::default()
            .text(pen::padded(&disk.mount, mount, theme), theme.text)
            .space(1)
            .text(pen::bar(u64::from(percent), 100, 6, theme), bar_style)
            .text(format!("{percent:>4}%"), style)
            .space(2)
            .text(sizes, theme.quiet)
            .draw_in(buffer, rows, line);
    }
}

fn figures_as_lines(
    state: &State,
    machine: &Machine,
    metrics: &Metrics,
    area: Rect,
    buffer: &mut Buffer,
    theme: &Theme,
) -> Rect {
    let now_secs = u32::try_from(state.now_ms / 1000).unwrap_or(u32::MAX);
    let columns = usize::from(area.width).saturating_sub(16).min(60);
    let spark = |of: fn(&Sample) -> u8| pen::sparkline(&machine.history.means(now_secs, columns, of), theme);
    let cpu = machine.cpu_percent().unwrap_or(0);
    let memory = machine.memory_percent().unwrap_or(0);
    let disk = machine.disk_percent();
    let line = |word: &str, percent: u8, style| {
        Row::margin().text(format!("{word:<5}"), theme.quiet).text(format!("{percent:>4}%"), style).space(2)
    };
    line("cpu", cpu, theme.load(cpu)).text(spark(|s| s.cpu_percent), theme.figure).draw_in(buffer, area, 0);
    line("mem", memory, theme.load(memory))
        .text(spark(|s| s.memory_percent), theme.figure)
        .draw_in(buffer, area, 1);
    if let Some(disk) = disk {
        line("disk", disk, theme.disk(disk))
            .text(format!("load {}", loads(metrics)), theme.quiet)
            .draw_in(buffer, area, 2);
    }
    below(area, 3)
}

/// Commands that concern it, newest first.
fn recent(state: &State, machine: &Machine, area: Rect, buffer: &mut Buffer, theme: &Theme) {
    if area.height < 2 {
        return;
    }
    let panel = Rect { x: area.x + 1, width: area.width - 2, ..area };
    pen::titled(buffer, panel, Row::default().text("commands", theme.quiet), "newest first", theme);
    let rows = below(area, 1);
    let newest = state.commands.newest();
    let mut concerning = newest.into_iter().filter(|command| command.concerns(&machine.id)).peekable();
    if concerning.peek().is_none() {
        Row::margin().text("none yet; x runs one", theme.faint).draw_in(buffer, rows, 0);
    }
    for (line, command) in (0..rows.height).zip(concerning) {
        let run = command.run_on(&machine.id);
        let row = commands::row(state, command, run, false, usize::from(rows.width), theme);
        row.draw_in(buffer, rows, line);
    }
}
