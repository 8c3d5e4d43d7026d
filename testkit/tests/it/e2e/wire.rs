//! Messages that somebody with the keys of the fleet publishes by hand: duplicated, reordered, replayed, broken.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use async_nats::{
    Client, ConnectOptions,
    jetstream::{
        self,
        message::StreamMessage,
        stream::{DirectGetErrorKind, RawMessageErrorKind},
    },
};
use serde_json::{Value, json};
use signalbox_schemas::{
    command::{CommandSpec, Grant},
    id::{MachineToken, Sha256, Workspace},
    mailbox::{AuthorsRef, Basis, Mailbox, Offer},
    signed::{Message, Signed, SigningKey},
};
use signalbox_testkit::{
    eventually::eventually,
    stack::{Options, Stack},
};
use tokio::task::JoinSet;
use uuid::Uuid;

/// A bare NATS client with an administrator's login.
pub(super) async fn administrator(stack: &Stack) -> Result<(Client, JoinSet<()>)> {
    let options = ConnectOptions::with_credentials_file(&stack.ready().ctrl_creds).await?;
    Ok((options.connect(&stack.ready().nats).await?, JoinSet::new()))
}

/// All messages of a stream, oldest first.
pub(super) async fn messages(context: &jetstream::Context, stream: &str) -> Result<Vec<StreamMessage>> {
    let stream = context.get_stream(stream).await?;
    let state = &stream.cached_info().state;
    let mut messages = Vec::new();
    for sequence in state.first_sequence.max(1)..=state.last_sequence {
        match stream.get_raw_message(sequence).await {
            Ok(message) => messages.push(message),
            Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(messages)
}

/// A signing key of the fleet.
pub(super) fn signing_key(path: &Path) -> Result<SigningKey> {
    let seed = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    SigningKey::from_seed(&seed).context("reading a seed")
}

/// What `seq 1 COUNT` writes.
pub(super) fn numbers(count: usize) -> String {
    let lines: Vec<String> = (1..=count).map(|n| n.to_string()).collect();
    lines.join("\n") + "\n"
}

pub(super) fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    u64::try_from(since.as_millis()).unwrap()
}

/// Somebody with the bridge's and an operator's key and an administrator's login.
struct Forge {
    jetstream: jetstream::Context,
    bridge: SigningKey,
    operator: SigningKey,
    authors: AuthorsRef,
    mid: MachineToken,
}

impl Forge {
    async fn new(stack: &Stack) -> Result<Self> {
        let (client, _) = administrator(stack).await?;
        let jetstream = jetstream::new(client);
        let doc = jetstream.get_stream("DOC").await?.direct_get_last_for_subject("doc.main.authors").await?;
        let keys = stack.ready().state_dir.join("keys");
        Ok(Self {
            authors: AuthorsRef { version: authors_version(&doc.payload)?, sha256: Sha256::of(&doc.payload) },
            jetstream,
            bridge: signing_key(&keys.join("bridge.seed"))?,
            operator: signing_key(&keys.join("operator-local.seed"))?,
            mid: MachineToken::new("demo-1")?,
        })
    }

    fn offer(&self, command: &str, change: impl FnOnce(&mut CommandSpec)) -> Result<Offer> {
        let now = now_ms();
        let mut spec = CommandSpec {
            ws: Workspace::main(),
            cid: Uuid::now_v7().to_string().parse()?,
            command: command.into(),
            timeout_ms: 30_000,
            created_at: now,
            expires_at: now + 3_600_000,
            not_before: None,
            rollout: None,
            purpose: None,
            leave_children: false,
            max_output: 1 << 20,
            on: "demo-1".into(),
            targets: 1,
            by: "operator:local".into(),
            crit: vec![],
        };
        change(&mut spec);
        let bytes = serde_json::to_vec(&spec)?;
        let grant = Grant {
            ws: spec.ws.clone(),
            cid: spec.cid,
            mid: self.mid.clone(),
            spec_sha256: Sha256::of(&bytes),
            expires_at: spec.expires_at,
        };
        Ok(Offer { spec: signalbox_schemas::Base64Url(bytes), grant: Signed::sign(&grant, &self.operator)? })
    }

    fn mailbox(&self, generation: u64, offers: Vec<Offer>) -> Mailbox {
        Mailbox {
            ws: Workspace::main(),
            mid: self.mid.clone(),
            epoch: 1,
            generation,
            basis: Basis::default(),
            composed_at: now_ms(),
            authors: self.authors,
            jwt: None,
            config: None,
            offers,
            cancels: vec![],
            crit: vec![],
        }
    }

    async fn publish(&self, subject: &str, body: Vec<u8>) -> Result<()> {
        self.jetstream.publish(subject.to_owned(), body.into()).await?.await?;
        Ok(())
    }

    async fn post(&self, mailbox: &Mailbox) -> Result<()> {
        self.publish("mbox.main.demo-1", Signed::sign(mailbox, &self.bridge)?.to_json()).await
    }
}

fn authors_version(envelope: &[u8]) -> Result<u64> {
    let envelope = Signed::<signalbox_schemas::authors::Authors>::from_json(envelope)?;
    Ok(envelope.peek()?.version)
}

fn lines(file: &Path) -> usize {
    std::fs::read_to_string(file).map_or(0, |text| text.lines().count())
}

/// The machine is alive and honest work goes on.
async fn works(stack: &Stack) -> Result<()> {
    let command = stack.http().run("demo-1", "echo fine").await?;
    assert_eq!(command["counts"], json!({"completed": 1}), "{command}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_mailbox_under_a_new_sequence_is_ignored() -> Result<()> {
    let stack = Stack::start(Options::relays(1)).await?;
    let forge = Forge::new(&stack).await?;
    let dir = tempfile::tempdir()?;
    let (old, new) = (dir.path().join("old"), dir.path().join("new"));
    works(&stack).await?;
    let old_offer = forge.offer(&format!("echo x >> {}", old.display()), |_| {})?;
    let new_offer = forge.offer(&format!("echo x >> {}", new.display()), |_| {})?;
    forge.post(&forge.mailbox(1_000, vec![old_offer])).await?;
    forge.post(&forge.mailbox(now_ms() + 60_000, vec![new_offer])).await?;
    eventually("the newer mailbox's offer", || async {
        ensure!(lines(&new) == 1, "not yet");
        Ok(())
    })
    .await?;
    assert_eq!(lines(&old), 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn replayed_messages_change_nothing() -> Result<()> {
    let stack = Stack::start(Options::relays(1)).await?;
    let forge = Forge::new(&stack).await?;
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("ran");
    let mut ids = Vec::new();
    for _ in 0..3 {
        let id = stack.http().submit("demo-1", &format!("echo x >> {}; exit 3", file.display())).await?;
        stack.http().settled(&id).await?;
        ids.push(id);
    }
    let mut before = Vec::new();
    for id in &ids {
        before.push(stack.http().json(&format!("/api/v1/commands/{id}")).await?);
    }
    // Everything in CMD, RUN, OUT and MBOX once more, backwards, twice.
    for name in ["CMD", "RUN", "OUT", "MBOX"] {
        let stream = forge.jetstream.get_stream(name).await?;
        let last = stream.get_info().await?.state.last_sequence;
        for _ in 0..2 {
            for sequence in (1..=last).rev() {
                let message = match stream.direct_get(sequence).await {
                    Ok(message) => message,
                    Err(error) if error.kind() == DirectGetErrorKind::NotFound => continue,
                    Err(error) => return Err(error.into()),
                };
                let mut headers = async_nats::HeaderMap::new();
                for (header, values) in message.headers.iter() {
                    if !header.to_string().starts_with("Nats-") {
                        for value in values {
                            headers.append(header.clone(), value.clone());
                        }
                    }
                }
                let ack = forge
                    .jetstream
                    .publish_with_headers(message.subject, headers, message.payload)
                    .await?
                    .await;
                // RUN is write-once and says so; the others store it again.
                ensure!(ack.is_ok() != (name == "RUN"), "{name} {sequence}: {ack:?}");
            }
        }
    }
    works(&stack).await?;
    for (id, before) in ids.iter().zip(before) {
        assert_eq!(stack.http().json(&format!("/api/v1/commands/{id}")).await?, before);
    }
    assert_eq!(lines(&file), 3);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_messages_are_refused_counted_and_the_rest_goes_on() -> Result<()> {
    let stack = Stack::start(Options::relays(2)).await?;
    let forge = Forge::new(&stack).await?;
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("ran");
    works(&stack).await?;
    let cid = Uuid::now_v7();
    let evil = || forge.offer(&format!("echo x >> {}", file.display()), |_| {});
    let later = now_ms() + 60_000;
    // Mailboxes: broken JSON, too large, a wrong signature, another machine's, an unknown `crit`.
    forge.publish("mbox.main.demo-1", b"{not json".to_vec()).await?;
    forge.publish("mbox.main.demo-1", vec![b'x'; 1_000_000]).await?;
    let by_operator = Signed::sign(&forge.mailbox(later, vec![evil()?]), &forge.operator)?;
    forge.publish("mbox.main.demo-1", by_operator.to_json()).await?;
    let mut foreign = forge.mailbox(later + 1, vec![evil()?]);
    foreign.mid = MachineToken::new("demo-2")?;
    forge.publish("mbox.main.demo-1", Signed::sign(&foreign, &forge.bridge)?.to_json()).await?;
    let mut critical = forge.mailbox(later + 2, vec![evil()?]);
    critical.crit = vec!["quarantine".into()];
    forge.publish("mbox.main.demo-1", Signed::sign(&critical, &forge.bridge)?.to_json()).await?;
    // Facts, commands, output, records, heartbeats.
    for subject in [
        format!("run.main.demo-1.{cid}.exit"),
        format!("run.main.demo-1.{cid}.claim"),
        format!("cmd.main.{cid}.spec"),
        format!("cmd.main.{cid}.p1"),
        format!("cmd.main.{cid}.cancel"),
        format!("out.main.demo-1.{cid}"),
        "$KV.state.main.machines.demo-1".to_owned(),
        "doc.main.authors".to_owned(),
        "done.main.demo-1".to_owned(),
        "done.main._".to_owned(),
    ] {
        for body in [b"{".to_vec(), vec![0xff; 200_000], b"{}".to_vec()] {
            // Some are refused by the broker already (write-once, too large).
            if let Ok(ack) = forge.jetstream.publish(subject.clone(), body.into()).await {
                drop(ack.await);
            }
        }
    }
    forge.publish("cmd.main.nonsense.spec", b"{}".to_vec()).await?;
    works(&stack).await?;
    assert_eq!(lines(&file), 0, "something forged ran");
    let health = stack.http().get("/health").await?.json()?;
    let counters = health["counters"].as_object().context("no counters")?;
    assert!(counters.values().filter_map(Value::as_u64).sum::<u64>() >= 5, "{health}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn offers_with_a_fault_are_rejected_with_its_name() -> Result<()> {
    let stack = Stack::start(Options::relays(1)).await?;
    let forge = Forge::new(&stack).await?;
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("ran");
    works(&stack).await?;
    let text = format!("echo x >> {}", file.display());
    let stranger = signing_key(&stack.machine(0)?.creds.with_file_name("signing.seed"))?;
    let mut swapped = forge.offer(&text, |_| {})?;
    swapped.spec = forge.offer(&text, |_| {})?.spec;
    let good = forge.offer(&text, |_| {})?;
    let mut by_stranger = good.clone();
    by_stranger.grant = Signed::sign(&good.grant.peek()?, &stranger)?;
    let faults = [
        ("spec of another command", swapped),
        ("a stranger's grant", by_stranger),
        ("an unknown crit", forge.offer(&text, |spec| spec.crit = vec!["sandbox".into()])?),
        ("a rollout", forge.offer(&text, |spec| spec.rollout = Some(json!({"parallel": 1})))?),
        ("a bad timeout", forge.offer(&text, |spec| spec.timeout_ms = 0)?),
    ];
    let run = forge.jetstream.get_stream("RUN").await?;
    for (generation, (fault, offer)) in (now_ms() + 60_000..).zip(faults) {
        let cid =
            serde_json::from_slice::<Value>(&offer.spec.0)?["cid"].as_str().context("no cid")?.to_owned();
        forge.post(&forge.mailbox(generation, vec![offer])).await?;
        let subject = format!("run.main.demo-1.{cid}.claim");
        let message =
            eventually(fault, || async { Ok(run.get_last_raw_message_by_subject(&subject).await?) }).await?;
        let kind = message.headers.get("Sb-Type").map(ToString::to_string);
        assert_eq!(kind.as_deref(), Some(signalbox_schemas::run::Rejection::TYPE), "{fault}");
    }
    assert_eq!(lines(&file), 0);
    Ok(())
}
