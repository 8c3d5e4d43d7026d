//! One golden fixture per message: what was once written stays readable, byte for byte.
//!
//! `fixtures/v1/<name>.json` holds the encoded message (for signed ones the envelope, and its payload spelled
//! out beside it). Fixtures never change; a message that must change gets a new folder. A missing file is
//! written by `SIGNALBOX_WRITE_FIXTURES=1 cargo test -p signalbox-schemas --test fixtures`.
//! `error_codes.json` and `limits.json` hold the two tables that are no messages.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on shall stop")]

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    fs, iter,
    path::PathBuf,
};

use nkeys::{KeyPair, KeyPairType};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use signalbox_schemas::{
    Base64Url,
    api::{
        Accepted, Answer, AnswerBody, AuditView, BridgeHealth, BrokerHealth, Cancel, Cancelling,
        CommandSummary, CommandView, ConsumerHealth, Credit, EventView, FeedEvent, FiguresView, FleetAt,
        FleetThen, FollowerHealth, Get, HealthView, InventoryView, KeepShared, Kept, Labelled, LabelsSet,
        ListEvents, ListInventory, ListMachines, Listed, Liveness, MachineOver, MachineSeries, MachineView,
        MomentView, NewAssignment, OpenFeed, OperatorView, OutputView, Page, PartTaken, PointView, Preview,
        Previewed, Reach, ReachView, ReadOutput, Request, RolloutView, RunView, SetLabels, Severity,
        SteerRollout, Steered, StreamHealth, Submit, Target, Warning, Watch, op,
    },
    audit::{AuditEntry, Entered, Outcome, Reached},
    authors::{Author, Authors, Right, Role},
    command::{self, Change, CommandSpec, Grant, HostKeys, Part, PutCredential, SshHop, SshTarget},
    config::{ConfigPushRecord, PushState, PushType},
    credential::{
        CredentialLabel, CredentialMeta, CredentialType, CredentialValue, SharedCredentialRecord, SharedKept,
        SharedSecret, StorageMode,
    },
    enrol::{Enrolled, Enrolment},
    error::{ErrorCode, Problem},
    event::{self, Event},
    heartbeat::{Disk, Facts, Heartbeat, LegacyBeat, Metrics},
    history::{Figures, Frame},
    id::{
        BridgeId, CommandId, CredentialName, MachineId, MachineToken, Nonce, OperatorId, Sha256, Workspace,
    },
    inventory::Inventory,
    label::{GivenLabels, LabelKey, LabelMap, LabelValue, LabelViews},
    limit,
    mailbox::{AuthorsRef, Basis, ConfigRef, Mailbox, Offer, Position},
    output::OutputStream,
    record::{
        ApiKeyRecord, AssignmentRecord, DoneCommand, DoneRun, Lease, MachineRecord, OperatorRecord,
        RelayKeys, StoredFact,
    },
    relay::{LegacyMetrics, RelayRecord},
    rollout::{Counted, LetGo, Progress, Rollout, RolloutState, Steer},
    run::{
        Claim, Exit, ExitState, InlineOutput, Lost, LostReason, RejectReason, Rejection, RunError, RunState,
        Start, StreamSummary, Via, WithdrawReason, Withdrawal,
    },
    sealed,
    signed::{Message, Signed, SigningKey},
    subject::FactKind,
};

const NOW: u64 = 1_795_000_000_000;

fn key(byte: u8) -> SigningKey {
    let pair = KeyPair::new_from_raw(KeyPairType::User, [byte; 32]).unwrap();
    SigningKey::from_seed(&pair.seed().unwrap()).unwrap()
}

fn ws() -> Workspace {
    Workspace::main()
}

fn mid() -> MachineToken {
    MachineToken::new("web-1").unwrap()
}

fn machine() -> MachineId {
    MachineId::new("web-1").unwrap()
}

fn cid() -> CommandId {
    "0193a2b4-0000-7000-8000-00000000c1d1".parse().unwrap()
}

fn nonce() -> Nonce {
    Nonce([0xab; 16])
}

fn spec() -> CommandSpec {
    CommandSpec {
        ws: ws(),
        cid: cid(),
        command: "uptime; echo \"größe\"\n".into(),
        timeout_ms: 30_000,
        created_at: NOW,
        expires_at: NOW + 86_400_000,
        not_before: Some(NOW + 1),
        rollout: None,
        retry_of: None,
        purpose: Some("fixture".into()),
        leave_children: true,
        max_output: 1 << 27,
        on: "web-*".into(),
        targets: 1,
        by: "operator:local".into(),
        created_by: None,
        target: None,
        crit: vec!["not_before".into()],
        change: None,
    }
}

fn spec_bytes() -> Base64Url {
    Base64Url(serde_json::to_vec(&spec()).unwrap())
}

fn grant() -> Grant {
    let spec_sha256 = Sha256::of(&spec_bytes().0);
    Grant { ws: ws(), cid: cid(), mid: mid(), spec_sha256, expires_at: NOW + 86_400_000, sealed: None }
}

fn signed_grant() -> Signed<Grant> {
    Signed::sign(&grant(), &key(2)).unwrap()
}

