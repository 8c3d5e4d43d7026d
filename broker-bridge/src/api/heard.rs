//! Relays of the old contract were heard: every request with their key is a sign of life. The bridge says so on the
//! heartbeat of their machine, where all bridges and consoles listen; so there is one truth about who is online.

use std::{
    collections::HashMap,
    sync::Mutex,
    time::{Duration, Instant},
};

use signalbox_schemas::{
    error::report as words,
    heartbeat::{Disk, Facts, Heartbeat, LegacyBeat, Metrics},
    id::{MachineToken, Workspace},
    number::{as_amount, as_percent},
    record::AssignmentRecord,
    relay::{LegacyMetrics, RelayRecord},
    subject::Subject,
};
use tracing::debug;

use super::{Api, locked, now_ms};

/// Requests that say nothing but that somebody is there are told at most this often.
const TELL_EVERY: Duration = Duration::from_secs(10);
/// Heartbeats and reports are told at most this often: a client must not flood the stream.
const TELL_AT_MOST_EVERY: Duration = Duration::from_secs(1);
/// MiB and GiB.
const MIB: f64 = 1_048_576.0;
const GIB: f64 = 1_073_741_824.0;

/// When each relay was last told of, by assignment. Bounded by the number of assignments.
#[derive(Debug, Default)]
pub(crate) struct Told(Mutex<HashMap<String, Instant>>);

impl Told {
    /// Whether it is time to tell again.
    fn is_due(&self, assignment: &str, every: Duration) -> bool {
        let now = Instant::now();
        let mut told = locked(&self.0);
        if told.get(assignment).is_some_and(|at| now.duration_since(*at) < every) {
            return false;
        }
        told.insert(assignment.to_owned(), now);
        true
    }
}

/// A relay asked for something.
pub(crate) async fn touch(api: &Api, assignment: &AssignmentRecord) {
    if api.told.is_due(&assignment.id, TELL_EVERY) {
        let metrics = api.view().reported_metrics(&assignment.id);
        Box::pin(tell(api, assignment, metrics)).await;
    }
}

/// A relay sent a heartbeat.
pub(crate) async fn heartbeat(api: &Api, assignment: &AssignmentRecord) {
    if api.told.is_due(&assignment.id, TELL_AT_MOST_EVERY) {
        let metrics = api.view().reported_metrics(&assignment.id);
        Box::pin(tell(api, assignment, metrics)).await;
    }
}

/// A relay reported how its machine is; absent metrics are not known any more.
pub(crate) async fn report(api: &Api, assignment: &AssignmentRecord, metrics: Option<LegacyMetrics>) {
    // What was told a moment ago says something else.
    let is_new = api.view().reported_metrics(&assignment.id) != metrics;
    if api.told.is_due(&assignment.id, TELL_AT_MOST_EVERY) || is_new {
        Box::pin(tell(api, assignment, metrics)).await;
    }
}

/// Known here at once, and by the others when they hear it. A heartbeat that is lost is followed by another one.
async fn tell(api: &Api, assignment: &AssignmentRecord, metrics: Option<LegacyMetrics>) {
    let mid = assignment.machine_id.token();
    let relay = api.view().relay(&assignment.id);
    let running = api.view().running(&mid);
    let now = now_ms();
    let beat = beat(api.ws(), &mid, &assignment.id, (relay.as_ref(), metrics), running, now);
    api.view().shared().memory_mut().heartbeat(now, &beat);
    let subject = Subject::Heartbeat(api.ws().clone(), mid).to_string();
    let body = serde_json::to_vec(&beat).unwrap_or_default();
    if let Err(error) = api.link().publish(&subject, None, body.into()).await {
        api.count("legacy", "untold");
        debug!(assignment = assignment.id, error = words(&error), "a heartbeat was not told");
    }
}

/// The heartbeat of a machine, as far as its relay says what belongs there.
fn beat(
    ws: &Workspace,
    mid: &MachineToken,
    assignment: &str,
    (relay, metrics): (Option<&RelayRecord>, Option<LegacyMetrics>),
    running: u32,
    now: u64,
) -> Heartbeat {
    let text = |member: fn(&RelayRecord) -> &Option<String>| {
        relay.and_then(|relay| member(relay).clone()).unwrap_or_default()
    };
    let platform = text(|relay| &relay.platform);
    let (os, arch) = platform.split_once('-').unwrap_or((&platform, ""));
    Heartbeat {
        ws: ws.clone(),
        mid: mid.clone(),
        at: now,
        relay: text(|relay| &relay.version),
        generation: 0,
        authors: 0,
        running,
        outbox: 0,
        started_at: relay.map_or(now, |relay| relay.created_at),
        counters: std::collections::BTreeMap::new(),
        facts: Facts {
            hostname: text(|relay| &relay.hostname),
            os: os.to_owned(),
            kernel: String::new(),
            arch: arch.to_owned(),
        },
        metrics: metrics.as_ref().and_then(as_metrics),
        legacy: Some(LegacyBeat { assignment: assignment.to_owned(), metrics }),
    }
}

/// What consoles show; `None` when the report has no memory, and so nothing to show.
fn as_metrics(metrics: &LegacyMetrics) -> Option<Metrics> {
    let bytes = |amount: Option<f64>, unit: f64| {
        let bytes = as_amount(amount.unwrap_or_default()) * unit;
        // Exact below 2^53, and no machine is larger.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "not negative, and saturating"
        )]
        let whole = bytes.round() as u64;
        whole
    };
    let total = metrics.memory_total_mb.filter(|total| *total > 0.0)?;
    let disk = Disk {
        mount: "/".to_owned(),
        used_bytes: bytes(metrics.disk_used_gb, GIB),
        total_bytes: bytes(metrics.disk_total_gb, GIB),
    };
    let load = [metrics.load_avg_1m, metrics.load_avg_5m, metrics.load_avg_15m];
    #[expect(clippy::cast_possible_truncation, reason = "percent need no more")]
    let cpu_percent = as_percent(metrics.cpu_percent.unwrap_or_default()) as f32;
    Some(Metrics {
        cpu_percent,
        memory_used_bytes: bytes(metrics.memory_used_mb, MIB),
        memory_total_bytes: bytes(Some(total), MIB),
        load: load.map(|load| as_amount(load.unwrap_or_default())),
        disks: if metrics.disk_total_gb.is_some() { vec![disk] } else { Vec::new() },
        ..Metrics::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_shown_in_bytes() {
        let reported = LegacyMetrics {
            cpu_percent: Some(17.52),
            memory_total_mb: Some(24_106.0),
            memory_used_mb: Some(1_036.0),
            load_avg_1m: Some(1.94),
            disk_total_gb: Some(251.97),
            disk_used_gb: Some(13.7),
            ..LegacyMetrics::default()
        };
        let shown = as_metrics(&reported).unwrap();
        assert_eq!((shown.memory_total_bytes, shown.memory_used_bytes), (24_106 << 20, 1_036 << 20));
        assert!(shown.load[0] > 1.93 && shown.load[1] + shown.load[2] < 0.01, "{:?}", shown.load);
        assert_eq!(shown.disks[0].used_bytes, 14_710_262_989);
        assert_eq!(as_metrics(&LegacyMetrics { memory_total_mb: None, ..reported }), None);
    }

    #[test]
    fn nobody_is_told_of_too_often() {
        let told = Told::default();
        assert!(told.is_due("a", TELL_EVERY));
        assert!(!told.is_due("a", TELL_EVERY) && !told.is_due("a", TELL_AT_MOST_EVERY));
        assert!(told.is_due("b", TELL_EVERY) && told.is_due("a", Duration::ZERO));
    }
}
