//! What can be typed into a shell: each as the keeper's rules say.

use std::{
    ops::Range,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use rstest::rstest;
use serde_json::{Value, json};
use signalbox_testkit::{
    eventually::eventually,
    http::run_on,
    process::{Signal, is_alive, signal},
    stack::{Options, Stack},
};

use super::main_job::cli;

async fn one(stack: &Stack, body: &Value) -> Result<(String, Value)> {
    let mut body = body.clone();
    body["on"] = json!("demo-1");
    let id = stack.http().submit_with(&body).await?;
    let command = stack.http().settled(&id).await?;
    Ok((id, run_on(&command, "demo-1")?.clone()))
}

async fn pid_from(stack: &Stack, id: &str) -> Result<u32> {
    let text = stack.http().output(id, "demo-1", "stdout").await?;
    let text = String::from_utf8(text)?;
    text.split_whitespace().next().context("no pid")?.parse().context("reading a pid")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_exit_code_arrives() -> Result<()> {
    let stack = Stack::start(Options::relays(1)).await?;
    let mut ids = Vec::new();
    for code in 0..=255 {
        ids.push((code, stack.http().submit("demo-1", &format!("exit {code}")).await?));
        // A mailbox holds 64 offers; the rest would just wait longer.
    }
    for (code, id) in ids {
        let command = stack.http().settled(&id).await?;
        let run = run_on(&command, "demo-1")?;
        assert_eq!(run["exit_code"], code);
        assert_eq!(run["state"], if code == 0 { "completed" } else { "failed" });
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_background_child_does_not_hold_the_run() -> Result<()> {
    let stack = Stack::start(Options::relays(1)).await?;
    let (id, run) = one(&stack, &json!({"command": "sleep 300 & echo $!"})).await?;
    assert_eq!(run["state"], "completed");
    assert_eq!(run["group_dead"], true);
    assert!(run["duration_ms"].as_u64().context("no duration")? < 20_000, "{run}");
    let pid = pid_from(&stack, &id).await?;
    assert!(!is_alive(pid), "the background child lives on");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timeout_ends_what_ignores_term() -> Result<()> {
    let stack = Stack::start(Options::relays(1)).await?;
    let body = json!({"command": "trap '' TERM; echo $$; while :; do sleep 1; done", "timeout_ms": 500});
    let (id, run) = one(&stack, &body).await?;
    assert_eq!(run["state"], "timeout");
    assert_eq!(run["group_dead"], true);
    assert!(!is_alive(pid_from(&stack, &id).await?));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_has_its_name() -> Result<()> {
    let stack = Stack::start(Options::relays(1)).await?;
    let (_, run) = one(&stack, &json!({"command": "kill -9 $$"})).await?;
    assert_eq!(run["state"], "failed");
    assert_eq!(run["signal"], "SIGKILL");
    assert_eq!(run["exit_code"], Value::Null);
    Ok(())
}

#[rstest]
#[case::that_lets_go_of_the_pipes("(setsid sh -c 'echo $$; exec sleep 30 >/dev/null 2>&1' &)", 0..1_000)]
#[case::that_keeps_them("(setsid sh -c 'echo $$; exec sleep 30' &)", 1_000..3_000)]
#[tokio::test(flavor = "multi_thread")]
async fn a_double_fork_holds_its_run_for_a_second_at_most(
    #[case] command: &str,
    #[case] lasts_ms: Range<u64>,
) -> Result<()> {
    let stack = Stack::start(Options::relays(1)).await?;
    let since = Instant::now();
    let (id, run) = one(&stack, &json!({"command": command})).await?;
    assert!(since.elapsed() < Duration::from_secs(3), "settled after {:?}", since.elapsed());
    assert_eq!((&run["state"], &run["group_dead"]), (&json!("completed"), &json!(true)));
    assert!(lasts_ms.contains(&run["duration_ms"].as_u64().context("no duration")?), "{run}");
    let pid = pid_from(&stack, &id).await?;
    // It left the process group: the rule ends the group, not the session it made for itself.
    ensure!(is_alive(pid), "a daemon of its own session was ended");
    signal(pid, Signal::KILL)
}

/// In the run's group one process cannot be reaped: its parent made a session of its own and reaps nobody.
#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_does_not_empty_is_said_to_be_alive() -> Result<()> {
    let stack = Stack::start(Options::relays(1)).await?;
    let parent = r#"echo $$; sleep 60 >/dev/null 2>&1 & exec setsid sh -c "exec sleep 60 >/dev/null 2>&1""#;
    let since = Instant::now();
    let (id, run) = one(&stack, &json!({"command": format!("sh -c '{parent}' &")})).await?;
    // TERM, 5 s, KILL, 10 s.
    let took = since.elapsed();
    assert!((15..20).contains(&took.as_secs()), "settled after {took:?}");
    assert_eq!((&run["state"], &run["group_dead"]), (&json!("completed"), &json!(false)));
    assert!(run["duration_ms"].as_u64().context("no duration")? < 1_000, "{run}");
    let (_, stdout, _) = cli(&stack, &["show", &id]).await?;
    assert!(stdout.contains("processes are left"), "{stdout}");
    signal(pid_from(&stack, &id).await?, Signal::KILL)
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_are_left_as_they_are() -> Result<()> {
    let stack = Stack::start(Options::relays(1)).await?;
    let (id, run) =
        one(&stack, &json!({"command": r"printf '\000\377\376a\033[31m\r\n'; printf '\200' >&2"})).await?;
    assert_eq!(run["stdout"]["bytes"], 11);
    assert_eq!(stack.http().output(&id, "demo-1", "stdout").await?, b"\x00\xff\xfea\x1b[31m\r\n");
    assert_eq!(stack.http().output(&id, "demo-1", "stderr").await?, b"\x80");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_may_be_64_kib_long() -> Result<()> {
    let stack = Stack::start(Options::relays(1)).await?;
    let head = "echo ok # größe ";
    let text = format!("{head}{}", "é".repeat((65_536 - head.len()) / 2));
    assert_eq!(text.len(), 65_536);
    let (id, run) = one(&stack, &json!({"command": text})).await?;
    assert_eq!(run["state"], "completed", "{run}");
    assert_eq!(stack.http().output(&id, "demo-1", "stdout").await?, b"ok\n");
    for (bad, body) in [
        ("too long", json!({"on": "demo-1", "command": "x".repeat(65_537)})),
        ("a NUL", json!({"on": "demo-1", "command": "echo \0"})),
        ("nothing", json!({"on": "demo-1", "command": ""})),
        ("no time", json!({"on": "demo-1", "command": "true", "timeout_ms": 0})),
        ("too much time", json!({"on": "demo-1", "command": "true", "timeout_ms": 172_800_001})),
    ] {
        let answer = stack.http().post("/api/v1/commands", &body).await?;
        assert!([413, 422].contains(&answer.status), "{bad} answers {}", answer.status);
    }
    let (_, run) = one(&stack, &json!({"command": "true", "timeout_ms": 172_800_000})).await?;
    assert_eq!(run["state"], "completed");
    let (_, run) = one(&stack, &json!({"command": "sleep 5", "timeout_ms": 1})).await?;
    assert_eq!(run["state"], "timeout");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_ends_what_runs() -> Result<()> {
    let stack = Stack::start(Options::relays(1)).await?;
    let id = stack.http().submit("demo-1", "echo $$; sleep 300").await?;
    let pid = eventually("the pid", || pid_from(&stack, &id)).await?;
    let answer = stack.http().post(&format!("/api/v1/commands/{id}/cancel"), &json!({})).await?;
    assert_eq!((answer.status, answer.json()?), (202, json!({"cancelling": 1})));
    let command = stack.http().settled(&id).await?;
    assert_eq!(run_on(&command, "demo-1")?["state"], "cancelled");
    assert!(!is_alive(pid));
    Ok(())
}
