//! Having a keeper, and telling it things.

use std::{collections::BTreeSet, io, time::Duration};

use signalbox_schemas::{error::report, id::CommandId};
use tokio::time::{Instant, error::Elapsed, timeout};

use super::{Agent, Done, Run, Stage};
use crate::{
    journal::RecordState,
    keeper::{
        KeeperError,
        client::{KeeperClient, Welcome},
        spool::spooled,
    },
    keeper_life::bring_up,
};

/// A keeper that does not take a frame, or does not answer a start, for this long hangs; the connection is made
/// anew.
pub(super) const KEEPER_PATIENCE: Duration = Duration::from_secs(5);
/// A keeper that was full is asked this often whether it has room.
const KEEPER_ROOM_EVERY: Duration = Duration::from_mins(1);
/// What waits for a keeper that can be told.
const MAX_UNTOLD: usize = 4096;

/// What a keeper is told when it can be.
pub(super) enum Untold {
    Forget(CommandId),
    Decline(CommandId, u64),
}

impl Agent {
    pub(super) fn bring_keeper_up(&mut self) {
        let up = self.keeper_up();
        self.jobs.spawn_local(async move { Done::Keeper(Box::new(up.await)) });
    }

    pub(super) fn keeper_up(&self) -> impl Future<Output = (KeeperClient, Welcome)> + use<> {
        bring_up(self.place.store.clone(), self.place.exe.clone(), self.counters.clone())
    }

    /// A keeper that answers a start neither with a yes nor with a no hangs: its connection is made anew, and what may
    /// not have reached it is started again.
    pub(super) fn check_keeper(&mut self, now: Instant) {
        let waits_until = |run: &Run| match run.stage {
            Stage::Starting { until } => Some(until),
            _ => None,
        };
        let Some(until) = self.runs.values().filter_map(waits_until).min() else { return };
        if self.keeper.is_none() {
            // It is being brought up, and what waits for it is started then.
        } else if now < until {
            self.wake_at(until);
        } else {
            tracing::error!("keeper does not answer");
            self.counters.count("keeper_silent");
            self.keeper = None;
            self.bring_keeper_up();
        }
    }

    /// A keeper that can remember no more ids starts nothing: it is asked again whether some have gone, and one that
    /// runs nothing makes way for a new one.
    pub(super) fn check_keeper_room(&mut self) {
        let Some(keeper) = self.keeper.as_ref().filter(|keeper| keeper.free == Some(0)) else { return };
        let ask_at = keeper.since + KEEPER_ROOM_EVERY;
        if !keeper.is_free_its_word || Instant::now() >= ask_at {
            self.keeper = None;
            self.bring_keeper_up();
        } else if self.runs.values().any(Run::holds_slot) {
            self.wake_at(ask_at);
        } else if let Some(keeper) = self.keeper.take() {
            tracing::warn!(pid = keeper.pid, "keeper remembers as many commands as it can, and is replaced");
            self.counters.count("keeper_replaced");
            let up = self.keeper_up();
            self.jobs.spawn_local(async move {
                if let Err(error) = keeper.client.shutdown().await {
                    tracing::warn!(error = report(&error), "full keeper not ended");
                }
                Done::Keeper(Box::new(up.await))
            });
        }
    }

    /// Has the keeper let go of a run, as soon as there is one.
    pub(super) fn forget(&mut self, cid: CommandId) {
        self.tell_later(Untold::Forget(cid));
    }

    pub(super) fn tell_later(&mut self, what: Untold) {
        if self.untold.len() >= MAX_UNTOLD {
            // The next look into the spool finds what is to be forgotten.
            self.untold.pop_front();
        }
        self.untold.push_back(what);
    }

    pub(super) async fn tell_keeper(&mut self) {
        while let Some(keeper) = &mut self.keeper
            && let Some(what) = self.untold.pop_front()
        {
            let told = match what {
                Untold::Forget(cid) => timeout(KEEPER_PATIENCE, keeper.client.forget(cid)).await,
                // An older one would not know what is meant, and hang up.
                Untold::Decline(..) if keeper.free.is_none() => continue,
                Untold::Decline(cid, expires_at) => {
                    timeout(KEEPER_PATIENCE, keeper.client.decline(cid, expires_at)).await
                }
            };
            if !matches!(told, Ok(Ok(()))) {
                self.untold.push_front(what);
            }
            self.check_told(told);
        }
    }

    pub(super) fn check_told(&mut self, told: Result<Result<(), KeeperError>, Elapsed>) {
        let error = match told {
            Ok(Ok(())) => return,
            Ok(Err(error)) => report(&error),
            Err(_) => "it does not listen".to_owned(),
        };
        tracing::error!(error, "keeper was not told");
        self.counters.count("keeper_not_told");
        self.keeper = None;
        self.bring_keeper_up();
    }

    /// Looks for output that nobody needs any more: of a run whose end was reported while there was no keeper that
    /// could be told, or under a journal that is gone.
    pub(super) fn look_into_spool(&mut self) {
        let store = self.place.store.clone();
        self.jobs.spawn_blocking(move || Done::Spooled(spooled(&store)));
    }

    pub(super) fn on_spooled(&mut self, found: io::Result<BTreeSet<CommandId>>) {
        let found = found.unwrap_or_else(|error| {
            tracing::warn!(%error, "spool not looked into");
            BTreeSet::new()
        });
        for cid in found {
            let is_open = matches!(
                self.journal.borrow().ledger().record(cid).map(|record| &record.state),
                Some(RecordState::Claimed(_) | RecordState::Reporting(..))
            );
            if !is_open && !self.runs.contains_key(&cid) {
                self.forget(cid);
            }
        }
    }
}
