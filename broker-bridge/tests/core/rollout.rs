//! Commands that spread in waves, whichever bridge lets them, and whatever dies between.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result, ensure};
use signalbox_link::Store;
use signalbox_schemas::{
    api::RolloutView,
    audit::action,
    heartbeat::{Facts, Heartbeat},
    id::{CommandId, MachineToken},
    rollout::{Counted, Progress, RolloutState, Steer},
    run::RunState,
    signed::Signed,
    stream::{CMD, DOC, HB},
    subject::{CommandPiece, Subject},
};
use signalbox_testkit::eventually;

use super::{
    MINUTE,
    world::{Bridge, World, key, mid, now},
};

const NAMES: [&str; 10] = ["m-0", "m-1", "m-2", "m-3", "m-4", "m-5", "m-6", "m-7", "m-8", "m-9"];

/// A machine gives a sign of life.
async fn beat(world: &World, mid: &MachineToken) -> Result<()> {
    let beat = Heartbeat {
        ws: world.ws.clone(),
        mid: mid.clone(),
        at: now(),
        relay: "0.1.0".into(),
        generation: u64::MAX,
        authors: 1,
        running: 0,
        outbox: 0,
        started_at: 1,
        counters: BTreeMap::new(),
        facts: Facts::default(),
        metrics: None,
        legacy: None,
    };
    let subject = Subject::Heartbeat(world.ws.clone(), mid.clone()).to_string();
    world.link.publish(&subject, None, serde_json::to_vec(&beat)?.into()).await?;
    Ok(())
}

/// Ten machines that are all there.
async fn fleet() -> Result<World> {
    let world = World::start(&NAMES).await?;
    for mid in &world.machines {
        beat(&world, mid).await?;
    }
    Ok(world)
}

async fn submit(world: &World, plan: &str, expires_in: u64) -> Result<CommandId> {
    let plan = plan.parse()?;
    world.submit_with(&world.machines, expires_in, |spec| spec.rollout = Some(plan)).await
}

fn shown(bridge: &Bridge, cid: CommandId) -> Result<Box<RolloutView>> {
    bridge.view().summary(cid)?.context("there")?.rollout.context("it spreads")
}

/// Waits until exactly these are on offer, and the others are held.
async fn begun(world: &World, bridge: &Bridge, cid: CommandId, places: &[usize]) -> Result<()> {
    eventually("those that were let go", || async {
        let view = bridge.view().command(cid)?.context("there")?;
        let held = |run: &&signalbox_schemas::api::RunView| run.state != RunState::Held;
        let begun: Vec<&str> = view.runs.iter().filter(held).map(|run| run.machine.as_str()).collect();
        let wanted: Vec<&str> = places.iter().filter_map(|place| NAMES.get(*place).copied()).collect();
        ensure!(begun == wanted, "{begun:?} instead of {wanted:?}");
        let count = view.summary.counts.get(&RunState::Held).copied().unwrap_or_default();
        ensure!(count as usize == NAMES.len() - places.len(), "{:?}", view.summary.counts);
        for (place, mid) in world.machines.iter().enumerate() {
            let offers = world.offers(mid).await.unwrap_or_default();
            let waits = view.runs.get(place).is_some_and(|run| run.state == RunState::Pending);
            ensure!(!waits || offers.contains(&cid), "{mid} is not offered it");
            ensure!(places.contains(&place) || !offers.contains(&cid), "{mid} is offered what is held");
        }
        Ok(())
    })
    .await
}

/// A machine runs it.
async fn runs(world: &World, cid: CommandId, place: usize, code: i32) -> Result<()> {
    let mid = world.machines.get(place).context("there")?;
    eventually("it is offered", || async {
        ensure!(world.offers(mid).await?.contains(&cid), "not to {mid}");
        Ok(())
    })
    .await?;
    world.claim(mid, cid).await?;
    world.exit(mid, cid, code).await?;
    Ok(())
}

