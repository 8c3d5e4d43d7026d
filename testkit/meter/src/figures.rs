//! A few figures of the whole path, with their floors in the same run. Reports; asserts nothing about time.
//!
//! `cargo bench -p signalbox-testkit --bench figures` after `cargo build --release`; one table on stdout.
#![expect(clippy::print_stdout, reason = "its output is the report")]

mod operator;
mod probe;
mod simulated;

use std::{
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use signalbox_link::{Link, Login, Options as LinkOptions, Store};
use signalbox_testkit::{
    process::{Daemon, bin},
    stack::{Options, Stack},
};

use operator::Operator;
use probe::{Samples, cpu_ms, memory_kib, peak_kib};

/// Rounds of the interleaved latencies.
const ROUNDS: usize = 300;
/// Simulated relays, each with a connection of its own.
const RELAYS: usize = 1000;
/// How long idleness is watched.
const IDLE: Duration = Duration::from_secs(30);

fn main() -> Result<()> {
    // `cargo bench` passes `--bench`; `cargo test` would run this as a test without it.
    if !std::env::args().any(|argument| argument == "--bench") {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(report())
}

async fn report() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let state = dir.path().join("state");
    let names: Vec<String> = (1..=RELAYS).map(|n| format!("sim-{n:04}")).collect();
    init(&state, &names).await?;
    let stack = Stack::start(Options::relays(1).state_dir(&state)).await?;
    let mut operator = Operator::connect(&stack).await?;
    let mut fleet = simulated::Fleet::default();
    let (first, others) = names.split_at(1);
    fleet.connect(&stack, first).await?;
    println!("| what | n | p50 | p90 | p99 |\n|---|---|---|---|---|");
    latencies(&stack, &mut operator).await?;
    fleet.connect(&stack, others).await?;
    fan_out(&stack, &mut operator).await?;
    fleet.stop().await;
    idle(&stack).await?;
    output(&stack, &mut operator).await
}

async fn init(state: &Path, names: &[String]) -> Result<()> {
    let mut command = Command::new(bin("signalbox-bridge")?);
    command.arg("init").arg("--state-dir").arg(state).arg("--machines").arg(names.join(","));
    let init = Daemon::spawn(&mut command)?;
    let status = init.wait(Duration::from_mins(2)).await?;
    ensure!(status.success(), "init ended with {status}: {}", init.stderr()?);
    Ok(())
}

/// Floors and chains, interleaved, so that drift of the machine hits all of them.
async fn latencies(stack: &Stack, operator: &mut Operator) -> Result<()> {
    let login = Login::from_creds_file(&stack.ready().ctrl_creds)?;
    let link = Link::connect(LinkOptions::plain(&stack.ready().nats, "figures", Some(login))).await?;
    let mut pings = link.subscribe("figures.ping").await?;
    let mut round_trip = Samples::new("floor: NATS, through the broker and back");
    let mut ack = Samples::new("floor: JetStream acknowledgement");
    let mut spawn = Samples::new("floor: spawn and reap /bin/true");
    let mut shell = Samples::new("floor: spawn and reap sh -c /bin/true");
    let mut bare = Samples::new("chain without a process: submit to exit visible");
    let mut real = Samples::new("chain with sh -c /bin/true: submit to exit visible");
    let mut preview = Samples::new("the same, from the preview on");
    let mut http = Samples::new("HTTP submit, acknowledged and readable");
    for _ in 0..ROUNDS {
        let since = Instant::now();
        link.publish("figures.ping", None, "x".into()).await?;
        pings.next().await.context("no round trip")?;
        round_trip.add(since.elapsed());
        let since = Instant::now();
        link.store(Store::new("evt.main.figures", "x")).await?;
        ack.add(since.elapsed());
        spawn.add(spawned(Command::new("/bin/true"))?);
        let mut command = Command::new("sh");
        command.args(["-c", "/bin/true"]);
        shell.add(spawned(command)?);
        bare.add(operator.run("sim-0001", "/bin/true").await?.from_submit);
        let took = operator.run("demo-1", "/bin/true").await?;
        real.add(took.from_submit);
        preview.add(took.from_preview);
        let since = Instant::now();
        let id = stack.http().submit("sim-0001", "/bin/true").await?;
        stack.http().json(&format!("/api/v1/commands/{id}")).await?;
        http.add(since.elapsed());
    }
    for samples in [round_trip, ack, spawn, shell, bare, real, preview, http] {
        samples.print();
    }
    Ok(())
}

fn spawned(mut command: Command) -> Result<Duration> {
    let since = Instant::now();
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    Ok(since.elapsed())
}

/// One command to all simulated relays.
async fn fan_out(stack: &Stack, operator: &mut Operator) -> Result<()> {
    let mut samples = Samples::new("1,000 simulated relays, one command: preview to all exits visible");
    let pids = [("broker", stack.pid("broker")?), ("bridge", stack.pid("bridge")?)];
    let before = pids.map(|(_, pid)| cpu_ms(pid).unwrap_or(0));
    let rounds = 7;
    for _ in 0..rounds {
        let took = operator.run("sim-*", "/bin/true").await?;
        samples.add(took.from_preview);
    }
    samples.print();
    for ((name, pid), before) in pids.into_iter().zip(before) {
        let cpu = (cpu_ms(pid)? - before) / rounds;
        println!("| its CPU in the {name}, per command | {rounds} | {cpu} ms | | |");
        println!("| {name} then: RSS | 1 | {} KiB | | |", memory_kib(pid)?.0);
    }
    Ok(())
}

/// What a relay and its keeper cost when nothing happens.
async fn idle(stack: &Stack) -> Result<()> {
    let machine = stack.machine(0)?;
    let pids = [("relay", machine.pid), ("keeper", machine.keeper_pid)];
    let before = pids.map(|(_, pid)| cpu_ms(pid).unwrap_or(0));
    tokio::time::sleep(IDLE).await;
    for ((name, pid), before) in pids.into_iter().zip(before) {
        let cpu = cpu_ms(pid)? - before;
        let (rss, pss) = memory_kib(pid)?;
        println!(
            "| idle {name}: RSS, PSS, CPU in {} s | 1 | {rss} KiB | {pss} KiB | {cpu} ms |",
            IDLE.as_secs()
        );
    }
    Ok(())
}

/// 100 MiB from a relay to an operator's feed.
async fn output(stack: &Stack, operator: &mut Operator) -> Result<()> {
    let mut samples = Samples::new("100 MiB of output, submit to last byte and exit in a feed");
    let mut floor = Samples::new("floor: head -c 100M /dev/zero through a pipe");
    for _ in 0..5 {
        let mut command = Command::new("sh");
        command.args(["-c", "head -c 104857600 /dev/zero | cat"]);
        floor.add(spawned(command)?);
        let took = operator.run("demo-1", "head -c 104857600 /dev/zero").await?;
        ensure!(took.output_bytes == 104_857_600, "{} bytes", took.output_bytes);
        samples.add(took.from_submit);
    }
    floor.print();
    samples.print();
    let machine = stack.machine(0)?;
    for (name, pid) in [("relay", machine.pid), ("keeper", machine.keeper_pid)] {
        println!("| {name} after it: peak RSS | 1 | {} KiB | | |", peak_kib(pid)?);
    }
    Ok(())
}
