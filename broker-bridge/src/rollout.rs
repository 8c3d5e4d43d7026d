//! Lets commands spread: wave after wave, as runs settle, on the bridge that holds the lease.
//!
//! How far one has come is a message in CMD, and each edition is stored only behind the one that it follows. So nothing relies
//! on the lease: of two bridges that go on at once one is refused, reads what the other has said, and asks again what comes
//! next. Nothing is kept beside that; whoever takes over goes on from there. A bridge that has not read all that settled
//! believes that more is under way than is, and lets fewer go.
//!
//! An edition follows a change at once. The clock is asked for what nothing tells of: that a machine fell silent, and that the
//! wait between two waves is over. Only who has listened for so long knows that somebody is silent; so a bridge or broker that
//! starts takes nobody's place away, and lets nobody go who was not heard yet.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use signalbox_link::{
    Message, Store, StoreError,
    crash::{self, Point},
};
use signalbox_schemas::{
    api::{Liveness, counted},
    error::report,
    id::{CommandId, MachineToken, Sha256},
    rollout::{Counted, Decision, Progress, RolloutState, Tally, step},
    run::RunState,
    stream::CMD,
    subject::{CommandPiece, Subject},
};
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep},
};
use tracing::{debug, info, warn};

use crate::{
    broker_link::{BrokerError, BrokerLink},
    core::{Context, CoreError, Epoch, Shared, now_ms},
    ingest::{FOLLOWED, apply_rollout, read_to_end},
    listening::{Listening, is_absent},
    projection::{
        Counts,
        memory::{Machine, Memory, OpenCommand},
        rollout::OpenRollout,
    },
    store::{self, key},
};

/// Commands that are written about at once; of each one edition after the other.
const IN_FLIGHT: usize = 32;
/// How often it is looked which machines are silent, and tried again what failed.
const LOOK: Duration = Duration::from_secs(1);
/// Tries against other writers of the same rollout.
const TRIES: u32 = 16;
/// Pause between two of them.
const PAUSE: Duration = Duration::from_millis(20);

