//! The console in a real terminal, with a large fleet that gives its signs of life: what somebody waits who looks at it.
//!
//! | room | holds |
//! |---|---|
//! | this one | 10,000 machines: starts, keys, a filter, a command on a tenth of them |
//! | `folding` | outputs that come in by the thousand |
//! | `large` | an output of 128 MiB |
//! | `many` | 100,000 machines, a figure of its own |
//! | `standing` | the fleet beside it, in a terminal of its own |

mod folding;
mod large;
pub(super) mod many;
mod standing;

use std::{
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use signalbox_testkit::pty::Pty;

use self::standing::Standing;
use super::{Scope, float64};
use crate::{
    place::Place,
    probe::{cpu_ms, memory_kib},
    report::{Budget, Report, Row, Samples, Unit},
};

const RELAYS: usize = 10_000;
const STARTS: usize = 20;
const KEYS: usize = 300;
const BOUND: Duration = Duration::from_mins(1);
/// Until every machine has been heard.
const SETTLE: Duration = Duration::from_secs(25);
const WATCH: Duration = Duration::from_secs(30);
/// Between two keys, so that a key meets a frame at any time.
const PAUSE: Duration = Duration::from_millis(37);
/// How often a filter is written, and what: the slash opens it, the rest means an eighth of the machines.
const FILTERS: usize = 20;
const FILTER: &str = "/build-";
/// Commands on an eighth of the machines, and how long each is looked at from its start.
const FANOUTS: usize = 5;
const BESIDE: Duration = Duration::from_secs(3);
const FLOOR: &str = "floor: from a key to what `cat` gives back";
const BUSY_FLOOR: &str = "floor: the same of a program that computes for 2 ms first";
/// What stands before the chosen line.
const CHOSEN: char = '▌';

pub(super) async fn measure(scope: Scope, report: &mut Report) -> Result<()> {
    nothing_to_see(scope, report).await?;
    ten_thousand(scope, report).await?;
    folding::measure(scope, report).await?;
    large::measure(scope, report).await
}

async fn ten_thousand(scope: Scope, report: &mut Report) -> Result<()> {
    let wanted = if scope.quick { RELAYS / 10 } else { RELAYS };
    let fleet = Standing::start(wanted, false).await?;
    report.set("simulated relays", fleet.machines.to_string());
    report.set("terminal", "120 × 40");
    let measured = looked_at(scope, &fleet, report).await;
    fleet.end().await.and(measured)
}

async fn looked_at(scope: Scope, fleet: &Standing, report: &mut Report) -> Result<()> {
    tokio::time::sleep(scope.time(SETTLE)).await;
    starts(scope, &fleet.cli()?, report).await?;
    let mut console = opened(&fleet.cli()?).await?;
    tokio::time::sleep(scope.time(SETTLE)).await;
    watched(scope, &console, format!("{} machines that are heard", fleet.machines), report).await?;
    let took = keys(scope, &mut console, report).await?;
    report.add(in_time("console: from a key to the frame that shows it", &took).over(BUSY_FLOOR));
    worked_with(scope, &mut console, report).await?;
    let (rss, pss) = memory_kib(console.pid())?;
    let rss = Row::one("the console's RSS after that", Unit::Kib, float64(rss));
    report.add(rss.within(Budget::most(100.0 * 1_024.0, "100 MiB")));
    report.add(Row::one("— PSS", Unit::Kib, float64(pss)));
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
async fn starts(scope: Scope, cli: &Command, report: &mut Report) -> Result<()> {
    let (mut first, mut machines) = (Samples::ms(), Samples::ms());
    for _ in 0..scope.of(STARTS) {
        let since = Instant::now();
        let console = Pty::spawn(cli, 120, 40)?;
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

/// Down and up, until the mark has moved; between two of these two programs that only give back what they read, in terminals
/// beside it: one at once, and one that computes for as long as the console about does. Those two are reported; answers with what
/// the console took.
async fn keys(scope: Scope, console: &mut Pty, report: &mut Report) -> Result<Samples> {
    let mut echo = giving_back("printf ready && exec cat").await?;
    let this = std::env::current_exe().context("finding this program")?;
    let mut toil = giving_back(&format!("exec '{}' toil", this.display())).await?;
    let (mut floor, mut busy, mut took) = (Samples::ms(), Samples::ms(), Samples::ms());
    for n in 0..scope.of(KEYS) {
        tokio::time::sleep(PAUSE).await;
        took.took(step(console, n).await?);
        for (program, samples) in [(&mut echo, &mut floor), (&mut toil, &mut busy)] {
            tokio::time::sleep(PAUSE).await;
            let letter = if n % 2 == 0 { "x" } else { "y" };
            let key = format!("\r{letter}");
            samples.took(pressed(program, &key, |screen| screen.starts_with(letter)).await?);
        }
    }
    ensure!(took.len() > 0, "no key was typed");
    report.add(Row::new(FLOOR, &floor));
    report.add(Row::new(BUSY_FLOOR, &busy));
    Ok(took)
}

/// A program that says `ready`, and gives back what is typed.
async fn giving_back(program: &str) -> Result<Pty> {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("stty raw -echo && {program}")]);
    let terminal = Pty::spawn(&command, 120, 40)?;
    terminal.wait_for("ready", BOUND).await?;
    Ok(terminal)
}

/// The same while much else happens: rows sort themselves, a filter is written, a command comes to an end on an eighth of the machines.
async fn worked_with(scope: Scope, console: &mut Pty, report: &mut Report) -> Result<()> {
    console.type_keys("C")?;
    console.wait_for("sort: cpu", BOUND).await?;
    let mut sorted = Samples::ms();
    for _ in 0..scope.of(KEYS) {
        look_at_keys(console, "keys: machines", &mut sorted).await?;
    }
    report.add(in_time("— while machines sort themselves by CPU", &sorted));
    let mut letters = Samples::ms();
    for _ in 0..scope.of(FILTERS) {
        filter(console, &mut letters).await?;
        console.type_keys("\x1b")?;
        console.wait_until("no filter", BOUND, |screen| !screen.contains(FILTER)).await?;
    }
    report.add(in_time("— a letter of a filter", &letters));
    let mut beside = Samples::ms();
    for n in 0..scope.of(FANOUTS) {
        fanout(console, n, &mut beside).await?;
    }
    report.add(in_time("— while runs on an eighth of the machines come in", &beside));
    Ok(())
}

/// Down or up.
async fn step(console: &mut Pty, n: usize) -> Result<Duration> {
    let before = chosen(&console.screen()).context("nothing is chosen")?;
    let since = Instant::now();
    console.type_keys(if n % 20 < 10 { "j" } else { "k" })?;
    console
        .wait_until("another line", BOUND, |screen| chosen(screen).is_some_and(|now| now != before))
        .await?;
    Ok(since.elapsed())
}

/// Opens the help and leaves it. Rows move among themselves, so that where the chosen one is would say nothing.
async fn look_at_keys(console: &mut Pty, title: &str, took: &mut Samples) -> Result<()> {
    tokio::time::sleep(PAUSE).await;
    took.took(pressed(console, "?", |screen| screen.contains(title)).await?);
    tokio::time::sleep(PAUSE).await;
    took.took(pressed(console, "\x1b", |screen| !screen.contains(title)).await?);
    Ok(())
}

/// A key, until the screen is as it makes it.
async fn pressed(console: &mut Pty, key: &str, is_shown: impl Fn(&str) -> bool) -> Result<Duration> {
    let since = Instant::now();
    console.type_keys(key)?;
    console.wait_until("what a key shows", BOUND, is_shown).await?;
    Ok(since.elapsed())
}

/// Writes a filter, letter by letter.
async fn filter(console: &mut Pty, letters: &mut Samples) -> Result<()> {
    console.type_keys("/")?;
    console.wait_until("a line to write on", BOUND, |screen| last_line(screen).starts_with(" /")).await?;
    for (at, letter) in FILTER.char_indices().skip(1) {
        tokio::time::sleep(PAUSE).await;
        let written = FILTER.get(..at + letter.len_utf8()).unwrap_or_default();
        let is_shown = |screen: &str| last_line(screen).trim_start().split(' ').next() == Some(written);
        letters.took(pressed(console, &letter.to_string(), is_shown).await?);
    }
    Ok(())
}

/// Runs something on an eighth of the machines, and looks at the keys again and again while runs end.
async fn fanout(console: &mut Pty, n: usize, beside: &mut Samples) -> Result<()> {
    let mut unmeasured = Samples::ms();
    filter(console, &mut unmeasured).await?;
    console.type_keys("\ra")?;
    console.wait_for("marked", BOUND).await?;
    run(console, &format!("true {n}")).await?;
    console
        .wait_until("the command", BOUND, |screen| screen.contains("▸ true ") && chosen(screen).is_some())
        .await?;
    let since = Instant::now();
    while since.elapsed() < BESIDE {
        look_at_keys(console, "keys: one command", beside).await?;
    }
    // Out of the command, of the filter, of the marks.
    console.type_keys("\x1b")?;
    console.wait_until("the machines", BOUND, |screen| screen.contains("sort: cpu")).await?;
    console.type_keys("\x1b")?;
    console.wait_until("no filter", BOUND, |screen| !screen.contains(FILTER)).await?;
    console.type_keys("\x1b")?;
    console.wait_until("no marks", BOUND, |screen| !screen.contains("marked")).await?;
    Ok(())
}

/// Runs a command on the marks; on as many as they are, their number is typed.
async fn run(console: &mut Pty, command: &str) -> Result<()> {
    console.type_keys(format!("x{command}\r"))?;
    let screen = console.wait_for("confirm  type ", BOUND).await?;
    let (_, rest) = screen.split_once("confirm  type ").context("no number is asked for")?;
    let number = rest.split(':').next().unwrap_or_default();
    console.type_keys(number)?;
    console.wait_for(&format!("{number}: {number}"), BOUND).await?;
    console.type_keys("\r")
}

/// Waits until a console shows machines.
async fn opened(cli: &Command) -> Result<Pty> {
    let console = Pty::spawn(cli, 120, 40)?;
    console.wait_until("a chosen machine", BOUND, |screen| chosen(screen).is_some()).await?;
    Ok(console)
}

/// A row that is to be met within the time of a frame.
fn in_time(what: &str, took: &Samples) -> Row {
    Row::new(what, took).within(Budget::most(16.0, "16 ms").p99())
}

fn last_line(screen: &str) -> &str {
    screen.lines().last().unwrap_or_default()
}

/// The line that is chosen, from the top.
fn chosen(screen: &str) -> Option<usize> {
    screen.lines().position(|line| line.starts_with(CHOSEN))
}
