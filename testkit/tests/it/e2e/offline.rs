//! What waits for a machine that is not there.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use signalbox_testkit::{
    eventually::{eventually, eventually_within},
    http::run_on,
    process::{Signal, kill, signal},
    stack::{Options, Stack},
};
use std::time::Duration;

use super::{
    facts::{Facts, REJECTED, WITHDRAWN, one_end},
    wire::now_ms,
};

/// One machine whose relay was killed.
pub(super) async fn without_relay() -> Result<Stack> {
    let stack = Stack::start(Options::relays(1).no_restart()).await?;
    kill(stack.machine(0)?.pid).await?;
    Ok(stack)
}

fn text(file: &Path) -> String {
    std::fs::read_to_string(file).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_returns_gets_what_waited_in_order() -> Result<()> {
    let stack = without_relay().await?;
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("order");
    let mut ids = Vec::new();
    for n in 0..20 {
        // The first ones of a batch run side by side; each waits for the mark of the one before.
        let before = if n == 0 {
            "true".to_owned()
        } else {
            format!("while ! grep -qx {} {}; do sleep 0.02; done", n - 1, file.display())
        };
        ids.push(stack.http().submit("demo-1", &format!("{before}; echo {n} >> {}", file.display())).await?);
    }
    let short =
        json!({"on": "demo-1", "command": format!("echo late >> {}", file.display()), "expires_in_ms": 300});
    let short = stack.http().submit_with(&short).await?;
    let command = stack.http().settled(&short).await?;
    assert_eq!(run_on(&command, "demo-1")?["state"], "expired");
    let _relay = stack.start_relay(0, None).await?;
    for id in ids {
        assert_eq!(stack.http().settled(&id).await?["counts"], json!({"completed": 1}));
    }
    let expected: Vec<String> = (0..20).map(|n| n.to_string()).collect();
    assert_eq!(text(&file).lines().collect::<Vec<_>>(), expected);
    one_end(&stack, stack.http(), &short, WITHDRAWN).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_takes_back_what_waits() -> Result<()> {
    let stack = without_relay().await?;
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("ran");
    let id = stack.http().submit("demo-1", &format!("echo x >> {}", file.display())).await?;
    let answer = stack.http().post(&format!("/api/v1/commands/{id}/cancel"), &json!({})).await?;
    assert_eq!(answer.json()?, json!({"cancelling": 1}));
    assert_eq!(run_on(&stack.http().settled(&id).await?, "demo-1")?["state"], "cancelled");
    let _relay = stack.start_relay(0, None).await?;
    stack.http().run("demo-1", "true").await?;
    assert_eq!(text(&file), "");
    one_end(&stack, stack.http(), &id, WITHDRAWN).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_machine_refuses_is_decided_by_one_word() -> Result<()> {
    let stack = without_relay().await?;
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("ran");
    let policy = stack.machine(0)?.creds.with_file_name("relay.toml");
    let loose = std::fs::read_to_string(&policy)?;
    let strict =
        loose.replace("require_operator_signature = [", "require_operator_signature = [\"command\", ");
    assert_ne!(strict, loose);
    std::fs::write(&policy, strict)?;
    let _relay = stack.start_relay(0, None).await?;
    let id = stack.http().submit("demo-1", &format!("echo x >> {}", file.display())).await?;
    let command = stack.http().settled(&id).await?;
    assert_eq!(run_on(&command, "demo-1")?["state"], "rejected", "{command}");
    assert_eq!(text(&file), "");
    one_end(&stack, stack.http(), &id, REJECTED).await
}

/// Waits for the end of a command that two wanted to decide; whether it was claimed. State, register and side effect
/// agree.
async fn was_claimed(stack: &Stack, id: &str, file: &Path) -> Result<bool> {
    let command = stack.http().settled(id).await?;
    let state = run_on(&command, "demo-1")?["state"].as_str().context("no state")?;
    let register = Facts::of(stack, id, "demo-1").await?.register()?;
    let ran = text(file).lines().count();
    match (register, state) {
        ("claim", "completed") => assert_eq!(ran, 1, "{id} completed and ran {ran} times"),
        // Ended before its shell had come so far, or after.
        ("claim", "cancelled") => assert!(ran <= 1, "{id} ran {ran} times"),
        ("withdrawal", "cancelled" | "expired") => assert_eq!(ran, 0, "{id} is {state} and ran"),
        decided => anyhow::bail!("{decided:?}: {command}"),
    }
    Ok(register == "claim")
}

/// The relay stands still until about the moment at which the bridge takes the offer back.
#[tokio::test(flavor = "multi_thread")]
async fn a_claim_against_a_cancel_has_one_winner() -> Result<()> {
    let stack = Stack::start(Options::relays(1)).await?;
    let dir = tempfile::tempdir()?;
    let relay = stack.machine(0)?.pid;
    let (mut claimed, mut delay_ms) = (0, 0);
    for n in 0..20 {
        let file = dir.path().join(n.to_string());
        signal(relay, Signal::STOP)?;
        let id = stack.http().submit("demo-1", &format!("echo x >> {}", file.display())).await?;
        let path = format!("/api/v1/commands/{id}/cancel");
        let body = json!({});
        let claim = async {
            tokio::time::sleep(Duration::from_millis(delay_ms)).await;
            signal(relay, Signal::CONT)
        };
        let (cancel, claim) = tokio::join!(stack.http().post(&path, &body), claim);
        claim?;
        assert_eq!(cancel?.status, 202);
        // A little later after it won, a little sooner after it lost: so the two stay close together.
        if was_claimed(&stack, &id, &file).await? {
            claimed += 1;
            delay_ms += 1;
        } else {
            delay_ms = delay_ms.saturating_sub(1);
        }
    }
    println!("{claimed} of 20 were claimed");
    assert!((1..20).contains(&claimed), "no race: {claimed} of 20 were claimed");
    Ok(())
}

/// The relay stands still until half of its offers have expired.
#[tokio::test(flavor = "multi_thread")]
async fn a_claim_against_an_expiry_has_one_winner() -> Result<()> {
    let stack = Stack::start(Options::relays(1)).await?;
    let dir = tempfile::tempdir()?;
    let relay = stack.machine(0)?.pid;
    let (mut claimed, mut all) = (0, 0);
    for round in 0..3 {
        signal(relay, Signal::STOP)?;
        let mut commands = Vec::new();
        for n in 0..12 {
            let file = dir.path().join(format!("{round}-{n}"));
            let text = format!("echo x >> {}", file.display());
            let body = json!({"on": "demo-1", "command": text, "expires_in_ms": 600});
            let id = stack.http().submit_with(&body).await?;
            let command = stack.http().json(&format!("/api/v1/commands/{id}")).await?;
            commands.push((id, command["expires_at"].as_u64().context("no time")?, file));
        }
        let due = commands[commands.len() / 2].1.saturating_sub(now_ms());
        tokio::time::sleep(Duration::from_millis(due)).await;
        signal(relay, Signal::CONT)?;
        for (id, _, file) in commands {
            claimed += u32::from(was_claimed(&stack, &id, &file).await?);
            all += 1;
        }
        if (1..all).contains(&claimed) {
            break;
        }
    }
    println!("{claimed} of {all} were claimed");
    assert!((1..all).contains(&claimed), "no race: {claimed} of {all} were claimed");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_run_stream_delays_and_loses_nothing() -> Result<()> {
    let stack = Stack::start(Options::relays(1)).await?;
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("ran");
    let (client, _task) = super::wire::administrator(&stack).await?;
    let jetstream = async_nats::jetstream::new(client);
    // Room for nothing: the limit is below what is stored.
    let mut config = jetstream.get_stream("RUN").await?.get_info().await?.config;
    stack.http().run("demo-1", "true").await?;
    let before = config.max_bytes;
    config.max_bytes = 1;
    jetstream.update_stream(&config).await?;
    let id = stack.http().submit("demo-1", &format!("echo x >> {}", file.display())).await?;
    eventually_within("the relay to be refused", Duration::from_secs(20), || async {
        let machines = stack.http().json("/api/v1/machines").await?;
        let pending = machines["items"][0]["pending"].as_u64().context("no count")?;
        ensure!(pending == 1, "{machines}");
        let health: Value = stack.http().get("/health").await?.json()?;
        ensure!(health["broker"] == "connected", "{health}");
        Ok(())
    })
    .await?;
    assert_eq!(text(&file), "");
    config.max_bytes = before;
    jetstream.update_stream(&config).await?;
    assert_eq!(stack.http().settled(&id).await?["counts"], json!({"completed": 1}));
    assert_eq!(text(&file), "x\n");
    eventually("an empty outbox", || async {
        stack.http().run("demo-1", "true").await?;
        Ok(())
    })
    .await
}
