//! Asking for commands and claiming them: one question at a time, and no more than can be run.

use std::{collections::VecDeque, time::Duration};

use signalbox_schemas::id::CommandId;
use tokio::time::Instant;

use super::{
    http::{Answer, NoAnswer, StatusCode},
    wire::{Claim, Command, commands, is_granted},
    worker::{Done, MAX_PARALLEL, Worker},
};
use crate::{backoff::Backoff, clock::unix_ms};

/// Ended commands whose result is not taken yet; above it nothing new is claimed.
const MAX_UNREPORTED: usize = 64;
/// Longest wait before a center that lets this relay in no more is asked again.
const LONGEST_RETRY: Duration = Duration::from_mins(1);

/// What is going on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The relay is not known yet.
    Closed,
    Idle,
    /// A question for commands is on its way.
    Asking,
    /// A claim is.
    Claiming,
}

/// How the asking goes.
pub(super) struct Pull {
    interval: Duration,
    /// When the next question is due. The configured time from the beginning of the last one, or later.
    next: Instant,
    stage: Stage,
    /// What was offered and is not claimed yet, in the center's order.
    offers: VecDeque<Command>,
    /// While the center refuses.
    refused: Option<Backoff>,
    /// Whether it was said that too many results wait.
    is_full: bool,
    /// Whether it was said that too many ids are remembered.
    has_no_memory: bool,
    /// Whether it was said that the list has entries that nothing can be made of.
    is_broken: bool,
    /// What went wrong last time, so that it is said once.
    trouble: Option<String>,
}

impl Pull {
    pub(super) fn new(interval: Duration) -> Self {
        Self {
            interval,
            next: Instant::now(),
            stage: Stage::Closed,
            offers: VecDeque::new(),
            refused: None,
            is_full: false,
            has_no_memory: false,
            is_broken: false,
            trouble: None,
        }
    }

    /// From now on commands may come.
    pub(super) fn open(&mut self) {
        self.stage = Stage::Idle;
    }

    /// Whether an answer to a claim is on its way.
    pub(super) fn is_claiming(&self) -> bool {
        self.stage == Stage::Claiming
    }

    fn is_new_trouble(&mut self, what: String) -> bool {
        let is_new = self.trouble.as_ref() != Some(&what);
        self.trouble = Some(what);
        is_new
    }
}

/// What a command is called on this machine. Another relay's command of the same name is another one.
pub(super) fn cid_of(relay_id: &str, command_id: &str) -> CommandId {
    CommandId::from_idempotency_key(relay_id, command_id)
}

impl Worker {
    /// Whether one more command can be run, remembered and reported.
    fn has_room(&self) -> bool {
        let is_kept = self.keeper.as_ref().is_some_and(|keeper| keeper.free != Some(0));
        is_kept
            && self.runs.len() < MAX_PARALLEL
            && self.unreported.len() < MAX_UNREPORTED
            && self.journal.ledger().has_room()
            && !self.unwritten.is_stuck()
    }

    /// When the next question is due, if one can be asked.
    pub(super) fn pull_due(&self) -> Option<Instant> {
        let pull = &self.pull;
        let can_ask = pull.stage == Stage::Idle && pull.offers.is_empty();
        (can_ask && self.has_room()).then_some(pull.next)
    }

    /// Claims the next offer, or asks for more when that is due.
    pub(super) fn pull(&mut self) {
        let is_full = self.unreported.len() >= MAX_UNREPORTED;
        if !std::mem::replace(&mut self.pull.is_full, is_full) && is_full {
            tracing::error!(
                results = self.unreported.len(),
                "The center takes no results; no more commands are claimed"
            );
        }
        let has_no_memory = !self.journal.ledger().has_room();
        if !std::mem::replace(&mut self.pull.has_no_memory, has_no_memory) && has_no_memory {
            tracing::error!(
                "As many commands were run within a day as can be remembered; no more are claimed until the oldest \
                 are forgotten"
            );
        }
        if self.pull.stage != Stage::Idle || !self.has_room() {
            return;
        }
        while let Some(command) = self.pull.offers.pop_front() {
            let cid = cid_of(&self.relay_id, &command.id);
            if self.journal.ledger().record(cid).is_none() && !self.unreported.contains(&cid) {
                // What cannot be written down is left to whoever can: once granted it could only be refused.
                if self.keep_room() {
                    self.claim(command);
                } else {
                    self.pull.offers.push_front(command);
                }
                return;
            }
            // Whatever the center believes: it was granted once, and is never run twice.
            tracing::debug!(command = command.id, "Command is known already");
        }
        if self.pull_due().is_some_and(|due| due <= Instant::now()) {
            self.pull.stage = Stage::Asking;
            self.pull.next = Instant::now() + self.pull.interval;
            let center = self.center.clone();
            self.jobs.spawn_blocking(move || Done::Polled(center.get("/relay/commands")));
        }
    }

    fn claim(&mut self, command: Command) {
        self.pull.stage = Stage::Claiming;
        let center = self.center.clone();
        self.jobs.spawn_blocking(move || {
            // A string always has a JSON form.
            let body = serde_json::to_vec(&Claim { command_id: &command.id }).unwrap_or_default();
            Done::Claimed(Box::new(command), center.post("/relay/commands/claim", &body))
        });
    }

    pub(super) fn on_polled(&mut self, answer: Result<Answer, NoAnswer>) {
        let pull = &mut self.pull;
        pull.stage = Stage::Idle;
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                if pull.is_new_trouble(error.to_string()) {
                    tracing::error!(%error, "Commands cannot be asked for");
                }
                return;
            }
        };
        if !answer.status.is_success() {
            let status = answer.status.as_u16();
            if matches!(answer.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
                let first = pull.interval;
                let longest = LONGEST_RETRY.max(first);
                // The first delay is drawn from half of what it is made with.
                let backoff = pull.refused.get_or_insert_with(|| Backoff::new(first * 2, longest));
                pull.next = pull.next.max(Instant::now() + backoff.delay());
            }
            if pull.is_new_trouble(status.to_string()) {
                tracing::warn!(status, "The center refuses to tell commands, and is asked again");
            }
            return;
        }
        pull.refused = None;
        match commands(&answer) {
            Some((offers, broken)) => {
                if pull.trouble.take().is_some() {
                    tracing::info!("The center tells commands again");
                }
                let is_broken = broken > 0;
                if !std::mem::replace(&mut pull.is_broken, is_broken) && is_broken {
                    tracing::error!(
                        broken,
                        "The center's list has entries that are no commands, or too many of them"
                    );
                }
                pull.offers.extend(offers);
            }
            None => {
                if pull.is_new_trouble("no list".to_owned()) {
                    tracing::error!("The center's answer is no list of commands");
                }
            }
        }
    }

    pub(super) async fn on_claimed(&mut self, command: Command, answer: Result<Answer, NoAnswer>) {
        self.pull.stage = Stage::Idle;
        match answer {
            Ok(answer) if is_granted(&answer) => self.begin(command, unix_ms()).await,
            Ok(answer) => {
                let status = answer.status.as_u16();
                tracing::warn!(command = command.id, status, "Command not granted");
            }
            // It may have been granted: then the center's own time limit is its end, since nobody may run what another
            // one may have been granted since.
            Err(error) => tracing::warn!(command = command.id, %error, "Command not claimed"),
        }
    }
}
