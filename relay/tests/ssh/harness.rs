//! A keeper, routes to servers, and what a run came to.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use signalbox_relay::{
    keeper::{
        client::{KeeperClient, KeeperEvent, Welcome},
        protocol::{Cause, End, Fault, Phase, RunStatus, StartRun},
    },
    ssh::route::{Hop, HostKeyPolicy, Route, SetBy, Way},
};
use signalbox_schemas::{Secret, host::HostPattern, id::CommandId, output::OutputStream, ssh::SshFault};
use signalbox_testkit::{eventually_within, sshd::Sshd};

/// Nothing here takes this long on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);
pub(crate) const MIB: u64 = 1024 * 1024;

/// A store with its keeper. The keeper ends when the store is removed with this value.
pub(crate) struct Room {
    folder: tempfile::TempDir,
    pub(crate) client: KeeperClient,
    pub(crate) welcome: Welcome,
    next_cid: u64,
}

impl Room {
    pub(crate) async fn open() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let exe = Path::new(env!("CARGO_BIN_EXE_signalbox-relay"));
        let (client, welcome) = KeeperClient::connect_or_start(&folder.path().join("store"), exe).await?;
        Ok(Self { folder, client, welcome, next_cid: 0 })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A route to a server whose key is known, with the key that lets in.
    pub(crate) fn route(&self, sshd: &Sshd) -> Result<Route> {
        self.know(&sshd.known_as("host", sshd.port())?)?;
        Ok(self.route_by(vec![hop(sshd, vec![key(sshd, "user")?])]))
    }

    /// A route through these hosts.
    pub(crate) fn route_by(&self, hops: Vec<Hop>) -> Route {
        Route {
            hops,
            known_hosts: self.path("known_hosts"),
            host_keys: HostKeyPolicy::Strict,
            targets: HostPattern::of("127.0.0.1", None).ok().map(|here| vec![here]),
            set_by: SetBy::Owner,
        }
    }

    /// Adds a line to the known hosts.
    pub(crate) fn know(&self, line: &str) -> Result<()> {
        let path = self.path("known_hosts");
        let before = fs::read_to_string(&path).unwrap_or_default();
        Ok(fs::write(path, format!("{before}{line}\n"))?)
    }

    pub(crate) fn start_of(&mut self, route: &Route, command: &str) -> StartRun {
        self.next_cid += 1;
        StartRun {
            cid: CommandId::from_idempotency_key("test", &self.next_cid.to_string()),
            command: command.into(),
            timeout_ms: 120_000,
            max_output: 256 * MIB,
            leave_children: false,
            expires_at: u64::MAX,
            folder: None,
            await_pipes: false,
            route: Some(Box::new(route.clone())),
        }
    }

    /// Starts a run and waits until the keeper says so.
    pub(crate) async fn start(&mut self, run: StartRun) -> Result<CommandId> {
        let cid = run.cid;
        self.client.start(run).await?;
        loop {
            match self.event().await? {
                KeeperEvent::Started { cid: started } if started == cid => return Ok(cid),
                KeeperEvent::Status(_) => {}
                other => bail!("not started: {other:?}"),
            }
        }
    }

    pub(crate) async fn event(&mut self) -> Result<KeeperEvent> {
        tokio::time::timeout(PATIENCE, self.client.next_event()).await.context("the keeper says nothing")
    }

    pub(crate) async fn status_when(&mut self, what: impl Fn(&RunStatus) -> bool) -> Result<RunStatus> {
        loop {
            match self.event().await? {
                KeeperEvent::Status(status) if what(&status) => return Ok(*status),
                KeeperEvent::Status(_) | KeeperEvent::Started { .. } => {}
                other => bail!("instead of a status: {other:?}"),
            }
        }
    }

    pub(crate) async fn end_of(&mut self, cid: CommandId) -> Result<RunStatus> {
        self.status_when(|status| status.cid == cid && status.phase == Phase::Ended).await
    }

    pub(crate) async fn run_as(&mut self, run: StartRun) -> Result<RunStatus> {
        let cid = self.start(run).await?;
        self.end_of(cid).await
    }

    pub(crate) async fn run(&mut self, route: &Route, command: &str) -> Result<RunStatus> {
        let run = self.start_of(route, command);
        self.run_as(run).await
    }

    /// Runs a command that must succeed, and returns what it prints.
    pub(crate) async fn print(&mut self, route: &Route, command: &str) -> Result<String> {
        let status = self.run(route, command).await?;
        ensure!(cause(&status)? == &Cause::Exited { code: 0 }, "{status:?}");
        self.text(&status, OutputStream::Stdout)
    }

    /// Runs a command that must fail in this way, and returns what is said of it.
    pub(crate) async fn fails(&mut self, route: &Route, code: SshFault) -> Result<String> {
        let status = self.run(route, "true").await?;
        let fault = fault(&status)?;
        ensure!(fault.code == code.as_str(), "{fault:?}");
        ensure!(fault.message.len() <= 400 && !fault.message.contains('\n'), "{fault:?}");
        ensure!(end(&status)?.group_dead, "nothing ran");
        Ok(fault.message.clone())
    }

    pub(crate) fn output(&self, cid: CommandId, stream: OutputStream) -> Result<Vec<u8>> {
        let mut whole = Vec::new();
        loop {
            let piece = self.client.read_spool(cid, stream, whole.len() as u64, 1024 * 1024)?;
            if piece.is_empty() {
                return Ok(whole);
            }
            whole.extend_from_slice(&piece);
        }
    }

    pub(crate) fn text(&self, status: &RunStatus, stream: OutputStream) -> Result<String> {
        Ok(String::from_utf8(self.output(status.cid, stream)?)?)
    }
}

pub(crate) fn hop(sshd: &Sshd, ways: Vec<Way>) -> Hop {
    hop_at(sshd, sshd.port(), ways)
}

/// A server as it is reached on another port.
pub(crate) fn hop_at(sshd: &Sshd, port: u16, ways: Vec<Way>) -> Hop {
    Hop { host: "127.0.0.1".into(), port, user: sshd.user().into(), ways, allow_non_strict: false }
}

/// A key of a server's folder.
pub(crate) fn key(sshd: &Sshd, name: &str) -> Result<Way> {
    let key = Secret::new(sshd.text(name)?);
    Ok(Way::Key { name: name.into(), key, passphrase: None, certificate: None })
}

pub(crate) fn password(text: &str) -> Way {
    Way::Password { name: "pw".into(), password: Secret::new(text.into()) }
}

pub(crate) fn end(status: &RunStatus) -> Result<&End> {
    status.end.as_ref().context("no end")
}

pub(crate) fn cause(status: &RunStatus) -> Result<&Cause> {
    Ok(&end(status)?.cause)
}

pub(crate) fn fault(status: &RunStatus) -> Result<&Fault> {
    match cause(status)? {
        Cause::Fault(fault) => Ok(fault),
        other => bail!("no fault: {other:?}"),
    }
}

/// Waits until no command runs on a server.
pub(crate) async fn nothing_runs(sshd: &Sshd) -> Result<()> {
    eventually_within("no command is left", PATIENCE, || async {
        let commands = sshd.commands()?;
        ensure!(commands == 0, "{commands} processes are left");
        Ok(())
    })
    .await
}
