//! Reading what must not lose a member on its way. Types that relays and bridges share pass over what they do not know; where
//! a person or a program says something, a mistyped member must not be lost without a word.

use serde::{
    Deserializer, Serialize,
    de::{Deserialize, DeserializeOwned, Error as _},
};
use serde_json::Value;

/// Reads a value of which every member is kept, at any depth; `null` is as good as absent.
pub(super) fn whole<'de, D, T>(from: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned + Serialize,
{
    let given = Value::deserialize(from)?;
    let read = T::deserialize(&given).map_err(D::Error::custom)?;
    let kept = serde_json::to_value(&read).map_err(D::Error::custom)?;
    match unknown(&given, &kept) {
        Some(name) => Err(D::Error::custom(format_args!("unknown field `{name}`"))),
        None => Ok(read),
    }
}

/// The first member of a document that is not in what was made of it.
fn unknown<'a>(given: &'a Value, kept: &Value) -> Option<&'a str> {
    match (given, kept) {
        (Value::Object(given), Value::Object(kept)) => {
            given.iter().filter(|(_, value)| !value.is_null()).find_map(|(name, value)| {
                kept.get(name).map_or(Some(name.as_str()), |kept| unknown(value, kept))
            })
        }
        (Value::Array(given), Value::Array(kept)) => {
            given.iter().zip(kept).find_map(|(given, kept)| unknown(given, kept))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::super::Report;

    #[rstest]
    #[case(json!({"capabilities": [], "metrics": {"cpu_percent": 5, "disk_percent": null}}), None)]
    #[case(json!({"capabilities": [], "metrics": {"cpuPercent": null}}), None)]
    #[case(json!({"capabilities": [], "metrics": null, "credentials": null}), None)]
    #[case(json!({"capabilities": [], "metrics": {"cpuPercent": 5}}), Some("cpuPercent"))]
    #[case(json!({"capabilities": [], "credentials": [{"credential_name": "a", "credential_type": "password",
        "storage_mode": "shared", "last_updated_at": 1, "value": "x"}]}), Some("value"))]
    fn no_member_of_a_report_is_lost(#[case] body: serde_json::Value, #[case] lost: Option<&str>) {
        let refused = serde_json::from_value::<Report>(body).err().map(|error| error.to_string());
        assert_eq!(refused, lost.map(|name| format!("unknown field `{name}`")));
    }
}
