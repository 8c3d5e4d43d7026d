//! What is a selector, and what is said of what is none.

use globset::GlobBuilder;
use proptest::prelude::*;
use rstest::rstest;

use super::{super::*, matches};

#[rstest]
#[case("all", true)]
#[case("web-01", true)]
#[case(" web-01 ", true)]
#[case("web-*", true)]
#[case("web-0?", true)]
#[case("{db,web}-[0-9][0-9]", true)]
#[case("*", true)]
#[case("web", false)]
#[case("Web-01", false)]
#[case("web-0", false)]
#[case("db-*", false)]
#[case("db-01,web-01", true)]
#[case("db-01 , web-01", true)]
#[case("db-01 or web-01", true)]
#[case("web-* and not web-02", true)]
#[case("web-* and not web-01", false)]
#[case("not db-1,web-01", false)]
#[case("db-1,web-01 and web-02", false)]
#[case("db-1 or web-01 and web-02 or web-01", true)]
#[case("(db-1 or web-01) and web-02", false)]
#[case("not (db-1 or web-02)", true)]
#[case("not not web-01", true)]
#[case("/^web-\\d+$/", true)]
#[case("/^eb/", false)]
#[case("name~/01/", true)]
#[case("name ~ 01", true)]
#[case("name!~\"^w\"", false)]
#[case("name=web-*", true)]
#[case("name!=web-*", false)]
#[case("token=web-01", true)]
#[case("\"web-*\"", false)]
#[case("web-[01-20]", true)]
#[case("web-[1-20]", false)]
#[case("web-[00,01]", true)]
#[case("web-[02-20]", false)]
#[case("*-[01-20]", true)]
#[case("{db,web}-[01-20]", true)]
#[case("name=web-[01-03]", true)]
fn selects(#[case] text: &str, #[case] meant: bool) {
    assert_eq!(matches(text, "web-01"), meant);
}

#[rstest]
#[case("B\u{fc}ro\\ ?", true)]
#[case("B?ro\\ 1", true)]
#[case("B??ro\\ 1", false)]
#[case("?????\\ ?", false)]
#[case("????\\ ?", true)]
#[case("B[\u{fc}\u{e4}]ro*", true)]
#[case("B[!a]ro*", true)]
#[case("B[!\u{fc}]ro*", false)]
#[case("B[\u{e0}-\u{ff}]ro*", true)]
#[case("B[\u{fd}-\u{ff}]ro*", false)]
#[case("B{\u{e4},\u{fc}}ro*", true)]
#[case("{B\u{fc}ro 1,x}", true)]
#[case("B\\\u{fc}ro*", true)]
#[case("B\u{e4}ro*", false)]
#[case("*ro*", true)]
#[case("\"B\u{fc}ro 1\"", true)]
#[case("B\u{fc}ro\\ 1", true)]
#[case("B\u{fc}ro\\ [1-3]", true)]
#[case("/B.ro \\d/", true)]
fn a_letter_beyond_ascii_is_one_character(#[case] text: &str, #[case] meant: bool) {
    assert_eq!(matches(text, "B\u{fc}ro 1"), meant);
}

#[test]
fn a_machine_named_by_any_letters_is_matched_by_as_many_question_marks() {
    // Of one to four bytes each, and more of them than a glob may have.
    let letters: String = ['x', '\u{e9}', '\u{20ac}', '\u{1f980}'].into_iter().cycle().take(40).collect();
    let marked = |marks: usize| matches(&"?".repeat(marks), &letters);
    assert_eq!([39, 40, 41].map(marked), [false, true, false]);
    let many: String = ('\u{4e00}'..='\u{4e0f}').collect();
    assert!(Selector::parse(&format!("{many}*")).is_err());
    let fewer: String = many.chars().skip(1).collect();
    assert!(Selector::parse(&format!("{fewer}*")).is_ok());
}

