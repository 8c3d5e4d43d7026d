//! What commands do and how their ends are told.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result, ensure};
use rstest::rstest;
use serde_json::{Value, json};
use signalbox_testkit::{eventually_within, process::is_alive};

use crate::{
    center::Center,
    harness::{Machine, PATIENCE, lines},
};

const CLAIM: &str = "POST /relay/commands/claim";

/// One command, run by a relay of its own.
async fn run(command: &str, members: Value) -> Result<Value> {
    let center = Center::start().await?;
    let machine = Machine::new()?;
    center.queue_with("c1", command, members);
    let _relay = machine.relay(&center)?;
    center.result("c1", PATIENCE).await
}

#[rstest]
#[case::output("echo hello; echo err >&2", true, 0, "hello\n", "err\n", None)]
#[case::failure("exit 42", false, 42, "", "", None)]
#[case::not_found("nosuchcommand_x", false, 127, "", "nosuchcommand_x: not found\n", None)]
#[case::killed("kill -9 $$", false, 137, "", "", Some("Killed by signal SIGKILL"))]
#[case::terminated("echo a; kill -TERM $$", false, 143, "a\n", "", Some("Killed by signal SIGTERM"))]
#[case::no_input("cat; echo stdin-rc=$?", true, 0, "stdin-rc=0\n", "", None)]
#[case::bad_bytes(r"printf 'a\377b\000c'", true, 0, "a\u{fffd}b\0c", "", None)]
#[case::split_characters(
    r"printf 'a\342'; sleep 0.2; printf '\202'; sleep 0.2; printf '\254b'",
    true,
    0,
    "a€b",
    "",
    None
)]
#[case::background("echo bg; (sleep 2; echo late) & echo fg", true, 0, "bg\nfg\nlate\n", "", None)]
#[tokio::test]
async fn an_end_is_told_as_it_is(
    #[case] command: &str,
    #[case] success: bool,
    #[case] code: i64,
    #[case] output: &str,
    #[case] stderr: &str,
    #[case] error: Option<&str>,
) -> Result<()> {
    let result = run(command, json!({})).await?;
    assert_eq!(
        (result["success"].as_bool(), result["exitCode"].as_i64()),
        (Some(success), Some(code)),
        "{result}"
    );
    assert_eq!(result["output"], output);
    assert!(result["stderr"].as_str().context("no stderr")?.ends_with(stderr), "{result}");
    assert_eq!(result.get("error").and_then(Value::as_str), error);
    assert!(result["durationMs"].is_u64());
    Ok(())
}

#[rstest]
#[case::ssh(json!({"targetType": "ssh", "targetHost": "h"}), "No credentials found for h and failed to read default SSH key")]
#[case::no_host(json!({"targetType": "ssh"}), "SSH target host missing")]
#[case::empty_host(json!({"targetType": "ssh", "targetHost": ""}), "SSH target host missing")]
#[case::unknown(json!({"targetType": "winrm"}), "Unknown target type: winrm")]
#[tokio::test]
async fn what_cannot_be_done_is_told(#[case] members: Value, #[case] error: &str) -> Result<()> {
    let result = run("echo never", members).await?;
    let expected = json!({
        "commandId": "c1", "success": false, "output": "", "stderr": "", "exitCode": -1, "error": error, "durationMs": 0,
    });
    assert_eq!(result, expected);
    Ok(())
}

#[rstest]
#[case::one(128 * 1024 - 1, true)]
#[case::one_more(128 * 1024, false)]
#[tokio::test]
async fn a_long_command_runs_or_says_why_not(#[case] bytes: usize, #[case] runs: bool) -> Result<()> {
    let mut command = "echo ok #".to_owned();
    command.extend(std::iter::repeat_n('x', bytes - command.len()));
    let result = run(&command, json!({})).await?;
    assert_eq!(result["success"], runs);
    let said = if runs { &result["output"] } else { &result["error"] };
    let expected = if runs {
        "ok\n"
    } else {
        "The command is 131072 bytes long, and can be 131071; put it into a file and run that"
    };
    assert_eq!(said, expected);
    Ok(())
}

#[tokio::test]
async fn a_command_runs_where_the_relay_was_started_and_without_its_key() -> Result<()> {
    let center = Center::start().await?;
    let machine = Machine::new()?;
    center.queue("c1", "pwd; echo ${SIGNALBOX_API_KEY-none}");
    let _relay = machine.relay(&center)?;
    let result = center.result("c1", PATIENCE).await?;
    let work = machine.work().canonicalize()?;
    assert_eq!(result["output"], format!("{}\nnone\n", work.display()));
    Ok(())
}

