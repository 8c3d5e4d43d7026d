//! The NATS front against a real broker: operations and feeds, as a console meets them.

#![expect(clippy::expect_used, reason = "a broken bridge ends the test")]

#[path = "fronts/bench.rs"]
#[expect(dead_code, reason = "some of it is for the tests of HTTP")]
mod bench;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bench::{Answers, Bench, Console, Item, now_ms};
use bytes::Bytes;
use serde_json::{Value, json};
use signalbox_schemas::{
    api::{FeedEvent, op},
    error::{ErrorCode, Problem},
    id::{CommandId, MachineToken, RequestId},
    output::OutputStream::Stdout,
    rollout::{Rollout, RolloutState},
    run::RunState,
    signed::Signed,
    stream,
};
use signalbox_testkit::eventually;

const PLENTY: u64 = u64::MAX;

fn code(answer: Result<Value, Problem>) -> Result<ErrorCode> {
    match answer {
        Ok(value) => anyhow::bail!("accepted: {value}"),
        Err(problem) => Ok(problem.code),
    }
}

#[tokio::test]
async fn a_feed_tells_how_far_a_command_has_spread_and_members_steer_it() -> Result<()> {
    let bench = Bench::start(&["a-1", "a-2"]).await?;
    bench.heard(&["a-1", "a-2"]).await?;
    let (console, viewer) = (bench.console("local").await?, bench.console("viewer").await?);
    let (mut spec, _) = console.command(&["a-1", "a-2"])?;
    spec.rollout = Some("canary 1".parse()?);
    console.write(op::COMMANDS_SUBMIT, &console.grant(&spec, &["a-1", "a-2"])?).await??;
    let mut feed = console.watch(spec.cid, None, PLENTY).await?;
    let mut told = async |state: RolloutState, wave: u32| {
        // Many more than it takes.
        for _ in 0..20 {
            if let Item::Event(FeedEvent::Command(summary)) = feed.next().await? {
                let rollout = summary.rollout.context("it spreads")?;
                if (rollout.state, rollout.wave) == (state, wave) {
                    return Ok(rollout);
                }
            }
        }
        anyhow::bail!("the feed did not tell of {state} in wave {wave}")
    };
    told(RolloutState::Going, 1).await?;
    let args = json!({"id": spec.cid});
    assert_eq!(code(viewer.write(op::COMMANDS_PAUSE, &args).await?)?, ErrorCode::Forbidden);
    // What is not signed changes nothing.
    assert_eq!(code(console.read(op::COMMANDS_PAUSE, &args).await?)?, ErrorCode::Invalid);
    let steered = console.write(op::COMMANDS_PAUSE, &args).await??;
    assert_eq!(steered.pointer("/rollout/by"), Some(&json!("operator:local")));
    assert_eq!(told(RolloutState::Paused, 1).await?.by, "operator:local");
    console.write(op::COMMANDS_RESUME, &args).await??;
    let relay = bench.relay("a-1")?;
    eventually("the canary is let go", || async {
        ensure!(
            bench.view.run(spec.cid, &MachineToken::new("a-1")?)?.context("there")?.state
                == RunState::Pending,
            "held"
        );
        Ok(())
    })
    .await?;
    relay.claim(spec.cid).await?;
    relay.exit_inline(spec.cid, b"").await?;
    told(RolloutState::Going, 2).await?;
    console.write(op::COMMANDS_ABORT, &args).await??;
    told(RolloutState::Aborted, 2).await?;
    Ok(())
}

