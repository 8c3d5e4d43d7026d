//! `signalbox-bridge`: arguments, logging, signals, exit codes.

use std::{
    env,
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Parser as _;
use rustix::fs::Mode;
use signalbox_bridge::{
    args::{Cli, Command, InitArgs, LogFormat, ServeArgs},
    config::ServeConfig,
    core::now_ms,
    identity::{self, Init},
    serve,
};
use signalbox_link::DEFAULT_LOG;
use signalbox_schemas::error::report;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::info;
use tracing_subscriber::EnvFilter;

/// Exit code of a command line that cannot be meant (`EX_USAGE` of sysexits.h).
const USAGE: u8 = 64;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are errors to the parser and none to us.
            let code = if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS };
            let _ = error.print();
            return code;
        }
    };
    // The broker inherits it: nothing in a state directory is for others.
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    match cli.command {
        Command::Init(args) => init(&args),
        Command::Serve(args) => run(&args),
    }
}

/// The one line that says why, and the exit code.
fn fail(code: u8, error: &dyn std::error::Error) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "signalbox-bridge: {}", report(error));
    ExitCode::from(code)
}

fn init(args: &InitArgs) -> ExitCode {
    let wanted = match Init::from_args(args) {
        Ok(wanted) => wanted,
        Err(error) => return fail(USAGE, &error),
    };
    match identity::init(&wanted, now_ms()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(1, &error),
    }
}

/// Where a nats-server is looked for: beside this program, then on `PATH`.
fn search_path() -> Vec<PathBuf> {
    let own = env::current_exe().ok().and_then(|exe| exe.parent().map(Path::to_owned));
    let path = env::var_os("PATH").unwrap_or_default();
    own.into_iter().chain(env::split_paths(&path)).collect()
}

fn run(args: &ServeArgs) -> ExitCode {
    let config = match ServeConfig::from_args(args, search_path()) {
        Ok(config) => config,
        Err(error) => return fail(USAGE, &error),
    };
    let named = args.log.clone().or_else(|| env::var("RUST_LOG").ok());
    let filter = match EnvFilter::try_new(named.as_deref().unwrap_or(DEFAULT_LOG)) {
        Ok(filter) => filter,
        Err(error) => return fail(USAGE, &error),
    };
    let logs =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false);
    // A log on a full disk must not end the bridge: what cannot be logged would be told by a print that panics.
    let logs = logs.log_internal_errors(false);
    match args.log_format {
        LogFormat::Text => logs.init(),
        LogFormat::Json => logs.json().init(),
    }
    match serve_until_signal(&config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(1, &*error),
    }
}

fn serve_until_signal(config: &ServeConfig) -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let served = runtime.block_on(async {
        let stop = CancellationToken::new();
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut serving = Box::pin(serve::serve(config, &stop));
        tokio::select! {
            served = &mut serving => return served.map_err(Into::into),
            _ = terminate.recv() => info!("asked to end by SIGTERM"),
            _ = interrupt.recv() => info!("asked to end by SIGINT"),
        }
        stop.cancel();
        serving.await.map_err(Into::into)
    });
    // A store that is still being written out must not hold the process: it is only a view.
    runtime.shutdown_background();
    served
}
