//! Ranges of numbers in names: `web[01-20]`, `web-[1-3,7,10-20/2]`. They are matched by arithmetic and never written out.

use super::lex::{class_length, unescaped};

/// Most names that one word stands for.
const NAMES: u64 = 100_000;
/// Most brackets of one word: each may end at several places of a name.
const BRACKETS: usize = 8;
/// Most digits of a number, so that it fits 64 bits.
const DIGITS: usize = 18;

/// A part of a word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    /// As it was written.
    Text(String),
    /// A bracket of numbers, and as it was written.
    Numbers(Numbers, String),
}

/// A bracket: any of these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Numbers(Vec<Stretch>);

/// `from`, `from + step`, … up to `to`, each with at least `width` digits.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stretch {
    from: u64,
    to: u64,
    step: u64,
    width: usize,
}

impl Stretch {
    fn count(&self) -> u64 {
        (self.to - self.from) / self.step + 1
    }

    fn has(&self, digits: &str, number: u64) -> bool {
        let is_written_so =
            if digits.len() > self.width { !digits.starts_with('0') } else { digits.len() == self.width };
        let steps = number.checked_sub(self.from).filter(|_| number <= self.to);
        is_written_so && steps.is_some_and(|steps| steps % self.step == 0)
    }

    fn write(&self) -> impl Iterator<Item = String> {
        let (from, step, width) = (self.from, self.step, self.width);
        (0..self.count()).map(move |n| format!("{:0width$}", from + n * step))
    }
}

impl Numbers {
    /// How many numbers it has; those that are named twice count twice.
    fn count(&self) -> u64 {
        self.0.iter().fold(0, |sum, stretch| sum.saturating_add(stretch.count()))
    }

    fn has(&self, digits: &str) -> bool {
        let number = digits.parse::<u64>();
        number.is_ok_and(|number| self.0.iter().any(|stretch| stretch.has(digits, number)))
    }

    /// The numbers, as a glob knows them.
    fn braces(&self) -> String {
        let numbers: Vec<String> = self.0.iter().flat_map(Stretch::write).collect();
        format!("{{{}}}", numbers.join(","))
    }
}

/// Splits a word at its brackets of numbers. A bracket of digits, `-`, `,` and `/` that has a `-` or `,` is one; other brackets, and those that
/// begin or end with a `-`, are a glob's. An error has the bytes of the word that are wrong.
pub(super) fn split(word: &str) -> Result<Vec<Piece>, (std::ops::Range<usize>, String)> {
    let mut pieces = Vec::new();
    let mut begun = 0;
    let mut chars = word.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        if c == '\\' {
            let _ = chars.next();
        }
        let Some(length) = (c == '[').then(|| class_length(word.get(at..)?)).flatten() else { continue };
        let end = at + length;
        while chars.next_if(|(at, _)| *at < end).is_some() {}
        let written = word.get(at..end).unwrap_or_default();
        let inner = written.get(1..written.len() - 1).unwrap_or_default();
        if !is_of_numbers(inner) {
            continue;
        }
        let numbers = parse(inner).map_err(|why| (at..end, why))?;
        if begun < at {
            pieces.push(Piece::Text(word.get(begun..at).unwrap_or_default().to_owned()));
        }
        pieces.push(Piece::Numbers(numbers, written.to_owned()));
        begun = end;
    }
    if begun < word.len() {
        pieces.push(Piece::Text(word.get(begun..).unwrap_or_default().to_owned()));
    }
    check(&pieces).map_err(|why| (0..word.len(), why))?;
    Ok(pieces)
}

fn check(pieces: &[Piece]) -> Result<(), String> {
    let numbers =
        || pieces.iter().filter_map(|piece| if let Piece::Numbers(it, _) = piece { Some(it) } else { None });
    if numbers().count() > BRACKETS {
        return Err(format!("a name has at most {BRACKETS} ranges"));
    }
    let names = numbers().fold(1_u64, |product, numbers| product.saturating_mul(numbers.count()));
    if names > NAMES {
        return Err(format!("it stands for more than {NAMES} names; write a glob, such as `web-*`"));
    }
    Ok(())
}

