//! Lines that were told while they came, and are kept.

use signalbox_schemas::output::OutputStream;

use super::{
    Streams,
    source::{Key, Shown, Source, Step, Voice},
};
use crate::tui::state::scrollback::{Line, Scrollback};

/// Lines of a run, or of all runs.
#[derive(Debug, Clone, Copy)]
pub struct Kept<'a> {
    /// All of them.
    pub lines: &'a Scrollback,
    /// Those of which streams are seen.
    pub streams: Streams,
    /// Those of them that are seen, in order; `None`: all.
    pub only: Option<&'a [Key]>,
}

impl Kept<'_> {
    /// Whether a line is of a stream that is seen. What the console says itself always is.
    pub fn is_seen(&self, line: &Line) -> bool {
        match (self.streams, line.stream) {
            (Streams::Both, _) | (_, None) => true,
            (Streams::Only(stream), Some(of)) => stream == of,
        }
    }

    fn from(&self, position: usize) -> Step {
        let mut lines = self.lines.window(position, usize::MAX);
        lines.find(|line| self.is_seen(line)).map_or(Step::Over, |line| to(line.number))
    }

    fn back_from(&self, position: usize) -> Step {
        let mut places = (0..position.min(self.lines.len())).rev().filter_map(|at| self.lines.get(at));
        places.find(|line| self.is_seen(line)).map_or(Step::Over, |line| to(line.number))
    }
}

fn to(number: u64) -> Step {
    Step::To(Key { at: number, part: 0 })
}

fn step(key: Option<&Key>) -> Step {
    key.map_or(Step::Over, |key| Step::To(*key))
}

impl Source for Kept<'_> {
    fn first(&mut self) -> Step {
        match self.only {
            Some(only) => step(only.first()),
            None => self.from(0),
        }
    }

    fn last(&mut self) -> Step {
        match self.only {
            Some(only) => step(only.last()),
            None => self.back_from(self.lines.len()),
        }
    }

    fn after(&mut self, key: Key) -> Step {
        match self.only {
            Some(only) => step(only.get(only.partition_point(|known| *known <= key))),
            None => self.from(self.lines.position(key.at.saturating_add(1))),
        }
    }

    fn before(&mut self, key: Key) -> Step {
        match self.only {
            Some(only) => {
                let at = only.partition_point(|known| *known < key);
                step(at.checked_sub(1).and_then(|at| only.get(at)))
            }
            None => self.back_from(self.lines.position(key.at + u64::from(key.part > 0))),
        }
    }

    fn line(&mut self, key: Key) -> Option<Shown> {
        let position = self.lines.position(key.at);
        let line = self.lines.get(position).filter(|line| line.number == key.at)?;
        Some(Shown {
            key,
            text: line.text.clone(),
            strokes: line.strokes.clone(),
            voice: line.stream.map_or(Voice::Own, Voice::Machine),
            run: Some(line.run),
            received_ms: line.received_ms,
            number: self.lines.dropped_lines() + position as u64 + 1,
        })
    }
}

/// What a stream is called.
pub fn name(stream: OutputStream) -> &'static str {
    match stream {
        OutputStream::Stdout => "stdout",
        OutputStream::Stderr => "stderr",
    }
}