#[tokio::test]
async fn operations_answer_on_the_feed_of_their_request() -> Result<()> {
    let bench = Bench::start(&["a-1", "a-2"]).await?;
    let console = bench.console("local").await?;
    let machines = console.read(op::MACHINES_LIST, &json!({})).await??;
    assert_eq!(machines.pointer("/items/1/id"), Some(&json!("a-2")));
    let previewed = console.read(op::COMMANDS_PREVIEW, &json!({"on": "a-*"})).await??;
    let tokens: Vec<_> =
        previewed["targets"].as_array().context("targets")?.iter().map(|t| &t["token"]).collect();
    assert_eq!(tokens, ["a-1", "a-2"]);
    let (spec, submit) = console.command(&["a-1", "a-2"])?;
    let accepted = console.write(op::COMMANDS_SUBMIT, &submit).await??;
    assert_eq!(accepted["targets"], json!(["a-1", "a-2"]));
    let listed = console.read(op::COMMANDS_LIST, &json!({"limit": 1})).await??;
    assert_eq!(listed["items"][0]["id"], json!(spec.cid));
    let got = console.read(op::COMMANDS_GET, &json!({"id": spec.cid})).await??;
    assert_eq!(got["runs"][0]["state"], "pending");
    let cancelling = console.write(op::COMMANDS_CANCEL, &json!({"id": spec.cid})).await??;
    assert_eq!(cancelling, json!({"cancelling": 2}));
    eventually("both are cancelled", || async {
        let got = console.read(op::COMMANDS_GET, &json!({"id": spec.cid})).await??;
        ensure!(got["counts"] == json!({"cancelled": 2}), "{}", got["counts"]);
        Ok(())
    })
    .await?;
    let stored = bench.link.stream_state(stream::CMD).await?.messages;
    assert_eq!(stored, 3, "a part, a spec, a cancel");
    let again = console.write(op::COMMANDS_CANCEL, &json!({"id": spec.cid})).await??;
    assert_eq!(again, json!({"cancelling": 0}));
    Ok(())
}

#[tokio::test]
async fn what_is_asked_wrongly_is_refused_by_its_code() -> Result<()> {
    let bench = Bench::start(&["a-1"]).await?;
    let console = bench.console("local").await?;
    let unknown = json!({"id": "0193a2b4-0000-7000-8000-000000000000"});
    for (op, args, expected) in [
        (op::COMMANDS_PREVIEW, json!({"on": "["}), ErrorCode::Invalid),
        (op::COMMANDS_PREVIEW, json!({"on": "b-*"}), ErrorCode::NoTargets),
        (op::COMMANDS_PREVIEW, json!({}), ErrorCode::Invalid),
        (op::COMMANDS_LIST, json!({"limit": 0}), ErrorCode::Invalid),
        (op::COMMANDS_LIST, json!({"after": "rubbish"}), ErrorCode::Invalid),
        (op::MACHINES_LIST, json!({"after": "Rubbish"}), ErrorCode::Invalid),
        (op::COMMANDS_GET, unknown.clone(), ErrorCode::NotFound),
        (op::COMMANDS_GET, json!({"id": "x"}), ErrorCode::Invalid),
        (op::COMMANDS_PART, json!({}), ErrorCode::Invalid),
        (op::COMMANDS_SUBMIT, json!({}), ErrorCode::Invalid),
        ("commands.explode", json!({}), ErrorCode::Invalid),
        (op::FEED_OPEN, json!({"watch": {"command": {"id": "x"}}}), ErrorCode::Invalid),
    ] {
        assert_eq!(code(console.read(op, &args).await?)?, expected, "{op} {args}");
    }
    let mut feed = console.watch(unknown["id"].as_str().context("id")?.parse()?, None, PLENTY).await?;
    assert_eq!(feed.story("refused not_found").await?, ["refused not_found"]);
    let answers = console.ask(op::MACHINES_LIST, vec![b' '; 20_000]).await?;
    assert_eq!(code(answers.only().await?)?, ErrorCode::TooLarge);
    let answers = console.ask(op::MACHINES_LIST, b"{".to_vec()).await?;
    assert_eq!(code(answers.only().await?)?, ErrorCode::Invalid);
    Ok(())
}

