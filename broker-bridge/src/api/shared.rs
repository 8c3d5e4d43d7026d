//! `shared_credentials.keep` and `.kept`: credentials that are shared among relays with keys. Who has one stands here; its value is
//! sealed for the organisation's recovery key, and signed by who pushed it.

use std::collections::BTreeSet;

use signalbox_schemas::{
    api::{ByName, KeepShared, SharedCredentialView},
    authors::{Right, Role},
    credential::{CredentialLabel, SharedCredentialRecord, SharedKept, SharedSecret, StorageMode},
    error::{ErrorCode, Problem},
    id::{CommandId, CredentialName, MachineToken, Workspace},
    limit,
    record::table,
    signed::{PublicKey, Signed},
    stream::STATE,
};

use super::{
    Api, Author, Caller,
    commands::check_author,
    credentials::{SHARED, view},
    now_ms,
};
use crate::view::Cursors;

/// Largest record before it is put into its envelope.
const PAYLOAD_BYTES: usize = (limit::RECORD_BYTES - 1024) / 4 * 3;
const DOING: &str = "say who has the shared credential";

/// Under which id it stands: its name is unique, whichever bridge is asked.
fn id_of(ws: &Workspace, name: &CredentialName) -> String {
    CommandId::from_idempotency_key("shared-credential", &format!("{ws}/{name}")).to_string()
}

fn refuse(code: ErrorCode, why: impl std::fmt::Display) -> Problem {
    Problem::new(code, format!("cannot {DOING}: {why}"))
}

fn not_found(name: &CredentialName) -> Problem {
    let message = format!(
        "there is no credential `{name}` that is shared among relays with keys; push it with the mode shared first"
    );
    Problem::new(ErrorCode::NotFound, message)
}

/// Says who has a credential, and what it is if it is pushed.
///
/// # Errors
/// `forbidden`, also without the right `credential`; `not_caught_up`, `invalid`, `not_found`, `rate_limited`, `too_large`,
/// `not_accepted`.
pub async fn keep(
    api: &Api,
    caller: &Caller,
    asked: KeepShared,
) -> Result<(SharedCredentialView, Cursors), Problem> {
    caller.require(Role::Admin, DOING)?;
    api.ready()?;
    let Author::Operator(key) = &caller.author else {
        return Err(refuse(ErrorCode::Forbidden, "only operators do"));
    };
    check_author(api, key, &[Right::Credential])?;
    check(api, key, &asked)?;
    let id = id_of(api.ws(), &asked.name);
    let stands = known(api, &id).await?;
    if stands.is_none() && asked.label.is_none() {
        return Err(not_found(&asked.name));
    }
    if stands.is_none() && api.view().shared_count() >= SHARED {
        let why = format!("there are {SHARED} shared credentials already; remove some");
        return Err(refuse(ErrorCode::RateLimited, why));
    }
    check_size(&id, stands.as_ref(), &asked, (api.ws(), caller.principal()))?;
    let (now, by) = (now_ms(), caller.principal());
    let edit = |stands: Option<SharedCredentialRecord>| {
        let stands = stands.filter(|record| record.removed_at.is_none() || asked.label.is_some());
        edited(api.ws(), &id, stands, &asked, (by, now))
    };
    let (record, cursors) = api.edit(by, DOING, table::SHARED_CREDENTIALS, &id, edit).await?;
    let record = record.filter(|record| record.removed_at.is_none()).ok_or_else(|| not_found(&asked.name))?;
    Ok((view(record), cursors))
}

fn check(api: &Api, key: &PublicKey, asked: &KeepShared) -> Result<(), Problem> {
    let invalid = |why: &str| Err(refuse(ErrorCode::Invalid, why));
    let is_its = |label: &CredentialLabel| {
        label.name == asked.name && label.storage_mode == StorageMode::Shared && label.validate().is_ok()
    };
    if !asked.label.iter().all(is_its) {
        return invalid(
            "its label must have its name, the mode shared, and a login name without white space",
        );
    }
    if asked.add.len() + asked.remove.len() > limit::TARGETS {
        return invalid("it names more machines than one command has");
    }
    let unknown = asked.add.iter().find(|mid| {
        api.view().machine(mid.as_str()).is_none_or(|record| record.token != **mid || record.keys.is_none())
    });
    if let Some(unknown) = unknown {
        let why = format!("there is no machine {unknown} with keys; preview the selector again");
        return Err(refuse(ErrorCode::Invalid, why));
    }
    let Some(secret) = &asked.secret else { return Ok(()) };
    let opened: SharedSecret =
        secret.open(|by| by == key).map_err(|error| refuse(ErrorCode::Invalid, error))?;
    opened.validate().map_err(|why| refuse(ErrorCode::Invalid, why))?;
    if opened.ws != *api.ws() || asked.label.as_ref() != Some(&opened.label) {
        return invalid("what is sealed has another label");
    }
    Ok(())
}

/// Whether the record as it is to stand is one that bridges read.
fn check_size(
    id: &str,
    stands: Option<&SharedCredentialRecord>,
    asked: &KeepShared,
    (ws, by): (&Workspace, &str),
) -> Result<(), Problem> {
    // What makes it smaller always may.
    if asked.add.is_empty() && asked.label.is_none() {
        return Ok(());
    }
    let Some(record) = edited(ws, id, stands.cloned(), asked, (by, now_ms())) else { return Ok(()) };
    let count = record.kept.as_ref().map_or(0, |kept| kept.machines.len());
    let bytes = serde_json::to_vec(&record).map_or(usize::MAX, |json| json.len());
    if count <= limit::TARGETS && bytes <= PAYLOAD_BYTES {
        return Ok(());
    }
    let why = format!(
        "it would be assigned to {count} machines, more than one credential can have: {} at the most, and fewer with long names; unassign some, or push it to the others under another name",
        limit::TARGETS
    );
    Err(refuse(ErrorCode::TooLarge, why))
}

