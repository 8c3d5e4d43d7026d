//! A broker, a small bridge made of two keys, and real relay processes.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, bail, ensure};
use data_encoding::BASE64URL_NOPAD;
use nkeys::KeyPair;
use serde_json::{Value, json};
use signalbox_link::{Link, Options, Store};
use signalbox_schemas::{
    Base64Url,
    authors::{Author, Authors, Right, Role},
    command::{CommandSpec, Grant},
    heartbeat::Heartbeat,
    id::{CommandId, MachineId, MachineToken, Sha256, Workspace},
    inventory::Inventory,
    limit::{CHUNK_BYTES, DAY_MS},
    mailbox::{AuthorsRef, Basis, Mailbox, Offer},
    output::{ChunkHead, OutputStream},
    run::{Claim, Exit, Lost, Rejection},
    signed::{Message, Signed, SigningKey},
    stream::{self, HB, INV, OUT, RUN},
    subject::{FactKind, Subject},
};
use signalbox_testkit::{
    Broker, eventually, eventually_within,
    process::{Daemon, Signal, is_alive, signal},
};
use tempfile::TempDir;

/// How long a slow machine may take to get a relay ready.
const READY: Duration = Duration::from_secs(20);
/// How long a run and its report may take.
pub(crate) const RUN_BOUND: Duration = Duration::from_secs(20);

pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A new command id.
pub(crate) fn new_cid() -> CommandId {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    CommandId::from_idempotency_key(
        &format!("test:{}:{:?}", std::process::id(), SystemTime::now()),
        &number.to_string(),
    )
}

fn new_key() -> Result<SigningKey> {
    Ok(SigningKey::from_seed(&KeyPair::new_user().seed()?)?)
}

/// A broker with the streams, and the keys of everybody.
pub(crate) struct Fleet {
    pub(crate) broker: Broker,
    pub(crate) link: Link,
    pub(crate) owner: SigningKey,
    pub(crate) bridge: SigningKey,
    pub(crate) operator: SigningKey,
    pub(crate) authors: Authors,
    pub(crate) authors_ref: AuthorsRef,
    generation: AtomicU64,
}

impl Fleet {
    pub(crate) async fn start() -> Result<Self> {
        Self::start_with(|_| {}).await
    }

    /// With streams that `change` has adjusted.
    pub(crate) async fn start_with(change: fn(&mut stream::StreamDef)) -> Result<Self> {
        // Anybody may do anything here. The key is nobody's: it makes the server send a nonce, without which
        // a login is not tried.
        let config = format!(
            "no_auth_user: anybody\nauthorization {{ users: [{{nkey: {}}}, {{user: anybody, password: any}}] }}\n",
            KeyPair::new_user().public_key()
        );
        let broker = Broker::start_with_config_text(&config).await?;
        let link = Link::connect(Options::plain(&broker.url(), "test", None)).await?;
        for mut def in stream::all() {
            change(&mut def);
            link.ensure_stream(&def).await?;
        }
        let (owner, bridge, operator) = (new_key()?, new_key()?, new_key()?);
        let author = |key: &SigningKey, name: &str, rights: &[Right]| Author {
            key: key.public().clone(),
            name: name.to_owned(),
            role: Role::Member,
            rights: rights.to_vec(),
        };
        let authors = Authors {
            ws: Workspace::main(),
            version: 1,
            issued_at: now_ms(),
            not_after: now_ms() + DAY_MS,
            authors: vec![
                author(&operator, "operator:local", &[Right::Command, Right::Config, Right::Credential]),
                author(&bridge, "bridge:b1", &[]),
            ],
            issuers: vec![],
            bridges: vec![bridge.public().clone()],
            former_bridges: Vec::new(),
            next_fleet_key: None,
            crit: vec![],
        };
        let authors_ref = AuthorsRef { version: 0, sha256: Sha256::of(b"") };
        let generation = AtomicU64::new(now_ms());
        let mut made = Self { broker, link, owner, bridge, operator, authors, authors_ref, generation };
        made.authors_ref = made.publish_authors(&made.authors).await?;
        Ok(made)
    }

    pub(crate) async fn publish_authors(&self, authors: &Authors) -> Result<AuthorsRef> {
        let body = Signed::sign(authors, &self.owner)?.to_json();
        let sha256 = Sha256::of(&body);
        self.link.store(Store::new(Subject::Authors(Workspace::main()).to_string(), body)).await?;
        Ok(AuthorsRef { version: authors.version, sha256 })
    }

