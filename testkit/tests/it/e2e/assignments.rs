//! Assignments and what stands beside them, by command line against a real stack.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use signalbox_testkit::{
    eventually::eventually,
    stack::{Options, Stack},
};
use tempfile::TempDir;

use super::main_job::{cli, events};

/// A command line with `--json` that ends with 0; its lines.
async fn lines(stack: &Stack, args: &[&str]) -> Result<Vec<Value>> {
    let (code, stdout, stderr) = cli(stack, &[args, &["--json"]].concat()).await?;
    ensure!(code == Some(0) && stderr.is_empty(), "{args:?} ends with {code:?}: {stderr}");
    events(&stdout)
}

/// The same with one line.
async fn line(stack: &Stack, args: &[&str]) -> Result<Value> {
    let lines = lines(stack, args).await?;
    let [line] = &lines[..] else { anyhow::bail!("{args:?}: {lines:?}") };
    Ok(line.clone())
}

fn text(value: &Value) -> Result<String> {
    Ok(value.as_str().context("no text")?.to_owned())
}

fn file(dir: &Path, name: &str, content: &str) -> Result<PathBuf> {
    let path = dir.join(name);
    std::fs::write(&path, content)?;
    Ok(path)
}

fn path(path: &Path) -> Result<&str> {
    path.to_str().context("an odd path")
}

const KEY: &str = "sk_of_the_older_system_1";

