//! A command on a host behind a machine: a relay's keeper, and the whole chain, beside asyncssh, warm and cold, interleaved.

use std::{
    ffi::OsStr,
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use signalbox_relay::{
    keeper::{
        client::{KeeperClient, KeeperEvent},
        protocol::{Cause, Phase, StartRun},
    },
    ssh::route::{Hop, HostKeyPolicy, Route, SetBy, Way},
};
use signalbox_schemas::{
    Secret,
    command::{SshTarget, Target},
    id::CommandId,
    limit::DEFAULT_MAX_OUTPUT,
};
use signalbox_testkit::{
    operator::Operator,
    process::{Daemon, bin},
    sshd::run,
};
use tempfile::TempDir;
use tokio::time::timeout;

use super::{Scope, dispatch::split, peer_row, shell, timed};
use crate::{
    peers::Sshd,
    place::Place,
    report::{Budget, Report, Row, Samples},
};

const ROUNDS: usize = 300;
/// Of new connections every tenth round is enough.
const COLD_EVERY: usize = 10;
/// A bulk is moved in so many rounds.
const BULK_ROUNDS: usize = 10;
const BULK_BYTES: u64 = 100 * 1024 * 1024;
const PATIENCE: Duration = Duration::from_mins(1);
/// The machine before the server.
const GATE: &str = "gate";

const SHELL: &str = "floor: spawn and reap `sh -c /bin/true`";
const WARM_PEER: &str = "peer: asyncssh, `/bin/true` on a warm connection";
const COLD_PEER: &str = "peer: asyncssh, connection, `/bin/true`, and its end";
const LOCAL: &str = "chain with `sh -c /bin/true`: submit to exit visible";
const BULK_PEER: &str = "peer: `ssh` through a warm master, 100 MiB";

pub(super) async fn measure(scope: Scope, report: &mut Report) -> Result<()> {
    let sshd = Sshd::start().await?;
    let (mut warm_peer, why_not) = split(sshd.asyncssh(1).await);
    let (mut cold_peer, _) = split(sshd.asyncssh(0).await);
    let mut keeper = Keeper::start().await?;
    let gate = Gate::start(&sshd).await?;
    let (mut local_ms, mut chain_ms) = (Samples::ms(), Samples::ms());
    let (shell_ms, mut warm, mut cold, mut warm_ms, mut cold_ms) =
        (&mut Samples::ms(), Samples::ms(), Samples::ms(), Samples::ms(), Samples::ms());
    let (mut bulk, mut bulk_peer) = (Samples::ms(), Samples::ms());
    let warm_route = keeper.route(&sshd, 0)?;
    keeper.run(&warm_route, "/bin/true").await?;
    for round in 0..scope.of(ROUNDS) {
        shell_ms.took(timed(shell("/bin/true"))?);
        if let Some(peer) = &mut warm_peer {
            warm_ms.took(peer.run(1).await?);
        }
        warm.took(keeper.run(&warm_route, "/bin/true").await?);
        local_ms.took(gate.operator.run(GATE, "/bin/true").await?.from_submit);
        chain_ms.took(gate.operator.run_at(GATE, Some(gate.target.clone()), "/bin/true").await?.from_submit);
        if round % COLD_EVERY == 0 {
            if let Some(peer) = &mut cold_peer {
                cold_ms.took(peer.run(1).await?);
            }
            // Another name of the credential is another route, and so another connection.
            let route = keeper.route(&sshd, round + 1)?;
            cold.took(keeper.run(&route, "/bin/true").await?);
        }
    }
    let print = format!("head -c {BULK_BYTES} /dev/zero");
    for _ in 0..scope.of(BULK_ROUNDS) {
        let mut command = sshd.warm_connection()?;
        command.arg(&print);
        bulk_peer.took(timed(command)?);
        bulk.took(keeper.run(&warm_route, &print).await?);
    }
    let within = |row: Row, peer: &Samples, what: &str| match peer.at(500) {
        Some(ms) => row.within(Budget::most(1.2 * ms, what)),
        None => row,
    };
    report.add(Row::new(SHELL, shell_ms));
    report.add(peer_row(WARM_PEER, &warm_ms, why_not.as_ref()));
    let row = Row::new("relay's keeper, `/bin/true` on a warm connection", &warm).over(WARM_PEER);
    report.add(within(row, &warm_ms, "1.2 × asyncssh, warm"));
    report.add(peer_row(COLD_PEER, &cold_ms, why_not.as_ref()));
    let row = Row::new("relay's keeper, new connection and `/bin/true`", &cold).over(COLD_PEER);
    report.add(within(row, &cold_ms, "1.2 × asyncssh, cold"));
    report.add(Row::new(LOCAL, &local_ms));
    report
        .add(Row::new("the same on a host behind the machine, on a warm connection", &chain_ms).over(LOCAL));
    report.add(Row::new(BULK_PEER, &bulk_peer));
    report.add(Row::new("relay's keeper, 100 MiB into its spool", &bulk).over(BULK_PEER));
    Ok(())
}

/// A whole system with one machine, behind which the server is; gone on drop.
struct Gate {
    operator: Operator,
    target: Target,
    _relay: Daemon,
    _place: Place,
}

impl Gate {
    async fn start(sshd: &Sshd) -> Result<Self> {
        let place = Place::start(&[GATE.to_owned()], 0).await?;
        let dir = place.stack.ready().state_dir.join("machines").join(GATE);
        let policy = dir.join("relay.toml");
        let text = fs::read_to_string(&policy).with_context(|| format!("reading {}", policy.display()))?;
        fs::write(&policy, format!("{text}\n[ssh]\ntargets = [\"127.0.0.1\"]\n"))?;
        let at_store = |args: &[&OsStr]| {
            let mut command = Command::new(bin("signalbox-relay")?);
            command.args(args).arg("--store").arg(dir.join("store"));
            run(&mut command)
        };
        let words = |words: &'static str| words.split(' ').map(OsStr::new);
        let known = sshd.known()?;
        at_store(&words("known-hosts add").chain([known.as_ref()]).collect::<Vec<_>>())?;
        let add = words("credentials add key --type ssh_key --target 127.0.0.1");
        let (user, key) = (sshd.user(), sshd.key_file());
        let rest = ["--user".as_ref(), user.as_ref(), "--key-file".as_ref(), key.as_os_str()];
        at_store(&add.chain(rest).collect::<Vec<_>>())?;
        let relay = place.relay(GATE).await?;
        let (host, port) = ("127.0.0.1".to_owned(), sshd.port());
        let target = SshTarget { host, port, username: None, jump: vec![], credential: None };
        let gate = Self {
            operator: place.operator().await?,
            target: Target::Ssh(target),
            _relay: relay,
            _place: place,
        };
        // The connection is made now.
        gate.operator.run_at(GATE, Some(gate.target.clone()), "/bin/true").await?;
        Ok(gate)
    }
}

/// A keeper of its own, as a relay has one. It ends when its folder is gone.
struct Keeper {
    folder: TempDir,
    client: KeeperClient,
    next: u32,
}

impl Keeper {
    async fn start() -> Result<Self> {
        let folder = TempDir::new()?;
        let exe = bin("signalbox-relay")?;
        let (client, _) =
            KeeperClient::connect_or_start(&folder.path().join("store"), Path::new(&exe)).await?;
        Ok(Self { folder, client, next: 0 })
    }

    fn route(&self, sshd: &Sshd, number: usize) -> Result<Route> {
        let way = Way::Key {
            name: format!("key-{number}"),
            key: Secret::new(sshd.key()?),
            passphrase: None,
            certificate: None,
        };
        let hop = Hop {
            host: "127.0.0.1".to_owned(),
            port: sshd.port(),
            user: sshd.user().to_owned(),
            ways: vec![way],
            allow_non_strict: false,
        };
        Ok(Route {
            hops: vec![hop],
            known_hosts: self.folder.path().join("known_hosts"),
            host_keys: HostKeyPolicy::AcceptNew,
            targets: Some(vec!["127.0.0.1".parse()?]),
            set_by: SetBy::Owner,
        })
    }

    /// From the moment at which the keeper is asked to the one at which it says how the run ended.
    async fn run(&mut self, route: &Route, command: &str) -> Result<Duration> {
        self.next += 1;
        let cid = CommandId::from_idempotency_key("meter", &self.next.to_string());
        let start = StartRun {
            cid,
            command: command.to_owned(),
            timeout_ms: 60_000,
            max_output: DEFAULT_MAX_OUTPUT,
            leave_children: false,
            expires_at: u64::MAX,
            folder: None,
            await_pipes: false,
            route: Some(Box::new(route.clone())),
        };
        let since = Instant::now();
        self.client.start(start).await?;
        let status = loop {
            match timeout(PATIENCE, self.client.next_event()).await.context("the keeper says nothing")? {
                KeeperEvent::Status(status) if status.phase == Phase::Ended => break status,
                KeeperEvent::Status(_) | KeeperEvent::Started { .. } => {}
                other => bail!("the keeper says {other:?}"),
            }
        };
        let took = since.elapsed();
        let cause = status.end.map(|end| end.cause);
        ensure!(cause == Some(Cause::Exited { code: 0 }), "{cause:?}");
        self.client.forget(cid).await?;
        Ok(took)
    }
}