fn exit() -> Exit {
    Exit {
        ws: ws(),
        mid: mid(),
        cid: cid(),
        nonce: nonce(),
        state: ExitState::Failed,
        exit_code: None,
        signal: Some("SIGKILL".into()),
        error: None,
        started_at: NOW,
        duration_ms: 12,
        group_dead: true,
        stdout: StreamSummary { bytes: 2, sha256: Sha256::of(b"a\n"), truncated: false },
        stderr: StreamSummary::empty(),
        chunks: 0,
        inline: Some(InlineOutput { stdout: Base64Url(b"a\n".to_vec()), stderr: Base64Url::default() }),
        via: None,
    }
}

fn metrics() -> Metrics {
    Metrics {
        cpu_percent: 12.5,
        cpus: 2,
        memory_used_bytes: 1 << 30,
        memory_total_bytes: 1 << 32,
        swap_used_bytes: 0,
        swap_total_bytes: 0,
        load: [0.25, 0.5, 1.0],
        uptime_secs: 3600,
        disks: vec![Disk { mount: "/".into(), used_bytes: 10, total_bytes: 100 }],
    }
}

fn facts() -> Facts {
    Facts { hostname: "web-1".into(), os: "Debian 12".into(), kernel: "6.1.0".into(), arch: "x86_64".into() }
}

fn counts() -> BTreeMap<RunState, u32> {
    BTreeMap::from([(RunState::Completed, 2), (RunState::Lost, 1)])
}

fn summary() -> CommandSummary {
    CommandSummary {
        id: cid(),
        command: "uptime".into(),
        on: "web-*".into(),
        by: "operator:local".into(),
        created_at: NOW,
        expires_at: NOW + 1,
        timeout_ms: 30_000,
        settled: true,
        counts: counts(),
        created_by: None,
        target: None,
        changes: false,
        rollout: None,
        retry_of: None,
    }
}

fn run_view() -> RunView {
    RunView {
        machine: machine(),
        state: RunState::Failed,
        exit_code: Some(3),
        signal: None,
        error: Some(RunError { code: "spawn_failed".into(), message: "too long".into() }),
        duration_ms: Some(12),
        group_dead: Some(true),
        stdout: OutputView::from(&StreamSummary::empty()),
        stderr: OutputView::default(),
        claimed_by: None,
        claimed_at: None,
        ended_at: None,
    }
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/v1")
}

thread_local! {
    /// The fixtures that this thread has compared.
    static COMPARED: RefCell<BTreeSet<String>> = RefCell::default();
}

/// Writes a missing fixture when asked to; else compares, byte for byte.
fn golden(name: &str, found: &Value) -> String {
    let file = format!("{name}.json");
    let path = folder().join(&file);
    // Members by name: that a type lists them in another order changes nothing.
    let mut found = found.clone();
    found.sort_all_objects();
    let found = format!("{}\n", serde_json::to_string_pretty(&found).unwrap());
    if !path.exists() && std::env::var_os("SIGNALBOX_WRITE_FIXTURES").is_some() {
        fs::write(&path, &found).unwrap();
    }
    let kept = fs::read_to_string(&path).unwrap_or_else(|_| panic!("{} is missing", path.display()));
    assert_eq!(kept, found, "{name} is written differently now");
    COMPARED.with_borrow_mut(|compared| compared.insert(file));
    kept
}

fn plain<T: Serialize + DeserializeOwned>(name: &str, message: &T) {
    let value = serde_json::to_value(message).unwrap();
    let kept = golden(name, &value);
    let read: T = serde_json::from_str(&kept).unwrap();
    assert_eq!(serde_json::to_value(read).unwrap(), value, "{name} is read differently");
}

fn signed<T: Message>(message: &T, by: u8) {
    let envelope = Signed::sign(message, &key(by)).unwrap();
    let value: Value = serde_json::from_slice(&envelope.to_json()).unwrap();
    let payload = serde_json::to_value(message).unwrap();
    golden(T::TYPE, &json!({"type": T::TYPE, "envelope": value, "payload": payload}));
    let read = Signed::<T>::from_json(&envelope.to_json()).unwrap().open(|k| k == key(by).public()).unwrap();
    assert_eq!(serde_json::to_value(read).unwrap(), payload, "{} is read differently", T::TYPE);
}

#[test]
fn what_relays_sign() {
    let claim = Claim { ws: ws(), mid: mid(), cid: cid(), nonce: nonce(), claimed_at: NOW, via: None };
    signed(&claim, 3);
    // A bridge signs these, for relays that have no key.
    let via = Some(Via::Legacy("0193a2b4-0000-7000-8000-00000000a551".into()));
    plain("claim_legacy", &Claim { via: via.clone(), ..claim });
    plain("exit_legacy", &Exit { via: via.clone(), ..exit() });
    signed(
        &Rejection {
            ws: ws(),
            mid: mid(),
            cid: cid(),
            reason: RejectReason::Forbidden,
            message: "the author may not author commands".into(),
            rejected_at: NOW,
        },
        3,
    );
    let start = Start { ws: ws(), mid: mid(), cid: cid(), nonce: nonce(), started_at: NOW, via: None };
    signed(&start, 3);
    plain("start_legacy", &Start { via, ..start });
    signed(&exit(), 3);
    signed(
        &Lost {
            ws: ws(),
            mid: mid(),
            cid: cid(),
            nonce: nonce(),
            reason: LostReason::KeeperGone,
            lost_at: NOW,
            known_bytes: [5, 0],
        },
        3,
    );
    signed(
        &Enrolment {
            ws: Some(ws()),
            login_key: key(4).public().clone(),
            signing_key: key(3).public().clone(),
            hostname: "web-1".into(),
            version: "0.1.0".into(),
            requested_at: NOW,
            allow_legacy: false,
        },
        3,
    );
}

