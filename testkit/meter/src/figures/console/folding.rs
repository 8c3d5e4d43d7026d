//! Outputs that come in by the thousand, and are folded as they do: beside a feed of the same command that nobody folds.

use std::time::Instant;

use anyhow::{Result, ensure};

use super::{BOUND, opened, run};
use crate::{
    figures::{Scope, float, float64},
    fleet::{
        Fleet, Nature,
        temper::{Story, Temper, telling},
    },
    place::{Place, simulated},
    probe::{cpu_ms, memory_kib},
    report::{Report, Row, Samples, Unit},
};

const RELAYS: usize = 2_000;
const ROUNDS: usize = 7;
const FLOOR: &str = "floor: the outputs of 2,000 machines, 10 KB each, in a feed, from the submit on";

pub(super) async fn measure(scope: Scope, report: &mut Report) -> Result<()> {
    let machines = scope.of(RELAYS);
    let names = simulated(machines);
    let usual = (0..machines).filter(|n| telling(*n) == Temper::Telling(Story::Usual)).count();
    let place = Place::start(&names, 0).await?;
    let mut fleet = Fleet::default();
    fleet.connect(place.stack.ready(), &names, Nature::TELLING).await?;
    let operator = place.operator().await?;
    let mut console = opened(&place.stack.cli(&[])?).await?;
    console.wait_for(&format!("{machines} machines"), BOUND).await?;
    let (mut floor, mut folded, mut cpu) = (Samples::ms(), Samples::ms(), Samples::ms());
    // The first sees everybody for the first time.
    operator.run("all", "cat").await?;
    for n in 0..scope.of(ROUNDS) {
        let took = operator.run("all", "cat").await?;
        ensure!(took.output_bytes > 10_000 * u64::try_from(machines)?, "{} bytes", took.output_bytes);
        floor.took(took.from_submit);
        console.type_keys("a")?;
        console.wait_for("marked", BOUND).await?;
        let (since, before) = (Instant::now(), cpu_ms(console.pid())?);
        run(&mut console, &format!("cat {n}")).await?;
        let all = format!("{machines}/{machines}");
        let group = format!("\u{25b8}{usual:>4} exit 0");
        let is_folded = |screen: &str| screen.contains(&all) && screen.contains(&group);
        console.wait_until("all of them folded", BOUND, is_folded).await?;
        folded.took(since.elapsed());
        cpu.took(std::time::Duration::from_millis(cpu_ms(console.pid())?.saturating_sub(before)));
        console.type_keys("\x1b")?;
        console.wait_until("the machines", BOUND, |screen| screen.contains("sort: ")).await?;
        console.type_keys("\x1b")?;
        console.wait_until("no marks", BOUND, |screen| !screen.contains("marked")).await?;
    }
    report.set("machines whose outputs are folded", machines.to_string());
    report.add(Row::new(FLOOR, &floor));
    let what = "console: the same, from the key that runs it until all of them are folded on the screen";
    report.add(Row::new(what, &folded).over(FLOOR));
    report.add(Row::new("\u{2014} CPU of the console", &cpu));
    let (rss, _) = memory_kib(console.pid())?;
    report.add(Row::one("\u{2014} RSS after all of them", Unit::Kib, float64(rss)));
    let each = float64(rss) / float(machines);
    report.add(Row::one("\u{2014} RSS for each machine", Unit::Kib, each));
    fleet.is_well()?;
    fleet.stop().await;
    Ok(())
}
