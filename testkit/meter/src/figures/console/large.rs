//! An output of 128 MiB: how long until it is seen, and what a key takes in it.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use signalbox_testkit::pty::Pty;

use super::{BOUND, KEYS, PAUSE, in_time, opened};
use crate::{
    figures::{Scope, float64},
    place::Place,
    probe::memory_kib,
    report::{Report, Row, Samples, Unit},
};

/// Lines of 64 bytes: 128 MiB of them.
const LINES: u32 = 2 * 1024 * 1024;
const OPENINGS: usize = 10;
/// What stands on the page of the command in place of its output.
const ABSENT: &str = "128 MiB, read when this output is opened";

pub(super) async fn measure(scope: Scope, report: &mut Report) -> Result<()> {
    let place = Place::start(&[], 1).await?;
    let operator = place.operator().await?;
    let took = operator.run("demo-1", &format!("seq -f '%063.0f' {LINES}")).await?;
    ensure!(took.output_bytes == u64::from(LINES) * 64, "{} bytes", took.output_bytes);
    let (mut pages, mut firsts, mut again) = (Samples::ms(), Samples::ms(), Samples::ms());
    for _ in 1..scope.of(OPENINGS) {
        let mut console = opened(&place.stack.cli(&[])?).await?;
        pages.took(look(&mut console).await?);
        firsts.took(open(&mut console).await?);
    }
    let mut console = opened(&place.stack.cli(&[])?).await?;
    pages.took(look(&mut console).await?);
    firsts.took(open(&mut console).await?);
    for _ in 0..scope.of(OPENINGS) {
        console.type_keys("\x1b")?;
        let is_left = |screen: &str| screen.contains(ABSENT) && !has(screen, LINES);
        console.wait_until("the command", BOUND, is_left).await?;
        again.took(open(&mut console).await?);
    }
    report
        .add(Row::new("console: a command whose output has 128 MiB, from the list until it is seen", &pages));
    report.add(Row::new("\u{2014} its output, from the key until its end is seen", &firsts));
    report.add(Row::new("\u{2014} once more", &again));
    keys(scope, &mut console, report).await?;
    let (rss, _) = memory_kib(console.pid())?;
    report.add(Row::one("\u{2014} RSS after that", Unit::Kib, float64(rss)));
    Ok(())
}

/// Goes to the command, which this console has not seen.
async fn look(console: &mut Pty) -> Result<Duration> {
    console.type_keys("c")?;
    console.wait_for("seq -f", BOUND).await?;
    let since = Instant::now();
    console.type_keys("\r")?;
    console.wait_for(ABSENT, BOUND).await?;
    Ok(since.elapsed())
}

/// Goes from the command to the end of its output, of which nothing is on the screen.
async fn open(console: &mut Pty) -> Result<Duration> {
    ensure!(!has(&console.screen(), LINES), "the end is on the screen already");
    let since = Instant::now();
    console.type_keys("o")?;
    console.wait_until("the end of the output", BOUND, |screen| has(screen, LINES)).await?;
    Ok(since.elapsed())
}

/// Rows and pages upwards, and from one end to the other.
async fn keys(scope: Scope, console: &mut Pty, report: &mut Report) -> Result<()> {
    let (mut pages, mut ends) = (Samples::ms(), Samples::ms());
    for _ in 0..scope.of(KEYS) {
        tokio::time::sleep(PAUSE).await;
        let before = top(&console.screen()).context("no line of the output")?;
        let since = Instant::now();
        console.type_keys("\x1b[5~")?;
        let is_further = |screen: &str| top(screen).is_some_and(|now| now < before);
        console.wait_until("a page further up", BOUND, is_further).await?;
        pages.took(since.elapsed());
    }
    for n in 0..scope.of(KEYS / 10) {
        tokio::time::sleep(PAUSE).await;
        let (key, line) = if n % 2 == 0 { ("g", 1) } else { ("G", LINES) };
        let since = Instant::now();
        console.type_keys(key)?;
        console.wait_until("the other end", BOUND, |screen| has(screen, line)).await?;
        ends.took(since.elapsed());
    }
    report.add(in_time("\u{2014} a page further up", &pages));
    report.add(Row::new("\u{2014} to its other end, which is read anew", &ends));
    Ok(())
}

fn has(screen: &str, line: u32) -> bool {
    screen.contains(&format!("{line:063}"))
}

/// The number of the first line of output that is seen.
fn top(screen: &str) -> Option<u32> {
    screen.lines().skip(2).find_map(|line| {
        let number = line.split_whitespace().find(|word| word.len() == 63)?;
        number.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_found_on_the_screen() {
        let screen = format!("header\nrule\n\u{258c} {:063}\n  {:063}\n", 7, 8);
        assert_eq!(top(&screen), Some(7));
        assert!(has(&screen, 8) && !has(&screen, 9));
        assert_eq!(top("header\nrule\n"), None);
    }
}
