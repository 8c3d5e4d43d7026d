//! The permission table, held against the real broker: what a relay or an operator may do, and what it may not.
//!
//! The attackers are bare NATS clients with genuine login files. After each attack everything that is stored is
//! compared, byte for byte, with what was stored before.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::atomic::Ordering,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use async_nats::{Client, ConnectOptions, HeaderMap, Subscriber, connection::State, jetstream};
use data_encoding::BASE64URL_NOPAD;
use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _, future::join_all};
use nkeys::KeyPair;
use rstest::rstest;
use serde_json::{Value, json};
use signalbox_bridge::identity::{Init, RelayLogins, init};
use signalbox_link::{Link, Login, Options};
use signalbox_schemas::{
    id::{MachineId, OperatorId},
    layout::Layout,
    limit::RELAY_PAYLOAD_BYTES,
    relay_files::login_file,
    stream,
};
use signalbox_testkit::{Broker, eventually};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
};

const CID: &str = "0193a2b4-0000-7000-8000-000000000001";
const OTHER_CID: &str = "0193a2b4-0000-7000-8000-000000000002";
/// Long enough for any answer on the loopback interface, and waited out by everything that must stay unanswered.
const UNANSWERED: Duration = Duration::from_millis(500);
/// What `demo-1` may read at any time: an answer also says that all that went before was worked through.
const OWN_MAILBOX: &str = "$JS.API.DIRECT.GET.MBOX.mbox.main.demo-1";
const NOW_MS: u64 = 1_800_000_000_000;

/// A broker with accounts as `init` makes them, all streams, and something stored for two machines.
struct Fleet {
    layout: Layout,
    broker: Broker,
    ctrl: Client,
    _dir: tempfile::TempDir,
}

/// Everything that the broker holds.
#[derive(Debug, Default, PartialEq, Eq)]
struct Stored {
    /// Names of consumers by stream.
    consumers: BTreeMap<String, BTreeSet<String>>,
    /// By stream and sequence: subject, headers and payload.
    messages: BTreeMap<(String, u64), (String, String, Vec<u8>)>,
}

impl Fleet {
    async fn start() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let layout = Layout::new(dir.path().join("state"));
        let now_ms = u64::try_from(std::time::UNIX_EPOCH.elapsed()?.as_millis())?;
        init(
            &Init {
                state_dir: layout.root().to_owned(),
                machines: vec![MachineId::new("demo-1")?, MachineId::new("demo-2")?],
                operators: vec![OperatorId::new("local")?, OperatorId::new("other")?],
            },
            now_ms,
        )?;
        let broker = Broker::start_with_config(&layout.nats_conf()).await?;
        let link =
            Link::connect(Options::bridge(&broker.url(), Login::from_creds_file(&layout.creds("bridge"))?))
                .await?;
        for definition in stream::all() {
            link.ensure_stream(&definition).await?;
        }
        link.close().await;
        let ctrl = connect(&broker.url(), &layout.creds("ctrl"), None).await?;
        let fleet = Self { layout, broker, ctrl, _dir: dir };
        for machine in ["demo-1", "demo-2"] {
            fleet.put(&format!("mbox.main.{machine}"), &format!("mailbox of {machine}")).await?;
            fleet.put(&format!("run.main.{machine}.{CID}.claim"), &format!("claim of {machine}")).await?;
            fleet.put(&format!("doc.main.{machine}.config"), &format!("document of {machine}")).await?;
        }
        fleet.put("doc.main.authors", "authors").await?;
        Ok(fleet)
    }

    /// Stores something as CTRL.
    async fn put(&self, subject: &str, body: &str) -> Result<()> {
        jetstream::new(self.ctrl.clone()).publish(subject.to_owned(), body.to_owned().into()).await?.await?;
        Ok(())
    }

    async fn relay(&self, machine: &str) -> Result<Client> {
        let creds = self.layout.machines_dir().join(machine).join("relay.creds");
        connect(&self.broker.url(), &creds, Some(&format!("_INBOX_{machine}"))).await
    }

    /// Sees that `demo-1` has a login of this kind.
    fn log_in(&self, via: Via) -> Result<()> {
        if via == Via::Enrolment {
            let logins = RelayLogins::load(&self.layout)?.context("no seed for logins")?;
            let (_, seed) = self.login("demo-1")?;
            let key = KeyPair::from_seed(&seed)?.public_key().parse()?;
            let now_ms = u64::try_from(std::time::UNIX_EPOCH.elapsed()?.as_millis())?;
            let mid = MachineId::new("demo-1")?.token();
            let file = login_file(&logins.mint(&mid, &key, now_ms)?, &seed);
            std::fs::write(self.layout.relay_creds(&mid), file)?;
        }
        Ok(())
    }

    /// Token and seed of a machine's login.
    fn login(&self, machine: &str) -> Result<(String, String)> {
        let text = std::fs::read_to_string(self.layout.machines_dir().join(machine).join("relay.creds"))?;
        let lines: Vec<&str> = text.lines().collect();
        let after = |begin: &str| lines.iter().skip_while(|line| !line.contains(begin)).nth(1);
        match (after("BEGIN NATS USER JWT"), after("BEGIN USER NKEY SEED")) {
            (Some(token), Some(seed)) => Ok(((*token).to_owned(), (*seed).to_owned())),
            _ => bail!("no login file"),
        }
    }

    /// A relay's login on a bare socket: no client stands in the way of what is sent.
    async fn bare_relay(&self, machine: &str) -> Result<BufReader<TcpStream>> {
        let (token, seed) = self.login(machine)?;
        let mut socket = BufReader::new(TcpStream::connect(("127.0.0.1", self.broker.port())).await?);
        let mut info = String::new();
        socket.read_line(&mut info).await?;
        let info: Value = serde_json::from_str(info.trim_start_matches("INFO "))?;
        let nonce = info.get("nonce").and_then(Value::as_str).context("no nonce")?;
        let sig = BASE64URL_NOPAD.encode(&KeyPair::from_seed(&seed)?.sign(nonce.as_bytes())?);
        let connect = json!({ "jwt": token, "sig": sig, "verbose": false, "headers": true, "protocol": 1 });
        assert_eq!(say(&mut socket, format!("CONNECT {connect}").as_bytes()).await?, "PONG");
        Ok(socket)
    }

    async fn operator(&self, name: &str) -> Result<Client> {
        connect(&self.broker.url(), &self.layout.creds(&format!("operator-{name}")), None).await
    }

    async fn stored(&self) -> Result<Stored> {
        let context = jetstream::new(self.ctrl.clone());
        let mut all = Stored::default();
        for name in context.stream_names().try_collect::<Vec<String>>().await? {
            let stream = context.get_stream(&name).await?;
            all.consumers.insert(name.clone(), stream.consumer_names().try_collect().await?);
            let state = &stream.cached_info().state;
            for sequence in state.first_sequence.max(1)..=state.last_sequence {
                let Ok(message) = stream.get_raw_message(sequence).await else { continue };
                let headers: BTreeMap<String, _> =
                    message.headers.iter().map(|(name, values)| (name.to_string(), values)).collect();
                let (subject, headers) = (message.subject.to_string(), format!("{headers:?}"));
                all.messages.insert((name.clone(), sequence), (subject, headers, message.payload.to_vec()));
            }
        }
        Ok(all)
    }
}

