//! Where a text is no selector, and what would be one.

use std::{fmt, ops::Range};

use unicode_width::UnicodeWidthStr as _;

/// The text is no selector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SelectorError {
    /// Empty when the text cannot be shown.
    text: String,
    span: Range<usize>,
    why: String,
}

impl SelectorError {
    pub(super) fn new(text: &str, span: Range<usize>, why: impl Into<String>) -> Self {
        Self { text: text.to_owned(), span, why: why.into() }
    }

    /// Of the text as a whole: none of it is shown.
    pub(super) fn of_all(why: impl Into<String>) -> Self {
        Self { text: String::new(), span: 0..0, why: why.into() }
    }

    /// The bytes of the text that are wrong; empty at its end, or when all of it is wrong.
    pub fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// What is wrong and what was expected.
    pub fn why(&self) -> &str {
        &self.why
    }

    /// The text, carets under what is wrong, and what was expected: three lines, for a terminal. The text is without control
    /// characters, and otherwise as it was written.
    pub fn shown(&self) -> String {
        if self.text.is_empty() {
            return self.why.clone();
        }
        let (before, wrong) = self.parts();
        let carets = "^".repeat(wrong.width().max(1));
        format!("{}\n{}{carets}\n{}", self.text, " ".repeat(before.width()), self.why)
    }

    fn parts(&self) -> (&str, &str) {
        let before = self.text.get(..self.span.start).unwrap_or(&self.text);
        (before, self.text.get(self.span.clone()).unwrap_or_default())
    }
}

impl fmt::Display for SelectorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not a selector: {}", self.why)?;
        if self.text.is_empty() {
            return Ok(());
        }
        let (before, wrong) = self.parts();
        let place = before.chars().count() + 1;
        match wrong.trim() {
            "" if place > self.text.chars().count() => f.write_str(" (at its end)"),
            "" => write!(f, " (at character {place})"),
            wrong => {
                let short: String = wrong.chars().take(40).collect();
                write!(f, " (at character {place}: `{short}`)")
            }
        }
    }
}

impl std::error::Error for SelectorError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caret_stands_under_the_character() {
        // The first letter takes two columns of a terminal.
        let error = SelectorError::new("\u{5317}-1 web", 6..9, "quote a name with spaces");
        assert_eq!(error.shown(), "\u{5317}-1 web\n     ^^^\nquote a name with spaces");
        assert_eq!(error.to_string(), "not a selector: quote a name with spaces (at character 5: `web`)");
        let at_end = SelectorError::new("a or", 4..4, "expected a name");
        assert_eq!(at_end.shown(), "a or\n    ^\nexpected a name");
        assert_eq!(at_end.to_string(), "not a selector: expected a name (at its end)");
    }
}
