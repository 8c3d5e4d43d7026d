//! The name that was probably meant. Pure.

/// Longer texts are no slip of a name.
const LONGEST: usize = 64;

/// The names that are close to what was written, the closest first, at most three.
pub fn near<'a>(written: &str, names: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let allowed = match written.chars().count() {
        0 => return Vec::new(),
        1..=2 => 1,
        3..=5 => 2,
        6..=LONGEST => 3,
        _ => return Vec::new(),
    };
    let mut found: Vec<(usize, &str)> = names
        .into_iter()
        .filter(|name| name.chars().count() <= LONGEST)
        .map(|name| (distance(&written.to_lowercase(), &name.to_lowercase()), name))
        .filter(|(distance, name)| *distance <= allowed && *distance < name.chars().count())
        .collect();
    found.sort_unstable();
    found.into_iter().take(3).map(|(_, name)| name).collect()
}

/// `; did you mean "a" or "b"?`, or nothing.
pub fn advice<'a>(written: &str, names: impl IntoIterator<Item = &'a str>) -> String {
    let quoted: Vec<String> = near(written, names).into_iter().map(|name| format!("{name:?}")).collect();
    if quoted.is_empty() { String::new() } else { format!("; did you mean {}?", quoted.join(" or ")) }
}

/// Characters to add, drop or replace, two that changed places being one.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut next = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let at = |row: &[usize], j: usize| row.get(j).copied().unwrap_or(usize::MAX);
            let replaced = at(&row, j) + usize::from(x != y);
            let mut best = replaced.min(at(&row, j + 1) + 1).min(at(&next, j) + 1);
            let turned = i > 0 && j > 0 && a.get(i - 1) == Some(y) && b.get(j - 1) == Some(x);
            if turned {
                best = best.min(at(&before, j - 1).saturating_add(1));
            }
            next.push(best);
        }
        before = std::mem::replace(&mut row, next);
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_leads_to_the_name_and_another_word_does_not() {
        let names = ["prod", "staging", "lab"];
        assert_eq!(near("pord", names), ["prod"]);
        assert_eq!(near("PROD", names), ["prod"]);
        assert_eq!(near("stagnig", names), ["staging"]);
        assert_eq!(near("elsewhere", names), [""; 0]);
        assert_eq!(near("", names), [""; 0]);
        assert_eq!(near(&"x".repeat(10_000), names), [""; 0]);
        assert_eq!(advice("prd", names), "; did you mean \"prod\"?");
        assert_eq!(advice("zzz", names), "");
        assert_eq!(distance("ab", "ba"), 1);
        assert_eq!(distance("", "abc"), 3);
    }
}
