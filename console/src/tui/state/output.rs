//! The output of a command, or of one of its machines, as it fills the screen.
//!
//! What is small, or still comes, is looked at as it is kept ([`kept`]). A large output of a run that has ended is not kept
//! here: its streams are read in ranges, where they are looked at ([`stored`]).

pub mod blocks;
pub mod kept;
pub mod pages;
pub mod search;
pub mod source;
pub mod spans;
pub mod stored;
pub mod window;

use signalbox_schemas::{
    id::{CommandId, MachineId},
    output::OutputStream,
};

use crate::client::session::LARGE_BYTES;

use self::{
    kept::Kept,
    pages::Wanted,
    search::{OnlyFound, Search, Sought},
    source::{Shown, Source},
    stored::Stored,
    window::{Frame, Top, Window},
};
use super::{
    command::{Command, Run},
    scrollback::Scrollback,
};

pub use self::source::Key;

/// Rows that are gone once they were read.
const MOST_OWED: isize = 100_000;

/// Whose output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whose {
    /// Of all machines, in the order in which it came.
    All,
    /// Of one.
    One(MachineId),
}

/// Which streams are seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Streams {
    /// Both, in the order in which they came.
    #[default]
    Both,
    /// One.
    Only(OutputStream),
}

/// How it is shown; stays from one output to the next.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Look {
    /// Long lines go on in the next row.
    pub wraps: bool,
    /// With the time at which a line was received.
    pub has_times: bool,
    /// With the numbers of lines.
    pub has_numbers: bool,
}

/// What came of a search, to be said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// It went on at the other end.
    Around,
    /// It is nowhere.
    Nowhere(String),
}

/// An output on the screen.
#[derive(Debug, Clone, Default)]
pub struct Output {
    /// Of what.
    pub of: Option<(CommandId, Whose)>,
    /// How it is shown.
    pub look: Look,
    /// Which streams are seen.
    pub streams: Streams,
    /// The stream that is read in ranges; `None`: what is kept is seen.
    pub stored: Option<Box<Stored>>,
    /// Where the window begins.
    pub top: Top,
    /// Rows that are gone once what lies between was read.
    owed: isize,
    /// Columns that are skipped at the left.
    pub skipped: usize,
    /// What is looked for.
    pub search: Option<Search>,
    /// Only lines with it are seen.
    pub is_only_found: bool,
    /// What is seen.
    pub window: Window,
    frame: Frame,
}

impl Output {
    /// Another output, seen from its end.
    pub fn open(&mut self, id: CommandId, whose: Whose) {
        *self = Self { of: Some((id, whose)), look: self.look, ..Self::default() };
    }