/// Sends a line, and answers what the broker has to say about it.
async fn say(socket: &mut BufReader<TcpStream>, line: &[u8]) -> Result<String> {
    // A broker that has heard enough closes while this is still being sent.
    let _ = socket.write_all(&[line, b"\r\nPING\r\n"].concat()).await;
    loop {
        let mut answer = String::new();
        socket.read_line(&mut answer).await?;
        if !answer.starts_with("INFO ") {
            return Ok(answer.trim_end().to_owned());
        }
    }
}

async fn connect(url: &str, creds: &Path, inbox: Option<&str>) -> Result<Client> {
    let mut options = ConnectOptions::with_credentials_file(creds).await?;
    if let Some(inbox) = inbox {
        options = options.custom_inbox_prefix(inbox);
    }
    Ok(options.request_timeout(Some(UNANSWERED)).connect(url).await?)
}

/// Whether a bare login with this token and seed is let in.
async fn is_let_in(url: &str, token: &str, seed: &str) -> Result<bool> {
    let key = std::sync::Arc::new(KeyPair::from_seed(seed)?);
    let options = ConnectOptions::with_jwt(token.to_owned(), move |nonce| {
        let key = key.clone();
        async move { key.sign(&nonce).map_err(async_nats::AuthError::new) }
    });
    let options = options.custom_inbox_prefix("_INBOX_demo-1").request_timeout(Some(UNANSWERED));
    let Ok(client) = options.connect(url).await else { return Ok(false) };
    // The client takes any first word of the server for success. By the time of an answer, or of none, the
    // server has had its last word.
    let _ = ask(&client, OWN_MAILBOX, "").await;
    Ok(client.connection_state() == State::Connected)
}

/// A user token, made here and not with the code under test.
fn mint(issuer_seed: &str, user: &KeyPair, name: &str, nats: &Value) -> Result<String> {
    mint_at(NOW_MS / 1000 - 1_000_000, issuer_seed, user, name, nats)
}

/// The same, issued at `iat`, Unix seconds.
fn mint_at(iat: u64, issuer_seed: &str, user: &KeyPair, name: &str, nats: &Value) -> Result<String> {
    let issuer = KeyPair::from_seed(issuer_seed.trim())?;
    let claims = json!({
        "jti": "any", "iat": iat, "iss": issuer.public_key(), "name": name,
        "sub": user.public_key(), "nats": nats,
    });
    let encode = |text: String| BASE64URL_NOPAD.encode(text.as_bytes());
    let head = encode(json!({ "typ": "JWT", "alg": "ed25519-nkey" }).to_string());
    let text = format!("{head}.{}", encode(claims.to_string()));
    Ok(format!("{text}.{}", BASE64URL_NOPAD.encode(&issuer.sign(text.as_bytes())?)))
}