fn is_of_numbers(inner: &str) -> bool {
    inner.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'-' | b',' | b'/'))
        && inner.contains(['-', ','])
        && !inner.starts_with('-')
        && !inner.ends_with('-')
}

fn parse(inner: &str) -> Result<Numbers, String> {
    inner.split(',').map(stretch).collect::<Result<_, _>>().map(Numbers)
}

fn stretch(text: &str) -> Result<Stretch, String> {
    let (range, step) = text.split_once('/').map_or((text, None), |(range, step)| (range, Some(step)));
    let (from, to) = range.split_once('-').unwrap_or((range, range));
    let number = |text: &str| {
        let is_one = (1..=DIGITS).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        let number = is_one.then(|| text.parse::<u64>().ok()).flatten();
        number.ok_or_else(|| "write numbers as `[1-3,7,10-20/2]`".to_owned())
    };
    let (first, last) = (number(from)?, number(to)?);
    let step = step.map_or(Ok(1), number)?;
    if step == 0 {
        return Err("a range goes on by at least 1".to_owned());
    }
    if last < first {
        return Err("a range of numbers runs backwards".to_owned());
    }
    let is_padded = from.len() > 1 && from.starts_with('0');
    if to.len() > 1 && to.starts_with('0') && !(is_padded && to.len() == from.len())
        || (is_padded && to.len() < from.len())
    {
        return Err("the ends of a padded range have as many digits, as in `[01-20]`".to_owned());
    }
    Ok(Stretch { from: first, to: last, step, width: if is_padded { from.len() } else { 1 } })
}

/// A name with ranges, and nothing of a glob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Numbered(Vec<Piece>);

impl Numbered {
    /// Of pieces without a glob between them.
    pub(super) fn new(pieces: Vec<Piece>) -> Self {
        let meant = |piece| match piece {
            Piece::Text(text) => Piece::Text(unescaped(&text)),
            numbers @ Piece::Numbers(..) => numbers,
        };
        Self(pieces.into_iter().map(meant).collect())
    }

    pub(super) fn matches(&self, text: &str, any_case: bool) -> bool {
        // Where in the text the pieces so far may end.
        let mut ends = vec![0];
        for piece in &self.0 {
            let mut next: Vec<usize> = Vec::new();
            for at in ends {
                let rest = text.get(at..).unwrap_or_default();
                next.extend(lengths(piece, rest, any_case).into_iter().map(|length| at + length));
            }
            next.sort_unstable();
            next.dedup();
            ends = next;
        }
        ends.contains(&text.len())
    }
}

fn lengths(piece: &Piece, rest: &str, any_case: bool) -> Vec<usize> {
    match piece {
        Piece::Text(text) => {
            let begins = rest
                .get(..text.len())
                .is_some_and(|head| if any_case { head.eq_ignore_ascii_case(text) } else { head == text });
            if begins { vec![text.len()] } else { vec![] }
        }
        Piece::Numbers(numbers, _) => {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count().min(DIGITS);
            (1..=digits)
                .filter(|length| rest.get(..*length).is_some_and(|digits| numbers.has(digits)))
                .collect()
        }
    }
}

/// The pieces as one glob, with each range written out; of at most `most` numbers in all, which are counted there.
pub(super) fn as_glob(pieces: &[Piece], left: &mut u64) -> Option<String> {
    let mut glob = String::new();
    for piece in pieces {
        match piece {
            Piece::Text(text) => glob.push_str(text),
            // One digit to one digit is a glob's class, which says the same.
            Piece::Numbers(_, written) if written.len() == 5 && !written.contains(',') => {
                glob.push_str(written);
            }
            Piece::Numbers(numbers, _) => {
                *left = left.checked_sub(numbers.count())?;
                glob.push_str(&numbers.braces());
            }
        }
    }
    Some(glob)
}
