//! The relay's side of the keeper: find it or start it, ask it, hear it.

use std::{
    env, fmt,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use bytes::Bytes;
use rustix::process::geteuid;
use signalbox_link::DEFAULT_LOG;
use signalbox_schemas::{
    id::{CommandId, Nonce},
    output::OutputStream,
};
use tokio::{
    io::AsyncWriteExt as _,
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};
use zeroize::Zeroizing;

use crate::args::LOG_VARIABLE;

use super::{
    KeeperError, MAX_LOG_BYTES,
    protocol::{
        FrameError, FrameReader, Greeting, MAX_FRAME_BYTES, PROTOCOL_VERSION, Refusal, RunStatus, StartRun,
        ToKeeper, ToRelay, encode,
    },
    spool,
    store::Store,
};

/// A keeper is there within a few milliseconds; a machine that needs this long has other troubles.
const START_WAIT: Duration = Duration::from_secs(5);
/// Time between two looks for a keeper that is starting, or for one that is ending and holds its lock.
const START_POLL: Duration = Duration::from_millis(10);
/// Between two attempts to start one: the first may have met a keeper that was about to end.
const RESTART_EVERY: Duration = Duration::from_millis(500);
/// A keeper answers hello at once; it may be busy with a disk.
const WELCOME_WAIT: Duration = Duration::from_secs(5);
/// A keeper that was told to end is gone after 3 s.
const SHUTDOWN_WAIT: Duration = Duration::from_secs(4);

/// Who the keeper is and what it runs.
#[derive(Clone)]
pub struct Welcome {
    /// The claim nonce of this keeper's life. Goes into claims; never to disk and never into a log.
    pub nonce: Nonce,
    /// The public name of this keeper's life: belongs in the journal, for [`end_marked`](super::reap::end_marked).
    pub instance: Nonce,
    /// The keeper's process id.
    pub pid: u32,
    /// How many more ids it can remember: so many starts are taken. Absent when it does not say.
    pub free: Option<u32>,
    /// Whether it takes a [`route`](StartRun::route). One that does not is older, and would run the command on this machine.
    pub remote: bool,
    /// Every run that was not forgotten, in no order.
    pub runs: Vec<RunStatus>,
}

impl fmt::Debug for Welcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { nonce: _, instance, pid, free, remote, runs } = self;
        f.debug_struct("Welcome")
            .field("instance", instance)
            .field("pid", pid)
            .field("free", free)
            .field("remote", remote)
            .field("runs", runs)
            .finish_non_exhaustive()
    }
}

/// What the keeper says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeeperEvent {
    /// A run was started, now or earlier in this keeper's life.
    Started {
        /// The command.
        cid: CommandId,
    },
    /// A `start` or a `forget` was refused.
    Refused {
        /// The command.
        cid: CommandId,
        /// Why.
        reason: Refusal,
    },
    /// The newest status of a run. Older ones may have been skipped; the one with the end never is.
    Status(Box<RunStatus>),
    /// The keeper is gone; its runs that had not ended are lost. Nothing follows.
    Gone,
}

/// A connection to the keeper of a store. Dropping it changes nothing for the runs.
pub struct KeeperClient {
    store: PathBuf,
    reader: FrameReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    /// The keeper's process, when this client started it: held so that it is reaped when it ends.
    _process: Option<Child>,
}

