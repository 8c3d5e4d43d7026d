//! One machine: how it is, how it was, and a tab of what there is of it.

use ratatui::{buffer::Buffer, layout::Rect};
use signalbox_schemas::{api::Liveness, id::MachineToken};
use unicode_width::UnicodeWidthStr as _;

use super::{
    amount,
    chart::{self, Chart, SPARK_WORD_COLUMNS},
    layout::{self, Areas, Charts},
    list,
    pen::{self, Row},
};
use crate::tui::{
    lists::{self, ListKind, Tab},
    state::{State, chart::Kind, chart::Line, machine::Machine},
    text,
    theme::Theme,
};

/// Columns between two charts.
const GAP_COLUMNS: u16 = 2;
/// Narrowest line of heights.
const LEAST_SPARK_COLUMNS: usize = 6;
/// Columns of all tabs with their words, and a space.
const WORDS_COLUMNS: usize = 76;

/// Draws one machine.
pub(super) fn draw(state: &State, token: &MachineToken, areas: &Areas, buffer: &mut Buffer, theme: &Theme) {
    if let Some(machine) = state.fleet.get(token) {
        facts(state, machine, areas.above.width, theme).draw_in(buffer, areas.above, 0);
        charts(state, machine, buffer, theme);
    } else {
        // It may have been known once: what happened to it is told still.
        let text = "this machine is not known any more";
        Row::margin().text(text, theme.warn).draw_in(buffer, areas.above, 0);
    }
    tabs(state, areas, buffer, theme);
    if areas.list.height > 0 && !state.one.is_charts {
        list::draw(state, ListKind::Of(state.one.tab), areas, buffer, theme);
    }
}

/// How it is, as much as has room.
fn facts(state: &State, machine: &Machine, columns: u16, theme: &Theme) -> Row {
    let liveness = machine.state(state.now_ms);
    let (glyph, style) = theme.liveness(liveness);
    let heard = match machine.age_ms(state.now_ms) {
        Some(age) => format!("heard {} ago", amount::age(age)),
        None => "never heard".to_owned(),
    };
    let mut parts = vec![(format!("{glyph} {}", liveness.as_str()), style), (heard, theme.text)];
    if machine.running + machine.pending > 0 {
        parts.push((format!("{} running, {} waiting", machine.running, machine.pending), theme.accent));
    }
    if machine.outbox > 0 {
        parts.push((format!("{} unacknowledged", machine.outbox), theme.warn));
    }
    if let Some(metrics) = &machine.metrics {
        parts.push((format!("up {}", amount::age(metrics.uptime_secs.saturating_mul(1000))), theme.quiet));
    }
    if let Some(facts) = &machine.facts {
        let host = if facts.hostname == machine.name { "" } else { facts.hostname.as_str() };
        let host = if host.is_empty() { String::new() } else { format!("host {host}") };
        let known = [facts.os.clone(), facts.kernel.clone(), facts.arch.clone(), host];
        parts.extend(known.into_iter().filter(|text| !text.is_empty()).map(|text| (text, theme.quiet)));
    }
    if let Some(relay) = &machine.relay {
        parts.push((format!("relay {relay}"), theme.quiet));
    }
    if !machine.labels.is_empty() {
        parts.push((machine.labels_line(), theme.quiet));
    }
    let mut row = Row::margin();
    for (text, style) in parts {
        let part = Row::default().text(text, style);
        let gap = if row.columns() > 1 { 3 } else { 0 };
        if row.columns() + gap + part.columns() > usize::from(columns) {
            break;
        }
        row = row.space(gap).row(part);
    }
    row
}

/// A figure as it is now.
fn now(machine: &Machine, kind: Kind) -> Option<u32> {
    match kind {
        Kind::Cpu => machine.cpu_percent().map(u32::from),
        Kind::Memory => machine.memory_percent().map(u32::from),
        Kind::Disk => machine.disk_percent().map(u32::from),
        Kind::Load => machine.history.samples().last().map(|sample| u32::from(sample.load_tenths)),
    }
}

/// What is said beside a figure.
fn more(machine: &Machine, kind: Kind) -> String {
    let Some(metrics) = &machine.metrics else { return String::new() };
    match kind {
        Kind::Cpu => format!("of {}", metrics.cpus),
        Kind::Memory => format!("of {}", amount::bytes(metrics.memory_total_bytes)),
        Kind::Disk => {
            let fullest =
                metrics.disks.iter().max_by_key(|disk| crate::tui::state::machine::disk_percent(disk));
            fullest.map(|disk| disk.mount.clone()).unwrap_or_default()
        }
        Kind::Load => String::new(),
    }
}

