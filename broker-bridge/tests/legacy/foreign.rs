//! A key opens what is its own, and nothing else.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use signalbox_schemas::{
    config::{PushState, PushType},
    record::MachineRecord,
};

use signalbox_testkit::old_relay::{Connection, OldRelay};

use super::{
    bench::now_ms,
    world::{World, said, says},
};

const NO: &str = r#"{"success":false}"#;
const YES: &str = r#"{"success":true}"#;
const NOT_FOUND: &str = r#"{"success":false,"error":"Command not found"}"#;
const NOT_PENDING: &str = r#"{"success":false,"error":"Command is not pending"}"#;
const NOTHING: &str = r#"{"commands":[]}"#;

#[tokio::test]
async fn another_machines_command_is_neither_listed_nor_to_be_had() -> Result<()> {
    let world = World::start().await?;
    let (mut own, mut other) =
        (world.relay(&world.assign("m-1").await?), world.relay(&world.assign("m-2").await?));
    let id = world.submit("m-1", "echo secret").await?;
    assert_eq!(said(&other.poll().await?)?, says(200, NOTHING));
    assert_eq!(said(&other.claim(&id).await?)?, says(400, NOT_FOUND));
    assert_eq!(said(&other.result(&id, 0, "forged").await?)?, says(200, NO));
    assert_eq!(world.run(&id, "m-1").await?["state"], "pending");
    assert!(own.wins(&id).await?);
    // Nor once it is somebody's, or has ended.
    assert_eq!(said(&other.claim(&id).await?)?, says(400, NOT_FOUND));
    assert_eq!(said(&other.result(&id, 0, "forged").await?)?, says(200, NO));
    assert_eq!(world.run(&id, "m-1").await?["state"], "executing");
    assert_eq!(said(&own.result(&id, 0, "own").await?)?, says(200, YES));
    assert_eq!(said(&other.claim(&id).await?)?, says(400, NOT_FOUND));
    assert_eq!(said(&other.result(&id, 1, "forged").await?)?, says(200, NO));
    let run = world.run(&id, "m-1").await?;
    assert_eq!((&run["state"], &run["exit_code"]), (&json!("completed"), &json!(0)), "{run}");
    assert_eq!(world.bench.http.output(&id, "m-1", "stdout").await?, b"own");
    Ok(())
}

#[tokio::test]
async fn a_command_to_several_machines_is_a_run_for_each() -> Result<()> {
    let world = World::start().await?;
    let (mut one, mut two) =
        (world.relay(&world.assign("m-1").await?), world.relay(&world.assign("m-2").await?));
    let id = world.bench.http.submit("m-*", "hostname").await?;
    assert!(one.wins(&id).await?);
    assert_eq!(said(&two.result(&id, 0, "not mine yet").await?)?, says(200, NO));
    assert!(two.wins(&id).await?);
    assert_eq!(said(&one.result(&id, 0, "one").await?)?, says(200, YES));
    assert_eq!(said(&two.result(&id, 3, "two").await?)?, says(200, YES));
    let settled = world.bench.http.settled(&id).await?;
    assert_eq!(settled["counts"], json!({"completed": 1, "failed": 1}), "{settled}");
    assert_eq!(world.bench.http.output(&id, "m-1", "stdout").await?, b"one");
    assert_eq!(world.bench.http.output(&id, "m-2", "stdout").await?, b"two");
    Ok(())
}

#[tokio::test]
async fn only_the_assignment_that_claimed_a_run_ends_it() -> Result<()> {
    let world = World::start().await?;
    let (first, second) = (world.assign("m-1").await?, world.assign("m-1").await?);
    let (mut winner, mut other) = (world.relay(&first), world.relay(&second));
    let id = world.submit("m-1", "true").await?;
    assert_eq!(other.commands().await?.len(), 1, "both stand for the machine");
    assert!(winner.wins(&id).await?);
    assert_eq!(said(&other.claim(&id).await?)?, says(400, NOT_PENDING));
    assert_eq!(said(&other.result(&id, 0, "forged").await?)?, says(200, NO));
    assert_eq!(world.run(&id, "m-1").await?["state"], "executing");
    // Whoever takes its place with another key is another one.
    world.remove(&first).await?;
    assert_eq!(said(&winner.result(&id, 0, "removed").await?)?, says(200, NO));
    assert_eq!(said(&other.result(&id, 0, "forged").await?)?, says(200, NO));
    assert_eq!(world.run(&id, "m-1").await?["state"], "executing");
    Ok(())
}

