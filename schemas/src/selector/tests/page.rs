//! The page for people says what is so.

use super::super::{field::FIELDS, *};

const PAGE: &str = include_str!("../../../../docs/selectors.md");

#[test]
fn every_example_of_the_page_is_a_selector() {
    let examples: Vec<&str> = PAGE
        .lines()
        .skip_while(|line| *line != "```selector")
        .skip(1)
        .take_while(|line| *line != "```")
        .collect();
    assert!(examples.len() > 20, "{}", examples.len());
    for example in examples {
        let selector = Selector::parse(example).unwrap_or_else(|error| panic!("{}", error.shown()));
        assert_eq!(Selector::parse(&selector.to_string()).unwrap(), selector, "{example}");
    }
}

#[test]
fn the_page_has_every_field() {
    let table: Vec<&str> = PAGE.lines().filter(|line| line.starts_with("| `")).collect();
    for (name, _) in FIELDS {
        let is_there = table.iter().any(|line| line.contains(&format!("`{name}`")));
        assert!(is_there, "{name} is missing");
    }
}
