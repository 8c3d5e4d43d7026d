//! Messages that somebody with the keys of the fleet publishes by hand: duplicated, reordered, replayed, broken.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context as _, Result, ensure};
use async_nats::{
    Client, ConnectOptions, HeaderMap,
    jetstream::{self, message::StreamMessage, stream::RawMessageErrorKind},
};
use serde_json::{Value, json};
use signalbox_schemas::{
    command::{CommandSpec, Grant},
    id::{MachineToken, Sha256, Workspace},
    mailbox::{AuthorsRef, Basis, Mailbox, Offer},
    rollout::Rollout,
    signed::{Message, Signed, SigningKey},
    stream::{CMD, DOC, DONE, HB, MBOX, OUT, RUN, STATE},
};
use signalbox_testkit::{
    eventually::eventually,
    stack::{Options, Stack},
};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::rebuild::answers;

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
            retry_of: None,
            purpose: None,
            leave_children: false,
            max_output: 1 << 20,
            on: "demo-1".into(),
            targets: 1,
            by: "operator:local".into(),
            created_by: None,
            target: None,
            crit: vec![],
            change: None,
        };
        change(&mut spec);
        let bytes = serde_json::to_vec(&spec)?;
        let grant = Grant {
            ws: spec.ws.clone(),
            cid: spec.cid,
            mid: self.mid.clone(),
            spec_sha256: Sha256::of(&bytes),
            expires_at: spec.expires_at,
            sealed: None,
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

/// Headers as their publisher wrote them.
fn own_headers(message: &StreamMessage) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (header, values) in message.headers.iter().filter(|(name, _)| !name.to_string().starts_with("Nats-"))
    {
        for value in values {
            headers.append(header.clone(), value.clone());
        }
    }
    headers
}

/// Publishes all messages of a stream once more, backwards, twice; answers how many there are.
async fn replay(client: &Client, stream: &str) -> Result<usize> {
    let context = jetstream::new(client.clone());
    let mut messages = messages(&context, stream).await?;
    messages.reverse();
    for message in messages.iter().chain(&messages) {
        let (subject, headers) = (message.subject.clone(), own_headers(message));
        if stream == HB {
            // It acknowledges nothing.
            client.publish_with_headers(subject, headers, message.payload.clone()).await?;
            continue;
        }
        let ack = context.publish_with_headers(subject, headers, message.payload.clone()).await?.await;
        // RUN is write-once and says so; the others store it again.
        ensure!(ack.is_ok() != (stream == RUN), "{stream} {}: {ack:?}", message.sequence);
    }
    client.flush().await?;
    Ok(messages.len())
}

/// Waits until the bridge has read what the streams hold now.
async fn all_is_read(stack: &Stack, client: &Client) -> Result<()> {
    let context = jetstream::new(client.clone());
    let mut cursor = Vec::new();
    for stream in [DOC, STATE, CMD, DONE, RUN, OUT, MBOX] {
        let stream = context.get_stream(stream).await?;
        let info = stream.cached_info();
        let created_ms = info.created.unix_timestamp_nanos() / 1_000_000;
        cursor.push(format!("{}:{created_ms}:{}", info.config.name, info.state.last_sequence));
    }
    let headers = [("signalbox-cursor", &*cursor.join(","))];
    let answer = stack.http().request("GET", "/api/v1/commands", &headers, vec![]).await?;
    ensure!(answer.status == 200, "{cursor:?}: {:?}", answer.json());
    Ok(())
}

