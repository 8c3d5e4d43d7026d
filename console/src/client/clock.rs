//! Time as this machine has it.

use std::{
    sync::OnceLock,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

/// Now, Unix ms by this machine's clock. It jumps when somebody sets the clock.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Now, ms: Unix time as of the first call, and steadily on from there. For ages, which no setting of a clock may
/// stop; not for moments that others named.
pub fn steady_ms() -> u64 {
    static BEGAN: OnceLock<(Instant, u64)> = OnceLock::new();
    let (began, at_ms) = BEGAN.get_or_init(|| (Instant::now(), now_ms()));
    at_ms.saturating_add(u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX))
}
