//! Changes of what this relay keeps, one after the other in the order in which they were claimed, so that of two about one
//! thing the later one stays.

use std::sync::Arc;

use signalbox_schemas::{id::CommandId, limit::EXPIRY_GRACE_MS, run::RunError};
use tokio::time::Instant;

use super::{
    Agent, Done, Run, Stage,
    inventory::in_turn,
    turns::{self, Next},
};
use crate::{
    change::{Scene, apply},
    clock::unix_ms,
    journal::{Entry, ledger::Claimed},
    run::{NotStarted, exit_changed},
};

impl Agent {
    /// Takes a change whose claim stands.
    pub(super) fn change_later(&mut self, cid: CommandId) {
        self.keeping.changes.insert(cid, Instant::now());
    }

    /// Whether a change has perhaps been applied by a former process: it is once more, which is as good as once.
    pub(super) fn is_applying(&self, cid: CommandId) -> bool {
        self.journal.borrow().ledger().claimed(cid).is_some_and(|claimed| claimed.is_applying)
    }

    /// Applies the next change, unless one is being applied.
    pub(super) fn change_next(&mut self) {
        let runs = &self.runs;
        self.keeping.changes.retain(|cid, _| runs.get(cid).is_some_and(Run::is_prepared));
        while !self.keeping.is_changing && !self.keeping.changes.is_empty() {
            match self.whose_turn() {
                Next::Make(cid) => {
                    self.keeping.changes.remove(&cid);
                    match self.why_not(cid) {
                        Some(why) => self.report_not_started(cid, &why),
                        None => self.make(cid),
                    }
                }
                Next::Leave(cid) => self.leave_undecided(cid),
                Next::Wait(until) => return self.wake_at(until),
                Next::Nothing => return,
            }
        }
    }

    fn whose_turn(&self) -> Next {
        let (now, now_ms) = (Instant::now(), unix_ms());
        let is_connected = self.nats.state().borrow().is_connected;
        let journal = self.journal.borrow();
        let stands = |(cid, expires_at, claimed): (CommandId, u64, &Claimed)| {
            let run = self.runs.get(&cid);
            // Nothing will be made of it, whatever the answer is.
            let is_over = now_ms >= expires_at.saturating_add(EXPIRY_GRACE_MS)
                || run.is_some_and(|run| run.is_cancelled)
                || self.unwritten.contains_key(&cid);
            let is_asked = match run {
                Some(run) => {
                    run.is_change() && matches!(run.stage, Stage::Claiming { .. } | Stage::Waiting { .. })
                }
                // One of a former keeper's life, which is looked at once that is gone.
                None => self.is_claimed_change(cid),
            };
            let standing = match self.keeping.changes.get(&cid) {
                // Without the broker no answer comes, and nothing new is on offer either.
                Some(since) => turns::Claimed::Ready(if is_connected {
                    (*since).max(self.keeping.answers_since)
                } else {
                    now
                }),
                None if is_asked && (claimed.is_applying || !is_over) => turns::Claimed::Undecided,
                None => turns::Claimed::Other,
            };
            (cid, standing)
        };
        turns::next(journal.ledger().claims().map(stands), now)
    }

    /// Lets go of a change whose claim was not answered for, for one that was claimed after it.
    fn leave_undecided(&mut self, cid: CommandId) {
        tracing::warn!(%cid, "whether a change was claimed is not known, and a later one is made");
        self.counters.count("change_left");
        if !self.runs.contains_key(&cid) {
            // Its nonce went with its keeper, so nobody can report it: the bridge's deadline speaks.
            return self.settle(cid, Entry::Decided { cid });
        }
        let message = format!(
            "a later change was made, since the broker did not say within {} s whether this one was claimed; make it again if it is \
             still wanted",
            turns::PATIENCE.as_secs()
        );
        let error = RunError { code: "superseded".to_owned(), message };
        self.report_not_started(cid, &NotStarted::Fault(error));
    }

    /// Applies a change on another thread.
    fn make(&mut self, cid: CommandId) {
        let Some(work) = self.runs.get(&cid).and_then(|run| run.work.clone()) else { return };
        // Where that cannot be written down, what is kept cannot be, either.
        self.note(Entry::Applying { cid });
        self.prepare(cid, None);
        self.keeping.is_changing = true;
        let (keepsakes, opening) = (Arc::clone(&self.keeping.shared), Arc::clone(&self.keeping.opening));
        let (ws, mid) = (self.identity.config.ws.clone(), self.identity.config.mid.clone());
        let started_at = unix_ms();
        let turn = Arc::clone(&self.keeping.turn);
        self.jobs.spawn_local(in_turn(turn, move || {
            let scene = Scene { ws: &ws, mid: &mid, cid, keepsakes: &keepsakes, opening: &opening };
            let change = work.spec.change.as_ref();
            let done = change.map(|change| apply(change, work.sealed.as_ref(), &scene));
            Done::Changed(cid, started_at, done.unwrap_or_else(|| Ok(String::new())))
        }));
    }

    pub(super) fn on_changed(&mut self, cid: CommandId, started_at: u64, done: Result<String, RunError>) {
        self.keeping.is_changing = false;
        match &done {
            Ok(what) => tracing::info!(%cid, what, "changed"),
            Err(error) => tracing::warn!(%cid, code = error.code, message = error.message, "not changed"),
        }
        if let Some(run) = self.runs.get(&cid).filter(|run| run.is_prepared()) {
            let (names, expires_at) = (self.names(cid, run.nonce), run.expires_at);
            let exit = exit_changed(names, done, started_at, unix_ms());
            if let Some(fact) = self.sign_exit(&exit) {
                self.report_when_written(cid, expires_at, fact);
            }
        }
        self.say_inventory();
    }
}
