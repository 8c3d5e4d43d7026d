//! One torture: a world, its operators, its harms; then healing and looking.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use signalbox_schemas::id::MachineToken;
use signalbox_testkit::operator::now_ms;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::{
    fault::Fault,
    observe::{Healed, Observer, Places, booted_at},
    observed::{Done, Observed},
    plan::Plan,
    workload::{Doors, Workload},
    world::{World, place::is_on_path},
};

/// Does what the plan says, and observes what is left. The logs of all parts are copied to `into`.
///
/// # Errors
/// When the chamber itself fails: a part cannot be started, hurt, healed or looked at.
pub(crate) async fn torture(plan: &Plan, programs: &Path, into: &Path) -> Result<Observed> {
    ensure!(
        plan.chatter.is_empty() || is_on_path("perl"),
        "there is no perl, by which runs write all the time (Debian: perl-base)"
    );
    let mut world = World::start(plan, programs).await.context("building a world")?;
    let done = inside(&mut world, plan).await;
    let ends = world.ends();
    for end in &ends {
        eprintln!("{end}");
    }
    eprintln!("{} packets found no room in the network", world.dropped_packets());
    copy(&world.logs(), &into.join("logs"))?;
    Ok(Observed { ends, missed: world.missed().to_vec(), ..done? })
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("making {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("reading {}", from.display()))? {
        let (path, target) = entry.map(|entry| (entry.path(), to.join(entry.file_name())))?;
        if path.is_file() {
            fs::copy(&path, target).with_context(|| format!("copying {}", path.display()))?;
        }
    }
    Ok(())
}

async fn inside(world: &mut World, plan: &Plan) -> Result<Observed> {
    let (plan, skipped) = plan.without(|fault| *fault != Fault::SlowReader && !world.can(fault));
    let places = places(world, &plan)?;
    let booted_at = booted_at()?;
    let since = Instant::now();
    let mut operators = Workload::start(&plan, &places.doors, since).await?;
    let done = inflict(world, &plan, &mut operators, since).await?;
    world.heal_all().await.context("healing everything")?;
    let at = now_ms()?;
    let said = operators.finish().await.context("asking for commands")?;
    let observer = Observer::connect(places).await?;
    observer.until_settled(at).await.context("waiting until all is settled")?;
    let fresh = world.fresh_bridge().await.context("starting a bridge that has nothing")?;
    let looked = observer.look(&plan, said, Healed { booted_at, skipped, at }, &fresh).await;
    Ok(Observed { done: Some(done), ..looked.context("looking at what is left")? })
}

fn places(world: &World, plan: &Plan) -> Result<Places> {
    let machines = (0..plan.machines).map(|n| MachineToken::new(world.machine(n)));
    let marks = (0..plan.machines).map(|n| world.marks(n).to_owned());
    let doors = Doors {
        nats: world.nats(),
        state_dir: world.state_dir().to_owned(),
        bridges: (0..plan.bridges).filter_map(|n| world.bridge_http(n)).collect(),
        token: world.admin_token().to_owned(),
        machines: machines.collect::<Result<_, _>>()?,
    };
    Ok(Places { doors, marks: marks.collect::<Vec<PathBuf>>() })
}

/// Begins and heals each harm at its time. Answers those that met somebody, by their beginning.
async fn inflict(
    world: &mut World,
    plan: &Plan,
    operators: &mut Workload,
    since: Instant,
) -> Result<Vec<Done>> {
    // By time; what is healed at one moment goes before what begins then.
    let begins = plan.harms.iter().enumerate().map(|(n, harm)| (harm.at_ms, true, n));
    let heals = plan.harms.iter().enumerate().map(|(n, harm)| (harm.at_ms + harm.for_ms, false, n));
    let mut events: BinaryHeap<Reverse<(u64, bool, usize)>> = begins.chain(heals).map(Reverse).collect();
    let mut reading: Option<CancellationToken> = None;
    let (mut began, mut done) = (BTreeMap::new(), Vec::new());
    while let Some(Reverse((at_ms, begins, n))) = events.pop() {
        let Some(harm) = plan.harms.get(n) else { continue };
        sleep_until(since + Duration::from_millis(at_ms)).await;
        match (&harm.fault, begins) {
            (Fault::SlowReader, true) => {
                let over = CancellationToken::new();
                operators.read_slowly(over.clone());
                reading = Some(over);
            }
            (Fault::SlowReader, false) => drop(reading.take().map(CancellationToken::drop_guard)),
            (fault, true) => {
                let from = now_ms()?;
                let met =
                    world.harm(fault).await.with_context(|| format!("beginning harm {n}, {fault:?}"))?;
                began.extend(met.then_some((n, from)));
            }
            (fault, false) => {
                world.heal(fault).await.with_context(|| format!("healing harm {n}, {fault:?}"))?;
                let (fault, until) = (fault.clone(), now_ms()?);
                done.extend(began.remove(&n).map(|from| Done { fault, from, until }));
            }
        }
    }
    sleep_until(since + Duration::from_millis(plan.length_ms)).await;
    done.sort_by_key(|done| done.from);
    Ok(done)
}
