//! Writing a command and sending it.

use signalbox_schemas::{command::SshTarget, id::MachineToken, limit, selector::Selector};

use crate::{
    client::Ask,
    tui::{
        effect::Effect,
        state::{MOST_TEXTS, Modal, Prompt, Screen, Severity, State, TIMEOUTS_MS, editor::Editor},
    },
};

/// Opens the line for what the screen means: marks, the row, the machine, or the command once more.
pub(super) fn open(state: &mut State) {
    match &state.screen {
        Screen::Commands => again(state, state.commands.cursor.key().copied()),
        Screen::Command(id) => again(state, Some(*id)),
        _ => open_with(state, ""),
    }
}

/// Opens the line with the newest text.
pub(super) fn repeat(state: &mut State) {
    match &state.screen {
        Screen::Commands | Screen::Command(_) => open(state),
        _ => {
            let text = state.texts.last().cloned().unwrap_or_default();
            open_with(state, &text);
        }
    }
}

/// Opens the line with a text, for the machines that the screen means. Where none are seen, marks count, and not a row that
/// is somewhere else.
pub(super) fn open_with(state: &mut State, text: &str) {
    match &state.screen {
        Screen::Machine(token) => open_on(state, vec![token.clone()], text),
        Screen::List(kind) | Screen::Item(kind, _) => {
            let machine =
                state.rows(*kind).and_then(|rows| rows.here()).and_then(|item| item.machine.clone());
            let known = machine.filter(|token| state.fleet.get(token).is_some());
            match known {
                Some(token) => open_on(state, vec![token], text),
                None => state.say(Severity::Warn, "this row is about no machine that can be run on"),
            }
        }
        Screen::Machines => open_on(state, state.fleet.meant(), text),
        Screen::Pulse | Screen::Commands | Screen::Command(_) if state.fleet.marked() > 0 => {
            open_on(state, state.fleet.meant(), text);
        }
        Screen::Pulse | Screen::Commands | Screen::Command(_) => {
            state.say(Severity::Warn, "mark machines first, or go to one of them");
        }
    }
}

fn open_on(state: &mut State, targets: Vec<MachineToken>, text: &str) {
    if targets.is_empty() {
        state.say(Severity::Warn, "there is no machine to run on");
        return;
    }
    if let Some(on) = state.fleet.selector_of(&targets) {
        write(state, Place { on, targets, ssh: None }, text, limit::DEFAULT_TIMEOUT_MS);
    } else {
        too_many(state, targets.len());
    }
}

fn too_many(state: &mut State, marks: usize) {
    let text = format!("{marks} marks are too many for one command; mark fewer");
    state.say(Severity::Warn, text);
}

fn again(state: &mut State, id: Option<signalbox_schemas::id::CommandId>) {
    let Some(command) = id.and_then(|id| state.commands.get(id)) else { return };
    if command.changes {
        let text = "it changed what relays keep; change it again with `signalbox credential` or `host-keys`";
        state.say(Severity::Warn, text);
        return;
    }
    if command.source != command.text {
        // What would be sent is not what was: the line has room for one line of plain text only.
        state.say(Severity::Warn, "its text does not fit one line; run it again with `signalbox run`");
        return;
    }
    let (source, timeout_ms, ssh) = (command.source.clone(), command.timeout_ms, command.ssh.clone());
    // On the page of a command its rows can be marked: then it is meant for those, and on the same host behind them.
    if matches!(state.screen, Screen::Command(_)) && state.fleet.marked() > 0 {
        let targets = state.fleet.meant();
        match state.fleet.selector_of(&targets) {
            Some(on) => write(state, Place { on, targets, ssh }, &source, timeout_ms),
            None => too_many(state, targets.len()),
        }
        return;
    }
    let on = command.on.clone();
    let selector = Selector::parse(&on).ok();
    let targets = selector.map(|selector| state.fleet.meant_by(&selector, state.now_ms)).unwrap_or_default();
    write(state, Place { on, targets, ssh }, &source, timeout_ms);
}

/// Where it shall run.
struct Place {
    on: String,
    targets: Vec<MachineToken>,
    ssh: Option<SshTarget>,
}

fn write(state: &mut State, Place { on, targets, ssh }: Place, text: &str, timeout_ms: u64) {
    state.modal = Some(Modal::Prompt(Box::new(Prompt {
        on,
        targets,
        ssh,
        editor: Editor::new(text),
        recalled: None,
        draft: String::new(),
        timeout_ms,
        asked: None,
        refusal: None,
    })));
}

/// Sends what was written. The answer brings its tag back; until then the line waits, and Esc leaves it.
pub(super) fn submit(state: &mut State) -> Vec<Effect> {
    let tag = state.tag + 1;
    let Some(Modal::Prompt(prompt)) = &mut state.modal else { return vec![] };
    let command = prompt.editor.text().trim().to_owned();
    if prompt.asked.is_some() || command.is_empty() {
        return vec![];
    }
    state.tag = tag;
    prompt.asked = Some(tag);
    prompt.refusal = None;
    let ask = Ask::Run {
        tag,
        on: prompt.on.clone(),
        targets: prompt.targets.clone(),
        command: command.clone(),
        ssh: prompt.ssh.clone(),
        timeout_ms: prompt.timeout_ms,
        expires_in_ms: limit::DEFAULT_EXPIRES_IN_MS,
    };
    remember(&mut state.texts, command);
    vec![Effect::Ask(ask)]
}

fn remember(texts: &mut Vec<String>, text: String) {
    texts.retain(|known| *known != text);
    texts.push(text);
    if texts.len() > MOST_TEXTS {
        texts.remove(0);
    }
}

/// Shows an earlier text (1) or a later one (-1).
pub(super) fn recall(state: &mut State, steps: isize) {
    let Some(Modal::Prompt(prompt)) = &mut state.modal else { return };
    if prompt.asked.is_some() {
        return;
    }
    if prompt.recalled.is_none() {
        prompt.editor.text().clone_into(&mut prompt.draft);
    }
    let back = prompt.recalled.map_or(0, |at| at + 1).saturating_add_signed(steps).min(state.texts.len());
    prompt.recalled = back.checked_sub(1);
    let text = prompt.recalled.and_then(|at| state.texts.iter().rev().nth(at)).unwrap_or(&prompt.draft);
    prompt.editor = Editor::new(text);
}

/// Another timeout from those on offer.
pub(super) fn change_timeout(state: &mut State, steps: isize) {
    let Some(Modal::Prompt(prompt)) = &mut state.modal else { return };
    let at = if steps > 0 {
        TIMEOUTS_MS.iter().find(|timeout| **timeout > prompt.timeout_ms)
    } else {
        TIMEOUTS_MS.iter().rev().find(|timeout| **timeout < prompt.timeout_ms)
    };
    prompt.timeout_ms = at.copied().unwrap_or(prompt.timeout_ms);
}