    pub(crate) fn next_generation(&self) -> u64 {
        self.generation.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(crate) fn mailbox(&self, machine: &Machine, offers: &[Offer]) -> Mailbox {
        Mailbox {
            ws: Workspace::main(),
            mid: machine.mid.clone(),
            epoch: 1,
            generation: self.next_generation(),
            basis: Basis::default(),
            composed_at: now_ms(),
            authors: self.authors_ref,
            jwt: None,
            config: None,
            offers: offers.to_vec(),
            cancels: vec![],
            crit: vec![],
        }
    }

    /// Writes a mailbox with these offers.
    pub(crate) async fn offer(&self, machine: &Machine, offers: &[Offer]) -> Result<Vec<u8>> {
        let body = Signed::sign(&self.mailbox(machine, offers), &self.bridge)?.to_json();
        self.put(machine, body.clone()).await?;
        Ok(body)
    }

    /// Writes a mailbox that wants a command to end.
    pub(crate) async fn cancel(&self, machine: &Machine, cid: CommandId) -> Result<()> {
        let mut mailbox = self.mailbox(machine, &[]);
        mailbox.cancels = vec![cid];
        self.put(machine, Signed::sign(&mailbox, &self.bridge)?.to_json()).await
    }

    /// Writes any bytes as a machine's mailbox.
    pub(crate) async fn put(&self, machine: &Machine, body: Vec<u8>) -> Result<()> {
        let subject = Subject::Mailbox(Workspace::main(), machine.mid.clone()).to_string();
        self.link.store(Store::new(subject, body)).await?;
        Ok(())
    }

    /// An offer of a command, by the operator.
    pub(crate) fn command(&self, machine: &Machine, command: &str) -> Result<(CommandId, Offer)> {
        self.command_with(machine, command, |_| {})
    }

    pub(crate) fn command_with(
        &self,
        machine: &Machine,
        command: &str,
        change: impl FnOnce(&mut CommandSpec),
    ) -> Result<(CommandId, Offer)> {
        let spec = spec(command, change);
        let grant = grant(machine, &spec)?;
        Ok((spec.cid, sign_offer(&spec, &grant, &self.operator)?))
    }

    /// The fact of this kind, if it is there.
    pub(crate) async fn fact<T: Message>(
        &self,
        machine: &Machine,
        cid: CommandId,
        kind: FactKind,
    ) -> Result<Option<T>> {
        let subject = Subject::Run(Workspace::main(), machine.mid.clone(), cid, kind).to_string();
        let Some(message) = self.link.last_from_leader(RUN, &subject).await? else { return Ok(None) };
        let signed = Signed::<T>::from_json(&message.payload)?;
        Ok(Some(signed.open(|key| key == machine.key.public())?))
    }

    pub(crate) async fn exit(&self, machine: &Machine, cid: CommandId) -> Result<Exit> {
        self.exit_within(machine, cid, RUN_BOUND).await
    }

    pub(crate) async fn exit_within(
        &self,
        machine: &Machine,
        cid: CommandId,
        bound: Duration,
    ) -> Result<Exit> {
        let exit: Exit = eventually_within("the exit", bound, || async {
            self.fact(machine, cid, FactKind::Exit).await?.context("no exit")
        })
        .await?;
        let claim: Claim =
            self.fact(machine, cid, FactKind::Claim).await?.context("an exit without a claim")?;
        ensure!(claim.nonce == exit.nonce && exit.is_consistent(), "exit and claim do not agree");
        Ok(exit)
    }

    pub(crate) async fn rejection(&self, machine: &Machine, cid: CommandId) -> Result<Rejection> {
        eventually("the rejection", || async {
            self.fact(machine, cid, FactKind::Claim).await?.context("no rejection")
        })
        .await
    }

    pub(crate) async fn lost(&self, machine: &Machine, cid: CommandId) -> Result<Lost> {
        eventually_within("the loss", RUN_BOUND, || async {
            self.fact(machine, cid, FactKind::Lost).await?.context("not lost")
        })
        .await
    }

    pub(crate) async fn heartbeat(&self, machine: &Machine) -> Result<Heartbeat> {
        let subject = Subject::Heartbeat(Workspace::main(), machine.mid.clone()).to_string();
        let message = self.link.last_from_leader(HB, &subject).await?.context("no heartbeat")?;
        Ok(serde_json::from_slice(&message.payload)?)
    }

    /// What a machine's relay says that it keeps, once that is so.
    pub(crate) async fn inventory(
        &self,
        machine: &Machine,
        is_so: impl Fn(&Inventory) -> bool,
    ) -> Result<Inventory> {
        let subject = Subject::Inventory(Workspace::main(), machine.mid.clone()).to_string();
        eventually_within("the inventory", RUN_BOUND, || async {
            let message = self.link.last_from_leader(INV, &subject).await?.context("no inventory")?;
            let signed = Signed::<Inventory>::from_json(&message.payload)?;
            let inventory = signed.open(|key| key == machine.key.public())?;
            ensure!(is_so(&inventory), "only {inventory:?}");
            Ok(inventory)
        })
        .await
    }

    /// Waits until the relay has taken the newest mailbox, as its heartbeat says.
    pub(crate) async fn counted(&self, machine: &Machine, reason: &str) -> Result<u64> {
        eventually_within(reason, RUN_BOUND, || async {
            let counters = self.heartbeat(machine).await?.counters;
            counters.get(reason).copied().with_context(|| format!("only {counters:?}"))
        })
        .await
    }

    /// The output that readers see: chunks at their offsets, a second one at an offset ignored.
    pub(crate) async fn output(
        &self,
        machine: &Machine,
        cid: CommandId,
        which: OutputStream,
    ) -> Result<Output> {
        let subject = Subject::Output(Workspace::main(), machine.mid.clone(), cid).to_string();
        let mut output = Output::default();
        let mut next = 1;
        while let Some(message) = self.link.next_from_leader(OUT, next, &subject).await? {
            next = message.sequence + 1;
            let head = ChunkHead::from_headers(|name| message.headers.get(name))?;
            ensure!(message.payload.len() <= CHUNK_BYTES, "a chunk of {} bytes", message.payload.len());
            output.counters.push(head.counter);
            if head.stream != which {
                continue;
            }
            if head.cut {
                output.cut_at = Some(head.offset);
            } else if output.chunks.iter().all(|(offset, ..)| *offset != head.offset) {
                output.chunks.push((head.offset, message.payload.to_vec(), head.sha256));
            }
        }
        output.chunks.sort_by_key(|(offset, ..)| *offset);
        Ok(output)
    }

    pub(crate) async fn messages(&self, name: &str) -> Result<u64> {
        Ok(self.link.stream_state(name).await?.messages)
    }
}

/// Output as it lies in OUT.
#[derive(Default)]
pub(crate) struct Output {
    pub(crate) chunks: Vec<(u64, Vec<u8>, Option<Sha256>)>,
    pub(crate) cut_at: Option<u64>,
    pub(crate) counters: Vec<u64>,
}

impl Output {
    /// All bytes up to the first hole; every running hash on the way is checked.
    pub(crate) fn whole(&self) -> Result<Vec<u8>> {
        let mut whole: Vec<u8> = Vec::new();
        for (offset, body, sha256) in &self.chunks {
            if *offset != whole.len() as u64 {
                break;
            }
            whole.extend_from_slice(body);
            if let Some(sha256) = sha256 {
                ensure!(Sha256::of(&whole) == *sha256, "wrong running hash at {}", whole.len());
            }
        }
        Ok(whole)
    }
}

/// What shall run, for a minute from now.
pub(crate) fn spec(command: &str, change: impl FnOnce(&mut CommandSpec)) -> CommandSpec {
    let mut spec = CommandSpec {
        ws: Workspace::main(),
        cid: new_cid(),
        command: command.to_owned(),
        timeout_ms: 60_000,
        created_at: now_ms(),
        expires_at: now_ms() + 600_000,
        not_before: None,
        rollout: None,
        retry_of: None,
        purpose: None,
        leave_children: false,
        max_output: 128 << 20,
        on: "all".into(),
        targets: 1,
        by: "operator:local".into(),
        created_by: None,
        target: None,
        crit: vec![],
        change: None,
    };
    change(&mut spec);
    spec
}

pub(crate) fn grant(machine: &Machine, spec: &CommandSpec) -> Result<Grant> {
    let spec_sha256 = Sha256::of(&serde_json::to_vec(spec)?);
    let (ws, mid) = (spec.ws.clone(), machine.mid.clone());
    Ok(Grant { ws, cid: spec.cid, mid, spec_sha256, expires_at: spec.expires_at, sealed: None })
}

pub(crate) fn sign_offer(spec: &CommandSpec, grant: &Grant, key: &SigningKey) -> Result<Offer> {
    Ok(Offer { spec: Base64Url(serde_json::to_vec(spec)?), grant: Signed::sign(grant, key)? })
}

/// One machine's files.
pub(crate) struct Machine {
    pub(crate) dir: TempDir,
    pub(crate) mid: MachineToken,
    pub(crate) key: SigningKey,
}

impl Machine {
    pub(crate) fn new(fleet: &Fleet, id: &str) -> Result<Self> {
        Self::with_policy(fleet, id, 4, r#"["root", "terminal", "config", "credential"]"#)
    }

    pub(crate) fn with_policy(fleet: &Fleet, id: &str, max_parallel: u32, policy: &str) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let mid = MachineId::new(id)?.token();
        let login = KeyPair::new_user();
        let claims = json!({"sub": login.public_key(), "name": mid.as_str(), "iat": 1}).to_string();
        let jwt = format!("e30.{}.AAAA", BASE64URL_NOPAD.encode(claims.as_bytes()));
        let creds = format!(
            "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
            login.seed()?
        );
        let seed = KeyPair::new_user().seed()?;
        let toml = format!(
            "workspace = \"main\"\nmachine_id = \"{id}\"\nfleet_key = \"{}\"\nmax_parallel = {max_parallel}\n\
             require_operator_signature = {policy}\n",
            fleet.owner.public()
        );
        for (name, text) in [("relay.creds", &creds), ("signing.seed", &seed), ("relay.toml", &toml)] {
            let path = dir.path().join(name);
            fs::write(&path, text)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        }
        Ok(Self { dir, mid, key: SigningKey::from_seed(&seed)? })
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) async fn start(&self, fleet: &Fleet) -> Result<Relay> {
        self.start_in(fleet, &self.store(), &[]).await
    }

