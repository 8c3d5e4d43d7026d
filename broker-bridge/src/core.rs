//! The parts of the bridge that keep and change state, put together: projection, lease, dispatcher, deadlines,
//! history. Fronts use [`Core::view`] to read and [`Core::broker`] to write.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::{Duration, UNIX_EPOCH},
};

use bytes::Bytes;
use signalbox_link::Link;
use signalbox_schemas::{
    audit::Reached,
    error::report,
    id::{BridgeId, Workspace},
    limit,
    mailbox::Position,
    signed::{PublicKey, SigningKey},
    stream,
};
use tokio::{
    sync::{Notify, broadcast, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::{
    audit::{self, refusals::Refusals},
    broker_link::{BrokerError, BrokerLink, until_answered},
    chronicle, deadline, dispatcher, done,
    gauge::{self, Gauge},
    held, ingest,
    ingest::decode::Decoder,
    lease::{self, Lease},
    projection::memory::Memory,
    rollout,
    store::{Store, StoreError},
    view::{Change, Cursors, View},
    waiters::Waiters,
};

/// Tellings that a slow reader may fall behind before it is told to read everything again, and changes of one telling. A
/// command to 10,000 machines makes 30,000 changes with its output, read in large batches: some 2,000 tellings.
const TELLINGS: usize = 4_096;
const CHANGES_AT_ONCE: usize = 16;
/// Memory for young output chunks, bytes: live output is read from here and not from the broker.
const CACHE_BYTES: usize = 32 * 1024 * 1024;
/// What an entry takes beside its body, about: a chunk may be a single byte.
const CACHE_ENTRY_BYTES: usize = 128;

/// What the core needs to know.
#[derive(Debug)]
pub struct CoreConfig {
    /// The workspace.
    pub ws: Workspace,
    /// This bridge.
    pub bridge: BridgeId,
    /// This bridge's signing key.
    pub key: Arc<SigningKey>,
    /// The pinned fleet key: who signs authors documents.
    pub fleet_key: PublicKey,
    /// Where the view is kept; may be deleted while the bridge is stopped.
    pub data: PathBuf,
    /// How long a run must have been settled before it is written to DONE, and how long RUN and CMD are kept
    /// beyond that. An hour; tests make it shorter.
    pub history_after: Duration,
    /// How long after claim time and `timeout_ms` a run without an exit is `lost`. What the contract says; tests
    /// make it shorter.
    pub lost_grace: Duration,
    /// How often events are looked for and frames of the history of figures are written; tests have it more often.
    pub chronicle: chronicle::Pace,
}

impl CoreConfig {
    /// With the times that the contract names.
    pub fn new(
        ws: Workspace,
        bridge: BridgeId,
        key: Arc<SigningKey>,
        fleet_key: PublicKey,
        data: PathBuf,
    ) -> Self {
        let history_after = Duration::from_millis(limit::HOUR_MS);
        let lost_grace = Duration::from_millis(limit::LOST_GRACE_MS);
        let chronicle = chronicle::Pace::default();
        Self { ws, bridge, key, fleet_key, data, history_after, lost_grace, chronicle }
    }
}

/// The core cannot start, or cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum CoreError {
    /// The store failed.
    #[error("the store of the view failed")]
    Store(#[from] StoreError),
    /// The broker refused something that must be.
    #[error("the broker is not as it must be")]
    Broker(#[from] BrokerError),
    /// A stream is not the one that was read: it was made anew, or has lost its end. The view speaks of what is no more,
    /// and was discarded; a new core reads everything again.
    #[error("stream {0} is not the one that was read")]
    StreamLost(&'static str),
    /// A task ended by itself.
    #[error("task `{0}` ended")]
    Ended(&'static str),
}

/// Whether this bridge dispatches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Epoch(pub u64);

/// The running core.
#[derive(Debug)]
pub struct Core {
    /// The read side.
    pub view: View,
    /// The write side.
    pub broker: BrokerLink,
    /// Since which epoch this bridge dispatches; `None` = another one does, or nobody.
    pub lease: watch::Receiver<Option<Epoch>>,
    tasks: JoinSet<Result<(), CoreError>>,
}

impl Core {
    /// Makes the streams that are missing, opens the store and starts every task. All of them end with `stop`. Waits
    /// for a broker that does not answer.
    ///
    /// # Errors
    /// [`CoreError`], when the store cannot be opened or a stream is not as it must be.
    pub async fn start(link: Link, config: CoreConfig, stop: CancellationToken) -> Result<Self, CoreError> {
        let broker =
            BrokerLink::new(link.clone(), config.ws.clone(), config.bridge.clone(), config.key.clone());
        until_answered(|| broker.ensure_streams()).await?;
        let decoder = Decoder { ws: config.ws.clone(), fleet_key: config.fleet_key.clone() };
        let identity = format!("{} {}", config.ws, config.fleet_key);
        let data = config.data.clone();
        let lost_grace = config.lost_grace;
        let opened = tokio::task::spawn_blocking(move || {
            let store = Store::open(&data, &identity)?;
            let memory = Memory::load(&store, lost_grace)?;
            Ok::<_, StoreError>((store, memory))
        });
        let (store, memory) = opened.await.map_err(|_| CoreError::Ended("open"))??;
        let shared = Arc::new(Shared::new(link, decoder, store, memory)?);
        let (lease, held) = Lease::new(broker.clone());
        // Nobody has set it before.
        let _ = shared.lease.set(held.clone());
        let mut tasks = JoinSet::new();
        ingest::spawn(&shared, &broker, &stop, &mut tasks);
        tasks.spawn(lease::run(lease, stop.clone()));
        tasks.spawn(until_broken(shared.store.clone(), stop.clone()));
        let context = Context { shared: shared.clone(), broker: broker.clone(), lease: held.clone(), stop };
        tasks.spawn(held::run(context.clone()));
        tasks.spawn(audit::run(context.clone()));
        tasks.spawn(gauge::run(context.clone()));
        tasks.spawn(chronicle::run(context.clone(), config.chronicle));
        tasks.spawn(dispatcher::run(context.clone()));
        tasks.spawn(deadline::run(context.clone()));
        tasks.spawn(rollout::run(context.clone()));
        tasks.spawn(done::run(context, config.history_after));
        Ok(Self { view: View::new(shared), broker, lease: held, tasks })
    }

    /// Waits until every task has ended, as they do when they are told to stop, then writes out the store. If
    /// one ends before, the others are stopped and its error is answered.
    ///
    /// # Errors
    /// [`CoreError`]: of the first task that failed.
    pub async fn join(mut self, stop: &CancellationToken) -> Result<(), CoreError> {
        let mut result = Ok(());
        while let Some(ended) = self.tasks.join_next().await {
            let ended = ended.unwrap_or(Err(CoreError::Ended("panicked")));
            if let (Err(cause), true) = (ended, result.is_ok()) {
                error!(error = report(&cause), "core failed");
                result = Err(cause);
                stop.cancel();
            }
        }
        let store = self.view.shared().store.clone();
        if let Ok(Err(cause)) = tokio::task::spawn_blocking(move || store.close()).await {
            result = result.and(Err(cause.into()));
        }
        info!("core stopped");
        result
    }
}

/// Ends the core with the first read or write of the store that fails, whoever asked for it: a front only asks again.
async fn until_broken(store: Store, stop: CancellationToken) -> Result<(), CoreError> {
    match stop.run_until_cancelled(store.broken()).await {
        Some(error) => Err(error.into()),
        None => Ok(()),
    }
}

/// What the tasks that act need.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) shared: Arc<Shared>,
    pub(crate) broker: BrokerLink,
    pub(crate) lease: watch::Receiver<Option<Epoch>>,
    pub(crate) stop: CancellationToken,
}

impl Context {
    /// The epoch in which this bridge dispatches.
    pub(crate) fn epoch(&self) -> Option<Epoch> {
        *self.lease.borrow()
    }
}

/// State that all tasks share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) link: Link,
    pub(crate) decoder: Decoder,
    pub(crate) store: Store,
    memory: RwLock<Memory>,
    pub(crate) cursors: watch::Sender<Cursors>,
    pub(crate) caught_up: watch::Sender<bool>,
    changes: broadcast::Sender<Arc<[Change]>>,
    pub(crate) cache: Mutex<ChunkCache>,
    pub(crate) counters: Counters,
    pub(crate) gauge: Gauge,
    /// The dispatcher has something to look at.
    pub(crate) dispatch: Notify,
    /// The deadline keeper has something to look at.
    pub(crate) deadline: Notify,
    /// There is another command that is held back.
    pub(crate) held: Notify,
    /// Something of a command that spreads in waves has changed.
    pub(crate) rollout: Notify,
    /// Those who wait for a machine's work.
    pub(crate) waiters: Waiters,
    /// What was refused and is yet to be entered into the audit chain.
    pub(crate) refusals: Refusals,
    /// Up to which command the audit chain goes, as far as this bridge has written it.
    pub(crate) audited: watch::Sender<Reached>,
    /// Since which epoch this bridge dispatches; absent before it tries to.
    pub(crate) lease: OnceLock<watch::Receiver<Option<Epoch>>>,
    /// Since when it runs, Unix ms.
    pub(crate) since: u64,
}

impl Shared {
    fn new(link: Link, decoder: Decoder, store: Store, memory: Memory) -> Result<Self, StoreError> {
        let mut cursors = Cursors::default();
        for name in ingest::FOLLOWED {
            cursors.set(name, store.cursor(name)?);
        }
        Ok(Self {
            link,
            decoder,
            store,
            memory: RwLock::new(memory),
            cursors: watch::Sender::new(cursors),
            caught_up: watch::Sender::new(false),
            changes: broadcast::Sender::new(TELLINGS),
            cache: Mutex::default(),
            counters: Counters::default(),
            gauge: Gauge::default(),
            dispatch: Notify::new(),
            deadline: Notify::new(),
            held: Notify::new(),
            rollout: Notify::new(),
            waiters: Waiters::default(),
            refusals: Refusals::default(),
            audited: watch::Sender::default(),
            lease: OnceLock::new(),
            since: now_ms(),
        })
    }

    /// Tells readers what has changed.
    pub(crate) fn tell(&self, changes: impl IntoIterator<Item = Change>) {
        let changes: Vec<Change> = changes.into_iter().collect();
        for some in changes.chunks(CHANGES_AT_ONCE) {
            // Nobody listening is no error.
            let _ = self.changes.send(some.into());
        }
    }

    /// What changes from now on.
    pub(crate) fn changes(&self) -> broadcast::Receiver<Arc<[Change]>> {
        self.changes.subscribe()
    }

    /// Memory for reading. Held for microseconds; never across an await.
    pub(crate) fn memory(&self) -> RwLockReadGuard<'_, Memory> {
        self.memory.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Memory for writing.
    pub(crate) fn memory_mut(&self) -> RwLockWriteGuard<'_, Memory> {
        self.memory.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where a stream was read to.
    pub(crate) fn cursor(&self, name: &str) -> Position {
        self.cursors.borrow().get(name)
    }

    /// What a mailbox composed now is based on.
    pub(crate) fn basis(&self) -> signalbox_schemas::mailbox::Basis {
        let cursors = self.cursors.borrow();
        signalbox_schemas::mailbox::Basis {
            cmd: cursors.get(stream::CMD),
            kv: cursors.get(stream::STATE),
            run: cursors.get(stream::RUN),
        }
    }
}

/// Young output, by sequence in OUT.
#[derive(Debug, Default)]
pub(crate) struct ChunkCache {
    bodies: BTreeMap<u64, Bytes>,
    bytes: usize,
}

impl ChunkCache {
    pub(crate) fn put(&mut self, sequence: u64, body: &Bytes) {
        // A copy: the original is a slice of a larger read buffer, which it would keep alive.
        let body = Bytes::copy_from_slice(body);
        self.bytes += body.len() + CACHE_ENTRY_BYTES;
        if let Some(replaced) = self.bodies.insert(sequence, body) {
            self.bytes -= replaced.len() + CACHE_ENTRY_BYTES;
        }
        while self.bytes > CACHE_BYTES {
            let Some((_, oldest)) = self.bodies.pop_first() else { break };
            self.bytes -= oldest.len() + CACHE_ENTRY_BYTES;
        }
    }

    pub(crate) fn get(&self, sequence: u64) -> Option<Bytes> {
        self.bodies.get(&sequence).cloned()
    }
}

/// What was refused, dropped or doubled, by reason. Names come from constants, so there are few.
#[derive(Debug, Default)]
pub(crate) struct Counters(Mutex<BTreeMap<String, u64>>);

impl Counters {
    /// Counts one; answers how many there are now.
    pub(crate) fn add(&self, name: &str) -> u64 {
        let mut counters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counters.entry(name.to_owned()).or_default();
        *count += 1;
        *count
    }

    pub(crate) fn all(&self) -> BTreeMap<String, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Now, Unix ms by this machine's clock.
pub fn now_ms() -> u64 {
    let since = UNIX_EPOCH.elapsed().unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A state that reads nothing and a broker without streams, for tests of single parts.
#[cfg(test)]
pub(crate) mod still {
    use nkeys::{KeyPair, KeyPairType};
    use signalbox_link::Options;
    use signalbox_testkit::Broker;
    use tempfile::TempDir;

    use super::*;
    use crate::api::{Api, Settings};

    pub(crate) struct Still {
        pub(crate) context: Context,
        _dir: TempDir,
        _broker: Broker,
    }

    /// A key made from one byte.
    pub(crate) fn key(byte: u8) -> SigningKey {
        let pair = KeyPair::new_from_raw(KeyPairType::User, [byte; 32]).unwrap();
        SigningKey::from_seed(&pair.seed().unwrap()).unwrap()
    }

    impl Still {
        pub(crate) async fn start() -> anyhow::Result<Self> {
            let broker = Broker::start().await?;
            let link = Link::connect(Options::plain(&broker.url(), "still", None)).await?;
            let (ws, bridge) = (Workspace::main(), BridgeId::new("b1")?);
            let dir = tempfile::tempdir()?;
            let store = Store::open(dir.path(), "still")?;
            let memory = Memory::load(&store, Duration::ZERO)?;
            let decoder = Decoder { ws: ws.clone(), fleet_key: key(1).public().clone() };
            let shared = Arc::new(Shared::new(link.clone(), decoder, store, memory)?);
            let broker_link = BrokerLink::new(link, ws, bridge, Arc::new(key(2)));
            let lease = watch::channel(Some(Epoch(1))).1;
            let context = Context { shared, broker: broker_link, lease, stop: CancellationToken::new() };
            Ok(Self { context, _dir: dir, _broker: broker })
        }

        /// The operations of this bridge.
        pub(crate) fn api(&self) -> Arc<Api> {
            let (link, view) = (self.context.broker.link().clone(), View::new(self.context.shared.clone()));
            let (ws, bridge) = (Workspace::main(), self.context.broker.bridge().clone());
            let settings = Settings { ws, bridge, key: Arc::new(key(2)), pepper: [0; 32] };
            Arc::new(Api::new(link.clone(), link, view, settings))
        }
    }
}

#[cfg(test)]
mod tests {
    use signalbox_link::Options;
    use signalbox_testkit::Broker;

    use super::*;

    /// No front ends the bridge, and none has to: whoever reads tells the store.
    #[tokio::test]
    async fn a_read_that_fails_ends_the_core_and_says_why() {
        let broker = Broker::start().await.unwrap();
        let link = Link::connect(Options::plain(&broker.url(), "core", None)).await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        let (key, fleet_key) = (Arc::new(still::key(2)), still::key(1).public().clone());
        let bridge = BridgeId::new("b1").unwrap();
        let config = CoreConfig::new(Workspace::main(), bridge, key, fleet_key, dir.path().to_owned());
        let stop = CancellationToken::new();
        let core = Core::start(link, config, stop.clone()).await.unwrap();
        let view = core.view.clone();
        view.caught_up().await;
        assert!(view.is_sound());
        view.shared().store.break_down();
        assert!(!view.is_sound());
        let ended = tokio::time::timeout(Duration::from_secs(10), core.join(&stop)).await.unwrap();
        let why = ended.unwrap_err();
        assert!(matches!(why, CoreError::Store(StoreError::Io { action: "read", .. })), "{why:?}");
    }

    #[test]
    fn the_cache_forgets_the_oldest_first() {
        let mut cache = ChunkCache::default();
        let body = Bytes::from(vec![0; 1024 * 1024]);
        for sequence in 1..=40 {
            cache.put(sequence, &body);
        }
        assert_eq!(cache.get(9), None);
        assert_eq!(cache.get(10).map(|body| body.len()), Some(1024 * 1024));
        assert!(cache.bytes <= CACHE_BYTES);
    }

    #[test]
    fn single_bytes_do_not_fill_memory() {
        let mut cache = ChunkCache::default();
        let most = CACHE_BYTES / CACHE_ENTRY_BYTES;
        for sequence in 1..=most as u64 + 10 {
            cache.put(sequence, &Bytes::from_static(b"x"));
        }
        assert!(cache.bodies.len() < most, "{} entries", cache.bodies.len());
    }
}
