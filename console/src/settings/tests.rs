use rstest::rstest;

use super::{
    field::{Field, Kind, SECTIONS, Shape},
    keys::{Profile, Rebinding},
    look::{ClipboardVia, Theme},
    value::{Choice, Size, Time},
    *,
};

fn problems(text: &str) -> Vec<String> {
    Settings::read(text).unwrap_err().iter().map(ToString::to_string).collect()
}

#[test]
fn an_empty_file_sets_nothing() {
    assert_eq!(Settings::read("").unwrap(), Settings::default());
    assert_eq!(Settings::read("[look]\n[keys]\n[views.machines]\n[run]\n").unwrap().look, Look::default());
}

#[test]
fn everything_can_be_set() {
    let text = r#"
        [look]
        theme = "16"
        ascii = true
        reduced_motion = true
        mouse = true
        header = false
        crumbs = false
        [keys]
        profile = "vim"
        [keys.machines]
        "<c-x>" = "run"
        q = "none"
        [views.machines]
        columns = ["name", "labels"]
        sort = "-cpu"
        [run]
        confirm_above = 0
        protected = "web-*"
        timeout = "2m"
        expires_in = "7d"
        read_only = true
        [where]
        label = "region"
        [clipboard]
        via = "osc52"
        max_bytes = "1MiB"
        [[command]]
        name = "restart"
        text = "systemctl restart {{unit=nginx}}"
        on = "web-*"
        timeout = "1m"
        confirm = true
        [[command]]
        name = "df"
        text = "df -h"
        [contexts.prod]
        login = "prod.creds"
        signing_key = "/keys/prod.seed"
        nats = "tls://broker.example:4222"
        protected = true
        [contexts.lab]
        state_dir = "~/lab"
        colour = "green"
    "#;
    let read = Settings::read(text).unwrap();
    assert_eq!((read.look.theme, read.look.ascii, read.look.header), (Theme::Sixteen, Choice::Yes, false));
    assert_eq!(read.keys.profile, Profile::Vim);
    let bound = |key: &str, action: &str, line| Rebinding {
        mode: "machines".to_owned(),
        key: key.to_owned(),
        action: action.to_owned(),
        line,
        column: 9,
    };
    assert_eq!(read.keys.rebindings, [bound("<c-x>", "run", 12), bound("q", "none", 13)]);
    assert_eq!(read.views["machines"].order(), Some(("cpu", true)));
    assert_eq!((read.run.confirm_above, read.run.timeout), (0, Time::of_ms(120_000)));
    assert_eq!(read.place.label, "region");
    assert_eq!(
        (read.clipboard.via, read.clipboard.max_bytes),
        (ClipboardVia::Osc52, Size { bytes: 1 << 20 })
    );
    let restart = read.saved("restart").unwrap();
    assert!(restart.confirm && restart.parameters()[0].default.as_deref() == Some("nginx"));
    assert_eq!(read.contexts["prod"].shown_in(), Some(context::Colour::Red));
    assert_eq!(read.contexts["lab"].shown_in(), Some(context::Colour::Green));
    assert_eq!(read.contexts["lab"].state_dir.as_deref(), Some(std::path::Path::new("~/lab")));
}

