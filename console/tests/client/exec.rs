//! `signalbox exec`: one machine, a wait of its own, one command per key.

use serde_json::{Value, json};
use signalbox_schemas::{
    api::{FeedEvent, OpenFeed, Submit},
    command::CommandSpec,
    error::{ErrorCode, Problem},
    id::CommandId,
    run::RunState,
};
use tokio::{task::JoinHandle, time::timeout};

use super::fake::{Asked, Desk, Ended, SOON};

/// What is not about signs of life.
async fn asked(desk: &mut Desk, op: &str) -> Asked {
    let asked = desk.asked().await;
    assert_eq!(asked.op, op, "{asked:?}");
    asked
}

fn targets(names: &[&str]) -> Value {
    let target = |name: &&str| json!({ "id": name, "token": name, "state": "online" });
    json!({ "targets": names.iter().map(target).collect::<Vec<_>>() })
}

/// Answers everything up to the accepted command; the spec as it was signed.
async fn accept(desk: &mut Desk) -> CommandSpec {
    let preview = asked(desk, "commands.preview").await;
    assert_eq!(preview.args, json!({ "on": "demo-1", "limit": 1_000 }));
    desk.fake.ok(&preview.rid, targets(&["demo-1"])).await;
    let submit = asked(desk, "commands.submit").await;
    let spec = spec(&submit.args);
    desk.fake.ok(&submit.rid, json!({ "id": spec.cid, "targets": ["demo-1"], "cursor": "" })).await;
    spec
}

fn spec(submit: &Value) -> CommandSpec {
    let submit: Submit = serde_json::from_value(submit.clone()).unwrap();
    CommandSpec::from_bytes(&submit.spec.0).unwrap()
}

fn run(state: &str, exit_code: Option<i32>) -> Value {
    let nothing = json!({ "bytes": 0, "sha256": null, "truncated": false });
    json!({
        "machine": "demo-1", "state": state, "exit_code": exit_code, "signal": null, "error": null,
        "duration_ms": null, "group_dead": null, "stdout": nothing, "stderr": nothing,
    })
}

/// Answers the feed: output, and an exit code.
async fn end(desk: &mut Desk, id: CommandId, exit_code: i32) {
    let open = asked(desk, "feed.open").await;
    let opened: OpenFeed = serde_json::from_value(open.args).unwrap();
    assert_eq!(opened.watch, signalbox_schemas::api::Watch::Command { id, output: true, ended_bytes: None });
    let (state, word) = match exit_code {
        0 => (RunState::Completed, "completed"),
        _ => (RunState::Failed, "failed"),
    };
    desk.fake.chunk(&open.rid, 0, 0, b"out\n").await;
    let ended = serde_json::from_value(run(word, Some(exit_code))).unwrap();
    desk.fake.event(&open.rid, 1, FeedEvent::Run(ended)).await;
    desk.fake.event(&open.rid, 2, FeedEvent::Settled { counts: [(state, 1)].into() }).await;
    asked(desk, "feed.close").await;
}

