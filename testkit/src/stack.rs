//! A whole Signalbox as a test fixture: `signalbox up --headless` in a state directory of its own.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use tempfile::TempDir;

use crate::http::Http;
use crate::process::{Daemon, bin};

/// How long everything may take to be ready. Debug builds on a busy machine need a fraction of it.
const READY: Duration = Duration::from_mins(1);

/// What `up --headless` says when everything is ready.
#[derive(Debug, Clone, Deserialize)]
pub struct Ready {
    /// Base URL of HTTP.
    pub http: String,
    /// URL of the broker.
    pub nats: String,
    /// The state directory.
    pub state_dir: PathBuf,
    /// Bearer token.
    pub admin_token: String,
    /// Login of an administrator's NATS client.
    pub ctrl_creds: PathBuf,
    /// The operator.
    pub operator: String,
    /// Pids.
    pub pids: Pids,
    /// The bridge's sled.
    pub bridge_data: PathBuf,
    /// The machines.
    pub machines: Vec<Machine>,
}

/// Pids at the time of readiness.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Pids {
    /// The broker.
    pub broker: u32,
    /// The bridge.
    pub bridge: u32,
}

/// One machine.
#[derive(Debug, Clone, Deserialize)]
pub struct Machine {
    /// Its id.
    pub id: String,
    /// Its token.
    pub token: String,
    /// Its login.
    pub creds: PathBuf,
    /// Its store.
    pub store: PathBuf,
    /// The relay's pid.
    pub pid: u32,
    /// The keeper's pid.
    pub keeper_pid: u32,
    /// Its public signing key.
    pub signing_key: String,
}

/// What to start.
#[derive(Debug, Clone)]
pub struct Options {
    relays: u32,
    restart: bool,
    envs: Vec<(OsString, OsString)>,
    state_dir: Option<PathBuf>,
    ready: Duration,
}

impl Options {
    /// So many relays, everything else as users have it.
    pub fn relays(relays: u32) -> Self {
        Self { relays, restart: true, envs: Vec::new(), state_dir: None, ready: READY }
    }

    /// What dies stays dead.
    #[must_use]
    pub fn no_restart(mut self) -> Self {
        self.restart = false;
        self
    }

    /// A variable in the environment of all parts.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.envs.push((name.into(), value.into()));
        self
    }

    /// The named part kills itself at this point (a build with crash points). Nothing is restarted.
    #[must_use]
    pub fn crash_at(self, place: &str) -> Self {
        self.env(CRASH_AT, place).no_restart()
    }

    /// It may take so long to be ready: for many machines.
    #[must_use]
    pub fn ready_within(mut self, bound: Duration) -> Self {
        self.ready = bound;
        self
    }

    /// A state directory that the caller owns.
    #[must_use]
    pub fn state_dir(mut self, dir: &Path) -> Self {
        self.state_dir = Some(dir.to_owned());
        self
    }
}

/// The variable that names a crash point.
const CRASH_AT: &str = "SIGNALBOX_CRASH_AT";

/// A running Signalbox; ended and wiped on drop.
#[derive(Debug)]
pub struct Stack {
    // Dropped first: the processes end before their directory goes.
    up: Daemon,
    ready: Ready,
    http: Http,
    _dir: Option<TempDir>,
}

impl Stack {
    /// Starts everything on free ports and waits until it is ready.
    ///
    /// # Errors
    /// When a program is missing or not ready in time; the error quotes what `up` said.
    pub async fn start(options: Options) -> Result<Self> {
        let (dir, state_dir) = if let Some(path) = options.state_dir {
            (None, path)
        } else {
            let dir = tempfile::tempdir().context("making a state directory")?;
            let path = dir.path().join("state");
            (Some(dir), path)
        };
        let mut command = Command::new(bin("signalbox")?);
        command.args(["up", "--headless", "--http", "127.0.0.1:0", "--nats", "127.0.0.1:0", "--relays"]);
        command.arg(options.relays.to_string()).arg("--state-dir").arg(&state_dir);
        command.env("SIGNALBOX_NATS_SERVER", crate::broker::nats_server()?);
        command.envs(options.envs);
        if !options.restart {
            command.arg("--no-restart");
        }
        let up = Daemon::spawn(&mut command)?;
        let line = up.first_line(options.ready).await?;
        let ready: Ready = serde_json::from_str(&line).with_context(|| format!("reading {line:?}"))?;
        let http = Http::new(&ready.http, &ready.admin_token);
        Ok(Self { up, ready, http, _dir: dir })
    }

