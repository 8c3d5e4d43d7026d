//! Contexts in the text of the configuration. Pure.
//!
//! Only the lines of the context change: comments and everything else stay as they are. What comes out is read again, and must
//! say what was wanted and nothing else; where a file is written in a way that this cannot follow, its owner is asked to.

use std::ops::Range;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::settings::{Settings, context::Context};

/// The text cannot be changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// There is one.
    #[error("there is a context {0:?} already")]
    Taken(String),
    /// There is none.
    #[error("there is no context {0:?}")]
    Unknown(String),
    /// What it would be is none, and why.
    #[error("it cannot be as it is wanted: {0}")]
    Wrong(String),
    /// It is not written as `[contexts.NAME]`.
    #[error("the file is written in a way that cannot be changed from here; change it with an editor")]
    ByHand,
}

/// Adds a context at the end.
///
/// # Errors
/// [`EditError`].
pub fn add(text: &str, name: &str, context: &Context) -> Result<String, EditError> {
    let mut wanted = read(text)?;
    if wanted.contexts.insert(name.to_owned(), context.clone()).is_some() {
        return Err(EditError::Taken(name.to_owned()));
    }
    let body = toml::to_string(context).map_err(|_| EditError::ByHand)?;
    let gap = match text {
        "" => "",
        text if text.ends_with('\n') => "\n",
        _ => "\n\n",
    };
    let own = format!("[contexts.{}]\n{body}", key(name));
    right(&own)?;
    says(format!("{text}{gap}{own}"), &wanted)
}

/// Removes a context.
///
/// # Errors
/// [`EditError`].
pub fn remove(text: &str, name: &str) -> Result<String, EditError> {
    let mut wanted = read(text)?;
    wanted.contexts.remove(name).ok_or_else(|| EditError::Unknown(name.to_owned()))?;
    let lines = lines_of(text, name).ok_or(EditError::ByHand)?;
    let mut out = text.to_owned();
    out.replace_range(lines, "");
    says(out, &wanted)
}

/// Calls a context by another name.
///
/// # Errors
/// [`EditError`].
pub fn rename(text: &str, name: &str, new: &str) -> Result<String, EditError> {
    let mut wanted = read(text)?;
    if wanted.contexts.contains_key(new) {
        return Err(EditError::Taken(new.to_owned()));
    }
    let context = wanted.contexts.remove(name).ok_or_else(|| EditError::Unknown(name.to_owned()))?;
    wanted.contexts.insert(new.to_owned(), context);
    right(&format!("[contexts.{}]\n", key(new)))?;
    let table = DeTable::parse(text).map_err(|_| EditError::ByHand)?;
    let (written, _) = find(table.get_ref(), name).ok_or(EditError::ByHand)?;
    let mut out = text.to_owned();
    out.replace_range(written.span(), &key(new));
    says(out, &wanted)
}

fn read(text: &str) -> Result<Settings, EditError> {
    Settings::read(text).map_err(|_| EditError::ByHand)
}

/// A new context by itself: what is wrong with it is not a matter of how the file is written.
fn right(own: &str) -> Result<(), EditError> {
    let Err(problems) = Settings::read(own) else { return Ok(()) };
    // Places in a text that nobody has written say nothing.
    let told =
        problems.first().map_or_else(String::new, |problem| format!("{}: {}", problem.key, problem.what));
    Err(EditError::Wrong(told))
}

/// The text, if it says this.
fn says(text: String, wanted: &Settings) -> Result<String, EditError> {
    let mut read = read(&text)?;
    let mut wanted = wanted.clone();
    // Lines below have moved.
    for rebinding in read.keys.rebindings.iter_mut().chain(&mut wanted.keys.rebindings) {
        (rebinding.line, rebinding.column) = (0, 0);
    }
    if read == wanted { Ok(text) } else { Err(EditError::ByHand) }
}

/// A name as a key.
fn key(name: &str) -> String {
    if name.contains('.') { format!("{name:?}") } else { name.to_owned() }
}

type Entry<'a, 'i> = (&'a Spanned<std::borrow::Cow<'i, str>>, &'a Spanned<DeValue<'i>>);

fn find<'a, 'i>(table: &'a DeTable<'i>, name: &str) -> Option<Entry<'a, 'i>> {
    let contexts = table.iter().find(|(key, _)| key.get_ref() == "contexts")?.1.get_ref().as_table()?;
    contexts.iter().find(|(key, _)| key.get_ref() == name)
}

