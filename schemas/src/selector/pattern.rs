//! What a text is compared with: itself, a range, a glob or a regular expression.

use regex::{Regex, RegexBuilder};

use super::{
    glob::Glob,
    lex::{quoted, unescaped},
    numbers::{self, Numbered, Piece},
};

/// Largest compiled regular expression, bytes; and most that its cache takes.
const REGEX_BYTES: usize = 256 * 1024;
/// Deepest nesting of one.
const REGEX_DEPTH: u32 = 32;

/// How a text is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Manner {
    /// Upper and lower case of ASCII letters are the same.
    pub(super) any_case: bool,
    /// A literal also means what goes on behind it with a character that is no letter, digit, `-` or `_`.
    pub(super) is_beginning: bool,
}

impl Manner {
    /// By the letter.
    pub(super) const EXACT: Self = Self { any_case: false, is_beginning: false };
}

/// A pattern. Two are the same when they were written the same.
#[derive(Debug, Clone)]
pub(super) struct Pattern {
    kind: Kind,
    manner: Manner,
    /// As it is written in a selector.
    written: String,
}

#[derive(Debug, Clone)]
enum Kind {
    Literal(String),
    Numbered(Numbered),
    Glob(Box<Glob>),
    Regex(Box<Regex>),
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.manner == other.manner && self.written == other.written
    }
}

impl Pattern {
    pub(super) fn literal(text: String, manner: Manner) -> Self {
        Self { written: quoted(&text), kind: Kind::Literal(text), manner }
    }

    /// A word: a name, one with ranges, or a glob. `left`: how many numbers may still be written out in globs. An error has the bytes of
    /// the word that are wrong.
    pub(super) fn word(
        word: &str,
        manner: Manner,
        left: &mut u64,
    ) -> Result<Self, (std::ops::Range<usize>, String)> {
        if !word.contains(['*', '?', '[', '{']) {
            return Ok(Self::literal(unescaped(word), manner));
        }
        let pieces = numbers::split(word)?;
        let is_glob =
            |piece: &Piece| matches!(piece, Piece::Text(text) if text.contains(['*', '?', '[', '{']));
        let kind = if pieces.iter().any(is_glob) {
            let wrong = |why| (0..word.len(), why);
            let text = numbers::as_glob(&pieces, left);
            let text = text.ok_or_else(|| {
                wrong("too many numbers stand within globs; write ranges and globs apart".to_owned())
            })?;
            Kind::Glob(Box::new(Glob::new(&text, manner.any_case).map_err(wrong)?))
        } else {
            Kind::Numbered(Numbered::new(pieces))
        };
        Ok(Self { kind, manner, written: word.to_owned() })
    }

    pub(super) fn regex(source: &str, manner: Manner) -> Result<Self, String> {
        let source = without_slashes(source);
        let regex = RegexBuilder::new(&source)
            .case_insensitive(manner.any_case)
            .size_limit(REGEX_BYTES)
            .dfa_size_limit(REGEX_BYTES)
            .nest_limit(REGEX_DEPTH)
            .build();
        let regex = regex.map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => "the regular expression is too large".to_owned(),
            error => {
                // The last line says what is wrong; those before show where, in a text that is not the whole.
                let text = error.to_string();
                let last = text.lines().last().unwrap_or_default();
                format!("not a regular expression: {}", last.trim_start_matches("error: "))
            }
        })?;
        let written = format!("/{}/", source.replace('/', "\\/"));
        Ok(Self { kind: Kind::Regex(Box::new(regex)), manner, written })
    }

    pub(super) fn matches(&self, text: &str) -> bool {
        match &self.kind {
            Kind::Literal(literal) => self.manner.is_literal(literal, text),
            Kind::Numbered(numbered) => numbered.matches(text, self.manner.any_case),
            Kind::Glob(glob) => glob.is_match(text),
            Kind::Regex(regex) => regex.is_match(text),
        }
    }

    /// As it is written in a selector.
    pub(super) fn written(&self) -> &str {
        &self.written
    }
}

/// A regular expression without the backslashes before its slashes.
fn without_slashes(source: &str) -> String {
    let mut plain = String::with_capacity(source.len());
    let mut chars = source.chars();
    while let Some(c) = chars.next() {
        match (c, chars.clone().next()) {
            ('\\', Some('/')) => {}
            ('\\', Some(next)) => {
                plain.extend([c, next]);
                let _ = chars.next();
            }
            _ => plain.push(c),
        }
    }
    plain
}

impl Manner {
    fn is_literal(self, literal: &str, text: &str) -> bool {
        let Some((head, rest)) = text.split_at_checked(literal.len()) else { return false };
        let is_head = if self.any_case { head.eq_ignore_ascii_case(literal) } else { head == literal };
        let goes_on = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_');
        let is_end = match rest.chars().next() {
            None => true,
            Some(c) => self.is_beginning && !literal.is_empty() && !goes_on(c),
        };
        is_head && is_end
    }
}
