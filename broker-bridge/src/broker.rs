//! The embedded broker: a `nats-server` that the bridge starts, watches, and ends.
//!
//! The broker outlives a bridge that is killed: it is found again by the configuration on its command line, and
//! taken over on the port it has. A broker that dies is started again on its port; clients reconnect, and nothing
//! acknowledged is lost.

mod find;
mod process;

use std::{
    io,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    time::Duration,
};

use signalbox_schemas::{error::report, layout::Layout};
use tokio::{
    io::AsyncReadExt as _,
    net::TcpStream,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::identity::write_private;
use process::Process;

/// Pause before a broker that died is started again.
const RESTART_PAUSE: Duration = Duration::from_secs(1);
/// Longest wait for a broker to accept at the start: it reads its whole store first. `signalbox up` waits for two minutes
/// in all, and should hear from us why nothing comes. One that was started again is waited for however long it takes,
/// with a word about it this often.
const ACCEPT_WAIT: Duration = Duration::from_secs(90);
/// Pause between two looks at a broker that does not accept yet.
const ACCEPT_STEP: Duration = Duration::from_millis(10);
/// Longest wait for the first bytes of a connection.
const GREETING_WAIT: Duration = Duration::from_secs(5);
/// What a broker says first.
const GREETING: &[u8] = b"INFO ";
/// A broker that is asked to end is killed after this. It takes some 50 ms; a bridge has 4 s for its whole end.
const END_WAIT: Duration = Duration::from_secs(2);
/// Tries when any free port will do: between looking and binding, somebody else may take it.
const PORT_TRIES: u32 = 3;

/// What kind of embedded broker is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Where it shall listen; port 0 = any free one.
    pub listen: SocketAddr,
    /// The binary; none = look for it.
    pub server: Option<PathBuf>,
    /// Where it is looked for, best first.
    pub search: Vec<PathBuf>,
    /// Whether a broker that died is started again.
    pub restart: bool,
}