/// An edition could not be stored.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    #[error("the broker did not take it")]
    Broker(#[from] BrokerError),
    #[error("it cannot be applied")]
    Core(#[from] CoreError),
    #[error("the store cannot be read")]
    Store(#[from] store::StoreError),
    /// What this bridge signs does not count: its key is not, or no more, in the authors document.
    #[error("nobody would believe this bridge; have the authors document issued anew, with its key")]
    Unbelieved,
    /// It cannot be as somebody wishes.
    #[error("{0}")]
    Refused(&'static str),
}

/// An edition that is to be written, and the sequence that it replaces.
pub(crate) struct Next {
    pub(crate) progress: Progress,
    pub(crate) after: u64,
}

/// Lets commands spread whenever this bridge holds the lease, until told to stop.
pub(crate) async fn run(context: Context) -> Result<(), CoreError> {
    let mut lease = context.lease.clone();
    let mut caught_up = context.shared.caught_up.subscribe();
    let stop = context.stop.clone();
    // Whoever takes over has listened before.
    let listening = Arc::new(Listening::new(context.shared.link.clone(), now_ms()));
    let work = async {
        loop {
            let Ok(epoch) = lease.wait_for(Option::is_some).await.map(|epoch| *epoch) else { return Ok(()) };
            let Some(epoch) = epoch else { continue };
            if caught_up.wait_for(|is| *is).await.is_err() {
                return Ok(());
            }
            read_to_end(&context.shared, &FOLLOWED).await;
            info!(epoch = epoch.0, "letting commands spread");
            let mut driver = Driver::new(context.clone(), epoch, listening.clone());
            tokio::select! {
                ended = driver.drive() => return ended,
                _ = lease.wait_for(|held| *held != Some(epoch)) => {}
            }
        }
    };
    tokio::select! {
        () = stop.cancelled() => Ok(()),
        ended = work => ended,
    }
}

struct Driver {
    context: Context,
    epoch: Epoch,
    listening: Arc<Listening>,
    /// Those that are written about.
    busy: HashSet<CommandId>,
    /// Those whose next wave begins at a time, Unix ms.
    wakes: BTreeMap<CommandId, u64>,
    writes: JoinSet<Result<(CommandId, Option<u64>), CoreError>>,
}

impl Driver {
    fn new(context: Context, epoch: Epoch, listening: Arc<Listening>) -> Self {
        Self {
            context,
            epoch,
            listening,
            busy: HashSet::new(),
            wakes: BTreeMap::new(),
            writes: JoinSet::new(),
        }
    }

    /// Goes on for ever.
    ///
    /// # Errors
    /// When a write panicked, or what was written cannot be applied.
    async fn drive(&mut self) -> Result<(), CoreError> {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.look();
            let next = self.wakes.values().min().map(|at| at.saturating_sub(now_ms()));
            let shared = self.context.shared.clone();
            tokio::select! {
                () = shared.rollout.notified() => {}
                Some(ended) = self.writes.join_next() => {
                    let (cid, wakes) = ended.unwrap_or(Err(CoreError::Ended("rollout")))?;
                    self.busy.remove(&cid);
                    self.wakes.extend(wakes.map(|at| (cid, at)));
                }
                _ = looks.tick() => self.listen(),
                () = sleep(Duration::from_millis(next.unwrap_or_default())), if next.is_some() => self.wake(),
            }
        }
    }

    /// Those that may let somebody go are looked at: machines fall silent and come back, and what could not be written is tried
    /// again. One at a time, so that nobody waits for all of them.
    fn listen(&self) {
        let now = now_ms();
        let listening = self.listening.since(now);
        let shared = &self.context.shared;
        let spreading: Vec<CommandId> = {
            let memory = shared.memory();
            let spreads = |cid: &&CommandId| memory.open.get(*cid).is_some_and(OpenCommand::spreads);
            memory.rollouts.iter().filter(spreads).copied().collect()
        };
        for cid in spreading {
            let mut memory = shared.memory_mut();
            let Memory { open, machines, stirred, .. } = &mut *memory;
            let Some(OpenCommand { machines: names, rollout: Some(rollout), .. }) = open.get_mut(&cid) else {
                continue;
            };
            let look = Look { names, machines, listening, now };
            rollout.listen(|place| !look.is_online(place));
            stirred.insert(cid);
        }
    }

    /// Waits between two waves are over.
    fn wake(&mut self) {
        let now = now_ms();
        let mut memory = self.context.shared.memory_mut();
        self.wakes.retain(|cid, at| {
            let is_over = *at <= now;
            if is_over {
                memory.stirred.insert(*cid);
            }
            !is_over
        });
    }

    /// Begins to write about those of which something has changed, as far as there is room.
    fn look(&mut self) {
        let mut memory = self.context.shared.memory_mut();
        let ready: Vec<CommandId> = memory
            .stirred
            .iter()
            .filter(|cid| !self.busy.contains(cid))
            .take(IN_FLIGHT.saturating_sub(self.writes.len()))
            .copied()
            .collect();
        for cid in ready {
            memory.stirred.remove(&cid);
            self.busy.insert(cid);
            self.wakes.remove(&cid);
            let (context, epoch, listening) = (self.context.clone(), self.epoch, self.listening.clone());
            self.writes.spawn(async move {
                go_on(&context, epoch, &listening, cid).await.map(|wakes| (cid, wakes))
            });
        }
    }
}

/// Lets a command spread as far as it may now. Answers when it is to be asked again, if nothing happens, Unix ms.
async fn go_on(
    context: &Context,
    epoch: Epoch,
    listening: &Listening,
    cid: CommandId,
) -> Result<Option<u64>, CoreError> {
    let mut wakes = None;
    let compose = || {
        if context.epoch() != Some(epoch) {
            return Ok(None);
        }
        let by = format!("bridge:{}", context.broker.bridge());
        let now = now_ms();
        match next(&context.shared, cid, &by, (listening.since(now), now))? {
            Come::Next(next) => Ok(Some(next)),
            Come::At(at) => {
                wakes = at;
                Ok(None)
            }
        }
    };
    match write(&context.shared, &context.broker, cid, compose).await {
        Ok(_) => {}
        Err(WriteError::Core(error)) => return Err(error),
        Err(WriteError::Store(error)) => return Err(error.into()),
        // It is tried again in a moment; what nobody believes is not even written.
        Err(error) => {
            let is_unbelieved = matches!(error, WriteError::Unbelieved);
            let name = if is_unbelieved { "rollout.unbelieved" } else { "rollout.unwritten" };
            let count = context.shared.counters.add(name);
            if count.is_power_of_two() {
                warn!(command = %cid, count, error = report(&error), "rollout was not written");
            }
        }
    }
    Ok(wakes)
}

/// What comes next of a rollout.
enum Come {
    Next(Box<Next>),
    /// Nothing, until this time, Unix ms, if nothing happens.
    At(Option<u64>),
}

/// The machines of a command, as they are heard at a moment.
struct Look<'a> {
    /// Those of the command, in their order.
    names: &'a [MachineToken],
    machines: &'a BTreeMap<MachineToken, Machine>,
    /// Since when this bridge listens, Unix ms.
    listening: u64,
    /// The moment, Unix ms.
    now: u64,
}

impl Look<'_> {
    fn machine(&self, place: u32) -> Option<&Machine> {
        self.names.get(place as usize).and_then(|mid| self.machines.get(mid))
    }

    /// Whether the machine at a place was heard lately.
    fn is_online(&self, place: u32) -> bool {
        let silence = self.machine(place).and_then(|machine| machine.silence(self.now));
        Liveness::of(silence) == Liveness::Online
    }

    /// Whether it is silent, as far as this bridge has listened.
    fn is_absent(&self, place: u32) -> bool {
        is_absent(self.machine(place), self.listening, self.now)
    }
}

