//! What happened in a console, written down: a bug that was seen becomes a test.
//!
//! `SIGNALBOX_RECORD=FILE signalbox` writes a line of JSON for how the console began, one for each event with its time, and at
//! the end the screen as it was. State and screen follow from these lines alone, so [`replay`] shows the same screen again. A file
//! in `console/recordings` is replayed by the tests: mend the screen in its last line, and the test is red until the bug is.
//!
//! What was typed and what machines printed is in the file: it is made for its owner's eyes only, and never over another file.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufWriter, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use ratatui::{Terminal, backend::TestBackend};
use serde::{Deserialize, Serialize};

use super::{
    TuiOptions,
    event::Event,
    keymap::Keymap,
    state::{Now, State},
    theme::Tone,
    update::update,
    view::view,
};
use crate::{
    question::Rule,
    settings::{
        keys::{Keys, Profile, Rebinding},
        running::Running,
        saved::SavedCommand,
        views::View,
    },
};

/// Most bytes of a file; what happens later is not in it.
const MOST_BYTES: u64 = 64 * 1024 * 1024;

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// How it began.
    Begin(Box<Beginning>),
    /// What happened, when.
    Event {
        /// By the clock that goes on steadily, ms.
        ms: u64,
        /// By the one that people set, Unix ms.
        wall_ms: u64,
        /// What.
        event: Event,
    },
    /// A frame was drawn: rows are in the order that it showed.
    Frame,
    /// The file is full: nothing later is in it.
    Full,
    /// The screen at the end, line by line, without spaces at their ends.
    Screen(Vec<String>),
}

/// How a console began.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Beginning {
    /// Of the program.
    pub version: String,
    /// Columns and rows.
    pub size: (u16, u16),
    /// By the clock that goes on steadily, ms.
    pub ms: u64,
    /// By the one that people set, Unix ms.
    pub wall_ms: u64,
    /// How it is drawn.
    pub look: Look,
    /// Who asks.
    pub who: String,
    /// Which fleet.
    pub fleet: String,
    /// Where its broker is.
    #[serde(default)]
    pub broker: String,
    /// What keys mean.
    pub profile: Profile,
    /// Keys of the operator's own: mode, key, name.
    pub keys: Vec<(String, String, String)>,
    /// What is asked before a command, and how long things take.
    pub run: Running,
    /// Why the number of machines is always asked for.
    pub always: Option<String>,
    /// Commands with a name.
    pub saved: Vec<SavedCommand>,
    /// Columns and order of lists.
    pub views: std::collections::BTreeMap<String, View>,
}

/// How a console is drawn.
#[expect(clippy::struct_excessive_bools, reason = "switches that have nothing to do with each other")]
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Look {
    no_color: bool,
    ascii: bool,
    tone: String,
    reduced_motion: bool,
    no_crumbs: bool,
    mouse: bool,
    headless: bool,
    is_protected: bool,
}

impl Beginning {
    /// Of a console with these options; `keys`: what they were made of.
    pub fn new(options: &TuiOptions, keys: &Keys, size: (u16, u16), now: Now) -> Self {
        let own = keys.rebindings.iter();
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            size,
            ms: now.ms,
            wall_ms: now.wall_ms,
            look: Look {
                no_color: options.no_color,
                ascii: options.ascii,
                tone: options.tone.name().to_owned(),
                reduced_motion: options.reduced_motion,
                no_crumbs: options.no_crumbs,
                mouse: options.mouse,
                headless: options.headless,
                is_protected: options.is_protected,
            },
            who: options.who.clone(),
            fleet: options.fleet.clone(),
            broker: options.broker.clone(),
            profile: keys.profile,
            keys: own.map(|set| (set.mode.clone(), set.key.clone(), set.action.clone())).collect(),
            run: options.run.clone(),
            always: options.rule.always.clone(),
            saved: options.saved.clone(),
            views: options.views.clone(),
        }
    }

    fn options(self) -> TuiOptions {
        let own = self.keys.into_iter();
        let rebindings =
            own.map(|(mode, key, action)| Rebinding { mode, key, action, line: 0, column: 0 }).collect();
        let keys = Keys { profile: self.profile, rebindings };
        TuiOptions {
            no_color: self.look.no_color,
            ascii: self.look.ascii,
            tone: Tone::named(&self.look.tone).unwrap_or_default(),
            reduced_motion: self.look.reduced_motion,
            no_crumbs: self.look.no_crumbs,
            mouse: self.look.mouse,
            headless: self.look.headless,
            is_protected: self.look.is_protected,
            keymap: Keymap::of(&keys).0,
            rule: Rule { always: self.always, ..Rule::new(&self.run, None) },
            run: self.run,
            saved: self.saved,
            views: self.views,
            who: self.who,
            fleet: self.fleet,
            broker: self.broker,
            ..TuiOptions::default()
        }
    }
}

