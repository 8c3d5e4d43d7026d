//! What an event changes, and what it makes the shell do. Pure: the time is given, nothing is waited for.
//!
//! | room | holds |
//! |---|---|
//! | `go` | from screen to screen |
//! | `moving` | within one |
//! | `machine` | on one machine: tabs, charts |
//! | `filter` | what is shown of a list |
//! | `columns` | which columns, and by which it is sorted |
//! | `output` | in an output that fills the screen |
//! | `page` | on one command: groups, marks, comparisons |
//! | `past` | the machines as they were |
//! | `palette` | what was written after `:` |
//! | `prompt` | writing a command and sending it |
//! | `steer` | wishes about a command that spreads, or that is to end |
//! | `told` | what the session tells |

mod columns;
mod filter;
mod go;
mod machine;
mod moving;
mod output;
mod page;
mod palette;
mod past;
mod prompt;
mod steer;
mod told;

use crate::{
    client::Ask,
    tui::{
        effect::Effect,
        event::Event,
        keymap::{Action, Key},
        state::{Modal, Now, Screen, Severity, State, page::Focus},
    },
};

/// Applies one event at `now` and answers what it causes.
pub fn update(state: &mut State, now: Now, event: Event) -> Vec<Effect> {
    (state.real_ms, state.real_wall_ms) = (now.ms, now.wall_ms);
    if !state.is_frozen {
        (state.now_ms, state.wall_ms) = (now.ms, now.wall_ms);
    }
    let goes_on = output::concerns(&event);
    let mut effects = happen(state, event);
    if goes_on {
        effects.extend(output::go_on(state));
    }
    effects
}

fn happen(state: &mut State, event: Event) -> Vec<Effect> {
    match event {
        Event::Key(key) => press(state, key),
        Event::Paste(text) => {
            paste(state, &text);
            vec![]
        }
        Event::Wheel(notches) => moving::wheel(state, notches),
        Event::Click(column, row) => moving::click(state, column, row),
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
        Event::Tick => tick(state),
        Event::Stop => vec![Effect::Suspend],
        Event::Continued => vec![Effect::Resume],
        Event::Terminate => {
            state.quit = true;
            vec![]
        }
    }
}

fn press(state: &mut State, key: Key) -> Vec<Effect> {
    state.is_touched = true;
    match state.options.keymap.action(state.mode(), key) {
        Some(action) => act(state, action),
        None => vec![],
    }
}

/// A second has passed: ages have grown, live figures may have changed places, and lists are read anew.
fn tick(state: &mut State) -> Vec<Effect> {
    if state.status.as_ref().is_some_and(|status| status.until_ms <= state.real_ms) {
        state.status = None;
    }
    state.pulse.tick();
    if state.is_frozen {
        return vec![];
    }
    // Rows that jump are hard to read: with less motion they move every fifth second only.
    if !state.options.reduced_motion || (state.now_ms / 1000).is_multiple_of(5) {
        state.fleet.rearrange(state.now_ms);
    }
    let mut effects = go::look_again(state);
    effects.extend(machine::tick(state));
    effects
}

fn paste(state: &mut State, text: &str) {
    match &mut state.modal {
        Some(Modal::Prompt(_)) => prompt::paste(state, text),
        Some(Modal::Palette(palette)) => {
            palette.editor.paste(text);
            palette::written(state);
        }
        Some(Modal::Line(line)) => line.editor.paste(text),
        Some(Modal::Filter { editor, .. }) => {
            editor.paste(text);
            filter::apply(state);
        }
        _ => {}
    }
}

/// Whether it makes machines do something, or leave it.
fn does_something(action: Action) -> bool {
    matches!(
        action,
        Action::Run | Action::Repeat | Action::Retry | Action::Cancel | Action::Pause | Action::Abort
    )
}

/// Whether this console does more than look.
fn may_act(state: &mut State) -> bool {
    let is_free = !state.options.run.read_only;
    if !is_free {
        state.say(Severity::Warn, "this console only looks: run.read_only is set in its configuration");
    }
    is_free
}