/// A password, sealed for the machine of the fixtures.
fn sealed_value(name: &CredentialName) -> (Base64Url, Base64Url) {
    let (ws, mid) = (ws(), mid());
    let context = sealed::Context { ws: &ws, name: name.as_str(), cid: cid() };
    let recipient = sealed::Recipient::Machine(&mid);
    let relay = sealed::OpeningKey::of_machine(&key(3)).unwrap();
    let content_key = sealed::ContentKey::new([9; 32]);
    let value = CredentialValue::Password { password: "hunter2".to_owned().into() };
    let body = content_key.seal(&value.to_json(), context, [5; 24]).unwrap();
    let wrapped = content_key.wrap(relay.public(), context, recipient, [4; 32]).unwrap();
    let opened = sealed::ContentKey::unwrap(&wrapped, &relay, context, recipient).unwrap();
    assert_eq!(CredentialValue::from_json(&opened.open(&body, context).unwrap()), Ok(value));
    (body, wrapped)
}

fn inventory() -> Inventory {
    Inventory {
        ws: ws(),
        mid: mid(),
        revision: NOW,
        sealing_key: sealed::OpeningKey::of_machine(&key(3)).unwrap().public().clone(),
        credentials: vec![CredentialMeta {
            credential_name: "db password".into(),
            credential_type: CredentialType::Password,
            target_host: Some("*.lan:22".into()),
            storage_mode: StorageMode::Shared,
            last_updated_at: NOW,
            username: Some("root".into()),
            created_at: Some(NOW),
        }],
        left_out: 2,
        problem: None,
        labels: LabelMap::new(),
        facts: None,
        crit: vec![],
    }
}

fn shared_secret() -> SharedSecret {
    let label = CredentialLabel {
        name: CredentialName::new("db password").unwrap(),
        credential_type: CredentialType::Password,
        target: Some("*.lan:22".parse().unwrap()),
        username: Some("root".into()),
        storage_mode: StorageMode::Shared,
    };
    let recovery_key = sealed::OpeningKey::from_material(&[9; 32]).unwrap().public().clone();
    let (body, wrapped) = (Base64Url(vec![1; 60]), Base64Url(vec![2; 80]));
    SharedSecret { ws: ws(), label, cid: cid(), body, wrapped, recovery_key, sealed_at: NOW }
}

#[test]
fn what_is_shared_among_relays_with_keys() {
    let secret = shared_secret();
    secret.validate().unwrap();
    signed(&secret, 2);
    let (label, secret) = (secret.label.clone(), Signed::sign(&secret, &key(2)).unwrap());
    let kept = SharedKept { label: label.clone(), secret: Some(secret.clone()), machines: vec![mid()] };
    plain("shared_kept", &kept);
    let name = label.name.clone();
    let add = vec![mid()];
    plain("keep_shared", &KeepShared { name, label: Some(label), secret: Some(secret), add, remove: vec![] });
}

#[test]
fn what_a_relay_keeps() {
    signed(&inventory(), 3);
}

#[test]
fn what_was_done() {
    let reached = Reached { created: NOW, sequence: 7, stored_at: NOW };
    let entry = AuditEntry {
        ws: ws(),
        n: 2,
        before: Sha256::of(b"the entry before"),
        after: 8,
        bridge: BridgeId::new("b1").unwrap(),
        written_at: NOW,
        actor: "operator:local".into(),
        action: op::COMMANDS_SUBMIT.into(),
        about: cid().to_string(),
        outcome: Outcome::Stored {
            stream: "CMD".into(),
            sequence: 7,
            stored_at: NOW,
            sha256: Sha256::of(&spec_bytes().0),
        },
        entered: Entered {
            doc: reached,
            kv: reached,
            specs: reached,
            cancels: reached,
            rollouts: Reached::default(),
        },
    };
    signed(&entry, 1);
    plain(
        "audit_refused",
        &AuditEntry {
            outcome: Outcome::Refused { code: ErrorCode::Forbidden, count: 3 },
            about: String::new(),
            ..entry.clone()
        },
    );
    let envelope = Some(Signed::sign(&entry, &key(1)).unwrap());
    plain("audit_view", &AuditView { sequence: 9, stored_at: NOW, entry: Some(entry), envelope });
}

