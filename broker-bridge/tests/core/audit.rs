//! The audit chain: what is done stands in it once, whoever wrote it and whoever died.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use signalbox_bridge::core::CoreConfig;
use signalbox_link::{Link as Conn, Options, Store};
use signalbox_schemas::{
    audit::{AuditEntry, Broken, Link, Outcome, action},
    record::table,
    run::RunState,
    signed::Signed,
    stream::{self, AUDIT, CMD, DOC, DONE, STATE, StreamDef},
    subject::all_audits,
};
use signalbox_testkit::{Broker, eventually};

use super::{
    MINUTE,
    world::{OPERATOR, World, key, mid, now},
};

/// All entries, which must be a chain of a bridge's. What is none stands between them.
pub(crate) async fn chain(world: &World) -> Result<Vec<AuditEntry>> {
    let mut at = Link::default();
    let mut entries = Vec::new();
    let mut next = 1;
    loop {
        let read = world.link.next_by_subject(AUDIT, next, &all_audits(&world.ws), 500).await?;
        let Some(last) = read.last() else { return Ok(entries) };
        next = last.sequence + 1;
        for message in &read {
            let signed = Signed::<AuditEntry>::from_json(&message.payload);
            let entry = signed.and_then(|signed| signed.open(|by| by == world.bridge_key()));
            match entry.map(|entry| (at.follow(message.sequence, &entry, &message.payload), entry)) {
                Ok((Ok(()), entry)) => {
                    let subject = entry.subject().to_string();
                    ensure!(message.subject == subject, "{entry:?} stands at {}", message.subject);
                    entries.push(entry);
                }
                // Stored once more by somebody else.
                Ok((Err(Broken::Place { .. }), _)) | Err(_) => at.sequence = message.sequence,
                Ok((Err(broken), entry)) => bail!("{broken}: {entry:?}"),
            }
        }
    }
}

/// Entries about a stored message, by stream and sequence, each of which must be there once.
fn stored(entries: &[AuditEntry]) -> Result<BTreeMap<(String, u64), &AuditEntry>> {
    let mut all = BTreeMap::new();
    for entry in entries {
        if let Outcome::Stored { stream, sequence, .. } = &entry.outcome {
            let twice = all.insert((stream.clone(), *sequence), entry);
            ensure!(twice.is_none(), "{stream} {sequence} was entered twice: {entry:?}");
        }
    }
    Ok(all)
}

