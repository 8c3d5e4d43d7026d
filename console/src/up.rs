//! `signalbox up`: everything on one machine, with one command.
//!
//! | room | holds |
//! |---|---|
//! | [`lock`] | one `up` per state directory |
//! | [`program`] | where the binaries are |
//! | [`process`] | processes by pid, leftovers of an earlier start |
//! | [`service`] | one child: started, heard, logged, started again |
//! | [`fleet`] | all children: the order of starting and of stopping |
//! | [`http`] | were the machines heard? |
//! | [`ready`] | the one line of `--headless` (pure) |

pub mod fleet;
pub mod http;
pub mod lock;
pub mod process;
pub mod program;
pub mod ready;
pub mod service;

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use signalbox_schemas::{error::report, id::MachineId, layout::Layout};
use tokio::{
    process::Command,
    signal::unix::{Signal, SignalKind, signal},
    task::JoinSet,
    time::{sleep, timeout},
};

use self::{
    fleet::{Fleet, Programs},
    lock::{LockError, StateLock},
    program::NoProgram,
    ready::Ready,
};
use crate::{
    args,
    cli::{
        call, clean, console, event,
        exit::{self, Failure},
    },
    config::Config,
    log::{self, Log},
};

/// Setting a state directory up takes some hundred milliseconds.
const INIT_WITHIN: Duration = Duration::from_mins(1);

/// How often there is looked for what has to be renewed; the shortest life is 90 days, and half of it is left then.
const RENEW_EVERY: Duration = Duration::from_hours(24);

/// Something does not start.
#[derive(Debug, thiserror::Error)]
pub enum UpError {
    /// The state directory.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// Something that no `up` started runs on the state directory.
    #[error("{} is in use by a process that `signalbox up` did not start (pid {pid}); stop it, or choose another with --state-dir", .path.display())]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// The process.
        pid: u32,
    },
    /// A binary is missing.
    #[error(transparent)]
    Program(#[from] NoProgram),
    /// `signalbox-bridge init` refused: its own line.
    #[error("{0}")]
    Init(String),
    /// A child failed at its start: its own line.
    #[error("{name}: {line}")]
    Child {
        /// Which.
        name: String,
        /// Its last line.
        line: String,
    },
    /// A child says something else than it should.
    #[error("{0} does not say what it should; use binaries of one version")]
    Ready(&'static str),
    /// A file of the state directory.
    #[error("{} cannot be used", .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A machine's heartbeat did not come.
    #[error("{machine} was not heard within {} s; see its log", .within.as_secs())]
    Unheard {
        /// Which.
        machine: MachineId,
        /// How long it was waited for.
        within: Duration,
    },
    /// Signals cannot be listened to.
    #[error("signals cannot be listened to")]
    Signals(#[source] io::Error),
}

/// Longest wait for the console to give the terminal back when it is told to end.
const TERMINAL_WITHIN: Duration = Duration::from_millis(300);

/// SIGINT, SIGTERM, and SIGHUP unless somebody (`nohup`) had it ignored.
struct Stop {
    interrupt: Signal,
    terminate: Signal,
    hangup: Option<Signal>,
}

impl Stop {
    fn listen() -> Result<Self, UpError> {
        let hangup = if hangup_is_ignored() { None } else { Some(signal(SignalKind::hangup())) };
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).map_err(UpError::Signals)?,
            terminate: signal(SignalKind::terminate()).map_err(UpError::Signals)?,
            hangup: hangup.transpose().map_err(UpError::Signals)?,
        })
    }

    /// Waits for any of them. Cancel safe.
    async fn asked(&mut self) {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = hangup => {}
        }
    }
}

fn hangup_is_ignored() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & 1 == 1)
}

/// Starts everything, stays until asked to stop, stops everything.
///
/// # Errors
/// [`Failure`] with one line; nothing that was started is left.
pub async fn up(config: &Config, args: &args::Up) -> Result<u8, Failure> {
    if let Some(chosen) = config.context.as_ref().filter(|chosen| chosen.context.is_elsewhere()) {
        let line = format!(
            "cannot start a fleet: the context {} is one that runs elsewhere; start the default one with `--context default`, or \
             another one with --state-dir",
            chosen.name
        );
        return Err(Failure::new(exit::USAGE, line));
    }
    let mut stop = Stop::listen().map_err(|error| failure(&error))?;
    let mut lock = StateLock::take(config.layout.root()).map_err(|error| failure(&error.into()))?;
    // Our console goes to our broker, whatever the environment says.
    let config = Config { layout: Layout::new(lock.root()), nats_url: None, ..config.clone() };
    let prepared = tokio::select! {
        prepared = prepare(&config, args, &mut lock) => Some(prepared),
        () = stop.asked() => None,
    };
    let programs = match prepared {
        Some(Ok(programs)) => programs,
        Some(Err(error)) => {
            lock.undo();
            return Err(failure(&error));
        }
        None => {
            lock.undo();
            return Ok(exit::OK);
        }
    };
    log::begin(&Log::File("up", &config.layout));
    let bridge = programs.bridge.clone();
    let mut fleet = Fleet::new(config.layout.clone(), programs, !args.no_restart);
    let started = tokio::select! {
        started = start(&config, args, &mut fleet) => started,
        () = stop.asked() => {
            fleet.stop().await;
            return Ok(exit::OK);
        }
    };
    match started {
        Ok(ready) => {
            let ended = tokio::select! {
                ended = stay(&config, args, &ready, &mut stop) => ended,
                () = renew(&bridge, lock.root(), RENEW_EVERY) => Ok(()),
            };
            fleet.stop().await;
            ended.map(|()| exit::OK)
        }
        Err(error) => {
            fleet.stop().await;
            lock.undo();
            Err(failure(&error))
        }
    }
}