#[tokio::test]
async fn only_who_may_changes_something_and_only_once() -> Result<()> {
    let bench = Bench::start(&["a-1"]).await?;
    let (console, viewer) = (bench.console("local").await?, bench.console("viewer").await?);
    let (_, submit) = viewer.command(&["a-1"])?;
    assert!(viewer.read(op::MACHINES_LIST, &json!({})).await?.is_ok());
    assert_eq!(code(viewer.write(op::COMMANDS_SUBMIT, &submit).await?)?, ErrorCode::Forbidden);
    let nobody = bench.console("nobody").await?;
    assert_eq!(code(nobody.read(op::MACHINES_LIST, &json!({})).await?)?, ErrorCode::Forbidden);

    // Signed by another operator than the subject names.
    let (_, submit) = console.command(&["a-1"])?;
    let request = Console::request(op::COMMANDS_SUBMIT, &submit)?;
    let stolen = Signed::sign(&request, &viewer.key)?.to_json();
    assert_eq!(code(console.ask(op::COMMANDS_SUBMIT, stolen).await?.only().await?)?, ErrorCode::Forbidden);
    // Signed for another operation.
    let other = Signed::sign(&request, &console.key)?.to_json();
    assert_eq!(
        code(console.ask(op::COMMANDS_CANCEL, other.clone()).await?.only().await?)?,
        ErrorCode::Invalid
    );
    // Too old.
    let mut old = request.clone();
    old.issued_at = now_ms() - 301_000;
    let old = Signed::sign(&old, &console.key)?.to_json();
    assert_eq!(code(console.ask(op::COMMANDS_SUBMIT, old).await?.only().await?)?, ErrorCode::Invalid);
    // Who may change nothing does not use up what is remembered of those who may: it is refused before.
    let wish = Signed::sign(&Console::request(op::COMMANDS_CANCEL, &json!({}))?, &viewer.key)?.to_json();
    for _ in 0..2 {
        let answer = viewer.ask(op::COMMANDS_CANCEL, wish.clone()).await?.only().await?;
        assert_eq!(code(answer)?, ErrorCode::Forbidden);
    }
    // As it should be, and then once more.
    assert!(console.ask(op::COMMANDS_SUBMIT, other.clone()).await?.only().await?.is_ok());
    assert_eq!(code(console.ask(op::COMMANDS_SUBMIT, other).await?.only().await?)?, ErrorCode::Invalid);
    // The same command in a new request is the same command.
    assert!(console.write(op::COMMANDS_SUBMIT, &submit).await?.is_ok());
    assert_eq!(bench.http.json("/api/v1/commands").await?["items"].as_array().map(Vec::len), Some(1));
    Ok(())
}

#[tokio::test]
async fn a_bridge_that_starts_again_counts_nothing_that_was_signed_before() -> Result<()> {
    let mut bench = Bench::start(&["a-1"]).await?;
    let console = bench.console("local").await?;
    let (spec, submit) = console.command(&["a-1"])?;
    assert!(console.write(op::COMMANDS_SUBMIT, &submit).await?.is_ok());
    let request = Console::request(op::COMMANDS_CANCEL, &json!({"id": spec.cid}))?;
    let recorded = Signed::sign(&request, &console.key)?.to_json();
    assert!(console.ask(op::COMMANDS_CANCEL, recorded.clone()).await?.only().await?.is_ok());
    bench.start_again().await?;
    // The code says that it may pass when it is signed anew.
    let replayed = console.ask(op::COMMANDS_CANCEL, recorded).await?.only().await?;
    assert_eq!(code(replayed)?, ErrorCode::NotCaughtUp);
    assert!(console.write(op::COMMANDS_CANCEL, &json!({"id": spec.cid})).await?.is_ok());
    Ok(())
}

#[tokio::test]
async fn a_key_makes_it_one_command_and_is_its_owners() -> Result<()> {
    let bench = Bench::start(&["a-1"]).await?;
    let console = bench.console("local").await?;
    let (mut spec, _) = console.command(&["a-1"])?;
    spec.cid = CommandId::from_idempotency_key("operator:local", "monday");
    let keyed = |spec, key: Option<&str>| -> Result<_> {
        let idempotency_key = key.map(str::to_owned);
        Ok(signalbox_schemas::api::Submit { idempotency_key, ..console.grant(spec, &["a-1"])? })
    };
    let mut foreign = spec.clone();
    foreign.cid = CommandId::from_idempotency_key("operator:viewer", "monday");
    let (plain, _) = console.command(&["a-1"])?;
    for (what, submit) in [
        ("no key", keyed(&spec, None)?),
        ("another key", keyed(&spec, Some("tuesday"))?),
        ("another one's key", keyed(&foreign, Some("monday"))?),
        ("a key and an id that was drawn", keyed(&plain, Some("monday"))?),
    ] {
        assert_eq!(code(console.write(op::COMMANDS_SUBMIT, &submit).await?)?, ErrorCode::Invalid, "{what}");
    }
    assert!(console.write(op::COMMANDS_SUBMIT, &keyed(&spec, Some("monday"))?).await?.is_ok());
    // Somebody asks for it anew: it is there already.
    let mut later = spec.clone();
    (later.created_at, later.expires_at) = (spec.created_at + 1, spec.expires_at + 1);
    let again = console.write(op::COMMANDS_SUBMIT, &keyed(&later, Some("monday"))?).await?;
    assert_eq!(code(again)?, ErrorCode::IdConflict);
    assert_eq!(bench.http.json("/api/v1/commands").await?["items"].as_array().map(Vec::len), Some(1));
    Ok(())
}

