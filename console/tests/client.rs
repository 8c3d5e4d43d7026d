//! The client against a real broker and a bridge that misbehaves on purpose.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

#[path = "client/cases.rs"]
mod cases;
#[path = "client/exec.rs"]
mod exec;
#[path = "client/fake.rs"]
mod fake;
#[path = "client/fleet.rs"]
mod fleet;
#[path = "client/keep.rs"]
mod keep;
#[path = "client/one.rs"]
mod one;
#[path = "client/operations.rs"]
mod operations;
#[path = "client/parts.rs"]
mod parts;
#[path = "client/reading.rs"]
mod reading;
#[path = "client/telling.rs"]
mod telling;

use std::time::Duration;

use fake::{Fake, SOON, access, access_at, broker, key};
use signalbox_console::client::{
    Ask, Client, ClientError, Draft, Told,
    feed::{Feed, FeedItem},
    session,
    sign::{prepare, prepare_aside},
};
use signalbox_schemas::{
    api::{
        Accepted, AnswerBody, Credit, FeedEvent, Liveness, OpenFeed, Page, Previewed, Request, Submit,
        Target, Watch, op,
    },
    command::{CommandSpec, Grant},
    error::{ErrorCode, Problem},
    id::{CommandId, MachineId, Sha256},
    signed::Signed,
};
use tokio::{sync::mpsc, task::JoinSet, time::timeout};

fn command() -> CommandId {
    "0193a2b4-0000-7000-8000-000000000000".parse().unwrap()
}

fn watch() -> Watch {
    Watch::Command { id: command(), output: true, ended_bytes: None }
}

