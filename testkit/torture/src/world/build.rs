//! Building a world: folders, network, broker, bridges, machines, in this order.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use signalbox_testkit::broker::free_port;
use signalbox_testkit::clock::Clock;

use super::World;
use super::broker::{self, Listens};
use super::disk::Disk;
use super::host::Host;
use super::machine::{Launch, Machine};
use super::member::Member;
use super::net::Net;
use super::place::Abilities;
use super::process::Process;
use super::wanted::Wanted;
use crate::fault::Part;
use crate::plan::Plan;

/// Disks, MiB: of a server of the broker, of a bridge or a machine, and of what nothing happens to.
const BROKER_MIB: u32 = 512;
const PART_MIB: u32 = 64;
const WORLD_MIB: u32 = 1_024;

/// Runs at once of a machine: four, as is usual, and those that write all the time, which meet where a line was cut for long.
const SLOTS: u8 = 7;

/// Where this process is, as the operator.
const OPERATOR: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// The first of each kind.
const BROKERS: u8 = 10;
const BRIDGES: u8 = 20;
const FRESH: u8 = 30;
const MACHINES: u8 = 40;
/// What listens on hosts of their own.
const CLIENTS_PORT: u16 = 4_222;
const ROUTES_PORT: u16 = 6_222;
const MONITOR_PORT: u16 = 8_222;
const HTTP_PORT: u16 = 8_080;

/// Builds it; its parts are on their way.
///
/// # Errors
/// When a program is missing or the system refuses.
pub(super) async fn world(plan: &Plan, programs: &Path) -> Result<World> {
    let abilities = Abilities::here();
    let root =
        tempfile::Builder::new().prefix("torture-").tempdir().context("making a folder for the world")?;
    let disk = Disk::new(root.path(), Path::new(""), WORLD_MIB, abilities.namespaces)?;
    let state_dir = root.path().join("state");
    let machines: Vec<String> = (0..plan.machines).map(|number| format!("m{number}")).collect();
    init(&programs.join("signalbox-bridge"), &state_dir, &machines)?;
    give_slots(&state_dir, &machines)?;
    let admin_token = fs::read_to_string(state_dir.join("admin.token")).context("reading the token")?;
    for folder in ["logs", "marks", "clocks", "kept", "disks", "programs", "twins", "servers"] {
        fs::create_dir(root.path().join(folder)).with_context(|| format!("making the folder {folder}"))?;
    }
    let net = abilities.namespaces.then(|| Net::new(plan.seed));
    let mut world = World {
        members: Vec::new(),
        fresh: Vec::new(),
        net,
        abilities,
        active: Vec::new(),
        missed: Vec::new(),
        servers: Vec::new(),
        bridges: Vec::new(),
        marks: machines.iter().map(|machine| root.path().join("marks").join(machine)).collect(),
        machines,
        admin_token: admin_token.trim().to_owned(),
        state_dir,
        programs: programs.to_owned(),
        replicas: if plan.brokers >= 3 { 3 } else { 1 },
        _disk: disk,
        root,
    };
    if let Some(net) = &mut world.net {
        net.join(OPERATOR, None, Duration::ZERO)?;
    }
    add_brokers(&mut world, plan.brokers)?;
    for server in &world.servers {
        broker::healthy(server).await?;
    }
    for number in 0..plan.bridges {
        let (member, http) =
            bridge(&mut world, Part::Bridge(number), BRIDGES + number, &format!("bridge-{number}"))?;
        world.members.push(member);
        world.bridges.push(http);
    }
    for number in 0..plan.machines {
        let distance_ms = plan.distances_ms.get(usize::from(number)).copied().unwrap_or(0);
        let member = machine(&mut world, number, Duration::from_millis(distance_ms.into()))?;
        world.members.push(member);
    }
    Ok(world)
}

/// A bridge that is none of the plan's.
///
/// # Errors
/// When the system refuses.
pub(super) fn fresh_bridge(world: &mut World, number: u8) -> Result<(Member, String)> {
    ensure!(number < MACHINES - FRESH, "there are {number} fresh bridges already");
    bridge(world, Part::Bridge(u8::MAX - number), FRESH + number, &format!("fresh-{number}"))
}

fn init(program: &Path, state_dir: &Path, machines: &[String]) -> Result<()> {
    let mut command = Command::new(program);
    command.arg("init").arg("--state-dir").arg(state_dir).args(["--machines", &machines.join(",")]);
    let ended = command.output().with_context(|| format!("starting {}", program.display()))?;
    ensure!(ended.status.success(), "init: {}", String::from_utf8_lossy(&ended.stderr));
    Ok(())
}

/// Relays read it when they start: the other commands have as many slots as they would have if nothing wrote all the time.
fn give_slots(state_dir: &Path, machines: &[String]) -> Result<()> {
    for machine in machines {
        let file = state_dir.join("machines").join(machine).join("relay.toml");
        let doing = || format!("setting max_parallel in {}", file.display());
        let text = fs::read_to_string(&file).with_context(doing)?;
        let is_said = |line: &&str| line.starts_with("max_parallel");
        let said = text
            .lines()
            .find(is_said)
            .with_context(|| format!("{} does not say max_parallel", file.display()))?;
        fs::write(&file, text.replacen(said, &format!("max_parallel = {SLOTS}"), 1)).with_context(doing)?;
    }
    Ok(())
}

