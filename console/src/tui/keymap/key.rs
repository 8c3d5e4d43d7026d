//! Keys, and how they are written: `j`, `G`, `<enter>`, `<c-d>`, `<a-b>`; `<lt>` is `<`, `<space>` a space.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// One key press.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    /// Which key.
    pub code: Code,
    /// With Ctrl.
    pub ctrl: bool,
    /// With Alt.
    pub alt: bool,
}

/// Which key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// A character, as it would be written: Shift is part of it.
    Char(char),
    /// A key with a name.
    Named(&'static str),
}

/// Names of keys that are no characters.
const NAMES: [&str; 15] = [
    "enter",
    "esc",
    "tab",
    "s-tab",
    "backspace",
    "delete",
    "left",
    "right",
    "up",
    "down",
    "home",
    "end",
    "pgup",
    "pgdn",
    "insert",
];

impl Key {
    /// A key without Ctrl and Alt.
    pub fn plain(code: Code) -> Self {
        Self { code, ctrl: false, alt: false }
    }

    /// A key by its name; `None` = no such name.
    pub fn named(name: &str) -> Option<Self> {
        NAMES.iter().find(|known| **known == name).map(|name| Self::plain(Code::Named(name)))
    }

    /// The character that it writes.
    pub fn character(self) -> Option<char> {
        match self.code {
            Code::Char(c) if !self.ctrl && !self.alt => Some(c),
            Code::Char(_) | Code::Named(_) => None,
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (ctrl, alt) = (if self.ctrl { "c-" } else { "" }, if self.alt { "a-" } else { "" });
        match self.code {
            Code::Char(' ') => write!(f, "<{ctrl}{alt}space>"),
            Code::Char('<') => write!(f, "<{ctrl}{alt}lt>"),
            Code::Char(c) if !self.ctrl && !self.alt => write!(f, "{c}"),
            Code::Char(c) => write!(f, "<{ctrl}{alt}{c}>"),
            Code::Named(name) => write!(f, "<{ctrl}{alt}{name}>"),
        }
    }
}

/// The text is no sequence of keys.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no key is written `<{0}>`")]
pub struct KeyError(String);

impl Serialize for Key {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match parse(&text).as_deref() {
            Ok([key]) => Ok(*key),
            _ => Err(D::Error::custom(format!("`{text}` is not one key"))),
        }
    }
}

/// Reads keys as they are written: `"jj<enter>"` are three.
///
/// # Errors
/// [`KeyError`] naming what stands between `<` and `>` and is no key.
pub fn parse(text: &str) -> Result<Vec<Key>, KeyError> {
    let mut keys = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let after = rest.get(c.len_utf8()..).unwrap_or_default();
        if c == '<' {
            let (name, tail) = after.split_once('>').ok_or_else(|| KeyError(after.to_owned()))?;
            keys.push(bracketed(name).ok_or_else(|| KeyError(name.to_owned()))?);
            rest = tail;
        } else {
            keys.push(Key::plain(Code::Char(c)));
            rest = after;
        }
    }
    Ok(keys)
}

fn bracketed(name: &str) -> Option<Key> {
    let (ctrl, name) = name.strip_prefix("c-").map_or((false, name), |name| (true, name));
    let (alt, name) = name.strip_prefix("a-").map_or((false, name), |name| (true, name));
    let mut chars = name.chars();
    let code = match (name, chars.next(), chars.next()) {
        ("space", ..) => Code::Char(' '),
        ("lt", ..) => Code::Char('<'),
        (_, Some(c), None) => Code::Char(c),
        _ => Key::named(name)?.code,
    };
    Some(Key { code, ctrl, alt })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn keys_are_read_as_they_are_written(c in any::<char>(), ctrl: bool, alt: bool, at in 0..NAMES.len()) {
            for code in [Code::Char(c), Code::Named(NAMES[at])] {
                let key = Key { code, ctrl, alt };
                if code != Code::Char('>') || !(ctrl || alt) {
                    prop_assert_eq!(parse(&key.to_string()), Ok(vec![key]));
                }
            }
        }
    }

    #[test]
    fn a_story_is_read() {
        let keys = parse("j<c-d><space><lt>").unwrap();
        let written: Vec<String> = keys.iter().map(Key::to_string).collect();
        assert_eq!(written, ["j", "<c-d>", "<space>", "<lt>"]);
        assert!(parse("<nokey>").is_err());
    }
}
