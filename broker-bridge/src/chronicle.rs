//! Events and the history of figures, written by the bridge that holds the lease.
//!
//! | room | holds |
//! |---|---|
//! | `told` | what was told last, and what there is to tell (pure) |
//! | `budget` | how much is told one by one (pure) |
//! | `listening` | since when heartbeats are heard (pure) |
//! | `log` | the events as they are stored |
//! | `frames` | the frames as they are stored |
//!
//! Nothing else depends on what is written here, and no answer waits for it.

mod budget;
pub(crate) mod frames;
mod listening;
mod log;
mod told;

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use serde_json::json;
use signalbox_schemas::{
    error::report,
    event::kind,
    id::MachineToken,
    mailbox::Position,
    run::RunState,
    stream::{HB, RUN},
    subject::{Subject, all_lost},
};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval, sleep},
};
use tracing::{debug, info, warn};

use self::{
    budget::Budget,
    listening::{Heard, Listening},
    told::{Look, News, Told, first_heard, news},
};
use crate::{
    broker_link::BrokerError,
    core::{Context, CoreError, Epoch, now_ms},
    ingest::{FOLLOWED, read_to_end},
    store::StoreError,
    view::View,
};

/// How often there is looked for something to tell.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Pause after the broker did not take something.
const AGAIN: Duration = Duration::from_secs(1);
/// Facts about lost runs that are looked at in one go.
const LOST_AT_ONCE: usize = 64;

/// How often something is written, and by which clock; tests have others.
#[derive(Debug, Clone)]
pub struct Pace {
    /// Time between two frames of a bucket.
    pub frame_every: Duration,
    /// Time between two looks at what there is to tell.
    pub look_every: Duration,
    /// The clock of the bridge.
    pub clock: Clock,
}

impl Default for Pace {
    /// A frame a minute, a look a second.
    fn default() -> Self {
        Self { frame_every: Duration::from_mins(1), look_every: LOOK_EVERY, clock: Clock::default() }
    }
}

/// A clock: now, Unix ms.
#[derive(Clone)]
pub struct Clock(pub Arc<dyn Fn() -> u64 + Send + Sync>);

