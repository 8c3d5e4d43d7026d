//! A list as it was told: one line for each row. Columns leave by priority when there is no room.

use ratatui::{buffer::Buffer, style::Style};
use unicode_width::UnicodeWidthStr as _;

use super::{
    amount,
    layout::Areas,
    pen::{self, Row},
};
use crate::tui::{
    lists::{Cell, Column, Item, ListKind},
    state::{State, rows::Rows},
    text,
    theme::Theme,
};

/// Before the first column: the cursor and a space.
const GUTTER_COLUMNS: usize = 2;
/// Between two columns.
const GAP_COLUMNS: usize = 2;

/// Draws the list.
pub(super) fn draw(state: &State, kind: ListKind, areas: &Areas, buffer: &mut Buffer, theme: &Theme) {
    let Some(rows) = state.rows(kind) else { return };
    let seen: Vec<&Item> = rows.seen().skip(rows.cursor.top()).take(usize::from(areas.list.height)).collect();
    let widths = widths(state, rows, &seen, usize::from(areas.list.width), theme);
    if areas.lead.height > 1 {
        pen::ends(buffer, areas.lead, 0, told(rows, theme), age(state, rows, theme));
    }
    if areas.lead.height > 0 {
        heads(rows, &widths, theme).draw_in(buffer, areas.lead, areas.lead.height - 1);
    }
    for (line, item) in (0..).zip(&seen) {
        let is_here = rows.cursor.key() == Some(&item.key);
        row(state, item, &widths, is_here, theme).draw_in(buffer, areas.list, line);
    }
    if seen.is_empty() {
        let room = usize::from(areas.list.width).saturating_sub(4);
        let line = u16::from(areas.list.height > 1);
        let text = text::fit(&nothing(rows), room, theme.glyphs.ellipsis);
        let style = if rows.problem.is_some() { theme.bad } else { theme.quiet };
        Row::margin().space(2).text(text, style).draw_in(buffer, areas.list, line);
    }
}

/// Why there are no rows, and what to do.
fn nothing(rows: &Rows) -> String {
    match (&rows.problem, rows.told_ms) {
        (Some(problem), _) => format!("cannot read it: {problem}"),
        (None, None) => "reading".to_owned(),
        (None, Some(_)) if rows.is_empty() => rows.kind().hint().to_owned(),
        (None, Some(_)) => "no row matches the filter; esc clears it".to_owned(),
    }
}

/// How many there are, and what is filtered.
pub(super) fn told(rows: &Rows, theme: &Theme) -> Row {
    let name = rows.kind().name();
    if rows.told_ms.is_none() {
        return Row::margin().text(name, theme.quiet);
    }
    if rows.filter().is_empty() {
        return Row::margin().text(format!("{name}: {}", rows.len()), theme.quiet);
    }
    if let Some(problem) = rows.filter_problem() {
        return Row::margin().text(format!("/{} {problem}", rows.filter()), theme.bad);
    }
    let text = format!("/{} {} of {}", rows.filter(), rows.order().len(), rows.len());
    Row::margin().text(text, theme.chosen)
}

/// How old what is shown is, and why it is not read anew.
fn age(state: &State, rows: &Rows, theme: &Theme) -> Row {
    let Some(told_ms) = rows.told_ms else { return Row::default() };
    let age = amount::age(state.real_ms.saturating_sub(told_ms));
    match &rows.problem {
        Some(problem) => Row::default().text(format!("{age} old: {problem}"), theme.bad).space(1),
        None => Row::default().text(format!("as of {age} ago"), theme.faint).space(1),
    }
}

/// The columns that have room, with their widths: as wide as what stands in them, within their bounds.
fn widths(
    state: &State,
    rows: &Rows,
    seen: &[&Item],
    columns: usize,
    theme: &Theme,
) -> Vec<(usize, &'static Column, usize)> {
    let wanted = |at: usize, column: &Column| {
        let cells = seen.iter().filter_map(|item| item.cells.get(at));
        let widest = cells.map(|cell| shown(cell, state.wall_ms, theme).0.width()).max().unwrap_or(0);
        let (least, most) = (usize::from(column.width.0), usize::from(column.width.1));
        widest.max(column.name.len() + 2).clamp(least, most.max(least))
    };
    let mut shown: Vec<(usize, &'static Column, usize)> =
        rows.columns().map(|(at, column)| (at, column, wanted(at, column))).collect();
    let used = |shown: &[(usize, &Column, usize)], of: fn(&(usize, &Column, usize)) -> usize| {
        GUTTER_COLUMNS + shown.iter().map(|column| of(column) + GAP_COLUMNS).sum::<usize>()
    };
    let least = |column: &(usize, &Column, usize)| usize::from(column.1.width.0).min(column.2);
    while used(&shown, least) > columns + GAP_COLUMNS {
        let leaving = shown.iter().enumerate().filter(|(_, (_, column, _))| column.leaves > 0);
        let Some(at) = leaving.min_by_key(|(_, (_, column, _))| column.leaves).map(|(at, _)| at) else {
            break;
        };
        shown.remove(at);
    }
    // What is too much is taken from the widest, down to what each needs.
    while used(&shown, |column| column.2) > columns + GAP_COLUMNS {
        let spare = |column: &(usize, &Column, usize)| column.2.saturating_sub(least(column));
        let Some(widest) = shown.iter_mut().max_by_key(|column| spare(column)).filter(|c| spare(c) > 0)
        else {
            break;
        };
        widest.2 -= 1;
    }
    shown
}

fn heads(rows: &Rows, widths: &[(usize, &'static Column, usize)], theme: &Theme) -> Row {
    let (sort, is_reversed) = rows.sort();
    let [down, up] = theme.glyphs.arrows;
    widths.iter().fold(Row::default().space(GUTTER_COLUMNS), |row, (at, column, width)| {
        let is_sorted = sort == Some(*at);
        let arrow = if is_reversed { up } else { down };
        let text = if is_sorted { format!("{} {arrow}", column.name) } else { column.name.to_owned() };
        let style = if is_sorted { theme.chosen } else { theme.quiet };
        row.text(pen::padded(&text, *width, theme), style).space(GAP_COLUMNS)
    })
}

fn row(
    state: &State,
    item: &Item,
    widths: &[(usize, &'static Column, usize)],
    is_here: bool,
    theme: &Theme,
) -> Row {
    let gutter = if is_here { theme.glyphs.cursor } else { " " };
    let begin = Row::default().text(gutter, theme.accent).space(GUTTER_COLUMNS - 1);
    widths.iter().enumerate().fold(begin, |row, (place, (at, _, width))| {
        let nothing = Cell::Nothing;
        let cell = item.cells.get(*at).unwrap_or(&nothing);
        let (text, style) = shown(cell, state.wall_ms, theme);
        let style = if is_here && place == 0 { theme.accent } else { style };
        row.text(pen::padded(&text, *width, theme), style).space(GAP_COLUMNS)
    })
}

fn shown(cell: &Cell, wall_ms: u64, theme: &Theme) -> (String, Style) {
    match cell {
        Cell::Nothing => (theme.glyphs.unknown.to_owned(), theme.faint),
        Cell::Word(severity, text) => {
            let (glyph, style) = theme.severity(*severity);
            (format!("{glyph} {text}"), style)
        }
        Cell::Text(_) | Cell::Number(_) => (cell.plain(wall_ms), theme.text),
        Cell::Quiet(_) | Cell::Time(_) => (cell.plain(wall_ms), theme.quiet),
    }
}
