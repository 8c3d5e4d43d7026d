//! Which machines are meant: a name, a glob, or `all`.
//!
//! A glob knows `*` (any characters), `?` (one character), `[a-z]` and `{a,b}`; it is matched against the
//! machine's id and against its token.

use globset::{ErrorKind, GlobBuilder, GlobSet};

use crate::{
    id::{MachineId, MachineToken},
    limit::SELECTOR_BYTES,
};

/// A parsed selector.
#[derive(Debug, Clone)]
pub enum Selector {
    /// Every machine.
    All,
    /// One machine, by id or token.
    Name(String),
    /// All that match.
    Glob(Box<GlobSet>),
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
        let glob = GlobBuilder::new(text).literal_separator(false).backslash_escape(true).build();
        // A set of one: what cannot be compiled is an error here, where a matcher of its own panics.
        glob.and_then(|glob| GlobSet::builder().add(glob).build())
            .map(|set| Self::Glob(Box::new(set)))
            .map_err(|error| SelectorError(reason(error.kind())))
    }

    /// Whether a machine is meant.
    pub fn matches(&self, id: &MachineId, token: &MachineToken) -> bool {
        match self {
            Self::All => true,
            Self::Name(name) => name == id.as_str() || name == token.as_str(),
            Self::Glob(glob) => glob.is_match(id.as_str()) || glob.is_match(token.as_str()),
        }
    }
}

fn reason(kind: &ErrorKind) -> String {
    match kind {
        // Its own text quotes all of what it made of the glob.
        ErrorKind::Regex(_) => "it is too large, or its braces are nested too deep".to_owned(),
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
}