    /// Starts a relay of this machine in a store of its own.
    pub(crate) async fn start_in(&self, fleet: &Fleet, store: &Path, env: &[(&str, &str)]) -> Result<Relay> {
        let relay = self.spawn(&fleet.broker.url(), store, env)?;
        relay.ready().await
    }

    pub(crate) fn spawn(&self, url: &str, store: &Path, env: &[(&str, &str)]) -> Result<Starting> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_signalbox-relay"));
        command.args(["run", "--log", "signalbox_relay=debug,warn"]).arg("--store").arg(store);
        command.arg("--creds").arg(self.file("relay.creds")).args(["--nats", url]);
        command.envs(env.iter().copied());
        Ok(Starting { daemon: Daemon::spawn(&mut command)?, store: store.to_owned() })
    }
}

/// A relay that has not said that it is ready.
pub(crate) struct Starting {
    pub(crate) daemon: Daemon,
    store: PathBuf,
}

impl Starting {
    pub(crate) async fn ready(self) -> Result<Relay> {
        let line: Value = serde_json::from_str(&self.daemon.first_line(READY).await?)?;
        let keeper_pid = line.get("keeper_pid").and_then(Value::as_u64).context("no keeper_pid")?;
        ensure!(line.get("pid").and_then(Value::as_u64) == Some(u64::from(self.daemon.pid())), "{line}");
        Ok(Relay { daemon: self.daemon, store: self.store, keeper_pid: u32::try_from(keeper_pid)? })
    }
}

