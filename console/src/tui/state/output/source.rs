//! Lines in an order, one after the other, wherever they come from.

use std::sync::Arc;

use signalbox_schemas::output::OutputStream;

use crate::tui::text::paint::Stroke;

/// Where a line is: its number, or the offset of its first byte and which of several parts it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// Number or offset.
    pub at: u64,
    /// Which part.
    pub part: u32,
}

impl Key {
    /// Before all others.
    pub const FIRST: Self = Self { at: 0, part: 0 };
}

/// A step from line to line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// To this one.
    To(Key),
    /// There is none.
    Over,
    /// That is not known yet: it is being read.
    Missing,
}

/// Who says a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Voice {
    /// The machine, on one of its streams.
    Machine(OutputStream),
    /// The console itself.
    Own,
}

/// A line as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// Where it is.
    pub key: Key,
    /// Its text, clean.
    pub text: Arc<str>,
    /// How it is painted.
    pub strokes: Option<Arc<[Stroke]>>,
    /// Who says it.
    pub voice: Voice,
    /// Place of its run within the command.
    pub run: Option<usize>,
    /// When it was received here, Unix ms; `None`: nobody says.
    pub received_ms: Option<u64>,
    /// Its number, from 1, or the bytes before it.
    pub number: u64,
}

impl Shown {
    /// Where its paint changes.
    pub fn strokes(&self) -> &[Stroke] {
        self.strokes.as_deref().unwrap_or_default()
    }
}

/// Lines in an order.
pub trait Source {
    /// The first line.
    fn first(&mut self) -> Step;
    /// The last line.
    fn last(&mut self) -> Step;
    /// The line behind a place.
    fn after(&mut self, key: Key) -> Step;
    /// The line before a place.
    fn before(&mut self, key: Key) -> Step;
    /// A line; `None`: there is none at this place, or it is not known yet.
    fn line(&mut self, key: Key) -> Option<Shown>;

    /// The line at a place, else the one before it, else the first.
    fn near(&mut self, key: Key) -> Step {
        let behind = Key { part: key.part.saturating_add(1), ..key };
        match self.before(behind) {
            Step::Over => self.first(),
            step => step,
        }
    }
}
