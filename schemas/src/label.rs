//! Labels: what people and relays say a machine is for.
//!
//! A label has a key and a value, and comes from one of three sources. What an operator has set, or an assignment has
//! brought, goes before what the relay says of itself: that is its own word, see [`LabelSource::is_own_word`].

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fmt,
    str::FromStr,
};

use serde::{Deserialize, Serialize};

use crate::id::{IdError, text_id};

/// Longest key, in bytes.
pub const LABEL_KEY_BYTES: usize = 63;
/// Longest value, in characters.
pub const LABEL_VALUE_CHARS: usize = 128;
/// Most labels that one source gives to a machine.
pub const LABELS: usize = 32;

text_id!(
    /// What a label is called: `[a-z0-9][a-z0-9._/-]{0,62}`.
    LabelKey,
    "label key",
    "1-63 of a-z, 0-9, `.`, `_`, `/` and `-`, starting with a letter or digit",
    |text| {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        text.len() <= LABEL_KEY_BYTES
            && text.bytes().next().is_some_and(plain)
            && text.bytes().all(|b| plain(b) || matches!(b, b'.' | b'_' | b'/' | b'-'))
    }
);
text_id!(
    /// What a label says: 0-128 printable characters, without white space at its ends.
    LabelValue,
    "label value",
    "0-128 printable characters without white space at the ends",
    |text| {
        let printable = !text.chars().any(char::is_control);
        text.chars().count() <= LABEL_VALUE_CHARS && printable && text.trim().len() == text.len()
    }
);

/// Labels as one source gives them, at most [`LABELS`].
pub type LabelMap = BTreeMap<LabelKey, LabelValue>;

/// Who says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LabelSource {
    /// An operator has set it.
    Operator,
    /// The assignment has brought it, with whose key the relay has enrolled.
    Enrolment,
    /// The relay says it of itself.
    Relay,
}

impl LabelSource {
    /// The spelling on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Enrolment => "enrolment",
            Self::Relay => "relay",
        }
    }

    /// Whether only the machine itself answers for it: such a label selects nobody who is to be given a secret.
    pub fn is_own_word(self) -> bool {
        self == Self::Relay
    }
}

/// A label that counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Label {
    /// What it says.
    pub value: LabelValue,
    /// Who says it.
    pub source: LabelSource,
}

/// The labels of a machine that count, by key.
pub type Labels = BTreeMap<LabelKey, Label>;

/// Labels that others than the machine itself have given to it; each at most [`LABELS`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenLabels {
    /// Set by operators.
    #[serde(default, skip_serializing_if = "LabelMap::is_empty")]
    pub operator: LabelMap,
    /// Brought by the assignment with whose key the relay has enrolled.
    #[serde(default, skip_serializing_if = "LabelMap::is_empty")]
    pub enrolment: LabelMap,
}

impl GivenLabels {
    /// Whether nobody has given any.
    pub fn is_empty(&self) -> bool {
        self.operator.is_empty() && self.enrolment.is_empty()
    }

    /// The labels that count, with those that the relay says itself.
    pub fn counting(&self, relay: &LabelMap) -> Labels {
        counting(&self.operator, &self.enrolment, relay)
    }

    /// The same as it is shown, with what does not count.
    pub fn shown(&self, relay: &LabelMap) -> LabelViews {
        let mut shown = LabelViews::new();
        for (source, map) in in_order(&self.operator, &self.enrolment, relay) {
            for (key, value) in map {
                let label = Label { value: value.clone(), source };
                match shown.entry(key.clone()) {
                    Entry::Vacant(free) => drop(free.insert(LabelView { label, overruled: Vec::new() })),
                    Entry::Occupied(taken) => taken.into_mut().overruled.push(label),
                }
            }
        }
        shown
    }
}

/// A label as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabelView {
    /// What counts.
    #[serde(flatten)]
    pub label: Label,
    /// What others say under the same key, which does not count while this does: first what would count next.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub overruled: Vec<Label>,
}

/// The labels of a machine as they are shown, by key.
pub type LabelViews = BTreeMap<LabelKey, LabelView>;

/// The labels that count: of one key that several sources have, the operator's, then the assignment's, then the relay's.
pub fn counting(operator: &LabelMap, enrolment: &LabelMap, relay: &LabelMap) -> Labels {
    let mut labels = Labels::new();
    for (source, map) in in_order(operator, enrolment, relay) {
        for (key, value) in map {
            labels.entry(key.clone()).or_insert_with(|| Label { value: value.clone(), source });
        }
    }
    labels
}

/// The sources, who goes before whom.
fn in_order<'a>(
    operator: &'a LabelMap,
    enrolment: &'a LabelMap,
    relay: &'a LabelMap,
) -> [(LabelSource, &'a LabelMap); 3] {
    [(LabelSource::Operator, operator), (LabelSource::Enrolment, enrolment), (LabelSource::Relay, relay)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("role", true)]
    #[case("example.com/role_2-b", true)]
    #[case("0", true)]
    #[case("", false)]
    #[case("Role", false)]
    #[case("-role", false)]
    #[case("ro le", false)]
    #[case("a=b", false)]
    #[case("a12345678901234567890123456789012345678901234567890123456789012", true)]
    #[case("a123456789012345678901234567890123456789012345678901234567890123", false)]
    fn keys_have_a_spelling(#[case] text: &str, #[case] good: bool) {
        assert_eq!(LabelKey::new(text).is_ok(), good);
    }

    #[test]
    fn values_are_short_and_printable() {
        for good in ["", "web", "B\u{fc}ro 1", &"x".repeat(128)] {
            assert!(LabelValue::new(good).is_ok(), "{good:?}");
        }
        for bad in [" web", "a\nb", &"x".repeat(129)] {
            assert!(LabelValue::new(bad).is_err(), "{bad:?}");
        }
    }

    fn map(pairs: &[(&str, &str)]) -> LabelMap {
        let pair =
            |(key, value): &(&str, &str)| (LabelKey::new(*key).unwrap(), LabelValue::new(*value).unwrap());
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn what_an_operator_says_goes_before_what_a_relay_says() {
        let given = GivenLabels {
            operator: map(&[("role", "web")]),
            enrolment: map(&[("role", "db"), ("dc", "fra")]),
        };
        let relay = map(&[("role", "x"), ("dc", "y"), ("rack", "z")]);
        let word = |label: &Label| format!("{} {}", label.value, label.source.as_str());
        let counting = given.counting(&relay);
        let shown = given.shown(&relay);
        let counted: Vec<String> =
            counting.iter().map(|(key, label)| format!("{key}={}", word(label))).collect();
        assert_eq!(counted, ["dc=fra enrolment", "rack=z relay", "role=web operator"]);
        let both: Vec<String> = shown
            .iter()
            .map(|(key, it)| {
                let overruled: Vec<String> = it.overruled.iter().map(word).collect();
                format!("{key}={} ({})", word(&it.label), overruled.join(", "))
            })
            .collect();
        assert_eq!(
            both,
            ["dc=fra enrolment (y relay)", "rack=z relay ()", "role=web operator (db enrolment, x relay)"]
        );
    }
}
