//! The agent: the one loop that owns everything and decides nothing by itself.
//!
//! ```text
//! mailbox, authors ─▶ gate, policy (pure) ─▶ reconcile (pure) ─▶ claim ─▶ keeper ─▶ output ─▶ exit ─▶ outbox
//!      inbox.rs                                                 claims.rs        runs.rs
//! ```
//!
//! Whatever takes time runs as a job in one of the agent's sets and comes back as a [`Done`]; nothing is awaited
//! in the loop but frames to the keeper. Everything ends with the agent, except the keeper and its runs.

mod beat;
mod changes;
mod claims;
mod hearing;
mod inbox;
mod inventory;
mod keeping;
mod notes;
mod preparing;
mod runs;
mod starting;
mod turns;

use std::{
    cell::RefCell,
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    io,
    path::PathBuf,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt as _, future::LocalBoxFuture, stream::FuturesOrdered};
use signalbox_link::{Delivery, LinkState, Message, StoreError, SubscribeError, Subscription};
use signalbox_schemas::{
    heartbeat::Metrics,
    id::{CommandId, Nonce},
    inventory::Inventory,
    limit::HOUR_MS,
    run::RunError,
    sealed::OpeningKey,
};
use tokio::{
    sync::{oneshot, watch},
    task::JoinSet,
    time::{Instant, sleep_until},
};

use crate::{
    authors::Shelf,
    backoff::Backoff,
    claim::Answer,
    clock::{self, unix_ms},
    counters::Counters,
    identity::Identity,
    journal::{Journal, Report, Rewritten},
    keeper::{
        client::{KeeperClient, KeeperEvent, Welcome},
        protocol::RunStatus,
    },
    keepsakes::Keepsakes,
    lock::Lock,
    metrics::Sampler,
    nats_link::Nats,
    outbox::Delivered,
    output::Pumped,
    serve::ServeError,
    ssh::route::Route,
    vault::Stamp,
    work::Work,
};

use inbox::Inbox;
use keeping::Untold;
use notes::Unwritten;

/// Ended runs whose report is not acknowledged yet; above it nothing new is begun. Each holds its report, at most
/// some 60 KiB, in memory.
const MAX_UNREPORTED: usize = 64;

/// What became of a job.
enum Done {
    /// The keeper is up.
    Keeper(Box<(KeeperClient, Welcome)>),
    /// A former keeper is gone, with all it ran.
    Buried(Nonce),
    Subscribed(Result<Subscription, SubscribeError>),
    Mailbox(Option<Message>),
    Authors(Option<Message>),
    /// The register of a claim made in a former keeper's life.
    Ghost(CommandId, Option<Message>),
    Pumped(CommandId, Option<Box<Pumped>>),
    Fact(CommandId, Report, Delivered),
    /// A report was said again.
    Repeated,
    /// What lies in the spool.
    Spooled(io::Result<BTreeSet<CommandId>>),
    /// How the target of a claimed command is reached.
    Routed(CommandId, Result<Box<Route>, RunError>),
    /// A change was applied, or not; begun at, Unix ms.
    Changed(CommandId, u64, Result<String, RunError>),
    /// What is kept, when it is not what was said last.
    Inventory(Option<Box<(Option<Stamp>, Inventory)>>),
    /// It was said, or not, with what was wrong.
    InventorySaid(Option<Stamp>, Option<String>, Result<(), StoreError>),
    Sampled(Box<Sampler>, Option<Metrics>),
    Synced(io::Result<()>),
    /// The journal was written anew.
    Rewritten(io::Result<Rewritten>),
    Published,
}

/// The keeper, while it is there.
struct Keeper {
    client: KeeperClient,
    nonce: Nonce,
    instance: Nonce,
    pid: u32,
    /// How many more starts it takes, and whether that is its own word or what is left of it. Absent when it does not
    /// say.
    free: Option<u32>,
    is_free_its_word: bool,
    /// Whether it runs commands on hosts behind this machine.
    is_remote: bool,
    since: Instant,
}

