//! Submitting: from a console with the operator's grants, from an application with the bridge's.

use signalbox_schemas::{
    api::{Accepted, Submit},
    authors::{Right, Role},
    command::{CommandSpec, Grant, granted},
    error::{ErrorCode, Problem, report},
    id::{CommandId, MachineId, MachineToken, Sha256},
    limit::{IDEMPOTENCY_KEY_BYTES, REQUEST_SKEW_MS, SPEC_BYTES},
    signed::{PublicKey, Signed, SigningKey},
    stream,
};
use tracing::warn;
use uuid::Uuid;

use super::{
    super::{Api, Author, Caller, now_ms, store_problem},
    check_targets,
    part::FRESH_MS,
    wish::{Meant, NewCommand, Wish},
};
use crate::{
    submit::{SubmitError, store_command},
    view::{Cursors, NoRoom, StoredCommand},
};

/// Above so many grants signing them (50 µs each) leaves the event loop.
const SIGNED_INLINE: usize = 16;

/// Stores an operator's command with its grants.
///
/// The request around it is verified already; the grants are not checked one by one. Whoever hands out work checks its own,
/// and a wrong one harms its author only.
///
/// # Errors
/// `forbidden`, `not_caught_up`, `invalid`, `too_large`, `id_conflict`, `rate_limited`, `not_accepted`.
pub async fn submit(api: &Api, caller: &Caller, args: Submit) -> Result<(Accepted, Cursors), Problem> {
    caller.require(Role::Member, "submit a command")?;
    api.ready()?;
    let spec = read_spec(&args.spec.0)?;
    let Author::Operator(key) = &caller.author else {
        return Err(refuse(ErrorCode::Forbidden, "only operators submit commands with grants of their own"));
    };
    check_author(api, key, &[spec.right()])?;
    // Two at once under one key would store two lists of grants under one id.
    let _turn = if spec.cid.is_of_key() { api.submits.of(&spec.cid).await } else { None };
    if let Some(stored) = stored(api, spec.cid)? {
        return again(api, &stored, &args);
    }
    check_spec(&spec, api, caller, now_ms())?;
    check_key(&spec, caller, args.idempotency_key.as_deref())?;
    let (id, sha256, is_ahead) = (spec.cid, Sha256::of(&args.spec.0), args.grants.is_empty());
    let machines = if is_ahead {
        let ahead = sent_ahead(api, &spec, sha256, key).await;
        // Another bridge may have accepted it: its parts went with that.
        if let Some(stored) = stored(api, id)? {
            return again(api, &stored, &args);
        }
        ahead?
    } else {
        granted_machines(&spec, sha256, key, &args.grants)?
    };
    let targets = known_machines(api, &machines)?;
    check_kept(api, &spec, &machines)?;
    check_room(api, &machines)?;
    let cursors = store_command(
        api.link(),
        api.ws(),
        api.view().made(stream::CMD),
        args.spec.0.into(),
        &spec,
        args.grants,
    )
    .await
    .map_err(|error| storing_problem("submit", id, &error))?;
    api.settle_write(&cursors).await;
    Ok((accepted(id, if is_ahead { Vec::new() } else { targets }, &cursors), cursors))
}

/// The answer got lost, and the console asks again; or the id is somebody else's.
fn again(api: &Api, stored: &StoredCommand, args: &Submit) -> Result<(Accepted, Cursors), Problem> {
    if stored.spec_sha256 != Sha256::of(&args.spec.0) {
        return Err(storing_problem("submit", stored.spec.cid, &SubmitError::IdConflict));
    }
    let is_ahead = args.grants.is_empty();
    let targets = if is_ahead { Vec::new() } else { known_machines(api, &stored.machines)? };
    let cursors = api.view().cursors();
    Ok((accepted(stored.spec.cid, targets, &cursors), cursors))
}

