//! A bridge in this process, over a broker of its own, with machines and consoles played by the test.

#[path = "host.rs"]
mod host;

use std::{
    collections::BTreeMap,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;
use signalbox_bridge::{broker_link::BrokerLink, view::View};
use signalbox_link::{Link, Options, Store, Subscription};
use signalbox_schemas::{
    Base64Url,
    api::{Answer, AnswerBody, FeedEvent, Request, Submit, chunk, op},
    authors::{Author, Authors, Right, Role},
    command::{CommandSpec, Grant},
    error::Problem,
    id::{CommandId, MachineId, Nonce, OperatorId, RequestId, Sha256, Workspace},
    label::GivenLabels,
    limit::DAY_MS,
    output::{ChunkHead, OutputStream},
    record::{MachineRecord, OperatorRecord, RelayKeys, table},
    run::{Claim, Exit, ExitState, InlineOutput, StreamSummary},
    signed::{Message, Signed, SigningKey},
    subject::{FactKind, Subject},
};
use signalbox_testkit::{Broker, eventually, http::Http};
use tokio::{task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

pub(crate) use host::{Host, Running, TOKEN};

/// Longest wait for one message: far above what it takes.
const PATIENCE: Duration = Duration::from_secs(10);

/// Unix ms.
pub(crate) fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

fn new_key() -> Result<SigningKey> {
    let seed = nkeys::KeyPair::new_user().seed()?;
    SigningKey::from_seed(&seed).map_err(Into::into)
}

/// Everything, and what the test needs to play its parts.
pub(crate) struct Bench {
    pub(crate) broker: Broker,
    pub(crate) link: Link,
    pub(crate) view: View,
    pub(crate) http: Http,
    pub(crate) base: String,
    pub(crate) pepper: [u8; 32],
    pub(crate) records: BrokerLink,
    pub(crate) stop: CancellationToken,
    host: Host,
    fleet: SigningKey,
    operators: BTreeMap<String, Arc<SigningKey>>,
    machines: BTreeMap<String, SigningKey>,
    tasks: JoinSet<()>,
    dir: tempfile::TempDir,
}

impl Bench {
    /// A bridge with these machines, an operator `admin` (admin), `local` (member), `viewer` (viewer) and `nobody`
    /// (known, and in no authors document).
    pub(crate) async fn start(machines: &[&str]) -> Result<Self> {
        Self::start_with(machines, None).await
    }

    /// The same; runs without an end are lost after this time.
    pub(crate) async fn start_with(machines: &[&str], lost_grace: Option<Duration>) -> Result<Self> {
        let broker = Broker::start().await?;
        let dir = tempfile::tempdir()?;
        let (fleet, bridge) = (new_key()?, Arc::new(new_key()?));
        let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
        let host = Host {
            nats: broker.url(),
            fleet: fleet.public().clone(),
            key: Arc::clone(&bridge),
            pepper: [7; 32],
            lost_grace,
        };
        let Running { view, records, base } = host.run("b1", dir.path(), &stop, &mut tasks).await?;
        let mut operators = BTreeMap::new();
        for name in ["admin", "local", "viewer", "nobody"] {
            operators.insert(name.to_owned(), Arc::new(new_key()?));
        }
        publish_authors(&records, &fleet, &first_authors(&bridge, &operators)?).await?;
        enrol_operators(&records, &operators).await?;
        let keys = enrol_machines(&records, machines).await?;
        let bench = Self {
            link: Link::connect(Options::plain(&broker.url(), "test", None)).await?,
            http: Http::new(&base, TOKEN),
            broker,
            view,
            base,
            pepper: host.pepper,
            records,
            stop,
            host,
            fleet,
            operators,
            machines: keys,
            tasks,
            dir,
        };
        bench.ready(machines.len()).await?;
        Ok(bench)
    }

    /// A further bridge on the same broker; it ends with the first one.
    pub(crate) async fn another_bridge(&mut self, id: &str) -> Result<Running> {
        let dir = self.dir.path().to_owned();
        self.run_another(id, &dir).await
    }

    /// Ends the bridge and starts it again, with a view that it builds anew: the old one is this bench's.
    pub(crate) async fn start_again(&mut self) -> Result<Running> {
        self.end().await?;
        self.stop = CancellationToken::new();
        let dir = self.dir.path().join("again");
        self.run_another("b1", &dir).await
    }

    async fn run_another(&mut self, id: &str, dir: &Path) -> Result<Running> {
        let running = self.host.run(id, dir, &self.stop, &mut self.tasks).await?;
        let http = Http::new(&running.base, TOKEN);
        eventually("another bridge is ready", || async {
            let health = http.json("/health").await?;
            ensure!(health.get("caught_up") == Some(&Value::Bool(true)), "it still reads");
            Ok(())
        })
        .await?;
        Ok(running)
    }

    async fn ready(&self, machines: usize) -> Result<()> {
        eventually("the bridge is ready", || async {
            let health = self.http.get("/health").await?;
            ensure!(health.status == 200, "health: {}", String::from_utf8_lossy(&health.body));
            ensure!(self.view.machines(now_ms()).len() == machines, "machines are missing");
            ensure!(self.view.authors().is_some(), "no authors");
            for name in self.operators.keys() {
                ensure!(self.view.operator(&OperatorId::new(name.as_str())?).is_some(), "no {name}");
            }
            Ok(())
        })
        .await
    }

    /// These machines give a sign of life, and the bridge hears it.
    pub(crate) async fn heard(&self, machines: &[&str]) -> Result<()> {
        for machine in machines {
            let beat = serde_json::json!({"ws": "main", "mid": machine, "at": now_ms(), "relay": "0.1.0", "generation": u64::MAX,
                "authors": 1, "running": 0, "outbox": 0, "started_at": 1, "counters": {},
                "facts": signalbox_schemas::heartbeat::Facts::default()});
            self.link.publish(&format!("hb.main.{machine}"), None, serde_json::to_vec(&beat)?.into()).await?;
        }
        eventually("signs of life", || async {
            let all = self.view.machines(now_ms());
            let heard = all.iter().filter(|machine| machine.last_seen_at.is_some());
            ensure!(heard.count() >= machines.len(), "{all:?}");
            Ok(())
        })
        .await
    }

    /// A console of this operator.
    pub(crate) async fn console(&self, operator: &str) -> Result<Console> {
        Ok(Console {
            link: Link::connect(Options::plain(&self.broker.url(), "console", None)).await?,
            operator: OperatorId::new(operator)?,
            key: Arc::clone(self.operators.get(operator).context("no such operator")?),
        })
    }

    /// Submits over HTTP and answers the id.
    pub(crate) async fn submit(&self, on: &str) -> Result<CommandId> {
        Ok(self.http.submit(on, "true").await?.parse()?)
    }

    /// The machine as its relay would speak.
    pub(crate) fn relay(&self, machine: &str) -> Result<Relay<'_>> {
        let key = self.machines.get(machine).context("no such machine")?;
        Ok(Relay { link: &self.link, id: MachineId::new(machine)?, key })
    }

    /// The key that the machine's relay signs with.
    pub(crate) fn machine_key(&self, machine: &str) -> Result<&SigningKey> {
        self.machines.get(machine).context("no such machine")
    }

    /// Publishes a further edition of the authors document, and waits until the bridge knows.
    pub(crate) async fn publish(&self, edit: impl FnOnce(&mut Authors)) -> Result<()> {
        let mut authors = (*self.view.authors().context("no authors")?).clone();
        authors.version += 1;
        edit(&mut authors);
        publish_authors(&self.records, &self.fleet, &authors).await?;
        eventually("the new authors document", || async {
            let known = self.view.authors().context("no authors")?;
            ensure!(known.version == authors.version, "version {}", known.version);
            Ok(())
        })
        .await
    }

    /// Stops the bridge and waits for its end.
    pub(crate) async fn end(&mut self) -> Result<()> {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended?;
        }
        Ok(())
    }
}

