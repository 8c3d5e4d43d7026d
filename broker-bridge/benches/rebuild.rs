//! Facts projected per second from streams that are there already: a rebuild. Reports; asserts nothing.
//!
//! `cargo bench -p signalbox-bridge --bench rebuild`
#![expect(clippy::print_stdout, reason = "its output is the report")]

#[expect(dead_code, reason = "the tests of the core use the rest of it")]
#[path = "../tests/core/world.rs"]
mod world;

use std::time::Instant;

use anyhow::Result;
use signalbox_schemas::id::MachineToken;
use world::World;

/// Machines, commands for each of them, and the facts that come of each run: its claim and its exit.
const MACHINES: usize = 20;
const COMMANDS: usize = 1000;
const FACTS: usize = MACHINES * COMMANDS * 2;
/// Commands live for an hour: none expires while this runs.
const LIFE_MS: u64 = 3_600_000;

fn main() -> Result<()> {
    // `cargo bench` passes `--bench`; `cargo test` would run this as a test without it.
    if !std::env::args().any(|argument| argument == "--bench") {
        return Ok(());
    }
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(rebuild())
}

async fn rebuild() -> Result<()> {
    let names: Vec<String> = (0..MACHINES).map(|i| format!("web-{i:02}")).collect();
    let world = World::start(&names.iter().map(String::as_str).collect::<Vec<_>>()).await?;
    for _ in 0..COMMANDS {
        let (cid, _) = world.submit("true", &world.machines, LIFE_MS).await?;
        let write = |mid: MachineToken| {
            let world = &world;
            async move {
                world.claim(&mid, cid).await?;
                world.exit(&mid, cid, 0).await
            }
        };
        for written in futures_util::future::join_all(world.machines.iter().cloned().map(write)).await {
            written?;
        }
    }
    for round in 1..=3 {
        let since = Instant::now();
        let bridge = world.bridge(&format!("b{round}")).await?;
        let took = since.elapsed().as_secs_f64();
        let rate = f64::from(u32::try_from(FACTS)?) / took;
        println!("| rebuild of {FACTS} facts, round {round} | {took:.2} s | {rate:.0} facts/s |");
        bridge.stop().await?;
    }
    Ok(())
}
