//! Peers on the same machine: an SSH server of our own, OpenSSH's client, and asyncssh. What is not installed is said.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use signalbox_testkit::{
    eventually_within,
    process::{Daemon, find},
    sshd,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout},
    time::timeout,
};

use crate::machine::said;

/// Until a server listens, a hundred connections stand, or a command on all of them has ended.
const READY: Duration = Duration::from_mins(3);
const WARM: &str = include_str!("../peers/warm.py");

/// An SSH server, and a connection to it that others go through; gone on drop.
pub(crate) struct Sshd {
    server: sshd::Sshd,
    master: Option<Daemon>,
}

impl Sshd {
    /// Starts one with as many sessions as are asked for.
    ///
    /// # Errors
    /// When it is not installed, or does not start; the error is what a report says of it.
    pub(crate) async fn start() -> Result<Self> {
        let server = sshd::Sshd::start_with(&["MaxSessions 200"]).await?;
        let mut sshd = Self { server, master: None };
        sshd.keep_a_connection().await?;
        Ok(sshd)
    }

    /// A connection that others go through.
    async fn keep_a_connection(&mut self) -> Result<()> {
        let mut command = self.new_connection()?;
        let master = Daemon::spawn(command.args(["-M", "-N", "-S"]).arg(self.socket()))?;
        eventually_within("a master connection", READY, || async {
            ensure!(master.exit_status().is_none(), "it ended: {}", master.stderr()?);
            ensure!(self.socket().exists(), "there is no socket");
            Ok(())
        })
        .await?;
        self.master = Some(master);
        Ok(())
    }

    fn socket(&self) -> PathBuf {
        self.server.path("master")
    }

    /// Where it listens, on 127.0.0.1.
    pub(crate) fn port(&self) -> u16 {
        self.server.port()
    }

    /// Who is let in.
    pub(crate) fn user(&self) -> &str {
        self.server.user()
    }

    /// The key that lets him in.
    pub(crate) fn key(&self) -> Result<String> {
        self.server.text("user")
    }

    /// How a file of known hosts has it.
    pub(crate) fn known(&self) -> Result<String> {
        self.server.known_as("host", self.server.port())
    }

    /// The file of that key.
    pub(crate) fn key_file(&self) -> PathBuf {
        self.server.path("user")
    }

    /// `ssh` over a new connection; the command follows.
    pub(crate) fn new_connection(&self) -> Result<Command> {
        let mut command = Command::new(find("ssh").context("not installed: ssh")?);
        command.args(["-F", "none", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]);
        command.args(["-o", "LogLevel=ERROR", "-o", "BatchMode=yes", "-i"]).arg(self.server.path("user"));
        command.args(["-l", self.server.user(), "-p", &self.server.port().to_string(), "127.0.0.1"]);
        Ok(command)
    }

    /// `ssh` through the connection that is there; the command follows.
    pub(crate) fn warm_connection(&self) -> Result<Command> {
        let mut command = self.new_connection()?;
        command.arg("-S").arg(self.socket());
        Ok(command)
    }

    /// So many warm connections in one process; with none of them, one that makes a new one for each command.
    ///
    /// # Errors
    /// When it is not installed, or cannot connect; the error is what a report says of it.
    pub(crate) async fn asyncssh(&self, connections: usize) -> Result<Warm> {
        let python = find("python3").context("not installed: python3")?;
        said(Command::new(&python).args(["-c", "import asyncssh; print(asyncssh.__version__)"]))
            .context("not installed: asyncssh")?;
        let mut command = tokio::process::Command::new(python);
        command
            .args(["-c", WARM, &self.server.port().to_string(), self.server.user()])
            .arg(self.server.path("user"));
        command.arg(connections.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.stderr(Stdio::null()).kill_on_drop(true).spawn()?;
        let asks = child.stdin.take().context("no stdin")?;
        let answers = BufReader::new(child.stdout.take().context("no stdout")?).lines();
        let mut warm = Warm { _child: child, asks, answers };
        match warm.line().await?.as_str() {
            "ready" => Ok(warm),
            other => bail!("asyncssh says {other:?}"),
        }
    }
}

/// Warm connections of asyncssh.
pub(crate) struct Warm {
    _child: Child,
    asks: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Warm {
    /// How long `/bin/true` takes on so many of them, side by side.
    pub(crate) async fn run(&mut self, connections: usize) -> Result<Duration> {
        self.asks.write_all(format!("{connections}\n").as_bytes()).await?;
        self.asks.flush().await?;
        let line = self.line().await?;
        let ms: f64 = line.parse().with_context(|| format!("asyncssh says {line:?}"))?;
        Ok(Duration::from_secs_f64(ms / 1e3))
    }

    async fn line(&mut self) -> Result<String> {
        let line = timeout(READY, self.answers.next_line()).await.context("asyncssh says nothing")?;
        line?.context("asyncssh has ended")
    }
}