async fn enrol_operators(records: &BrokerLink, operators: &BTreeMap<String, Arc<SigningKey>>) -> Result<()> {
    for (name, key) in operators {
        let record = OperatorRecord {
            ws: Workspace::main(),
            id: OperatorId::new(name.as_str())?,
            login_key: key.public().clone(),
            signing_key: key.public().clone(),
            created_at: 1,
            revision: 0,
        };
        records.put_record(table::OPERATORS, name, &record).await?;
    }
    Ok(())
}

async fn enrol_machines(records: &BrokerLink, machines: &[&str]) -> Result<BTreeMap<String, SigningKey>> {
    let mut keys = BTreeMap::new();
    for name in machines {
        let (id, key) = (MachineId::new(*name)?, new_key()?);
        let record = MachineRecord {
            ws: Workspace::main(),
            token: id.token(),
            id,
            keys: Some(RelayKeys { login_key: key.public().clone(), signing_key: key.public().clone() }),
            enrolled_at: 1,
            enrolled_by: None,
            former_keys: Vec::new(),
            allow_legacy: false,
            labels: GivenLabels::default(),
            revision: 0,
        };
        records.put_record(table::MACHINES, record.token.as_str(), &record).await?;
        keys.insert((*name).to_owned(), key);
    }
    Ok(keys)
}

