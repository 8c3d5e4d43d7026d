//! Reports about this relay and its machine. Pure, but for the look at the machine.

use serde::Serialize;
use signalbox_schemas::heartbeat::Metrics;

use super::wire::Number;
use crate::metrics::{Sampler, facts, root_file_system};

/// What this relay can do, in the order in which it is said.
const CAPABILITIES: [&str; 2] = ["local_cmd", "perf_metrics"];
/// Bytes of a MiB and of a GiB.
const MIB: f64 = 1_048_576.0;
const GIB: f64 = 1_073_741_824.0;

/// The metrics of a report. What is not known is left out.
#[derive(Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Figures {
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu_percent: Option<Number>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_total_mb: Option<Number>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_used_mb: Option<Number>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_percent: Option<Number>,
    #[serde(rename = "loadAvg1m", skip_serializing_if = "Option::is_none")]
    load_1m: Option<Number>,
    #[serde(rename = "loadAvg5m", skip_serializing_if = "Option::is_none")]
    load_5m: Option<Number>,
    #[serde(rename = "loadAvg15m", skip_serializing_if = "Option::is_none")]
    load_15m: Option<Number>,
    #[serde(skip_serializing_if = "Option::is_none")]
    disk_total_gb: Option<Number>,
    #[serde(skip_serializing_if = "Option::is_none")]
    disk_used_gb: Option<Number>,
    #[serde(skip_serializing_if = "Option::is_none")]
    disk_percent: Option<Number>,
}

impl Figures {
    /// `is_first`: CPU use is that between two reports, so the first one has none. `root`: bytes used, and all.
    fn new(metrics: Option<&Metrics>, root: Option<(u64, u64)>, is_first: bool) -> Self {
        let mut figures = Self::default();
        if let Some(metrics) = metrics {
            let (used, total) = (float(metrics.memory_used_bytes), float(metrics.memory_total_bytes));
            let [one, five, fifteen] = metrics.load;
            let cpu = Number::hundredths(f64::from(metrics.cpu_percent));
            figures.cpu_percent = (!is_first).then_some(cpu);
            figures.memory_total_mb = Some(Number::whole(total / MIB));
            figures.memory_used_mb = Some(Number::whole(used / MIB));
            figures.memory_percent = percent(used, total);
            figures.load_1m = Some(Number::hundredths(one));
            figures.load_5m = Some(Number::hundredths(five));
            figures.load_15m = Some(Number::hundredths(fifteen));
        }
        if let Some((used, total)) = root {
            figures.disk_total_gb = Some(Number::hundredths(float(total) / GIB));
            figures.disk_used_gb = Some(Number::hundredths(float(used) / GIB));
            figures.disk_percent = percent(float(used), float(total));
        }
        figures
    }
}

/// Absent where there is nothing to be a part of.
fn percent(used: f64, total: f64) -> Option<Number> {
    (total > 0.0).then(|| Number::hundredths(used / total * 100.0))
}

#[expect(clippy::cast_precision_loss, reason = "sizes of machines, shown with two decimals")]
fn float(bytes: u64) -> f64 {
    bytes as f64
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report<'a> {
    relay_id: &'a str,
    capabilities: [&'static str; 2],
    metrics: Figures,
    version: &'static str,
    hostname: String,
    platform: String,
    /// This relay keeps none.
    credentials: [(); 0],
}

/// A report as it is sent. Looks at the machine; blocks, and a hanging file system can hold it for long.
pub(super) fn report(relay_id: &str, sampler: &mut Sampler, is_first: bool) -> Vec<u8> {
    let facts = facts();
    let report = Report {
        relay_id,
        capabilities: CAPABILITIES,
        metrics: Figures::new(sampler.sample().as_ref(), root_file_system(), is_first),
        version: env!("CARGO_PKG_VERSION"),
        hostname: facts.hostname,
        platform: format!("linux-{}", architecture(std::env::consts::ARCH)),
        credentials: [],
    };
    // Strings and numbers always have a JSON form.
    serde_json::to_vec(&report).unwrap_or_default()
}

/// An architecture as Node calls it.
fn architecture(name: &str) -> &str {
    match name {
        "x86_64" => "x64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn metrics() -> Metrics {
        Metrics {
            cpu_percent: 17.519,
            memory_used_bytes: 1_086_324_736,
            memory_total_bytes: 25_276_973_056,
            load: [1.94, 1.905, 0.9],
            ..Metrics::default()
        }
    }

    #[test]
    fn figures_are_rounded_and_ordered() {
        let root = Some((14_710_262_989, 270_550_738_780));
        let text = serde_json::to_string(&Figures::new(Some(&metrics()), root, false)).unwrap();
        assert_eq!(
            text,
            r#"{"cpuPercent":17.52,"memoryTotalMb":24106,"memoryUsedMb":1036,"memoryPercent":4.3,"loadAvg1m":1.94,"loadAvg5m":1.91,"loadAvg15m":0.9,"diskTotalGb":251.97,"diskUsedGb":13.7,"diskPercent":5.44}"#
        );
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        let figures =
            |metrics, root, is_first| serde_json::to_value(Figures::new(metrics, root, is_first)).unwrap();
        assert_eq!(figures(None, None, false), json!({}));
        let metrics = metrics();
        let first = figures(Some(&metrics), None, true);
        assert_eq!(first.get("cpuPercent"), None);
        assert_eq!(first.get("memoryTotalMb"), Some(&json!(24106)));
        assert_eq!(figures(None, Some((0, 0)), true), json!({"diskTotalGb": 0, "diskUsedGb": 0}));
    }

    #[test]
    fn the_machine_is_reported_as_it_is() {
        let mut sampler = Sampler::new();
        for is_first in [true, false] {
            let report: Value = serde_json::from_slice(&report("asg", &mut sampler, is_first)).unwrap();
            assert_eq!(report["relayId"], "asg");
            assert_eq!(report["capabilities"], json!(["local_cmd", "perf_metrics"]));
            assert_eq!(report["version"], env!("CARGO_PKG_VERSION"));
            assert_eq!(report["credentials"], json!([]));
            assert!(report["platform"].as_str().unwrap().starts_with("linux-"));
            assert!(!report["hostname"].as_str().unwrap().is_empty());
            let metrics = &report["metrics"];
            assert_eq!(metrics.get("cpuPercent").is_none(), is_first);
            let number = |name: &str| metrics[name].as_f64().unwrap();
            assert!(number("memoryUsedMb") > 0.0 && number("memoryUsedMb") <= number("memoryTotalMb"));
            assert!((0.0..=100.0).contains(&number("memoryPercent")));
            assert!((0.0..=100.0).contains(&number("diskPercent")));
            assert!(number("diskTotalGb") > 0.0 && number("loadAvg1m") >= 0.0);
        }
    }
}
