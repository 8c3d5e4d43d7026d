//! Draws the whole screen from the state alone; keeps nothing.

pub mod amount;
mod chart;
mod chrome;
mod columns;
mod command;
mod commands;
mod confirm;
pub mod help;
pub mod item;
pub mod layout;
mod list;
mod machine;
mod machines;
mod output;
mod painted;
pub mod palette;
mod past;
mod pen;
mod prompt;
mod pulse;

use ratatui::{Frame, buffer::Buffer};

use crate::tui::{
    state::{Modal, Screen, State},
    theme::Theme,
};

/// Draws one frame.
pub fn view(state: &State, frame: &mut Frame<'_>) {
    let theme = Theme::new(&state.options);
    if layout::is_too_small(state.size) {
        chrome::too_small(frame, &theme);
        return;
    }
    let areas = layout::areas(state);
    let buffer = frame.buffer_mut();
    chrome::header(state, &areas, buffer, &theme);
    match &state.screen {
        Screen::Pulse => pulse::draw(state, buffer, &theme),
        Screen::Machines => machines::draw(state, &areas, buffer, &theme),
        Screen::Machine(token) => machine::draw(state, token, &areas, buffer, &theme),
        Screen::Commands => commands::draw(state, &areas, buffer, &theme),
        Screen::Command(id) => command::draw(state, *id, &areas, buffer, &theme),
        Screen::Output(id, whose) => output::draw(state, *id, whose, &areas, buffer, &theme),
        Screen::List(kind) => list::draw(state, *kind, &areas, buffer, &theme),
        Screen::Item(kind, key) => item::draw(state, *kind, key, areas.list, buffer, &theme),
    }
    let mut cursor = chrome::footer(state, &areas, buffer, &theme);
    match &state.modal {
        Some(Modal::Prompt(prompt)) => cursor = prompt::draw(state, prompt, buffer, &theme),
        Some(Modal::Palette(palette)) => cursor = Some(palette::draw(state, palette, buffer, &theme)),
        Some(Modal::Columns { at }) => columns::draw(state, *at, buffer, &theme),
        Some(Modal::Confirm(confirm)) => confirm::draw(state, confirm, buffer, &theme),
        Some(Modal::Help { top }) => help::draw(state, *top, buffer, &theme),
        Some(Modal::Filter { .. } | Modal::Line(_)) | None => {}
    }
    if state.options.ascii {
        to_ascii(frame.buffer_mut());
    }
    if let Some(position) = cursor {
        frame.set_cursor_position(position);
    }
}

/// Names and output of machines may hold anything: where only ASCII can be shown, `?` stands for the rest.
fn to_ascii(buffer: &mut Buffer) {
    for cell in buffer.content.iter_mut().filter(|cell| !cell.symbol().is_ascii()) {
        cell.set_symbol("?");
    }
}