#[rstest]
#[case("[a-\u{e4}]*", "from ASCII to beyond it (at character 1: `[a-\u{e4}]*`)")]
#[case("", "expected a name")]
#[case("   ", "expected a name")]
#[case("[z-a]", "runs backwards")]
#[case("a{b", "a brace that begins here has no end; write `}`, or quote the name (at character 2: `{b`)")]
#[case("a[b", "a bracket that begins here has no end")]
#[case("a\nb", "control character")]
#[case("web server", "quote a name with spaces (at character 5: `server`)")]
#[case("B\u{fc}ro 1 (old)", "quote a name with spaces (at character 6: `1`)")]
#[case("web(1)", "quote a name with spaces (at character 4: `(`)")]
#[case("(a or b", "expected `and`, `or` or `)`")]
#[case("a)", "a `)` stands without its `(`")]
#[case(
    "a or",
    "expected a name, a glob such as `web-*`, a comparison such as `os=debian`, or `all` (at its end)"
)]
#[case("and a", "quote a machine's name that is `and`")]
#[case("a, not b", "write `or not`")]
#[case("!a", "write `not`")]
#[case("a\"b\"", "a quote stands within a word")]
#[case("\"ab", "a quote that begins here has no end")]
#[case("/ab", "a regular expression that begins here has no end")]
#[case("/a(/", "not a regular expression: unclosed group")]
#[case("/(\\w{200}){20}/", "the regular expression is too large")]
#[case("\"\"", "a name has at least one character")]
#[case("Role=web", "neither a field nor the key of a label")]
#[case("=web", "expected a name")]
#[case("role=", "expected a value")]
#[case("role==web", "expected a value")]
#[case("os<12", "`os` has no order")]
#[case("state=up", "expected `online`, `stale` or `offline` (at character 7: `up`)")]
#[case("state<online", "compare `state` with")]
#[case("cpu~9", "`cpu` is a number")]
#[case("cpu>101", "a percentage from 0 to 100")]
#[case("cpu>1e1", "a percentage")]
#[case("heard>5", "expected a duration")]
#[case("memory>8XB", "expected a size")]
#[case("relay<1.x", "expected numbers with dots")]
#[case("load>.5", "expected a number")]
#[case("all sample 0", "expected how many")]
#[case("all sample 101%", "expected how many")]
#[case("all sample 5 seed x", "expected a whole number")]
#[case("all limit 5 sample 5", "write `sample` before `limit`")]
#[case("(all limit 5)", "stand at the end of the whole selector")]
#[case("web[20-01]", "a range of numbers runs backwards (at character 4: `[20-01]`)")]
#[case("web[1-010]", "as many digits")]
#[case("web[010-20]", "as many digits")]
#[case("web[1-2-3]", "write numbers as")]
#[case("web[1-3/0]", "at least 1")]
#[case("web[1-100001]", "more than 100000 names")]
#[case("web[1-1000][1-1000]", "more than 100000 names")]
#[case("web*[1-5000]", "too many numbers stand within globs")]
fn refuses(#[case] text: &str, #[case] why: &str) {
    let error = Selector::parse(text).expect_err(text);
    assert!(error.to_string().contains(why), "{error}");
    assert!(error.to_string().starts_with("not a selector: "));
    let shown = error.shown();
    assert!(shown.lines().count() == 3 || text.trim().is_empty() || text.contains('\n'), "{shown}");
}

#[rstest]
#[case("(".repeat(64) + "a" + &")".repeat(64), "")]
#[case("(".repeat(65) + "a" + &")".repeat(65), "nested deeper than 64 levels")]
#[case("not ".repeat(65) + "a", "nested deeper than 64 levels")]
#[case(vec!["a"; 256].join(","), "")]
#[case(vec!["a"; 257].join(","), "more than 256 names and comparisons")]
#[case(vec!["/a/"; 16].join(","), "")]
#[case(vec!["/a/"; 17].join(","), "more than 16 regular expressions")]
#[case("a".repeat(4096), "")]
#[case("a".repeat(4097), "longer than 4096 bytes")]
#[case("[1,2]".repeat(9), "at most 8 ranges")]
#[case("{".repeat(250) + "a" + &"}".repeat(250), "it is too large, or its braces are nested too deep")]
#[case("{".repeat(2_000) + "a" + &"}".repeat(2_000), "it is too large, or its braces are nested too deep")]
fn has_bounds(#[case] text: String, #[case] why: &str) {
    let said = Selector::parse(&text).map_or_else(|error| error.to_string(), |_| String::new());
    assert!(if why.is_empty() { said.is_empty() } else { said.contains(why) }, "{said:?}");
}

#[test]
fn a_machine_with_an_odd_name_is_found_by_both() {
    let id = "Web/1 (old)";
    let token = MachineId::new(id).unwrap().token();
    for text in ["\"Web/1 (old)\"", "Web/1\\ \\(old\\)", token.as_str(), "Web*", "x-*"] {
        assert!(matches(text, id), "{text} misses it");
    }
}

#[rstest]
#[case("web-1", "web-1")]
#[case("a\\b", "\"a\\\\b\"")]
#[case("all", "\"all\"")]
#[case("and", "\"and\"")]
#[case("a*", "\"a*\"")]
#[case("/x/", "\"/x/\"")]
#[case("[x]{a,b}?\\*", "\"[x]{a,b}?\\\\*\"")]
#[case("say \"a\"", "\"say \\\"a\\\"\"")]
fn a_machine_can_be_meant_whatever_it_is_called(#[case] id: &str, #[case] text: &str) {
    assert_eq!(Selector::of_machine(id), text);
    assert!(matches(text, id));
    for other in ["web-2", "ab", "a1", "x", "xa", "alle"] {
        assert!(!matches(text, other), "{other}");
    }
}

