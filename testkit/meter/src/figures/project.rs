//! How fast a bridge reads the streams into its view: while facts come in, and from an empty folder.
//!
//! The facts are signed and stored here, in the names of 1,000 machines, about commands that are held back for an hour: so
//! nothing is dispatched, and reading is all that a bridge does.

use std::{
    collections::VecDeque,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use signalbox_link::{Link, PendingStore, Store};
use signalbox_schemas::{
    Base64Url,
    id::{CommandId, MachineToken, Nonce, Sha256, Workspace},
    layout::{Layout, SIGNING_SEED},
    limit,
    run::{Claim, Exit, ExitState, InlineOutput, StreamSummary},
    signed::{PublicKey, Signed, SigningKey},
    stream::RUN,
    subject::{FactKind, Subject},
};
use signalbox_testkit::{
    eventually_within,
    http::Http,
    operator::{Heard, Operator, Order, now_ms},
    process::Daemon,
};

use super::{Scope, float};
use crate::{
    fleet::seed,
    place::{Place, simulated},
    probe::{cpu_ms, peak_kib},
    report::{Budget, Report, Row, Samples, Unit},
};

const MACHINES: usize = 1_000;
/// Of which each has a run on every machine, with two facts: a million.
const COMMANDS: usize = 500;
/// Commands whose facts are stored in one go.
const AT_ONCE: usize = 10;
const REBUILDS: usize = 3;
const WINDOW: usize = 4_000;
const PATIENCE: Duration = Duration::from_mins(10);
const NONCE: Nonce = Nonce([7; 16]);
/// Signatures of the floor.
const SIGNATURES: usize = 20_000;

const STORED: &str = "floor: messages of that size stored, pipelined";
const CPU: &str = "— CPU of the bridge for a thousand of them";
const READ: &str = "floor: the stream of facts read, and nothing made of it";

struct Author {
    mid: MachineToken,
    key: SigningKey,
}

pub(super) async fn measure(scope: Scope, report: &mut Report) -> Result<()> {
    let names = simulated(MACHINES);
    let place = Place::start(&names, 0).await?;
    let authors = authors(&place, &names)?;
    let (operator, link) = (place.operator().await?, place.admin().await?);
    let (mut floor, mut sustained) = (Samples::of(Unit::PerSecond), Samples::of(Unit::PerSecond));
    let (bridge, mut cpu) = (place.stack.pid("bridge")?, Samples::ms());
    let commands = scope.of(COMMANDS);
    let mut left = commands;
    while left > 0 {
        let now = left.min(AT_ONCE);
        left -= now;
        let mut facts = Vec::new();
        let mut ids = Vec::new();
        for _ in 0..now {
            let id = submit(&operator, &authors).await?;
            for author in &authors {
                facts.extend(author.facts(id)?);
            }
            ids.push(id);
        }
        let count = float(facts.len());
        let blank = facts.iter().map(|fact| Store::new("evt.main.meter", fact.payload.clone()));
        floor.add(count / store_all(&link, blank.collect()).await?.as_secs_f64());
        let (since, before) = (Instant::now(), cpu_ms(bridge)?);
        store_all(&link, facts).await?;
        for id in ids {
            place.stack.http().settled_in_short(&id.to_string(), 60).await?;
        }
        sustained.add(count / since.elapsed().as_secs_f64());
        cpu.add(per_thousand(cpu_ms(bridge)? - before, count));
    }
    let facts = commands * MACHINES * 2;
    report.set("facts", facts.to_string());
    report.add(Row::new(STORED, &floor));
    let row = Row::new("facts stored and projected", &sustained).over(STORED);
    report.add(row.within(Budget::least(20_000.0, "20,000 events/s")));
    report.add(Row::new(CPU, &cpu));
    verification(&authors, report)?;
    rebuild(scope, &place, &link, facts, report).await
}

fn authors(place: &Place, names: &[String]) -> Result<Vec<Author>> {
    let layout = Layout::new(&place.stack.ready().state_dir);
    let author = |name: &String| {
        let mid = MachineToken::new(name)?;
        let key = seed(&layout.machine_dir(&mid).join(SIGNING_SEED))?;
        anyhow::Ok(Author { mid, key })
    };
    let mut authors = names.iter().map(author).collect::<Result<Vec<_>>>()?;
    authors.sort_by(|a, b| a.mid.cmp(&b.mid));
    Ok(authors)
}

/// A command on all of them that is held back.
async fn submit(operator: &Operator, authors: &[Author]) -> Result<CommandId> {
    let machines = authors.iter().map(|author| author.mid.clone()).collect();
    let order = Order {
        not_before_in_ms: Some(limit::HOUR_MS),
        expires_in_ms: 2 * limit::HOUR_MS,
        ..Order::new("all", machines, "/bin/true")
    };
    let (spec, submit) = operator.sign(&order)?;
    let heard = operator.submit(&submit, PATIENCE).await?;
    ensure!(matches!(heard, Heard::Ok(_)), "a submit is answered {heard:?}");
    Ok(spec.cid)
}

impl Author {
    /// A claim and an exit with a line of output, as messages to be stored.
    fn facts(&self, cid: CommandId) -> Result<[Store; 2]> {
        let (ws, mid, now) = (Workspace::main(), self.mid.clone(), now_ms()?);
        let claim = Claim { ws: ws.clone(), mid: mid.clone(), cid, nonce: NONCE, claimed_at: now, via: None };
        let stdout = format!("this is {mid}\n").into_bytes();
        let exit = Exit {
            ws,
            mid,
            cid,
            nonce: NONCE,
            state: ExitState::Completed,
            exit_code: Some(0),
            signal: None,
            error: None,
            started_at: now,
            duration_ms: 2,
            group_dead: true,
            stdout: StreamSummary {
                bytes: stdout.len() as u64,
                sha256: Sha256::of(&stdout),
                truncated: false,
            },
            stderr: StreamSummary::empty(),
            chunks: 0,
            inline: Some(InlineOutput { stdout: Base64Url(stdout), stderr: Base64Url::default() }),
            via: None,
        };
        let store = |kind, body: Vec<u8>| {
            let subject = Subject::Run(Workspace::main(), self.mid.clone(), cid, kind).to_string();
            Store::new(subject, body).only_first()
        };
        Ok([
            store(FactKind::Claim, Signed::sign(&claim, &self.key)?.to_json()),
            store(FactKind::Exit, Signed::sign(&exit, &self.key)?.to_json()),
        ])
    }
}

/// Stores messages, many on their way at once, until all are acknowledged.
async fn store_all(link: &Link, messages: Vec<Store>) -> Result<Duration> {
    let since = Instant::now();
    let mut waiting: VecDeque<PendingStore> = VecDeque::with_capacity(WINDOW);
    for message in messages {
        if waiting.len() == WINDOW
            && let Some(first) = waiting.pop_front()
        {
            first.stored_within(PATIENCE).await?;
        }
        waiting.push_back(link.store_pipelined(message).await?);
    }
    for pending in waiting {
        pending.stored_within(PATIENCE).await?;
    }
    Ok(since.elapsed())
}

fn per_thousand(cpu_ms: u64, facts: f64) -> f64 {
    super::float64(cpu_ms) * 1e3 / facts
}

/// What no reader can do without: one signature a fact.
fn verification(authors: &[Author], report: &mut Report) -> Result<()> {
    let author = authors.first().context("no machine")?;
    let id = CommandId::new(uuid::Uuid::now_v7())?;
    let [claim, _] = author.facts(id)?;
    let key: &PublicKey = author.key.public();
    let mut rate = Samples::of(Unit::PerSecond);
    for _ in 0..10 {
        let since = Instant::now();
        for _ in 0..SIGNATURES / 10 {
            Signed::<Claim>::from_json(&claim.payload)?.open(|by| by == key)?;
        }
        rate.add(float(SIGNATURES / 10) / since.elapsed().as_secs_f64());
    }
    report.add(Row::new("floor: facts whose signature is verified, on one processor", &rate));
    Ok(())
}

/// Further bridges with nothing, on the same broker.
async fn rebuild(scope: Scope, place: &Place, link: &Link, facts: usize, report: &mut Report) -> Result<()> {
    let [mut floor, mut took, mut cpu] = [Unit::Ms; 3].map(Samples::of);
    let mut rate = Samples::of(Unit::PerSecond);
    let [mut bytes, mut peak] = [Unit::Bytes, Unit::Kib].map(Samples::of);
    for round in 0..if scope.quick { 1 } else { REBUILDS } {
        floor.took(read(link, facts).await?);
        let dir = tempfile::tempdir()?;
        let since = Instant::now();
        let bridge = Daemon::spawn(&mut place.stack.bridge_command(dir.path())?)?;
        let ready: serde_json::Value = serde_json::from_str(&bridge.first_line(PATIENCE).await?)?;
        let url =
            ready.get("http").and_then(serde_json::Value::as_str).context("the bridge names no HTTP")?;
        let http = Http::new(url, &place.stack.ready().admin_token);
        eventually_within("a view", PATIENCE, || async {
            let health = http.get("/health").await?.json()?;
            ensure!(health.get("caught_up").is_some_and(|is| is == true), "round {round}: {health}");
            Ok(())
        })
        .await?;
        let elapsed = since.elapsed();
        took.took(elapsed);
        rate.add(float(facts) / elapsed.as_secs_f64());
        cpu.add(per_thousand(cpu_ms(bridge.pid())?, float(facts)));
        peak.add(super::float64(peak_kib(bridge.pid())?));
        bridge.terminate()?;
        bridge.wait(PATIENCE).await?;
        bytes.add(super::float64(size_of(dir.path())? * 2) / float(facts));
    }
    report.add(Row::new(READ, &floor));
    let row = Row::new(&format!("a view rebuilt from {facts} facts"), &took).over(READ);
    // The budget is for a million; fewer are given less.
    let limit = 40_000.0 * float(facts) / 1e6;
    report.add(row.within(Budget::most(limit, "40 s for a million")));
    report.add(Row::new("— facts a second", &rate));
    report.add(Row::new(CPU, &cpu));
    report.add(Row::new("— the bridge's highest RSS", &peak));
    report.add(Row::new("— sled, a run", &bytes));
    Ok(())
}

async fn read(link: &Link, facts: usize) -> Result<Duration> {
    let since = Instant::now();
    let mut follow = link.follow(RUN, 0, None);
    let mut seen = 0;
    while seen < facts {
        seen += follow.next_batch(512).await?.len();
    }
    Ok(since.elapsed())
}

/// Bytes of all files in a folder.
fn size_of(dir: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() { size_of(&entry.path())? } else { metadata.len() };
    }
    Ok(bytes)
}
