//! One winner for each run, however many ask, on however many bridges, and whatever else ends it at the same time.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures_util::{
    StreamExt as _, TryStreamExt as _,
    future::{join_all, try_join, try_join_all},
    stream,
};
use serde_json::{Value, json};
use signalbox_testkit::{eventually, http::Http, old_relay::OldRelay};

use super::{
    bench::TOKEN,
    world::{Assigned, World},
};

const COMMANDS: usize = 60;
/// Claimers of each assignment, on each bridge.
const CLAIMERS: usize = 4;

/// The same relay at several bridges, several times.
fn claimers(assigned: &Assigned, bases: &[&str]) -> Vec<OldRelay> {
    let at = |base: &&str| (0..CLAIMERS).map(|_| OldRelay::new(base, &assigned.key)).collect::<Vec<_>>();
    bases.iter().flat_map(at).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_all_claimers_on_two_bridges_one_wins_each_command() -> Result<()> {
    let mut world = World::start().await?;
    let (one, two) = (world.assign("m-1").await?, world.assign("m-1").await?);
    let second = world.bench.another_bridge("b2").await?.base;
    let bases = [world.bench.base.as_str(), second.as_str()];
    let mut relays = claimers(&one, &bases).into_iter().chain(claimers(&two, &bases)).collect::<Vec<_>>();
    for n in 0..COMMANDS {
        let id = world.submit("m-1", &format!("echo {n}")).await?;
        let wins: Vec<bool> = try_join_all(relays.iter_mut().map(|relay| relay.wins(&id))).await?;
        let won: Vec<usize> = (0..wins.len()).filter(|i| wins[*i]).collect();
        assert_eq!(won.len(), 1, "command {n}: {won:?}");
        // Whoever won ends it, through either bridge; the other assignment does not.
        let is_first = won[0] < 2 * CLAIMERS;
        let (winner, other) = if is_first { (&one, &two) } else { (&two, &one) };
        let base = bases[n % 2];
        let mut foreign = OldRelay::new(base, &other.key);
        assert_eq!(foreign.result(&id, 1, "forged").await?.text(), r#"{"success":false}"#);
        let mut winner = OldRelay::new(base, &winner.key);
        assert_eq!(winner.result(&id, 0, "own").await?.text(), r#"{"success":true}"#);
        assert_eq!(world.bench.http.settled(&id).await?["counts"], json!({"completed": 1}));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relays_that_race_through_their_lists_share_them() -> Result<()> {
    let mut world = World::start().await?;
    let assigned = world.assign("m-1").await?;
    let second = world.bench.another_bridge("b2").await?.base;
    let ids = try_join_all((0..COMMANDS).map(|_| world.submit("m-1", "true"))).await?;
    let bases = [world.bench.base.as_str(), second.as_str()];
    let works = claimers(&assigned, &bases).into_iter().map(|mut relay| async move {
        let mut won = Vec::new();
        loop {
            let listed = relay.commands().await?;
            if listed.is_empty() {
                return Ok::<_, anyhow::Error>(won);
            }
            for command in listed {
                let id = command["_id"].as_str().context("no id")?;
                if relay.wins(id).await? {
                    ensure!(relay.result(id, 0, id).await?.text() == r#"{"success":true}"#, "{id}");
                    won.push(id.to_owned());
                }
            }
        }
    });
    let mut won: Vec<String> = try_join_all(works).await?.into_iter().flatten().collect();
    won.sort_unstable();
    let mut ids = ids;
    ids.sort_unstable();
    assert_eq!(won, ids, "each once");
    for id in &ids {
        assert_eq!(world.bench.http.settled(id).await?["counts"], json!({"completed": 1}));
        assert_eq!(world.bench.http.output(id, "m-1", "stdout").await?, id.as_bytes());
    }
    Ok(())
}

/// What became of a command that was claimed and ended by something else at the same time: the claim was granted and the run
/// is open, or neither.
async fn is_one_or_the_other(world: &World, id: &str, is_won: bool, ended: &str) -> Result<()> {
    let run = eventually("the run's state", || async {
        let run = world.run(id, "m-1").await?;
        ensure!(run["state"] != "pending", "{run}");
        Ok(run)
    })
    .await?;
    let expected = if is_won { "executing" } else { ended };
    ensure!(run["state"] == expected, "claimed: {is_won}, {run}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_or_a_cancellation_wins() -> Result<()> {
    let mut world = World::start().await?;
    let assigned = world.assign("m-1").await?;
    let second = world.bench.another_bridge("b2").await?.base;
    let other = Http::new(&second, TOKEN);
    let mut relay = world.relay(&assigned);
    let mut wins = 0;
    for n in 0..COMMANDS {
        let id = world.submit("m-1", "true").await?;
        let path = format!("/api/v1/commands/{id}/cancel");
        // Either is first now and then.
        let nothing = json!({});
        let (cancelled, won) = if n % 2 == 0 {
            try_join(other.post(&path, &nothing), relay.wins(&id)).await?
        } else {
            let (won, cancelled) = try_join(relay.wins(&id), other.post(&path, &nothing)).await?;
            (cancelled, won)
        };
        assert!(cancelled.status < 300 || cancelled.status == 409, "{}", cancelled.text());
        is_one_or_the_other(&world, &id, won, "cancelled").await?;
        wins += usize::from(won);
    }
    println!("{wins} of {COMMANDS} claims were faster");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_or_the_expiry_wins() -> Result<()> {
    let world = World::start().await?;
    let assigned = world.assign("m-1").await?;
    let rounds = stream::iter(0..COMMANDS as u64).map(|n| {
        let world = &world;
        let mut relay = world.relay(&assigned);
        async move {
            // At once, and around the time of the expiry.
            let body = json!({"command": "true", "expires_in_ms": 30 + n * 3});
            let id = world.submit_with("m-1", &body).await?;
            // Claims until it is had or is not to be had.
            let mut said = Value::Null;
            let deadline = tokio::time::Instant::now() + Duration::from_millis(n * 4);
            tokio::time::sleep_until(deadline).await;
            while said.is_null() {
                said = relay.claim(&id).await?.json()?;
            }
            is_one_or_the_other(world, &id, said["success"] == true, "expired").await?;
            Ok::<_, anyhow::Error>(usize::from(said["success"] == true))
        }
    });
    let won: Vec<usize> = rounds.buffer_unordered(16).try_collect().await?;
    println!("{} of {COMMANDS} claims were faster", won.iter().sum::<usize>());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_result_twice_at_once_is_one_end() -> Result<()> {
    let mut world = World::start().await?;
    let assigned = world.assign("m-1").await?;
    let second = world.bench.another_bridge("b2").await?.base;
    let bases = [world.bench.base.clone(), second];
    for _ in 0..COMMANDS / 4 {
        let id = world.submit("m-1", "true").await?;
        assert!(world.relay(&assigned).wins(&id).await?);
        let results = (0..6).map(|n| {
            let mut relay = OldRelay::new(&bases[n % 2], &assigned.key);
            let id = id.clone();
            async move { relay.result(&id, i32::from(n % 3 == 2), &format!("from {n}")).await }
        });
        for answer in join_all(results).await {
            assert_eq!(answer?.text(), r#"{"success":true}"#);
        }
        let settled = world.bench.http.settled(&id).await?;
        let run = settled["runs"][0].clone();
        let output = String::from_utf8(world.bench.http.output(&id, "m-1", "stdout").await?)?;
        let n: i64 = output.strip_prefix("from ").context("no such output")?.parse()?;
        assert_eq!(run["exit_code"], i64::from(n % 3 == 2), "{run}: {output}");
        assert_eq!(world.bench.http.settled(&id).await?, settled);
    }
    Ok(())
}
