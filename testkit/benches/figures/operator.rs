//! An operator's client, as thin as can be: what is measured is the system, not a console.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde::Serialize;
use signalbox_link::{Delivery, Link, Login, Options, Subscription};
use signalbox_schemas::{
    Base64Url,
    api::{Answer, AnswerBody, Credit, FeedEvent, OpenFeed, Preview, Previewed, Request, Submit, Watch, op},
    command::{CommandSpec, Grant},
    id::{CommandId, Nonce, OperatorId, RequestId, Sha256, Workspace},
    limit,
    signed::{Signed, SigningKey},
    subject::Subject,
};
use signalbox_testkit::stack::Stack;
use uuid::Uuid;

/// How long one answer may take.
const ANSWER: Duration = Duration::from_mins(1);

pub(super) struct Operator {
    link: Link,
    feed: Subscription,
    key: SigningKey,
    id: OperatorId,
}

/// How long one command took until its exits were visible in the feed.
pub(super) struct Took {
    pub(super) from_preview: Duration,
    pub(super) from_submit: Duration,
    pub(super) output_bytes: u64,
}

impl Operator {
    pub(super) async fn connect(stack: &Stack) -> Result<Self> {
        let state = &stack.ready().state_dir;
        let login = Login::from_creds_file(&state.join("creds/operator-local.creds"))?;
        let link = Link::connect(Options::operator(&stack.ready().nats, login)).await?;
        let feed = link.subscribe("feed.main.local.>").await?;
        let seed = std::fs::read_to_string(state.join("keys/operator-local.seed"))?;
        let key = SigningKey::from_seed(&seed).context("reading a seed")?;
        Ok(Self { link, feed, key, id: OperatorId::new("local")? })
    }

    pub(super) async fn run(&mut self, on: &str, command: &str) -> Result<Took> {
        let preview_since = Instant::now();
        let rid = self.ask(op::COMMANDS_PREVIEW, &Preview { on: on.to_owned() }).await?;
        let previewed: Previewed = serde_json::from_value(self.result(&rid).await?)?;
        let (cid, submit) = self.sign(on, command, &previewed)?;
        let submit_since = Instant::now();
        let request = Request {
            ws: Workspace::main(),
            op: op::COMMANDS_SUBMIT.to_owned(),
            args: serde_json::to_value(submit)?,
            nonce: Nonce(*Uuid::now_v7().as_bytes()),
            issued_at: now_ms()?,
        };
        let body = Signed::sign(&request, &self.key)?.to_json();
        let rid = self.send(op::COMMANDS_SUBMIT, body).await?;
        self.result(&rid).await?;
        let watch = Watch::Command { id: cid, output: true };
        let open = OpenFeed { watch, position: None, credit: limit::FEED_CREDIT_BYTES };
        let rid = self.ask(op::FEED_OPEN, &open).await?;
        let output_bytes = self.until_settled(&rid).await?;
        let took =
            Took { from_preview: preview_since.elapsed(), from_submit: submit_since.elapsed(), output_bytes };
        self.publish(op::FEED_CLOSE, &rid, b"{}".to_vec()).await?;
        Ok(took)
    }

    fn sign(&self, on: &str, command: &str, previewed: &Previewed) -> Result<(CommandId, Submit)> {
        let now = now_ms()?;
        let spec = CommandSpec {
            ws: Workspace::main(),
            cid: CommandId::new(Uuid::now_v7())?,
            command: command.to_owned(),
            timeout_ms: limit::DEFAULT_TIMEOUT_MS,
            created_at: now,
            expires_at: now + limit::HOUR_MS,
            not_before: None,
            rollout: None,
            purpose: None,
            leave_children: false,
            max_output: limit::DEFAULT_MAX_OUTPUT,
            on: on.to_owned(),
            targets: u32::try_from(previewed.targets.len())?,
            by: "operator:local".to_owned(),
            created_by: None,
            target: None,
            crit: vec![],
        };
        let bytes = serde_json::to_vec(&spec)?;
        let spec_sha256 = Sha256::of(&bytes);
        let grants = previewed.targets.iter().map(|target| {
            let grant = Grant {
                ws: spec.ws.clone(),
                cid: spec.cid,
                mid: target.token.clone(),
                spec_sha256,
                expires_at: spec.expires_at,
            };
            Signed::sign(&grant, &self.key)
        });
        Ok((
            spec.cid,
            Submit {
                grants: grants.collect::<Result<_, _>>()?,
                spec: Base64Url(bytes),
                idempotency_key: None,
            },
        ))
    }

    async fn until_settled(&mut self, rid: &RequestId) -> Result<u64> {
        let mut bytes = 0;
        loop {
            let delivery = self.next(rid).await?;
            if delivery.headers.get("Sb-Offset").is_some() {
                let chunk = delivery.payload.len() as u64;
                bytes += chunk;
                self.publish(op::FEED_CREDIT, rid, serde_json::to_vec(&Credit { bytes: chunk })?).await?;
                continue;
            }
            let answer: Answer = serde_json::from_slice(&delivery.payload)?;
            match answer.body {
                AnswerBody::Event(event) => match *event {
                    FeedEvent::Settled { .. } => return Ok(bytes),
                    FeedEvent::Closed => bail!("the feed was closed"),
                    FeedEvent::Alive { .. } | FeedEvent::Command(_) | FeedEvent::Run(_) => {}
                },
                AnswerBody::Error(problem) => bail!("{problem}"),
                AnswerBody::Ok(_) => {}
            }
        }
    }

    async fn result(&mut self, rid: &RequestId) -> Result<serde_json::Value> {
        let answer: Answer = serde_json::from_slice(&self.next(rid).await?.payload)?;
        match answer.body {
            AnswerBody::Ok(value) => Ok(value),
            other => bail!("{other:?}"),
        }
    }

    async fn next(&mut self, rid: &RequestId) -> Result<Delivery> {
        loop {
            let next = tokio::time::timeout(ANSWER, self.feed.next()).await.context("no answer")?;
            let delivery = next.context("the connection is gone")?;
            if delivery.subject.ends_with(rid.as_str()) {
                return Ok(delivery);
            }
        }
    }

    async fn ask(&self, operation: &str, arguments: &impl Serialize) -> Result<RequestId> {
        self.send(operation, serde_json::to_vec(arguments)?).await
    }

    async fn send(&self, operation: &str, body: Vec<u8>) -> Result<RequestId> {
        let rid = RequestId::from_random(*Uuid::now_v7().as_bytes());
        self.publish(operation, &rid, body).await?;
        Ok(rid)
    }

    async fn publish(&self, operation: &str, rid: &RequestId, body: Vec<u8>) -> Result<()> {
        let (noun, verb) = operation.split_once('.').context("no verb")?;
        let subject =
            Subject::Api(Workspace::main(), self.id.clone(), noun.to_owned(), verb.to_owned(), rid.clone());
        self.link.publish(&subject.to_string(), None, body.into()).await?;
        Ok(())
    }
}

pub(super) fn now_ms() -> Result<u64> {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    Ok(u64::try_from(since.as_millis())?)
}