#[tokio::test]
async fn grants_that_do_not_fit_the_spec_are_refused() -> Result<()> {
    let bench = Bench::start(&["a-1", "a-2"]).await?;
    let (console, viewer) = (bench.console("local").await?, bench.console("viewer").await?);
    let both = ["a-1", "a-2"];
    let (spec, good) = console.command(&both)?;
    let mut other = spec.clone();
    other.command = "false".to_owned();
    let stolen = console.grant(&other, &both)?.grants;
    let mut expired = spec.clone();
    (expired.created_at, expired.expires_at) = (1, 2);
    let mut foreign = spec.clone();
    foreign.by = "operator:viewer".to_owned();
    let mut ahead = spec.clone();
    (ahead.created_at, ahead.expires_at) = (spec.created_at + 400_000, spec.expires_at + 400_000);
    let mut keyed = spec.clone();
    keyed.cid = CommandId::from_idempotency_key("token:admin", "k");
    let mut wide = spec.clone();
    wide.targets = 1001;
    let mut waves = spec.clone();
    waves.rollout = Some(Rollout { min_wait_ms: Some(0), ..Rollout::default() });
    let with = |grants| signalbox_schemas::api::Submit { grants, ..good.clone() };
    for (what, submit) in [
        ("another spec", with(stolen)),
        ("too few", with(good.grants[..1].to_vec())),
        ("unsorted", with(vec![good.grants[1].clone(), good.grants[0].clone()])),
        ("one twice", with(vec![good.grants[0].clone(), good.grants[0].clone()])),
        ("another author", with(viewer.grant(&spec, &both)?.grants)),
        ("an unknown machine", console.grant(&spec, &["a-1", "a-3"])?),
        ("expired", console.grant(&expired, &both)?),
        ("in another name", console.grant(&foreign, &both)?),
        ("from the future", console.grant(&ahead, &both)?),
        ("in the place of a key", console.grant(&keyed, &both)?),
        ("above 1,000", console.grant(&wide, &both)?),
        ("in waves that make no sense", console.grant(&waves, &both)?),
    ] {
        assert_eq!(code(console.write(op::COMMANDS_SUBMIT, &submit).await?)?, ErrorCode::Invalid, "{what}");
    }
    assert!(console.write(op::COMMANDS_SUBMIT, &good).await?.is_ok());
    // The id is taken now.
    assert_eq!(
        code(console.write(op::COMMANDS_SUBMIT, &console.grant(&other, &both)?).await?)?,
        ErrorCode::IdConflict
    );
    let spoiled = bench.http.json(&format!("/api/v1/commands/{}", spec.cid)).await?;
    assert_eq!(spoiled["command"], "true");
    Ok(())
}

#[tokio::test]
async fn a_feed_tells_output_before_the_end_of_its_run() -> Result<()> {
    let bench = Bench::start(&["a-1", "a-2"]).await?;
    let console = bench.console("local").await?;
    let id = bench.submit("all").await?;
    let mut feed = console.watch(id, None, PLENTY).await?;
    assert_eq!(feed.story("a-2 pending").await?, ["command", "a-1 pending", "a-2 pending"]);
    let (one, two) = (bench.relay("a-1")?, bench.relay("a-2")?);
    one.claim(id).await?;
    assert_eq!(feed.story("a-1 executing").await?, ["a-1 executing"]);
    one.output(id, Stdout, 0, "hello ").await?;
    assert_eq!(feed.story("a-1 0+6").await?, ["a-1 0+6"]);
    // Output and exit are in two streams, and either may be read first.
    one.output(id, Stdout, 6, "world").await?;
    one.exit(id, 11, false).await?;
    assert_eq!(feed.story("a-1 completed").await?, ["a-1 6+5", "a-1 completed"]);
    two.claim(id).await?;
    assert_eq!(feed.story("a-2 executing").await?, ["a-2 executing"]);
    two.exit_inline(id, b"tiny").await?;
    assert_eq!(feed.story("settled").await?, ["a-2 0+4", "a-2 completed", "settled"]);
    // Opened when all is over, it tells the same, output first.
    let mut late = console.watch(id, None, PLENTY).await?;
    let story = late.story("settled").await?;
    let at = |line: &str| story.iter().position(|told| told == line).context(line.to_owned());
    assert_eq!(story.first().map(String::as_str), Some("command"));
    assert!(at("a-1 6+5")? < at("a-1 completed")? && at("a-2 0+4")? < at("a-2 completed")?, "{story:?}");
    assert_eq!(story.len(), 7, "{story:?}");
    Ok(())
}