#[test]
fn what_bridges_sign() {
    signed(
        &Withdrawal { ws: ws(), mid: mid(), cid: cid(), reason: WithdrawReason::Expired, withdrawn_at: NOW },
        1,
    );
    let position = Position { created: NOW, sequence: 7 };
    signed(
        &Mailbox {
            ws: ws(),
            mid: mid(),
            epoch: 9,
            generation: NOW,
            basis: Basis { cmd: position, kv: position, run: position },
            composed_at: NOW,
            authors: AuthorsRef { version: 1, sha256: Sha256::of(b"authors") },
            jwt: Some("ey".into()),
            config: Some(ConfigRef { revision: 4, sha256: Sha256::of(b"config") }),
            offers: vec![Offer { spec: spec_bytes(), grant: signed_grant() }],
            cancels: vec![cid()],
            crit: vec![],
        },
        1,
    );
    signed(
        &MachineRecord {
            ws: ws(),
            id: machine(),
            token: mid(),
            keys: Some(RelayKeys {
                login_key: key(4).public().clone(),
                signing_key: key(3).public().clone(),
            }),
            enrolled_at: NOW,
            enrolled_by: None,
            former_keys: Vec::new(),
            allow_legacy: false,
            labels: GivenLabels::default(),
            revision: 0,
        },
        1,
    );
    signed(
        &OperatorRecord {
            ws: ws(),
            id: OperatorId::new("local").unwrap(),
            login_key: key(5).public().clone(),
            signing_key: key(2).public().clone(),
            created_at: NOW,
            revision: 0,
        },
        1,
    );
    signed(
        &AssignmentRecord {
            ws: ws(),
            id: "0193a2b4-0000-7000-8000-00000000a551".into(),
            machine_id: machine(),
            name: "web".into(),
            enabled: true,
            api_key_hash: "00".into(),
            created_at: NOW,
            created_by: None,
            labels: LabelMap::new(),
            updated_at: None,
            removed_at: None,
            revision: 0,
        },
        1,
    );
    signed(&ApiKeyRecord { ws: ws(), assignment: "0193a2b4-0000-7000-8000-00000000a551".into() }, 1);
    what_stands_beside_assignments();
    what_becomes_history();
}

fn what_becomes_history() {
    let fact =
        StoredFact { kind: FactKind::Exit, sequence: 3, stored_at: NOW, body: Base64Url(b"{}".to_vec()) };
    signed(&DoneRun { ws: ws(), mid: mid(), cid: cid(), state: RunState::Failed, facts: vec![fact] }, 1);
    let done = DoneCommand {
        spec_sha256: None,
        ws: ws(),
        cid: cid(),
        spec: spec_bytes(),
        sequence: 8,
        accepted_at: NOW,
        author: key(2).public().clone(),
        machines: vec![mid()],
        counts: counts(),
        rollout: None,
    };
    signed(&done, 1);
    plain("done_command_rollout", &DoneCommand { rollout: Some(progress()), ..done });
}

fn plan() -> Rollout {
    "canary 1, 5%, 25%, parallel 20, pause after 2%, wait 60s".parse().unwrap()
}

fn progress() -> Progress {
    let mut released = LetGo::default();
    for place in [0, 9] {
        released.insert(place);
    }
    Progress {
        ws: ws(),
        cid: cid(),
        revision: 3,
        wave: 2,
        released,
        state: RolloutState::Paused,
        why: Some("1 of 2 runs failed".into()),
        asked: None,
        forgiven: Counted { failed: 1, ended: 1 },
        by: "bridge:b1".into(),
        at: NOW,
    }
}

#[test]
fn how_a_command_spreads() {
    let resumed = Progress {
        state: RolloutState::Going,
        why: None,
        asked: Some(Steer::Resume),
        by: "operator:local".into(),
        ..progress()
    };
    signed(&progress(), 1);
    plain("rollout_resumed", &resumed);
    plain("spec_rollout", &CommandSpec { rollout: Some(plan()), retry_of: Some(cid()), ..spec() });
    plain("steer_rollout", &SteerRollout { id: cid() });
    let rollout = RolloutView::new(plan(), 40, Some(&progress()), &counts());
    plain("steered", &Steered { rollout: rollout.clone() });
    plain(
        "command_rollout",
        &CommandSummary { rollout: Some(Box::new(rollout)), retry_of: Some(cid()), ..summary() },
    );
    let reached = Reached { created: NOW, sequence: 7, stored_at: NOW };
    plain("audit_entered_rollouts", &Entered { rollouts: reached, ..Entered::default() });
}

fn what_stands_beside_assignments() {
    let assignment = "0193a2b4-0000-7000-8000-00000000a551".to_owned();
    let id = "0193a2b4-0000-7000-8000-0000000000d0".to_owned();
    signed(
        &RelayRecord {
            ws: ws(),
            assignment: assignment.clone(),
            capabilities: vec!["local_cmd".into(), "ssh".into()],
            version: Some("1.0.0".into()),
            hostname: Some("web-1".into()),
            platform: Some("linux-x64".into()),
            credentials: vec![CredentialMeta {
                credential_name: "db".into(),
                credential_type: CredentialType::SshKey,
                target_host: Some("db-1".into()),
                storage_mode: StorageMode::RelayOnly,
                last_updated_at: NOW,
                created_at: None,
                username: None,
            }],
            created_at: NOW,
            reported_at: NOW,
            removed_at: None,
            revision: NOW,
        },
        1,
    );
    signed(
        &SharedCredentialRecord {
            ws: ws(),
            id: id.clone(),
            name: "db".into(),
            credential_type: CredentialType::Password,
            target_host: Some("db-1".into()),
            encrypted_value: "00:11:22".into(),
            assigned: vec![assignment.clone()],
            created_by: "token:admin".into(),
            created_at: NOW,
            updated_at: NOW,
            kept: None,
            removed_at: None,
            revision: NOW,
        },
        1,
    );
    signed(
        &ConfigPushRecord {
            ws: ws(),
            id,
            assignment,
            push_type: PushType::MetricsInterval,
            payload: "{\"intervalMs\":5000}".into(),
            state: PushState::Failed,
            error: Some("Processing failed".into()),
            created_by: "token:admin".into(),
            created_at: NOW,
            sent_at: Some(NOW),
            acked_at: Some(NOW),
            removed_at: None,
            revision: NOW,
        },
        1,
    );
}

