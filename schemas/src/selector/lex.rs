//! Words and signs.

use std::ops::Range;

use super::error::SelectorError;

/// What stands between a field and a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    Is,
    IsNot,
    Less,
    AtMost,
    More,
    AtLeast,
    Like,
    Unlike,
}

/// Longest first where one begins another.
const SIGNS: [(&str, Sign); 8] = [
    ("!=", Sign::IsNot),
    ("!~", Sign::Unlike),
    ("<=", Sign::AtMost),
    (">=", Sign::AtLeast),
    ("<", Sign::Less),
    (">", Sign::More),
    ("=", Sign::Is),
    ("~", Sign::Like),
];

impl Sign {
    pub(super) fn as_str(self) -> &'static str {
        SIGNS.iter().find(|(_, sign)| *sign == self).map_or("=", |(text, _)| text)
    }
}

/// The smallest part of a selector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    /// As it was written, with its backslashes.
    Word(String),
    /// What stands between quotes, without their backslashes.
    Quoted(String),
    /// What stands between slashes; a slash in it has no backslash any more.
    Regex(String),
    Sign(Sign),
    Open,
    Close,
    Comma,
    End,
}

/// A token and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Lexed {
    pub(super) token: Token,
    pub(super) span: Range<usize>,
}

/// Takes tokens from the front of a text.
#[derive(Debug, Clone)]
pub(super) struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// The next token. `may_be_regex`: a slash begins a regular expression here, and not a word.
    pub(super) fn next(&mut self, may_be_regex: bool) -> Result<Lexed, SelectorError> {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
        let from = self.at;
        let rest = self.rest();
        let token = match rest.chars().next() {
            None => Token::End,
            Some('(') => self.skip(1, Token::Open),
            Some(')') => self.skip(1, Token::Close),
            Some(',') => self.skip(1, Token::Comma),
            Some('"') => self.until('"').map(Token::Quoted)?,
            Some('/') if may_be_regex => self.until('/').map(Token::Regex)?,
            Some(_) => match SIGNS.iter().find(|(text, _)| rest.starts_with(text)) {
                Some((text, sign)) => self.skip(text.len(), Token::Sign(*sign)),
                None => self.word()?,
            },
        };
        Ok(Lexed { token, span: from..self.at })
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn skip(&mut self, bytes: usize, token: Token) -> Token {
        self.at += bytes;
        token
    }

    /// What stands up to the same character once more. A backslash before that character is taken away; in quotes a
    /// backslash before a backslash, too.
    fn until(&mut self, end: char) -> Result<String, SelectorError> {
        let mut inner = String::new();
        let mut chars = self.rest().char_indices().skip(1);
        while let Some((at, c)) = chars.next() {
            if c == end {
                self.at += at + c.len_utf8();
                return Ok(inner);
            }
            if c != '\\' {
                inner.push(c);
                continue;
            }
            match chars.next() {
                Some((_, next)) if next == end || (end == '"' && next == '\\') => inner.push(next),
                Some((_, next)) => inner.extend(['\\', next]),
                None => break,
            }
        }
        let what = if end == '"' { "a quote" } else { "a regular expression" };
        let why = format!("{what} that begins here has no end; write `{end}` behind it");
        Err(SelectorError::new(self.text, self.at..self.text.len(), why))
    }

    fn word(&mut self) -> Result<Token, SelectorError> {
        let rest = self.rest();
        let length = word_length(rest).map_err(|(at, why)| {
            let at = self.at + at;
            SelectorError::new(self.text, at..self.text.len(), why)
        })?;
        self.at += length;
        Ok(Token::Word(rest.get(..length).unwrap_or_default().to_owned()))
    }
}

/// How many bytes the word at the front has. Between brackets and braces everything belongs to it.
fn word_length(rest: &str) -> Result<usize, (usize, &'static str)> {
    let mut braces: Vec<usize> = Vec::new();
    let mut chars = rest.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        let next = chars.peek().map(|(_, next)| *next);
        match c {
            '\\' if chars.next().is_none() => {
                return Err((at, "a backslash stands before nothing; quote a name that ends with one"));
            }
            '\\' => {}
            '[' => {
                let length = class_length(rest.get(at..).unwrap_or_default());
                let end = at
                    + length
                        .ok_or((at, "a bracket that begins here has no end; write `]`, or quote the name"))?;
                while chars.next_if(|(at, _)| *at < end).is_some() {}
            }
            '{' => braces.push(at),
            '}' => drop(braces.pop()),
            '"' if braces.is_empty() => return Err((at, "a quote stands within a word; quote all of it")),
            _ if braces.is_empty() && ends_word(c, next) => return Ok(at),
            _ => {}
        }
    }
    match braces.first() {
        Some(at) => Err((*at, "a brace that begins here has no end; write `}`, or quote the name")),
        None => Ok(rest.len()),
    }
}

/// How many bytes a class at the front has, `[` and `]` included. A `]` that comes first belongs to the class, and a
/// backslash in it is one.
pub(super) fn class_length(rest: &str) -> Option<usize> {
    let mut chars = rest.char_indices().skip(1).peekable();
    let _ = chars.next_if(|(_, c)| matches!(c, '!' | '^'));
    let _ = chars.next();
    chars.find(|(_, c)| *c == ']').map(|(at, _)| at + 1)
}

fn ends_word(c: char, next: Option<char>) -> bool {
    is_delimiter(c) && (c != '!' || matches!(next, Some('=' | '~')))
}

/// Characters that end a word, or may, and so have a backslash when they belong to it.
pub(super) fn is_delimiter(c: char) -> bool {
    c.is_whitespace() || matches!(c, '(' | ')' | ',' | '"' | '=' | '<' | '>' | '~' | '!')
}

/// A name as it was meant: without the backslashes before what would end a word. Any other backslash is one.
pub(super) fn unescaped(word: &str) -> String {
    let mut text = String::with_capacity(word.len());
    let mut chars = word.chars().peekable();
    while let Some(c) = chars.next() {
        match chars.next_if(|next| c == '\\' && is_delimiter(*next)) {
            Some(next) => text.push(next),
            None => text.push(c),
        }
    }
    text
}

/// The text as one literal: as it is where it reads as nothing else, else in quotes.
pub(super) fn quoted(text: &str) -> String {
    let is_plain = |c: char| {
        c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | ':' | '/' | '@' | '+' | '%' | '#' | '&')
    };
    let is_word = matches!(text, "all" | "and" | "or" | "not");
    if !text.is_empty() && !text.starts_with('/') && text.chars().all(is_plain) && !is_word {
        return text.to_owned();
    }
    let escaped = |c: char| matches!(c, '"' | '\\').then_some('\\').into_iter().chain([c]);
    format!("\"{}\"", text.chars().flat_map(escaped).collect::<String>())
}