fn first_authors(bridge: &SigningKey, operators: &BTreeMap<String, Arc<SigningKey>>) -> Result<Authors> {
    let author = |name: &str, key: &SigningKey, role, rights| Author {
        key: key.public().clone(),
        name: name.to_owned(),
        role,
        rights,
    };
    let named = |name: &str| operators.get(name).context("no such operator");
    Ok(Authors {
        ws: Workspace::main(),
        version: 1,
        issued_at: now_ms(),
        not_after: now_ms() + 10 * DAY_MS,
        authors: vec![
            author("operator:admin", named("admin")?, Role::Admin, vec![Right::Command]),
            author("operator:local", named("local")?, Role::Member, vec![Right::Command]),
            author("operator:viewer", named("viewer")?, Role::Viewer, vec![]),
            author("bridge:b1", bridge, Role::Member, vec![Right::Command]),
        ],
        issuers: vec![],
        bridges: vec![bridge.public().clone()],
        former_bridges: Vec::new(),
        next_fleet_key: None,
        crit: vec![],
    })
}

async fn publish_authors(records: &BrokerLink, fleet: &SigningKey, authors: &Authors) -> Result<()> {
    let envelope = Signed::sign(authors, fleet)?.to_json();
    records.publish_authors(&envelope, authors).await?;
    Ok(())
}

/// What a machine says about its runs.
pub(crate) struct Relay<'a> {
    link: &'a Link,
    id: MachineId,
    key: &'a SigningKey,
}

impl Relay<'_> {
    async fn fact<T: Message>(&self, cid: CommandId, kind: FactKind, fact: &T) -> Result<()> {
        let subject = Subject::Run(Workspace::main(), self.id.token(), cid, kind).to_string();
        let body = Signed::sign(fact, self.key)?.to_json();
        self.link.store(Store::new(subject, body).only_first()).await?;
        Ok(())
    }

    /// Takes the run.
    pub(crate) async fn claim(&self, cid: CommandId) -> Result<()> {
        let (ws, mid) = (Workspace::main(), self.id.token());
        let claim = Claim { ws, mid, cid, nonce: Nonce([1; 16]), claimed_at: now_ms(), via: None };
        self.fact(cid, FactKind::Claim, &claim).await
    }

    /// Writes output at an offset.
    pub(crate) async fn output(
        &self,
        cid: CommandId,
        stream: OutputStream,
        offset: u64,
        bytes: impl Into<Bytes>,
    ) -> Result<()> {
        let head = ChunkHead { stream, offset, counter: offset, sha256: None, cut: false };
        let mut headers = signalbox_link::Headers::new();
        for (name, value) in head.to_headers() {
            headers.insert(name, &value);
        }
        let subject = Subject::Output(Workspace::main(), self.id.token(), cid).to_string();
        self.link.store(Store::new(subject, bytes.into()).with_headers(headers)).await?;
        Ok(())
    }

    /// Ends with code 0, having written so many bytes.
    pub(crate) async fn exit(&self, cid: CommandId, bytes: u64, truncated: bool) -> Result<()> {
        self.exit_with(cid, StreamSummary { bytes, truncated, ..StreamSummary::empty() }, None).await
    }

    /// Ends with code 0, with its output in the exit itself.
    pub(crate) async fn exit_inline(&self, cid: CommandId, stdout: &[u8]) -> Result<()> {
        let inline = InlineOutput { stdout: Base64Url(stdout.to_vec()), stderr: Base64Url::default() };
        let stdout =
            StreamSummary { bytes: stdout.len() as u64, sha256: Sha256::of(stdout), truncated: false };
        self.exit_with(cid, stdout, Some(inline)).await
    }

    /// Ends it since its time was over, and says no more.
    pub(crate) async fn time_out(&self, cid: CommandId) -> Result<()> {
        let exit = self.exit_of(cid, StreamSummary::empty(), None);
        self.fact(cid, FactKind::Exit, &Exit { state: ExitState::Timeout, exit_code: None, ..exit }).await
    }

    async fn exit_with(
        &self,
        cid: CommandId,
        stdout: StreamSummary,
        inline: Option<InlineOutput>,
    ) -> Result<()> {
        self.fact(cid, FactKind::Exit, &self.exit_of(cid, stdout, inline)).await
    }

    fn exit_of(&self, cid: CommandId, stdout: StreamSummary, inline: Option<InlineOutput>) -> Exit {
        Exit {
            ws: Workspace::main(),
            mid: self.id.token(),
            cid,
            nonce: Nonce([1; 16]),
            state: ExitState::Completed,
            exit_code: Some(0),
            signal: None,
            error: None,
            started_at: now_ms(),
            duration_ms: 5,
            group_dead: true,
            chunks: u64::from(inline.is_none() && stdout.bytes > 0),
            stdout,
            stderr: StreamSummary::empty(),
            inline,
            via: None,
        }
    }
}

