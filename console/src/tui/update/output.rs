//! In an output that fills the screen: how it is shown, looking for something, saving it, and reading what is looked at.

use signalbox_schemas::{
    error::Problem,
    id::{CommandId, MachineId},
    output::OutputStream,
};

use super::go;
use crate::{
    client::{
        Ask, Told,
        nats::OutputRange,
        session::save::{Save, Saved, Target},
    },
    tui::{
        effect::Effect,
        event::Event,
        keymap::Action,
        state::{
            About, Line, Modal, Saving, Screen, Severity, State,
            command::{Command, Run},
            editor::Editor,
            output::{
                Key, News, Streams, Whose,
                kept::name,
                window::{Frame, Top},
            },
            page::CommandPage,
        },
        text,
        view::{amount, layout},
    },
};

/// Columns by which it moves sideways.
const SIDE_COLUMNS: usize = 8;
/// Letters of a command's id in the name of a file: the random ones at its end.
const ID_LETTERS: usize = 8;

/// Opens the output of the row under the cursor, of a group that of one of its machines.
pub(super) fn open(state: &mut State) -> Vec<Effect> {
    let Screen::Command(id) = state.screen else { return vec![] };
    let Some(command) = state.commands.get(id) else { return vec![] };
    let row = state.page.cursor.key();
    let run = row.and_then(|row| CommandPage::run(command, row)).or(alone(command));
    let whose = run.map_or(Whose::All, |run| Whose::One(run.machine.clone()));
    go::go(state, Screen::Output(id, whose))
}

/// The run of a command that has one: it is its own whole.
fn alone(command: &Command) -> Option<&Run> {
    if command.run_at(1).is_some() {
        return None;
    }
    command.run_at(0).filter(|_| command.progress().1 == 1)
}

/// Does what an action means here.
pub(super) fn act(state: &mut State, action: Action) {
    let output = &mut state.output;
    match action {
        Action::Step(rows) => scroll(state, rows),
        Action::HalfPage(pages) => scroll(state, pages * (page_rows(state) / 2).max(1)),
        Action::Page(pages) => scroll(state, pages * (page_rows(state) - 1).max(1)),
        Action::Top => {
            read_in_ranges(state);
            state.output.go_to(Top::At(Key::FIRST, 0));
        }
        Action::Bottom => output.go_to(Top::Follow),
        Action::Follow => output.toggle_follow(),
        Action::Side(steps) if !output.look.wraps => {
            let columns = steps * isize::try_from(SIDE_COLUMNS).unwrap_or(1);
            output.skipped = output.skipped.saturating_add_signed(columns).min(text::LINE_BYTES);
        }
        Action::Wrap => {
            output.look.wraps = !output.look.wraps;
            output.skipped = 0;
        }
        Action::Times => times(state),
        Action::Numbers => output.look.has_numbers = !output.look.has_numbers,
        Action::Streams => streams(state),
        Action::Search => write(state, About::Search, ""),
        Action::Match(steps) => find_next(state, steps > 0),
        Action::OnlyFound => only_found(state),
        Action::Percent => write(state, About::Percent, ""),
        Action::Save => save(state),
        _ => {}
    }
}

fn page_rows(state: &State) -> isize {
    isize::try_from(layout::frame(state).rows).unwrap_or(1)
}

fn command(state: &State) -> Option<&Command> {
    state.shown_command().and_then(|id| state.commands.get(id))
}

/// Moves by rows.
pub(super) fn scroll(state: &mut State, rows: isize) {
    let Some(command) = state.shown_command().and_then(|id| state.commands.get(id)) else { return };
    state.output.scroll_by(command, rows);
}

/// What was looked at as it was kept is read in ranges from now on, where that has more.
fn read_in_ranges(state: &mut State) {
    let Some(command) = state.shown_command().and_then(|id| state.commands.get(id)) else { return };
    if state.output.stored.is_none() && state.output.is_to_be_read(command) {
        state.output.read_in_ranges(command);
    }
}

fn times(state: &mut State) {
    state.output.look.has_times = !state.output.look.has_times;
    if state.output.look.has_times && state.output.stored.is_some() {
        state.say(Severity::Warn, "of stored output no times are known");
    }
}

fn streams(state: &mut State) {
    state.output.turn_streams();
    let text = match state.output.streams {
        Streams::Both => "both streams, in the order in which they came",
        Streams::Only(OutputStream::Stdout) => "stdout only",
        Streams::Only(OutputStream::Stderr) => "stderr only",
    };
    state.say(Severity::Good, text);
}