/// Asks with a body; what came back, unless nothing did.
async fn ask(client: &Client, subject: &str, body: &str) -> Option<String> {
    let answer = client.request(subject.to_owned(), body.to_owned().into()).await.ok()?;
    let status = answer.status.map(|status| status.to_string()).unwrap_or_default();
    Some(format!("{status}{}", String::from_utf8_lossy(&answer.payload)))
}

/// What arrived on a subscription so far.
fn arrived(subscription: &mut Subscriber) -> Vec<String> {
    let mut subjects = Vec::new();
    while let Some(Some(message)) = subscription.next().now_or_never() {
        subjects.push(message.subject.to_string());
    }
    subjects
}

/// Every stream API that a client could try, for one stream; `inbox` is where it may listen.
fn stream_api(name: &str, inbox: &str) -> Vec<(String, String)> {
    let consumer = json!({ "stream_name": name, "config": { "durable_name": "spy", "ack_policy": "none",
        "deliver_policy": "all", "deliver_subject": format!("{inbox}.spy") }});
    let ephemeral =
        json!({ "stream_name": name, "config": { "ack_policy": "none", "deliver_policy": "all" }});
    let api = |tail: &str, body: &Value| (format!("$JS.API.{tail}"), body.to_string());
    vec![
        api(&format!("CONSUMER.CREATE.{name}"), &ephemeral),
        api(&format!("CONSUMER.CREATE.{name}.spy"), &consumer),
        api(&format!("CONSUMER.CREATE.{name}.spy.run.main.demo-1.>"), &consumer),
        api(&format!("CONSUMER.DURABLE.CREATE.{name}.spy"), &consumer),
        api(&format!("CONSUMER.MSG.NEXT.{name}.spy"), &json!({ "batch": 1 })),
        api(&format!("CONSUMER.NAMES.{name}"), &json!({})),
        api(&format!("CONSUMER.DELETE.{name}.spy"), &json!({})),
        api(&format!("STREAM.INFO.{name}"), &json!({})),
        api(&format!("STREAM.MSG.GET.{name}"), &json!({ "seq": 1 })),
        api(&format!("STREAM.MSG.DELETE.{name}"), &json!({ "seq": 1 })),
        api(&format!("STREAM.PURGE.{name}"), &json!({})),
        api(&format!("STREAM.DELETE.{name}"), &json!({})),
        api(&format!("STREAM.UPDATE.{name}"), &json!({ "name": name, "subjects": ["x"] })),
        api(&format!("STREAM.SNAPSHOT.{name}"), &json!({ "deliver_subject": format!("{inbox}.snap") })),
        api(&format!("DIRECT.GET.{name}"), &json!({ "seq": 1 })),
        api(&format!("DIRECT.GET.{name}"), &json!({ "multi_last": [">"] })),
        api("STREAM.NAMES", &json!({})),
        api("STREAM.LIST", &json!({})),
        api("STREAM.CREATE.EVIL", &json!({ "name": "EVIL", "subjects": ["evil"] })),
        api("INFO", &json!({})),
        ("$SYS.REQ.SERVER.PING".to_owned(), String::new()),
        ("$SYS.REQ.CLAIMS.UPDATE".to_owned(), "x".to_owned()),
    ]
}

/// How a relay came to its login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Via {
    /// `init` made it.
    Init,
    /// It has enrolled.
    Enrolment,
}

#[rstest]
#[case(Via::Init)]
#[case(Via::Enrolment)]
#[tokio::test]
async fn a_relay_does_what_the_table_says(#[case] via: Via) -> Result<()> {
    let fleet = Fleet::start().await?;
    fleet.log_in(via)?;
    let relay = fleet.relay("demo-1").await?;
    let mut live = relay.subscribe("live.mbox.main.demo-1").await?;
    assert_eq!(ask(&relay, OWN_MAILBOX, "").await.as_deref(), Some("mailbox of demo-1"));
    fleet.put("mbox.main.demo-1", "newest").await?;
    let message = tokio::time::timeout(Duration::from_secs(5), live.next()).await?.context("no mailbox")?;
    assert_eq!(message.payload.as_ref(), b"newest");

    for (subject, expected) in [
        (OWN_MAILBOX.to_owned(), "newest"),
        (format!("$JS.API.DIRECT.GET.RUN.run.main.demo-1.{CID}.claim"), "claim of demo-1"),
        ("$JS.API.DIRECT.GET.DOC.doc.main.authors".to_owned(), "authors"),
        ("$JS.API.DIRECT.GET.DOC.doc.main.demo-1.config".to_owned(), "document of demo-1"),
    ] {
        assert_eq!(ask(&relay, &subject, "").await.as_deref(), Some(expected), "{subject}");
    }
    for subject in [
        format!("run.main.demo-1.{OTHER_CID}.claim"),
        format!("run.main.demo-1.{OTHER_CID}.start"),
        format!("run.main.demo-1.{OTHER_CID}.exit"),
        format!("run.main.demo-1.{OTHER_CID}.lost"),
        format!("out.main.demo-1.{OTHER_CID}"),
        "inv.main.demo-1".to_owned(),
    ] {
        let answer = ask(&relay, &subject, "mine").await.with_context(|| subject.clone())?;
        assert!(answer.contains("\"seq\""), "{subject}: {answer}");
    }
    // Write-once, and a relay is told so.
    let taken =
        ask(&relay, &format!("run.main.demo-1.{OTHER_CID}.claim"), "again").await.context("no answer")?;
    assert!(taken.contains("10077"), "{taken}");
    relay.publish("hb.main.demo-1", "alive".into()).await?;
    eventually("the heartbeat", || async {
        let stored = fleet.stored().await?;
        ensure!(stored.messages.values().any(|(subject, ..)| subject == "hb.main.demo-1"));
        Ok(())
    })
    .await
}

