//! A real nats-server for one test: own port, own store, killed and wiped with its handle.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use tempfile::TempDir;

use crate::eventually::eventually;

/// Names the nats-server to use.
const BINARY_VARIABLE: &str = "SIGNALBOX_NATS_SERVER";

/// What the product's own configuration promises to streams. Without it the server promises three quarters of what
/// is free on the disk, and a stream that may grow beyond that is refused: tests would fail by what else is on it.
const ROOM: &str = "jetstream { max_memory_store: 1GB, max_file_store: 100GB }\n";

/// A running (or killed, or stopped) nats-server with JetStream.
#[derive(Debug)]
pub struct Broker {
    child: Child,
    port: u16,
    config: PathBuf,
    /// Holds store, log and ports file.
    dir: TempDir,
}

impl Broker {
    /// Starts one without accounts, on a free port of the loopback interface.
    ///
    /// # Errors
    /// When there is no nats-server, or it does not come up within 10 s (with its log).
    pub async fn start() -> Result<Self> {
        Self::start_with_config_text("").await
    }

    /// Starts one with a configuration file. Address, port and store directory are ours, whatever it says.
    ///
    /// # Errors
    /// As [`Broker::start`].
    pub async fn start_with_config(path: &Path) -> Result<Self> {
        Self::start_in(TempDir::new()?, path.to_owned()).await
    }

    /// Starts one with this configuration, which has nothing to say of JetStream.
    ///
    /// # Errors
    /// As [`Broker::start`].
    pub async fn start_with_config_text(text: &str) -> Result<Self> {
        Self::start_with_config_text_in(TempDir::new()?, text).await
    }

    async fn start_with_config_text_in(dir: TempDir, text: &str) -> Result<Self> {
        let path = dir.path().join("nats.conf");
        fs::write(&path, format!("{ROOM}{text}"))?;
        Self::start_in(dir, path).await
    }

    async fn start_in(dir: TempDir, config: PathBuf) -> Result<Self> {
        let child = spawn(dir.path(), &config, None)?;
        let mut broker = Self { child, port: 0, config, dir };
        broker.port = broker.wait_until_up().await?;
        Ok(broker)
    }

    /// `nats://127.0.0.1:<port>`.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Its client port. The same after [`Broker::restart`].
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where it keeps its streams.
    pub fn store_dir(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// SIGKILL, and waits until it is gone.
    ///
    /// # Errors
    /// When it was gone already.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill().context("kill nats-server")?;
        self.child.wait().context("wait for nats-server")?;
        Ok(())
    }

    /// SIGSTOP, and waits until it has stopped: its sockets stay open, nothing answers.
    ///
    /// # Errors
    /// When it is gone.
    pub fn stop(&self) -> Result<()> {
        self.signal(Signal::STOP)?;
        let stopped = waitpid(Some(self.raw_pid()?), WaitOptions::UNTRACED).context("wait for the stop")?;
        ensure!(stopped.is_some_and(|(_, status)| status.stopped()), "nats-server ended instead of stopping");
        Ok(())
    }

    /// SIGCONT: it goes on where it was.
    ///
    /// # Errors
    /// When it is gone.
    pub fn cont(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// Starts a killed one again on the same port and store, and waits until it answers.
    ///
    /// # Errors
    /// As [`Broker::start`].
    pub async fn restart(&mut self) -> Result<()> {
        if self.child.try_wait()?.is_none() {
            self.kill()?;
        }
        self.child = spawn(self.dir.path(), &self.config, Some(self.port))?;
        self.wait_until_up().await?;
        Ok(())
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(self.raw_pid()?, signal).context("signal nats-server")
    }

    fn raw_pid(&self) -> Result<Pid> {
        i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("process id")
    }

    /// The server writes its ports file once it listens.
    async fn wait_until_up(&mut self) -> Result<u16> {
        let file = self.dir.path().join(format!("nats-server_{}.ports", self.child.id()));
        let child = &mut self.child;
        let up = eventually("nats-server", || {
            // One that has ended will not come up: that is an answer too.
            let ended = child.try_wait().ok().flatten();
            let file = &file;
            async move {
                match ended {
                    Some(status) => Ok(Err(anyhow!("nats-server ended with {status}"))),
                    None => client_port(file).await.map(Ok),
                }
            }
        });
        let port = up.await.and_then(|port| port);
        port.with_context(|| format!("nats-server did not start; its log:\n{}", self.log()))
    }
}

async fn client_port(ports_file: &Path) -> Result<u16> {
    let ports: serde_json::Value = serde_json::from_slice(&fs::read(ports_file)?)?;
    let url = ports.pointer("/nats/0").and_then(serde_json::Value::as_str).context("no client port")?;
    let port: u16 = url.rsplit(':').next().unwrap_or_default().parse()?;
    tokio::net::TcpStream::connect(("127.0.0.1", port)).await?;
    Ok(port)
}

impl Drop for Broker {
    fn drop(&mut self) {
        // A stopped process cannot be ended by anything but SIGKILL, which this is. It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(dir: &Path, config: &Path, port: Option<u16>) -> Result<Child> {
    let log = File::options().create(true).append(true).open(dir.join("log"))?;
    let mut command = Command::new(nats_server()?);
    command.args(["--addr", "127.0.0.1", "--jetstream"]);
    // -1 = any free port.
    command.arg("--port").arg(port.map_or("-1".to_owned(), |port| port.to_string()));
    command.arg("--store_dir").arg(dir.join("store"));
    command.arg("--ports_file_dir").arg(dir);
    command.arg("--config").arg(config);
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    command.spawn().context("start nats-server")
}

/// The nats-server: named by the environment, else fetched into `target/tools`, else on `PATH`.
///
/// # Errors
/// When there is none, saying what was tried.
pub fn nats_server() -> Result<PathBuf> {
    if let Some(named) = std::env::var_os(BINARY_VARIABLE) {
        let named = PathBuf::from(named);
        if named.is_file() {
            return Ok(named);
        }
        bail!("{BINARY_VARIABLE} names {}, which is no file", named.display());
    }
    let fetched = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/nats-server");
    if fetched.is_file() {
        return Ok(fetched);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|dir| dir.join("nats-server")).find(|file| file.is_file());
    found.with_context(|| {
        format!("no nats-server: not in {BINARY_VARIABLE}, target/tools or PATH; `cargo xtask test` gets one")
    })
}

/// A port of the loopback interface that was free a moment ago.
///
/// # Errors
/// When there is none.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

#[cfg(test)]
mod tests {
    use signalbox_link::{Link, Options};
    use signalbox_schemas::stream;

    use super::*;
    use crate::small_disk::SmallDisk;

    #[tokio::test]
    async fn what_streams_may_grow_to_does_not_depend_on_the_disk() -> Result<()> {
        let mount = TempDir::new()?;
        let Some(_disk) = SmallDisk::over(mount.path(), 64)? else { return Ok(()) };
        let broker = Broker::start_with_config_text_in(TempDir::new_in(mount.path())?, "").await?;
        let link = Link::connect(Options::plain(&broker.url(), "test", None)).await?;
        for def in stream::all() {
            link.ensure_stream(&def).await?;
        }
        Ok(())
    }
}
