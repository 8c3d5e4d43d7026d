//! How machines are, as far as they are sorted and counted by it: next to each other, as their names are.

use signalbox_schemas::api::Liveness;

/// How one is.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Vitals {
    /// When it was last heard, ms by our steady clock; `None` = never.
    pub heard_ms: Option<u64>,
    /// CPU use, 0 to 100.
    pub cpu_percent: Option<u8>,
    /// Memory in use, 0 to 100.
    pub memory_percent: Option<u8>,
    /// The fullest disk, 0 to 100.
    pub disk_percent: Option<u8>,
    /// Load of the last minute.
    pub load: Option<f64>,
    /// Runs that its relay has.
    pub running: u32,
    /// Runs that wait for it.
    pub pending: u32,
    /// Nothing is known of it at the moment that is shown.
    pub is_unknown: bool,
}

impl Vitals {
    /// How long ago it was heard, ms.
    pub fn age_ms(&self, now_ms: u64) -> Option<u64> {
        age_ms(self.heard_ms, now_ms)
    }

    /// Whether it was heard lately.
    pub fn state(&self, now_ms: u64) -> Liveness {
        Liveness::of(self.age_ms(now_ms))
    }
}

/// How long ago that was, ms.
pub fn age_ms(heard_ms: Option<u64>, now_ms: u64) -> Option<u64> {
    heard_ms.map(|at| now_ms.saturating_sub(at))
}
