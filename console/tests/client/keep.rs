//! Changes of what relays keep, asked of a bridge that a test plays.

use std::{fs, io};

use serde::Serialize;
use serde_json::{Value, json};
use signalbox_schemas::{
    api::{FeedEvent, InventoryView, Previewed},
    command::Change,
    id::Workspace,
    inventory::Inventory,
    label::LabelMap,
    limit,
    run::RunState,
    sealed::OpeningKey,
    signed::SigningKey,
};
use signalbox_testkit::pty::Pty;
use tokio::task::JoinHandle;

use super::{
    fake::{Desk, Ended},
    *,
};

/// What the relay of a machine with this key says that it keeps.
fn view(name: &str, key: &SigningKey) -> InventoryView {
    let Target { id: machine, token, state } = target(name);
    let list = Inventory {
        ws: Workspace::main(),
        mid: token.clone(),
        revision: 1,
        sealing_key: OpeningKey::of_machine(key).unwrap().public().clone(),
        credentials: vec![],
        left_out: 0,
        problem: None,
        labels: LabelMap::new(),
        facts: None,
        crit: vec![],
    };
    let inventory = Some(Signed::sign(&list, key).unwrap());
    let signing_key = Some(key.public().clone());
    InventoryView { machine, token, state, signing_key, seen_at: Some(1), inventory }
}

fn relay_key(byte: u8) -> SigningKey {
    let pair = nkeys::KeyPair::new_from_raw(nkeys::KeyPairType::User, [byte; 32]).unwrap();
    SigningKey::from_seed(&pair.seed().unwrap()).unwrap()
}

fn push(desk: &Desk, more: &[&str]) -> JoinHandle<Ended> {
    let args = ["credential", "push", "db", "--type", "password", "--value-file", "-"];
    desk.signalbox(&[&args, more].concat(), b"hunter2\n")
}

/// Answers the next request, which is of one kind; its arguments.
async fn answer(desk: &mut Desk, op: &str, value: impl Serialize) -> Value {
    let asked = desk.asked().await;
    assert_eq!(asked.op, op);
    desk.fake.ok(&asked.rid, value).await;
    asked.args
}

async fn ended(program: JoinHandle<Ended>) -> Ended {
    timeout(SOON, program).await.unwrap().unwrap()
}

fn previewed(targets: Vec<Target>) -> Previewed {
    Previewed { targets, ..Previewed::default() }
}

fn listed(views: &[InventoryView]) -> Value {
    json!({ "items": views })
}

