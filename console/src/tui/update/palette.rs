//! The palette: what is written, what it may become, and doing it.

use crate::tui::{
    effect::Effect,
    palette::{self, Order},
    state::{MOST_LINES, Modal, Palette, State, editor::Editor},
};

use super::{act, columns, filter, go, may_act, past, prompt};

/// Opens the line.
pub(super) fn open(state: &mut State) {
    state.modal = Some(Modal::Palette(Box::default()));
    written(state);
}

/// The line was changed: what it may become is something else.
pub(super) fn written(state: &mut State) {
    let Some(Modal::Palette(palette)) = &state.modal else { return };
    let offers = palette::offers(state, palette.editor.text());
    if let Some(Modal::Palette(palette)) = &mut state.modal {
        palette.offers = offers;
        (palette.chosen, palette.recalled, palette.problem) = (None, None, None);
    }
}

/// Writes what is offered: the chosen one, else the first. A space after it asks for what follows.
pub(super) fn complete(state: &mut State) {
    let Some(Modal::Palette(palette)) = &mut state.modal else { return };
    let Some(offer) = palette.offers.get(palette.chosen.unwrap_or(0)) else { return };
    palette.editor = Editor::new(&format!("{} ", offer.line));
    written(state);
}

/// Shows an earlier line (1) or a later one (-1).
pub(super) fn recall(state: &mut State, steps: isize) {
    let Some(Modal::Palette(palette)) = &state.modal else { return };
    let back = palette.recalled.map_or(0, |at| at + 1).saturating_add_signed(steps).min(state.lines.len());
    let recalled = back.checked_sub(1);
    let line = recalled.and_then(|at| state.lines.iter().rev().nth(at)).cloned().unwrap_or_default();
    if let Some(Modal::Palette(palette)) = &mut state.modal {
        palette.editor = Editor::new(&line);
    }
    written(state);
    if let Some(Modal::Palette(palette)) = &mut state.modal {
        palette.recalled = recalled;
    }
}

/// Does what is written, or the offer that is chosen; what is not understood stays to be mended.
pub(super) fn carry_out(state: &mut State) -> Vec<Effect> {
    let Some(Modal::Palette(palette)) = &state.modal else { return vec![] };
    let Some(line) = meant(state, palette) else {
        state.modal = None;
        return vec![];
    };
    match palette::understand(state, &line) {
        Ok(order) => {
            state.modal = None;
            remember(&mut state.lines, line);
            obey(state, order)
        }
        Err(problem) => {
            if let Some(Modal::Palette(palette)) = &mut state.modal {
                palette.problem = Some(problem);
            }
            vec![]
        }
    }
}

/// The line that counts: the chosen offer, what is written where that is understood, else the best offer.
fn meant(state: &State, palette: &Palette) -> Option<String> {
    let written = palette.editor.text().trim();
    let offered = |at: usize| palette.offers.get(at).map(|offer| offer.line.clone());
    if let Some(at) = palette.chosen {
        return offered(at);
    }
    if written.is_empty() {
        return None;
    }
    if palette::understand(state, written).is_ok() {
        return Some(written.to_owned());
    }
    let best = offered(0).filter(|line| palette::understand(state, line).is_ok());
    best.or_else(|| Some(written.to_owned()))
}

fn remember(lines: &mut Vec<String>, line: String) {
    lines.retain(|known| *known != line);
    lines.push(line);
    if lines.len() > MOST_LINES {
        lines.remove(0);
    }
}

fn obey(state: &mut State, order: Order) -> Vec<Effect> {
    if matches!(order, Order::Run(_) | Order::Saved(..)) && !may_act(state) {
        return vec![];
    }
    match order {
        Order::Go(screen, wanted) => {
            let effects = go::go(state, screen);
            if let Some(text) = wanted {
                filter::set(state, &text);
            }
            return effects;
        }
        Order::Run(text) => return prompt::open_with(state, &text),
        Order::Saved(saved, given) => return prompt::open_saved(state, *saved, &given),
        Order::Filter(text) => filter::set(state, &text),
        Order::Sort(name, is_reversed) => columns::sort_named(state, &name, is_reversed),
        Order::Columns(names) if names.is_empty() => state.modal = Some(Modal::Columns { at: 0 }),
        Order::Columns(names) => {
            columns::choose(state, &names.iter().map(String::as_str).collect::<Vec<_>>());
        }
        Order::At(at) => return past::at(state, at.unwrap_or(u64::MAX)),
        Order::Theme(tone) => state.options.tone = tone,
        Order::Act(action) => return act(state, action),
    }
    vec![]
}
