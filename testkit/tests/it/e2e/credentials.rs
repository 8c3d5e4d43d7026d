//! Credentials from the console to a relay that a test plays: sealed there, carried by everybody between, opened by nobody else.

use std::{collections::BTreeMap, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};
use async_nats::jetstream;
use rstest::rstest;
use serde_json::{Value, json};
use signalbox_schemas::{
    command::{Change, CommandSpec, Grant},
    credential::{CredentialLabel, CredentialMeta, CredentialType, CredentialValue, StorageMode},
    id::{CommandId, MachineId, MachineToken, Nonce, Workspace},
    inventory::Inventory,
    label::{GivenLabels, LabelMap},
    mailbox::Mailbox,
    record::{MachineRecord, RelayKeys},
    run::{Claim, Exit, ExitState, RunError, StreamSummary},
    sealed::{ContentKey, Context, OpeningKey, Recipient},
    signed::{Message, Signed, SigningKey},
};
use signalbox_testkit::{
    eventually::eventually,
    process::{Daemon, kill},
    pty::Pty,
    stack::{Options, Stack},
};

use super::{
    main_job::{cli, events},
    wire::{administrator, now_ms, signing_key},
};

const BOUND: Duration = Duration::from_secs(30);
const NONCE: Nonce = Nonce([5; 16]);

/// The relay of a machine, played by the test.
struct Played {
    mid: MachineToken,
    key: SigningKey,
    context: jetstream::Context,
    _tasks: tokio::task::JoinSet<()>,
}

/// So many machines whose relays are gone, and those that the test plays in their place.
async fn played(count: u32) -> Result<(Stack, Vec<Played>)> {
    let stack = Stack::start(Options::relays(count).no_restart()).await?;
    let mut relays = Vec::new();
    for machine in &stack.ready().machines {
        kill(machine.pid).await?;
        kill(machine.keeper_pid).await?;
        let (client, tasks) = administrator(&stack).await?;
        let dir = stack.ready().state_dir.join("machines").join(&machine.token);
        relays.push(Played {
            mid: MachineToken::new(machine.token.as_str())?,
            key: signing_key(&dir.join("signing.seed"))?,
            context: jetstream::new(client),
            _tasks: tasks,
        });
    }
    Ok((stack, relays))
}

impl Played {
    fn list(&self, credentials: Vec<CredentialMeta>) -> Result<Inventory> {
        Ok(Inventory {
            ws: Workspace::main(),
            mid: self.mid.clone(),
            // Later than anything that its real relay may have said.
            revision: now_ms() + 60_000,
            sealing_key: OpeningKey::of_machine(&self.key)?.public().clone(),
            credentials,
            left_out: 0,
            problem: None,
            labels: LabelMap::new(),
            facts: None,
            crit: vec!["sealing_key".to_owned()],
        })
    }

    async fn publish(&self, subject: String, body: Vec<u8>) -> Result<()> {
        self.context.publish(subject, body.into()).await?.await?;
        Ok(())
    }

    /// Says what it keeps, and waits until the bridge shows it.
    async fn say(&self, stack: &Stack, credentials: Vec<CredentialMeta>) -> Result<()> {
        let list = Signed::sign(&self.list(credentials)?, &self.key)?;
        self.publish(format!("inv.main.{}", self.mid), list.to_json()).await?;
        shown(stack, &self.mid, |view| {
            let said: Signed<Inventory> = serde_json::from_value(view["inventory"].clone())?;
            ensure!(said == list, "an older one is shown");
            Ok(())
        })
        .await
    }

    /// The change that is on offer, with the grant for this machine.
    async fn offer(&self) -> Result<(CommandSpec, Grant)> {
        let stream = self.context.get_stream("MBOX").await?;
        eventually("a change is on offer", || async {
            let found = stream.get_last_raw_message_by_subject(&format!("mbox.main.{}", self.mid)).await?;
            let mailbox = Signed::<Mailbox>::from_json(&found.payload)?.peek()?;
            let offer = mailbox.offers.first().context("nothing is on offer")?;
            Ok((CommandSpec::from_bytes(&offer.spec.0)?, offer.grant.peek()?))
        })
        .await
    }