fn charts(state: &State, machine: &Machine, buffer: &mut Buffer, theme: &Theme) {
    let (Charts { side_by_side, rows }, area) = layout::charts_of(state);
    if side_by_side == 0 {
        return sparks(state, machine, area, buffer, theme);
    }
    let width = (area.width - 2 - GAP_COLUMNS * (side_by_side - 1)) / side_by_side;
    let height = rows * side_by_side / 4;
    for (at, kind) in (0_u16..).zip(Kind::ALL) {
        let (column, line) = (at % side_by_side, at / side_by_side);
        let area =
            Rect { x: area.x + 1 + column * (width + GAP_COLUMNS), y: area.y + line * height, width, height };
        let slots = chart::slots(width, theme);
        let line = line_of(state, machine, kind, slots);
        chart::draw(&chart_of(state, machine, kind, &line, slots, theme), area, buffer, theme);
    }
}

fn line_of(state: &State, machine: &Machine, kind: Kind, slots: usize) -> Line {
    state.one.line(kind, machine, (state.now_ms, state.wall_ms), slots)
}

fn chart_of<'a>(
    state: &State,
    machine: &Machine,
    kind: Kind,
    line: &'a Line,
    slots: usize,
    theme: &Theme,
) -> Chart<'a> {
    let now = now(machine, kind);
    let percent = now.and_then(|now| u8::try_from(now).ok()).unwrap_or(0);
    Chart {
        kind,
        line,
        now,
        style: match kind {
            Kind::Cpu | Kind::Memory => theme.load(percent),
            Kind::Disk => theme.disk(percent),
            Kind::Load => theme.text,
        },
        more: more(machine, kind),
        time: state.one.time(state.wall_ms, slots),
        zoom: state.one.zoom,
        is_old: machine.state(state.now_ms) != Liveness::Online,
    }
}

/// All figures beside each other in one line, or below each other where there is room.
fn sparks(state: &State, machine: &Machine, area: Rect, buffer: &mut Buffer, theme: &Theme) {
    let room = usize::from(area.width.saturating_sub(2));
    let lines = usize::from(area.height.clamp(1, 4));
    let each = room / 4_usize.div_ceil(lines);
    // What has no room beside the others is left out, the load first.
    let beside = (room / (SPARK_WORD_COLUMNS + LEAST_SPARK_COLUMNS)).clamp(1, 4_usize.div_ceil(lines));
    let each = each.max(room / beside);
    let columns = each.saturating_sub(SPARK_WORD_COLUMNS + 1).min(60);
    for (line, kinds) in (0..area.height).zip(Kind::ALL.chunks(beside)) {
        let row = kinds.iter().enumerate().fold(Row::margin(), |row, (at, kind)| {
            let figures = line_of(state, machine, *kind, columns);
            let chart = chart_of(state, machine, *kind, &figures, columns, theme);
            row.up_to(1 + at * each).row(chart::spark(&chart, each, theme))
        });
        row.draw_in(buffer, area, line);
    }
}

/// The tabs, with what is said of the rows at the right.
fn tabs(state: &State, areas: &Areas, buffer: &mut Buffer, theme: &Theme) {
    let area = areas.above;
    let (note, style) = note(state, theme);
    let has_words = usize::from(area.width) > WORDS_COLUMNS + note.width();
    let row = (1..).zip(Tab::ALL).fold(Row::default(), |row, (n, tab)| {
        let is_here = tab == state.one.tab && !state.one.is_charts;
        let style = if is_here { theme.accent } else { theme.quiet };
        let (open, close) = if is_here { ("[", "]") } else { (" ", " ") };
        let word =
            if has_words || is_here { format!(" {}", lists::machine::word(tab)) } else { String::new() };
        row.text(format!("{open}{n}{word}{close}"), style)
    });
    let row = if has_words { Row::margin().row(row) } else { row };
    let room = usize::from(area.width).saturating_sub(row.columns() + 2);
    let note = text::fit(&note, room, theme.glyphs.ellipsis);
    let note = Row::default().text(note, style).space(1);
    pen::ends(buffer, area, area.height.saturating_sub(1), row, note);
}

/// What is filtered, what is old, what is not all; else how much time the charts show.
fn note(state: &State, theme: &Theme) -> (String, ratatui::style::Style) {
    let rows = state.rows(ListKind::Of(state.one.tab)).filter(|_| !state.one.is_charts);
    if let Some(rows) = rows.filter(|rows| !rows.filter().is_empty()) {
        return match rows.filter_problem() {
            Some(problem) => (format!("/{} {problem}", rows.filter()), theme.bad),
            None => (format!("/{} {} of {}", rows.filter(), rows.order().len(), rows.len()), theme.chosen),
        };
    }
    if let Some(problem) = rows.filter(|rows| rows.told_ms.is_some()).and_then(|rows| rows.problem.as_ref()) {
        return (format!("old: {problem}"), theme.bad);
    }
    let zoom = state.one.zoom.short();
    let note = rows.and_then(|rows| lists::machine::note(state.one.tab, rows.len(), state.one.is_cut()));
    match (&state.one.series().problem, note) {
        (Some(problem), _) => (format!("charts: {problem}"), theme.bad),
        (None, Some(note)) => (note, theme.faint),
        (None, None) => (zoom.to_owned(), theme.faint),
    }
}