#[tokio::test]
async fn what_somebody_else_wrote_as_its_end_does_not_stand_in_a_results_way() -> Result<()> {
    let world = World::start().await?;
    let mut relay = world.relay(&world.assign("m-1").await?);
    let id = world.submit("m-1", "true").await?;
    assert!(relay.wins(&id).await?);
    // A relay with a login of the machine may write there, whatever it likes.
    let subject = format!("run.main.m-1.{id}.exit");
    world.bench.link.store(signalbox_link::Store::new(subject, "x")).await?;
    assert_eq!(said(&relay.result(&id, 0, "own").await?)?, says(200, YES));
    let run = world.run_is(&id, "m-1", "completed").await?;
    assert_eq!(run["exit_code"], 0, "{run}");
    Ok(())
}

#[tokio::test]
async fn a_result_that_has_arrived_does_not_end_with_its_connection() -> Result<()> {
    let world = World::start().await?;
    let assigned = world.assign("m-1").await?;
    let mut relay = world.relay(&assigned);
    let id = world.submit("m-1", "true").await?;
    assert!(relay.wins(&id).await?);
    let body =
        json!({"commandId": id, "success": true, "output": "x".repeat(4 << 20), "exitCode": 0}).to_string();
    let request = OldRelay::new(&world.bench.base, &assigned.key).request(
        "POST",
        "/relay/commands/result",
        Some(&body),
    )?;
    let mut connection = Connection::open(&world.bench.base).await?;
    connection.send(&request).await?;
    drop(connection);
    world.run_is(&id, "m-1", "completed").await?;
    Ok(())
}