/// Does what a key, or a word of the palette, means.
fn act(state: &mut State, action: Action) -> Vec<Effect> {
    if does_something(action) && !may_act(state) {
        return vec![];
    }
    match action {
        Action::Quit => state.quit = true,
        Action::Suspend => return vec![Effect::Suspend],
        Action::Redraw => return vec![Effect::Redraw],
        Action::Back => return back(state),
        Action::Enter => return enter(state),
        Action::Step(_)
        | Action::HalfPage(_)
        | Action::Page(_)
        | Action::Top
        | Action::Bottom
        | Action::Side(_)
        | Action::Follow => return moving::act(state, action),
        Action::Mark if matches!(state.modal, Some(Modal::Columns { .. })) => columns::toggle(state),
        Action::Mark if matches!(state.screen, Screen::Command(_)) => page::mark(state),
        Action::Mark => state.sight_mut().toggle_mark(),
        Action::MarkRange => state.sight_mut().mark_range(),
        Action::MarkSeen => state.sight_mut().mark_seen(),
        Action::InvertMarks => state.sight_mut().invert_marks(),
        Action::ClearMarks => state.sight_mut().clear_marks(),
        Action::Filter => filter::open(state),
        Action::Run => return prompt::open(state),
        Action::Repeat => return prompt::repeat(state),
        Action::Retry => return prompt::retry(state),
        Action::Field(steps) => return prompt::step(state, steps),
        Action::LookBack => prompt::search(state),
        Action::Targets => prompt::list(state),
        Action::Palette => palette::open(state),
        Action::Complete => palette::complete(state),
        Action::Pulse => return go::go(state, Screen::Pulse),
        Action::Machines => return go::go(state, Screen::Machines),
        Action::Commands => return go::go(state, Screen::Commands),
        Action::List(kind) => return go::go(state, Screen::List(kind)),
        Action::Travel(steps) => return go::travel(state, steps),
        Action::Other => return go::other(state),
        Action::Sort(_) | Action::SortNext(_) | Action::Reverse => columns::sort(state, action),
        Action::Columns => state.modal = Some(Modal::Columns { at: 0 }),
        Action::Shift(steps) => columns::shift(state, steps),
        Action::Reset => columns::reset(state),
        Action::Copy => return copy(state),
        Action::Freeze => return freeze(state),
        Action::Refresh => return go::refresh(state),
        Action::Mouse => return mouse(state),
        Action::Header => state.is_headless = !state.is_headless,
        Action::Cancel => steer::cancel(state),
        Action::Pause => return steer::pause(state),
        Action::Abort => steer::abort(state),
        Action::OtherHalf => other_half(state),
        Action::Fold | Action::Outliers | Action::Base | Action::Diff => page::act(state, action),
        Action::Tab(_) | Action::TabNext(_) | Action::Neighbour(_) | Action::Zoom(_) | Action::Charts => {
            return machine::act(state, action);
        }
        Action::Scrub(minutes) => return past::scrub(state, minutes),
        Action::Output => return output::open(state),
        Action::Wrap
        | Action::Times
        | Action::Numbers
        | Action::Streams
        | Action::Search
        | Action::Match(_)
        | Action::OnlyFound
        | Action::Percent
        | Action::Save => output::act(state, action),
        Action::Help => state.modal = Some(Modal::Help { top: 0 }),
        Action::Edit(edit) => write(state, edit),
        Action::Recall(steps) => recall(state, steps),
        Action::Timeout(steps) => prompt::change_time(state, steps),
    }
    vec![]
}

fn write(state: &mut State, edit: crate::tui::state::editor::Edit) {
    match &mut state.modal {
        Some(Modal::Prompt(open)) => match &mut open.search {
            Some(search) => {
                search.editor.edit(edit);
                prompt::searched(state);
            }
            None => prompt::edit(state, edit),
        },
        Some(Modal::Palette(palette)) => {
            palette.editor.edit(edit);
            palette::written(state);
        }
        Some(Modal::Line(line)) => {
            line.editor.edit(edit);
            line.problem = None;
        }
        Some(Modal::Filter { editor, .. }) => {
            editor.edit(edit);
            filter::apply(state);
        }
        _ => {}
    }
}

fn recall(state: &mut State, steps: isize) {
    match state.modal {
        Some(Modal::Palette(_)) => palette::recall(state, steps),
        _ => prompt::recall(state, steps),
    }
}

/// Out by one layer: what lies over the screen, the filter, the marks, the screen.
fn back(state: &mut State) -> Vec<Effect> {
    if let Some(Modal::Prompt(prompt)) = &mut state.modal
        && (prompt.search.take().is_some() || prompt.listed.take().is_some())
    {
        return vec![];
    }
    match state.modal.take() {
        Some(Modal::Filter { before, .. }) => filter::set(state, &before),
        Some(
            Modal::Prompt(_)
            | Modal::Palette(_)
            | Modal::Line(_)
            | Modal::Columns { .. }
            | Modal::Confirm(_)
            | Modal::Help { .. },
        ) => {}
        None => return leave(state),
    }
    vec![]
}

