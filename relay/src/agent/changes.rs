//! Changes of what this relay keeps, one after the other in the order in which they were claimed, so that of two about one
//! thing the later one stays.

use std::sync::Arc;

use signalbox_schemas::{id::CommandId, run::RunError};

use super::{Agent, Done, Stage, inventory::in_turn};
use crate::{
    change::{Scene, apply},
    clock::unix_ms,
    journal::Entry,
    run::{NotStarted, exit_changed},
};

impl Agent {
    pub(super) fn change_later(&mut self, cid: CommandId) {
        self.keeping.changes.push_back(cid);
        self.change_next();
    }

    /// Whether a change has perhaps been applied by a former process: it is once more, which is as good as once.
    pub(super) fn is_applying(&self, cid: CommandId) -> bool {
        self.journal.borrow().ledger().claimed(cid).is_some_and(|claimed| claimed.is_applying)
    }

    /// Applies the next change on another thread, unless one is being applied.
    fn change_next(&mut self) {
        while !self.keeping.is_changing
            && let Some(cid) = self.keeping.changes.pop_front()
        {
            let waits = |run: &&super::Run| matches!(run.stage, Stage::Preparing);
            let Some(run) = self.runs.get(&cid).filter(waits) else { continue };
            let Some(work) = run.work.clone() else { continue };
            if run.is_cancelled && !self.is_applying(cid) {
                self.report_not_started(cid, &NotStarted::Cancelled);
                continue;
            }
            // Where that cannot be written down, what is kept cannot be, either.
            self.note(Entry::Applying { cid });
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
    }

    pub(super) fn on_changed(&mut self, cid: CommandId, started_at: u64, done: Result<String, RunError>) {
        self.keeping.is_changing = false;
        match &done {
            Ok(what) => tracing::info!(%cid, what, "changed"),
            Err(error) => tracing::warn!(%cid, code = error.code, message = error.message, "not changed"),
        }
        if let Some(run) = self.runs.get(&cid).filter(|run| matches!(run.stage, Stage::Preparing)) {
            let (names, expires_at) = (self.names(cid, run.nonce), run.expires_at);
            let exit = exit_changed(names, done, started_at, unix_ms());
            if let Some(fact) = self.sign_exit(&exit) {
                self.report_when_written(cid, expires_at, fact);
            }
        }
        self.say_inventory();
        self.change_next();
    }
}
