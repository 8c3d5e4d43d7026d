//! Charts: a figure over time as a surface of dots, with what it was at least and at most, and when. Where nothing was heard
//! there is nothing.

use ratatui::{buffer::Buffer, layout::Rect, style::Style};

use super::{
    amount,
    pen::{self, Row},
};
use crate::tui::{
    state::{
        chart::{Kind, Line},
        tabs::Zoom,
    },
    theme::Theme,
};

/// Dots of a cell beside each other, and above each other.
const DOTS: (usize, usize) = (2, 4);
/// The code of the cell without dots; each dot is a bit more.
const NO_DOTS: u32 = 0x2800;
/// Bits of the dots of a cell: left and right, the lowest first.
const BITS: [[u32; 4]; 2] = [[0x40, 0x04, 0x02, 0x01], [0x80, 0x20, 0x10, 0x08]];

/// What is drawn of one figure.
pub(super) struct Chart<'a> {
    /// Which one.
    pub kind: Kind,
    /// What it was.
    pub line: &'a Line,
    /// What it is now; `None` = not known.
    pub now: Option<u32>,
    /// How that is shown.
    pub style: Style,
    /// Said beside it.
    pub more: String,
    /// The time that is shown, Unix ms.
    pub time: (u64, u64),
    /// How long that is.
    pub zoom: Zoom,
    /// Whether it is how it was, and not how it is.
    pub is_old: bool,
}

/// How many slots a chart of so many columns has.
pub(super) fn slots(columns: u16, theme: &Theme) -> usize {
    usize::from(columns) * if theme.glyphs.has_dots { DOTS.0 } else { 1 }
}

/// The largest value that has room.
fn whole(kind: Kind, line: &Line) -> u32 {
    match kind {
        Kind::Load => line.most.unwrap_or(0).max(10),
        Kind::Cpu | Kind::Memory | Kind::Disk => 100,
    }
}

/// Draws a title, the surface, and an axis.
pub(super) fn draw(chart: &Chart<'_>, area: Rect, buffer: &mut Buffer, theme: &Theme) {
    let now = chart.now.map_or_else(|| theme.glyphs.unknown.to_owned(), |now| chart.kind.show(now));
    let title = Row::default()
        .text(format!("{} ", chart.kind.word()), theme.quiet)
        .text(now, if chart.is_old { theme.faint } else { chart.style });
    let with_more = Row::default().text(format!(" {}", chart.more), theme.quiet);
    let has_room = title.columns() + with_more.columns() + range(chart).len() + 10 < usize::from(area.width);
    let title = if has_room && !chart.more.is_empty() { title.row(with_more) } else { title };
    pen::titled(buffer, area, title, &range(chart), theme);
    let surface = Rect { y: area.y + 1, height: area.height.saturating_sub(2), ..area };
    let style = if chart.is_old { theme.faint } else { theme.figure };
    let most = whole(chart.kind, chart.line);
    if theme.glyphs.has_dots {
        dotted(buffer, surface, &chart.line.slots, most, style);
    } else {
        let of_most = |value: u32| u64::from(value) * 100 / u64::from(most.max(1));
        let percents =
            chart.line.slots.iter().map(|slot| slot.map(of_most).and_then(|it| u8::try_from(it).ok()));
        pen::graph(buffer, surface, &percents.collect::<Vec<_>>(), theme, style);
    }
    axis(chart, area, buffer, theme);
}

/// The least and the most of the time that is shown.
fn range(chart: &Chart<'_>) -> String {
    match (chart.line.least, chart.line.most) {
        (Some(least), Some(most)) => format!("{} to {}", chart.kind.show(least), chart.kind.show(most)),
        _ => "nothing heard".to_owned(),
    }
}

/// Dots up to each value; at least one, so that an idle machine is not taken for a silent one.
fn dotted(buffer: &mut Buffer, area: Rect, slots: &[Option<u32>], most: u32, style: Style) {
    let high = usize::from(area.height) * DOTS.1;
    let dots = |slot: usize| {
        let value = slots.get(slot).copied().flatten()?;
        let dots = u64::from(value) * high as u64 / u64::from(most.max(1));
        Some(usize::try_from(dots).unwrap_or(high).clamp(1, high))
    };
    for (column, x) in (area.x..area.right()).enumerate() {
        for (row, y) in (area.y..area.bottom()).rev().enumerate() {
            let bits = BITS.iter().enumerate().map(|(side, bits)| {
                let filled = dots(column * DOTS.0 + side).unwrap_or(0).saturating_sub(row * DOTS.1);
                bits.iter().take(filled).sum::<u32>()
            });
            let bits: u32 = bits.sum();
            if let (Some(dots), Some(cell)) =
                (char::from_u32(NO_DOTS + bits).filter(|_| bits > 0), buffer.cell_mut((x, y)))
            {
                cell.set_char(dots).set_style(style);
            }
        }
    }
}

/// When it begins and ends, and how long that is, where there is room.
fn axis(chart: &Chart<'_>, area: Rect, buffer: &mut Buffer, theme: &Theme) {
    let moment = if chart.zoom.ms() > Zoom::Day.ms() { amount::day } else { amount::minute };
    let (from, to) = chart.time;
    let ends = Row::default().text(moment(to), theme.faint);
    let begins = Row::default().text(moment(from), theme.faint);
    let line = Rect { y: area.bottom().saturating_sub(1), height: area.height.min(1), ..area };
    pen::ends(buffer, line, 0, begins, ends);
    let word = chart.zoom.word();
    let columns = u16::try_from(word.len()).unwrap_or(0);
    if area.width >= columns + 16 {
        let x = area.x + (area.width - columns) / 2;
        Row::default().text(word, theme.faint).draw(buffer, x, line.y, columns);
    }
}

/// Draws one figure as a line of heights with its word and its value before it.
pub(super) fn spark(chart: &Chart<'_>, columns: usize, theme: &Theme) -> Row {
    let now = chart.now.map_or_else(|| theme.glyphs.unknown.to_owned(), |now| chart.kind.show(now));
    let most = whole(chart.kind, chart.line);
    let of_most = |value: u32| u64::from(value) * 100 / u64::from(most.max(1));
    let means: Vec<Option<u8>> = chart
        .line
        .slots
        .iter()
        .map(|slot| slot.map(of_most).and_then(|it| u8::try_from(it.min(100)).ok()))
        .collect();
    let style = if chart.is_old { theme.faint } else { theme.figure };
    Row::default()
        .text(format!("{:<4}", chart.kind.word()), theme.quiet)
        .text(format!("{now:>5} "), if chart.is_old { theme.faint } else { chart.style })
        .text(pen::sparkline(&means, theme), style)
        .up_to(columns)
}

/// Columns of a word and a value before a line of heights.
pub(super) const SPARK_WORD_COLUMNS: usize = 10;