fn leave(state: &mut State) -> Vec<Effect> {
    match state.screen {
        Screen::Machines if state.past.is_looked_at() => past::to_now(state),
        _ if !filter::of(state).is_empty() => filter::set(state, ""),
        Screen::Machines if state.sight().marked() > 0 => state.sight_mut().clear_marks(),
        Screen::Machine(_) if state.one.is_charts => state.one.is_charts = false,
        Screen::Output(..) => match output::leave(state) {
            Some(effects) => return effects,
            None => return go::travel(state, -1),
        },
        Screen::Command(_) => {
            if !page::leave(state) {
                return go::travel(state, -1);
            }
        }
        _ => return go::travel(state, -1),
    }
    vec![]
}

fn enter(state: &mut State) -> Vec<Effect> {
    match &state.modal {
        Some(Modal::Prompt(open)) if open.search.is_some() => prompt::take(state),
        Some(Modal::Prompt(_)) => return prompt::submit(state),
        Some(Modal::Palette(_)) => return palette::carry_out(state),
        Some(Modal::Line(_)) => return output::carry_out(state),
        Some(Modal::Columns { .. }) => columns::toggle(state),
        Some(Modal::Filter { .. } | Modal::Help { .. }) => state.modal = None,
        Some(Modal::Confirm(confirm)) => {
            let confirm = confirm.clone();
            state.modal = None;
            if confirm.is_yes {
                return steer::confirmed(state, &confirm);
            }
        }
        None => return go::within(state),
    }
    vec![]
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

/// Copies what the marks or the row are called; of a row of a list its text.
fn copy(state: &mut State) -> Vec<Effect> {
    let (text, what) = match &state.screen {
        Screen::Pulse => {
            let text = state.pulse.here().map(|concern| format!("{}: {}", concern.what, concern.why));
            (text.unwrap_or_default(), "the line".to_owned())
        }
        Screen::Machines => {
            let meant = state.sight().meant();
            let names: Vec<&str> =
                meant.iter().filter_map(|token| state.sight().get(token)).map(|m| m.name.as_str()).collect();
            (names.join("\n"), crate::tui::view::amount::machines(names.len()))
        }
        Screen::Commands => {
            let id = state.commands.cursor.key().map(ToString::to_string);
            (id.unwrap_or_default(), "the id of the command".to_owned())
        }
        Screen::Command(id) => (id.to_string(), "the id of the command".to_owned()),
        Screen::Output(..) => {
            let line = state.output.here().map(|line| line.text.to_string());
            (line.unwrap_or_default(), "the line".to_owned())
        }
        Screen::Machine(_) | Screen::List(_) => {
            let rows = state.list_of_rows().and_then(|kind| state.rows(kind));
            let cells = rows.and_then(|rows| rows.here()).map(|item| {
                item.cells.iter().map(|cell| cell.plain(state.wall_ms)).collect::<Vec<_>>().join("\t")
            });
            (cells.unwrap_or_default(), "the row".to_owned())
        }
        Screen::Item(kind, key) => {
            let details = state.rows(*kind).and_then(|rows| rows.get(key)).map(|item| {
                item.details
                    .iter()
                    .map(|(name, what)| format!("{name}: {what}"))
                    .collect::<Vec<_>>()
                    .join("\n")
            });
            (details.unwrap_or_default(), "all of it".to_owned())
        }
    };
    if text.is_empty() {
        state.say(Severity::Warn, "there is nothing to copy");
        return vec![];
    }
    state.say(Severity::Good, format!("copied {what}"));
    vec![Effect::Copy(text)]
}

/// Holds what is shown still, or lets it go on: then what came meanwhile is read.
fn freeze(state: &mut State) -> Vec<Effect> {
    state.is_frozen = !state.is_frozen;
    if state.is_frozen {
        return vec![];
    }
    (state.now_ms, state.wall_ms) = (state.real_ms, state.real_wall_ms);
    vec![Effect::Ask(Ask::Refresh)]
}

fn mouse(state: &mut State) -> Vec<Effect> {
    state.has_mouse = !state.has_mouse;
    let text = if state.has_mouse {
        "the mouse is the console's; to select text hold shift, or give it back"
    } else {
        "the mouse is the terminal's: text can be selected"
    };
    state.say(Severity::Good, text);
    vec![Effect::Mouse(state.has_mouse)]
}