    /// What was sealed for it.
    fn opened(&self, spec: &CommandSpec, grant: &Grant) -> Result<(CredentialLabel, CredentialValue)> {
        let Some(Change::PutCredential(put)) = &spec.change else { anyhow::bail!("no credential") };
        let context = Context { ws: &spec.ws, name: put.label.name.as_str(), cid: spec.cid };
        let wrapped = grant.sealed.as_ref().context("no key")?;
        let with = OpeningKey::of_machine(&self.key)?;
        let key = ContentKey::unwrap(wrapped, &with, context, Recipient::Machine(&self.mid))?;
        Ok((put.label.clone(), CredentialValue::from_json(&key.open(&put.body, context)?)?))
    }

    async fn fact<T: Message>(&self, cid: CommandId, kind: &str, fact: &T) -> Result<()> {
        let body = Signed::sign(fact, &self.key)?.to_json();
        self.publish(format!("run.main.{}.{cid}.{kind}", self.mid), body).await
    }

    /// Takes it, and says how it ended.
    async fn acknowledge(&self, cid: CommandId, error: Option<RunError>) -> Result<()> {
        let (ws, mid) = (Workspace::main(), self.mid.clone());
        let claim = Claim { ws, mid, cid, nonce: NONCE, claimed_at: now_ms(), via: None };
        self.fact(cid, "claim", &claim).await?;
        let state = if error.is_some() { ExitState::Failed } else { ExitState::Completed };
        let exit = Exit {
            ws: Workspace::main(),
            mid: self.mid.clone(),
            cid,
            nonce: NONCE,
            state,
            exit_code: error.is_none().then_some(0),
            signal: None,
            error,
            started_at: now_ms(),
            duration_ms: 3,
            group_dead: true,
            stdout: StreamSummary::empty(),
            stderr: StreamSummary::empty(),
            chunks: 0,
            inline: None,
            via: None,
        };
        self.fact(cid, "exit", &exit).await
    }
}

/// Writes a machine's record, as a bridge would.
async fn enrol(stack: &Stack, by: &Played, record: &MachineRecord) -> Result<()> {
    let bridge = signing_key(&stack.ready().state_dir.join("keys").join("bridge.seed"))?;
    let subject = format!("$KV.state.main.machines.{}", record.token);
    by.publish(subject, Signed::sign(record, &bridge)?.to_json()).await
}

/// A machine whose relay has never been there.
async fn silent(stack: &Stack, by: &Played, name: &str) -> Result<()> {
    let (id, key) = (MachineId::new(name)?, SigningKey::from_seed(&nkeys::KeyPair::new_user().seed()?)?);
    let keys = RelayKeys { login_key: key.public().clone(), signing_key: key.public().clone() };
    let record = MachineRecord {
        ws: Workspace::main(),
        token: id.token(),
        id,
        keys: Some(keys),
        enrolled_at: 1,
        enrolled_by: None,
        former_keys: Vec::new(),
        allow_legacy: false,
        labels: GivenLabels::default(),
        revision: 0,
    };
    enrol(stack, by, &record).await?;
    shown(stack, &record.token, |_| Ok(())).await
}

/// Waits until a bridge shows a machine as wanted.
async fn shown(stack: &Stack, mid: &MachineToken, is_so: impl Fn(&Value) -> Result<()>) -> Result<()> {
    eventually("what a relay keeps is shown", || async {
        let listed = stack.http().json(&format!("/api/v1/inventory?on={mid}")).await?;
        is_so(listed["items"].get(0).context("no such machine")?)
    })
    .await
}

/// Starts the console with a file for what is secret.
fn push(stack: &Stack, dir: &std::path::Path, more: &[&str]) -> Result<Command> {
    let secret = dir.join("secret");
    std::fs::write(&secret, "hunter2\n")?;
    let secret = secret.to_str().context("no text")?;
    let args = ["credential", "push", "db", "--type", "password", "--value-file", secret];
    stack.cli(&[&args[..], more].concat())
}

