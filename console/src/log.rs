//! Where our own log goes: never to a screen that shows something else.

use std::{fs::OpenOptions, os::unix::fs::OpenOptionsExt as _, sync::Mutex};

use signalbox_schemas::layout::Layout;
use tracing_subscriber::EnvFilter;

/// A log file that is larger at the start begins anew, bytes.
const LOG_BYTES: u64 = 8 * 1024 * 1024;

/// What is logged where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Log<'a> {
    /// A command: nothing, unless `RUST_LOG` says so; to stderr.
    Quiet,
    /// A console, or `up`: to `STATE/log/NAME.log`, if there is such a directory.
    File(&'static str, &'a Layout),
}

/// Begins to log. Once per process.
pub fn begin(log: &Log<'_>) {
    let filter =
        |default: &str| EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    // A line that cannot be written is lost. Told on stderr, as is usual, that would be a panic where stderr is on the
    // same full disk, and a mess on a screen that shows something else.
    let format = tracing_subscriber::fmt().with_ansi(false).log_internal_errors(false);
    match log {
        Log::Quiet => {
            format.with_env_filter(filter("off")).with_writer(std::io::stderr).init();
        }
        // Nothing is written into somebody else's directory.
        Log::File(_, layout) if !layout.state_json().exists() => {}
        Log::File(name, layout) => {
            let file = OpenOptions::new().create(true).append(true).mode(0o600).open(layout.log(name));
            // No state directory yet: the console has nothing to say without one.
            let Ok(file) = file else { return };
            if file.metadata().is_ok_and(|meta| meta.len() > LOG_BYTES) && file.set_len(0).is_err() {
                return;
            }
            format.with_env_filter(filter(signalbox_link::DEFAULT_LOG)).with_writer(Mutex::new(file)).init();
        }
    }
}
