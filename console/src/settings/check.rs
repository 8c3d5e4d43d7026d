//! A text, looked at against the fields: everything that is wrong with it, with its place.

use std::collections::BTreeSet;

use signalbox_schemas::selector::Selector;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    context,
    field::{Field, Kind, SECTIONS, Section, Shape},
    keys::{self, Profile, Rebinding},
    near,
    problem::{MOST, Problem},
};
use crate::cli::quantity;

/// Most characters of what is repeated in a problem.
const QUOTED: usize = 48;

/// Everything that is wrong, in the order of the lines, and the keys with another meaning.
pub(super) fn check(text: &str) -> (Vec<Problem>, Vec<Rebinding>) {
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut check = Check { text, problems: Vec::new(), rebindings: Vec::new() };
    if errors.is_empty() {
        check.file(table.get_ref());
        check.keys(table.get_ref());
    } else {
        // What follows a slip of the syntax is read wrong more often than it is wrong.
        for error in errors {
            let offset = error.span().map_or(0, |span| span.start);
            check.problems.push(Problem::at(text, offset, "", error.message().replace('\n', ", ")));
        }
    }
    check.problems.sort_by_key(|problem| (problem.line, problem.column));
    check.problems.dedup();
    check.problems.truncate(MOST);
    check.rebindings.sort_by_key(|rebinding| (rebinding.line, rebinding.column));
    (check.problems, check.rebindings)
}

struct Check<'a> {
    text: &'a str,
    problems: Vec<Problem>,
    rebindings: Vec<Rebinding>,
}

type Key<'i> = Spanned<std::borrow::Cow<'i, str>>;
type Value<'i> = Spanned<DeValue<'i>>;

