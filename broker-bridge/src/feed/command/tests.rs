//! Feeds of one command, with what the bridge has read in the test's hand.

use std::time::Duration;

use bytes::Bytes;
use signalbox_link::Subscription;
use signalbox_schemas::{
    api::{Answer, AnswerBody, chunk},
    command::CommandSpec,
    id::{OperatorId, RequestId, Workspace},
    rollout::{Progress, RolloutState},
};
use tokio::{task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{super::Control, *};
use crate::{
    stage::{CID, Stage, spec},
    store::{Txn, key},
};

/// Far above what anything here takes.
const PATIENCE: Duration = Duration::from_secs(10);

/// Opens a feed with output and all the credit there is.
async fn watch(stage: &Stage, tasks: &mut JoinSet<End>) -> Told {
    watch_all_but(stage, tasks, None).await
}

/// The same, without the output of what has ended and wrote more bytes than that.
async fn watch_all_but(stage: &Stage, tasks: &mut JoinSet<End>, ended_bytes: Option<u64>) -> Told {
    let (operator, rid) = (OperatorId::new("local").unwrap(), RequestId::new("request-1").unwrap());
    let answers = stage.api.operators().subscribe("feed.main.local.request-1").await.unwrap();
    stage.api.operators().flush().await;
    let (api, id) = (Arc::clone(&stage.api), stage.id);
    tasks.spawn(async move {
        let stop = CancellationToken::new();
        let listener = Listener::new(Arc::new(Control::new(u64::MAX, stop.child_token())), stop);
        let mut answers = Answers::new(&api, &operator, &rid);
        run(&api, &mut answers, listener, id, Some(Pump::after(0, ended_bytes))).await
    });
    Told(answers)
}

/// What a feed tells.
struct Told(Subscription);

impl Told {
    /// One short line each, until `last` is told.
    async fn story(&mut self, last: &str) -> Vec<String> {
        let mut story = Vec::new();
        while story.last().is_none_or(|line| line != last) {
            let told = timeout(PATIENCE, self.0.next()).await;
            let told = told.unwrap_or_else(|_| panic!("nothing comes after {story:?}")).unwrap();
            story.push(match told.headers.get(chunk::OFFSET) {
                Some(offset) => format!("{offset}+{}", told.payload.len()),
                None => match serde_json::from_slice::<Answer>(&told.payload).unwrap().body {
                    AnswerBody::Event(event) => match *event {
                        FeedEvent::Command(_) => "command".to_owned(),
                        FeedEvent::Run(run) => run.state.to_string(),
                        FeedEvent::Settled { .. } => "settled".to_owned(),
                        other => format!("{other:?}"),
                    },
                    other => format!("{other:?}"),
                },
            });
        }
        story
    }
}

#[tokio::test]
async fn a_last_chunk_that_was_stored_first_does_not_stand_for_those_before_it() {
    let (stage, mut tasks) = (Stage::start().await, JoinSet::new());
    let out = signalbox_link::Store::new(format!("out.main.web-1.{CID}"), Bytes::from_static(b"x"));
    // The broker holds two chunks, and this bridge has read one of them: the last one of the run.
    for _ in 0..2 {
        stage.api.link().store(out.clone()).await.unwrap();
    }
    stage.out_was_read_to(1).await;
    stage.chunk(1, 6, "world", true);
    stage.exit(11);
    let mut feed = watch(&stage, &mut tasks).await;
    assert_eq!(feed.story("6+5").await, ["command", "6+5"]);
    let told = timeout(Duration::from_millis(300), feed.0.next()).await;
    assert!(told.is_err(), "it was told as settled before its first bytes");
    stage.chunk(2, 0, "hello ", true);
    stage.out_was_read_to(2).await;
    assert_eq!(feed.story("settled").await, ["0+6", "completed", "settled"]);
}

#[tokio::test]
async fn what_ended_with_more_than_is_wished_is_told_without_its_output() {
    let (stage, mut tasks) = (Stage::start().await, JoinSet::new());
    stage.single_bytes(200).await;
    stage.out_was_read_to(200).await;
    stage.exit(200);
    let mut feed = watch_all_but(&stage, &mut tasks, Some(199)).await;
    assert_eq!(feed.story("settled").await, ["command", "completed", "settled"]);
    let mut feed = watch_all_but(&stage, &mut tasks, Some(200)).await;
    let story = feed.story("settled").await;
    assert_eq!((story.len(), story[1].as_str(), story[200].as_str()), (203, "0+1", "199+1"));
}

#[tokio::test]
async fn what_ends_later_is_told_with_all_of_its_output() {
    let (stage, mut tasks) = (Stage::start().await, JoinSet::new());
    stage.single_bytes(3).await;
    let out = signalbox_link::Store::new(format!("out.main.web-1.{CID}"), Bytes::from_static(b"x"));
    stage.api.link().store(out).await.unwrap();
    stage.out_was_read_to(3).await;
    let mut feed = watch_all_but(&stage, &mut tasks, Some(0)).await;
    assert_eq!(feed.story("2+1").await, ["command", "pending", "0+1", "1+1", "2+1"]);
    stage.exit(4);
    stage.chunk(4, 3, "x", true);
    stage.out_was_read_to(4).await;
    assert_eq!(feed.story("settled").await, ["3+1", "completed", "settled"]);
}

#[tokio::test]
async fn output_that_the_broker_dropped_is_passed_over_at_once() {
    const CHUNKS: u64 = 1_000;
    let (stage, mut tasks) = (Stage::start().await, JoinSet::new());
    let link = stage.api.link().clone();
    stage.single_bytes(CHUNKS).await;
    link.purge_subject(OUT, ">").await.unwrap();
    // The last one is still there.
    let out = signalbox_link::Store::new(format!("out.main.web-1.{CID}"), Bytes::from_static(b"x"));
    link.store(out).await.unwrap();
    stage.chunk(CHUNKS + 1, CHUNKS, "x", false);
    stage.out_was_read_to(CHUNKS + 1).await;
    stage.exit(CHUNKS + 1);
    let mut reads = link.subscribe(&format!("$JS.API.STREAM.MSG.GET.{OUT}")).await.unwrap();
    link.flush().await;
    let mut feed = watch(&stage, &mut tasks).await;
    assert_eq!(feed.story("settled").await, ["command", "1000+1", "completed", "settled"]);
    let mut asked = 0;
    while timeout(Duration::from_millis(300), reads.next()).await.is_ok() {
        asked += 1;
    }
    assert!((1..50).contains(&asked), "the broker was asked for {asked} chunks");
}

#[tokio::test]
async fn nothing_left_in_the_stream_is_passed_over_too() {
    let (stage, mut tasks) = (Stage::start().await, JoinSet::new());
    stage.single_bytes(300).await;
    stage.api.link().purge_subject(OUT, ">").await.unwrap();
    stage.out_was_read_to(300).await;
    stage.exit(300);
    let mut feed = watch(&stage, &mut tasks).await;
    assert_eq!(feed.story("settled").await, ["command", "completed", "settled"]);
    let gone = stage.api.counters().get("feed.chunk_gone").copied();
    assert!(gone.is_some_and(|gone| gone < 20), "{gone:?} chunks were asked for");
}

/// The command spreads in waves, and this is its newest edition; nobody is told.
fn spread(on: &Stage, revision: u64, state: RolloutState) {
    let text = spec(on.id, "true");
    let mut spec = CommandSpec::from_bytes(text.as_bytes()).unwrap();
    spec.rollout = Some("canary 1".parse().unwrap());
    let mut txn = Txn::new(&on.still.context.shared.store);
    txn.put(key::spec(on.id), serde_json::to_vec(&spec).unwrap());
    let progress = Progress { revision, state, at: revision, ..Progress::new(Workspace::main(), on.id) };
    txn.put_json(key::rollout(on.id), &progress);
    txn.commit().unwrap();
}

#[tokio::test]
async fn a_pause_is_told_also_when_changes_were_missed() {
    let (stage, mut tasks) = (Stage::start().await, JoinSet::new());
    spread(&stage, 1, RolloutState::Going);
    let mut feed = watch(&stage, &mut tasks).await;
    assert_eq!(feed.story("pending").await, ["command", "pending"]);
    spread(&stage, 2, RolloutState::Paused);
    let other = MachineToken::new("web-2").unwrap();
    for _ in 0..10_000 {
        stage.still.context.shared.tell([Change::Output { cid: stage.id, mid: other.clone() }]);
    }
    assert_eq!(feed.story("command").await, ["command"]);
}

#[tokio::test]
async fn how_far_it_has_spread_is_told_once_for_many_changes_and_before_the_end() {
    let (stage, mut tasks) = (Stage::start().await, JoinSet::new());
    spread(&stage, 1, RolloutState::Going);
    let mut feed = watch(&stage, &mut tasks).await;
    assert_eq!(feed.story("pending").await, ["command", "pending"]);
    let change = Change::Command { cid: stage.id };
    stage.still.context.shared.tell(vec![change.clone(); 16]);
    spread(&stage, 2, RolloutState::Going);
    stage.still.context.shared.tell(vec![change; 16]);
    stage.exit(0);
    let mut story = feed.story("settled").await;
    // The run may end before it is time to tell more of the rollout; its end is the last word all the same.
    story.sort();
    assert_eq!(story, ["command", "completed", "settled"]);
}