#[tokio::test]
async fn a_disabled_or_removed_assignment_is_refused_at_once() -> Result<()> {
    let world = World::start().await?;
    let (disabled, removed) = (world.assign("m-1").await?, world.assign("m-2").await?);
    let (mut one, mut two) = (world.relay(&disabled), world.relay(&removed));
    let (claimed, waiting) = (world.submit("m-1", "true").await?, world.submit("m-1", "true").await?);
    assert!(one.wins(&claimed).await?);
    world.disable(&disabled).await?;
    world.remove(&removed).await?;
    let is_disabled = says(403, r#"{"error":"Relay assignment is disabled"}"#);
    let is_removed = says(403, r#"{"error":"No relay assignment found for this API key"}"#);
    for _ in 0..3 {
        assert_eq!(said(&one.poll().await?)?, is_disabled);
        assert_eq!(said(&one.claim(&waiting).await?)?, is_disabled);
        assert_eq!(said(&one.result(&claimed, 0, "late").await?)?, says(200, NO));
        assert_eq!(said(&two.poll().await?)?, is_removed);
        assert_eq!(said(&two.claim(&waiting).await?)?, is_removed);
    }
    assert_eq!(world.run(&claimed, "m-1").await?["state"], "executing");
    assert_eq!(world.run(&waiting, "m-1").await?["state"], "pending");
    // Enabled again it goes on where it was.
    world
        .edit_assignment(&disabled.id, |record| signalbox_schemas::record::AssignmentRecord {
            enabled: true,
            ..record
        })
        .await?;
    assert_eq!(said(&one.result(&claimed, 0, "late").await?)?, says(200, YES));
    assert!(one.wins(&waiting).await?);
    Ok(())
}

#[tokio::test]
async fn a_machine_with_a_relay_of_its_own_gives_nothing_away() -> Result<()> {
    let world = World::start_with(&["native"], None).await?;
    let mut relay = world.relay(&world.assign("native").await?);
    let id = world.submit("native", "true").await?;
    assert_eq!(said(&relay.poll().await?)?, says(200, NOTHING));
    assert_eq!(said(&relay.claim(&id).await?)?, says(400, NOT_PENDING));
    assert_eq!(said(&relay.result(&id, 0, "").await?)?, says(200, NO));
    assert_eq!(world.run(&id, "native").await?["state"], "pending");
    world.edit_machine("native", |record| MachineRecord { allow_legacy: true, ..record }).await?;
    assert_eq!(relay.commands().await?.len(), 1);
    assert!(relay.wins(&id).await?);
    assert_eq!(said(&relay.result(&id, 0, "").await?)?, says(200, YES));
    // And what its own relay has is its own.
    let id = world.submit("native", "true").await?;
    world.bench.relay("native")?.claim(id.parse()?).await?;
    world.run_is(&id, "native", "executing").await?;
    assert_eq!(said(&relay.claim(&id).await?)?, says(400, NOT_PENDING));
    assert_eq!(said(&relay.result(&id, 0, "forged").await?)?, says(200, NO));
    assert_eq!(world.run(&id, "native").await?["state"], "executing");
    Ok(())
}

#[tokio::test]
async fn a_relay_id_in_a_request_changes_nothing() -> Result<()> {
    let world = World::start().await?;
    let (own, other) = (world.assign("m-1").await?, world.assign("m-2").await?);
    let push = world.push(&other, PushType::SshTargets, r#"{"targets":["h"]}"#).await?;
    // Nor is a relay that names another one given its own.
    world.push(&own, PushType::SshTargets, r#"{"targets":[]}"#).await?;
    let mut relay = world.relay(&own);
    assert_eq!(relay.status(&other.id).await?.status, 200);
    assert_eq!(world.bench.view.relay(&own.id).context("no report")?.hostname.as_deref(), Some("vm"));
    assert_eq!(world.bench.view.relay(&other.id), None);
    assert_eq!(world.bench.view.contact(&other.id, now_ms()).seen_at, None);
    for path in ["config-pushes", "shared-credentials"] {
        let path = format!("/relay/{path}?relayId={}", other.id);
        let answer = relay.ask("GET", &path, None).await?.json()?;
        let lists: Vec<&Value> = answer.as_object().context("no object")?.values().collect();
        assert!(!lists.is_empty() && lists.iter().all(|list| **list == json!([])), "{path}: {answer}");
    }
    let body = json!({"pushId": push, "success": true}).to_string();
    for path in ["/relay/config/ack", "/relay/config-pushes/ack"] {
        assert_eq!(said(&relay.ask("POST", path, Some(&body)).await?)?, says(200, NO));
    }
    assert_eq!(world.pushed(&push)?.state, PushState::Pending);
    Ok(())
}

#[tokio::test]
async fn a_run_whose_relay_vanishes_is_lost_and_a_late_result_counts() -> Result<()> {
    let world = World::start_with(&[], Some(Duration::from_millis(300))).await?;
    let mut relay = world.relay(&world.assign("m-1").await?);
    let id = world.submit_with("m-1", &json!({"command": "true", "timeout_ms": 100})).await?;
    assert!(relay.wins(&id).await?);
    let run = world.run_is(&id, "m-1", "lost").await?;
    assert!(run["error"]["code"].is_string(), "{run}");
    assert_eq!(said(&relay.claim(&id).await?)?, says(400, NOT_PENDING));
    assert_eq!(said(&relay.poll().await?)?, says(200, NOTHING));
    assert_eq!(said(&relay.result(&id, 0, "late").await?)?, says(200, YES));
    world.run_is(&id, "m-1", "completed").await?;
    assert_eq!(world.bench.http.output(&id, "m-1", "stdout").await?, b"late");
    Ok(())
}
