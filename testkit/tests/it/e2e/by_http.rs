//! Our relay told to stay with HTTP, against our bridge: what it runs comes back, whoever dies on the way.

use std::{fs, path::Path, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use signalbox_testkit::{
    eventually, eventually_within,
    http::run_on,
    process::{Daemon, Signal, bin, is_alive, signal},
    stack::{Options, Stack},
};

/// Far above what a debug build on a busy machine takes.
const PATIENCE: Duration = Duration::from_mins(1);

fn start(stack: &Stack, key: &str, store: &Path) -> Result<Daemon> {
    let mut command = Command::new(bin("signalbox-relay")?);
    command.args([key, &stack.ready().http, "--transport", "http", "--poll-interval", "1000", "--store-dir"]);
    Daemon::spawn(command.arg(store).env_remove("SIGNALBOX_API_KEY"))
}

async fn is_executing(stack: &Stack, id: &str, machine: &str) -> Result<()> {
    eventually_within("it runs", PATIENCE, || async {
        let command = stack.http().json(&format!("/api/v1/commands/{id}")).await?;
        ensure!(run_on(&command, machine)?["state"] == "executing", "{command}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_without_keys_runs_everything_once_whoever_dies() -> Result<()> {
    let stack = Stack::start(Options::relays(0)).await?;
    let made =
        stack.http().post("/api/v1/assignments", &json!({"machine_id": "old-1", "name": "test"})).await?;
    let made = made.json()?;
    let key = made["api_key"].as_str().with_context(|| made.to_string())?;
    let dir = tempfile::tempdir()?;
    let (store, ran, go) = (dir.path().join("store"), dir.path().join("ran"), dir.path().join("go"));
    let relay = start(&stack, key, &store)?;

    let command = stack.http().run("old-1", "echo out; echo err >&2; exit 3").await?;
    let run = run_on(&command, "old-1")?;
    assert_eq!((&run["state"], &run["exit_code"]), (&json!("failed"), &json!(3)), "{command}");
    let id = command["id"].as_str().context("no id")?;
    assert_eq!(stack.http().output(id, "old-1", "stderr").await?, b"err\n");
    let command = stack.http().run("old-1", "head -c 3000000 /dev/zero | tr '\\0' x").await?;
    let id = command["id"].as_str().context("no id")?;
    assert!(stack.http().output(id, "old-1", "stdout").await? == vec![b'x'; 3_000_000], "its output differs");

    // The bridge and the relay are killed while one runs. What it did and said counts once.
    let text = format!(
        "echo $SIGNALBOX_RUN >> {}; while [ ! -e {} ]; do sleep 0.05; done; echo done",
        ran.display(),
        go.display()
    );
    let id = stack.http().submit("old-1", &text).await?;
    is_executing(&stack, &id, "old-1").await?;
    eventually("it has begun", || async {
        ensure!(ran.exists());
        Ok(())
    })
    .await?;
    let bridge = stack.pid("bridge")?;
    signal(bridge, Signal::KILL)?;
    relay.kill()?;
    relay.wait(PATIENCE).await?;
    fs::write(&go, "")?;
    eventually_within("another bridge", PATIENCE, || async {
        let now = stack.pid("bridge")?;
        ensure!(now != bridge && is_alive(now), "still {now}");
        let health = stack.http().get("/health").await?;
        ensure!(health.status == 200, "{}", health.status);
        Ok(())
    })
    .await?;
    let again = start(&stack, key, &store)?;
    let command = stack.http().settled(&id).await?;
    assert_eq!(command["counts"], json!({"completed": 1}), "{command}");
    assert_eq!(stack.http().output(&id, "old-1", "stdout").await?, b"done\n");
    assert_eq!(fs::read_to_string(&ran)?.lines().count(), 1);
    // Nothing is left of a relay that is stopped while nothing runs.
    let lock: serde_json::Value = serde_json::from_slice(&fs::read(store.join("http/keeper.lock"))?)?;
    let keeper = u32::try_from(lock["pid"].as_u64().context("no pid")?)?;
    again.terminate()?;
    ensure!(again.wait(PATIENCE).await?.success(), "{}", again.stderr()?);
    eventually("the keeper is gone", || async {
        ensure!(!is_alive(keeper), "it lives");
        Ok(())
    })
    .await
}
