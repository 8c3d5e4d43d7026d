//! sled is a view: deleted, doubled, it answers the same.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use signalbox_testkit::{
    eventually::{eventually, eventually_within},
    http::Http,
    process::{Signal, is_alive, signal},
    stack::{Options, Stack},
};
use std::time::Duration;

/// All that a bridge answers about commands and machines, without what moves by itself.
async fn answers(http: &Http) -> Result<Value> {
    let commands = http.json("/api/v1/commands?limit=1000").await?;
    let mut details = Vec::new();
    for item in commands["items"].as_array().context("no items")? {
        let id = item["id"].as_str().context("no id")?;
        let detail = http.json(&format!("/api/v1/commands/{id}")).await?;
        for run in detail["runs"].as_array().context("no runs")? {
            let machine = run["machine"].as_str().context("no machine")?;
            let output = http.output(id, machine, "stdout").await?;
            details.push(json!({"id": id, "machine": machine, "stdout": String::from_utf8_lossy(&output)}));
        }
        details.push(detail);
    }
    let mut machines = http.json("/api/v1/machines").await?;
    for machine in machines["items"].as_array_mut().context("no machines")? {
        for moving in ["metrics", "last_seen_at", "facts"] {
            machine[moving] = Value::Null;
        }
    }
    Ok(json!({"commands": commands, "details": details, "machines": machines}))
}

async fn some_history(stack: &Stack) -> Result<()> {
    let http = stack.http();
    http.run("all", "echo one; echo err >&2").await?;
    http.run("demo-1", "exit 3").await?;
    http.run("demo-2", "seq 1 100000").await?;
    let id = http.submit("demo-1", "sleep 100").await?;
    eventually("a running command", || async {
        let command = http.json(&format!("/api/v1/commands/{id}")).await?;
        ensure!(command["counts"] == json!({"executing": 1}), "{command}");
        Ok(())
    })
    .await?;
    http.post(&format!("/api/v1/commands/{id}/cancel"), &json!({})).await?;
    http.settled(&id).await?;
    let answer = http.post("/api/v1/assignments", &json!({"machine_id": "demo-1", "name": "old"})).await?;
    assert_eq!(answer.status, 201);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_sled_answers_the_same() -> Result<()> {
    let stack = Stack::start(Options::relays(2)).await?;
    some_history(&stack).await?;
    let before = answers(stack.http()).await?;
    let bridge = stack.pid("bridge")?;
    signal(bridge, Signal::KILL)?;
    std::fs::remove_dir_all(&stack.ready().bridge_data)?;
    eventually_within("the bridge that follows", Duration::from_secs(30), || async {
        let now = stack.pid("bridge")?;
        ensure!(now != bridge && is_alive(now), "not yet");
        let after = answers(stack.http()).await?;
        ensure!(after == before, "before {before:#}\nafter {after:#}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn two_bridges_answer_the_same_and_double_nothing() -> Result<()> {
    let stack = Stack::start(Options::relays(2)).await?;
    let dir = tempfile::tempdir()?;
    let (_second, other) = stack.start_bridge(&dir.path().join("second")).await?;
    let file = dir.path().join("ran");
    for n in 0..20 {
        let http = if n % 2 == 0 { stack.http() } else { &other };
        let command = http.run("all", &format!("echo x >> {}", file.display())).await?;
        assert_eq!(command["counts"], json!({"completed": 2}));
    }
    assert_eq!(std::fs::read_to_string(&file)?.lines().count(), 40);
    eventually("the same answers", || async {
        let (one, two) = (answers(stack.http()).await?, answers(&other).await?);
        ensure!(one == two, "{one:#}\n{two:#}");
        Ok(())
    })
    .await?;
    // The cursor of a write on one is honoured by the other.
    for _ in 0..10 {
        let body = serde_json::to_vec(&json!({"on": "demo-1", "command": "true"}))?;
        let headers = [("content-type", "application/json")];
        let written = stack.http().request("POST", "/api/v1/commands", &headers, body).await?;
        let cursor = written.header("signalbox-cursor").context("no cursor")?.to_owned();
        let id = written.json()?["id"].as_str().context("no id")?.to_owned();
        let path = format!("/api/v1/commands/{id}");
        let read = other.request("GET", &path, &[("signalbox-cursor", &cursor)], vec![]).await?;
        assert_eq!(read.status, 200);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_death_of_the_lease_holder_is_noticed_only_by_its_log() -> Result<()> {
    let stack = Stack::start(Options::relays(1).no_restart()).await?;
    let dir = tempfile::tempdir()?;
    let (_second, other) = stack.start_bridge(&dir.path().join("second")).await?;
    signal(stack.ready().pids.bridge, Signal::KILL)?;
    for _ in 0..5 {
        let command = other.run("demo-1", "echo x").await?;
        assert_eq!(command["counts"], json!({"completed": 1}));
    }
    Ok(())
}
