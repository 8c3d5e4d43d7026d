//! An operator's client, as thin as can be: what is measured and tortured is the system, not a console.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use serde::Serialize;
use serde_json::Value;
use signalbox_link::{Delivery, Link, Login, Options, Subscription};
use signalbox_schemas::{
    Base64Url,
    api::{
        Answer, AnswerBody, Cancel, Credit, FeedEvent, OpenFeed, Preview, Previewed, Request, Submit, Watch,
        chunk, op,
    },
    command::{CommandSpec, Grant, Part, Target, parts},
    error::Problem,
    id::{CommandId, MachineToken, Nonce, OperatorId, RequestId, Sha256, Workspace},
    layout::Layout,
    limit,
    output::OutputStream,
    signed::{Signed, SigningKey},
    subject::Subject,
};
use uuid::Uuid;

/// How long one answer may take where nothing is broken.
const ANSWER: Duration = Duration::from_mins(1);

/// Machines of one page of a preview.
const PAGE: u32 = 1_000;

/// An operator of a state directory. Cheap to clone: one connection, and each request hears its own answers.
#[derive(Debug, Clone)]
pub struct Operator {
    link: Link,
    key: std::sync::Arc<SigningKey>,
    id: OperatorId,
}

/// How long one command took until its exits were visible in the feed.
#[derive(Debug, Clone, Copy)]
pub struct Took {
    /// From the preview on.
    pub from_preview: Duration,
    /// From the submit on.
    pub from_submit: Duration,
    /// Bytes of output that came.
    pub output_bytes: u64,
}

/// What came of a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Heard {
    /// It was done.
    Ok(Value),
    /// It was refused.
    Refused(Problem),
    /// No answer came, or there was no connection to ask on; this is why. It may have been done or not.
    Nothing(String),
}

/// What a command shall be, where it is not as usual.
#[derive(Debug, Clone)]
pub struct Order {
    /// Selector, for people.
    pub on: String,
    /// Machines, sorted.
    pub machines: Vec<MachineToken>,
    /// Text for `sh -c`.
    pub command: String,
    /// How long it may run, ms.
    pub timeout_ms: u64,
    /// How long it may wait to start, ms.
    pub expires_in_ms: u64,
    /// How long it must wait to start, ms.
    pub not_before_in_ms: Option<u64>,
    /// Output that is kept, bytes.
    pub max_output: u64,
    /// The host behind the machines that runs it; `None`: they themselves.
    pub target: Option<Target>,
}

impl Order {
    /// A command with every default.
    pub fn new(on: &str, machines: Vec<MachineToken>, command: &str) -> Self {
        Self {
            on: on.to_owned(),
            machines,
            command: command.to_owned(),
            timeout_ms: limit::DEFAULT_TIMEOUT_MS,
            expires_in_ms: limit::HOUR_MS,
            not_before_in_ms: None,
            max_output: limit::DEFAULT_MAX_OUTPUT,
            target: None,
        }
    }
}

impl Operator {
    /// Connects as the operator `local`. `nats` is one URL, or several with commas between.
    ///
    /// # Errors
    /// When a file is missing or malformed, or there is no broker.
    pub async fn connect(nats: &str, state_dir: &Path) -> Result<Self> {
        Self::connect_as(nats, state_dir, "local").await
    }

    /// The same as another operator, which was set up.
    ///
    /// # Errors
    /// As [`Operator::connect`].
    pub async fn connect_as(nats: &str, state_dir: &Path, id: &str) -> Result<Self> {
        let (layout, name) = (Layout::new(state_dir), format!("operator-{id}"));
        let login = Login::from_creds_file(&layout.creds(&name))?;
        let link = Link::connect(Options::operator(nats, login)).await?;
        let path = layout.seed(&name);
        let seed = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let key = SigningKey::from_seed(&seed).context("reading a seed")?;
        Ok(Self { link, key: key.into(), id: OperatorId::new(id)? })
    }

