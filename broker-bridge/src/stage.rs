//! A bridge whose rows are put there by a test: what was read in which order is in its hand.

use std::sync::Arc;

use bytes::Bytes;
use signalbox_schemas::{
    api::Counts,
    command::CommandSpec,
    id::{CommandId, MachineId, MachineToken, Nonce, Sha256, Workspace},
    label::GivenLabels,
    mailbox::Position,
    output::{ChunkHead, OutputStream::Stdout},
    record::{MachineRecord, RelayKeys},
    run::{Exit, ExitState, Fact, Register, RunFacts, RunKind, StreamSummary},
    stream::OUT,
};

use crate::{
    api::Api,
    core::still::{Still, key},
    ingest::decode::Event,
    projection::{CommandRow, Projection, RunRow},
    store::{Txn, key as keys},
    view::Change,
};

pub(crate) const CID: &str = "0193a2b4-0000-7000-8000-000000000000";

/// A spec for one machine.
pub(crate) fn spec(cid: CommandId, command: &str) -> String {
    let spec = serde_json::json!({
        "ws": "main", "cid": cid, "command": command, "timeout_ms": 1, "created_at": 0, "expires_at": 1,
        "max_output": 1, "on": "all", "targets": 1, "by": "operator:local",
    });
    let spec = spec.to_string();
    CommandSpec::from_bytes(spec.as_bytes()).unwrap();
    spec
}

/// A bridge that knows one command on one machine.
pub(crate) struct Stage {
    pub(crate) still: Still,
    pub(crate) api: Arc<Api>,
    pub(crate) id: CommandId,
    pub(crate) mid: MachineToken,
}

impl Stage {
    pub(crate) async fn start() -> Self {
        let still = Still::start().await.unwrap();
        still.context.broker.ensure_streams().await.unwrap();
        let machine = MachineId::new("web-1").unwrap();
        let (id, mid): (CommandId, _) = (CID.parse().unwrap(), machine.token());
        still.context.shared.memory_mut().put_machine(MachineRecord {
            ws: Workspace::main(),
            token: mid.clone(),
            id: machine,
            keys: Some(RelayKeys {
                login_key: key(3).public().clone(),
                signing_key: key(4).public().clone(),
            }),
            enrolled_at: 1,
            enrolled_by: None,
            former_keys: Vec::new(),
            allow_legacy: false,
            labels: GivenLabels::default(),
            revision: 0,
        });
        let row = CommandRow {
            sequence: 1,
            accepted_at: 1,
            author: key(2).public().clone(),
            machines: vec![mid.clone()],
            expires_at: 1,
            done: false,
            spec_sha256: None,
        };
        let mut txn = Txn::new(&still.context.shared.store);
        txn.put_json(keys::command(id), &row);
        txn.put(keys::run(id, &mid), RunRow::default().to_bytes());
        txn.put(keys::spec(id), spec(id, "true").into());
        txn.put_json(keys::counts(id), &Counts::from([(RunFacts::default().state(RunKind::default()), 1)]));
        txn.commit().unwrap();
        still.context.shared.caught_up.send_replace(true);
        let api = still.api();
        Self { still, api, id, mid }
    }

    /// Reads OUT up to this sequence, as the bridge would say.
    pub(crate) async fn out_was_read_to(&self, sequence: u64) {
        let state = self.api.link().stream_state(OUT).await.unwrap();
        let at = Position { created: state.created_ms, sequence };
        self.still.context.shared.cursors.send_modify(|cursors| cursors.set(OUT, at));
    }

    /// Indexes a chunk, with its body in memory if it shall be.
    pub(crate) fn chunk(&self, sequence: u64, offset: u64, body: &'static str, young: bool) {
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
        shared.tell([Change::Output { cid: self.id, mid: self.mid.clone() }]);
    }

    /// Stores a chunk of one byte in OUT and indexes it, so many times; offsets are from 0.
    pub(crate) async fn single_bytes(&self, count: u64) {
        let out = signalbox_link::Store::new(format!("out.main.web-1.{CID}"), Bytes::from_static(b"x"));
        for sequence in 1..=count {
            self.api.link().store(out.clone()).await.unwrap();
            self.chunk(sequence, sequence - 1, "x", false);
        }
    }

    /// The run ends, having written so many bytes.
    pub(crate) fn exit(&self, bytes: u64) {
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
            via: None,
        };
        let mut facts = RunFacts::default();
        facts.apply(1, Fact::Register(Register::Claimed { nonce, stored_at: 1, via: None }));
        facts.apply(2, Fact::Exit(Box::new(exit)));
        let shared = &self.still.context.shared;
        let mut txn = Txn::new(&shared.store);
        txn.put(keys::run(self.id, &self.mid), RunRow::told(facts).to_bytes());
        txn.commit().unwrap();
        shared.tell([Change::Run { cid: self.id, mid: self.mid.clone() }]);
    }
}