#[rstest]
#[case(Via::Init)]
#[case(Via::Enrolment)]
#[tokio::test]
async fn a_relay_stores_and_reads_nothing_else(#[case] via: Via) -> Result<()> {
    let fleet = Fleet::start().await?;
    fleet.log_in(via)?;
    let before = fleet.stored().await?;
    let relay = fleet.relay("demo-1").await?;

    let mut attempts: Vec<(String, String)> =
        stream::all().iter().flat_map(|s| stream_api(s.name, "_INBOX_demo-1")).collect();
    for (subject, body) in [
        // As somebody else, or as nobody.
        (format!("run.main.demo-2.{OTHER_CID}.claim"), "forged"),
        (format!("run.main.demo-2.{OTHER_CID}.exit"), "forged"),
        (format!("run.other.demo-1.{OTHER_CID}.claim"), "forged"),
        (format!("run.main.demo-1.{OTHER_CID}.done"), "forged"),
        (format!("out.main.demo-2.{OTHER_CID}"), "forged"),
        ("hb.main.demo-2".to_owned(), "forged"),
        ("inv.main.demo-2".to_owned(), "forged"),
        ("inv.other.demo-1".to_owned(), "forged"),
        ("mbox.main.demo-1".to_owned(), "forged"),
        ("mbox.main.demo-2".to_owned(), "forged"),
        ("live.mbox.main.demo-2".to_owned(), "forged"),
        ("live.hb.main.demo-2".to_owned(), "forged"),
        ("doc.main.authors".to_owned(), "forged"),
        (format!("cmd.main.{OTHER_CID}.spec"), "forged"),
        ("done.main.demo-1".to_owned(), "forged"),
        ("$KV.state.main.machines.demo-1".to_owned(), "forged"),
        ("$KV.lease.main".to_owned(), "forged"),
        ("api.main.local.commands.submit.12345678".to_owned(), "forged"),
        ("feed.main.local.12345678".to_owned(), "forged"),
        // Somebody else's, read.
        ("$JS.API.DIRECT.GET.MBOX.mbox.main.demo-2".to_owned(), ""),
        ("$JS.API.DIRECT.GET.MBOX.mbox.main.*".to_owned(), ""),
        (format!("$JS.API.DIRECT.GET.RUN.run.main.demo-2.{CID}.claim"), ""),
        ("$JS.API.DIRECT.GET.DOC.doc.main.demo-2.config".to_owned(), ""),
        ("$JS.API.DIRECT.GET.KV_state.$KV.state.main.machines.demo-1".to_owned(), ""),
    ] {
        attempts.push((subject, body.to_owned()));
    }
    let answers = join_all(attempts.iter().map(|(subject, body)| ask(&relay, subject, body))).await;
    for ((subject, _), answer) in attempts.iter().zip(answers) {
        assert_eq!(answer, None, "{subject} was answered");
    }
    assert_eq!(fleet.stored().await?, before);
    Ok(())
}

#[tokio::test]
async fn a_body_does_not_turn_a_read_to_somebody_else() -> Result<()> {
    let fleet = Fleet::start().await?;
    let relay = fleet.relay("demo-1").await?;
    for body in [
        json!({ "last_by_subj": "mbox.main.demo-2" }),
        json!({ "multi_last": ["mbox.main.*"] }),
        json!({ "multi_last": ["mbox.main.demo-2"], "batch": 10 }),
        json!({ "next_by_subj": "mbox.main.demo-2", "seq": 1 }),
        json!({ "seq": 2 }),
        json!({ "next_by_subj": ">", "seq": 1, "batch": 10 }),
    ] {
        let answer = ask(&relay, OWN_MAILBOX, &body.to_string()).await.unwrap_or_default();
        assert!(!answer.contains("demo-2"), "{body}: {answer}");
    }
    // The same with several answers to one inbox.
    let mut inbox = relay.subscribe("_INBOX_demo-1.many").await?;
    for body in [json!({ "multi_last": [">"] }), json!({ "seq": 1, "batch": 100, "next_by_subj": ">" })] {
        relay.publish_with_reply(OWN_MAILBOX, "_INBOX_demo-1.many", body.to_string().into()).await?;
    }
    assert_eq!(ask(&relay, OWN_MAILBOX, "").await.as_deref(), Some("mailbox of demo-1"));
    while let Some(Some(message)) = inbox.next().now_or_never() {
        assert!(!message.payload.ends_with(b"demo-2"), "{:?}", message.payload);
    }
    Ok(())
}