#[test]
fn what_authors_sign() {
    signed(&grant(), 2);
    signed(
        &Request {
            ws: ws(),
            op: op::COMMANDS_CANCEL.into(),
            args: serde_json::to_value(Cancel { id: cid() }).unwrap(),
            nonce: nonce(),
            issued_at: NOW,
        },
        2,
    );
    signed(
        &Authors {
            ws: ws(),
            version: 1,
            issued_at: NOW,
            not_after: NOW + 1,
            authors: vec![Author {
                key: key(2).public().clone(),
                name: "operator:local".into(),
                role: Role::Owner,
                rights: vec![Right::Command, Right::Root, Right::Terminal, Right::Config, Right::Credential],
            }],
            issuers: vec![],
            bridges: vec![key(1).public().clone()],
            former_bridges: Vec::new(),
            next_fleet_key: None,
            crit: vec![],
        },
        6,
    );
}

#[test]
fn what_is_stored_or_sent_unsigned() {
    plain("spec", &spec());
    let ssh = SshTarget {
        host: "db-1".into(),
        port: 22,
        username: Some("root".into()),
        credential: None,
        jump: Vec::new(),
    };
    plain(
        "spec_ssh",
        &CommandSpec {
            created_by: Some("ada".into()),
            target: Some(command::Target::Ssh(ssh)),
            crit: vec!["target".into()],
            ..spec()
        },
    );
    let hop = SshHop { host: "gate.lan".into(), port: 2222, username: None };
    let behind = SshTarget {
        host: "10.0.0.7".into(),
        port: 22,
        username: None,
        jump: vec![hop],
        credential: Some(CredentialName::new("deploy key").unwrap()),
    };
    plain(
        "spec_ssh_jump",
        &CommandSpec { target: Some(command::Target::Ssh(behind)), crit: vec!["target".into()], ..spec() },
    );
    let changing = |change: Change| CommandSpec {
        command: change.summary(),
        change: Some(change),
        crit: vec!["change".into()],
        ..spec()
    };
    let name = CredentialName::new("db password").unwrap();
    let label = CredentialLabel {
        name: name.clone(),
        credential_type: CredentialType::Password,
        target: Some("*.lan:22".parse().unwrap()),
        username: Some("root".into()),
        storage_mode: StorageMode::Shared,
    };
    let (body, sealed) = sealed_value(&name);
    plain("spec_put_credential", &changing(Change::PutCredential(PutCredential { label, body })));
    plain("grant_sealed", &Grant { sealed: Some(sealed), ..grant() });
    plain("spec_remove_credential", &changing(Change::RemoveCredential { name }));
    let add =
        vec!["db-1 ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGVkMjU1MTkga2V5IG9mIDMyIGJ5dGVzIGluIGFsbCE".into()];
    plain(
        "spec_host_keys",
        &changing(Change::HostKeys(HostKeys { add, remove: vec!["[db-2]:2222".into()] })),
    );
    plain("part", &Part { cid: cid(), n: 1, of: 1, grants: vec![signed_grant()] });
    let beat = Heartbeat {
        ws: ws(),
        mid: mid(),
        at: NOW,
        relay: "0.1.0".into(),
        generation: NOW,
        authors: 1,
        running: 1,
        outbox: 0,
        started_at: NOW - 1,
        counters: BTreeMap::from([("mailbox_older".into(), 2)]),
        facts: facts(),
        metrics: Some(metrics()),
        legacy: None,
    };
    plain("heartbeat", &beat);
    let heard =
        LegacyMetrics { cpu_percent: Some(17.52), memory_total_mb: Some(24_106.0), ..Default::default() };
    let legacy =
        LegacyBeat { assignment: "0193a2b4-0000-7000-8000-00000000a551".into(), metrics: Some(heard) };
    plain("heartbeat_legacy", &Heartbeat { legacy: Some(legacy), ..beat });
    plain("lease", &Lease { bridge: BridgeId::new("b-1").unwrap(), renewed_at: NOW });
}

#[test]
fn what_operators_ask() {
    let (limit, after) = (Some(10), Some("web-1".to_owned()));
    let asked =
        ListInventory { on: "web-*".into(), target: Some("db-1:2222".into()), limit, after: after.clone() };
    plain("list_inventory", &asked);
    plain("list_reach", &Reach { target: "db-1:2222".into(), on: Some("web-*".into()), limit, after });
    let machines =
        ListMachines { on: Some("role=web".into()), limit: Some(10), after: Some("web-1,1".into()) };
    plain("list_machines", &machines);
    plain("page", &Page { limit: Some(10), after: Some("x".into()) });
    plain("preview", &Preview { on: "web-*".into(), ..Preview::default() });
    plain(
        "preview_page",
        &Preview { on: "web-*".into(), limit: Some(10), after: Some("web-1".into()), ..Preview::default() },
    );
    plain("submit", &Submit { spec: spec_bytes(), grants: vec![signed_grant()], idempotency_key: None });
    plain("get", &Get { id: cid(), limit: None, after: None });
    plain("get_page", &Get { id: cid(), limit: Some(10), after: Some("web-1".into()) });
    plain("cancel", &Cancel { id: cid() });
    plain(
        "read_output",
        &ReadOutput {
            id: cid(),
            machine: "web-1".into(),
            stream: OutputStream::Stdout,
            offset: 5,
            limit: 10,
        },
    );
    plain(
        "open_feed",
        &OpenFeed {
            watch: Watch::Command { id: cid(), output: true, ended_bytes: None },
            position: Some(3),
            credit: 1 << 20,
        },
    );
    let large_are_left_out = Watch::Command { id: cid(), output: true, ended_bytes: Some(1 << 20) };
    plain("open_feed_ended", &OpenFeed { watch: large_are_left_out, position: None, credit: 1 << 20 });
    plain("open_feed_commands", &OpenFeed { watch: Watch::Commands, position: None, credit: 0 });
    plain("credit", &Credit { bytes: 1024 });
}

