//! Which machines are meant: a name, a glob, or `all`.
//!
//! A glob knows `*` (any characters), `?` (one character), `[a-z]` and `{a,b}`; it is matched against the
//! machine's id and against its token. A character is a Unicode scalar value, of whatever length in bytes.

use std::borrow::Cow;

use globset::{ErrorKind, GlobBuilder, GlobSet};

use crate::{
    id::{MachineId, MachineToken},
    limit::SELECTOR_BYTES,
};

/// Different characters beyond ASCII in one glob; see [`Letters`].
const LETTERS: usize = 15;

/// A parsed selector.
#[derive(Debug, Clone)]
pub enum Selector {
    /// Every machine.
    All,
    /// One machine, by id or token.
    Name(String),
    /// All that match.
    Glob(Box<Glob>),
}

/// A compiled glob.
#[derive(Debug, Clone)]
pub struct Glob {
    set: GlobSet,
    letters: Letters,
}

/// The characters beyond ASCII of a glob, sorted. Globs are matched byte by byte, so each such character, and each gap
/// between two of them, is written as one control character, which no selector and no id has. They keep their order, so
/// that ranges hold.
#[derive(Debug, Clone)]
struct Letters(Vec<char>);

impl Letters {
    fn of(text: &str) -> Option<Self> {
        let mut letters: Vec<char> = text.chars().filter(|c| !c.is_ascii()).collect();
        letters.sort_unstable();
        letters.dedup();
        (letters.len() <= LETTERS).then_some(Self(letters))
    }

    /// The text with one byte for each character.
    fn flatten<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if text.is_ascii() {
            return Cow::Borrowed(text);
        }
        let flat = |c: char| {
            if c.is_ascii() {
                return c;
            }
            let place = self.0.binary_search(&c).map_or_else(|gap| 2 * gap, |known| 2 * known + 1);
            // 1 to 31, by the bound above.
            u8::try_from(place + 1).map_or(c, char::from)
        };
        text.chars().map(flat).collect()
    }
}

/// The text is no selector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a selector: {0}")]
pub struct SelectorError(String);

impl Selector {
    /// Parses a selector.
    ///
    /// # Errors
    /// [`SelectorError`] when it is empty, longer than 4 KiB or a malformed glob.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let text = text.trim();
        if text.is_empty() || text.len() > SELECTOR_BYTES || text.contains(char::is_control) {
            return Err(SelectorError("write a machine's name, a glob such as `web-*`, or `all`".to_owned()));
        }
        if text == "all" {
            return Ok(Self::All);
        }
        if !text.contains(['*', '?', '[', '{']) {
            return Ok(Self::Name(text.to_owned()));
        }
        let Some(letters) = Letters::of(text) else {
            return Err(SelectorError(format!("it has more than {LETTERS} different letters beyond ASCII")));
        };
        let glob =
            GlobBuilder::new(&letters.flatten(text)).literal_separator(false).backslash_escape(true).build();
        // A set of one: what cannot be compiled is an error here, where a matcher of its own panics.
        glob.and_then(|glob| GlobSet::builder().add(glob).build())
            .map(|set| Self::Glob(Box::new(Glob { set, letters })))
            .map_err(|error| SelectorError(reason(error.kind())))
    }

    /// The text that means the machine with this id, also when the id reads like a glob or like `all`.
    pub fn of_machine(id: &str) -> String {
        if id == "all" {
            return "[a]ll".to_owned();
        }
        if !id.contains(['*', '?', '[', '{']) {
            return id.to_owned();
        }
        let escaped = |c| {
            matches!(c, '*' | '?' | '[' | ']' | '{' | '}' | ',' | '\\').then_some('\\').into_iter().chain([c])
        };
        id.chars().flat_map(escaped).collect()
    }

    /// Whether a machine is meant.
    pub fn matches(&self, id: &MachineId, token: &MachineToken) -> bool {
        match self {
            Self::All => true,
            Self::Name(name) => name == id.as_str() || name == token.as_str(),
            Self::Glob(glob) => {
                glob.set.is_match(&*glob.letters.flatten(id.as_str())) || glob.set.is_match(token.as_str())
            }
        }
    }
}

