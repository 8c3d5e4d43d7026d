//! What leaves the live streams, and what stays.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use signalbox_bridge::core::CoreConfig;
use signalbox_link::StoreError;
use signalbox_schemas::{
    Base64Url,
    command::{Change, CommandSpec, PutCredential, SshTarget, Target},
    credential::{CredentialLabel, CredentialType, StorageMode},
    id::{CredentialName, Nonce, Sha256},
    limit,
    record::DoneCommand,
    run::{Lost, LostReason, RunState},
    signed::Signed,
    stream::{CMD, DONE, RUN},
    subject::FactKind,
};
use signalbox_testkit::eventually_within;
use uuid::Uuid;

use super::{
    MINUTE,
    world::{World, mid, now, other_bridge_key},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settled_history_leaves_the_live_streams_and_answers_stay() -> Result<()> {
    let world = World::start(&["web-1"]).await?;
    let web1 = mid("web-1")?;
    let short = |config: &mut CoreConfig| {
        config.history_after = Duration::from_secs(1);
        config.lost_grace = Duration::from_millis(100);
    };
    let bridge = world.bridge_with("b1", short).await?;
    let (done, _) = world.submit("true", &world.machines, 1_500).await?;
    let (lost, _) = world.submit("true", &world.machines, 1_500).await?;
    let (open, _) = world.submit("true", &world.machines, MINUTE).await?;
    world.claim(&web1, done).await?;
    world.exit(&web1, done, 0).await?;
    world.claim(&web1, lost).await?;
    bridge.state(done, &web1, RunState::Completed).await?;
    bridge.state(lost, &web1, RunState::Lost).await?;
    let before = world.answers(&bridge).await?;
    eventually_within("history is purged", Duration::from_secs(30), || async {
        let left = world.command_subjects(done).await? + world.command_subjects(lost).await?;
        ensure!(left == 0, "{left} messages in CMD");
        Ok(())
    })
    .await?;
    assert_eq!(world.command_subjects(open).await?, 2);
    assert_eq!(world.answers(&bridge).await?, before);
    // From DONE alone.
    bridge.stop().await?;
    std::fs::remove_dir_all(world.data("b1"))?;
    let bridge = world.bridge_with("b1", short).await?;
    assert_eq!(world.answers(&bridge).await?, before);
    // The records once more, backwards.
    let records = world.link.next_by_subject(DONE, 1, "done.main.*", 100).await?;
    assert_eq!(records.len(), 4, "two runs and two commands");
    for record in records.iter().rev() {
        world.raw(&record.subject, record.payload.clone()).await?;
    }
    world.read(&bridge, &[DONE]).await?;
    assert_eq!(world.answers(&bridge).await?, before);
    // Learned of after all: by a second record.
    world.exit(&web1, lost, 3).await?;
    bridge.state(lost, &web1, RunState::Failed).await?;
    eventually_within("the late exit is purged too", Duration::from_secs(30), || async {
        let left = world.link.stream_state(RUN).await?.messages;
        ensure!(left == 0, "{left} messages in RUN");
        Ok(())
    })
    .await?;
    let after = world.answers(&bridge).await?;
    let third = world.bridge_with("b3", short).await?;
    world.read(&third, &[DONE]).await?;
    assert_eq!(world.answers(&third).await?, after);
    third.stop().await?;
    bridge.stop().await
}

/// A body that is told from everything else.
const BODY: [u8; 60] = [0xa7; 60];

fn putting() -> Result<Change> {
    let label = CredentialLabel {
        name: CredentialName::new("db")?,
        credential_type: CredentialType::Password,
        target: None,
        username: None,
        storage_mode: StorageMode::RelayOnly,
    };
    Ok(Change::PutCredential(PutCredential { label, body: Base64Url(BODY.to_vec()) }))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_forgets_what_was_sealed_and_knows_what_was_granted() -> Result<()> {
    let world = World::start(&["web-1"]).await?;
    let web1 = mid("web-1")?;
    let short = |config: &mut CoreConfig| config.history_after = Duration::from_secs(1);
    let bridge = world.bridge_with("b1", short).await?;
    let change = putting()?;
    let with_it =
        |spec: &mut CommandSpec| (spec.change, spec.crit) = (Some(change), vec!["change".to_owned()]);
    let cid = world.submit_with(&world.machines, 1_500, with_it).await?;
    world.read(&bridge, &[CMD]).await?;
    let whole = bridge.view().command_spec(cid)?.context("it is there")?;
    assert_eq!(whole.spec_sha256, Sha256::of(&whole.spec_bytes));
    assert!(whole.spec.without_secret().is_some_and(|kept| kept != whole.spec), "nothing is sealed");
    world.claim(&web1, cid).await?;
    world.exit(&web1, cid, 0).await?;
    world.forgotten(cid).await?;
    let record = world.link.last_from_leader(DONE, "done.main._").await?.context("no record")?;
    let done = Signed::<DoneCommand>::from_json(&record.payload)?.peek()?;
    assert_eq!(done.spec_sha256, Some(whole.spec_sha256));
    assert_eq!(Some(CommandSpec::from_settled_bytes(&done.spec.0)?), whole.spec.without_secret());
    let sealed = data_encoding::BASE64URL_NOPAD.encode(&BODY);
    let is_kept = |spec: &[u8]| String::from_utf8_lossy(spec).contains(&sealed);
    assert!(is_kept(&whole.spec_bytes) && !is_kept(&done.spec.0));
    // The bridge that had the whole of it, and one that knows it from DONE alone.
    world.read(&bridge, &[DONE]).await?;
    let other = world.bridge_with("b2", short).await?;
    for view in [bridge.view(), other.view()] {
        let stored = view.command_spec(cid)?.context("it is there")?;
        assert!(!is_kept(&stored.spec_bytes));
        assert_eq!((stored.spec_sha256, Some(stored.spec)), (whole.spec_sha256, whole.spec.without_secret()));
        assert_eq!(view.command(cid)?.context("it is there")?.summary.command, "true");
    }
    // It is read again when a bridge starts again.
    bridge.stop().await?;
    let bridge = world.bridge_with("b1", short).await?;
    assert!(!is_kept(&bridge.view().command_spec(cid)?.context("it is there")?.spec_bytes));
    other.stop().await?;
    bridge.stop().await
}

/// What is learned after the sealed value was forgotten is a fact as any other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_without_what_was_sealed_is_still_ended_by_a_late_exit() -> Result<()> {
    let world = World::start(&["web-1"]).await?;
    let web1 = mid("web-1")?;
    let short = |config: &mut CoreConfig| {
        config.history_after = Duration::from_secs(1);
        config.lost_grace = Duration::from_millis(100);
    };
    let bridge = world.bridge_with("b1", short).await?;
    let change = putting()?;
    let with_it =
        |spec: &mut CommandSpec| (spec.change, spec.crit) = (Some(change), vec!["change".to_owned()]);
    let cid = world.submit_with(&world.machines, 1_500, with_it).await?;
    world.claim(&web1, cid).await?;
    bridge.state(cid, &web1, RunState::Lost).await?;
    world.forgotten(cid).await?;
    world.read(&bridge, &[DONE]).await?;
    world.exit(&web1, cid, 3).await?;
    bridge.state(cid, &web1, RunState::Failed).await?;
    let after = world.answers(&bridge).await?;
    // One that starts again, and one that begins with nothing.
    bridge.stop().await?;
    let bridge = world.bridge_with("b1", short).await?;
    assert_eq!(world.answers(&bridge).await?, after);
    let fresh = world.bridge_with("b2", short).await?;
    fresh.state(cid, &web1, RunState::Failed).await?;
    assert_eq!(world.answers(&fresh).await?, after);
    fresh.stop().await?;
    bridge.stop().await
}

/// What was accepted by a looser rule is read by it, in CMD and in DONE, and its relay says what it thinks of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_that_were_accepted_before_stay_readable() -> Result<()> {
    let world = World::start(&["web-1"]).await?;
    let web1 = mid("web-1")?;
    let short = |config: &mut CoreConfig| config.history_after = Duration::from_secs(1);
    let bridge = world.bridge_with("b1", short).await?;
    let old = |spec: &mut CommandSpec| {
        let (host, username) = ("fe80::1%eth0".to_owned(), Some("ops".to_owned()));
        let ssh = SshTarget { host, port: 22, username, jump: Vec::new(), credential: None };
        (spec.target, spec.crit) = (Some(Target::Ssh(ssh)), vec!["target".to_owned()]);
    };
    let cid = world.submit_with(&world.machines, 1_500, old).await?;
    world.read(&bridge, &[CMD]).await?;
    assert!(bridge.view().command_spec(cid)?.is_some());
    world.claim(&web1, cid).await?;
    world.exit(&web1, cid, 0).await?;
    bridge.state(cid, &web1, RunState::Completed).await?;
    let before = world.answers(&bridge).await?;
    world.forgotten(cid).await?;
    let fresh = world.bridge_with("b2", short).await?;
    assert_eq!(world.answers(&fresh).await?, before);
    fresh.stop().await?;
    bridge.stop().await
}

