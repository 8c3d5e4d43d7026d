//! `serve`: everything wired together, started in order and ended in order.
//!
//! ```text
//! start: state directory ─ HTTP port ─ broker ─ link ─ streams, view, dispatcher ─ records ─ fronts ─ ready line
//! end:   fronts (1 s) ─ core (0.5 s) ─ link (0.3 s) ─ broker (2 s)
//! ```

mod bridge;
mod publish;

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, Write as _},
    net::SocketAddr,
    os::unix::fs::OpenOptionsExt as _,
    path::PathBuf,
    sync::Arc,
};

use signalbox_link::{ConnectError, LoginError};
use signalbox_schemas::{
    error::report,
    id::{BridgeId, IdError},
    layout::Layout,
};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    broker::{self, Broker},
    broker_link,
    config::{BrokerConfig, ServeConfig},
    core::CoreError,
    descriptors, http,
    identity::{Identity, InitError},
};
use bridge::Bridge;

/// Why a bridge could not start, or not go on.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The state directory.
    #[error(transparent)]
    Identity(#[from] InitError),
    /// Somebody else listens on the address.
    #[error("the address {listen} is taken; choose another with --http")]
    Taken {
        /// The address.
        listen: SocketAddr,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {listen}")]
    Listen {
        /// The address.
        listen: SocketAddr,
        /// The cause.
        source: io::Error,
    },
    /// Another bridge supervises this state directory's broker.
    #[error("state directory {} is in use by the bridge with pid {pid}", .state_dir.display())]
    InUse {
        /// The state directory.
        state_dir: PathBuf,
        /// The other bridge.
        pid: String,
    },
    /// The pid file cannot be written.
    #[error("cannot write {}", .path.display())]
    PidFile {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The embedded broker.
    #[error(transparent)]
    Broker(#[from] broker::BrokerError),
    /// The login file.
    #[error("cannot use the bridge's login")]
    Login {
        /// The cause.
        source: LoginError,
    },
    /// No connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// This bridge's name.
    #[error("cannot name this bridge")]
    Name {
        /// The cause.
        source: IdError,
    },
    /// Projection, store, dispatcher.
    #[error(transparent)]
    Core(#[from] CoreError),
    /// Records that must stand on the broker.
    #[error("cannot publish {what}")]
    Publish {
        /// What.
        what: &'static str,
        /// The cause.
        source: broker_link::BrokerError,
    },
    /// The HTTP front.
    #[error(transparent)]
    Http(#[from] http::HttpError),
    /// The system gave no random bytes.
    #[error("the system gives no random bytes")]
    Random,
    /// A task panicked.
    #[error("task `{0}` ended before its time")]
    Ended(&'static str),
}

/// Runs a bridge until `stop`, and ends within 4 s of it.
///
/// # Errors
/// [`ServeError`]; everything that was started has ended then, the embedded broker too.
pub async fn serve(config: &ServeConfig, stop: &CancellationToken) -> Result<(), ServeError> {
    let identity = Identity::load(&config.state_dir)?;
    descriptors::allow_all();
    let id = bridge_id()?;
    let listener = listen(config.http).await?;
    let embedded = match &config.broker {
        BrokerConfig::Join(_) => {
            say_begin(config, &id);
            None
        }
        BrokerConfig::Embedded(wanted) => {
            let lock = lock(&identity.layout)?;
            say_begin(config, &id);
            let started = stop.run_until_cancelled(Broker::start(&identity.layout, wanted)).await;
            let Some(started) = started else { return Ok(()) };
            Some((started?, lock))
        }
    };
    let nats = match (&embedded, &config.broker) {
        (Some((broker, _)), _) => broker.url(),
        (None, BrokerConfig::Join(url)) => url.clone(),
        (None, BrokerConfig::Embedded(_)) => return Ok(()),
    };
    let broker_pid = embedded.as_ref().map(|(broker, _)| broker.pid());

    // The broker ends last: until then everybody else may have something to tell it.
    let broker_stop = CancellationToken::new();
    let mut supervisor = JoinSet::new();
    let _lock = embedded.map(|(broker, lock)| {
        supervisor.spawn(broker.supervise(broker_stop.clone()));
        lock
    });
    let relay_nats = config.relay_nats.clone();
    let (data, replicas) = (config.data.clone(), config.replicas);
    let bridge = Bridge { id, identity: Arc::new(identity), nats, relay_nats, replicas, broker_pid, data };
    let served = tokio::select! {
        served = bridge.run(listener, stop) => served,
        Some(ended) = supervisor.join_next() => match ended {
            Ok(Ok(())) | Err(_) => Err(ServeError::Ended("broker")),
            Ok(Err(error)) => Err(error.into()),
        },
    };
    broker_stop.cancel();
    while let Some(ended) = supervisor.join_next().await {
        if let Ok(Err(error)) = ended {
            warn!(error = report(&error), "broker did not end well");
        }
    }
    served
}

/// After what may be refused at once: a refusal is one line.
fn say_begin(config: &ServeConfig, id: &BridgeId) {
    let (state_dir, data) = (config.state_dir.display(), config.data.display());
    info!(version = env!("CARGO_PKG_VERSION"), bridge = %id, %state_dir, %data, "starting");
}

async fn listen(address: SocketAddr) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address).await.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => ServeError::Taken { listen: address },
        _ => ServeError::Listen { listen: address, source },
    })
}

/// Writes the pid file of the bridge that supervises the broker, and holds it against a second one.
fn lock(layout: &Layout) -> Result<File, ServeError> {
    let path = layout.pid("bridge");
    let failed = |source| ServeError::PidFile { path: path.clone(), source };
    let mut options = File::options();
    let options = options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let mut file = options.open(&path).map_err(failed)?;
    if file.try_lock().is_err() {
        let mut pid = String::new();
        file.read_to_string(&mut pid).map_err(failed)?;
        let pid = pid.trim().chars().filter(char::is_ascii_digit).collect();
        return Err(ServeError::InUse { state_dir: layout.root().to_owned(), pid });
    }
    file.set_len(0).and_then(|()| file.rewind()).map_err(failed)?;
    writeln!(file, "{}", std::process::id()).map_err(failed)?;
    Ok(file)
}

/// A name of its own for each start: two bridges of one state directory must not be taken for one.
fn bridge_id() -> Result<BridgeId, ServeError> {
    let mut bytes = [0; 4];
    orion::util::secure_rand_bytes(&mut bytes).map_err(|_| ServeError::Random)?;
    let id = format!("bridge-{}", data_encoding::HEXLOWER.encode(&bytes));
    BridgeId::new(id).map_err(|source| ServeError::Name { source })
}