    /// Previews, signs and submits a command, and waits until its exits are visible.
    ///
    /// # Errors
    /// When it is not accepted, or an answer does not come within a minute.
    pub async fn run(&self, on: &str, command: &str) -> Result<Took> {
        self.run_at(on, None, command).await
    }

    /// The same on a host behind the machines.
    ///
    /// # Errors
    /// As [`Operator::run`].
    pub async fn run_at(&self, on: &str, target: Option<Target>, command: &str) -> Result<Took> {
        let preview_since = Instant::now();
        let machines = self.preview(on).await?;
        let order = Order { target, ..Order::new(on, machines, command) };
        let operator = self.clone();
        let (spec, submit) = tokio::task::spawn_blocking(move || operator.sign(&order)).await??;
        let submit_since = Instant::now();
        done(self.submit(&submit, ANSWER).await?)?;
        let mut feed = self.open(spec.cid, limit::FEED_CREDIT_BYTES).await?;
        let output_bytes = feed.until_settled().await?;
        let took =
            Took { from_preview: preview_since.elapsed(), from_submit: submit_since.elapsed(), output_bytes };
        feed.close().await?;
        Ok(took)
    }

    /// The machines that a selector means, page by page.
    ///
    /// # Errors
    /// When it means none or too many, or an answer does not come within a minute.
    pub async fn preview(&self, on: &str) -> Result<Vec<MachineToken>> {
        let (mut machines, mut after) = (Vec::new(), None);
        loop {
            let asked = Preview { on: on.to_owned(), limit: Some(PAGE), after, ..Preview::default() };
            let asked = self.ask(op::COMMANDS_PREVIEW, serde_json::to_vec(&asked)?, ANSWER).await?;
            let previewed: Previewed = serde_json::from_value(done(asked)?)?;
            machines.extend(previewed.targets.into_iter().map(|target| target.token));
            after = previewed.next;
            if after.is_none() {
                return Ok(machines);
            }
        }
    }

    /// Makes a command and grants it.
    ///
    /// # Errors
    /// When it is out of range.
    pub fn sign(&self, order: &Order) -> Result<(CommandSpec, Submit)> {
        let now = now_ms()?;
        let spec = CommandSpec {
            ws: Workspace::main(),
            cid: CommandId::new(Uuid::now_v7())?,
            command: order.command.clone(),
            timeout_ms: order.timeout_ms,
            created_at: now,
            expires_at: now + order.expires_in_ms,
            not_before: order.not_before_in_ms.map(|ms| now + ms),
            rollout: None,
            retry_of: None,
            purpose: None,
            leave_children: false,
            max_output: order.max_output,
            on: order.on.clone(),
            targets: u32::try_from(order.machines.len())?,
            by: format!("operator:{}", self.id),
            created_by: None,
            target: order.target.clone(),
            crit: order.target.iter().map(|_| "target".to_owned()).collect(),
            change: None,
        };
        spec.validate()?;
        let bytes = serde_json::to_vec(&spec)?;
        let spec_sha256 = Sha256::of(&bytes);
        let grants = order.machines.iter().map(|mid| {
            let grant = Grant {
                ws: spec.ws.clone(),
                cid: spec.cid,
                mid: mid.clone(),
                spec_sha256,
                expires_at: spec.expires_at,
                sealed: None,
            };
            Signed::sign(&grant, &self.key)
        });
        let grants = grants.collect::<Result<_, _>>()?;
        Ok((spec, Submit { grants, spec: Base64Url(bytes), idempotency_key: None }))
    }

    /// Submits a signed command once, and ahead of it what of its grants has no room in one request. `patience` is for each
    /// answer.
    ///
    /// # Errors
    /// When it cannot be signed, or its answer cannot be read.
    pub async fn submit(&self, submit: &Submit, patience: Duration) -> Result<Heard> {
        if submit.grants.len() <= limit::PART_GRANTS {
            return self.change(op::COMMANDS_SUBMIT, submit, patience).await;
        }
        let cid = CommandSpec::from_bytes(&submit.spec.0)?.cid;
        for part in parts(cid, submit.grants.clone()) {
            let heard = self.part(&part, patience).await?;
            if !matches!(heard, Heard::Ok(_)) {
                return Ok(heard);
            }
        }
        self.commit(submit, patience).await
    }