/// The lines of `[contexts.NAME]`, up to the next header and to what is written above that one.
fn lines_of(text: &str, name: &str) -> Option<Range<usize>> {
    let table = DeTable::parse(text).ok()?;
    let (_, value) = find(table.get_ref(), name)?;
    let begin = line_start(text, value.span().start);
    text.get(begin..)?.trim_start().strip_prefix('[')?;
    let mut headers = Vec::new();
    collect(table.get_ref(), text, &mut headers);
    let next = headers.into_iter().filter(|at| *at > begin).min().unwrap_or(text.len());
    let mut end = next;
    if next < text.len() {
        // Comments directly above a header belong to it.
        while let Some(line) = line_before(text, end).filter(|line| *line > begin) {
            if !text.get(line..end)?.starts_with('#') {
                break;
            }
            end = line;
        }
    }
    Some(begin..end)
}

/// Where the lines with headers begin.
fn collect(table: &DeTable<'_>, text: &str, into: &mut Vec<usize>) {
    for value in table.iter().map(|(_, value)| value) {
        let items = value.get_ref().as_array().into_iter().flatten();
        for value in std::iter::once(value).chain(items) {
            let Some(table) = value.get_ref().as_table() else { continue };
            let line = line_start(text, value.span().start);
            if text.get(line..).is_some_and(|rest| rest.trim_start_matches([' ', '\t']).starts_with('[')) {
                into.push(line);
            }
            collect(table, text, into);
        }
    }
}

fn line_start(text: &str, at: usize) -> usize {
    text.get(..at).and_then(|before| before.rfind('\n')).map_or(0, |end| end + 1)
}

/// Where the line begins that ends at `at`.
fn line_before(text: &str, at: usize) -> Option<usize> {
    Some(line_start(text, at.checked_sub(1)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# mine\n[look]\ntheme = \"dark\" # why not\n\n# the real one\n[contexts.prod]\n# careful\nprotected = true\n\n\
                        # play\n[contexts.lab]\nstate_dir = \"/lab\"\n\n[[command]]\nname = \"a\"\ntext = \"\"\"\n[contexts.fake]\n\"\"\"\n";

    #[test]
    fn a_context_comes_and_goes_and_everything_else_stays_as_it_is() {
        let new = Context { nats: Some("nats://\"x\":1".to_owned()), protected: true, ..Context::default() };
        let added = add(FILE, "eu.west", &new).unwrap();
        assert_eq!(
            added.strip_prefix(FILE).unwrap(),
            "\n[contexts.\"eu.west\"]\nnats = 'nats://\"x\":1'\nprotected = true\n"
        );
        assert_eq!(Settings::read(&added).unwrap().contexts["eu.west"], new);
        assert_eq!(add(&added, "eu.west", &new), Err(EditError::Taken("eu.west".to_owned())));
        assert_eq!(remove(&added, "eu.west").unwrap(), format!("{FILE}\n"));
        let removed = remove(FILE, "prod").unwrap();
        let part = "[contexts.prod]\n# careful\nprotected = true\n\n";
        assert_eq!(removed, FILE.replace(part, ""));
        assert_eq!(remove(FILE, "fake"), Err(EditError::Unknown("fake".to_owned())));
        let renamed = rename(FILE, "lab", "play").unwrap();
        assert_eq!(renamed, FILE.replace("[contexts.lab]", "[contexts.play]"));
        assert_eq!(rename(FILE, "lab", "prod"), Err(EditError::Taken("prod".to_owned())));
        assert_eq!(add("", "a", &Context::default()).unwrap(), "[contexts.a]\n");
        assert_eq!(remove("[contexts.a]", "a").unwrap(), "");
    }

    #[test]
    fn what_is_wrong_with_a_new_context_is_told() {
        let key = |error: Result<String, EditError>| match error.unwrap_err() {
            EditError::Wrong(told) => told.split(": ").next().unwrap().to_owned(),
            error => error.to_string(),
        };
        let half = Context { login: Some("/a.creds".into()), ..Context::default() };
        assert_eq!(key(add(FILE, "new", &half)), "contexts.new");
        assert_eq!(key(add(FILE, "default", &Context::default())), "contexts.default");
        assert_eq!(key(rename(FILE, "lab", "default")), "contexts.default");
    }

    #[test]
    fn what_is_written_otherwise_is_left_to_its_owner() {
        let inline = "contexts = { prod = { protected = true } }\n";
        assert_eq!(remove(inline, "prod"), Err(EditError::ByHand));
        assert_eq!(add(inline, "lab", &Context::default()), Err(EditError::ByHand));
        assert_eq!(rename(inline, "prod", "b").unwrap(), "contexts = { b = { protected = true } }\n");
        assert_eq!(remove("contexts.prod.protected = true\n", "prod"), Err(EditError::ByHand));
        assert_eq!(remove("[contexts]\nprod.protected = true\n", "prod"), Err(EditError::ByHand));
        assert_eq!(add("[look]\nthem = 1\n", "a", &Context::default()), Err(EditError::ByHand));
    }
}
