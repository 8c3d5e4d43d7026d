//! Enrolment over HTTP, against the program itself with its broker and accounts: who gets a login, and who does not.

use std::{fs, process::Command, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use async_nats::{Client, ConnectOptions};
use futures_util::future::join_all;
use nkeys::KeyPair;
use serde_json::{Value, json};
use signalbox_bridge::{broker_link::BrokerLink, core::now_ms, identity::Identity};
use signalbox_link::{Link, Login, Options};
use signalbox_schemas::{
    enrol::Enrolment,
    id::{BridgeId, CommandId, MachineId, Workspace},
    label::GivenLabels,
    layout::Layout,
    limit::{DAY_MS, REQUEST_SKEW_MS},
    mailbox::Mailbox,
    record::{AssignmentRecord, MachineRecord, table},
    signed::{PublicKey, Signed, SigningKey},
};
use signalbox_testkit::{
    broker::nats_server,
    eventually,
    http::{Answer, Http},
    old_relay::OldRelay,
    process::{Daemon, Signal, signal},
};

/// Longest start of a debug build on a busy machine.
const READY: Duration = Duration::from_secs(30);
/// Long enough for any answer on the loopback interface.
const UNANSWERED: Duration = Duration::from_millis(500);

/// A bridge with its broker, and what a test needs to write records as it would.
struct Fleet {
    layout: Layout,
    http: Http,
    nats: String,
    records: BrokerLink,
    _bridge: Daemon,
    _dir: tempfile::TempDir,
}

impl Drop for Fleet {
    fn drop(&mut self) {
        let pid = fs::read_to_string(self.layout.pid("broker")).ok().and_then(|pid| pid.trim().parse().ok());
        if let Some(pid) = pid {
            // It is gone already where the bridge has ended by itself.
            let _ = signal(pid, Signal::KILL);
        }
    }
}

fn program(command: &str) -> Result<Command> {
    let mut bridge = Command::new(env!("CARGO_BIN_EXE_signalbox-bridge"));
    bridge.arg(command).env_remove("RUST_LOG").env_remove("SIGNALBOX_NATS");
    bridge.env("SIGNALBOX_NATS_SERVER", nats_server()?);
    Ok(bridge)
}

impl Fleet {
    /// A fleet with the machine `demo-1`, that was set up beside the bridge.
    async fn start(arguments: &[&str], spoil: impl Fn(&Layout) -> Result<()>) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let layout = Layout::new(dir.path().join("state"));
        let made =
            program("init")?.args(["--machines", "demo-1", "--state-dir"]).arg(layout.root()).output()?;
        ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        spoil(&layout)?;
        let mut command = program("serve")?;
        command.args(["--embedded-broker", "--state-dir"]).arg(layout.root()).args(arguments);
        let bridge = Daemon::spawn(&mut command)?;
        let ready: Value = serde_json::from_str(&bridge.first_line(READY).await?)?;
        let text = |member: &str| ready.get(member).and_then(Value::as_str).context("no such member");
        let (http, nats) =
            (Http::new(text("http")?, fs::read_to_string(layout.admin_token())?.trim()), text("nats")?);
        let identity = Identity::load(layout.root())?;
        let link =
            Link::connect(Options::bridge(nats, Login::from_creds_file(&layout.creds("bridge"))?)).await?;
        let records = BrokerLink::new(link, Workspace::main(), BridgeId::new("test")?, identity.bridge_key);
        Ok(Self { http, nats: nats.to_owned(), records, layout, _bridge: bridge, _dir: dir })
    }

    async fn plain() -> Result<Self> {
        Self::start(&[], |_| Ok(())).await
    }

    /// Makes a machine known that has no keys.
    async fn machine(&self, id: &str) -> Result<()> {
        let id = MachineId::new(id)?;
        let record = MachineRecord {
            ws: Workspace::main(),
            token: id.token(),
            id,
            keys: None,
            enrolled_at: now_ms(),
            enrolled_by: None,
            former_keys: Vec::new(),
            allow_legacy: false,
            labels: GivenLabels::default(),
            revision: 0,
        };
        self.records.put_record(table::MACHINES, record.token.as_str(), &record).await?;
        eventually("the machine", || async {
            let known = self.http.json("/api/v1/machines").await?;
            ensure!(known.to_string().contains(&format!("\"{}\"", record.id)), "{known}");
            Ok(())
        })
        .await
    }

    /// Makes an assignment; its id and its key.
    async fn assign(&self, machine: &str) -> Result<(String, String)> {
        let made =
            self.http.post("/api/v1/assignments", &json!({"machine_id": machine, "name": "test"})).await?;
        let made = made.json()?;
        let text = |member: &str| made.get(member).and_then(Value::as_str).map(str::to_owned);
        text("id").zip(text("api_key")).with_context(|| made.to_string())
    }

    /// Changes an assignment.
    async fn edit(&self, id: &str, edit: impl Fn(&mut AssignmentRecord)) -> Result<()> {
        let is_bridge = |key: &PublicKey, _| key == self.records.public();
        let edited = self.records.edit_record(table::ASSIGNMENTS, id, is_bridge, |stands| {
            let mut record: AssignmentRecord = stands?;
            edit(&mut record);
            Some(record)
        });
        edited.await?.0.context("there is no such assignment")?;
        Ok(())
    }

    async fn post(&self, key: &str, body: Vec<u8>) -> Result<Answer> {
        let headers: &[(&str, &str)] = if key.is_empty() { &[] } else { &[("x-api-key", key)] };
        self.http.with_token("").request("POST", "/enroll", headers, body).await
    }

    async fn enrol(&self, key: &str, relay: &Relay) -> Result<Answer> {
        self.post(key, relay.envelope(now_ms())?).await
    }

    /// Whose keys a machine has.
    async fn signing_key(&self, machine: &str) -> Result<Option<PublicKey>> {
        let is_bridge = |key: &PublicKey, _| key == self.records.public();
        let (record, _) =
            self.records.edit_record::<MachineRecord>(table::MACHINES, machine, is_bridge, |_| None).await?;
        Ok(record.and_then(|record| record.signing_key().cloned()))
    }
}