    /// The run that is seen; `None`: all of them, or one that is not known.
    pub fn run<'a>(&self, command: &'a Command) -> Option<&'a Run> {
        run_of(self.of.as_ref(), command)
    }

    /// The lines that are kept of it.
    pub fn lines<'a>(&self, command: &'a Command) -> &'a Scrollback {
        lines_of(self.of.as_ref(), command)
    }

    /// Whether it is read in ranges from now on: it has ended, and is not kept whole.
    pub fn is_to_be_read(&self, command: &Command) -> bool {
        let Some((_, Whose::One(machine))) = &self.of else { return false };
        let Some(run) = command.run_on(machine) else { return false };
        let has_ended = run.state.is_settled() || command.has_ended();
        has_ended && (run.output_bytes() > LARGE_BYTES || run.dropped_bytes() > 0)
    }

    /// Reads it in ranges from now on, one stream after the other.
    pub fn read_in_ranges(&mut self, command: &Command) {
        let stream = match self.streams {
            Streams::Only(stream) => stream,
            Streams::Both => match self.run(command).map(|run| run.sizes) {
                Some([0, stderr]) if stderr > 0 => OutputStream::Stderr,
                _ => OutputStream::Stdout,
            },
        };
        self.show_stored(stream);
    }

    fn show_stored(&mut self, stream: OutputStream) {
        self.streams = Streams::Only(stream);
        self.stored = Some(Box::new(Stored::new(stream)));
        (self.top, self.owed, self.skipped) = (Top::Follow, 0, 0);
        // Its rows are of other lines, which are called otherwise.
        self.window = Window::default();
        if let Some(search) = &mut self.search {
            search.forget();
        }
    }

    /// The other streams: both, stdout, stderr; of a stored output there is one at a time.
    pub fn turn_streams(&mut self) {
        let next = match (self.streams, self.stored.is_some()) {
            (Streams::Both, false) | (Streams::Only(OutputStream::Stderr), true) => {
                Streams::Only(OutputStream::Stdout)
            }
            (Streams::Only(OutputStream::Stdout), _) | (Streams::Both, true) => {
                Streams::Only(OutputStream::Stderr)
            }
            (Streams::Only(OutputStream::Stderr), false) => Streams::Both,
        };
        if let (Streams::Only(stream), true) = (next, self.stored.is_some()) {
            return self.show_stored(stream);
        }
        self.streams = next;
        if let Some(search) = &mut self.search {
            search.forget();
        }
    }

    fn with<R>(&mut self, command: &Command, look: impl FnOnce(&mut dyn Source) -> R) -> R {
        let search = self.search.as_mut().filter(|_| self.is_only_found);
        match (&mut self.stored, search) {
            (Some(stored), Some(search)) => look(&mut OnlyFound::new(stored, search)),
            (Some(stored), None) => look(&mut **stored),
            (None, search) => {
                let only = search.map(|search| search.found());
                let lines = lines_of(self.of.as_ref(), command);
                look(&mut Kept { lines, streams: self.streams, only })
            }
        }
    }

    /// Asks again for what could not be read.
    pub fn retry(&mut self) {
        if let Some(stored) = &mut self.stored {
            stored.pages.retry();
        }
    }

    /// Moves by rows; those that are not known yet are gone when they are.
    pub fn scroll_by(&mut self, command: &Command, by: isize) {
        let (top, frame) = (self.top, self.frame);
        let by = by.saturating_add(self.owed).clamp(-MOST_OWED, MOST_OWED);
        (self.top, self.owed) = self.with(command, |source| window::moved(source, top, by, frame));
    }

    /// To a place; to the first line or the last one, too.
    pub fn go_to(&mut self, top: Top) {
        (self.top, self.owed) = (top, 0);
    }

    /// To so many percent of it.
    pub fn go_to_percent(&mut self, command: &Command, percent: u64) {
        let percent = percent.min(100);
        let of = |whole: u64| u64::try_from(u128::from(whole) * u128::from(percent) / 100).unwrap_or(whole);
        let at = if let Some(stored) = &self.stored {
            // Before its first page is here, what the run's end said.
            let told = self.run(command).map(|run| match stored.stream {
                OutputStream::Stdout => run.sizes[0],
                OutputStream::Stderr => run.sizes[1],
            });
            of(stored.pages.total().or(told).unwrap_or(0))
        } else {
            let lines = self.lines(command);
            let at = usize::try_from(of(lines.len() as u64)).unwrap_or(usize::MAX);
            lines.get(at.min(lines.len().saturating_sub(1))).map_or(0, |line| line.number)
        };
        self.go_to(if percent == 100 { Top::Follow } else { Top::At(Key { at, part: 0 }, 0) });
    }

    /// Stays where it is, or follows the newest lines again.
    pub fn toggle_follow(&mut self) {
        let top = match self.top {
            Top::Follow => self.window.top().unwrap_or_default(),
            Top::At(..) => Top::Follow,
        };
        self.go_to(top);
    }

    /// The line that is meant: the one that was found, where it is seen, else the first.
    pub fn here(&self) -> Option<&Shown> {
        let found = self.search.as_ref().and_then(|search| search.current);
        let rows = &self.window.rows;
        let row = rows.iter().find(|row| Some(row.line.key) == found).or_else(|| rows.first());
        row.map(|row| &row.line)
    }

    /// Looks for a text from what is seen on; nothing is no longer looked for.
    pub fn look_for(&mut self, text: &str) {
        let search = Search::new(text);
        if search.needle.is_empty() || search.needle.problem().is_some() {
            self.search = None;
            self.is_only_found = false;
            return;
        }
        self.search = Some(search);
        self.seek(true);
    }

    /// Looks for the next one, or the one before.
    pub fn seek(&mut self, is_forward: bool) {
        let seen = self.window.rows.first().map(|row| row.line.key);
        let current = self.search.as_ref().and_then(|search| search.current);
        let current = current.filter(|key| self.window.has(*key));
        if let Some(search) = &mut self.search {
            // The first row that is seen counts, too, unless it was found before.
            let from = current.or(if is_forward { seen.and_then(just_before) } else { seen });
            search.seek(from, is_forward);
        }
    }

    /// Brings what is seen up to date, and answers what is to be asked for and what is to be said.
    pub fn go_on(&mut self, command: &Command, frame: Frame, now_ms: u64) -> (Vec<Wanted>, Option<News>) {
        self.frame = frame;
        if self.stored.is_none() && self.top == Top::Follow && self.is_to_be_read(command) {
            self.read_in_ranges(command);
        }
        let news = self.search_on(command);
        if self.owed != 0 {
            self.scroll_by(command, 0);
        }
        self.see(command, frame);
        let Some(stored) = &mut self.stored else { return (vec![], news) };
        // Nothing on stdout, as it turned out.
        if stored.stream == OutputStream::Stdout && stored.pages.total() == Some(0) {
            if self.run(command).is_some_and(|run| run.sizes[1] > 0) {
                self.show_stored(OutputStream::Stderr);
                return self.go_on(command, frame, now_ms);
            }
            return (vec![], news);
        }
        if !self.is_only_found
            && let (Some(first), Some(last)) = (self.window.rows.first(), self.window.rows.last())
        {
            stored.want_beside(first.line.key.at, last.line.key.at);
        }
        (stored.pages.questions(now_ms), news)
    }

    /// Takes what is seen now.
    pub fn see(&mut self, command: &Command, frame: Frame) {
        self.frame = frame;
        if let (None, Some(search)) = (&self.stored, &mut self.search) {
            let lines = lines_of(self.of.as_ref(), command);
            search.look_into(Kept { lines, streams: self.streams, only: None });
        }
        let top = self.top;
        self.window = self.with(command, |source| window::fill(source, top, frame));
    }

    fn search_on(&mut self, command: &Command) -> Option<News> {
        let search = self.search.as_mut()?;
        let sought = if let Some(stored) = &mut self.stored {
            search.go_on_stored(stored)
        } else {
            let lines = lines_of(self.of.as_ref(), command);
            search.look_into(Kept { lines, streams: self.streams, only: None });
            search.go_on_kept()
        };
        match sought? {
            Sought::Nowhere => Some(News::Nowhere(search.text.clone())),
            Sought::Here(key, is_around) => {
                search.current = Some(key);
                if !self.window.has(key) {
                    self.go_to(Top::At(key, 0));
                    self.scroll_by(command, -isize::try_from(self.frame.rows / 3).unwrap_or(0));
                    self.owed = 0;
                }
                is_around.then_some(News::Around)
            }
        }
    }

    /// How far the window has got, percent; and bytes of all, as far as they are known.
    pub fn place(&self, command: &Command) -> (u64, u64) {
        let whole = match (&self.stored, self.run(command)) {
            (Some(stored), _) => stored.pages.total().unwrap_or(0),
            (None, Some(run)) => run.output_bytes(),
            (None, None) => self.lines(command).text_bytes(),
        };
        let last = self.window.rows.last().filter(|_| !self.window.is_end);
        let percent = match (last, &self.stored) {
            (None, _) => 100,
            (Some(last), Some(_)) => percent(last.line.key.at, whole),
            (Some(last), None) => {
                let lines = self.lines(command);
                percent(lines.position(last.line.key.at) as u64 + 1, lines.len() as u64)
            }
        };
        (percent, whole)
    }
}

fn run_of<'a>(of: Option<&(CommandId, Whose)>, command: &'a Command) -> Option<&'a Run> {
    match of {
        Some((_, Whose::One(machine))) => command.run_on(machine),
        Some((_, Whose::All)) | None => None,
    }
}

fn lines_of<'a>(of: Option<&(CommandId, Whose)>, command: &'a Command) -> &'a Scrollback {
    run_of(of, command).map_or(&command.merged, |run| &run.lines)
}

/// The whole is reached at its end only.
fn percent(part: u64, whole: u64) -> u64 {
    let percent = u128::from(part) * 100 / u128::from(whole.max(1));
    u64::try_from(percent).unwrap_or(99).min(99)
}

/// The place just before another one; `None`: that is the first.
fn just_before(key: Key) -> Option<Key> {
    match (key.part.checked_sub(1), key.at.checked_sub(1)) {
        (Some(part), _) => Some(Key { part, ..key }),
        (None, Some(at)) => Some(Key { at, part: u32::MAX }),
        (None, None) => None,
    }
}
