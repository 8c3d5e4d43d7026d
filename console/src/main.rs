//! The `signalbox` binary: reads arguments and environment, and leaves with an exit code.

use std::process::ExitCode;

use signalbox_console::{
    args::{Action, Args},
    cli::{self, console, exit},
    config::{Asked, Config, Environment},
    log::{self, Log},
};

/// Beside the thread that draws or prints, one for the connection.
const WORKERS: usize = 2;

fn main() -> ExitCode {
    cli::complete::answer();
    let args = Args::typed();
    let environment = Environment::read(|name| std::env::var_os(name));
    let named = args.action.as_ref().and_then(Action::nats_url).or(args.reach.nats_url);
    let refusal = console::refusal(&environment);
    let asked = Asked { state_dir: args.state_dir, nats_url: named, context: args.context };
    let config = Config::read(asked.clone(), environment.clone());
    match &args.action {
        Some(Action::Up(up)) if !up.headless && refusal.is_some() => {
            let why = refusal.unwrap_or_default();
            return leave(exit::USAGE, &format!("cannot open the console: {why}; use `up --headless`"));
        }
        None => {
            if let Ok(config) = &config {
                log::begin(&Log::File("console", &config.layout));
            }
        }
        // It begins its log when there is a state directory to log to.
        Some(Action::Up(_)) => {}
        Some(_) => log::begin(&Log::Quiet),
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return leave(exit::FAILED, &format!("cannot start: {error}")),
    };
    let code = match runtime.block_on(Box::pin(cli::act(config, (asked, environment), args.action))) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => match failure.line {
            Some(line) => leave(failure.code, &line),
            None => ExitCode::from(failure.code),
        },
    };
    // What still waits for somebody else is not waited for.
    runtime.shutdown_background();
    code
}

fn leave(code: u8, line: &str) -> ExitCode {
    cli::say(line);
    ExitCode::from(code)
}