#[tokio::test]
async fn a_relay_hears_nobody_elses_mail() -> Result<()> {
    let fleet = Fleet::start().await?;
    let (relay, victim) = (fleet.relay("demo-1").await?, fleet.relay("demo-2").await?);
    let mut attempts = Vec::new();
    for subject in [
        "live.mbox.main.demo-2",
        "live.mbox.main.*",
        "live.mbox.>",
        "live.>",
        ">",
        "*.*.*.*",
        "mbox.>",
        "run.>",
        "out.>",
        "live.hb.>",
        "feed.>",
        "api.>",
        "_INBOX_demo-2.>",
        "_INBOX.>",
        "$JS.>",
        "$SYS.>",
    ] {
        attempts.push((subject, relay.subscribe(subject).await?));
        attempts.push((subject, relay.queue_subscribe(subject, "q".to_owned()).await?));
    }
    let mut own = relay.subscribe("live.mbox.main.demo-1").await?;
    let mut theirs = victim.subscribe("live.mbox.main.demo-2").await?;
    assert!(ask(&relay, OWN_MAILBOX, "").await.is_some());
    assert!(ask(&victim, "$JS.API.DIRECT.GET.MBOX.mbox.main.demo-2", "").await.is_some());

    fleet.put("mbox.main.demo-2", "secret").await?;
    fleet.ctrl.publish("feed.main.local.12345678", "secret".into()).await?;
    assert_eq!(ask(&victim, "$JS.API.DIRECT.GET.MBOX.mbox.main.demo-2", "").await.as_deref(), Some("secret"));
    let seen = tokio::time::timeout(Duration::from_secs(5), theirs.next()).await?;
    assert_eq!(seen.context("the victim hears nothing")?.payload.as_ref(), b"secret");
    // One's own mail, sent later on the same connection, comes after whatever else was let through.
    fleet.put("mbox.main.demo-1", "mine").await?;
    let seen = tokio::time::timeout(Duration::from_secs(5), own.next()).await?;
    assert_eq!(seen.context("the relay hears nothing")?.payload.as_ref(), b"mine");
    for (subject, mut subscription) in attempts {
        assert_eq!(arrived(&mut subscription), Vec::<String>::new(), "heard on {subject}");
    }
    Ok(())
}

#[tokio::test]
async fn a_reply_subject_stores_nothing_under_another_name() -> Result<()> {
    let fleet = Fleet::start().await?;
    let before = fleet.stored().await?;
    let (relay, victim) = (fleet.relay("demo-1").await?, fleet.relay("demo-2").await?);
    let mut writes = 0;
    for (n, reply) in [
        format!("run.main.demo-2.{OTHER_CID}.claim"),
        format!("run.main.demo-2.{OTHER_CID}.exit"),
        format!("out.main.demo-2.{OTHER_CID}"),
        "mbox.main.demo-2".to_owned(),
        "live.mbox.main.demo-2".to_owned(),
        "hb.main.demo-2".to_owned(),
        "doc.main.authors".to_owned(),
        format!("cmd.main.{OTHER_CID}.spec"),
        "$KV.state.main.machines.demo-2".to_owned(),
        "$JS.API.STREAM.PURGE.RUN".to_owned(),
        "$JS.API.STREAM.DELETE.MBOX".to_owned(),
        "api.main.local.commands.submit.12345678".to_owned(),
        "feed.main.local.12345678".to_owned(),
        "_INBOX_demo-2.stolen".to_owned(),
        "_INBOX_demo-2.stolen.1".to_owned(),
    ]
    .into_iter()
    .enumerate()
    {
        let publish = |subject: String, body: &'static str| {
            relay.publish_with_reply(subject, reply.clone(), body.into())
        };
        publish(format!("out.main.demo-1.{CID}"), "own").await?;
        publish(format!("run.main.demo-1.0193a2b4-0000-7000-8000-{n:012x}.start"), "own").await?;
        publish("hb.main.demo-1".to_owned(), "own").await?;
        publish(OWN_MAILBOX.to_owned(), "").await?;
        publish(format!("$JS.API.DIRECT.GET.RUN.run.main.demo-1.{CID}.claim"), "").await?;
        writes += 2;
    }
    // The broker works through a connection in order: when this is answered, all of the above is done.
    assert!(ask(&relay, OWN_MAILBOX, "").await.is_some());
    let is_own = |subject: &str| {
        ["out.main.demo-1.", "run.main.demo-1.", "hb.main.demo-1"].iter().any(|own| subject.starts_with(own))
    };
    let expected = before.messages.len() + writes;
    eventually("the relay's own writes", || async {
        let stored = fleet.stored().await?;
        let count = stored.messages.keys().filter(|(stream, _)| stream != "HB").count();
        ensure!(count == expected, "{count} of {expected}");
        Ok(())
    })
    .await?;
    let mut after = fleet.stored().await?;
    after.messages.retain(|at, (subject, ..)| before.messages.contains_key(at) || !is_own(subject));
    assert_eq!(after, before);
    // What lands in another relay's inbox answers none of its questions: nobody can guess where it listens for that.
    for (subject, expected) in [
        ("$JS.API.DIRECT.GET.MBOX.mbox.main.demo-2", "mailbox of demo-2"),
        ("$JS.API.DIRECT.GET.DOC.doc.main.demo-2.config", "document of demo-2"),
    ] {
        assert_eq!(ask(&victim, subject, "").await.as_deref(), Some(expected));
    }
    assert_eq!(victim.statistics().connects.load(Ordering::Relaxed), 1, "its connection was lost");
    Ok(())
}

