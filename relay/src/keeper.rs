//! The keeper: a small process that owns the processes of the runs, so that the relay may die.
//!
//! One per store, started by the first relay that finds none, outliving it. It holds the pipes, the spool and
//! the exit statuses, and it alone starts anything: every id it was ever told to start is started once. It
//! knows nothing of NATS, signatures or policy. It ends when it is told to, or when its lock file is no longer
//! its own, and then its children end with it.
//!
//! | room | holds |
//! |---|---|
//! | [`protocol`] | what relay and keeper say to each other |
//! | [`client`] | the relay's side of the connection |
//! | `connection` | the keeper's side of it |
//! | `store` | folder, lock, socket address |
//! | `board` | which runs there are and how they stand |
//! | `run`, `remote` | one run from start to recorded end, on this machine and on another host |
//! | `record`, `ending` | what both have in common |
//! | `rest` | how long output is heard that comes after its command's end; pure |
//! | `open` | which runs are open, for the next keeper |
//! | `process` | starting, signalling and reaping processes |
//! | [`spool`] | output on disk |
//! | [`reap`] | ending processes of a keeper that is gone |
//!
//! Everything runs on one thread; nothing in it is shared with another.

mod board;
pub mod client;
mod connection;
mod ending;
mod error;
mod open;
mod process;
pub mod protocol;
pub mod reap;
mod record;
mod remote;
mod rest;
mod run;
pub mod spool;
mod store;

use std::{
    cell::RefCell,
    fs::{self, File, Permissions},
    io::{self, Read as _},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    rc::Rc,
    time::Duration,
};

use rustix::fs::FileType;
use signalbox_link::crash::{Part, Point, hit};
use signalbox_schemas::{
    id::{CommandId, Nonce},
    limit,
    output::OutputStream,
};
use tokio::{
    net::UnixListener,
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    task::{JoinError, JoinSet, LocalSet},
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};

pub use error::KeeperError;
pub(crate) use process::signal_number;
pub use process::{KEEPER_VARIABLE, RUN_VARIABLE, STORE_VARIABLE};
pub(crate) use store::{identity, make_private_folder};

use board::{Admission, Board};
use connection::{Asked, Identity};
use open::OpenRuns;
use process::{Group, Reaper};
use protocol::{Cause, End, Phase, Refusal, RunStatus, StartRun, StreamStatus, ToKeeper, ToRelay};
use record::Record;
use remote::RemoteRun;
use run::{Run, Shared};
use spool::{RunSpool, Spool};
use store::{Lock, Store};

use crate::{clock::unix_ms, ssh::route::Route};

/// How often the keeper looks whether its lock file and its socket are still its own: children end within 1 s of the
/// loss of the one, and relays find the other again.
const LOCK_CHECK: Duration = Duration::from_millis(500);
/// Children have this long between TERM and KILL when the keeper itself is told to end.
const SHUTDOWN_TERM_GRACE: Duration = Duration::from_secs(1);
/// Killed children are gone well within this time; the keeper ends anyway after it.
const SHUTDOWN_KILL_GRACE: Duration = Duration::from_millis(300);
/// How often ending children are looked at.
const SHUTDOWN_POLL: Duration = Duration::from_millis(5);
/// Longest search for processes that left their group, when the keeper ends.
const SHUTDOWN_SEARCH: Duration = Duration::from_millis(500);
/// Relays connected at once: one, and its successor while it dies, and people who look.
const MAX_CONNECTIONS: usize = 8;
/// Requests waiting to be served, over all connections; more wait in their sockets.
const WAITING_REQUESTS: usize = 16;
/// Threads for what blocks: names that are resolved, keys that are opened, known hosts, and searches for processes.
const MAX_BLOCKING_THREADS: usize = 64;
/// The log of keepers is dropped above this: it lies in the store, beside what must be written.
const MAX_LOG_BYTES: u64 = 256 * 1024;
/// Longest text about a failed start.
const MAX_MESSAGE_CHARS: usize = 200;

