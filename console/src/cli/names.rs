//! Many names in few words: `web-[1-3,7], db-1`. Pure.

use std::collections::BTreeMap;

/// Longest number at the end of a name that is counted with.
const DIGITS: usize = 9;

/// The names, those that differ in a number at their end together; at most `most` such groups, and how many names have no room.
pub fn compact<'a>(names: impl IntoIterator<Item = &'a str>, most: usize) -> String {
    // Numbers of one group are written alike: with the same leading zeros, or with none.
    let mut groups: BTreeMap<(&str, usize), Vec<u64>> = BTreeMap::new();
    let mut single: Vec<&str> = Vec::new();
    for name in names {
        match numbered(name) {
            Some((stem, width, number)) => groups.entry((stem, width)).or_default().push(number),
            None => single.push(name),
        }
    }
    let mut parts: Vec<(String, usize)> = groups
        .into_iter()
        .map(|((stem, width), mut numbers)| {
            numbers.sort_unstable();
            numbers.dedup();
            (group(stem, width, &numbers), numbers.len())
        })
        .collect();
    parts.extend(single.into_iter().map(|name| (name.to_owned(), 1)));
    parts.sort();
    let left: usize = parts.iter().skip(most).map(|(_, count)| count).sum();
    let mut words: Vec<String> = parts.into_iter().take(most).map(|(text, _)| text).collect();
    if left > 0 {
        words.push(format!("and {left} more"));
    }
    words.join(", ")
}

fn numbered(name: &str) -> Option<(&str, usize, u64)> {
    let digits = name.bytes().rev().take_while(u8::is_ascii_digit).count();
    if digits == 0 || digits > DIGITS {
        return None;
    }
    let (stem, number) = name.split_at_checked(name.len() - digits)?;
    let width = if number.starts_with('0') && digits > 1 { digits } else { 0 };
    Some((stem, width, number.parse().ok()?))
}

fn group(stem: &str, width: usize, numbers: &[u64]) -> String {
    let show = |number: u64| format!("{number:0width$}");
    if let [only] = numbers {
        return format!("{stem}{}", show(*only));
    }
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for number in numbers {
        match ranges.last_mut() {
            Some((_, to)) if *to + 1 == *number => *to = *number,
            _ => ranges.push((*number, *number)),
        }
    }
    let range = |(from, to): (u64, u64)| match to - from {
        0 => show(from),
        1 => format!("{},{}", show(from), show(to)),
        _ => format!("{}-{}", show(from), show(to)),
    };
    format!("{stem}[{}]", ranges.into_iter().map(range).collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_differ_in_a_number_are_one_word() {
        let all = ["web-3", "web-1", "web-2", "web-7", "db-1", "lab", "eu-08", "eu-09", "x-12345678901"];
        assert_eq!(compact(all, 9), "db-1, eu-[08,09], lab, web-[1-3,7], x-12345678901");
        assert_eq!(compact(all, 2), "db-1, eu-[08,09], and 6 more");
        assert_eq!(compact([], 2), "");
        assert_eq!(compact(["a1", "a1"], 2), "a1");
    }
}
