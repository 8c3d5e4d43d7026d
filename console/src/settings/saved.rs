//! `[[command]]`: commands with a name. Pure.
//!
//! A text has placeholders: `{{unit}}`, or `{{unit=nginx}}` with a default. Only these are: two braces, a name of small
//! letters, digits and `_`, and no space; `{{.Names}}` of other programs is text. What is filled in is quoted for the shell
//! where it needs to be, so a placeholder stands outside of quotes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::value::Time;

/// Most saved commands.
pub const COMMANDS: usize = 500;
/// Most characters of a name.
pub const NAME: usize = 64;

/// A saved command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedCommand {
    /// What it is called, 1 to 64 characters.
    pub name: String,
    /// The text for `sh -c`, with placeholders.
    pub text: String,
    /// The machines that it is for, a selector; `None`: asked for each time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on: Option<String>,
    /// How long it may run; `None`: as any command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Time>,
    /// Whether the number of machines is asked for each time.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub confirm: bool,
}

/// A placeholder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// Its name.
    pub name: String,
    /// What stands for it when nothing is given.
    pub default: Option<String>,
}

/// A text cannot be filled in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FillError {
    /// Nothing was given for it, and it has no default.
    #[error("nothing is given for {{{{{0}}}}}, which has no default; give it with --with {0}=VALUE")]
    Missing(String),
    /// There is no such placeholder.
    #[error("it has no placeholder {{{{{0}}}}}")]
    Unknown(String),
    /// A line end or another control character, which a line of a shell is no place for.
    #[error("the value of {{{{{0}}}}} has a control character")]
    Control(String),
}

enum Part<'a> {
    Text(&'a str),
    Placeholder { name: &'a str, default: Option<&'a str> },
}

impl SavedCommand {
    /// Its placeholders, each once, in the order of the text. The first that has a default gives it.
    pub fn parameters(&self) -> Vec<Parameter> {
        let mut found: Vec<Parameter> = Vec::new();
        for part in parts(&self.text) {
            let Part::Placeholder { name, default } = part else { continue };
            let default = default.map(str::to_owned);
            match found.iter_mut().find(|known| known.name == name) {
                Some(known) => known.default = known.default.take().or(default),
                None => found.push(Parameter { name: name.to_owned(), default }),
            }
        }
        found
    }

    /// The text with everything filled in.
    ///
    /// # Errors
    /// [`FillError`].
    pub fn fill(&self, given: &BTreeMap<String, String>) -> Result<String, FillError> {
        let parameters = self.parameters();
        if let Some(unknown) = given.keys().find(|name| !parameters.iter().any(|known| known.name == **name))
        {
            return Err(FillError::Unknown(unknown.clone()));
        }
        let mut values = BTreeMap::new();
        for Parameter { name, default } in parameters {
            let value = given.get(&name).cloned().or(default);
            let value = value.ok_or_else(|| FillError::Missing(name.clone()))?;
            if value.contains(char::is_control) {
                return Err(FillError::Control(name));
            }
            values.insert(name, quoted(&value));
        }
        let filled = |part| match part {
            Part::Text(text) => text.to_owned(),
            Part::Placeholder { name, .. } => values.get(name).cloned().unwrap_or_default(),
        };
        Ok(parts(&self.text).into_iter().map(filled).collect())
    }
}

fn parts(text: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let mut rest = text;
    let mut from = 0;
    while let Some(at) = rest.get(from..).and_then(|tail| tail.find("{{")).map(|at| from + at) {
        let (before, after) = rest.split_at(at);
        let inner = after.strip_prefix("{{").and_then(|after| after.split_once("}}"));
        match inner.and_then(|(inner, tail)| placeholder(inner).map(|part| (part, tail))) {
            Some((part, tail)) => {
                parts.extend([Part::Text(before), part]);
                (rest, from) = (tail, 0);
            }
            None => from = at + 1,
        }
    }
    parts.push(Part::Text(rest));
    parts
}

fn placeholder(inner: &str) -> Option<Part<'_>> {
    let (name, default) =
        inner.split_once('=').map_or((inner, None), |(name, default)| (name, Some(default)));
    let is_name = name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    is_name.then_some(Part::Placeholder { name, default })
}

/// A word of a shell that means exactly this text.
fn quoted(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:,@%+=".contains(c);
    if !value.is_empty() && value.chars().all(plain) {
        return value.to_owned();
    }
    format!("'{}'", value.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(text: &str) -> SavedCommand {
        SavedCommand { name: "it".to_owned(), text: text.to_owned(), on: None, timeout: None, confirm: false }
    }

    fn fill(text: &str, given: &[(&str, &str)]) -> Result<String, FillError> {
        command(text)
            .fill(&given.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn placeholders_are_filled_in_and_quoted_for_the_shell() {
        let text = "systemctl {{verb=restart}} {{unit}} && echo {{unit}}";
        assert_eq!(fill(text, &[("unit", "nginx")]).unwrap(), "systemctl restart nginx && echo nginx");
        assert_eq!(
            fill(text, &[("unit", "a; rm 'x'"), ("verb", "stop")]).unwrap(),
            r"systemctl stop 'a; rm '\''x'\''' && echo 'a; rm '\''x'\'''"
        );
        assert_eq!(fill("echo {{it=}}", &[]).unwrap(), "echo ''");
        assert_eq!(fill("{{it=$HOME}}", &[]).unwrap(), "'$HOME'");
        assert_eq!(fill("~ {{it=~}}", &[]).unwrap(), "~ '~'");
    }

    #[test]
    fn what_is_no_placeholder_is_text() {
        for text in [
            "docker ps --format '{{.Names}}'",
            "{{ it }}",
            "{{}}",
            "{{It}}",
            "{{it",
            "}}{{",
            "{{9}}",
            "é{{é}}",
        ] {
            assert_eq!(fill(text, &[]).unwrap(), text);
            assert_eq!(command(text).parameters(), []);
        }
        assert_eq!(fill("{{{it=x}}}", &[]).unwrap(), "{x}");
    }

    #[test]
    fn what_is_missing_unknown_or_has_line_ends_is_refused() {
        assert_eq!(fill("{{it}}", &[]), Err(FillError::Missing("it".to_owned())));
        assert_eq!(fill("{{it=1}}", &[("ti", "2")]), Err(FillError::Unknown("ti".to_owned())));
        assert_eq!(fill("{{it}}", &[("it", "a\nb")]), Err(FillError::Control("it".to_owned())));
        assert!(fill("{{it}}", &[]).unwrap_err().to_string().contains("for {{it}}, which"));
    }
}
