//! What is read of one machine, and of the fleet at one moment, from a bridge that says what it likes.

use serde_json::{Value, json};
use signalbox_console::client::{
    Client, ClientError,
    machine::{Looked, Part, Span, Tab},
};
use signalbox_schemas::{
    api::{
        AuditView, CredentialView, FleetAt, ListAssignments, ListCredentials, ListInventory, ListRuns,
        MachineOver, MachineRunView, op,
    },
    audit::{AuditEntry, Entered, Outcome},
    credential::{CredentialMeta, CredentialType, StorageMode},
    error::ErrorCode,
    id::{BridgeId, MachineId, MachineToken, RequestId, Sha256, Workspace},
    run::RunState,
};
use signalbox_testkit::Broker;
use tokio::{join, time::timeout};

use super::{
    cases,
    fake::{Fake, SOON, access, broker},
};

fn web() -> MachineToken {
    MachineId::new("web-1").unwrap().token()
}

/// Somebody who asks, and a bridge.
async fn desk() -> (Broker, Client, Fake) {
    let broker = broker().await;
    let fake = Fake::start(&broker).await;
    let client = Client::connect(access(&broker), false).await.unwrap();
    (broker, client, fake)
}

/// Somebody asks, and a bridge answers as it likes.
async fn answered<T>(asking: impl Future<Output = T>, bridge: impl Future<Output = ()>) -> T {
    timeout(SOON, async { join!(asking, bridge).0 }).await.unwrap()
}

/// The next question about runs, and the state that they are to be in.
async fn asked_for_runs(fake: &mut Fake) -> (RequestId, Option<RunState>) {
    let (rid, asked): (_, ListRuns) = fake.wait_for(op::RUNS_LIST).await;
    assert_eq!(asked.machine_id.as_deref(), Some("web-1"));
    (rid, asked.state)
}

/// A run of a command.
fn run(machine: &str, n: u8, state: RunState) -> Value {
    let mut run: MachineRunView = serde_json::from_value(cases::run()).unwrap();
    run.command.id = format!("0193a2b4-0000-7000-8000-0000000000{n:02x}").parse().unwrap();
    (run.run.machine, run.run.state) = (MachineId::new(machine).unwrap(), state);
    serde_json::to_value(run).unwrap()
}

