//! The audit chain: unbroken, and with everything in it once that was done.

use std::collections::BTreeMap;

use signalbox_schemas::{
    audit::{AuditEntry, Link, Outcome, action},
    id::{CommandId, Sha256},
    record::table,
    signed::Signed,
    stream,
    subject::{CommandPiece, Subject},
};

use super::{Case, Ledger, Promise, Violation};
use crate::observed::Stored;

/// Who asks by HTTP.
const TOKEN: &str = "token:admin";

/// A stream and a sequence.
type Place = (&'static str, u64);

pub(super) fn audit_holds(case: &Case<'_>) -> Vec<Violation> {
    let Some(audit) = &case.observed.audit else { return Vec::new() };
    let chain = Chain::read(&case.ledger, audit);
    let missing = chain.missing(&case.ledger, &case.observed.stored);
    let missing = missing.into_iter().map(|(message, why)| {
        format!("{} at sequence {} is stored, and {why}", message.subject, message.sequence)
    });
    let broken = chain.faults.iter().cloned().chain(missing).chain(misnamed(case, &chain));
    broken.map(|what| case.broken(Promise::AuditHolds, None, None, what)).collect()
}

/// Entries about commands that somebody else has submitted.
fn misnamed(case: &Case<'_>, chain: &Chain) -> Vec<String> {
    let submits = chain.entered.values().filter(|entry| entry.action == action::COMMANDS_SUBMIT);
    let wrong = submits.filter_map(|entry| {
        let id: CommandId = entry.about.parse().ok()?;
        let by = &case.ledger.commands.get(&id)?.spec.by;
        let wanted = if case.told.get(&id)?.by_http { TOKEN } else { by };
        let n = entry.n;
        (entry.actor != wanted)
            .then(|| format!("entry {n} says that {} submitted it, not {wanted}", entry.actor))
    });
    wrong.collect()
}

/// Whether everything that is stored stands in the chain.
pub(crate) fn is_complete(ledger: &Ledger, stored: &[Stored], audit: &[Stored]) -> bool {
    Chain::read(ledger, audit).missing(ledger, stored).is_empty()
}

/// What was entered.
struct Chain {
    entered: BTreeMap<Place, AuditEntry>,
    faults: Vec<String>,
}

impl Chain {
    fn read(ledger: &Ledger, audit: &[Stored]) -> Self {
        let mut chain = Self { entered: BTreeMap::new(), faults: Vec::new() };
        let mut at = Link::default();
        for message in audit {
            if let Err(why) = chain.take(ledger, message, &mut at) {
                // What comes next comes behind it, whatever it is.
                at.sequence = message.sequence;
                chain.faults.push(format!("{} at sequence {}: {why}", message.subject, message.sequence));
            }
        }
        chain
    }

    fn take(&mut self, ledger: &Ledger, message: &Stored, at: &mut Link) -> Result<(), String> {
        let body = &message.body.0;
        let signed = Signed::<AuditEntry>::from_json(body).map_err(|error| error.to_string())?;
        let entry =
            signed.open(|key| ledger.is_bridge(key, message.at)).map_err(|error| error.to_string())?;
        at.follow(message.sequence, &entry, body).map_err(|broken| broken.to_string())?;
        if entry.subject().to_string() != message.subject {
            return Err("it says something else than its subject".to_owned());
        }
        let Outcome::Stored { stream, sequence, .. } = &entry.outcome else { return Ok(()) };
        let known = [stream::DOC, stream::STATE, stream::CMD].into_iter().find(|known| known == stream);
        let place = (known.ok_or_else(|| format!("nothing of {stream} is entered"))?, *sequence);
        match self.entered.insert(place, entry) {
            Some(_) => Err(format!("{} {} was entered before", place.0, place.1)),
            None => Ok(()),
        }
    }

    /// What was done and is not entered as it is, and why it is not.
    fn missing<'a>(&self, ledger: &Ledger, stored: &'a [Stored]) -> Vec<(&'a Stored, &'static str)> {
        let due = stored.iter().filter_map(|message| Some((place(ledger, message)?, message)));
        let missing = due.filter_map(|(place, message)| {
            let Some(entry) = self.entered.get(&place) else {
                return Some((message, "nothing of it in the audit chain"));
            };
            let Outcome::Stored { stored_at, sha256, .. } = &entry.outcome else { return None };
            let is_it = (*stored_at, *sha256) == (message.at, Sha256::of(&message.body.0));
            (!is_it).then_some((message, "the audit chain has something else there"))
        });
        missing.collect()
    }
}

/// Where a message stands that must be entered.
fn place(ledger: &Ledger, message: &Stored) -> Option<Place> {
    let stream = match Subject::parse(&message.subject).ok()? {
        Subject::Authors(_) => stream::DOC,
        // The place of a key goes with its assignment, and a report is a relay's word about itself.
        Subject::State(_, of, _) if [table::API_KEYS, table::RELAYS].contains(&of.as_str()) => return None,
        Subject::State(..) => stream::STATE,
        Subject::Command(_, cid, CommandPiece::Spec | CommandPiece::Cancel)
            if ledger.commands.contains_key(&cid) =>
        {
            stream::CMD
        }
        _ => return None,
    };
    let is_wrong =
        ledger.wrong.iter().any(|it| (&it.subject, it.sequence) == (&message.subject, message.sequence));
    (!is_wrong).then_some((stream, message.sequence))
}
