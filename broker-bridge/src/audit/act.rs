//! What a stored message is, for the audit: who did what to what. Messages that nobody believes are nothing, and neither
//! is what relays report about themselves.

use std::sync::Arc;

use signalbox_link::Message;
use signalbox_schemas::{
    audit::{Outcome, TEXT_BYTES, action},
    authors::{Authors, Role},
    id::{CommandId, Sha256},
    output::eyes,
    record::table,
    signed::PublicKey,
    subject::Subject,
};

use crate::{
    core::Shared,
    ingest::decode::{Event, Raw, Record},
    projection::CommandRow,
    store::{StoreError, key},
};

/// One act.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Act {
    pub(super) actor: String,
    pub(super) action: String,
    pub(super) about: String,
    pub(super) outcome: Outcome,
}

/// Who, what, and to what.
type Named = (String, String, String);

impl Act {
    /// What a message is that this bridge has read. Blocks: it checks a signature.
    ///
    /// # Errors
    /// [`StoreError`], when it is not known.
    pub(super) fn of(shared: &Shared, message: &Message) -> Result<Option<Self>, StoreError> {
        if is_passed_over(&message.subject) {
            return Ok(None);
        }
        let event = match shared.decoder.decode(&Raw::of(message)) {
            Ok(event) => event,
            Err(reason) => {
                shared.counters.add(&format!("audit.passed.{reason}"));
                return Ok(None);
            }
        };
        let Some((actor, action, about)) = named(shared, message, event)? else { return Ok(None) };
        let outcome = Outcome::Stored {
            stream: message.stream.clone(),
            sequence: message.sequence,
            stored_at: message.time_ms,
            sha256: Sha256::of(&message.payload),
        };
        Ok(Some(Self { actor: cut(actor), action, about: cut(about), outcome }))
    }
}

/// Whether it is nothing that anybody asked for: the place of a key goes with its assignment, and a report is a relay's word
/// about itself.
fn is_passed_over(subject: &str) -> bool {
    let Ok(Subject::State(_, of, _)) = Subject::parse(subject) else { return false };
    [table::API_KEYS, table::RELAYS].contains(&of.as_str())
}

/// Nothing if it does not count.
fn named(shared: &Shared, message: &Message, event: Event) -> Result<Option<Named>, StoreError> {
    let authors = shared.memory().authors.as_ref().map(|authors| Arc::clone(&authors.doc));
    let Some(authors) = authors else { return Ok(None) };
    let is_bridge = |key: &PublicKey| authors.was_bridge(key, message.time_ms);
    let header = |name| message.headers.get(name).map(str::to_owned);
    Ok(match event {
        Event::Authors { doc, .. } => {
            let (actor, action) = ("fleet".to_owned(), action::AUTHORS_PUBLISH.to_owned());
            Some((actor, action, format!("version {}", doc.version)))
        }
        Event::Record(record, key) if is_bridge(&key) => {
            let by =
                header(eyes::FOR).or_else(|| header(eyes::BY)).unwrap_or_else(|| name_of(&authors, &key));
            let (table, id) = record_of(&record);
            Some((by, format!("{table}.{}", action::WRITE), id))
        }
        Event::Spec { cid, spec, .. } => {
            // The one that is the command: all of its grants are there.
            let row = command(shared, cid)?.filter(|row| row.sequence == message.sequence);
            // What comes over HTTP is signed by a bridge, and says for whom; what an operator signs is his.
            let by = |row: CommandRow| {
                if is_bridge(&row.author) { spec.by } else { name_of(&authors, &row.author) }
            };
            row.map(|row| (by(row), action::COMMANDS_SUBMIT.to_owned(), cid.to_string()))
        }
        Event::Cancel { cid, key } => {
            let may = |key| authors.author(key).is_some_and(|author| author.role != Role::Viewer);
            let by = if is_bridge(&key) {
                Some(header(eyes::FOR).unwrap_or_else(|| name_of(&authors, &key)))
            } else {
                may(&key).then(|| name_of(&authors, &key))
            };
            let is_there = command(shared, cid)?.is_some();
            by.filter(|_| is_there).map(|by| (by, action::COMMANDS_CANCEL.to_owned(), cid.to_string()))
        }
        // What a bridge did by itself nobody asked for.
        Event::Rollout { cid, progress, key } if is_bridge(&key) => {
            let Some(steer) = progress.asked else { return Ok(None) };
            let is_there = command(shared, cid)?.is_some();
            is_there.then(|| (progress.by, steer.op().to_owned(), cid.to_string()))
        }
        _ => None,
    })
}

fn command(shared: &Shared, cid: CommandId) -> Result<Option<CommandRow>, StoreError> {
    shared.store.json(&key::command(cid), "command")
}

fn name_of(doc: &Authors, key: &PublicKey) -> String {
    doc.author(key).map_or_else(|| format!("key:{key}"), |author| author.name.clone())
}

fn record_of(record: &Record) -> (&'static str, String) {
    match record {
        Record::Machine(record) => (table::MACHINES, record.token.to_string()),
        Record::Operator(record) => (table::OPERATORS, record.id.to_string()),
        Record::Assignment(record) => (table::ASSIGNMENTS, record.id.clone()),
        Record::ApiKey(id, _) => (table::API_KEYS, id.clone()),
        Record::Relay(record) => (table::RELAYS, record.assignment.clone()),
        Record::SharedCredential(record) => (table::SHARED_CREDENTIALS, record.id.clone()),
        Record::ConfigPush(record) => (table::CONFIG_PUSHES, record.id.clone()),
    }
}

/// Text of others, as long as an entry takes it.
fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(TEXT_BYTES));
    text
}
