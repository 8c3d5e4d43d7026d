//! Where things are. Pure geometry: `update` asks it for page sizes, `view` draws into it.

use ratatui::layout::Rect;

use crate::tui::state::{Screen, State, output::window::Frame, page::Focus};

/// Fewest columns and rows that anything is drawn on.
pub const SMALLEST: (u16, u16) = (40, 10);
/// From this height on there are rules between the parts.
const RULED_ROWS: u16 = 16;
/// From this height on lists have a summary or a heading above them.
const ROOMY_ROWS: u16 = 12;
/// From this width on runs and output stand side by side.
const HALVES_COLUMNS: u16 = 76;

/// From these widths on four, or two, charts stand side by side.
const FOUR_CHARTS_COLUMNS: u16 = 100;
const TWO_CHARTS_COLUMNS: u16 = 56;
/// Fewest rows of a chart with its title and its axis, and most beside rows.
const LEAST_CHART_ROWS: u16 = 5;
const MOST_CHART_ROWS: u16 = 9;

/// The parts of the screen; what is not there has no height or no width.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Areas {
    /// Who, where, how is the connection.
    pub header: Rect,
    /// Rules below the header, below the lead and above the footer.
    pub rules: [Rect; 3],
    /// What all rows amount to, and the heads of columns.
    pub lead: Rect,
    /// What is said above the heads of columns: of a machine how it is, its charts and its tabs.
    pub above: Rect,
    /// The rows, or all of a screen without rows.
    pub list: Rect,
    /// Between list and output.
    pub between: Rect,
    /// What is said about the output.
    pub output_head: Rect,
    /// The output.
    pub output: Rect,
    /// Keys, or what happened.
    pub footer: Rect,
}

/// Whether the screen is too small to draw on.
pub fn is_too_small((columns, rows): (u16, u16)) -> bool {
    columns < SMALLEST.0 || rows < SMALLEST.1
}

/// The parts of the screen as it is now.
pub fn areas(state: &State) -> Areas {
    let (columns, rows) = state.size;
    if is_too_small(state.size) {
        return Areas::default();
    }
    let ruled = u16::from(rows >= RULED_ROWS);
    let roomy = u16::from(rows >= ROOMY_ROWS);
    let lead_rows = match state.screen {
        Screen::Machines | Screen::List(_) => 1 + roomy,
        Screen::Commands | Screen::Output(..) => 1,
        Screen::Command(_) => 2,
        Screen::Pulse | Screen::Machine(_) | Screen::Item(..) => 0,
    };
    let lead_rule = match state.screen {
        Screen::Command(_) => ruled,
        Screen::Pulse
        | Screen::Machines
        | Screen::Commands
        | Screen::Output(..)
        | Screen::Machine(_)
        | Screen::List(_)
        | Screen::Item(..) => 0,
    };
    // What is not now is said whatever is left out otherwise.
    let is_past = state.past.is_looked_at() && state.screen == Screen::Machines;
    let with_header = u16::from(!state.is_headless || is_past);
    let mut y = 0;
    let mut take = |height: u16| {
        let area = Rect::new(0, y, columns, height);
        y += height;
        area
    };
    let header = take(with_header);
    let below_header = take(ruled * with_header);
    let lead = take(lead_rows);
    let below_lead = take(lead_rule);
    let body_rows = rows - ((1 + ruled) * with_header + lead_rows + lead_rule) - (ruled + 1);
    let body = take(body_rows);
    let above_footer = take(ruled);
    let footer = take(1);
    let mut areas = Areas {
        header,
        rules: [below_header, below_lead, above_footer],
        lead,
        list: body,
        footer,
        ..Areas::default()
    };
    match state.screen {
        Screen::Command(_) => split(&mut areas, body, state.page.focus),
        Screen::Machine(_) => stack(&mut areas, body, charts(state, body)),
        _ => {}
    }
    areas
}

/// How the charts of a machine are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Charts {
    /// How many stand side by side; 0: they are one line.
    pub side_by_side: u16,
    /// Rows of all of them.
    pub rows: u16,
}

