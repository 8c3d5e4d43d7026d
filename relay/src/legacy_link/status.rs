//! Reports about this relay and its machine. Pure, but for the look at the machine.

use std::fs;

use serde::Serialize;
use signalbox_schemas::{
    credential::{CredentialMeta, CredentialType, StorageMode},
    heartbeat::Metrics,
};

use super::wire::Number;
use crate::metrics::{Sampler, facts, root_file_system};

/// What this relay can do, in the order in which it is said.
const CAPABILITIES: [&str; 3] = ["local_cmd", "ssh", "perf_metrics"];
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
    /// `cpu_percent`: that between two reports, so the first one has none. `root`: bytes used, and all.
    fn new(metrics: Option<&Metrics>, root: Option<(u64, u64)>, cpu_percent: Option<Number>) -> Self {
        let mut figures = Self { cpu_percent, ..Self::default() };
        if let Some(metrics) = metrics {
            let (used, total) = (float(metrics.memory_used_bytes), float(metrics.memory_total_bytes));
            let [one, five, fifteen] = metrics.load;
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

/// What all processors have done since the system was started, in clock ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ticks {
    /// In user, nice, system, idle and interrupts; what else there is counts as nothing, as in the reports that centers
    /// know.
    total: u64,
    idle: u64,
}

impl Ticks {
    /// Reads the first line of `proc_stat(5)`.
    fn read(stat: &str) -> Option<Self> {
        let mut fields = stat.lines().next()?.strip_prefix("cpu ")?.split_ascii_whitespace();
        let mut next = || fields.next()?.parse::<u64>().ok();
        let [user, nice, system, idle, _waiting, interrupts] =
            [next()?, next()?, next()?, next()?, next()?, next()?];
        let total = [user, nice, system, idle, interrupts].into_iter().fold(0, u64::saturating_add);
        Some(Self { total, idle })
    }

    /// How much of the time since `earlier` was not idle, percent.
    fn used_since(self, earlier: Self) -> Number {
        // Counters of a system never go back, but for a processor that is taken away.
        let total = self.total.saturating_sub(earlier.total);
        let idle = self.idle.saturating_sub(earlier.idle).min(total);
        percent(float(total - idle), float(total)).unwrap_or(Number::whole(0.0))
    }
}

/// What looks at the machine for one report after the other.
pub(super) struct Machine {
    sampler: Sampler,
    /// As of the last report.
    ticks: Option<Ticks>,
}

impl Machine {
    pub(super) fn new() -> Self {
        Self { sampler: Sampler::new(), ticks: None }
    }

    fn look(&mut self) -> Figures {
        let ticks = fs::read_to_string("/proc/stat").ok().and_then(|stat| Ticks::read(&stat));
        let cpu = ticks.zip(self.ticks).map(|(now, earlier)| now.used_since(earlier));
        self.ticks = ticks.or(self.ticks);
        Figures::new(self.sampler.sample_without_disks().as_ref(), root_file_system(), cpu)
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
    capabilities: [&'static str; 3],
    metrics: Figures,
    version: &'static str,
    hostname: String,
    platform: String,
    credentials: Vec<Held>,
}

/// What the center is told of a credential.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Held {
    credential_name: String,
    credential_type: CredentialType,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_host: Option<String>,
    storage_mode: StorageMode,
    last_updated_at: u64,
}

impl From<CredentialMeta> for Held {
    fn from(meta: CredentialMeta) -> Self {
        let CredentialMeta {
            credential_name,
            credential_type,
            target_host,
            storage_mode,
            last_updated_at,
            ..
        } = meta;
        Self { credential_name, credential_type, target_host, storage_mode, last_updated_at }
    }
}

/// A report as it is sent. Looks at the machine, and at no file system but that of `/`. Blocks.
pub(super) fn report(relay_id: &str, machine: &mut Machine, credentials: Vec<CredentialMeta>) -> Vec<u8> {
    let facts = facts();
    let report = Report {
        relay_id,
        capabilities: CAPABILITIES,
        metrics: machine.look(),
        version: env!("CARGO_PKG_VERSION"),
        hostname: facts.hostname,
        platform: format!("linux-{}", architecture(std::env::consts::ARCH)),
        credentials: credentials.into_iter().map(Held::from).collect(),
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
    use rstest::rstest;
    use serde_json::{Value, json};

    fn metrics() -> Metrics {
        Metrics {
            memory_used_bytes: 1_086_324_736,
            memory_total_bytes: 25_276_973_056,
            load: [1.94, 1.905, 0.9],
            ..Metrics::default()
        }
    }

    #[rstest]
    #[case("x86_64", "x64")]
    #[case("aarch64", "arm64")]
    #[case("riscv64", "riscv64")]
    fn architectures_are_those_of_node(#[case] name: &str, #[case] told: &str) {
        assert_eq!(architecture(name), told);
    }

    #[test]
    fn figures_are_rounded_and_ordered() {
        let root = Some((14_710_262_989, 270_550_738_780));
        let text =
            serde_json::to_string(&Figures::new(Some(&metrics()), root, Some(Number::hundredths(17.519))))
                .unwrap();
        assert_eq!(
            text,
            r#"{"cpuPercent":17.52,"memoryTotalMb":24106,"memoryUsedMb":1036,"memoryPercent":4.3,"loadAvg1m":1.94,"loadAvg5m":1.91,"loadAvg15m":0.9,"diskTotalGb":251.97,"diskUsedGb":13.7,"diskPercent":5.44}"#
        );
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        let figures = |metrics, root| serde_json::to_value(Figures::new(metrics, root, None)).unwrap();
        assert_eq!(figures(None, None), json!({}));
        let metrics = metrics();
        let first = figures(Some(&metrics), None);
        assert_eq!(first.get("cpuPercent"), None);
        assert_eq!(first.get("memoryTotalMb"), Some(&json!(24106)));
        assert_eq!(figures(None, Some((0, 0))), json!({"diskTotalGb": 0, "diskUsedGb": 0}));
    }

    #[test]
    fn cpu_use_is_what_was_not_idle_between_two_reports() {
        // user nice system idle iowait irq softirq steal
        let earlier = Ticks::read("cpu  100 20 30 1000 500 5 7 9 0 0\ncpu0 1 1 1 1 1 1\n").unwrap();
        assert_eq!(earlier, Ticks { total: 1155, idle: 1000 });
        let now = Ticks::read("cpu  150 30 60 1200 900 15 90 90 0 0\n").unwrap();
        assert_eq!(now.used_since(earlier), Number::hundredths(33.33));
        assert_eq!(now.used_since(now), Number::whole(0.0));
        assert_eq!(earlier.used_since(now), Number::whole(0.0));
        for bad in ["", "cpu 1 2 3", "cpu0 1 2 3 4 5 6", "cpu 1 2 3 4 5 x"] {
            assert_eq!(Ticks::read(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_machine_is_reported_as_it_is() {
        let mut machine = Machine::new();
        for is_first in [true, false] {
            let report: Value = serde_json::from_slice(&report("asg", &mut machine, Vec::new())).unwrap();
            assert_eq!(report["relayId"], "asg");
            assert_eq!(report["capabilities"], json!(["local_cmd", "ssh", "perf_metrics"]));
            assert_eq!(report["version"], env!("CARGO_PKG_VERSION"));
            assert_eq!(report["credentials"], json!([]));
            assert_eq!(report["platform"], format!("linux-{}", architecture(std::env::consts::ARCH)));
            assert_eq!(report["hostname"], fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim());
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