/// Why there is no broker.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// There is no binary.
    #[error(
        "no nats-server beside this program or on PATH; install nats-server {needed} or newer, or name it with --nats-server"
    )]
    NotFound {
        /// The oldest version that will do.
        needed: String,
    },
    /// The binary is too old.
    #[error("{} is nats-server {found}, and {needed} or newer is needed", .path.display())]
    TooOld {
        /// The binary.
        path: PathBuf,
        /// Its version.
        found: String,
        /// The oldest version that will do.
        needed: String,
    },
    /// The binary is none.
    #[error("{} does not answer like a nats-server", .path.display())]
    NoServer {
        /// The binary.
        path: PathBuf,
    },
    /// Somebody else listens there.
    #[error("the broker's address {listen} is taken; choose another with --nats-listen")]
    Taken {
        /// The address.
        listen: SocketAddr,
    },
    /// The address cannot be listened on.
    #[error("the broker cannot listen on {listen}")]
    Listen {
        /// The address.
        listen: SocketAddr,
        /// The cause.
        source: io::Error,
    },
    /// The operating system refused to start, find or watch it.
    #[error("cannot {doing} the broker")]
    Process {
        /// What was being done.
        doing: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// It ended before it accepted. Its last words say why.
    #[error("the broker ended at its start: {last_words}")]
    Ended {
        /// The last line of its log.
        last_words: String,
    },
    /// It does not accept.
    #[error("the broker does not accept connections at {listen}")]
    Silent {
        /// The address.
        listen: SocketAddr,
    },
    /// It died, and nobody wants it started again.
    #[error("the broker died")]
    Died,
    /// The pid file could not be written.
    #[error(transparent)]
    PidFile(#[from] crate::identity::StateDirError),
}

/// A broker that accepts connections.
pub struct Broker {
    layout: Layout,
    server: PathBuf,
    listen: SocketAddr,
    restart: bool,
    process: Process,
    patience: Duration,
}

impl Broker {
    /// Takes over the broker of this state directory, or starts one, and waits until it accepts.
    ///
    /// # Errors
    /// [`BrokerError`]; no process of ours is left then.
    pub async fn start(layout: &Layout, wanted: &Wanted) -> Result<Self, BrokerError> {
        let server = find::server(wanted.server.as_deref(), &wanted.search).await?;
        let taken_over = take_over(layout, &server, wanted.listen).await?;
        let (mut process, listen) = match taken_over {
            Some(running) => running,
            None => start_new(layout, &server, wanted.listen).await?,
        };
        if let Err(error) = write_private(&layout.pid("broker"), format!("{}\n", process.pid()).as_bytes()) {
            process.end(END_WAIT).await?;
            return Err(error.into());
        }
        info!(pid = process.pid(), %listen, "broker ready");
        let (layout, restart, patience) = (layout.clone(), wanted.restart, ACCEPT_WAIT);
        Ok(Self { layout, server, listen, restart, process, patience })
    }

    /// Where clients find it.
    pub fn url(&self) -> String {
        let mut address = self.listen;
        if address.ip().is_unspecified() {
            address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
        }
        format!("nats://{address}")
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Watches it until `stop`, starting it again when it dies; ends it then.
    ///
    /// # Errors
    /// [`BrokerError::Died`] when it shall not be started again; [`BrokerError::Process`] when it cannot be watched.
    pub async fn supervise(mut self, stop: CancellationToken) -> Result<(), BrokerError> {
        loop {
            tokio::select! {
                () = stop.cancelled() => return self.end().await,
                ended = self.process.ended() => if let Err(error) = ended {
                    self.end().await?;
                    return Err(error);
                },
            }
            if !self.restart {
                return Err(BrokerError::Died);
            }
            warn!(pid = self.pid(), "broker died; starting it again");
            if stop.run_until_cancelled(self.start_again()).await.is_none() {
                return self.end().await;
            }
        }
    }

    /// Tries until it runs: without a broker nothing else makes sense.
    async fn start_again(&mut self) {
        loop {
            sleep(RESTART_PAUSE).await;
            match self.start_once().await {
                Ok(()) => return info!(pid = self.pid(), "broker ready"),
                Err(error) => warn!(error = report(&error), "broker did not start; trying again"),
            }
        }
    }

    async fn start_once(&mut self) -> Result<(), BrokerError> {
        // Two at once would write to one store.
        self.process.end(END_WAIT).await?;
        // Kept before it accepts, so that whoever interrupts this still ends the right process.
        self.process = process::spawn(&self.layout, &self.server, self.listen)?;
        write_private(&self.layout.pid("broker"), format!("{}\n", self.pid()).as_bytes())?;
        loop {
            match accepting(&self.layout, &mut self.process, self.listen, self.patience).await {
                // It lives and reads its store: killed now, it would only begin anew.
                Err(BrokerError::Silent { .. }) => {
                    warn!(pid = self.pid(), "broker does not accept connections yet; waiting for it");
                }
                accepted => return accepted,
            }
        }
    }

    async fn end(mut self) -> Result<(), BrokerError> {
        let ended = self.process.end(END_WAIT).await;
        // Best effort: a stale pid file is recognised by whoever reads it.
        let _ = std::fs::remove_file(self.layout.pid("broker"));
        info!("broker ended");
        ended
    }
}

/// The broker that a former bridge left running, when it listens where it is wanted; ended otherwise. One that does not know the
/// accounts as they are is started again.
async fn take_over(
    layout: &Layout,
    server: &std::path::Path,
    wanted: SocketAddr,
) -> Result<Option<(Process, SocketAddr)>, BrokerError> {
    let Some((mut process, listen)) = process::find(layout)? else { return Ok(None) };
    let fits = listen.ip() == wanted.ip() && [0, listen.port()].contains(&wanted.port());
    if !fits {
        info!(pid = process.pid(), %listen, "ending the broker of a former bridge: it listens elsewhere");
        process.end(END_WAIT).await?;
        return Ok(None);
    }
    if !knows_accounts(layout) {
        info!(pid = process.pid(), "ending the broker of a former bridge: it knows older account tokens");
        process.end(END_WAIT).await?;
        // Where its clients look for it.
        return start_new(layout, server, listen).await.map(Some);
    }
    info!(pid = process.pid(), %listen, "taking over the broker of a former bridge");
    match accepting(layout, &mut process, listen, ACCEPT_WAIT).await {
        Ok(()) => Ok(Some((process, listen))),
        // It died just now; a new one follows.
        Err(BrokerError::Ended { .. }) => Ok(None),
        Err(error) => {
            process.end(END_WAIT).await?;
            Err(error)
        }
    }
}

/// Whether the account tokens are those that the running broker has read. It reads them when it starts and at no other time, not
/// even when it is told to reload; the file with its number is written whenever a bridge has made sure of that.
fn knows_accounts(layout: &Layout) -> bool {
    let written = |path: &std::path::Path| std::fs::metadata(path).and_then(|found| found.modified());
    let Ok(known) = written(&layout.pid("broker")) else { return true };
    let Ok(tokens) = std::fs::read_dir(layout.jwt_dir()) else { return true };
    tokens.flatten().all(|token| written(&token.path()).is_ok_and(|at| at < known))
}

async fn start_new(
    layout: &Layout,
    server: &std::path::Path,
    wanted: SocketAddr,
) -> Result<(Process, SocketAddr), BrokerError> {
    let mut tries = if wanted.port() == 0 { PORT_TRIES } else { 1 };
    loop {
        tries -= 1;
        let listen = free_address(wanted)?;
        let mut process = process::spawn(layout, server, listen)?;
        match accepting(layout, &mut process, listen, ACCEPT_WAIT).await {
            Ok(()) => return Ok((process, listen)),
            Err(error) => {
                process.end(END_WAIT).await?;
                if tries == 0 || !matches!(error, BrokerError::Ended { .. }) {
                    return Err(error);
                }
            }
        }
    }
}

/// `wanted` with a port that was free a moment ago.
fn free_address(wanted: SocketAddr) -> Result<SocketAddr, BrokerError> {
    let bound = TcpListener::bind(wanted).and_then(|listener| listener.local_addr());
    bound.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => BrokerError::Taken { listen: wanted },
        _ => BrokerError::Listen { listen: wanted, source },
    })
}

