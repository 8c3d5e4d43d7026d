//! A relay that is started with an API key and a URL: it becomes one with keys, and works like any other.

use std::{fs, path::Path, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use signalbox_testkit::{
    eventually, eventually_within,
    http::run_on,
    process::{Daemon, bin},
    stack::{Options, Stack},
};

use super::store::end_keeper;

/// Far above what a debug build on a busy machine takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// Makes an assignment; its id and key.
async fn assign(stack: &Stack, machine: &str) -> Result<(String, String)> {
    let made =
        stack.http().post("/api/v1/assignments", &json!({"machine_id": machine, "name": "test"})).await?;
    let made = made.json()?;
    let text = |member: &str| made[member].as_str().map(str::to_owned);
    text("id").zip(text("api_key")).with_context(|| made.to_string())
}

/// Starts a relay as its user would: with a key, a URL, and nothing else but the place of its store.
fn start(stack: &Stack, key: &str, store: &Path) -> Result<Daemon> {
    let mut command = Command::new(bin("signalbox-relay")?);
    command.args([key, &stack.ready().http, "--log-level", "debug", "--store-dir"]).arg(store);
    Daemon::spawn(command.env_remove("SIGNALBOX_API_KEY"))
}

async fn is_online(stack: &Stack, machine: &str) -> Result<()> {
    eventually_within("the machine is online", PATIENCE, || async {
        let machines = stack.http().json("/api/v1/machines").await?;
        let items = machines["items"].as_array().context("no items")?;
        let found = items.iter().find(|item| item["id"] == machine).context("it is not there")?;
        ensure!(found["state"] == "online", "{found}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_and_a_url_are_all_that_a_machine_needs() -> Result<()> {
    let stack = Stack::start(Options::relays(0)).await?;
    let (_, key) = assign(&stack, "Web 1").await?;
    let dir = tempfile::tempdir()?;
    let store = dir.path().join("store");
    let relay = start(&stack, &key, &store)?;
    is_online(&stack, "Web 1").await?;
    let command = stack.http().run("\"Web 1\"", "echo out; echo err >&2; exit 3").await?;
    let run = run_on(&command, "Web 1")?;
    assert_eq!((&run["state"], &run["exit_code"]), (&json!("failed"), &json!(3)), "{command}");
    let id = command["id"].as_str().context("no id")?;
    assert_eq!(stack.http().output(id, "Web%201", "stdout").await?, b"out\n");
    // The key is nowhere: not in what the relay keeps, nor in what others see of it or of its commands.
    let seen = fs::read(format!("/proc/{}/cmdline", relay.pid()))?;
    ensure!(!String::from_utf8_lossy(&seen).contains(&key), "the key is among the arguments");
    for entry in fs::read_dir(store.join("identity"))? {
        let path = entry?.path();
        ensure!(!fs::read_to_string(&path)?.contains(&key), "the key is in {}", path.display());
    }

    // A restart picks up what runs, as for any relay, with the same keys.
    let signing = fs::read(store.join("identity/signing.seed"))?;
    let file = dir.path().join("go");
    let waits = format!("while [ ! -e {} ]; do sleep 0.05; done; echo done", file.display());
    let id = stack.http().submit("\"Web 1\"", &waits).await?;
    eventually("it runs", || async {
        let command = stack.http().json(&format!("/api/v1/commands/{id}")).await?;
        ensure!(run_on(&command, "Web 1")?["state"] == "executing", "{command}");
        Ok(())
    })
    .await?;
    relay.kill()?;
    relay.wait(PATIENCE).await?;
    fs::write(&file, "")?;
    let again = start(&stack, &key, &store)?;
    let command = stack.http().settled(&id).await?;
    assert_eq!(command["counts"], json!({"completed": 1}), "{command}");
    assert_eq!(fs::read(store.join("identity/signing.seed"))?, signing);
    again.terminate()?;
    ensure!(again.wait(PATIENCE).await?.success(), "{}", again.stderr()?);
    end_keeper(&store)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_store_is_followed_by_other_keys_and_its_copy_is_shut_out() -> Result<()> {
    let stack = Stack::start(Options::relays(0)).await?;
    let (assignment, key) = assign(&stack, "web-1").await?;
    let dir = tempfile::tempdir()?;
    let (first, second) = (dir.path().join("first"), dir.path().join("second"));
    let relay = start(&stack, &key, &first)?;
    is_online(&stack, "web-1").await?;
    relay.kill()?;
    relay.wait(PATIENCE).await?;
    end_keeper(&first)?;
    let anew = start(&stack, &key, &second)?;
    eventually_within("the new relay works", PATIENCE, || async {
        let command = stack.http().run("web-1", "true").await?;
        ensure!(command["counts"] == json!({"completed": 1}), "{command}");
        Ok(())
    })
    .await?;
    let old = start(&stack, &key, &first)?;
    ensure!(old.wait(PATIENCE).await?.code() == Some(1));
    ensure!(old.stderr()?.contains("the keys of this relay were replaced"), "{}", old.stderr()?);

    // Disabled, it is given no work and no other login; enabled, both again.
    let path = format!("/api/v1/assignments/{assignment}");
    let enable = async |enabled: bool| {
        let body = serde_json::to_vec(&json!({"enabled": enabled}))?;
        let json = [("content-type", "application/json")];
        let answer = stack.http().request("PATCH", &path, &json, body).await?;
        ensure!(answer.status == 200, "{}", answer.json()?);
        Ok(())
    };
    enable(false).await?;
    let id = stack.http().submit("web-1", "true").await?;
    anew.terminate()?;
    ensure!(anew.wait(PATIENCE).await?.success(), "{}", anew.stderr()?);
    let refused = start(&stack, &key, &second)?;
    ensure!(refused.wait(PATIENCE).await?.code() == Some(1));
    ensure!(refused.stderr()?.contains("Relay assignment is disabled"), "{}", refused.stderr()?);
    let command = stack.http().json(&format!("/api/v1/commands/{id}")).await?;
    assert_eq!(command["counts"], json!({"pending": 1}), "{command}");
    enable(true).await?;
    let _again = start(&stack, &key, &second)?;
    assert_eq!(stack.http().settled(&id).await?["counts"], json!({"completed": 1}));
    end_keeper(&second)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_of_the_fleet_is_not_taken_over_by_a_key() -> Result<()> {
    let stack = Stack::start(Options::relays(1)).await?;
    let (_, key) = assign(&stack, "demo-1").await?;
    let dir = tempfile::tempdir()?;
    let relay = start(&stack, &key, &dir.path().join("store"))?;
    ensure!(relay.wait(PATIENCE).await?.code() == Some(1));
    ensure!(relay.stderr()?.contains("made beside the bridge"), "{}", relay.stderr()?);
    let command: Value = stack.http().run("demo-1", "true").await?;
    assert_eq!(command["counts"], json!({"completed": 1}), "{command}");
    Ok(())
}