fn listed(items: &[Value], next: Option<&str>) -> Value {
    json!({ "items": items, "next": next })
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_comes_in_the_order_in_which_it_will_begin() {
    let (_broker, client, mut fake) = desk().await;
    let bridge = async {
        // Newest first, and page by page.
        for (items, next) in [([4, 3], Some("more")), ([2, 1], None)] {
            let (rid, state) = asked_for_runs(&mut fake).await;
            assert_eq!(state, Some(RunState::Pending));
            fake.ok(&rid, listed(&items.map(|n| run("web-1", n, RunState::Pending)), next)).await;
        }
        let (rid, state) = asked_for_runs(&mut fake).await;
        assert_eq!(state, Some(RunState::Held));
        fake.ok(&rid, listed(&[6, 5].map(|n| run("web-1", n, RunState::Held)), None)).await;
    };
    let looked = answered(client.look_at(&web(), Tab::Inbox), bridge).await.unwrap();
    let Looked { part: Part::Runs(runs), is_cut: false } = looked else { panic!("{looked:?}") };
    let order: Vec<String> = runs.iter().map(|run| run.command.id.to_string()).collect();
    assert!(order.is_sorted() && order.len() == 6, "{order:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_told_of_another_machine_is_not_believed() {
    let (_broker, client, mut fake) = desk().await;
    let bridge = async {
        let (rid, _) = asked_for_runs(&mut fake).await;
        let runs = [run("web-1", 1, RunState::Failed), run("db-1", 2, RunState::Failed)];
        fake.ok(&rid, listed(&runs, None)).await;
    };
    let told = answered(client.look_at(&web(), Tab::Commands), bridge).await;
    assert!(matches!(told, Err(ClientError::NotAsMeant(_))), "{told:?}");

    let point = json!({
        "at": 1, "state": "online", "cpu_percent": 1, "memory_percent": 1, "disk_percent": 1, "load_tenths": 1,
        "running": 0, "pending": 0,
    });
    for (token, points) in [("db-1", vec![]), ("web-1", vec![point.clone(), point])] {
        let bridge = async {
            let (rid, asked): (_, MachineOver) = fake.wait_for(op::HISTORY_MACHINE).await;
            let span = (asked.machine.as_str(), asked.from, asked.to, asked.points);
            assert_eq!(span, ("web-1", 0, 600_000, Some(1)));
            let told =
                json!({ "id": token, "token": token, "step_ms": 60_000, "points": points, "kept": null });
            fake.ok(&rid, told).await;
        };
        let time = Span { from: 0, to: 600_000, points: 1 };
        let told = answered(client.figures(&web(), time), bridge).await;
        assert!(matches!(told, Err(ClientError::NotAsMeant(_))), "{told:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_moment_is_not_shown_for_an_earlier_one() {
    let (_broker, client, mut fake) = desk().await;
    let bridge = async {
        let (rid, asked): (_, FleetAt) = fake.wait_for(op::HISTORY_FLEET).await;
        assert_eq!(asked.at, 60_000);
        fake.ok(&rid, json!({ "items": [], "next": null, "at": 60_001, "kept": null })).await;
    };
    let told = answered(client.fleet_at(60_000), bridge).await;
    assert!(matches!(told, Err(ClientError::NotAsMeant(_))), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_with_few_rows_for_many_pages_is_left_after_some() {
    let (_broker, client, mut fake) = desk().await;
    let bridge = async {
        for n in 1..=8_u8 {
            let (rid, _) = asked_for_runs(&mut fake).await;
            fake.ok(&rid, listed(&[run("web-1", n, RunState::Failed)], Some(&n.to_string()))).await;
        }
    };
    let looked = answered(client.look_at(&web(), Tab::Commands), bridge).await.unwrap();
    let Looked { part: Part::Runs(runs), is_cut: true } = looked else { panic!("{looked:?}") };
    assert_eq!(runs.len(), 8);
}

fn entry(n: u64, about: &str) -> Value {
    let entry = AuditEntry {
        ws: Workspace::main(),
        n,
        before: Sha256::of(b""),
        after: 0,
        bridge: BridgeId::new("b1").unwrap(),
        written_at: 1,
        actor: "local".to_owned(),
        action: "commands.submit".to_owned(),
        about: about.to_owned(),
        outcome: Outcome::Refused { code: ErrorCode::Forbidden, count: 1 },
        entered: Entered::default(),
    };
    serde_json::to_value(AuditView { sequence: n, stored_at: 1, entry: Some(entry), envelope: None }).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_are_those_about_the_machine_and_its_commands() {
    let (_broker, client, mut fake) = desk().await;
    let bridge = async {
        let (rid, _) = asked_for_runs(&mut fake).await;
        fake.ok(&rid, listed(&[run("web-1", 1, RunState::Failed)], None)).await;
        let command = "0193a2b4-0000-7000-8000-000000000001";
        let entries = [entry(4, command), entry(3, "web-1"), entry(2, "web-10"), entry(1, "db-1")];
        let (rid, _): (_, Value) = fake.wait_for(op::AUDIT_LIST).await;
        fake.ok(&rid, listed(&entries, None)).await;
    };
    let looked = answered(client.look_at(&web(), Tab::Audit), bridge).await.unwrap();
    let Looked { part: Part::Audit(entries), is_cut: false } = looked else { panic!("{looked:?}") };
    assert_eq!(entries.iter().map(|view| view.sequence).collect::<Vec<_>>(), [4, 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_relay_without_keys_holds_is_told_with_its_assignment() {
    let (_broker, client, mut fake) = desk().await;
    for machine in ["web-1", "db-1"] {
        let bridge = async {
            let (rid, asked): (_, ListInventory) = fake.wait_for(op::INVENTORY_LIST).await;
            assert_eq!(asked.on, "web-1");
            fake.ok(&rid, listed(&[], None)).await;
            let (rid, asked): (_, ListAssignments) = fake.wait_for(op::ASSIGNMENTS_LIST).await;
            assert_eq!(asked.machine_id.as_deref(), Some("web-1"));
            fake.ok(&rid, listed(&[cases::assignment()], None)).await;
            let (rid, asked): (_, ListCredentials) = fake.wait_for(op::CREDENTIALS_LIST).await;
            assert_eq!(asked.assignment_id.as_deref(), Some("a-1"));
            let held = CredentialView {
                assignment_id: "a-1".to_owned(),
                machine_id: MachineId::new(machine).unwrap(),
                meta: CredentialMeta {
                    credential_name: "deploy".to_owned(),
                    credential_type: CredentialType::SshKey,
                    target_host: None,
                    storage_mode: StorageMode::RelayOnly,
                    last_updated_at: 1,
                    username: None,
                    created_at: None,
                },
                reported_at: 1,
            };
            fake.ok(&rid, listed(&[serde_json::to_value(held).unwrap()], None)).await;
        };
        match answered(client.look_at(&web(), Tab::Credentials), bridge).await {
            Ok(Looked { part: Part::Held(held), is_cut: false }) => {
                assert_eq!((machine, held.len()), ("web-1", 1));
            }
            Err(ClientError::NotAsMeant(_)) => assert_eq!(machine, "db-1"),
            other => panic!("{other:?}"),
        }
    }
}
