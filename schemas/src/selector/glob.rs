//! Globs over characters, on a matcher of bytes.

use std::borrow::Cow;

use globset::{ErrorKind, GlobBuilder, GlobSet};

/// Different characters beyond ASCII in one glob; see [`Letters`].
pub(super) const LETTERS: usize = 15;

/// A compiled glob.
#[derive(Debug, Clone)]
pub(super) struct Glob {
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

impl Glob {
    /// Compiles it. `any_case`: upper and lower case of ASCII letters are the same.
    pub(super) fn new(text: &str, any_case: bool) -> Result<Self, String> {
        let Some(letters) = Letters::of(text) else {
            return Err(format!("it has more than {LETTERS} different letters beyond ASCII"));
        };
        let glob = GlobBuilder::new(&letters.flatten(text))
            .literal_separator(false)
            .backslash_escape(true)
            .case_insensitive(any_case)
            .build();
        // A set of one: what cannot be compiled is an error here, where a matcher of its own panics.
        glob.and_then(|glob| GlobSet::builder().add(glob).build())
            .map(|set| Self { set, letters })
            .map_err(|error| reason(error.kind()))
    }

    pub(super) fn is_match(&self, text: &str) -> bool {
        self.set.is_match(&*self.letters.flatten(text))
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
