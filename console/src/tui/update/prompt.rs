//! Writing a command and sending it.
//!
//! | room | holds |
//! |---|---|
//! | this one | opening it, its lines, sending it |
//! | `history` | earlier texts |

mod history;

use std::collections::BTreeMap;

use signalbox_schemas::{
    error::Problem,
    id::{CommandId, MachineToken},
    run::RunState,
    selector::Selector,
};

pub(super) use history::{choose, recall, search, searched, take};

use crate::{
    client::{Ask, Meant},
    settings::saved::SavedCommand,
    tui::{
        effect::Effect,
        lists::ListKind,
        state::{
            MOST_TEXTS, Modal, Screen, Severity, State,
            editor::{Edit, Editor},
            prompt::{Field, Prompt, Seen},
        },
        text,
    },
};

/// Opens the line for what the screen means: marks, the row, the machine, or the command once more.
pub(super) fn open(state: &mut State) -> Vec<Effect> {
    match &state.screen {
        Screen::Commands => again(state, state.commands.cursor.key().copied()),
        Screen::Command(id) | Screen::Output(id, _) => again(state, Some(*id)),
        _ => open_with(state, ""),
    }
}

/// Opens the line with the newest text.
pub(super) fn repeat(state: &mut State) -> Vec<Effect> {
    match &state.screen {
        Screen::Commands | Screen::Command(_) | Screen::Output(..) => open(state),
        _ => {
            let text = state.texts.last().cloned().unwrap_or_default();
            open_with(state, &text)
        }
    }
}

/// Opens the line with a text, for the machines that the screen means.
pub(super) fn open_with(state: &mut State, text: &str) -> Vec<Effect> {
    let Some(targets) = meant(state) else { return vec![] };
    match named(state, targets, text) {
        Some(prompt) => show(state, prompt),
        None => vec![],
    }
}

/// Opens the line with a saved command: for the machines that it names, else for those that the screen means.
pub(super) fn open_saved(
    state: &mut State,
    saved: SavedCommand,
    given: &BTreeMap<String, String>,
) -> Vec<Effect> {
    let prompt = match &saved.on {
        Some(on) => Some(guessed(state, on, "")),
        None => meant(state).and_then(|targets| named(state, targets, "")),
    };
    let Some(mut prompt) = prompt else { return vec![] };
    prompt.save(saved, given);
    show(state, prompt)
}

/// The machines that the screen means. Where none are seen, marks count, and not a row that is somewhere else.
fn meant(state: &mut State) -> Option<Vec<MachineToken>> {
    match &state.screen {
        Screen::Machine(token) => Some(vec![token.clone()]),
        Screen::Item(ListKind::Of(_), _) => {
            let machine = state.one.token.clone().filter(|token| state.fleet.get(token).is_some());
            Some(machine.into_iter().collect())
        }
        Screen::List(kind) | Screen::Item(kind, _) => {
            let machine =
                state.rows(*kind).and_then(|rows| rows.here()).and_then(|item| item.machine.clone());
            let known = machine.filter(|token| state.fleet.get(token).is_some());
            if known.is_none() {
                state.say(Severity::Warn, "this row is about no machine that can be run on");
            }
            known.map(|token| vec![token])
        }
        Screen::Machines => {
            // It runs on them as they are now, and only where they are there now.
            let meant = state.sight().meant().into_iter();
            Some(meant.filter(|token| state.fleet.get(token).is_some()).collect())
        }
        Screen::Pulse | Screen::Commands | Screen::Command(_) | Screen::Output(..)
            if state.fleet.marked() > 0 =>
        {
            Some(state.fleet.meant())
        }
        Screen::Pulse | Screen::Commands | Screen::Command(_) | Screen::Output(..) => {
            state.say(Severity::Warn, "mark machines first, or go to one of them");
            None
        }
    }
}

/// On machines that are named one by one.
fn named(state: &mut State, targets: Vec<MachineToken>, text: &str) -> Option<Prompt> {
    if targets.is_empty() {
        state.say(Severity::Warn, "there is no machine to run on");
        return None;
    }
    let Some(on) = state.fleet.selector_of(&targets) else {
        let text = format!("{} marks are too many for one command; mark fewer", targets.len());
        state.say(Severity::Warn, text);
        return None;
    };
    Some(fresh(state, &on, targets, Seen::Named, text))
}

