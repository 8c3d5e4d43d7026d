//! Thousands of relays of the old contract against a real stack on the same machine: what they wait, and what they cost.
//! Ends with an error when a relay met one.

mod board;
mod fleet;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::{Value, json};
use signalbox_testkit::{
    eventually_within,
    old_relay::Connection,
    stack::{Options, Stack},
};

use super::{Scope, float, float64};
use crate::{
    machine::raise_descriptors,
    probe::{cpu_ms, memory_kib},
    report::{Budget, Report, Row, Samples, Unit},
};
use board::Board;
use fleet::Fleet;

/// Relays, and commands in a second for so long.
const RELAYS: usize = 2_000;
const RATE: u64 = 100;
const LOAD: Duration = Duration::from_mins(1);
/// Assignments that are made at once.
const ASSIGNED_AT_ONCE: usize = 16;
/// Submitters, each on a connection of its own.
const SUBMITTERS: u64 = 4;
/// How long nothing is submitted while all polls are held.
const QUIET: Duration = Duration::from_secs(30);
/// Relays and commands of the part about single commands. So many that none of them gets another command in the rest of a
/// poll's round: between the answer to a held poll and the next poll nobody can be told anything.
const FEW: usize = 20;
const SINGLE: usize = 40;

pub(super) async fn measure(scope: Scope, report: &mut Report) -> Result<()> {
    raise_descriptors()?;
    let (relays, load_for) = (scope.of(RELAYS), scope.time(LOAD));
    report.set("relays", relays.to_string());
    report.set("commands", format!("{RATE} a second for {} s", load_for.as_secs()));
    let stack = Stack::start(Options::relays(0)).await?;
    let few = assign(&stack, "few", FEW).await?;
    single(scope, &stack, few, report).await?;
    let many = assign(&stack, "old", relays).await?;
    let before = Cost::now(&stack)?;
    let board = Arc::new(Board::default());
    let mut fleet = Fleet::start(&stack.ready().http, many, &board);
    fleet.until_all_are_held().await?;
    let held = Cost::now(&stack)?;
    let quiet_for = scope.time(QUIET);
    tokio::time::sleep(quiet_for).await;
    let quiet = Cost::now(&stack)?;
    load(&stack, load_for, &board, &fleet).await?;
    let loaded = Cost::now(&stack)?;
    let connections = fleet.connections();
    fleet.stop().await;
    held.tell_memory("all polls held", &before, connections, report);
    loaded.tell_memory("after the load", &before, connections, report);
    quiet.tell_cpu("nothing to do", &held, quiet_for, report);
    loaded.tell_cpu("under load", &quiet, load_for, report);
    tell("", &board, report);
    let (errors, quoted) = board.errors();
    report.add(Row::one("errors", Unit::Count, float64(errors)).within(Budget::most(0.0, "0")));
    board.is_complete()?;
    ensure!(errors == 0, "{errors} errors, the first: {quoted:#?}");
    Ok(())
}

/// What became of the commands, and how long everything took.
fn tell(part: &str, board: &Board, report: &mut Report) {
    let mut answers: Vec<_> = board.answers().into_iter().collect();
    answers.sort_unstable_by_key(|(what, _)| *what);
    let mut add = |what: &str, all: Vec<Duration>, budget: Option<Budget>| {
        let mut samples = Samples::ms();
        samples.append(all);
        if samples.len() == 0 {
            return;
        }
        let row = Row::new(&format!("{part}{what}"), &samples);
        report.add(budget.into_iter().fold(row, Row::within));
    };
    let fast = || Some(Budget::most(50.0, "50 ms").p99());
    let mut together = Vec::new();
    for (what, all) in answers {
        together.extend_from_slice(&all);
        add(what, all, None);
    }
    add("all that is not held", together, fast());
    let held = board.of_commands(|command| {
        let ((_, acknowledged), (sent, received)) = (command.submitted?, command.listed?);
        (sent < acknowledged).then(|| received.saturating_duration_since(acknowledged))
    });
    add("held poll, from acknowledged to listed", held, fast());
    let at_once = board.of_commands(|command| {
        let ((_, acknowledged), (sent, received)) = (command.submitted?, command.listed?);
        (sent >= acknowledged).then(|| received - sent)
    });
    add("poll that finds work", at_once, fast());
    add("submit", board.of_commands(|command| command.submitted.map(|(sent, at)| at - sent)), None);
    let pickup =
        board.of_commands(|command| Some(command.claimed?.saturating_duration_since(command.submitted?.0)));
    let budget = (!part.is_empty()).then(|| Budget::most(100.0, "100 ms"));
    add("from submit to claimed", pickup, budget);
    let whole =
        board.of_commands(|command| Some(command.ended?.saturating_duration_since(command.submitted?.0)));
    add("from submit to its end", whole, None);
}

