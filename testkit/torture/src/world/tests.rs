//! One world, every harm once.

use anyhow::Result;
use signalbox_testkit::{lacking, process::bin};

use super::*;
use crate::fault::Weather;
use crate::plan::Plan;
use crate::world::place::enter_test;

/// How long each harm lasts.
const HARM: Duration = Duration::from_secs(1);

const PLAN: Plan = Plan {
    seed: 1,
    brokers: 3,
    bridges: 2,
    machines: 2,
    length_ms: 0,
    harms: Vec::new(),
    wishes: Vec::new(),
    chatter: Vec::new(),
    distances_ms: Vec::new(),
};

/// Runs a command and answers its output. What a bridge cannot tell yet is asked again; what it has accepted is submitted
/// once.
async fn output_of(world: &World, bridge: u8, machine: u8, command: &str) -> Result<String> {
    let http = Http::new(&world.bridge_http(bridge).context("no bridge")?, world.admin_token());
    let machine = world.machine(machine);
    let key = uuid::Uuid::now_v7().to_string();
    let body = serde_json::to_vec(&serde_json::json!({"on": machine, "command": command}))?;
    let headers = [("content-type", "application/json"), ("idempotency-key", key.as_str())];
    let settled = eventually_within(command, Duration::from_mins(1), || async {
        let accepted = http.request("POST", "/api/v1/commands", &headers, body.clone()).await?.json()?;
        let id = accepted["id"].as_str().with_context(|| format!("not accepted: {accepted}"))?.to_owned();
        let settled = http.settled(&id).await?;
        Ok((http.output(&id, machine, "stdout").await?, settled))
    });
    let (output, settled) = settled.await?;
    ensure!(settled["counts"] == serde_json::json!({"completed": 1}), "{command}: {settled}");
    Ok(String::from_utf8(output)?)
}

/// Runs a command on every machine by each bridge, and looks at what it did.
async fn all_work(world: &World, mark: &str) -> Result<()> {
    for (machine, bridge) in world.each() {
        let (line, marks) = (format!("{mark} by {bridge}"), world.marks(machine));
        let command = format!("echo '{line}' >> {}; echo done", marks.display());
        ensure!(output_of(world, bridge, machine, &command).await? == "done\n", "{line}: other output");
        let said = std::fs::read_to_string(marks)?;
        ensure!(said.lines().filter(|said| *said == line).count() == 1, "{line} stands not once in {said}");
    }
    Ok(())
}

impl World {
    /// Every machine with every bridge.
    fn each(&self) -> Vec<(u8, u8)> {
        let bridges = u8::try_from(self.bridges.len()).unwrap();
        let machines = u8::try_from(self.machines.len()).unwrap();
        (0..machines).flat_map(|machine| (0..bridges).map(move |bridge| (machine, bridge))).collect()
    }
}

fn harms() -> Vec<Fault> {
    use Part::{Bridge, Broker, Keeper, Relay};
    let weather = Weather { delay_ms: 20, jitter_ms: 15, lost: 20, doubled: 20 };
    vec![
        Fault::Kill(Broker(0)),
        Fault::Kill(Bridge(0)),
        Fault::Kill(Relay(0)),
        Fault::Kill(Keeper(1)),
        Fault::Halt(Broker(1)),
        Fault::Halt(Bridge(1)),
        Fault::Halt(Relay(1)),
        Fault::Halt(Keeper(0)),
        Fault::Cut(Broker(2)),
        Fault::Cut(Bridge(0)),
        Fault::Cut(Relay(0)),
        Fault::Weather(Broker(0), weather),
        Fault::Weather(Bridge(1), weather),
        Fault::Weather(Relay(1), weather),
        Fault::Fill(Broker(1)),
        Fault::Fill(Bridge(0)),
        Fault::Fill(Relay(0)),
        Fault::Jump(Bridge(0), 3_600),
        Fault::Jump(Bridge(1), -3_600),
        Fault::Jump(Relay(0), 3_600),
        Fault::Jump(Keeper(1), -3_600),
        Fault::Forget(Bridge(0)),
        Fault::Forget(Relay(0)),
        Fault::Rollback(Bridge(1)),
        Fault::Rollback(Relay(1)),
        Fault::Twin(0),
        Fault::Upgrade(1),
    ]
}