#[test]
fn what_bridges_answer() {
    let target = Target { id: machine(), token: mid(), state: Liveness::Online };
    let plain_list = Previewed { targets: vec![target], ..Previewed::default() };
    plain("previewed", &plain_list);
    let page = Previewed { next: Some("web-1".into()), ..plain_list };
    plain("previewed_page", &page);
    let of_one_list = Previewed {
        next: Some("web-1,1".into()),
        at: Some(NOW),
        cursor: "HB:1:2".into(),
        sha256: Some(Previewed::digest([&mid()])),
        ..page
    };
    plain("previewed_of_one_list", &of_one_list);
    let signing_key = Some(key(3).public().clone());
    let shown = InventoryView {
        machine: machine(),
        token: mid(),
        state: Liveness::Online,
        signing_key,
        seen_at: Some(NOW),
        inventory: Some(Signed::sign(&inventory(), &key(3)).unwrap()),
    };
    let silent = InventoryView { signing_key: None, seen_at: None, inventory: None, ..shown.clone() };
    plain("inventory_list", &Listed { items: vec![shown, silent], next: Some("web-1".into()) });
    let credentials = inventory().credentials;
    plain("reach", &ReachView { machine: machine(), token: mid(), state: Liveness::Stale, credentials });
    plain("part_taken", &PartTaken { id: cid(), n: 2, cursor: "CMD:1".into() });
    plain("accepted", &Accepted { id: cid(), targets: vec![machine()], cursor: "CMD:1".into() });
    plain("cancelling", &Cancelling { cancelling: 1 });
    let enrolled = Enrolled {
        ws: ws(),
        machine_id: machine(),
        token: mid(),
        assignment_id: "0193a2b4-0000-7000-8000-00000000a551".into(),
        name: "web".into(),
        jwt: "ey".into(),
        nats: vec!["nats://broker:4222".into()],
        fleet_key: key(6).public().clone(),
    };
    plain("enrolled", &enrolled);
    let view = MachineView {
        id: machine(),
        token: mid(),
        state: Liveness::Stale,
        last_seen_at: Some(NOW),
        running: 1,
        pending: 2,
        relay: Some("0.1.0".into()),
        facts: Some(facts()),
        metrics: Some(metrics()),
        labels: LabelViews::new(),
        labels_unheard: false,
    };
    plain("machines", &Listed { items: vec![view], next: None });
    plain("command", &CommandView { summary: summary(), runs: vec![run_view()], next: None });
    let answer = |body| Answer { seq: 1, bridge: "b-1".into(), body };
    plain("answer_ok", &answer(AnswerBody::Ok(json!({"x": 1}))));
    plain(
        "answer_error",
        &answer(AnswerBody::Error(Problem::new(ErrorCode::NoTargets, "no machine matches `x`"))),
    );
    for (name, event) in [
        ("command", FeedEvent::Command(summary())),
        ("run", FeedEvent::Run(run_view())),
        ("settled", FeedEvent::Settled { counts: counts() }),
        ("alive", FeedEvent::Alive { position: None }),
        ("alive_position", FeedEvent::Alive { position: Some(7) }),
        ("closed", FeedEvent::Closed),
    ] {
        plain(&format!("event_{name}"), &answer(AnswerBody::Event(Box::new(event))));
    }
}

fn label_map(pairs: &[(&str, &str)]) -> LabelMap {
    let pair = |(key, value): &(&str, &str)| (LabelKey::new(*key).unwrap(), LabelValue::new(*value).unwrap());
    pairs.iter().map(pair).collect()
}

