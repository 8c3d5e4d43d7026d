//! Events and the history of figures: told once, whoever told it and whoever died; and as it was, when it is asked for.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use signalbox_bridge::{
    api::{Api, Caller, Settings, events, health, history, operators},
    chronicle::Clock,
    core::CoreConfig,
};
use signalbox_link::Store;
use signalbox_schemas::{
    api::{EventView, FleetAt, FleetThen, ListEvents, Liveness, MachineOver, Page, Severity},
    authors::Role,
    error::ErrorCode,
    event::{Event, kind},
    heartbeat::{Disk, Facts, Heartbeat, Metrics},
    history::{FRAME_BYTES, bucket},
    id::{BridgeId, MachineToken},
    run::RunState,
    signed::Signed,
    stream::HIST,
    subject::Subject,
};
use signalbox_testkit::eventually;

use super::{
    MINUTE,
    world::{Bridge, OPERATOR, World, key, mid, now},
};

/// A clock of bridges that is ahead of that of the world: time passes without waiting, a second with each look at it, since a
/// bridge whose clock leaps has not listened.
#[derive(Clone, Default)]
struct Ahead {
    passed: Arc<AtomicU64>,
    shown: Arc<AtomicU64>,
}

impl Ahead {
    fn pass(&self, ms: u64) {
        self.passed.fetch_add(ms, Ordering::AcqRel);
    }

    fn clock(&self) -> Clock {
        let ahead = self.clone();
        Clock(Arc::new(move || {
            let passed = ahead.passed.load(Ordering::Acquire);
            let next = |shown: u64| Some((shown + 1_000).min(passed));
            let before = ahead.shown.fetch_update(Ordering::AcqRel, Ordering::Acquire, next);
            now() + (before.unwrap_or_else(|shown| shown) + 1_000).min(passed)
        }))
    }

    async fn bridge(&self, world: &World, name: &str) -> Result<Bridge> {
        let pace = |config: &mut CoreConfig| {
            config.chronicle.look_every = Duration::from_millis(10);
            config.chronicle.frame_every = Duration::from_millis(50);
            config.chronicle.clock = self.clock();
            config.lost_grace = Duration::from_millis(100);
        };
        world.bridge_with(name, pace).await
    }
}

fn api(world: &World, bridge: &Bridge) -> Result<Api> {
    let settings = Settings {
        ws: world.ws.clone(),
        bridge: BridgeId::new("asked")?,
        key: Arc::new(key(2)?),
        pepper: [0; 32],
    };
    let link = bridge.core.broker.link().clone();
    Ok(Api::new(link.clone(), link, bridge.view().clone(), settings))
}

async fn beat(world: &World, mid: &MachineToken, started_at: u64) -> Result<()> {
    let disk = Disk { mount: "/".into(), used_bytes: 71, total_bytes: 100 };
    let metrics = Metrics {
        cpu_percent: 12.4,
        memory_used_bytes: 4,
        memory_total_bytes: 10,
        load: [0.26, 0.0, 0.0],
        disks: vec![disk],
        ..Metrics::default()
    };
    let beat = Heartbeat {
        ws: world.ws.clone(),
        mid: mid.clone(),
        at: now(),
        relay: "0.1.0".into(),
        generation: 0,
        authors: 0,
        running: 0,
        outbox: 0,
        started_at,
        counters: BTreeMap::default(),
        facts: Facts::default(),
        metrics: Some(metrics),
        legacy: None,
    };
    world.link.publish(&format!("hb.main.{mid}"), None, serde_json::to_vec(&beat)?.into()).await?;
    Ok(())
}

/// Every event, the oldest first.
async fn told(api: &Api) -> Result<Vec<EventView>> {
    let args = ListEvents { limit: Some(1_000), ..ListEvents::default() };
    let mut listed = events::list(api, &Caller::admin_token(), &args).await?;
    ensure!(listed.next.is_none(), "there are more");
    listed.items.reverse();
    Ok(listed.items)
}

/// What was told of machines.
async fn of_machines(api: &Api) -> Result<Vec<String>> {
    let of_machine = |view: EventView| Some(format!("{} {}", view.event.machine?, view.event.kind));
    Ok(told(api).await?.into_iter().filter_map(of_machine).collect())
}

async fn machines_told(api: &Api, expected: &[&str]) -> Result<()> {
    eventually("what was told of machines", || async {
        let told = of_machines(api).await?;
        ensure!(told == expected, "{told:?}");
        Ok(())
    })
    .await
}