fn known(desk: &Desk) -> Option<String> {
    match fs::read_to_string(desk.dir.path().join("known-machines")) {
        Ok(text) => Some(text),
        Err(error) => {
            assert_eq!(error.kind(), io::ErrorKind::NotFound);
            None
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bridge_that_names_other_machines_gets_no_key_known_and_nothing_recorded() {
    let mut desk = Desk::start().await;
    let theirs = relay_key(9);
    let db = target("db-1");
    // Under the name of the machine that is meant, and one that is not meant at all.
    for lie in [Target { token: db.token.clone(), ..target("web-1") }, db] {
        for args in [&["--to", "web-1"][..], &["--to", "web-1", "--mode", "shared"]] {
            let program = push(&desk, args);
            answer(&mut desk, op::COMMANDS_PREVIEW, previewed(vec![lie.clone()])).await;
            // It may ask on, and is answered whatever it asks for.
            let mut program = program;
            let Ended { code, err, .. } = loop {
                tokio::select! {
                    ended = &mut program => break ended.unwrap(),
                    asked = desk.asked() => {
                        assert_eq!(asked.op, op::INVENTORY_LIST, "something is recorded or submitted");
                        desk.fake.ok(&asked.rid, listed(&[view("db-1", &theirs)])).await;
                    }
                }
            };
            assert_eq!(code, Some(3), "{err}");
            assert!(err.contains("not to be trusted"), "{err}");
            assert_eq!(known(&desk), None, "{args:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_key_is_known_from_a_push_that_is_refused() {
    let mut desk = Desk::start().await;
    let program = push(&desk, &["--to", "*"]);
    answer(&mut desk, op::COMMANDS_PREVIEW, previewed(vec![target("db-1"), target("web-1")])).await;
    answer(&mut desk, op::INVENTORY_LIST, listed(&[view("db-1", &relay_key(9))])).await;
    let Ended { code, err, .. } = ended(program).await;
    assert_eq!(code, Some(3), "{err}");
    assert!(err.contains("web-1") && err.contains("nothing can be sealed"), "{err}");
    assert_eq!(known(&desk), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bridge_that_tells_of_more_machines_than_a_command_has_is_not_listened_to_for_ever() {
    let mut desk = Desk::start().await;
    let program = push(&desk, &["--to", "*"]);
    answer(&mut desk, op::COMMANDS_PREVIEW, previewed(vec![target("web-1")])).await;
    let silent = InventoryView { inventory: None, ..view("web-1", &relay_key(8)) };
    let page = vec![silent; 1_000];
    for n in 0..=limit::TARGETS / page.len() {
        answer(&mut desk, op::INVENTORY_LIST, json!({ "items": page, "next": n.to_string() })).await;
    }
    let Ended { code, err, .. } = ended(program).await;
    assert_eq!(code, Some(3), "{err}");
    assert!(err.contains("more than 10000 items"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_accepted_is_named_whole() {
    let mut desk = Desk::start().await;
    let right = relay_key(8);
    for wrong in ["web-1", "web-1=", "=U", "web-1=UAAA"] {
        let Ended { code, err, .. } = ended(push(&desk, &["--to", "web-1", "--accept-key", wrong])).await;
        assert_eq!(code, Some(2), "{err}");
    }
    // For a machine that is not meant, and twice for one that is.
    let [one, other] = [8, 9].map(|byte| format!("web-1={}", relay_key(byte).public()));
    let stray = format!("wbe-1={}", right.public());
    for (wrong, said) in [(vec![&stray], "wbe-1"), (vec![&one, &other], "two keys")] {
        let named = wrong.iter().flat_map(|named| ["--accept-key", named.as_str()]);
        let program = push(&desk, &["--to", "web-1"].into_iter().chain(named).collect::<Vec<_>>());
        answer(&mut desk, op::COMMANDS_PREVIEW, previewed(vec![target("web-1")])).await;
        answer(&mut desk, op::INVENTORY_LIST, listed(&[view("web-1", &right)])).await;
        let Ended { code, err, .. } = ended(program).await;
        assert_eq!(code, Some(2), "{err}");
        assert!(err.contains(said), "{err}");
        assert_eq!(known(&desk), None);
    }
    // The bridge tells another one than was told when the operator looked.
    let named = format!("web-1={}", right.public());
    let program = push(&desk, &["--to", "web-1", "--accept-key", &named]);
    answer(&mut desk, op::COMMANDS_PREVIEW, previewed(vec![target("web-1")])).await;
    answer(&mut desk, op::INVENTORY_LIST, listed(&[view("web-1", &relay_key(9))])).await;
    let Ended { code, err, .. } = ended(program).await;
    assert_eq!(code, Some(3), "{err}");
    assert!(err.contains(right.public().as_str()) && err.contains(relay_key(9).public().as_str()), "{err}");
    assert_eq!(known(&desk), None);
    let program = push(&desk, &["--to", "web-1", "--no-wait", "--accept-key", &named]);
    answer(&mut desk, op::COMMANDS_PREVIEW, previewed(vec![target("web-1")])).await;
    answer(&mut desk, op::INVENTORY_LIST, listed(&[view("web-1", &right)])).await;
    let asked = desk.asked().await;
    assert_eq!(asked.op, op::COMMANDS_SUBMIT);
    assert_eq!(known(&desk), Some(format!("web-1 {}\n", right.public())));
    desk.fake.refuse(&asked.rid, Problem::new(ErrorCode::Forbidden, "no")).await;
    assert_eq!(ended(program).await.code, Some(3));
}

/// The same program at a terminal.
fn at_a_terminal(desk: &Desk, args: &[&str]) -> Pty {
    let mut program = std::process::Command::new(env!("CARGO_BIN_EXE_signalbox"));
    program.args(args).env_clear().env("SIGNALBOX_STATE_DIR", desk.dir.path());
    Pty::spawn(&program, 100, 30).unwrap()
}

const PUSH: [&str; 7] = ["credential", "push", "db", "--type", "password", "--to", "web-1"];

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_after_the_password_ends_it_before_anything_is_submitted() {
    let mut desk = Desk::start().await;
    for at in [op::COMMANDS_PREVIEW, op::INVENTORY_LIST] {
        let mut terminal = at_a_terminal(&desk, &PUSH);
        terminal.wait_for("the password:", SOON).await.unwrap();
        terminal.type_keys("hunter2\r").unwrap();
        loop {
            let asked = desk.asked().await;
            if asked.op == at {
                break;
            }
            desk.fake.ok(&asked.rid, previewed(vec![target("web-1")])).await;
        }
        // Nobody answers.
        terminal.type_keys("\x03").unwrap();
        let status = timeout(Duration::from_secs(3), terminal.wait(SOON)).await.unwrap().unwrap();
        assert_eq!(status.exit_code(), 130, "{at}: {}", terminal.screen());
        assert!(terminal.screen().contains("nothing was submitted"), "{}", terminal.screen());
    }
}

/// Ctrl-C at this moment; what is on the screen at its end.
async fn interrupted(mut terminal: Pty) -> String {
    terminal.type_keys("\x03").unwrap();
    let status = timeout(SOON, terminal.wait(SOON)).await.unwrap().unwrap();
    let screen = terminal.screen();
    assert_eq!(status.exit_code(), 130, "{screen}");
    // The terminal has broken its lines.
    screen.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_while_the_record_of_what_is_shared_is_changed_says_so() {
    let mut desk = Desk::start().await;
    let value = desk.dir.path().join("value");
    fs::write(&value, "hunter2").unwrap();
    let more = ["--mode", "shared", "--value-file", value.to_str().unwrap()];
    let terminal = at_a_terminal(&desk, &[&PUSH[..], &more].concat());
    answer(&mut desk, op::COMMANDS_PREVIEW, previewed(vec![target("web-1")])).await;
    answer(&mut desk, op::INVENTORY_LIST, listed(&[view("web-1", &relay_key(8))])).await;
    // Nobody answers.
    assert_eq!(desk.asked().await.op, op::SHARED_KEEP);
    let screen = interrupted(terminal).await;
    assert!(screen.contains("the record of db") && screen.contains("push credential db again"), "{screen}");
    assert!(!screen.contains("nothing was submitted"), "{screen}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_after_machines_have_removed_it_says_that_they_stay_assigned() {
    let mut desk = Desk::start().await;
    let terminal = at_a_terminal(&desk, &["credential", "unassign", "db", "--to", "web-1"]);
    let label = json!({ "name": "db", "credential_type": "password", "storage_mode": "shared" });
    answer(&mut desk, op::SHARED_KEPT, json!({ "label": label, "machines": ["web-1"] })).await;
    answer(&mut desk, op::COMMANDS_PREVIEW, previewed(vec![target("web-1")])).await;
    answer(&mut desk, op::INVENTORY_LIST, listed(&[view("web-1", &relay_key(8))])).await;
    let asked = desk.asked().await;
    let submit: Submit = serde_json::from_value(asked.args).unwrap();
    let id = CommandSpec::from_bytes(&submit.spec.0).unwrap().cid;
    desk.fake.ok(&asked.rid, json!({ "id": id, "targets": ["web-1"], "cursor": "" })).await;
    let feed = desk.asked().await;
    assert_eq!(feed.op, "feed.open");
    let counts = [(RunState::Completed, 1)].into();
    desk.fake.event(&feed.rid, 0, FeedEvent::Settled { counts }).await;
    assert_eq!(desk.asked().await.op, "feed.close");
    // Nobody answers.
    assert_eq!(desk.asked().await.op, op::COMMANDS_GET);
    let screen = interrupted(terminal).await;
    assert!(screen.contains("stays assigned") && screen.contains("unassign credential db again"), "{screen}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_password_is_taken_whole() {
    let mut desk = Desk::start().await;
    let mut terminal = at_a_terminal(&desk, &PUSH);
    terminal.wait_for("the password:", SOON).await.unwrap();
    // A terminal that hands over lines keeps 4,095 bytes of them.
    terminal.type_keys("x".repeat(6_000)).unwrap();
    terminal.type_keys("\r").unwrap();
    answer(&mut desk, op::COMMANDS_PREVIEW, previewed(vec![target("web-1")])).await;
    let relay = relay_key(8);
    answer(&mut desk, op::INVENTORY_LIST, listed(&[view("web-1", &relay)])).await;
    let asked = desk.asked().await;
    assert_eq!(asked.op, op::COMMANDS_SUBMIT);
    let submit: Submit = serde_json::from_value(asked.args).unwrap();
    let spec = CommandSpec::from_bytes(&submit.spec.0).unwrap();
    let Some(Change::PutCredential(put)) = &spec.change else { panic!("{spec:?}") };
    assert!(put.body.0.len() > 6_000, "{} bytes are left", put.body.0.len());
    desk.fake.refuse(&asked.rid, Problem::new(ErrorCode::Forbidden, "no")).await;
    assert_eq!(terminal.wait(SOON).await.unwrap().exit_code(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_at_the_question_gives_the_terminal_back() {
    let desk = Desk::start().await;
    let script = format!(
        "stty -a >{0}/before; {1} {2}; echo \"ended with $?\"; stty -a >{0}/after",
        desk.dir.path().display(),
        env!("CARGO_BIN_EXE_signalbox"),
        PUSH.join(" ")
    );
    for kind in ["TERM", "QUIT", "HUP", "INT"] {
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", script.as_str()]).env_clear().env("SIGNALBOX_STATE_DIR", desk.dir.path());
        shell.env("PATH", std::env::var_os("PATH").unwrap());
        let terminal = Pty::spawn(&shell, 100, 30).unwrap();
        terminal.wait_for("the password:", SOON).await.unwrap();
        let asks = std::process::Command::new("pgrep")
            .args(["-P", &terminal.pid().to_string(), "-x", "signalbox"])
            .output()
            .unwrap();
        let pid = String::from_utf8(asks.stdout).unwrap();
        let killed =
            std::process::Command::new("kill").args([&format!("-{kind}"), pid.trim()]).status().unwrap();
        assert!(killed.success(), "{kind}");
        terminal.wait_for("ended with 130", SOON).await.unwrap();
        terminal.wait(SOON).await.unwrap();
        let read = |name: &str| fs::read_to_string(desk.dir.path().join(name)).unwrap();
        assert_eq!(read("before"), read("after"), "{kind}");
    }
}

/// A change with nothing secret in it, asked for two machines, one of which has no keys.
async fn plain(desk: &mut Desk, args: &[&str]) -> JoinHandle<Ended> {
    let program = desk.signalbox(args, b"");
    let mut old = view("old-1", &relay_key(9));
    (old.signing_key, old.inventory) = (None, None);
    let mut silent = view("web-1", &relay_key(8));
    silent.inventory = None;
    if args.contains(&"unassign") {
        let label = json!({ "name": "db", "credential_type": "password", "storage_mode": "shared" });
        answer(desk, op::SHARED_KEPT, json!({ "label": label, "machines": ["old-1", "web-1"] })).await;
    }
    answer(desk, op::COMMANDS_PREVIEW, previewed(vec![target("old-1"), target("web-1")])).await;
    answer(desk, op::INVENTORY_LIST, listed(&[old, silent])).await;
    program
}

#[tokio::test(flavor = "multi_thread")]
async fn machines_without_keys_can_be_left_out_of_every_change() {
    let mut desk = Desk::start().await;
    for args in [
        &["credential", "remove", "db", "--to", "*"][..],
        &["credential", "unassign", "db", "--to", "*"],
        &["host-keys", "add", "db-1 ssh-ed25519 AAAA", "--to", "*"],
        &["host-keys", "remove", "db-1", "--to", "*"],
    ] {
        let program = plain(&mut desk, args).await;
        let Ended { code, err, .. } = ended(program).await;
        assert_eq!(code, Some(3), "{args:?}: {err}");
        assert!(err.contains("old-1") && err.contains("--skip-unsealable"), "{args:?}: {err}");
        let program = plain(&mut desk, &[args, &["--skip-unsealable"]].concat()).await;
        let asked = desk.asked().await;
        assert_eq!(asked.op, op::COMMANDS_SUBMIT, "{args:?}");
        let submit: Submit = serde_json::from_value(asked.args).unwrap();
        let machines: Vec<_> = submit.grants.iter().map(|grant| grant.peek().unwrap().mid).collect();
        assert_eq!(machines, [target("web-1").token], "{args:?}");
        desk.fake.refuse(&asked.rid, Problem::new(ErrorCode::Forbidden, "no")).await;
        // A removal that is refused changes no record.
        let Ended { code, err, .. } = ended(program).await;
        assert_eq!(code, Some(3), "{args:?}: {err}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_here_before_a_submit_ends_as_not_accepted() {
    let desk = Desk::start().await;
    let secret = ["credential", "push", "db", "--type", "password", "--to", "all", "--value-file", "/none"];
    let keys = ["host-keys", "add", "--file", "/none", "--to", "all"];
    let assign = ["credential", "assign", "db", "--recovery-key", "/none", "--to", "all"];
    for args in [&secret[..], &keys, &assign] {
        let Ended { code, err, .. } = ended(desk.signalbox(args, b"")).await;
        assert_eq!(code, Some(3), "{args:?}: {err}");
        assert!(err.contains("/none"), "{err}");
    }
}
