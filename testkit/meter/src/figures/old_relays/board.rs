//! What is known of each command, and what went wrong.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};

/// Errors whose text is kept.
const QUOTED: usize = 5;

#[derive(Debug, Default)]
pub(super) struct Command {
    /// When it was sent, and when that was acknowledged.
    pub(super) submitted: Option<(Instant, Instant)>,
    /// When the poll was sent that listed it first, and when its last byte came.
    pub(super) listed: Option<(Instant, Instant)>,
    pub(super) claimed: Option<Instant>,
    /// Claims that were granted: one, or something is wrong.
    pub(super) grants: u32,
    pub(super) ended: Option<Instant>,
}

#[derive(Debug, Default)]
struct Notes {
    commands: HashMap<String, Command>,
    /// Time of each answered request that is never held, by what it was.
    answered: HashMap<&'static str, Vec<Duration>>,
    errors: u64,
    quoted: Vec<String>,
}

/// Shared by all relays and submitters.
#[derive(Debug, Default)]
pub(super) struct Board(Mutex<Notes>);

impl Board {
    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, id: &str, note: impl FnOnce(&mut Command)) {
        let mut notes = self.notes();
        note(notes.commands.entry(id.to_owned()).or_default());
    }

    pub(super) fn submitted(&self, id: &str, sent: Instant, acknowledged: Instant) {
        self.note(id, |command| command.submitted = Some((sent, acknowledged)));
    }

    pub(super) fn listed(&self, id: &str, sent: Instant, received: Instant) {
        self.note(id, |command| {
            command.listed.get_or_insert((sent, received));
        });
    }

    pub(super) fn granted(&self, id: &str) {
        self.note(id, |command| {
            command.grants += 1;
            command.claimed.get_or_insert_with(Instant::now);
        });
    }

    pub(super) fn ended(&self, id: &str) {
        self.note(id, |command| command.ended = Some(Instant::now()));
    }

    pub(super) fn answered(&self, what: &'static str, took: Duration) {
        self.notes().answered.entry(what).or_default().push(took);
    }

    pub(super) fn failed(&self, error: &anyhow::Error) {
        let mut notes = self.notes();
        notes.errors += 1;
        if notes.quoted.len() < QUOTED {
            notes.quoted.push(format!("{error:#}"));
        }
    }

    /// Times of requests that are never held.
    pub(super) fn answers(&self) -> HashMap<&'static str, Vec<Duration>> {
        self.notes().answered.clone()
    }

    /// How many errors there were, and the first texts.
    pub(super) fn errors(&self) -> (u64, Vec<String>) {
        let notes = self.notes();
        (notes.errors, notes.quoted.clone())
    }

    /// What `measure` says of each command, where it says something.
    pub(super) fn of_commands(&self, measure: impl Fn(&Command) -> Option<Duration>) -> Vec<Duration> {
        self.notes().commands.values().filter_map(measure).collect()
    }

    /// Whether every command was submitted, granted once, and has its end.
    pub(super) fn is_complete(&self) -> Result<()> {
        let notes = self.notes();
        let open = notes.commands.values().filter(|command| command.ended.is_none()).count();
        ensure!(open == 0, "{open} of {} commands have no end", notes.commands.len());
        let odd =
            notes.commands.values().filter(|command| command.grants != 1 || command.submitted.is_none());
        ensure!(odd.count() == 0, "commands were granted twice, or never submitted");
        Ok(())
    }
}
