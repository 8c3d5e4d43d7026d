//! The machines as they were: to an earlier moment, to a later one, and back to now.

use signalbox_schemas::{api::FleetThen, error::Problem, id::MachineToken};

use super::go;
use crate::{
    client::Ask,
    tui::{
        effect::Effect,
        state::{Screen, Severity, State, past::STEP_MS},
        text,
        view::amount,
    },
};

/// To how they were so many minutes earlier (negative) or later than what is shown or awaited.
pub(super) fn scrub(state: &mut State, minutes: isize) -> Vec<Effect> {
    let by_ms = u64::try_from(minutes.unsigned_abs()).unwrap_or(u64::MAX).saturating_mul(STEP_MS);
    let wanted = state.past.wanted();
    if minutes > 0 && wanted.is_none() {
        state.say(Severity::Warn, "this is now; nobody knows what comes");
        return vec![];
    }
    let from = wanted.unwrap_or(state.real_wall_ms);
    let to = if minutes > 0 { from.saturating_add(by_ms) } else { from.saturating_sub(by_ms) };
    at(state, to)
}

/// To how they were at a moment, Unix ms; what is not over is now.
pub(super) fn at(state: &mut State, at: u64) -> Vec<Effect> {
    let effects = go::go(state, Screen::Machines);
    if at >= state.real_wall_ms - state.real_wall_ms % STEP_MS {
        to_now(state);
        return effects;
    }
    if state.past.want(at) {
        say_where_it_begins(state);
    }
    effects.into_iter().chain(look(state)).collect()
}

fn say_where_it_begins(state: &mut State) {
    if let Some(kept) = state.past.kept() {
        let (date, ago) = (amount::date(kept.earliest), amount::moment(kept.earliest, state.real_wall_ms));
        state.say(Severity::Warn, format!("the history begins {date}, {ago} ago"));
    }
}

/// Shows the wanted moment, or has it read.
fn look(state: &mut State) -> Option<Effect> {
    state.past.show(&state.fleet);
    state.past.to_ask().map(|at| Effect::Ask(Ask::FleetAt(at)))
}

/// Back to how they are, on the same row and with the same marks.
pub(super) fn to_now(state: &mut State) {
    if let Some(fleet) = state.past.leave() {
        let now_ms = state.now_ms;
        state.fleet.see_as(&fleet, now_ms);
    }
}

/// Takes the machines as they were.
pub(super) fn hear(state: &mut State, asked: u64, then: Result<Box<FleetThen>, Problem>) -> Vec<Effect> {
    match then {
        Err(problem) => state.past.fail(asked, text::line(&problem.message)),
        Ok(then) => {
            let is_before = then.at.is_none();
            state.past.tell(asked, *then);
            if is_before && state.past.wanted() == Some(asked) {
                return before_it_began(state, asked);
            }
        }
    }
    look(state).into_iter().collect()
}

/// Nothing was written at the wanted moment: the first one that was is shown instead.
fn before_it_began(state: &mut State, asked: u64) -> Vec<Effect> {
    // Once only: a bridge that tells of another beginning each time is followed no further.
    if !state.past.is_first() && state.past.want(asked) {
        say_where_it_begins(state);
        return look(state).into_iter().collect();
    }
    to_now(state);
    state.say(Severity::Warn, "nothing is known of an earlier time: the history has not begun");
    vec![]
}

/// What was not told is asked for again.
pub(super) fn again(state: &mut State) -> Vec<Effect> {
    if let Some(wanted) = state.past.wanted() {
        state.past.want(wanted);
    }
    look(state).into_iter().collect()
}

/// Another screen was shown: marks, filter and order are the same wherever machines are looked at.
pub(super) fn carry(state: &mut State, left: &Screen) {
    let (Some(at), now_ms) = (state.past.shown_at(), state.now_ms) else { return };
    if *left == Screen::Machines
        && let Some(fleet) = state.past.fleet()
    {
        state.fleet.see_as(fleet, now_ms);
    }
    if state.screen == Screen::Machines
        && let Some(fleet) = state.past.fleet_mut()
    {
        fleet.see_as(&state.fleet, at);
    }
}

/// In: to a machine. Its page is of now.
pub(super) fn open(state: &mut State, token: MachineToken) -> Vec<Effect> {
    if state.past.is_looked_at() {
        state.say(Severity::Warn, "this is the machine as it is now; its charts go back");
    }
    // Its neighbours are those of the list of now.
    state.fleet.go_to(&token);
    go::go(state, Screen::Machine(token))
}
