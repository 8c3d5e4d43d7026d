//! The agent on each machine.

use clap::Parser as _;
use signalbox_relay::{
    args::{Action, Args, LogFormat},
    keeper, serve,
};
use tracing_subscriber::EnvFilter;

/// What a wrong command line exits with, as in sysexits.h.
const USAGE: i32 = 64;

fn main() -> anyhow::Result<()> {
    let args = Args::try_parse().unwrap_or_else(|error| {
        let code = if error.use_stderr() { USAGE } else { 0 };
        // Where nobody reads, nothing is lost.
        drop(error.print());
        std::process::exit(code)
    });
    init_log(&args)?;
    match args.action {
        Action::Run { store, creds, nats } => serve::run_blocking(&store, &creds, &nats)?,
        Action::Keeper { store } => keeper::main_blocking(&store)?,
    }
    Ok(())
}

fn init_log(args: &Args) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&args.log)?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false);
    match args.log_format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
    Ok(())
}