    /// Three relays, as users have it.
    ///
    /// # Errors
    /// As [`Stack::start`].
    pub async fn demo() -> Result<Self> {
        Self::start(Options::relays(3)).await
    }

    /// What `up` said.
    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    /// HTTP as its administrator.
    pub fn http(&self) -> &Http {
        &self.http
    }

    /// The process that started the others.
    pub fn up(&self) -> &Daemon {
        &self.up
    }

    /// The n-th machine, from 0.
    ///
    /// # Errors
    /// When there are fewer.
    pub fn machine(&self, n: usize) -> Result<&Machine> {
        self.ready.machines.get(n).with_context(|| format!("there is no machine {n}"))
    }

    /// The pid that `STATE/run/<name>.pid` names now.
    ///
    /// # Errors
    /// When there is no such file.
    pub fn pid(&self, name: &str) -> Result<u32> {
        let path = self.ready.state_dir.join("run").join(format!("{name}.pid"));
        let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        text.trim().parse().with_context(|| format!("reading a pid from {}", path.display()))
    }

    /// How the n-th relay is started by hand; `store` replaces its own.
    ///
    /// # Errors
    /// When the program or the machine is missing.
    pub fn relay_command(&self, n: usize, store: Option<&Path>) -> Result<Command> {
        let machine = self.machine(n)?;
        let mut command = Command::new(bin("signalbox-relay")?);
        command.arg("run").arg("--store").arg(store.unwrap_or(&machine.store));
        command.arg("--creds").arg(&machine.creds).arg("--nats").arg(&self.ready.nats);
        command.env_remove(CRASH_AT);
        Ok(command)
    }

    /// How a further bridge, or one in place of a dead one, is started by hand on the running broker.
    ///
    /// # Errors
    /// When the program is missing.
    pub fn bridge_command(&self, data: &Path) -> Result<Command> {
        let mut command = Command::new(bin("signalbox-bridge")?);
        command.arg("serve").arg("--state-dir").arg(&self.ready.state_dir).arg("--data").arg(data);
        command.args(["--http", "127.0.0.1:0", "--nats"]).arg(&self.ready.nats);
        command.env_remove(CRASH_AT);
        Ok(command)
    }

    /// Starts a further bridge; answers it and its HTTP.
    ///
    /// # Errors
    /// When it is not ready in time.
    pub async fn start_bridge(&self, data: &Path) -> Result<(Daemon, Http)> {
        let bridge = Daemon::spawn(&mut self.bridge_command(data)?)?;
        let line = bridge.first_line(READY).await?;
        let ready: serde_json::Value = serde_json::from_str(&line)?;
        let url = ready
            .get("http")
            .and_then(serde_json::Value::as_str)
            .context("the bridge names no HTTP address")?;
        Ok((bridge, Http::new(url, &self.ready.admin_token)))
    }

    /// Starts a relay by hand and waits until it is ready.
    ///
    /// # Errors
    /// When it is not ready in time.
    pub async fn start_relay(&self, n: usize, store: Option<&Path>) -> Result<Daemon> {
        let relay = Daemon::spawn(&mut self.relay_command(n, store)?)?;
        relay.first_line(READY).await?;
        Ok(relay)
    }

    /// The command line of `signalbox` against this stack.
    ///
    /// # Errors
    /// When the program is missing.
    pub fn cli(&self, args: &[&str]) -> Result<Command> {
        let mut command = Command::new(bin("signalbox")?);
        command.args(args).env("SIGNALBOX_STATE_DIR", &self.ready.state_dir).env_remove(CRASH_AT);
        Ok(command)
    }

    /// Ends everything as an operator would, and answers how long it took.
    ///
    /// # Errors
    /// When `up` does not end in time or not with exit code 0.
    pub async fn stop(&self) -> Result<Duration> {
        let since = std::time::Instant::now();
        self.up.terminate()?;
        let status = self.up.wait(Duration::from_secs(10)).await?;
        ensure!(status.success(), "up ended with {status}");
        Ok(since.elapsed())
    }
}