fn find_next(state: &mut State, is_forward: bool) {
    if state.output.search.is_none() {
        return write(state, About::Search, "");
    }
    state.output.seek(is_forward);
}

fn only_found(state: &mut State) {
    if state.output.search.is_none() {
        state.say(Severity::Warn, "look for something first, with /");
        return;
    }
    state.output.is_only_found = !state.output.is_only_found;
}

fn write(state: &mut State, about: About, text: &str) {
    state.modal = Some(Modal::Line(Line { about, editor: Editor::new(text), problem: None }));
}

/// Opens the line of the file's name; while something is saved, that is said.
fn save(state: &mut State) {
    if state.saving.is_some() {
        state.say(Severity::Warn, "one output at a time is saved; esc stops that");
        return;
    }
    let Some(command) = command(state) else { return };
    let id = command.id.to_string();
    let id = id.get(id.len().saturating_sub(ID_LETTERS)..).unwrap_or(&id);
    let path = match (&state.screen, state.output.streams) {
        (Screen::Output(_, Whose::One(machine)), Streams::Both) => format!("{}-{id}", machine.token()),
        (Screen::Output(_, Whose::One(machine)), Streams::Only(stream)) => {
            format!("{}-{id}.{}", machine.token(), name(stream))
        }
        _ => format!("output-{id}"),
    };
    write(state, About::Save, &path);
}

/// Does what was written; what is not understood stays to be mended.
pub(super) fn carry_out(state: &mut State) -> Vec<Effect> {
    let Some(Modal::Line(line)) = &state.modal else { return vec![] };
    let (about, text) = (line.about, line.editor.text().trim().to_owned());
    let done = match about {
        About::Search => search(state, &text).map(|()| vec![]),
        About::Percent => go_to_percent(state, &text).map(|()| vec![]),
        About::Save => begin_save(state, &text),
    };
    match (done, &mut state.modal) {
        (Ok(effects), modal) => {
            *modal = None;
            effects
        }
        (Err(problem), Some(Modal::Line(line))) => {
            line.problem = Some(problem);
            vec![]
        }
        (Err(_), _) => vec![],
    }
}

fn search(state: &mut State, text: &str) -> Result<(), String> {
    let needle = crate::tui::needle::Needle::new(text);
    if let Some(problem) = needle.problem() {
        return Err(problem.to_owned());
    }
    if state.output.top != Top::Follow {
        read_in_ranges(state);
    }
    state.output.look_for(text);
    Ok(())
}

fn go_to_percent(state: &mut State, text: &str) -> Result<(), String> {
    let number = text.trim_end_matches('%').trim().parse::<u64>();
    let percent = number.ok().filter(|percent| *percent <= 100).ok_or("a number from 0 to 100")?;
    read_in_ranges(state);
    let Some(command) = state.shown_command().and_then(|id| state.commands.get(id)) else { return Ok(()) };
    state.output.go_to_percent(command, percent);
    Ok(())
}

fn begin_save(state: &mut State, path: &str) -> Result<Vec<Effect>, String> {
    if path.is_empty() || path.ends_with('/') {
        return Err("name a file".to_owned());
    }
    let tag = state.tag + 1;
    let Some(command) = command(state) else { return Err("this command is not known any more".to_owned()) };
    let both = |machine: &MachineId, beginning: &str| {
        let path = |stream| format!("{beginning}.{}", name(stream)).into();
        OutputStream::ALL.map(|stream| Target { machine: machine.clone(), stream, path: path(stream) })
    };
    let (targets, folder, skips_empty) = match (&state.screen, state.output.streams) {
        (Screen::Output(_, Whose::One(machine)), Streams::Only(stream)) => {
            (vec![Target { machine: machine.clone(), stream, path: path.into() }], None, false)
        }
        (Screen::Output(_, Whose::One(machine)), Streams::Both) => (both(machine, path).into(), None, true),
        _ => {
            let of = |machine: &MachineId| both(machine, &format!("{path}/{}", machine.token()));
            (command.runs().flat_map(|run| of(&run.machine)).collect(), Some(path.into()), true)
        }
    };
    let save = Save { tag, id: command.id, targets, folder, skips_empty };
    state.tag = tag;
    state.saving = Some(Saving { tag, path: text::line(path), bytes: 0, of: 0 });
    Ok(vec![Effect::Ask(Ask::Save(save))])
}