/// What comes next at `now` for who has listened since `listening`, Unix ms.
fn next(
    shared: &Shared,
    cid: CommandId,
    by: &str,
    (listening, now): (u64, u64),
) -> Result<Come, store::StoreError> {
    // Most changes decide nothing: they keep nobody from reading.
    if !shared.memory().open.get(&cid).is_some_and(OpenCommand::spreads) {
        return Ok(Come::At(None));
    }
    let mut memory = shared.memory_mut();
    // Written in one go with what memory says.
    let counts: Counts = shared.store.json(&key::counts(cid), "counts")?.unwrap_or_default();
    let Memory { open, machines, .. } = &mut *memory;
    let Some(command) = open.get_mut(&cid).filter(|command| command.spreads()) else {
        return Ok(Come::At(None));
    };
    let (Some(rollout), Some(plan)) = (&mut command.rollout, &command.spec.rollout) else {
        return Ok(Come::At(None));
    };
    let look = Look { names: &command.machines, machines, listening, now };
    let tally = tally(command.spec.targets, rollout, &counts, &look);
    let mut progress = Progress {
        revision: rollout.progress.revision.saturating_add(1),
        why: None,
        asked: None,
        forgiven: rollout.progress.forgiven.at_most(tally.counted),
        by: by.to_owned(),
        at: now,
        ..rollout.progress.clone()
    };
    match step(plan, &tally, &rollout.progress, now) {
        Decision::Release { wave, count } => {
            let picked = rollout.pick(count, |place| !look.is_online(place));
            if picked.is_empty() {
                return Ok(Come::At(None));
            }
            for place in picked {
                progress.released.insert(place);
            }
            progress.wave = wave;
        }
        Decision::Pause(Counted { failed, ended }) => {
            progress.state = RolloutState::Paused;
            progress.why = Some(format!("{failed} of {ended} runs failed"));
        }
        Decision::Wait(at) => return Ok(Come::At(at)),
        Decision::Done => return Ok(Come::At(None)),
    }
    Ok(Come::Next(Box::new(Next { progress, after: rollout.last })))
}

fn tally(targets: u32, rollout: &OpenRollout, counts: &Counts, look: &Look<'_>) -> Tally {
    let of = |state| counts.get(&state).copied().unwrap_or_default();
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    Tally {
        targets,
        released: rollout.progress.released.count(),
        held: rollout.held(),
        present: rollout.present(),
        waiting: count(rollout.waiting().len()),
        absent: count(rollout.waiting().iter().filter(|place| look.is_absent(**place)).count()),
        running: of(RunState::Executing) + of(RunState::Claimed),
        counted: counted(counts),
        settled_at: rollout.settled_at,
    }
}