#[rstest]
#[case("  a  or b ", "a,b")]
#[case("a,b or c and d", "a or b or c and d")]
#[case("(a or b) and (c)", "(a,b) and c")]
#[case("not(a)", "not a")]
#[case("not a,b", "not (a,b)")]
#[case("os = \"Debian 12\" and cpu >= 90%", "os=\"Debian 12\" and cpu>=90%")]
#[case("label.os=x or label.role=y", "label.os=x,role=y")]
#[case("label.label.x=1,label.not=2", "label.label.x=1,label.not=2")]
#[case("name~a/b", "name~/a\\/b/")]
#[case("path=/opt/x", "path=\"/opt/x\"")]
#[case("all sample 10% seed 0 limit 5", "all sample 10% limit 5")]
#[case("all sample 10% seed 7", "all sample 10% seed 7")]
#[case("limit,sample,seed limit 5", "limit,sample,seed limit 5")]
fn has_one_text(#[case] text: &str, #[case] canonical: &str) {
    let selector = Selector::parse(text).unwrap();
    assert_eq!(selector.to_string(), canonical);
    assert_eq!(Selector::parse(canonical).unwrap(), selector);
}

/// Text that looks like a selector.
fn near_selectors() -> impl Strategy<Value = String> {
    let words = [
        "a",
        "web-[01-20]",
        "web-*",
        "{a,b}",
        "[a-z]",
        "[0-9]x",
        "/^a\\/b/",
        "\"b c\"",
        "all",
        "and",
        "or",
        "not",
        "(",
        ")",
        ",",
        "os",
        "cpu",
        "role",
        "label.os",
        "relay",
        "heard",
        "state",
        "=",
        "!=",
        "<",
        ">=",
        "~",
        "!~",
        "90%",
        "5m",
        "8GiB",
        "1.4.0",
        "online",
        "sample",
        "limit",
        "seed",
        "10%",
        "5",
        "\\",
        "\u{fc}",
        "!",
        "[",
        "{",
        "\"",
        "/",
        "-",
    ];
    let word =
        prop_oneof![8 => prop::sample::select(words.to_vec()).prop_map(str::to_owned), 1 => "\\PC{0,3}"];
    let between = prop::sample::select(vec![" ", " ", "", "  "]);
    prop::collection::vec((word, between), 0..12)
        .prop_map(|parts| parts.into_iter().map(|(word, space)| word + space).collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn what_is_printed_is_the_same_selector(text in near_selectors()) {
        if let Ok(selector) = Selector::parse(&text) {
            let printed = selector.to_string();
            let again = Selector::parse(&printed).map_err(|error| TestCaseError::fail(format!("{text:?}: {}", error.shown())))?;
            prop_assert_eq!(&again, &selector);
            prop_assert_eq!(again.to_string(), printed);
        }
    }

    #[test]
    fn no_text_is_too_much(text in "\\PC{0,80}", id in "\\PC{1,20}") {
        match Selector::parse(&text) {
            Ok(selector) => if let Ok(id) = MachineId::new(id) {
                let _ = selector.matches(&id, &id.token());
            },
            Err(error) => {
                let span = error.span();
                prop_assert!(span.start <= span.end && span.end <= text.len());
                prop_assert!(text.get(span).is_some(), "a character is cut");
                let _ = (error.shown(), error.to_string());
            }
        }
    }

    #[test]
    fn a_word_with_a_glob_means_what_it_always_meant(
        glob in r"([a-c01*?]|-|\[[a-c]-[b-d]\]|\[!?[a-c01]{1,3}\]|\[0-[1-9]\]|\{[a-c]{0,2},[01]?\}|\\[*?]){1,8}",
        id in "[a-d01*?-]{1,6}",
    ) {
        prop_assume!(glob.contains(['*', '?', '[', '{']) && MachineId::new(id.as_str()).is_ok());
        let set = GlobBuilder::new(&glob).literal_separator(false).backslash_escape(true).build();
        let machine = MachineId::new(id.as_str()).unwrap();
        match (set, Selector::parse(&glob)) {
            (Ok(set), Ok(selector)) => {
                let old = set.compile_matcher();
                let old = old.is_match(&id) || old.is_match(machine.token().as_str());
                prop_assert_eq!(selector.matches(&machine, &machine.token()), old, "{}", glob);
            }
            (old, new) => prop_assert_eq!(old.is_ok(), new.is_ok(), "{}", glob),
        }
    }
}
