//! Commands on more machines than one message has grants for, with two bridges on one broker.

#![expect(clippy::expect_used, reason = "a broken bridge ends the test")]

#[path = "fronts/bench.rs"]
#[expect(dead_code, reason = "some of it is for the tests of HTTP")]
mod bench;

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result, ensure};
use bench::{Bench, Console, Running, now_ms};
use rstest::rstest;
use serde_json::{Value, json};
use signalbox_schemas::{
    api::{CommandView, FeedEvent, Previewed, Submit, op},
    command::{CommandSpec, Part, parts},
    error::ErrorCode,
    id::{CommandId, MachineToken},
    limit,
    run::RunState,
};
use signalbox_testkit::{eventually, eventually_within};
use tokio_util::sync::CancellationToken;

/// Far above what anything here takes.
const PATIENCE: Duration = Duration::from_mins(2);
const MANY: usize = 2_500;

fn names(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("many-{n:05}")).collect()
}

async fn with_machines(names: &[String]) -> Result<Bench> {
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    Bench::start(&names).await
}

/// A command on these machines, its parts, and its submit without grants.
fn prepared(console: &Console, names: &[String]) -> Result<(CommandSpec, Vec<Part>, Submit)> {
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let (spec, mut submit) = console.command(&names)?;
    let ahead = parts(spec.cid, std::mem::take(&mut submit.grants));
    Ok((spec, ahead, submit))
}

async fn whole(console: &Console, id: CommandId) -> Result<CommandView> {
    let mut whole: Option<CommandView> = None;
    let mut after: Option<String> = None;
    loop {
        let asked = json!({"id": id, "limit": 1_000, "after": after});
        let mut page: CommandView = serde_json::from_value(console.read(op::COMMANDS_GET, &asked).await??)?;
        after = page.next.take();
        match &mut whole {
            Some(whole) => whole.runs.append(&mut page.runs),
            None => whole = Some(page),
        }
        if after.is_none() {
            return whole.context("no page");
        }
    }
}

/// What one bridge has of a command, as it is in its own view.
fn of_bridge(running: &Running, id: CommandId) -> Result<(BTreeMap<RunState, u32>, Vec<MachineToken>)> {
    let summary = running.view.summary(id)?.context("it is not known")?;
    Ok((summary.counts, running.view.command_spec(id)?.context("it is not known")?.machines))
}

#[tokio::test]
async fn a_bridge_that_dies_between_parts_and_spec_leaves_a_command_that_another_one_accepts() -> Result<()> {
    let names = names(MANY);
    let mut bench = with_machines(&names).await?;
    let console = bench.console("local").await?;
    let (spec, ahead, submit) = prepared(&console, &names)?;
    assert_eq!(ahead.len(), 3);
    // Some other try of it, of which a part came through.
    let other = CommandSpec { expires_at: spec.expires_at + 1, ..spec.clone() };
    let others: Vec<&str> = names.iter().map(String::as_str).collect();
    let strays = parts(spec.cid, console.grant(&other, &others)?.grants);
    for part in [&ahead[0], &strays[1], &ahead[1], &ahead[2], &ahead[1], &strays[0]] {
        let taken = console.write(op::COMMANDS_PART, part).await??;
        assert_eq!((&taken["id"], &taken["n"]), (&json!(spec.cid), &json!(part.n)));
    }
    // The bridge that took them ends; one that has read nothing yet takes its place, and then there are two.
    bench.end().await?;
    bench.stop = CancellationToken::new();
    let [second, third] = [bench.another_bridge("b2").await?, bench.another_bridge("b3").await?];
    let accepted =
        eventually("its submit", || async { Ok(console.write(op::COMMANDS_SUBMIT, &submit).await??) })
            .await?;
    assert_eq!((&accepted["id"], &accepted["targets"]), (&json!(spec.cid), &json!([])));
    // Submitted again, it is the same.
    assert_eq!(console.write(op::COMMANDS_SUBMIT, &submit).await??["id"], json!(spec.cid));
    // So is all of it from the first part on; what belongs to another try is another command.
    for part in &ahead {
        eventually("a part again", || async { Ok(console.write(op::COMMANDS_PART, part).await??) }).await?;
    }
    assert_eq!(console.write(op::COMMANDS_SUBMIT, &submit).await??["id"], json!(spec.cid));
    let problem = console.write(op::COMMANDS_PART, &strays[0]).await?.unwrap_err();
    assert_eq!(problem.code, ErrorCode::IdConflict);
    let expected: Vec<MachineToken> = names.iter().map(MachineToken::new).collect::<Result<_, _>>()?;
    for bridge in [&second, &third] {
        eventually("both have it", || async {
            let (counts, machines) = of_bridge(bridge, spec.cid)?;
            ensure!(
                counts == BTreeMap::from([(RunState::Pending, 2_500)]) && machines == expected,
                "{counts:?}"
            );
            Ok(())
        })
        .await?;
    }
    everybody_ends_it(&bench, &console, spec.cid, &names).await?;
    let view = whole(&console, spec.cid).await?;
    assert!(view.summary.settled);
    let machines: Vec<&str> = view.runs.iter().map(|run| run.machine.as_str()).collect();
    assert_eq!(machines, names);
    for bridge in [&second, &third] {
        eventually("both have its end", || async {
            let (counts, _) = of_bridge(bridge, spec.cid)?;
            ensure!(counts == BTreeMap::from([(RunState::Completed, 2_500)]), "{counts:?}");
            Ok(())
        })
        .await?;
    }
    // A view that is built anew finds the same parts.
    let fourth = bench.another_bridge("b4").await?;
    assert_eq!(of_bridge(&fourth, spec.cid)?, of_bridge(&second, spec.cid)?);
    bench.end().await
}

