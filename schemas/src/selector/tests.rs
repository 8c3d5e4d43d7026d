mod grammar;
mod meaning;
mod names;
mod page;

use super::*;

/// Whether a machine of this id is meant by its names.
fn matches(text: &str, id: &str) -> bool {
    let id = MachineId::new(id).unwrap();
    Selector::parse(text).unwrap_or_else(|error| panic!("{}", error.shown())).matches(&id, &id.token())
}
