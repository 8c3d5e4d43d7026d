//! Times, sizes and choices as they are written in the file. Pure.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::cli::quantity;

/// A time with its unit, such as `"30s"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time {
    /// The same in milliseconds.
    pub ms: u64,
}

impl Time {
    /// So many milliseconds.
    pub const fn of_ms(ms: u64) -> Self {
        Self { ms }
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let whole = |unit: u64| self.ms > 0 && self.ms.is_multiple_of(unit);
        let units = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)];
        let unit = units.into_iter().find(|(_, unit)| whole(*unit)).unwrap_or(("ms", 1));
        serializer.serialize_str(&format!("{}{}", self.ms / unit.1, unit.0))
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        quantity::duration_ms(&text).map(Self::of_ms).map_err(D::Error::custom)
    }
}

/// A size with its unit, such as `"64KiB"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size {
    /// The same in bytes.
    pub bytes: u64,
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let units = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1_u64 << 10)];
        let whole = |unit: u64| self.bytes > 0 && self.bytes.is_multiple_of(unit);
        let unit = units.into_iter().find(|(_, unit)| whole(*unit)).unwrap_or(("B", 1));
        serializer.serialize_str(&format!("{}{}", self.bytes / unit.1, unit.0))
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        quantity::size_bytes(&text).map(|bytes| Self { bytes }).map_err(D::Error::custom)
    }
}

/// What is decided here, or by what the terminal says: `"auto"`, `true` or `false`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Choice {
    /// By the terminal and the environment.
    #[default]
    Auto,
    /// Yes, whatever they say.
    Yes,
    /// No, whatever they say.
    No,
}

impl Choice {
    /// The decision, `auto` being what the terminal says.
    pub fn or(self, auto: bool) -> bool {
        match self {
            Self::Auto => auto,
            Self::Yes => true,
            Self::No => false,
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    Bool(bool),
    Word(String),
}

impl Serialize for Choice {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::Yes => serializer.serialize_bool(true),
            Self::No => serializer.serialize_bool(false),
        }
    }
}

impl<'de> Deserialize<'de> for Choice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Written::deserialize(deserializer)? {
            Written::Bool(true) => Ok(Self::Yes),
            Written::Bool(false) => Ok(Self::No),
            Written::Word(word) if word == "auto" => Ok(Self::Auto),
            Written::Word(_) => Err(D::Error::custom("write \"auto\", true or false")),
        }
    }
}