#[tokio::test]
async fn output_that_never_comes_does_not_hold_an_exit_back() -> Result<()> {
    let bench = Bench::start(&["a-1"]).await?;
    let console = bench.console("local").await?;
    let id = bench.submit("all").await?;
    let mut feed = console.watch(id, None, PLENTY).await?;
    feed.story("a-1 pending").await?;
    let relay = bench.relay("a-1")?;
    relay.claim(id).await?;
    relay.output(id, Stdout, 0, "abc").await?;
    feed.story("a-1 0+3").await?;
    let told = Instant::now();
    relay.exit(id, 1_000, true).await?;
    assert_eq!(feed.story("settled").await?, ["a-1 completed", "settled"]);
    assert!(told.elapsed() < Duration::from_secs(2), "{:?}", told.elapsed());
    Ok(())
}

#[tokio::test]
async fn output_waits_for_credit_and_other_machines_do_not() -> Result<()> {
    let bench = Bench::start(&["a-1", "a-2"]).await?;
    let console = bench.console("local").await?;
    let id = bench.submit("all").await?;
    let (one, two) = (bench.relay("a-1")?, bench.relay("a-2")?);
    one.claim(id).await?;
    for offset in [0, 10, 20] {
        one.output(id, Stdout, offset, vec![b'x'; 10]).await?;
    }
    one.exit(id, 30, false).await?;
    let mut feed = console.watch(id, None, 1).await?;
    let story = feed.story("a-1 0+10").await?;
    assert!(!story.contains(&"a-1 completed".to_owned()), "{story:?}");
    two.claim(id).await?;
    assert_eq!(feed.story("a-2 executing").await?, ["a-2 executing"]);
    two.exit(id, 0, false).await?;
    assert_eq!(feed.story("a-2 completed").await?, ["a-2 completed"]);
    assert!(feed.is_quiet().await, "output went without credit");
    console.send(op::FEED_CREDIT, &feed.rid, br#"{"bytes":10}"#.to_vec()).await?;
    assert_eq!(feed.story("a-1 10+10").await?, ["a-1 10+10"]);
    assert!(feed.is_quiet().await, "output went without credit");
    console.send(op::FEED_CREDIT, &feed.rid, br#"{"bytes":100}"#.to_vec()).await?;
    assert_eq!(feed.story("settled").await?, ["a-1 20+10", "a-1 completed", "settled"]);
    Ok(())
}

#[tokio::test]
async fn a_feed_goes_on_where_another_ended() -> Result<()> {
    let bench = Bench::start(&["a-1"]).await?;
    let console = bench.console("local").await?;
    let id = bench.submit("all").await?;
    let relay = bench.relay("a-1")?;
    relay.claim(id).await?;
    for offset in [0, 10, 20] {
        relay.output(id, Stdout, offset, vec![b'x'; 10]).await?;
    }
    let mut first = console.watch(id, None, 15).await?;
    let mut position = None;
    let mut seen = 0;
    while seen < 20 {
        if let Item::Chunk { bytes, position: at, .. } = first.next().await? {
            seen += bytes.len();
            position = at;
        }
    }
    console.send(op::FEED_CLOSE, &first.rid, vec![]).await?;
    let mut second = console.watch(id, position, PLENTY).await?;
    let story = second.story("a-1 20+10").await?;
    assert_eq!(story, ["command", "a-1 executing", "a-1 20+10"]);
    relay.output(id, Stdout, 30, "end").await?;
    relay.exit(id, 33, false).await?;
    assert_eq!(second.story("settled").await?, ["a-1 30+3", "a-1 completed", "settled"]);
    // The first one is closed: nothing more comes.
    assert!(first.is_quiet().await);
    Ok(())
}

#[tokio::test]
async fn feeds_are_bounded_per_operator_and_room_comes_back() -> Result<()> {
    let bench = Bench::start(&["a-1"]).await?;
    let (console, viewer) = (bench.console("local").await?, bench.console("viewer").await?);
    let id = bench.submit("all").await?;
    let mut feeds = Vec::new();
    for _ in 0..64 {
        let mut feed = console.watch(id, None, PLENTY).await?;
        feed.story("a-1 pending").await?;
        feeds.push(feed);
    }
    let mut refused = console.watch(id, None, PLENTY).await?;
    assert_eq!(refused.story("refused rate_limited").await?, ["refused rate_limited"]);
    viewer.watch(id, None, PLENTY).await?.story("a-1 pending").await?;
    // The same request again is the same feed, and is not numbered anew.
    let known = feeds.first_mut().context("a feed")?;
    let args = json!({"watch": "commands", "credit": 0});
    console.send(op::FEED_OPEN, &known.rid, serde_json::to_vec(&args)?).await?;
    assert!(known.is_quiet().await);
    console.send(op::FEED_CLOSE, &known.rid, vec![]).await?;
    eventually("there is room again", || async {
        let first = console.watch(id, None, PLENTY).await?.next().await?;
        ensure!(matches!(first, Item::Event(FeedEvent::Command(_))), "{first:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_console_that_takes_nothing_slows_nobody() -> Result<()> {
    let bench = Bench::start(&["a-1"]).await?;
    let console = bench.console("local").await?;
    let id = bench.submit("all").await?;
    let mut stuck = Vec::new();
    for _ in 0..20 {
        stuck.push(console.watch(id, None, 0).await?);
    }
    let mut feed = console.watch(id, None, PLENTY).await?;
    let relay = bench.relay("a-1")?;
    relay.claim(id).await?;
    let chunk = Bytes::from(vec![7; 128 * 1024]);
    for n in 0..64 {
        relay.output(id, Stdout, n * chunk.len() as u64, chunk.clone()).await?;
    }
    relay.exit(id, 64 * chunk.len() as u64, false).await?;
    let told = Instant::now();
    let story = feed.story("settled").await?;
    assert_eq!(story.iter().filter(|line| line.ends_with("+131072")).count(), 64);
    assert!(told.elapsed() < Duration::from_secs(5), "{:?}", told.elapsed());
    for mut feed in stuck {
        let story = feed.story("a-1 executing").await?;
        assert!(!story.iter().any(|line| line.contains('+')), "{story:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_feed_speaks_every_five_seconds_and_ends_when_its_output_waits_too_long() -> Result<()> {
    let bench = Bench::start(&["a-1"]).await?;
    let console = bench.console("local").await?;
    let id = bench.submit("all").await?;
    let relay = bench.relay("a-1")?;
    relay.claim(id).await?;
    relay.output(id, Stdout, 0, "waits").await?;
    let mut feed = console.watch(id, None, 0).await?;
    feed.story("a-1 executing").await?;
    let began = Instant::now();
    let mut alive = 0;
    loop {
        match feed.next().await? {
            Item::Event(FeedEvent::Alive { .. }) => alive += 1,
            Item::Event(FeedEvent::Closed) => break,
            other => anyhow::bail!("{other:?}"),
        }
    }
    assert!((5..=6).contains(&alive), "{alive}");
    let waited = began.elapsed().as_secs();
    assert!((29..33).contains(&waited), "{waited} s");
    let counters = bench.http.json("/health").await?["counters"].clone();
    assert_eq!(counters["feed.stalled"], 1, "{counters}");
    Ok(())
}

#[tokio::test]
async fn the_feed_of_all_commands_tells_the_oldest_first_and_then_changes() -> Result<()> {
    let bench = Bench::start(&["a-1"]).await?;
    let console = bench.console("viewer").await?;
    let old = [bench.submit("all").await?, bench.submit("all").await?];
    let args = json!({"watch": "commands", "credit": 0});
    let mut feed = console.ask(op::FEED_OPEN, serde_json::to_vec(&args)?).await?;
    for id in old {
        assert_eq!(told_command(&mut feed).await?, (id, false));
    }
    let new = bench.submit("all").await?;
    assert_eq!(told_command(&mut feed).await?, (new, false));
    let relay = bench.relay("a-1")?;
    relay.claim(new).await?;
    relay.exit(new, 0, false).await?;
    let settled = async {
        loop {
            let (id, settled) = told_command(&mut feed).await?;
            assert_eq!(id, new);
            if settled {
                return anyhow::Ok(());
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(5), settled).await?
}

async fn told_command(feed: &mut Answers) -> Result<(CommandId, bool)> {
    loop {
        match feed.next().await? {
            Item::Event(FeedEvent::Command(summary)) => return Ok((summary.id, summary.settled)),
            Item::Event(FeedEvent::Alive { .. }) => {}
            other => anyhow::bail!("no command: {other:?}"),
        }
    }
}

#[tokio::test]
async fn output_is_read_in_ranges_at_true_offsets() -> Result<()> {
    let bench = Bench::start(&["a-1"]).await?;
    let console = bench.console("local").await?;
    let id = bench.submit("all").await?;
    let relay = bench.relay("a-1")?;
    relay.claim(id).await?;
    relay.output(id, Stdout, 0, "abcde").await?;
    relay.output(id, Stdout, 90, "vwxyz").await?;
    relay.exit(id, 95, true).await?;
    bench.http.settled(&id.to_string()).await?;
    for (offset, limit, at, text) in
        [(0, 3, 0, "abc"), (3, 100, 3, "de"), (10, 100, 90, "vwxyz"), (92, 2, 92, "xy"), (95, 9, 95, "")]
    {
        let args = json!({"id": id, "machine": "a-1", "stream": "stdout", "offset": offset, "limit": limit});
        let answer = console.ask(op::COMMANDS_OUTPUT, serde_json::to_vec(&args)?).await?.next().await?;
        let Item::Chunk { offset: begins, total, bytes, .. } = answer else { anyhow::bail!("{answer:?}") };
        assert_eq!((begins, bytes, total), (at, Bytes::from(text), Some(95)), "at {offset}");
    }
    let args = json!({"id": id, "machine": "a-9", "stream": "stdout", "limit": 1});
    assert_eq!(code(console.read(op::COMMANDS_OUTPUT, &args).await?)?, ErrorCode::NotFound);
    Ok(())
}

#[tokio::test]
async fn answers_go_to_the_operator_in_the_subject_whatever_it_replies_to() -> Result<()> {
    let bench = Bench::start(&["a-1"]).await?;
    let console = bench.console("local").await?;
    let client = async_nats::connect(bench.broker.url()).await?;
    let mut elsewhere = console.link.subscribe("feed.main.viewer.elsewhere").await?;
    let rid = RequestId::new("request-1")?;
    let mut feed = console.link.subscribe(&format!("feed.main.local.{rid}")).await?;
    console.link.flush().await;
    let subject = format!("api.main.local.machines.list.{rid}");
    client.publish_with_reply(subject, "feed.main.viewer.elsewhere", "{}".into()).await?;
    client.flush().await?;
    assert!(feed.next().await.is_some());
    assert!(tokio::time::timeout(Duration::from_millis(300), elsewhere.next()).await.is_err());
    Ok(())
}

#[tokio::test]
async fn a_bridge_that_stops_closes_its_feeds() -> Result<()> {
    let mut bench = Bench::start(&["a-1"]).await?;
    let console = bench.console("local").await?;
    let id = bench.submit("all").await?;
    let mut feed = console.watch(id, None, PLENTY).await?;
    feed.story("a-1 pending").await?;
    let stopping = Instant::now();
    bench.end().await?;
    assert_eq!(feed.story("closed").await?, ["closed"]);
    assert!(stopping.elapsed() < Duration::from_secs(4), "{:?}", stopping.elapsed());
    Ok(())
}

#[tokio::test]
async fn subjects_and_bodies_of_rubbish_are_counted_and_the_rest_goes_on() -> Result<()> {
    let bench = Bench::start(&["a-1"]).await?;
    let console = bench.console("local").await?;
    for subject in ["api.main.local.machines.list.x", "api.main.local.feed.credit.0123456789"] {
        console.link.publish(subject, None, Bytes::from_static(b"\xff\0rubbish")).await?;
    }
    let mut feed = console.watch(bench.submit("all").await?, None, 0).await?;
    feed.story("a-1 pending").await?;
    console.send(op::FEED_CREDIT, &feed.rid, b"{}".to_vec()).await?;
    let counters = eventually("both are counted", || async {
        let counters = bench.http.json("/health").await?["counters"].clone();
        ensure!(counters["rpc.subject"] == 1 && counters["rpc.credit"] == 2, "{counters}");
        Ok(counters)
    });
    counters.await?;
    let state = bench.link.stream_state(stream::CMD).await?;
    assert_eq!(state.messages, 2, "a part and a spec");
    Ok(())
}

#[tokio::test]
async fn a_command_is_cancelled_once_however_often_it_is_wished_for() -> Result<()> {
    let bench = Bench::start(&["a-1"]).await?;
    let console = bench.console("local").await?;
    let id = bench.submit("all").await?;
    // Taken, so that a cancel waits for its machine.
    bench.relay("a-1")?.claim(id).await?;
    eventually("it runs", || async {
        let got = console.read(op::COMMANDS_GET, &json!({"id": id})).await??;
        ensure!(got["counts"] == json!({"executing": 1}), "{got}");
        Ok(())
    })
    .await?;
    // The first message there is by one who may cancel nothing.
    let viewer = bench.console("viewer").await?;
    let forged = Signed::sign(&Console::request(op::COMMANDS_CANCEL, &json!({"id": id}))?, &viewer.key)?;
    let subject = format!("cmd.main.{id}.cancel");
    bench.link.store(signalbox_link::Store::new(subject.clone(), forged.to_json())).await?;
    let mut cursors = std::collections::BTreeSet::new();
    for _ in 0..5 {
        let cancelled = console.write(op::COMMANDS_CANCEL, &json!({"id": id})).await??;
        assert_eq!(cancelled, json!({"cancelling": 1}));
        let answer = bench.http.post(&format!("/api/v1/commands/{id}/cancel"), &Value::Null).await?;
        cursors.insert(answer.header("signalbox-cursor").context("no cursor")?.to_owned());
    }
    let stands = bench.link.last(stream::CMD, &subject).await?.context("no cancel")?;
    assert_eq!(stands.sequence, 4, "a part, a spec, the forged one, and one that counts");
    assert_eq!(cursors.len(), 1, "{cursors:?}");
    Ok(())
}

/// One operator's console after the other, none of them told apart by anything but the subject.
#[tokio::test]
async fn a_console_that_is_not_known_is_told_so() -> Result<()> {
    let bench = Bench::start(&["a-1"]).await?;
    let known = bench.console("local").await?;
    let stranger = Console { operator: "stranger".parse()?, ..known };
    assert_eq!(code(stranger.read(op::MACHINES_LIST, &json!({})).await?)?, ErrorCode::Unauthenticated);
    Ok(())
}

/// A message that earlier ones overlap is many chunks at one position: a feed that was cut off between them goes on
/// before all of them, and one that looks up only so many chunks at once loses none.
#[tokio::test]
async fn a_message_of_many_pieces_is_told_whole() -> Result<()> {
    const SINGLES: u64 = 100;
    let bench = Bench::start(&["a-1"]).await?;
    let console = bench.console("local").await?;
    let id = bench.submit("a-1").await?;
    let relay = bench.relay("a-1")?;
    relay.claim(id).await?;
    for i in 0..SINGLES {
        relay.output(id, Stdout, 2 * i + 1, "x").await?;
    }
    let whole = 2 * SINGLES + 1;
    relay.output(id, Stdout, 0, vec![b'x'; usize::try_from(whole)?]).await?;
    let state = bench.link.stream_state(stream::OUT).await?;
    relay.exit(id, whole, false).await?;

    let mut first = console.watch(id, None, PLENTY).await?;
    let (mut told, mut positions) = (0, Vec::new());
    let begun = Instant::now();
    while told < whole {
        ensure!(begun.elapsed() < Duration::from_secs(15), "{told} bytes of {whole} were told");
        if let Item::Chunk { bytes, position, .. } = first.next().await? {
            told += bytes.len() as u64;
            positions.push(position.context("no position")?);
        }
    }
    assert_eq!(positions.last(), Some(&state.last));
    // Only the last piece says that the message is done with.
    assert_eq!(positions.iter().filter(|position| **position == state.last).count(), 1);
    assert_eq!(first.story("settled").await?.len(), 2);
    let mut again = console.watch(id, Some(state.last - 1), PLENTY).await?;
    let story = again.story("settled").await?;
    let pieces = story.iter().filter(|told| told.contains('+')).count();
    assert_eq!(pieces as u64, SINGLES + 1, "{story:?}");
    Ok(())
}