/// All are offered it, take it up and end it, and a console hears of all of them.
async fn everybody_ends_it(bench: &Bench, console: &Console, id: CommandId, names: &[String]) -> Result<()> {
    eventually_within("a mailbox for everybody", PATIENCE, || async {
        let stored = bench.link.stream_state(signalbox_schemas::stream::MBOX).await?;
        ensure!(stored.messages == MANY as u64, "{} mailboxes", stored.messages);
        Ok(())
    })
    .await?;
    let mut feed = console.watch(id, None, u64::MAX).await?;
    let work = async {
        for name in names {
            let relay = bench.relay(name)?;
            relay.claim(id).await?;
            relay.exit_inline(id, b"hello\n").await?;
        }
        anyhow::Ok(())
    };
    let listen = async {
        let mut outputs = 0;
        loop {
            match tokio::time::timeout(PATIENCE, feed.next()).await?? {
                bench::Item::Chunk { .. } => outputs += 1,
                bench::Item::Event(FeedEvent::Settled { counts }) => {
                    assert_eq!(counts, BTreeMap::from([(RunState::Completed, 2_500)]));
                    return Ok(outputs);
                }
                _ => {}
            }
        }
    };
    let ((), outputs) = tokio::try_join!(work, listen)?;
    assert_eq!(outputs, MANY);
    Ok(())
}

/// Whether the broker may be asked for it; above a thousand, previews come page by page.
#[tokio::test]
async fn a_thousand_go_in_one_part_and_one_more_in_two() -> Result<()> {
    let names = names(1_001);
    let bench = with_machines(&names).await?;
    let console = bench.console("local").await?;
    let page = json!({"on": "many-*", "limit": 1_000});
    let first: Previewed = serde_json::from_value(console.read(op::COMMANDS_PREVIEW, &page).await??)?;
    assert_eq!(first.targets.len(), 1_000);
    assert!(first.next.as_ref().is_some_and(|next| next.starts_with("many-00999,")), "{:?}", first.next);
    let page = json!({"on": "many-*", "limit": 1_000, "after": first.next});
    let second: Previewed = serde_json::from_value(console.read(op::COMMANDS_PREVIEW, &page).await??)?;
    assert_eq!((second.targets.len(), second.next), (1, None));
    // A thousand: one part, with the submit itself.
    let (spec, mut ahead, submit) = prepared(&console, &names[..1_000])?;
    let one = ahead.pop().context("no part")?;
    assert!(ahead.is_empty());
    let code = console.write(op::COMMANDS_PART, &one).await?.unwrap_err().code;
    assert_eq!(code, ErrorCode::Invalid, "a part of its own");
    let whole_submit = Submit { grants: one.grants, ..submit };
    let accepted = console.write(op::COMMANDS_SUBMIT, &whole_submit).await??;
    assert_eq!(accepted["targets"].as_array().map(Vec::len), Some(1_000));
    assert!(bench.view.summary(spec.cid)?.is_some());
    // One more: its grants have no room in a submit, and its submit counts only once all parts are there.
    let (spec, ahead, submit) = prepared(&console, &names)?;
    assert_eq!(ahead.len(), 2);
    for part in &ahead {
        let code = console.write(op::COMMANDS_SUBMIT, &submit).await?.unwrap_err().code;
        assert_eq!(code, ErrorCode::Invalid, "before part {}", part.n);
        assert!(bench.view.summary(spec.cid)?.is_none());
        console.write(op::COMMANDS_PART, part).await??;
    }
    console.write(op::COMMANDS_SUBMIT, &submit).await??;
    assert_eq!(whole(&console, spec.cid).await?.runs.len(), 1_001);
    // The same over HTTP, granted by the bridge.
    let body = json!({"on": "many-*", "command": "true"});
    let answer = bench.http.post("/api/v1/commands", &body).await?;
    assert_eq!(answer.status, 202, "{}", String::from_utf8_lossy(&answer.body));
    let answer: Value = serde_json::from_slice(&answer.body)?;
    assert_eq!(answer["targets"].as_array().map(Vec::len), Some(1_001));
    let shown =
        bench.http.json(&format!("/api/v1/commands/{}", answer["id"].as_str().context("id")?)).await?;
    assert_eq!((shown["runs"].as_array().map(Vec::len), &shown["next"]), (Some(1_001), &Value::Null));
    Ok(())
}

