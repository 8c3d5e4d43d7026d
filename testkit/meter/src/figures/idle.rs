//! What everything costs when nobody asks for anything: with 3 real relays, and with 10,000 simulated ones that give their
//! signs of life.

use std::time::Duration;

use anyhow::Result;

use super::{Scope, float64};
use crate::{
    fleet::{Fleet, Nature},
    machine::raise_descriptors,
    place::{Place, simulated},
    probe::{cpu_ms, memory_kib, tcp_bytes},
    report::{Budget, Report, Row, Unit},
};

/// How long idleness is watched.
const WATCH: Duration = Duration::from_mins(2);
/// Until what happens at a start has happened: all heartbeats have come once and more.
const SETTLE: Duration = Duration::from_secs(25);
const MANY: usize = 10_000;
const SPARE: usize = 256;

pub(super) async fn measure(scope: Scope, report: &mut Report) -> Result<()> {
    let watch = scope.time(WATCH);
    report.set("watched for", format!("{} s", watch.as_secs()));
    few(watch, scope, report).await?;
    let wanted = if scope.quick { MANY / 10 } else { MANY };
    let relays = wanted.min(raise_descriptors()?.saturating_sub(SPARE));
    if relays < wanted {
        report.set("descriptors", format!("too few for {wanted} relays: {relays} instead"));
    }
    many(relays, watch, scope, report).await
}

async fn few(watch: Duration, scope: Scope, report: &mut Report) -> Result<()> {
    let place = Place::start(&[], 3).await?;
    let mut parts: Vec<Part> = Vec::new();
    for n in 0..3 {
        let machine = place.stack.machine(n)?;
        parts.push(Part::new(format!("relay {}", n + 1), machine.pid));
        parts.push(Part::new(format!("keeper {}", n + 1), machine.keeper_pid));
    }
    parts.extend(place.servers()?.map(|(name, pid)| Part::new(name.to_owned(), pid)));
    tokio::time::sleep(scope.time(SETTLE)).await;
    let seen = watched(&parts, watch).await?;
    for (part, seen) in parts.iter().zip(&seen) {
        seen.tell(&format!("3 machines: {}", part.name), report);
    }
    for (n, pair) in seen.chunks_exact(2).take(3).enumerate() {
        let sum = |of: fn(&Seen) -> f64| pair.iter().map(of).sum::<f64>();
        let what = format!("relay {0} and keeper {0} together", n + 1);
        let row = Row::one(&format!("{what}: RSS"), Unit::Kib, sum(|seen| seen.rss));
        report.add(row.within(Budget::most(12e6 / 1024.0, "12 MB")));
        report.add(Row::one(&format!("{what}: PSS"), Unit::Kib, sum(|seen| seen.pss)));
        let row = Row::one(&format!("{what}: CPU"), Unit::Percent, sum(|seen| seen.cpu));
        report.add(row.within(Budget::most(0.1, "0.1 % of a core")));
    }
    Ok(())
}

async fn many(relays: usize, watch: Duration, scope: Scope, report: &mut Report) -> Result<()> {
    let names = simulated(relays);
    let place = Place::start(&names, 0).await?;
    let mut fleet = Fleet::default();
    fleet.connect(place.stack.ready(), &names, Nature::BEATING).await?;
    tokio::time::sleep(scope.time(SETTLE)).await;
    let mut parts: Vec<Part> = Vec::new();
    parts.extend(place.servers()?.map(|(name, pid)| Part::new(name.to_owned(), pid)));
    parts.push(Part::new("the simulated relays".to_owned(), std::process::id()));
    for (part, seen) in parts.iter().zip(watched(&parts, watch).await?) {
        seen.tell(&format!("{relays} machines: {}", part.name), report);
    }
    fleet.is_well()?;
    fleet.stop().await;
    Ok(())
}

struct Part {
    name: String,
    pid: u32,
}

impl Part {
    fn new(name: String, pid: u32) -> Self {
        Self { name, pid }
    }
}

/// What a process has cost.
struct Seen {
    rss: f64,
    pss: f64,
    /// Percent of a processor.
    cpu: f64,
    /// Over TCP, both ways.
    bytes_per_second: Option<f64>,
}

async fn watched(parts: &[Part], time: Duration) -> Result<Vec<Seen>> {
    let now = || -> Result<Vec<(u64, Option<u64>)>> {
        parts.iter().map(|part| Ok((cpu_ms(part.pid)?, tcp_bytes(part.pid)?))).collect()
    };
    let before = now()?;
    tokio::time::sleep(time).await;
    let after = now()?;
    let seconds = time.as_secs_f64();
    let mut seen = Vec::new();
    for (part, ((cpu, bytes), (cpu_then, bytes_then))) in parts.iter().zip(after.into_iter().zip(before)) {
        let (rss, pss) = memory_kib(part.pid)?;
        // A connection that ended takes its count with it.
        let carried = bytes.zip(bytes_then).map(|(now, then)| float64(now.saturating_sub(then)));
        seen.push(Seen {
            rss: float64(rss),
            pss: float64(pss),
            cpu: float64(cpu.saturating_sub(cpu_then)) / seconds / 10.0,
            bytes_per_second: carried.map(|bytes| bytes / seconds),
        });
    }
    Ok(seen)
}

impl Seen {
    fn tell(&self, what: &str, report: &mut Report) {
        report.add(Row::one(&format!("{what}: RSS"), Unit::Kib, self.rss));
        report.add(Row::one(&format!("{what}: PSS"), Unit::Kib, self.pss));
        report.add(Row::one(&format!("{what}: CPU"), Unit::Percent, self.cpu));
        let name = format!("{what}: over TCP, both ways");
        report.add(match self.bytes_per_second {
            Some(rate) => Row::one(&name, Unit::BytesPerSecond, rate),
            None => Row::absent(&name, "not installed: ss"),
        });
    }
}