/// Machines `<name>-1` to `<name>-<count>` with an assignment each: ids and keys.
async fn assign(stack: &Stack, name: &str, count: usize) -> Result<Vec<fleet::Assigned>> {
    let make = |n: usize| async move {
        let machine = format!("{name}-{n}");
        let body = json!({"machine_id": machine, "name": machine});
        let answer = stack.http().post("/api/v1/assignments", &body).await?;
        let made = answer.json()?;
        ensure!((200..300).contains(&answer.status), "assigning answers {}: {made}", answer.status);
        let text = |name: &str| made.get(name).and_then(Value::as_str).map(str::to_owned);
        Ok(fleet::Assigned {
            machine,
            id: text("id").context("no id")?,
            key: text("api_key").context("no key")?,
        })
    };
    stream::iter(1..=count).map(make).buffered(ASSIGNED_AT_ONCE).try_collect().await
}

/// What the processes of the stack have used.
struct Cost {
    /// Of the bridge and the broker: resident and proportional memory in KiB, CPU time in ms.
    of: [Used; 2],
}

type Used = (u64, u64, u64);

impl Cost {
    fn now(stack: &Stack) -> Result<Self> {
        let read = |name| {
            let pid = stack.pid(name)?;
            let (rss, pss) = memory_kib(pid)?;
            Ok::<_, anyhow::Error>((rss, pss, cpu_ms(pid)?))
        };
        Ok(Self { of: [read("bridge")?, read("broker")?] })
    }

    fn since<'a>(&'a self, before: &'a Self) -> impl Iterator<Item = (&'static str, &'a Used, &'a Used)> {
        let parts = ["bridge", "broker"].into_iter().zip(self.of.iter().zip(&before.of));
        parts.map(|(name, (now, before))| (name, now, before))
    }

    /// What a held connection takes.
    fn tell_memory(&self, when: &str, before: &Self, connections: usize, report: &mut Report) {
        for (name, now, before) in self.since(before) {
            report.add(Row::one(&format!("{name}, {when}: RSS"), Unit::Kib, float64(now.0)));
            let each = float64(now.0.saturating_sub(before.0)) / float(connections);
            report.add(Row::one("— more RSS for each relay", Unit::Kib, each));
            let each = float64(now.1.saturating_sub(before.1)) / float(connections);
            report.add(Row::one("— more PSS for each relay", Unit::Kib, each));
        }
    }

    /// What the time was used for.
    fn tell_cpu(&self, when: &str, before: &Self, time: Duration, report: &mut Report) {
        for (name, now, before) in self.since(before) {
            let used = float64(now.2.saturating_sub(before.2)) / time.as_secs_f64() / 10.0;
            report.add(Row::one(&format!("{name}, {when}: CPU"), Unit::Percent, used));
        }
    }
}

/// Single commands to few relays that have nothing else to do: what somebody waits who has not waited before.
async fn single(
    scope: Scope,
    stack: &Stack,
    relays: Vec<fleet::Assigned>,
    report: &mut Report,
) -> Result<()> {
    let board = Arc::new(Board::default());
    let mut fleet = Fleet::start(&stack.ready().http, relays, &board);
    fleet.until_all_are_held().await?;
    let mut connection = Connection::open(&stack.ready().http).await?;
    for n in 0..scope.of(SINGLE) {
        // At odd times of the polls' round.
        tokio::time::sleep(Duration::from_millis(613)).await;
        submit(stack, &mut connection, fleet.machine(n), &board).await?;
    }
    settle(&board).await?;
    fleet.stop().await;
    tell("few relays, single commands: ", &board, report);
    board.is_complete()
}

/// Commands at a fixed rate, one machine after another, until the time is over and all have ended.
async fn load(stack: &Stack, time: Duration, board: &Arc<Board>, fleet: &Fleet) -> Result<()> {
    let begin = Instant::now();
    let total = RATE * time.as_secs();
    let submitter = |first: u64| async move {
        let mut connection = Connection::open(&stack.ready().http).await?;
        let mut n = first;
        while n < total {
            let at = begin + Duration::from_micros(n * 1_000_000 / RATE);
            tokio::time::sleep_until(at.into()).await;
            // A stride that is prime to all usual numbers spreads neighbours over the round of the polls.
            let machine = fleet.machine(usize::try_from(n)?.wrapping_mul(7_919));
            submit(stack, &mut connection, machine, board).await?;
            n += SUBMITTERS;
        }
        Ok::<_, anyhow::Error>(())
    };
    futures_util::future::try_join_all((0..SUBMITTERS).map(submitter)).await?;
    settle(board).await
}

async fn submit(stack: &Stack, connection: &mut Connection, machine: &str, board: &Board) -> Result<()> {
    let body = json!({"machine_id": machine, "command": "true"}).to_string();
    let request = format!(
        "POST /api/v1/commands HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        stack.ready().admin_token,
        body.len()
    );
    let submitted = Instant::now();
    connection.send(request.as_bytes()).await?;
    let answer = connection.answer().await?;
    ensure!(answer.status == 202, "submit answers {}: {}", answer.status, answer.text());
    let id = answer.json()?.get("id").and_then(Value::as_str).context("no id")?.to_owned();
    board.submitted(&id, submitted, Instant::now());
    Ok(())
}

/// Waits until every command has its end.
async fn settle(board: &Board) -> Result<()> {
    eventually_within("the end of all commands", Duration::from_secs(30), || async { board.is_complete() })
        .await
}