    /// Sends one part of the grants of a command ahead of its submit, once.
    ///
    /// # Errors
    /// When it cannot be signed, or its answer cannot be read.
    pub async fn part(&self, part: &Part, patience: Duration) -> Result<Heard> {
        self.change(op::COMMANDS_PART, part, patience).await
    }

    /// Submits a command whose parts were sent ahead, once.
    ///
    /// # Errors
    /// When it cannot be signed, or its answer cannot be read.
    pub async fn commit(&self, submit: &Submit, patience: Duration) -> Result<Heard> {
        let submit = Submit { grants: Vec::new(), ..submit.clone() };
        self.change(op::COMMANDS_SUBMIT, &submit, patience).await
    }

    /// Asks once that a command be cancelled.
    ///
    /// # Errors
    /// When it cannot be signed, or its answer cannot be read.
    pub async fn cancel(&self, id: CommandId, patience: Duration) -> Result<Heard> {
        self.change(op::COMMANDS_CANCEL, &Cancel { id }, patience).await
    }

    /// Opens the feed of a command, with its output up to `credit` bytes.
    ///
    /// # Errors
    /// When it cannot be sent.
    pub async fn open(&self, id: CommandId, credit: u64) -> Result<Feed> {
        let watch = Watch::Command { id, output: true, ended_bytes: None };
        let open = OpenFeed { watch, position: None, credit };
        let (rid, answers) = self.send(op::FEED_OPEN, serde_json::to_vec(&open)?).await?;
        Ok(Feed { operator: self.clone(), rid, answers })
    }

    async fn change(&self, operation: &str, args: &impl Serialize, patience: Duration) -> Result<Heard> {
        let request = Request {
            ws: Workspace::main(),
            op: operation.to_owned(),
            args: serde_json::to_value(args)?,
            nonce: Nonce(*Uuid::now_v7().as_bytes()),
            issued_at: now_ms()?,
        };
        self.ask(operation, Signed::sign(&request, &self.key)?.to_json(), patience).await
    }

    async fn ask(&self, operation: &str, body: Vec<u8>, patience: Duration) -> Result<Heard> {
        let asked = async {
            let mut answers = match self.send(operation, body).await {
                Ok((_, answers)) => answers,
                Err(error) => return Ok(Heard::Nothing(format!("{error:#}"))),
            };
            let Some(delivery) = answers.next().await else {
                return Ok(Heard::Nothing("the connection is gone".to_owned()));
            };
            let answer: Answer = serde_json::from_slice(&delivery.payload)?;
            match answer.body {
                AnswerBody::Ok(value) => Ok(Heard::Ok(value)),
                AnswerBody::Error(problem) => Ok(Heard::Refused(problem)),
                AnswerBody::Event(event) => bail!("an event answers {operation}: {event:?}"),
            }
        };
        let late = || Heard::Nothing(format!("no answer to {operation} within {patience:?}"));
        tokio::time::timeout(patience, asked).await.unwrap_or_else(|_| Ok(late()))
    }

    async fn send(&self, operation: &str, body: Vec<u8>) -> Result<(RequestId, Subscription)> {
        let rid = RequestId::from_random(*Uuid::now_v7().as_bytes());
        let subject = Subject::Feed(Workspace::main(), self.id.clone(), rid.clone());
        // On one connection the broker knows of it before the request.
        let answers = self.link.subscribe(&subject.to_string()).await?;
        self.publish(operation, &rid, body).await?;
        Ok((rid, answers))
    }

