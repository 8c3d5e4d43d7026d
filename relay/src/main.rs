//! `signalbox-relay`: arguments, logging, exit codes.

use std::{env, ffi::OsString, io::Write as _, process::ExitCode};

use clap::Parser as _;
use signalbox_relay::{
    args::{Action, Args, LogFormat, is_positional},
    credentials_cli, hardening, keeper, known_hosts_cli, legacy_cli, serve,
};
use signalbox_schemas::error::report;
use tracing::level_filters::{LevelFilter, STATIC_MAX_LEVEL};
use tracing_subscriber::EnvFilter;

/// What a wrong command line exits with, as in sysexits.h.
const USAGE: u8 = 64;

fn main() -> ExitCode {
    if let Err(error) = hardening::stay_out_of_dumps() {
        return fail(1, &format!("this process cannot be kept out of core dumps: {error}"));
    }
    let mut args = env::args_os().skip(1).peekable();
    if is_positional(args.peek().map(OsString::as_os_str)) {
        return legacy_cli::main_blocking(args);
    }
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
    let filter = match EnvFilter::try_new(printable(&args.log, STATIC_MAX_LEVEL)) {
        Ok(filter) => filter,
        // The positional line looks at no variable, and what it starts has that of somebody else: nothing could run.
        Err(_) if matches!(args.action, Action::Keeper { .. }) => EnvFilter::new(signalbox_link::DEFAULT_LOG),
        Err(error) => return fail(USAGE, &format!("--log {:?} is no filter: {error}", args.log)),
    };
    init_log(filter, args.log_format);
    match args.action {
        Action::Run { store, creds, nats } => ended(serve::run_blocking(&store, &creds, &nats)),
        Action::Credentials { action } => match credentials_cli::main_blocking(action) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(if error.is_usage() { USAGE } else { 1 }, &report(&error)),
        },
        Action::KnownHosts(args) => ended(known_hosts_cli::main_blocking(args)),
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

/// The filter without levels that this build has left out: the parser prints a word about each, and dies of it where
/// nothing can be printed.
fn printable(filter: &str, most: LevelFilter) -> String {
    let of = |directive: &str| {
        let at = directive.rfind('=').map_or(0, |at| at + 1);
        let (target, level) = directive.split_at(at);
        let is_left_out = level.trim().parse::<LevelFilter>().is_ok_and(|level| level > most);
        if is_left_out { format!("{target}{most}") } else { directive.to_owned() }
    };
    filter.split(',').map(of).collect::<Vec<_>>().join(",")
}

fn init_log(filter: EnvFilter, format: LogFormat) {
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false);
    // A line that cannot be written is lost and no more. By default the failure is printed, to the same full disk, and
    // that print panics: the keeper, whose log lies in the store, would die of it with all it runs.
    let log = log.log_internal_errors(false);
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_that_were_left_out_are_not_asked_for() {
        let asked = "signalbox_relay=trace,info,x=TRACE,trace,tracer";
        assert_eq!(printable(asked, LevelFilter::TRACE), asked);
        assert_eq!(printable(asked, LevelFilter::DEBUG), "signalbox_relay=debug,info,x=debug,debug,tracer");
    }
}
