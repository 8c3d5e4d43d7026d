//! What an event changes, and what it makes the shell do. Pure: the time is given, nothing is waited for.

mod prompt;
mod told;

use crate::{
    client::Ask,
    tui::{
        effect::Effect,
        event::Event,
        keymap::{self, Action},
        state::{Confirm, Modal, Now, Screen, Severity, State, editor::Editor, page::Focus},
        view::{help, layout},
    },
};

/// Columns by which output moves sideways.
const SIDE_COLUMNS: usize = 8;
/// Most columns that are skipped at the left of the output: a line has no more.
const MOST_SKIPPED: usize = crate::tui::text::LINE_BYTES;

/// Applies one event at `now` and answers what it causes.
pub fn update(state: &mut State, now: Now, event: Event) -> Vec<Effect> {
    state.now_ms = now.ms;
    state.wall_ms = now.wall_ms;
    match event {
        Event::Key(key) => {
            state.is_touched = true;
            match keymap::action(state.mode(), key) {
                Some(action) => act(state, action),
                None => vec![],
            }
        }
        Event::Paste(text) => {
            paste(state, &text);
            vec![]
        }
        Event::Resize(columns, rows) => {
            state.size = (columns, rows);
            vec![]
        }
        Event::Told(told) => told::hear(state, *told),
        Event::SessionEnded => {
            state.is_session_over = true;
            state.link.connected = false;
            state.say(Severity::Bad, "the connection has ended; leave the console and open it again");
            vec![]
        }
        Event::Tick => {
            tick(state);
            vec![]
        }
        Event::Stop => vec![Effect::Suspend],
        Event::Continued => vec![Effect::Resume],
        Event::Terminate => {
            state.quit = true;
            vec![]
        }
    }
}

/// A second has passed: ages have grown and live figures may have changed places.
fn tick(state: &mut State) {
    if state.status.as_ref().is_some_and(|status| status.until_ms <= state.now_ms) {
        state.status = None;
    }
    // Rows that jump are hard to read: with less motion they move every fifth second only.
    if !state.options.reduced_motion || (state.now_ms / 1000).is_multiple_of(5) {
        state.fleet.rearrange(state.now_ms);
    }
}

fn paste(state: &mut State, text: &str) {
    match &mut state.modal {
        Some(Modal::Prompt(prompt)) if prompt.asked.is_none() => prompt.editor.paste(text),
        Some(Modal::Filter { editor, .. }) => {
            editor.paste(text);
            apply_filter(state);
        }
        _ => {}
    }
}

fn act(state: &mut State, action: Action) -> Vec<Effect> {
    match action {
        Action::Quit => state.quit = true,
        Action::Suspend => return vec![Effect::Suspend],
        Action::Redraw => return vec![Effect::Redraw],
        Action::Back => return back(state),
        Action::Enter => return enter(state),
        Action::Step(rows) => return step(state, rows),
        Action::HalfPage(pages) => return step(state, pages * (page_rows(state) / 2).max(1)),
        Action::Page(pages) => return page(state, pages),
        Action::Top => return step(state, isize::MIN / 2),
        Action::Bottom => return step(state, isize::MAX / 2),
        Action::Side(steps) => side(state, steps),
        Action::Mark => state.fleet.toggle_mark(),
        Action::MarkSeen => state.fleet.mark_seen(),
        Action::ClearMarks => state.fleet.clear_marks(),
        Action::Filter => open_filter(state),
        Action::Run => prompt::open(state),
        Action::Repeat => prompt::repeat(state),
        Action::Machines => return go(state, Screen::Machines),
        Action::Commands => return go(state, Screen::Commands),
        Action::Sort(column) => state.fleet.sort_by(column, state.now_ms),
        Action::Refresh => return vec![Effect::Ask(Ask::Refresh)],
        Action::Cancel => ask_to_cancel(state),
        Action::Follow => follow(state),
        Action::OtherHalf => other_half(state),
        Action::Help => state.modal = Some(Modal::Help { top: 0 }),
        Action::Edit(edit) => match &mut state.modal {
            Some(Modal::Prompt(prompt)) if prompt.asked.is_none() => prompt.editor.edit(edit),
            Some(Modal::Filter { editor, .. }) => {
                editor.edit(edit);
                apply_filter(state);
            }
            _ => {}
        },
        Action::Recall(steps) => prompt::recall(state, steps),
        Action::Timeout(steps) => prompt::change_timeout(state, steps),
    }
    vec![]
}

/// Out by one layer: what lies over the screen, the filter, the marks, the screen.
fn back(state: &mut State) -> Vec<Effect> {
    match state.modal.take() {
        Some(Modal::Filter { before, .. }) => set_filter(state, &before),
        Some(Modal::Prompt(_) | Modal::Confirm(_) | Modal::Help { .. }) => {}
        None => return leave(state),
    }
    vec![]
}

fn leave(state: &mut State) -> Vec<Effect> {
    match state.screen {
        Screen::Machines if !state.fleet.filter().is_empty() => set_filter(state, ""),
        Screen::Machines if state.fleet.marked() > 0 => state.fleet.clear_marks(),
        Screen::Commands if !state.commands.filter().is_empty() => set_filter(state, ""),
        Screen::Command(_) if state.page.focus == Focus::Output => state.page.focus = Focus::Runs,
        _ => {
            if let Some(under) = state.under.pop() {
                return show(state, under);
            }
        }
    }
    vec![]
}

