//! `assignments`: API keys of the old contract.
//!
//! A key is shown once. What is kept is its keyed BLAKE2b-256, so that neither the streams nor a copy of the
//! store let anybody in, and a second record under that hash makes it unique.

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use orion::{auth, util::secure_rand_bytes};
use serde::{Deserialize, Serialize};
use signalbox_schemas::{
    authors::Role,
    error::{ErrorCode, Problem, report},
    id::MachineId,
    record::{ApiKeyRecord, AssignmentRecord, table},
};
use tracing::warn;
use uuid::Uuid;

use super::{Api, Caller, now_ms};
use crate::{broker_link::BrokerError, view::Cursors};

/// Longest name, in characters.
const NAME_CHARS: usize = 128;
/// Random bytes of an API key.
const KEY_BYTES: usize = 32;

/// A wish for an assignment.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewAssignment {
    /// The machine, by id or token.
    pub machine_id: String,
    /// For people, 1 to 128 printable characters.
    pub name: String,
}

/// An assignment with its key, which is never shown again.
#[derive(Serialize)]
pub struct Assigned {
    /// Its id.
    pub id: String,
    /// The machine.
    pub machine_id: MachineId,
    /// For people.
    pub name: String,
    /// Whether the key counts.
    pub enabled: bool,
    /// The key.
    pub api_key: String,
}

/// Makes an assignment and its key.
///
/// # Errors
/// `forbidden`, `not_caught_up`, `invalid` for a bad name, `not_found` for an unknown machine, `not_accepted`.
pub async fn create(
    api: &Api,
    caller: &Caller,
    asked: NewAssignment,
) -> Result<(Assigned, Cursors), Problem> {
    caller.require(Role::Admin, "make an assignment")?;
    api.ready()?;
    check_name(&asked.name)?;
    let Some(machine) = api.view().machine(&asked.machine_id) else {
        let id: String = asked.machine_id.chars().take(64).collect();
        let message = format!("cannot assign machine `{id}`: there is none; list them to see their names");
        return Err(Problem::new(ErrorCode::NotFound, message));
    };
    let failed = |error: &dyn std::error::Error| {
        warn!(error = report(error), "an assignment was not made");
        let message = "cannot make the assignment: nothing was stored for sure; list them, then try again";
        Problem::new(ErrorCode::NotAccepted, message)
    };
    let (api_key, api_key_hash) = draw_key(&api.settings.pepper).map_err(|error| failed(&error))?;
    let record = AssignmentRecord {
        ws: api.ws().clone(),
        id: Uuid::now_v7().to_string(),
        machine_id: machine.id.clone(),
        name: asked.name.clone(),
        enabled: true,
        api_key_hash: api_key_hash.clone(),
        created_at: now_ms(),
        created_by: Some(caller.principal().to_owned()),
        updated_at: None,
        removed_at: None,
        revision: 0,
    };
    let unique = ApiKeyRecord { ws: api.ws().clone(), assignment: record.id.clone() };
    let cursors = store(api, &record, &unique).await.map_err(|error| failed(&error))?;
    api.settle_write(&cursors).await;
    let assigned =
        Assigned { id: record.id, machine_id: machine.id, name: asked.name, enabled: true, api_key };
    Ok((assigned, cursors))
}

/// Both records or none.
async fn store(api: &Api, record: &AssignmentRecord, unique: &ApiKeyRecord) -> Result<Cursors, BrokerError> {
    let records = vec![
        api.broker.record(table::ASSIGNMENTS, &record.id, record)?,
        api.broker.record(table::API_KEYS, &record.api_key_hash, unique)?,
    ];
    api.broker.put_records_atomic(records).await
}

fn check_name(name: &str) -> Result<(), Problem> {
    let count = name.chars().count();
    if (1..=NAME_CHARS).contains(&count) && !name.chars().any(char::is_control) {
        return Ok(());
    }
    let message = format!("cannot make the assignment: name must be 1 to {NAME_CHARS} printable characters");
    Err(Problem::new(ErrorCode::Invalid, message))
}

/// A new key and the hash under which it is kept.
fn draw_key(pepper: &[u8; 32]) -> Result<(String, String), orion::errors::UnknownCryptoError> {
    let mut bytes = [0; KEY_BYTES];
    secure_rand_bytes(&mut bytes)?;
    let key = format!("sk_{}", BASE64URL_NOPAD.encode(&bytes));
    let hash = hash_key(pepper, &key)?;
    Ok((key, hash))
}

/// Keyed BLAKE2b-256 of an API key, lower-case hex.
fn hash_key(pepper: &[u8; 32], key: &str) -> Result<String, orion::errors::UnknownCryptoError> {
    let secret = auth::SecretKey::try_from(pepper.as_slice())?;
    let tag = auth::authenticate(&secret, key.as_bytes())?;
    Ok(HEXLOWER.encode(tag.unprotected_as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_differ_and_their_hash_depends_on_the_pepper() {
        let (a, hash_a) = draw_key(&[7; 32]).unwrap();
        let (b, hash_b) = draw_key(&[7; 32]).unwrap();
        assert!(a.starts_with("sk_") && a.len() == 46, "{a}");
        assert_ne!(a, b);
        assert_ne!(hash_a, hash_b);
        assert_eq!(hash_key(&[7; 32], &a).unwrap(), hash_a);
        assert_ne!(hash_key(&[8; 32], &a).unwrap(), hash_a);
        assert_eq!(hash_a.len(), 64);
        assert!(!hash_a.contains(a.trim_start_matches("sk_")));
    }

    #[test]
    fn names_are_for_people() {
        for good in ["a", "Büro 7", &"x".repeat(128)] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in ["", "a\nb", &"x".repeat(129)] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
    }
}