#[test]
fn what_machines_are_for() {
    let given = GivenLabels {
        operator: label_map(&[("role", "web")]),
        enrolment: label_map(&[("dc", "fra"), ("role", "db")]),
    };
    let relay = label_map(&[("example.com/rack", "Büro 1"), ("role", "x")]);
    let record = MachineRecord {
        ws: ws(),
        id: machine(),
        token: mid(),
        keys: None,
        enrolled_at: NOW,
        enrolled_by: None,
        former_keys: Vec::new(),
        allow_legacy: false,
        labels: given.clone(),
        revision: NOW,
    };
    plain("machine_labelled", &record);
    plain("inventory_labelled", &Inventory { labels: relay.clone(), facts: Some(facts()), ..inventory() });
    let view = MachineView {
        id: machine(),
        token: mid(),
        state: Liveness::Offline,
        last_seen_at: None,
        running: 0,
        pending: 0,
        relay: None,
        facts: Some(facts()),
        metrics: None,
        labels: given.shown(&relay),
        labels_unheard: true,
    };
    plain("machine_view_labelled", &view);
    let asked = SetLabels {
        on: None,
        machines: vec!["web-1".into()],
        set: label_map(&[("role", "web")]),
        remove: vec![LabelKey::new("dc").unwrap()],
    };
    plain("set_labels", &asked);
    plain("set_labels_on", &SetLabels { on: Some("web-*".into()), machines: Vec::new(), ..asked });
    let refused = Problem::new(ErrorCode::NotFound, "there is no machine `web-9`");
    let machines = vec![
        Labelled::done(&machine(), true),
        Labelled::done(&machine(), false),
        Labelled::refused("web-9".into(), refused),
    ];
    plain("labels_set", &LabelsSet { machines, cursor: "KV_state:1:2".into() });
    let new = NewAssignment {
        machine_id: "web-1".into(),
        name: "web".into(),
        created_by: None,
        key_hash: Sha256::of(b"key"),
        labels: label_map(&[("dc", "fra")]),
    };
    plain("new_assignment_labelled", &new);
}

/// The code after this one; a new code does not compile until it has its place.
fn code_after(code: ErrorCode) -> Option<ErrorCode> {
    match code {
        ErrorCode::Unauthenticated => Some(ErrorCode::Forbidden),
        ErrorCode::Forbidden => Some(ErrorCode::NotFound),
        ErrorCode::NotFound => Some(ErrorCode::IdConflict),
        ErrorCode::IdConflict => Some(ErrorCode::TooLarge),
        ErrorCode::TooLarge => Some(ErrorCode::Invalid),
        ErrorCode::Invalid => Some(ErrorCode::NoTargets),
        ErrorCode::NoTargets => Some(ErrorCode::RateLimited),
        ErrorCode::RateLimited => Some(ErrorCode::NotAccepted),
        ErrorCode::NotAccepted => Some(ErrorCode::NotCaughtUp),
        ErrorCode::NotCaughtUp => None,
    }
}

#[test]
fn which_code_has_which_http_status() {
    let mut statuses = BTreeMap::new();
    for code in iter::successors(Some(ErrorCode::Unauthenticated), |code| code_after(*code)) {
        assert_eq!(json!(code), code.as_str());
        statuses.insert(code.as_str(), code.http_status());
    }
    golden("error_codes", &json!(statuses));
}

/// Constants of `limit` by name.
macro_rules! limits {
    ($($name:ident)*) => {
        BTreeMap::from([$((stringify!($name), json!(limit::$name))),*])
    };
}

#[test]
fn what_everybody_agrees_on() {
    let limits = limits! {
        COMMAND_TEXT_BYTES SPEC_BYTES PRINCIPAL_BYTES SSH_HOST_BYTES SSH_JUMPS CREDENTIAL_VALUE_BYTES CREDENTIALS INVENTORY_BYTES HOST_KEYS HOST_KEY_BYTES PURPOSE_BYTES IDEMPOTENCY_KEY_BYTES SELECTOR_BYTES TARGETS PART_GRANTS PART_BYTES PARTS OFFERS OFFERS_BYTES MAILBOX_BYTES
        CANCELS RELAY_PAYLOAD_BYTES BROKER_PAYLOAD_BYTES FACT_BYTES FACT_TEXT_BYTES SIGNAL_BYTES
        HEARTBEAT_BYTES AUTHORS_BYTES RECORD_BYTES INLINE_OUTPUT_BYTES CHUNK_BYTES CHUNKS_IN_FLIGHT TAIL_BYTES TIMEOUT_MS DEFAULT_TIMEOUT_MS
        DEFAULT_EXPIRES_IN_MS MAX_EXPIRES_IN_MS DEFAULT_MAX_OUTPUT MAX_MAX_OUTPUT EXPIRY_GRACE_MS LOST_GRACE_MS
        HEARTBEAT_MS STALE_MS OFFLINE_MS AUTHORS_VALID_MS REQUEST_SKEW_MS FIRST_ANSWER_MS FEED_ALIVE_MS
        FEED_SILENCE_MS FEED_CREDIT_BYTES HOUR_MS DAY_MS
    };
    let source = include_str!("../src/limit.rs").lines();
    let declared = source.filter_map(|line| line.strip_prefix("pub const ")?.split_once(':'));
    let declared: BTreeSet<&str> = declared.map(|(name, _)| name).collect();
    assert_eq!(limits.keys().copied().collect::<BTreeSet<_>>(), declared, "one is not compared");
    golden("limits", &json!(limits));
}

fn bridge() -> BridgeId {
    BridgeId::new("b-1").unwrap()
}

fn event() -> Event {
    Event {
        ws: ws(),
        kind: event::kind::RUN_LOST.into(),
        at: NOW,
        bridge: bridge(),
        machine: Some(mid()),
        machine_id: Some(machine()),
        command: Some(cid()),
        text: "nobody knows how a run on web-1 ended".into(),
        details: [("from".to_owned(), json!("0.1.0"))].into(),
        told_runs: Some(Position { created: NOW, sequence: 7 }),
    }
}

