//! JSON as JavaScript takes it. Pure.
//!
//! A reader of this house is stricter: it refuses half a surrogate pair in a text (`"\ud83d"`), and numbers that are too large
//! for it (`1e999`). Here a body is read in pieces, so that neither spoils what stands beside it; and of a large body nothing is
//! made but what is asked for.

use std::{borrow::Cow, fmt};

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Entries of a list that are read; those after them are counted. Centers tell ten commands at once.
const MAX_ENTRIES: usize = 1_000;

/// A value as it came.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Json<'a>(&'a str);

/// What stands in a list.
#[derive(Debug)]
pub(crate) struct Entries<'a> {
    /// The first ones.
    pub(crate) first: Vec<Json<'a>>,
    /// How many more there are.
    pub(crate) more: usize,
}

/// A body as text that can be read. What is no UTF-8, and half a surrogate pair, becomes a replacement character.
pub(crate) fn text_of(body: &[u8]) -> Cow<'_, str> {
    match String::from_utf8_lossy(body) {
        Cow::Borrowed(text) => whole_pairs(text),
        Cow::Owned(text) => Cow::Owned(whole_pairs(&text).into_owned()),
    }
}

impl<'a> Json<'a> {
    /// A whole text. That it is JSON shows when it is read.
    pub(crate) fn new(text: &'a str) -> Self {
        // JavaScript passes over it where it reads a body.
        Self(text.strip_prefix('\u{feff}').unwrap_or(text))
    }

    /// The text of the value.
    pub(crate) fn as_written(self) -> &'a str {
        self.0
    }

    /// Members of an object, in the order of their names here; of those that come twice, the last. `None` when it is none.
    pub(crate) fn members<const N: usize>(self, names: [&str; N]) -> Option<[Option<Self>; N]> {
        self.read(Members(names))
    }

    /// Entries of a list. `None` when it is none.
    pub(crate) fn entries(self) -> Option<Entries<'a>> {
        self.read(List)
    }

    /// A text. `None` when it is none.
    pub(crate) fn text(self) -> Option<String> {
        serde_json::from_str(self.0).ok()
    }

    /// A number, perhaps an infinite one. `None` when it is none.
    pub(crate) fn number(self) -> Option<f64> {
        let is_number = self.0.starts_with(|first: char| first == '-' || first.is_ascii_digit());
        self.0.parse().ok().filter(|_| is_number)
    }

    /// JavaScript's idea of a yes.
    pub(crate) fn is_truthy(self) -> bool {
        match self.0 {
            "null" | "false" | "\"\"" => false,
            _ => self.number() != Some(0.0),
        }
    }

    fn read<T>(self, seed: impl DeserializeSeed<'a, Value = T>) -> Option<T> {
        let mut reader = serde_json::Deserializer::from_str(self.0);
        let value = seed.deserialize(&mut reader).ok()?;
        reader.end().ok()?;
        Some(value)
    }
}

struct Members<'n, const N: usize>([&'n str; N]);

