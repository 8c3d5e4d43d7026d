//! Running a relay from its files until it is told to stop.

use std::{
    convert::Infallible,
    env,
    future::pending,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use signalbox_link::{ConnectError, Link, Options};
use signalbox_schemas::sealed::{OpeningKey, SealError};
use tokio::{
    signal::unix::{SignalKind, signal},
    task::{JoinError, LocalSet},
};

use crate::{
    agent::{Agent, Place},
    clock::unix_ms,
    enroll::{Ready, Renewal},
    identity::{Identity, IdentityError},
    journal::{Journal, JournalError},
    keepsakes::Keepsakes,
    lock::{Lock, LockError},
    nats_link::Nats,
};

/// Threads for what blocks: one look at the machine and one into the spool, one `fdatasync`, a journal that is written
/// anew, the keeper's former processes, and the vault, which is used by one at a time.
const MAX_BLOCKING_THREADS: usize = 6;
/// How long the connection may take to send what waits when the relay stops.
const CLOSE_WAIT: Duration = Duration::from_secs(1);

/// A relay cannot run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Its files are not in order.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Its store cannot be had.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// Its journal cannot be used.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The broker's URL is none.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// Its signing key gives no key to open secrets with. Cannot be with a key that was read.
    #[error("the key that opens what is sealed for this relay")]
    Opening(#[from] SealError),
    /// The system refused something that a relay cannot be without.
    #[error("{what}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A part of it panicked. A new process picks everything up.
    #[error("a job of the relay panicked")]
    Panicked(#[from] JoinError),
}

/// Runs a relay until SIGTERM or SIGINT. Its runs go on in the keeper.
///
/// # Errors
/// [`ServeError`]; everything that is wrong with the files is found before anything is opened.
pub fn run_blocking(store: &Path, creds: &Path, url: &str) -> Result<(), ServeError> {
    let identity = Identity::read(creds)?;
    let lock = Lock::acquire(store)?;
    let system = |what| move |source| ServeError::System { what, source };
    let store = store.canonicalize().map_err(system("the store has no path"))?;
    let exe = env::current_exe().map_err(system("this program has no path"))?;
    let journal = Journal::open(&store, unix_ms())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(MAX_BLOCKING_THREADS)
        .build()
        .map_err(system("no runtime"))?;
    let stopped = async {
        let stop = stop_signal().map_err(system("no signals"))?;
        serve(identity, Place { store, lock, exe }, journal, url, pending(), stop).await
    };
    let served = LocalSet::new().block_on(&runtime, stopped);
    // A look at a hanging file system must not hold the end.
    runtime.shutdown_background();
    served
}

/// Runs a relay that has enrolled until `stop`, and renews its login meanwhile. `exe` is this program.
///
/// # Errors
/// [`ServeError`].
pub(crate) async fn run_enrolled(
    (store, exe): (&Path, PathBuf),
    lock: Lock,
    ready: Ready,
    renewal: Renewal,
    stop: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let system = |what| move |source| ServeError::System { what, source };
    let identity = Identity::read(&ready.creds)?;
    let store = store.canonicalize().map_err(system("the store has no path"))?;
    let journal = Journal::open(&store, unix_ms())?;
    let nats = ready.nats.clone();
    serve(identity, Place { store, lock, exe }, journal, &nats, renewal.run(ready), stop).await
}

/// Runs a relay until `stop`. `beside` runs for as long.
async fn serve(
    identity: Identity,
    place: Place,
    journal: Journal,
    url: &str,
    beside: impl Future<Output = Infallible>,
    stop: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let config = &identity.config;
    // It refuses a URL with a password in it, so that the next line can show the URL.
    let link = Link::connect(Options::relay(url, config.mid.as_str(), identity.login.clone())).await?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        machine = %config.mid,
        store = %PathBuf::from(&place.store).display(),
        url,
        key = %identity.public_key(),
        max_parallel = config.max_parallel,
        "relay starts"
    );
    let nats = Nats::new(link, config.ws.clone(), config.mid.clone(), identity.public_key().clone());
    let opening = OpeningKey::of_machine(&identity.key)?;
    let keepsakes = Keepsakes::new(&place.store, &config.ssh, config.vault_secret_file.as_deref());
    let agent = Agent::new(identity, place, nats.clone(), journal, (keepsakes, opening));
    let ended = tokio::select! {
        ended = agent.run(stop) => ended,
        never = beside => match never {},
    };
    nats.close(CLOSE_WAIT).await;
    tracing::info!("relay stopped");
    ended
}

/// Comes with the first SIGTERM or SIGINT.
pub(crate) fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
