//! Each command of the command line that is one operation: what it asks, what it prints, how it ends.

use rstest::rstest;
use serde_json::{Value, json};
use signalbox_schemas::error::{ErrorCode, Problem};
use tokio::time::timeout;

use super::fake::{Desk, Ended, SOON};

const ID: &str = "0193a2b4-0000-7000-8000-000000000000";

/// A command line, what it must ask, and what it is answered.
struct Case {
    args: &'static [&'static str],
    input: &'static str,
    op: &'static str,
    is_signed: bool,
    asked: Value,
    answer: Value,
    /// Words that people must see on stdout.
    shown: &'static [&'static str],
}

fn reads(
    args: &'static [&'static str],
    op: &'static str,
    asked: Value,
    answer: Value,
    shown: &'static [&'static str],
) -> Case {
    Case { args, input: "", op, is_signed: false, asked, answer, shown }
}

fn writes(
    args: &'static [&'static str],
    op: &'static str,
    asked: Value,
    answer: Value,
    shown: &'static [&'static str],
) -> Case {
    Case { is_signed: true, ..reads(args, op, asked, answer, shown) }
}

fn assignment() -> Value {
    json!({
        "id": "a-1", "machine_id": "web-1", "name": "Web\u{1b}[2J", "enabled": true, "created_by": "operator:local",
        "created_at": 1000, "updated_at": 1000, "last_seen_at": null, "is_online": false,
    })
}

fn relay() -> Value {
    json!({
        "assignment_id": "a-1", "machine_id": "web-1", "capabilities": ["local_cmd", "ssh"], "version": "1.0.0",
        "hostname": "web", "platform": "linux-x64", "metrics": { "cpu_percent": 12.4, "memory_percent": 40.4 },
        "created_at": 1000, "last_heartbeat_at": 2000, "is_online": true,
    })
}

fn credential() -> Value {
    json!({
        "assignment_id": "a-1", "machine_id": "web-1", "credential_name": "db key", "credential_type": "ssh_key",
        "target_host": "db.local", "storage_mode": "relay_only", "last_updated_at": 1000, "reported_at": 2000,
    })
}

fn shared() -> Value {
    json!({
        "id": "s-1", "name": "deploy", "credential_type": "password", "target_host": null, "storage_mode": "shared",
        "assigned": ["a-1", "a-2"], "created_by": "operator:local", "created_at": 1000, "updated_at": 1000,
    })
}

fn push(state: &str) -> Value {
    json!({
        "id": "p-1", "assignment_id": "a-1", "push_type": "ssh_targets", "payload": { "targets": ["db"] },
        "state": state, "error": "no\u{7}pe", "created_by": "operator:local", "created_at": 1000, "sent_at": null,
        "acked_at": null,
    })
}

fn run() -> Value {
    let nothing = json!({ "bytes": 0, "sha256": null, "truncated": false });
    json!({
        "command": {
            "id": ID, "command": "uptime", "on": "web-1", "by": "operator:local", "created_at": 1000,
            "expires_at": 2000, "timeout_ms": 30000, "settled": true, "counts": { "failed": 1 },
        },
        "machine": "web-1", "state": "failed", "exit_code": 7, "signal": null, "error": null, "duration_ms": 12,
        "group_dead": true, "stdout": nothing, "stderr": nothing,
    })
}

fn listed(item: &Value) -> Value {
    json!({ "items": [item], "next": null })
}