/// An operator's console.
pub(crate) struct Console {
    pub(crate) link: Link,
    pub(crate) operator: OperatorId,
    pub(crate) key: Arc<SigningKey>,
}

impl Console {
    /// A request as it is signed.
    pub(crate) fn request(op: &str, args: &impl Serialize) -> Result<Request> {
        let request = Request {
            ws: Workspace::main(),
            op: op.to_owned(),
            args: serde_json::to_value(args)?,
            nonce: Nonce(*uuid::Uuid::now_v7().as_bytes()),
            issued_at: now_ms(),
        };
        Ok(request)
    }

    /// Publishes a request and listens to its answers.
    pub(crate) async fn ask(&self, op: &str, body: Vec<u8>) -> Result<Answers> {
        let rid = RequestId::from_random(*uuid::Uuid::now_v7().as_bytes());
        self.ask_as(op, rid, body).await
    }

    /// The same under a request id of the test's choice.
    pub(crate) async fn ask_as(&self, op: &str, rid: RequestId, body: Vec<u8>) -> Result<Answers> {
        let feed = Subject::Feed(Workspace::main(), self.operator.clone(), rid.clone());
        let subscription = self.link.subscribe(&feed.to_string()).await?;
        self.link.flush().await;
        self.send(op, &rid, body).await?;
        Ok(Answers { subscription, rid, seq: 0, bridge: None })
    }

    /// Publishes a request.
    pub(crate) async fn send(&self, op: &str, rid: &RequestId, body: Vec<u8>) -> Result<()> {
        let (noun, verb) = op.split_once('.').context("an operation is noun.verb")?;
        let (noun, verb) = (noun.to_owned(), verb.to_owned());
        let subject = Subject::Api(Workspace::main(), self.operator.clone(), noun, verb, rid.clone());
        self.link.publish(&subject.to_string(), None, body.into()).await?;
        Ok(())
    }

    /// Asks something that is read only, and answers the result.
    pub(crate) async fn read(&self, op: &str, args: &impl Serialize) -> Result<Result<Value, Problem>> {
        self.ask(op, serde_json::to_vec(args)?).await?.only().await
    }

    /// Asks for a change, signed with this console's key.
    pub(crate) async fn write(&self, op: &str, args: &impl Serialize) -> Result<Result<Value, Problem>> {
        let signed = Signed::sign(&Self::request(op, args)?, &self.key)?;
        self.ask(op, signed.to_json()).await?.only().await
    }

    /// A command with its grants, for these machine tokens.
    pub(crate) fn command(&self, targets: &[&str]) -> Result<(CommandSpec, Submit)> {
        let now = now_ms();
        let spec = CommandSpec {
            ws: Workspace::main(),
            cid: CommandId::new(uuid::Uuid::now_v7())?,
            command: "true".to_owned(),
            timeout_ms: 30_000,
            created_at: now,
            expires_at: now + DAY_MS,
            not_before: None,
            rollout: None,
            retry_of: None,
            purpose: None,
            leave_children: false,
            max_output: 1 << 20,
            on: "test".to_owned(),
            targets: u32::try_from(targets.len())?,
            by: format!("operator:{}", self.operator),
            created_by: None,
            target: None,
            crit: vec![],
            change: None,
        };
        let submit = self.grant(&spec, targets)?;
        Ok((spec, submit))
    }

    /// The grants for a spec.
    pub(crate) fn grant(&self, spec: &CommandSpec, targets: &[&str]) -> Result<Submit> {
        let bytes = serde_json::to_vec(spec)?;
        let grants = targets.iter().map(|target| {
            let grant = Grant {
                ws: spec.ws.clone(),
                cid: spec.cid,
                mid: MachineId::new(*target)?.token(),
                spec_sha256: Sha256::of(&bytes),
                expires_at: spec.expires_at,
                sealed: None,
            };
            Ok(Signed::sign(&grant, &self.key)?)
        });
        let grants = grants.collect::<Result<Vec<_>>>()?;
        Ok(Submit { spec: Base64Url(bytes), grants, idempotency_key: None })
    }