/// On machines that a selector means, as far as is known here.
fn guessed(state: &State, on: &str, text: &str) -> Prompt {
    fresh(state, on, guess(state, on), Seen::Guessed, text)
}

/// With the times and the rule that are configured.
fn fresh(state: &State, on: &str, targets: Vec<MachineToken>, seen: Seen, text: &str) -> Prompt {
    Prompt {
        rule: state.options.rule.clone(),
        timeout_ms: state.options.run.timeout.ms,
        wait_ms: state.options.run.expires_in.ms,
        ..Prompt::new(on, targets, seen, text)
    }
}

fn guess(state: &State, on: &str) -> Vec<MachineToken> {
    Selector::parse(on).map(|selector| state.fleet.meant_by(&selector, state.now_ms)).unwrap_or_default()
}

fn show(state: &mut State, prompt: Prompt) -> Vec<Effect> {
    state.modal = Some(Modal::Prompt(Box::new(prompt)));
    look_up(state)
}

/// Asks a bridge which machines are meant, where that is not known for sure.
fn look_up(state: &mut State) -> Vec<Effect> {
    let tag = state.tag + 1;
    let Some(Modal::Prompt(prompt)) = &mut state.modal else { return vec![] };
    if prompt.is_settled() || matches!(prompt.seen, Seen::Asked(_)) {
        return vec![];
    }
    let on = prompt.on.text().trim().to_owned();
    if Selector::parse(&on).is_err() {
        return vec![];
    }
    prompt.seen = Seen::Asked(tag);
    let protected = prompt.rule.protected.clone();
    state.tag = tag;
    vec![Effect::Ask(Ask::LookUp { tag, on, protected })]
}

/// Takes which machines are meant.
pub(super) fn hear(state: &mut State, tag: u64, meant: Result<Meant, Problem>) {
    let Some(Modal::Prompt(prompt)) = &mut state.modal else { return };
    if prompt.seen != Seen::Asked(tag) {
        return;
    }
    match meant {
        Ok(meant) => {
            let targets = meant.targets.into_iter().map(|target| target.token).collect();
            prompt.mean(targets, Seen::Told { protected: meant.protected });
        }
        Err(problem) => prompt.mean(Vec::new(), Seen::Failed(text::line(&problem.message))),
    }
}

fn again(state: &mut State, id: Option<CommandId>) -> Vec<Effect> {
    let Some(prompt) = id.and_then(|id| once_more(state, id, None)) else { return vec![] };
    show(state, prompt)
}

/// Opens the line with the command once more, where it did not end well.
pub(super) fn retry(state: &mut State) -> Vec<Effect> {
    let Some(id) = state.shown_command() else { return vec![] };
    let failed = |state: RunState| {
        matches!(state, RunState::Failed | RunState::Timeout | RunState::Lost | RunState::Rejected)
    };
    let Some(command) = state.commands.get(id) else { return vec![] };
    let targets: Vec<MachineToken> =
        command.runs().filter(|run| failed(run.state)).map(|run| run.machine.token()).collect();
    if targets.is_empty() {
        state.say(Severity::Warn, "nothing of it failed, as far as is known here");
        return vec![];
    }
    let Some(mut prompt) = once_more(state, id, Some(targets)) else { return vec![] };
    prompt.retry_of = Some(id);
    show(state, prompt)
}

/// The command once more: on these machines, on those that are marked on its page, or on those that its selector means now.
fn once_more(state: &mut State, id: CommandId, targets: Option<Vec<MachineToken>>) -> Option<Prompt> {
    let command = state.commands.get(id)?;
    if command.changes {
        let text = "it changed what relays keep; change it again with `signalbox credential` or `host-keys`";
        state.say(Severity::Warn, text);
        return None;
    }
    if command.source != command.text {
        // What would be sent is not what was: the line has room for one line of plain text only.
        state.say(Severity::Warn, "its text does not fit one line; run it again with `signalbox run`");
        return None;
    }
    let (source, timeout_ms, ssh) = (command.source.clone(), command.timeout_ms, command.ssh.clone());
    let on = command.on.clone();
    // On the page of a command its rows can be marked: then it is meant for those, and on the same host behind them.
    let is_marked = matches!(state.screen, Screen::Command(_)) && state.fleet.marked() > 0;
    let targets = targets.or_else(|| is_marked.then(|| state.fleet.meant()));
    let prompt = match targets {
        Some(targets) => named(state, targets, &source)?,
        None => guessed(state, &on, &source),
    };
    Some(Prompt { ssh, timeout_ms, ..prompt })
}

