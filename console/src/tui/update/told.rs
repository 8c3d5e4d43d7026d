//! What the session tells.

use signalbox_schemas::{
    api::{Accepted, CommandSummary, Counts, RolloutView},
    command::Target,
    error::Problem,
    id::CommandId,
    run::RunState,
};

use super::{
    go::{self, go, watch},
    machine as one, past, prompt, steer,
};
use crate::{
    client::{Ask, Heard, LinkView, Told, look::Found},
    tui::{
        effect::Effect,
        lists::{self, ListKind},
        state::{Modal, Screen, Severity, State},
        text,
    },
};

/// A machine that is not known yet makes the console ask for a snapshot, no more often than this, ms.
const REFRESH_MS: u64 = 2_000;

/// Applies what was told.
pub(super) fn hear(state: &mut State, told: Told) -> Vec<Effect> {
    match told {
        Told::Link(link) => return hear_link(state, link),
        // What is held still is read anew when it goes on.
        Told::Machines(_) | Told::Heartbeats(_) if state.is_frozen => {}
        Told::Machines(stretch) => {
            let is_end = stretch.until.is_none();
            // Once somebody has looked at a row, it is that row's machine that is meant.
            let is_growing = state.snapshot_ms.is_none() && !state.is_touched;
            state.fleet.replace(stretch, is_growing, state.now());
            if is_end {
                state.snapshot_ms = Some(state.now_ms);
            }
        }
        Told::Heartbeats(heard) => return hear_machines(state, heard),
        Told::Command(summary) => state.commands.tell(summary),
        Told::Stale { id, problem } => {
            state.commands.tell_stale(id);
            let what = if id.is_some() { "the runs of this command" } else { "the list of commands" };
            state.say(Severity::Bad, format!("{what} may be old: {}", text::line(&problem.message)));
        }
        Told::Meant { tag, meant } => prompt::hear(state, tag, meant),
        Told::Steered { id, rollout, .. } => steer::hear(state, id, rollout),
        Told::Accepted { tag, accepted } => return accept(state, tag, &accepted),
        Told::Cancelling { n, .. } => {
            let runs = if n == 1 { "run" } else { "runs" };
            state.say(Severity::Warn, format!("cancelling {n} {runs}"));
        }
        Told::Refused { tag, problem } => refuse(state, tag, &problem),
        Told::Run { id, run } => state.commands.tell_run(id, &run),
        Told::Output { id, machine, stream, offset, data } => {
            state.commands.tell_output(id, &machine, stream, offset, &data, state.real_wall_ms);
        }
        Told::OutputRange { id, machine, stream, from, range } => {
            super::output::hear(state, id, &machine, stream, from, range);
        }
        Told::Saving { tag, bytes, of } => super::output::saving(state, tag, bytes, of),
        Told::Saved { tag, saved } => super::output::saved(state, tag, &saved),
        Told::Health(health) => state.health = Some(health),
        Told::Found { kind, found } => find(state, kind, found),
        Told::Part { machine, tab, part } => return one::hear_part(state, &machine, tab, part),
        Told::Series { machine, time, series } => return one::hear_series(state, &machine, time, series),
        Told::Then { at, then } => return past::hear(state, at, then),
        Told::Settled { id, .. } => {
            if let Some(command) = state.commands.get_mut(id) {
                command.is_complete = true;
                command.is_stale = false;
            }
        }
    }
    vec![]
}

/// Takes the rows of a list, or that there are none.
fn find(state: &mut State, kind: ListKind, found: Result<Found, Problem>) {
    let (now_ms, wall_ms) = (state.real_ms, state.wall_ms);
    let rows = state.rows_mut(kind);
    match found {
        Ok(found) => rows.tell(lists::items(found), now_ms, wall_ms),
        Err(problem) => rows.fail(text::line(&problem.message)),
    }
}

fn hear_machines(state: &mut State, heard: Vec<Heard>) -> Vec<Effect> {
    state.pulse.hear(heard.len());
    let mut is_known = true;
    for heard in heard {
        is_known &= state.fleet.hear(heard, state.now_ms);
    }
    let is_due = state.real_ms.saturating_sub(state.refreshed_ms) >= REFRESH_MS;
    if is_known || !is_due {
        return vec![];
    }
    state.refreshed_ms = state.real_ms;
    vec![Effect::Ask(Ask::Refresh)]
}

fn hear_link(state: &mut State, link: LinkView) -> Vec<Effect> {
    if link.connected != state.link.connected {
        state.link_since_ms = state.real_ms;
    }
    state.link = link;
    vec![]
}

fn accept(state: &mut State, tag: u64, accepted: &Accepted) -> Vec<Effect> {
    let waits = match &state.modal {
        Some(Modal::Prompt(prompt)) if prompt.asked == Some(tag) => Some(prompt.clone()),
        _ => None,
    };
    let Some(prompt) = waits else {
        let n = accepted.targets.len();
        state.say(Severity::Good, format!("accepted for {}", crate::tui::view::amount::machines(n)));
        return vec![];
    };
    // The line about it may come later than this answer: what is known until then.
    if state.commands.get(accepted.id).is_none() {
        let n = u32::try_from(accepted.targets.len()).unwrap_or(u32::MAX);
        let plan = prompt.plan().unwrap_or_default();
        let waiting = if plan.is_some() { RunState::Held } else { RunState::Pending };
        let counts = Counts::from([(waiting, n)]);
        state.commands.tell(CommandSummary {
            id: accepted.id,
            command: prompt.text().unwrap_or_default(),
            on: prompt.on.text().trim().to_owned(),
            by: state.options.who.clone(),
            created_at: state.wall_ms,
            expires_at: state.wall_ms.saturating_add(prompt.wait_ms),
            timeout_ms: prompt.timeout_ms,
            settled: false,
            counts: counts.clone(),
            created_by: None,
            target: prompt.ssh.clone().map(Target::Ssh),
            changes: false,
            rollout: plan.map(|plan| Box::new(RolloutView::new(plan, n, None, &counts))),
            retry_of: prompt.retry_of,
        });
    }
    if let Some(command) = state.commands.get_mut(accepted.id) {
        command.bind(&accepted.targets);
    }
    state.modal = None;
    // Running something again stands beside what it repeats, not above it.
    if matches!(state.screen, Screen::Command(_)) {
        return replace(state, accepted.id);
    }
    go(state, Screen::Command(accepted.id))
}

fn replace(state: &mut State, id: CommandId) -> Vec<Effect> {
    let effects = go::show(state, Screen::Command(id));
    if effects.is_empty() { watch(state, id).into_iter().collect() } else { effects }
}

fn refuse(state: &mut State, tag: u64, problem: &Problem) {
    let message = text::line(&problem.message);
    state.saving.take_if(|saving| saving.tag == tag);
    if let Some(Modal::Prompt(prompt)) = &mut state.modal
        && prompt.asked == Some(tag)
    {
        prompt.asked = None;
        prompt.refusal = Some(message);
        return;
    }
    state.say(Severity::Bad, message);
}