/// The newest edition of an open command's rollout, what has ended of it, and the sequence that the next one replaces.
///
/// # Errors
/// [`store::StoreError`].
pub(crate) fn standing(
    shared: &Shared,
    cid: CommandId,
) -> Result<Option<(Progress, Counted, u64)>, store::StoreError> {
    let memory = shared.memory();
    let Some(rollout) = memory.open.get(&cid).and_then(|command| command.rollout.as_ref()) else {
        return Ok(None);
    };
    let counts: Counts = shared.store.json(&key::counts(cid), "counts")?.unwrap_or_default();
    Ok(Some((rollout.progress.clone(), counted(&counts), rollout.last)))
}

/// Stores what `compose` makes of what is known, and is asked again when somebody else was faster. Answers the sequence of
/// what was stored; `None`: there was nothing to store.
///
/// # Errors
/// [`WriteError`].
pub(crate) async fn write(
    shared: &Arc<Shared>,
    broker: &BrokerLink,
    cid: CommandId,
    mut compose: impl FnMut() -> Result<Option<Box<Next>>, WriteError>,
) -> Result<Option<u64>, WriteError> {
    let subject = Subject::Command(broker.ws().clone(), cid, CommandPiece::Rollout).to_string();
    let mut failed = None;
    for _ in 0..TRIES {
        let Some(next) = compose()? else { return Ok(None) };
        if !is_believed(shared, broker) {
            return Err(WriteError::Unbelieved);
        }
        let Next { progress, after } = *next;
        let body = broker.signed(&progress)?;
        let summary = summary(&progress);
        let message = Store::new(subject.clone(), body.clone())
            .with_headers(broker.headers::<Progress>(&summary))
            .only_after(after);
        match broker.link().store(message).await {
            Ok(stored) => {
                crash::hit(crash::Part::Bridge, Point::RolloutWritten);
                debug!(command = %cid, revision = progress.revision, summary, "command spreads");
                let (stream, headers) = (CMD.to_owned(), signalbox_link::Headers::new());
                let (sequence, time_ms) = (stored.sequence, now_ms());
                let subject = subject.clone();
                let own = Message { stream, subject, sequence, time_ms, headers, payload: body };
                apply_rollout(shared, own).await?;
                // The document may have changed in between.
                return if counts(shared, cid, progress.revision) {
                    Ok(Some(sequence))
                } else {
                    Err(WriteError::Unbelieved)
                };
            }
            Err(error @ (StoreError::Taken { .. } | StoreError::Unanswered { .. })) => failed = Some(error),
            Err(source) => return Err(BrokerError::Store { what: subject, source }.into()),
        }
        shared.counters.add("rollout.conflict");
        let stands = broker.last(CMD, &subject).await?;
        let sequence = stands.as_ref().map_or(0, |stands| stands.sequence);
        let is_mine = stands.as_ref().is_some_and(|it| Sha256::of(&it.payload) == Sha256::of(&body));
        if let Some(stands) = stands {
            apply_rollout(shared, stands).await?;
        }
        // Whether it counts or not.
        shared.memory_mut().saw_rollout(cid, sequence);
        if is_mine {
            return Ok(Some(sequence));
        }
        sleep(PAUSE).await;
    }
    Err(match failed {
        Some(source) => BrokerError::Store { what: subject, source },
        None => BrokerError::Contended(subject),
    }
    .into())
}

/// Whether what this bridge signs now counts. An edition that does not would be written anew each second, for as long as the
/// command is open.
fn is_believed(shared: &Shared, broker: &BrokerLink) -> bool {
    shared.memory().authors.as_ref().is_some_and(|authors| authors.doc.is_bridge(broker.public()))
}

/// Whether an edition that was applied is known now, or a later one; of a command that has settled meanwhile nothing is.
fn counts(shared: &Shared, cid: CommandId, revision: u64) -> bool {
    let memory = shared.memory();
    let rollout = memory.open.get(&cid).and_then(|command| command.rollout.as_ref());
    rollout.is_none_or(|rollout| rollout.progress.revision >= revision)
}

/// For eyes.
fn summary(progress: &Progress) -> String {
    let (wave, released, state) = (progress.wave, progress.released.count(), progress.state);
    format!("wave {wave}, {released} let go, {state}")
}
