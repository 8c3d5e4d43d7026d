//! House rules that no lint knows: which crate may depend on which, and which file may import what.
//!
//! The pure core of a crate must stay testable without a broker, a disk or a clock; each foreign crate is imported
//! in one place. Both are kept by looking, here, at cargo's metadata and at the words of the source files.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::build::Workspace;

/// Words of code that does something to the world, or waits for it.
const IMPURE: [&str; 8] = [
    "async",
    "tokio",
    "std::fs",
    "std::net",
    "std::process",
    "std::thread",
    "SystemTime::now",
    "Instant::now",
];

/// Files (or `x.rs` and the folder `x/`) that only compute: everything comes in as a value and goes out as one.
const PURE: [&str; 16] = [
    "schemas/src",
    "broker-bridge/src/projection",
    "broker-bridge/src/mailbox",
    "relay/src/reconcile",
    "relay/src/policy",
    "relay/src/legacy_args",
    "relay/src/legacy_link/text",
    "relay/src/legacy_link/wire",
    "relay/src/vault/find",
    "relay/src/vault/format",
    "relay/src/vault/key",
    "relay/src/vault/seed",
    "relay/src/credentials_cli/table",
    "console/src/tui/state",
    "console/src/tui/update",
    "console/src/tui/view",
];

/// A foreign crate, and the only places that may name it.
const IMPORTED_ONCE: [(&str, &[&str]); 5] = [
    ("async_nats", &["link/src"]),
    ("sled", &["broker-bridge/src/store"]),
    ("axum", &["broker-bridge/src/http"]),
    ("sysinfo", &["relay/src/metrics"]),
    ("ureq", &["relay/src/legacy_link/http"]),
];

/// The shipped source; tests may look behind every wall.
const SOURCES: [&str; 6] =
    ["schemas/src", "link/src", "tty/src", "broker-bridge/src", "relay/src", "console/src"];

/// The three that speak over the wire and never link against each other.
const THREE: [&str; 3] = ["signalbox", "signalbox-bridge", "signalbox-relay"];

/// Programs for developers, which are not shipped.
const DEVELOPERS: [&str; 2] = ["signalbox-meter", "signalbox-torture"];

/// Every violation in the workspace, as sentences.
///
/// # Errors
/// When a source file cannot be read.
pub(crate) fn check(workspace: &Workspace) -> Result<Vec<String>> {
    let mut violations = dependencies(&workspace.metadata);
    for folder in SOURCES {
        for path in rust_files(&workspace.root.join(folder))? {
            let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
            let place = path.strip_prefix(&workspace.root).unwrap_or(&path).to_string_lossy().into_owned();
            violations.extend(imports(&place, &text));
        }
    }
    Ok(violations)
}

/// Violations in what the packages depend on.
fn dependencies(metadata: &Value) -> Vec<String> {
    let mut violations = Vec::new();
    for package in list(metadata, "packages") {
        let name = text(package, "name");
        for dependency in list(package, "dependencies") {
            let wanted = text(dependency, "name");
            let is_shipped = text(dependency, "kind") != "dev";
            if THREE.contains(&name) && THREE.contains(&wanted) {
                violations.push(format!("{name} depends on {wanted}: the three meet on the wire only"));
            }
            if wanted == "signalbox-testkit" && is_shipped && !DEVELOPERS.contains(&name) {
                violations.push(format!("{name} ships signalbox-testkit: make it a dev-dependency"));
            }
            if wanted == "async-nats" && is_shipped && name != "signalbox-link" {
                violations.push(format!("{name} depends on async-nats: only signalbox-link does"));
            }
        }
    }
    violations
}

/// Violations in what one file names. `place` is its path from the root.
fn imports(place: &str, text: &str) -> Vec<String> {
    let mut violations = Vec::new();
    let is_pure = PURE.iter().any(|room| is_in(place, room));
    for (number, line) in code_lines(text) {
        for word in IMPURE {
            if is_pure && has_word(line, word) {
                violations.push(format!("{place}:{number} names `{word}`: this file only computes"));
            }
        }
        for (foreign, rooms) in IMPORTED_ONCE {
            if has_word(line, foreign) && !rooms.iter().any(|room| is_in(place, room)) {
                violations.push(format!("{place}:{number} names `{foreign}`: only {} may", rooms.join(", ")));
            }
        }
    }
    violations
}

/// Whether a path is the room itself (`x.rs`) or inside it (`x/…`).
fn is_in(place: &str, room: &str) -> bool {
    place.strip_prefix(room).is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
}

/// The lines before the file's unit tests, numbered from 1, without `//` comments.
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .take_while(|(_, line)| !line.starts_with("#[cfg(test)]"))
        .map(|(index, line)| (index + 1, line.split_once("//").map_or(line, |(code, _)| code)))
}

/// Whether `word` stands in `line` and is not a part of a longer name.
fn has_word(line: &str, word: &str) -> bool {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line.get(..at).and_then(|text| text.chars().next_back());
        let after = line.get(at + word.len()..).and_then(|text| text.chars().next());
        !before.is_some_and(is_name) && !after.is_some_and(is_name)
    })
}

/// Every `.rs` file below a folder, sorted.
fn rust_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut waiting = vec![folder.to_owned()];
    while let Some(folder) = waiting.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))? {
            let path = entry.with_context(|| format!("reading {}", folder.display()))?.path();
            if path.is_dir() {
                waiting.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_core_that_waits_is_named_with_its_line() {
        let found = imports("relay/src/policy.rs", "fn calm() {}\nasync fn wait() {}\n");
        assert_eq!(found, ["relay/src/policy.rs:2 names `async`: this file only computes"]);
        assert_eq!(imports("schemas/src/run/fold.rs", "use std::fs;\n").len(), 1);
        assert!(imports("relay/src/keeper.rs", "async fn wait() {}\n").is_empty());
    }

    #[test]
    fn comments_tests_and_longer_names_do_not_count() {
        let text = "/// not async\nlet async_like = 1; // tokio\n#[cfg(test)]\nmod tests { use std::fs; }\n";
        assert!(imports("schemas/src/lib.rs", text).is_empty());
    }

    #[test]
    fn a_foreign_crate_has_one_place() {
        assert!(imports("broker-bridge/src/store.rs", "use sled::Db;").is_empty());
        assert!(imports("broker-bridge/src/store/key.rs", "use sled::Db;").is_empty());
        assert_eq!(imports("broker-bridge/src/storefront.rs", "use sled::Db;").len(), 1);
        assert_eq!(imports("console/src/client.rs", "async_nats::connect(url)").len(), 1);
        assert!(imports("link/src/connect.rs", "async_nats::connect(url)").is_empty());
    }

    #[test]
    fn the_three_stay_apart() {
        let with = |name: &str, wanted: &str, kind: Value| {
            dependencies(
                &json!({"packages": [{"name": name, "dependencies": [{"name": wanted, "kind": kind}]}]}),
            )
        };
        assert_eq!(with("signalbox", "signalbox-relay", json!("dev")).len(), 1);
        assert_eq!(with("signalbox-relay", "signalbox-testkit", Value::Null).len(), 1);
        assert_eq!(with("signalbox-bridge", "async-nats", Value::Null).len(), 1);
        assert!(with("signalbox-relay", "signalbox-testkit", json!("dev")).is_empty());
        assert!(with("signalbox-link", "async-nats", Value::Null).is_empty());
    }
}