async fn ended(program: JoinHandle<Ended>) -> Ended {
    timeout(SOON, program).await.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn output_and_exit_code_come_back() {
    let mut desk = Desk::start().await;
    for (exit_code, expected) in [(0, 0), (7, 1)] {
        let args = ["exec", "demo-1", "--ssh", "me@[::1]:2222", "--created-by", "app", "--", "exit", "7"];
        let program = desk.signalbox(&args, b"");
        let spec = accept(&mut desk).await;
        assert_eq!((spec.command.as_str(), spec.on.as_str(), spec.timeout_ms), ("exit 7", "demo-1", 30_000));
        assert_eq!(spec.expires_at - spec.created_at, 35_000, "it would start when nobody waits for it");
        let ssh = json!({ "ssh": { "host": "::1", "port": 2222, "username": "me" } });
        assert_eq!(serde_json::to_value(&spec.target).unwrap(), ssh);
        assert_eq!((spec.crit, spec.created_by.as_deref()), (vec!["target".to_owned()], Some("app")));
        end(&mut desk, spec.cid, exit_code).await;
        let Ended { code, out, err } = ended(program).await;
        assert_eq!((code, out.as_str(), err.as_str()), (Some(expected), "out\n", ""));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_wait_is_over_the_command_goes_on() {
    let mut desk = Desk::start().await;
    let args = ["exec", "demo-1", "--wait", "300ms", "--timeout", "1h", "--", "sleep 9"];
    let program = desk.signalbox(&args, b"");
    let spec = accept(&mut desk).await;
    assert_eq!(spec.timeout_ms, 3_600_000, "the wait is no limit of the command");
    asked(&mut desk, "feed.open").await;
    let Ended { code, out, err } = ended(program).await;
    assert_eq!((code, out.as_str()), (Some(4), ""), "{err}");
    assert!(
        err.contains(&format!("gave up waiting for {} after 300 ms; what has begun goes on", spec.cid)),
        "{err}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_wait_gets_the_id_of_a_command_that_may_start() {
    let mut desk = Desk::start().await;
    for (more, life) in [(&[][..], 86_400_000), (&["--expires-in", "1h"], 3_600_000)] {
        let args = [&["exec", "demo-1", "--wait", "0s"], more, &["--", "true"]].concat();
        let program = desk.signalbox(&args, b"");
        let spec = accept(&mut desk).await;
        assert_eq!(spec.expires_at - spec.created_at, life, "{args:?}");
        let Ended { code, out, err } = ended(program).await;
        assert_eq!((code, out, err.as_str()), (Some(0), format!("{}\n", spec.cid), ""), "{args:?}");
    }
    // Without a word of the line it is as configured.
    let file = desk.dir.path().join("config.toml");
    std::fs::write(&file, "[run]\nexpires_in = \"2h\"\n").unwrap();
    let mut program = std::process::Command::new(env!("CARGO_BIN_EXE_signalbox"));
    program.args(["exec", "demo-1", "--wait", "0s", "--", "true"]).env_clear();
    program.env("SIGNALBOX_STATE_DIR", desk.dir.path()).env("SIGNALBOX_CONFIG", &file);
    let program = signalbox_testkit::process::Daemon::spawn(&mut program).unwrap();
    let spec = accept(&mut desk).await;
    assert_eq!(spec.expires_at - spec.created_at, 7_200_000);
    assert_eq!(program.wait(SOON).await.unwrap().code(), Some(0));
    // What is given up at once is cancelled.
    let args = ["exec", "demo-1", "--wait", "0s", "--cancel-on-give-up", "--", "true"];
    let program = desk.signalbox(&args, b"");
    let spec = accept(&mut desk).await;
    let cancel = loop {
        // Its end may have been asked for by then.
        let asked = desk.asked().await;
        if asked.op != "feed.open" {
            break asked;
        }
    };
    assert_eq!((cancel.op.as_str(), cancel.args), ("commands.cancel", json!({ "id": spec.cid })));
    desk.fake.ok(&cancel.rid, json!({ "cancelling": 1 })).await;
    assert_eq!(ended(program).await.code, Some(4));
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_wait_is_over_the_command_is_cancelled_if_wished() {
    let mut desk = Desk::start().await;
    let args = ["exec", "demo-1", "--wait", "300ms", "--cancel-on-give-up", "--json", "--", "sleep 9"];
    let program = desk.signalbox(&args, b"");
    let spec = accept(&mut desk).await;
    asked(&mut desk, "feed.open").await;
    let cancel = asked(&mut desk, "commands.cancel").await;
    assert_eq!(cancel.args, json!({ "id": spec.cid }));
    desk.fake.ok(&cancel.rid, json!({ "cancelling": 1 })).await;
    let Ended { code, out, err } = ended(program).await;
    assert_eq!(code, Some(4), "{err}");
    assert!(err.ends_with("cancelling it\n"), "{err}");
    let last: Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
    assert_eq!(last, json!({ "event": "gave_up", "id": spec.cid, "cancelling": 1, "exit": 4 }));
}

/// The command as a bridge shows it.
fn view(spec: &CommandSpec) -> Value {
    json!({
        "id": spec.cid, "command": spec.command, "on": spec.on, "by": spec.by, "created_at": spec.created_at,
        "expires_at": spec.expires_at, "timeout_ms": spec.timeout_ms, "settled": false,
        "counts": { "executing": 1 }, "runs": [run("executing", None)],
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_comes_back_to_the_same_command() {
    let mut desk = Desk::start().await;
    let args = ["exec", "demo-1", "--idempotency-key", "monday", "--", "uptime"];
    let program = desk.signalbox(&args, b"");
    let id = CommandId::from_idempotency_key("operator:local", "monday");
    let get = asked(&mut desk, "commands.get").await;
    assert_eq!(get.args, json!({ "id": id, "limit": 1_000 }));
    desk.fake.refuse(&get.rid, Problem::new(ErrorCode::NotFound, "no such command")).await;
    let spec = accept(&mut desk).await;
    assert_eq!(spec.cid, id);
    end(&mut desk, id, 0).await;
    assert_eq!(ended(program).await.code, Some(0));
    // Again: nothing is submitted, its end is waited for.
    let program = desk.signalbox(&args, b"");
    let get = asked(&mut desk, "commands.get").await;
    desk.fake.ok(&get.rid, view(&spec)).await;
    end(&mut desk, id, 0).await;
    let Ended { code, out, err } = ended(program).await;
    assert_eq!((code, out.as_str(), err.as_str()), (Some(0), "out\n", ""));
    // Who waits longer or shorter the second time means the same command.
    for wait in ["9s", "2m"] {
        let args = ["exec", "demo-1", "--idempotency-key", "monday", "--wait", wait, "--", "uptime"];
        let program = desk.signalbox(&args, b"");
        let get = asked(&mut desk, "commands.get").await;
        desk.fake.ok(&get.rid, view(&spec)).await;
        end(&mut desk, id, 0).await;
        let Ended { code, err, .. } = ended(program).await;
        assert_eq!((code, err.as_str()), (Some(0), ""), "--wait {wait}");
    }
    // Another wish under the same key is none.
    for other in [
        &["exec", "demo-1", "--idempotency-key", "monday", "--", "reboot"][..],
        &["exec", "demo-1", "--idempotency-key", "monday", "--timeout", "31s", "--", "uptime"],
        &["exec", "demo-1", "--idempotency-key", "monday", "--created-by", "x", "--", "uptime"],
        &["exec", "demo-1", "--idempotency-key", "monday", "--ssh", "me@db", "--", "uptime"],
        &["exec", "demo-2", "--idempotency-key", "monday", "--", "uptime"],
        &["exec", "demo-1", "--idempotency-key", "monday", "--expires-in", "1h", "--", "uptime"],
    ] {
        let program = desk.signalbox(other, b"");
        let get = asked(&mut desk, "commands.get").await;
        desk.fake.ok(&get.rid, view(&spec)).await;
        let Ended { code, err, .. } = ended(program).await;
        assert_eq!(code, Some(3), "{other:?}: {err}");
        assert!(err.contains("was used for another command"), "{other:?}: {err}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_faster_under_the_same_key_is_followed() {
    let mut desk = Desk::start().await;
    let program = desk.signalbox(&["exec", "demo-1", "--idempotency-key", "k", "--", "uptime"], b"");
    let get = asked(&mut desk, "commands.get").await;
    desk.fake.refuse(&get.rid, Problem::new(ErrorCode::NotFound, "no such command")).await;
    let preview = asked(&mut desk, "commands.preview").await;
    desk.fake.ok(&preview.rid, targets(&["demo-1"])).await;
    let submit = asked(&mut desk, "commands.submit").await;
    assert_eq!(submit.args["idempotency_key"], "k");
    let mut spec = spec(&submit.args);
    desk.fake.refuse(&submit.rid, Problem::new(ErrorCode::IdConflict, "the id is taken")).await;
    let get = asked(&mut desk, "commands.get").await;
    // Made a little earlier.
    (spec.created_at, spec.expires_at) = (spec.created_at - 9, spec.expires_at - 9);
    desk.fake.ok(&get.rid, view(&spec)).await;
    end(&mut desk, spec.cid, 0).await;
    let Ended { code, out, err } = ended(program).await;
    assert_eq!((code, out.as_str(), err.as_str()), (Some(0), "out\n", ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn it_runs_on_one_machine_or_on_none() {
    let mut desk = Desk::start().await;
    for (machines, said) in [(&[][..], "no machine matches"), (&["demo-1", "demo-2"], "is not meant by")] {
        let program = desk.signalbox(&["exec", "demo-1", "--", "uptime"], b"");
        let preview = asked(&mut desk, "commands.preview").await;
        desk.fake.ok(&preview.rid, targets(machines)).await;
        let Ended { code, err, .. } = ended(program).await;
        assert_eq!(code, Some(3), "{err}");
        assert!(err.contains(said), "{err}");
    }
    // A name that reads like a glob is a name.
    let program = desk.signalbox(&["exec", "*", "--", "uptime"], b"");
    let preview = asked(&mut desk, "commands.preview").await;
    assert_eq!(preview.args, json!({ "on": "\"*\"", "limit": 1_000 }));
    desk.fake.ok(&preview.rid, targets(&[])).await;
    assert_eq!(ended(program).await.code, Some(3));
}