    /// Opens a feed of a command with its output.
    pub(crate) async fn watch(&self, id: CommandId, position: Option<u64>, credit: u64) -> Result<Answers> {
        let args = serde_json::json!({
            "watch": {"command": {"id": id, "output": true}}, "position": position, "credit": credit
        });
        self.ask(op::FEED_OPEN, serde_json::to_vec(&args)?).await
    }
}

/// One answer.
#[derive(Debug)]
pub(crate) enum Item {
    Ok(Value),
    Refused(Problem),
    Event(FeedEvent),
    Chunk { machine: String, offset: u64, position: Option<u64>, total: Option<u64>, bytes: Bytes },
}

/// Answers to one request, checked to be numbered without a gap.
pub(crate) struct Answers {
    subscription: Subscription,
    pub(crate) rid: RequestId,
    seq: u64,
    /// Who has answered first: nobody else may go on.
    bridge: Option<String>,
}

impl Answers {
    /// The next answer.
    pub(crate) async fn next(&mut self) -> Result<Item> {
        let delivery = timeout(PATIENCE, self.subscription.next()).await.context("no answer came")?;
        let delivery = delivery.context("the link was closed")?;
        let header = |name: &str| delivery.headers.get(name);
        let number = |name: &str| header(name).and_then(|text| text.parse::<u64>().ok());
        let (seq, item) = if let Some(seq) = number(chunk::SEQ) {
            let bridge = header(chunk::BRIDGE).context("no bridge")?;
            ensure!(self.bridge.get_or_insert_with(|| bridge.to_owned()) == bridge, "another bridge");
            let machine = header(chunk::MACHINE).context("no machine")?.to_owned();
            ensure!(header(chunk::STREAM) == Some("stdout"), "another stream");
            let offset = number(chunk::OFFSET).context("no offset")?;
            let (position, total) = (number(chunk::POSITION), number(chunk::TOTAL));
            (seq, Item::Chunk { machine, offset, position, total, bytes: delivery.payload })
        } else {
            let answer: Answer = serde_json::from_slice(&delivery.payload)?;
            ensure!(
                *self.bridge.get_or_insert_with(|| answer.bridge.clone()) == answer.bridge,
                "another bridge"
            );
            let item = match answer.body {
                AnswerBody::Ok(value) => Item::Ok(value),
                AnswerBody::Error(problem) => Item::Refused(problem),
                AnswerBody::Event(event) => Item::Event(*event),
            };
            (answer.seq, item)
        };
        ensure!(seq == self.seq, "answer {seq} came instead of {}", self.seq);
        self.seq += 1;
        Ok(item)
    }

    /// Whether nothing comes for a while.
    pub(crate) async fn is_quiet(&mut self) -> bool {
        timeout(Duration::from_millis(300), self.subscription.next()).await.is_err()
    }

    /// The only answer.
    pub(crate) async fn only(mut self) -> Result<Result<Value, Problem>> {
        match self.next().await? {
            Item::Ok(value) => Ok(Ok(value)),
            Item::Refused(problem) => Ok(Err(problem)),
            other => bail!("neither result nor refusal: {other:?}"),
        }
    }

    /// What a feed tells, one short line each, until `last` is told. A chunk is `machine offset+len`.
    pub(crate) async fn story(&mut self, last: &str) -> Result<Vec<String>> {
        let mut story = Vec::new();
        loop {
            let line = match self.next().await? {
                Item::Event(FeedEvent::Alive { .. }) => continue,
                Item::Event(FeedEvent::Command(_)) => "command".to_owned(),
                Item::Event(FeedEvent::Run(run)) => format!("{} {}", run.machine, run.state.as_str()),
                Item::Event(FeedEvent::Settled { .. }) => "settled".to_owned(),
                Item::Event(FeedEvent::Closed) => "closed".to_owned(),
                Item::Chunk { machine, offset, bytes, .. } => format!("{machine} {offset}+{}", bytes.len()),
                Item::Refused(problem) => format!("refused {}", problem.code),
                Item::Ok(value) => bail!("a result in a feed: {value}"),
            };
            story.push(line.clone());
            if line == last {
                return Ok(story);
            }
        }
    }
}