fn frame() -> Frame {
    let heard = Figures {
        token: mid(),
        state: Liveness::Online,
        is_skewed: true,
        cpu: Some(12),
        memory: Some(40),
        disk: Some(71),
        load: Some(3),
        running: 1,
        pending: 2,
        age: Some(4),
        relay: Some("0.1.0".into()),
        mark: Some(1234),
    };
    let never = Figures {
        token: MachineToken::new("web-2").unwrap(),
        state: Liveness::Offline,
        is_skewed: false,
        cpu: None,
        memory: None,
        disk: None,
        load: None,
        running: 0,
        pending: 0,
        age: None,
        relay: None,
        mark: None,
    };
    let told_runs = Position { created: NOW, sequence: 7 };
    let machines = vec![heard, never];
    Frame { ws: ws(), at: NOW, bridge: bridge(), buckets: 16, events: 9, told_runs, machines }
}

#[test]
fn what_happened_and_how_it_was() {
    signed(&event(), 2);
    plain("frame", &frame());
    plain("event_view", &EventView { sequence: 9, stored_at: NOW, event: event() });
    let list = ListEvents {
        machine: Some("web-1".into()),
        kind: Some(event::kind::MACHINE_OFFLINE.into()),
        since: Some(NOW),
        behind: Some(7),
        limit: Some(10),
        after: Some("9".into()),
    };
    plain("list_events", &list);
    plain("fleet_at", &FleetAt { at: NOW, limit: Some(10), after: Some("web-1".into()) });
    let figures = FiguresView {
        cpu_percent: Some(12),
        memory_percent: Some(40),
        disk_percent: None,
        load_tenths: Some(3),
        running: 1,
        pending: 2,
    };
    let moment = MomentView {
        id: machine(),
        token: mid(),
        at: NOW,
        state: Liveness::Offline,
        last_seen_at: Some(NOW - 90_000),
        figures,
        relay: Some("0.1.0".into()),
    };
    let kept = Some(Kept { earliest: NOW - 60_000, latest: NOW });
    let listed = Listed { items: vec![moment], next: Some("web-1".into()) };
    plain("fleet_then", &FleetThen { listed, at: Some(NOW), kept });
    plain("machine_over", &MachineOver { machine: "web-1".into(), from: 1, to: NOW, points: Some(60) });
    let points = vec![PointView { at: NOW, state: Liveness::Online, figures }];
    plain("machine_series", &MachineSeries { id: machine(), token: mid(), step_ms: 60_000, points, kept });
    let operator = OperatorView {
        id: OperatorId::new("local").unwrap(),
        role: Some(Role::Owner),
        rights: vec![Right::Command],
        valid_until: Some(NOW),
        created_at: 1,
        login_key: key(4).public().clone(),
        signing_key: key(3).public().clone(),
        last_seen_at: None,
    };
    plain("operator_view", &operator);
}

#[test]
fn how_the_system_is() {
    let stream = StreamHealth {
        name: "RUN".into(),
        messages: 7,
        bytes: 512,
        max_bytes: Some(1024),
        fill_percent: Some(50),
        refuses_when_full: true,
        max_age_ms: Some(9 * limit::DAY_MS),
        first_at: Some(NOW - 1),
        last_at: Some(NOW),
        replicas: 3,
        leader: Some("n1".into()),
        followers: vec![FollowerHealth {
            name: "n2".into(),
            current: false,
            offline: true,
            lag: 3,
            silent_ms: 1_000,
        }],
        consumers: ConsumerHealth { count: 1, pending: 2, ack_pending: 3, redelivered: 4 },
    };
    let health = HealthView {
        status: "ok".into(),
        bridge: BridgeHealth {
            id: bridge(),
            version: "0.1.0".into(),
            since: NOW,
            caught_up: true,
            epoch: Some(3),
            lease_holder: Some(bridge()),
            clock_ahead_ms: Some(-2),
            lag: [("RUN".to_owned(), 0)].into(),
        },
        broker: BrokerHealth {
            connected: true,
            connects: 1,
            version: "2.15.1".into(),
            server: "n1".into(),
            cluster: Some("c".into()),
            servers: vec!["n1".into(), "n2".into()],
            store_bytes: 1,
            store_max_bytes: None,
            memory_bytes: 2,
            memory_max_bytes: Some(3),
            api_errors: 4,
        },
        streams: vec![stream],
        read_at: Some(NOW),
        warnings: vec![Warning {
            code: "stream_full".into(),
            severity: Severity::Warning,
            text: "stream RUN is 51 % full".into(),
            advice: "raise its max_bytes".into(),
        }],
        counters: [("refused.RUN.signature".to_owned(), 1)].into(),
    };
    plain("health", &health);
}

#[test]
fn no_fixture_is_read_by_nobody() {
    what_happened_and_how_it_was();
    how_the_system_is();
    what_relays_sign();
    what_bridges_sign();
    what_authors_sign();
    what_is_stored_or_sent_unsigned();
    what_operators_ask();
    what_bridges_answer();
    which_code_has_which_http_status();
    what_everybody_agrees_on();
    what_was_done();
    how_a_command_spreads();
    what_a_relay_keeps();
    what_is_shared_among_relays_with_keys();
    what_machines_are_for();
    let files = fs::read_dir(folder()).unwrap();
    let files: BTreeSet<String> =
        files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(COMPARED.take(), files);
}
