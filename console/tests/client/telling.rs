//! The connection behind the terminal: what it tells, and in which steps.

use std::{collections::HashMap, time::Duration};

use signalbox_console::client::{Ask, Draft, Stretch, TOLD, Told, session};
use signalbox_link::{Link, Options};
use signalbox_schemas::{
    api::{FeedEvent, OpenFeed, Page, Previewed, Watch, op},
    error::ErrorCode,
    id::RequestId,
};
use tokio::{sync::mpsc, task::JoinSet, time::timeout};

use super::{
    command,
    fake::{Fake, SOON, access, broker},
    machine,
};

#[tokio::test(flavor = "multi_thread")]
async fn the_session_tells_what_is_and_what_comes() {
    let broker = broker().await;
    let mut fake = Fake::start(&broker).await;
    let (asks, asked) = mpsc::channel(64);
    let (tell, mut told) = mpsc::channel(256);
    let mut tasks = JoinSet::new();
    tasks.spawn(session(access(&broker), asked, tell));
    let draft = Draft::new("nobody".to_owned(), "true".to_owned(), 1, 1);
    asks.send(Ask::Run { tag: 7, draft: Box::new(draft) }).await.unwrap();
    asks.send(Ask::Watch { id: command() }).await.unwrap();
    tasks.spawn(async move {
        loop {
            let (op, rid, body) = fake.request().await;
            match op.as_str() {
                op::MACHINES_LIST => fake.ok(&rid, serde_json::json!({ "items": [], "next": null })).await,
                op::COMMANDS_PREVIEW => {
                    fake.ok(&rid, Previewed { targets: vec![], ..Previewed::default() }).await;
                }
                op::FEED_OPEN => {
                    let opened: OpenFeed = serde_json::from_slice(&body).unwrap();
                    // What has ended with more is read in ranges.
                    let ended_bytes = Some(1024 * 1024);
                    if opened.watch == (Watch::Command { id: command(), output: true, ended_bytes }) {
                        fake.chunk(&rid, 0, 0, b"hello").await;
                        fake.event(&rid, 1, FeedEvent::Settled { counts: [].into() }).await;
                    }
                }
                op::FEED_CLOSE => return Ok(()),
                _ => {}
            }
        }
    });
    let (mut linked, mut machines, mut refused, mut output, mut settled) = Default::default();
    while !(linked && machines && refused && output && settled) {
        match timeout(SOON, told.recv()).await.unwrap().unwrap() {
            Told::Link(view) => linked |= view.connected && view.bridge.as_deref() == Some("b1"),
            Told::Machines(list) => machines = list == Stretch::default(),
            Told::Refused { tag, problem } => refused = (tag, problem.code) == (7, ErrorCode::NoTargets),
            Told::Output { data, .. } => output = &data[..] == b"hello",
            Told::Settled { id, .. } => settled = output && id == command(),
            _ => {}
        }
    }
    // What is no longer watched is closed; a terminal that is gone ends the session.
    asks.send(Ask::Unwatch { id: command() }).await.unwrap();
    timeout(SOON, tasks.join_next()).await.unwrap().unwrap().unwrap().unwrap();
    drop(asks);
    timeout(SOON, tasks.join_next()).await.unwrap().unwrap().unwrap().unwrap();
}

/// A machine that was never heard, as a bridge lists it.
fn view(n: u64) -> serde_json::Value {
    let id = machine(&format!("m-{n:04}"));
    serde_json::json!({
        "id": id, "token": id.token(), "state": "offline", "last_seen_at": null,
        "running": 0, "pending": 0, "relay": null, "facts": null, "metrics": null,
    })
}

/// The next request for machines themselves: the connection is also measured, by asking for one of them.
async fn asked_for_machines(fake: &mut Fake) -> (RequestId, Page) {
    loop {
        let (rid, page) = fake.wait_for::<Page>(op::MACHINES_LIST).await;
        if page.limit == Some(1) {
            fake.ok(&rid, serde_json::json!({ "items": [], "next": null })).await;
        } else {
            return (rid, page);
        }
    }
}

