//! SSH servers: OpenSSH's own on a port of its own, with its own keys, and peers that fail at a moment of choice.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    sync::watch,
    task::JoinSet,
};

use crate::{
    eventually_within,
    process::{Daemon, find},
};

/// Until a server listens, or a user is made while others make theirs.
const READY: Duration = Duration::from_mins(1);
/// Bytes that a peer carries at once.
const PIECE_BYTES: usize = 16 * 1024;

/// Runs a program to its end and returns what it prints.
///
/// # Errors
/// When it is not installed or fails; the error quotes what it says.
pub fn run(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("not installed: {name}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{name} fails: {}", said.trim());
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// OpenSSH's server, until it is dropped.
///
/// Its folder holds `host`, the key that it shows, `user`, the key that lets this process's user in, and `ca`, whose certificates
/// do, each with its `.pub`, and `authorized`, the keys that let in.
#[derive(Debug)]
pub struct Sshd {
    server: Daemon,
    port: u16,
    user: String,
    dir: TempDir,
}

impl Sshd {
    /// Starts one that keys let in.
    ///
    /// # Errors
    /// When OpenSSH's server is not installed, or does not start.
    pub async fn start() -> Result<Self> {
        Self::start_with(&[]).await
    }

    /// Starts one with lines for `sshd_config(5)` that go before what it has by default. `DIR` in them is its folder.
    ///
    /// # Errors
    /// When OpenSSH's server is not installed, or does not start.
    pub async fn start_with(lines: &[&str]) -> Result<Self> {
        let program = find("sshd").context("not installed: sshd (openssh-server)")?;
        let dir = TempDir::new().context("making a folder")?;
        // A user who is not root looks for the keys that let him in.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
        for name in ["host", "user", "ca"] {
            keygen(dir.path(), name, &["-t", "ed25519", "-N", ""])?;
        }
        fs::copy(dir.path().join("user.pub"), dir.path().join("authorized"))?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let lines = lines.join("\n").replace("DIR", &dir.path().display().to_string());
        let config = dir.path().join("config");
        // What is said of variables adds up, and so is left out where the caller says it.
        let variables = if lines.contains("AcceptEnv") { "" } else { "AcceptEnv LC_*\n" };
        fs::write(&config, format!("{lines}\n{variables}{}", configuration(port, dir.path())))?;
        // Where root runs it, it wants this folder, which the service makes. Without it the server says so.
        let _made = fs::create_dir("/run/sshd");
        let user = run(Command::new("id").arg("-un"))?;
        let server = Daemon::spawn(Command::new(program).arg("-D").arg("-e").arg("-f").arg(config))?;
        eventually_within("sshd", READY, || async {
            ensure!(server.exit_status().is_none(), "it ended: {}", server.stderr()?);
            ensure!(is_listening(port)?, "nobody listens");
            Ok(())
        })
        .await?;
        Ok(Self { server, port, user, dir })
    }

    /// Where it listens, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The user who may log in with the key `user`.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// A file of its folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The text of a file of its folder.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn text(&self, name: &str) -> Result<String> {
        fs::read_to_string(self.path(name)).with_context(|| format!("reading {name}"))
    }

    /// Makes a key in its folder by `ssh-keygen` with these arguments.
    ///
    /// # Errors
    /// When that fails.
    pub fn keygen(&self, name: &str, args: &[&str]) -> Result<()> {
        keygen(self.dir.path(), name, args)
    }

    /// Lets a key of its folder in.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn authorize(&self, name: &str) -> Result<()> {
        let all = format!("{}{}", self.text("authorized")?, self.text(&format!("{name}.pub"))?);
        fs::write(self.path("authorized"), all).context("writing the authorized keys")
    }

    /// Lets no key of its folder in any more but this one.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn authorize_only(&self, name: &str) -> Result<()> {
        fs::write(self.path("authorized"), self.text(&format!("{name}.pub"))?)
            .context("writing the authorized keys")
    }

    /// What a file of known hosts says of it on this port, with a key of its folder.
    ///
    /// # Errors
    /// When there is no such key.
    pub fn known_as(&self, key: &str, port: u16) -> Result<String> {
        let key = self.text(&format!("{key}.pub"))?;
        let words: Vec<&str> = key.split(' ').take(2).collect();
        Ok(format!("[127.0.0.1]:{port} {}", words.join(" ")))
    }

    /// Connections that it serves, by its processes.
    ///
    /// # Errors
    /// When they cannot be counted.
    pub fn connections(&self) -> Result<usize> {
        Ok(children(self.server.pid())?.len())
    }

    /// Sends a signal to the process of each connection: STOP makes them hang, until CONT.
    ///
    /// # Errors
    /// When they cannot be found.
    pub fn signal_connections(&self, signal: Signal) -> Result<()> {
        for pid in children(self.server.pid())? {
            let pid = Pid::from_raw(i32::try_from(pid)?).context("no pid")?;
            kill_process(pid, signal).context("signalling a connection")?;
        }
        Ok(())
    }

    /// Processes of commands, and all they started, below its own.
    ///
    /// # Errors
    /// When they cannot be counted.
    pub fn commands(&self) -> Result<usize> {
        let (mut below, mut count) = (children(self.server.pid())?, 0);
        while let Some(pid) = below.pop() {
            // One that has just ended has no children.
            below.extend(children(pid).unwrap_or_default());
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            count += usize::from(!name.is_empty() && !name.starts_with("sshd"));
        }
        Ok(count)
    }

    /// What it says on its log.
    ///
    /// # Errors
    /// When that cannot be read.
    pub fn log(&self) -> Result<String> {
        self.server.stderr()
    }
}

