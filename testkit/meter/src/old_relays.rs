//! Thousands of relays of the old contract against a real stack on the same machine: what they wait, and what they cost.
//! Reports, and says what is not within its budget; ends with an error only when a relay met one.
//!
//! `cargo bench -p signalbox-testkit --bench old_relays -- --relays 2000` after `cargo build --release`. One table on stdout,
//! and the same as JSON in `old_relays.json` of the build folder, or where `--json` says.
#![expect(clippy::print_stdout, reason = "its output is the report")]

mod board;
mod fleet;
#[path = "../figures/probe.rs"]
#[expect(dead_code, reason = "the other bench needs more of it")]
mod probe;
mod table;

use std::{
    path::PathBuf,
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

use board::Board;
use fleet::Fleet;
use probe::{cpu_ms, memory_kib};
use table::Table;

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

/// What is asked for on the command line.
struct Wanted {
    relays: usize,
    /// Commands in a second.
    rate: u64,
    load: Duration,
    json: PathBuf,
}

impl Wanted {
    fn parse() -> Result<Self> {
        let mut arguments = std::env::args().skip(1);
        let json = std::env::current_exe()?.with_file_name("old_relays.json");
        let mut wanted = Self { relays: 2_000, rate: 100, load: Duration::from_mins(1), json };
        while let Some(name) = arguments.next() {
            if name == "--bench" {
                continue;
            }
            let value = arguments.next().with_context(|| format!("{name} needs a value"))?;
            match name.as_str() {
                "--relays" => wanted.relays = value.parse()?,
                "--rate" => wanted.rate = value.parse()?,
                "--seconds" => wanted.load = Duration::from_secs(value.parse()?),
                "--json" => wanted.json = value.into(),
                _ => anyhow::bail!("{name} is none of --relays, --rate, --seconds, --json"),
            }
        }
        ensure!(wanted.relays >= FEW, "--relays must be at least {FEW}");
        Ok(wanted)
    }
}

fn main() -> Result<()> {
    // `cargo bench` passes `--bench`; `cargo test` would run this as a test without it.
    if !std::env::args().any(|argument| argument == "--bench") {
        return Ok(());
    }
    allow_descriptors()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(report(Wanted::parse()?))
}

/// As many connections as this process may have, which the stack inherits.
fn allow_descriptors() -> Result<()> {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).context("raising the limit of open files")
}

async fn report(wanted: Wanted) -> Result<()> {
    let stack = Stack::start(Options::relays(0)).await?;
    let mut table = Table::new(&wanted);
    let few = assign(&stack, "few", FEW).await?;
    single(&stack, few, &mut table).await?;
    let many = assign(&stack, "old", wanted.relays).await?;
    let before = Cost::now(&stack)?;
    let board = Arc::new(Board::default());
    let mut fleet = Fleet::start(&stack.ready().http, many, &board);
    fleet.until_all_are_held().await?;
    let held = Cost::now(&stack)?;
    tokio::time::sleep(QUIET).await;
    let quiet = Cost::now(&stack)?;
    load(&stack, &wanted, &board, &fleet).await?;
    let loaded = Cost::now(&stack)?;
    let connections = fleet.connections();
    fleet.stop().await;
    table.memory("all polls held", &before, &held, connections);
    table.memory("after the load", &before, &loaded, connections);
    table.cpu("nothing to do", &held, &quiet, QUIET);
    table.cpu("under load", &quiet, &loaded, wanted.load);
    table.board("", &board);
    table.finish(&wanted, &board)
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
    of: [(u64, u64, u64); 2],
}

impl Cost {
    fn now(stack: &Stack) -> Result<Self> {
        let read = |name| {
            let pid = stack.pid(name)?;
            let (rss, pss) = memory_kib(pid)?;
            Ok::<_, anyhow::Error>((rss, pss, cpu_ms(pid)?))
        };
        Ok(Self { of: [read("bridge")?, read("broker")?] })
    }
}

/// Single commands to few relays that have nothing else to do: what somebody waits who has not waited before.
async fn single(stack: &Stack, relays: Vec<fleet::Assigned>, table: &mut Table) -> Result<()> {
    let board = Arc::new(Board::default());
    let mut fleet = Fleet::start(&stack.ready().http, relays, &board);
    fleet.until_all_are_held().await?;
    let mut connection = Connection::open(&stack.ready().http).await?;
    for n in 0..SINGLE {
        // At odd times of the polls' round.
        tokio::time::sleep(Duration::from_millis(613)).await;
        submit(stack, &mut connection, fleet.machine(n), &board).await?;
    }
    settle(&board).await?;
    fleet.stop().await;
    table.board("few relays, single commands: ", &board);
    board.is_complete()
}

/// Commands at a fixed rate, one machine after another, until the time is over and all have ended.
async fn load(stack: &Stack, wanted: &Wanted, board: &Arc<Board>, fleet: &Fleet) -> Result<()> {
    let begin = Instant::now();
    let total = wanted.rate * wanted.load.as_secs();
    let submitter = |first: u64| async move {
        let mut connection = Connection::open(&stack.ready().http).await?;
        let mut n = first;
        while n < total {
            let at = begin + Duration::from_micros(n * 1_000_000 / wanted.rate);
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
