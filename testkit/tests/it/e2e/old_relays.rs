//! Relays of the old contract while the bridge is killed: no claim is granted twice, no result that was acknowledged is lost,
//! and nothing stays claimed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use futures_util::future::{try_join, try_join_all};
use serde_json::{Value, json};
use signalbox_testkit::{
    eventually::eventually_within,
    http::run_on,
    old_relay::OldRelay,
    process::{Signal, is_alive, signal},
    stack::{Options, Stack},
};

/// Machines, with a relay each.
const MACHINES: usize = 6;
/// Commands for each of them.
const COMMANDS: usize = 40;
/// The bridge dies whenever so many more claims were granted.
const GRANTS: usize = 45;
const DEATHS: usize = 4;
/// A run that nobody ends is lost after its own second and 90 more.
const LOST_AFTER: Duration = Duration::from_mins(2);
/// A relay that is not answered tries again after this, and not in a busy loop.
const PAUSE: Duration = Duration::from_millis(20);

/// What relays were told.
#[derive(Debug, Default)]
struct Told {
    /// Granted claims by command.
    grants: BTreeMap<String, usize>,
    /// Commands whose result was acknowledged.
    acknowledged: BTreeSet<String>,
    /// Requests without an answer, or with another one than relays go on from.
    unanswered: usize,
}

#[derive(Debug, Default)]
struct Watch {
    told: Mutex<Told>,
    is_over: AtomicBool,
}

impl Watch {
    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Works through lists until it is over. Like the relays it plays, it sends a result once.
async fn work(base: &str, key: &str, watch: &Watch) {
    let mut relay = OldRelay::new(base, key);
    while !watch.is_over.load(Ordering::Relaxed) {
        if round(&mut relay, watch).await.is_err() {
            watch.told().unanswered += 1;
            tokio::time::sleep(PAUSE).await;
        }
    }
}

async fn round(relay: &mut OldRelay, watch: &Watch) -> Result<()> {
    for command in relay.commands().await? {
        let id = command["_id"].as_str().context("no id")?;
        if !relay.wins(id).await? {
            continue;
        }
        *watch.told().grants.entry(id.to_owned()).or_default() += 1;
        let answer = relay.result(id, 0, id).await?;
        ensure!(answer.text() == r#"{"success":true}"#, "a result is answered {}", answer.text());
        watch.told().acknowledged.insert(id.to_owned());
    }
    Ok(())
}

/// Kills the bridge again and again in the middle of the work, which goes on until every command is somebody's.
async fn kill(stack: &Stack, watch: &Watch, commands: &[(String, String)]) -> Result<()> {
    for death in 1..=DEATHS {
        let minute = Duration::from_mins(1);
        eventually_within("granted claims", minute, || async {
            let grants = watch.told().grants.len();
            ensure!(grants >= death * GRANTS, "{grants} grants before death {death}");
            Ok(())
        })
        .await?;
        let bridge = stack.pid("bridge")?;
        signal(bridge, Signal::KILL)?;
        eventually_within("another bridge", minute, || async {
            let now = stack.pid("bridge")?;
            ensure!(now != bridge && is_alive(now), "still {now}");
            Ok(())
        })
        .await?;
    }
    eventually_within("a claim of every command", Duration::from_mins(1), || async {
        for (id, machine) in commands {
            let command = stack.http().json(&format!("/api/v1/commands/{id}")).await?;
            let state = run_on(&command, machine)?["state"].clone();
            ensure!(state != "pending", "{id} waits");
        }
        Ok(())
    })
    .await?;
    watch.is_over.store(true, Ordering::Relaxed);
    Ok(())
}

/// The key of a new machine's relay.
async fn assign(stack: &Stack, machine: &str) -> Result<String> {
    let body = json!({"machine_id": machine, "name": machine});
    let answer = stack.http().post("/api/v1/assignments", &body).await?;
    let made = answer.json()?;
    Ok(made["api_key"].as_str().with_context(|| format!("no key: {made}"))?.to_owned())
}

async fn submit(stack: &Stack, machine: String) -> Result<(String, String)> {
    let body = json!({"machine_id": machine, "command": "true", "timeout_ms": 1_000});
    Ok((stack.http().submit_with(&body).await?, machine))
}

/// Each command has one end: the result that was acknowledged, or one that was not, or none.
async fn ended_once(stack: &Stack, told: &Told, id: &str, machine: &str) -> Result<Value> {
    let command = eventually_within("the end of a command", LOST_AFTER, || async {
        let command = stack.http().json(&format!("/api/v1/commands/{id}")).await?;
        let state = run_on(&command, machine)?["state"].clone();
        ensure!(state == "completed" || state == "lost", "{id} is {state}");
        Ok(command)
    })
    .await?;
    let run = run_on(&command, machine)?;
    if told.acknowledged.contains(id) {
        ensure!(run["state"] == "completed", "an acknowledged result is lost: {run}");
    }
    if run["state"] == "completed" {
        let output = stack.http().output(id, machine, "stdout").await?;
        ensure!(output == id.as_bytes(), "{id} has another output: {}", String::from_utf8_lossy(&output));
    }
    Ok(run["state"].clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_bridge_grants_nothing_twice_and_keeps_what_it_acknowledged() -> Result<()> {
    let stack = Stack::start(Options::relays(0)).await?;
    let machines: Vec<String> = (1..=MACHINES).map(|n| format!("old-{n}")).collect();
    let keys = try_join_all(machines.iter().map(|machine| assign(&stack, machine))).await?;
    let mut commands = Vec::new();
    for _ in 0..COMMANDS {
        commands.extend(try_join_all(machines.iter().map(|machine| submit(&stack, machine.clone()))).await?);
    }
    let (watch, base) = (Watch::default(), stack.ready().http.as_str());
    let relays = try_join_all(keys.iter().map(|key| async {
        work(base, key, &watch).await;
        Ok::<_, anyhow::Error>(())
    }));
    try_join(relays, kill(&stack, &watch, &commands)).await?;
    let told = std::mem::take(&mut *watch.told());
    assert!(told.unanswered > 0, "no relay noticed anything");
    let twice: Vec<_> = told.grants.iter().filter(|(_, grants)| **grants > 1).collect();
    assert!(twice.is_empty(), "granted more than once: {twice:?}");
    let ends =
        try_join_all(commands.iter().map(|(id, machine)| ended_once(&stack, &told, id, machine))).await?;
    let lost = ends.iter().filter(|state| **state == "lost").count();
    assert_eq!(ends.len(), MACHINES * COMMANDS);
    // At each death a relay loses at most what it was about to hear.
    assert!(lost <= DEATHS * MACHINES, "{lost} are lost");
    assert!(told.acknowledged.len() + DEATHS * MACHINES >= ends.len(), "{}", told.acknowledged.len());
    Ok(())
}