/// How far a run has come.
#[derive(Debug)]
enum Stage {
    /// The register is being asked. `may_stand`: an earlier claim of ours may stand there.
    Claiming {
        may_stand: bool,
    },
    /// It is asked again at this time. `may_stand`: a claim of ours may stand there.
    Waiting {
        until: Instant,
        may_stand: bool,
    },
    /// The claim stands; how its target is reached is being found, or its change waits or is being made.
    Preparing {
        since: Instant,
        /// Its drop tells who still waits to find the way that nobody goes it.
        _wanted: Option<oneshot::Sender<()>>,
    },
    /// The claim stands; the keeper was asked, and answers by then.
    Starting {
        until: Instant,
    },
    Running,
    /// Over; its output is being brought out.
    Ended,
    /// Lost with its keeper; what is left of its output is being brought out. So many bytes are known of.
    Lost {
        known_bytes: [u64; 2],
    },
    /// Its report is on its way.
    Reporting,
}

/// A command that this relay has to do with.
struct Run {
    stage: Stage,
    /// The keeper's life it belongs to.
    nonce: Nonce,
    instance: Nonce,
    expires_at: u64,
    /// Absent for a run that was met in the keeper and is not in the journal.
    work: Option<Arc<Work>>,
    backoff: Backoff,
    is_cancelled: bool,
    /// Whether it was said that a host behind this machine has taken it.
    is_begun_told: bool,
    /// Its newest status, for the pump; present when there is one.
    status: Option<watch::Sender<RunStatus>>,
}

impl Run {
    /// Whether it takes up one of the parallel runs.
    fn holds_slot(&self) -> bool {
        !matches!(self.stage, Stage::Ended | Stage::Lost { .. } | Stage::Reporting)
    }

    /// Whether it changes what is kept here, which has nothing to do with a keeper.
    fn is_change(&self) -> bool {
        self.work.as_ref().is_some_and(|work| work.spec.change.is_some())
    }

    /// Whether its claim stands, and something here comes before its beginning.
    fn is_prepared(&self) -> bool {
        matches!(self.stage, Stage::Preparing { .. })
    }

    fn is_alive(&self) -> bool {
        matches!(self.stage, Stage::Starting { .. } | Stage::Running)
    }
}

/// Where an agent finds its things.
pub(crate) struct Place {
    pub(crate) store: PathBuf,
    /// The right to it.
    pub(crate) lock: Lock,
    /// This program, for the keeper.
    pub(crate) exe: PathBuf,
}

/// When which look at the clock is due.
struct Timers {
    heartbeat: Option<Instant>,
    read: Option<Instant>,
    authors: Option<Instant>,
    reconcile: Option<Instant>,
    sync: Option<Instant>,
    rewrite: Option<Instant>,
    clock: Instant,
    prune: Instant,
}

impl Timers {
    fn next(&self) -> Instant {
        let Self { heartbeat, read, authors, reconcile, sync, rewrite, clock, prune } = self;
        [heartbeat, read, authors, reconcile, sync, rewrite]
            .into_iter()
            .flatten()
            .copied()
            .fold(*prune.min(clock), Instant::min)
    }

    /// Takes a timer that is due.
    fn take(timer: &mut Option<Instant>, now: Instant) -> bool {
        timer.take_if(|at| *at <= now).is_some()
    }
}

/// The loop's state.
pub(crate) struct Agent {
    identity: Identity,
    place: Place,
    nats: Nats,
    journal: Rc<RefCell<Journal>>,
    counters: Counters,
    shelf: Shelf,
    inbox: Inbox,
    subscription: Option<Subscription>,
    hearing: hearing::Hearing,
    keeper: Option<Keeper>,
    runs: HashMap<CommandId, Run>,
    /// Output bytes known of runs whose keeper is gone.
    ghosts: HashMap<CommandId, [u64; 2]>,
    /// Claims of former keepers' lives whose register is being read.
    asking: HashSet<CommandId>,
    /// Keepers whose end is being made sure of.
    burying: Vec<Nonce>,
    /// Attempts to claim, answered in the order of the offers.
    claims: FuturesOrdered<LocalBoxFuture<'static, Answer>>,
    jobs: JoinSet<Done>,
    syncing: bool,
    timers: Timers,
    clock: clock::Watch,
    beat: beat::Beat,
    keeping: inventory::Keeping,
    connects: u64,
    is_announced: bool,
    /// Something changed that reconciling may act on.
    look: bool,
    /// Runs whose start may not have reached the keeper.
    restart: Vec<CommandId>,
    /// What the keeper is to be told, once there is one.
    untold: VecDeque<Untold>,
    /// Ends that could not be written down yet. Their runs stay, so that nothing is made of the claims that the journal
    /// still tells of.
    unwritten: HashMap<CommandId, Unwritten>,
}