/// How long a host takes to refuse a connection to a port on which nobody listens; none for one that is cut off.
async fn refuses(address: std::net::Ipv4Addr) -> Option<Duration> {
    let began = std::time::Instant::now();
    let connecting = tokio::net::TcpStream::connect((address, 9));
    let refused = tokio::time::timeout(Duration::from_millis(500), connecting).await.ok()?;
    assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    Some(began.elapsed())
}

fn now_s() -> i64 {
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
    i64::try_from(now.as_secs()).unwrap()
}

/// By how much a part's clock is off, as it says itself: a bridge in what it makes, a machine in its log and its runs.
async fn offset(world: &World, part: Part) -> Result<i64> {
    if let Part::Bridge(number) = part {
        let http = Http::new(&world.bridge_http(number).context("no bridge")?, world.admin_token());
        let id = http.submit(world.machine(0), "true").await?;
        let command = http.json(&format!("/api/v1/commands/{id}")).await?;
        let made = command["created_at"].as_i64().context("no time")?;
        return Ok(made / 1_000 - now_s());
    }
    let (Part::Relay(number) | Part::Keeper(number)) = part else { bail!("{part:?} has no clock") };
    let run = output_of(world, 0, number, "date +%s").await?.trim().parse::<i64>()? - now_s();
    let relay = world.members.iter().find(|member| member.part == Part::Relay(number));
    let words = relay.context("no relay")?.process.last_words();
    let last = words.lines().last().and_then(|line| line.split_whitespace().next()).context("no log")?;
    let said = std::process::Command::new("date").args(["-d", last, "+%s"]).output()?;
    let said = String::from_utf8(said.stdout)?.trim().parse::<i64>()? - now_s();
    ensure!((run - said).abs() <= 3, "its runs are off by {run} s, its relay by {said} s");
    Ok(run)
}

/// What a harm must have done, seen from outside.
async fn shows(world: &mut World, fault: &Fault) -> Result<()> {
    match *fault {
        Fault::Kill(Part::Keeper(_)) | Fault::Upgrade(_) | Fault::SlowReader => {}
        Fault::Kill(part) | Fault::Forget(part) | Fault::Rollback(part) => {
            let member = world.member(part)?;
            ensure!(member.process.pid().is_none(), "it runs");
            let is_there = member.disk.store().exists();
            ensure!(is_there != matches!(fault, Fault::Forget(_)), "its store is there: {is_there}");
        }
        Fault::Halt(part) => {
            let member = world.member(part.with_relay())?;
            let pids = match part {
                Part::Keeper(_) => member.machine()?.keepers(),
                _ => member.process.pid().into_iter().collect(),
            };
            ensure!(!pids.is_empty(), "nobody is there");
            signalbox_testkit::eventually("the halt", || async {
                ensure!(pids.iter().all(|pid| signalbox_testkit::process::stands_still(*pid)), "{pids:?}");
                Ok(())
            })
            .await?;
        }
        Fault::Cut(part) => {
            let address = world.member(part)?.host.address();
            ensure!(refuses(address).await.is_none(), "it is reached");
        }
        Fault::Weather(part, _) => {
            let address = world.member(part)?.host.address();
            // Lost ones show as a longer time.
            let took = refuses(address).await.unwrap_or(Duration::MAX);
            ensure!(took >= Duration::from_millis(10), "there and back in {took:?}");
        }
        Fault::Fill(part) => {
            let disk = &world.member(part.with_relay())?.disk;
            let [filler, probe] = ["filler", "probe"].map(|name| disk.store().with_file_name(name));
            let (taken, left) = (std::fs::metadata(filler)?.len(), disk.left()?);
            ensure!(left < taken / 16, "{left} bytes are left beside {taken} that were taken");
            signalbox_testkit::eventually("the disk is full", || async {
                if std::fs::write(&probe, "x").is_ok() {
                    // Somebody has deleted something since.
                    std::fs::remove_file(&probe)?;
                    disk.fill()?;
                    bail!("there is room");
                }
                Ok(())
            })
            .await?;
        }
        Fault::Jump(part, wanted) => {
            let world = &*world;
            eventually_within("the jump is noticed", Duration::from_secs(20), || async {
                let is = offset(world, part).await?;
                ensure!((is - i64::from(wanted)).abs() <= 5, "its clock is off by {is} s");
                Ok(())
            })
            .await?;
        }
        Fault::Twin(number) => {
            let machine = world.member(Part::Relay(number))?.machine()?;
            ensure!(machine.has_twin(), "there is one relay");
        }
    }
    Ok(())
}

