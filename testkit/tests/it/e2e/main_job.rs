//! The main job: a command, three relays, the output, the exit codes.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use signalbox_testkit::{http::run_on, process::Daemon, stack::Stack};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn three_relays_run_one_command() -> Result<()> {
    let stack = Stack::demo().await?;
    let http = stack.http();
    let id = http.submit("demo-*", "echo hello; echo oops >&2; exit 3").await?;
    let command = http.settled(&id).await?;
    assert_eq!(command["counts"], json!({"failed": 3}));
    for n in 1..=3 {
        let machine = format!("demo-{n}");
        let run = run_on(&command, &machine)?;
        assert_eq!(run["state"], "failed");
        assert_eq!(run["exit_code"], 3);
        assert_eq!(run["stdout"]["bytes"], 6);
        assert_eq!(http.output(&id, &machine, "stdout").await?, b"hello\n");
        assert_eq!(http.output(&id, &machine, "stderr").await?, b"oops\n");
    }
    let machines = http.json("/api/v1/machines").await?;
    let items = machines["items"].as_array().context("no items")?;
    assert_eq!(items.len(), 3);
    for machine in items {
        assert_eq!(machine["state"], "online");
        assert!(machine["metrics"]["memory_total_bytes"].as_u64().unwrap_or(0) > 0, "{machine}");
        assert!(machine["metrics"]["cpus"].as_u64().unwrap_or(0) > 0, "{machine}");
    }
    Ok(())
}

/// Runs the command line to its end.
pub(super) async fn cli(stack: &Stack, args: &[&str]) -> Result<(Option<i32>, String, String)> {
    let daemon = Daemon::spawn(&mut stack.cli(args)?)?;
    let status = daemon.wait(Duration::from_mins(1)).await?;
    Ok((status.code(), daemon.stdout()?, daemon.stderr()?))
}

pub(super) fn events(stdout: &str) -> Result<Vec<Value>> {
    stdout
        .lines()
        .map(|line| serde_json::from_str(line).with_context(|| format!("reading {line:?}")))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_tells_the_whole_story_in_json() -> Result<()> {
    let stack = Stack::demo().await?;
    let (code, stdout, stderr) =
        cli(&stack, &["run", "--on", "all", "--json", "--", "echo", "hello"]).await?;
    assert_eq!(code, Some(0), "{stderr}");
    let events = events(&stdout)?;
    let first = events.first().context("no events")?;
    assert_eq!(first["event"], "accepted");
    assert_eq!(first["targets"], json!(["demo-1", "demo-2", "demo-3"]));
    let last = events.last().context("no events")?;
    assert_eq!(last["event"], "done");
    assert_eq!(last["exit"], 0);
    assert_eq!(last["counts"], json!({"completed": 3}));
    for n in 1..=3 {
        let machine = format!("demo-{n}");
        let of = |event: &&Value, kind: &str| event["event"] == kind && event["machine"] == machine.as_str();
        let output: Vec<_> = events.iter().filter(|e| of(e, "output")).collect();
        let text: String = output.iter().filter_map(|e| e["data"].as_str()).collect();
        assert_eq!(text, "aGVsbG8K");
        let states: Vec<_> = events.iter().filter(|e| of(e, "run")).map(|e| e["state"].clone()).collect();
        assert_eq!(states.last(), Some(&json!("completed")));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_codes_mean_something() -> Result<()> {
    let stack = Stack::demo().await?;
    for (args, expected) in [
        (vec!["run", "--on", "all", "--", "true"], 0),
        (vec!["run", "--on", "demo-1", "--", "exit 7"], 1),
        (vec!["run", "--on", "demo-1", "--timeout", "300ms", "--", "sleep 20"], 1),
        (vec!["run", "--on", "nobody-*", "--", "true"], 3),
        (vec!["run", "--on", "[", "--", "true"], 2),
        (vec!["run", "--on", "all"], 2),
    ] {
        let (code, stdout, stderr) = cli(&stack, &args).await?;
        assert_eq!(code, Some(expected), "{args:?}: {stdout} {stderr}");
        // What the machine said is all there is to say; what `signalbox` refuses, it explains.
        ensure!(expected < 2 || !stderr.is_empty(), "{args:?} says nothing");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_and_details_agree_with_http() -> Result<()> {
    let stack = Stack::demo().await?;
    let command = stack.http().run("all", "echo hi").await?;
    let id = command["id"].as_str().context("no id")?;
    let (code, stdout, _) = cli(&stack, &["machines", "--json"]).await?;
    assert_eq!(code, Some(0));
    assert_eq!(events(&stdout)?.len(), 3);
    let (code, stdout, _) = cli(&stack, &["commands", "--json"]).await?;
    assert_eq!(code, Some(0));
    assert!(stdout.contains(id), "{stdout}");
    let (code, stdout, stderr) = cli(&stack, &["show", id, "--json"]).await?;
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.contains("completed"), "{stdout}");
    let (code, stdout, _) = cli(&stack, &["show", id]).await?;
    assert_eq!(code, Some(0));
    assert!(stdout.contains("demo-2") && stdout.contains("hi"), "{stdout}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn output_shows_at_once() -> Result<()> {
    let stack = Stack::demo().await?;
    let id = stack.http().submit("demo-1", "echo a; sleep 3; echo b").await?;
    // While `a` is there, `b` is not: the run has not ended.
    signalbox_testkit::eventually::eventually("the first line", || async {
        let bytes = stack.http().output(&id, "demo-1", "stdout").await?;
        ensure!(!bytes.is_empty(), "nothing yet");
        assert_eq!(bytes, b"a\n");
        let command = stack.http().json(&format!("/api/v1/commands/{id}")).await?;
        assert_eq!(run_on(&command, "demo-1")?["state"], "executing");
        Ok(())
    })
    .await?;
    stack.http().settled(&id).await?;
    assert_eq!(stack.http().output(&id, "demo-1", "stdout").await?, b"a\nb\n");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn output_that_cannot_be_written_is_no_success() -> Result<()> {
    let stack = Stack::demo().await?;
    for args in
        [vec!["machines"], vec!["run", "--on", "demo-1", "--", "echo lost"], vec!["completions", "bash"]]
    {
        let mut command = stack.cli(&args)?;
        command
            .stdin(std::process::Stdio::null())
            .stdout(std::fs::File::options().write(true).open("/dev/full")?);
        let output = tokio::task::spawn_blocking(move || command.output()).await??;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{args:?} says {said:?}");
        assert!(said.contains("write the output"), "{args:?} says {said:?}");
    }
    Ok(())
}