#[tokio::test]
async fn more_than_a_relay_may_send_is_not_stored() -> Result<()> {
    let fleet = Fleet::start().await?;
    let victim = fleet.relay("demo-2").await?;
    let mut mail = victim.subscribe("live.mbox.main.demo-2").await?;
    victim.flush().await?;
    let publish = async |bytes: usize| -> Result<String> {
        let line = format!("PUB out.main.demo-1.{CID} {bytes}\r\n{}", "x".repeat(bytes));
        say(&mut fleet.bare_relay("demo-1").await?, line.as_bytes()).await
    };
    let stored = async || -> Result<Vec<usize>> {
        let messages = fleet.stored().await?.messages;
        Ok(messages
            .iter()
            .filter(|((stream, _), _)| stream == "OUT")
            .map(|(_, (.., body))| body.len())
            .collect())
    };
    assert_eq!(publish(RELAY_PAYLOAD_BYTES).await?, "PONG");
    assert_eq!(stored().await?, [RELAY_PAYLOAD_BYTES]);
    assert_eq!(publish(300 * 1024).await?, "-ERR 'Maximum Payload Violation'");
    assert_eq!(stored().await?, [RELAY_PAYLOAD_BYTES]);

    fleet.put("mbox.main.demo-2", "newest").await?;
    let seen = tokio::time::timeout(Duration::from_secs(5), mail.next()).await?;
    assert_eq!(seen.context("the other relay hears nothing")?.payload.as_ref(), b"newest");
    let answer = ask(&victim, &format!("out.main.demo-2.{CID}"), "own").await.context("no answer")?;
    assert!(answer.contains("\"seq\""), "{answer}");
    assert_eq!(victim.statistics().connects.load(Ordering::Relaxed), 1, "its connection was lost");
    Ok(())
}

#[tokio::test]
async fn headers_of_a_relay_change_nothing_of_others() -> Result<()> {
    let fleet = Fleet::start().await?;
    let before = fleet.stored().await?;
    let relay = fleet.relay("demo-1").await?;
    for (header, value) in [
        ("Nats-Rollup", "all"),
        ("Nats-Rollup", "sub"),
        ("Nats-TTL", "1s"),
        ("Nats-Schedule", "@at 2030-01-01T00:00:00Z"),
        ("Nats-Schedule-Target", "run.main.demo-2.x.claim"),
        ("Nats-Batch-Id", "b"),
        ("Nats-Incr", "1"),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert(header, value);
        let subject = format!("run.main.demo-1.{OTHER_CID}.claim");
        let answer = relay.request_with_headers(subject, headers, "own".into()).await;
        let answer = answer.map(|answer| String::from_utf8_lossy(&answer.payload).into_owned());
        let after = fleet.stored().await?;
        for (at, message) in &before.messages {
            assert_eq!(after.messages.get(at), Some(message), "{header}: {answer:?}");
        }
        assert_eq!(after.consumers, before.consumers, "{header}: {answer:?}");
        let is_own = |subject: &str| !subject.contains(OTHER_CID) || subject.contains("demo-1");
        assert!(after.messages.values().all(|(subject, ..)| is_own(subject)));
    }
    Ok(())
}