/// An assignment of a machine that nobody knew, with a key that its relay has.
async fn assigned(stack: &Stack, dir: &TempDir) -> Result<String> {
    let key = file(dir.path(), "key", &format!("{KEY}\n"))?;
    let args = ["assignment", "create", "old-1", "Old 1", "--key-file", path(&key)?, "--created-by", "app"];
    let (code, stdout, stderr) = cli(stack, &args).await?;
    ensure!(code == Some(0) && stderr.is_empty(), "{stderr}");
    Ok(stdout.trim_end().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_assignment_lives_from_its_key_to_its_removal() -> Result<()> {
    let stack = Stack::start(Options::relays(1)).await?;
    let dir = tempfile::tempdir()?;
    let id = assigned(&stack, &dir).await?;
    let shown = line(&stack, &["assignment", "show", &id]).await?;
    assert_eq!(
        json!([
            shown["machine_id"],
            shown["name"],
            shown["enabled"],
            shown["created_by"],
            shown["is_online"]
        ]),
        json!(["old-1", "Old 1", true, "app", false])
    );
    // A key that is drawn is another one, and is printed alone.
    let (code, stdout, stderr) = cli(&stack, &["assignment", "create", "demo-1", "Demo"]).await?;
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.starts_with("sk_") && stdout.lines().count() == 1, "{stdout}");
    // The key that is there stays where it is.
    let key = dir.path().join("key");
    let (code, _, stderr) =
        cli(&stack, &["assignment", "create", "x", "X", "--key-file", path(&key)?]).await?;
    assert_eq!(code, Some(3));
    assert!(stderr.contains("API key is already assigned to a machine") && !stderr.contains(KEY), "{stderr}");

    assert_eq!(line(&stack, &["assignment", "rename", &id, "Other"]).await?["name"], "Other");
    assert_eq!(line(&stack, &["assignment", "disable", &id]).await?["enabled"], false);
    assert_eq!(line(&stack, &["assignment", "enable", &id]).await?["enabled"], true);
    line(&stack, &["assignment", "heartbeat", &id]).await?;
    eventually("the sign of life", || async {
        ensure!(line(&stack, &["assignment", "show", &id]).await?["is_online"] == true);
        Ok(())
    })
    .await?;
    let listed = lines(&stack, &["assignments", "--machine", "old-1"]).await?;
    assert_eq!(listed.iter().map(|one| one["id"].clone()).collect::<Vec<_>>(), [json!(id)]);
    assert_eq!(lines(&stack, &["assignments"]).await?.len(), 2);
    let over_http = stack.http().json("/api/v1/assignments?machine_id=old-1").await?;
    assert_eq!(Value::from(listed), over_http["items"]);

    // Its machine's open work goes with it: nobody else can do it.
    let command = submitted(&stack).await?;
    let removed = line(&stack, &["assignment", "remove", &id, "--cascade"]).await?;
    assert_eq!(removed, json!({ "id": id, "withdrawn": 1 }));
    assert_eq!(stack.http().settled(&command).await?["counts"], json!({ "cancelled": 1 }));
    let (code, _, stderr) = cli(&stack, &["assignment", "show", &id]).await?;
    assert_eq!(code, Some(3));
    assert!(stderr.contains("Relay assignment not found"), "{stderr}");
    Ok(())
}

/// A command for the machine of the older relay; its id, once its run waits.
async fn submitted(stack: &Stack) -> Result<String> {
    let (code, stdout, stderr) = cli(stack, &["run", "--on", "old-1", "--no-wait", "--", "true"]).await?;
    ensure!(code == Some(0), "{stderr}");
    let command = stdout.trim_end().to_owned();
    eventually("the run to wait", || async {
        let pending = lines(stack, &["runs", "--machine", "old-1", "--state", "pending"]).await?;
        ensure!(pending.first().is_some_and(|run| run["command"]["id"] == command), "{pending:?}");
        Ok(())
    })
    .await?;
    Ok(command)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_works_in_a_relays_name() -> Result<()> {
    let stack = Stack::start(Options::relays(1)).await?;
    let dir = tempfile::tempdir()?;
    let id = assigned(&stack, &dir).await?;
    let other = line(&stack, &["assignment", "create", "old-1", "Second"]).await?;
    let other = text(&other["id"])?;
    let command = submitted(&stack).await?;
    let claim = |by: String| {
        let (stack, command) = (&stack, command.clone());
        async move { cli(stack, &["work", "claim", &command, "--assignment", &by, "--json"]).await }
    };
    let (code, stdout, stderr) = claim(id.clone()).await?;
    assert_eq!((code, events(&stdout)?), (Some(0), vec![json!({ "claimed": true })]), "{stderr}");
    // Once is once, for whomever.
    for by in [&id, &other] {
        let (code, stdout, stderr) = claim(by.clone()).await?;
        assert_eq!((code, events(&stdout)?), (Some(4), vec![json!({ "claimed": false })]), "{stderr}");
    }
    let out = file(dir.path(), "out", "done\n")?;
    let args = ["work", "complete", &command, "--exit-code", "3", "--stdout-file", path(&out)?, "--json"];
    let complete = |by: String| {
        let stack = &stack;
        async move { cli(stack, &[&args[..], &["--assignment", &by]].concat()).await }
    };
    let (code, stdout, stderr) = complete(other).await?;
    assert_eq!((code, events(&stdout)?), (Some(4), vec![json!({ "accepted": false })]), "{stderr}");
    let (code, stdout, stderr) = complete(id.clone()).await?;
    assert_eq!((code, events(&stdout)?), (Some(0), vec![json!({ "accepted": true })]), "{stderr}");
    assert_eq!(stack.http().settled(&command).await?["counts"], json!({ "failed": 1 }));
    let (_, stdout, _) = cli(&stack, &["show", &command]).await?;
    assert!(stdout.ends_with("\ndone\n"), "{stdout}");
    let (code, _, stderr) =
        cli(&stack, &["work", "claim", "0193a2b4-0000-7000-8000-000000000000", "--assignment", &id]).await?;
    assert_eq!(code, Some(3), "{stderr}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_its_credentials_and_its_pushes_are_shown_and_changed() -> Result<()> {
    let stack = Stack::start(Options::relays(0)).await?;
    let dir = tempfile::tempdir()?;
    let id = assigned(&stack, &dir).await?;
    let report = json!({
        "capabilities": ["local_cmd", "ssh"], "metrics": { "cpu_percent": 12.5 }, "version": "1.0.0",
        "platform": "linux-x64", "credentials": [{
            "credential_name": "db", "credential_type": "ssh_key", "target_host": "db.local",
            "storage_mode": "relay_only", "last_updated_at": 1000,
        }],
    });
    let report = file(dir.path(), "report", &report.to_string())?;
    let pushed =
        line(&stack, &["push", "create", &id, "ssh_targets", r#"{"targets": ["db.local"]}"#]).await?;
    assert_eq!(json!([pushed["state"], pushed["payload"]]), json!(["pending", { "targets": ["db.local"] }]));
    let value = file(dir.path(), "value", "00:11:22\n")?;
    let args = ["shared-credential", "create", "deploy", "--type", "password", "--value-file", path(&value)?];
    let shared = line(&stack, &[&args[..], &["--to", &id]].concat()).await?;
    assert_eq!(shared["assigned"], json!([id]));
    assert_eq!(shared.get("encrypted_value"), None, "the value came back");

    let reported = line(&stack, &["relay", "report", &id, "--file", path(&report)?]).await?;
    assert_eq!(reported, json!({ "pending_config_pushes": 1, "shared_credentials_count": 1 }));
    eventually("the relay with its metrics", || async {
        let relay = line(&stack, &["relay", "show", &id]).await?;
        ensure!(relay["metrics"]["cpu_percent"] == 12.5 && relay["is_online"] == true, "{relay}");
        Ok(())
    })
    .await?;
    assert_eq!(lines(&stack, &["relays", "--capability", "ssh", "--online"]).await?.len(), 1);
    assert_eq!(lines(&stack, &["relays", "--capability", "perf_metrics"]).await?.len(), 0);
    assert_eq!(lines(&stack, &["relays", "--offline"]).await?.len(), 0);
    let held = line(&stack, &["credentials", "--target", "db.local"]).await?;
    assert_eq!(json!([held["assignment_id"], held["credential_name"]]), json!([id, "db"]));
    assert_eq!(lines(&stack, &["credentials", "--relay", &id]).await?, [held]);
    assert_eq!(lines(&stack, &["credentials", "--target", "other"]).await?.len(), 0);

    let push = text(&pushed["id"])?;
    assert_eq!(line(&stack, &["push", "sent", &push]).await?["state"], "sent");
    let failed = line(&stack, &["push", "fail", &push, "--message", "no room"]).await?;
    assert_eq!(json!([failed["state"], failed["error"]]), json!(["failed", "no room"]));
    assert_eq!(lines(&stack, &["pushes", "--relay", &id, "--state", "failed"]).await?, [failed]);
    assert_eq!(line(&stack, &["push", "retry", &push]).await?["state"], "pending");
    assert_eq!(line(&stack, &["push", "ack", &push]).await?["state"], "acked");
    assert_eq!(line(&stack, &["push", "show", &push]).await?["state"], "acked");
    assert_eq!(lines(&stack, &["pushes", "--state", "pending"]).await?.len(), 0);

    let shared = text(&shared["id"])?;
    let changed =
        line(&stack, &["shared-credential", "update", &shared, "--name", "x", "--to-nobody"]).await?;
    assert_eq!(json!([changed["name"], changed["assigned"]]), json!(["x", []]));
    assert_eq!(
        lines(&stack, &["shared-credentials"]).await?,
        [line(&stack, &["shared-credential", "show", &shared]).await?]
    );
    line(&stack, &["shared-credential", "remove", &shared]).await?;
    assert_eq!(lines(&stack, &["shared-credentials"]).await?.len(), 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn exec_gives_back_output_gives_up_and_does_nothing_twice() -> Result<()> {
    let stack = Stack::start(Options::relays(1)).await?;
    for (command, expected) in [("echo out; echo err >&2", 0), ("echo out; echo err >&2; exit 7", 1)] {
        let (code, stdout, stderr) =
            cli(&stack, &["exec", "demo-1", "--created-by", "app", "--", command]).await?;
        assert_eq!((code, stdout.as_str(), stderr.as_str()), (Some(expected), "out\n", "err\n"));
    }
    // It runs longer than its caller waits: it is cancelled.
    let args = [
        "exec",
        "demo-1",
        "--wait",
        "3s",
        "--timeout",
        "5m",
        "--cancel-on-give-up",
        "--",
        "echo on; sleep 60",
    ];
    let (code, stdout, stderr) = cli(&stack, &args).await?;
    assert_eq!((code, stdout.as_str()), (Some(4), "on\n"), "{stderr}");
    assert!(stderr.contains("gave up waiting for") && stderr.ends_with("cancelling it\n"), "{stderr}");
    let newest = stack.http().json("/api/v1/commands?limit=1").await?["items"][0].clone();
    assert_eq!(stack.http().settled(&text(&newest["id"])?).await?["counts"], json!({ "cancelled": 1 }));
    // One key, one command: the file says how often it ran.
    let dir = tempfile::tempdir()?;
    let command = format!("echo ran >> {0}/times; wc -l < {0}/times", dir.path().display());
    let args = ["exec", "demo-1", "--idempotency-key", "monday", "--", &command];
    for _ in 0..2 {
        let (code, stdout, stderr) = cli(&stack, &args).await?;
        assert_eq!((code, stdout.trim()), (Some(0), "1"), "{stderr}");
    }
    assert_eq!(std::fs::read_to_string(dir.path().join("times"))?, "ran\n");
    let (code, _, stderr) =
        cli(&stack, &["exec", "demo-1", "--idempotency-key", "monday", "--", "true"]).await?;
    assert_eq!(code, Some(3));
    assert!(stderr.contains("was used for another command"), "{stderr}");
    // What is meant for a host behind a machine is not run on the machine, also where nothing leads to that host.
    let elsewhere = format!("echo ran >> {}/elsewhere", dir.path().display());
    let (code, _, stderr) = cli(&stack, &["exec", "demo-1", "--ssh", "me@db", "--", &elsewhere]).await?;
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("demo-1: failed, no credential for db:22"), "{stderr}");
    assert!(!dir.path().join("elsewhere").exists(), "it ran on the machine");
    Ok(())
}
