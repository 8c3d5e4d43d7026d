//! Bytes inside JSON.

use std::fmt;

use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Bytes that are written as base64url without padding inside JSON.
///
/// The reader is strict: padding, other alphabets, line breaks and non-zero trailing bits are refused, so one
/// value has one spelling.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Base64Url(pub Vec<u8>);

impl fmt::Debug for Base64Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl Serialize for Base64Url {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64URL_NOPAD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Base64Url {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl de::Visitor<'_> for Text {
            type Value = Base64Url;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("base64url text without padding")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Base64Url, E> {
                BASE64URL_NOPAD.decode(text.as_bytes()).map(Base64Url).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_value_has_one_spelling() {
        let text = serde_json::to_string(&Base64Url(vec![0xfb, 0xff])).unwrap();
        assert_eq!(text, r#""-_8""#);
        assert_eq!(serde_json::from_str::<Base64Url>(&text).unwrap().0, [0xfb, 0xff]);
        for bad in [r#""-_8=""#, r#""+/8""#, r#""-_9""#, r#"" -_8""#] {
            assert!(serde_json::from_str::<Base64Url>(bad).is_err(), "accepted {bad}");
        }
    }
}
