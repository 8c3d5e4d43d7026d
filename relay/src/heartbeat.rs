//! Composing a sign of life. Pure, but for the version of this crate.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use signalbox_schemas::{
    heartbeat::{Facts, Heartbeat, Metrics},
    id::{MachineToken, Workspace},
    limit::{HEARTBEAT_BYTES, HEARTBEAT_MS},
};

/// What a heartbeat says of this relay.
#[derive(Debug)]
pub(crate) struct Vitals {
    pub(crate) now_ms: u64,
    pub(crate) started_at_ms: u64,
    pub(crate) generation: u64,
    pub(crate) authors: u64,
    pub(crate) running: usize,
    pub(crate) outbox: usize,
    pub(crate) counters: BTreeMap<String, u64>,
    pub(crate) facts: Facts,
    pub(crate) metrics: Option<Metrics>,
}

/// The heartbeat as it is published. Without the list of disks when that would make it too large.
pub(crate) fn encode(ws: &Workspace, mid: &MachineToken, vitals: Vitals) -> Bytes {
    let count = |number| u32::try_from(number).unwrap_or(u32::MAX);
    let mut heartbeat = Heartbeat {
        ws: ws.clone(),
        mid: mid.clone(),
        at: vitals.now_ms,
        relay: env!("CARGO_PKG_VERSION").to_owned(),
        generation: vitals.generation,
        authors: vitals.authors,
        running: count(vitals.running),
        outbox: count(vitals.outbox),
        started_at: vitals.started_at_ms,
        counters: vitals.counters,
        facts: vitals.facts,
        metrics: vitals.metrics,
        legacy: None,
    };
    let body = serde_json::to_vec(&heartbeat).unwrap_or_default();
    if body.len() <= HEARTBEAT_BYTES {
        return body.into();
    }
    if let Some(metrics) = &mut heartbeat.metrics {
        metrics.disks.clear();
    }
    serde_json::to_vec(&heartbeat).unwrap_or_default().into()
}

/// Time to the next one: 10 s ± 10 %, so that a fleet that started together does not beat together. `ratio` is
/// drawn from 0 to 1.
pub(crate) fn interval(ratio: f64) -> Duration {
    Duration::from_millis(HEARTBEAT_MS).mul_f64(0.9 + 0.2 * ratio)
}

#[cfg(test)]
mod tests {
    use super::*;
    use signalbox_schemas::heartbeat::Disk;

    #[test]
    fn a_heartbeat_never_exceeds_its_limit() {
        let disk = Disk { mount: "\u{1}".repeat(128), used_bytes: u64::MAX, total_bytes: u64::MAX };
        let metrics = Metrics { disks: vec![disk; 40], ..Metrics::default() };
        let vitals = Vitals {
            now_ms: 1,
            started_at_ms: 1,
            generation: 1,
            authors: 1,
            running: 0,
            outbox: 0,
            counters: BTreeMap::new(),
            facts: Facts::default(),
            metrics: Some(metrics),
        };
        let body = encode(&Workspace::main(), &MachineToken::new("web-1").unwrap(), vitals);
        assert!(body.len() <= HEARTBEAT_BYTES);
        let read: Heartbeat = serde_json::from_slice(&body).unwrap();
        assert!(read.metrics.unwrap().disks.is_empty());
    }

    #[test]
    fn beats_are_ten_seconds_apart_give_or_take_one() {
        assert_eq!(interval(0.0), Duration::from_secs(9));
        assert_eq!(interval(1.0), Duration::from_secs(11));
    }
}
