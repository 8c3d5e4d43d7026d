//! Relays of the old contract: what they say about themselves.

use serde::{Deserialize, Serialize, Serializer};

use crate::{
    credential::CredentialMeta,
    heartbeat::Metrics,
    id::Workspace,
    limit, number,
    record::{Edition, is_first},
    signed::Message,
};

/// What the relay of an assignment last said about itself, without what changes from report to report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayRecord {
    /// Workspace.
    pub ws: Workspace,
    /// The assignment.
    pub assignment: String,
    /// What it can do, such as `local_cmd`, `ssh`, `perf_metrics`.
    pub capabilities: Vec<String>,
    /// Its version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Host name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Operating system and architecture, such as `linux-x64`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// Credentials it holds, without their values.
    pub credentials: Vec<CredentialMeta>,
    /// When it first reported, Unix ms.
    pub created_at: u64,
    /// When it first said what stands here, Unix ms.
    pub reported_at: u64,
    /// When it was removed together with its assignment, Unix ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removed_at: Option<u64>,
    /// Grows with each edition, so that an older one that is published again changes nothing.
    #[serde(default, skip_serializing_if = "is_first")]
    pub revision: u64,
}

impl Message for RelayRecord {
    const TYPE: &'static str = "relay";
    const MAX_BYTES: usize = limit::RECORD_BYTES;
}

impl Edition for RelayRecord {
    fn revision(&mut self) -> &mut u64 {
        &mut self.revision
    }
}

/// How a machine is, as a relay of the old contract says: everything is optional. MiB, GiB, percent of 100,
/// brought into their ranges when they are read.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LegacyMetrics {
    /// CPU use since the report before, all cores together, 0 to 100.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        serialize_with = "plain",
        deserialize_with = "number::percent_if_any"
    )]
    pub cpu_percent: Option<f64>,
    /// Memory there is, MiB.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        serialize_with = "plain",
        deserialize_with = "number::amount_if_any"
    )]
    pub memory_total_mb: Option<f64>,
    /// Memory in use, MiB.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        serialize_with = "plain",
        deserialize_with = "number::amount_if_any"
    )]
    pub memory_used_mb: Option<f64>,
    /// Memory in use, 0 to 100.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        serialize_with = "plain",
        deserialize_with = "number::percent_if_any"
    )]
    pub memory_percent: Option<f64>,
    /// Load average over 1 minute.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        serialize_with = "plain",
        deserialize_with = "number::amount_if_any"
    )]
    pub load_avg_1m: Option<f64>,
    /// Load average over 5 minutes.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        serialize_with = "plain",
        deserialize_with = "number::amount_if_any"
    )]
    pub load_avg_5m: Option<f64>,
    /// Load average over 15 minutes.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        serialize_with = "plain",
        deserialize_with = "number::amount_if_any"
    )]
    pub load_avg_15m: Option<f64>,
    /// The root file system, GiB.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        serialize_with = "plain",
        deserialize_with = "number::amount_if_any"
    )]
    pub disk_total_gb: Option<f64>,
    /// In use of it, GiB.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        serialize_with = "plain",
        deserialize_with = "number::amount_if_any"
    )]
    pub disk_used_gb: Option<f64>,
    /// In use of it, 0 to 100.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        serialize_with = "plain",
        deserialize_with = "number::percent_if_any"
    )]
    pub disk_percent: Option<f64>,
}

impl From<&Metrics> for LegacyMetrics {
    /// The same in these units, with the digits that relays of the old contract give: whole MiB, else hundredths.
    fn from(metrics: &Metrics) -> Self {
        const MIB: f64 = 1_048_576.0;
        const GIB: f64 = 1_073_741_824.0;
        let hundredths = |number: f64| Some((number * 100.0).round() / 100.0);
        let percent = |used: f64, total: f64| hundredths(used / total * 100.0).filter(|_| total > 0.0);
        let (used, total) = (float(metrics.memory_used_bytes), float(metrics.memory_total_bytes));
        let root = metrics.disks.iter().find(|disk| disk.mount == "/");
        let root = root.map(|disk| (float(disk.used_bytes), float(disk.total_bytes)));
        let [one, five, fifteen] = metrics.load;
        Self {
            cpu_percent: hundredths(f64::from(metrics.cpu_percent)),
            memory_total_mb: Some((total / MIB).round()),
            memory_used_mb: Some((used / MIB).round()),
            memory_percent: percent(used, total),
            load_avg_1m: hundredths(one),
            load_avg_5m: hundredths(five),
            load_avg_15m: hundredths(fifteen),
            disk_total_gb: root.and_then(|(_, total)| hundredths(total / GIB)),
            disk_used_gb: root.and_then(|(used, _)| hundredths(used / GIB)),
            disk_percent: root.and_then(|(used, total)| percent(used, total)),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "sizes of machines, shown with two decimals")]
fn float(bytes: u64) -> f64 {
    bytes as f64
}

/// Whole numbers without a point, as whoever reported them wrote them.
#[expect(clippy::ref_option, reason = "serde's signature")]
fn plain<S: Serializer>(number: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
    /// Up to here every whole number is itself.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match number {
        #[expect(clippy::cast_possible_truncation, reason = "it is whole, and exact")]
        Some(number) if number.fract() == 0.0 && number.abs() < EXACT => {
            serializer.serialize_i64(*number as i64)
        }
        number => number.serialize(serializer),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heartbeat::Disk;

    #[test]
    fn metrics_of_a_relay_with_keys_are_said_in_these_units() {
        let disk =
            |mount: &str, used_bytes| Disk { mount: mount.to_owned(), used_bytes, total_bytes: 3 << 30 };
        let metrics = Metrics {
            cpu_percent: 12.3,
            memory_used_bytes: 1_036 << 20,
            memory_total_bytes: 24_106 << 20,
            load: [1.944, 0.5, 0.0],
            disks: vec![disk("/data", 0), disk("/", 1 << 30)],
            ..Metrics::default()
        };
        let said = serde_json::to_value(LegacyMetrics::from(&metrics)).unwrap();
        let expected = serde_json::json!({
            "cpu_percent": 12.3, "memory_total_mb": 24106, "memory_used_mb": 1036, "memory_percent": 4.3,
            "load_avg_1m": 1.94, "load_avg_5m": 0.5, "load_avg_15m": 0, "disk_total_gb": 3, "disk_used_gb": 1,
            "disk_percent": 33.33,
        });
        assert_eq!(said, expected);
        let nothing = LegacyMetrics::from(&Metrics::default());
        assert_eq!((nothing.memory_percent, nothing.disk_total_gb), (None, None));
    }

    #[test]
    fn whole_numbers_have_no_point() {
        let metrics = LegacyMetrics {
            cpu_percent: Some(100.0),
            memory_percent: Some(4.3),
            disk_used_gb: Some(1e15),
            ..LegacyMetrics::default()
        };
        let json = serde_json::to_string(&metrics).unwrap();
        assert_eq!(json, r#"{"cpu_percent":100,"memory_percent":4.3,"disk_used_gb":1000000000000000}"#);
        assert_eq!(serde_json::from_str::<LegacyMetrics>(&json).unwrap(), metrics);
    }
}