#[rstest]
#[case(
    "[look]\ntheme = \"drak\"",
    "2:9: look.theme: expected one of \"auto\", \"dark\", \"light\", \"16\", \"mono\", found \"drak\"; did you mean \"dark\"?"
)]
#[case("[look]\nthem = \"dark\"", "2:1: look.them: there is no such key; did you mean \"theme\"?")]
#[case("\n[loook]\n", "2:2: loook: there is no such table; did you mean \"look\"?")]
#[case("look = 3", "1:8: look: expected a table, found a number")]
#[case("[look]\nascii = \"yes\"", "2:9: look.ascii: expected \"auto\", true or false, found \"yes\"")]
#[case("[look]\nmouse = 1", "2:9: look.mouse: expected true or false, found 1")]
#[case(
    "[run]\nconfirm_above = -1",
    "2:17: run.confirm_above: expected a whole number from 0 to 10000, found -1"
)]
#[case(
    "[run]\nconfirm_above = 10001",
    "2:17: run.confirm_above: expected a whole number from 0 to 10000, found 10001"
)]
#[case(
    "[run]\ntimeout = \"30\"",
    "2:11: run.timeout: expected a time from 1ms to 48h such as \"30s\", \"5m\" or \"2h\", found \"30\""
)]
#[case(
    "[run]\ntimeout = \"3d\"",
    "2:11: run.timeout: expected a time from 1ms to 48h such as \"30s\", \"5m\" or \"2h\", found \"3d\""
)]
#[case(
    "[run]\ntimeout = 30",
    "2:11: run.timeout: expected a time from 1ms to 48h such as \"30s\", \"5m\" or \"2h\", found 30"
)]
#[case(
    "[clipboard]\nmax_bytes = \"1GiB\"",
    "2:13: clipboard.max_bytes: expected a size from 1B to 16MiB such as \"64KiB\", found \"1GiB\""
)]
#[case(
    "[keys]\nprofile = \"vi\"",
    "2:11: keys.profile: expected one of \"default\", \"vim\", \"emacs\", found \"vi\"; did you mean \"vim\"?"
)]
#[case(
    "[keys]\nprofil = \"vim\"",
    "2:10: keys.profil: expected a table of keys, found a text; did you mean \"profile\"?"
)]
#[case(
    "[keys.machines]\n\"<c-x>\" = 3",
    "2:11: keys.machines.\"<c-x>\": expected the name of an action or \"none\", found 3"
)]
#[case(
    "[views.machines]\ncolumns = \"name\"",
    "2:11: views.machines.columns: expected a list of at most 32 names, found \"name\""
)]
#[case(
    "[views.machines]\ncolumns = [\"a\", 3]",
    "2:11: views.machines.columns: expected a list of at most 32 names, found a list"
)]
#[case("[[command]]\nname = \"a\"", "1:1: command[1]: `text` is missing: a text of at most 65536 bytes")]
#[case("[command]\nname = \"a\"", "1:1: command: expected tables [[command]], found a table")]
#[case(
    "[[command]]\nname = \"a\"\ntext = \"b\"\n[[command]]\nname = \"a\"\ntext = \"c\"",
    "5:8: command[2].name: \"a\" is the name of another one"
)]
#[case(
    "[contexts.\"-\"]\n",
    "1:11: contexts.-: a name has 1 to 63 letters, digits, `.`, `_` and `-`, and begins with a letter or a digit"
)]
#[case(
    "[contexts.prod]\nlogin = \"a\"",
    "1:1: contexts.prod: `login` comes with `signing_key`, which is missing"
)]
#[case(
    "[contexts.prod]\nnats = \"nats://a b\"",
    "2:8: contexts.prod.nats: expected the address of a broker such as \"nats://host:4222\", at most 4096 bytes, found \"nats://a b\""
)]
#[case("contexts.prod = 3", "1:17: contexts.prod: expected a table, found a number")]
#[case("[look\ntheme", "1:6: ")]
#[case("[look]\ntheme = \"dark\"\ntheme = \"dark\"", "3:1: ")]
fn what_is_wrong_is_told_with_its_place(#[case] text: &str, #[case] told: &str) {
    let problems = problems(text);
    assert!(problems[0].starts_with(told), "{problems:?}");
}

#[test]
fn everything_that_is_wrong_is_told() {
    let text = "[look]\ntheme = 1\nmouse = 2\n[run]\nprotected = \"[\"\n[nonsense]\n";
    let told = problems(text);
    assert_eq!(told.len(), 4, "{told:?}");
    assert!(told[2].starts_with("5:13: run.protected: expected a selector"), "{told:?}");
    let many: Vec<String> = (0..1_000).map(|n| format!("k{n} = 1")).collect();
    assert_eq!(problems(&many.join("\n")).len(), problem::MOST);
}

