//! The core against a real broker: what the streams say is what the view answers, whatever happens between.

#[path = "core/audit.rs"]
mod audit;
#[path = "core/chronicle.rs"]
mod chronicle;
#[path = "core/history.rs"]
mod history;
#[path = "core/rollout.rs"]
mod rollout;
#[path = "core/world.rs"]
mod world;

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use futures_util::future::try_join_all;
use signalbox_bridge::{
    core::CoreError,
    view::{Change, ChunkBody},
};
use signalbox_link::{Link, Options, StoreError, Stored};
use signalbox_schemas::{
    api::{Page, Target},
    command::CommandSpec,
    heartbeat::{Facts, Heartbeat, Metrics},
    id::CommandId,
    label::LabelMap,
    limit,
    mailbox::Mailbox,
    output::{ChunkHead, OutputStream},
    record::{AssignmentRecord, table},
    run::{RunState, WithdrawReason, Withdrawal},
    selector::Selector,
    signed::Signed,
    stream::{CMD, OUT, RUN, STATE},
    subject::{FactKind, Subject},
};
use signalbox_testkit::{eventually, eventually_within};
use tokio::time::Instant;
use uuid::Uuid;
use world::{Bridge, OPERATOR, World, key, mid, now};

const MINUTE: u64 = 60_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_goes_from_submit_to_exit() -> Result<()> {
    let world = World::start(&["web-1", "web-2"]).await?;
    let bridge = world.bridge("b1").await?;
    let (web1, web2) = (mid("web-1")?, mid("web-2")?);
    let (cid, cursors) = world.submit("echo hello", &world.machines, MINUTE).await?;
    assert!(bridge.view().reached(&cursors, Duration::from_secs(5)).await);
    assert_eq!(bridge.view().command(cid)?.context("there")?.summary.counts, [(RunState::Pending, 2)].into());
    world.offered(&web1, &[cid]).await?;
    world.offered(&web2, &[cid]).await?;

    world.claim(&web1, cid).await?;
    bridge.state(cid, &web1, RunState::Executing).await?;
    assert_eq!(bridge.view().machines(now())[0].running, 1);
    world.chunk(&web1, cid, 0, b"hel").await?;
    world.chunk(&web1, cid, 3, b"lo").await?;
    world.fact(&web1, cid, FactKind::Exit, &world.exit_fact(&web1, cid, 0, b"hello", false)).await?;
    bridge.state(cid, &web1, RunState::Completed).await?;
    world.claim(&web2, cid).await?;
    world.exit(&web2, cid, 3).await?;
    bridge.state(cid, &web2, RunState::Failed).await?;

    let view = bridge.view();
    let command = view.command(cid)?.context("there")?;
    assert!(command.summary.settled);
    assert_eq!(command.summary.counts, [(RunState::Completed, 1), (RunState::Failed, 1)].into());
    assert_eq!(command.runs[1].exit_code, Some(3));
    assert_eq!(command.runs[0].stdout.bytes, 5);
    world.read(&bridge, &[OUT]).await?;
    let chunks = view.chunks_after(cid, 0, 10)?;
    assert_eq!(chunks.iter().map(|chunk| (chunk.offset, chunk.len)).collect::<Vec<_>>(), [(0, 3), (3, 2)]);
    assert_eq!(view.chunk_body(&chunks[1]).await?, ChunkBody::Kept("lo".into()));
    assert_eq!(view.chunk_covering(cid, &web1, OutputStream::Stdout, 4)?.context("there")?, chunks[1]);
    assert_eq!(view.chunk_covering(cid, &web1, OutputStream::Stdout, 5)?, None);
    assert_eq!(view.inline(cid, &web2)?.context("inline")?.stdout.0, b"hello");
    // Settled offers leave after a while.
    world.offered(&web1, &[]).await?;
    assert_eq!(view.machines(now())[0].running, 0);
    bridge.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_bridges_and_one_without_its_store_answer_the_same() -> Result<()> {
    let world = World::start(&["web-1", "web-2"]).await?;
    let (web1, web2) = (mid("web-1")?, mid("web-2")?);
    let first = world.bridge("b1").await?;
    let assignment = AssignmentRecord {
        ws: world.ws.clone(),
        id: Uuid::now_v7().to_string(),
        machine_id: signalbox_schemas::id::MachineId::new("web-1")?,
        name: "one".into(),
        enabled: true,
        api_key_hash: "00".into(),
        created_at: 1,
        created_by: None,
        labels: LabelMap::new(),
        updated_at: None,
        removed_at: None,
        revision: 0,
    };
    first.core.broker.put_record(table::ASSIGNMENTS, &assignment.id, &assignment).await?;
    let mut commands = Vec::new();
    for i in 0..10 {
        commands.push(world.submit(&format!("echo {i}"), &world.machines, MINUTE).await?.0);
    }
    for cid in &commands[..6] {
        world.claim(&web1, *cid).await?;
        world.chunk(&web1, *cid, 0, b"out").await?;
    }
    for cid in &commands[..4] {
        world.exit(&web1, *cid, 0).await?;
    }
    world.raw_fact(&web2, commands[0], FactKind::Claim, b"rubbish".to_vec()).await?;
    world.cancel(commands[9], OPERATOR).await?;
    first.state(commands[9], &web2, RunState::Cancelled).await?;
    first.state(commands[9], &web1, RunState::Cancelled).await?;

    let second = world.bridge("b2").await?;
    world.read(&first, &[CMD, RUN, OUT]).await?;
    let answers = world.answers(&first).await?;
    assert!(answers.contains("bad_register"), "{answers}");
    world.read(&second, &[CMD, RUN, OUT]).await?;
    assert_eq!(world.answers(&second).await?, answers);
    first.stop().await?;
    std::fs::remove_dir_all(world.data("b1"))?;
    let rebuilt = world.bridge("b1").await?;
    assert_eq!(world.answers(&rebuilt).await?, answers);
    rebuilt.stop().await?;
    // And with it: from the rows of the store, not from the streams.
    let again = world.bridge("b1").await?;
    assert_eq!(world.answers(&again).await?, answers);
    again.stop().await?;
    second.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_twice_late_or_in_another_order_changes_nothing() -> Result<()> {
    let world = World::start(&["web-1"]).await?;
    let web1 = mid("web-1")?;
    let bridge = world.bridge("b1").await?;
    let (cid, _) = world.submit("echo hello", &world.machines, MINUTE).await?;
    world.offered(&web1, &[cid]).await?;
    // The exit stands in the stream before its claim.
    world.fact(&web1, cid, FactKind::Exit, &world.exit_fact(&web1, cid, 0, b"hello", true)).await?;
    world.claim(&web1, cid).await?;
    bridge.state(cid, &web1, RunState::Completed).await?;
    // The registers take nothing twice.
    assert!(matches!(world.claim(&web1, cid).await, Err(StoreError::Taken { .. })));
    assert!(matches!(world.exit(&web1, cid, 1).await, Err(StoreError::Taken { .. })));
    world.chunk(&web1, cid, 0, b"hello").await?;
    world.read(&bridge, &[OUT, RUN]).await?;
    let before = world.answers(&bridge).await?;

    // Parts, spec and chunks again; chunks cut at other places.
    for message in world.link.next_by_subject(CMD, 1, &format!("cmd.main.{cid}.*"), 10).await? {
        world.raw(&message.subject, message.payload.clone()).await?;
        world.raw(&message.subject, message.payload).await?;
    }
    world.chunk(&web1, cid, 0, b"hello").await?;
    world.chunk(&web1, cid, 1, b"ell").await?;
    world.read(&bridge, &[CMD, OUT]).await?;
    bridge.counted("chunk.duplicate", 2).await?;
    assert_eq!(world.answers(&bridge).await?, before);
    // A chunk that overlaps adds what is new and nothing else.
    world.chunk(&web1, cid, 3, b"lo you").await?;
    world.read(&bridge, &[OUT]).await?;
    let chunks = bridge.view().chunks_after(cid, 0, 10)?;
    let mut all = Vec::new();
    for chunk in &chunks {
        assert_eq!(chunk.offset, all.len() as u64);
        let ChunkBody::Kept(body) = bridge.view().chunk_body(chunk).await? else {
            bail!("{chunk:?} is gone")
        };
        all.extend(body);
    }
    assert_eq!(all, b"hello you");
    bridge.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_or_foreign_mailbox_is_replaced() -> Result<()> {
    let world = World::start(&["web-1"]).await?;
    let web1 = mid("web-1")?;
    let bridge = world.bridge("b1").await?;
    bridge.dispatches().await?;
    world.offered(&web1, &[]).await?;
    let (_, old) = world.mailbox(&web1).await?;
    let (cid, _) = world.submit("true", &world.machines, MINUTE).await?;
    world.offered(&web1, &[cid]).await?;
    let (newest, _) = world.mailbox(&web1).await?;
    // Somebody with the right to write puts rubbish there: the next look repairs it.
    world.raw(&old.subject, "rubbish").await?;
    bridge.counted("mailbox.foreign", 1).await?;
    world.offered(&web1, &[cid]).await?;
    let (repaired, _) = world.mailbox(&web1).await?;
    ensure!(repaired.epoch == newest.epoch);
    // So is an old one under a new sequence, by one with a higher generation.
    world.raw(&old.subject, old.payload.clone()).await?;
    world.offered(&web1, &[cid]).await?;
    let (after, _) = world.mailbox(&web1).await?;
    assert!(after.generation > newest.generation);
    bridge.stop().await
}

/// A fact, a record, …: each refused for its reason, and the next good one is read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_to_be_believed_is_counted_and_skipped() -> Result<()> {
    let world = World::start(&["web-1", "web-2"]).await?;
    let (web1, web2) = (mid("web-1")?, mid("web-2")?);
    let bridge = world.bridge("b1").await?;
    let (cid, _) = world.submit("true", &world.machines, MINUTE).await?;
    world.claim(&web1, cid).await?;
    let on = |mid, kind| Subject::Run(world.ws.clone(), mid, cid, kind).to_string();

    // A start with broken JSON, an exit by another machine's key.
    world.raw_fact(&web1, cid, FactKind::Start, b"{".to_vec()).await?;
    bridge.counted("refused.RUN.envelope", 1).await?;
    let exit = world.exit_fact(&web1, cid, 0, b"", true);
    let forged = Signed::sign(&exit, &world.machine_key(&web2)?)?.to_json();
    world.raw_fact(&web1, cid, FactKind::Exit, forged).await?;
    bridge.counted("refused.RUN.untrusted", 1).await?;
    // Another command's fact under this subject.
    let (other, _) = world.submit("true", &world.machines, MINUTE).await?;
    let exit = world.exit_fact(&web1, other, 0, b"", true);
    world.fact(&web1, cid, FactKind::Lost, &exit).await?;
    bridge.counted("refused.RUN.signature", 1).await?;
    bridge.state(cid, &web1, RunState::Executing).await?;
    // The first message in a register decides, whatever it is.
    let mut claim = Signed::sign(&world.claim_fact(&web2, cid), &world.machine_key(&web2)?)?.to_json();
    let end = claim.len() - 10;
    claim[end] ^= 1;
    world.link.store(signalbox_link::Store::new(on(web2.clone(), FactKind::Claim), claim)).await?;
    bridge.state(cid, &web2, RunState::Rejected).await?;
    assert_eq!(
        bridge.view().run(cid, &web2)?.and_then(|run| run.error).context("says why")?.code,
        "bad_register"
    );

    // Records, commands, documents.
    world.raw("$KV.state.main.machines.web-9", "{}").await?;
    let record = world.machine_record(0, &web1)?;
    let unsigned = Signed::sign(&record, &key(99)?)?.to_json();
    world.raw("$KV.state.main.machines.web-1", unsigned).await?;
    world.raw("doc.main.authors", "rubbish").await?;
    world.raw(&format!("cmd.main.{}.spec", CommandId::new(Uuid::now_v7())?), vec![b'x'; 1_000_000]).await?;
    world.raw(&format!("cmd.main.{cid}.w1"), "x").await?;
    world.raw(&format!("cmd.main.{cid}.rollout"), "x").await?;
    world.cancel(cid, 99).await?;
    world.raw(&format!("out.main.web-1.{cid}"), "no headers").await?;
    for name in [
        "refused.KV_state.envelope",
        "refused.KV_state.unknown",
        "refused.DOC.envelope",
        "refused.CMD.spec",
        "refused.CMD.subject",
        "refused.CMD.envelope",
        "refused.CMD.unknown",
        "refused.OUT.Sb-Stream",
    ] {
        bridge.counted(name, 1).await.with_context(|| name.to_owned())?;
    }
    // An unknown critical member.
    let mut mailbox: Mailbox = world.mailbox(&web1).await?.0;
    mailbox.crit = vec!["telepathy".into()];
    mailbox.generation += 1_000_000;
    let body = Signed::sign(&mailbox, &key(2)?)?.to_json();
    world.raw("mbox.main.web-1", body).await?;
    bridge.counted("mailbox.foreign", 1).await?;

    let (last, _) = world.submit("true", &world.machines, MINUTE).await?;
    world.claim(&web1, last).await?;
    world.exit(&web1, last, 0).await?;
    bridge.state(last, &web1, RunState::Completed).await?;
    bridge.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grants_that_do_not_fit_make_no_command() -> Result<()> {
    let world = World::start(&["web-1", "web-2"]).await?;
    let bridge = world.bridge("b1").await?;
    let spec = world.spec("true", 2, MINUTE)?;
    let bytes = serde_json::to_vec(&spec)?;
    let grants = world.grants(&spec, &bytes, &world.machines)?;
    let link = &world.link;
    let store = signalbox_bridge::submit::store_command;
    store(link, &world.ws, None, bytes.clone().into(), &spec, grants[..1].to_vec()).await?;
    bridge.counted("refused.CMD.grants_count", 1).await?;
    let reversed = grants.iter().rev().cloned().collect();
    let spec = world.spec("true", 2, MINUTE)?;
    store(link, &world.ws, None, serde_json::to_vec(&spec)?.into(), &spec, reversed).await?;
    bridge.counted("refused.CMD.grants_misplaced", 1).await?;
    let spec = world.spec("true", 1, MINUTE)?;
    let bytes = serde_json::to_vec(&spec)?;
    let nobody = world.grants(&spec, &bytes, &[mid("nobody")?])?;
    store(link, &world.ws, None, bytes.into(), &spec, nobody).await?;
    bridge.counted("refused.CMD.unknown", 1).await?;
    assert_eq!(bridge.view().commands(&Page::default())?.items, []);
    bridge.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn submitting_again_is_the_same_command_and_another_one_conflicts() -> Result<()> {
    let world = World::start(&["web-1"]).await?;
    let bridge = world.bridge("b1").await?;
    let mut spec = world.spec("true", 1, MINUTE)?;
    let bytes = serde_json::to_vec(&spec)?;
    let grants = world.grants(&spec, &bytes, &world.machines)?;
    let store = signalbox_bridge::submit::store_command;
    let first = store(&world.link, &world.ws, None, bytes.clone().into(), &spec, grants.clone()).await?;
    let again = store(&world.link, &world.ws, None, bytes.into(), &spec, grants).await?;
    assert_eq!(first, again);
    spec.command = "false".into();
    let bytes = serde_json::to_vec(&spec)?;
    let grants = world.grants(&spec, &bytes, &world.machines)?;
    let other = store(&world.link, &world.ws, None, bytes.into(), &spec, grants).await;
    assert!(matches!(other, Err(signalbox_bridge::submit::SubmitError::IdConflict)), "{other:?}");
    // The foreign part that it left behind changes nothing.
    world.read(&bridge, &[CMD]).await?;
    assert_eq!(bridge.view().command_spec(spec.cid)?.context("there")?.spec.command, "true");
    world.offered(&mid("web-1")?, &[spec.cid]).await?;
    bridge.stop().await
}

/// What cannot be told to have been accepted must not be stored: the client would send it again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_stored_when_its_cursor_cannot_be_told() -> Result<()> {
    let broker = signalbox_testkit::Broker::start().await?;
    let link = Link::connect(Options::plain(&broker.url(), "test", None)).await?;
    // Streams that take what CMD and the state would, and say nothing about those.
    let client = async_nats::connect(broker.url()).await?;
    let jetstream = async_nats::jetstream::new(client);
    let subjects = vec!["cmd.>".to_owned(), "$KV.state.>".to_owned()];
    let config = async_nats::jetstream::stream::Config {
        name: "OTHER".to_owned(),
        subjects,
        allow_atomic_publish: true,
        ..Default::default()
    };
    jetstream.create_stream(config).await?;
    let world = World::beside(broker, link)?;
    let submitted = world.submit("true", &[mid("web-1")?], MINUTE).await;
    assert!(submitted.is_err(), "{submitted:?}");
    let writer = world.writer()?;
    let record = world.machine_record(0, &mid("web-1")?)?;
    let put = writer.put_records_atomic(vec![writer.record(table::MACHINES, "web-1", &record)?]).await;
    assert!(put.is_err(), "{put:?}");
    assert_eq!(world.link.stream_state("OTHER").await?.messages, 0);
    Ok(())
}

/// Who reads the stream of commands need not ask when it was made, and asking takes as long as storing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_reads_a_stream_knows_when_it_was_made() -> Result<()> {
    let world = World::start(&["web-1"]).await?;
    let bridge = world.bridge("b1").await?;
    let state = world.link.stream_state(CMD).await?;
    world.read(&bridge, &[CMD]).await?;
    assert_eq!(bridge.view().made(CMD), Some(state.created_ms));
    assert_eq!(bridge.view().made("OTHER"), None);
    let spec = world.spec("true", 1, MINUTE)?;
    let bytes = serde_json::to_vec(&spec)?;
    let grants = world.grants(&spec, &bytes, &world.machines)?;
    let store = signalbox_bridge::submit::store_command;
    let asked = store(&world.link, &world.ws, None, bytes.clone().into(), &spec, grants.clone()).await?;
    // A time that nobody would answer, so that it is seen not to be asked for.
    let told = store(&world.link, &world.ws, Some(7), bytes.into(), &spec, grants).await?;
    assert_eq!(asked.get(CMD).created, state.created_ms);
    assert_eq!((told.get(CMD).created, told.get(CMD).sequence), (7, asked.get(CMD).sequence));
    bridge.stop().await
}

/// A client waits 5 s for its answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_does_not_answer_is_reported_in_time() -> Result<()> {
    let world = World::start(&["web-1"]).await?;
    world.broker.stop()?;
    let asked = std::time::Instant::now();
    let submitted = world.submit("true", &world.machines, MINUTE).await;
    let took = asked.elapsed();
    world.broker.cont()?;
    assert!(submitted.is_err(), "{submitted:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_bridge_takes_over_and_nothing_is_doubled() -> Result<()> {
    let world = World::start(&["web-1"]).await?;
    let web1 = mid("web-1")?;
    let first = world.bridge("b1").await?;
    first.dispatches().await?;
    let second = world.bridge("b2").await?;
    let (one, _) = world.submit("true", &world.machines, MINUTE).await?;
    world.offered(&web1, &[one]).await?;
    let epoch = world.mailbox(&web1).await?.0.epoch;
    assert!(second.core.lease.borrow().is_none());
    first.kill();
    second.dispatches().await?;
    let (two, _) = world.submit("true", &world.machines, MINUTE).await?;
    world.offered(&web1, &[one, two]).await?;
    assert!(world.mailbox(&web1).await?.0.epoch > epoch);
    second.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clean_stop_gives_the_lease_back_at_once() -> Result<()> {
    let world = World::start(&[]).await?;
    let first = world.bridge("b1").await?;
    first.dispatches().await?;
    let second = world.bridge("b2").await?;
    first.stop().await?;
    eventually_within("the other bridge dispatches", Duration::from_millis(1_500), || async {
        ensure!(second.core.lease.borrow().is_some(), "not yet");
        Ok(())
    })
    .await?;
    second.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_offer_expires_and_is_gone() -> Result<()> {
    let world = World::start(&["web-1"]).await?;
    let web1 = mid("web-1")?;
    let bridge = world.bridge("b1").await?;
    let (cid, _) = world.submit("true", &world.machines, 500).await?;
    world.offered(&web1, &[cid]).await?;
    bridge.state(cid, &web1, RunState::Expired).await?;
    assert!(bridge.view().command(cid)?.context("there")?.summary.settled);
    assert!(matches!(world.claim(&web1, cid).await, Err(StoreError::Taken { .. })));
    world.offered(&web1, &[]).await?;
    bridge.stop().await
}

/// Who won how often.
#[derive(Debug, Default)]
struct Score {
    claimed: u32,
    withdrawn: u32,
}

impl Score {
    /// Counts a race that is over: its register, the answer to the claim and the bridge must agree.
    async fn count(
        &mut self,
        (world, bridge): (&World, &Bridge),
        cid: CommandId,
        claim: Result<Stored, StoreError>,
        withdrawn: RunState,
    ) -> Result<()> {
        let web1 = mid("web-1")?;
        let decided = world.register(&web1, cid).await?;
        match claim {
            Ok(_) => {
                assert_eq!(decided, RunState::Executing, "an acknowledged claim does not stand there");
                self.claimed += 1;
            }
            Err(StoreError::Taken { .. }) => {
                assert_eq!(decided, withdrawn, "a claim lost against itself");
                self.withdrawn += 1;
            }
            Err(error) => return Err(error.into()),
        }
        bridge.state(cid, &web1, decided).await
    }

    fn is_mixed(&self) -> bool {
        self.claimed > 0 && self.withdrawn > 0
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_against_a_cancel_has_one_winner() -> Result<()> {
    let world = World::start(&["web-1"]).await?;
    let web1 = mid("web-1")?;
    let bridge = world.bridge("b1").await?;
    bridge.dispatches().await?;
    let (mut score, mut delay_ms) = (Score::default(), 0);
    for _ in 0..40 {
        let (cid, _) = world.submit("true", &world.machines, MINUTE).await?;
        world.read(&bridge, &[CMD]).await?;
        // The bridge withdraws as soon as it reads the cancel; the relay claims about then.
        let claim = async {
            tokio::time::sleep(Duration::from_millis(delay_ms)).await;
            world.claim(&web1, cid).await
        };
        let (cancel, claim) = tokio::join!(world.cancel(cid, OPERATOR), claim);
        cancel?;
        // A little later after it won, a little sooner after it lost: so the two stay close together.
        delay_ms = if claim.is_ok() { delay_ms + 1 } else { delay_ms.saturating_sub(1) };
        score.count((&world, &bridge), cid, claim, RunState::Cancelled).await?;
    }
    println!("{score:?}");
    assert!(score.is_mixed(), "no race: {score:?}");
    bridge.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_against_an_expiry_has_one_winner() -> Result<()> {
    let world = World::start(&["web-1"]).await?;
    let web1 = mid("web-1")?;
    let bridge = world.bridge("b1").await?;
    bridge.dispatches().await?;
    let mut score = Score::default();
    for _ in 0..5 {
        let mut commands = Vec::new();
        for _ in 0..24 {
            commands.push(world.submit("true", &world.machines, 200).await?.0);
        }
        world.read(&bridge, &[CMD]).await?;
        // Not one that keeps the rule, which would be silent by now: each claims when the bridge withdraws, from 12 ms
        // before to 11 ms after the moment at which that is due.
        let claims = commands.iter().zip(0..).map(async |(cid, n)| {
            let expires_at = bridge.view().summary(*cid)?.context("there")?.expires_at;
            let due = (expires_at + limit::EXPIRY_GRACE_MS - 12 + n).saturating_sub(now());
            tokio::time::sleep(Duration::from_millis(due)).await;
            anyhow::Ok((*cid, world.claim(&web1, *cid).await))
        });
        for (cid, claim) in try_join_all(claims).await? {
            score.count((&world, &bridge), cid, claim, RunState::Expired).await?;
        }
        if score.is_mixed() {
            break;
        }
    }
    println!("{score:?}");
    assert!(score.is_mixed(), "no race: {score:?}");
    bridge.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_reaches_a_claimed_run_through_the_mailbox() -> Result<()> {
    let world = World::start(&["web-1"]).await?;
    let web1 = mid("web-1")?;
    let bridge = world.bridge("b1").await?;
    let (cid, _) = world.submit("sleep 9", &world.machines, MINUTE).await?;
    world.claim(&web1, cid).await?;
    bridge.state(cid, &web1, RunState::Executing).await?;
    world.cancel(cid, OPERATOR).await?;
    eventually("the mailbox names the cancel", || async {
        let (mailbox, _) = world.mailbox(&web1).await?;
        ensure!(mailbox.cancels == [cid], "{:?}", mailbox.cancels);
        Ok(())
    })
    .await?;
    // A relay cannot withdraw: only bridges do.
    let (other, _) = world.submit("true", &world.machines, MINUTE).await?;
    let reason = WithdrawReason::Expired;
    let fact = Withdrawal { ws: world.ws.clone(), mid: web1.clone(), cid: other, reason, withdrawn_at: 1 };
    world.fact(&web1, other, FactKind::Claim, &fact).await?;
    bridge.state(other, &web1, RunState::Rejected).await?;
    bridge.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_is_lost_in_time_and_a_late_exit_replaces_that() -> Result<()> {
    let world = World::start(&["web-1"]).await?;
    let web1 = mid("web-1")?;
    let bridge = world.bridge_with("b1", |config| config.lost_grace = Duration::from_millis(200)).await?;
    let (cid, _) = world.submit("sleep 9", &world.machines, MINUTE).await?;
    world.claim(&web1, cid).await?;
    bridge.state(cid, &web1, RunState::Lost).await?;
    assert!(bridge.view().command(cid)?.context("there")?.summary.settled);
    world.exit(&web1, cid, 0).await?;
    bridge.state(cid, &web1, RunState::Completed).await?;
    assert_eq!(bridge.view().summary(cid)?.context("there")?.counts, [(RunState::Completed, 1)].into());
    bridge.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_lost_does_not_keep_a_run_open() -> Result<()> {
    let world = World::start(&["web-1"]).await?;
    let web1 = mid("web-1")?;
    let bridge = world.bridge_with("b1", |config| config.lost_grace = Duration::from_millis(200)).await?;
    let (cid, _) = world.submit("sleep 9", &world.machines, MINUTE).await?;
    world.claim(&web1, cid).await?;
    world.raw_fact(&web1, cid, FactKind::Lost, b"rubbish".to_vec()).await?;
    eventually_within("the run is lost", Duration::from_secs(20), || async {
        let run = bridge.view().run(cid, &web1)?.context("there")?;
        ensure!(run.state == RunState::Lost, "{}", run.state);
        Ok(())
    })
    .await?;
    assert!(bridge.count("lost.foreign") + bridge.count("run.litter_deleted") > 0);
    bridge.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn facts_about_unknown_runs_are_purged() -> Result<()> {
    let world = World::start(&["web-1"]).await?;
    let web1 = mid("web-1")?;
    let bridge = world.bridge("b1").await?;
    for _ in 0..20 {
        let invented = CommandId::new(Uuid::now_v7())?;
        world.claim(&web1, invented).await?;
        world.exit(&web1, invented, 0).await?;
    }
    eventually("RUN is empty again", || async {
        let state = world.link.stream_state(RUN).await?;
        ensure!(state.messages == 0, "{} messages", state.messages);
        Ok(())
    })
    .await?;
    assert_eq!(bridge.count("run.unknown"), 40);
    bridge.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fact_before_its_command_counts_once_the_command_comes() -> Result<()> {
    let world = World::start(&["web-1"]).await?;
    let web1 = mid("web-1")?;
    let spec = world.spec("true", 1, MINUTE)?;
    world.claim(&web1, spec.cid).await?;
    world.exit(&web1, spec.cid, 0).await?;
    let bytes = serde_json::to_vec(&spec)?;
    let grants = world.grants(&spec, &bytes, &world.machines)?;
    signalbox_bridge::submit::store_command(&world.link, &world.ws, None, bytes.into(), &spec, grants)
        .await?;
    // Whatever order a bridge reads its streams in.
    for name in ["b1", "b2", "b3"] {
        let bridge = world.bridge(name).await?;
        bridge.state(spec.cid, &web1, RunState::Completed).await?;
        assert_eq!(bridge.count("run.unknown"), 0);
        bridge.stop().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heartbeats_show_and_a_machine_that_lags_is_nudged() -> Result<()> {
    let world = World::start(&["web-1"]).await?;
    let web1 = mid("web-1")?;
    let bridge = world.bridge("b1").await?;
    world.offered(&web1, &[]).await?;
    let generation = world.mailbox(&web1).await?.0.generation;
    eventually("the nudge", || async {
        let beat = beat(&world, "web-1")?;
        world.link.publish("hb.main.web-1", None, serde_json::to_vec(&beat)?.into()).await?;
        ensure!(world.mailbox(&web1).await?.0.generation > generation, "not yet");
        Ok(())
    })
    .await?;
    let machines = bridge.view().machines(now());
    assert_eq!(machines[0].relay.as_deref(), Some("0.1.0"));
    assert!(machines[0].last_seen_at.is_some());
    bridge.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn machines_are_meant_by_what_is_known_of_them() -> Result<()> {
    let world = World::start(&["db-1", "web-1", "web-2", "web-10"]).await?;
    let bridge = world.bridge("b1").await?;
    for (name, os, cpu_percent) in
        [("db-1", "Ubuntu 24.04", 10.0), ("web-1", "Debian 12.11", 95.0), ("web-2", "Debian 13", 20.0)]
    {
        let metrics = Metrics { cpu_percent, cpus: 4, ..Metrics::default() };
        let facts = Facts { os: os.into(), ..Facts::default() };
        let beat = Heartbeat { facts, metrics: Some(metrics), ..beat(&world, name)? };
        world.link.publish(&format!("hb.main.{name}"), None, serde_json::to_vec(&beat)?.into()).await?;
    }
    eventually("all that speak are heard", || async {
        let heard = bridge.view().machines(now()).iter().filter(|it| it.last_seen_at.is_some()).count();
        ensure!(heard == 3, "{heard} are");
        Ok(())
    })
    .await?;
    let named = |targets: Vec<Target>| targets.iter().map(|it| it.token.to_string()).collect::<Vec<_>>();
    // Nobody knows anything of `web-10`: it has never been heard.
    for (text, wanted, for_secret) in [
        ("os=debian", vec!["web-1", "web-2"], vec![]),
        ("not os=debian", vec!["db-1"], vec![]),
        ("web-* and cpu>90", vec!["web-1"], vec![]),
        ("not cpu>90", vec!["db-1", "web-2"], vec![]),
        ("relay=0.1", vec!["db-1", "web-1", "web-2"], vec![]),
        ("state=online", vec!["db-1", "web-1", "web-2"], vec![]),
        ("state=offline", vec!["web-10"], vec![]),
        ("heard<1h and running=0", vec!["db-1", "web-1", "web-2"], vec![]),
        ("web-* limit 2", vec!["web-1", "web-2"], vec!["web-1", "web-2"]),
        ("web-[2-10],os=ubuntu", vec!["db-1", "web-10", "web-2"], vec!["web-10", "web-2"]),
        ("role=web", vec![], vec![]),
        ("not role=web", vec![], vec![]),
    ] {
        let selector = Selector::parse(text)?;
        assert_eq!(named(bridge.view().select(&selector, now())?), wanted, "{text}");
        assert_eq!(named(bridge.view().select_for_secret(&selector, now())?), for_secret, "{text}");
    }
    let drawn =
        |text: &str| Ok::<_, anyhow::Error>(named(bridge.view().select(&Selector::parse(text)?, now())?));
    assert_eq!(drawn("all sample 50% seed 7")?.len(), 2);
    assert_eq!(drawn("all sample 50% seed 7")?, drawn("all sample 2 seed 7")?);
    bridge.stop().await
}

fn beat(world: &World, name: &str) -> Result<Heartbeat> {
    Ok(Heartbeat {
        ws: world.ws.clone(),
        mid: mid(name)?,
        at: now(),
        relay: "0.1.0".into(),
        generation: 1,
        authors: 1,
        running: 0,
        outbox: 0,
        started_at: 1,
        counters: BTreeMap::default(),
        facts: Facts::default(),
        metrics: None,
        legacy: None,
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_is_shown_and_the_next_chunk_is_found() -> Result<()> {
    let world = World::start(&["web-1"]).await?;
    let web1 = mid("web-1")?;
    let bridge = world.bridge("b1").await?;
    let (cid, _) = world.submit("yes", &world.machines, MINUTE).await?;
    world.claim(&web1, cid).await?;
    world.chunk(&web1, cid, 0, b"head").await?;
    let stream = OutputStream::Stdout;
    let cut = ChunkHead { stream, offset: 4, counter: 1, sha256: None, cut: true };
    world.chunk_head(&web1, cid, b"", cut).await?;
    world.chunk(&web1, cid, 100, b"tail").await?;
    bridge.state(cid, &web1, RunState::Executing).await?;
    world.read(&bridge, &[OUT]).await?;
    let run = bridge.view().run(cid, &web1)?.context("there")?;
    assert_eq!((run.stdout.bytes, run.stdout.truncated, run.stderr.truncated), (8, true, false));
    let next = bridge.view().chunk_covering(cid, &web1, stream, 50)?.context("the tail")?;
    assert_eq!((next.offset, next.len), (100, 4));
    bridge.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_broker_dies_and_comes_back() -> Result<()> {
    let mut world = World::start(&["web-1"]).await?;
    let web1 = mid("web-1")?;
    let bridge = world.bridge("b1").await?;
    bridge.dispatches().await?;
    world.submit("true", &world.machines.clone(), MINUTE).await?;
    world.broker.kill()?;
    world.broker.restart().await?;
    let (cid, _) = eventually("a submit", || world.submit("true", &world.machines, MINUTE)).await?;
    eventually("the claim", || async { Ok(world.claim(&web1, cid).await?) }).await?;
    world.exit(&web1, cid, 0).await?;
    bridge.state(cid, &web1, RunState::Completed).await?;
    bridge.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_of_streams_that_are_no_more_is_discarded() -> Result<()> {
    let mut world = World::start(&["web-1"]).await?;
    let web1 = mid("web-1")?;
    let bridge = world.bridge("b1").await?;
    bridge.dispatches().await?;
    let (before, _) = world.submit("true", &world.machines, MINUTE).await?;
    world.claim(&web1, before).await?;
    bridge.state(before, &web1, RunState::Executing).await?;
    // The broker comes back without its disk.
    world.broker.kill()?;
    std::fs::remove_dir_all(world.broker.store_dir())?;
    world.broker.restart().await?;
    let ended = bridge.join().await;
    assert!(matches!(ended, Err(CoreError::StreamLost(_))), "{ended:?}");
    eventually("the records", || world.enroll()).await?;

    let bridge = world.bridge("b1").await?;
    assert_eq!(bridge.view().commands(&Page::default())?.items.len(), 0, "the streams know of none");
    bridge.dispatches().await?;
    let (after, _) = world.submit("true", &world.machines, MINUTE).await?;
    world.offered(&web1, &[after]).await?;
    world.claim(&web1, after).await?;
    world.exit(&web1, after, 0).await?;
    bridge.state(after, &web1, RunState::Completed).await?;
    bridge.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_edition_of_a_record_changes_nothing() -> Result<()> {
    let world = World::start(&["web-1"]).await?;
    let web1 = mid("web-1")?;
    let bridge = world.bridge("b1").await?;
    let stands = || world.link.last_from_leader(STATE, "$KV.state.main.machines.web-1");
    let old = stands().await?.context("there")?;
    let mut record = world.machine_record(0, &web1)?;
    record.keys.as_mut().context("keys")?.signing_key = key(99)?.public().clone();
    let cursors = world.writer()?.put_record(table::MACHINES, "web-1", &record).await?;
    assert!(bridge.view().reached(&cursors, Duration::from_secs(5)).await);
    world.raw(&old.subject, old.payload).await?;
    bridge.counted("refused.KV_state.older_revision", 1).await?;
    let known = bridge.view().machine("web-1").context("known")?;
    assert_eq!(known.signing_key(), record.signing_key());
    // Written anew, it is an edition above both.
    let cursors =
        world.writer()?.put_record(table::MACHINES, "web-1", &world.machine_record(0, &web1)?).await?;
    assert!(bridge.view().reached(&cursors, Duration::from_secs(5)).await);
    let known = bridge.view().machine("web-1").context("known")?;
    assert_eq!(known.signing_key(), Some(world.machine_key(&web1)?.public()));
    bridge.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_to_run_before_a_time_is_held_and_blocks_nothing() -> Result<()> {
    let world = World::start(&["web-1"]).await?;
    let web1 = mid("web-1")?;
    let bridge = world.bridge("b1").await?;
    bridge.dispatches().await?;
    let hold = |until: u64| move |spec: &mut CommandSpec| spec.not_before = Some(until);
    // More than a mailbox has room for, and one that is due soon.
    let mut waiting = Vec::new();
    for _ in 0..limit::OFFERS {
        waiting.push(world.submit_with(&world.machines, MINUTE, hold(now() + MINUTE / 2)).await?);
    }
    let soon = world.submit_with(&world.machines, MINUTE, hold(now() + 1_500)).await?;
    let (plain, _) = world.submit("true", &world.machines, MINUTE).await?;
    world.offered(&web1, &[plain]).await?;
    bridge.state(soon, &web1, RunState::Held).await?;
    let summary = bridge.view().summary(waiting[0])?.context("there")?;
    assert_eq!((summary.counts, summary.settled), ([(RunState::Held, 1)].into(), false));
    // A second bridge, and one with a store of its own rows, say the same.
    let second = world.bridge("b2").await?;
    second.state(waiting[0], &web1, RunState::Held).await?;

    let mut changes = bridge.view().changes();
    world.offered(&web1, &[soon, plain]).await?;
    bridge.state(soon, &web1, RunState::Pending).await?;
    second.state(soon, &web1, RunState::Pending).await?;
    let told = std::iter::from_fn(|| changes.try_recv().ok());
    let told: Vec<Change> = told.flat_map(|some| some.to_vec()).collect();
    assert!(told.contains(&Change::Run { cid: soon, mid: web1.clone() }), "{told:?}");
    // One that is held back can be taken back.
    world.cancel(waiting[0], OPERATOR).await?;
    bridge.state(waiting[0], &web1, RunState::Cancelled).await?;
    second.stop().await?;
    bridge.stop().await?;
    let again = world.bridge("b1").await?;
    again.state(waiting[1], &web1, RunState::Held).await?;
    again.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_run_stream_delays_a_deadline_and_doubles_nothing() -> Result<()> {
    let world = World::start(&["web-1"]).await?;
    let web1 = mid("web-1")?;
    let bridge = world.bridge("b1").await?;
    bridge.dispatches().await?;
    let (claimed, _) = world.submit("true", &world.machines, MINUTE).await?;
    world.claim(&web1, claimed).await?;
    let (late, _) = world.submit("true", &world.machines, 1_000).await?;
    let admin = async_nats::jetstream::new(async_nats::connect(world.broker.url()).await?);
    let resize = async |max_bytes: u64| {
        let mut config = admin.get_stream(RUN).await?.info().await?.config.clone();
        config.max_bytes = i64::try_from(max_bytes)?;
        anyhow::Ok(admin.update_stream(config).await?)
    };
    resize(world.link.stream_state(RUN).await?.bytes).await?;
    bridge.counted("deadline.unwritten", 1).await?;
    bridge.state(late, &web1, RunState::Pending).await?;
    assert!(matches!(world.exit(&web1, claimed, 0).await, Err(StoreError::Full)));
    resize(1024 * 1024).await?;
    bridge.state(late, &web1, RunState::Expired).await?;
    world.left_in_run(late, &["claim"]).await?;
    world.exit(&web1, claimed, 0).await?;
    bridge.state(claimed, &web1, RunState::Completed).await?;
    bridge.stop().await
}

/// Half of what is on offer has settled: what had no room before follows at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_is_offered_as_fast_as_it_settles() -> Result<()> {
    let world = World::start(&["web-1"]).await?;
    let web1 = mid("web-1")?;
    let bridge = world.bridge("b1").await?;
    bridge.dispatches().await?;
    let mut commands = Vec::new();
    for _ in 0..4 * limit::OFFERS {
        commands.push(world.submit("true", &world.machines, MINUTE).await?.0);
    }
    // As a relay does it: what is on offer is done in its order, however much of it that is.
    let mut waited = Duration::ZERO;
    for cid in &commands {
        let since = Instant::now();
        eventually("its offer", || async {
            ensure!(world.offers(&web1).await?.contains(cid), "not on offer");
            Ok(())
        })
        .await?;
        waited += since.elapsed();
        world.claim(&web1, *cid).await?;
        world.exit(&web1, *cid, 0).await?;
    }
    assert!(waited < Duration::from_secs(3 * 5), "each time it waited for company: {waited:?}");
    bridge.stop().await
}