/// Waits until each spec and cancel that is stored, and nothing else of CMD, is entered.
async fn all_entered(world: &World, commands: usize) -> Result<Vec<AuditEntry>> {
    eventually("every command is in the audit chain", || async {
        let entries = chain(world).await?;
        let of_cmd = stored(&entries)?.into_keys().filter(|(stream, _)| stream == CMD).count();
        ensure!(of_cmd == commands, "{of_cmd} of {commands} are entered");
        Ok(entries)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_did_what_is_entered_in_a_chain() -> Result<()> {
    let world = World::start(&["web-1", "web-2"]).await?;
    let bridge = world.bridge("b1").await?;
    let (cid, submitted) = world.submit("true", &world.machines, MINUTE).await?;
    let cancelled = world.cancel(cid, OPERATOR).await?;
    let writer = world.writer()?.asked_by("token:ci");
    let record = world.machine_record(1, &mid("web-1")?)?;
    writer.put_record(table::MACHINES, "web-1", &record).await?;
    // Not believed by anybody, and a report of a relay's about itself: neither is an act.
    let foreign = Signed::sign(&record, &key(OPERATOR)?)?.to_json();
    world.link.store(Store::new("$KV.state.main.machines.web-2", foreign)).await?;
    let entries = eventually("all of it is in the audit chain", || async {
        let entries = chain(&world).await?;
        ensure!(entries.len() >= 7, "{} are entered", entries.len());
        Ok(entries)
    })
    .await?;
    let said: Vec<_> =
        entries.iter().map(|entry| (&*entry.actor, &*entry.action, entry.about.clone())).collect();
    let machine = |id: &str, by: &'static str| (by, "machines.write", id.to_owned());
    let expected = [
        ("fleet", action::AUTHORS_PUBLISH, "version 1".to_owned()),
        machine("web-1", "bridge:writer"),
        machine("web-2", "bridge:writer"),
        ("bridge:writer", "operators.write", "local".to_owned()),
        ("operator:local", action::COMMANDS_SUBMIT, cid.to_string()),
        ("operator:local", action::COMMANDS_CANCEL, cid.to_string()),
        machine("web-1", "token:ci"),
    ];
    for one in &expected {
        assert!(said.contains(one), "{one:?} is not among {said:#?}");
    }
    assert_eq!(said.len(), expected.len(), "{said:#?}");
    let places = stored(&entries)?;
    for cursor in [submitted, cancelled] {
        let sequence = cursor.get(CMD).sequence;
        let entry = places.get(&(CMD.to_owned(), sequence)).context("its place")?;
        let message = world.link.by_sequence(CMD, sequence).await?.context("there")?;
        let sha256 = signalbox_schemas::id::Sha256::of(&message.payload);
        let expected =
            Outcome::Stored { stream: CMD.to_owned(), sequence, stored_at: message.time_ms, sha256 };
        assert_eq!(entry.outcome, expected);
    }
    for stream in [DOC, STATE, CMD] {
        assert!(places.keys().any(|(of, _)| of == stream), "nothing of {stream} is entered");
    }
    assert!(entries.iter().all(|entry| entry.written_at <= now()));
    bridge.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_dies_nothing_is_entered_twice_or_not_at_all() -> Result<()> {
    let world = World::start(&["web-1"]).await?;
    let mut bridge = world.bridge("b0").await?;
    let mut commands = 0;
    for round in 1..=4 {
        for _ in 0..100 {
            world.submit("true", &world.machines, MINUTE).await?;
            commands += 1;
        }
        // In the middle of entering them: some are in the chain, others are not.
        eventually("some are entered", || async {
            let entered = chain(&world).await?.len();
            ensure!(entered > commands - 90, "{entered} are entered");
            Ok(())
        })
        .await?;
        bridge.kill();
        bridge = world.bridge(&format!("b{round}")).await?;
    }
    let entries = all_entered(&world, commands).await?;
    let by: std::collections::BTreeSet<_> = entries.iter().map(|entry| entry.bridge.as_str()).collect();
    assert!(by.len() > 1, "only {by:?} has entered anything");
    bridge.stop().await
}

/// An administrator can write anything there, and stops nothing by it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_entry_stays_out_of_the_chain() -> Result<()> {
    let world = World::start(&["web-1"]).await?;
    let bridge = world.bridge("b1").await?;
    world.submit("true", &world.machines, MINUTE).await?;
    let entries = all_entered(&world, 1).await?;
    let last = entries.last().context("some")?;
    let forged = Signed::sign(&AuditEntry { n: last.n + 1, ..last.clone() }, &key(OPERATOR)?)?.to_json();
    // An entry of a bridge's, as it stood before: its end of the streams is not today's.
    let state = world.link.stream_state(AUDIT).await?;
    let old = world.link.by_sequence(AUDIT, state.first).await?.context("the first")?;
    for (subject, body) in [
        ("audit.main.b1.operator-local.commands-submit", b"rubbish".to_vec()),
        ("audit.main.b1.operator-local.commands-submit", forged),
        (&old.subject, old.payload.to_vec()),
    ] {
        world.link.store(Store::new(subject, body)).await?;
    }
    world.submit("true", &world.machines, MINUTE).await?;
    all_entered(&world, 2).await?;
    bridge.counted("audit.stray", 3).await?;
    // Neither does a bridge that comes later take any of it for the end.
    world.link.store(Store::new(&*old.subject, old.payload)).await?;
    bridge.stop().await?;
    let bridge = world.bridge("b2").await?;
    world.submit("true", &world.machines, MINUTE).await?;
    all_entered(&world, 3).await?;
    bridge.stop().await
}

/// What is not entered yet is not forgotten either.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_stay_until_they_are_entered() -> Result<()> {
    let broker = Broker::start().await?;
    let link = Conn::connect(Options::plain(&broker.url(), "test", None)).await?;
    // A stream that takes no entry.
    let def = stream::named(AUDIT).context("known")?;
    link.ensure_stream(&StreamDef { max_message_bytes: Some(1), ..def }).await?;
    let mut world = World::beside(broker, link)?;
    let web1 = mid("web-1")?;
    world.machines = vec![web1.clone()];
    world.enroll().await?;
    let short = |config: &mut CoreConfig| config.history_after = Duration::from_millis(100);
    let bridge = world.bridge_with("b1", short).await?;
    let (cid, _) = world.submit("true", &world.machines, 500).await?;
    world.claim(&web1, cid).await?;
    world.exit(&web1, cid, 0).await?;
    bridge.state(cid, &web1, RunState::Completed).await?;
    eventually("it stands in the history", || async {
        ensure!(world.link.stream_state(DONE).await?.messages == 2, "not yet");
        Ok(())
    })
    .await?;
    // Rounds of the history go by meanwhile.
    bridge.counted("audit.again", bridge.count("audit.again") + 9).await?;
    assert_ne!(world.command_subjects(cid).await?, 0, "it is gone, and stands nowhere");
    bridge.stop().await
}

/// Whoever has the broker's keys can delete the stream. What still stands elsewhere is entered again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_that_was_deleted_begins_anew() -> Result<()> {
    let world = World::start(&["web-1"]).await?;
    let bridge = world.bridge("b1").await?;
    world.submit("true", &world.machines, MINUTE).await?;
    all_entered(&world, 1).await?;
    let client = async_nats::connect(world.broker.url()).await?;
    async_nats::jetstream::new(client).delete_stream(AUDIT).await?;
    world.submit("true", &world.machines, MINUTE).await?;
    all_entered(&world, 2).await?;
    bridge.stop().await
}