#[rstest]
#[case::numbers(|part: &mut Part| part.n = 3, ErrorCode::Invalid)]
#[case::only_one(|part: &mut Part| (part.n, part.of) = (1, 1), ErrorCode::Invalid)]
#[case::no_grants(|part: &mut Part| part.grants.clear(), ErrorCode::Invalid)]
#[case::order(|part: &mut Part| part.grants.reverse(), ErrorCode::Invalid)]
#[case::other_command(|part: &mut Part| part.cid = CommandId::new(uuid::Uuid::now_v7()).unwrap(), ErrorCode::Invalid)]
#[tokio::test]
async fn parts_that_no_submit_would_find_are_refused(
    #[case] spoil: fn(&mut Part),
    #[case] code: ErrorCode,
) -> Result<()> {
    let bench = Bench::start(&["a-1", "a-2"]).await?;
    let console = bench.console("local").await?;
    let (spec, submit) = console.command(&["a-1", "a-2"])?;
    let good = Part { cid: spec.cid, n: 1, of: 2, grants: submit.grants };
    let mut part = good.clone();
    spoil(&mut part);
    assert_eq!(console.write(op::COMMANDS_PART, &part).await?.unwrap_err().code, code);
    // Nor may those take its place who may not submit, or did not sign.
    let viewer = bench.console("viewer").await?;
    assert_eq!(viewer.write(op::COMMANDS_PART, &good).await?.unwrap_err().code, ErrorCode::Forbidden);
    let admin = bench.console("admin").await?;
    assert_eq!(admin.write(op::COMMANDS_PART, &good).await?.unwrap_err().code, ErrorCode::Invalid);
    assert_eq!(bench.link.stream_state(signalbox_schemas::stream::CMD).await?.messages, 0);
    // Sent twice, it is stored once.
    for _ in 0..2 {
        console.write(op::COMMANDS_PART, &good).await??;
    }
    assert_eq!(bench.link.stream_state(signalbox_schemas::stream::CMD).await?.messages, 1);
    Ok(())
}

#[tokio::test]
async fn there_is_an_end_to_what_waits_for_one_command() -> Result<()> {
    let bench = Bench::start(&["a-1"]).await?;
    let console = bench.console("local").await?;
    let (spec, _) = console.command(&["a-1"])?;
    let mut taken = 0;
    let refused = loop {
        let other = CommandSpec { expires_at: spec.expires_at + taken, ..spec.clone() };
        let grants = console.grant(&other, &["a-1"])?.grants;
        let part = Part { cid: spec.cid, n: 1, of: 2, grants };
        match console.write(op::COMMANDS_PART, &part).await? {
            Ok(_) => taken += 1,
            Err(problem) => break problem.code,
        }
    };
    assert_eq!((refused, taken), (ErrorCode::RateLimited, 80));
    Ok(())
}

#[tokio::test]
async fn more_machines_than_a_command_has_are_refused_with_their_number() -> Result<()> {
    let names = names(limit::TARGETS + 1);
    let bench = with_machines(&names).await?;
    let console = bench.console("local").await?;
    let refused =
        console.read(op::COMMANDS_PREVIEW, &json!({"on": "many-*", "limit": 1_000})).await?.unwrap_err();
    assert_eq!(refused.code, ErrorCode::Invalid);
    assert!(refused.message.contains("10001") && refused.message.contains("10000"), "{}", refused.message);
    let body = json!({"on": "many-*", "command": "true"});
    assert_eq!(bench.http.post("/api/v1/commands", &body).await?.status, 422);
    // All but one may be meant: over HTTP, granted by the bridge, in ten parts.
    let body = json!({"on": "many-0*", "command": "true", "timeout_ms": 30_000});
    let since = now_ms();
    let answer = bench.http.post("/api/v1/commands", &body).await?;
    assert_eq!(answer.status, 202, "{}", String::from_utf8_lossy(&answer.body));
    let answer: Value = serde_json::from_slice(&answer.body)?;
    assert_eq!(
        answer["targets"].as_array().map(Vec::len),
        Some(limit::TARGETS),
        "after {} ms",
        now_ms() - since
    );
    let id: CommandId = answer["id"].as_str().context("id")?.parse()?;
    assert_eq!(whole(&console, id).await?.runs.len(), limit::TARGETS);
    let subjects = bench.link.stream_state(signalbox_schemas::stream::CMD).await?.messages;
    assert_eq!(subjects, 11, "ten parts and a spec");
    Ok(())
}