fn assignments() -> Vec<Case> {
    let with = |thing: Value, more: Value| {
        let Value::Object(mut members) = thing else { panic!("no object") };
        members.extend(more.as_object().unwrap().clone());
        Value::Object(members)
    };
    let with_key = with(assignment(), json!({ "api_key": "sk_0123456789abcdef" }));
    let new = |more| with(json!({ "machine_id": "web-1", "name": "Web" }), more);
    vec![
        reads(
            &["assignments", "--machine", "web-1"],
            "assignments.list",
            json!({ "machine_id": "web-1", "limit": 1000 }),
            listed(&assignment()),
            &["a-1", "web-1", "offline", "enabled", "not lately", "Web"],
        ),
        writes(
            &["assignment", "create", "web-1", "Web", "--created-by", "ops"],
            "assignments.create",
            new(json!({ "created_by": "ops" })),
            with_key.clone(),
            &["sk_0123456789abcdef"],
        ),
        Case {
            input: "sk_0123456789abcdef\n",
            ..writes(
                &["assignment", "create", "web-1", "Web", "--key-file", "-"],
                "assignments.create",
                new(json!({ "api_key": "sk_0123456789abcdef" })),
                with_key,
                &["a-1"],
            )
        },
        reads(
            &["assignment", "show", "a-1"],
            "assignments.get",
            json!({ "id": "a-1" }),
            assignment(),
            &["id            a-1\nmachine id    web-1\n", "enabled       yes", "last seen at  -", "ago"],
        ),
        writes(
            &["assignment", "rename", "a-1", "Other"],
            "assignments.update",
            json!({ "id": "a-1", "name": "Other" }),
            assignment(),
            &["a-1"],
        ),
        writes(
            &["assignment", "enable", "a-1"],
            "assignments.update",
            json!({ "id": "a-1", "enabled": true }),
            assignment(),
            &["a-1"],
        ),
        writes(
            &["assignment", "disable", "a-1"],
            "assignments.update",
            json!({ "id": "a-1", "enabled": false }),
            assignment(),
            &["a-1"],
        ),
        writes(
            &["assignment", "remove", "a-1", "--cascade"],
            "assignments.remove",
            json!({ "id": "a-1", "cascade": true }),
            json!({ "id": "a-1", "withdrawn": 2 }),
            &["withdrawn  2"],
        ),
        writes(
            &["assignment", "heartbeat", "a-1"],
            "assignments.heartbeat",
            json!({ "id": "a-1" }),
            assignment(),
            &["a-1"],
        ),
    ]
}

fn relays() -> Vec<Case> {
    vec![
        reads(
            &["relays", "--capability", "ssh", "--offline"],
            "relays.list",
            json!({ "capability": "ssh", "online": false, "limit": 1000 }),
            listed(&relay()),
            &["a-1", "web-1", "online", "12 %", "40 %", "linux-x64", "local_cmd,ssh"],
        ),
        reads(
            &["relay", "show", "a-1"],
            "relays.get",
            json!({ "id": "a-1" }),
            relay(),
            &["capabilities       local_cmd, ssh\n", "hostname           web\n", "\"cpu_percent\":12.4"],
        ),
        Case {
            input: r#"{"capabilities": ["ssh"], "metrics": {"cpu_percent": 3}, "id": "", "hostname": null, "version": "9"}"#,
            ..writes(
                &["relay", "report", "a-1", "--file", "-"],
                "relays.report",
                json!({ "id": "a-1", "capabilities": ["ssh"], "metrics": { "cpu_percent": 3 }, "version": "9" }),
                json!({ "pending_config_pushes": 3, "shared_credentials_count": 1 }),
                &["pending config pushes     3\n"],
            )
        },
        reads(
            &["credentials", "--target", "db.local"],
            "credentials.list",
            json!({ "target_host": "db.local", "limit": 1000 }),
            listed(&credential()),
            &["web-1", "ssh_key", "relay_only", "db.local", "db key"],
        ),
        reads(
            &["credentials", "--relay", "a-1"],
            "credentials.list",
            json!({ "assignment_id": "a-1", "limit": 1000 }),
            listed(&credential()),
            &["db key"],
        ),
    ]
}

fn shared_credentials() -> Vec<Case> {
    vec![
        reads(
            &["shared-credentials"],
            "shared_credentials.list",
            json!({ "limit": 1000 }),
            listed(&shared()),
            &["s-1", "password", "deploy"],
        ),
        Case {
            input: "00:11:22\n",
            ..writes(
                &[
                    "shared-credential",
                    "create",
                    "deploy",
                    "--type",
                    "password",
                    "--target",
                    "db",
                    "--value-file",
                    "-",
                    "--to",
                    "a-1",
                    "--to",
                    "a-2",
                ],
                "shared_credentials.create",
                json!({
                    "name": "deploy", "credential_type": "password", "target_host": "db",
                    "encrypted_value": "00:11:22", "assigned": ["a-1", "a-2"],
                }),
                shared(),
                &["assigned         a-1, a-2\n"],
            )
        },
        writes(
            &["shared-credential", "update", "s-1", "--to-nobody"],
            "shared_credentials.update",
            json!({ "id": "s-1", "assigned": [] }),
            shared(),
            &["s-1"],
        ),
        writes(
            &["shared-credential", "update", "s-1", "--name", "x", "--target", "h"],
            "shared_credentials.update",
            json!({ "id": "s-1", "name": "x", "target_host": "h" }),
            shared(),
            &["s-1"],
        ),
        reads(
            &["shared-credential", "show", "s-1"],
            "shared_credentials.get",
            json!({ "id": "s-1" }),
            shared(),
            &["deploy"],
        ),
        writes(
            &["shared-credential", "remove", "s-1"],
            "shared_credentials.remove",
            json!({ "id": "s-1" }),
            shared(),
            &["deploy"],
        ),
    ]
}