/// A running relay. Its keeper ends with it when the test ends.
pub(crate) struct Relay {
    pub(crate) daemon: Daemon,
    pub(crate) store: PathBuf,
    pub(crate) keeper_pid: u32,
}

impl Relay {
    /// SIGKILL; the keeper goes on.
    pub(crate) async fn kill(&self) -> Result<()> {
        self.daemon.kill()?;
        self.daemon.wait(Duration::from_secs(5)).await?;
        Ok(())
    }

    /// SIGTERM; the keeper goes on.
    pub(crate) async fn stop(&self) -> Result<()> {
        self.daemon.terminate()?;
        let status = self.daemon.wait(Duration::from_secs(3)).await?;
        ensure!(status.success(), "stopped with {status}: {}", self.daemon.stderr()?);
        Ok(())
    }

    pub(crate) async fn kill_keeper(&self) -> Result<()> {
        signal(self.keeper_pid, Signal::KILL)?;
        let pid = self.keeper_pid;
        eventually("the keeper's end", || async move {
            if is_alive(pid) {
                bail!("alive")
            }
            Ok(())
        })
        .await
    }

    /// Largest memory it ever had, bytes.
    pub(crate) fn peak_bytes(&self) -> Result<u64> {
        memory(self.daemon.pid(), "VmHWM:")
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // A keeper ends with its lock file. Failing to remove it means that it is gone.
        drop(fs::remove_file(self.store.join("keeper.lock")));
    }
}

/// A line of `/proc/<pid>/status` in kB, as bytes.
pub(crate) fn memory(pid: u32, line: &str) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let found = status.lines().find_map(|text| text.strip_prefix(line)).context("no such line")?;
    Ok(found.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}
