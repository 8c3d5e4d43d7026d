//! A center that is spoken to by HTTP alone, with an API key: it is asked for commands, and told how they ended.
//!
//! ```text
//! enrol? ─▶ verify ─▶ store ─▶ status ─▶ config ─▶ loop: commands ─▶ claim ─▶ keeper ─▶ result
//!                                                    │                                  ▲ until it is taken
//!                                                    └ heartbeat, status, config        └ journal, spool
//! ```
//!
//! | room | holds |
//! |---|---|
//! | `http` | requests |
//! | `wire`, `json`, `status`, `text`, `body` | what is said, and how it is read |
//! | `startup` | until the center knows this relay |
//! | `kept` | what the journal keeps of a command |
//! | `worker` | the loop that owns everything |
//! | `pull`, `runs`, `results`, `signs`, `config` | its parts: commands, their runs, results, signs of life, settings |
//! | `hosts` | ways to hosts behind the machine |
//! | `keeping`, `notes` | the keeper, the journal |
//!
//! What must survive is in the store's folder `http`, apart from what an enrolled relay keeps there: a journal, a keeper of
//! its own, the spool, and what the center set.

mod body;
mod config;
mod hosts;
pub(crate) mod http;
mod json;
mod keeping;
mod kept;
mod notes;
mod pull;
mod results;
mod runs;
mod signs;
mod startup;
mod status;
mod text;
pub(crate) mod wire;
mod worker;

use std::{
    env, io,
    path::{Path, PathBuf},
    time::Duration,
};

use signalbox_schemas::{Secret, signed::PublicKey};
use tokio::task::{JoinError, LocalSet};

use crate::{
    api_key::ApiKey,
    clock::unix_ms,
    enroll::{EnrollError, Folder, LOOK_EVERY, Renewal, Terms},
    identity::{IdentityError, read_secret},
    journal::{Journal, JournalError},
    keeper::make_private_folder,
    legacy_args::Transport,
    lock::{Lock, LockError},
    serve::{ServeError, run_enrolled, stop_signal},
    ssh::route::HostKeyPolicy,
};

use hosts::Hosts;
use http::{Center, UrlError};
pub(crate) use kept::{has_open_work, may_have_open_work};
use startup::{Introduced, Known};
use worker::{Place, Worker};

/// Name of the store in the home folder.
const STORE: &str = ".signalbox-relay";
/// Folder of this transport in the store.
const FOLDER: &str = "http";
/// Threads for what blocks: a question for commands, a claim, results, heartbeat, status, settings, the disk.
const MAX_BLOCKING_THREADS: usize = 12;

/// How a relay is to run.
#[derive(Debug)]
pub struct Start {
    /// The center, with a scheme and without a slash at its end.
    pub url: String,
    /// What it knows this relay by.
    pub key: ApiKey,
    /// How it is spoken to.
    pub transport: Transport,
    /// Where the store is, if not at its usual place.
    pub store_dir: Option<PathBuf>,
    /// The key that signs who may author what, if it is known beforehand.
    pub fleet_key: Option<PublicKey>,
    /// What becomes of hosts whose key is not known.
    pub host_keys: HostKeyPolicy,
    /// The file with the secret that the center's shared credentials are sealed with, if there is one.
    pub shared_secret_file: Option<PathBuf>,
    /// From the beginning of a question for commands to that of the next one.
    pub poll_interval: Duration,
    /// Between two signs of life, and between two reports until the center says otherwise.
    pub heartbeat_interval: Duration,
}

