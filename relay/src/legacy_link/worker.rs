//! The loop that owns everything. Whatever takes time is a job in its set and comes back as a [`Done`].

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    io,
    path::PathBuf,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use signalbox_schemas::{
    Secret,
    id::{CommandId, Nonce},
    limit::HOUR_MS,
};
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, sleep_until, timeout_at},
};

use super::{
    LinkError,
    config::{Config, Credentials},
    hosts::Hosts,
    http::{Answer, Center, NoAnswer},
    keeping::{Keeper, next_event},
    kept::Granted,
    notes::Unwritten,
    pull::{Pull, cid_of},
    results::Taken,
    runs::Run,
    signs::Signs,
    status::Machine,
    wire::{Command, Ended},
};
use crate::{
    clock::unix_ms,
    counters::Counters,
    journal::{Journal, Rewritten},
    keeper::client::{KeeperClient, Welcome},
    lock::Lock,
    ssh::route::Route,
};

/// Runs at once, and results that are sent at once.
pub(super) const MAX_PARALLEL: usize = 4;
/// A relay that is told to stop waits so long for the answer to a claim.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Time from a line in the journal to the `fdatasync` for it and for those that followed.
const SYNC_AFTER: Duration = Duration::from_millis(20);
/// A journal that could not be written anew is left alone for so long.
const REWRITE_AGAIN: Duration = Duration::from_mins(1);

/// What became of a job.
pub(super) enum Done {
    /// The keeper is up.
    Keeper(Box<(KeeperClient, Welcome)>),
    /// A former keeper is gone, with all it ran.
    Buried(Nonce),
    Polled(Result<Answer, NoAnswer>),
    Claimed(Box<Command>, Result<Answer, NoAnswer>),
    /// How the host of a command is reached, in a keeper's life.
    Routed(CommandId, Nonce, Box<Granted>, Result<Box<Route>, String>),
    Result(CommandId, Taken),
    Beaten(Result<Answer, NoAnswer>),
    /// Whether the center has something to be set.
    Reported(Box<Machine>, bool),
    Configured(Option<Duration>),
    Spooled(io::Result<BTreeSet<CommandId>>),
    Synced(io::Result<()>),
    Rewritten(io::Result<Rewritten>),
}

/// Where a relay finds its things.
pub(super) struct Place {
    /// The right to the store.
    pub(super) lock: Lock,
    /// What this transport keeps.
    pub(super) folder: PathBuf,
    /// This program, for the keeper.
    pub(super) exe: PathBuf,
    /// Where commands begin, if that can be said.
    pub(super) work: Option<String>,
}

/// The loop's state.
pub(super) struct Worker {
    pub(super) center: Center,
    pub(super) relay_id: String,
    pub(super) place: Place,
    pub(super) journal: Journal,
    pub(super) counters: Counters,
    pub(super) keeper: Option<Keeper>,
    /// Keepers whose end is being made sure of.
    pub(super) burying: HashSet<Nonce>,
    pub(super) runs: HashMap<CommandId, Run>,
    /// Commands that were ended while the way to their host was looked for, and still is: a few, see
    /// [`check_ways`](Self::check_ways).
    pub(super) hanging: HashSet<CommandId>,
    /// What was granted, and when (Unix ms), and waits for a keeper: one at most, since nothing is claimed without one.
    pub(super) granted: Vec<(Command, u64)>,
    /// What the keeper is to let go of, once there is one.
    pub(super) unforgotten: VecDeque<CommandId>,
    pub(super) unwritten: Unwritten,
    /// Ended commands whose result the center has not taken.
    pub(super) unreported: HashSet<CommandId>,
    pub(super) senders: Rc<Semaphore>,
    pub(super) pull: Pull,
    pub(super) signs: Signs,
    pub(super) config: Arc<Config>,
    pub(super) hosts: Arc<Hosts>,
    pub(super) jobs: JoinSet<Done>,
    /// Nothing new is claimed; the relay ends here when all that was granted before is reported.
    pub(super) is_finishing: bool,
    sync_at: Option<Instant>,
    is_syncing: bool,
    rewrite_at: Option<Instant>,
    prune_at: Instant,
}

impl Worker {
    pub(super) fn new(
        center: Center,
        relay_id: String,
        (place, journal): (Place, Journal),
        hosts: (Hosts, Option<Secret>),
        [poll_interval, heartbeat_interval]: [Duration; 2],
        is_finishing: bool,
    ) -> Self {
        if journal.broken_lines > 0 {
            tracing::warn!(lines = journal.broken_lines, "Journal has broken lines");
        }
        let (hosts, shared_secret) = (Arc::new(hosts.0), hosts.1);
        let shared = hosts.clone();
        let config = Config::new(
            center.clone(),
            relay_id.clone(),
            &place.folder,
            Credentials { hosts: shared, shared_secret },
        );
        let status_interval = config.status_interval().unwrap_or(heartbeat_interval);
        Self {
            config: Arc::new(config),
            hosts,
            center,
            relay_id,
            place,
            journal,
            counters: Counters::default(),
            keeper: None,
            burying: HashSet::new(),
            runs: HashMap::new(),
            hanging: HashSet::new(),
            granted: Vec::new(),
            unforgotten: VecDeque::new(),
            unwritten: Unwritten::default(),
            unreported: HashSet::new(),
            senders: Rc::new(Semaphore::new(MAX_PARALLEL)),
            pull: Pull::new(poll_interval),
            signs: Signs::new(heartbeat_interval, status_interval),
            jobs: JoinSet::new(),
            is_finishing,
            sync_at: None,
            is_syncing: false,
            rewrite_at: None,
            prune_at: Instant::now() + Duration::from_millis(HOUR_MS),
        }
    }

