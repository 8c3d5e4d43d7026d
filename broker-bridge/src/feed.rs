//! Feeds: what a console asked to be told of, for as long as it listens.
//!
//! A feed is one task. It tells what is, then what changes, in messages numbered from 0 without gaps. Output
//! flows against credit, so that a slow console hurts itself only: its feed waits, everybody else's goes on.
//!
//! | a feed ends | and says |
//! |---|---|
//! | when the console closes it | nothing |
//! | when the bridge stops | `closed` |
//! | when output waited [`STALL`] for credit | `closed` |
//! | when the console gave no sign of life for [`UNATTENDED`] | `closed` |
//! | when the connection does not take its messages | nothing: the console misses a number or hears silence |
//! | when there is no room, and the console gave no sign of life for [`FORSAKEN`] | nothing: as above |

mod answer;
mod command;
mod commands;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use signalbox_schemas::{
    api::{FeedEvent, OpenFeed, Watch},
    error::{ErrorCode, Problem},
    id::{OperatorId, RequestId},
    limit::FEED_ALIVE_MS,
};
use tokio::{
    sync::{
        Notify,
        broadcast::{
            Receiver,
            error::{RecvError, TryRecvError},
        },
    },
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tracing::debug;

pub(crate) use self::answer::Answers;
use crate::{
    api::{Api, Caller},
    view::Change,
};

/// Open feeds of one operator. A console needs one per window.
const PER_OPERATOR: usize = 64;
/// Open feeds in all: each is a task of some 10 KB, about 1 KB for each run that it has told of, and 4 chunks of output
/// while it reads.
const IN_ALL: usize = 1024;
/// Output that waits longer than this for credit waits for nobody.
const STALL: Duration = Duration::from_secs(30);
/// A console that was killed closes nothing, and a quiet feed never runs out of credit: without any sign of
/// life its feed ends after this, and a console that lives opens it anew.
const UNATTENDED: Duration = Duration::from_mins(10);
/// Where there is no room for one more, a feed without a sign of life for this long makes room: a console that lives
/// gives one every 10 s.
const FORSAKEN: Duration = Duration::from_secs(30);
/// Changes looked at before a feed turns to something else.
const BATCH: usize = 1024;
/// An open feed speaks this often.
const ALIVE: Duration = Duration::from_millis(FEED_ALIVE_MS);

/// All open feeds of this bridge.
pub(crate) struct Feeds {
    api: Arc<Api>,
    open: Arc<Open>,
    stop: CancellationToken,
}

type Key = (OperatorId, RequestId);

#[derive(Default)]
struct Open(Mutex<HashMap<Key, Arc<Control>>>);

impl Open {
    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Arc<Control>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether one more feed of this operator has room; ends the most forsaken one if only that makes it.
fn make_room(open: &mut HashMap<Key, Arc<Control>>, operator: &OperatorId, now: Instant) -> bool {
    let own = open.keys().filter(|(other, _)| other == operator).count();
    if own < PER_OPERATOR && open.len() < IN_ALL {
        return true;
    }
    let counts = |key: &Key| own < PER_OPERATOR || key.0 == *operator;
    let candidates = open.iter().filter(|(key, _)| counts(key));
    let oldest = candidates.map(|(key, control)| (control.heard_at(), key)).min_by_key(|(at, _)| *at);
    let Some((_, key)) = oldest.filter(|(at, _)| now.duration_since(*at) >= FORSAKEN) else { return false };
    let key = key.clone();
    if let Some(control) = open.remove(&key) {
        control.closed.cancel();
    }
    true
}

/// What a console has told its feed.
struct Control {
    /// Output bytes that may be sent, since the feed was opened.
    credited: AtomicU64,
    /// Grows with each sign of life.
    signs: AtomicU64,
    /// When the last one came.
    heard_at: Mutex<Instant>,
    /// Woken when one of them grew.
    wake: Notify,
    closed: CancellationToken,
}

impl Control {
    fn new(credit: u64, closed: CancellationToken) -> Self {
        Self {
            credited: AtomicU64::new(credit),
            signs: AtomicU64::new(0),
            heard_at: Mutex::new(Instant::now()),
            wake: Notify::new(),
            closed,
        }
    }

    fn heard_at(&self) -> Instant {
        *self.heard_at.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Feeds {
    pub(crate) fn new(api: Arc<Api>, stop: CancellationToken) -> Self {
        Self { api, open: Arc::default(), stop }
    }

    /// Registers a feed; the caller runs it. `None` when this very feed is open already.
    ///
    /// # Errors
    /// `not_caught_up`, or `rate_limited` when there are too many.
    pub(crate) fn open(
        &self,
        caller: &Caller,
        operator: OperatorId,
        rid: RequestId,
        args: OpenFeed,
    ) -> Result<Option<Feed>, Problem> {
        caller.may_watch()?;
        let mut open = self.open.lock();
        let key = (operator, rid);
        if open.contains_key(&key) {
            return Ok(None);
        }
        if !make_room(&mut open, &key.0, Instant::now()) {
            let message = "cannot open a feed: too many are open; close one, or try again later";
            return Err(Problem::new(ErrorCode::RateLimited, message));
        }
        let control = Arc::new(Control::new(args.credit, self.stop.child_token()));
        open.insert(key.clone(), Arc::clone(&control));
        let registration = Registration { open: Arc::clone(&self.open), key, control: Arc::clone(&control) };
        Ok(Some(Feed { api: Arc::clone(&self.api), control, stop: self.stop.clone(), registration, args }))
    }

    /// More output may come.
    pub(crate) fn credit(&self, operator: &OperatorId, rid: &RequestId, bytes: u64) {
        if let Some(control) = self.control(operator, rid) {
            let add = |credited: u64| Some(credited.saturating_add(bytes));
            // Always `Some`, hence always set.
            let _ = control.credited.fetch_update(Ordering::AcqRel, Ordering::Acquire, add);
            control.signs.fetch_add(1, Ordering::AcqRel);
            *control.heard_at.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
            control.wake.notify_one();
        }
    }

    /// Nobody listens any more.
    pub(crate) fn close(&self, operator: &OperatorId, rid: &RequestId) {
        if let Some(control) = self.control(operator, rid) {
            control.closed.cancel();
        }
    }

    fn control(&self, operator: &OperatorId, rid: &RequestId) -> Option<Arc<Control>> {
        self.open.lock().get(&(operator.clone(), rid.clone())).cloned()
    }
}

/// Takes the feed off the list when it ends, however it ends.
struct Registration {
    open: Arc<Open>,
    key: Key,
    control: Arc<Control>,
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut open = self.open.lock();
        // One that had to make room may have a successor under the same key.
        if open.get(&self.key).is_some_and(|control| Arc::ptr_eq(control, &self.control)) {
            open.remove(&self.key);
        }
    }
}

/// A registered feed, to be run.
pub(crate) struct Feed {
    api: Arc<Api>,
    control: Arc<Control>,
    stop: CancellationToken,
    registration: Registration,
    args: OpenFeed,
}

/// Why a feed ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The console closed it, or it was refused with its only answer.
    Closed,
    /// The bridge stops.
    Stopped,
    /// Output waited too long for credit.
    Stalled,
    /// No sign of life for too long.
    Unattended,
    /// The store or the broker could not be read.
    Unreadable,
    /// The connection took no message.
    Unsent,
}

impl End {
    fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Stopped => "stopped",
            Self::Stalled => "stalled",
            Self::Unattended => "unattended",
            Self::Unreadable => "unreadable",
            Self::Unsent => "unsent",
        }
    }
}