fn keygen(dir: &Path, name: &str, args: &[&str]) -> Result<()> {
    let program = find("ssh-keygen").context("not installed: ssh-keygen (openssh-client)")?;
    run(Command::new(program).arg("-q").args(args).arg("-f").arg(dir.join(name))).map(drop)
}

/// Whether somebody listens on a port of 127.0.0.1: found without a connection, which the server would count.
fn is_listening(port: u16) -> Result<bool> {
    let place = format!("0100007F:{port:04X}");
    let sockets = fs::read_to_string("/proc/net/tcp").context("reading the sockets of this machine")?;
    Ok(sockets.lines().any(|line| {
        let mut words = line.split_whitespace().skip(1);
        words.next() == Some(&place) && words.nth(1) == Some("0A")
    }))
}

/// Children of a process, by their ids.
fn children(pid: u32) -> Result<Vec<u32>> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    Ok(text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect())
}

/// Own keys, one user, and nothing that looks names up; variables are accepted as in Debian. At the third level of shells bash reads none of the user's own files.
fn configuration(port: u16, dir: &Path) -> String {
    let dir = dir.display();
    format!(
        "ListenAddress 127.0.0.1\nPort {port}\nHostKey {dir}/host\nAuthorizedKeysFile {dir}/authorized\n\
         TrustedUserCAKeys {dir}/ca.pub\nPidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n\
         KbdInteractiveAuthentication no\nPermitRootLogin yes\nUseDNS no\nMaxStartups 500\nLogLevel ERROR\nSetEnv SHLVL=2\n"
    )
}

/// A user of this machine with a password, until it is dropped. Only root can make one.
#[derive(Debug)]
pub struct PasswordUser {
    name: String,
    password: String,
}

impl PasswordUser {
    /// Makes one. None where this user may not.
    ///
    /// # Errors
    /// When it cannot be made although this is root.
    pub async fn make() -> Result<Option<Self>> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        let name = format!("sb{}x{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let password = format!("pass word {name}");
        let program = find("useradd").context("not installed: useradd")?;
        // Others make theirs at the same time, and the file of users is locked meanwhile.
        eventually_within("a user", READY, || async {
            run(Command::new(&program).args(["-M", "-d", "/", "-s", "/bin/sh", &name])).map(drop)
        })
        .await?;
        let user = Self { name, password };
        eventually_within("a password", READY, || async { user.set_password() }).await?;
        Ok(Some(user))
    }