    /// Runs until `stop` comes. Answers the store's lock when everything is finished before that, which it is only where
    /// nothing new is claimed; then no keeper is left.
    ///
    /// # Errors
    /// When a job panicked: then nothing can be relied on, and a new process picks everything up. When the store was
    /// removed and is another relay's now.
    pub(super) async fn run(mut self, stop: impl Future<Output = ()>) -> Result<Option<Lock>, LinkError> {
        tokio::pin!(stop);
        self.bring_keeper_up();
        self.send_waiting();
        // In this order, and nothing else before it: a center may show what a relay can do before it gives it work.
        self.report();
        loop {
            let due = self.due();
            tokio::select! {
                biased;
                () = &mut stop => return self.wind_down().await.map(|()| None),
                event = next_event(&mut self.keeper) => self.on_keeper(event),
                Some(done) = self.jobs.join_next() => self.on_done(done?).await?,
                () = sleep_until(due) => self.on_time(Instant::now()),
            }
            self.pull();
            self.tell_keeper().await;
            self.look_after_journal();
            if self.is_finished() {
                self.release_keeper().await;
                return Ok(Some(self.place.lock));
            }
        }
    }

    /// Whether nothing is left that only this transport can do.
    fn is_finished(&self) -> bool {
        // Without a keeper nobody knows what still runs.
        let is_idle = self.keeper.is_some() && self.runs.is_empty() && self.granted.is_empty();
        self.is_finishing
            && is_idle
            && self.burying.is_empty()
            && self.unreported.is_empty()
            && self.unforgotten.is_empty()
            && !self.unwritten.has_ends()
    }

    /// Hears what a claim that is on its way came to: what is granted then would otherwise be nobody's.
    async fn wind_down(&mut self) -> Result<(), LinkError> {
        let until = Instant::now() + LAST_WORDS;
        while self.pull.is_claiming() {
            match timeout_at(until, self.jobs.join_next()).await {
                Ok(Some(done)) => self.on_done(done?).await?,
                Ok(None) | Err(_) => break,
            }
        }
        for (Command { id, .. }, _) in std::mem::take(&mut self.granted) {
            // There is no keeper, and nobody would wait for one. The result is in the journal, for the next process.
            let error = "The relay was stopped before the command began";
            self.finish(cid_of(&self.relay_id, &id), Ended::without_a_run(&id, error));
        }
        self.write_again();
        self.release_keeper().await;
        Ok(())
    }

    fn due(&self) -> Instant {
        let keeper = self.runs.values().filter_map(Run::answer_due).min();
        let (pull, signs, write) = (self.pull_due(), self.signs.due(), self.unwritten.again_at);
        let way = self.runs.values().filter_map(Run::way_due).min();
        let optional = [self.sync_at, self.rewrite_at, pull, signs, write, keeper, way];
        optional.into_iter().flatten().fold(self.prune_at, Instant::min)
    }

    fn on_time(&mut self, now: Instant) {
        self.give_signs(now);
        self.check_keeper(now);
        self.check_ways(now);
        if self.unwritten.again_at.is_some_and(|at| at <= now) {
            self.write_again();
        }
        if self.sync_at.take_if(|at| *at <= now).is_some()
            && let Some(file) = self.journal.take_dirty()
        {
            self.is_syncing = true;
            self.jobs.spawn_blocking(move || Done::Synced(file.and_then(|file| file.sync_data())));
        }
        // The loop goes on to try again.
        self.rewrite_at.take_if(|at| *at <= now);
        if self.prune_at <= now {
            self.prune_at = now + Duration::from_millis(HOUR_MS);
            self.drop_expired();
            self.journal.prune(unix_ms());
            self.look_into_spool();
        }
    }

    async fn on_done(&mut self, done: Done) -> Result<(), LinkError> {
        match done {
            Done::Keeper(up) => self.on_keeper_up(*up).await?,
            Done::Buried(instance) => self.on_buried(instance),
            Done::Polled(answer) => self.on_polled(answer),
            Done::Claimed(command, answer) => self.on_claimed(*command, answer).await,
            Done::Routed(cid, instance, granted, route) => {
                self.on_routed((cid, instance), *granted, route).await;
            }
            Done::Result(cid, taken) => self.on_result(cid, &taken),
            Done::Beaten(answer) => self.on_beaten(answer),
            Done::Reported(machine, has_pushes) => self.on_reported(*machine, has_pushes),
            Done::Configured(interval) => self.on_configured(interval),
            Done::Spooled(found) => self.on_spooled(found),
            Done::Synced(synced) => {
                self.is_syncing = false;
                if let Err(error) = synced {
                    tracing::warn!(%error, "Journal is not on disk");
                }
            }
            Done::Rewritten(written) => {
                if let Err(error) = self.journal.end_rewrite(written) {
                    self.rewrite_at = Some(Instant::now() + REWRITE_AGAIN);
                    tracing::warn!(%error, "Journal not written anew");
                }
            }
        }
        Ok(())
    }

    fn look_after_journal(&mut self) {
        if self.sync_at.is_none() && !self.is_syncing && self.journal.is_dirty() {
            self.sync_at = Some(Instant::now() + SYNC_AFTER);
        }
        if self.rewrite_at.is_none() && self.journal.wants_rewrite() {
            let draft = self.journal.begin_rewrite();
            self.jobs.spawn_blocking(move || Done::Rewritten(draft.write()));
        }
    }
}
