//! One command on many machines: real relays with processes, and simulated ones with a connection each.

use std::time::Duration;

use anyhow::Result;
use futures_util::future::try_join_all;
use signalbox_testkit::{operator::Operator, pty::Pty};

use super::{Scope, float, float64, peer_row, shell};
use crate::{
    fleet::{Fleet, Nature},
    machine::raise_descriptors,
    peers::Sshd,
    place::{Place, simulated},
    probe::{cpu_ms, memory_kib},
    report::{Budget, Report, Row, Samples, Unit},
};

const REAL: usize = 100;
const REAL_ROUNDS: usize = 30;
const ROUNDS: usize = 7;
const THOUSAND: usize = 1_000;
const FLOOR: &str = "floor: 100 times `sh -c /bin/true`, side by side";
const PEER: &str = "peer: asyncssh, `/bin/true` on 100 warm connections";
/// Descriptors that a process needs beside those of simulated relays.
const SPARE: usize = 256;

pub(super) async fn measure(scope: Scope, report: &mut Report) -> Result<()> {
    real(scope, report).await?;
    let wanted = if scope.quick { THOUSAND } else { 10 * THOUSAND };
    let relays = wanted.min(raise_descriptors()?.saturating_sub(SPARE));
    if relays < wanted {
        report.set("descriptors", format!("too few for {wanted} relays: {relays} instead"));
    }
    report.set("simulated relays", relays.to_string());
    simulated_relays(scope, relays, report).await
}

/// A hundred relay processes, each with its keeper.
async fn real(scope: Scope, report: &mut Report) -> Result<()> {
    let names: Vec<String> = (0..REAL).map(|n| format!("real-{n:03}")).collect();
    let place = Place::start(&names, 0).await?;
    let mut relays = Vec::new();
    for name in &names {
        relays.push(place.relay(name).await?);
    }
    let operator = place.operator().await?;
    let sshd = Sshd::start().await;
    let warm = match &sshd {
        Ok(sshd) => sshd.asyncssh(REAL).await,
        Err(error) => Err(anyhow::anyhow!("{error:#}")),
    };
    let (mut warm, why_not) = match warm {
        Ok(warm) => (Some(warm), None),
        Err(error) => (None, Some(error)),
    };
    let (mut floor, mut submit, mut preview, mut peer) =
        (Samples::ms(), Samples::ms(), Samples::ms(), Samples::ms());
    // The first sees everybody for the first time.
    operator.run("real-*", "/bin/true").await?;
    for _ in 0..scope.of(REAL_ROUNDS) {
        floor.took(spawned(REAL).await?);
        let took = operator.run("real-*", "/bin/true").await?;
        submit.took(took.from_submit);
        preview.took(took.from_preview);
        if let Some(warm) = &mut warm {
            peer.took(warm.run(REAL).await?);
        }
    }
    report.add(Row::new(FLOOR, &floor));
    report.add(peer_row(PEER, &peer, why_not.as_ref()));
    let row = Row::new("100 real relays, `/bin/true`: submit to all exits visible", &submit).over(FLOOR);
    report.add(row.within(Budget::most(200.0, "0.2 s")));
    report.add(Row::new("the same, from the preview on", &preview).over(PEER));
    Ok(())
}

/// So many children at once, until all have ended.
async fn spawned(count: usize) -> Result<Duration> {
    let since = std::time::Instant::now();
    let each = (0..count).map(|_| async {
        let mut command = tokio::process::Command::from(shell("/bin/true"));
        command.stdin(std::process::Stdio::null()).status().await
    });
    try_join_all(each).await?;
    Ok(since.elapsed())
}

async fn simulated_relays(scope: Scope, relays: usize, report: &mut Report) -> Result<()> {
    let names = simulated(relays);
    let place = Place::start(&names, 0).await?;
    let operator = place.operator().await?;
    let mut fleet = Fleet::default();
    fleet.connect(place.stack.ready(), &names, Nature::SILENT).await?;
    let console = Pty::spawn(&place.stack.cli(&[])?, 120, 40)?;
    console.wait_for("machines", Duration::from_mins(1)).await?;
    let [bridge, broker] = place.servers()?;
    let parts = [bridge, broker, ("console", console.pid()), ("the simulated relays", std::process::id())];
    // Twice before it counts: the first sees everybody for the first time.
    operator.run("sim-0-*", "/bin/true").await?;
    let tenth = relays.div_ceil(10);
    let some = Series::run(scope, &operator, "sim-0-*", &parts).await?;
    some.tell(report, &format!("one command on {tenth} simulated relays"), tenth, None);
    let all = Series::run(scope, &operator, "sim-*", &parts).await?;
    let what = format!("one command on {relays} simulated relays");
    // The budget is for 10,000; fewer are given less.
    let limit = 4_000.0 * float(relays) / 10_000.0;
    all.tell(report, &what, relays, Some(limit));
    for (name, pid) in parts {
        let (rss, _) = memory_kib(pid)?;
        report.add(Row::one(&format!("{name} after it: RSS"), Unit::Kib, float64(rss)));
    }
    fleet.is_well()?;
    fleet.stop().await;
    Ok(())
}

/// Rounds of the same command.
struct Series<'a> {
    took: Samples,
    from_submit: Samples,
    cpu: Vec<(&'a str, Samples)>,
    together: Samples,
}

impl<'a> Series<'a> {
    async fn run(scope: Scope, operator: &Operator, on: &str, parts: &[(&'a str, u32)]) -> Result<Self> {
        let mut series = Self {
            took: Samples::ms(),
            from_submit: Samples::ms(),
            cpu: parts.iter().map(|(name, _)| (*name, Samples::ms())).collect(),
            together: Samples::ms(),
        };
        for _ in 0..scope.of(ROUNDS) {
            let before = cpu_of(parts)?;
            let took = operator.run(on, "/bin/true").await?;
            series.took.took(took.from_preview);
            series.from_submit.took(took.from_submit);
            let mut together = 0.0;
            for (((name, samples), before), now) in series.cpu.iter_mut().zip(before).zip(cpu_of(parts)?) {
                let used = float64(now.saturating_sub(before));
                samples.add(used);
                together += if *name == "the simulated relays" { 0.0 } else { used };
            }
            series.together.add(together);
        }
        Ok(series)
    }

    /// `budget`: of the time, and of the processors' time, ms.
    fn tell(self, report: &mut Report, what: &str, runs: usize, limit: Option<f64>) {
        let mut row = Row::new(&format!("{what}: preview to all exits visible"), &self.took);
        let mut cpu =
            Row::new(&format!("{what}: CPU of bridge, broker and console together"), &self.together);
        if let Some(limit) = limit {
            row = row.within(Budget::most(limit, "4 s for 10,000"));
            cpu = cpu.within(Budget::most(limit, "4 CPU-seconds for 10,000"));
        }
        report.add(row);
        report.add(Row::new("— from the submit on", &self.from_submit));
        if let Some(ms) = self.took.at(500) {
            report.add(Row::one("— runs a second", Unit::PerSecond, float(runs) / ms * 1e3));
        }
        report.add(cpu);
        for (name, samples) in &self.cpu {
            report.add(Row::new(&format!("— CPU of {name}"), samples));
        }
    }
}

fn cpu_of(parts: &[(&str, u32)]) -> Result<Vec<u64>> {
    parts.iter().map(|(_, pid)| cpu_ms(*pid)).collect()
}
