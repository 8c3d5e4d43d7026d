//! Feeds of a bridge whose rows are put there by the test: what was read in which order is in its hand.

use std::time::Duration;

use bytes::Bytes;
use signalbox_link::Subscription;
use signalbox_schemas::{
    api::{Answer, AnswerBody, chunk},
    command::CommandSpec,
    id::{MachineId, Nonce, OperatorId, RequestId, Sha256, Workspace},
    mailbox::Position,
    output::{ChunkHead, OutputStream::Stdout},
    record::MachineRecord,
    run::{Exit, ExitState, Fact, Register, RunFacts, StreamSummary},
};
use tokio::{task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{super::Control, *};
use crate::{
    core::still::{Still, key},
    ingest::decode::Event,
    projection::{CommandRow, Projection, RunRow},
    store::{Txn, key as keys},
};

const CID: &str = "0193a2b4-0000-7000-8000-000000000000";
/// Far above what anything here takes.
const PATIENCE: Duration = Duration::from_secs(10);

/// A bridge that knows one command on one machine.
struct Stage {
    still: Still,
    api: Arc<Api>,
    id: CommandId,
    mid: MachineToken,
    tasks: JoinSet<End>,
}

impl Stage {
    async fn start() -> Self {
        let still = Still::start().await.unwrap();
        still.context.broker.ensure_streams().await.unwrap();
        let machine = MachineId::new("web-1").unwrap();
        let (id, mid): (CommandId, _) = (CID.parse().unwrap(), machine.token());
        still.context.shared.memory_mut().put_machine(MachineRecord {
            ws: Workspace::main(),
            token: mid.clone(),
            id: machine,
            login_key: key(3).public().clone(),
            signing_key: key(4).public().clone(),
            enrolled_at: 1,
        });
        let spec = serde_json::json!({
            "ws": "main", "cid": id, "command": "true", "timeout_ms": 1, "created_at": 0, "expires_at": 1,
            "max_output": 1, "on": "all", "targets": 1, "by": "operator:local",
        });
        let spec = Bytes::from(spec.to_string());
        CommandSpec::from_bytes(&spec).unwrap();
        let row = CommandRow {
            sequence: 1,
            accepted_at: 1,
            author: key(2).public().clone(),
            machines: vec![mid.clone()],
            expires_at: 1,
            done: false,
        };
        let mut txn = Txn::new(&still.context.shared.store);
        txn.put_json(keys::command(id), &row);
        txn.put(keys::spec(id), spec.to_vec());
        txn.put_json(keys::counts(id), &Counts::from([(RunFacts::default().state(Default::default()), 1)]));
        txn.commit().unwrap();
        still.context.shared.caught_up.send_replace(true);
        let api = still.api();
        Self { still, api, id, mid, tasks: JoinSet::new() }
    }

    /// Reads OUT up to this sequence, as the bridge would say.
    async fn out_was_read_to(&self, sequence: u64) {
        let state = self.api.link().stream_state(OUT).await.unwrap();
        let at = Position { created: state.created_ms, sequence };
        self.still.context.shared.cursors.send_modify(|cursors| cursors.set(OUT, at));
    }

    /// Indexes a chunk, with its body in memory if it shall be.
    fn chunk(&self, sequence: u64, offset: u64, body: &'static str, young: bool) {
        let shared = &self.still.context.shared;
        let head = ChunkHead { stream: Stdout, offset, counter: 0, sha256: None, cut: false };
        let body = Bytes::from_static(body.as_bytes());
        let event = Event::Chunk { cid: self.id, mid: self.mid.clone(), head, body: body.clone() };
        let mut memory = shared.memory_mut();
        let mut projection = Projection::new(&mut memory, &shared.store, &shared.decoder);
        projection.apply(sequence, 1, &event, true).unwrap();
        projection.commit(None).unwrap();
        if young {
            shared.cache.lock().unwrap().put(sequence, &body);
        }
        let _ = shared.changes.send(Change::Output { cid: self.id });
    }

    /// The run ends, having written so many bytes.
    fn exit(&self, bytes: u64) {
        let nonce = Nonce([1; 16]);
        let exit = Exit {
            ws: Workspace::main(),
            mid: self.mid.clone(),
            cid: self.id,
            nonce,
            state: ExitState::Completed,
            exit_code: Some(0),
            signal: None,
            error: None,
            started_at: 1,
            duration_ms: 5,
            group_dead: true,
            chunks: 1,
            stdout: StreamSummary { bytes, sha256: Sha256::of(b"x"), truncated: false },
            stderr: StreamSummary::empty(),
            inline: None,
        };
        let mut facts = RunFacts::default();
        facts.apply(1, Fact::Register(Register::Claimed { nonce, stored_at: 1 }));
        facts.apply(2, Fact::Exit(Box::new(exit)));
        let shared = &self.still.context.shared;
        let mut txn = Txn::new(&shared.store);
        txn.put_json(keys::run(self.id, &self.mid), &RunRow { facts, ..RunRow::default() });
        txn.commit().unwrap();
        let _ = shared.changes.send(Change::Run { cid: self.id, mid: self.mid.clone() });
    }

    /// Opens a feed with output and all the credit there is.
    async fn watch(&mut self) -> Told {
        let (operator, rid) = (OperatorId::new("local").unwrap(), RequestId::new("request-1").unwrap());
        let answers = self.api.operators().subscribe("feed.main.local.request-1").await.unwrap();
        self.api.operators().flush().await;
        let (api, id) = (Arc::clone(&self.api), self.id);
        self.tasks.spawn(async move {
            let stop = CancellationToken::new();
            let listener = Listener::new(Arc::new(Control::new(u64::MAX, stop.child_token())), stop);
            let mut answers = Answers::new(&api, &operator, &rid);
            run(&api, &mut answers, listener, id, Some(0)).await
        });
        Told(answers)
    }
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
    let mut stage = Stage::start().await;
    let out = signalbox_link::Store::new(format!("out.main.web-1.{CID}"), Bytes::from_static(b"x"));
    // The broker holds two chunks, and this bridge has read one of them: the last one of the run.
    for _ in 0..2 {
        stage.api.link().store(out.clone()).await.unwrap();
    }
    stage.out_was_read_to(1).await;
    stage.chunk(1, 6, "world", true);
    stage.exit(11);
    let mut feed = stage.watch().await;
    assert_eq!(feed.story("6+5").await, ["command", "6+5"]);
    let told = timeout(Duration::from_millis(300), feed.0.next()).await;
    assert!(told.is_err(), "it was told as settled before its first bytes");
    stage.chunk(2, 0, "hello ", true);
    stage.out_was_read_to(2).await;
    assert_eq!(feed.story("settled").await, ["0+6", "completed", "settled"]);
}
