//! Pausing, resuming and aborting the rollout of a command.

use std::sync::Arc;

use signalbox_schemas::{
    api::Steered,
    authors::Role,
    error::{ErrorCode, Problem, report},
    id::CommandId,
    mailbox::Position,
    rollout::Steer,
    stream,
};
use tracing::warn;

use super::{
    super::{Api, Caller, now_ms, store_problem},
    known, not_found, summary,
};
use crate::{
    rollout::{Next, WriteError, standing, write},
    view::Cursors,
};

/// Stores a wish about the rollout of a command, unless it is so already.
///
/// # Errors
/// `forbidden`, `not_caught_up`, `not_found`, `invalid` when it has no rollout, has ended, or was aborted, `not_accepted`.
pub async fn steer(
    api: &Api,
    caller: &Caller,
    id: CommandId,
    steer: Steer,
) -> Result<(Steered, Cursors), Problem> {
    caller.require(Role::Member, &format!("{} a command", steer.as_str()))?;
    let refuse = |why: &str| {
        Problem::new(ErrorCode::Invalid, format!("cannot {} command {id}: {why}", steer.as_str()))
    };
    let known = known(api, id).await?;
    if known.rollout.is_none() {
        return Err(refuse("it goes to all of its machines at once; cancel it to end it"));
    }
    if known.settled {
        return Err(refuse("every run has ended"));
    }
    let shared = Arc::clone(api.view().shared());
    let compose = || {
        let Some((progress, counted, after)) = standing(&shared, id)? else {
            return Err(WriteError::Refused("every run has ended"));
        };
        let next = progress.steered(steer, counted, caller.principal(), now_ms());
        let next = next.map_err(WriteError::Refused)?;
        Ok(next.map(|progress| Box::new(Next { progress, after })))
    };
    let written = write(&shared, &api.broker.asked_by(caller.principal()), id, compose).await;
    let cursors = match written {
        Ok(Some(sequence)) => {
            let created = api.view().cursors().get(stream::CMD).created;
            Cursors::of(stream::CMD, Position { created, sequence })
        }
        Ok(None) => api.view().cursors(),
        Err(WriteError::Refused(why)) => return Err(refuse(why)),
        Err(WriteError::Store(error)) => return Err(store_problem(&error)),
        Err(error @ WriteError::Unbelieved) => {
            let why = format!("cannot {} command {id}: {error}", steer.as_str());
            return Err(Problem::new(ErrorCode::NotAccepted, why));
        }
        Err(error) => {
            warn!(command = %id, error = report(&error), wish = steer.as_str(), "the broker did not accept");
            let why = format!(
                "cannot {} command {id}: the broker did not acknowledge it; show the command, and try again",
                steer.as_str()
            );
            return Err(Problem::new(ErrorCode::NotAccepted, why));
        }
    };
    let rollout = summary(api, id)?.and_then(|summary| summary.rollout).ok_or_else(|| not_found(id))?;
    Ok((Steered { rollout: *rollout }, cursors))
}