impl KeeperClient {
    /// Connects to the keeper of `store`, starting one from `exe` (`exe keeper --store STORE`) when there is
    /// none. Makes the folder and its parents where they are missing. Waits for the keeper up to 5 s.
    ///
    /// # Errors
    /// [`KeeperError::NotReady`] when none comes up (`STORE/keeper.log` says why), [`KeeperError::Version`] when
    /// one of another version is there, and others.
    pub async fn connect_or_start(store: &Path, exe: &Path) -> Result<(Self, Welcome), KeeperError> {
        if let Some(parent) = store.parent() {
            let failed = |source| KeeperError::Store { path: parent.to_owned(), source };
            fs::create_dir_all(parent).map_err(failed)?;
        }
        let place = Store::open(store)?;
        let until = Instant::now() + START_WAIT;
        let mut process: Option<Child> = None;
        let mut tried: Option<Instant> = None;
        loop {
            match Self::connect_to(&place).await {
                Ok((client, welcome)) => return Ok((Self { _process: process, ..client }, welcome)),
                // A keeper that ends just now breaks off its greeting.
                Err(KeeperError::NotReady { .. } | KeeperError::Gone) if Instant::now() < until => {}
                Err(error) => return Err(error),
            }
            let ended = process.as_mut().is_none_or(|process| !matches!(process.try_wait(), Ok(None)));
            if ended && tried.is_none_or(|tried| tried.elapsed() >= RESTART_EVERY) {
                tried = Some(Instant::now());
                process = Some(spawn(&place, exe)?);
            }
            sleep(START_POLL).await;
        }
    }

    /// Connects to the keeper of `store`, if there is one.
    ///
    /// # Errors
    /// [`KeeperError::NotReady`] when there is none.
    pub async fn connect(store: &Path) -> Result<(Self, Welcome), KeeperError> {
        Self::connect_to(&Store::open(store)?).await
    }

    async fn connect_to(place: &Store) -> Result<(Self, Welcome), KeeperError> {
        let path = place.socket_path();
        let Ok(stream) = UnixStream::connect(place.socket_address()).await else {
            return Err(KeeperError::NotReady { path });
        };
        if !stream.peer_cred().is_ok_and(|peer| peer.uid() == geteuid().as_raw()) {
            return Err(KeeperError::ForeignKeeper { path });
        }
        let (read_half, writer) = stream.into_split();
        let reader = FrameReader::new(read_half);
        let mut client = Self { store: place.path(""), reader, writer, _process: None };
        match timeout(WELCOME_WAIT, client.greet()).await {
            Ok(welcome) => Ok((client, welcome?)),
            Err(_) => Err(KeeperError::NotReady { path }),
        }
    }

    async fn greet(&mut self) -> Result<Welcome, KeeperError> {
        self.send(&ToKeeper::Hello { version: PROTOCOL_VERSION }).await?;
        let Some(ToRelay::Welcome(greeting)) = self.receive().await? else { return Err(KeeperError::Gone) };
        let Greeting { version, nonce, instance, pid, runs: count, free, remote } = greeting;
        if version != PROTOCOL_VERSION {
            return Err(KeeperError::Version { theirs: version });
        }
        let mut runs = Vec::new();
        for _ in 0..count {
            let Some(ToRelay::Status(run)) = self.receive().await? else { return Err(KeeperError::Gone) };
            runs.push(*run);
        }
        Ok(Welcome { nonce, instance, pid, free, remote, runs })
    }

    /// Asks for a run. Answered by `Started` or `Refused`.
    ///
    /// # Errors
    /// [`KeeperError::Gone`], or a frame above 256 KiB.
    pub async fn start(&mut self, run: StartRun) -> Result<(), KeeperError> {
        self.send(&ToKeeper::Start(run)).await
    }

    /// Asks for the end of a run. Answered by its `Status` when it has ended; which end came first is in there.
    ///
    /// # Errors
    /// [`KeeperError::Gone`].
    pub async fn cancel(&mut self, cid: CommandId) -> Result<(), KeeperError> {
        self.send(&ToKeeper::Cancel { cid }).await
    }

    /// Lets go of an ended run: its spool files are removed, its id stays known as started. Also removes spool
    /// files of a former keeper's runs. Answered only when it is refused.
    ///
    /// # Errors
    /// [`KeeperError::Gone`].
    pub async fn forget(&mut self, cid: CommandId) -> Result<(), KeeperError> {
        self.send(&ToKeeper::Forget { cid }).await
    }