/// A relay's own keys.
struct Relay {
    login: Arc<KeyPair>,
    signing: SigningKey,
}

impl Relay {
    fn new() -> Result<Self> {
        let signing = SigningKey::from_seed(&KeyPair::new_user().seed()?)?;
        Ok(Self { login: Arc::new(KeyPair::new_user()), signing })
    }

    fn enrolment(&self, requested_at: u64) -> Result<Enrolment> {
        Ok(Enrolment {
            ws: None,
            login_key: self.login.public_key().parse()?,
            signing_key: self.signing.public().clone(),
            hostname: "host".to_owned(),
            version: "0.0.1".to_owned(),
            requested_at,
            allow_legacy: false,
        })
    }

    fn envelope(&self, requested_at: u64) -> Result<Vec<u8>> {
        Ok(Signed::sign(&self.enrolment(requested_at)?, &self.signing)?.to_json())
    }

    async fn log_in(&self, url: &str, jwt: &str, token: &str) -> Result<Client> {
        let key = Arc::clone(&self.login);
        let options = ConnectOptions::with_jwt(jwt.to_owned(), move |nonce| {
            let key = Arc::clone(&key);
            async move { key.sign(&nonce).map_err(async_nats::AuthError::new) }
        });
        let options = options.custom_inbox_prefix(format!("_INBOX_{token}"));
        Ok(options.request_timeout(Some(UNANSWERED)).connect(url).await?)
    }
}

fn text<'a>(value: &'a Value, member: &str) -> &'a str {
    value.get(member).and_then(Value::as_str).unwrap_or_default()
}

/// Status and `error` of a refusal.
fn refused(answer: &Answer) -> Result<(u16, String)> {
    ensure!(answer.header("content-type") == Some("application/json"), "{answer:?}");
    let body = answer.json()?;
    ensure!(body.as_object().is_some_and(|body| body.len() == 1), "{body}");
    Ok((answer.status, text(&body, "error").to_owned()))
}