/// Runs the keeper of `store` until it is told to end. Logs to `tracing`; the caller installs the subscriber.
///
/// # Errors
/// [`KeeperError`] when it could not begin, or ended because it had to.
pub fn main_blocking(store: &Path) -> Result<(), KeeperError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(MAX_BLOCKING_THREADS)
        .build();
    let runtime = runtime.map_err(|source| KeeperError::System { what: "no runtime", source })?;
    let ended = LocalSet::new().block_on(&runtime, async {
        let mut keeper = Keeper::begin(store)?;
        keeper.end_left_behind().await;
        let reason = keeper.serve().await;
        keeper.end(reason).await
    });
    // A name that is looked up, or a file of known hosts on a disk that hangs, must not hold the end.
    runtime.shutdown_background();
    ended
}

/// Why a keeper ends.
enum Reason {
    /// By a signal or a `shutdown`.
    Told,
    LockLost,
    Panicked(JoinError),
}

/// What the keeper is told by the system.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    child: Signal,
    /// Listened to only so that a closed terminal does not end the keeper, and its children do not ignore it.
    _hangup: Signal,
}

struct Keeper {
    store: Store,
    lock: Lock,
    listener: UnixListener,
    socket: (u64, u64),
    /// Whether relays cannot find this keeper just now.
    is_hidden: bool,
    signals: Signals,
    identity: Identity,
    shared: Rc<Shared>,
    spool: Rc<Spool>,
    asked: (mpsc::Sender<Asked>, mpsc::Receiver<Asked>),
    connections: JoinSet<()>,
    runs: JoinSet<()>,
}

impl Keeper {
    fn begin(store: &Path) -> Result<Self, KeeperError> {
        // A session of its own, so that no terminal's signals reach it. Fails when somebody already made it the
        // leader of a group, which serves the same end.
        let _ = rustix::process::setsid();
        let store = Store::open(store)?;
        let identity = Identity { nonce: random()?, instance: random()? };
        let lock = Lock::acquire(&store, identity.instance, unix_ms())?;
        let signals =
            Signals::listen().map_err(|source| KeeperError::System { what: "no signals", source })?;
        Reaper::adopt_orphans().map_err(|source| KeeperError::System { what: "no subreaper", source })?;
        let spool = Spool::open(&store.path(""))
            .map_err(|source| KeeperError::Store { path: store.path("spool"), source })?;
        let (listener, socket) =
            listen(&store).map_err(|source| KeeperError::Listen { path: store.socket_path(), source })?;
        tracing::info!(pid = std::process::id(), instance = %identity.instance, "keeper started");
        let shared = Shared {
            board: Board::default(),
            reaper: Reaper::default(),
            open: OpenRuns::new(&store.path(""), identity.instance),
            pool: Rc::default(),
            buffer: RefCell::new(vec![0; run::READ_BYTES]),
        };
        Ok(Self {
            store,
            lock,
            listener,
            socket,
            is_hidden: false,
            signals,
            identity,
            shared: Rc::new(shared),
            spool: Rc::new(spool),
            asked: mpsc::channel(WAITING_REQUESTS),
            connections: JoinSet::new(),
            runs: JoinSet::new(),
        })
    }

    /// Ends what the open runs of a former keeper of this store left running. The relay does that too, for the keepers
    /// that its journal knows: the journal may have been lost, or set back, together with the keeper.
    async fn end_left_behind(&self) {
        let open = &self.shared.open;
        let former = open.former().unwrap_or_else(|error| {
            tracing::warn!(%error, "record of open runs not read");
            None
        });
        let left =
            reap::end_left_behind(&self.store.path(""), self.identity.instance, former.as_deref()).await;
        if left.ended > 0 || !left.none_left {
            tracing::warn!(ended = left.ended, none_left = left.none_left, "a former keeper left processes");
        }
        // Those that are left all the same are for the keeper after this one.
        let over = former.filter(|_| left.none_left).unwrap_or_default();
        if let Err(error) = open.begin(&over) {
            tracing::warn!(%error, "open runs are not recorded");
        }
    }

