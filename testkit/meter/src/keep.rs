//! `fleet`: a system with simulated relays that stays until it is interrupted.

use std::{io::Write as _, time::Duration};

use anyhow::{Context as _, Result};
use clap::Args;

use crate::{
    fleet::{
        Fleet, Nature,
        temper::{self, Temper},
    },
    machine::raise_descriptors,
    place::Place,
};

/// Descriptors that a process needs beside those of simulated relays.
const SPARE: usize = 256;

/// Between two looks at whether all relays are well.
const LOOK: Duration = Duration::from_secs(5);

/// What `fleet` was given.
#[derive(Debug, Args)]
pub(crate) struct FleetArgs {
    /// Simulated relays
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    relays: u32,
    /// All of them on one connection, which may do everything: for more relays than there may be open files
    #[arg(long)]
    shared: bool,
}

/// Starts it and keeps it.
///
/// # Errors
/// When it cannot be started, or a relay ends.
pub(crate) async fn run(args: &FleetArgs) -> Result<()> {
    let wanted = usize::try_from(args.relays)?;
    let room = raise_descriptors()?.saturating_sub(SPARE);
    let relays = if args.shared { wanted } else { wanted.min(room) };
    if relays < wanted {
        eprintln!(
            "only {relays} relays: this process may have {room} connections; `--shared` needs one for all"
        );
    }
    eprintln!("setting {relays} machines up");
    let names = temper::names(relays);
    let place = Place::start(&names, 0).await?;
    eprintln!("connecting their relays");
    let mut fleet = Fleet::default();
    let ready = place.stack.ready();
    if args.shared {
        fleet.share(ready, &names, Nature::LIVELY).await?;
    } else {
        fleet.connect(ready, &names, Nature::LIVELY).await?;
    }
    tell(relays, &place)?;
    // Ended by a signal, with everything that was started.
    loop {
        tokio::time::sleep(LOOK).await;
        fleet.is_well()?;
    }
}

fn tell(relays: usize, place: &Place) -> Result<()> {
    let ready = place.stack.ready();
    let of = |wanted: fn(Temper) -> bool| (0..relays).filter(|n| wanted(temper::lively(*n))).count();
    let offline = of(|temper| temper == Temper::Offline);
    let (failing, slow) =
        (of(|temper| temper == Temper::Failing), of(|temper| matches!(temper, Temper::Slow(_))));
    let mut out = std::io::stdout().lock();
    writeln!(out, "{relays} machines: {offline} offline, {failing} fail every command, {slow} are slow")?;
    writeln!(out, "console: SIGNALBOX_STATE_DIR={} signalbox", ready.state_dir.display())?;
    writeln!(out, "HTTP:    {}", ready.http)?;
    writeln!(out, "Ctrl-C ends everything")?;
    out.flush().context("writing")
}
