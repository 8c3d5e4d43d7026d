//! Peers on the same machine: an SSH server of our own, OpenSSH's client, and asyncssh. What is not installed is said.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use signalbox_testkit::{eventually_within, process::Daemon};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout},
    time::timeout,
};

use crate::machine::{find, said};

/// Until a server listens, a hundred connections stand, or a command on all of them has ended.
const READY: Duration = Duration::from_mins(3);
const WARM: &str = include_str!("../peers/warm.py");

/// An SSH server on a free port, with keys and a configuration of its own; gone on drop.
pub(crate) struct Sshd {
    _server: Daemon,
    master: Option<Daemon>,
    port: u16,
    user: String,
    dir: TempDir,
}

impl Sshd {
    /// Starts one.
    ///
    /// # Errors
    /// When it is not installed, or does not start; the error is what a report says of it.
    pub(crate) async fn start() -> Result<Self> {
        let program = find("sshd").context("not installed: sshd")?;
        let keygen = find("ssh-keygen").context("not installed: ssh-keygen")?;
        let dir = TempDir::new().context("making a folder")?;
        let path = |name: &str| dir.path().join(name);
        for name in ["host", "user"] {
            let mut command = Command::new(&keygen);
            said(command.args(["-t", "ed25519", "-N", "", "-f"]).arg(path(name)))
                .context("ssh-keygen fails")?;
        }
        fs::copy(path("user.pub"), path("authorized"))?;
        fs::set_permissions(path("authorized"), fs::Permissions::from_mode(0o600))?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        fs::write(path("config"), configuration(port, dir.path()))?;
        // Where root runs it, it wants this folder, which the service makes. Without it the server says so.
        let _made = fs::create_dir("/run/sshd");
        let user = said(Command::new("id").arg("-un")).context("who is this")?;
        let server = Daemon::spawn(Command::new(program).arg("-D").arg("-e").arg("-f").arg(path("config")))?;
        eventually_within("sshd", READY, || async {
            ensure!(server.exit_status().is_none(), "it ended: {}", server.stderr()?);
            tokio::net::TcpStream::connect(("127.0.0.1", port)).await?;
            Ok(())
        })
        .await?;
        let mut sshd = Self { _server: server, master: None, port, user, dir };
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
        self.dir.path().join("master")
    }

    /// `ssh` over a new connection; the command follows.
    pub(crate) fn new_connection(&self) -> Result<Command> {
        let mut command = Command::new(find("ssh").context("not installed: ssh")?);
        command.args(["-F", "none", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]);
        command.args(["-o", "LogLevel=ERROR", "-o", "BatchMode=yes", "-i"]).arg(self.dir.path().join("user"));
        command.args(["-l", &self.user, "-p", &self.port.to_string(), "127.0.0.1"]);
        Ok(command)
    }

    /// `ssh` through the connection that is there; the command follows.
    pub(crate) fn warm_connection(&self) -> Result<Command> {
        let mut command = self.new_connection()?;
        command.arg("-S").arg(self.socket());
        Ok(command)
    }

    /// So many connections in one process.
    ///
    /// # Errors
    /// When it is not installed, or cannot connect; the error is what a report says of it.
    pub(crate) async fn asyncssh(&self, connections: usize) -> Result<Warm> {
        let python = find("python3").context("not installed: python3")?;
        said(Command::new(&python).args(["-c", "import asyncssh; print(asyncssh.__version__)"]))
            .context("not installed: asyncssh")?;
        let mut command = tokio::process::Command::new(python);
        command.args(["-c", WARM, &self.port.to_string(), &self.user]).arg(self.dir.path().join("user"));
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

/// Own keys, one user, as many sessions as are asked for, and nothing that looks names up. At the third level of shells bash
/// reads none of the user's own files, which would be measured too.
fn configuration(port: u16, dir: &Path) -> String {
    let dir = dir.display();
    format!(
        "ListenAddress 127.0.0.1\nPort {port}\nHostKey {dir}/host\nAuthorizedKeysFile {dir}/authorized\nPidFile none\n\
         StrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin yes\nUseDNS no\nMaxSessions 200\n\
         MaxStartups 500\nLogLevel ERROR\nSetEnv SHLVL=2\n"
    )
}
