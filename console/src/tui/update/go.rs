//! From screen to screen. Esc and `[` lead back, `]` forward again, `-` to and fro between the last two.

use signalbox_schemas::id::CommandId;

use crate::{
    client::Ask,
    tui::{
        effect::Effect,
        lists::ListKind,
        state::{MOST_SCREENS, Screen, State, page::CommandPage, pulse::Lead},
    },
};

/// A list on the screen is read anew this often, ms.
const LOOK_EVERY_MS: u64 = 5_000;
/// An asking that was not answered for so long is forgotten, ms: longer than a client waits for all of its pages is rare.
const FORGET_MS: u64 = 60_000;

/// In: to a screen from which Esc leads back to this one. One that is below already is gone back to.
pub(super) fn go(state: &mut State, screen: Screen) -> Vec<Effect> {
    if state.screen == screen {
        return vec![];
    }
    state.ahead.clear();
    if let Some(at) = state.under.iter().position(|under| *under == screen) {
        state.under.truncate(at);
    } else {
        state.under.push(state.screen.clone());
        if state.under.len() > MOST_SCREENS {
            state.under.remove(0);
        }
    }
    show(state, screen)
}

/// Back (-1) or forward (1).
pub(super) fn travel(state: &mut State, steps: isize) -> Vec<Effect> {
    let (from, to) =
        if steps < 0 { (&mut state.under, &mut state.ahead) } else { (&mut state.ahead, &mut state.under) };
    let Some(screen) = from.pop() else { return vec![] };
    to.push(state.screen.clone());
    show(state, screen)
}

/// To the screen that was shown before this one.
pub(super) fn other(state: &mut State) -> Vec<Effect> {
    match state.other.clone() {
        Some(other) => go(state, other),
        None => vec![],
    }
}

/// In: from the row under the cursor to all of it.
pub(super) fn within(state: &mut State) -> Vec<Effect> {
    match &state.screen {
        Screen::Pulse => {
            if let Some(lead) = state.pulse.here().map(|concern| concern.lead.clone()) {
                let effects = go(state, lead.screen());
                if let Lead::Filter(filter) = lead {
                    super::filter::set(state, &filter);
                }
                return effects;
            }
        }
        Screen::Machines => {
            if let Some(token) = state.sight().cursor.key().cloned() {
                return super::past::open(state, token);
            }
        }
        Screen::Commands => {
            if let Some(id) = state.commands.cursor.key().copied() {
                return go(state, Screen::Command(id));
            }
        }
        Screen::Command(_) => super::page::enter(state),
        Screen::List(kind) => {
            let kind = *kind;
            if let Some(key) = state.rows(kind).and_then(|rows| rows.cursor.key()).cloned() {
                return go(state, Screen::Item(kind, key));
            }
        }
        Screen::Machine(_) => return super::machine::within(state),
        Screen::Output(..) | Screen::Item(..) => {}
    }
    vec![]
}

/// Shows a screen, whatever leads to it.
pub(super) fn show(state: &mut State, screen: Screen) -> Vec<Effect> {
    let mut effects = vec![];
    let before = state.shown_command();
    let left = std::mem::replace(&mut state.screen, screen);
    super::past::carry(state, &left);
    state.other = Some(left);
    state.top = 0;
    state.pulse.made_ms = None;
    let now = state.shown_command();
    if let Screen::Output(id, whose) = &state.screen {
        let of = (*id, whose.clone());
        // Who comes back to it finds it as it was left.
        if state.output.of.as_ref() != Some(&of) {
            state.output.open(of.0, of.1);
        }
    }
    if before != now {
        if let Some(command) = before.and_then(|id| state.commands.get_mut(id))
            && std::mem::take(&mut command.is_watched)
        {
            effects.push(Effect::Ask(Ask::Unwatch { id: command.id }));
        }
        if let Some(id) = now {
            state.page = CommandPage::default();
            effects.extend(watch(state, id));
        }
    }
    effects.extend(super::machine::opened(state));
    if let Some(kind) = state.shown_list() {
        effects.extend(look(state, kind));
    }
    effects
}

/// Has a command's runs and output told, unless all of it is here.
pub(super) fn watch(state: &mut State, id: CommandId) -> Option<Effect> {
    let now_ms = state.now_ms;
    let command = state.commands.get_mut(id)?;
    command.looked_at = now_ms;
    if command.is_final() {
        return None;
    }
    command.is_watched = true;
    command.is_stale = false;
    Some(Effect::Ask(Ask::Watch { id }))
}

/// Has a list read, unless it is being read.
fn look(state: &mut State, kind: ListKind) -> Option<Effect> {
    if let ListKind::Of(tab) = kind {
        return super::machine::rows(state, tab);
    }
    let now_ms = state.real_ms;
    let rows = state.rows_mut(kind);
    if rows.asked_ms.is_some_and(|asked_ms| !is_forgotten(asked_ms, now_ms)) {
        return None;
    }
    (rows.asked_ms, rows.tried_ms) = (Some(now_ms), Some(now_ms));
    Some(Effect::Ask(Ask::Look(kind)))
}

/// Whether what was asked at `asked_ms` is waited for no longer.
pub(super) fn is_forgotten(asked_ms: u64, now_ms: u64) -> bool {
    now_ms.saturating_sub(asked_ms) >= FORGET_MS
}

/// Has the list on the screen read anew when it is time to.
pub(super) fn look_again(state: &mut State) -> Vec<Effect> {
    let Some(kind) = state.shown_list() else { return vec![] };
    let now_ms = state.real_ms;
    // Counted from the last try: who is refused asks no more often than who is answered.
    let is_old = |tried_ms: Option<u64>| tried_ms.is_none_or(|at| now_ms.saturating_sub(at) >= LOOK_EVERY_MS);
    if state.link.connected && state.rows(kind).is_none_or(|rows| is_old(rows.tried_ms)) {
        return look(state, kind).into_iter().collect();
    }
    vec![]
}

/// Reads anew what is shown.
pub(super) fn refresh(state: &mut State) -> Vec<Effect> {
    match state.shown_list() {
        Some(kind) => look(state, kind).into_iter().collect(),
        None if state.screen == Screen::Machines && state.past.is_looked_at() => super::past::again(state),
        None if matches!(state.screen, Screen::Output(..)) => {
            state.output.retry();
            vec![]
        }
        None => vec![Effect::Ask(Ask::Refresh)],
    }
}
