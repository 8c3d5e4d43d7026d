//! Earlier texts: one after the other, and those that words are in.

use crate::tui::state::{
    Modal, State,
    editor::Editor,
    prompt::{Field, Search},
};

/// Most texts that are found.
const FOUND: usize = 100;

/// Shows an earlier text (1) or a later one (-1); on another line than that of the text: the line above or below.
pub(in crate::tui::update) fn recall(state: &mut State, steps: isize) {
    let Some(Modal::Prompt(prompt)) = &mut state.modal else { return };
    if prompt.asked.is_some() {
        return;
    }
    if prompt.field != Field::Command || prompt.saved.is_some() {
        prompt.step(-steps);
        return;
    }
    if prompt.recalled.is_none() {
        prompt.command.text().clone_into(&mut prompt.draft);
    }
    let back = prompt.recalled.map_or(0, |at| at + 1).saturating_add_signed(steps).min(state.texts.len());
    prompt.recalled = back.checked_sub(1);
    let text = prompt.recalled.and_then(|at| state.texts.iter().rev().nth(at)).unwrap_or(&prompt.draft);
    prompt.command = Editor::new(text);
}

/// Looks for an earlier text.
pub(in crate::tui::update) fn search(state: &mut State) {
    let Some(Modal::Prompt(prompt)) = &mut state.modal else { return };
    if prompt.asked.is_none() {
        prompt.search = Some(Search::default());
        searched(state);
    }
}

/// The words were changed: other texts have them. Those of this session come first, then those that anybody ran.
pub(in crate::tui::update) fn searched(state: &mut State) {
    let Some(Modal::Prompt(prompt)) = &state.modal else { return };
    let Some(search) = &prompt.search else { return };
    let wanted = search.editor.text().to_lowercase();
    let words: Vec<&str> = wanted.split_whitespace().collect();
    let ran = state.commands.newest();
    // A text that has more than its line shows would be another one once it is sent again.
    let ran = ran.iter().filter(|command| !command.changes && command.source == command.text);
    let texts = state.texts.iter().rev().chain(ran.map(|command| &command.source));
    let mut found: Vec<String> = Vec::new();
    for text in texts {
        let lower = text.to_lowercase();
        if found.len() < FOUND && words.iter().all(|word| lower.contains(word)) && !found.contains(text) {
            found.push(text.clone());
        }
    }
    if let Some(Modal::Prompt(prompt)) = &mut state.modal
        && let Some(search) = &mut prompt.search
    {
        (search.found, search.chosen) = (found, 0);
    }
}

/// Another one of those that were found.
pub(in crate::tui::update) fn choose(state: &mut State, steps: isize) {
    let Some(Modal::Prompt(prompt)) = &mut state.modal else { return };
    if let Some(search) = &mut prompt.search {
        let last = search.found.len().saturating_sub(1);
        search.chosen = search.chosen.saturating_add_signed(steps).min(last);
    }
}

/// Writes the one that is chosen; nothing was found: leaves what is written.
pub(in crate::tui::update) fn take(state: &mut State) {
    let Some(Modal::Prompt(prompt)) = &mut state.modal else { return };
    let Some(search) = prompt.search.take() else { return };
    if let Some(text) = search.found.get(search.chosen) {
        (prompt.saved, prompt.parameters) = (None, Vec::new());
        prompt.command = Editor::new(text);
        prompt.field = Field::Command;
    }
}
