//! Ten times the machines that the console is made for.

use std::time::Instant;

use anyhow::Result;
use signalbox_testkit::pty::Pty;

use super::{
    BOUND, BUSY_FLOOR, FILTERS, KEYS, SETTLE, filter, look_at_keys, opened, standing::Standing, watched,
};
use crate::{
    figures::{Scope, float64},
    probe::memory_kib,
    report::{Budget, Report, Row, Samples, Unit},
};

const MACHINES: usize = 100_000;

pub(in crate::figures) async fn measure(scope: Scope, report: &mut Report) -> Result<()> {
    let machines = if scope.quick { MACHINES / 10 } else { MACHINES };
    let fleet = Standing::start(machines, true).await?;
    let measured = looked_at(scope, &fleet, report).await;
    fleet.end().await.and(measured)
}

async fn looked_at(scope: Scope, fleet: &Standing, report: &mut Report) -> Result<()> {
    let machines = fleet.machines;
    let mut console = opened(&fleet.cli()?).await?;
    let since = Instant::now();
    console.wait_for(&format!("{machines} machines  "), BOUND).await?;
    let all = Row::one(
        "console: from the first machines to all of them",
        Unit::Ms,
        since.elapsed().as_secs_f64() * 1e3,
    );
    report.add(all);
    tokio::time::sleep(scope.time(SETTLE)).await;
    let what = format!("{machines} machines on one connection");
    watched(scope, &console, what, report).await?;
    keys(scope, &mut console, report).await?;
    let (rss, pss) = memory_kib(console.pid())?;
    report.add(Row::one("\u{2014} the console's RSS after that", Unit::Kib, float64(rss)));
    report.add(Row::one("\u{2014} PSS", Unit::Kib, float64(pss)));
    Ok(())
}

async fn keys(scope: Scope, console: &mut Pty, report: &mut Report) -> Result<()> {
    let steps = super::keys(scope, console, report).await?;
    let (mut sorted, mut letters) = (Samples::ms(), Samples::ms());
    console.type_keys("C")?;
    console.wait_for("sort: cpu", BOUND).await?;
    for _ in 0..scope.of(KEYS) {
        look_at_keys(console, "keys: machines", &mut sorted).await?;
    }
    for _ in 0..scope.of(FILTERS) {
        filter(console, &mut letters).await?;
        console.type_keys("\x1b")?;
        console.wait_until("no filter", BOUND, |screen| !screen.contains(super::FILTER)).await?;
    }
    let within = |row: Row| row.within(Budget::most(50.0, "50 ms").p99());
    report.add(within(Row::new("console: from a key to the frame that shows it", &steps).over(BUSY_FLOOR)));
    for (what, took) in
        [("\u{2014} while they sort themselves by CPU", &sorted), ("\u{2014} a letter of a filter", &letters)]
    {
        report.add(within(Row::new(what, took)));
    }
    Ok(())
}