impl Agent {
    pub(crate) fn new(
        identity: Identity,
        place: Place,
        nats: Nats,
        journal: Journal,
        (keepsakes, opening): (Keepsakes, OpeningKey),
    ) -> Self {
        let config = &identity.config;
        let shelf = Shelf::open(&place.store, &config.ws, &config.fleet_key);
        let counters = Counters::default();
        if journal.broken_lines > 0 {
            tracing::warn!(lines = journal.broken_lines, "journal has broken lines");
            counters.add("journal_broken_lines", journal.broken_lines);
        }
        Self {
            shelf,
            inbox: Inbox::new(journal.ledger().seen()),
            identity,
            place,
            nats,
            journal: Rc::new(RefCell::new(journal)),
            counters,
            subscription: None,
            hearing: hearing::Hearing::default(),
            keeper: None,
            runs: HashMap::new(),
            ghosts: HashMap::new(),
            asking: HashSet::new(),
            burying: Vec::new(),
            claims: FuturesOrdered::new(),
            jobs: JoinSet::new(),
            syncing: false,
            timers: Timers {
                heartbeat: None,
                read: None,
                authors: None,
                reconcile: None,
                sync: None,
                rewrite: None,
                clock: Instant::now() + clock::LOOK_EVERY,
                prune: Instant::now() + Duration::from_millis(HOUR_MS),
            },
            clock: clock::Watch::new(unix_ms(), Instant::now()),
            beat: beat::Beat::new(),
            keeping: inventory::Keeping::new(keepsakes, opening),
            connects: 0,
            is_announced: false,
            look: false,
            restart: Vec::new(),
            untold: VecDeque::new(),
            unwritten: HashMap::new(),
        }
    }

    /// Runs until `stop` comes.
    ///
    /// # Errors
    /// When a job panicked: then nothing can be relied on, and a new process picks everything up. When the store was
    /// removed and is another relay's now.
    pub(crate) async fn run(mut self, stop: impl Future<Output = ()>) -> Result<(), ServeError> {
        tokio::pin!(stop);
        let mut link = self.nats.state();
        self.bring_keeper_up();
        self.on_link(*link.borrow_and_update());
        self.deliver_waiting();
        loop {
            let timer = self.timers.next();
            tokio::select! {
                biased;
                () = &mut stop => return Ok(()),
                event = next_event(&mut self.keeper) => self.on_keeper(event),
                Some(answer) = self.claims.next() => self.on_claim(answer).await,
                delivery = next_delivery(&mut self.subscription) => self.on_delivery(delivery),
                Some(done) = self.jobs.join_next() => self.on_done(done?).await?,
                changed = link.changed() => if changed.is_ok() {
                    let state = *link.borrow_and_update();
                    self.on_link(state);
                },
                () = sleep_until(timer) => self.on_time(Instant::now()),
            }
            self.reconcile().await;
            self.change_next();
            self.tell_keeper().await;
            self.sync_later();
            self.rewrite_journal();
        }
    }

    async fn on_done(&mut self, done: Done) -> Result<(), ServeError> {
        if matches!(done, Done::Routed(..) | Done::Changed(..) | Done::Inventory(_)) {
            self.keeping.moved_at = Instant::now();
        }
        match done {
            Done::Keeper(up) => self.on_keeper_up(*up).await?,
            Done::Buried(instance) => self.on_buried(instance),
            Done::Subscribed(subscribed) => self.on_subscribed(subscribed),
            Done::Mailbox(found) => self.on_mailbox_read(found),
            Done::Authors(found) => self.on_authors_read(found),
            Done::Ghost(cid, register) => self.on_ghost(cid, register),
            Done::Pumped(cid, pumped) => self.on_pumped(cid, pumped.map(|pumped| *pumped)),
            Done::Fact(cid, report, delivered) => self.on_fact(cid, report, delivered),
            Done::Spooled(found) => self.on_spooled(found),
            Done::Routed(cid, found) => self.on_routed(cid, found).await,
            Done::Changed(cid, started_at, done) => self.on_changed(cid, started_at, done),
            Done::Inventory(found) => self.on_inventory(found),
            Done::InventorySaid(mark, problem, said) => self.on_inventory_said(mark, problem, said),
            Done::Sampled(sampler, metrics) => self.on_sampled(sampler, metrics),
            Done::Synced(synced) => {
                self.syncing = false;
                if let Err(error) = synced
                    && self.counters.count("journal_sync")
                {
                    tracing::warn!(%error, "journal not on disk");
                }
            }
            Done::Rewritten(written) => self.on_rewritten(written),
            Done::Repeated | Done::Published => {}
        }
        Ok(())
    }

