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
        .map(|name| (strsim::osa_distance(&written.to_lowercase(), &name.to_lowercase()), name))
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
    }
}
