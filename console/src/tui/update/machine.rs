//! On the page of one machine: its tabs, its charts, and reading both.
//!
//! One question about rows and one about figures is under way at a time, whatever is leafed through meanwhile: the page that
//! is open when the answer comes is asked for next.

use signalbox_schemas::{
    api::MachineSeries,
    error::Problem,
    id::{CommandId, MachineToken},
};

use super::go;
use crate::{
    client::{
        Ask,
        machine::{Looked, Part, Span, Tab},
    },
    tui::{
        effect::Effect,
        keymap::Action,
        lists::{self, ListKind},
        state::{Screen, State},
        text,
    },
};

/// Commands of rows that are kept.
const MOST_COMMANDS: usize = 1_000;

/// Does what an action means on the page.
pub(super) fn act(state: &mut State, action: Action) -> Vec<Effect> {
    match action {
        Action::Tab(tab) => tab_to(state, tab),
        Action::TabNext(steps) => {
            let all = Tab::ALL;
            let here = all.iter().position(|tab| *tab == state.one.tab).unwrap_or(0);
            let len = isize::try_from(all.len()).unwrap_or(1);
            let next = (isize::try_from(here).unwrap_or(0) + steps).rem_euclid(len);
            let tab = usize::try_from(next).ok().and_then(|at| all.get(at)).copied();
            tab_to(state, tab.unwrap_or_default())
        }
        Action::Neighbour(rows) => neighbour(state, rows),
        Action::Zoom(steps) => {
            state.one.zoom = state.one.zoom.further(steps);
            figures(state).into_iter().collect()
        }
        Action::Charts => {
            state.one.is_charts = !state.one.is_charts;
            vec![]
        }
        _ => vec![],
    }
}

fn tab_to(state: &mut State, tab: Tab) -> Vec<Effect> {
    state.one.is_charts = false;
    if state.one.tab == tab {
        return vec![];
    }
    state.one.tab = tab;
    rows(state, tab).into_iter().collect()
}

/// To the page of the machine so many rows further down in the list of all.
fn neighbour(state: &mut State, rows: isize) -> Vec<Effect> {
    // From the machine that is shown, wherever the list's cursor was left.
    if let Some(here) = &state.one.token {
        state.fleet.go_to(here);
    }
    state.fleet.step(rows);
    match state.fleet.cursor.key().cloned() {
        Some(token) => {
            state.screen = Screen::Machine(token);
            opened(state)
        }
        None => vec![],
    }
}

/// The page of a machine is on the screen: what there is of it is read.
pub(super) fn opened(state: &mut State) -> Vec<Effect> {
    let Screen::Machine(token) = &state.screen else { return vec![] };
    let token = token.clone();
    if state.one.turn_to(&token) {
        state.lists.retain(|kind, _| !matches!(kind, ListKind::Of(_)));
    }
    let tab = state.one.tab;
    rows(state, tab).into_iter().chain(figures(state)).collect()
}

/// Has the rows of a tab read, unless some are being read.
pub(super) fn rows(state: &mut State, tab: Tab) -> Option<Effect> {
    let now_ms = state.real_ms;
    let machine = state.one.token.clone()?;
    let is_under_way = state.one.rows_asked_ms.is_some_and(|asked_ms| !go::is_forgotten(asked_ms, now_ms));
    let list = state.rows_mut(ListKind::Of(tab));
    if tab == Tab::Facts || is_under_way {
        return None;
    }
    (list.asked_ms, list.tried_ms) = (Some(now_ms), Some(now_ms));
    state.one.rows_asked_ms = Some(now_ms);
    Some(Effect::Ask(Ask::LookAt { machine, tab }))
}

/// Has the figures of the time that is shown read, unless they are new enough, or some are being read.
pub(super) fn figures(state: &mut State) -> Option<Effect> {
    let (now_ms, wall_ms) = (state.real_ms, state.real_wall_ms);
    let machine = state.one.token.clone()?;
    let page = &mut state.one;
    let is_under_way = page.figures_asked_ms.is_some_and(|asked_ms| !go::is_forgotten(asked_ms, now_ms));
    let series = page.series();
    let is_new = series.tried_ms.is_some_and(|at| now_ms.saturating_sub(at) < series.lasts_ms());
    if is_under_way || is_new {
        return None;
    }
    let zoom = page.zoom;
    if let Some(series) = page.series_mut(zoom) {
        series.tried_ms = Some(now_ms);
    }
    page.figures_asked_ms = Some(now_ms);
    Some(Effect::Ask(Ask::Over { machine, time: zoom.span(wall_ms) }))
}