#[tokio::test]
async fn a_relay_gets_a_login_for_its_machine_and_no_other() -> Result<()> {
    let fleet = Fleet::plain().await?;
    fleet.machine("Web 1").await?;
    let (assignment, key) = fleet.assign("Web 1").await?;
    let relay = Relay::new()?;
    let answer = fleet.enrol(&key, &relay).await?;
    let enrolled = answer.json()?;
    ensure!(answer.status == 200, "{enrolled}");
    let token = MachineId::new("Web 1")?.token();
    let fleet_key = fs::read_to_string(fleet.layout.fleet_pub())?;
    for (member, expected) in [
        ("ws", "main"),
        ("machine_id", "Web 1"),
        ("token", token.as_str()),
        ("assignment_id", &assignment),
        ("name", "test"),
        ("fleet_key", fleet_key.trim()),
    ] {
        assert_eq!(text(&enrolled, member), expected, "{enrolled}");
    }
    assert_eq!(enrolled.get("nats"), Some(&json!([fleet.nats])));
    let login = Login::new(text(&enrolled, "jwt"), &relay.login.seed()?)?;
    let claims = login.claims();
    let lives_ms = claims.expires_at_ms.context("it never ends")? - claims.issued_at_ms;
    assert_eq!((lives_ms, claims.name.as_str()), (30 * DAY_MS, token.as_str()));

    let client = relay.log_in(&fleet.nats, text(&enrolled, "jwt"), token.as_str()).await?;
    let claim = |mid: &str| format!("run.main.{mid}.{}.claim", CommandId::from_idempotency_key("test", "1"));
    let stored = client.request(claim(token.as_str()), "mine".into()).await?;
    assert!(String::from_utf8_lossy(&stored.payload).contains("\"seq\""), "{stored:?}");
    assert!(client.request(claim("demo-1"), "forged".into()).await.is_err());
    assert!(client.request("$JS.API.DIRECT.GET.MBOX.mbox.main.demo-1", "".into()).await.is_err());
    Ok(())
}

#[tokio::test]
async fn the_same_again_changes_nothing_and_a_lost_store_gets_other_keys() -> Result<()> {
    let fleet = Fleet::plain().await?;
    fleet.machine("web-1").await?;
    let (_, key) = fleet.assign("web-1").await?;
    let (first, second) = (Relay::new()?, Relay::new()?);
    let (envelope, editions) = (first.envelope(now_ms())?, || async {
        let state = fleet.records.link().stream_state("KV_state").await?;
        Ok::<_, anyhow::Error>(state.last)
    });
    assert_eq!(fleet.post(&key, envelope.clone()).await?.status, 200);
    let before = editions().await?;
    assert_eq!(fleet.post(&key, envelope.clone()).await?.status, 200);
    assert_eq!(fleet.enrol(&key, &first).await?.status, 200);
    assert_eq!(editions().await?, before, "something was written");

    assert_eq!(fleet.enrol(&key, &second).await?.status, 200);
    assert_eq!(fleet.signing_key("web-1").await?.as_ref(), Some(second.signing.public()));
    // What was signed before is good for nothing now, however fresh it is.
    for body in [envelope, first.envelope(now_ms())?] {
        let (status, error) = refused(&fleet.post(&key, body).await?)?;
        assert!(status == 409 && error.contains("were replaced"), "{status} {error}");
    }
    assert_eq!(fleet.signing_key("web-1").await?.as_ref(), Some(second.signing.public()));
    Ok(())
}

#[tokio::test]
async fn with_its_assignment_the_keys_of_a_machine_go() -> Result<()> {
    let fleet = Fleet::plain().await?;
    fleet.machine("web-1").await?;
    let (id, key) = fleet.assign("web-1").await?;
    let relay = Relay::new()?;
    assert_eq!(fleet.enrol(&key, &relay).await?.status, 200);
    let offers = |count: usize| {
        let fleet = &fleet;
        eventually("the mailbox", move || async move {
            let message = fleet.records.link().last_from_leader("MBOX", "mbox.main.web-1").await?;
            let message = message.context("there is none")?;
            let mailbox = Signed::<Mailbox>::from_json(&message.payload)?.peek()?;
            ensure!(mailbox.offers.len() == count, "{} offers", mailbox.offers.len());
            Ok(())
        })
    };
    fleet.http.submit("web-1", "true").await?;
    offers(1).await?;
    // Disabled, its relay is offered nothing; enabled, it is again.
    fleet.edit(&id, |record| record.enabled = false).await?;
    offers(0).await?;
    fleet.edit(&id, |record| record.enabled = true).await?;
    offers(1).await?;
    // Removed, the machine is free: for a relay of the older system, and for another key.
    let removed = fleet.http.request("DELETE", &format!("/api/v1/assignments/{id}"), &[], Vec::new()).await?;
    assert_eq!(removed.status, 200);
    offers(0).await?;
    assert_eq!(fleet.signing_key("web-1").await?, None);
    let (_, other) = fleet.assign("web-1").await?;
    let mut old = OldRelay::new(fleet.http.base(), &other);
    assert_eq!(old.commands().await?.len(), 1);
    // With that key its relay may come back.
    assert_eq!(fleet.enrol(&other, &relay).await?.status, 200);
    offers(1).await?;
    Ok(())
}