fn pushes() -> Vec<Case> {
    let new = json!({ "assignment_id": "a-1", "push_type": "ssh_targets", "payload": { "targets": ["db"] } });
    vec![
        reads(
            &["pushes", "--relay", "a-1", "--state", "failed"],
            "config_pushes.list",
            json!({ "assignment_id": "a-1", "state": "failed", "limit": 1000 }),
            listed(&push("failed")),
            &["p-1", "ssh_targets", "failed", "no pe"],
        ),
        writes(
            &["push", "create", "a-1", "ssh_targets", r#"{"targets": ["db"]}"#],
            "config_pushes.create",
            new.clone(),
            push("pending"),
            &["state          pending\n", r#"payload        {"targets":["db"]}"#],
        ),
        Case {
            input: r#"{"targets": ["db"]}"#,
            ..writes(
                &["push", "create", "a-1", "ssh_targets", "--payload-file", "-"],
                "config_pushes.create",
                new,
                push("pending"),
                &["p-1"],
            )
        },
        reads(&["push", "show", "p-1"], "config_pushes.get", json!({ "id": "p-1" }), push("sent"), &["sent"]),
        writes(
            &["push", "sent", "p-1"],
            "config_pushes.sent",
            json!({ "id": "p-1" }),
            push("sent"),
            &["sent"],
        ),
        writes(
            &["push", "ack", "p-1"],
            "config_pushes.ack",
            json!({ "id": "p-1", "success": true }),
            push("acked"),
            &["acked"],
        ),
        writes(
            &["push", "fail", "p-1", "--message", "no room"],
            "config_pushes.ack",
            json!({ "id": "p-1", "success": false, "error": "no room" }),
            push("failed"),
            &["failed"],
        ),
        writes(
            &["push", "retry", "p-1"],
            "config_pushes.retry",
            json!({ "id": "p-1" }),
            push("pending"),
            &["pending"],
        ),
    ]
}

fn work() -> Vec<Case> {
    vec![
        reads(
            &["runs", "--machine", "web-1", "--state", "failed", "--limit", "5"],
            "runs.list",
            json!({ "machine_id": "web-1", "state": "failed", "limit": 5 }),
            listed(&run()),
            &[ID, "web-1", "failed", "7", "12 ms", "uptime"],
        ),
        writes(
            &["work", "claim", ID, "--assignment", "a-1"],
            "runs.claim",
            json!({ "id": ID, "assignment_id": "a-1" }),
            json!({ "claimed": true }),
            &["claimed  yes"],
        ),
        Case {
            input: "so far\n",
            ..writes(
                &[
                    "work",
                    "complete",
                    ID,
                    "--assignment",
                    "a-1",
                    "--exit-code",
                    "-1",
                    "--stdout-file",
                    "-",
                    "--error",
                    "Command timed out",
                    "--took",
                    "3s",
                ],
                "runs.complete",
                json!({
                    "id": ID, "assignment_id": "a-1", "success": false, "output": "so far\n", "stderr": "",
                    "exit_code": -1, "error": "Command timed out", "duration_ms": 3000,
                }),
                json!({ "accepted": true }),
                &["accepted  yes"],
            )
        },
        writes(
            &["work", "complete", ID, "--assignment", "a-1", "--exit-code", "0"],
            "runs.complete",
            json!({
                "id": ID, "assignment_id": "a-1", "success": true, "output": "", "stderr": "", "exit_code": 0,
                "duration_ms": 0,
            }),
            json!({ "accepted": true }),
            &[],
        ),
    ]
}

/// Runs a command line that is answered once.
async fn answered(desk: &mut Desk, case: &Case, more: &[&str]) -> Ended {
    let args = [case.args, more].concat();
    let program = desk.signalbox(&args, case.input.as_bytes());
    let asked = desk.asked().await;
    assert_eq!((asked.op.as_str(), asked.is_signed), (case.op, case.is_signed), "{args:?}");
    assert_eq!(asked.args, case.asked, "{args:?}");
    desk.fake.ok(&asked.rid, &case.answer).await;
    timeout(SOON, program).await.unwrap().unwrap()
}

#[rstest]
#[case::assignments(assignments())]
#[case::relays(relays())]
#[case::shared_credentials(shared_credentials())]
#[case::pushes(pushes())]
#[case::work(work())]
#[tokio::test(flavor = "multi_thread")]
async fn each_command_asks_one_operation_and_prints_its_answer(#[case] cases: Vec<Case>) {
    let mut desk = Desk::start().await;
    for case in &cases {
        let args = case.args;
        let Ended { code, out, err } = answered(&mut desk, case, &[]).await;
        assert_eq!(code, Some(0), "{args:?}: {err}");
        for word in case.shown {
            assert!(out.contains(word), "{args:?} shows no {word:?}: {out}");
        }
        assert!(!out.contains(|c: char| c.is_control() && c != '\n'), "{args:?}: {out:?}");
        // What is foreign in the answer is in it for programs, too, and harmless there.
        let Ended { code, out, err } = answered(&mut desk, case, &["--json"]).await;
        assert_eq!((code, err.as_str()), (Some(0), ""), "{args:?}");
        assert!(!out.contains(|c: char| c.is_control() && c != '\n'), "{args:?}: {out:?}");
        let lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        match case.answer.get("items") {
            Some(items) => assert_eq!(Value::from(lines), *items, "{args:?}"),
            None => assert_eq!(lines, std::slice::from_ref(&case.answer), "{args:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_printed_alone_and_once() {
    let mut desk = Desk::start().await;
    let cases = assignments();
    let [_, drawn, brought, ..] = &cases[..] else { panic!("other cases") };
    let Ended { out, err, .. } = answered(&mut desk, drawn, &[]).await;
    assert_eq!(out, "sk_0123456789abcdef\n");
    assert_eq!(err, "signalbox: assignment a-1 of machine web-1; its key is not shown again\n");
    // Who brought a key has it.
    let Ended { out, err, .. } = answered(&mut desk, brought, &[]).await;
    assert_eq!((out.as_str(), err.as_str()), ("a-1\n", ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_of_somebody_else_ends_with_4() {
    let mut desk = Desk::start().await;
    for (args, op, answer) in [
        (&["work", "claim", ID, "--assignment", "a-1"][..], "runs.claim", json!({ "claimed": false })),
        (&["work", "complete", ID, "--assignment", "a-1"], "runs.complete", json!({ "accepted": false })),
    ] {
        let program = desk.signalbox(args, b"");
        let asked = desk.asked().await;
        assert_eq!(asked.op, op);
        desk.fake.ok(&asked.rid, answer).await;
        let ended = timeout(SOON, program).await.unwrap().unwrap();
        assert_eq!(ended.code, Some(4), "{ended:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_or_not_answered_says_what_to_do() {
    let mut desk = Desk::start().await;
    let program = desk.signalbox(&["assignment", "remove", "a-\u{9b}1"], b"");
    let asked = desk.asked().await;
    let problem = Problem::new(ErrorCode::NotFound, "there is no\u{1b} such assignment; list them");
    desk.fake.refuse(&asked.rid, problem).await;
    let ended = timeout(SOON, program).await.unwrap().unwrap();
    assert_eq!((ended.code, ended.out.as_str()), (Some(3), ""));
    assert_eq!(
        ended.err,
        "signalbox: cannot remove assignment a- 1: there is no  such assignment; list them\n"
    );
    // Nobody answers a change: it may have been made.
    let program = desk.signalbox(&["push", "retry", "p-1"], b"");
    desk.asked().await;
    let ended = timeout(SOON, program).await.unwrap().unwrap();
    assert_eq!(ended.code, Some(3));
    assert!(ended.err.contains("no bridge answered") && ended.err.contains("is not known"), "{}", ended.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_is_read_to_its_end_and_no_further() {
    let mut desk = Desk::start().await;
    let page = |n: usize, next: Value| json!({ "items": vec![run(); n], "next": next });
    let program = desk.signalbox(&["runs", "--limit", "1500", "--json"], b"");
    let asked = desk.asked().await;
    assert_eq!(asked.args, json!({ "limit": 1000 }));
    desk.fake.ok(&asked.rid, page(1000, "x".into())).await;
    let asked = desk.asked().await;
    assert_eq!(asked.args, json!({ "limit": 500, "after": "x" }));
    // Where few are meant, a page may have none, and the list goes on.
    desk.fake.ok(&asked.rid, page(0, "y".into())).await;
    let asked = desk.asked().await;
    assert_eq!(asked.args, json!({ "limit": 500, "after": "y" }));
    // More than was asked for is not shown.
    desk.fake.ok(&asked.rid, page(501, "z".into())).await;
    let ended = timeout(SOON, program).await.unwrap().unwrap();
    assert_eq!((ended.code, ended.out.lines().count()), (Some(0), 1500), "{}", ended.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_nothing_that_never_ends_is_refused() {
    let mut desk = Desk::start().await;
    let mut program = desk.signalbox(&["runs"], b"");
    let mut n = 0;
    let ended = loop {
        tokio::select! {
            ended = &mut program => break ended.unwrap(),
            asked = desk.asked() => {
                n += 1;
                desk.fake.ok(&asked.rid, json!({ "items": [], "next": n.to_string() })).await;
            }
        }
    };
    assert_eq!((ended.code, ended.out.as_str()), (Some(3), ""));
    assert!(ended.err.contains("goes on without items"), "{}", ended.err);
}

#[rstest]
#[case::no_object(&["push", "create", "a", "ssh_targets", "[]"], "", "must be a JSON object")]
#[case::no_json(&["push", "create", "a", "ssh_targets", "{"], "", "is no JSON")]
#[case::long(&["push", "create", "a", "ssh_targets", "--payload-file", "/dev/zero"], "", "65536 bytes")]
#[case::empty_key(&["assignment", "create", "m", "n", "--key-file", "-"], "\n", "stdin is empty")]
#[case::long_key(&["assignment", "create", "m", "n", "--key-file", "/dev/zero"], "", "258 bytes")]
#[case::empty_value(&["shared-credential", "create", "n", "--type", "password", "--value-file", "-"], "", "is empty")]
#[case::report(&["relay", "report", "a", "--file", "-"], r#"{"capabilities": [], "cpu": 1}"#, "unknown field `cpu`")]
#[case::metric(
    &["relay", "report", "a", "--file", "-"], r#"{"capabilities": [], "metrics": {"cpuPercent": 1}}"#, "unknown field `cpuPercent`"
)]
#[case::member_of_credential(
    &["relay", "report", "a", "--file", "-"],
    r#"{"capabilities": [], "credentials": [{"credential_name": "n", "credential_type": "api_key", "storage_mode": "shared", "last_updated_at": 1, "value": "x"}]}"#,
    "unknown field `value`"
)]
#[case::foreign_report(&["relay", "report", "a", "--file", "-"], r#"{"id": "b", "capabilities": []}"#, "another relay's")]
#[case::wait_key(&["exec", "m", "--idempotency-key", "", "--", "true"], "", "idempotency key")]
#[case::no_host(&["exec", "m", "--ssh", "me@a b", "--", "true"], "", "without white space")]
#[tokio::test(flavor = "multi_thread")]
async fn wrong_input_is_2_and_nothing_is_asked(
    #[case] args: &[&str],
    #[case] input: &str,
    #[case] said: &str,
) {
    let desk = Desk::start().await;
    let ended = timeout(SOON, desk.signalbox(args, input.as_bytes())).await.unwrap().unwrap();
    assert_eq!((ended.code, ended.out.as_str()), (Some(2), ""), "{}", ended.err);
    assert!(ended.err.lines().count() == 1 && ended.err.contains(said), "{}", ended.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_be_read_is_named() {
    let desk = Desk::start().await;
    let args = ["assignment", "create", "m", "n", "--key-file", "/nonexistent/key"];
    let ended = timeout(SOON, desk.signalbox(&args, b"")).await.unwrap().unwrap();
    assert_eq!(ended.code, Some(1), "{}", ended.err);
    assert!(ended.err.contains("the API key from /nonexistent/key"), "{}", ended.err);
}
