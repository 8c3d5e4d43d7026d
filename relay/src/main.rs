//! `signalbox-relay`: arguments, logging, exit codes.

use std::{io::Write as _, process::ExitCode};

use clap::Parser as _;
use signalbox_relay::{
    args::{Action, Args, LogFormat},
    keeper, serve,
};
use signalbox_schemas::error::report;
use tracing_subscriber::EnvFilter;

/// What a wrong command line exits with, as in sysexits.h.
const USAGE: u8 = 64;

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Help and version are errors to the parser and none to us.
            let code = if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS };
            // Where nobody reads, nothing is lost.
            drop(error.print());
            return code;
        }
    };
    let filter = match EnvFilter::try_new(&args.log) {
        Ok(filter) => filter,
        Err(error) => return fail(USAGE, &format!("--log {:?} is no filter: {error}", args.log)),
    };
    init_log(filter, args.log_format);
    match args.action {
        Action::Run { store, creds, nats } => ended(serve::run_blocking(&store, &creds, &nats)),
        Action::Keeper { store } => ended(keeper::main_blocking(&store)),
    }
}

fn ended(result: Result<(), impl std::error::Error>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(1, &report(&error)),
    }
}

/// The one line that says why, and the exit code.
fn fail(code: u8, why: &str) -> ExitCode {
    // Where nobody reads, nothing is lost.
    drop(writeln!(std::io::stderr(), "signalbox-relay: {why}"));
    ExitCode::from(code)
}

fn init_log(filter: EnvFilter, format: LogFormat) {
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false);
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
}