#[tokio::test]
async fn keys_of_others_are_not_replaced() -> Result<()> {
    let fleet = Fleet::plain().await?;
    fleet.machine("web-1").await?;
    let before = fleet.signing_key("demo-1").await?.context("no keys")?;
    let (_, demo) = fleet.assign("demo-1").await?;
    let (status, error) = refused(&fleet.enrol(&demo, &Relay::new()?).await?)?;
    assert!(status == 409 && error.contains("made beside the bridge"), "{status} {error}");
    assert_eq!(fleet.signing_key("demo-1").await?, Some(before));

    let ((first_id, first), (_, second)) = (fleet.assign("web-1").await?, fleet.assign("web-1").await?);
    let relay = Relay::new()?;
    assert_eq!(fleet.enrol(&first, &relay).await?.status, 200);
    for other in [&relay, &Relay::new()?] {
        assert_eq!(refused(&fleet.enrol(&second, other).await?)?.0, 409);
    }
    assert_eq!(fleet.signing_key("web-1").await?.as_ref(), Some(relay.signing.public()));
    // Whoever removes the assignment gives the machine to the next one.
    fleet.edit(&first_id, |record| record.removed_at = Some(now_ms())).await?;
    let next = Relay::new()?;
    assert_eq!(fleet.enrol(&second, &next).await?.status, 200);
    assert_eq!(fleet.signing_key("web-1").await?.as_ref(), Some(next.signing.public()));
    Ok(())
}

#[tokio::test]
async fn of_two_at_once_one_machine_has_the_keys() -> Result<()> {
    let fleet = Fleet::plain().await?;
    for machine in ["web-1", "web-2", "web-3"] {
        fleet.machine(machine).await?;
        // Two assignments: the first one has it.
        let ((_, a), (_, b)) = (fleet.assign(machine).await?, fleet.assign(machine).await?);
        let (relay_a, relay_b) = (Relay::new()?, Relay::new()?);
        let (first, second) = tokio::try_join!(fleet.enrol(&a, &relay_a), fleet.enrol(&b, &relay_b))?;
        let mut statuses = [first.status, second.status];
        let winner = if first.status == 200 { &relay_a } else { &relay_b };
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 409], "{machine}");
        assert_eq!(fleet.signing_key(machine).await?.as_ref(), Some(winner.signing.public()));
    }
    // One assignment: both are told yes, one after the other, and the later one stands.
    fleet.machine("web-4").await?;
    let (_, key) = fleet.assign("web-4").await?;
    let relays = [Relay::new()?, Relay::new()?, Relay::new()?];
    let answers = join_all(relays.iter().map(|relay| fleet.enrol(&key, relay))).await;
    for answer in answers {
        assert_eq!(answer?.status, 200);
    }
    let stands = fleet.signing_key("web-4").await?.context("no keys")?;
    let holder = relays.iter().find(|relay| *relay.signing.public() == stands).context("nobody's")?;
    for relay in &relays {
        let expected = if relay.signing.public() == holder.signing.public() { 200 } else { 409 };
        assert_eq!(fleet.enrol(&key, relay).await?.status, expected);
    }
    Ok(())
}

