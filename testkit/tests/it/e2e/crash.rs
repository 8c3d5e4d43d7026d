//! Each part dies at each point of the table: at most one start, exactly one end, never a false `completed`.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use rstest::rstest;
use serde_json::json;
use signalbox_schemas::run::Exit;
use signalbox_testkit::{
    eventually::{eventually, eventually_within},
    http::{Http, run_on},
    process::{Signal, dead, is_alive, kill, signal, stands_still},
    stack::{Options, Stack},
};

use super::{
    facts::{EXITED, Facts, LOST, one_end},
    wire::numbers,
};

/// Output of the commands below: far more than an exit carries itself, so it goes out in chunks.
const LINES: usize = 60_000;

/// Leaves a mark at each start, writes output, and ends with 0.
fn marked(file: &Path) -> String {
    format!("echo start >> {}; seq 1 {LINES}; sleep 0.3; echo end", file.display())
}

/// The same; its last line waits until the gate has gone.
fn held(file: &Path, gate: &Path) -> String {
    let wait = format!("while [ -e {} ]; do sleep 0.02; done", gate.display());
    format!("echo start >> {}; seq 1 {LINES}; {wait}; echo end", file.display())
}

fn expected_output() -> String {
    numbers(LINES) + "end\n"
}

fn starts(file: &Path) -> usize {
    std::fs::read_to_string(file).map_or(0, |text| text.lines().count())
}

/// The command ran once, its output came whole and as chunks, and its end is the only one.
async fn completed_once(stack: &Stack, http: &Http, id: &str, file: &Path) -> Result<()> {
    let command = http.settled(id).await?;
    let run = run_on(&command, "demo-1")?;
    assert_eq!(run["state"], "completed", "{run}");
    assert_eq!(starts(file), 1, "started more than once");
    let output = http.output(id, "demo-1", "stdout").await?;
    assert!(output == expected_output().as_bytes(), "{} bytes differ from what was written", output.len());
    assert_eq!(run["stdout"]["bytes"], output.len());
    assert!(Facts::of(stack, id, "demo-1").await?.read::<Exit>("exit")?.chunks > 0);
    one_end(stack, http, id, EXITED).await
}

/// Submits under a key: however often, it is one command.
async fn submit_with_key(http: &Http, command: &str) -> Result<String> {
    let body = serde_json::to_vec(&json!({"on": "demo-1", "command": command}))?;
    let headers = [("content-type", "application/json"), ("idempotency-key", "crash")];
    let answer = http.request("POST", "/api/v1/commands", &headers, body).await?;
    let said = answer.json()?;
    ensure!(answer.status == 202, "submit answers {}: {said}", answer.status);
    Ok(said["id"].as_str().context("no id")?.to_owned())
}

/// The key finds the command again, and there is no other.
async fn is_the_only_one(http: &Http, id: &str, command: &str) -> Result<()> {
    assert_eq!(submit_with_key(http, command).await?, id);
    let listed = http.json("/api/v1/commands").await?;
    assert_eq!(listed["items"].as_array().context("no items")?.len(), 1, "{listed}");
    Ok(())
}

#[rstest]
#[case::claim_sent("claim.sent")]
#[case::claim_acked("claim.acked")]
#[case::spawned("spawned")]
#[case::output_half("output.half")]
#[case::exit_written("exit.written")]
#[case::exit_unacked("exit.unacked")]
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_relay_is_followed_by_one_that_ends_its_run(#[case] point: &str) -> Result<()> {
    let stack = Stack::start(Options::relays(1).crash_at(&format!("relay:{point}"))).await?;
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("starts");
    let id = stack.http().submit("demo-1", &marked(&file)).await?;
    dead(stack.machine(0)?.pid).await?;
    let _relay = stack.start_relay(0, None).await?;
    completed_once(&stack, stack.http(), &id, &file).await
}