    async fn serve(&mut self) -> Reason {
        let mut lock_check = interval(LOCK_CHECK);
        lock_check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                Some(()) = self.signals.terminate.recv() => return Reason::Told,
                Some(()) = self.signals.interrupt.recv() => return Reason::Told,
                _ = lock_check.tick() => {
                    if !self.lock.is_in_place() {
                        return Reason::LockLost;
                    }
                    self.stay_reachable();
                    self.bound_log();
                }
                Some(()) = self.signals.child.recv() => self.shared.reaper.collect(),
                Some(ended) = self.runs.join_next() => if let Err(error) = ended {
                    // A run nobody follows would go on for ever: better that all of them are `lost`.
                    return Reason::Panicked(error);
                },
                Some(ended) = self.connections.join_next() => if let Err(error) = ended {
                    tracing::error!(%error, "connection task panicked");
                },
                Some(asked) = self.asked.1.recv() => if self.answer(asked).is_break() { return Reason::Told },
                accepted = self.listener.accept() => self.accept(accepted.map(|(stream, _)| stream)),
            }
        }
    }

    /// Listens anew when the socket was removed or replaced: nobody else may serve this store while the lock is held, so
    /// without it the machine would have no keeper that can be reached, and could have no other one.
    fn stay_reachable(&mut self) {
        if self.is_socket_in_place() {
            return;
        }
        match listen(&self.store) {
            Ok((listener, socket)) => {
                (self.listener, self.socket, self.is_hidden) = (listener, socket, false);
                tracing::warn!("socket was gone, listening anew");
            }
            Err(error) => {
                if !std::mem::replace(&mut self.is_hidden, true) {
                    tracing::error!(%error, "socket is gone and cannot be made anew");
                }
            }
        }
    }

    /// Drops the log when it is too long, also one that was removed while it is written to. It is opened for appending,
    /// so what is written next stands at its beginning. Standard error that is something else is not touched.
    fn bound_log(&self) {
        let Ok(log) = rustix::fs::fstat(io::stderr()) else { return };
        let is_large = u64::try_from(log.st_size).is_ok_and(|bytes| bytes > MAX_LOG_BYTES);
        let is_file = FileType::from_raw_mode(log.st_mode) == FileType::RegularFile;
        if !is_large || !is_file {
            return;
        }
        let at_its_place = fs::symlink_metadata(self.store.log_path()).is_ok_and(|found| {
            let (device, inode) = store::identity(&found);
            log.st_dev == device && log.st_ino == inode
        });
        if at_its_place || log.st_nlink == 0 {
            match rustix::fs::ftruncate(io::stderr(), 0) {
                Ok(()) => tracing::info!("log was too long and begins anew"),
                Err(error) => tracing::debug!(%error, "log not dropped"),
            }
        }
    }

    fn is_socket_in_place(&self) -> bool {
        fs::symlink_metadata(self.store.socket_path()).is_ok_and(|it| store::identity(&it) == self.socket)
    }

    fn accept(&mut self, accepted: io::Result<tokio::net::UnixStream>) {
        match accepted {
            Ok(stream) if self.connections.len() < MAX_CONNECTIONS => {
                let (shared, asked_tx) = (Rc::clone(&self.shared), self.asked.0.clone());
                self.connections.spawn_local(connection::serve(stream, self.identity, shared, asked_tx));
            }
            Ok(_) => tracing::warn!("connection above the limit refused"),
            Err(error) => tracing::warn!(%error, "connection not accepted"),
        }
    }

    /// Does what a relay asked for. Breaks when that is to end.
    fn answer(&mut self, asked: Asked) -> std::ops::ControlFlow<()> {
        let refused = |cid, reason| ToRelay::Refused { cid, reason };
        let answer = match asked.message {
            ToKeeper::Start(start) => {
                let cid = start.cid;
                let started = self.start(&start);
                Some(started.map_or_else(|reason| refused(cid, reason), |()| ToRelay::Started { cid }))
            }
            ToKeeper::Forget { cid } => match self.shared.board.forget(cid) {
                Ok(()) => {
                    self.spool.forget(cid);
                    None
                }
                Err(reason) => Some(refused(cid, reason)),
            },
            ToKeeper::Cancel { cid } => {
                self.shared.board.cancel(cid);
                None
            }
            ToKeeper::Decline { cid, expires_at } => {
                self.shared.board.decline(cid, expires_at);
                None
            }
            ToKeeper::Shutdown => return std::ops::ControlFlow::Break(()),
            ToKeeper::Hello { .. } => None,
        };
        if let Some(answer) = answer {
            asked.answer.send(answer);
        }
        std::ops::ControlFlow::Continue(())
    }

    /// Starts a run, unless it was started before.
    fn start(&mut self, start: &StartRun) -> Result<(), Refusal> {
        let board = &self.shared.board;
        board.prune_when_short(unix_ms());
        if matches!(board.admit(start.cid, start.expires_at)?, Admission::Known) {
            return Ok(());
        }
        if !limit::TIMEOUT_MS.contains(&start.timeout_ms) || is_bad_route(start.route.as_deref()) {
            return Err(Refusal::Invalid);
        }
        let (started, started_at_ms) = (Instant::now(), unix_ms());
        let stream = StreamStatus::default();
        let mut status = RunStatus {
            cid: start.cid,
            phase: Phase::Running,
            started_at_ms,
            begun_at_ms: None,
            pid: None,
            stdout: stream,
            stderr: stream,
            end: None,
        };
        let spool = RunSpool::new(Rc::clone(&self.spool), start.cid, start.max_output);
        if let Some(route) = &start.route {
            self.start_remote(start, (**route).clone(), status, spool);
            return Ok(());
        }
        let place = self.store.path("");
        let mark = (!start.leave_children).then_some(place.as_path());
        let instance = self.identity.instance;
        self.shared.open.add(start.cid);
        let folder = start.folder.as_deref().map(Path::new);
        let shell = match self.shared.reaper.spawn(start.cid, &start.command, folder, instance, mark) {
            Ok(shell) => shell,
            Err(error) => {
                end_without_a_start(&mut status, spool, &error);
                self.shared.board.insert(status, None, start.expires_at);
                self.shared.open.remove(start.cid);
                return Ok(());
            }
        };
        hit(Part::Keeper, Point::Spawned);
        status.pid = Some(shell.group.pid());
        tracing::debug!(cid = %start.cid, pid = shell.group.pid(), "run started");
        let cancel = self.shared.board.insert(status.clone(), Some(shell.group), start.expires_at);
        let run = Run {
            record: Record::new(Rc::clone(&self.shared), status, spool, started),
            timeout: Duration::from_millis(start.timeout_ms),
            leave_children: start.leave_children,
            await_pipes: start.await_pipes,
            group: shell.group,
            exit: shell.exit,
            cancel,
            pipes: shell.pipes.map(Some),
        };
        self.runs.spawn_local(run.follow());
        Ok(())
    }

    /// Starts a run on another host.
    fn start_remote(&mut self, start: &StartRun, route: Route, status: RunStatus, spool: RunSpool) {
        tracing::debug!(cid = %start.cid, place = %route.place(), "run on another host");
        let cancel = self.shared.board.insert(status.clone(), None, start.expires_at);
        let run = RemoteRun {
            record: Record::new(Rc::clone(&self.shared), status, spool, Instant::now()),
            timeout: Duration::from_millis(start.timeout_ms),
            await_pipes: start.await_pipes,
            mark: format!("{}.{}", self.identity.instance, start.cid),
            cancel,
        };
        self.runs.spawn_local(run.follow(route, start.command.clone()));
    }

    /// Ends all children, removes what is this keeper's own, and says why. Commands on other hosts are sent TERM, and what does
    /// not end by that before the keeper does may go on there: nothing is left here that could end it.
    async fn end(self, reason: Reason) -> Result<(), KeeperError> {
        let runs = self.shared.board.close();
        if matches!(reason, Reason::Told) {
            for (_, group) in &runs {
                group.terminate();
            }
            self.wait_until_empty(&runs, SHUTDOWN_TERM_GRACE).await;
        }
        for (_, group) in runs.iter().filter(|(_, group)| !group.is_empty()) {
            group.kill();
        }
        self.wait_until_empty(&runs, SHUTDOWN_KILL_GRACE).await;
        let cids: Vec<_> = runs.iter().map(|(cid, _)| *cid).collect();
        if !cids.is_empty() {
            let search = reap::end_marked(self.identity.instance, &cids);
            match timeout(SHUTDOWN_SEARCH, search).await {
                Ok(ended) if ended.none_left => cids.iter().for_each(|cid| self.shared.open.remove(*cid)),
                _ => tracing::warn!("processes that left their group may be left"),
            }
        }
        let lost = KeeperError::LockLost { path: self.store.lock_path() };
        if self.is_socket_in_place() {
            drop(fs::remove_file(self.store.socket_path()));
        }
        let path = self.store.lock_path();
        self.lock.release().map_err(|source| KeeperError::Lock { path, source })?;
        let remote = self.shared.board.remote_runs();
        if remote > 0 {
            tracing::warn!(remote, "commands on other hosts were asked to end, and may go on");
        }
        tracing::info!(runs = runs.len(), "keeper ended");
        match reason {
            Reason::Told => Ok(()),
            Reason::LockLost => Err(lost),
            Reason::Panicked(error) => Err(KeeperError::Panicked(error)),
        }
    }

    /// Waits for the end of these runs, and of those on other hosts.
    async fn wait_until_empty(&self, runs: &[(CommandId, Group)], limit: Duration) {
        let until = Instant::now() + limit;
        loop {
            self.shared.reaper.collect();
            let none_left =
                runs.iter().all(|(_, group)| group.is_empty()) && self.shared.board.remote_runs() == 0;
            if none_left || Instant::now() >= until {
                return;
            }
            sleep(SHUTDOWN_POLL).await;
        }
    }
}

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            child: signal(SignalKind::child())?,
            _hangup: signal(SignalKind::hangup())?,
        })
    }
}