/// A relay cannot run.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The URL is none.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// No place for the store.
    #[error("there is no home folder for the store; name one with --store-dir")]
    NoHome,
    /// The store is an enrolled relay's.
    #[error(
        "`{}` is the store of an enrolled relay, which does not go back to unsigned work: leave --transport http out, \
         or use another --store-dir",
        store.display()
    )]
    IsEnrolled {
        /// The store.
        store: PathBuf,
    },
    /// The file of the shared secret cannot be used.
    #[error(transparent)]
    Secret(#[from] IdentityError),
    /// The file of the shared secret has none.
    #[error("`{}` holds no secret", path.display())]
    NoSecret {
        /// The file.
        path: PathBuf,
    },
    /// The center enrols relays, and not this one.
    #[error(transparent)]
    Enroll(#[from] EnrollError),
    /// An enrolled relay cannot run.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The center does not let this relay in.
    #[error("API key verification failed: {0}")]
    Refused(String),
    /// Its store cannot be had.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// Its journal cannot be used.
    #[error(transparent)]
    Journal(#[from] JournalError),
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

/// How hosts behind the machine are reached.
struct SshTerms {
    host_keys: HostKeyPolicy,
    shared_secret: Option<Secret>,
}

fn shared_secret(path: &Path) -> Result<Secret, LinkError> {
    let text = read_secret(path)?;
    let secret = text.trim_end_matches(['\r', '\n']);
    if secret.is_empty() {
        return Err(LinkError::NoSecret { path: path.to_owned() });
    }
    Ok(Secret::new(secret.to_owned()))
}

fn system(what: &'static str) -> impl Fn(io::Error) -> LinkError {
    move |source| LinkError::System { what, source }
}

/// Runs a relay until SIGTERM or SIGINT. Its runs go on in the keeper, and the next process picks them up.
///
/// # Errors
/// [`LinkError`]. The store is made only when the center knows the key: a wrong one leaves nothing behind.
pub fn run_blocking(start: Start) -> Result<(), LinkError> {
    // Once it is replaced, as by a newer version while this one waits for a center, the system has no path of it any more.
    let exe = env::current_exe().map_err(system("this program has no path"))?;
    let center = Center::new(&start.url, start.key)?;
    let home = || env::var_os("HOME").filter(|home| !home.is_empty());
    let usual = || home().map(|home| PathBuf::from(home).join(STORE));
    let store = start.store_dir.or_else(usual).ok_or(LinkError::NoHome)?;
    if start.transport == Transport::Http && Folder::of(&store).is_enrolled().map_err(EnrollError::from)? {
        return Err(LinkError::IsEnrolled { store });
    }
    let terms = Terms { fleet_key: start.fleet_key };
    let shared_secret = start.shared_secret_file.as_deref().map(shared_secret).transpose()?;
    let ssh = SshTerms { host_keys: start.host_keys, shared_secret };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(MAX_BLOCKING_THREADS)
        .build()
        .map_err(system("no runtime"))?;
    let intervals = [start.poll_interval, start.heartbeat_interval];
    let served = LocalSet::new()
        .block_on(&runtime, serve(center, start.transport, (store, exe), (terms, ssh), intervals));
    // A request that is being held must not hold the end.
    runtime.shutdown_background();
    served
}

async fn serve(
    center: Center,
    transport: Transport,
    (store, exe): (PathBuf, PathBuf),
    (terms, ssh): (Terms, SshTerms),
    intervals: [Duration; 2],
) -> Result<(), LinkError> {
    let stop = stop_signal().map_err(system("no signals"))?;
    tokio::pin!(stop);
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "Relay starts");
    let mut finished = None;
    loop {
        let introduced = tokio::select! {
            biased;
            () = &mut stop => None,
            introduced = startup::introduce(&center, transport, &store, &terms, finished.take()) => Some(introduced?),
        };
        let (known, lock) = match introduced {
            None => break,
            Some(Introduced::Known(known)) => (known, None),
            Some(Introduced::Finishing(known, lock)) => (known, Some(lock)),
            Some(Introduced::Enrolled(ready, lock)) => {
                let renewal = Renewal { center, store: store.clone(), terms, look_every: LOOK_EVERY };
                return Ok(run_enrolled((&store, exe), lock, ready, renewal, stop).await?);
            }
        };
        let Known { relay_id, machine_id, name } = known;
        tracing::info!(relay_id, machine_id, name, "API key verified");
        let is_finishing = lock.is_some();
        if is_finishing {
            tracing::warn!(
                "The center enrols relays. First what was granted before is finished, and nothing new is claimed"
            );
        }
        let lock = lock.map_or_else(|| Lock::acquire(&store), Ok)?;
        let place = place(&store, exe.clone(), lock)?;
        // Its own path, however the store was named.
        let home = place.0.folder.parent().unwrap_or(&store);
        let hosts = (Hosts::new(home, ssh.host_keys), ssh.shared_secret.clone());
        let worker = Worker::new(center.clone(), relay_id, place, hosts, intervals, is_finishing);
        finished = worker.run(stop.as_mut()).await?;
        if finished.is_none() {
            break;
        }
        tracing::info!("All that was granted before is finished");
    }
    tracing::info!("Relay stopped");
    Ok(())
}

/// Makes what is missing in the store.
fn place(store: &Path, exe: PathBuf, lock: Lock) -> Result<(Place, Journal), LinkError> {
    let folder = store.join(FOLDER);
    let failed = |source| LinkError::Lock(LockError::Store { store: folder.clone(), source });
    make_private_folder(&folder).map_err(failed)?;
    let folder = folder.canonicalize().map_err(failed)?;
    let work = env::current_dir().ok().and_then(|work| work.into_os_string().into_string().ok());
    let journal = Journal::open(&folder, unix_ms())?;
    Ok((Place { lock, folder, exe, work }, journal))
}