async fn ended(console: &Daemon) -> Result<(Option<i32>, String, String)> {
    let status = console.wait(BOUND).await?;
    Ok((status.code(), console.stdout()?, console.stderr()?))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pushed_credential_is_opened_by_its_relays_and_seen_by_nobody() -> Result<()> {
    let (stack, relays) = played(2).await?;
    let dir = tempfile::tempdir()?;
    for relay in &relays {
        relay.say(&stack, vec![]).await?;
    }
    let more = ["--user", "ops", "--target", "*.lan", "--mode", "shared", "--to", "demo-*"];
    let console = Daemon::spawn(&mut push(&stack, dir.path(), &more)?)?;
    let mut ids = Vec::new();
    for (relay, error) in relays.iter().zip([None, Some("the vault cannot be written: no space is left")]) {
        let (spec, grant) = relay.offer().await?;
        let (label, value) = relay.opened(&spec, &grant)?;
        assert_eq!(value, CredentialValue::Password { password: "hunter2".to_owned().into() });
        assert_eq!((label.name.as_str(), label.username.as_deref()), ("db", Some("ops")));
        assert_eq!(label.storage_mode, StorageMode::Shared);
        assert_eq!(label.target.map(|target| target.to_string()).as_deref(), Some("*.lan"));
        assert_eq!(spec.command, "put credential db");
        let error = error.map(|why| RunError { code: "vault".to_owned(), message: why.to_owned() });
        relay.acknowledge(spec.cid, error).await?;
        ids.push(spec.cid);
    }
    let (code, stdout, stderr) = ended(&console).await?;
    assert_eq!(code, Some(1), "{stderr}");
    let mut lines: Vec<&str> = stdout.lines().collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        ["demo-1: completed", "demo-2: failed, the vault cannot be written: no space is left",]
    );
    for relay in &relays {
        let line = format!("trusted on first use: {} {}", relay.mid, relay.key.public());
        assert!(stderr.contains(&line), "{stderr}");
    }
    assert!(stderr.contains("2 machines: 1 completed, 1 failed"), "{stderr}");
    // One command, and no part of the system has what was sealed.
    assert_eq!(ids.first(), ids.last());
    let command = stack.http().json(&format!("/api/v1/commands/{}", ids[0])).await?;
    assert!(!command.to_string().contains("sealed") && !command.to_string().contains("body"), "{command}");
    let found = Command::new("grep").args(["-rl", "hunter2"]).arg(&stack.ready().state_dir).output()?;
    assert_eq!(String::from_utf8_lossy(&found.stdout), "", "it lies about");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bridge_that_names_another_key_is_refused_until_that_is_accepted() -> Result<()> {
    let (stack, relays) = played(1).await?;
    let dir = tempfile::tempdir()?;
    let relay = &relays[0];
    relay.say(&stack, vec![]).await?;
    let console = Daemon::spawn(&mut push(&stack, dir.path(), &["--to", "demo-1", "--no-wait"])?)?;
    let (code, _, stderr) = ended(&console).await?;
    assert_eq!(code, Some(0), "{stderr}");
    // Somebody with the keys of the bridge gives the machine a key that is his own.
    let theirs = SigningKey::from_seed(&nkeys::KeyPair::new_user().seed()?)?;
    let stands = relay.context.get_stream("KV_state").await?;
    let stands = stands.get_last_raw_message_by_subject("$KV.state.main.machines.demo-1").await?;
    let record = Signed::<MachineRecord>::from_json(&stands.payload)?.peek()?;
    let login_key = record.keys.as_ref().context("no keys")?.login_key.clone();
    let keys = RelayKeys { login_key, signing_key: theirs.public().clone() };
    let mut record = record.with_keys(Some(keys));
    record.revision += 1;
    enrol(&stack, relay, &record).await?;
    let list =
        Inventory { sealing_key: OpeningKey::of_machine(&theirs)?.public().clone(), ..relay.list(vec![])? };
    relay.publish("inv.main.demo-1".to_owned(), Signed::sign(&list, &theirs)?.to_json()).await?;
    shown(&stack, &relay.mid, |view| {
        ensure!(view["signing_key"] == theirs.public().as_str() && view.get("inventory").is_some());
        Ok(())
    })
    .await?;
    let before = stack.http().json("/api/v1/commands").await?;
    let console = Daemon::spawn(&mut push(&stack, dir.path(), &["--to", "all"])?)?;
    let (code, stdout, stderr) = ended(&console).await?;
    assert_eq!((code, stdout.as_str()), (Some(3), ""), "{stderr}");
    for said in [relay.key.public().as_str(), theirs.public().as_str(), "--accept-key demo-1="] {
        assert!(stderr.contains(said), "{stderr}");
    }
    // A list says the same, and is not to be believed either.
    let (code, _, stderr) = cli(&stack, &["credential", "list"]).await?;
    assert_eq!(code, Some(1), "{stderr}");
    assert_eq!(stack.http().json("/api/v1/commands").await?, before, "something was submitted");
    // Whoever knows that it is right says so, once.
    let [theirs_named, own_named] = [theirs.public(), relay.key.public()].map(|key| format!("demo-1={key}"));
    let more = ["--to", "demo-1", "--no-wait", "--accept-key", &own_named];
    let console = Daemon::spawn(&mut push(&stack, dir.path(), &more)?)?;
    let (code, _, stderr) = ended(&console).await?;
    assert_eq!(code, Some(3), "another one than the operator names is taken: {stderr}");
    for accept in [&["--accept-key", &theirs_named][..], &[]] {
        let more = [&["--to", "demo-1", "--no-wait"], accept].concat();
        let console = Daemon::spawn(&mut push(&stack, dir.path(), &more)?)?;
        let (code, _, stderr) = ended(&console).await?;
        assert_eq!(code, Some(0), "{stderr}");
        assert_eq!(
            stderr.contains(&format!("accepted with its new key: demo-1 {}", theirs.public())),
            !accept.is_empty(),
            "{stderr}"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn machines_that_nothing_can_be_sealed_for_are_named_and_left_out_on_demand() -> Result<()> {
    let (stack, relays) = played(1).await?;
    let dir = tempfile::tempdir()?;
    relays[0].say(&stack, vec![]).await?;
    silent(&stack, &relays[0], "demo-2").await?;
    let old = json!({"machine_id": "old-1", "name": "old"});
    assert_eq!(stack.http().post("/api/v1/assignments", &old).await?.status, 201);
    let console = Daemon::spawn(&mut push(&stack, dir.path(), &["--to", "all"])?)?;
    let (code, _, stderr) = ended(&console).await?;
    assert_eq!(code, Some(3), "{stderr}");
    assert!(stderr.contains("old-1: its relay is of the older system"), "{stderr}");
    assert!(stderr.contains("demo-2: its relay has not said its sealing key"), "{stderr}");
    assert!(stderr.contains("--skip-unsealable"), "{stderr}");
    let more = ["--to", "all", "--skip-unsealable", "--json"];
    let mut command = push(&stack, dir.path(), &more)?;
    let console = Daemon::spawn(&mut command)?;
    let (spec, grant) = relays[0].offer().await?;
    relays[0].opened(&spec, &grant)?;
    relays[0].acknowledge(spec.cid, None).await?;
    let (code, stdout, stderr) = ended(&console).await?;
    assert_eq!(code, Some(0), "{stderr}");
    let events = events(&stdout)?;
    let key = relays[0].key.public();
    let trusted = json!({"event": "trusted", "machine": "demo-1", "key": key, "replaced": false});
    assert_eq!(events[0], trusted);
    assert_eq!(events[1]["targets"], json!(["demo-1"]));
    assert_eq!(events.last(), Some(&json!({"event": "done", "counts": {"completed": 1}, "exit": 0})));
    Ok(())
}

#[rstest]
#[case::remove(&["credential", "remove", "db", "--to", "demo-1"], json!({"remove_credential": {"name": "db"}}))]
#[case::know(
    &["host-keys", "add", "--to", "demo-1", "db-1 ssh-ed25519 AAAA", "# nothing", "db-2 ssh-ed25519 BBBB"],
    json!({"host_keys": {"add": ["db-1 ssh-ed25519 AAAA", "db-2 ssh-ed25519 BBBB"]}})
)]
#[case::forget(&["host-keys", "remove", "db-1", "[db-2]:2222", "--to", "demo-1"], json!({"host_keys": {"remove": ["db-1", "[db-2]:2222"]}}))]
#[tokio::test(flavor = "multi_thread")]
async fn other_changes_go_the_same_way(#[case] args: &[&str], #[case] change: Value) -> Result<()> {
    let (stack, relays) = played(1).await?;
    let console = Daemon::spawn(&mut stack.cli(args)?)?;
    let (spec, grant) = relays[0].offer().await?;
    assert_eq!((serde_json::to_value(&spec.change)?, grant.sealed), (change, None));
    relays[0].acknowledge(spec.cid, None).await?;
    let (code, stdout, stderr) = ended(&console).await?;
    assert_eq!((code, stdout.as_str()), (Some(0), "demo-1: completed\n"), "{stderr}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_asked_for_and_not_shown() -> Result<()> {
    let (stack, relays) = played(1).await?;
    relays[0].say(&stack, vec![]).await?;
    let command = stack.cli(&["credential", "push", "db", "--type", "password", "--to", "demo-1"])?;
    let mut terminal = Pty::spawn(&command, 100, 10)?;
    terminal.wait_for("the password:", BOUND).await?;
    terminal.type_keys("hunter2\r")?;
    let (spec, grant) = relays[0].offer().await?;
    let (_, value) = relays[0].opened(&spec, &grant)?;
    assert_eq!(value, CredentialValue::Password { password: "hunter2".to_owned().into() });
    relays[0].acknowledge(spec.cid, None).await?;
    terminal.wait_for("demo-1: completed", BOUND).await?;
    assert!(terminal.wait(BOUND).await?.success());
    assert!(!String::from_utf8_lossy(&terminal.bytes()).contains("hunter2"), "it was shown");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_relays_keep_is_listed_and_found_by_host() -> Result<()> {
    let (stack, relays) = played(1).await?;
    silent(&stack, &relays[0], "demo-2").await?;
    let meta = |name: &str, target: &str| CredentialMeta {
        credential_name: name.to_owned(),
        credential_type: CredentialType::SshKey,
        target_host: Some(target.to_owned()),
        storage_mode: StorageMode::RelayOnly,
        last_updated_at: 1_795_000_000_000,
        username: Some("ops".to_owned()),
        created_at: None,
    };
    relays[0].say(&stack, vec![meta("all", "*"), meta("db", "db-1:2222")]).await?;
    let listed = |args: Vec<&'static str>| {
        let stack = &stack;
        async move {
            let (code, stdout, stderr) = cli(stack, &args).await?;
            ensure!(code == Some(0), "{stderr}");
            let mut names: BTreeMap<String, Vec<String>> = BTreeMap::new();
            for line in events(&stdout)? {
                let text = |member: &str| line[member].as_str().unwrap_or_default().to_owned();
                names.entry(text("machine")).or_default().push(text("credential_name"));
            }
            anyhow::Ok((names, stderr))
        }
    };
    let demo = |names: &[&str]| {
        BTreeMap::from([("demo-1".to_owned(), names.iter().map(ToString::to_string).collect())])
    };
    let (names, stderr) = listed(vec!["credential", "list", "--json"]).await?;
    assert_eq!(names, demo(&["all", "db"]));
    assert!(stderr.contains("demo-2: its relay has not said what it keeps"), "{stderr}");
    let (names, _) = listed(vec!["credential", "list", "--reaches", "db-1:2222", "--json"]).await?;
    assert_eq!(names, demo(&["db", "all"]));
    let (names, _) =
        listed(vec!["credential", "list", "--reaches", "db-1", "--on", "demo-*", "--json"]).await?;
    assert_eq!(names, demo(&["all"]));
    let (code, table, _) = cli(&stack, &["credential", "list", "--on", "demo-1"]).await?;
    assert_eq!(code, Some(0));
    assert!(table.lines().any(|line| line.contains("db-1:2222") && line.contains("ssh_key")), "{table}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_names_hosts_to_go_through_and_a_credential() -> Result<()> {
    let (stack, relays) = played(1).await?;
    let args = [
        "run",
        "--via",
        "demo-1",
        "--ssh",
        "db-1",
        "--jump",
        "gate",
        "--jump",
        "ops@10.0.0.7:2222",
        "--credential",
        "db",
        "--no-wait",
        "--",
        "uptime",
    ];
    let (code, _, stderr) = cli(&stack, &args).await?;
    assert_eq!(code, Some(0), "{stderr}");
    let (spec, _) = relays[0].offer().await?;
    let target = serde_json::to_value(&spec.target)?;
    let jump = json!([{"host": "gate", "port": 22}, {"host": "10.0.0.7", "port": 2222, "username": "ops"}]);
    assert_eq!(target, json!({"ssh": {"host": "db-1", "port": 22, "credential": "db", "jump": jump}}));
    for wrong in [
        &["run", "--jump", "gate", "--on", "all", "--", "true"][..],
        &["run", "--on", "a", "--via", "a", "--", "true"],
    ] {
        assert_eq!(cli(&stack, wrong).await?.0, Some(2));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shared_credential_is_given_to_more_machines_with_the_recovery_key_alone() -> Result<()> {
    let (stack, relays) = played(2).await?;
    let dir = tempfile::tempdir()?;
    for relay in &relays {
        relay.say(&stack, vec![]).await?;
    }
    let key = dir.path().join("recovery.key");
    let key = key.to_str().context("no text")?;
    let (code, public, stderr) = cli(&stack, &["recovery-key", "create", "--out", key]).await?;
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(public.trim().len(), 43, "{public}");
    let (code, _, stderr) = cli(&stack, &["recovery-key", "create", "--out", key]).await?;
    assert_eq!(code, Some(3), "{stderr}");
    assert!(stderr.contains("--replace"), "{stderr}");

    let console = Daemon::spawn(&mut push(&stack, dir.path(), &["--mode", "shared", "--to", "demo-1"])?)?;
    let (spec, _) = relays[0].offer().await?;
    relays[0].acknowledge(spec.cid, None).await?;
    let (code, _, stderr) = ended(&console).await?;
    assert_eq!(code, Some(0), "{stderr}");

    let assign = ["credential", "assign", "db", "--recovery-key", key, "--to", "demo-2"];
    let console = Daemon::spawn(&mut stack.cli(&assign)?)?;
    let (spec, grant) = relays[1].offer().await?;
    let (label, value) = relays[1].opened(&spec, &grant)?;
    assert_eq!(value, CredentialValue::Password { password: "hunter2".to_owned().into() });
    assert_eq!((label.name.as_str(), label.storage_mode), ("db", StorageMode::Shared));
    relays[1].acknowledge(spec.cid, None).await?;
    let (code, stdout, stderr) = ended(&console).await?;
    assert_eq!((code, stdout.as_str()), (Some(0), "demo-2: completed\n"), "{stderr}");
    assert!(stderr.contains("db as operator:local has pushed it"), "{stderr}");
    let shared = || async {
        let listed = stack.http().json("/api/v1/shared-credentials").await?;
        anyhow::Ok(listed["items"][0]["machines"].clone())
    };
    assert_eq!(shared().await?, json!(["demo-1", "demo-2"]));

    let console = Daemon::spawn(&mut stack.cli(&["credential", "unassign", "db", "--to", "demo-1"])?)?;
    let (spec, _) = eventually("it is taken back", || async {
        let (spec, grant) = relays[0].offer().await?;
        ensure!(serde_json::to_value(&spec.change)? == json!({"remove_credential": {"name": "db"}}));
        Ok((spec, grant))
    })
    .await?;
    relays[0].acknowledge(spec.cid, None).await?;
    let (code, _, stderr) = ended(&console).await?;
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(shared().await?, json!(["demo-2"]));

    // Another key opens nothing, and nothing else is a key.
    let other = dir.path().join("other.key");
    let other = other.to_str().context("no text")?;
    assert_eq!(cli(&stack, &["recovery-key", "create", "--replace", "--out", other]).await?.0, Some(0));
    for (file, code) in [(other, 3), ("/etc/hostname", 2)] {
        let args = ["credential", "assign", "db", "--recovery-key", file, "--to", "demo-1"];
        let (ended, _, stderr) = cli(&stack, &args).await?;
        assert_eq!(ended, Some(code), "{stderr}");
    }
    assert_eq!(shared().await?, json!(["demo-2"]));
    let found = Command::new("grep").args(["-rl", "hunter2"]).arg(&stack.ready().state_dir).output()?;
    assert_eq!(String::from_utf8_lossy(&found.stdout), "", "it lies about");
    Ok(())
}