impl Check<'_> {
    fn file(&mut self, table: &DeTable<'_>) {
        for (name, value) in table {
            let Some(section) = SECTIONS.iter().find(|section| section.name == name.get_ref()) else {
                let advice = near::advice(name.get_ref(), SECTIONS.iter().map(|section| section.name));
                self.tell(
                    name.span().start,
                    &show(name.get_ref()),
                    format!("there is no such table{advice}"),
                );
                continue;
            };
            self.section(section, name, value);
        }
    }

    fn section(&mut self, section: &Section, name: &Key<'_>, value: &Value<'_>) {
        let at = place(name, value);
        match (section.shape, value.get_ref()) {
            (Shape::Once, DeValue::Table(table)) => self.table(section, section.name, at, table),
            (Shape::Keys(most), DeValue::Table(table)) => self.rebound(section, at, most, table),
            (Shape::Named(most, _), DeValue::Table(table)) => {
                if table.len() > most {
                    self.tell(at, section.name, format!("there are more than {most} of them"));
                }
                for (name, value) in table.iter().take(most) {
                    self.named(section, name, value);
                }
            }
            (Shape::Many(most), DeValue::Array(items)) => {
                if items.len() > most {
                    self.tell(at, section.name, format!("there are more than {most} of them"));
                }
                let mut names = BTreeSet::new();
                for (index, item) in items.iter().take(most).enumerate() {
                    self.item(section, index, item, &mut names);
                }
            }
            (Shape::Many(_), other) => {
                let what = format!("expected tables [[{}]], found {}", section.name, kind_of(other));
                self.tell(at, section.name, what);
            }
            (_, other) => self.tell(at, section.name, format!("expected a table, found {}", kind_of(other))),
        }
    }

    /// A table `[views.NAME]` or `[contexts.NAME]`.
    fn named(&mut self, section: &Section, name: &Key<'_>, value: &Value<'_>) {
        let path = format!("{}.{}", section.name, show(name.get_ref()));
        let at = place(name, value);
        if !context::is_name(name.get_ref()) {
            let what =
                "a name has 1 to 63 letters, digits, `.`, `_` and `-`, and begins with a letter or a digit";
            self.tell(name.span().start, &path, what);
        }
        if section.name == "contexts" && name.get_ref() == crate::contexts::NONE {
            self.tell(name.span().start, &path, "this name means no context; choose another one");
        }
        let DeValue::Table(table) = value.get_ref() else {
            return self.tell(at, &path, format!("expected a table, found {}", kind_of(value.get_ref())));
        };
        self.table(section, &path, at, table);
        if section.name != "contexts" {
            return;
        }
        let has = |key: &str| table.iter().any(|(name, _)| name.get_ref() == key);
        for (one, other) in [("login", "signing_key"), ("signing_key", "login")] {
            if has(one) && !has(other) {
                self.tell(at, &path, format!("`{one}` comes with `{other}`, which is missing"));
            }
        }
    }

    /// A table `[[command]]`.
    fn item(&mut self, section: &Section, index: usize, item: &Value<'_>, names: &mut BTreeSet<String>) {
        let path = format!("{}[{}]", section.name, index + 1);
        let at = item.span().start;
        let DeValue::Table(table) = item.get_ref() else {
            return self.tell(at, &path, format!("expected a table, found {}", kind_of(item.get_ref())));
        };
        self.table(section, &path, at, table);
        let name = table.iter().find(|(key, _)| key.get_ref() == "name").map(|(_, value)| value);
        let Some(DeValue::String(text)) = name.map(Spanned::get_ref) else { return };
        let at = name.map_or(at, |name| name.span().start);
        if text.is_empty() {
            self.tell(at, &format!("{path}.name"), "it has no name");
        } else if !names.insert(text.to_string()) {
            self.tell(at, &format!("{path}.name"), format!("{} is the name of another one", quoted(text)));
        }
    }

    /// A table with the fields of a section; `at` is where it begins.
    fn table(&mut self, section: &Section, path: &str, at: usize, table: &DeTable<'_>) {
        for (name, value) in table {
            let key = format!("{path}.{}", show(name.get_ref()));
            if let Some(field) = section.fields.iter().find(|field| field.name == name.get_ref()) {
                self.value(field, &key, value);
            } else {
                let advice = near::advice(name.get_ref(), section.fields.iter().map(|field| field.name));
                self.tell(name.span().start, &key, format!("there is no such key{advice}"));
            }
        }
        for field in section.fields.iter().filter(|field| field.required) {
            if !table.iter().any(|(name, _)| name.get_ref() == field.name) {
                let what = format!("`{}` is missing: {}", field.name, field.kind.expected());
                self.tell(at, path, what);
            }
        }
    }

    fn value(&mut self, field: &Field, key: &str, value: &Value<'_>) {
        if let Err(what) = fits(field.kind, value.get_ref()) {
            self.tell(value.span().start, key, what);
        }
    }

    /// `[keys]`: what is no field of it is a table of keys.
    fn rebound(&mut self, section: &Section, at: usize, most: usize, table: &DeTable<'_>) {
        for (name, value) in table {
            let path = format!("{}.{}", section.name, show(name.get_ref()));
            if let Some(field) = section.fields.iter().find(|field| field.name == name.get_ref()) {
                self.value(field, &path, value);
                continue;
            }
            let DeValue::Table(bound) = value.get_ref() else {
                let advice = near::advice(name.get_ref(), section.fields.iter().map(|field| field.name));
                let what = format!("expected a table of keys, found {}{advice}", kind_of(value.get_ref()));
                self.tell(place(name, value), &path, what);
                continue;
            };
            for (key, action) in bound {
                self.rebinding(name.get_ref(), key, action);
            }
        }
        if self.rebindings.len() > most {
            self.tell(at, section.name, format!("there are more than {most} keys"));
        }
    }

    fn rebinding(&mut self, mode: &str, key: &Key<'_>, action: &Value<'_>) {
        let here = Problem::at(self.text, key.span().start, "", "");
        let rebinding = |action: &str| Rebinding {
            mode: mode.to_owned(),
            key: key.get_ref().to_string(),
            action: action.to_owned(),
            line: here.line,
            column: here.column,
        };
        match action.get_ref() {
            DeValue::String(text) if !text.is_empty() && text.len() <= 128 => {
                self.rebindings.push(rebinding(text));
            }
            other => {
                let what = format!("expected the name of an action or \"none\", found {}", found(other));
                let problem = rebinding("").problem(what);
                let place = Problem::at(self.text, action.span().start, problem.key, problem.what);
                self.problems.push(place);
            }
        }
    }

    /// What the console says of the keys.
    fn keys(&mut self, table: &DeTable<'_>) {
        let keys = table.iter().find(|(name, _)| name.get_ref() == "keys").map(|(_, keys)| keys.get_ref());
        let profile = keys.and_then(DeValue::as_table).and_then(|keys| {
            keys.iter()
                .find(|(name, _)| name.get_ref() == "profile")
                .and_then(|(_, value)| value.get_ref().as_str())
        });
        let profile = match profile {
            Some("vim") => Profile::Vim,
            Some("emacs") => Profile::Emacs,
            Some(_) | None => Profile::Default,
        };
        self.problems.extend((keys::CHECK)(profile, &self.rebindings));
    }

    fn tell(&mut self, at: usize, key: &str, what: impl Into<String>) {
        self.problems.push(Problem::at(self.text, at, key, what));
    }
}

