//! From text to tree, by descent: `or` of `and` of `not` of lists.

use std::ops::Range;

use crate::{api::Liveness, limit::SELECTOR_BYTES};

use super::{
    ast::{Compare, Node, Tree},
    choose::{Amount, Sample},
    error::SelectorError,
    field::{self, Field, Kind, Value, Version},
    lex::{Lexed, Lexer, Sign, Token},
    pattern::{Manner, Pattern},
};

/// Most names, globs and comparisons.
const TERMS: usize = 256;
/// Deepest nesting.
const DEPTH: usize = 64;
/// Most regular expressions of one selector: each is compiled, up to 256 KiB.
const REGEXES: usize = 16;
/// Most numbers that are written out within its globs.
const GLOB_NUMBERS: u64 = 2_000;

const A_TERM: &str = "expected a name, a glob such as `web-*`, a comparison such as `os=debian`, or `all`";
const AN_END: &str = "expected `and`, `or`, `,`, `sample`, `limit` or the end; quote a name with spaces";

/// Words that are no names where a name is expected.
pub(super) fn is_reserved(word: &str) -> bool {
    matches!(word, "and" | "or" | "not")
}

/// Reads a whole selector.
pub(super) fn parse(text: &str) -> Result<Tree, SelectorError> {
    if text.len() > SELECTOR_BYTES {
        return Err(SelectorError::of_all(format!("it is longer than {SELECTOR_BYTES} bytes")));
    }
    if text.contains(char::is_control) {
        return Err(SelectorError::of_all("it has a control character, such as the end of a line"));
    }
    let mut parser =
        Parser { text, lexer: Lexer::new(text), depth: 0, terms: 0, regexes: 0, numbers: GLOB_NUMBERS };
    let root = parser.any()?;
    let sample = parser.sample()?;
    let limit = if parser.takes("limit")? { Some(parser.amount()?) } else { None };
    let next = parser.peek()?;
    match &next.token {
        Token::End => Ok(Tree { root, sample, limit }),
        Token::Close => {
            Err(parser.wrong(next.span, "a `)` stands without its `(`; quote a name with brackets"))
        }
        Token::Word(word) if word == "sample" && limit.is_some() => {
            Err(parser.wrong(next.span, "write `sample` before `limit`"))
        }
        Token::Sign(_) => Err(parser.wrong(
            next.span,
            "a comparison needs the name of a field before its sign; quote a name that has such a character",
        )),
        _ => Err(parser.wrong(next.span, AN_END)),
    }
}

struct Parser<'a> {
    text: &'a str,
    lexer: Lexer<'a>,
    depth: usize,
    terms: usize,
    regexes: usize,
    /// How many numbers may still be written out within globs.
    numbers: u64,
}