/// The machines that the parts sent ahead are for, when they fit the spec as every reader will find them, and are by `key`.
async fn sent_ahead(
    api: &Api,
    spec: &CommandSpec,
    sha256: Sha256,
    key: &PublicKey,
) -> Result<Vec<MachineToken>, Problem> {
    // Another bridge may have taken them.
    api.read_through(stream::CMD).await?;
    let meant = spec.clone();
    let gathered = api.read(move |view| view.gather(&meant, sha256)).await?;
    let now = now_ms();
    let gathered = gathered.ok().filter(|it| now.saturating_sub(it.stored_at) < FRESH_MS);
    let Some(gathered) = gathered else {
        let why = "it has no grants, and those that were sent ahead are not all there, or do not fit it; send its parts again";
        return Err(refuse(ErrorCode::Invalid, why));
    };
    if gathered.granted.author != *key {
        return Err(refuse(ErrorCode::Invalid, "its grants are not signed with your key"));
    }
    Ok(gathered.granted.machines)
}

pub(super) fn refuse(code: ErrorCode, why: impl std::fmt::Display) -> Problem {
    Problem::new(code, format!("cannot submit the command: {why}"))
}

fn read_spec(bytes: &[u8]) -> Result<CommandSpec, Problem> {
    if bytes.len() > SPEC_BYTES {
        let why = format!("its spec is {} bytes, at most {SPEC_BYTES} are allowed", bytes.len());
        return Err(refuse(ErrorCode::TooLarge, why));
    }
    CommandSpec::from_bytes(bytes).map_err(|error| refuse(ErrorCode::Invalid, error))
}

/// Refuses who has none of these rights.
pub(in crate::api) fn check_author(api: &Api, key: &PublicKey, rights: &[Right]) -> Result<(), Problem> {
    let authors = api.view().authors().filter(|authors| authors.is_valid_at(now_ms()));
    let why = match authors {
        Some(authors) if rights.iter().any(|right| authors.may_author(key, *right)) => return Ok(()),
        Some(_) => {
            let right = rights.first().map_or("", |right| right.as_str());
            format!("the authors document does not give you the right `{right}`; ask an owner")
        }
        // Relays would refuse it.
        None => "there is no valid authors document; issue one with `signalbox-bridge init`".to_owned(),
    };
    Err(refuse(ErrorCode::Forbidden, why))
}

/// What the old contract cannot say goes to relays with keys only; so does a change of what relays keep, since nobody else could
/// check who wants it, or open what is sealed.
fn check_kept(api: &Api, spec: &CommandSpec, machines: &[MachineToken]) -> Result<(), Problem> {
    if spec.is_of_old_contract() {
        return Ok(());
    }
    let has_keys = |token: &&MachineToken| {
        api.view().machine(token.as_str()).is_some_and(|record| record.keys.is_some())
    };
    let Some(keyless) = machines.iter().find(|token| !has_keys(token)) else { return Ok(()) };
    let why = if spec.change.is_some() {
        format!("the relay of machine {keyless} has no keys, and takes no changes; enrol it, or leave it out")
    } else {
        format!(
            "an SSH target requires target_host and target_username, and nothing else, for the relay of machine {keyless}, which has no keys"
        )
    };
    Err(refuse(ErrorCode::Invalid, why))
}

fn check_spec(spec: &CommandSpec, api: &Api, caller: &Caller, now_ms: u64) -> Result<(), Problem> {
    let wrong = |why: &str| Err(refuse(ErrorCode::Invalid, why));
    if spec.ws != *api.ws() {
        return wrong("its spec is for another workspace");
    }
    if spec.by != caller.principal {
        return wrong("`by` in its spec must name you; submit it under your own name");
    }
    if spec.expires_at <= now_ms {
        return wrong("it has expired already; make it anew");
    }
    if spec.created_at > now_ms.saturating_add(REQUEST_SKEW_MS) {
        return wrong("`created_at` lies ahead by more than 5 minutes; set the clock right");
    }
    Ok(())
}

/// An id that is made from an idempotency key is made from the caller's own: nobody takes the place of another one's.
fn check_key(spec: &CommandSpec, caller: &Caller, key: Option<&str>) -> Result<(), Problem> {
    let is_good = match key {
        None => !spec.cid.is_of_key(),
        Some(key) => {
            (1..=IDEMPOTENCY_KEY_BYTES).contains(&key.len())
                && spec.cid == CommandId::from_idempotency_key(&caller.principal, key)
        }
    };
    if is_good {
        return Ok(());
    }
    let why = "its id is not the one of your idempotency key; without a key, draw a UUID of version 7";
    Err(refuse(ErrorCode::Invalid, why))
}

