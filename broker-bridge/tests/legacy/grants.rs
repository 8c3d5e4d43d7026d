//! What nobody may author is not to be had: neither listed nor claimed, whoever has put it into the streams.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use signalbox_bridge::submit::store_command;
use signalbox_schemas::{
    api::Submit,
    command::{CommandSpec, Grant},
    id::Workspace,
    record::MachineRecord,
    signed::Signed,
};
use signalbox_testkit::eventually;

use super::world::{Assigned, World, said, says};

const NOTHING: &str = r#"{"commands":[]}"#;

/// Writes a command as whoever may write everything in the streams can.
async fn put(world: &World, spec: &CommandSpec, submit: Submit) -> Result<String> {
    let (link, id) = (&world.bench.link, spec.cid.to_string());
    store_command(link, &Workspace::main(), None, submit.spec.0.into(), spec, submit.grants).await?;
    eventually("the command is known", || async {
        world.bench.http.json(&format!("/api/v1/commands/{id}")).await.map(drop)
    })
    .await?;
    Ok(id)
}

/// A command in the name of an operator who has not signed it.
async fn forge(world: &World, machine: &str) -> Result<String> {
    let (mut thief, operator) = (world.bench.console("nobody").await?, world.bench.console("local").await?);
    thief.operator = operator.operator;
    let (spec, mut submit) = thief.command(&[machine])?;
    let mut grant = serde_json::to_value(&submit.grants[0])?;
    grant["key"] = operator.key.public().as_str().into();
    submit.grants = vec![serde_json::from_value::<Signed<Grant>>(grant)?];
    put(world, &spec, submit).await
}

/// What an operator has signed.
async fn sign(world: &World, machine: &str) -> Result<String> {
    let (spec, submit) = world.bench.console("local").await?.command(&[machine])?;
    put(world, &spec, submit).await
}

/// It is not to be had by the relay of the assignment, nor in its name.
async fn is_not_to_be_had(world: &World, assigned: &Assigned, id: &str) -> Result<()> {
    let mut relay = world.relay(assigned);
    let listed = relay.commands().await?;
    ensure!(listed.iter().all(|command| command["_id"] != id), "{listed:?}");
    let refused = says(400, r#"{"success":false,"error":"Command is not pending"}"#);
    ensure!(said(&relay.claim(id).await?)? == refused, "the relay claims it");
    let claim = json!({"assignment_id": assigned.id});
    let answer = world.bench.http.post(&format!("/api/v1/commands/{id}/claim"), &claim).await?;
    ensure!(answer.json()?["claimed"] == false, "{}", answer.text());
    Ok(())
}

async fn is_to_be_had(world: &World, assigned: &Assigned, id: &str) -> Result<()> {
    let mut relay = world.relay(assigned);
    let listed = relay.commands().await?;
    ensure!(listed.iter().any(|command| command["_id"] == id), "{listed:?}");
    ensure!(relay.wins(id).await?, "it is not to be had");
    Ok(())
}

fn error_of(run: &Value) -> Option<&str> {
    run["error"]["code"].as_str()
}

#[tokio::test]
async fn a_forged_command_is_not_to_be_had_and_holds_nothing_up() -> Result<()> {
    // Its relay has a key, and would reject the command: here it does not run.
    let world = World::start_with(&["native"], None).await?;
    world.edit_machine("native", |record| MachineRecord { allow_legacy: true, ..record }).await?;
    let assigned = world.assign("native").await?;
    let forged = forge(&world, "native").await?;
    is_not_to_be_had(&world, &assigned, &forged).await?;
    let (signed, by_token) = (sign(&world, "native").await?, world.submit("native", "true").await?);
    is_to_be_had(&world, &assigned, &signed).await?;
    is_to_be_had(&world, &assigned, &by_token).await?;
    is_not_to_be_had(&world, &assigned, &forged).await?;
    assert_eq!(world.run(&forged, "native").await?["state"], "pending");
    Ok(())
}

#[tokio::test]
async fn a_forged_command_for_a_machine_without_keys_is_rejected() -> Result<()> {
    let world = World::start().await?;
    let assigned = world.assign("m-1").await?;
    let forged = forge(&world, "m-1").await?;
    is_not_to_be_had(&world, &assigned, &forged).await?;
    let run = world.run_is(&forged, "m-1", "rejected").await?;
    assert_eq!(error_of(&run), Some("signature"), "{run}");
    is_not_to_be_had(&world, &assigned, &forged).await?;
    let good = sign(&world, "m-1").await?;
    is_to_be_had(&world, &assigned, &good).await
}

#[tokio::test]
async fn what_an_author_gave_who_was_removed_since_is_rejected() -> Result<()> {
    let world = World::start().await?;
    let assigned = world.assign("m-1").await?;
    let (signed, by_token) = (sign(&world, "m-1").await?, world.submit("m-1", "true").await?);
    let listed = world.relay(&assigned).commands().await?;
    assert_eq!(listed.len(), 2, "{listed:?}");
    world.bench.publish(|doc| doc.authors.retain(|author| author.name != "operator:local")).await?;
    is_not_to_be_had(&world, &assigned, &signed).await?;
    let run = world.run_is(&signed, "m-1", "rejected").await?;
    assert_eq!(error_of(&run), Some("forbidden"), "{run}");
    is_to_be_had(&world, &assigned, &by_token).await
}

#[tokio::test]
async fn a_right_that_was_taken_away_counts_where_the_machine_has_keys_too() -> Result<()> {
    let world = World::start_with(&["native"], None).await?;
    world.edit_machine("native", |record| MachineRecord { allow_legacy: true, ..record }).await?;
    let assigned = world.assign("native").await?;
    let (signed, by_token) = (sign(&world, "native").await?, world.submit("native", "true").await?);
    let take = |doc: &mut signalbox_schemas::authors::Authors| {
        let rights = doc.authors.iter_mut().filter(|author| author.name == "operator:local");
        rights.for_each(|author| author.rights.clear());
    };
    world.bench.publish(take).await?;
    is_not_to_be_had(&world, &assigned, &signed).await?;
    is_to_be_had(&world, &assigned, &by_token).await
}

#[tokio::test]
async fn under_a_document_that_has_expired_nothing_begins() -> Result<()> {
    let world = World::start().await?;
    let assigned = world.assign("m-1").await?;
    let (signed, by_token) = (sign(&world, "m-1").await?, world.submit("m-1", "true").await?);
    let until = world.bench.view.authors().context("no authors")?.not_after;
    world.bench.publish(|doc| doc.not_after = doc.issued_at + 1).await?;
    for id in [&signed, &by_token] {
        is_not_to_be_had(&world, &assigned, id).await?;
        // It may begin once there is one that counts.
        assert_eq!(world.run(id, "m-1").await?["state"], "pending");
    }
    assert_eq!(said(&world.relay(&assigned).poll().await?)?, says(200, NOTHING));
    world.bench.publish(|doc| doc.not_after = until).await?;
    is_to_be_had(&world, &assigned, &signed).await?;
    is_to_be_had(&world, &assigned, &by_token).await
}