/// The largest claim and the largest exit that a relay can store, the first of them rubbish.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_hostile_relay_does_not_stop_the_history_of_all() -> Result<()> {
    let world = World::start(&["web-1", "web-2"]).await?;
    let (web1, web2) = (mid("web-1")?, mid("web-2")?);
    let short = |config: &mut CoreConfig| config.history_after = Duration::from_secs(1);
    let bridge = world.bridge_with("b1", short).await?;
    let (hostile, _) = world.submit("true", std::slice::from_ref(&web1), 1_500).await?;
    let (honest, _) = world.submit("true", std::slice::from_ref(&web2), 1_500).await?;
    let rubbish = vec![b'x'; limit::RELAY_PAYLOAD_BYTES - 1_024];
    world.raw_fact(&web1, hostile, FactKind::Claim, rubbish).await?;
    let mut exit = world.exit_fact(&web1, hostile, 1, b"", true);
    exit.signal = Some("x".repeat(limit::FACT_BYTES / 4 * 3 - 1_500));
    world.fact(&web1, hostile, FactKind::Exit, &exit).await?;
    bridge.state(hostile, &web1, RunState::Rejected).await?;
    world.claim(&web2, honest).await?;
    world.exit(&web2, honest, 0).await?;
    bridge.state(honest, &web2, RunState::Completed).await?;
    world.read(&bridge, &[RUN]).await?;
    let before = world.answers(&bridge).await?;
    eventually_within("all history is purged", Duration::from_secs(30), || async {
        let left = world.link.stream_state(RUN).await?.messages;
        ensure!(left == 0, "{left} messages in RUN");
        Ok(())
    })
    .await?;
    assert_eq!(bridge.count("done.unwritable"), 0);
    bridge.stop().await?;
    // From DONE alone, where the rubbish is shorter and means the same.
    std::fs::remove_dir_all(world.data("b1"))?;
    let bridge = world.bridge_with("b1", short).await?;
    assert_eq!(world.answers(&bridge).await?, before);
    bridge.stop().await
}