#[tokio::test]
async fn an_operator_speaks_for_itself_and_reaches_no_stream() -> Result<()> {
    let fleet = Fleet::start().await?;
    let operator = fleet.operator("local").await?;
    let mut requests = fleet.ctrl.subscribe("api.main.*.*.*.*").await?;
    let mut everything = fleet.ctrl.subscribe("api.>").await?;
    // Where the answers would come, if there were any.
    let mut feed = operator.subscribe("feed.main.local.>").await?;
    operator.flush().await?;
    fleet.put("mbox.main.demo-3", "sent after the subscriptions").await?;
    let before = fleet.stored().await?;

    let mut attempts: Vec<(String, String)> =
        stream::all().iter().flat_map(|s| stream_api(s.name, "feed.main.local")).collect();
    for subject in [
        "api.main.other.commands.submit.12345678",
        "api.other.local.commands.submit.12345678",
        "feed.main.local.12345678",
        "feed.main.other.12345678",
        "mbox.main.demo-1",
        "hb.main.demo-1",
        "inv.main.demo-1",
        "live.mbox.main.demo-1",
        "live.hb.main.demo-1",
        "doc.main.authors",
        "$JS.API.DIRECT.GET.MBOX.mbox.main.demo-1",
        "$JS.API.DIRECT.GET.DOC.doc.main.authors",
        "$KV.state.main.machines.demo-1",
        "run.main.demo-1.0193a2b4-0000-7000-8000-000000000009.claim",
        "cmd.main.0193a2b4-0000-7000-8000-000000000009.spec",
    ] {
        attempts.push((subject.to_owned(), "forged".to_owned()));
    }
    for (subject, body) in &attempts {
        operator.publish_with_reply(subject.clone(), "feed.main.local.answer-1", body.clone().into()).await?;
    }
    for reply in ["api.main.other.commands.submit.12345678", "mbox.main.demo-1", "$JS.API.STREAM.PURGE.RUN"] {
        operator.publish_with_reply("api.main.local.machines.list.87654321", reply, "own".into()).await?;
    }
    operator.publish("api.main.local.machines.list.last-one", "own".into()).await?;
    let mut seen = Vec::new();
    while seen.last().is_none_or(|subject: &String| !subject.ends_with("last-one")) {
        let request = tokio::time::timeout(Duration::from_secs(5), requests.next()).await?;
        seen.push(request.context("the bridge hears nothing")?.subject.to_string());
    }
    assert_eq!(seen.len(), 4, "{seen:?}");
    assert!(seen.iter().all(|subject| subject.starts_with("api.main.local.")), "{seen:?}");
    let all = arrived(&mut everything);
    assert!(all.iter().all(|subject| subject.starts_with("api.main.local.")), "{all:?}");
    // The broker is asked for all of this after what came from the operator: so the sentinel comes last.
    assert_eq!(fleet.stored().await?, before);
    fleet.ctrl.publish("feed.main.local.sentinel", "".into()).await?;
    let heard = tokio::time::timeout(Duration::from_secs(5), feed.next()).await?;
    assert_eq!(heard.context("no feed")?.subject.as_str(), "feed.main.local.sentinel");
    assert_eq!(arrived(&mut feed), Vec::<String>::new());
    Ok(())
}

#[tokio::test]
async fn an_operator_hears_its_own_feed_and_heartbeats_only() -> Result<()> {
    let fleet = Fleet::start().await?;
    let operator = fleet.operator("local").await?;
    let mut attempts = Vec::new();
    for subject in [
        "feed.main.other.>",
        "feed.main.>",
        "feed.main.*.12345678",
        "feed.>",
        ">",
        "live.mbox.main.*",
        "live.mbox.main.demo-1",
        "live.>",
        "run.>",
        "mbox.>",
        "api.>",
        "_INBOX.>",
        "$JS.>",
    ] {
        attempts.push((subject, operator.subscribe(subject).await?));
    }
    let mut own = operator.subscribe("feed.main.local.>").await?;
    let mut beats = operator.subscribe("live.hb.main.*").await?;
    // A request that arrived says that the subscriptions before it stand.
    let mut requests = fleet.ctrl.subscribe("api.main.local.>").await?;
    fleet.put("mbox.main.demo-1", "secret").await?;
    operator.publish("api.main.local.machines.list.12345678", "".into()).await?;
    tokio::time::timeout(Duration::from_secs(5), requests.next()).await?.context("no request")?;

    fleet.put("mbox.main.demo-1", "secret").await?;
    let relay = fleet.relay("demo-1").await?;
    relay.publish("hb.main.demo-1", "alive".into()).await?;
    let beat = tokio::time::timeout(Duration::from_secs(5), beats.next()).await?;
    assert_eq!(beat.context("no heartbeat")?.payload.as_ref(), b"alive");
    fleet.ctrl.publish("feed.main.other.12345678", "secret".into()).await?;
    fleet.ctrl.publish("feed.main.local.12345678", "mine".into()).await?;
    let seen = tokio::time::timeout(Duration::from_secs(5), own.next()).await?;
    assert_eq!(seen.context("no feed")?.payload.as_ref(), b"mine");
    for (subject, mut subscription) in attempts {
        assert_eq!(arrived(&mut subscription), Vec::<String>::new(), "heard on {subject}");
    }
    Ok(())
}

#[tokio::test]
async fn a_stolen_signing_key_mints_only_what_its_scope_says() -> Result<()> {
    let fleet = Fleet::start().await?;
    let url = fleet.broker.url();
    let seed = |name: &str| -> Result<String> { Ok(std::fs::read_to_string(fleet.layout.seed(name))?) };
    let account = |name: &str| -> Result<String> { Ok(KeyPair::from_seed(seed(name)?.trim())?.public_key()) };
    let (relay_key, relay, ctrl) = (seed("relay-signing")?, account("relay")?, account("ctrl")?);
    let user = KeyPair::new_user();
    let user_seed = user.seed()?;
    let try_it = async |issuer: &str, nats: Value| -> Result<bool> {
        is_let_in(&url, &mint(issuer, &user, "demo-1", &nats)?, &user_seed).await
    };
    let plain = json!({ "type": "user", "version": 2, "issuer_account": relay });
    assert!(try_it(&relay_key, plain.clone()).await?, "an honest token is refused: this test proves nothing");

    let with = |member: &str, value: Value| {
        let mut nats = plain.clone();
        if let Value::Object(members) = &mut nats {
            members.insert(member.to_owned(), value);
        }
        nats
    };
    let stranger = KeyPair::new_account().seed()?;
    for (what, issuer, nats) in [
        ("publish permissions", &relay_key, with("pub", json!({ "allow": [">"] }))),
        ("subscribe permissions", &relay_key, with("sub", json!({ "allow": [">"] }))),
        ("limits", &relay_key, with("payload", json!(-1))),
        ("a bearer token", &relay_key, with("bearer_token", json!(true))),
        ("another account", &relay_key, with("issuer_account", json!(ctrl))),
        ("an account nobody knows", &stranger, plain.clone()),
    ] {
        assert!(!try_it(issuer, nats).await?, "{what} was let in");
    }
    Ok(())
}