    /// Makes sure that a run is never started: its id counts as forgotten. Not answered. Only for a keeper that says how
    /// much it has [`free`](Welcome::free): an older one does not know what is meant.
    ///
    /// # Errors
    /// [`KeeperError::Gone`].
    pub async fn decline(&mut self, cid: CommandId, expires_at: u64) -> Result<(), KeeperError> {
        self.send(&ToKeeper::Decline { cid, expires_at }).await
    }

    /// Ends the keeper and all it runs; returns when it is gone.
    ///
    /// # Errors
    /// [`KeeperError::NotReady`] when it is still there after 4 s.
    pub async fn shutdown(mut self) -> Result<(), KeeperError> {
        // A keeper that is gone already is what is wanted.
        drop(self.send(&ToKeeper::Shutdown).await);
        let path = self.store.join("keeper.sock");
        let gone = async { while self.next_event().await != KeeperEvent::Gone {} };
        timeout(SHUTDOWN_WAIT, gone).await.map_err(|_| KeeperError::NotReady { path })
    }

    /// What the keeper says next. Cancel-safe.
    pub async fn next_event(&mut self) -> KeeperEvent {
        loop {
            return match self.receive().await {
                Ok(Some(ToRelay::Started { cid })) => KeeperEvent::Started { cid },
                Ok(Some(ToRelay::Refused { cid, reason })) => KeeperEvent::Refused { cid, reason },
                Ok(Some(ToRelay::Status(run))) => KeeperEvent::Status(run),
                Ok(Some(ToRelay::Welcome(_))) => continue,
                Ok(None) => KeeperEvent::Gone,
                Err(error) => {
                    tracing::debug!(%error, "keeper connection ended");
                    KeeperEvent::Gone
                }
            };
        }
    }

    /// Reads up to `max` bytes of a stream at its true `offset`; see [`spool::read_spool`].
    ///
    /// # Errors
    /// [`KeeperError::Spool`] when a file is there and cannot be read.
    pub fn read_spool(
        &self,
        cid: CommandId,
        stream: OutputStream,
        offset: u64,
        max: usize,
    ) -> Result<Bytes, KeeperError> {
        spool::read_spool(&self.store, cid, stream, offset, max)
            .map_err(|source| KeeperError::Spool { cid, source })
    }

    async fn send(&mut self, message: &ToKeeper) -> Result<(), KeeperError> {
        // It may hold secrets. Room for all of it, so that nothing is left behind where it grew.
        let mut frame = Zeroizing::new(match message {
            ToKeeper::Start(StartRun { route: Some(_), .. }) => Vec::with_capacity(MAX_FRAME_BYTES),
            _ => Vec::new(),
        });
        encode(message, &mut frame)?;
        self.writer.write_all(&frame).await.map_err(|_| KeeperError::Gone)
    }

    async fn receive(&mut self) -> Result<Option<ToRelay>, KeeperError> {
        match self.reader.next().await {
            Err(FrameError::Io(_) | FrameError::Cut) => Err(KeeperError::Gone),
            received => Ok(received?),
        }
    }
}

/// Starts a keeper that outlives this process; it makes a session of its own.
fn spawn(place: &Store, exe: &Path) -> Result<Child, KeeperError> {
    let failed = |source| KeeperError::Spawn { exe: exe.to_owned(), source };
    let log = open_log(&place.log_path()).map_err(failed)?;
    // It may be no text, and stays what it is for the commands: only an argument is read in its place.
    let filter = env::var(LOG_VARIABLE).unwrap_or_else(|_| DEFAULT_LOG.to_owned());
    Command::new(exe)
        .arg("keeper")
        .arg(format!("--log={filter}"))
        .arg("--store")
        .arg(place.path(""))
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .map_err(failed)
}

fn open_log(path: &Path) -> io::Result<File> {
    let log = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    if log.metadata()?.len() > MAX_LOG_BYTES {
        log.set_len(0)?;
    }
    Ok(log)
}
