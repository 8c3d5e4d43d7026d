//! Many names in few words: `web-[01-16,18],db-1`.

use std::collections::{BTreeMap, BTreeSet};

use unicode_width::UnicodeWidthStr as _;

use super::{choose::natural_order, lex::quoted};

/// Digits of a number that are folded: more of them do not fit the arithmetic.
const DIGITS: usize = 18;
/// Fewest numbers that are worth a step.
const STEPS: usize = 4;

/// The names as a selector that means exactly them, as short as ranges make it; empty for no names. It may have more terms or
/// bytes than a selector may.
pub fn fold_names<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    fold(names).into_iter().map(|part| part.0).collect::<Vec<_>>().join(",")
}

/// The same for people, in at most `width` columns of a terminal: what has no room is counted, as in `web-[1-3],db-1 +12`.
pub fn fold_names_to<'a>(names: impl IntoIterator<Item = &'a str>, width: usize) -> String {
    let parts = fold(names);
    let total: usize = parts.iter().map(|part| part.1).sum();
    let (mut best, mut text, mut told) = (format!("+{total}"), String::new(), 0);
    for (part, count) in parts {
        let comma = if text.is_empty() { "" } else { "," };
        text = format!("{text}{comma}{part}");
        told += count;
        let with_rest = if told == total { text.clone() } else { format!("{text} +{}", total - told) };
        if with_rest.width() > width {
            break;
        }
        best = with_rest;
    }
    if total == 0 { String::new() } else { best }
}

/// A name with a number in it: what stands before, and behind.
type Frame<'a> = (&'a str, &'a str);

/// The parts, each with how many names it stands for.
fn fold<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<(String, usize)> {
    let names: BTreeSet<&str> = names.into_iter().collect();
    let mut frames: BTreeMap<Frame<'_>, BTreeSet<&str>> = BTreeMap::new();
    let mut sizes: BTreeMap<Frame<'_>, usize> = BTreeMap::new();
    for name in &names {
        for (frame, _) in numbers(name) {
            *sizes.entry(frame).or_default() += 1;
        }
    }
    let mut parts: Vec<(&str, String, usize)> = Vec::new();
    for name in names {
        // The number by which most other names differ from this one; of several the last.
        let best = numbers(name).into_iter().max_by_key(|(frame, _)| sizes.get(frame).copied());
        match best.filter(|(frame, _)| sizes.get(frame).is_some_and(|size| *size > 1)) {
            Some((frame, digits)) => drop(frames.entry(frame).or_default().insert(digits)),
            None => parts.push((name, quoted(name), 1)),
        }
    }
    for ((before, behind), digits) in frames {
        let count = digits.len();
        let text = match digits.iter().next() {
            Some(only) if count == 1 => format!("{before}{only}{behind}"),
            _ => format!("{before}[{}]{behind}", ranges(&digits)),
        };
        parts.push((before, text, count));
    }
    parts.sort_by(|a, b| natural_order(a.0, b.0).then_with(|| natural_order(&a.1, &b.1)));
    parts.into_iter().map(|(_, text, count)| (text, count)).collect()
}

/// Each number of a name that can be read without quotes, with what stands around it.
fn numbers(name: &str) -> Vec<(Frame<'_>, &str)> {
    let mut found = Vec::new();
    if quoted(name) != name {
        return found;
    }
    let mut at = 0;
    while let Some(rest) = name.get(at..).filter(|rest| !rest.is_empty()) {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        if (1..=DIGITS).contains(&digits)
            && let (Some(before), Some(number), Some(behind)) =
                (name.get(..at), rest.get(..digits), rest.get(digits..))
        {
            found.push(((before, behind), number));
        }
        at += if digits > 0 { digits } else { rest.chars().next().map_or(1, char::len_utf8) };
    }
    found
}

/// Numbers as they stand between brackets.
fn ranges(digits: &BTreeSet<&str>) -> String {
    let mut all: Vec<(&str, u64)> =
        digits.iter().filter_map(|text| Some((*text, text.parse().ok()?))).collect();
    all.sort_by_key(|(text, number)| (text.len(), *number));
    let mut ranges = Vec::new();
    let mut rest = all.as_slice();
    while let [(first, _), ..] = rest {
        let step = match rest {
            [(_, a), (_, b), ..] => b.saturating_sub(*a).max(1),
            _ => 1,
        };
        let (one, stepped) = (reach(rest, 1), reach(rest, step));
        let (step, count) = if one == 1 && stepped >= STEPS { (step, stepped) } else { (1, one) };
        let last = rest.get(count - 1).map_or(*first, |(text, _)| text);
        ranges.push(match (count, step) {
            (1, _) => (*first).to_owned(),
            (_, 1) => format!("{first}-{last}"),
            (_, step) => format!("{first}-{last}/{step}"),
        });
        rest = rest.get(count..).unwrap_or_default();
    }
    // One number alone would read as a class of characters.
    if let [only] = ranges.as_slice()
        && !only.contains('-')
    {
        return format!("{only},{only}");
    }
    ranges.join(",")
}

/// How many of the numbers follow each other by this step, each written as a range writes it.
fn reach(numbers: &[(&str, u64)], step: u64) -> usize {
    let Some((first, from)) = numbers.first() else { return 1 };
    let width = if first.len() > 1 && first.starts_with('0') { first.len() } else { 1 };
    let mut wanted = *from;
    let follows = |(text, number): &&(&str, u64)| {
        let is_next = *number == wanted && **text == *format!("{wanted:0width$}");
        wanted = wanted.saturating_add(step);
        is_next
    };
    numbers.iter().take_while(follows).count().max(1)
}
