//! Saying what this relay keeps: when it has begun, when that has changed, and once an hour.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use signalbox_link::StoreError;
use signalbox_schemas::{id::CommandId, inventory::Inventory, sealed::OpeningKey, signed::Signed};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    task::spawn_blocking,
    time::{Instant, sleep},
};

use super::{Agent, Done};
use crate::{
    backoff::Backoff,
    clock::unix_ms,
    journal::Entry,
    keepsakes::Keepsakes,
    nats_link::{Nats, first_patience},
    vault::Stamp,
};

/// First and longest wait before it is said again.
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LONGEST_RETRY: Duration = Duration::from_secs(5);
/// How often it is said in vain before there is a pause: to a broker whose accounts are older than inventories are.
const TRIES: usize = 5;
/// That pause.
const PAUSE: Duration = Duration::from_mins(5);

/// What is kept, and how far it has been said.
pub(super) struct Keeping {
    pub(super) shared: Arc<Keepsakes>,
    /// Opens what is sealed for this relay.
    pub(super) opening: Arc<OpeningKey>,
    /// Who has it may use the vault. It is waited for here, so that one thread at most waits for the disk.
    pub(super) turn: Arc<Semaphore>,
    /// When somebody was through with it last.
    pub(super) moved_at: Instant,
    /// Changes whose claim stands and that wait for their turn, with the time at which they came, and whether one has it.
    pub(super) changes: HashMap<CommandId, Instant>,
    pub(super) is_changing: bool,
    /// Since when the broker can say what became of claims.
    pub(super) answers_since: Instant,
    said: Said,
    is_saying: bool,
    /// Nothing is said before.
    not_before: Option<Instant>,
}

/// What was said last.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Said {
    Nothing,
    /// What was kept while the vault's file was this one, or absent; and why it could not be read, if it could not.
    Of(Option<Stamp>, Option<String>),
}

/// Does something with the vault on another thread, when nobody else does.
pub(super) async fn in_turn(turn: Arc<Semaphore>, act: impl FnOnce() -> Done + Send + 'static) -> Done {
    // It is never closed; without a permit the vault's own lock keeps the order.
    let turn = turn.acquire_owned().await.ok();
    on_a_thread(turn, act).await
}

/// The same, unless it is not wanted any more before its turn comes.
pub(super) async fn in_turn_if_wanted(
    wanted: oneshot::Receiver<()>,
    turn: Arc<Semaphore>,
    act: impl FnOnce() -> Done + Send + 'static,
) -> Done {
    let turn = tokio::select! {
        biased;
        _ = wanted => return Done::Repeated,
        turn = turn.acquire_owned() => turn.ok(),
    };
    on_a_thread(turn, act).await
}

/// Who has the turn keeps it until the thread is through, however long that hangs.
async fn on_a_thread(
    _turn: Option<OwnedSemaphorePermit>,
    act: impl FnOnce() -> Done + Send + 'static,
) -> Done {
    match spawn_blocking(act).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is ending.
            Err(_) => Done::Repeated,
        },
    }
}

impl Keeping {
    pub(super) fn new(keepsakes: Keepsakes, opening: OpeningKey) -> Self {
        Self {
            shared: Arc::new(keepsakes),
            opening: Arc::new(opening),
            turn: Arc::new(Semaphore::new(1)),
            moved_at: Instant::now(),
            changes: HashMap::new(),
            is_changing: false,
            answers_since: Instant::now(),
            said: Said::Nothing,
            is_saying: false,
            not_before: None,
        }
    }
}

impl Agent {
    /// Says what is kept, if that is not what was said last. Looked at on another thread: the store may hang.
    pub(super) fn say_inventory(&mut self) {
        let keeping = &mut self.keeping;
        let rests = keeping.not_before.is_some_and(|at| Instant::now() < at);
        if rests || std::mem::replace(&mut keeping.is_saying, true) {
            return;
        }
        let (shared, said) = (Arc::clone(&keeping.shared), keeping.said.clone());
        let config = &self.identity.config;
        let (machine, labels) = ((config.ws.clone(), config.mid.clone()), config.labels.clone());
        let sealing_key = keeping.opening.public().clone();
        self.jobs.spawn_local(in_turn(Arc::clone(&keeping.turn), move || {
            let mark = shared.vault.mark();
            if said == Said::Of(mark, None) {
                return Done::Inventory(None);
            }
            // What was wrong may have been set right without the file.
            let inventory = shared.inventory(machine, sealing_key, labels);
            let is_new = said != Said::Of(mark, inventory.problem.clone());
            Done::Inventory(is_new.then(|| Box::new((mark, inventory))))
        }));
    }

    /// Has it said again, changed or not.
    pub(super) fn repeat_inventory(&mut self) {
        self.keeping.said = Said::Nothing;
        self.say_inventory();
    }

    pub(super) fn on_inventory(&mut self, found: Option<Box<(Option<Stamp>, Inventory)>>) {
        let Some((mark, mut inventory)) = found.map(|found| *found) else {
            self.keeping.is_saying = false;
            return;
        };
        let before = self.journal.borrow().ledger().inventory();
        inventory.revision = unix_ms().max(before.saturating_add(1));
        // Where that cannot be written down, a clock that is set back could make the next one older: until it is right again.
        self.note(Entry::Inventory { revision: inventory.revision });
        let body = match Signed::sign(&inventory, &self.identity.key) {
            Ok(signed) => Bytes::from(signed.to_json()),
            Err(error) => {
                tracing::error!(%error, "inventory not signed");
                self.keeping.is_saying = false;
                return;
            }
        };
        let (nats, problem) = (self.nats.clone(), inventory.problem);
        self.jobs.spawn_local(async move { Done::InventorySaid(mark, problem, say(nats, body).await) });
    }

    pub(super) fn on_inventory_said(
        &mut self,
        mark: Option<Stamp>,
        problem: Option<String>,
        said: Result<(), StoreError>,
    ) {
        self.keeping.is_saying = false;
        match said {
            Ok(()) => {
                self.keeping.said = Said::Of(mark, problem);
                // It may have changed while it was on its way.
                self.say_inventory();
            }
            Err(error) => {
                self.keeping.not_before = Some(Instant::now() + PAUSE);
                if self.counters.count("inventory_not_stored") {
                    tracing::warn!(%error, "what is kept here was not told");
                }
            }
        }
    }
}

/// Says it until it is stored, a few times.
async fn say(nats: Nats, body: Bytes) -> Result<(), StoreError> {
    let mut backoff = Backoff::new(FIRST_RETRY, LONGEST_RETRY);
    let mut tries = 0;
    loop {
        nats.connected().await;
        let stored = match nats.send_inventory(body.clone()).await {
            Ok(pending) => pending.stored(first_patience(body.len())).await,
            Err(error) => Err(error),
        };
        tries += 1;
        match stored {
            Err(error) if tries < TRIES => tracing::debug!(%error, "inventory not stored"),
            stored => return stored,
        }
        sleep(backoff.delay()).await;
    }
}