impl Feed {
    /// Runs until it ends.
    pub(crate) async fn run(self) {
        let Self { api, control, stop, registration, args } = self;
        let (operator, rid) = &registration.key;
        let mut answers = Answers::new(&api, operator, rid);
        let listener = Listener::new(control, stop);
        let end = match args.watch {
            Watch::Command { id, output, ended_bytes } => {
                let pump = output.then(|| command::Pump::after(args.position.unwrap_or(0), ended_bytes));
                command::run(&api, &mut answers, listener, id, pump).await
            }
            Watch::Commands => commands::run(&api, &mut answers, listener).await,
        };
        if matches!(end, End::Stopped | End::Stalled | End::Unattended | End::Unreadable) {
            // If this is not taken either, the console hears silence and opens it anew.
            let _ = answers.event(&FeedEvent::Closed).await;
        }
        api.count("feed", end.name());
        debug!(%operator, end = end.name(), "feed ended");
    }
}

/// The console's side of a feed, as the feed sees it.
struct Listener {
    control: Arc<Control>,
    stop: CancellationToken,
    signs: u64,
    signed_at: Instant,
}

impl Listener {
    fn new(control: Arc<Control>, stop: CancellationToken) -> Self {
        Self { control, stop, signs: 0, signed_at: Instant::now() }
    }

