//! One start, whatever happens to a relay's store or however many relays share its credentials.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use signalbox_testkit::{
    eventually::eventually,
    http::run_on,
    process::{Signal, is_alive, kill, signal},
    stack::{Options, Stack},
};

fn lines(file: &Path) -> usize {
    std::fs::read_to_string(file).map_or(0, |text| text.lines().count())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_relays_of_one_machine_start_a_command_once() -> Result<()> {
    let stack = Stack::start(Options::relays(1)).await?;
    let dir = tempfile::tempdir()?;
    let second = stack.start_relay(0, Some(&dir.path().join("store"))).await?;
    let file = dir.path().join("starts");
    let mut ids = Vec::new();
    for n in 0..40 {
        ids.push(stack.http().submit("demo-1", &format!("echo {n} >> {}", file.display())).await?);
    }
    for id in ids {
        let command = stack.http().settled(&id).await?;
        assert_eq!(command["counts"], json!({"completed": 1}), "{command}");
    }
    assert_eq!(lines(&file), 40);
    second.terminate()?;
    end_keeper(&dir.path().join("store"))
}

/// Ends the keeper of a store that `up` does not know of, or whose keeper it has not seen.
pub(super) fn end_keeper(store: &Path) -> Result<()> {
    let lock: serde_json::Value = serde_json::from_slice(&std::fs::read(store.join("keeper.lock"))?)?;
    signal(u32::try_from(lock["pid"].as_u64().context("no pid")?)?, Signal::TERM)
}

/// A running command, then its relay's store is spoilt, then a fresh relay.
async fn after_spoiling(spoil: impl Fn(&Path, &Path) -> Result<()>) -> Result<()> {
    let stack = Stack::start(Options::relays(1).no_restart()).await?;
    let machine = stack.machine(0)?;
    let dir = tempfile::tempdir()?;
    let (file, copy) = (dir.path().join("starts"), dir.path().join("copy"));
    let copied = std::process::Command::new("cp").arg("-a").arg(&machine.store).arg(&copy).status()?;
    ensure!(copied.success(), "cp ended with {copied}");
    let command = format!("echo $$ >> {}; sleep 2", file.display());
    let body = json!({"on": "demo-1", "command": command, "timeout_ms": 5000});
    let id = stack.http().submit_with(&body).await?;
    eventually("the start", || async {
        ensure!(lines(&file) == 1, "not started");
        Ok(())
    })
    .await?;
    kill(machine.pid).await?;
    spoil(&machine.store, &copy)?;
    // The keeper notices that its lock is not its own and ends with its children.
    eventually("the end of the keeper", || async {
        ensure!(!is_alive(machine.keeper_pid), "it is alive");
        Ok(())
    })
    .await?;
    let _relay = stack.start_relay(0, None).await?;
    // The machine works, and the command did not start again.
    let next = stack.http().run("demo-1", "true").await?;
    assert_eq!(next["counts"], json!({"completed": 1}));
    assert_eq!(lines(&file), 1);
    let pid: u32 = std::fs::read_to_string(&file)?.trim().parse()?;
    assert!(!is_alive(pid), "its process outlived the keeper");
    let command = stack.http().json(&format!("/api/v1/commands/{id}")).await?;
    let state = run_on(&command, "demo-1")?["state"].clone();
    ensure!(state == "executing" || state == "lost", "it is {state}");
    end_keeper(&machine.store)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_store_starts_nothing_twice() -> Result<()> {
    after_spoiling(|store, _| Ok(std::fs::remove_dir_all(store)?)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_set_back_to_a_copy_starts_nothing_twice() -> Result<()> {
    after_spoiling(|store, copy| {
        std::fs::remove_dir_all(store)?;
        Ok(std::fs::rename(copy, store)?)
    })
    .await
}
