//! The members of a large object that are wanted, read without keeping the others: a body of 16 MiB can hold millions of
//! values, each of which would take many times its bytes.

use std::{fmt, io::Read};

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Names of members.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted(pub(crate) &'static [&'static str]);

impl Wanted {
    /// Reads one JSON document.
    ///
    /// # Errors
    /// When it is none.
    pub(super) fn read(self, reader: impl Read) -> serde_json::Result<Value> {
        let mut reading = serde_json::Deserializer::from_reader(reader);
        let value = reading.deserialize_any(self)?;
        reading.end()?;
        Ok(value)
    }
}

impl<'de> Visitor<'de> for Wanted {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON document")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut kept = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            if self.0.contains(&name.as_str()) {
                kept.insert(name, members.next_value::<Scalar>()?.0);
            } else {
                members.next_value::<IgnoredAny>()?;
            }
        }
        Ok(Value::Object(kept))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Value, A::Error> {
        Scalar::of_items(items)
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(text.into())
    }
}

/// A text, number or truth value; of an array or an object, an empty one.
struct Scalar(Value);

impl Scalar {
    fn of_items<'de, A: SeqAccess<'de>>(mut items: A) -> Result<Value, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Value::Array(Vec::new()))
    }
}

struct ScalarVisitor;

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScalarVisitor).map(Self)
    }
}

impl<'de> Visitor<'de> for ScalarVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        while members.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Value::Object(Map::new()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Value, A::Error> {
        Scalar::of_items(items)
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("a number without end"))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(text.into())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_wanted_is_kept_and_nothing_else() {
        let read = |text: &str| Wanted(&["a", "b"]).read(text.as_bytes());
        assert_eq!(
            read(r#"{"a":"x","z":[1,{"a":2}],"b":1.5,"a":"y"}"#).unwrap(),
            json!({"a": "y", "b": 1.5})
        );
        assert_eq!(read(r#"{"a":[1,[2]],"b":{"c":1}}"#).unwrap(), json!({"a": [], "b": {}}));
        assert_eq!(read(r#"{"a":null,"b":-1}"#).unwrap(), json!({"a": null, "b": -1}));
        for (text, value) in
            [("[1]", json!([])), ("null", json!(null)), ("\"x\"", json!("x")), ("7", json!(7))]
        {
            assert_eq!(read(text).unwrap(), value);
        }
        for broken in ["", "{", "{\"z\":[1,]}", "{}x", "{\"a\":\"\\ud800\"}"] {
            assert!(read(broken).is_err(), "{broken}");
        }
    }
}