    /// Output bytes that may be sent since the feed was opened.
    fn credited(&self) -> u64 {
        self.control.credited.load(Ordering::Acquire)
    }

    /// Whether the feed must end now.
    fn end(&mut self) -> Option<End> {
        let signs = self.control.signs.load(Ordering::Acquire);
        if signs != self.signs {
            (self.signs, self.signed_at) = (signs, Instant::now());
        }
        if self.stop.is_cancelled() {
            Some(End::Stopped)
        } else if self.control.closed.is_cancelled() {
            Some(End::Closed)
        } else {
            (self.signed_at.elapsed() >= UNATTENDED).then_some(End::Unattended)
        }
    }

    /// When it was last heard of.
    fn signed_at(&self) -> Instant {
        self.signed_at
    }

    /// Returns when the console has told something or the bridge stops. Cancel safe.
    async fn told(&self) {
        tokio::select! {
            // Stopping cancels this one too.
            () = self.control.closed.cancelled() => {}
            () = self.control.wake.notified() => {}
        }
    }
}

/// Changes that came together.
#[derive(Default)]
struct Batch {
    changes: Vec<Change>,
    /// Some were missed: read everything again.
    lagged: bool,
}

/// Waits for a change and takes those that are there already; `None` when the view is gone. Cancel safe.
async fn changed(changes: &mut Receiver<Arc<[Change]>>) -> Option<Batch> {
    let mut batch = Batch::default();
    match changes.recv().await {
        Ok(some) => batch.changes.extend(some.iter().cloned()),
        Err(RecvError::Lagged(_)) => batch.lagged = true,
        Err(RecvError::Closed) => return None,
    }
    take_ready(changes, &mut batch);
    Some(batch)
}

/// Takes changes that are there already.
fn take_ready(changes: &mut Receiver<Arc<[Change]>>, batch: &mut Batch) {
    while batch.changes.len() < BATCH {
        match changes.try_recv() {
            Ok(some) => batch.changes.extend(some.iter().cloned()),
            Err(TryRecvError::Lagged(_)) => batch.lagged = true,
            Err(TryRecvError::Empty | TryRecvError::Closed) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forsaken_feed_makes_room_and_a_living_one_does_not() {
        let [ours, theirs] = ["ours", "theirs"].map(|id| OperatorId::new(id).unwrap());
        let key = |n: usize| (ours.clone(), RequestId::new(format!("request-{n}")).unwrap());
        let mut open: HashMap<Key, Arc<Control>> = (0..PER_OPERATOR)
            .map(|n| (key(n), Arc::new(Control::new(0, CancellationToken::new()))))
            .collect();
        let then = Instant::now();
        assert!(make_room(&mut open, &theirs, then));
        assert!(!make_room(&mut open, &ours, then));
        let later = Instant::now() + FORSAKEN;
        for (other, control) in &open {
            *control.heard_at.lock().unwrap() = if *other == key(7) { then } else { later };
        }
        let forsaken = Arc::clone(&open[&key(7)]);
        assert!(make_room(&mut open, &ours, later));
        assert!(forsaken.closed.is_cancelled() && !open.contains_key(&key(7)));
        assert_eq!(open.len(), PER_OPERATOR - 1);
    }

    #[test]
    fn an_evicted_feed_leaves_its_successor_alone() {
        let key = (OperatorId::new("ours").unwrap(), RequestId::new("request-1").unwrap());
        let open = Arc::new(Open::default());
        let register = || {
            let control = Arc::new(Control::new(0, CancellationToken::new()));
            open.lock().insert(key.clone(), Arc::clone(&control));
            Registration { open: Arc::clone(&open), key: key.clone(), control }
        };
        let evicted = register();
        let successor = register();
        drop(evicted);
        assert!(open.lock().contains_key(&key), "it was taken for its predecessor");
        drop(successor);
        assert!(open.lock().is_empty());
    }
}
