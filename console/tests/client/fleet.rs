//! Lists that are watched, and the question before a command.

use std::{
    fs,
    process::{Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, kill_process};
use serde_json::{Value, json};
use signalbox_schemas::{
    api::op,
    error::{ErrorCode, Problem},
};
use signalbox_testkit::{
    process::{Daemon, Signal},
    pty::Pty,
};
use tokio::{task::spawn_blocking, time::timeout};

use super::{
    cases::ID,
    fake::{Desk, SOON},
};

fn machine(name: &str, state: &str, heard: u64) -> Value {
    json!({
        "id": name, "token": name, "state": state, "last_seen_at": heard, "running": 0, "pending": 0, "relay": null,
        "facts": null, "metrics": null,
    })
}

/// Answers one reading of the machines.
async fn machines(desk: &mut Desk, machines: &[Value]) {
    let asked = desk.asked().await;
    assert_eq!(asked.op, op::MACHINES_LIST);
    desk.fake.ok(&asked.rid, json!({ "items": machines, "next": null })).await;
}

fn program(desk: &Desk, args: &[&str]) -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_signalbox"));
    program.args(args).env_clear().env("SIGNALBOX_STATE_DIR", desk.dir.path());
    program
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_is_watched_in_a_pipe_tells_what_changes() {
    let mut desk = Desk::start().await;
    let watch = Daemon::spawn(&mut program(&desk, &["machines", "--watch"])).unwrap();
    machines(&mut desk, &[machine("a", "online", 1), machine("b", "online", 1)]).await;
    machines(&mut desk, &[machine("a", "online", 2), machine("b", "stale", 1)]).await;
    machines(&mut desk, &[machine("a", "online", 3)]).await;
    // It has been written before the next question.
    let asked = desk.asked().await;
    watch.signal(Signal::INT).unwrap();
    assert_eq!(watch.wait(SOON).await.unwrap().code(), Some(0));
    assert_eq!(asked.op, op::MACHINES_LIST);
    let out = watch.stdout().unwrap();
    let told: Vec<(String, String)> = out
        .lines()
        .map(|line| {
            let line: Value = serde_json::from_str(line).unwrap();
            let text = |name: &str| line[name].as_str().unwrap().to_owned();
            (text("change"), format!("{} {}", text("id"), text("state")))
        })
        .collect();
    let expected = [("new", "a online"), ("new", "b online"), ("changed", "b stale"), ("gone", "b stale")];
    assert_eq!(told, expected.map(|(change, row)| (change.to_owned(), row.to_owned())));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_is_watched_is_drawn_over_itself_and_ctrl_c_leaves_the_terminal_as_it_was() {
    let mut desk = Desk::start().await;
    let script = format!(
        "trap : INT; stty -a >{0}/before; {1} machines --watch; echo CODE=$?; stty -a >{0}/after",
        desk.dir.path().display(),
        env!("CARGO_BIN_EXE_signalbox")
    );
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", &script]).env_clear().env("SIGNALBOX_STATE_DIR", desk.dir.path());
    shell.env("TERM", "xterm").env("PATH", "/usr/bin:/bin").env("LANG", "C.UTF-8");
    let mut pty = Pty::spawn(&shell, 60, 8).unwrap();
    let many: Vec<Value> = (0..20).map(|n| machine(&format!("web-{n}"), "online", 1)).collect();
    machines(&mut desk, &many).await;
    let screen = pty.wait_for("and 15 more", SOON).await.unwrap();
    assert!(screen.starts_with("MACHINE"), "{screen}");
    machines(&mut desk, &[machine("web-0", "offline", 1)]).await;
    pty.wait_for("offline", SOON).await.unwrap();
    let screen = pty.screen();
    assert_eq!((screen.matches("MACHINE").count(), screen.matches("web-").count()), (1, 1), "{screen}");
    pty.type_keys("\x03").unwrap();
    pty.wait_for("CODE=0", SOON).await.unwrap();
    pty.wait(SOON).await.unwrap();
    let screen = pty.screen();
    assert!(screen.contains("offline"), "what was seen last is gone: {screen}");
    let bytes = String::from_utf8_lossy(&pty.bytes()).into_owned();
    assert!(bytes.rfind("\u{1b}[?25h") > bytes.rfind("\u{1b}[?25l"), "the cursor stays hidden");
    assert!(!bytes.contains("\u{1b}[?1049h"), "another screen was taken");
    let read = |name: &str| fs::read_to_string(desk.dir.path().join(name)).unwrap();
    assert_eq!(read("before"), read("after"), "the terminal is not as it was");
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_ends_a_list_that_is_watched_and_that_nobody_reads() {
    let mut desk = Desk::start().await;
    let mut command = program(&desk, &["machines", "--watch"]);
    let mut watch = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    // More than a pipe takes, each time; until nothing more is taken and so nothing asked.
    for state in ["online", "offline"].into_iter().cycle() {
        let Ok(asked) = timeout(Duration::from_secs(3), desk.asked()).await else { break };
        let all: Vec<Value> =
            (0..900).map(|n| machine(&format!("machine-with-a-name-{n:03}"), state, 1)).collect();
        desk.fake.ok(&asked.rid, json!({ "items": all, "next": null })).await;
    }
    let pid = i32::try_from(watch.id()).ok().and_then(Pid::from_raw).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    let mut ended = spawn_blocking(move || watch.wait().unwrap());
    let in_time = timeout(SOON, &mut ended).await;
    if in_time.is_err() {
        kill_process(pid, Signal::KILL).unwrap();
    }
    assert_eq!(in_time.unwrap().unwrap().code(), Some(0));
}

fn happened(sequence: u64) -> Value {
    json!({
        "sequence": sequence, "stored_at": 1, "ws": "main", "type": "machine.new", "at": 1, "bridge": "b1", "text": "new",
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_told_on_when_a_bridge_was_busy_until_ctrl_c() {
    let mut desk = Desk::start().await;
    let watch = Daemon::spawn(&mut program(&desk, &["events", "--watch"])).unwrap();
    for (behind, events) in
        [(Value::Null, Some(vec![happened(7)])), (json!(7), None), (json!(7), Some(vec![happened(8)]))]
    {
        let asked = desk.asked().await;
        assert_eq!(
            (asked.op.as_str(), asked.args.get("behind").unwrap_or(&Value::Null)),
            (op::EVENTS_LIST, &behind)
        );
        // Where there are none nobody answers.
        if let Some(events) = events {
            desk.fake.ok(&asked.rid, json!({ "items": events, "next": null })).await;
        }
    }
    assert_eq!(desk.asked().await.args["behind"], 8);
    watch.signal(Signal::INT).unwrap();
    assert_eq!(watch.wait(SOON).await.unwrap().code(), Some(0));
    let told = watch.stdout().unwrap();
    let told: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(told.iter().map(|event| event["sequence"].clone()).collect::<Vec<_>>(), [json!(7), json!(8)]);
    assert_eq!(watch.stderr().unwrap().matches("asking again").count(), 1);
}

/// A fleet that is protected, and a run on `demo-1` in it.
fn protected(desk: &Desk, more: &[&str]) -> Command {
    let file = desk.dir.path().join("config.toml");
    let text = format!(
        "[contexts.prod]\nstate_dir = {:?}\nprotected = true\n",
        desk.dir.path().display().to_string()
    );
    fs::write(&file, text).unwrap();
    let args = [&["run", "--context", "prod", "--on", "demo-1", "--no-wait"], more, &["--", "true"]].concat();
    let mut program = program(desk, &args);
    program.env_remove("SIGNALBOX_STATE_DIR").env("SIGNALBOX_CONFIG", file).env("HOME", desk.dir.path());
    program
}

async fn preview(desk: &mut Desk) {
    let asked = desk.asked().await;
    assert_eq!(asked.op, op::COMMANDS_PREVIEW);
    desk.fake
        .ok(
            &asked.rid,
            json!({ "targets": [{ "id": "demo-1", "token": "demo-1", "state": "online" }], "next": null }),
        )
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_protected_fleet_runs_nothing_that_nobody_was_asked_about() {
    let mut desk = Desk::start().await;
    for (more, code, said) in [
        (&[][..], 2, "the context prod is protected, and there is no terminal to ask on"),
        (&["--confirm", "2"], 3, "it would run on 1 machines, and --confirm says 2"),
    ] {
        let run = Daemon::spawn(&mut protected(&desk, more)).unwrap();
        preview(&mut desk).await;
        assert_eq!(run.wait(SOON).await.unwrap().code(), Some(code), "{more:?}");
        let err = run.stderr().unwrap();
        assert!(err.contains(said), "{more:?}: {err}");
    }
    let run = Daemon::spawn(&mut protected(&desk, &["--confirm", "1"])).unwrap();
    preview(&mut desk).await;
    assert_eq!(desk.asked().await.op, op::COMMANDS_SUBMIT);
    run.signal(Signal::KILL).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_number_of_machines_is_typed_in_a_protected_fleet() {
    let mut desk = Desk::start().await;
    for (answer, submits) in [("2\r", false), ("1\r", true)] {
        let mut command = protected(&desk, &[]);
        command.env("TERM", "xterm");
        let mut pty = Pty::spawn(&command, 100, 10).unwrap();
        preview(&mut desk).await;
        let screen = pty.wait_for("type 1 to run it:", SOON).await.unwrap();
        assert!(screen.contains("on 1 machines (demo-1): true"), "{screen}");
        pty.type_keys(answer).unwrap();
        if submits {
            assert_eq!(desk.asked().await.op, op::COMMANDS_SUBMIT);
        } else {
            pty.wait_for("nothing was submitted", SOON).await.unwrap();
            assert_eq!(pty.wait(Duration::from_secs(20)).await.unwrap().exit_code(), 3);
        }
    }
}

/// A command of two lines that failed on `demo-1`, once for each answer.
async fn failed(desk: &mut Desk) {
    failed_on(desk, &["demo-1"]).await;
}

async fn failed_on(desk: &mut Desk, machines: &[&str]) {
    let nothing = json!({ "bytes": 0, "sha256": null, "truncated": false });
    let run = |name: &&str| {
        json!({
            "machine": name, "state": "failed", "exit_code": 1, "signal": null, "error": null, "duration_ms": null,
            "group_dead": null, "stdout": nothing, "stderr": nothing,
        })
    };
    let asked = desk.asked().await;
    assert_eq!(asked.op, op::COMMANDS_GET);
    desk.fake
        .ok(
            &asked.rid,
            json!({
                "id": ID, "command": "echo \u{1b}[2Ka\nsignalbox: halt", "on": "os=debian", "by": "operator:local",
                "created_at": 1, "expires_at": 2, "timeout_ms": 30_000, "settled": true, "counts": { "failed": machines.len() },
                "target": { "ssh": { "host": "db-1", "port": 22, "username": "root" } }, "runs": machines.iter().map(run).collect::<Vec<_>>(),
            }),
        )
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_bridge_says_was_run_is_shown_whole_before_it_is_signed_again() {
    const SHOWN: &str =
        "signalbox: on root@db-1 via on 1 machine (demo-1):\n  | echo  [2Ka\n  | signalbox: halt\n";
    let mut desk = Desk::start().await;
    for more in [&["--yes"][..], &["--confirm", "1"], &[]] {
        let mut command = program(&desk, &[&["retry", ID, "--no-wait"], more].concat());
        let retry = Daemon::spawn(&mut command).unwrap();
        failed(&mut desk).await;
        preview(&mut desk).await;
        assert_eq!(desk.asked().await.op, op::COMMANDS_SUBMIT);
        retry.signal(Signal::KILL).unwrap();
        assert_eq!(retry.stderr().unwrap(), SHOWN, "{more:?}");
    }
    let mut command = program(&desk, &["retry", ID]);
    let mut pty = Pty::spawn(command.env("TERM", "xterm"), 100, 10).unwrap();
    failed(&mut desk).await;
    preview(&mut desk).await;
    let screen = pty.wait_for("type 1 to run it:", SOON).await.unwrap();
    assert!(screen.contains("  | signalbox: halt"), "{screen}");
    pty.type_keys("no\r").unwrap();
    pty.wait_for("nothing was submitted", SOON).await.unwrap();
    assert_eq!(pty.wait(SOON).await.unwrap().exit_code(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_names_its_machines_and_tells_of_those_that_are_gone() {
    let mut desk = Desk::start().await;
    let program = desk.signalbox(&["retry", ID, "--no-wait"], b"");
    failed_on(&mut desk, &["demo-1", "demo-2", "all"]).await;
    let asked = desk.asked().await;
    assert_eq!(asked.args["on"], "\"all\",demo-[1-2]");
    let target = json!({ "id": "demo-1", "token": "demo-1", "state": "online" });
    desk.fake.ok(&asked.rid, json!({ "targets": [target], "next": null })).await;
    let submit = desk.asked().await;
    assert_eq!(submit.op, op::COMMANDS_SUBMIT);
    desk.fake.refuse(&submit.rid, Problem::new(ErrorCode::Forbidden, "no")).await;
    let ended = timeout(SOON, program).await.unwrap().unwrap();
    assert!(ended.err.contains("2 of its 3 machines are left out"), "{}", ended.err);
    // None is left, whether the bridge says so or names none.
    for is_refused in [true, false] {
        let program = desk.signalbox(&["retry", ID], b"");
        failed(&mut desk).await;
        let asked = desk.asked().await;
        if is_refused {
            desk.fake.refuse(&asked.rid, Problem::new(ErrorCode::NoTargets, "none")).await;
        } else {
            desk.fake.ok(&asked.rid, json!({ "targets": [], "next": null })).await;
        }
        let ended = timeout(SOON, program).await.unwrap().unwrap();
        assert_eq!(ended.code, Some(3), "{}", ended.err);
        assert_eq!(
            ended.err,
            format!("signalbox: cannot retry {ID}: none of its 1 machines is there and meant by `demo-1`\n")
        );
    }
}