/// A second has passed: what is on the screen is read anew when it is time to.
pub(super) fn tick(state: &mut State) -> Vec<Effect> {
    if !matches!(state.screen, Screen::Machine(_)) || !state.link.connected {
        return vec![];
    }
    figures(state).into_iter().collect()
}

/// Takes rows as they were told; those of another page are left, and the one that is open is asked for.
pub(super) fn hear_part(
    state: &mut State,
    token: &MachineToken,
    tab: Tab,
    part: Result<Looked, Problem>,
) -> Vec<Effect> {
    state.one.rows_asked_ms = None;
    if state.one.is_of(token) {
        take(state, token, tab, part);
    }
    let is_shown = state.shown_list() == Some(ListKind::Of(state.one.tab));
    if is_shown && !(state.one.is_of(token) && state.one.tab == tab) {
        let tab = state.one.tab;
        return rows(state, tab).into_iter().collect();
    }
    vec![]
}

fn take(state: &mut State, token: &MachineToken, tab: Tab, part: Result<Looked, Problem>) {
    let (now_ms, wall_ms) = (state.real_ms, state.wall_ms);
    match part {
        Ok(Looked { part, is_cut }) => {
            state.one.cut(tab, is_cut);
            let runs = match &part {
                Part::Runs(runs) => runs.as_slice(),
                Part::Config(configured) => configured.changes.as_slice(),
                _ => &[],
            };
            let commands = runs.iter().map(|run| (run.command.id, run.command.clone()));
            // Those of rows that are no more are of no use; others are told again within seconds.
            if state.one.commands.len() > MOST_COMMANDS {
                state.one.commands.clear();
            }
            state.one.commands.extend(commands);
            let items = lists::machine::items(tab, part, state.fleet.get(token));
            state.rows_mut(ListKind::Of(tab)).tell(items, now_ms, wall_ms);
        }
        Err(problem) => state.rows_mut(ListKind::Of(tab)).fail(text::line(&problem.message)),
    }
}

/// Takes figures as they were told.
pub(super) fn hear_series(
    state: &mut State,
    token: &MachineToken,
    time: Span,
    series: Result<Box<MachineSeries>, Problem>,
) -> Vec<Effect> {
    state.one.figures_asked_ms = None;
    let length_ms = time.to.saturating_sub(time.from);
    if state.one.is_of(token) {
        match series {
            Ok(series) => state.one.tell(length_ms, *series),
            Err(problem) => state.one.fail(length_ms, text::line(&problem.message)),
        }
    }
    if matches!(state.screen, Screen::Machine(_)) { figures(state).into_iter().collect() } else { vec![] }
}

/// In: from a row to the command that it is about, or to all of the row.
pub(super) fn within(state: &mut State) -> Vec<Effect> {
    if state.one.is_charts {
        state.one.is_charts = false;
        return vec![];
    }
    let kind = ListKind::Of(state.one.tab);
    let Some(key) = state.rows(kind).and_then(|rows| rows.cursor.key()).cloned() else { return vec![] };
    match know_command(state, &key) {
        Some(id) => go::go(state, Screen::Command(id)),
        None => go::go(state, Screen::Item(kind, key)),
    }
}

/// The command that the row under the cursor is about.
pub(super) fn command_here(state: &mut State) -> Option<CommandId> {
    let key = state.rows(ListKind::Of(state.one.tab))?.cursor.key()?.clone();
    know_command(state, &key)
}

/// The command that a row of the page is about. It may be older than those that are told of: it is known from now on.
fn know_command(state: &mut State, key: &str) -> Option<CommandId> {
    let id = key.parse().ok()?;
    let summary = state.one.commands.get(&id)?;
    if state.commands.get(id).is_none() {
        state.commands.know(summary.clone());
    }
    Some(id)
}
