//! The torture chamber: real processes, a network that loses and delays, disks that fill and clocks that jump, by a seed;
//! and a checker that reads what is left and says which promise was broken.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "its output is the report")]

mod args;
mod campaign;
mod check;
mod driver;
mod fault;
mod observe;
mod observed;
mod plan;
mod report;
mod script;
mod shrink;
mod told;
mod workload;
mod world;

use std::{ffi::OsString, path::Path, process::ExitCode, time::Duration};

use anyhow::{Context as _, Result, bail};
use clap::Parser as _;
use tokio::signal::{
    ctrl_c,
    unix::{SignalKind, signal},
};

use args::{Arguments, Run, Seed, What};
use check::violations;
use observed::Observed;
use plan::Plan;
use report::Outcome;
use world::place::{Entered, enter};

/// What is left to a runtime that ends: requests that nobody waits for any more.
const REST: Duration = Duration::from_millis(200);

fn main() -> ExitCode {
    let ended = match Arguments::parse().what {
        What::Run(asked) => run(&asked),
        What::Plan(asked) => print(&asked),
        What::Check { file } => check(&file),
        What::World { plan, into, programs } => inside(&plan, &into, &programs),
    };
    match ended {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("the chamber failed: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(asked: &Run) -> Result<u8> {
    let summary = block_on(until_told(campaign::run(asked)))?;
    eprint!("{}", summary.text());
    if asked.json {
        println!("{}", serde_json::to_string(&summary)?);
    }
    Ok(match asked.until_broken {
        Some(promise) => summary.exit_code_until(promise),
        None => summary.exit_code(),
    })
}

fn print(asked: &Seed) -> Result<u8> {
    println!("{}", serde_json::to_string_pretty(&Plan::from_seed(asked.seed, asked.length * 1_000))?);
    Ok(0)
}

fn check(file: &Path) -> Result<u8> {
    let observed: Observed = campaign::read(file)?;
    let broken = violations(&observed);
    for violation in &broken {
        println!("{violation}");
    }
    let outcome = Outcome::new(&observed, broken);
    eprintln!("{}", outcome.line());
    Ok(u8::from(!outcome.violations.is_empty()))
}

fn inside(plan: &Path, into: &Path, programs: &Path) -> Result<u8> {
    let again: Vec<OsString> = std::env::args_os().skip(1).collect();
    match enter(&again)? {
        Entered::Ended(code) => return Ok(code),
        Entered::Here(abilities) => abilities.lacking().iter().for_each(|why| eprintln!("{why}")),
    }
    let plan: Plan = campaign::read(plan)?;
    let observed = block_on(driver::torture(&plan, programs, into))?;
    campaign::keep(into, &observed)?;
    Ok(0)
}

/// Does the work, unless it is told to end: then the worlds end with their tasks.
async fn until_told<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    tokio::select! {
        done = work => done,
        _ = ctrl_c() => bail!("it was interrupted"),
        _ = terminate.recv() => bail!("it was told to end by SIGTERM"),
    }
}

fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.context("starting a runtime")?;
    let done = runtime.block_on(work);
    runtime.shutdown_timeout(REST);
    done
}