/// Whether there is a route, and it is out of range.
fn is_bad_route(route: Option<&Route>) -> bool {
    route.is_some_and(|route| {
        route.validate().inspect_err(|error| tracing::warn!(%error, "route refused")).is_err()
    })
}

/// Ends a run as it began: its shell could not be started.
fn end_without_a_start(status: &mut RunStatus, mut spool: RunSpool, error: &io::Error) {
    tracing::info!(cid = %status.cid, %error, "run not started");
    spool.finish();
    status.phase = Phase::Ended;
    status.stdout = spool.status(OutputStream::Stdout);
    status.stderr = spool.status(OutputStream::Stderr);
    status.end = Some(End {
        ended_at_ms: unix_ms(),
        duration_ms: 0,
        cause: Cause::SpawnFailed { message: error.to_string().chars().take(MAX_MESSAGE_CHARS).collect() },
        group_dead: true,
        fault: None,
    });
}

/// Binds the socket in place of one that a former keeper left. Only the holder of the lock may.
fn listen(store: &Store) -> io::Result<(UnixListener, (u64, u64))> {
    let path = store.socket_path();
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(store.socket_address())?;
    // Nobody else comes as far as the socket before this: the folder is 0700.
    fs::set_permissions(&path, Permissions::from_mode(0o600))?;
    Ok((listener, store::identity(&fs::symlink_metadata(&path)?)))
}

/// 16 bytes from the system's random source.
fn random() -> Result<Nonce, KeeperError> {
    let mut bytes = [0; 16];
    let read = File::open("/dev/urandom").and_then(|mut source| source.read_exact(&mut bytes));
    read.map(|()| Nonce(bytes)).map_err(|source| KeeperError::System { what: "no randomness", source })
}