/// Reads a feed to its end; everything that was said.
async fn read(mut feed: Feed) -> Vec<u8> {
    let mut out = Vec::new();
    loop {
        match timeout(SOON, feed.next()).await.unwrap() {
            Ok(FeedItem::Output(piece)) => {
                assert_eq!(piece.offset, out.len() as u64, "not the next byte");
                out.extend_from_slice(&piece.data);
            }
            Ok(FeedItem::Settled(_)) => {
                feed.close().await;
                return out;
            }
            Ok(_) | Err(ClientError::NoBridge(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_feed_with_a_gap_is_opened_anew_and_every_byte_comes_once() {
    let broker = broker().await;
    let mut fake = Fake::start(&broker).await;
    let client = Client::connect(access(&broker), false).await.unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(read(client.feed(watch())));

    let (first, opened): (_, OpenFeed) = fake.wait_for(op::FEED_OPEN).await;
    assert_eq!(opened.position, None);
    fake.chunk(&first, 0, 0, b"abc").await;
    fake.chunk(&first, 1, 3, b"def").await;
    // Number 2 is lost on the way.
    fake.chunk(&first, 3, 9, b"jkl").await;

    let (op, closed, _) = fake.request().await;
    assert_eq!((op.as_str(), &closed), (op::FEED_CLOSE, &first), "the old feed is left open");
    let (second, opened): (_, OpenFeed) = fake.wait_for(op::FEED_OPEN).await;
    assert_ne!(second, first);
    assert_eq!(opened.position, Some(6));
    fake.chunk(&second, 0, 3, b"def").await;
    fake.chunk(&second, 1, 6, b"ghi").await;
    // The bridge stops in good order: a third opening.
    fake.event(&second, 2, FeedEvent::Closed).await;
    let (third, _): (_, OpenFeed) = fake.wait_for(op::FEED_OPEN).await;
    fake.chunk(&third, 0, 9, b"jkl").await;
    fake.event(&third, 1, FeedEvent::Settled { counts: [].into() }).await;

    let text = tasks.join_next().await.unwrap().unwrap();
    assert_eq!(String::from_utf8(text).unwrap(), "abcdefghijkl");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_feed_that_falls_silent_is_opened_anew() {
    let broker = broker().await;
    let mut fake = Fake::start(&broker).await;
    let client = Client::connect(access(&broker), false).await.unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(read(client.feed(watch())));
    let (first, _): (_, OpenFeed) = fake.wait_for(op::FEED_OPEN).await;
    fake.chunk(&first, 0, 0, b"abc").await;
    // 12 s of silence; before that a sign of life, so that a bridge knows that somebody listens.
    let (_, credit): (_, Credit) = fake.wait_for(op::FEED_CREDIT).await;
    assert_eq!(credit.bytes, 0);
    let (second, opened): (_, OpenFeed) = fake.wait_for(op::FEED_OPEN).await;
    assert_eq!(opened.position, Some(3));
    fake.event(&second, 0, FeedEvent::Settled { counts: [].into() }).await;
    assert_eq!(tasks.join_next().await.unwrap().unwrap(), b"abc");
}

#[tokio::test(flavor = "multi_thread")]
async fn credit_is_given_for_what_was_consumed() {
    let broker = broker().await;
    let mut fake = Fake::start(&broker).await;
    let client = Client::connect(access(&broker), false).await.unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(read(client.feed(watch())));
    let (rid, opened): (_, OpenFeed) = fake.wait_for(op::FEED_OPEN).await;
    let mut credit = usize::try_from(opened.credit).unwrap();
    let part = vec![b'x'; 128 * 1024];
    let mut given_in_all = 0;
    // Four windows, never more than there is credit for.
    for n in 0..32 {
        while credit < part.len() {
            let (_, given): (_, Credit) = fake.wait_for(op::FEED_CREDIT).await;
            credit += usize::try_from(given.bytes).unwrap();
            given_in_all += usize::try_from(given.bytes).unwrap();
        }
        credit -= part.len();
        fake.chunk(&rid, n as u64, n * part.len(), &part).await;
    }
    fake.event(&rid, 32, FeedEvent::Settled { counts: [].into() }).await;
    loop {
        let (op, _, body) = fake.request().await;
        if op == op::FEED_CLOSE {
            break;
        }
        given_in_all += usize::try_from(serde_json::from_slice::<Credit>(&body).unwrap().bytes).unwrap();
    }
    assert!(given_in_all <= 32 * part.len(), "credit for what was never sent");
    assert_eq!(tasks.join_next().await.unwrap().unwrap().len(), 32 * part.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_feed_that_is_refused_says_so() {
    let broker = broker().await;
    let mut fake = Fake::start(&broker).await;
    let client = Client::connect(access(&broker), false).await.unwrap();
    let mut feed = client.feed(watch());
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { feed.next().await });
    let (rid, _): (_, OpenFeed) = fake.wait_for(op::FEED_OPEN).await;
    // This passes by itself.
    let not_yet = Problem::new(ErrorCode::NotCaughtUp, "still reading");
    fake.answer(&rid, 0, AnswerBody::Error(not_yet)).await;
    let (rid, _): (_, OpenFeed) = fake.wait_for(op::FEED_OPEN).await;
    fake.answer(&rid, 0, AnswerBody::Error(Problem::new(ErrorCode::NotFound, "no such command"))).await;
    let refused = timeout(SOON, tasks.join_next()).await.unwrap().unwrap().unwrap();
    let Err(ClientError::Refused(problem)) = refused else { panic!("{refused:?}") };
    assert_eq!(problem.code, ErrorCode::NotFound);
}

fn draft() -> Draft {
    Draft { max_output_bytes: 1_000, ..Draft::new("demo-*".to_owned(), "uptime".to_owned(), 1_000, 60_000) }
}

fn machine(name: &str) -> MachineId {
    MachineId::new(name).unwrap()
}

fn target(name: &str) -> Target {
    let id = machine(name);
    Target { token: id.token(), id, state: Liveness::Online }
}

/// A submit as a bridge reads it.
fn open(signed: &Signed<Request>) -> (Request, Submit, CommandSpec) {
    let request = signed.open(|signer| signer == key().public()).unwrap();
    let submit: Submit = serde_json::from_value(request.args.clone()).unwrap();
    let spec = CommandSpec::from_bytes(&submit.spec.0).unwrap();
    (request, submit, spec)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unanswered_submit_is_repeated_under_the_same_id() {
    let broker = broker().await;
    let mut fake = Fake::start(&broker).await;
    let client = Client::connect(access(&broker), false).await.unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { client.run(&draft()).await });
    let (rid, _): (_, serde_json::Value) = fake.wait_for(op::COMMANDS_PREVIEW).await;
    fake.ok(&rid, Previewed { targets: vec![target("demo-1"), target("demo-2")], ..Previewed::default() })
        .await;

    let (_, signed): (_, Signed<Request>) = fake.wait_for(op::COMMANDS_SUBMIT).await;
    let (first, submit, spec) = open(&signed);
    assert_eq!((spec.targets, spec.by.as_str()), (2, "operator:local"));
    for (grant, name) in submit.grants.iter().zip(["demo-1", "demo-2"]) {
        let grant: Grant = grant.open(|signer| signer == key().public()).unwrap();
        assert_eq!((grant.cid, grant.mid.as_str()), (spec.cid, name));
        assert_eq!((grant.spec_sha256, grant.expires_at), (Sha256::of(&submit.spec.0), spec.expires_at));
    }

    let (rid, signed): (_, Signed<Request>) = fake.wait_for(op::COMMANDS_SUBMIT).await;
    let (again, repeated, _) = open(&signed);
    assert_eq!(repeated, submit, "a repeated submit is another command");
    assert_ne!(again.nonce, first.nonce, "a nonce counts once");
    let accepted =
        Accepted { id: spec.cid, targets: ["demo-1", "demo-2"].map(machine).into(), cursor: String::new() };
    fake.ok(&rid, &accepted).await;
    assert_eq!(tasks.join_next().await.unwrap().unwrap().unwrap(), accepted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_met_a_bridge_in_its_start_is_signed_anew() {
    let broker = broker().await;
    let mut fake = Fake::start(&broker).await;
    let client = Client::connect(access(&broker), false).await.unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { client.cancel(command()).await });
    let (rid, first): (_, Signed<Request>) = fake.wait_for(op::COMMANDS_CANCEL).await;
    let early = Problem::new(ErrorCode::NotCaughtUp, "it was signed before this bridge began to serve");
    fake.refuse(&rid, early).await;
    let (rid, again): (_, Signed<Request>) = fake.wait_for(op::COMMANDS_CANCEL).await;
    let [first, again] = [first, again].map(|signed| signed.open(|_| true).unwrap());
    assert!(again.issued_at > first.issued_at, "the same bridge refuses it again");
    assert_ne!(again.nonce, first.nonce);
    fake.ok(&rid, serde_json::json!({ "cancelling": 1 })).await;
    assert_eq!(tasks.join_next().await.unwrap().unwrap().unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_after_an_unacknowledged_submit_is_no_promise_that_nothing_runs() {
    let broker = broker().await;
    let mut fake = Fake::start(&broker).await;
    let client = Client::connect(access(&broker), false).await.unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { client.run(&draft()).await });
    let (rid, _): (_, serde_json::Value) = fake.wait_for(op::COMMANDS_PREVIEW).await;
    fake.ok(&rid, Previewed { targets: vec![target("demo-1")], ..Previewed::default() }).await;
    let mut ids = Vec::new();
    for code in [ErrorCode::NotAccepted, ErrorCode::Forbidden, ErrorCode::NotAccepted] {
        let (rid, signed): (_, Signed<Request>) = fake.wait_for(op::COMMANDS_SUBMIT).await;
        ids.push(open(&signed).2.cid);
        fake.refuse(&rid, Problem::new(code, "try again")).await;
    }
    let ended = tasks.join_next().await.unwrap().unwrap();
    assert!(matches!(ended, Err(ClientError::Unsure(id)) if ids == [id, id, id]), "{ended:?}");
}

/// The bridge names these machines; what the author makes of it.
fn signed_for(shown: &[&str], named: &[Target]) -> Result<Vec<String>, ClientError> {
    let shown = shown.iter().map(|name| machine(name).token()).collect();
    let prepared = prepare(&Draft { shown, ..draft() }, &access_at(String::new()), named)?;
    Ok(prepared.targets.iter().map(ToString::to_string).collect())
}

#[test]
fn nothing_is_signed_for_a_machine_that_was_not_meant_or_not_shown() {
    let meant = || vec![target("demo-1"), target("demo-2")];
    assert_eq!(signed_for(&[], &meant()).unwrap(), ["demo-1", "demo-2"]);
    assert_eq!(signed_for(&["demo-1", "demo-2", "demo-3"], &meant()).unwrap(), ["demo-1", "demo-2"]);
    let under_another_name = Target { token: machine("prod-1").token(), ..target("demo-1") };
    for lie in [
        vec![target("demo-1"), target("prod-1")],
        vec![under_another_name],
        vec![target("demo-2"), target("demo-1")],
        vec![target("demo-1"), target("demo-1")],
    ] {
        let signed = signed_for(&[], &lie);
        assert!(matches!(signed, Err(ClientError::NotAsMeant(_))), "{lie:?}: {signed:?}");
    }
    let refused = signed_for(&["demo-1"], &meant()).unwrap_err();
    assert!(
        matches!(&refused, ClientError::Refused(_)) && refused.to_string().contains("demo-2"),
        "{refused}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bridge_that_accepts_something_else_is_not_believed() {
    let broker = broker().await;
    let mut fake = Fake::start(&broker).await;
    let client = Client::connect(access(&broker), false).await.unwrap();
    for other_id in [true, false] {
        let mut tasks = JoinSet::new();
        let asking = client.clone();
        tasks.spawn(async move { asking.run(&draft()).await });
        let (rid, _): (_, serde_json::Value) = fake.wait_for(op::COMMANDS_PREVIEW).await;
        fake.ok(&rid, Previewed { targets: vec![target("demo-1")], ..Previewed::default() }).await;
        let (rid, signed): (_, Signed<Request>) = fake.wait_for(op::COMMANDS_SUBMIT).await;
        let id = if other_id { command() } else { open(&signed).2.cid };
        let name = if other_id { "demo-1" } else { "demo-2" };
        fake.ok(&rid, Accepted { id, targets: vec![machine(name)], cursor: String::new() }).await;
        let ended = tasks.join_next().await.unwrap().unwrap();
        assert!(matches!(ended, Err(ClientError::NotAsMeant(_))), "{ended:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_session_runs_on_what_was_shown_only() {
    let broker = broker().await;
    let mut fake = Fake::start(&broker).await;
    let (asks, asked) = mpsc::channel(64);
    let (tell, mut told) = mpsc::channel(256);
    let mut tasks = JoinSet::new();
    tasks.spawn(session(access(&broker), asked, tell));
    let draft = Draft {
        shown: vec![machine("demo-1").token()],
        ..Draft::new("demo-*".to_owned(), "true".to_owned(), 1, 60_000)
    };
    asks.send(Ask::Run { tag: 7, draft: Box::new(draft) }).await.unwrap();
    let (rid, _): (_, serde_json::Value) = fake.wait_for(op::COMMANDS_PREVIEW).await;
    fake.ok(&rid, Previewed { targets: vec![target("demo-1"), target("demo-2")], ..Previewed::default() })
        .await;
    loop {
        match timeout(SOON, told.recv()).await.unwrap().unwrap() {
            Told::Refused { tag, problem } => {
                assert_eq!(tag, 7);
                assert!(problem.message.contains("demo-2"), "{}", problem.message);
                return;
            }
            Told::Accepted { .. } => panic!("it was accepted"),
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_feed_is_told_and_asked_for_again() {
    let broker = broker().await;
    let mut fake = Fake::start(&broker).await;
    let (_asks, asked) = mpsc::channel(64);
    let (tell, mut told) = mpsc::channel(256);
    let mut tasks = JoinSet::new();
    tasks.spawn(session(access(&broker), asked, tell));
    let (rid, _): (_, OpenFeed) = fake.wait_for(op::FEED_OPEN).await;
    fake.refuse(&rid, Problem::new(ErrorCode::Forbidden, "not you")).await;
    loop {
        if let Told::Stale { id, problem } = timeout(SOON, told.recv()).await.unwrap().unwrap() {
            assert_eq!((id, problem.message.as_str()), (None, "not you"));
            break;
        }
    }
    let (_, opened): (_, OpenFeed) = fake.wait_for(op::FEED_OPEN).await;
    assert_eq!(opened.watch, Watch::Commands);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_never_ends_is_refused() {
    let broker = broker().await;
    let mut fake = Fake::start(&broker).await;
    let client = Client::connect(access(&broker), false).await.unwrap();
    let view = |n: usize| {
        let id = machine(&format!("m-{n}"));
        serde_json::json!({
            "id": id, "token": id.token(), "state": "offline", "last_seen_at": null,
            "running": 0, "pending": 0, "relay": null, "facts": null, "metrics": null,
        })
    };
    // The same page again and again, then ever new ones.
    for repeats in [true, false] {
        let mut tasks = JoinSet::new();
        let asking = client.clone();
        tasks.spawn(async move { asking.machines().await });
        let ended = loop {
            tokio::select! {
                ended = tasks.join_next() => break ended.unwrap().unwrap(),
                (rid, page) = fake.wait_for::<Page>(op::MACHINES_LIST) => {
                    let from: usize = page.after.map_or(0, |after| after.parse().unwrap());
                    let n = if repeats { 1 } else { 4_000 };
                    let next = if repeats { 7 } else { from + n };
                    let items: Vec<_> = (from..from + n).map(view).collect();
                    fake.ok(&rid, serde_json::json!({ "items": items, "next": next.to_string() })).await;
                }
            }
        };
        assert!(matches!(ended, Err(ClientError::NotAsMeant(_))), "{repeats}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_there_is_said_within_five_seconds() {
    let broker = broker().await;
    let client = Client::connect(access(&broker), false).await.unwrap();
    let asked = timeout(Duration::from_secs(8), client.machines()).await.unwrap();
    assert!(matches!(asked, Err(ClientError::NoBridge(_))), "{asked:?}");
}