async fn told_of_machines(told: &mut mpsc::Receiver<Told>) -> Stretch {
    loop {
        if let Told::Machines(stretch) = timeout(SOON, told.recv()).await.unwrap().unwrap() {
            return stretch;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn machines_are_told_page_by_page_and_the_first_page_is_small() {
    let broker = broker().await;
    let mut fake = Fake::start(&broker).await;
    let (_asks, asked) = mpsc::channel(64);
    let (tell, mut told) = mpsc::channel(TOLD);
    let mut tasks = JoinSet::new();
    tasks.spawn(session(access(&broker), asked, tell));
    let tokens =
        |stretch: &Stretch| stretch.machines.iter().map(|view| view.token.to_string()).collect::<Vec<_>>();

    let (rid, page) = asked_for_machines(&mut fake).await;
    assert_eq!((page.limit, page.after), (Some(100), None));
    fake.ok(&rid, serde_json::json!({ "items": [view(1), view(2)], "next": "m-0002" })).await;
    // It is told although the rest was not answered.
    let first = told_of_machines(&mut told).await;
    assert_eq!(tokens(&first), ["m-0001", "m-0002"]);
    assert_eq!((first.after, first.until.as_ref()), (None, Some(&machine("m-0002").token())));

    let (rid, page) = asked_for_machines(&mut fake).await;
    assert_eq!((page.limit, page.after.as_deref()), (Some(1_000), Some("m-0002")));
    // Of a page without machines nothing is told.
    fake.ok(&rid, serde_json::json!({ "items": [], "next": "m-0003" })).await;
    let (rid, page) = asked_for_machines(&mut fake).await;
    assert_eq!(page.after.as_deref(), Some("m-0003"));
    fake.ok(&rid, serde_json::json!({ "items": [view(4)], "next": null })).await;
    let last = told_of_machines(&mut told).await;
    assert_eq!(tokens(&last), ["m-0004"]);
    assert_eq!((last.after, last.until), (Some(machine("m-0002").token()), None));
}

#[tokio::test(flavor = "multi_thread")]
async fn signs_of_life_are_told_together_and_in_order() {
    const MACHINES: u64 = 20;
    const EACH: u64 = 50;
    let broker = broker().await;
    let link = Link::connect(Options::plain(&broker.url(), "relays", None)).await.unwrap();
    let (_asks, asked) = mpsc::channel(64);
    let (tell, mut told) = mpsc::channel(TOLD);
    let mut tasks = JoinSet::new();
    tasks.spawn(session(access(&broker), asked, tell));
    let beat = |n: u64, at: u64| {
        let mid = format!("m-{n}");
        let body = serde_json::json!({
            "ws": "main", "mid": mid, "at": at, "relay": "1", "generation": 1, "authors": 1, "running": 0,
            "outbox": 0, "started_at": 1, "facts": {},
        });
        (format!("live.hb.main.{mid}"), serde_json::to_vec(&body).unwrap())
    };
    // What is published before somebody listens is nobody's: until one is heard.
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                let (subject, body) = beat(0, 0);
                link.publish(&subject, None, body.into()).await.unwrap();
            }
            Some(Told::Heartbeats(_)) = told.recv() => break,
        }
    }
    for at in 1..=EACH {
        for n in 1..=MACHINES {
            let (subject, body) = beat(n, at);
            link.publish(&subject, None, body.into()).await.unwrap();
        }
        // Foreign ones among them.
        let (_, body) = beat(7, 1_000);
        link.publish("live.hb.main.m-8", None, body.into()).await.unwrap();
        link.publish("live.hb.main.m-9", None, "{".into()).await.unwrap();
    }
    let mut newest: HashMap<String, u64> = HashMap::new();
    let mut tellings = 0;
    while newest.get("m-20") != Some(&EACH) {
        if let Told::Heartbeats(heard) = timeout(SOON, told.recv()).await.unwrap().unwrap() {
            tellings += 1;
            assert!(!heard.is_empty());
            for heard in heard.into_iter().filter(|heard| heard.token.as_str() != "m-0") {
                let before = newest.insert(heard.token.to_string(), heard.heartbeat.at);
                assert_eq!(heard.heartbeat.at, before.unwrap_or(0) + 1, "of {}", heard.token);
            }
        }
    }
    assert!(tellings < MACHINES * EACH / 10, "{tellings} tellings");
}