/// Does each harm for a moment, looks at it, heals it, and has every machine do some work.
async fn every_harm_once(plan: &Plan) -> Result<()> {
    let programs = bin("signalbox-bridge")?.parent().context("no folder")?.to_owned();
    let mut world = World::start(plan, &programs).await?;
    all_work(&world, "before").await?;
    for fault in harms() {
        if !world.can(&fault) {
            if world.abilities.namespaces {
                lacking::not_installed(&format!("what {fault:?} takes"))?;
            }
            continue;
        }
        let began = std::time::Instant::now();
        let here = || format!("{fault:?}");
        let before = world.who(&fault)?;
        world.harm(&fault).await?;
        shows(&mut world, &fault).await.with_context(here)?;
        // Not a wait for something: the harm lasts so long.
        tokio::time::sleep(HARM.saturating_sub(began.elapsed())).await;
        world.heal(&fault).await?;
        world.heal_all().await.with_context(|| format!("after {fault:?}; ends: {:#?}", world.ends()))?;
        let healed = began.elapsed();
        all_work(&world, &format!("{fault:?}"))
            .await
            .with_context(|| format!("after {fault:?}; ends: {:#?}", world.ends()))?;
        let after = world.who(&fault)?;
        match fault {
            Fault::Kill(Part::Keeper(_)) => ensure!(before.1 != after.1, "the same keeper: {after:?}"),
            Fault::Upgrade(_) => {
                ensure!(before.0 != after.0 && before.1 == after.1, "before {before:?}, after {after:?}");
                let keeper = std::fs::read_link(format!("/proc/{}/exe", after.1[0]))?;
                ensure!(
                    keeper.to_string_lossy().ends_with(" (deleted)"),
                    "the keeper runs from {}",
                    keeper.display()
                );
            }
            _ => {}
        }
        eprintln!("{fault:?}: healed after {healed:?}, worked after {:?}", began.elapsed());
    }
    let fresh = world.fresh_bridge().await?;
    let [old, new] =
        [world.bridge_http(0).context("no bridge")?, fresh].map(|url| Http::new(&url, world.admin_token()));
    let (old, new) = (old.json("/api/v1/commands").await?, new.json("/api/v1/commands").await?);
    ensure!(old["items"].as_array().is_some_and(|items| !items.is_empty()) && old == new, "{old} and {new}");
    if plan.brokers == 3 {
        let login = signalbox_link::Login::from_creds_file(&world.state_dir().join("creds/ctrl.creds"))?;
        let options = signalbox_link::Options::bridge(&world.nats(), login);
        let run = signalbox_link::Link::connect(options).await?.stream_state("RUN").await?;
        ensure!(run.replicas == 3, "{run:?}");
    }
    ensure!(world.missed().is_empty(), "these met nobody: {:?}", world.missed());
    eprintln!("lacking: {:?}; dropped packets: {}", world.abilities.lacking(), world.dropped_packets());
    for end in world.ends() {
        eprintln!("ended by itself: {end}");
    }
    Ok(())
}

impl World {
    /// Relay and keepers of the machine that a fault is about.
    fn who(&mut self, fault: &Fault) -> Result<(Option<u32>, Vec<u32>)> {
        let Some(Part::Relay(number) | Part::Keeper(number)) = fault.part() else {
            return Ok((None, vec![]));
        };
        let member = self.member(Part::Relay(number))?;
        Ok((member.process.pid(), member.machine()?.keepers()))
    }
}

#[test]
fn heavy_a_world_survives_every_harm_once() -> Result<()> {
    if !enter_test("world::tests::heavy_a_world_survives_every_harm_once") {
        return Ok(());
    }
    tokio::runtime::Runtime::new()?.block_on(every_harm_once(&PLAN))
}

/// As without root: nobody has a host of his own.
#[test]
fn heavy_a_world_without_namespaces_survives_what_can_be_done_there() -> Result<()> {
    let plan = Plan { brokers: 1, bridges: 1, ..PLAN };
    tokio::runtime::Runtime::new()?.block_on(every_harm_once(&plan))
}