/// Writes down what happens.
#[derive(Debug)]
pub struct Recorder {
    file: BufWriter<File>,
    left: u64,
}

impl Recorder {
    /// Begins a file, which must not be there yet.
    ///
    /// # Errors
    /// When it cannot be made or written.
    pub fn begin(path: &Path, beginning: Beginning) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        let mut recorder = Self { file: BufWriter::new(file), left: MOST_BYTES };
        recorder.write(&Line::Begin(Box::new(beginning)))?;
        Ok(recorder)
    }

    /// Writes down what happens now, before it is applied.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn take(&mut self, now: Now, event: &Event) -> io::Result<()> {
        if self.left == 0 {
            return Ok(());
        }
        self.write(&Line::Event { ms: now.ms, wall_ms: now.wall_ms, event: event.clone() })?;
        // What ends the console at once leaves all but the last second.
        if matches!(event, Event::Tick) { self.file.flush() } else { Ok(()) }
    }

    /// Writes down that a frame was drawn.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn frame(&mut self) -> io::Result<()> {
        self.write(&Line::Frame)
    }

    /// Writes the screen as it is now, and all that waits.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn end(mut self, state: &mut State) -> io::Result<()> {
        if self.left > 0 {
            self.write(&Line::Screen(drawn(state)))?;
        }
        self.file.flush()
    }

    fn write(&mut self, line: &Line) -> io::Result<()> {
        if self.left == 0 {
            return Ok(());
        }
        let text = serde_json::to_string(line).map_err(io::Error::other)?;
        let length = u64::try_from(text.len()).unwrap_or(u64::MAX).saturating_add(1);
        if length > self.left {
            self.left = 0;
            let full = serde_json::to_string(&Line::Full).map_err(io::Error::other)?;
            return writeln!(self.file, "{full}");
        }
        self.left -= length;
        writeln!(self.file, "{text}")
    }
}

/// A file cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// A line is none of a recording's.
    #[error("line {0} is none of a recording")]
    Line(usize, #[source] serde_json::Error),
    /// It does not say how the console began.
    #[error("it does not say how the console began")]
    Headless,
}

/// What came of a recording.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replayed {
    /// The screen at its end, line by line.
    pub screen: Vec<String>,
    /// The screen that it names; `None`: it was cut off.
    pub named: Option<Vec<String>>,
}

/// Lets everything happen again.
///
/// # Errors
/// [`ReplayError`].
pub fn replay(text: &str) -> Result<Replayed, ReplayError> {
    let mut state: Option<State> = None;
    let mut named = None;
    for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let line: Line = serde_json::from_str(line).map_err(|error| ReplayError::Line(at + 1, error))?;
        match (line, &mut state) {
            (Line::Begin(beginning), None) => {
                let now = Now { ms: beginning.ms, wall_ms: beginning.wall_ms };
                let size = beginning.size;
                state = Some(State::new(beginning.options(), size, now));
            }
            (Line::Event { ms, wall_ms, event }, Some(state)) => {
                update(state, Now { ms, wall_ms }, event);
            }
            (Line::Frame, Some(state)) => state.settle(),
            (Line::Screen(screen), Some(_)) => named = Some(screen),
            (Line::Full, Some(_)) => {}
            (_, _) => return Err(ReplayError::Headless),
        }
    }
    let mut state = state.ok_or(ReplayError::Headless)?;
    Ok(Replayed { screen: drawn(&mut state), named })
}

/// The screen as text.
fn drawn(state: &mut State) -> Vec<String> {
    let (columns, rows) = state.size;
    state.settle();
    let Ok(mut terminal) = Terminal::new(TestBackend::new(columns, rows));
    let Ok(_) = terminal.draw(|frame| view(state, frame));
    let buffer = terminal.backend().buffer();
    let line = |y| {
        let cells = (0..columns).filter_map(|x| buffer.cell((x, y)).map(ratatui::buffer::Cell::symbol));
        cells.collect::<String>().trim_end().to_owned()
    };
    (0..rows).map(line).collect()
}

#[cfg(test)]
mod tests;