#[tokio::test]
async fn a_key_that_does_not_count_gets_nothing() -> Result<()> {
    let fleet = Fleet::plain().await?;
    fleet.machine("web-1").await?;
    let (id, key) = fleet.assign("web-1").await?;
    let relay = Relay::new()?;
    let error = |status: u16, error: &str| (status, error.to_owned());
    assert_eq!(refused(&fleet.enrol("", &relay).await?)?, error(401, "API key is required"));
    for wrong in ["sk_wrong", &format!("{key}x"), &key.to_uppercase()] {
        assert_eq!(refused(&fleet.enrol(wrong, &relay).await?)?, error(401, "Invalid API key"));
    }
    let twice = [("x-api-key", key.as_str()), ("x-api-key", key.as_str())];
    let twice = fleet.http.request("POST", "/enroll", &twice, relay.envelope(now_ms())?).await?;
    assert_eq!(refused(&twice)?.0, 401);

    // Another bridge changed these: the next answer knows it.
    fleet.edit(&id, |record| record.enabled = false).await?;
    assert_eq!(refused(&fleet.enrol(&key, &relay).await?)?, error(403, "Relay assignment is disabled"));
    fleet.edit(&id, |record| record.removed_at = Some(now_ms())).await?;
    let removed = error(403, "No relay assignment found for this API key");
    assert_eq!(refused(&fleet.enrol(&key, &relay).await?)?, removed);
    assert_eq!(fleet.signing_key("web-1").await?, None);
    Ok(())
}

#[tokio::test]
async fn what_is_not_signed_as_it_should_be_is_refused() -> Result<()> {
    let fleet = Fleet::plain().await?;
    fleet.machine("web-1").await?;
    let (_, key) = fleet.assign("web-1").await?;
    let (relay, other) = (Relay::new()?, Relay::new()?);
    let now = now_ms();
    let by_other = Signed::sign(&relay.enrolment(now)?, &other.signing)?.to_json();
    let mut mixed: Value = serde_json::from_slice(&relay.envelope(now)?)?;
    let others: Value = serde_json::from_slice(&other.envelope(now)?)?;
    mixed
        .as_object_mut()
        .zip(others.get("payload"))
        .context("no payload")?
        .0
        .insert("payload".into(), others["payload"].clone());
    let one_key = Enrolment { login_key: relay.signing.public().clone(), ..relay.enrolment(now)? };
    let elsewhere = Enrolment { ws: Some(Workspace::new("other")?), ..relay.enrolment(now)? };
    for (body, part) in [
        (relay.envelope(now - REQUEST_SKEW_MS - 5_000)?, "set the clock right"),
        (relay.envelope(now + REQUEST_SKEW_MS + 60_000)?, "set the clock right"),
        (by_other, "not signed by the signing key"),
        (serde_json::to_vec(&mixed)?, "wrong signature"),
        (Signed::sign(&one_key, &relay.signing)?.to_json(), "the same"),
        (Signed::sign(&elsewhere, &relay.signing)?.to_json(), "another workspace"),
        (serde_json::to_vec(&relay.enrolment(now)?)?, "malformed envelope"),
        (b"{".to_vec(), "malformed envelope"),
        (Vec::new(), "malformed envelope"),
        (vec![b' '; 9_000], "at most 8192 bytes"),
    ] {
        let (status, error) = refused(&fleet.post(&key, body).await?)?;
        assert!(status == 400 && error.contains(part), "{status} {error}");
    }
    assert_eq!(fleet.signing_key("web-1").await?, None);
    Ok(())
}

#[tokio::test]
async fn a_bridge_without_the_seed_knows_nothing_of_it() -> Result<()> {
    let without = |layout: &Layout| Ok(fs::remove_file(layout.seed("relay-signing"))?);
    let fleet = Fleet::start(&[], without).await?;
    let answer = fleet.enrol("sk_any", &Relay::new()?).await?;
    assert_eq!((answer.status, answer.header("content-type")), (404, Some("application/problem+json")));
    Ok(())
}

#[tokio::test]
async fn relays_are_told_of_the_brokers_that_were_named() -> Result<()> {
    let named = ["--relay-nats", "tls://a.example:4222", "--relay-nats", "tls://b.example:4222"];
    let fleet = Fleet::start(&named, |_| Ok(())).await?;
    fleet.machine("web-1").await?;
    let (_, key) = fleet.assign("web-1").await?;
    let enrolled = fleet.enrol(&key, &Relay::new()?).await?.json()?;
    assert_eq!(enrolled.get("nats"), Some(&json!(["tls://a.example:4222", "tls://b.example:4222"])));
    assert_eq!(fleet.http.get("/enroll").await?.status, 405);
    Ok(())
}
