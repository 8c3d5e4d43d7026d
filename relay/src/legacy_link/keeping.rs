//! Having a keeper, and telling it things.

use std::{collections::BTreeSet, io, time::Duration};

use signalbox_schemas::{
    error::report,
    id::{CommandId, Nonce},
};
use tokio::time::{Instant, timeout};

use super::{
    runs::Run,
    worker::{Done, Worker},
};
use crate::{
    journal::RecordState,
    keeper::{
        client::{KeeperClient, KeeperEvent},
        spool::spooled,
    },
    keeper_life::bring_up,
};

/// A keeper that does not take a frame, or does not answer a start, for this long hangs; the connection is made anew.
pub(super) const KEEPER_PATIENCE: Duration = Duration::from_secs(5);

/// The keeper, while it is there.
pub(super) struct Keeper {
    pub(super) client: KeeperClient,
    pub(super) instance: Nonce,
    /// How many more starts it takes. Absent when it does not say.
    pub(super) free: Option<u32>,
    /// Whether it runs commands on hosts behind the machine.
    pub(super) is_remote: bool,
}

/// What the keeper says next.
pub(super) async fn next_event(keeper: &mut Option<Keeper>) -> KeeperEvent {
    match keeper {
        Some(keeper) => keeper.client.next_event().await,
        None => std::future::pending().await,
    }
}

impl Worker {
    pub(super) fn bring_keeper_up(&mut self) {
        let (folder, exe) = (self.place.folder.clone(), self.place.exe.clone());
        let up = bring_up(folder, exe, self.counters.clone());
        self.jobs.spawn_local(async move { Done::Keeper(Box::new(up.await)) });
    }

    pub(super) fn lose_keeper(&mut self) {
        if self.keeper.take().is_some() {
            self.bring_keeper_up();
        }
    }

    /// A keeper that answers a start neither with a yes nor with a no hangs: its connection is made anew, and what may not
    /// have reached it is started again.
    pub(super) fn check_keeper(&mut self, now: Instant) {
        if self.runs.values().filter_map(Run::answer_due).any(|until| until <= now) {
            tracing::error!("Keeper does not answer");
            self.runs.values_mut().for_each(|run| run.starting_until = None);
            self.lose_keeper();
        }
    }

    /// Whether somebody is still to hear of a command, so that its output is kept.
    pub(super) fn is_open(&self, cid: CommandId) -> bool {
        let record = self.journal.ledger().record(cid).map(|record| &record.state);
        matches!(record, Some(RecordState::Claimed(_) | RecordState::Reporting(..)))
            || self.unreported.contains(&cid)
    }

    /// Has the keeper let go of what it need not keep, and replaces one that can remember no more.
    pub(super) async fn tell_keeper(&mut self) {
        while let Some(keeper) = &mut self.keeper
            && let Some(cid) = self.unforgotten.pop_front()
        {
            if !matches!(timeout(KEEPER_PATIENCE, keeper.client.forget(cid)).await, Ok(Ok(()))) {
                self.unforgotten.push_front(cid);
                self.lose_keeper();
            }
        }
        if self.runs.is_empty()
            && !self.unwritten.has_ends()
            && let Some(keeper) = self.keeper.take_if(|keeper| keeper.free == Some(0))
        {
            tracing::warn!("Keeper remembers as many commands as it can, and is replaced");
            let up = bring_up(self.place.folder.clone(), self.place.exe.clone(), self.counters.clone());
            self.jobs.spawn_local(async move {
                if let Err(error) = keeper.client.shutdown().await {
                    tracing::warn!(error = report(&error), "Full keeper not ended");
                }
                Done::Keeper(Box::new(up.await))
            });
        }
    }

    /// The relay ends. What runs goes on under the keeper; where nothing does, nothing is left of a relay that was stopped. An
    /// end that is not in the journal is known to the keeper alone.
    pub(super) async fn release_keeper(&mut self) {
        if !self.runs.is_empty() || !self.granted.is_empty() || self.unwritten.has_ends() {
            return;
        }
        let Some(keeper) = self.keeper.take() else { return };
        if !matches!(timeout(KEEPER_PATIENCE, keeper.client.shutdown()).await, Ok(Ok(()))) {
            tracing::warn!("Idle keeper not ended");
        }
    }

    /// Looks for output that nobody needs any more.
    pub(super) fn look_into_spool(&mut self) {
        let folder = self.place.folder.clone();
        self.jobs.spawn_blocking(move || Done::Spooled(spooled(&folder)));
    }

    pub(super) fn on_spooled(&mut self, found: io::Result<BTreeSet<CommandId>>) {
        let found = found.unwrap_or_else(|error| {
            tracing::warn!(%error, "Spool not looked into");
            BTreeSet::new()
        });
        for cid in found {
            if !self.is_open(cid) && !self.unforgotten.contains(&cid) {
                self.unforgotten.push_back(cid);
            }
        }
    }
}