fn enter(state: &mut State) -> Vec<Effect> {
    match &state.modal {
        Some(Modal::Prompt(_)) => return prompt::submit(state),
        Some(Modal::Filter { .. } | Modal::Help { .. }) => state.modal = None,
        Some(Modal::Confirm(confirm)) => {
            let confirm = confirm.clone();
            state.modal = None;
            if confirm.is_yes {
                state.tag += 1;
                return vec![Effect::Ask(Ask::Cancel { tag: state.tag, id: confirm.id })];
            }
        }
        None => match &state.screen {
            Screen::Machines => {
                if let Some(token) = state.fleet.cursor.key().cloned() {
                    return go(state, Screen::Machine(token));
                }
            }
            Screen::Commands => {
                if let Some(id) = state.commands.cursor.key().copied() {
                    return go(state, Screen::Command(id));
                }
            }
            Screen::Command(_) => state.page.focus = Focus::Output,
            Screen::Machine(_) => {}
        },
    }
    vec![]
}

/// In: to a screen from which Esc leads back to this one. One that is below already is gone back to.
pub(super) fn go(state: &mut State, screen: Screen) -> Vec<Effect> {
    if state.screen == screen {
        return vec![];
    }
    if let Some(at) = state.under.iter().position(|under| *under == screen) {
        state.under.truncate(at);
    } else {
        state.under.push(state.screen.clone());
    }
    show(state, screen)
}

fn show(state: &mut State, screen: Screen) -> Vec<Effect> {
    let mut effects = vec![];
    let before = state.shown_command();
    state.screen = screen;
    let now = state.shown_command();
    if before == now {
        return effects;
    }
    if let Some(command) = before.and_then(|id| state.commands.get_mut(id))
        && std::mem::take(&mut command.is_watched)
    {
        effects.push(Effect::Ask(Ask::Unwatch { id: command.id }));
    }
    if let Some(id) = now {
        state.page = crate::tui::state::page::CommandPage::default();
        effects.extend(watch(state, id));
    }
    effects
}

/// Has a command's runs and output told, unless all of it is here.
pub(super) fn watch(state: &mut State, id: signalbox_schemas::id::CommandId) -> Option<Effect> {
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

fn page_rows(state: &State) -> isize {
    let areas = layout::areas(state);
    let area = if is_on_output(state) { areas.output } else { areas.list };
    isize::try_from(area.height.max(1)).unwrap_or(1)
}

fn is_on_output(state: &State) -> bool {
    matches!(state.screen, Screen::Command(_)) && state.page.focus == Focus::Output
}

fn step(state: &mut State, rows: isize) -> Vec<Effect> {
    if let Some(Modal::Help { top }) = &mut state.modal {
        *top = top.saturating_add_signed(rows);
        *top = (*top).min(help::last_top(state.size, &state.screen));
        return vec![];
    }
    match &state.screen {
        Screen::Machines => state.fleet.step(rows),
        Screen::Machine(_) => {
            state.fleet.step(rows);
            if let Some(token) = state.fleet.cursor.key().cloned() {
                state.screen = Screen::Machine(token);
            }
        }
        Screen::Commands => state.commands.step(rows),
        Screen::Command(_) if state.page.focus == Focus::Output => scroll(state, rows),
        Screen::Command(_) => state.page.go(state.page.cursor.at().saturating_add_signed(rows)),
    }
    vec![]
}

/// On a command a page is one of its output, wherever the focus is.
fn page(state: &mut State, pages: isize) -> Vec<Effect> {
    if state.modal.is_none() && matches!(state.screen, Screen::Command(_)) {
        let rows = isize::try_from(layout::areas(state).output.height).unwrap_or(1);
        scroll(state, pages * (rows - 1).max(1));
        return vec![];
    }
    step(state, pages * (page_rows(state) - 1).max(1))
}

fn scroll(state: &mut State, by: isize) {
    let rows = usize::from(layout::areas(state).output.height);
    if let Some(command) = state.shown_command().and_then(|id| state.commands.get(id)) {
        state.page.scroll_by(command, rows, by);
    }
}

fn follow(state: &mut State) {
    let rows = usize::from(layout::areas(state).output.height);
    if let Some(command) = state.shown_command().and_then(|id| state.commands.get(id)) {
        state.page.toggle_follow(command, rows);
    }
}

fn side(state: &mut State, steps: isize) {
    let columns = steps * isize::try_from(SIDE_COLUMNS).unwrap_or(1);
    state.page.skipped = state.page.skipped.saturating_add_signed(columns).min(MOST_SKIPPED);
}

fn other_half(state: &mut State) {
    match &mut state.modal {
        Some(Modal::Confirm(confirm)) => confirm.is_yes = !confirm.is_yes,
        _ => {
            state.page.focus = match state.page.focus {
                Focus::Runs => Focus::Output,
                Focus::Output => Focus::Runs,
            }
        }
    }
}

fn open_filter(state: &mut State) {
    let before = match state.screen {
        Screen::Commands => state.commands.filter(),
        _ => state.fleet.filter(),
    };
    state.modal = Some(Modal::Filter { editor: Editor::new(before), before: before.to_owned() });
}

fn apply_filter(state: &mut State) {
    if let Some(Modal::Filter { editor, .. }) = &state.modal {
        let text = editor.text().to_owned();
        set_filter(state, &text);
    }
}

fn set_filter(state: &mut State, text: &str) {
    match state.screen {
        Screen::Commands => state.commands.set_filter(text),
        _ => state.fleet.set_filter(text, state.now_ms),
    }
}

fn ask_to_cancel(state: &mut State) {
    let id = match state.screen {
        Screen::Commands => state.commands.cursor.key().copied(),
        _ => state.shown_command(),
    };
    let Some(command) = id.and_then(|id| state.commands.get(id)) else { return };
    if command.is_open() {
        state.modal = Some(Modal::Confirm(Confirm { id: command.id, is_yes: false }));
    } else {
        state.say(Severity::Warn, "nothing to cancel: every run of it has ended");
    }
}