/// As many charts side by side as are wide enough; where they would not be high enough they are one line.
fn charts(state: &State, body: Rect) -> Charts {
    let side_by_side = match body.width {
        FOUR_CHARTS_COLUMNS.. if !state.one.is_charts => 4,
        TWO_CHARTS_COLUMNS.. => 2,
        _ => 1,
    };
    let below_each_other = 4 / side_by_side;
    // Beside the line of the machine and that of the tabs.
    let room = if state.one.is_charts { body.height.saturating_sub(2) } else { body.height / 3 };
    let each = (room / below_each_other).min(if state.one.is_charts { u16::MAX } else { MOST_CHART_ROWS });
    if each < LEAST_CHART_ROWS {
        return Charts {
            side_by_side: 0,
            rows: if state.one.is_charts { body.height.min(6) - 2 } else { 1 },
        };
    }
    Charts { side_by_side, rows: each * below_each_other }
}

/// How the charts of the machine on the screen are laid out, and where.
pub fn charts_of(state: &State) -> (Charts, Rect) {
    let above = areas(state).above;
    let charts = charts(state, body_of(state));
    let area = Rect { y: above.y + 1, height: charts.rows.min(above.height.saturating_sub(2)), ..above };
    (charts, area)
}

fn body_of(state: &State) -> Rect {
    let areas = areas(state);
    let height = areas.above.height + areas.lead.height + areas.list.height;
    Rect { height, ..areas.above }
}

/// A machine: how it is, charts, tabs, heads of columns, rows.
fn stack(areas: &mut Areas, body: Rect, charts: Charts) {
    let above = (charts.rows + 2).min(body.height);
    areas.above = Rect { height: above, ..body };
    let rest = body.height - above;
    areas.lead = Rect { y: areas.above.bottom(), height: rest.min(1), ..body };
    areas.list = Rect { y: areas.lead.bottom(), height: rest.saturating_sub(1), ..body };
}

/// The parts of the pulse; what is not there has no height or no width.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PulseAreas {
    /// How many machines and commands, and how much is heard.
    pub counts: Rect,
    /// What needs a look.
    pub concerns: Rect,
    /// The busiest machines.
    pub busiest: Rect,
    /// The newest commands.
    pub newest: Rect,
}

/// The parts of the pulse as it is now. What needs a look goes before who is busy, and that before what is newest.
pub fn pulse(state: &State) -> PulseAreas {
    let body = areas(state).list;
    let counts = Rect { height: body.height.min(if body.height >= RULED_ROWS { 4 } else { 2 }), ..body };
    let rest = Rect { y: counts.bottom(), height: body.height - counts.height, ..body };
    let newest_rows = if rest.height >= ROOMY_ROWS { (rest.height / 3).min(12) } else { 0 };
    let upper = Rect { height: rest.height - newest_rows, ..rest };
    let newest = Rect { y: upper.bottom(), height: newest_rows, ..rest };
    if body.width >= HALVES_COLUMNS {
        let half = body.width * 11 / 20;
        let concerns = Rect { width: half, ..upper };
        let busiest = Rect { x: half + 1, width: body.width - half - 1, ..upper };
        return PulseAreas { counts, concerns, busiest, newest };
    }
    PulseAreas { counts, concerns: upper, busiest: Rect::default(), newest }
}

/// How much of the output that fills the screen is seen.
pub fn frame(state: &State) -> Frame {
    let area = areas(state).list;
    let beside = super::output::beside(state).min(usize::from(area.width));
    Frame {
        columns: usize::from(area.width) - beside,
        rows: usize::from(area.height),
        wraps: state.output.look.wraps,
    }
}

fn split(areas: &mut Areas, body: Rect, focus: Focus) {
    let output = if body.width >= HALVES_COLUMNS {
        let runs = (body.width * 3 / 10).clamp(28, 46);
        areas.list = Rect { width: runs, ..body };
        areas.between = Rect { x: runs, width: 1, ..body };
        Rect { x: runs + 2, width: body.width - runs - 2, ..body }
    } else if focus == Focus::Runs {
        Rect { width: 0, ..body }
    } else {
        areas.list = Rect { width: 0, ..body };
        Rect { x: 1, width: body.width - 1, ..body }
    };
    areas.output_head = Rect { height: 1, ..output };
    areas.output = Rect { y: output.y + 1, height: output.height - 1, ..output };
}