fn host(world: &mut World, number: u8, name: &str, distance: Duration) -> Result<Arc<Host>> {
    let Some(net) = &mut world.net else { return Ok(Arc::new(Host::here())) };
    let host = Host::namespace(name, Ipv4Addr::new(10, 77, 0, number))?;
    net.join(host.address(), host.name(), distance)?;
    Ok(Arc::new(host))
}

/// A port that is free there: the usual one on a host of its own.
fn port(world: &World, usual: u16) -> Result<u16> {
    if world.net.is_some() { Ok(usual) } else { free_port() }
}

fn disk(world: &World, name: &str, mib: u32) -> Result<Disk> {
    let root = world.root.path();
    Disk::new(&root.join("disks").join(name), &root.join("kept").join(name), mib, world.abilities.namespaces)
}

fn clock(world: &World, name: &str) -> Result<Option<Arc<Clock>>> {
    let file = world.root.path().join("clocks").join(name);
    world.abilities.faketime.as_ref().map(|library| Clock::new(&file, library).map(Arc::new)).transpose()
}

fn add_brokers(world: &mut World, count: u8) -> Result<()> {
    let mut hosts = Vec::new();
    for number in 0..count {
        let host = host(world, BROKERS + number, &format!("broker-{number}"), Duration::ZERO)?;
        let at = |port| SocketAddr::from((host.address(), port));
        world.servers.push(Listens {
            clients: at(port(world, CLIENTS_PORT)?),
            routes: at(port(world, ROUTES_PORT)?),
            monitor: at(port(world, MONITOR_PORT)?),
        });
        hosts.push(host);
    }
    for (number, host) in (0..count).zip(hosts) {
        let name = format!("broker-{number}");
        let disk = disk(world, &name, BROKER_MIB)?;
        let home = world.root.path().join("servers").join(&name);
        let (program, arguments) =
            broker::furnish(&home, &world.state_dir, &disk.store(), number, &world.servers)?;
        let place = Arc::clone(&host);
        let start = move || {
            let mut command = place.command(&program);
            command.args(&arguments).current_dir(&home);
            Ok(command)
        };
        let process = Process::run(&name, &world.logs(), Box::new(start))?;
        let (part, is) = (Part::Broker(number), Wanted::default());
        world.members.push(Member { part, process, machine: None, disk, clock: None, host, is });
    }
    Ok(())
}

fn bridge(world: &mut World, part: Part, number: u8, name: &str) -> Result<(Member, String)> {
    let host = host(world, number, name, Duration::ZERO)?;
    let (disk, clock) = (disk(world, name, PART_MIB)?, clock(world, name)?);
    let listen = SocketAddr::from((host.address(), port(world, HTTP_PORT)?));
    let program = world.programs.join("signalbox-bridge");
    let arguments = [
        ("--http", listen.to_string()),
        ("--nats", world.nats()),
        ("--replicas", world.replicas.to_string()),
    ];
    let (state_dir, data) = (world.state_dir.clone(), disk.store());
    let (place, time) = (Arc::clone(&host), clock.clone());
    let start = move || {
        let mut command = place.command(&program);
        command.arg("serve").arg("--state-dir").arg(&state_dir).arg("--data").arg(&data);
        for (flag, value) in &arguments {
            command.arg(flag).arg(value);
        }
        if let Some(time) = &time {
            command.envs(time.environment());
        }
        Ok(command)
    };
    let process = Process::run(name, &world.logs(), Box::new(start))?;
    let member = Member { part, process, machine: None, disk, clock, host, is: Wanted::default() };
    Ok((member, format!("http://{listen}")))
}

fn machine(world: &mut World, number: u8, distance: Duration) -> Result<Member> {
    let name = format!("m{number}");
    let host = host(world, MACHINES + number, &name, distance)?;
    let (disk, clock) = (disk(world, &name, PART_MIB)?, clock(world, &name)?);
    let root = world.root.path();
    let folder = root.join("programs").join(&name);
    fs::create_dir(&folder).with_context(|| format!("making {}", folder.display()))?;
    let launch = Launch {
        program: folder.join("signalbox-relay"),
        host: Arc::clone(&host),
        clock: clock.clone(),
        creds: world.state_dir.join("machines").join(&name).join("relay.creds"),
        nats: world.nats(),
        marks: world.marks(number).to_owned(),
    };
    let original = world.programs.join("signalbox-relay");
    let (store, twin) = (disk.store(), root.join("twins").join(&name));
    let machine = Machine::new(launch.clone(), &original, store.clone(), twin, world.logs())?;
    let start = Box::new(move || Ok(launch.relay(&store)));
    let process = Process::run(&format!("relay-{number}"), &world.logs(), start)?;
    let (part, is) = (Part::Relay(number), Wanted::default());
    Ok(Member { part, process, machine: Some(machine), disk, clock, host, is })
}
