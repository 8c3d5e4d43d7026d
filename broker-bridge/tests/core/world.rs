//! A broker, keys, and a hand-made relay for the tests of the core.

use std::{fmt::Write as _, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use signalbox_bridge::{
    broker_link::BrokerLink,
    core::{Core, CoreConfig, CoreError},
    submit::{store_cancel, store_command},
    view::{Cursors, View},
};
use signalbox_link::{Headers, Link, Message, Options, Store, StoreError, Stored};
use signalbox_schemas::{
    Base64Url,
    api::{Cancel, Page, Request, op},
    authors::{Author, Authors, FormerBridge, Right, Role},
    command::{CommandSpec, Grant},
    id::{BridgeId, CommandId, MachineId, MachineToken, Nonce, OperatorId, Sha256, Workspace},
    label::GivenLabels,
    limit,
    mailbox::Mailbox,
    output::{ChunkHead, OutputStream},
    record::{MachineRecord, OperatorRecord, RelayKeys, table},
    run::{Claim, Exit, ExitState, InlineOutput, RunState, StreamSummary, WithdrawReason, Withdrawal},
    sealed::WRAPPED_BYTES,
    signed::{Message as Body, PublicKey, Signed, SigningKey},
    stream::{CMD, MBOX, RUN},
    subject::{FactKind, Subject},
};
use signalbox_testkit::{Broker, eventually, eventually_within};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub(crate) const NONCE: Nonce = Nonce([7; 16]);

/// A key made from one byte.
pub(crate) fn key(byte: u8) -> Result<SigningKey> {
    let pair = nkeys::KeyPair::new_from_raw(nkeys::KeyPairType::User, [byte; 32])?;
    Ok(SigningKey::from_seed(&pair.seed()?)?)
}

/// A key that takes the place of the bridge's.
pub(crate) fn other_bridge_key() -> Result<SigningKey> {
    key(200)
}

const FLEET: u8 = 1;
const BRIDGE: u8 = 2;
pub(crate) const OPERATOR: u8 = 3;
/// Keys of machines follow.
const MACHINE: u8 = 10;

pub(crate) fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

fn machine_key_at(i: usize) -> Result<SigningKey> {
    key(MACHINE + u8::try_from(i)?)
}

pub(crate) fn mid(text: &str) -> Result<MachineToken> {
    Ok(MachineToken::new(text)?)
}

pub(crate) struct World {
    pub(crate) broker: Broker,
    pub(crate) link: Link,
    pub(crate) ws: Workspace,
    pub(crate) machines: Vec<MachineToken>,
    bridge_key: PublicKey,
    dir: TempDir,
}

/// A bridge that runs.
pub(crate) struct Bridge {
    pub(crate) core: Core,
    stop: CancellationToken,
}

impl Bridge {
    pub(crate) fn view(&self) -> &View {
        &self.core.view
    }

    pub(crate) async fn stop(self) -> Result<()> {
        self.stop.cancel();
        self.core.join(&self.stop).await?;
        Ok(())
    }

    /// Waits until it ends by itself.
    pub(crate) async fn join(self) -> Result<(), CoreError> {
        self.core.join(&self.stop).await
    }

    /// Ends it without any of the things that an orderly end does to the broker.
    pub(crate) fn kill(self) {
        drop(self);
    }

    pub(crate) async fn caught_up(&self) -> Result<()> {
        eventually_within("the bridge has read the streams", Duration::from_mins(2), || async {
            ensure!(self.view().is_caught_up(), "not yet");
            Ok(())
        })
        .await
    }

    pub(crate) fn count(&self, name: &str) -> u64 {
        self.view().counters().get(name).copied().unwrap_or_default()
    }

    pub(crate) async fn counted(&self, name: &str, least: u64) -> Result<()> {
        eventually(name, || async {
            ensure!(self.count(name) >= least, "counters: {:?}", self.view().counters());
            Ok(())
        })
        .await
    }

    pub(crate) async fn state(&self, cid: CommandId, mid: &MachineToken, state: RunState) -> Result<()> {
        eventually("the state of a run", || async {
            let run = self.view().run(cid, mid)?.context("no such run")?;
            ensure!(run.state == state, "{mid} is {}, not {state}: {:?}", run.state, run.error);
            Ok(())
        })
        .await
    }

    pub(crate) async fn dispatches(&self) -> Result<()> {
        eventually("the bridge holds the lease", || async {
            ensure!(self.core.lease.borrow().is_some(), "it does not");
            Ok(())
        })
        .await
    }
}

impl World {
    /// A broker with streams, an authors document, an operator and these machines; no bridge runs.
    pub(crate) async fn start(machines: &[&str]) -> Result<Self> {
        let broker = Broker::start().await?;
        let link = Link::connect(Options::plain(&broker.url(), "test", None)).await?;
        let mut world = Self::beside(broker, link)?;
        world.machines = machines.iter().map(|text| mid(text)).collect::<Result<Vec<_>>>()?;
        world.enroll().await?;
        Ok(world)
    }

    /// Makes streams, authors document, machines and the operator.
    pub(crate) async fn enroll(&self) -> Result<()> {
        let writer = self.writer()?;
        writer.ensure_streams().await?;
        self.authors(1).await?;
        for (i, token) in self.machines.iter().enumerate() {
            let record = self.machine_record(i, token)?;
            writer.put_record(table::MACHINES, token.as_str(), &record).await?;
        }
        let operator = OperatorRecord {
            ws: self.ws.clone(),
            id: OperatorId::new("local")?,
            login_key: key(OPERATOR + 100)?.public().clone(),
            signing_key: key(OPERATOR)?.public().clone(),
            created_at: 1,
            revision: 0,
        };
        writer.put_record(table::OPERATORS, "local", &operator).await?;
        Ok(())
    }

    /// A broker as it is.
    pub(crate) fn beside(broker: Broker, link: Link) -> Result<Self> {
        let bridge_key = key(BRIDGE)?.public().clone();
        let dir = tempfile::tempdir()?;
        Ok(Self { broker, link, ws: Workspace::main(), machines: vec![], bridge_key, dir })
    }

    pub(crate) fn machine_record(&self, i: usize, token: &MachineToken) -> Result<MachineRecord> {
        Ok(MachineRecord {
            ws: self.ws.clone(),
            id: MachineId::new(token.as_str())?,
            token: token.clone(),
            keys: Some(RelayKeys {
                login_key: key(MACHINE + 100 + u8::try_from(i)?)?.public().clone(),
                signing_key: machine_key_at(i)?.public().clone(),
            }),
            enrolled_at: 1,
            enrolled_by: None,
            former_keys: Vec::new(),
            allow_legacy: false,
            labels: GivenLabels::default(),
            revision: 0,
        })
    }

    pub(crate) fn machine_key(&self, mid: &MachineToken) -> Result<SigningKey> {
        let i = self.machines.iter().position(|known| known == mid).context("no such machine")?;
        machine_key_at(i)
    }

    /// The key that bridges sign with.
    pub(crate) fn bridge_key(&self) -> &PublicKey {
        &self.bridge_key
    }

    /// The write side of a bridge, without a bridge.
    pub(crate) fn writer(&self) -> Result<BrokerLink> {
        let bridge = BridgeId::new("writer")?;
        Ok(BrokerLink::new(self.link.clone(), self.ws.clone(), bridge, Arc::new(key(BRIDGE)?)))
    }

    pub(crate) async fn authors(&self, version: u64) -> Result<()> {
        self.publish_authors(version, key(BRIDGE)?.public().clone(), Vec::new()).await
    }

    /// Another key signs for bridges from now on.
    pub(crate) async fn replace_bridge_key(&self) -> Result<()> {
        let former = FormerBridge { key: key(BRIDGE)?.public().clone(), until: now() };
        self.publish_authors(2, other_bridge_key()?.public().clone(), vec![former]).await
    }

    async fn publish_authors(
        &self,
        version: u64,
        bridge: PublicKey,
        former_bridges: Vec<FormerBridge>,
    ) -> Result<()> {
        let author = |byte: u8, name: &str, role| {
            anyhow::Ok(Author {
                key: key(byte)?.public().clone(),
                name: name.into(),
                role,
                rights: vec![Right::Command],
            })
        };
        let doc = Authors {
            ws: self.ws.clone(),
            version,
            issued_at: now(),
            not_after: now() + limit::DAY_MS,
            authors: vec![author(OPERATOR, "operator:local", Role::Owner)?],
            issuers: vec![],
            bridges: vec![bridge],
            former_bridges,
            next_fleet_key: None,
            crit: vec![],
        };
        let envelope = Signed::sign(&doc, &key(FLEET)?)?.to_json();
        self.writer()?.publish_authors(&envelope, &doc).await?;
        Ok(())
    }

    pub(crate) fn data(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) async fn bridge(&self, name: &str) -> Result<Bridge> {
        self.bridge_with(name, |_| {}).await
    }

    pub(crate) async fn bridge_with(
        &self,
        name: &str,
        change: impl FnOnce(&mut CoreConfig),
    ) -> Result<Bridge> {
        let fleet_key: PublicKey = key(FLEET)?.public().clone();
        let id = BridgeId::new(name)?;
        let mut config =
            CoreConfig::new(self.ws.clone(), id, Arc::new(key(BRIDGE)?), fleet_key, self.data(name));
        change(&mut config);
        let link = Link::connect(Options::plain(&self.broker.url(), name, None)).await?;
        let stop = CancellationToken::new();
        let core = Core::start(link, config, stop.clone()).await?;
        let bridge = Bridge { core, stop };
        bridge.caught_up().await?;
        Ok(bridge)
    }

    pub(crate) fn spec(&self, command: &str, targets: usize, expires_in: u64) -> Result<CommandSpec> {
        Ok(CommandSpec {
            ws: self.ws.clone(),
            cid: CommandId::new(Uuid::now_v7())?,
            command: command.into(),
            timeout_ms: 1_000,
            created_at: now(),
            expires_at: now() + expires_in,
            not_before: None,
            rollout: None,
            retry_of: None,
            purpose: None,
            leave_children: false,
            max_output: 1 << 20,
            on: "all".into(),
            targets: u32::try_from(targets)?,
            by: "operator:local".into(),
            created_by: None,
            target: None,
            crit: vec![],
            change: None,
        })
    }

    pub(crate) fn grants(
        &self,
        spec: &CommandSpec,
        bytes: &[u8],
        machines: &[MachineToken],
    ) -> Result<Vec<Signed<Grant>>> {
        let key = key(OPERATOR)?;
        let grant = |mid: &MachineToken| {
            let grant = Grant {
                ws: self.ws.clone(),
                cid: spec.cid,
                mid: mid.clone(),
                spec_sha256: Sha256::of(bytes),
                expires_at: spec.expires_at,
                sealed: spec.brings_secret().then(|| Base64Url(vec![9; WRAPPED_BYTES])),
            };
            anyhow::Ok(Signed::sign(&grant, &key)?)
        };
        machines.iter().map(grant).collect()
    }

    /// Stores a command for these machines (sorted).
    pub(crate) async fn submit(
        &self,
        command: &str,
        machines: &[MachineToken],
        expires_in: u64,
    ) -> Result<(CommandId, Cursors)> {
        let spec = self.spec(command, machines.len(), expires_in)?;
        let bytes = serde_json::to_vec(&spec)?;
        let grants = self.grants(&spec, &bytes, machines)?;
        let cursors = store_command(&self.link, &self.ws, None, bytes.into(), &spec, grants).await?;
        Ok((spec.cid, cursors))
    }

    /// Stores a command that is a little different from others.
    pub(crate) async fn submit_with(
        &self,
        machines: &[MachineToken],
        expires_in: u64,
        change: impl FnOnce(&mut CommandSpec),
    ) -> Result<CommandId> {
        let mut spec = self.spec("true", machines.len(), expires_in)?;
        change(&mut spec);
        let bytes = serde_json::to_vec(&spec)?;
        let grants = self.grants(&spec, &bytes, machines)?;
        store_command(&self.link, &self.ws, None, bytes.into(), &spec, grants).await?;
        Ok(spec.cid)
    }

    pub(crate) async fn cancel(&self, cid: CommandId, by: u8) -> Result<Cursors> {
        let request = Request {
            ws: self.ws.clone(),
            op: op::COMMANDS_CANCEL.into(),
            args: serde_json::to_value(Cancel { id: cid })?,
            nonce: NONCE,
            issued_at: now(),
        };
        Ok(store_cancel(
            &self.link,
            &self.ws,
            None,
            (cid, "operator:test"),
            &Signed::sign(&request, &key(by)?)?,
            |_| false,
        )
        .await?)
    }

    /// Publishes something as the relay of a machine would.
    pub(crate) async fn fact<T: Body>(
        &self,
        mid: &MachineToken,
        cid: CommandId,
        kind: FactKind,
        fact: &T,
    ) -> Result<Stored, StoreError> {
        let body = self.machine_key(mid).and_then(|key| Ok(Signed::sign(fact, &key)?.to_json()));
        self.raw_fact(mid, cid, kind, body.unwrap_or_default()).await
    }

    pub(crate) async fn raw_fact(
        &self,
        mid: &MachineToken,
        cid: CommandId,
        kind: FactKind,
        body: Vec<u8>,
    ) -> Result<Stored, StoreError> {
        let subject = Subject::Run(self.ws.clone(), mid.clone(), cid, kind).to_string();
        self.link.store(Store::new(subject, body).only_first()).await
    }

    pub(crate) fn claim_fact(&self, mid: &MachineToken, cid: CommandId) -> Claim {
        Claim { ws: self.ws.clone(), mid: mid.clone(), cid, nonce: NONCE, claimed_at: now(), via: None }
    }

    pub(crate) async fn claim(&self, mid: &MachineToken, cid: CommandId) -> Result<Stored, StoreError> {
        self.fact(mid, cid, FactKind::Claim, &self.claim_fact(mid, cid)).await
    }

    /// What the first word in a register makes of its run.
    pub(crate) async fn register(&self, mid: &MachineToken, cid: CommandId) -> Result<RunState> {
        let subject = Subject::Run(self.ws.clone(), mid.clone(), cid, FactKind::Claim).to_string();
        let word = self.link.last_from_leader(RUN, &subject).await?.context("nothing stands there")?.payload;
        let (bridge, machine) = (key(BRIDGE)?, self.machine_key(mid)?);
        let withdrawal = Signed::<Withdrawal>::from_json(&word)?.open(|key| key == bridge.public());
        let Ok(withdrawal) = withdrawal else {
            Signed::<Claim>::from_json(&word)?.open(|key| key == machine.public())?;
            return Ok(RunState::Executing);
        };
        Ok(match withdrawal.reason {
            WithdrawReason::Expired => RunState::Expired,
            WithdrawReason::Cancelled => RunState::Cancelled,
        })
    }

    pub(crate) fn exit_fact(
        &self,
        mid: &MachineToken,
        cid: CommandId,
        code: i32,
        output: &[u8],
        inline: bool,
    ) -> Exit {
        Exit {
            ws: self.ws.clone(),
            mid: mid.clone(),
            cid,
            nonce: NONCE,
            state: if code == 0 { ExitState::Completed } else { ExitState::Failed },
            exit_code: Some(code),
            signal: None,
            error: None,
            started_at: 1,
            duration_ms: 5,
            group_dead: true,
            stdout: StreamSummary {
                bytes: output.len() as u64,
                sha256: Sha256::of(output),
                truncated: false,
            },
            stderr: StreamSummary::empty(),
            chunks: u64::from(!inline),
            inline: inline
                .then(|| InlineOutput { stdout: Base64Url(output.to_vec()), stderr: Base64Url::default() }),
            via: None,
        }
    }

    pub(crate) async fn exit(
        &self,
        mid: &MachineToken,
        cid: CommandId,
        code: i32,
    ) -> Result<Stored, StoreError> {
        self.fact(mid, cid, FactKind::Exit, &self.exit_fact(mid, cid, code, b"hello", true)).await
    }

    pub(crate) async fn chunk(
        &self,
        mid: &MachineToken,
        cid: CommandId,
        offset: u64,
        body: &'static [u8],
    ) -> Result<Stored> {
        self.chunk_head(
            mid,
            cid,
            body,
            ChunkHead { stream: OutputStream::Stdout, offset, counter: 0, sha256: None, cut: false },
        )
        .await
    }

    pub(crate) async fn chunk_head(
        &self,
        mid: &MachineToken,
        cid: CommandId,
        body: &'static [u8],
        head: ChunkHead,
    ) -> Result<Stored> {
        let mut headers = Headers::new();
        for (name, value) in head.to_headers() {
            headers.insert(name, &value);
        }
        let subject = Subject::Output(self.ws.clone(), mid.clone(), cid).to_string();
        Ok(self.link.store(Store::new(subject, Bytes::from_static(body)).with_headers(headers)).await?)
    }

    /// The mailbox that stands there, believed or not.
    pub(crate) async fn mailbox(&self, mid: &MachineToken) -> Result<(Mailbox, Message)> {
        let subject = Subject::Mailbox(self.ws.clone(), mid.clone()).to_string();
        let message = self.link.last_from_leader(MBOX, &subject).await?.context("no mailbox")?;
        Ok((Signed::<Mailbox>::from_json(&message.payload)?.peek()?, message))
    }

    pub(crate) async fn offers(&self, mid: &MachineToken) -> Result<Vec<CommandId>> {
        let (mailbox, _) = self.mailbox(mid).await?;
        mailbox.offers.iter().map(|offer| Ok(offer.grant.peek()?.cid)).collect()
    }

    /// Waits until exactly these commands are on offer.
    pub(crate) async fn offered(&self, mid: &MachineToken, wanted: &[CommandId]) -> Result<()> {
        eventually("the offers of a machine", || async {
            let offers = self.offers(mid).await?;
            ensure!(offers == wanted, "{offers:?} instead of {wanted:?}");
            Ok(())
        })
        .await
    }

    /// Everything that a bridge answers, as text.
    pub(crate) async fn answers(&self, bridge: &Bridge) -> Result<String> {
        let view = bridge.view();
        let mut text = serde_json::to_string_pretty(&view.machines(0))?;
        for record in view.assignments() {
            text += &serde_json::to_string_pretty(&record)?;
        }
        let mut page = Page { limit: Some(7), after: None };
        loop {
            let listed = view.commands(&page)?;
            for summary in &listed.items {
                text += &self.answer(view, summary.id).await?;
            }
            match listed.next {
                Some(next) => page.after = Some(next),
                None => return Ok(text),
            }
        }
    }

    async fn answer(&self, view: &View, cid: CommandId) -> Result<String> {
        let command = view.command(cid)?.context("a listed command is there")?;
        let mut text = serde_json::to_string_pretty(&command)?;
        let stored = view.command_spec(cid)?.context("a listed command has a spec")?;
        write!(text, "{stored:?}")?;
        for mid in &stored.machines {
            write!(text, "{:?}", view.inline(cid, mid)?.map(|inline| inline.stdout.0))?;
        }
        for chunk in view.chunks_after(cid, 0, 1000)? {
            write!(text, "{chunk:?} {:?}", view.chunk_body(&chunk).await?)?;
        }
        Ok(text)
    }

    /// Waits until a bridge has read what the streams hold now.
    pub(crate) async fn read(&self, bridge: &Bridge, streams: &[&str]) -> Result<()> {
        for stream in streams {
            let state = self.link.stream_state(stream).await?;
            let at = signalbox_schemas::mailbox::Position { created: state.created_ms, sequence: state.last };
            let reached = bridge.view().reached(&Cursors::of(stream, at), Duration::from_secs(10)).await;
            ensure!(reached, "{stream} was not read up to {}: {}", state.last, bridge.view().cursors());
        }
        Ok(())
    }

    pub(crate) async fn raw(&self, subject: &str, body: impl Into<Bytes>) -> Result<Stored> {
        Ok(self.link.store(Store::new(subject, body)).await?)
    }

    /// Waits until RUN holds exactly these facts of a command on its machine.
    pub(crate) async fn left_in_run(&self, cid: CommandId, kinds: &[&str]) -> Result<()> {
        let filter = format!("run.{}.*.{cid}.*", self.ws);
        eventually_within("what RUN keeps", Duration::from_secs(20), || async {
            let left = self.link.next_by_subject(RUN, 1, &filter, 10).await?;
            let left: Vec<&str> = left.iter().filter_map(|it| it.subject.rsplit('.').next()).collect();
            ensure!(left == kinds, "{left:?} instead of {kinds:?}");
            Ok(())
        })
        .await
    }

    /// Waits until nothing of a command is in CMD.
    pub(crate) async fn forgotten(&self, cid: CommandId) -> Result<()> {
        eventually_within("CMD has forgotten it", Duration::from_secs(30), || async {
            let left = self.command_subjects(cid).await?;
            ensure!(left == 0, "{left} messages in CMD");
            Ok(())
        })
        .await
    }

    pub(crate) async fn command_subjects(&self, cid: CommandId) -> Result<usize> {
        let filter = format!("cmd.{}.{cid}.*", self.ws);
        Ok(self.link.next_by_subject(CMD, 1, &filter, 100).await?.len())
    }
}
