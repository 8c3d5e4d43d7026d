//! Wishes about a command that spreads, or that is to end: what goes further is asked about.

use signalbox_schemas::{
    api::RolloutView,
    id::CommandId,
    rollout::{RolloutState, Steer},
};

use super::machine;
use crate::{
    client::Ask,
    tui::{
        effect::Effect,
        state::{Confirm, Deed, Modal, Screen, Severity, State},
    },
};

/// The command that the screen means.
fn meant(state: &mut State) -> Option<CommandId> {
    match state.screen {
        Screen::Commands => state.commands.cursor.key().copied(),
        Screen::Machine(_) => {
            let id = machine::command_here(state);
            if id.is_none() {
                state.say(Severity::Warn, "this row is no command");
            }
            id
        }
        _ => state.shown_command(),
    }
}

/// Asks whether it is to be cancelled.
pub(super) fn cancel(state: &mut State) {
    let Some(command) = meant(state).and_then(|id| state.commands.get(id)) else { return };
    if command.is_open() {
        state.modal = Some(Modal::Confirm(Confirm { deed: Deed::Cancel, id: command.id, is_yes: false }));
    } else {
        state.say(Severity::Warn, "nothing to cancel: every run of it has ended");
    }
}

/// Pauses its waves at once; whether they go on is asked about.
pub(super) fn pause(state: &mut State) -> Vec<Effect> {
    let Some((id, rollout)) = spreading(state) else { return vec![] };
    match rollout.state {
        RolloutState::Going => return wish(state, id, Steer::Pause),
        RolloutState::Paused => {
            state.modal = Some(Modal::Confirm(Confirm { deed: Deed::Resume, id, is_yes: false }));
        }
        RolloutState::Aborted => {
            state.say(Severity::Warn, format!("its waves are {} and go no further", rollout.state));
        }
    }
    vec![]
}

/// Asks whether no further machine is to be let go.
pub(super) fn abort(state: &mut State) {
    let Some((id, rollout)) = spreading(state) else { return };
    match rollout.state {
        RolloutState::Going | RolloutState::Paused => {
            state.modal = Some(Modal::Confirm(Confirm { deed: Deed::Abort, id, is_yes: false }));
        }
        RolloutState::Aborted => {
            state.say(Severity::Warn, format!("its waves are {} and go no further", rollout.state));
        }
    }
}

fn spreading(state: &mut State) -> Option<(CommandId, RolloutView)> {
    let command = meant(state).and_then(|id| state.commands.get(id))?;
    if let Some(rollout) = &command.rollout {
        return Some((command.id, (**rollout).clone()));
    }
    state.say(Severity::Warn, "it went to all at once; X cancels what has not ended");
    None
}

/// Does what was asked about.
pub(super) fn confirmed(state: &mut State, confirm: &Confirm) -> Vec<Effect> {
    match confirm.deed {
        Deed::Cancel => {
            state.tag += 1;
            vec![Effect::Ask(Ask::Cancel { tag: state.tag, id: confirm.id })]
        }
        Deed::Resume => wish(state, confirm.id, Steer::Resume),
        Deed::Abort => wish(state, confirm.id, Steer::Abort),
    }
}

fn wish(state: &mut State, id: CommandId, wish: Steer) -> Vec<Effect> {
    state.tag += 1;
    vec![Effect::Ask(Ask::Steer { tag: state.tag, id, wish })]
}

/// Takes how a rollout stands.
pub(super) fn hear(state: &mut State, id: CommandId, rollout: Box<RolloutView>) {
    let RolloutView { state: now, wave, waves, released, .. } = &*rollout;
    let text = format!("{now}: wave {wave} of {waves}, {released} let go");
    state.say(Severity::Good, text);
    if let Some(command) = state.commands.get_mut(id) {
        command.rollout = Some(rollout);
    }
}
