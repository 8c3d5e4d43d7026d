//! One thing for people: its members one below the other, in their order. Pure.

use serde::Serialize;
use serde_json::Value;

use super::{clean, quantity};

/// What stands for what is not known.
pub const NOTHING: &str = "-";
/// Members with this ending are moments, Unix ms.
const MOMENT: &str = "_at";

/// A thing with named members, as lines. Foreign text is made harmless; moments are shown as they are long ago at
/// `now_ms`, Unix ms.
pub fn card<T: Serialize>(thing: &T, now_ms: u64) -> String {
    // Our types always have a JSON form, and those that are shown like this are objects.
    let members = match serde_json::to_value(thing) {
        Ok(Value::Object(members)) => members,
        Ok(other) => return words(&other) + "\n",
        Err(_) => return String::new(),
    };
    let widest = members.keys().map(String::len).max().unwrap_or(0);
    let line = |(name, value): (&String, &Value)| {
        let shown = match value.as_u64().filter(|_| name.ends_with(MOMENT)) {
            Some(at) => moment(at, now_ms),
            None => words(value),
        };
        // The names are those of our types: plain ASCII.
        format!("{:widest$}  {shown}", name.replace('_', " ")).trim_end().to_owned() + "\n"
    };
    members.iter().map(line).collect()
}

/// A moment, Unix ms: how long ago it is, or how far ahead.
pub fn moment(at: u64, now_ms: u64) -> String {
    match at.checked_sub(now_ms) {
        // Clocks differ a little.
        Some(ahead) if ahead >= 1_000 => format!("in {}", quantity::show_age(ahead)),
        _ => format!("{} ago", quantity::show_age(now_ms.saturating_sub(at))),
    }
}

fn words(value: &Value) -> String {
    match value {
        Value::Null => NOTHING.to_owned(),
        Value::Bool(yes) => if *yes { "yes" } else { "no" }.to_owned(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => clean::line(text),
        Value::Array(items) if items.is_empty() => NOTHING.to_owned(),
        Value::Array(items) if items.iter().all(Value::is_string) => {
            items.iter().map(words).collect::<Vec<_>>().join(", ")
        }
        Value::Array(_) | Value::Object(_) => clean::json(&value.to_string()),
    }
}
