//! The positional command line, from its arguments to its exit code.

use std::{
    env,
    ffi::OsString,
    fmt,
    io::{self, Write as _},
    process::ExitCode,
};

use signalbox_schemas::error::report;

use crate::{
    api_key::{self, VARIABLE},
    legacy_args::{Asked, KeySource, LineError, Options, USAGE, parse},
    legacy_link::{self, Start},
    legacy_log,
};

/// Runs what the arguments after the program's name ask for.
pub fn main_blocking(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Result<Vec<String>, OsString> = args.into_iter().map(OsString::into_string).collect();
    let Ok(args) = args else { return fail(&"the arguments are not UTF-8") };
    // An empty variable is none.
    let has_variable = env::var_os(VARIABLE).is_some_and(|key| !key.is_empty());
    match parse(&args, has_variable) {
        Ok(Asked::Help) => {
            print(USAGE);
            ExitCode::SUCCESS
        }
        Ok(Asked::Version) => {
            print(concat!("signalbox-relay ", env!("CARGO_PKG_VERSION"), "\n"));
            ExitCode::SUCCESS
        }
        Ok(Asked::Nothing) => {
            print(USAGE);
            ExitCode::FAILURE
        }
        Ok(Asked::Run(options)) => run(*options),
        Err(error) => {
            let code = fail(&error);
            if error == LineError::Missing {
                print(USAGE);
            }
            code
        }
    }
}

fn run(options: Options) -> ExitCode {
    let key = match options.key.read() {
        Ok(key) => key,
        Err(error) => return fail(&report(&error)),
    };
    if options.key.is_in_sight() {
        return fail(&report(&api_key::hand_over(&key, options.others)));
    }
    if options.key == KeySource::Stdin
        && let Err(error) = api_key::close_stdin()
    {
        return fail(&format!("standard input cannot be closed: {error}"));
    }
    legacy_log::init(options.log_level);
    for option in options.without_effect {
        tracing::warn!(option, "Option has no effect");
    }
    let start = Start {
        url: options.url,
        key,
        transport: options.transport,
        fleet_key: options.fleet_key,
        host_keys: options.host_keys,
        shared_secret_file: options.shared_secret_file,
        store_dir: options.store_dir,
        poll_interval: options.poll_interval,
        heartbeat_interval: options.heartbeat_interval,
    };
    match legacy_link::run_blocking(start) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = report(&error), "Relay failed");
            ExitCode::FAILURE
        }
    }
}

fn fail(why: &dyn fmt::Display) -> ExitCode {
    // Where nobody reads, nothing is lost.
    drop(writeln!(io::stderr(), "Error: {why}"));
    ExitCode::FAILURE
}

fn print(text: &str) {
    // Where nobody reads, nothing is lost.
    drop(io::stdout().write_all(text.as_bytes()));
}