/// Sends what was written. The answer brings its tag back; until then it waits, and Esc leaves it.
pub(super) fn submit(state: &mut State) -> Vec<Effect> {
    let Some(Modal::Prompt(prompt)) = &mut state.modal else { return vec![] };
    if prompt.asked.is_some() {
        return vec![];
    }
    prompt.refusal = None;
    let drafted = prompt.drafted();
    // What is wrong with the number is not worth a word before the number is known.
    if let Err((field, why)) = &drafted
        && (*field != Field::Answer || prompt.is_settled())
    {
        prompt.field = *field;
        prompt.refusal = Some(why.clone());
        return vec![];
    }
    if !prompt.is_settled() {
        return look_up(state);
    }
    let Ok(draft) = drafted else { return vec![] };
    if draft.shown.is_empty() {
        prompt.refusal = Some(format!("no machine is meant by `{}`", draft.on));
        prompt.field = Field::On;
        return vec![];
    }
    let tag = state.tag + 1;
    prompt.asked = Some(tag);
    let text = prompt.command.text().trim().to_owned();
    let is_saved = prompt.saved.is_some();
    state.tag = tag;
    remember(&mut state.texts, if is_saved { draft.command.clone() } else { text });
    vec![Effect::Ask(Ask::Run { tag, draft: Box::new(draft) })]
}

fn remember(texts: &mut Vec<String>, text: String) {
    texts.retain(|known| *known != text);
    texts.push(text);
    if texts.len() > MOST_TEXTS {
        texts.remove(0);
    }
}

/// To another line. Whoever leaves the selector wants to see what it means.
pub(super) fn step(state: &mut State, steps: isize) -> Vec<Effect> {
    let Some(Modal::Prompt(prompt)) = &mut state.modal else { return vec![] };
    if prompt.asked.is_some() {
        return vec![];
    }
    prompt.step(steps);
    look_up(state)
}

/// Changes the line that is written on.
pub(super) fn edit(state: &mut State, edit: Edit) {
    let Some(Modal::Prompt(prompt)) = &mut state.modal else { return };
    if prompt.asked.is_some() {
        return;
    }
    match (prompt.editor_mut(), edit) {
        (Some(editor), edit) => editor.edit(edit),
        (None, Edit::Left) => prompt.change_time(-1),
        (None, Edit::Right | Edit::Insert(' ')) => prompt.change_time(1),
        (None, _) => {}
    }
    edited(state);
}

/// Puts text where it is written.
pub(super) fn paste(state: &mut State, text: &str) {
    let Some(Modal::Prompt(prompt)) = &mut state.modal else { return };
    if let Some(search) = &mut prompt.search {
        search.editor.paste(text);
        return searched(state);
    }
    if prompt.asked.is_some() {
        return;
    }
    if let Some(editor) = prompt.editor_mut() {
        editor.paste(text);
    }
    edited(state);
}

/// Another selector means other machines.
fn edited(state: &mut State) {
    let Some(Modal::Prompt(prompt)) = &state.modal else { return };
    if prompt.field != Field::On {
        return;
    }
    let targets = guess(state, prompt.on.text());
    if let Some(Modal::Prompt(prompt)) = &mut state.modal {
        prompt.mean(targets, Seen::Guessed);
        prompt.refusal = None;
        // What was typed was the number of others.
        prompt.answer = Editor::default();
    }
}

/// Another of the times on offer.
pub(super) fn change_time(state: &mut State, steps: isize) {
    let Some(Modal::Prompt(prompt)) = &mut state.modal else { return };
    if prompt.asked.is_none() {
        prompt.change_time(steps);
    }
}

/// Lists its machines, or no longer.
pub(super) fn list(state: &mut State) {
    let Some(Modal::Prompt(prompt)) = &mut state.modal else { return };
    prompt.listed = match prompt.listed {
        Some(_) => None,
        None => Some(0),
    };
}

/// Another part of the list of its machines.
pub(super) fn scroll(state: &mut State, rows: isize) {
    let Some(Modal::Prompt(prompt)) = &mut state.modal else { return };
    let last = prompt.targets.len().saturating_sub(1);
    prompt.listed = prompt.listed.map(|top| top.saturating_add_signed(rows).min(last));
}