impl Default for Clock {
    fn default() -> Self {
        Self(Arc::new(now_ms))
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

/// A round could not be finished; what was told is read anew.
#[derive(Debug, thiserror::Error)]
enum RoundError {
    #[error("the store cannot be read")]
    Store(#[from] StoreError),
    #[error("the broker did not take it")]
    Broker(#[from] BrokerError),
}

/// Writes whenever this bridge holds the lease, until told to stop.
///
/// # Errors
/// [`CoreError`], when the store cannot be read.
pub(crate) async fn run(context: Context, pace: Pace) -> Result<(), CoreError> {
    let (mut lease, stop) = (context.lease.clone(), context.stop.clone());
    let mut caught_up = context.shared.caught_up.subscribe();
    let work = async {
        if caught_up.wait_for(|is| *is).await.is_err() {
            return Ok(());
        }
        let mut keeper = Keeper::new(context, pace);
        keeper.started().await;
        loop {
            let Some(epoch) = keeper.leased(&mut lease).await else { return Ok(()) };
            read_to_end(&keeper.context.shared, &FOLLOWED).await;
            tokio::select! {
                ended = keeper.term(epoch) => ended?,
                _ = lease.wait_for(|held| *held != Some(epoch)) => {}
            }
        }
    };
    tokio::select! {
        () = stop.cancelled() => Ok(()),
        ended = work => ended,
    }
}

struct Keeper {
    context: Context,
    view: View,
    pace: Pace,
    told: Told,
    budget: Budget,
    listening: Listening,
    /// Since when clocks are off that were not told to be; bounded by the number of machines.
    skewed_since: BTreeMap<MachineToken, u64>,
    /// Which turn of `frame_every` the newest frame belongs to.
    turn: Option<u64>,
}

impl Keeper {
    fn new(context: Context, pace: Pace) -> Self {
        let view = View::new(context.shared.clone());
        Self {
            context,
            view,
            pace,
            told: Told::default(),
            budget: Budget::default(),
            listening: Listening::default(),
            skewed_since: BTreeMap::new(),
            turn: None,
        }
    }

    fn now(&self) -> u64 {
        (self.pace.clock.0)()
    }

    /// Sees that what was silent while this bridge heard nothing is not taken for silent. Answers whether it hears now.
    async fn listen(&mut self) -> bool {
        let state = *self.context.shared.link.state().borrow();
        let now = self.now();
        match self.listening.look(now, state) {
            Heard::NotYet => false,
            Heard::Everything => true,
            Heard::Anew => {
                if let Ok(hb) = self.context.shared.link.stream_state(HB).await {
                    let stands = Position { created: hb.created_ms, sequence: hb.last };
                    self.listening.connected(self.now(), state.connects, stands);
                }
                false
            }
        }
    }

    /// Listens until this bridge holds the lease; `None`: it never will.
    async fn leased(&mut self, lease: &mut watch::Receiver<Option<Epoch>>) -> Option<Epoch> {
        let mut looks = interval(self.pace.look_every);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                held = lease.wait_for(Option::is_some) => return held.ok().and_then(|held| *held),
                _ = looks.tick() => {}
            }
            self.listen().await;
        }
    }

    /// Says that this bridge has started. It is said once, by itself; if that is not taken, others say the rest.
    async fn started(&self) {
        let version = env!("CARGO_PKG_VERSION");
        let bridge = self.context.broker.bridge();
        let news =
            News::of(kind::BRIDGE_STARTED, format!("{bridge} has started, with the version {version}"));
        let event = log::event(&self.context, news.with("version", json!(version)), self.now());
        let stored = match log::message(&self.context, &event) {
            Ok(message) => self.context.shared.link.store(message).await.map_err(|error| report(&error)),
            Err(error) => Err(report(&error)),
        };
        if let Err(error) = stored {
            debug!(error, "that this bridge has started is not told");
        }
    }

    /// Works for as long as the lease is held: whoever awaits this drops it then.
    async fn term(&mut self, epoch: Epoch) -> Result<(), CoreError> {
        let mut is_stuck = false;
        let mut is_told = false;
        loop {
            let ended = self.rounds(epoch, &mut is_told).await;
            match ended {
                Ok(()) => {}
                Err(RoundError::Store(error)) => return Err(error.into()),
                Err(error) if is_stuck => debug!(error = report(&error), "events still wait for the broker"),
                Err(error) => {
                    warn!(error = report(&error), "events and frames wait for the broker");
                    is_stuck = true;
                }
            }
            sleep(AGAIN).await;
        }
    }

    /// Reads what was told, then tells and writes, until something fails.
    async fn rounds(&mut self, epoch: Epoch, is_told: &mut bool) -> Result<(), RoundError> {
        self.load().await?;
        let mut looks = interval(self.pace.look_every);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            if !self.listen().await {
                continue;
            }
            if !*is_told {
                let bridge = self.context.broker.bridge();
                let news = News::of(kind::BRIDGE_LEASE, format!("{bridge} dispatches"));
                *is_told = self.tell(news.with("epoch", json!(epoch.0))).await?;
            }
            if self.round().await? {
                self.write().await?;
            }
        }
    }

    /// What was told, as the streams have it.
    async fn load(&mut self) -> Result<(), RoundError> {
        let frames = frames::newest(&self.context).await?;
        let run = self.context.shared.cursor(RUN);
        self.told = Told::of(&frames);
        self.turn = frames.iter().map(|frame| self.turn_of(frame.at)).max();
        if frames.is_empty() {
            // Nobody has told anything here before: what is, is no news.
            self.told.runs = run;
            let now = self.now();
            let memory = self.context.shared.memory();
            for machine in memory.machines.values() {
                self.told.take(machine, now);
            }
        }
        self.told.is_full = log::was_full(&self.context).await?;
        log::catch_up(&self.context, &mut self.told, None).await?;
        // What the last word about lost runs names may be more than this bridge had read when it asked.
        let end = self.context.shared.link.stream_state(RUN).await;
        let end = end.map_err(|source| BrokerError::Stream { name: RUN.to_owned(), source })?;
        self.told.runs = within(self.told.runs, Position { created: end.created_ms, sequence: end.last });
        info!(machines = self.told.machines.len(), event = self.told.events, "telling what happens");
        Ok(())
    }

    /// Tells what there is to tell, of the system first; false: others have told something, and it has to be looked at anew.
    async fn round(&mut self) -> Result<bool, RoundError> {
        let now = self.now();
        self.budget.turn(now);
        if let Some(untold) = self.budget.untold() {
            if !self.tell(untold).await? {
                return Ok(false);
            }
            self.budget.told();
        }
        let is_full = self.context.shared.gauge.is_high();
        if let Some(news) = is_full.filter(|is| *is != self.told.is_full).map(fullness)
            && !self.tell_if_room(news).await?
        {
            return Ok(false);
        }
        if !self.lost_runs().await? {
            return Ok(false);
        }
        for news in self.of_machines() {
            if !self.tell_if_room(news).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn of_machines(&mut self) -> Vec<News> {
        let look = Look { now: self.now(), listening: self.listening.since() };
        let memory = self.context.shared.memory();
        let mut all = Vec::new();
        for (mid, machine) in &memory.machines {
            let known = self.told.machines.get_mut(mid);
            if let Some(known) = known {
                all.extend(news(Some(known), machine, look, &mut self.skewed_since));
                first_heard(known, machine);
            } else {
                all.extend(news(None, machine, look, &mut self.skewed_since));
            }
        }
        all
    }

    /// Tells, or only counts when there was too much of its kind in this minute: then it is taken for told.
    async fn tell_if_room(&mut self, news: News) -> Result<bool, RoundError> {
        if self.budget.take(&news) {
            return self.tell(news).await;
        }
        let now = self.now();
        self.told.apply(&log::event(&self.context, news, now));
        Ok(true)
    }

    async fn tell(&mut self, news: News) -> Result<bool, RoundError> {
        let event = log::event(&self.context, news, self.now());
        Ok(log::append(&self.context, &mut self.told, &event).await?)
    }

    /// Tells of runs that are lost, as far as RUN was read.
    async fn lost_runs(&mut self) -> Result<bool, RoundError> {
        let subjects = all_lost(self.context.broker.ws());
        for _ in 0..LOST_AT_ONCE {
            let read = self.context.shared.cursor(RUN);
            let from = self.told.runs.sequence;
            if read.created != self.told.runs.created || read.sequence <= from {
                return Ok(true);
            }
            let next = self.context.shared.link.next_from_leader(RUN, from + 1, &subjects).await;
            let next = next.map_err(|source| BrokerError::Read { what: "lost runs".to_owned(), source })?;
            let Some(message) = next.filter(|message| message.sequence <= read.sequence) else {
                // Whatever lies between is none.
                self.told.runs = read;
                return Ok(true);
            };
            let position = Position { created: read.created, sequence: message.sequence };
            if let Some(news) = self.lost_run(&message.subject, position).await?
                && !self.tell_if_room(news).await?
            {
                return Ok(false);
            }
            self.told.runs = position;
        }
        Ok(true)
    }

    /// What a fact says that a run is lost, if it is believed and the run has not ended since.
    async fn lost_run(&self, subject: &str, position: Position) -> Result<Option<News>, StoreError> {
        let Ok(Subject::Run(_, mid, cid, _)) = Subject::parse(subject) else { return Ok(None) };
        let (view, of) = (self.view.clone(), mid.clone());
        let run = tokio::task::spawn_blocking(move || view.run(cid, &of)).await;
        let run = run.map_err(|_| StoreError::Damaged("run"))??;
        Ok(run.filter(|run| run.state == RunState::Lost).map(|run| News {
            machine: Some((mid, run.machine.clone())),
            command: Some(cid),
            told_runs: Some(position),
            ..News::of(kind::RUN_LOST, format!("nobody knows how a run on {} ended", run.machine))
        }))
    }

    fn turn_of(&self, at: u64) -> u64 {
        let every = u64::try_from(self.pace.frame_every.as_millis()).unwrap_or(u64::MAX);
        at / every.max(1)
    }

    /// Writes frames when it is time.
    async fn write(&mut self) -> Result<(), RoundError> {
        let now = self.now();
        let turn = self.turn_of(now);
        if self.turn == Some(turn) {
            return Ok(());
        }
        frames::write(&self.context, &self.told, now).await?;
        self.turn = Some(turn);
        Ok(())
    }
}

/// Where lost runs have been told to, in the stream that ends at `end`: another stream begins anew, and one that has lost its
/// end tells what comes in its place.
fn within(told: Position, end: Position) -> Position {
    if told.created != end.created {
        return Position { created: end.created, sequence: 0 };
    }
    Position { created: end.created, sequence: told.sequence.min(end.sequence) }
}

fn fullness(is_full: bool) -> News {
    if is_full {
        News::of(kind::STREAM_NEARLY_FULL, format!("stream {RUN} is more than half full"))
    } else {
        News::of(kind::STREAM_RELIEVED, format!("stream {RUN} has room again"))
    }
    .with("stream", json!(RUN))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::same((1, 5), (1, 9), (1, 5))]
    #[case::lost_its_end((1, 9), (1, 5), (1, 5))]
    #[case::made_anew((1, 5), (2, 9), (2, 0))]
    fn lost_runs_are_told_within_the_stream(
        #[case] told: (u64, u64),
        #[case] end: (u64, u64),
        #[case] expected: (u64, u64),
    ) {
        let position = |(created, sequence)| Position { created, sequence };
        assert_eq!(within(position(told), position(end)), position(expected));
    }
}