/// Once a run stands in DONE, RUN keeps its register alone: room is everybody's, and the register outlives every offer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_in_done_leaves_its_register_until_the_last_offer_is_void() -> Result<()> {
    let world = World::start(&["web-1"]).await?;
    let web1 = mid("web-1")?;
    let short = |config: &mut CoreConfig| {
        config.history_after = Duration::from_secs(1);
        config.lost_grace = Duration::from_millis(100);
    };
    let bridge = world.bridge_with("b1", short).await?;
    let (done, _) = world.submit("true", &world.machines, MINUTE).await?;
    world.claim(&web1, done).await?;
    world.exit(&web1, done, 0).await?;
    bridge.state(done, &web1, RunState::Completed).await?;
    let before = world.answers(&bridge).await?;
    world.left_in_run(done, &["claim"]).await?;
    assert_eq!(world.answers(&bridge).await?, before);
    assert!(matches!(world.claim(&web1, done).await, Err(StoreError::Taken { .. })));
    // The relay says it again: nothing new, for nobody.
    world.exit(&web1, done, 0).await?;
    world.read(&bridge, &[RUN]).await?;
    assert_eq!(world.answers(&bridge).await?, before);

    // What is learned late is written once more, and opens the register no earlier.
    let (late, _) = world.submit("true", &world.machines, MINUTE).await?;
    world.claim(&web1, late).await?;
    bridge.state(late, &web1, RunState::Lost).await?;
    world.left_in_run(late, &["claim"]).await?;
    world.exit(&web1, late, 3).await?;
    bridge.state(late, &web1, RunState::Failed).await?;
    world.left_in_run(late, &["claim"]).await?;
    assert_eq!(world.command_subjects(late).await?, 2, "CMD keeps it as long as RUN");
    let after = world.answers(&bridge).await?;
    bridge.stop().await?;
    std::fs::remove_dir_all(world.data("b1"))?;
    let rebuilt = world.bridge_with("b1", short).await?;
    assert_eq!(world.answers(&rebuilt).await?, after);
    rebuilt.stop().await
}

/// A `lost` that was there before the claim, signed by the machine, under a nonce that is nobody's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_strange_lost_does_not_write_history_in_circles() -> Result<()> {
    let world = World::start(&["web-1"]).await?;
    let web1 = mid("web-1")?;
    let short = |config: &mut CoreConfig| config.history_after = Duration::from_secs(1);
    let bridge = world.bridge_with("b1", short).await?;
    let (cid, _) = world.submit("true", &world.machines, 2_000).await?;
    let lost = Lost {
        ws: world.ws.clone(),
        mid: web1.clone(),
        cid,
        nonce: Nonce([9; 16]),
        reason: LostReason::KeeperGone,
        lost_at: now(),
        known_bytes: [0, 0],
    };
    world.fact(&web1, cid, FactKind::Lost, &lost).await?;
    world.claim(&web1, cid).await?;
    world.exit(&web1, cid, 0).await?;
    bridge.state(cid, &web1, RunState::Completed).await?;
    eventually_within("history is purged", Duration::from_secs(30), || async {
        ensure!(world.command_subjects(cid).await? == 0, "CMD still has it");
        Ok(())
    })
    .await?;
    let records = world.link.next_by_subject(DONE, 1, "done.main.web-1", 10).await?.len();
    assert_eq!((records, bridge.count("done.refused")), (1, 0));
    bridge.stop().await
}

