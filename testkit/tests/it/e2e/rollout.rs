//! Waves in a whole system: real relays, the command line, and a bridge that dies in the middle.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use rstest::rstest;
use serde_json::{Value, json};
use signalbox_testkit::{
    eventually::eventually,
    http::{Http, run_on},
    process::{Daemon, Signal, dead},
    pty::Pty,
    stack::{Options, Stack},
};

use super::main_job::{cli, events};

const BOUND: Duration = Duration::from_secs(20);

/// Leaves a mark at its start and its end.
fn marked(file: &Path) -> String {
    format!("echo start >> {0}; sleep 0.1; echo end >> {0}", file.display())
}

/// Whether never more than so many ran at once, and each machine began once.
fn one_after_the_other(file: &Path, most: usize, machines: usize) -> Result<()> {
    let text = std::fs::read_to_string(file)?;
    let (mut running, mut begun) = (0_usize, 0);
    for line in text.lines() {
        if line == "end" {
            running = running.saturating_sub(1);
        } else {
            (running, begun) = (running + 1, begun + 1);
        }
        ensure!(running <= most, "{running} at once:\n{text}");
    }
    ensure!(begun == machines, "{begun} starts on {machines} machines:\n{text}");
    Ok(())
}

/// The only command there is.
async fn the_command(http: &Http) -> Result<String> {
    let listed = http.json("/api/v1/commands").await?;
    let items = listed["items"].as_array().context("items")?;
    ensure!(items.len() == 1, "{listed}");
    Ok(items[0]["id"].as_str().context("an id")?.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_spreads_and_tries_again_where_it_failed() -> Result<()> {
    let stack = Stack::start(Options::relays(4)).await?;
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("starts");
    let text = marked(&file);
    let words = ["run", "--on", "all", "--canary", "1", "--parallel", "1", "--json", "--", &text];
    let (code, stdout, stderr) = cli(&stack, &words).await?;
    assert_eq!(code, Some(0), "{stderr}");
    one_after_the_other(&file, 1, 4)?;
    let waves: Vec<Value> =
        events(&stdout)?.into_iter().filter(|event| event["event"] == "rollout").collect();
    let last = waves.last().context("no waves")?;
    assert_eq!((&last["wave"], &last["released"], &last["failures"]), (&json!(2), &json!(4), &json!(0)));

    // It fails on two machines, and then it does not.
    let bad = dir.path().join("bad");
    std::fs::write(&bad, "")?;
    let fails = format!("test ! -e {}", bad.display());
    let (code, stdout, _) = cli(&stack, &["run", "--on", "demo-[12]", "--json", "--", &fails]).await?;
    assert_eq!(code, Some(1));
    let id = events(&stdout)?.first().context("accepted")?["id"].as_str().context("an id")?.to_owned();
    std::fs::remove_file(&bad)?;
    let (code, stdout, stderr) = cli(&stack, &["retry", &id, "--json"]).await?;
    assert_eq!(code, Some(0), "{stderr}");
    let accepted = events(&stdout)?.first().context("accepted")?.clone();
    assert_eq!(accepted["targets"], json!(["demo-1", "demo-2"]));
    let again = accepted["id"].as_str().context("an id")?;
    let shown = stack.http().json(&format!("/api/v1/commands/{again}")).await?;
    assert_eq!(shown["retry_of"], json!(id));
    let (code, _, stderr) = cli(&stack, &["retry", again]).await?;
    assert_eq!(code, Some(3), "{stderr}");
    assert!(stderr.contains("no run of it is failed"), "{stderr}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn it_goes_on_without_a_console_and_is_steered_from_the_command_line() -> Result<()> {
    let stack = Stack::start(Options::relays(3)).await?;
    let words = ["run", "--on", "all", "--canary", "1", "--pause-after", "1", "--json", "--", "exit 3"];
    let console = Daemon::spawn(&mut stack.cli(&words)?)?;
    let accepted: Value = serde_json::from_str(&console.first_line(BOUND).await?)?;
    let id = accepted["id"].as_str().context("an id")?.to_owned();
    console.signal(Signal::KILL)?;
    let paused = eventually("a pause", || async {
        let command = stack.http().json(&format!("/api/v1/commands/{id}")).await?;
        ensure!(command["rollout"]["state"] == "paused", "{command}");
        Ok(command)
    })
    .await?;
    assert_eq!(paused["counts"], json!({"failed": 1, "held": 2}));
    let (code, stdout, _) = cli(&stack, &["show", &id]).await?;
    assert_eq!(code, Some(0));
    assert!(stdout.contains("1 of 1 runs failed") && stdout.contains("canary 1, pause after 1"), "{stdout}");
    let (code, stdout, stderr) = cli(&stack, &["resume", &id]).await?;
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    assert!(stdout.contains("going"), "{stdout}");
    let (code, stdout, _) = cli(&stack, &["abort", &id, "--json"]).await?;
    // The others may have failed by now, and then there is nothing to abort.
    assert!(code == Some(3) || events(&stdout)?[0]["rollout"]["state"] == "aborted", "{stdout}");
    stack.http().settled(&id).await?;
    Ok(())
}

#[rstest]
#[case::first(1)]
#[case::second(2)]
#[case::third(3)]
#[tokio::test(flavor = "multi_thread")]
async fn a_bridge_killed_after_any_edition_is_followed_by_one_that_goes_on(#[case] nth: u32) -> Result<()> {
    let stack = Stack::start(Options::relays(3).crash_at(&format!("bridge:rollout.written:{nth}"))).await?;
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("starts");
    let wish = json!({"on": "all", "command": marked(&file), "rollout": {"waves": [1]}});
    // Its answer may be lost with the bridge.
    let _lost = stack.http().submit_with(&wish).await;
    dead(stack.ready().pids.bridge).await?;
    let (_bridge, http) = stack.start_bridge(&stack.ready().bridge_data).await?;
    let id = the_command(&http).await?;
    let command = http.settled(&id).await?;
    assert_eq!(command["counts"], json!({"completed": 3}));
    assert_eq!(command["rollout"]["released"], 3);
    assert_eq!(run_on(&command, "demo-1")?["state"], "completed");
    one_after_the_other(&file, 1, 3)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sits_at_a_terminal_is_asked_before_many_machines() -> Result<()> {
    let stack = Stack::start(Options::relays(2)).await?;
    let run = |words: &[&str]| {
        let words = [&["run", "--on", "all"][..], words, &["--", "echo done"]].concat();
        Pty::spawn(&stack.cli(&words)?, 100, 30)
    };
    let mut wrong = run(&["--ask-above", "1"])?;
    let screen = wrong.wait_for("type 2 to run it", BOUND).await?;
    assert!(screen.contains("2 machines: 2 online"), "{screen}");
    wrong.type_keys("1\r")?;
    assert_eq!(wrong.wait(BOUND).await?.exit_code(), 3);
    assert!(wrong.screen().contains("nothing was submitted"), "{}", wrong.screen());
    let mut right = run(&["--ask-above", "1"])?;
    right.wait_for("type 2 to run it", BOUND).await?;
    right.type_keys("2\r")?;
    assert_eq!(right.wait(BOUND).await?.exit_code(), 0);
    let sure = run(&["--ask-above", "1", "--yes"])?;
    assert_eq!(sure.wait(BOUND).await?.exit_code(), 0);
    assert!(!sure.screen().contains("type 2"), "{}", sure.screen());
    // Where nobody sits nothing is asked.
    let (code, stdout, _) =
        cli(&stack, &["run", "--on", "all", "--ask-above", "1", "--", "echo done"]).await?;
    assert_eq!((code, stdout.matches("done").count()), (Some(0), 2));
    let listed = stack.http().json("/api/v1/commands").await?;
    assert_eq!(listed["items"].as_array().context("items")?.len(), 3, "{listed}");
    Ok(())
}