impl Parser<'_> {
    fn wrong(&self, span: Range<usize>, why: impl Into<String>) -> SelectorError {
        SelectorError::new(self.text, span, why)
    }

    /// What comes next where no value can stand.
    fn peek(&self) -> Result<Lexed, SelectorError> {
        self.lexer.clone().next(true)
    }

    /// Takes a word if it is the next one.
    fn takes(&mut self, word: &str) -> Result<bool, SelectorError> {
        let is_next = matches!(self.peek()?.token, Token::Word(next) if next == word);
        if is_next {
            self.lexer.next(true)?;
        }
        Ok(is_next)
    }

    /// Goes one level deeper, and comes back.
    fn deeper<T>(
        &mut self,
        span: Range<usize>,
        inner: impl FnOnce(&mut Self) -> Result<T, SelectorError>,
    ) -> Result<T, SelectorError> {
        if self.depth >= DEPTH {
            return Err(self.wrong(span, format!("it is nested deeper than {DEPTH} levels")));
        }
        self.depth += 1;
        let found = inner(self)?;
        self.depth -= 1;
        Ok(found)
    }

    fn any(&mut self) -> Result<Node, SelectorError> {
        let mut parts = vec![self.every()?];
        while self.takes("or")? {
            parts.push(self.every()?);
        }
        Ok(Node::any(parts))
    }

    fn every(&mut self) -> Result<Node, SelectorError> {
        let mut parts = vec![self.unless()?];
        while self.takes("and")? {
            parts.push(self.unless()?);
        }
        Ok(Node::every(parts))
    }

    fn unless(&mut self) -> Result<Node, SelectorError> {
        let span = self.peek()?.span;
        if self.takes("not")? {
            return self.deeper(span, |it| Ok(Node::Not(Box::new(it.unless()?))));
        }
        self.list()
    }

    /// Terms with commas between them: they belong together before anything else.
    fn list(&mut self) -> Result<Node, SelectorError> {
        let mut parts = vec![self.term()?];
        while self.peek()?.token == Token::Comma {
            self.lexer.next(true)?;
            parts.push(self.term()?);
        }
        Ok(Node::any(parts))
    }

    fn term(&mut self) -> Result<Node, SelectorError> {
        let Lexed { token, span } = self.lexer.next(true)?;
        // Brackets hold terms and are none.
        self.terms += usize::from(token != Token::Open);
        if self.terms > TERMS {
            return Err(self.wrong(
                span,
                format!("it has more than {TERMS} names and comparisons; use globs, ranges or labels"),
            ));
        }
        match token {
            Token::Open => self.deeper(span, Self::group),
            Token::Word(word) => self.word(&word, span),
            Token::Quoted(name) if name.is_empty() => {
                Err(self.wrong(span, "a name has at least one character"))
            }
            Token::Quoted(name) => Ok(Node::Name(Pattern::literal(name, Manner::EXACT))),
            Token::Regex(source) => self.regex(&source, span, Manner::EXACT).map(Node::Name),
            Token::End | Token::Close | Token::Comma | Token::Sign(_) => Err(self.wrong(span, A_TERM)),
        }
    }

    fn group(&mut self) -> Result<Node, SelectorError> {
        let inner = self.any()?;
        let Lexed { token, span } = self.lexer.next(true)?;
        match token {
            Token::Close => Ok(inner),
            Token::Word(word) if matches!(word.as_str(), "sample" | "limit") => {
                Err(self.wrong(span, "`sample` and `limit` stand at the end of the whole selector"))
            }
            _ => Err(self.wrong(span, "expected `and`, `or` or `)`; quote a name with spaces or brackets")),
        }
    }

    fn word(&mut self, word: &str, span: Range<usize>) -> Result<Node, SelectorError> {
        if let Token::Sign(sign) = self.peek()?.token {
            self.lexer.next(true)?;
            return self.comparison(word, span, sign);
        }
        match word {
            "all" => Ok(Node::All),
            "not" => Err(self.wrong(span, "write `or not` in place of a comma before `not`")),
            word if is_reserved(word) => {
                Err(self.wrong(span, format!("{A_TERM}; quote a machine's name that is `{word}`")))
            }
            word if word.starts_with('!') => {
                Err(self.wrong(span, "write `not` before what is not meant, or quote the name"))
            }
            word => self.pattern(word, span, Manner::EXACT).map(Node::Name),
        }
    }

    fn comparison(&mut self, word: &str, span: Range<usize>, sign: Sign) -> Result<Node, SelectorError> {
        let field = Field::of(word).filter(|_| !is_reserved(word));
        let field = field.ok_or_else(|| {
            let why = "neither a field nor the key of a label (a-z, 0-9, `.`, `_`, `/`, `-`); quote a name that has such a sign";
            self.wrong(span.clone(), why)
        })?;
        let is_text = matches!(sign, Sign::Like | Sign::Unlike);
        let Lexed { token, span: at } = self.lexer.next(is_text)?;
        let kind = field.kind();
        self.check_sign(&field, kind, sign, span.start..at.start)?;
        let (value, written) = match (kind, sign) {
            (Kind::Text(manner) | Kind::Version(manner), Sign::Like | Sign::Unlike) => {
                let source = self.value(token, at.clone())?;
                let pattern = self.regex(&source.0, at, manner)?;
                let written = pattern.written().to_owned();
                (Value::Text(pattern), written)
            }
            (Kind::Text(manner) | Kind::Version(manner), Sign::Is | Sign::IsNot) => {
                let pattern = match self.value(token, at.clone())? {
                    (text, true) => Pattern::literal(text, manner),
                    (word, false) => self.pattern(&word, at, manner)?,
                };
                let written = pattern.written().to_owned();
                (Value::Text(pattern), written)
            }
            (kind, _) => {
                let text = self.value(token, at.clone())?.0;
                let value = plain_value(kind, &text).map_err(|why| self.wrong(at, why))?;
                (value, text)
            }
        };
        Ok(Node::Compare(Box::new(Compare { field, sign, value, written })))
    }

    /// The text of a value, and whether it stood in quotes.
    fn value(&self, token: Token, span: Range<usize>) -> Result<(String, bool), SelectorError> {
        match token {
            Token::Word(word) => Ok((word, false)),
            Token::Quoted(text) | Token::Regex(text) => Ok((text, true)),
            _ => Err(self.wrong(span, "expected a value; quote one that is empty or has such a character")),
        }
    }

    fn check_sign(
        &self,
        field: &Field,
        kind: Kind,
        sign: Sign,
        span: Range<usize>,
    ) -> Result<(), SelectorError> {
        let name = field.written();
        let why = match (kind, sign) {
            (Kind::Text(_), Sign::Less | Sign::AtMost | Sign::More | Sign::AtLeast) => {
                format!("`{name}` has no order; compare it with `=`, `!=`, `~` or `!~`")
            }
            (Kind::State, Sign::Is | Sign::IsNot) | (Kind::Text(_) | Kind::Version(_), _) => return Ok(()),
            (Kind::State, _) => "compare `state` with `=` or `!=`".to_owned(),
            (_, Sign::Like | Sign::Unlike) => {
                format!("`{name}` is a number; compare it with `=`, `!=`, `<`, `<=`, `>` or `>=`")
            }
            _ => return Ok(()),
        };
        Err(self.wrong(span, why))
    }

    fn pattern(&mut self, word: &str, span: Range<usize>, manner: Manner) -> Result<Pattern, SelectorError> {
        let pattern = Pattern::word(word, manner, &mut self.numbers);
        pattern.map_err(|(part, why)| self.wrong(span.start + part.start..span.start + part.end, why))
    }

    fn regex(&mut self, source: &str, span: Range<usize>, manner: Manner) -> Result<Pattern, SelectorError> {
        self.regexes += 1;
        if self.regexes > REGEXES {
            return Err(self.wrong(span, format!("it has more than {REGEXES} regular expressions")));
        }
        Pattern::regex(source, manner).map_err(|why| self.wrong(span, why))
    }

    fn sample(&mut self) -> Result<Option<Sample>, SelectorError> {
        if !self.takes("sample")? {
            return Ok(None);
        }
        let amount = self.amount()?;
        if !self.takes("seed")? {
            return Ok(Some(Sample { amount, seed: 0 }));
        }
        let Lexed { token, span } = self.lexer.next(false)?;
        let seed = if let Token::Word(word) = token { digits(&word) } else { None };
        let seed = seed.ok_or_else(|| self.wrong(span, "expected a whole number, such as `seed 7`"))?;
        Ok(Some(Sample { amount, seed }))
    }

    fn amount(&mut self) -> Result<Amount, SelectorError> {
        let Lexed { token, span } = self.lexer.next(false)?;
        let amount = if let Token::Word(word) = token { Amount::parse(&word) } else { None };
        amount.ok_or_else(|| {
            self.wrong(span, "expected how many, such as `5`, or a percentage from 1 to 100, such as `10%`")
        })
    }
}

fn plain_value(kind: Kind, text: &str) -> Result<Value, String> {
    match kind {
        Kind::State => {
            let states = [Liveness::Online, Liveness::Stale, Liveness::Offline];
            let state = states.into_iter().find(|state| state.as_str() == text);
            state.map(Value::State).ok_or_else(|| "expected `online`, `stale` or `offline`".to_owned())
        }
        Kind::Text(_) | Kind::Version(_) => {
            let version = Version::exactly(text).map(Value::Version);
            version.ok_or_else(|| "expected numbers with dots between them, such as `1.4.0`".to_owned())
        }
        kind => field::number(kind, text).map(Value::Number).map_err(str::to_owned),
    }
}

/// A whole number of at most 18 digits.
pub(super) fn digits(text: &str) -> Option<u64> {
    let is_one = (1..=18).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    is_one.then(|| text.parse().ok()).flatten()
}