/// The record as it is to stand; `None`: there is nothing to change.
fn edited(
    ws: &Workspace,
    id: &str,
    stands: Option<SharedCredentialRecord>,
    asked: &KeepShared,
    (by, now): (&str, u64),
) -> Option<SharedCredentialRecord> {
    let alive = stands.as_ref().filter(|record| record.removed_at.is_none());
    let before = alive.and_then(|record| record.kept.clone());
    let label = asked.label.clone().or_else(|| before.as_ref().map(|kept| kept.label.clone()))?;
    let secret: Option<Signed<SharedSecret>> = match &asked.label {
        Some(_) => asked.secret.clone(),
        None => before.as_ref().and_then(|kept| kept.secret.clone()),
    };
    let mut machines: BTreeSet<MachineToken> =
        before.map(|kept| kept.machines).unwrap_or_default().into_iter().collect();
    machines.extend(asked.add.iter().cloned());
    asked.remove.iter().for_each(|mid| {
        machines.remove(mid);
    });
    let (created_by, created_at) =
        alive.map_or_else(|| (by.to_owned(), now), |record| (record.created_by.clone(), record.created_at));
    Some(SharedCredentialRecord {
        ws: ws.clone(),
        id: id.to_owned(),
        name: label.name.to_string(),
        credential_type: label.credential_type,
        target_host: label.target.as_ref().map(ToString::to_string),
        encrypted_value: String::new(),
        assigned: Vec::new(),
        kept: Some(Box::new(SharedKept { label, secret, machines: machines.into_iter().collect() })),
        created_by,
        created_at,
        updated_at: now,
        removed_at: None,
        revision: stands.map_or(0, |record| record.revision),
    })
}

async fn known(api: &Api, id: &str) -> Result<Option<SharedCredentialRecord>, Problem> {
    if let Some(record) = api.view().shared_credential(id) {
        return Ok(Some(record));
    }
    api.read_through(STATE).await?;
    Ok(api.view().shared_credential(id))
}

/// One of them with its sealed value.
///
/// # Errors
/// `forbidden`, `not_caught_up`, `not_found`.
pub async fn kept(api: &Api, caller: &Caller, asked: ByName) -> Result<SharedKept, Problem> {
    caller.require(Role::Admin, "read a sealed credential")?;
    api.ready()?;
    let record = known(api, &id_of(api.ws(), &asked.name)).await?;
    let kept = record.and_then(|record| record.kept).map(|kept| *kept);
    kept.ok_or_else(|| not_found(&asked.name))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use signalbox_schemas::{credential::CredentialType, signed::SigningKey};

    use super::*;

    #[rstest]
    #[case(0, 10_000, 8, true)]
    #[case(1, 10_000, 8, false)]
    #[case(0, 7_000, 60, false)]
    #[case(0, 5_000, 60, true)]
    fn a_record_that_no_bridge_would_read_is_refused(
        #[case] more: usize,
        #[case] before: usize,
        #[case] width: usize,
        #[case] fits: bool,
    ) {
        let ws = Workspace::main();
        let name = CredentialName::new("db").unwrap();
        let label = CredentialLabel {
            name: name.clone(),
            credential_type: CredentialType::Password,
            target: None,
            username: None,
            storage_mode: StorageMode::Shared,
        };
        let machines = |from: usize, to: usize| {
            (from..to).map(|n| MachineToken::new(format!("m{n:0width$}")).unwrap()).collect::<Vec<_>>()
        };
        let asked = |add| KeepShared {
            name: name.clone(),
            label: Some(label.clone()),
            secret: None,
            add,
            remove: vec![],
        };
        let half = before / 2;
        let stands = edited(&ws, "id", None, &asked(machines(0, half)), ("operator:x", 1)).unwrap();
        let add = asked(machines(half, before + more));
        let checked = check_size("id", Some(&stands), &add, (&ws, "operator:x"));
        assert_eq!(
            checked.as_ref().map_err(|problem| problem.code).err(),
            (!fits).then_some(ErrorCode::TooLarge)
        );
        if let Some(record) = edited(&ws, "id", Some(stands), &add, ("operator:x", 1)).filter(|_| fits) {
            let pair = nkeys::KeyPair::new_from_raw(nkeys::KeyPairType::User, [1; 32]).unwrap();
            Signed::sign(&record, &SigningKey::from_seed(&pair.seed().unwrap()).unwrap()).unwrap();
        } else {
            // Those that are too many can still be made fewer, and get nothing new as they are.
            let full = edited(&ws, "id", None, &asked(machines(0, before + more)), ("operator:x", 1));
            let fewer = KeepShared { remove: machines(0, 1), label: None, ..asked(vec![]) };
            check_size("id", full.as_ref(), &fewer, (&ws, "operator:x")).unwrap();
            let pushed = check_size("id", full.as_ref(), &asked(vec![]), (&ws, "operator:x"));
            assert_eq!(pushed.unwrap_err().code, ErrorCode::TooLarge);
        }
    }
}