    fn set_password(&self) -> Result<()> {
        use std::io::Write as _;
        let program = find("chpasswd").context("not installed: chpasswd")?;
        let mut child = Command::new(program).stdin(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let mut stdin = child.stdin.take().context("no stdin")?;
        writeln!(stdin, "{}:{}", self.name, self.password)?;
        drop(stdin);
        ensure!(child.wait()?.success(), "chpasswd fails");
        Ok(())
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its password.
    pub fn password(&self) -> &str {
        &self.password
    }
}

impl Drop for PasswordUser {
    fn drop(&mut self) {
        let Some(program) = find("userdel") else { return };
        for _ in 0..50 {
            if run(Command::new(&program).args(["-f", &self.name])).is_ok() {
                return;
            }
            std::thread::park_timeout(Duration::from_millis(100));
        }
    }
}

/// An agent with keys, until it is dropped.
#[derive(Debug)]
pub struct Agent {
    socket: PathBuf,
    _process: Daemon,
    _dir: TempDir,
}

impl Agent {
    /// Starts one that has this key.
    ///
    /// # Errors
    /// When OpenSSH's agent is not installed, or does not take the key.
    pub async fn with(key: &Path) -> Result<Self> {
        let dir = TempDir::new().context("making a folder")?;
        let socket = dir.path().join("agent");
        let program = find("ssh-agent").context("not installed: ssh-agent (openssh-client)")?;
        let process = Daemon::spawn(Command::new(program).arg("-D").arg("-a").arg(&socket))?;
        let add = find("ssh-add").context("not installed: ssh-add (openssh-client)")?;
        eventually_within("an agent", READY, || async {
            run(Command::new(&add).arg("-q").arg(key).env("SSH_AUTH_SOCK", &socket)).map(drop)
        })
        .await?;
        Ok(Self { socket, _process: process, _dir: dir })
    }

    /// Where it listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }
}

/// What becomes of a connection at its moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// Nothing is carried any more, and it stays.
    Hangs,
    /// It is closed.
    Closes,
}

/// A TCP peer that says or carries so much, and no more.
#[derive(Debug)]
pub struct FailingPeer {
    port: u16,
    /// Said when all connections are to end.
    cut: watch::Sender<bool>,
    /// Bytes carried from the server.
    carried: Arc<AtomicU64>,
    accepted: Arc<AtomicU32>,
    _tasks: JoinSet<()>,
}

impl FailingPeer {
    /// A peer that says this text to whoever connects.
    ///
    /// # Errors
    /// When no port is to be had.
    pub async fn saying(text: &'static str, then: Then) -> Result<Self> {
        Self::serve(Arc::default(), move |mut client: TcpStream| async move {
            // Who is gone already hears nothing.
            if client.write_all(text.as_bytes()).await.is_ok() && then == Then::Hangs {
                std::future::pending::<()>().await;
            }
        })
        .await
    }

    /// A way to a server on this machine that carries so many bytes from it.
    ///
    /// # Errors
    /// When no port is to be had.
    pub async fn carrying(server_port: u16, bytes: u64, then: Then) -> Result<Self> {
        let carried = Arc::new(AtomicU64::new(0));
        Self::serve(Arc::clone(&carried), move |client: TcpStream| {
            carry_both(client, server_port, bytes, then, Arc::clone(&carried))
        })
        .await
    }

    async fn serve<F, Fut>(carried: Arc<AtomicU64>, serve: F) -> Result<Self>
    where
        F: Fn(TcpStream) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.context("opening a port")?;
        let port = listener.local_addr()?.port();
        let (cut, is_cut) = watch::channel(false);
        let accepted = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&accepted);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                let (served, mut is_cut) = (serve(client), is_cut.clone());
                connections.spawn(async move {
                    tokio::select! {
                        () = served => {}
                        _ = is_cut.wait_for(|cut| *cut) => {}
                    }
                });
            }
        });
        Ok(Self { port, cut, carried, accepted, _tasks: tasks })
    }

    /// Where it listens, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Bytes carried from the server so far, over all connections.
    pub fn carried_bytes(&self) -> u64 {
        self.carried.load(Ordering::Relaxed)
    }

    /// Connections that were made to it so far.
    pub fn accepted(&self) -> u32 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Closes all connections, and those that come.
    pub fn cut(&self) {
        self.cut.send_replace(true);
    }

    /// Serves those that come again.
    pub fn mend(&self) {
        self.cut.send_replace(false);
    }
}

async fn carry_both(client: TcpStream, server_port: u16, bytes: u64, then: Then, carried: Arc<AtomicU64>) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", server_port)).await else { return };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let uncounted = AtomicU64::new(0);
    // The way to the client stays until the end, so that it hears none where there is none.
    let mut to_client = to_client;
    tokio::select! {
        () = carry(from_client, to_server, u64::MAX, &uncounted) => {}
        () = carry(from_server, &mut to_client, bytes, &carried) => if then == Then::Hangs {
            std::future::pending::<()>().await;
        },
    }
}

/// Carries so many bytes, or all there are, and counts them.
async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    bytes: u64,
    count: &AtomicU64,
) {
    let (mut buffer, mut left) = (vec![0; PIECE_BYTES], bytes);
    while left > 0 {
        let Ok(read) = from.read(&mut buffer).await else { return };
        let carried = usize::try_from(left).unwrap_or(usize::MAX).min(read);
        let Some(piece) = buffer.get(..carried).filter(|piece| !piece.is_empty()) else { return };
        if to.write_all(piece).await.is_err() {
            return;
        }
        left -= carried as u64;
        count.fetch_add(carried as u64, Ordering::Relaxed);
    }
}