/// Out by one layer: what is looked for at present, what is saved, the lines that are hidden; `None`: the screen.
pub(super) fn leave(state: &mut State) -> Option<Vec<Effect>> {
    if let Some(search) = state.output.search.as_mut().filter(|search| search.is_seeking()) {
        search.stop();
        return Some(vec![]);
    }
    if let Some(saving) = &state.saving {
        return Some(vec![Effect::Ask(Ask::StopSave { tag: saving.tag })]);
    }
    if state.output.is_only_found {
        state.output.is_only_found = false;
        return Some(vec![]);
    }
    state.output.search.take().map(|_| vec![])
}

/// Takes a range that was asked for.
pub(super) fn hear(
    state: &mut State,
    id: CommandId,
    machine: &MachineId,
    stream: OutputStream,
    from: u64,
    range: Result<OutputRange, Problem>,
) {
    let is_here = matches!(&state.output.of, Some((of, Whose::One(whose))) if *of == id && whose == machine);
    let stored = state.output.stored.as_mut().filter(|stored| is_here && stored.stream == stream);
    if let Some(stored) = stored {
        stored.pages.tell(from, range.map_err(|problem| text::line(&problem.message)));
    }
}

/// Takes how far something has come that is saved.
pub(super) fn saving(state: &mut State, tag: u64, bytes: u64, of: u64) {
    if let Some(saving) = state.saving.as_mut().filter(|saving| saving.tag == tag) {
        (saving.bytes, saving.of) = (bytes, of);
    }
}

/// Takes that it is saved.
pub(super) fn saved(state: &mut State, tag: u64, saved: &Saved) {
    let Some(saving) = state.saving.take_if(|saving| saving.tag == tag) else { return };
    let files = if saved.files == 1 { "1 file".to_owned() } else { format!("{} files", saved.files) };
    let bytes = amount::bytes(saved.bytes);
    if saved.absent > 0 {
        let text = format!(
            "saved {bytes} in {files}: {}; {} streams are of machines that are no more",
            saving.path, saved.absent
        );
        state.say(Severity::Warn, text);
    } else if saved.missing > 0 {
        let missing = amount::bytes(saved.missing);
        let text = format!("saved {bytes} in {files}, {}; {missing} are missing, which it says", saving.path);
        state.say(Severity::Warn, text);
    } else {
        state.say(Severity::Good, format!("saved {bytes} in {files}: {}", saving.path));
    }
}

/// Whether an event may change what is to be read, or where one is. What comes of an output that is kept is seen with the
/// next frame.
pub(super) fn concerns(event: &Event) -> bool {
    match event {
        Event::Told(told) => {
            matches!(
                **told,
                Told::OutputRange { .. } | Told::Run { .. } | Told::Settled { .. } | Told::Command(_)
            )
        }
        _ => true,
    }
}

/// Brings what is seen up to date; asks for what of it is to be read.
pub(super) fn go_on(state: &mut State) -> Vec<Effect> {
    let Screen::Output(id, whose) = &state.screen else { return vec![] };
    let (id, is_all) = (*id, *whose == Whose::All);
    let Some(command) = state.commands.get(id) else { return vec![] };
    // That of all was opened before any run was told, and it turned out that there is one only. Its lines are the same.
    if let Some(run) = alone(command).filter(|_| is_all) {
        let whose = Whose::One(run.machine.clone());
        state.screen = Screen::Output(id, whose.clone());
        state.output.of = Some((id, whose));
    }
    let (frame, now_ms) = (layout::frame(state), state.real_ms);
    let Some(command) = state.commands.get(id) else { return vec![] };
    let (wanted, news) = state.output.go_on(command, at_least_one_row(frame), now_ms);
    match news {
        Some(News::Around) => state.say(Severity::Warn, "gone on from the other end"),
        Some(News::Nowhere(text)) => state.say(Severity::Warn, format!("{text:?} is nowhere in it")),
        None => {}
    }
    let Some((_, Whose::One(machine))) = &state.output.of else { return vec![] };
    let Some(stream) = state.output.stored.as_ref().map(|stored| stored.stream) else { return vec![] };
    let ask = |wanted: crate::tui::state::output::pages::Wanted| {
        let (machine, from, most) = (machine.clone(), wanted.from, wanted.most);
        Effect::Ask(Ask::ReadOutput { id, machine, stream, from, most })
    };
    wanted.into_iter().map(ask).collect()
}

/// A screen that is too small to draw on reads no less.
fn at_least_one_row(frame: Frame) -> Frame {
    Frame { rows: frame.rows.max(1), columns: frame.columns.max(1), ..frame }
}