#[test]
fn foreign_text_in_a_problem_is_short_and_harmless() {
    let told = problems(&format!("[look]\ntheme = \"\\u001b{}\"", "x".repeat(5_000)));
    assert!(told[0].len() < 250 && !told[0].contains('\u{1b}'), "{told:?}");
}

#[test]
fn the_default_file_sets_what_is_set_without_one() {
    let page = page::default_file();
    assert_eq!(Settings::read(&page).unwrap(), Settings::default());
    insta::assert_snapshot!("default_file", page);
}

#[test]
fn the_examples_of_the_default_file_are_right() {
    let bare = |line: &str| match line.strip_prefix('#') {
        Some(example) if !example.starts_with(' ') => example.to_owned(),
        Some(_) => String::new(),
        None => line.to_owned(),
    };
    let examples: String = page::default_file().lines().map(|line| bare(line) + "\n").collect();
    let read = Settings::read(&examples).unwrap();
    assert_eq!(read.contexts.len() + read.commands.len() + read.views.len() + read.keys.rebindings.len(), 4);
    // Whatever has a field is there, so the types have every field.
    for section in SECTIONS {
        for field in section.fields {
            assert!(examples.contains(&format!("{} = ", field.name)), "{}.{}", section.name, field.name);
        }
    }
}

/// The members of a table of settings, as TOML.
fn member(section: &str, name: &str) -> Option<toml::Value> {
    let all = toml::Table::try_from(Settings::default()).unwrap();
    all.get(section)?.get(name).cloned()
}

#[test]
fn fields_and_types_have_the_same_members_and_defaults() {
    let once = SECTIONS.iter().filter(|section| matches!(section.shape, Shape::Once | Shape::Keys(_)));
    for section in once {
        let names: Vec<String> = toml::Table::try_from(Settings::default()).unwrap()[section.name]
            .as_table()
            .unwrap()
            .keys()
            .cloned()
            .collect();
        let mut fields: Vec<&str> = section.fields.iter().map(|field| field.name).collect();
        fields.sort_unstable();
        let mut names_sorted = names.clone();
        names_sorted.sort();
        assert_eq!(fields, names_sorted, "{}", section.name);
        for field in section.fields {
            let written: toml::Table = toml::from_str(&format!("it = {}", field.default.unwrap())).unwrap();
            assert_eq!(
                member(section.name, field.name),
                written.get("it").cloned(),
                "{}.{}",
                section.name,
                field.name
            );
        }
    }
}

#[test]
fn every_word_that_may_be_written_is_read() {
    let word = |section: &str, shape: Shape, field: &Field, word: &str| {
        let table = match shape {
            Shape::Named(_, name) => format!("[{section}.{name}]"),
            _ => format!("[{section}]"),
        };
        Settings::read(&format!("{table}\n{} = {word:?}", field.name)).unwrap();
    };
    for section in SECTIONS {
        for field in section.fields {
            if let Kind::Word(words) = field.kind {
                for written in words {
                    word(section.name, section.shape, field, written);
                }
            }
        }
    }
}

#[test]
fn the_schema_names_every_key() {
    let schema = page::schema();
    for section in SECTIONS {
        let table = &schema["properties"][section.name];
        let table = match section.shape {
            Shape::Once | Shape::Keys(_) => table,
            Shape::Named(..) => &table["additionalProperties"],
            Shape::Many(_) => &table["items"],
        };
        for field in section.fields {
            assert!(table["properties"][field.name].is_object(), "{}.{}", section.name, field.name);
        }
    }
    assert_eq!(schema["properties"]["run"]["properties"]["confirm_above"]["default"], 50);
    assert_eq!(schema["properties"]["command"]["items"]["required"], serde_json::json!(["name", "text"]));
}
