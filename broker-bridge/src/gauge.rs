//! What an operator should know before it hurts: RUN fills up, the authors document runs out.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use signalbox_schemas::{
    api::{Severity, Warning},
    limit::DAY_MS,
    stream::RUN,
};
use tokio::time::sleep;
use tracing::warn;

use crate::core::{Context, CoreError};

/// How often the broker is asked.
const EVERY: Duration = Duration::from_secs(30);
/// Days before the end of the authors document from which on it is spoken of.
const AUTHORS_DAYS: u64 = 14;

/// How full RUN is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fill {
    bytes: u64,
    max_bytes: u64,
}

impl Fill {
    fn is_high(self) -> bool {
        self.bytes > self.max_bytes / 2
    }
}

/// The last reading.
#[derive(Debug, Default)]
pub(crate) struct Gauge(Mutex<Option<Fill>>);

impl Gauge {
    /// Puts a reading down; answers whether RUN has become more than half full with it.
    fn put(&self, fill: Fill) -> bool {
        let before = self.0.lock().unwrap_or_else(PoisonError::into_inner).replace(fill);
        fill.is_high() && !before.is_some_and(Fill::is_high)
    }

    /// Whether RUN is more than half full; `None` before the broker has said.
    pub(crate) fn is_high(&self) -> Option<bool> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).map(Fill::is_high)
    }

    /// What is worth a warning at `now`, Unix ms. `not_after`: of the authors document, if there is one.
    pub(crate) fn warnings(&self, not_after: Option<u64>, now: u64) -> Vec<Warning> {
        let fill = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let room = fill.filter(|fill| fill.is_high()).map(|Fill { bytes, max_bytes }| {
            let percent = bytes.saturating_mul(100) / max_bytes.max(1);
            Warning {
                code: "stream_full".to_owned(),
                severity: if percent > 90 { Severity::Critical } else { Severity::Warning },
                text: format!("stream {RUN} is {percent} % full, and when it is full nothing starts"),
                advice: "raise its max_bytes".to_owned(),
            }
        });
        let days = not_after.map(|at| at.saturating_sub(now) / DAY_MS).filter(|days| *days < AUTHORS_DAYS);
        let ends = days.map(|days| Warning {
            code: "authors_end".to_owned(),
            severity: if days == 0 { Severity::Critical } else { Severity::Warning },
            text: format!("the authors document ends in {days} days, and nothing runs after that"),
            advice: "issue a new one with `signalbox-bridge init`".to_owned(),
        });
        room.into_iter().chain(ends).collect()
    }
}

/// Reads how full RUN is, until told to stop.
pub(crate) async fn run(context: Context) -> Result<(), CoreError> {
    let work = async {
        loop {
            // That a broker does not answer is said by others.
            if let Ok(state) = context.shared.link.stream_state(RUN).await
                && let (bytes, Some(max_bytes)) = (state.bytes, state.max_bytes)
                && context.shared.gauge.put(Fill { bytes, max_bytes })
            {
                warn!(bytes, max_bytes, "RUN is more than half full");
            }
            sleep(EVERY).await;
        }
    };
    tokio::select! {
        () = context.stop.cancelled() => Ok(()),
        () = work => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_will_hurt_is_said_before_it_does_and_once() {
        let gauge = Gauge::default();
        assert!(gauge.warnings(None, 0).is_empty());
        assert!(!gauge.put(Fill { bytes: 50, max_bytes: 100 }));
        assert!(gauge.warnings(Some(15 * DAY_MS), 0).is_empty());
        assert!(gauge.put(Fill { bytes: 51, max_bytes: 100 }));
        assert!(!gauge.put(Fill { bytes: 60, max_bytes: 100 }));
        let warnings = gauge.warnings(Some(15 * DAY_MS), DAY_MS + 1);
        assert!(warnings[0].text.contains("RUN is 60 % full"), "{warnings:?}");
        assert!(warnings[1].text.contains("ends in 13 days"), "{warnings:?}");
    }
}