/// What waits is kept in memory by every bridge: there is an end to it.
fn check_room(api: &Api, machines: &[MachineToken]) -> Result<(), Problem> {
    let Some(full) = api.view().no_room(machines) else { return Ok(()) };
    let why = match full {
        NoRoom::Machine(id) => format!("too many commands wait for machine {id} already"),
        NoRoom::Bridge => "too many commands wait already".to_owned(),
    };
    Err(refuse(ErrorCode::RateLimited, format!("{why}; cancel some, or try again when some are done")))
}

/// The machines that the grants are for, when they fit the spec as every reader will ask, and are by `key`.
fn granted_machines(
    spec: &CommandSpec,
    spec_sha256: Sha256,
    key: &PublicKey,
    grants: &[Signed<Grant>],
) -> Result<Vec<MachineToken>, Problem> {
    let granted = granted(spec, spec_sha256, grants).map_err(|error| refuse(ErrorCode::Invalid, error))?;
    if granted.author != *key {
        return Err(refuse(ErrorCode::Invalid, "its grants are not signed with your key"));
    }
    Ok(granted.machines)
}

fn known_machines(api: &Api, tokens: &[MachineToken]) -> Result<Vec<MachineId>, Problem> {
    let known = tokens.iter().map(|token| {
        let record = api.view().machine(token.as_str()).filter(|record| record.token == *token);
        let why = || format!("there is no machine {token}; preview the selector again");
        record.map(|record| record.id).ok_or_else(|| refuse(ErrorCode::Invalid, why()))
    });
    known.collect()
}

fn accepted(id: CommandId, mut targets: Vec<MachineId>, cursors: &Cursors) -> Accepted {
    targets.sort();
    Accepted { id, targets, cursor: cursors.to_string() }
}

/// What clients see when something about a command could not be stored.
pub(super) fn storing_problem(doing: &str, id: CommandId, error: &SubmitError) -> Problem {
    let (code, why) = match error {
        SubmitError::IdConflict => {
            (ErrorCode::IdConflict, "the id is taken by another command; draw a new one")
        }
        SubmitError::TooLarge => {
            (ErrorCode::TooLarge, "with its grants it is too large for one message; name fewer machines")
        }
        SubmitError::NotAccepted { .. } => {
            warn!(command = %id, error = report(error), doing, "the broker did not accept");
            let why =
                "the broker did not acknowledge it, and nothing is promised; try again with the same id";
            (ErrorCode::NotAccepted, why)
        }
    };
    Problem::new(code, format!("cannot {doing} command {id}: {why}"))
}

/// Stores an application's command, granted by the bridge's own key in the caller's name.
///
/// With an idempotency key the id is made of it: repeating the same request answers the same and does nothing.
///
/// # Errors
/// `forbidden`, `not_caught_up`, `invalid`, `too_large`, `no_targets`, `id_conflict` when the key was used for
/// another request, `not_accepted`.
pub async fn run(
    api: &Api,
    caller: &Caller,
    asked: NewCommand,
    idempotency_key: Option<&str>,
) -> Result<(Accepted, Cursors), Problem> {
    caller.require(Role::Member, "submit a command")?;
    api.ready()?;
    check_author(api, api.settings.key.public(), &[Right::Command])?;
    let wish = Wish::try_new(asked)?;
    let Some(key) = idempotency_key else {
        let id = CommandId::new(Uuid::now_v7()).map_err(|error| refuse(ErrorCode::Invalid, error))?;
        return match store_wish(api, caller, &wish, id).await? {
            Some(done) => Ok(done),
            None => Err(storing_problem("submit", id, &SubmitError::IdConflict)),
        };
    };
    let id = CommandId::from_idempotency_key(&caller.principal, key);
    // Two at once under one key would store two lists of grants under one id.
    let _turn = api.submits.of(&id).await;
    if let Some(stored) = stored(api, id)? {
        return repeated(api, caller, &wish, &stored);
    }
    if let Some(done) = store_wish(api, caller, &wish, id).await? {
        return Ok(done);
    }
    // Somebody else stored it first, through another bridge or before this one had read it: then it can be told only
    // once it is read.
    api.read_through(stream::CMD).await?;
    match stored(api, id)? {
        Some(stored) => repeated(api, caller, &wish, &stored),
        None => Err(storing_problem("submit", id, &SubmitError::IdConflict)),
    }
}

