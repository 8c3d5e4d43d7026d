//! The members of a large object that are wanted, read without keeping the others: a body of 16 MiB can hold millions of
//! values, each of which would take many times its bytes.

use std::{fmt, io::Read};

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Names of members.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted(pub(crate) &'static [&'static str]);

impl Wanted {
    /// Reads one JSON document.
    ///
    /// # Errors
    /// When it is none.
    pub(crate) fn read(self, reader: impl Read) -> serde_json::Result<Value> {
        let mut reading = serde_json::Deserializer::from_reader(reader);
        let value = self.deserialize(&mut reading)?;
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
            // Read as if it were wanted: also what is not must be JSON.
            let value = members.next_value_seed(Wanted(&[]))?;
            if self.0.contains(&name.as_str()) {
                kept.insert(name, value);
            }
        }
        Ok(Value::Object(kept))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        while items.next_element_seed(Wanted(&[]))?.is_some() {}
        Ok(Value::Array(Vec::new()))
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

/// As the value of a member: what is wanted of an object within an object is nothing, only that it is there.
impl<'de> DeserializeSeed<'de> for Wanted {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
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
        for broken in
            ["", "{", "{\"z\":[1,]}", "{}x", "{\"a\":\"\\ud800\"}", "{\"z\":\"\\ud800\"}", "{\"z\":1e999}"]
        {
            assert!(read(broken).is_err(), "{broken}");
        }
    }
}
