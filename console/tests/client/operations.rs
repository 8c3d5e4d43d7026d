//! Each command of the command line that is one operation: what it asks, what it prints, how it ends.

use rstest::rstest;
use serde_json::{Value, json};
use signalbox_schemas::{
    error::{ErrorCode, Problem},
    id::Sha256,
};
use tokio::time::timeout;

use super::{
    cases::{Case, ID, assignment, assignments, pushes, relays, run, shared_credentials, work},
    fake::{Desk, Ended, SOON},
};

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

/// Makes an assignment; what was asked, and how it ended.
async fn made(desk: &mut Desk, more: &[&str], input: &str) -> (Value, Ended) {
    let args = [&["assignment", "create", "web-1", "Web"], more].concat();
    let program = desk.signalbox(&args, input.as_bytes());
    let asked = desk.asked().await;
    assert_eq!((asked.op.as_str(), asked.is_signed), ("assignments.create", true));
    desk.fake.ok(&asked.rid, assignment()).await;
    (asked.args, timeout(SOON, program).await.unwrap().unwrap())
}

fn key_hash(key: &str) -> String {
    Sha256::of(key.as_bytes()).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_drawn_stays_here_and_is_printed_alone_and_once() {
    let mut desk = Desk::start().await;
    let (asked, Ended { code, out, err }) = made(&mut desk, &["--created-by", "ops"], "").await;
    let key = out.trim_end();
    assert!(out.ends_with('\n') && key.starts_with("sk_") && key.len() == 46, "{out:?}");
    let expected =
        json!({ "machine_id": "web-1", "name": "Web", "created_by": "ops", "key_hash": key_hash(key) });
    assert_eq!(asked, expected);
    let said = "signalbox: assignment a-1 of machine web-1; its key is not shown again\n";
    assert_eq!((code, err.as_str()), (Some(0), said));
    // For programs it stands beside what was answered, and is another one.
    let (asked, Ended { code, out, err }) = made(&mut desk, &["--json"], "").await;
    assert_eq!((code, err.as_str()), (Some(0), ""));
    let mut shown: Value = serde_json::from_str(&out).unwrap();
    let Some(Value::String(other)) = shown.as_object_mut().unwrap().remove("api_key") else {
        panic!("{out}")
    };
    assert_eq!((&shown, &asked["key_hash"]), (&assignment(), &json!(key_hash(&other))));
    assert_ne!(key, other);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_brought_stays_here() {
    let mut desk = Desk::start().await;
    let key = "sk_0123456789abcdef";
    let brought = format!("{key}\n");
    let (asked, Ended { code, out, err }) = made(&mut desk, &["--key-file", "-"], &brought).await;
    assert_eq!(asked, json!({ "machine_id": "web-1", "name": "Web", "key_hash": key_hash(key) }));
    // Who brought a key has it.
    assert_eq!((code, out.as_str(), err.as_str()), (Some(0), "a-1\n", ""));
    let (_, Ended { out, .. }) = made(&mut desk, &["--key-file", "-", "--json"], &brought).await;
    let shown: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&shown["id"], &shown["api_key"]), (&json!("a-1"), &json!(key)));
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

#[rstest]
#[case::list(&["runs"])]
#[case::moment(&["machines", "--at", "1h"])]
#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_nothing_that_never_ends_is_refused(#[case] args: &[&str]) {
    let mut desk = Desk::start().await;
    let mut program = desk.signalbox(args, b"");
    let mut n = 0;
    let ended = loop {
        tokio::select! {
            ended = &mut program => break ended.unwrap(),
            asked = desk.asked() => {
                n += 1;
                let page = json!({ "items": [], "next": n.to_string(), "at": 1, "kept": null });
                desk.fake.ok(&asked.rid, page).await;
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
#[case::open_secret(&["push", "create", "a", "credential", r#"{"name":"n"}"#], "", "--payload-file")]
#[case::stdin_twice(
    &["work", "complete", "0193a2b4-0000-7000-8000-000000000000", "--assignment", "a", "--stdout-file", "-", "--stderr-file", "-"],
    "x",
    "not both"
)]
#[case::much_output(
    &["work", "complete", "0193a2b4-0000-7000-8000-000000000000", "--assignment", "a", "--stdout-file", "/dev/zero"],
    "",
    "POST /api/v1/commands/ID/complete"
)]
#[case::empty_key(&["assignment", "create", "m", "n", "--key-file", "-"], "\n", "stdin is empty")]
#[case::short_key(&["assignment", "create", "m", "n", "--key-file", "-"], "0123456789abcde\n", "has 16 to 256")]
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
#[case::no_key(&["credential", "push", "db", "--type", "ssh_key", "--to", "all", "--key-file", "-"], "ssh-ed25519 AAAA", "holds no private key")]
#[case::no_value(&["credential", "push", "db", "--type", "password", "--to", "all", "--value-file", "-"], "\n", "stdin is empty")]
#[case::no_file(&["credential", "push", "db", "--type", "ssh_key", "--to", "all"], "", "--key-file")]
#[case::key_of_a_password(&["credential", "push", "db", "--type", "password", "--to", "all", "--key-file", "-"], "x", "--type ssh_key")]
#[case::no_host_keys(&["host-keys", "add", "--to", "all", "--file", "-"], "# nothing", "there is none in it")]
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