fn reason(kind: &ErrorKind) -> String {
    match kind {
        // Its own text quotes all of what it made of the glob.
        ErrorKind::Regex(_) => "it is too large, or its braces are nested too deep".to_owned(),
        // In it, characters beyond ASCII would not be the ones that were written.
        ErrorKind::InvalidRange(..) => "a range runs backwards, or from ASCII to beyond it".to_owned(),
        kind => kind.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("all", true)]
    #[case("web-01", true)]
    #[case(" web-01 ", true)]
    #[case("web-*", true)]
    #[case("web-0?", true)]
    #[case("{db,web}-[0-9][0-9]", true)]
    #[case("*", true)]
    #[case("web", false)]
    #[case("Web-01", false)]
    #[case("web-0", false)]
    #[case("db-*", false)]
    fn selects(#[case] text: &str, #[case] meant: bool) {
        let id = MachineId::new("web-01").unwrap();
        assert_eq!(Selector::parse(text).unwrap().matches(&id, &id.token()), meant);
    }

    #[rstest]
    #[case("B\u{fc}ro ?", true)]
    #[case("B?ro 1", true)]
    #[case("B??ro 1", false)]
    #[case("????? ?", false)]
    #[case("???? ?", true)]
    #[case("B[\u{fc}\u{e4}]ro*", true)]
    #[case("B[!a]ro*", true)]
    #[case("B[!\u{fc}]ro*", false)]
    #[case("B[\u{e0}-\u{ff}]ro*", true)]
    #[case("B[\u{fd}-\u{ff}]ro*", false)]
    #[case("B{\u{e4},\u{fc}}ro*", true)]
    #[case("B\\\u{fc}ro*", true)]
    #[case("B\u{e4}ro*", false)]
    #[case("*ro*", true)]
    fn a_letter_beyond_ascii_is_one_character(#[case] text: &str, #[case] meant: bool) {
        let id = MachineId::new("B\u{fc}ro 1").unwrap();
        assert_eq!(Selector::parse(text).unwrap().matches(&id, &id.token()), meant);
    }

    #[test]
    fn a_machine_named_by_any_letters_is_matched_by_as_many_question_marks() {
        // Of one to four bytes each, and more of them than a glob may have.
        let letters: String = ['x', '\u{e9}', '\u{20ac}', '\u{1f980}'].into_iter().cycle().take(40).collect();
        let id = MachineId::new(letters.as_str()).unwrap();
        let matches = |marks: usize| Selector::parse(&"?".repeat(marks)).unwrap().matches(&id, &id.token());
        assert_eq!([39, 40, 41].map(matches), [false, true, false]);
        let many: String = ('\u{4e00}'..='\u{4e0f}').collect();
        assert!(Selector::parse(&format!("{many}*")).is_err());
        let fewer: String = many.chars().skip(1).collect();
        assert!(Selector::parse(&format!("{fewer}*")).is_ok());
    }

    #[rstest]
    #[case("[a-\u{e4}]")]
    #[case("")]
    #[case("   ")]
    #[case("[z-a]")]
    #[case("a{b")]
    #[case("a\nb")]
    fn refuses(#[case] text: &str) {
        assert!(Selector::parse(text).is_err(), "accepted {text:?}");
    }

    #[rstest]
    #[case(250)]
    #[case(2_000)]
    fn braces_nested_too_deep_are_refused(#[case] depth: usize) {
        let text = format!("{}a{}", "{".repeat(depth), "}".repeat(depth));
        let error = Selector::parse(&text).unwrap_err().to_string();
        assert_eq!(error, "not a selector: it is too large, or its braces are nested too deep");
    }

    #[test]
    fn a_machine_with_an_odd_name_is_found_by_both() {
        let id = MachineId::new("Web/1 (old)").unwrap();
        let token = id.token();
        for text in ["Web/1 (old)", token.as_str(), "Web*", "x-*"] {
            assert!(Selector::parse(text).unwrap().matches(&id, &token), "{text} misses it");
        }
    }

    #[rstest]
    #[case("web-1", "web-1")]
    #[case("a\\b", "a\\b")]
    #[case("all", "[a]ll")]
    #[case("a*", "a\\*")]
    #[case("[x]{a,b}?\\*", "\\[x\\]\\{a\\,b\\}\\?\\\\\\*")]
    fn a_machine_can_be_meant_whatever_it_is_called(#[case] id: &str, #[case] text: &str) {
        assert_eq!(Selector::of_machine(id), text);
        let selector = Selector::parse(text).unwrap();
        let matches = |id: &str| {
            let id = MachineId::new(id).unwrap();
            selector.matches(&id, &id.token())
        };
        assert!(matches(id));
        for other in ["web-2", "ab", "a1", "x", "xa", "alle"] {
            assert!(!matches(other), "{other}");
        }
    }
}