fn stored(api: &Api, id: CommandId) -> Result<Option<StoredCommand>, Problem> {
    api.view().command_spec(id).map_err(|error| store_problem(&error))
}

/// The same answer for the same request under the same key.
fn repeated(
    api: &Api,
    caller: &Caller,
    wish: &Wish,
    stored: &StoredCommand,
) -> Result<(Accepted, Cursors), Problem> {
    // Another bridge may have granted it.
    let by_bridge = stored.author == *api.settings.key.public()
        || api.view().authors().is_some_and(|authors| authors.was_bridge(&stored.author, stored.accepted_at));
    if !by_bridge || !wish.is_of(&stored.spec, &caller.principal) {
        let why = "this Idempotency-Key was used for another request; use a new one";
        return Err(refuse(ErrorCode::IdConflict, why));
    }
    let targets = known_machines(api, &stored.machines)?;
    let cursors = api.view().cursors();
    Ok((accepted(stored.spec.cid, targets, &cursors), cursors))
}

/// Signs and stores; `None` when the id is taken.
async fn store_wish(
    api: &Api,
    caller: &Caller,
    wish: &Wish,
    id: CommandId,
) -> Result<Option<(Accepted, Cursors)>, Problem> {
    let (machines, targets) = resolve(api, wish).await?;
    check_room(api, &machines)?;
    let spec = wish.spec(api.ws(), id, &caller.principal, now_ms(), machines.len())?;
    check_kept(api, &spec, &machines)?;
    let bytes = serde_json::to_vec(&spec).map_err(|error| refuse(ErrorCode::Invalid, error))?;
    if bytes.len() > SPEC_BYTES {
        let why = format!(
            "it is {} bytes as JSON, at most {SPEC_BYTES} are allowed; put it into a file",
            bytes.len()
        );
        return Err(refuse(ErrorCode::TooLarge, why));
    }
    let grants = sign_grants(api, &spec, Sha256::of(&bytes), machines).await?;
    match store_command(api.link(), api.ws(), api.view().made(stream::CMD), bytes.into(), &spec, grants).await
    {
        Ok(cursors) => {
            api.settle_write(&cursors).await;
            Ok(Some((accepted(id, targets, &cursors), cursors)))
        }
        Err(SubmitError::IdConflict) => Ok(None),
        Err(error) => Err(storing_problem("submit", id, &error)),
    }
}

/// Tokens sorted, and the ids in the same order.
async fn resolve(api: &Api, wish: &Wish) -> Result<(Vec<MachineToken>, Vec<MachineId>), Problem> {
    match &wish.meant {
        Meant::Selected(selector) => {
            let targets = api.meant(selector, false).await?;
            check_targets(&targets, &wish.on)?;
            Ok(targets.into_iter().map(|target| (target.token, target.id)).unzip())
        }
        Meant::Machine(id) => {
            let machine = api.view().machine(id);
            let found = machine.map(|machine| (vec![machine.token], vec![machine.id]));
            found.map_or_else(|| check_targets(&[], id).map(|()| (vec![], vec![])), Ok)
        }
    }
}

