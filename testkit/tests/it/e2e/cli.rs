//! The command line as a program: what it prints and where, how it ends, and what signals do to it.

use std::{
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use rstest::rstest;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use signalbox_schemas::limit;
use signalbox_testkit::{
    eventually::eventually,
    http::run_on,
    process::{Daemon, Signal, bin, signal},
    stack::{Options, Stack},
};
use tokio::task::spawn_blocking;

use super::{
    main_job::{cli, events},
    offline::without_relay,
    wire::administrator,
};

const BOUND: Duration = Duration::from_secs(20);
/// A second Ctrl-C is waited for 2 s, the first answer of a bridge 5 s; the rest is slack.
const SOON: Duration = Duration::from_secs(10);

fn text(value: &Value) -> Result<String> {
    Ok(value.as_str().context("no text")?.to_owned())
}

/// The newest command, once it is `executing` on its one machine.
async fn executing(stack: &Stack) -> Result<String> {
    eventually("a run to begin", || async {
        let listed = stack.http().json("/api/v1/commands?limit=1").await?;
        let command = listed["items"].get(0).context("no command")?;
        ensure!(command["counts"] == json!({"executing": 1}), "{command}");
        text(&command["id"])
    })
    .await
}

async fn state(stack: &Stack, id: &str) -> Result<Value> {
    let command = stack.http().json(&format!("/api/v1/commands/{id}")).await?;
    Ok(run_on(&command, "demo-1")?["state"].clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_leaves_the_run_alone_and_names_it() -> Result<()> {
    let stack = Stack::start(Options::relays(1)).await?;
    let run = Daemon::spawn(&mut stack.cli(&["run", "--on", "demo-1", "--", "sleep 60"])?)?;
    let id = executing(&stack).await?;
    run.signal(Signal::INT)?;
    assert_eq!(run.wait(SOON).await?.code(), Some(130));
    assert!(run.stderr()?.contains(&id), "{}", run.stderr()?);
    assert_eq!(run.stdout()?, "");
    assert_eq!(state(&stack, &id).await?, "executing");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_ctrl_c_cancels_the_run() -> Result<()> {
    let stack = Stack::start(Options::relays(1)).await?;
    let run = Daemon::spawn(&mut stack.cli(&["run", "--on", "demo-1", "--json", "--", "sleep 60"])?)?;
    let accepted: Value = serde_json::from_str(&run.first_line(BOUND).await?)?;
    let id = text(&accepted["id"])?;
    assert_eq!(executing(&stack).await?, id);
    run.signal(Signal::INT)?;
    // Two signals at once are one.
    eventually("the first to be heard", || async {
        ensure!(run.stderr()?.contains("detached from"), "{}", run.stderr()?);
        Ok(())
    })
    .await?;
    run.signal(Signal::INT)?;
    assert_eq!(run.wait(SOON).await?.code(), Some(130));
    assert_eq!(stack.http().settled(&id).await?["counts"], json!({"cancelled": 1}));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_expires_on_an_offline_machine_ends_with_4() -> Result<()> {
    let stack = without_relay().await?;
    signal(stack.machine(0)?.keeper_pid, Signal::KILL)?;
    let run = |json: &[&str]| {
        let args = [&["run", "--on", "demo-1", "--expires-in", "1s"], json, &["--", "true"]].concat();
        Daemon::spawn(&mut stack.cli(&args)?)
    };
    let (plain, in_json) = (run(&[])?, run(&["--json"])?);
    assert_eq!(plain.wait(BOUND).await?.code(), Some(4), "{}", plain.stderr()?);
    assert_eq!(plain.stdout()?, "");
    assert!(plain.stderr()?.contains("demo-1: expired"), "{}", plain.stderr()?);
    assert_eq!(in_json.wait(BOUND).await?.code(), Some(4), "{}", in_json.stderr()?);
    let events = events(&in_json.stdout()?)?;
    assert_eq!(events.last(), Some(&json!({"event": "done", "counts": {"expired": 1}, "exit": 4})));
    Ok(())
}

#[rstest]
#[case::no_machine(&["run", "--on", "nobody-*", "--", "true"], 3, "nobody-*")]
#[case::no_command(&["show", "0193a2b4-0000-7000-8000-000000000000"], 3, "0193a2b4")]
#[case::nothing_to_cancel(&["cancel", "0193a2b4-0000-7000-8000-000000000000"], 3, "0193a2b4")]
#[case::nowhere(&["machines", "--nats", "nats://127.0.0.1:1"], 3, "up")]
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_done_is_said_in_one_line(
    #[case] args: &[&str],
    #[case] expected: i32,
    #[case] named: &str,
) -> Result<()> {
    let stack = Stack::start(Options::relays(0)).await?;
    let (code, stdout, stderr) = cli(&stack, args).await?;
    assert_eq!(code, Some(expected), "{stderr}");
    assert_eq!(stdout, "");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.starts_with("signalbox: ") && stderr.contains(named), "{stderr}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_selector_is_marked_where_it_is_wrong() -> Result<()> {
    let stack = Stack::start(Options::relays(0)).await?;
    let (code, stdout, stderr) = cli(&stack, &["run", "--on", "demo-[", "--", "true"]).await?;
    assert_eq!(code, Some(2), "{stderr}");
    assert_eq!(stdout, "");
    let lines: Vec<_> = stderr.lines().collect();
    assert!(
        matches!(&lines[..], [said, "demo-[", "     ^", advice]
            if said.ends_with("not a selector:") && advice.contains("write `]`")),
        "{stderr}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_bridge_nobody_waits_for_ever() -> Result<()> {
    let stack = Stack::start(Options::relays(0).no_restart()).await?;
    signal(stack.ready().pids.bridge, Signal::KILL)?;
    let mut asking = Vec::new();
    for args in [
        &["run", "--on", "all", "--", "true"][..],
        &["run", "--on", "all", "--json", "--", "true"],
        &["machines"],
        &["commands"],
        &["cancel", "0193a2b4-0000-7000-8000-000000000000"],
    ] {
        asking.push((args, Daemon::spawn(&mut stack.cli(args)?)?));
    }
    for (args, asking) in asking {
        assert_eq!(asking.wait(SOON).await?.code(), Some(3), "{args:?}");
        assert!(asking.stderr()?.contains("no bridge answered"), "{args:?}: {}", asking.stderr()?);
        assert_eq!(asking.stdout()?, "", "{args:?}");
    }
    Ok(())
}

/// Submits something long without waiting for it; answers its id.
async fn not_awaited(stack: &Stack, in_json: bool) -> Result<String> {
    let mut args = vec!["run", "--on", "demo-1", "--no-wait", "--", "sleep 60"];
    if in_json {
        args.insert(1, "--json");
    }
    let since = Instant::now();
    let (code, stdout, stderr) = cli(stack, &args).await?;
    assert!(since.elapsed() < SOON, "it waited {:?}", since.elapsed());
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    assert_eq!(stdout.lines().count(), 1, "{stdout}");
    if !in_json {
        return Ok(stdout.trim_end().to_owned());
    }
    let accepted: Value = serde_json::from_str(&stdout)?;
    let id = text(&accepted["id"])?;
    assert_eq!(accepted, json!({"event": "accepted", "id": id, "targets": ["demo-1"]}));
    Ok(id)
}

/// Cancels; what it prints.
async fn cancelled(stack: &Stack, id: &str, in_json: bool) -> Result<String> {
    let args = if in_json { vec!["cancel", id, "--json"] } else { vec!["cancel", id] };
    let (code, stdout, stderr) = cli(stack, &args).await?;
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    Ok(stdout)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_not_awaited_goes_on_until_it_is_cancelled() -> Result<()> {
    let stack = Stack::start(Options::relays(1)).await?;
    for in_json in [false, true] {
        let id = not_awaited(&stack, in_json).await?;
        assert_eq!(executing(&stack).await?, id);
        let first = cancelled(&stack, &id, in_json).await?;
        assert_eq!(stack.http().settled(&id).await?["counts"], json!({"cancelled": 1}));
        let again = cancelled(&stack, &id, in_json).await?;
        if in_json {
            assert_eq!(serde_json::from_str::<Value>(&first)?, json!({"id": id, "cancelling": 1}));
            assert_eq!(serde_json::from_str::<Value>(&again)?, json!({"id": id, "cancelling": 0}));
        } else {
            assert_eq!(first, "cancelling 1 run\n");
            assert_eq!(again, "nothing to cancel: every run had ended\n");
        }
    }
    Ok(())
}

/// The rows of a table, without its head, as words.
fn rows(table: &str) -> Vec<Vec<&str>> {
    table.lines().skip(1).map(|line| line.split_whitespace().collect()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_say_what_http_says() -> Result<()> {
    let stack = Stack::start(Options::relays(2)).await?;
    let mut ids = Vec::new();
    for n in 0..3 {
        let command = stack.http().run("all", &format!("echo {n}")).await?;
        ids.insert(0, text(&command["id"])?);
    }
    let (code, stdout, stderr) = cli(&stack, &["machines"]).await?;
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    let found: Vec<_> = rows(&stdout).iter().map(|row| row[..2].join(" ")).collect();
    assert_eq!(found, ["demo-1 online", "demo-2 online"], "{stdout}");
    let (_, stdout, _) = cli(&stack, &["machines", "--json"]).await?;
    let found: Vec<_> = events(&stdout)?.iter().map(|m| json!([m["id"], m["token"], m["state"]])).collect();
    assert_eq!(found, [json!(["demo-1", "demo-1", "online"]), json!(["demo-2", "demo-2", "online"])]);
    let (code, stdout, stderr) = cli(&stack, &["commands"]).await?;
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    let found: Vec<_> = rows(&stdout).iter().map(|row| (row[0], *row.last().unwrap())).collect();
    let expected: Vec<_> = ids.iter().map(String::as_str).zip(["2", "1", "0"]).collect();
    assert_eq!(found, expected, "{stdout}");
    let (_, stdout, _) = cli(&stack, &["commands", "--json"]).await?;
    let listed = stack.http().json("/api/v1/commands").await?;
    assert_eq!(Value::from(events(&stdout)?), listed["items"]);
    let (_, stdout, _) = cli(&stack, &["commands", "--json", "--limit", "1"]).await?;
    assert_eq!(events(&stdout)?, [listed["items"][0].clone()]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_is_shown_with_its_runs_and_their_output() -> Result<()> {
    let stack = Stack::start(Options::relays(1)).await?;
    let command = stack.http().run("demo-1", "echo out; echo err >&2; exit 7").await?;
    let id = text(&command["id"])?;
    let (code, stdout, stderr) = cli(&stack, &["show", &id]).await?;
    assert_eq!((code, stderr.as_str()), (Some(0), "err\n"));
    let (head, runs) = stdout.split_once("\n\n").context("no table")?;
    assert!(head.starts_with("command  echo out; echo err >&2; exit 7\n"), "{stdout}");
    assert!(head.contains(&format!("\nid       {id}\non       demo-1\n")), "{stdout}");
    assert!(head.ends_with("\nstates   1 failed"), "{stdout}");
    let (table, output) = runs.split_once("\n\n").context("no output")?;
    assert_eq!(rows(table)[0][..3], ["demo-1", "failed", "7"], "{stdout}");
    assert_eq!(output, "out\n");
    let (code, stdout, stderr) = cli(&stack, &["show", &id, "--json"]).await?;
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    assert_eq!(events(&stdout)?, std::slice::from_ref(&command));
    let (_, stdout, _) = cli(&stack, &["show", &id, "--json", "--output"]).await?;
    let output = |stream: &str, data: &str| json!({"event": "output", "machine": "demo-1", "stream": stream, "offset": 0, "data": data});
    assert_eq!(events(&stdout)?, [command, output("stdout", "b3V0Cg=="), output("stderr", "ZXJyCg==")]);
    Ok(())
}

/// Runs `script` in a shell: `$0` is `signalbox`, `$1` is `argument`.
async fn shell(stack: &Stack, script: &str, argument: &Path, bound: Duration) -> Result<(String, String)> {
    let mut command = Command::new("sh");
    command.args(["-c", script]).arg(bin("signalbox")?).arg(argument);
    let shell = Daemon::spawn(command.env("SIGNALBOX_STATE_DIR", &stack.ready().state_dir))?;
    shell.wait(bound).await?;
    Ok((shell.stdout()?, shell.stderr()?))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stored_mailbox_can_be_decoded() -> Result<()> {
    let stack = without_relay().await?;
    let id = stack.http().submit("demo-1", "echo waits").await?;
    let (client, _task) = administrator(&stack).await?;
    let stream = async_nats::jetstream::new(client).get_stream("MBOX").await?;
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("mailbox");
    let found = eventually("a mailbox with the offer", || async {
        let message = stream.get_last_raw_message_by_subject("mbox.main.demo-1").await?;
        std::fs::write(&file, &message.payload)?;
        let (stdout, stderr) = shell(&stack, r#""$0" decode --json <"$1""#, &file, BOUND).await?;
        let found = events(&stdout).context(stderr)?;
        ensure!(found[0]["payload"]["offers"].get(0).is_some(), "{stdout}");
        Ok(found)
    })
    .await?;
    let [mailbox] = &found[..] else { anyhow::bail!("{} messages", found.len()) };
    for (message, kind) in [(mailbox, "mailbox"), (&mailbox["payload"]["offers"][0]["grant"], "grant")] {
        let said = json!([message["type"], message["signature"], message["signer"]]);
        assert_eq!(said, json!([kind, "verified", "bridge:local"]), "{message}");
        assert_eq!(message["payload"]["mid"], "demo-1");
    }
    let spec = &mailbox["payload"]["offers"][0]["spec"];
    assert_eq!((&spec["cid"], &spec["command"]), (&json!(id), &json!("echo waits")), "{spec}");
    let (stdout, stderr) = shell(&stack, r#""$0" decode <"$1""#, &file, BOUND).await?;
    assert_eq!(stderr, "");
    assert!(stdout.starts_with("type       mailbox\nsigner     bridge:local U"), "{stdout}");
    assert!(stdout.contains("\nsignature  verified\n") && stdout.contains("echo waits"), "{stdout}");
    Ok(())
}

/// Line n of `seq -w 1 500000` is n in six digits.
fn numbers() -> Vec<u8> {
    (1..=500_000).flat_map(|n| format!("{n:06}\n").into_bytes()).collect()
}

/// The pieces of `run --json`'s output: each where it says, none twice, what is missing is one gap.
fn pieces(events: &[Value], whole: &[u8]) -> Result<Vec<(usize, usize)>> {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for event in events.iter().filter(|event| event["event"] == "output") {
        let data = data_encoding::BASE64.decode(event["data"].as_str().context("no data")?.as_bytes())?;
        let start = usize::try_from(event["offset"].as_u64().context("no offset")?)?;
        let end = start + data.len();
        ensure!(whole.get(start..end) == Some(&data[..]), "other bytes at {start}..{end}");
        match ranges.last_mut() {
            Some(last) if last.1 == start => last.1 = end,
            last => {
                ensure!(last.is_none_or(|last| last.1 < start), "{start} comes again");
                ranges.push((start, end));
            }
        }
    }
    Ok(ranges)
}

#[tokio::test(flavor = "multi_thread")]
async fn output_that_is_cut_is_said_to_be_cut() -> Result<()> {
    let stack = Stack::start(Options::relays(1)).await?;
    let whole = numbers();
    let args = ["run", "--on", "demo-1", "--max-output", "1MiB", "--json", "--", "seq -w 1 500000"];
    let (code, stdout, stderr) = cli(&stack, &args).await?;
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    let events = events(&stdout)?;
    let ranges = pieces(&events, &whole)?;
    let [(0, head), (tail, end)] = ranges[..] else { anyhow::bail!("not a head and a tail: {ranges:?}") };
    // Each stream has half of what is kept past the cut.
    assert_eq!((head, end), (1 << 20, whole.len()), "{ranges:?}");
    assert_eq!((end - tail) as u64, limit::TAIL_BYTES / 2, "{ranges:?}");
    let last = events.iter().rfind(|event| event["event"] == "run").context("no run")?;
    let sha256 = data_encoding::HEXLOWER.encode(&Sha256::digest(&whole));
    assert_eq!(last["stdout"], json!({"bytes": whole.len(), "sha256": sha256, "truncated": true}));
    // For people: the same bytes, and a line that says that they are not all.
    let args = [&args[..5], &args[6..]].concat();
    let (code, stdout, stderr) = cli(&stack, &args).await?;
    assert_eq!(code, Some(0));
    assert!(stdout.as_bytes() == [&whole[..head], &whole[tail..]].concat(), "other bytes");
    assert!(stderr.contains("demo-1: completed, stdout is not complete, 3.3 MiB were written"), "{stderr}");
    let id = newest(&stack).await?;
    let (_, stdout, _) = cli(&stack, &["show", &id]).await?;
    assert!(stdout.contains("output is not complete"), "{}", &stdout[..1_000]);
    Ok(())
}

/// The newest command.
async fn newest(stack: &Stack) -> Result<String> {
    text(&stack.http().json("/api/v1/commands?limit=1").await?["items"][0]["id"])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_goes_away_is_no_reason_to_panic() -> Result<()> {
    let stack = Stack::start(Options::relays(1)).await?;
    let id = text(&stack.http().run("demo-1", "echo hi").await?["id"])?;
    for args in [
        &["machines"][..],
        &["machines", "--json"],
        &["commands"],
        &["show", &id],
        &["show", &id, "--json", "--output"],
        &["run", "--on", "demo-1", "--", "echo hi"],
        &["run", "--on", "demo-1", "--json", "--", "echo hi"],
    ] {
        let (reader, writer) = std::io::pipe()?;
        drop(reader);
        let mut command = stack.cli(args)?;
        command.stdin(Stdio::null()).stdout(writer);
        let output = spawn_blocking(move || command.output()).await??;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), said.as_str()), (Some(141), ""), "{args:?}");
    }
    // And one that goes away in the middle.
    let script = r#"{ "$0" run --on demo-1 --max-output 1MiB -- yes; echo "ends with $?" >&2; } | head -n 1"#;
    let said = shell(&stack, script, Path::new(""), BOUND).await?;
    assert_eq!(said, ("y\n".to_owned(), "ends with 141\n".to_owned()));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_mebibytes_pass_through_a_pipe() -> Result<()> {
    let stack = Stack::start(Options::relays(1)).await?;
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("noise");
    let make = format!("head -c 104857600 /dev/urandom > {}", file.display());
    assert_eq!(stack.http().run("demo-1", &make).await?["counts"], json!({"completed": 1}));
    let script = r#"{ "$0" run --on demo-1 --timeout 3m -- "cat $1"; echo "ends with $?" >&2; } | sha256sum"#;
    let (stdout, stderr) = shell(&stack, script, &file, Duration::from_mins(3)).await?;
    assert_eq!(stderr, "ends with 0\n");
    let noise = std::fs::read(&file)?;
    assert_eq!(noise.len(), 104_857_600);
    assert_eq!(stdout, format!("{}  -\n", data_encoding::HEXLOWER.encode(&Sha256::digest(&noise))));
    Ok(())
}
