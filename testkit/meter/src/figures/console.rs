//! The console in a real terminal, with a large fleet that gives its signs of life: what somebody waits who looks at it.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use signalbox_testkit::pty::Pty;

use super::{Scope, float64};
use crate::{
    fleet::{Fleet, Nature},
    machine::raise_descriptors,
    place::{Place, simulated},
    probe::{cpu_ms, memory_kib},
    report::{Budget, Report, Row, Samples, Unit},
};

const RELAYS: usize = 10_000;
const SPARE: usize = 256;
const STARTS: usize = 20;
const KEYS: usize = 300;
const BOUND: Duration = Duration::from_mins(1);
/// Until every machine has been heard.
const SETTLE: Duration = Duration::from_secs(25);
const WATCH: Duration = Duration::from_secs(30);
/// Between two keys, so that a key meets a frame at any time.
const PAUSE: Duration = Duration::from_millis(37);
/// What stands before the chosen line.
const CHOSEN: char = '▌';

pub(super) async fn measure(scope: Scope, report: &mut Report) -> Result<()> {
    nothing_to_see(scope, report).await?;
    let wanted = if scope.quick { RELAYS / 10 } else { RELAYS };
    let relays = wanted.min(raise_descriptors()?.saturating_sub(SPARE));
    if relays < wanted {
        report.set("descriptors", format!("too few for {wanted} relays: {relays} instead"));
    }
    report.set("simulated relays", relays.to_string());
    report.set("terminal", "120 × 40");
    let names = simulated(relays);
    let place = Place::start(&names, 0).await?;
    let mut fleet = Fleet::default();
    fleet.connect(place.stack.ready(), &names, Nature::BEATING).await?;
    tokio::time::sleep(scope.time(SETTLE)).await;
    starts(scope, &place, report).await?;
    let mut console = Pty::spawn(&place.stack.cli(&[])?, 120, 40)?;
    console.wait_until("a chosen machine", BOUND, |screen| chosen(screen).is_some()).await?;
    tokio::time::sleep(scope.time(SETTLE)).await;
    watched(scope, &console, "10,000 machines that are heard".replace("10,000", &relays.to_string()), report)
        .await?;
    keys(scope, &mut console, report).await?;
    let (rss, pss) = memory_kib(console.pid())?;
    report.add(Row::one("the console's RSS after that", Unit::Kib, float64(rss)));
    report.add(Row::one("— PSS", Unit::Kib, float64(pss)));
    fleet.is_well()?;
    fleet.stop().await;
    Ok(())
}

/// A console without a single machine: only the clock moves.
async fn nothing_to_see(scope: Scope, report: &mut Report) -> Result<()> {
    let place = Place::start(&[], 0).await?;
    let console = Pty::spawn(&place.stack.cli(&[])?, 120, 40)?;
    console.wait_for("bridge ●", BOUND).await?;
    tokio::time::sleep(scope.time(SETTLE)).await;
    watched(scope, &console, "no machine, the clock moves".to_owned(), report).await
}

/// What is drawn, and what it costs, while nobody types.
async fn watched(scope: Scope, console: &Pty, what: String, report: &mut Report) -> Result<()> {
    let watch = scope.time(WATCH);
    let (bytes, cpu) = (console.written(), cpu_ms(console.pid())?);
    let (mut frames, mut last) = (0_u32, bytes);
    let until = Instant::now() + watch;
    // Closer together than two frames: a look that finds more written has found a frame.
    while Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(4)).await;
        let now = console.written();
        frames += u32::from(now != last);
        last = now;
    }
    let seconds = watch.as_secs_f64();
    let used = float64(cpu_ms(console.pid())?.saturating_sub(cpu)) / seconds / 10.0;
    report.add(Row::one(&format!("{what}: frames"), Unit::PerSecond, f64::from(frames) / seconds));
    report.add(Row::one("— drawn", Unit::BytesPerSecond, float64(last - bytes) / seconds));
    report.add(Row::one("— CPU of the console", Unit::Percent, used));
    Ok(())
}

/// From the start of the program to its first frame, and from there to the machines.
async fn starts(scope: Scope, place: &Place, report: &mut Report) -> Result<()> {
    let (mut first, mut machines) = (Samples::ms(), Samples::ms());
    for _ in 0..scope.of(STARTS) {
        let since = Instant::now();
        let console = Pty::spawn(&place.stack.cli(&[])?, 120, 40)?;
        console.wait_for("signalbox", BOUND).await?;
        let painted = since.elapsed();
        console.wait_until("machines", BOUND, |screen| chosen(screen).is_some()).await?;
        first.took(painted);
        machines.took(since.elapsed().saturating_sub(painted));
    }
    report.add(Row::new("console: from its start to the first frame", &first));
    let row = Row::new("console: from its first frame to the machines: connected, read, painted", &machines);
    report.add(row.within(Budget::most(150.0, "150 ms")));
    Ok(())
}

/// Down and up, until the mark has moved.
async fn keys(scope: Scope, console: &mut Pty, report: &mut Report) -> Result<()> {
    let mut took = Samples::ms();
    for n in 0..scope.of(KEYS) {
        tokio::time::sleep(PAUSE).await;
        let before = chosen(&console.screen()).context("nothing is chosen")?;
        let since = Instant::now();
        console.type_keys(if n % 20 < 10 { "j" } else { "k" })?;
        console
            .wait_until("another machine", BOUND, |screen| chosen(screen).is_some_and(|now| now != before))
            .await?;
        took.took(since.elapsed());
    }
    ensure!(took.len() > 0, "no key was typed");
    let row = Row::new("console: from a key to the frame that shows it", &took);
    report.add(row.within(Budget::most(16.0, "16 ms").p99()));
    Ok(())
}

/// The line that is chosen, from the top.
fn chosen(screen: &str) -> Option<usize> {
    screen.lines().position(|line| line.starts_with(CHOSEN))
}