#[rstest]
#[case::spawned("spawned", 0)]
#[case::output_half("output.half", 1)]
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_keepers_run_is_lost_and_its_processes_are_gone(
    #[case] point: &str,
    #[case] at_least: usize,
) -> Result<()> {
    let stack = Stack::start(Options::relays(1).crash_at(&format!("keeper:{point}"))).await?;
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("pids");
    let command = format!("echo $$ >> {}; echo out; sleep 300", file.display());
    let id = stack.http().submit("demo-1", &command).await?;
    dead(stack.machine(0)?.keeper_pid).await?;
    let command = stack.http().settled(&id).await?;
    let run = run_on(&command, "demo-1")?;
    assert_eq!(run["state"], "lost", "{run}");
    assert_eq!(run["error"]["code"], "keeper_gone");
    assert!((at_least..=1).contains(&starts(&file)), "started {} times", starts(&file));
    for pid in std::fs::read_to_string(&file).unwrap_or_default().lines() {
        let pid: u32 = pid.parse()?;
        eventually("the end of what the keeper had started", || async move {
            ensure!(!is_alive(pid), "{pid} is alive");
            Ok(())
        })
        .await?;
    }
    one_end(&stack, stack.http(), &id, LOST).await?;
    // A machine without the crash point works: a new relay, a new keeper.
    kill(stack.machine(0)?.pid).await?;
    super::store::end_keeper(&stack.machine(0)?.store)?;
    let _relay = stack.start_relay(0, None).await?;
    let command = stack.http().run("demo-1", "echo again").await?;
    assert_eq!(command["counts"], json!({"completed": 1}));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keeper_killed_with_the_end_in_its_hand_never_makes_a_false_completed() -> Result<()> {
    let stack = Stack::start(Options::relays(1).crash_at("keeper:exit.written")).await?;
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("starts");
    let id = stack.http().submit("demo-1", &marked(&file)).await?;
    dead(stack.machine(0)?.keeper_pid).await?;
    let command = stack.http().settled(&id).await?;
    assert_eq!(run_on(&command, "demo-1")?["state"], "lost");
    assert_eq!(starts(&file), 1);
    one_end(&stack, stack.http(), &id, LOST).await
}

#[rstest]
#[case::submit_acked("submit.acked")]
#[case::mailbox_written("mailbox.written")]
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_bridge_is_followed_by_one_that_delivers(#[case] point: &str) -> Result<()> {
    // The bridge writes a first mailbox for each machine when it starts: the second one has the offer.
    let nth = if point == "mailbox.written" { ":2" } else { "" };
    let stack = Stack::start(Options::relays(1).crash_at(&format!("bridge:{point}{nth}"))).await?;
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("starts");
    // The answer may be lost with the bridge: the key finds the command again.
    let first = submit_with_key(stack.http(), &marked(&file)).await;
    dead(stack.ready().pids.bridge).await?;
    let (_bridge, http) = stack.start_bridge(&stack.ready().bridge_data).await?;
    let id = submit_with_key(&http, &marked(&file)).await?;
    if let Ok(first) = first {
        assert_eq!(first, id);
    }
    completed_once(&stack, &http, &id, &file).await?;
    is_the_only_one(&http, &id, &marked(&file)).await
}

/// Waits until a part stands still, and names it.
async fn standing_still(stack: &Stack) -> Result<(&'static str, u32)> {
    let machine = stack.machine(0)?;
    let parts =
        [("relay", machine.pid), ("keeper", machine.keeper_pid), ("bridge", stack.ready().pids.bridge)];
    eventually_within("the stop", Duration::from_secs(20), || async {
        parts.into_iter().find(|(_, pid)| stands_still(*pid)).context("nobody stands still")
    })
    .await
}

/// Kills the broker and waits for the next one, then lets the part that stands still go on.
async fn replace_broker(stack: &Stack, (part, pid): (&str, u32)) -> Result<()> {
    let broker = stack.pid("broker")?;
    signal(broker, Signal::KILL)?;
    if part == "bridge" {
        // It is what starts the broker again.
        signal(pid, Signal::CONT)?;
    }
    eventually("a new broker", || async {
        let now = stack.pid("broker")?;
        ensure!(now != broker && is_alive(now), "still {now}");
        Ok(())
    })
    .await?;
    signal(pid, Signal::CONT)
}

/// Does the work while the broker is replaced whenever a part stands still; answers when both have come to their
/// ends, with the parts that stood still.
async fn while_brokers_die<T>(
    stack: &Stack,
    stops: usize,
    work: impl Future<Output = Result<T>>,
) -> Result<(T, Vec<&'static str>)> {
    let (mut work, mut done, mut stopped) = (std::pin::pin!(work), None, Vec::new());
    loop {
        tokio::select! {
            result = &mut work, if done.is_none() => done = Some(result?),
            part = standing_still(stack), if stopped.len() < stops => {
                let part = part?;
                replace_broker(stack, part).await?;
                stopped.push(part.0);
            }
            else => return Ok((done.context("invariant: the work is done")?, stopped)),
        }
    }
}

/// Submits the command, opens its gate when all output before it has come, and waits for the end.
async fn run_to_its_end(http: &Http, command: &str, gate: &Path) -> Result<String> {
    let id = eventually("acceptance", || submit_with_key(http, command)).await?;
    eventually_within("the output before the gate", Duration::from_secs(30), || async {
        let output = http.output(&id, "demo-1", "stdout").await?;
        ensure!(output == numbers(LINES).as_bytes(), "{} bytes", output.len());
        Ok(())
    })
    .await?;
    std::fs::remove_file(gate)?;
    http.settled(&id).await?;
    Ok(id)
}

/// Whoever reaches the point stands still; the broker is killed and comes back; the part goes on.
#[rstest]
#[case::submit_acked("submit.acked", &["bridge"])]
#[case::mailbox_written("mailbox.written:2", &["bridge"])]
#[case::claim_sent("claim.sent", &["relay"])]
#[case::claim_acked("claim.acked", &["relay"])]
#[case::spawned("spawned", &["keeper", "relay"])]
#[case::output_half("output.half", &["keeper", "relay"])]
#[case::exit_written("exit.written", &["keeper", "relay"])]
#[case::exit_unacked("exit.unacked", &["relay"])]
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_broker_loses_nothing(#[case] point: &str, #[case] parts: &[&str]) -> Result<()> {
    let options = Options::relays(1).env("SIGNALBOX_CRASH_AT", format!("broker:{point}"));
    let stack = Stack::start(options).await?;
    let dir = tempfile::tempdir()?;
    let (file, gate) = (dir.path().join("starts"), dir.path().join("gate"));
    std::fs::write(&gate, "")?;
    let command = held(&file, &gate);
    let work = run_to_its_end(stack.http(), &command, &gate);
    let (id, stopped) = while_brokers_die(&stack, parts.len(), work).await?;
    assert_eq!(stopped, parts);
    completed_once(&stack, stack.http(), &id, &file).await?;
    is_the_only_one(stack.http(), &id, &command).await
}

/// Bytes that the broker's socket has received and the broker has not read, see `proc_net_tcp(5)`.
fn unread_by_broker(stack: &Stack) -> Result<u64> {
    let port: u16 = stack.ready().nats.rsplit(':').next().context("no port")?.parse()?;
    let local = format!(":{port:04X}");
    let mut unread = 0;
    for line in std::fs::read_to_string("/proc/net/tcp")?.lines() {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let [_, address, _, "01", queues, ..] = columns[..] else { continue };
        if address.ends_with(&local) {
            let (_, received) = queues.split_once(':').context("no queues")?;
            unread += u64::from_str_radix(received, 16)?;
        }
    }
    Ok(unread)
}

#[tokio::test(flavor = "multi_thread")]
async fn output_that_the_killed_broker_had_not_read_is_sent_again() -> Result<()> {
    let options = Options::relays(1).env("SIGNALBOX_CRASH_AT", "broker:output.half:2");
    let stack = Stack::start(options).await?;
    let dir = tempfile::tempdir()?;
    let (file, gate) = (dir.path().join("starts"), dir.path().join("gate"));
    std::fs::write(&gate, "")?;
    let command = held(&file, &gate);
    let work = run_to_its_end(stack.http(), &command, &gate);
    let breaking = async {
        let (part, relay) = standing_still(&stack).await?;
        assert_eq!(part, "relay");
        signal(stack.pid("broker")?, Signal::STOP)?;
        signal(relay, Signal::CONT)?;
        eventually("a chunk that the broker does not read", || async {
            let unread = unread_by_broker(&stack)?;
            ensure!(unread > 16 * 1024, "{unread} bytes");
            Ok(())
        })
        .await?;
        replace_broker(&stack, (part, relay)).await
    };
    let (id, ()) = futures_util::future::try_join(work, breaking).await?;
    completed_once(&stack, stack.http(), &id, &file).await
}