/// What the bridge has counted.
async fn counters(stack: &Stack) -> Result<Value> {
    Ok(stack.http().get("/health").await?.json()?["counters"].clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn replayed_messages_change_nothing() -> Result<()> {
    let stack = Stack::start(Options::relays(1)).await?;
    let (client, _) = administrator(&stack).await?;
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("ran");
    for code in [0, 3, 4] {
        let text = format!("echo x >> {}; seq 1 30000; seq 1 20000 >&2; exit {code}", file.display());
        stack.http().run("demo-1", &text).await?;
    }
    let assignment = json!({"machine_id": "demo-1", "name": "old"});
    assert_eq!(stack.http().post("/api/v1/assignments", &assignment).await?.status, 201);
    let before = answers(stack.http()).await?;
    // Each record stands there in one version only, so none is replaced by an older one.
    let mut replayed = BTreeMap::new();
    for stream in [DOC, STATE, CMD, RUN, OUT, MBOX, HB] {
        replayed.insert(stream, replay(&client, stream).await?);
    }
    assert!(replayed.values().all(|count| *count > 0), "{replayed:?}");
    all_is_read(&stack, &client).await?;
    let counters = counters(&stack).await?;
    assert_eq!(counters["chunk.duplicate"], 2 * replayed[OUT], "{counters}");
    assert_eq!(counters["command.second_spec"], 2 * 3, "{counters}");
    assert_eq!(answers(stack.http()).await?, before);
    assert_eq!(lines(&file), 3);
    works(&stack).await?;
    assert_eq!(lines(&file), 3);
    Ok(())
}

/// Mailboxes with an offer that must not be acted on, each with the relay's name for the reason.
fn broken_mailboxes(forge: &Forge, file: &Path) -> Result<Vec<(&'static str, Vec<u8>)>> {
    let later = now_ms() + 60_000;
    let evil = |n: u64| {
        let offer = forge.offer(&format!("echo x >> {}", file.display()), |_| {})?;
        anyhow::Ok(forge.mailbox(later + n, vec![offer]))
    };
    let by_operator = Signed::sign(&evil(0)?, &forge.operator)?;
    let mut foreign = evil(1)?;
    foreign.mid = MachineToken::new("demo-2")?;
    let mut critical = evil(2)?;
    critical.crit = vec!["quarantine".into()];
    // The signature of another mailbox.
    let mut swapped = serde_json::to_value(Signed::sign(&evil(3)?, &forge.bridge)?)?;
    swapped["sig"] = serde_json::to_value(Signed::sign(&evil(4)?, &forge.bridge)?)?["sig"].clone();
    Ok(vec![
        ("mailbox_envelope", b"{not json".to_vec()),
        ("mailbox_too_large", vec![b'x'; 1_000_000]),
        ("mailbox_untrusted", by_operator.to_json()),
        ("mailbox_misplaced", Signed::sign(&foreign, &forge.bridge)?.to_json()),
        ("mailbox_critical", Signed::sign(&critical, &forge.bridge)?.to_json()),
        ("mailbox_signature", serde_json::to_vec(&swapped)?),
    ])
}

/// Writes each mailbox until the relay named its reason; how many were written. The bridge counts each of them.
///
/// MBOX keeps the newest message of a subject, and the bridge replaces what is foreign at once: a relay that was too slow
/// never sees it, and it is written again.
async fn write_until_read(
    stack: &Stack,
    forge: &Forge,
    mailboxes: &[(&'static str, Vec<u8>)],
) -> Result<u64> {
    let mut written = 0;
    for (reason, body) in mailboxes {
        let words = [&format!("reason={reason:?}"), "mailbox not acted on"];
        for _ in 0..WRITES {
            forge.publish("mbox.main.demo-1", body.clone()).await?;
            written += 1;
            eventually("it is counted", || async {
                let counters = counters(stack).await?;
                ensure!(counters["mailbox.foreign"] == written, "{reason}: {written} written: {counters:#}");
                Ok(())
            })
            .await?;
            // When the bridge's own has been read, so was this one, if it ever will be.
            works(stack).await?;
            if has_line(stack, "demo-1", &words).is_ok() {
                break;
            }
        }
        has_line(stack, "demo-1", &words)?;
    }
    Ok(written)
}

/// Waits until a log has a line with all of these words.
async fn logged(stack: &Stack, part: &str, words: &[&str]) -> Result<()> {
    eventually("a line of the log", || async { has_line(stack, part, words) }).await
}

/// Refuses unless a log has a line with all of these words.
fn has_line(stack: &Stack, part: &str, words: &[&str]) -> Result<()> {
    let log = std::fs::read_to_string(stack.ready().state_dir.join(format!("log/{part}.log")))?;
    ensure!(log.lines().any(|line| words.iter().all(|word| line.contains(word))), "{words:?}: {log}");
    Ok(())
}

/// How often a mailbox is written that the relay has not seen.
const WRITES: usize = 20;

/// What the bridge refuses of the messages below: by stream and reason.
const REFUSED: [(&str, &str, u64); 10] = [
    // The first body only: RUN is write-once.
    (RUN, "envelope", 1),
    (CMD, "spec", 3),
    (CMD, "payload", 3),
    (CMD, "envelope", 3),
    (CMD, "subject", 1),
    (OUT, "Sb-Stream", 3),
    (STATE, "envelope", 3),
    (DOC, "envelope", 3),
    (DONE, "envelope", 6),
    (HB, "payload", 1),
];

#[tokio::test(flavor = "multi_thread")]
async fn broken_messages_are_refused_counted_and_the_rest_goes_on() -> Result<()> {
    let stack = Stack::start(Options::relays(2)).await?;
    let forge = Forge::new(&stack).await?;
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("ran");
    works(&stack).await?;
    let mailboxes = broken_mailboxes(&forge, &file)?;
    let written = write_until_read(&stack, &forge, &mailboxes).await?;
    let (client, _) = administrator(&stack).await?;
    let cid = Uuid::now_v7();
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
            // Some are refused by the broker already (write-once).
            let stored = forge.publish(&subject, body).await;
            ensure!(stored.is_ok() || subject.starts_with("run."), "{subject}: {stored:?}");
            // Of some streams the next one takes its place.
            all_is_read(&stack, &client).await?;
        }
    }
    forge.publish("cmd.main.nonsense.spec", b"{}".to_vec()).await?;
    client.publish("hb.main.demo-1", "{".into()).await?;
    client.flush().await?;
    works(&stack).await?;
    assert_eq!(lines(&file), 0, "something forged ran");

    let refused = REFUSED.map(|(stream, reason, count)| (format!("refused.{stream}.{reason}"), count));
    let others = [("mailbox.foreign", written), ("run.unknown", 1)];
    let others = others.map(|(name, count)| (name.to_owned(), count));
    eventually("the counters", || async {
        let counters = counters(&stack).await?;
        for (name, count) in refused.iter().chain(&others) {
            ensure!(counters[name] == *count, "{name} is not {count}: {counters:#}");
        }
        Ok(())
    })
    .await?;
    for (stream, reason, _) in REFUSED {
        let words = [&format!("stream={stream:?}"), &format!("reason={reason:?}"), "message refused"];
        logged(&stack, "bridge", &words).await?;
    }
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
    let bad_rollout = Rollout { min_wait_ms: Some(0), ..Rollout::default() };
    let faults = [
        ("spec of another command", swapped),
        ("a stranger's grant", by_stranger),
        ("an unknown crit", forge.offer(&text, |spec| spec.crit = vec!["sandbox".into()])?),
        ("a bad rollout", forge.offer(&text, |spec| spec.rollout = Some(bad_rollout.clone()))?),
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
