//! What was acknowledged, and what is stored.

use signalbox_schemas::id::CommandId;

use super::{Case, Promise, Violation};
use crate::told::{Told, Word};

pub(super) fn nothing_missing(case: &Case<'_>) -> Vec<Violation> {
    let told = case.observed.said.told.iter().filter_map(|told| {
        let why = one(case, told)?;
        Some(case.broken(Promise::NothingMissing, Some(told.command), None, why))
    });
    let unasked = case.ledger.commands.keys().filter(|id| !case.told.contains_key(id)).map(|id| {
        let what = "a command is stored that nobody asked for".to_owned();
        case.broken(Promise::NothingMissing, Some(*id), None, what)
    });
    told.chain(unasked).collect()
}

fn one(case: &Case<'_>, told: &Told) -> Option<String> {
    let stored = case.ledger.commands.get(&told.command);
    match (&told.submit, stored) {
        (Word::Accepted(_), None) => return Some("it was accepted, and is not stored".to_owned()),
        (Word::Refused(code, _), Some(_)) => {
            return Some(format!("it was refused ({}), and is stored", code.as_str()));
        }
        (Word::Accepted(count), Some(_)) if *count != told.machines.len() as u64 => {
            return Some(format!("it was accepted for {count} machines, and is for {}", told.machines.len()));
        }
        _ => {}
    }
    if let Some(why) = unlisted(case, told.command).filter(|_| stored.is_some()) {
        return Some(why);
    }
    let command = stored?;
    if command.spec.command != told.text || command.machines != told.machines {
        return Some("what is stored is not what was asked for".to_owned());
    }
    match told.cancel {
        Some(Word::Accepted(1..)) if command.was_never_cancelled() => {
            Some("its cancelling was accepted, and is not stored".to_owned())
        }
        _ => None,
    }
}

/// Which bridge does not show it.
fn unlisted(case: &Case<'_>, id: CommandId) -> Option<String> {
    let name = id.to_string();
    let is_it = |item: &serde_json::Value| item.get("id").and_then(serde_json::Value::as_str) == Some(&*name);
    let lacks = |answers: &&crate::observed::Answers| {
        !answers.commands.contains_key(&id) || !answers.listed.iter().any(is_it)
    };
    let answers = case.observed.answers.iter().find(lacks)?;
    Some(format!("it is stored, and {} does not show it", answers.bridge))
}

pub(super) fn verifies(case: &Case<'_>) -> Vec<Violation> {
    let wrong = case.ledger.wrong.iter().map(|wrong| {
        let what = format!("{} at sequence {}: {}", wrong.subject, wrong.sequence, wrong.why);
        let (command, machine) = match &wrong.of {
            Some((command, machine)) => (Some(*command), machine.as_ref()),
            None => (None, None),
        };
        case.broken(Promise::Verifies, command, machine, what)
    });
    let chunks = case.observed.chunks.iter().filter_map(|chunk| {
        let why = chunk.head.as_ref().err()?;
        let what = format!("{} at sequence {} in OUT: {why}", chunk.subject, chunk.sequence);
        Some(case.broken(Promise::Verifies, None, None, what))
    });
    wrong.chain(chunks).collect()
}