    async fn publish(&self, operation: &str, rid: &RequestId, body: Vec<u8>) -> Result<()> {
        let (noun, verb) = operation.split_once('.').context("no verb")?;
        let subject =
            Subject::Api(Workspace::main(), self.id.clone(), noun.to_owned(), verb.to_owned(), rid.clone());
        self.link.publish(&subject.to_string(), None, body.into()).await?;
        Ok(())
    }
}

/// The value, where nothing else will do.
fn done(heard: Heard) -> Result<Value> {
    match heard {
        Heard::Ok(value) => Ok(value),
        Heard::Refused(problem) => bail!("{problem}"),
        Heard::Nothing(why) => bail!("{why}"),
    }
}

/// An open feed.
#[derive(Debug)]
pub struct Feed {
    operator: Operator,
    rid: RequestId,
    answers: Subscription,
}

/// Output in a feed.
#[derive(Debug, Clone)]
pub struct FeedChunk {
    /// The machine.
    pub machine: String,
    /// Which stream.
    pub stream: OutputStream,
    /// Offset of its first byte.
    pub offset: u64,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// What a feed says.
#[derive(Debug, Clone)]
pub enum FeedItem {
    /// Output.
    Output(FeedChunk),
    /// Something happened.
    Event(Box<FeedEvent>),
    /// It was not opened, or is no more.
    Over(String),
}

impl Feed {
    /// What it says next; waits as long as it takes.
    ///
    /// # Errors
    /// When what comes cannot be read.
    pub async fn next(&mut self) -> Result<FeedItem> {
        let Some(delivery) = self.answers.next().await else {
            return Ok(FeedItem::Over("the connection is gone".to_owned()));
        };
        if delivery.headers.get(chunk::OFFSET).is_some() {
            return output(&delivery).map(FeedItem::Output);
        }
        let answer: Answer = serde_json::from_slice(&delivery.payload)?;
        Ok(match answer.body {
            AnswerBody::Event(event) if *event == FeedEvent::Closed => {
                FeedItem::Over("the feed was closed".to_owned())
            }
            AnswerBody::Event(event) => FeedItem::Event(event),
            AnswerBody::Error(problem) => FeedItem::Over(problem.to_string()),
            AnswerBody::Ok(value) => FeedItem::Over(format!("a result in a feed: {value}")),
        })
    }

    /// Lets so many bytes of output more come.
    ///
    /// # Errors
    /// When it cannot be sent.
    pub async fn credit(&self, bytes: u64) -> Result<()> {
        self.operator.publish(op::FEED_CREDIT, &self.rid, serde_json::to_vec(&Credit { bytes })?).await
    }

    /// Closes it.
    ///
    /// # Errors
    /// When it cannot be sent.
    pub async fn close(self) -> Result<()> {
        self.operator.publish(op::FEED_CLOSE, &self.rid, b"{}".to_vec()).await
    }

    /// Reads until every run has settled; answers how many bytes of output came.
    async fn until_settled(&mut self) -> Result<u64> {
        let mut bytes = 0;
        loop {
            match tokio::time::timeout(ANSWER, self.next()).await.context("no answer")?? {
                FeedItem::Output(chunk) => {
                    let len = chunk.bytes.len() as u64;
                    bytes += len;
                    self.credit(len).await?;
                }
                FeedItem::Event(event) if matches!(*event, FeedEvent::Settled { .. }) => return Ok(bytes),
                FeedItem::Event(_) => {}
                FeedItem::Over(why) => bail!("{why}"),
            }
        }
    }
}

fn output(delivery: &Delivery) -> Result<FeedChunk> {
    let header = |name| delivery.headers.get(name).with_context(|| format!("output without {name}"));
    Ok(FeedChunk {
        machine: header(chunk::MACHINE)?.to_owned(),
        stream: header(chunk::STREAM)?.parse()?,
        offset: header(chunk::OFFSET)?.parse()?,
        bytes: delivery.payload.to_vec(),
    })
}

/// Unix ms.
///
/// # Errors
/// When the clock stands before 1970.
pub fn now_ms() -> Result<u64> {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    Ok(u64::try_from(since.as_millis())?)
}
