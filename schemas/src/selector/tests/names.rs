//! Many names in few words, ranges, and the order of names.

use std::{cmp::Ordering, collections::BTreeSet};

use proptest::prelude::*;
use rstest::rstest;

use super::{super::*, matches};

#[rstest]
#[case(&[], "")]
#[case(&["web-1"], "web-1")]
#[case(&["web-1", "db-2"], "db-2,web-1")]
#[case(&["web-1", "web-2", "web-3"], "web-[1-3]")]
#[case(&["web-9", "web-10", "web-8"], "web-[8-10]")]
#[case(&["web-09", "web-10", "web-08", "web-18", "db-1"], "db-1,web-[08-10,18]")]
#[case(&["web-1", "web-01"], "web-[1,01]")]
#[case(&["n0", "n2", "n4", "n6", "n7"], "n[0-6/2,7]")]
#[case(&["web-1.fra1", "web-2.fra1", "web-3.fra1"], "web-[1-3].fra1")]
#[case(&["1", "2"], "[1-2]")]
#[case(&["all", "b c", "a*"], "\"a*\",\"all\",\"b c\"")]
fn names_are_folded(#[case] names: &[&str], #[case] text: &str) {
    assert_eq!(fold_names(names.iter().copied()), text);
}

#[test]
fn what_has_no_room_is_counted() {
    let names = ["web-1", "web-2", "web-3", "db-1", "x-9"];
    let folded = |width| fold_names_to(names, width);
    assert_eq!(folded(80), "db-1,web-[1-3],x-9");
    assert_eq!(folded(17), "db-1,web-[1-3] +1");
    assert_eq!(folded(16), "db-1 +4");
    assert_eq!(folded(3), "+5");
    assert_eq!(fold_names_to([], 10), "");
}

#[rstest]
#[case("n[1-3]", "n2", true)]
#[case("n[1-3]", "n02", false)]
#[case("n[1-120]", "n120", true)]
#[case("n[01-120]", "n09", true)]
#[case("n[01-120]", "n120", true)]
#[case("n[01-120]", "n012", false)]
#[case("n[1-3,7,10-20/2]", "n7", true)]
#[case("n[1-3,7,10-20/2]", "n12", true)]
#[case("n[1-3,7,10-20/2]", "n13", false)]
#[case("n[007,12]", "n007", true)]
#[case("n[007,12]", "n7", false)]
#[case("n[1-9][1-9]x", "n11x", true)]
#[case("n[1-20][1-20]", "n111", true)]
#[case("n[1-20][1-20]", "n1111", true)]
#[case("n[1-20][1-20]", "n11111", false)]
#[case("[0-9-]", "-", true)]
#[case("[-0-9]", "-", true)]
#[case("[12]", "12", false)]
#[case("\\[1-3\\]*", "[1-3]", true)]
#[case("n[999999999999999990-999999999999999999]", "n999999999999999995", true)]
fn ranges_are_of_numbers(#[case] text: &str, #[case] id: &str, #[case] meant: bool) {
    assert_eq!(matches(text, id), meant);
}

#[test]
fn names_are_ordered_as_people_count() {
    let mut names = ["web-10", "web-2", "db-1", "web-02", "web-2a", "web", "\u{fc}"];
    names.sort_by(|a, b| natural_order(a, b));
    assert_eq!(names, ["db-1", "web", "web-02", "web-2", "web-2a", "web-10", "\u{fc}"]);
}

proptest! {
    #[test]
    fn folded_names_mean_exactly_these(
        names in prop::collection::btree_set(r"(a|b-|[0-9]{1,3}| |\*|/|x\.){1,4}", 1..30),
        others in prop::collection::vec(r"(a|b-|[0-9]{1,3}| |\*|/|x\.){1,4}", 0..30),
    ) {
        let valid = |name: &&String| MachineId::new(name.as_str()).is_ok();
        let names: BTreeSet<&str> = names.iter().filter(valid).map(String::as_str).collect();
        prop_assume!(!names.is_empty());
        let text = fold_names(names.iter().copied());
        for other in names.iter().copied().chain(others.iter().filter(valid).map(String::as_str)) {
            prop_assert_eq!(matches(&text, other), names.contains(other), "{} and {}", text, other);
        }
        let width = text.len() / 2;
        prop_assert!(fold_names_to(names.iter().copied(), width.max(4)).chars().count() <= width.max(4));
    }
}

#[rstest]
#[case("web-9", "web-10", Ordering::Less)]
#[case("web-10", "web-9", Ordering::Greater)]
#[case("web-01", "web-1", Ordering::Less)]
#[case("a", "b", Ordering::Less)]
#[case("web", "web-1", Ordering::Less)]
#[case("1a", "a1", Ordering::Less)]
#[case("x", "x", Ordering::Equal)]
fn names_compare_as_people_do(#[case] a: &str, #[case] b: &str, #[case] expected: Ordering) {
    assert_eq!(natural_order(a, b), expected);
    assert_eq!(natural_order(b, a), expected.reverse());
}
