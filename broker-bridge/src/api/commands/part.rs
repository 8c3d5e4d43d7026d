//! Grants that are sent ahead of a submit. Each part goes to CMD at once, so the submit may come to any bridge, and nothing
//! is kept for it in memory.

use signalbox_schemas::{
    api::PartTaken,
    authors::{Right, Role},
    command::Part,
    error::{ErrorCode, Problem},
    id::{CommandId, MachineToken},
    signed::PublicKey,
    stream,
};

use super::{
    super::{Api, Author, Caller, now_ms, store_problem},
    submit::{check_author, refuse, storing_problem},
};
use crate::{projection::parts::MAX_WAITING_PARTS, submit::store_part, view::View};

/// Parts that may wait for one command: as many as there are of the largest, each as often as it is kept.
const OF_ONE: usize = 10 * MAX_WAITING_PARTS;
/// Parts that may wait in all; up to 512 KiB each, on the disk. They are looked at in one round when they are too old.
const IN_ALL: u64 = 800;
/// A part that waits for longer is written again, and no submit finds it, ms: after 10 min it is deleted, and must not be
/// while its spec is on its way.
pub(super) const FRESH_MS: u64 = 5 * 60_000;
/// One that is sent again within this is as good as it was, ms.
const YOUNG_MS: u64 = FRESH_MS / 2;

/// Takes a part of the grants of a command that an operator is about to submit. The same part again is the same part; another
/// one with its number does not touch it, for the spec that comes tells which is meant.
///
/// # Errors
/// `forbidden`, `not_caught_up`, `invalid`, `too_large`, `id_conflict`, `rate_limited`, `not_accepted`.
pub async fn part(api: &Api, caller: &Caller, part: Part) -> Result<PartTaken, Problem> {
    caller.require(Role::Member, "submit a command")?;
    api.ready()?;
    let Author::Operator(key) = &caller.author else {
        return Err(refuse(ErrorCode::Forbidden, "only operators submit commands with grants of their own"));
    };
    // What its spec will be is not known yet; the submit asks for the right that it needs.
    check_author(api, key, &[Right::Command, Right::Credential, Right::Config])?;
    let (id, n) = (part.cid, part.n);
    if part.of < 2 {
        let why = "grants that are one part go with the submit itself";
        return Err(refuse(ErrorCode::Invalid, why));
    }
    let body = serde_json::to_vec(&part).map_err(|error| refuse(ErrorCode::Invalid, error))?;
    part.check(body.len()).map_err(|error| refuse(ErrorCode::Invalid, error))?;
    check_grants(api, key, &part)?;
    if is_of_accepted(api, key, &part)? {
        // A whole submit that is repeated.
        return Ok(PartTaken { id, n, cursor: api.view().cursors().to_string() });
    }
    let young = waits_since(api, id, n, &body).await?;
    let cursors = if young.is_some_and(|at| now_ms().saturating_sub(at) < YOUNG_MS) {
        api.view().cursors()
    } else {
        check_room(api, id)?;
        store_part(api.link(), api.ws(), api.view().made(stream::CMD), part.cid, n, body, key)
            .await
            .map_err(|error| storing_problem("submit", id, &error))?
    };
    api.settle_write(&cursors).await;
    Ok(PartTaken { id, n, cursor: cursors.to_string() })
}

async fn waits_since(api: &Api, id: CommandId, n: u32, body: &[u8]) -> Result<Option<u64>, Problem> {
    let body = body.to_vec();
    api.read(move |view: &View| view.waits_since(id, n, &body)).await
}

/// Whether they are what they must be for the submit to find them: about this command and one spec, by `key`, in order.
fn check_grants(api: &Api, key: &PublicKey, part: &Part) -> Result<(), Problem> {
    let wrong = |why: &str| Err(refuse(ErrorCode::Invalid, why));
    let (mut about, mut last): (_, Option<MachineToken>) = (None, None);
    for signed in &part.grants {
        if signed.key() != key {
            return wrong("its grants are not signed with your key");
        }
        let Ok(grant) = signed.peek() else { return wrong("a grant cannot be read") };
        if grant.ws != *api.ws() || grant.cid != part.cid {
            return wrong("a grant speaks of another command");
        }
        if *about.get_or_insert(grant.spec_sha256) != grant.spec_sha256 {
            return wrong("its grants speak of several specs");
        }
        if grant.expires_at <= now_ms() {
            return wrong("it has expired already; make it anew");
        }
        if last.is_some_and(|last| last >= grant.mid) {
            return wrong("the grants are not sorted by machine, or name one twice");
        }
        last = Some(grant.mid);
    }
    Ok(())
}

/// Whether it speaks of a command that was accepted already.
fn is_of_accepted(api: &Api, key: &PublicKey, part: &Part) -> Result<bool, Problem> {
    let stored = api.view().command_spec(part.cid).map_err(|error| store_problem(&error))?;
    let Some(stored) = stored else { return Ok(false) };
    if stored.author == *key && part.spec_sha256() == Some(stored.spec_sha256) {
        return Ok(true);
    }
    Err(refuse(ErrorCode::IdConflict, "there is a command with this id already"))
}

fn check_room(api: &Api, id: CommandId) -> Result<(), Problem> {
    let (of_one, in_all) = api.view().waiting_parts(id);
    let why = if of_one >= OF_ONE {
        "too many parts of this command wait already; draw a new id"
    } else if in_all >= IN_ALL {
        "too many parts of commands wait already; try again in ten minutes"
    } else {
        return Ok(());
    };
    Err(refuse(ErrorCode::RateLimited, why))
}
