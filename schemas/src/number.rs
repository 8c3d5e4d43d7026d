//! Numbers that others have measured. They are foreign: whatever is sent is brought into its range when it is read, since
//! one that is out of it has no form in the next message and would spoil the whole list that it stands in.

use serde::{Deserialize, Deserializer};

/// Most that an amount may be (MiB, GiB, a load): whole numbers are exact up to here, and no machine has more.
const MOST: f64 = 1e15;

fn within(number: f64, most: f64) -> f64 {
    if number.is_nan() { 0.0 } else { number.clamp(0.0, most) }
}

/// A part of a hundred, 0 to 100.
#[must_use]
pub fn as_percent(number: f64) -> f64 {
    within(number, 100.0)
}

/// An amount, 0 to 10¹⁵.
#[must_use]
pub fn as_amount(number: f64) -> f64 {
    within(number, MOST)
}

/// Reads a part of a hundred.
///
/// # Errors
/// When it is no number.
#[expect(clippy::cast_possible_truncation, reason = "percent need no more")]
pub(crate) fn percent<'de, D: Deserializer<'de>>(from: D) -> Result<f32, D::Error> {
    f64::deserialize(from).map(|number| as_percent(number) as f32)
}

/// Reads three amounts.
///
/// # Errors
/// When they are not three numbers.
pub(crate) fn amounts<'de, D: Deserializer<'de>>(from: D) -> Result<[f64; 3], D::Error> {
    <[f64; 3]>::deserialize(from).map(|numbers| numbers.map(as_amount))
}

/// Reads a part of a hundred, if there is one.
///
/// # Errors
/// When it is no number.
pub fn percent_if_any<'de, D: Deserializer<'de>>(from: D) -> Result<Option<f64>, D::Error> {
    Ok(Option::<f64>::deserialize(from)?.map(as_percent))
}

/// Reads an amount, if there is one.
///
/// # Errors
/// When it is no number.
pub fn amount_if_any<'de, D: Deserializer<'de>>(from: D) -> Result<Option<f64>, D::Error> {
    Ok(Option::<f64>::deserialize(from)?.map(as_amount))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;
    use serde_json::json;

    use crate::{heartbeat::Metrics, relay::LegacyMetrics};

    use super::*;

    #[rstest]
    #[case(f64::NAN, 0.0, 0.0)]
    #[case(f64::INFINITY, 100.0, MOST)]
    #[case(f64::NEG_INFINITY, 0.0, 0.0)]
    #[case(-1.0, 0.0, 0.0)]
    #[case(99.5, 99.5, 99.5)]
    #[case(1e39, 100.0, MOST)]
    fn a_number_is_brought_into_its_range(#[case] number: f64, #[case] percent: f64, #[case] amount: f64) {
        assert_eq!(
            (as_percent(number).to_bits(), as_amount(number).to_bits()),
            (percent.to_bits(), amount.to_bits())
        );
    }

    proptest! {
        /// What one part has read, the next one can read.
        #[test]
        fn whatever_is_sent_is_sent_on(number in any::<f64>().prop_filter("finite", |n| n.is_finite())) {
            let metrics = json!({"cpu_percent": number, "cpus": 1, "memory_used_bytes": 0, "memory_total_bytes": 0,
                "swap_used_bytes": 0, "swap_total_bytes": 0, "load": [number, number, number], "uptime_secs": 0});
            let metrics: Metrics = serde_json::from_value(metrics).unwrap();
            prop_assert!((0.0..=100.0).contains(&metrics.cpu_percent), "{metrics:?}");
            let again: Metrics = serde_json::from_str(&serde_json::to_string(&metrics).unwrap()).unwrap();
            prop_assert_eq!(again, metrics);
            let names = ["cpu_percent", "memory_total_mb", "memory_used_mb", "memory_percent", "load_avg_1m",
                "load_avg_5m", "load_avg_15m", "disk_total_gb", "disk_used_gb", "disk_percent"];
            let told: serde_json::Map<_, _> = names.map(|name| (name.to_owned(), json!(number))).into_iter().collect();
            let told: LegacyMetrics = serde_json::from_value(told.into()).unwrap();
            let shown = serde_json::to_value(&told).unwrap();
            for name in names {
                let most = if name.ends_with("percent") { 100.0 } else { MOST };
                prop_assert!(shown[name].as_f64().is_some_and(|it| (0.0..=most).contains(&it)), "{name}: {shown}");
            }
        }
    }
}