#[tokio::test]
async fn a_timeout_ends_all_of_a_command_and_keeps_what_it_said() -> Result<()> {
    let center = Center::start().await?;
    let machine = Machine::new()?;
    let pids = machine.file("pids");
    let command = format!(
        "echo before; (trap '' TERM; echo $$; exec sleep 300) >> {0} & echo $! >> {0}; sleep 300; echo after",
        pids.display()
    );
    center.queue_with("c1", &command, json!({"timeoutMs": 1500}));
    let _relay = machine.relay(&center)?;
    let result = center.result("c1", PATIENCE).await?;
    let told = ["success", "output", "exitCode", "error"].map(|name| result[name].clone());
    assert_eq!(told, [json!(false), json!("before\n"), json!(-1), json!("Command timed out")]);
    let duration = result["durationMs"].as_u64().context("no duration")?;
    assert!((1500..4000).contains(&duration), "{duration}");
    for pid in lines(&pids)? {
        let pid: u32 = pid.parse()?;
        eventually_within("its child is gone", PATIENCE, || async move {
            ensure!(!is_alive(pid), "{pid} lives");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

#[rstest]
#[case::zero(json!(0))]
#[case::negative(json!(-5))]
#[tokio::test]
async fn a_time_limit_below_the_least_is_the_least(#[case] timeout: Value) -> Result<()> {
    let result = run("sleep 20", json!({"timeoutMs": timeout})).await?;
    assert_eq!(result["error"], "Command timed out");
    Ok(())
}

#[rstest]
#[case::above_the_most(json!(4_000_000_000_u64))]
#[case::a_float(json!(30_000.5))]
#[case::absent(Value::Null)]
#[tokio::test]
async fn another_time_limit_does_not_end_a_command_at_once(#[case] timeout: Value) -> Result<()> {
    let result = run("sleep 0.5; echo done", json!({"timeoutMs": timeout})).await?;
    assert_eq!(result["output"], "done\n");
    Ok(())
}

#[tokio::test]
async fn what_a_command_leaves_in_the_background_stays() -> Result<()> {
    let center = Center::start().await?;
    let machine = Machine::new()?;
    center.queue("c1", "sleep 300 >/dev/null 2>&1 & echo $!");
    let _relay = machine.relay(&center)?;
    let result = center.result("c1", PATIENCE).await?;
    let pid: u32 = result["output"].as_str().context("no output")?.trim().parse()?;
    assert!(is_alive(pid), "{pid} was ended");
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid)?).context("no pid")?;
    rustix::process::kill_process(pid, rustix::process::Signal::KILL)?;
    Ok(())
}

#[tokio::test]
async fn four_commands_run_at_once_and_no_more_are_claimed() -> Result<()> {
    let center = Center::start().await?;
    let machine = Machine::new()?;
    let gate = machine.file("gate");
    for number in 0..6 {
        center.queue(&format!("c{number}"), &format!("until [ -e {} ]; do sleep 0.05; done", gate.display()));
    }
    let _relay = machine.relay(&center)?;
    center.asked(CLAIM, 4, PATIENCE).await?;
    // Two more heartbeats: the relay has had the time for more.
    center.asked("POST /relay/heartbeat", 2, PATIENCE).await?;
    assert_eq!(center.requests_of(CLAIM).len(), 4);
    assert_eq!(center.requests_of("GET /relay/commands").len(), 1, "it asks for what it cannot run");
    fs::write(&gate, "")?;
    for number in 0..6 {
        center.result(&format!("c{number}"), PATIENCE).await?;
    }
    let claimed: Result<Vec<Value>> =
        center.requests_of(CLAIM).iter().map(|request| Ok(request.json()?["commandId"].clone())).collect();
    let expected: Vec<String> = (0..6).map(|number| format!("c{number}")).collect();
    assert_eq!(claimed?, expected, "not in the center's order, or twice");
    Ok(())
}

#[tokio::test]
async fn a_slow_command_blocks_nobody() -> Result<()> {
    let center = Center::start().await?;
    let machine = Machine::new()?;
    center.queue("slow", "sleep 20");
    center.queue("quick", "true");
    let _relay = machine.relay(&center)?;
    center.result("quick", Duration::from_secs(10)).await?;
    assert!(center.results_of("slow").is_empty());
    Ok(())
}