#[tokio::test]
async fn a_token_without_its_seed_opens_nothing() -> Result<()> {
    let fleet = Fleet::start().await?;
    let ((token, seed), (_, other_seed)) = (fleet.login("demo-1")?, fleet.login("demo-2")?);
    let url = fleet.broker.url();
    assert!(is_let_in(&url, &token, &seed).await?);
    assert!(!is_let_in(&url, &token, &other_seed).await?);
    // The signing seed never logs in.
    let signing = std::fs::read_to_string(fleet.layout.machines_dir().join("demo-1/signing.seed"))?;
    assert!(!is_let_in(&url, &token, signing.trim()).await?);
    Ok(())
}

fn text<'a>(claims: &'a Value, place: &str) -> Result<&'a str> {
    claims.pointer(place).and_then(Value::as_str).with_context(|| format!("nothing stands at {place}"))
}

/// The account tokens of a state directory as they were before relays said what they keep.
fn with_old_accounts(layout: &Layout) -> Result<()> {
    let operator = std::fs::read_to_string(layout.seed("operator"))?;
    let without = |list: &mut Value| {
        let is_new = |item: &Value| {
            let subject = item.get("subject").unwrap_or(item);
            subject.as_str().is_some_and(|subject| subject.starts_with("inv."))
        };
        list.as_array_mut().map_or(0, |list| {
            let before = list.len();
            list.retain(|item| !is_new(item));
            before - list.len()
        })
    };
    let mut removed = 0;
    for entry in std::fs::read_dir(layout.jwt_dir())? {
        let path = entry?.path();
        let token = std::fs::read_to_string(&path)?;
        let payload = token.split('.').nth(1).context("no token")?;
        let mut claims: Value = serde_json::from_slice(&BASE64URL_NOPAD.decode(payload.as_bytes())?)?;
        let account = KeyPair::from_public_key(text(&claims, "/sub")?)?;
        let name = text(&claims, "/name")?.to_owned();
        // The broker goes by the younger one of two tokens.
        let iat = claims.get("iat").and_then(Value::as_u64).context("no time")? - 1_000;
        let nats = claims.get_mut("nats").context("no claims")?;
        for list in ["/exports", "/imports", "/signing_keys/0/template/pub/allow"] {
            removed += nats.pointer_mut(list).map_or(0, &without);
        }
        let nats = nats.clone();
        std::fs::write(&path, mint_at(iat, &operator, &account, &name, &nats)?)?;
    }
    ensure!(removed == 3, "{removed} places speak of it, not an export, an import and a permission");
    Ok(())
}

#[tokio::test]
async fn an_older_state_directory_lets_old_logins_say_what_they_keep() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let layout = Layout::new(dir.path().join("state"));
    let wanted = Init {
        state_dir: layout.root().to_owned(),
        machines: vec![MachineId::new("demo-1")?],
        operators: vec![OperatorId::new("local")?],
    };
    let now_ms = u64::try_from(std::time::UNIX_EPOCH.elapsed()?.as_millis())?;
    init(&wanted, now_ms)?;
    with_old_accounts(&layout)?;
    let mut broker = Broker::start_with_config(&layout.nats_conf()).await?;
    let bridge = Login::from_creds_file(&layout.creds("bridge"))?;
    let link = Link::connect(Options::bridge(&broker.url(), bridge)).await?;
    for definition in stream::all() {
        link.ensure_stream(&definition).await?;
    }
    // The login as it was, which no later `init` renews.
    let creds = dir.path().join("old.creds");
    std::fs::copy(layout.machines_dir().join("demo-1").join("relay.creds"), &creds)?;
    let says = async |broker: &Broker| {
        let relay = connect(&broker.url(), &creds, Some("_INBOX_demo-1")).await?;
        relay.publish("inv.main.demo-1", "a list".into()).await?;
        // Whoever is answered knows that what went before was worked through.
        let _ = ask(&relay, OWN_MAILBOX, "").await;
        anyhow::Ok(link.stream_state(stream::INV).await?.messages)
    };
    assert_eq!(says(&broker).await?, 0, "the tokens are not those of before");
    init(&wanted, now_ms)?;
    // As a bridge does that finds such a broker running: it goes by the tokens that it has read at its start.
    broker.restart().await?;
    eventually("the relay may say what it keeps", || async {
        ensure!(says(&broker).await? == 1, "nothing is stored");
        Ok(())
    })
    .await
}
