//! How many files and connections this process may have open.

use rustix::process::{Resource, getrlimit, setrlimit};
use tracing::{info, warn};

/// What a system allows that names no limit.
const PLENTY: u64 = 1 << 20;

/// Raises the limit as far as it may be raised, for this process and the broker that it starts.
pub(crate) fn allow_all() {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    let before = limit.current.unwrap_or(PLENTY);
    limit.current = limit.maximum;
    match setrlimit(Resource::Nofile, limit) {
        Ok(()) => info!(before, now = allowed(), "more files may be open"),
        Err(error) => warn!(%error, before, "the limit of open files cannot be raised"),
    }
}

/// Descriptors that this process may have.
pub(crate) fn allowed() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(PLENTY)
}
