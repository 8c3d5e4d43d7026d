//! The commented default file, and the JSON schema. Pure.

use serde_json::{Map, Value, json};

use super::field::{Field, Kind, SECTIONS, Section, Shape};

const HEAD: &str = "\
# Signalbox: the operator's configuration.
#
# Everything here is as it is without a file. What begins with # and a space is words; a # without one stands before
# an example. `signalbox config check` looks at the whole of it.
";

/// A file with everything in it, which sets what is set without one.
pub fn default_file() -> String {
    let mut lines: Vec<String> = Vec::new();
    for section in SECTIONS {
        lines.push(String::new());
        lines.extend(section.words.iter().map(|words| format!("# {words}")));
        lines.push(match section.shape {
            Shape::Once | Shape::Keys(_) => format!("[{}]", section.name),
            Shape::Named(_, name) => format!("#[{}.{name}]", section.name),
            Shape::Many(_) => format!("#[[{}]]", section.name),
        });
        let is_example = matches!(section.shape, Shape::Named(..) | Shape::Many(_));
        lines.extend(section.fields.iter().flat_map(|field| of(field, is_example)));
        if matches!(section.shape, Shape::Keys(_)) {
            lines.extend(["#[keys.machines]".to_owned(), "#\"<c-x>\" = \"none\"".to_owned()]);
        }
    }
    format!("{HEAD}{}\n", lines.join("\n"))
}

/// The lines of a field.
fn of(field: &Field, is_example: bool) -> Vec<String> {
    let mark = if is_example || field.default.is_none() { "#" } else { "" };
    let words = field.words.iter().map(|words| format!("# {words}"));
    words.chain([format!("{mark}{} = {}", field.name, field.example)]).collect()
}

/// The file's JSON schema (draft 2020-12), for editors.
pub fn schema() -> Value {
    let properties: Map<String, Value> =
        SECTIONS.iter().map(|section| (section.name.to_owned(), of_section(section))).collect();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Signalbox: the operator's configuration",
        "type": "object",
        "additionalProperties": false,
        "properties": properties,
    })
}

fn of_section(section: &Section) -> Value {
    let words = section.words.join(" ");
    match section.shape {
        Shape::Once => object(section, &json!(false), &words),
        Shape::Keys(_) => {
            let keys =
                json!({ "type": "object", "additionalProperties": { "type": "string", "minLength": 1 } });
            object(section, &keys, &words)
        }
        Shape::Named(most, _) => json!({
            "type": "object",
            "description": words,
            "maxProperties": most,
            "propertyNames": { "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$" },
            "additionalProperties": object(section, &json!(false), ""),
        }),
        Shape::Many(most) => json!({
            "type": "array",
            "description": words,
            "maxItems": most,
            "items": object(section, &json!(false), ""),
        }),
    }
}

fn object(section: &Section, others: &Value, words: &str) -> Value {
    let properties: Map<String, Value> =
        section.fields.iter().map(|field| (field.name.to_owned(), of_field(field))).collect();
    let required: Vec<&str> =
        section.fields.iter().filter(|field| field.required).map(|field| field.name).collect();
    let mut object = json!({
        "type": "object",
        "additionalProperties": others,
        "properties": properties,
    });
    if let Some(members) = object.as_object_mut() {
        if !words.is_empty() {
            members.insert("description".to_owned(), words.into());
        }
        if !required.is_empty() {
            members.insert("required".to_owned(), json!(required));
        }
    }
    object
}

fn of_field(field: &Field) -> Value {
    let mut schema = match field.kind {
        Kind::Bool => json!({ "type": "boolean" }),
        Kind::Choice => json!({ "enum": ["auto", true, false] }),
        Kind::Word(words) => json!({ "enum": words }),
        Kind::Line(most) | Kind::Text(most) => {
            json!({ "type": "string", "minLength": 1, "maxLength": most })
        }
        Kind::Names(most) => json!({ "type": "array", "maxItems": most, "items": { "type": "string" } }),
        Kind::Count(least, most) => json!({ "type": "integer", "minimum": least, "maximum": most }),
        Kind::Time(..) => json!({ "type": "string", "pattern": "^[0-9]+(ms|s|m|h|d)$" }),
        Kind::Size(..) => json!({ "type": "string", "pattern": "^[0-9]+(KiB|MiB|GiB|kB|MB|GB|B)?$" }),
        Kind::Selector(_) | Kind::Url | Kind::Path => {
            json!({ "type": "string", "maxLength": field.kind.most_bytes() })
        }
    };
    if let Some(members) = schema.as_object_mut() {
        members.insert("description".to_owned(), field.words.join(" ").into());
        if let Some(default) = field.default.and_then(value) {
            members.insert("default".to_owned(), default);
        }
    }
    schema
}

/// A value that is written in TOML, as JSON.
fn value(written: &str) -> Option<Value> {
    let table: Map<String, Value> = toml::from_str(&format!("it = {written}")).ok()?;
    table.get("it").cloned()
}
