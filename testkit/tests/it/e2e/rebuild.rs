//! sled is a view: deleted, doubled, it answers the same.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use data_encoding::BASE64;
use serde_json::{Value, json};
use signalbox_schemas::id::Sha256;
use signalbox_testkit::{
    eventually::{eventually, eventually_within},
    http::{Http, run_on},
    process::{Daemon, Signal, is_alive, signal},
    stack::{Options, Stack},
};

use super::wire::numbers;

/// A list in pages of one.
async fn one_by_one(http: &Http, path: &str) -> Result<Value> {
    let (mut items, mut after) = (Vec::new(), String::new());
    loop {
        let page = http.json(&format!("{path}?limit=1{after}")).await?;
        items.extend(page["items"].as_array().context("no items")?.iter().cloned());
        let Some(next) = page["next"].as_str() else { return Ok(items.into()) };
        after = format!("&after={next}");
    }
}

/// One stream of a run to its end: place, size, hash and headers of each answer, with a gap where one is.
async fn output(http: &Http, id: &str, machine: &str, stream: &str) -> Result<Value> {
    let (mut parts, mut offset) = (Vec::new(), 0);
    loop {
        let path = format!("/api/v1/commands/{id}/output?machine={machine}&stream={stream}");
        let answer = http.get(&format!("{path}&offset={offset}&limit=1048576")).await?;
        ensure!(answer.status == 200, "output answers {}", answer.status);
        let headers = ["total", "truncated", "next-offset"].map(|name| {
            let name = format!("signalbox-{name}");
            answer.header(&name).map(str::to_owned)
        });
        let sha256 = Sha256::of(&answer.body).to_string();
        parts.push(
            json!({"offset": offset, "bytes": answer.body.len(), "sha256": sha256, "headers": headers}),
        );
        match (answer.body.len(), &headers[2]) {
            (0, None) => return Ok(parts.into()),
            (0, Some(next)) => offset = next.parse()?,
            (bytes, _) => offset += bytes,
        }
    }
}

/// All that a bridge answers about commands and machines, without what moves by itself.
pub(super) async fn answers(http: &Http) -> Result<Value> {
    let commands = http.json("/api/v1/commands?limit=1000").await?;
    assert_eq!(one_by_one(http, "/api/v1/commands").await?, commands["items"], "the pages are another list");
    let mut details = Vec::new();
    for item in commands["items"].as_array().context("no items")? {
        let id = item["id"].as_str().context("no id")?;
        let detail = http.json(&format!("/api/v1/commands/{id}")).await?;
        let waited = http.get(&format!("/api/v1/commands/{id}/wait?timeout_ms=0")).await?;
        assert_eq!(waited.json()?, detail, "who waits is told something else");
        details.push(json!({"wait": waited.status}));
        for run in detail["runs"].as_array().context("no runs")? {
            let machine = run["machine"].as_str().context("no machine")?;
            for stream in ["stdout", "stderr"] {
                let output = output(http, id, machine, stream).await?;
                details.push(json!({"id": id, "machine": machine, "stream": stream, "output": output}));
            }
        }
        details.push(detail);
    }
    let mut machines = http.json("/api/v1/machines").await?;
    let paged = one_by_one(http, "/api/v1/machines").await?;
    for machine in machines["items"].as_array_mut().context("no machines")? {
        for moving in ["metrics", "last_seen_at", "facts"] {
            machine[moving] = Value::Null;
        }
    }
    let ids = |items: &Value| -> Vec<Value> {
        items.as_array().into_iter().flatten().map(|machine| machine["id"].clone()).collect()
    };
    assert_eq!(ids(&paged), ids(&machines["items"]), "the pages are another list");
    Ok(json!({"commands": commands, "details": details, "machines": machines}))
}

/// Runs a command with these members to its end, in which it is in this state.
async fn ended(http: &Http, body: Value, state: &str) -> Result<Value> {
    let id = http.submit_with(&body).await?;
    let command = http.settled(&id).await?;
    assert_eq!(command["counts"], json!({state: 1}), "{command}");
    Ok(command)
}

/// Something of everything: all states that a run can end in but two, much output and little, cut and whole.
async fn some_history(stack: &Stack) -> Result<()> {
    let http = stack.http();
    http.run("all", "echo one; echo err >&2").await?;
    ended(http, json!({"on": "demo-1", "command": "exit 3"}), "failed").await?;
    ended(http, json!({"on": "demo-2", "command": "seq 1 100000; seq 1 50000 >&2"}), "completed").await?;
    let cut = json!({"on": "demo-2", "command": "seq 1 500000", "max_output": 300_000});
    let cut = ended(http, cut, "completed").await?;
    assert_eq!(run_on(&cut, "demo-2")?["stdout"]["truncated"], true, "{cut}");
    ended(http, json!({"on": "demo-1", "command": "echo a; sleep 30", "timeout_ms": 300}), "timeout").await?;
    let relay = stack.machine(1)?.pid;
    signal(relay, Signal::STOP)?;
    ended(http, json!({"on": "demo-2", "command": "true", "expires_in_ms": 1}), "expired").await?;
    signal(relay, Signal::CONT)?;
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
    some_history(&stack).await?;
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

async fn has_lease(http: &Http, held: bool) -> Result<()> {
    let health = http.get("/health").await?.json()?;
    ensure!((health["lease"] == "held") == held, "{health}");
    Ok(())
}

/// What the machine wrote, as the events of `signalbox run --json` have it.
fn written(events: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for line in events.lines() {
        let event: Value = serde_json::from_str(line).with_context(|| format!("reading {line:?}"))?;
        if event["event"] == "output" {
            bytes.extend(BASE64.decode(event["data"].as_str().context("no data")?.as_bytes())?);
        }
    }
    Ok(bytes)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_death_of_the_lease_holder_is_noticed_only_by_its_log() -> Result<()> {
    let stack = Stack::start(Options::relays(1).no_restart()).await?;
    let dir = tempfile::tempdir()?;
    let gate = dir.path().join("gate");
    std::fs::write(&gate, "")?;
    // Asked while there is one bridge only: so it is the victim that serves this feed.
    let text = format!("seq 1 20000; while [ -e {} ]; do sleep 0.02; done; seq 1 20000", gate.display());
    let run = Daemon::spawn(&mut stack.cli(&["run", "--on", "demo-1", "--json", "--", &text])?)?;
    eventually("the output before the gate", || async {
        let output = written(&run.stdout()?)?;
        ensure!(output == numbers(20_000).as_bytes(), "{} bytes", output.len());
        Ok(())
    })
    .await?;
    let (_second, other) = stack.start_bridge(&dir.path().join("second")).await?;
    has_lease(stack.http(), true).await?;
    has_lease(&other, false).await?;
    signal(stack.ready().pids.bridge, Signal::KILL)?;
    for _ in 0..5 {
        let command = other.run("demo-1", "echo x").await?;
        assert_eq!(command["counts"], json!({"completed": 1}));
    }
    has_lease(&other, true).await?;
    std::fs::remove_file(&gate)?;
    let status = run.wait(Duration::from_secs(40)).await?;
    assert_eq!(status.code(), Some(0), "{}", run.stderr()?);
    assert!(written(&run.stdout()?)? == numbers(20_000).repeat(2).as_bytes(), "the bytes differ");
    Ok(())
}