/// Whether a value may stand at a key; what is wrong with it, if not.
fn fits(kind: Kind, value: &DeValue<'_>) -> Result<(), String> {
    let wrong = || Err(format!("expected {}, found {}", kind.expected(), found(value)));
    let fits = match (kind, value) {
        (Kind::Bool | Kind::Choice, DeValue::Boolean(_)) => true,
        (Kind::Choice, DeValue::String(text)) => text == "auto",
        (Kind::Word(words), DeValue::String(text)) => {
            if !words.contains(&text.as_ref()) {
                let advice = near::advice(text, words.iter().copied());
                return wrong().map_err(|what| what + &advice);
            }
            true
        }
        (Kind::Count(least, most), DeValue::Integer(number)) => {
            let number = usize::from_str_radix(number.as_str(), number.radix());
            number.is_ok_and(|number| (least..=most).contains(&number))
        }
        (Kind::Names(most), DeValue::Array(items)) => {
            let is_name = |item: &Value<'_>| item.get_ref().as_str().is_some_and(|text| is_line(text, kind));
            items.len() <= most && items.iter().all(is_name)
        }
        (Kind::Time(least, most), DeValue::String(text)) => {
            quantity::duration_ms(text).is_ok_and(|ms| (least..=most).contains(&ms))
        }
        (Kind::Size(least, most), DeValue::String(text)) => {
            quantity::size_bytes(text).is_ok_and(|bytes| (least..=most).contains(&bytes))
        }
        (Kind::Text(most), DeValue::String(text)) => !text.is_empty() && text.len() <= most,
        (Kind::Line(_) | Kind::Path, DeValue::String(text)) => is_line(text, kind),
        (Kind::Url, DeValue::String(text)) => is_line(text, kind) && !text.contains(char::is_whitespace),
        (Kind::Selector(may_be_empty), DeValue::String(text)) => {
            if may_be_empty && text.is_empty() {
                return Ok(());
            }
            return match Selector::parse(text) {
                Ok(_) => Ok(()),
                Err(error) => wrong().map_err(|what| format!("{what}: {error}")),
            };
        }
        _ => false,
    };
    if fits { Ok(()) } else { wrong() }
}

fn is_line(text: &str, kind: Kind) -> bool {
    !text.is_empty() && text.len() <= kind.most_bytes() && !text.contains(char::is_control)
}

/// Where a table or a value begins: where it is named, unless its own place is known.
fn place(name: &Key<'_>, value: &Value<'_>) -> usize {
    if value.span().is_empty() { name.span().start } else { value.span().start }
}

fn kind_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

fn found(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => quoted(text),
        DeValue::Integer(number) => show(number.as_str()),
        DeValue::Boolean(yes) => yes.to_string(),
        other => kind_of(other).to_owned(),
    }
}

fn quoted(text: &str) -> String {
    format!("{:?}", cut(text))
}

/// A key as it may be shown.
fn show(text: &str) -> String {
    let is_bare = !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
    if is_bare { cut(text) } else { quoted(text) }
}

fn cut(text: &str) -> String {
    let mut cut: String = text.chars().take(QUOTED).collect();
    if text.chars().nth(QUOTED).is_some() {
        cut.push('…');
    }
    cut
}
