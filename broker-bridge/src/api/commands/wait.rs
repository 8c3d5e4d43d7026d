//! Waiting for a command.

use std::sync::Arc;

use signalbox_schemas::{error::Problem, id::CommandId};
use tokio::sync::broadcast::{Receiver, error::RecvError};

use super::{super::Api, known};
use crate::view::Change;

/// Waits until every run of a command has settled, or `over` ends. Answers whether they have.
///
/// # Errors
/// `not_caught_up`, `not_found`.
pub async fn until_settled(
    api: &Api,
    id: CommandId,
    over: impl Future<Output = ()>,
) -> Result<bool, Problem> {
    // Heard from before the first look: what comes in between is not missed.
    let mut changes = api.view().changes();
    let mut over = std::pin::pin!(over);
    loop {
        if known(api, id).await?.settled {
            return Ok(true);
        }
        tokio::select! {
            () = changed(&mut changes, id) => {}
            () = &mut over => return Ok(false),
        }
    }
}

fn concerns(change: &Change, id: CommandId) -> bool {
    matches!(change, Change::Run { cid, .. } | Change::Command { cid } if *cid == id)
}

/// Returns when something about a command may have changed.
async fn changed(changes: &mut Receiver<Arc<[Change]>>, id: CommandId) {
    loop {
        match changes.recv().await {
            Ok(some) if some.iter().any(|change| concerns(change, id)) => return,
            Ok(_) => {}
            Err(RecvError::Lagged(_)) => return,
            // The view is gone, and so is the bridge: the wait ends with it.
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}