async fn sign_grants(
    api: &Api,
    spec: &CommandSpec,
    spec_sha256: Sha256,
    machines: Vec<MachineToken>,
) -> Result<Vec<Signed<Grant>>, Problem> {
    let grants: Vec<Grant> = machines
        .into_iter()
        .map(|mid| Grant {
            ws: spec.ws.clone(),
            cid: spec.cid,
            mid,
            spec_sha256,
            expires_at: spec.expires_at,
            sealed: None,
        })
        .collect();
    let sign = |grants: Vec<Grant>, key: &SigningKey| -> Result<Vec<_>, _> {
        grants.iter().map(|grant| Signed::sign(grant, key)).collect()
    };
    let failed = |error: &dyn std::error::Error| {
        warn!(error = report(error), "cannot sign grants");
        refuse(ErrorCode::NotAccepted, "the bridge cannot sign it; try again")
    };
    if grants.len() <= SIGNED_INLINE {
        return sign(grants, &api.settings.key).map_err(|error| failed(&error));
    }
    let key = std::sync::Arc::clone(&api.settings.key);
    let signed = tokio::task::spawn_blocking(move || sign(grants, &key)).await;
    signed.map_err(|error| failed(&error))?.map_err(|error| failed(&error))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use signalbox_link::Store;
    use signalbox_schemas::{
        authors::{Author, Authors},
        id::Workspace,
        limit::DAY_MS,
        mailbox::Position,
        record::{MachineRecord, RelayKeys},
        subject::{CommandPiece, Subject},
    };

    use super::*;
    use crate::{
        core::still::{Still, key},
        projection::memory::AuthorsDoc,
    };

    /// A bridge that may author until a time, knows one machine, and says that it has read everything.
    async fn bridge(not_after: u64) -> Still {
        let still = Still::start().await.unwrap();
        still.context.broker.ensure_streams().await.unwrap();
        let author = Author {
            key: key(2).public().clone(),
            name: "bridge:b1".to_owned(),
            role: Role::Member,
            rights: vec![Right::Command],
        };
        let doc = Authors {
            ws: Workspace::main(),
            version: 1,
            issued_at: not_after - DAY_MS,
            not_after,
            authors: vec![author],
            issuers: vec![],
            bridges: vec![key(2).public().clone()],
            former_bridges: Vec::new(),
            next_fleet_key: None,
            crit: vec![],
        };
        let id = MachineId::new("web-1").unwrap();
        let mut memory = still.context.shared.memory_mut();
        memory.authors = Some(AuthorsDoc { doc: Arc::new(doc), sha256: Sha256::of(b"") });
        memory.put_machine(MachineRecord {
            ws: Workspace::main(),
            token: id.token(),
            id,
            keys: Some(RelayKeys {
                login_key: key(3).public().clone(),
                signing_key: key(4).public().clone(),
            }),
            enrolled_at: 1,
            enrolled_by: None,
            former_keys: Vec::new(),
            allow_legacy: false,
            labels: signalbox_schemas::label::GivenLabels::default(),
            revision: 0,
        });
        drop(memory);
        still.context.shared.caught_up.send_replace(true);
        still
    }

    /// Asks for a command, in the name of the administrator.
    async fn ask(still: &Still, idempotency_key: &str) -> Result<(Accepted, Cursors), Problem> {
        let wish = serde_json::json!({"on": "web-1", "command": "true"});
        let wish = serde_json::from_value(wish).unwrap();
        run(&still.api(), &Caller::admin_token(), wish, Some(idempotency_key)).await
    }

    #[tokio::test]
    async fn an_id_that_others_took_is_told_only_once_it_was_read() {
        let still = bridge(now_ms() + DAY_MS / 2).await;
        let id = CommandId::from_idempotency_key("token:admin", "k");
        let subject = Subject::Command(Workspace::main(), id, CommandPiece::Spec).to_string();
        let link = still.context.broker.link();
        link.store(Store::new(subject, "another bridge's")).await.unwrap();
        let state = link.stream_state(stream::CMD).await.unwrap();
        let read_to = |sequence| {
            let at = Position { created: state.created_ms, sequence };
            still.context.shared.cursors.send_modify(|cursors| cursors.set(stream::CMD, at));
        };
        read_to(0);
        // Stored, and not read here: it may be the same wish.
        let refused = ask(&still, "k").await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::NotCaughtUp, "{refused:?}");
        read_to(u64::MAX);
        // Read, and no command: it never will be this one.
        let refused = ask(&still, "k").await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::IdConflict, "{refused:?}");
    }

    #[tokio::test]
    async fn nobody_authors_by_a_document_that_has_expired() {
        let still = bridge(now_ms() - 1).await;
        let refused = ask(&still, "k").await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::Forbidden, "{refused:?}");
        let state = still.context.broker.link().stream_state(stream::CMD).await.unwrap();
        assert_eq!(state.messages, 0);
        let still = bridge(now_ms() + DAY_MS / 2).await;
        assert!(ask(&still, "k").await.is_ok());
    }
}