impl<'de, const N: usize> DeserializeSeed<'de> for Members<'_, N> {
    type Value = [Option<Json<'de>>; N];

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, const N: usize> Visitor<'de> for Members<'_, N> {
    type Value = [Option<Json<'de>>; N];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = [None; N];
        while let Some(name) = map.next_key::<String>()? {
            let place = self.0.iter().position(|wanted| *wanted == name);
            match place.and_then(|place| found.get_mut(place)) {
                Some(place) => *place = Some(Json(map.next_value::<&RawValue>()?.get())),
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(found)
    }
}

struct List;

impl<'de> DeserializeSeed<'de> for List {
    type Value = Entries<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for List {
    type Value = Entries<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut entries = Entries { first: Vec::new(), more: 0 };
        while entries.first.len() < MAX_ENTRIES {
            let Some(entry) = list.next_element::<&RawValue>()? else { return Ok(entries) };
            entries.first.push(Json(entry.get()));
        }
        while list.next_element::<IgnoredAny>()?.is_some() {
            entries.more += 1;
        }
        Ok(entries)
    }
}

/// Puts a replacement character for each escaped surrogate that has no partner.
fn whole_pairs(text: &str) -> Cow<'_, str> {
    let mut whole = String::new();
    // How far `text` is in `whole`.
    let (mut done, mut at) = (0, 0);
    while let Some(found) = text.get(at..).and_then(|rest| rest.find('\\')) {
        let escape = at + found;
        let next = |from: usize| surrogate(text.get(escape + from..)?);
        at = match (next(0), next(ESCAPE)) {
            (Some(Surrogate::High), Some(Surrogate::Low)) => escape + 2 * ESCAPE,
            (Some(_), _) => {
                whole.push_str(text.get(done..escape).unwrap_or_default());
                whole.push_str("\\ufffd");
                done = escape + ESCAPE;
                done
            }
            // The backslash, and what it escapes: perhaps another one. A longer character than that ends where it does.
            (None, _) => {
                escape
                    + 1
                    + text.get(escape + 1..).and_then(|rest| rest.chars().next()).map_or(0, char::len_utf8)
            }
        };
    }
    if done == 0 {
        return Cow::Borrowed(text);
    }
    whole.push_str(text.get(done..).unwrap_or_default());
    Cow::Owned(whole)
}

/// Bytes of an escape such as `\ud83d`.
const ESCAPE: usize = 6;

#[derive(Debug, Clone, Copy)]
enum Surrogate {
    High,
    Low,
}

/// The escaped surrogate that a text begins with.
fn surrogate(text: &str) -> Option<Surrogate> {
    let digits = text.strip_prefix("\\u")?.get(..ESCAPE - 2)?;
    let is_hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    match u16::from_str_radix(digits, 16).ok().filter(|_| is_hex)? {
        0xd800..=0xdbff => Some(Surrogate::High),
        0xdc00..=0xdfff => Some(Surrogate::Low),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(r#""a""#, r#""a""#)]
    #[case(r#""\ud83d\ude00""#, r#""\ud83d\ude00""#)]
    #[case(r#""\ud83d""#, r#""\ufffd""#)]
    #[case(r#""\uDE00\uD83D x""#, r#""\ufffd\ufffd x""#)]
    #[case(r#""\ud83d\ud83d\ude00\ude00""#, r#""\ufffd\ud83d\ude00\ufffd""#)]
    #[case(r#""\\ud83d\\\ud83d\\\\ud83d""#, r#""\\ud83d\\\ufffd\\\\ud83d""#)]
    #[case(r#""\"\ud83d\"\u00e9""#, r#""\"\ufffd\"\u00e9""#)]
    #[case(r#""\ud83""#, r#""\ud83""#)]
    #[case(r#""\u+d83""#, r#""\u+d83""#)]
    #[case(r#""\ud83dé\é\"#, r#""\ufffdé\é\"#)]
    fn halves_of_pairs_are_replaced_and_nothing_else(#[case] text: &str, #[case] whole: &str) {
        assert_eq!(text_of(text.as_bytes()), whole);
    }

    #[test]
    fn bytes_that_are_no_text_are_replaced() {
        assert_eq!(text_of(b"\"a\xff\\ud83d\""), "\"a\u{fffd}\\ufffd\"");
        assert_eq!(Json::new("\u{feff}\"a\"").text(), Some("a".to_owned()));
    }

    #[rstest]
    #[case("null", false)]
    #[case("false", false)]
    #[case("0", false)]
    #[case("-0.0e5", false)]
    #[case(r#""""#, false)]
    #[case("true", true)]
    #[case("1e999", true)]
    #[case(r#""0""#, true)]
    #[case("[]", true)]
    #[case("{}", true)]
    fn a_yes_is_that_of_javascript(#[case] text: &str, #[case] yes: bool) {
        assert_eq!(Json::new(text).is_truthy(), yes);
    }

    #[rstest]
    #[case("1e999", Some(f64::INFINITY))]
    #[case("-2.5", Some(-2.5))]
    #[case("infinity", None)]
    #[case(r#""1""#, None)]
    fn numbers_may_be_large(#[case] text: &str, #[case] number: Option<f64>) {
        assert_eq!(Json::new(text).number(), number);
    }

    #[rstest]
    #[case(r#"{"a":1,"b":{"a":2},"a":[3]}"#, Some([Some("[3]"), None]))]
    #[case(r#"{"\u0061":1e999,"c":"x"}"#, Some([Some("1e999"), Some("\"x\"")]))]
    #[case("{}", Some([None, None]))]
    #[case("{} x", None)]
    #[case(r#"{"a":1"#, None)]
    #[case("[]", None)]
    fn members_are_found(#[case] text: &str, #[case] found: Option<[Option<&str>; 2]>) {
        let members = Json::new(text).members(["a", "c"]);
        assert_eq!(members.map(|members| members.map(|member| member.map(Json::as_written))), found);
    }

    #[test]
    fn a_long_list_is_read_from_its_beginning() {
        let text = format!("[{}0]", "1,".repeat(MAX_ENTRIES + 4));
        let entries = Json::new(&text).entries().unwrap();
        assert_eq!((entries.first.len(), entries.more), (MAX_ENTRIES, 5));
        assert!(Json::new("{}").entries().is_none() && Json::new("[1,]").entries().is_none());
    }
}