/// Waits until the broker greets a connection, so long at most.
async fn accepting(
    layout: &Layout,
    process: &mut Process,
    listen: SocketAddr,
    patience: Duration,
) -> Result<(), BrokerError> {
    let greeted = async {
        while !greets(listen).await {
            sleep(ACCEPT_STEP).await;
        }
    };
    tokio::select! {
        biased;
        ended = process.ended() => {
            ended?;
            Err(BrokerError::Ended { last_words: process::last_words(layout) })
        }
        greeted = timeout(patience, greeted) => greeted.map_err(|_| BrokerError::Silent { listen }),
    }
}

async fn greets(listen: SocketAddr) -> bool {
    let greeting = async {
        let mut connection = TcpStream::connect(listen).await?;
        let mut first = [0; GREETING.len()];
        connection.read_exact(&mut first).await?;
        io::Result::Ok(first == GREETING)
    };
    matches!(timeout(GREETING_WAIT, greeting).await, Ok(Ok(true)))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

    use anyhow::ensure;
    use signalbox_testkit::{broker::nats_server, eventually, process};
    use tokio::task::JoinSet;

    use super::*;

    #[tokio::test]
    async fn a_running_broker_is_kept_unless_its_accounts_are_older() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        for path in layout.directories() {
            fs::create_dir_all(path).unwrap();
        }
        fs::write(layout.nats_conf(), "").unwrap();
        fs::write(layout.jwt_dir().join("A.jwt"), "first").unwrap();
        let mut wanted = Wanted {
            listen: "127.0.0.1:0".parse().unwrap(),
            server: Some(nats_server().unwrap()),
            search: Vec::new(),
            restart: true,
        };
        let first = Broker::start(&layout, &wanted).await.unwrap();
        wanted.listen = first.listen;
        // As if the bridge had been killed: nobody ends its broker.
        let (pid, mut left) = (first.pid(), first.process);
        left.is_adopted = false;
        std::mem::forget(left);
        let second = Broker::start(&layout, &wanted).await.unwrap();
        assert_eq!(second.pid(), pid);
        fs::write(layout.jwt_dir().join("A.jwt"), "second").unwrap();
        let third = Broker::start(&layout, &wanted).await.unwrap();
        assert_ne!(third.pid(), pid);
        assert_eq!(third.listen, wanted.listen);
        assert!(greets(third.listen).await);
        drop(second);
        third.end().await.unwrap();
    }

    /// A server that notes each of its starts, waits for `go`, and is a broker then.
    fn hesitant(dir: &Path) -> PathBuf {
        let path = dir.join("hesitant");
        let script = format!(
            "#!/bin/sh\necho $$ >> {0}/starts\nwhile [ ! -e {0}/go ]; do sleep 0.02; done\nexec {1} \"$@\"\n",
            dir.display(),
            nats_server().unwrap().display()
        );
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        path
    }

    #[tokio::test]
    async fn a_broker_that_takes_long_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        for path in layout.directories() {
            fs::create_dir_all(path).unwrap();
        }
        fs::write(layout.nats_conf(), "").unwrap();
        let wanted = Wanted {
            listen: "127.0.0.1:0".parse().unwrap(),
            server: Some(nats_server().unwrap()),
            search: Vec::new(),
            restart: true,
        };
        let mut broker = Broker::start(&layout, &wanted).await.unwrap();
        (broker.server, broker.patience) = (hesitant(dir.path()), Duration::from_millis(100));
        let (first, listen) = (broker.pid(), broker.listen);
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(broker.supervise(stop.clone()));
        process::signal(first, process::Signal::KILL).unwrap();
        let starts = || fs::read_to_string(dir.path().join("starts")).unwrap_or_default().lines().count();
        let began = std::time::Instant::now();
        eventually("it takes long", || async {
            ensure!(starts() > 0 && began.elapsed() > RESTART_PAUSE * 3, "{} starts", starts());
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(starts(), 1, "one that was starting was killed");
        fs::write(dir.path().join("go"), "").unwrap();
        eventually("it accepts", || async {
            ensure!(greets(listen).await);
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(starts(), 1);
        stop.cancel();
        tasks.join_next().await.unwrap().unwrap().unwrap();
        assert!(!greets(listen).await);
    }
}