fn failure(error: &UpError) -> Failure {
    Failure::new(exit::FAILED, format!("cannot start: {}", clean::line(&report(error))))
}

/// Makes the state directory what it must be, ends what is left of an earlier start, and takes the lock by name.
async fn prepare(config: &Config, args: &args::Up, lock: &mut StateLock) -> Result<Programs, UpError> {
    if let Some(process) = process::foreign(&config.layout) {
        return Err(UpError::Foreign { path: lock.root().to_owned(), pid: process.pid() });
    }
    let path = config.environment.path.as_deref();
    let programs = Programs {
        bridge: program::find("signalbox-bridge", path)?,
        relay: program::find("signalbox-relay", path)?,
    };
    init(&programs.bridge, lock.root(), &machines(args)).await?;
    lock.name()?;
    process::end_leftovers(&config.layout).await;
    Ok(programs)
}

fn machines(args: &args::Up) -> Vec<MachineId> {
    (1..=args.relays).filter_map(|n| MachineId::new(format!("demo-{n}")).ok()).collect()
}

async fn init(bridge: &Path, root: &Path, machines: &[MachineId]) -> Result<(), UpError> {
    let mut command = Command::new(bridge);
    command.arg("init").arg("--state-dir").arg(root).stdin(Stdio::null()).kill_on_drop(true);
    if !machines.is_empty() {
        let names: Vec<&str> = machines.iter().map(MachineId::as_str).collect();
        command.arg("--machines").arg(names.join(","));
    }
    let output = match timeout(INIT_WITHIN, command.output()).await {
        Ok(Ok(output)) => output,
        Ok(Err(source)) => return Err(UpError::File { path: bridge.to_owned(), source }),
        Err(_) => return Err(UpError::Init("setting the state directory up takes too long".to_owned())),
    };
    if output.status.success() {
        return Ok(());
    }
    let line = service::own_line(&String::from_utf8_lossy(&output.stderr));
    Err(UpError::Init(line.unwrap_or_else(|| "the state directory cannot be set up".to_owned())))
}

/// Has everything that ends some day issued anew while it still counts, for ever: the authors document, logins. What is
/// renewed is taken up by those who run.
async fn renew(bridge: &Path, root: &Path, every: Duration) {
    loop {
        sleep(every).await;
        if let Err(error) = init(bridge, root, &[]).await {
            tracing::warn!(error = report(&error), "what ends some day was not renewed; tried again");
        }
    }
}

async fn start(config: &Config, args: &args::Up, fleet: &mut Fleet) -> Result<Ready, UpError> {
    let tell = |line: &str| {
        if !args.headless {
            crate::cli::say(line);
        }
    };
    let going_on = if config.environment.is_ascii() { "..." } else { "…" };
    tell(&format!("starting broker and bridge {going_on}"));
    let bridge = fleet.start_bridge(args).await?;
    let machines = machines(args);
    fleet.start_relays(&machines, &bridge.nats);
    let path = config.layout.admin_token();
    let token = fs::read_to_string(&path).map_err(|source| UpError::File { path, source })?;
    let token = token.trim().to_owned();
    let progress = |ready: usize| tell(&format!("relays {ready}/{} {going_on}", machines.len()));
    let relays = fleet.until_heard(&bridge, &token, progress).await?;
    fleet.ready(bridge, relays, token)
}

/// Everything runs: tells so, and waits until it shall no more.
async fn stay(config: &Config, args: &args::Up, ready: &Ready, stop: &mut Stop) -> Result<(), Failure> {
    if args.headless {
        call::print(event::line(ready)).await?;
        stop.asked().await;
        return Ok(());
    }
    // In a task of its own: whatever happens to the console (its terminal may vanish under it, and libraries print
    // to it when they are dropped), what was started is stopped in order.
    let config = config.clone();
    let mut shown = JoinSet::new();
    shown.spawn(async move { console::open(&config).await });
    let left = tokio::select! {
        Some(ended) = shown.join_next() => ended.unwrap_or_else(|error| {
            tracing::error!(error = report(&error), "the console broke off");
            Err(Failure::new(exit::FAILED, "cannot show the console any more: it broke off; see `log/up.log` in the state directory"))
        }),
        () = stop.asked() => Ok(()),
    };
    // Gives the terminal back, if it takes anything; one that does not must not hold up the end.
    if timeout(TERMINAL_WITHIN, shown.shutdown()).await.is_err() {
        tracing::warn!("the terminal takes nothing");
    }
    left
}