    fn on_link(&mut self, state: LinkState) {
        if !state.is_connected {
            if self.connects > 0 {
                tracing::warn!("broker connection lost");
            }
            return;
        }
        if state.connects > self.connects {
            tracing::info!(connects = state.connects, "broker connected");
            let lost = state.connects - self.connects.max(1);
            self.connects = state.connects;
            self.keeping.answers_since = Instant::now();
            let unread = Instant::now() + beat::UNREAD;
            self.timers.heartbeat = Some(self.timers.heartbeat.map_or(unread, |due| due.min(unread)));
            if self.hearing.connected(lost, Instant::now()) {
                tracing::warn!("connections are lost one after the other: the mailbox is asked for");
                self.counters.count("mailbox_by_asking");
            }
            self.hear();
            self.say_inventory();
        }
    }

    fn on_time(&mut self, now: Instant) {
        if Timers::take(&mut self.timers.heartbeat, now) {
            self.sample();
            // An owner may have changed it by hand.
            self.say_inventory();
        }
        if Timers::take(&mut self.timers.read, now) {
            self.hearing.listens_again(now);
            self.hear();
        }
        if Timers::take(&mut self.timers.authors, now) {
            self.read_authors();
        }
        if Timers::take(&mut self.timers.reconcile, now) {
            self.write_again();
            self.retry_claims(now);
            self.check_keeper(now);
            self.check_preparing(now);
        }
        if Timers::take(&mut self.timers.sync, now) {
            self.sync();
        }
        // The loop goes on to try again.
        Timers::take(&mut self.timers.rewrite, now);
        if self.timers.clock <= now {
            self.timers.clock = now + clock::LOOK_EVERY;
            if self.clock.was_set(unix_ms(), now) {
                self.on_clock_set();
            }
        }
        if self.timers.prune <= now {
            self.timers.prune = now + Duration::from_millis(HOUR_MS);
            self.journal.borrow_mut().prune(unix_ms());
            self.look_into_spool();
            self.repeat_inventory();
        }
    }

    /// Looks again at this time at the latest.
    fn wake_at(&mut self, at: Instant) {
        self.timers.reconcile = Some(self.timers.reconcile.map_or(at, |wake| wake.min(at)));
    }

    /// Says once, on standard output, that work can come.
    fn announce(&mut self) {
        let Some(keeper) = self.keeper.as_ref().filter(|_| !self.is_announced && self.inbox.was_read())
        else {
            return;
        };
        let line = serde_json::json!({
            "machine": self.identity.config.machine_id.as_str(),
            "pid": std::process::id(),
            "keeper_pid": keeper.pid,
        });
        self.is_announced = true;
        // Nobody may be listening, and that is no reason to stop.
        let written = io::Write::write_all(&mut io::stdout(), format!("{line}\n").as_bytes());
        if written.and_then(|()| io::Write::flush(&mut io::stdout())).is_err() {
            tracing::debug!("standard output is closed");
        }
        tracing::info!(machine = %self.identity.config.mid, keeper_pid = keeper.pid, "ready");
    }
}

async fn next_event(keeper: &mut Option<Keeper>) -> KeeperEvent {
    match keeper {
        Some(keeper) => keeper.client.next_event().await,
        None => std::future::pending().await,
    }
}

async fn next_delivery(subscription: &mut Option<Subscription>) -> Option<Delivery> {
    match subscription {
        Some(subscription) => subscription.next().await,
        None => std::future::pending().await,
    }
}