/// Another bridge writes what somebody wishes.
async fn steer(world: &World, bridge: &Bridge, cid: CommandId, steer: Steer, failed: u32) -> Result<()> {
    let subject = Subject::Command(world.ws.clone(), cid, CommandPiece::Rollout).to_string();
    let last = world.link.last_from_leader(CMD, &subject).await?.context("it has begun")?;
    let before = Signed::<Progress>::from_json(&last.payload)?.peek()?;
    let counted = Counted { failed, ended: failed };
    let next = before.steered(steer, counted, "operator:local", now()).map_err(anyhow::Error::msg)?;
    let body = Signed::sign(&next.context("a change")?, &key(2)?)?.to_json();
    world.link.store(Store::new(subject, body).only_after(last.sequence)).await?;
    world.read(bridge, &[CMD]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_canary_is_first_and_waves_grow() -> Result<()> {
    let world = fleet().await?;
    let bridge = world.bridge("b1").await?;
    let cid = submit(&world, "canary 1, 20%, 5", MINUTE).await?;
    begun(&world, &bridge, cid, &[0]).await?;
    let view = shown(&bridge, cid)?;
    assert_eq!((view.wave, view.waves, view.released, view.state), (1, 4, 1, RolloutState::Going));
    world.claim(&world.machines[0], cid).await?;
    begun(&world, &bridge, cid, &[0]).await?;
    world.exit(&world.machines[0], cid, 0).await?;
    begun(&world, &bridge, cid, &[0, 1, 2]).await?;
    runs(&world, cid, 1, 1).await?;
    begun(&world, &bridge, cid, &[0, 1, 2]).await?;
    runs(&world, cid, 2, 0).await?;
    begun(&world, &bridge, cid, &[0, 1, 2, 3, 4, 5, 6, 7]).await?;
    for place in 3..8 {
        runs(&world, cid, place, 0).await?;
    }
    begun(&world, &bridge, cid, &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]).await?;
    let view = shown(&bridge, cid)?;
    assert_eq!((view.wave, view.released, view.failures), (4, 10, 1));
    for place in 8..10 {
        runs(&world, cid, place, 0).await?;
    }
    eventually("its end", || async {
        ensure!(bridge.view().summary(cid)?.context("there")?.settled, "not yet");
        Ok(())
    })
    .await?;
    bridge.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_than_the_parallel_have_not_settled() -> Result<()> {
    let world = fleet().await?;
    let bridge = world.bridge("b1").await?;
    let cid = submit(&world, "parallel 2", MINUTE).await?;
    begun(&world, &bridge, cid, &[0, 1]).await?;
    runs(&world, cid, 1, 0).await?;
    begun(&world, &bridge, cid, &[0, 1, 2]).await?;
    runs(&world, cid, 2, 7).await?;
    begun(&world, &bridge, cid, &[0, 1, 2, 3]).await?;
    bridge.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_pauses_on_failures_goes_on_when_told_and_is_aborted() -> Result<()> {
    let world = fleet().await?;
    let bridge = world.bridge("b1").await?;
    let cid = submit(&world, "canary 1, 3, pause after 1", MINUTE).await?;
    begun(&world, &bridge, cid, &[0]).await?;
    runs(&world, cid, 0, 1).await?;
    let paused = |why: Option<&'static str>| {
        let bridge = &bridge;
        move || async move {
            let view = shown(bridge, cid)?;
            ensure!((view.state, view.why.as_deref()) == (RolloutState::Paused, why), "{view:?}");
            Ok(())
        }
    };
    eventually("a pause", paused(Some("1 of 1 runs failed"))).await?;
    begun(&world, &bridge, cid, &[0]).await?;
    steer(&world, &bridge, cid, Steer::Resume, 1).await?;
    begun(&world, &bridge, cid, &[0, 1, 2, 3]).await?;
    steer(&world, &bridge, cid, Steer::Pause, 0).await?;
    eventually("a pause", paused(None)).await?;
    assert_eq!(shown(&bridge, cid)?.by, "operator:local");
    for place in 1..4 {
        runs(&world, cid, place, 0).await?;
    }
    bridge.state(cid, &mid("m-3")?, RunState::Completed).await?;
    begun(&world, &bridge, cid, &[0, 1, 2, 3]).await?;
    steer(&world, &bridge, cid, Steer::Resume, 1).await?;
    begun(&world, &bridge, cid, &[0, 1, 2, 3, 4, 5, 6]).await?;
    // What runs goes on, and what has not begun is taken back, whether it was let go or not.
    world.claim(&world.machines[4], cid).await?;
    bridge.state(cid, &mid("m-4")?, RunState::Executing).await?;
    steer(&world, &bridge, cid, Steer::Abort, 0).await?;
    for name in ["m-5", "m-6", "m-7", "m-9"] {
        bridge.state(cid, &mid(name)?, RunState::Cancelled).await?;
    }
    let (mailbox, _) = world.mailbox(&mid("m-4")?).await?;
    assert!(mailbox.cancels.is_empty(), "{:?}", mailbox.cancels);
    world.exit(&world.machines[4], cid, 0).await?;
    bridge.state(cid, &mid("m-4")?, RunState::Completed).await?;
    let summary = bridge.view().summary(cid)?.context("there")?;
    assert!(summary.settled && summary.rollout.is_some_and(|it| it.state == RolloutState::Aborted));

    let entries = eventually("each wish is in the audit chain", || async {
        let entries = super::audit::chain(&world).await?;
        let wishes: Vec<_> = entries.iter().filter(|entry| entry.about == cid.to_string()).cloned().collect();
        ensure!(wishes.len() == 5, "{wishes:?}");
        Ok(wishes)
    })
    .await?;
    let mut said: Vec<_> = entries.iter().map(|entry| (&*entry.actor, &*entry.action)).collect();
    said.retain(|(_, act)| *act != action::COMMANDS_SUBMIT);
    let wish = |act| ("operator:local", act);
    assert_eq!(said, ["commands.resume", "commands.pause", "commands.resume", "commands.abort"].map(wish));
    bridge.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_forgiven_and_did_not_fail_after_all_hides_no_other_failure() -> Result<()> {
    let world = fleet().await?;
    let soon = |config: &mut signalbox_bridge::core::CoreConfig| {
        config.lost_grace = Duration::from_millis(100);
    };
    let bridge = world.bridge_with("b1", soon).await?;
    let cid = submit(&world, "canary 1, 1, pause after 1", MINUTE).await?;
    begun(&world, &bridge, cid, &[0]).await?;
    world.claim(&world.machines[0], cid).await?;
    bridge.state(cid, &mid("m-0")?, RunState::Lost).await?;
    let is = |state: RolloutState| {
        let bridge = &bridge;
        move || async move {
            let view = shown(bridge, cid)?;
            ensure!(view.state == state, "{view:?}");
            Ok(())
        }
    };
    eventually("a pause", is(RolloutState::Paused)).await?;
    steer(&world, &bridge, cid, Steer::Resume, 1).await?;
    begun(&world, &bridge, cid, &[0, 1]).await?;
    world.exit(&world.machines[0], cid, 0).await?;
    bridge.state(cid, &mid("m-0")?, RunState::Completed).await?;
    runs(&world, cid, 1, 0).await?;
    begun(&world, &bridge, cid, &[0, 1, 2]).await?;
    runs(&world, cid, 2, 1).await?;
    eventually("another pause", is(RolloutState::Paused)).await?;
    begun(&world, &bridge, cid, &[0, 1, 2]).await?;
    bridge.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_goes_on_goes_on_from_what_was_said_and_all_say_the_same() -> Result<()> {
    let world = fleet().await?;
    let first = world.bridge("b1").await?;
    first.dispatches().await?;
    let second = world.bridge("b2").await?;
    let cid = submit(&world, "canary 1, 2, parallel 2", MINUTE).await?;
    begun(&world, &first, cid, &[0]).await?;
    begun(&world, &second, cid, &[0]).await?;
    // Nobody tells it that it ends, and its sled is gone.
    first.kill();
    std::fs::remove_dir_all(world.data("b1"))?;
    runs(&world, cid, 0, 0).await?;
    begun(&world, &second, cid, &[0, 1, 2]).await?;
    let first = world.bridge("b1").await?;
    begun(&world, &first, cid, &[0, 1, 2]).await?;
    second.stop().await?;
    runs(&world, cid, 2, 0).await?;
    runs(&world, cid, 1, 0).await?;
    begun(&world, &first, cid, &[0, 1, 2, 3, 4]).await?;
    first.stop().await?;
    // From its rows.
    let again = world.bridge("b1").await?;
    begun(&world, &again, cid, &[0, 1, 2, 3, 4]).await?;
    runs(&world, cid, 3, 0).await?;
    runs(&world, cid, 4, 0).await?;
    begun(&world, &again, cid, &[0, 1, 2, 3, 4, 5, 6]).await?;
    let second = world.bridge("b2").await?;
    assert_eq!(world.answers(&second).await?, world.answers(&again).await?);
    second.stop().await?;
    again.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_held_expires_with_the_command_and_is_cancelled_with_it() -> Result<()> {
    let world = fleet().await?;
    let bridge = world.bridge("b1").await?;
    let expiring = submit(&world, "canary 1", 1_500).await?;
    let cancelled = submit(&world, "canary 1", MINUTE).await?;
    begun(&world, &bridge, cancelled, &[0]).await?;
    world.cancel(cancelled, super::OPERATOR).await?;
    for (cid, state) in [(cancelled, RunState::Cancelled), (expiring, RunState::Expired)] {
        for mid in &world.machines {
            bridge.state(cid, mid, state).await?;
        }
        assert!(bridge.view().summary(cid)?.context("there")?.settled);
    }
    assert_eq!(shown(&bridge, expiring)?.failures, 0);
    bridge.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_is_silent_waits_for_its_turn_and_holds_up_nobody() -> Result<()> {
    let world = World::start(&NAMES).await?;
    let bridge = world.bridge("b1").await?;
    for mid in &world.machines[3..] {
        beat(&world, mid).await?;
    }
    let cid = submit(&world, "canary 1, 10", MINUTE).await?;
    begun(&world, &bridge, cid, &[3]).await?;
    runs(&world, cid, 3, 0).await?;
    begun(&world, &bridge, cid, &[3, 4, 5, 6, 7, 8, 9]).await?;
    beat(&world, &mid("m-1")?).await?;
    begun(&world, &bridge, cid, &[1, 3, 4, 5, 6, 7, 8, 9]).await?;
    bridge.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_not_listened_takes_nobody_for_silent() -> Result<()> {
    let world = fleet().await?;
    let bridge = world.bridge("b1").await?;
    let cid = submit(&world, "canary 1, 3", MINUTE).await?;
    begun(&world, &bridge, cid, &[0]).await?;
    bridge.stop().await?;
    // Heartbeats are in the broker's memory, and gone with it; the machine that was let go takes a while to be back.
    world.link.purge_subject(HB, ">").await?;
    for mid in &world.machines[1..] {
        beat(&world, mid).await?;
    }
    let again = world.bridge("b1").await?;
    // Long enough that each of the rollouts is looked at more than once.
    let other = submit(&world, "canary 1, wait 2s", MINUTE).await?;
    begun(&world, &again, other, &[1]).await?;
    runs(&world, other, 1, 0).await?;
    begun(&world, &again, other, &[1, 2, 3, 4, 5, 6, 7, 8, 9]).await?;
    begun(&world, &again, cid, &[0]).await?;
    assert_eq!(shown(&again, cid)?.released, 1);
    runs(&world, cid, 0, 0).await?;
    begun(&world, &again, cid, &[0, 1, 2, 3]).await?;
    again.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn between_two_waves_there_is_a_wait_also_for_who_takes_over() -> Result<()> {
    let world = fleet().await?;
    let bridge = world.bridge("b1").await?;
    let cid = submit(&world, "canary 1, wait 3s", MINUTE).await?;
    begun(&world, &bridge, cid, &[0]).await?;
    runs(&world, cid, 0, 0).await?;
    bridge.state(cid, &mid("m-0")?, RunState::Completed).await?;
    let settled = bridge.view().run(cid, &mid("m-0")?)?.and_then(|run| run.ended_at).context("settled")?;
    bridge.stop().await?;
    let again = world.bridge("b1").await?;
    begun(&world, &again, cid, &[0]).await?;
    let all: Vec<usize> = (0..10).collect();
    begun(&world, &again, cid, &all).await?;
    let began = shown(&again, cid)?.at;
    assert!(began >= settled + 3_000, "after {} ms", began - settled);
    again.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_bridge_says_lets_nobody_go_and_stands_in_nobodys_way() -> Result<()> {
    let world = fleet().await?;
    let bridge = world.bridge("b1").await?;
    let cid = submit(&world, "canary 1, 1", MINUTE).await?;
    begun(&world, &bridge, cid, &[0]).await?;
    let subject = Subject::Command(world.ws.clone(), cid, CommandPiece::Rollout).to_string();
    let mut forged = Progress::new(world.ws.clone(), cid);
    forged.revision = 99;
    for place in 0..10 {
        forged.released.insert(place);
    }
    let by_operator = Signed::sign(&forged, &key(3)?)?.to_json();
    // A bridge's word that names machines which the command has not.
    forged.released.insert(10);
    let too_many = Signed::sign(&forged, &key(2)?)?.to_json();
    for body in [by_operator, too_many, b"rubbish".to_vec()] {
        world.raw(&subject, body).await?;
    }
    world.read(&bridge, &[CMD]).await?;
    begun(&world, &bridge, cid, &[0]).await?;
    runs(&world, cid, 0, 0).await?;
    begun(&world, &bridge, cid, &[0, 1]).await?;
    bridge.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bridge_that_nobody_believes_writes_nothing() -> Result<()> {
    let world = fleet().await?;
    let bridge = world.bridge("b1").await?;
    let cid = submit(&world, "canary 1, 2", MINUTE).await?;
    begun(&world, &bridge, cid, &[0]).await?;
    let subject = Subject::Command(world.ws.clone(), cid, CommandPiece::Rollout).to_string();
    let last =
        || async { anyhow::Ok(world.link.last_from_leader(CMD, &subject).await?.context("there")?.sequence) };
    let before = last().await?;
    world.replace_bridge_key().await?;
    world.read(&bridge, &[DOC]).await?;
    runs(&world, cid, 0, 0).await?;
    bridge.counted("rollout.unbelieved", 2).await?;
    assert_eq!(last().await?, before);
    assert_eq!(shown(&bridge, cid)?.released, 1);
    // The document names it again.
    world.authors(3).await?;
    begun(&world, &bridge, cid, &[0, 1, 2]).await?;
    bridge.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_says_how_far_it_came_when_the_streams_have_forgotten_it() -> Result<()> {
    let world = fleet().await?;
    let short = |config: &mut signalbox_bridge::core::CoreConfig| {
        config.history_after = Duration::from_millis(200);
    };
    let bridge = world.bridge_with("b1", short).await?;
    let standby = world.bridge("b2").await?;
    let cid = submit(&world, "canary 1", 3_000).await?;
    begun(&world, &bridge, cid, &[0]).await?;
    // It knows the command, and how it began, and not how it went on.
    begun(&world, &standby, cid, &[0]).await?;
    standby.stop().await?;
    runs(&world, cid, 0, 3).await?;
    world.forgotten(cid).await?;
    let answers = world.answers(&bridge).await?;
    assert_eq!(shown(&bridge, cid)?.released, 10);
    bridge.stop().await?;
    std::fs::remove_dir_all(world.data("b1"))?;
    let rebuilt = world.bridge("b1").await?;
    assert_eq!(world.answers(&rebuilt).await?, answers);
    let standby = world.bridge("b2").await?;
    assert_eq!(world.answers(&standby).await?, answers);
    standby.stop().await?;
    rebuilt.stop().await
}