/// What no bridge can make anything of takes room from everybody until it is deleted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn litter_leaves_run_and_takes_nothing_along() -> Result<()> {
    let world = World::start(&["web-1"]).await?;
    let web1 = mid("web-1")?;
    let bridge = world.bridge("b1").await?;
    bridge.dispatches().await?;
    let (cid, _) = world.submit("true", &world.machines, MINUTE).await?;
    world.claim(&web1, cid).await?;
    let unknown = Uuid::now_v7();
    for subject in [
        "run.main.web-1.rubbish.claim".to_owned(),
        format!("run.main.web-1.{unknown}.exit"),
        format!("run.main.web-1.{cid}.exit"),
        "run.main.UPPER.word.claim".to_owned(),
    ] {
        world.raw(&subject, vec![b'x'; 64 * 1024]).await?;
    }
    eventually_within("the rubbish is gone", Duration::from_secs(20), || async {
        let left = world.link.stream_state(RUN).await?.messages;
        ensure!(left == 1, "{left} messages in RUN");
        Ok(())
    })
    .await?;
    assert_eq!(bridge.count("run.litter_deleted"), 4);
    // It stood in the way of the true one, and does so no more.
    world.exit(&web1, cid, 0).await?;
    bridge.state(cid, &web1, RunState::Completed).await?;
    bridge.stop().await
}

/// Whoever has replaced its key is still believed for what it had written before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_outlives_the_key_of_the_bridge_that_wrote_it() -> Result<()> {
    let world = World::start(&["web-1"]).await?;
    let web1 = mid("web-1")?;
    let short = |config: &mut CoreConfig| config.history_after = Duration::from_secs(1);
    let bridge = world.bridge_with("b1", short).await?;
    let (expired, _) = world.submit("true", &world.machines, 100).await?;
    let (open, _) = world.submit("true", &world.machines, 100).await?;
    bridge.state(expired, &web1, RunState::Expired).await?;
    bridge.state(open, &web1, RunState::Expired).await?;
    eventually_within("history", Duration::from_secs(30), || async {
        ensure!(world.command_subjects(expired).await? == 0, "CMD still has it");
        Ok(())
    })
    .await?;
    let before = world.answers(&bridge).await?;
    bridge.stop().await?;
    world.replace_bridge_key().await?;
    std::fs::remove_dir_all(world.data("b1"))?;
    let key = Arc::new(other_bridge_key()?);
    let rebuilt = world.bridge_with("b1", |config| config.key = key).await?;
    assert_eq!(world.answers(&rebuilt).await?, before);
    rebuilt.stop().await
}

/// A relay says an end again whose report may be lost. A bridge that begins with nothing may read that before it reads that
/// the run has long been over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_that_is_said_again_is_no_later_end() -> Result<()> {
    let world = World::start(&["web-1"]).await?;
    let web1 = mid("web-1")?;
    let short = |config: &mut CoreConfig| config.history_after = Duration::from_secs(1);
    let bridge = world.bridge_with("b1", short).await?;
    let (cid, _) = world.submit("true", &world.machines, MINUTE).await?;
    world.claim(&web1, cid).await?;
    world.exit(&web1, cid, 0).await?;
    bridge.state(cid, &web1, RunState::Completed).await?;
    let before = world.answers(&bridge).await?;
    world.left_in_run(cid, &["claim"]).await?;
    bridge.stop().await?;
    world.exit(&web1, cid, 0).await?;
    // It reads DONE later than RUN.
    let records = world.link.next_by_subject(DONE, 1, "done.main.*", 100).await?;
    for record in &records {
        world.link.delete_message(DONE, record.sequence).await?;
    }
    let bridge = world.bridge("b2").await?;
    bridge.state(cid, &web1, RunState::Completed).await?;
    for record in &records {
        world.raw(&record.subject, record.payload.clone()).await?;
    }
    world.read(&bridge, &[DONE]).await?;
    assert_eq!(world.answers(&bridge).await?, before);
    bridge.stop().await
}