/// Waits until a frame was written from now on.
async fn framed(world: &World) -> Result<()> {
    let before = world.link.stream_state(HIST).await?.last;
    eventually("a frame", || async {
        let last = world.link.stream_state(HIST).await?.last;
        // One may have been on its way.
        ensure!(last > before + 2, "none yet");
        Ok(())
    })
    .await
}

async fn then(api: &Api, at: u64) -> Result<FleetThen> {
    let args = FleetAt { at, limit: Some(1_000), after: None };
    Ok(history::fleet(api, &Caller::admin_token(), &args).await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_happens_is_told_once_by_two_bridges_that_take_turns() -> Result<()> {
    let world = World::start(&["web-1", "web-2"]).await?;
    let (time, web1) = (Ahead::default(), mid("web-1")?);
    let first = time.bridge(&world, "b1").await?;
    first.dispatches().await?;
    let second = time.bridge(&world, "b2").await?;
    let asked = api(&world, &second)?;
    framed(&world).await?;
    beat(&world, &web1, 100).await?;
    machines_told(&asked, &["web-1 machine.online"]).await?;
    time.pass(30_000);
    machines_told(&asked, &["web-1 machine.online", "web-1 machine.stale"]).await?;
    // Whoever takes over knows what was told, and what happened meanwhile.
    first.kill();
    time.pass(40_000);
    second.dispatches().await?;
    let gone = ["web-1 machine.online", "web-1 machine.stale", "web-1 machine.offline"];
    machines_told(&asked, &gone).await?;
    beat(&world, &web1, 700).await?;
    // By the clock of the bridges that was long ago, too.
    let back = [&gone[..], &["web-1 relay.restarted"]].concat();
    machines_told(&asked, &back).await?;

    // A bridge without a view, and with all machines silent to it, has nothing to tell.
    framed(&world).await?;
    second.stop().await?;
    std::fs::remove_dir_all(world.data("b2"))?;
    let third = time.bridge(&world, "b2").await?;
    third.dispatches().await?;
    let asked = api(&world, &third)?;
    let leases = || async {
        let leases = told(&asked).await?.into_iter().filter(|view| view.event.kind == kind::BRIDGE_LEASE);
        ensure!(leases.count() == 3, "not yet");
        Ok(())
    };
    eventually("the third lease", leases).await?;
    framed(&world).await?;
    machines_told(&asked, &back).await?;
    let started = told(&asked).await?.into_iter().filter(|view| view.event.kind == kind::BRIDGE_STARTED);
    assert_eq!(started.count(), 3);
    third.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_fleet_is_shown_as_it_was_before_a_machine_went_away() -> Result<()> {
    let world = World::start(&["web-1", "web-2"]).await?;
    let (time, web1) = (Ahead::default(), mid("web-1")?);
    let bridge = time.bridge(&world, "b1").await?;
    let asked = api(&world, &bridge)?;
    bridge.dispatches().await?;
    framed(&world).await?;
    let state = |then: &FleetThen| then.listed.items.first().map(|view| view.state);
    beat(&world, &web1, 100).await?;
    let online = eventually("it is online in a frame", || async {
        let then = then(&asked, u64::MAX).await?;
        ensure!(state(&then) == Some(Liveness::Online), "{then:?}");
        Ok(then)
    })
    .await?;
    let first = &online.listed.items[0];
    let figures = (first.figures.cpu_percent, first.figures.memory_percent, first.figures.disk_percent);
    assert_eq!((figures, first.figures.load_tenths), ((Some(12), Some(40), Some(71)), Some(3)));
    assert_eq!((first.relay.as_deref(), first.token.as_str()), (Some("0.1.0"), "web-1"));
    assert_eq!(online.listed.items[1].last_seen_at, None);
    time.pass(70_000);
    let offline = eventually("it is offline in a frame", || async {
        let then = then(&asked, u64::MAX).await?;
        ensure!(state(&then) == Some(Liveness::Offline), "{then:?}");
        Ok(then)
    })
    .await?;
    let (at, gone_at) = (online.at.context("there is a frame")?, offline.listed.items[0].at);
    assert!(at < gone_at);

    // The answer does not depend on what a bridge keeps for itself.
    bridge.stop().await?;
    std::fs::remove_dir_all(world.data("b1"))?;
    let bridge = world.bridge("b1").await?;
    let asked = api(&world, &bridge)?;
    let before = then(&asked, at).await?;
    assert_eq!((state(&before), before.at), (Some(Liveness::Online), Some(at)));
    assert_eq!(before.listed, online.listed);
    let kept = before.kept.context("something is kept")?;
    assert!(kept.earliest <= at && kept.latest >= gone_at, "{kept:?}");
    let nothing = then(&asked, kept.earliest - 1).await?;
    assert_eq!((nothing.at, nothing.listed.items.len(), nothing.kept.is_some()), (None, 0, true));
    let page = FleetAt { at, limit: Some(1), after: None };
    let first = history::fleet(&asked, &Caller::admin_token(), &page).await?;
    let page = FleetAt { after: first.listed.next, ..page };
    let second = history::fleet(&asked, &Caller::admin_token(), &page).await?;
    assert_eq!((second.listed.items[0].token.as_str(), second.listed.next), ("web-2", None));

    let over = MachineOver { machine: "web-1".into(), from: 1, to: u64::MAX, points: None };
    let series = history::machine(&asked, &Caller::admin_token(), &over).await?;
    assert_eq!(series.points.len(), 1, "frames of one minute are one point: {series:?}");
    for (points, code) in [(0, ErrorCode::Invalid), (501, ErrorCode::Invalid)] {
        let over = MachineOver { points: Some(points), ..over.clone() };
        let refused = history::machine(&asked, &Caller::admin_token(), &over).await;
        assert_eq!(refused.err().map(|problem| problem.code), Some(code));
    }
    let over = MachineOver { machine: "web-9".into(), ..over };
    let refused = history::machine(&asked, &Caller::admin_token(), &over).await;
    assert_eq!(refused.err().map(|problem| problem.code), Some(ErrorCode::NotFound));
    bridge.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_frame_or_no_event_is_passed_over() -> Result<()> {
    let world = World::start(&["web-1"]).await?;
    let web1 = mid("web-1")?;
    let subject = Subject::History(world.ws.clone(), bucket(&web1, 16)).to_string();
    for body in [b"no frame".to_vec(), vec![b'x'; FRAME_BYTES]] {
        world.link.store(Store::new(subject.clone(), body)).await?;
    }
    let event = Event {
        ws: world.ws.clone(),
        kind: kind::MACHINE_OFFLINE.into(),
        at: 1,
        bridge: BridgeId::new("b1")?,
        machine: Some(web1.clone()),
        machine_id: None,
        command: None,
        text: "forged".into(),
        details: BTreeMap::new(),
        told_runs: None,
    };
    let forged = Signed::sign(&event, &key(OPERATOR)?)?.to_json();
    world.link.store(Store::new(event.subject().to_string(), forged)).await?;
    let elsewhere = Signed::sign(&event, &key(2)?)?.to_json();
    world.link.store(Store::new("evt.main.machine-online", elsewhere)).await?;

    let time = Ahead::default();
    let bridge = time.bridge(&world, "b1").await?;
    let asked = api(&world, &bridge)?;
    bridge.dispatches().await?;
    beat(&world, &web1, 100).await?;
    eventually("the machine is in a frame", || async {
        let then = then(&asked, u64::MAX).await?;
        ensure!(then.listed.items.first().is_some_and(|view| view.state == Liveness::Online), "{then:?}");
        Ok(())
    })
    .await?;
    assert!(bridge.count("refused.HIST.frame") > 0);
    assert!(!told(&asked).await?.iter().any(|view| view.event.text == "forged"));
    bridge.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_run_is_told_once_and_events_are_found() -> Result<()> {
    let world = World::start(&["web-1", "web-2"]).await?;
    let (time, web1) = (Ahead::default(), mid("web-1")?);
    let bridge = time.bridge(&world, "b1").await?;
    let asked = api(&world, &bridge)?;
    bridge.dispatches().await?;
    framed(&world).await?;
    let (cid, _) = world.submit("true", std::slice::from_ref(&web1), MINUTE).await?;
    world.claim(&web1, cid).await?;
    bridge.state(cid, &web1, RunState::Lost).await?;
    let lost = || ListEvents { kind: Some(kind::RUN_LOST.into()), ..ListEvents::default() };
    eventually("the lost run", || async {
        let listed = events::list(&asked, &Caller::admin_token(), &lost()).await?;
        ensure!(listed.items.len() == 1 && listed.items[0].event.command == Some(cid), "{listed:?}");
        Ok(())
    })
    .await?;
    framed(&world).await?;
    bridge.stop().await?;
    let bridge = time.bridge(&world, "b2").await?;
    let asked = api(&world, &bridge)?;
    bridge.dispatches().await?;
    framed(&world).await?;
    let find = async |args: ListEvents| {
        let listed = events::list(&asked, &Caller::admin_token(), &args).await?;
        anyhow::Ok(listed.items)
    };
    let found = find(lost()).await?;
    assert_eq!(found.len(), 1);
    let (sequence, at) = (found[0].sequence, found[0].stored_at);
    for (args, expected) in [
        (ListEvents { machine: Some("web-1".into()), ..lost() }, 1),
        (ListEvents { machine: Some("web-2".into()), ..lost() }, 0),
        (ListEvents { since: Some(at), ..lost() }, 1),
        (ListEvents { since: Some(at + 1), ..lost() }, 0),
        (ListEvents { behind: Some(sequence - 1), ..lost() }, 1),
        (ListEvents { behind: Some(sequence), ..lost() }, 0),
        (ListEvents { after: Some(sequence.to_string()), ..lost() }, 0),
        (ListEvents { kind: Some("no.such".into()), ..lost() }, 0),
    ] {
        assert_eq!(find(args.clone()).await?.len(), expected, "{args:?}");
    }
    let page = ListEvents { limit: Some(1), ..ListEvents::default() };
    let newest = events::list(&asked, &Caller::admin_token(), &page).await?;
    let rest = ListEvents { after: newest.next, ..ListEvents::default() };
    assert!(find(rest).await?.iter().all(|view| view.sequence < newest.items[0].sequence));
    bridge.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_are_shown_with_what_they_may() -> Result<()> {
    let world = World::start(&["web-1"]).await?;
    let bridge = world.bridge("b1").await?;
    let asked = api(&world, &bridge)?;
    let (cid, _) = world.submit("true", &world.machines, MINUTE).await?;
    let listed = eventually("the operator was seen", || async {
        let listed = operators::list(&asked, &Caller::admin_token(), &Page::default()).await?;
        ensure!(listed.items[0].last_seen_at.is_some(), "{listed:?} after {cid}");
        Ok(listed)
    })
    .await?;
    let local = &listed.items[0];
    assert_eq!((local.id.as_str(), local.role, listed.items.len()), ("local", Some(Role::Owner), 1));
    assert!(local.valid_until.is_some_and(|until| until > now()));
    assert_eq!(local.signing_key, *key(OPERATOR)?.public());
    bridge.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_system_says_how_it_is_and_what_should_be_done() -> Result<()> {
    let mut world = World::start(&["web-1"]).await?;
    let bridge = world.bridge("b1").await?;
    bridge.dispatches().await?;
    let asked = api(&world, &bridge)?;
    let health = health::get(&asked, &Caller::admin_token()).await?;
    assert_eq!((health.status.as_str(), health.broker.connected), ("ok", true));
    assert_eq!(health.bridge.lease_holder.map(|id| id.to_string()).as_deref(), Some("b1"));
    assert!(health.bridge.epoch.is_some() && health.bridge.caught_up);
    assert!(health.bridge.clock_ahead_ms.is_some_and(|ahead| ahead.abs() < 5_000));
    let names: Vec<String> = health.streams.iter().map(|stream| stream.name.clone()).collect();
    let all: Vec<&str> = signalbox_schemas::stream::all().into_iter().map(|def| def.name).collect();
    assert_eq!(names, all);
    let run = health.streams.iter().find(|stream| stream.name == "RUN").context("RUN")?;
    assert_eq!((run.fill_percent, run.refuses_when_full, run.replicas), (Some(0), true, 1));
    assert_eq!(health.bridge.lag.len(), 8);
    let single =
        health.warnings.iter().find(|warning| warning.code == "single_server").context("one server")?;
    assert_eq!(single.severity, Severity::Info);
    // A stream that does not answer hides no other one.
    let streams = async_nats::jetstream::new(async_nats::connect(world.broker.url()).await?);
    eventually("the silent stream is told", || async {
        // A bridge that looks where the audit chain ends makes missing streams.
        let _ = streams.delete_stream(HIST).await;
        let health = health::get(&asked, &Caller::admin_token()).await?;
        let silent = health.warnings.iter().find(|warning| warning.code == "no_leader");
        let silent = silent.with_context(|| format!("{health:?}"))?;
        ensure!((silent.severity, silent.text.contains("HIST")) == (Severity::Critical, true), "{silent:?}");
        ensure!(health.streams.len() == all.len() - 1 && health.bridge.lease_holder.is_some(), "{health:?}");
        Ok(())
    })
    .await?;
    // Without a broker the last reading is answered, and what is wrong.
    world.broker.kill()?;
    eventually("the lost connection is told", || async {
        let health = health::get(&asked, &Caller::admin_token()).await?;
        ensure!(health.status == "degraded", "{}", health.status);
        ensure!(health.warnings.iter().any(|warning| warning.code == "no_broker"), "{:?}", health.warnings);
        ensure!(health.read_at.is_some(), "it forgot what it knew");
        Ok(())
    })
    .await?;
    bridge.kill();
    Ok(())
}
