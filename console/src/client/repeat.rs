//! Commands under an idempotency key: asked for twice, they run once.

use signalbox_schemas::{
    api::CommandSummary,
    error::{ErrorCode, Problem},
    id::{CommandId, MachineId},
};

use super::{
    Access, Client, ClientError,
    sign::{Draft, principal},
};

/// A command that was submitted before under the same key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repeated {
    /// Its id.
    pub id: CommandId,
    /// From then on it does not start, Unix ms.
    pub expires_at: u64,
    /// Its machines, sorted.
    pub targets: Vec<MachineId>,
}

impl Client {
    /// The command that stands under the draft's idempotency key, if it has one and there is one.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with `id_conflict` when the key was used for something else.
    pub async fn repeated(&self, draft: &Draft) -> Result<Option<Repeated>, ClientError> {
        let Some(id) = draft.id_of_key(self.access()) else { return Ok(None) };
        let view = match self.command(id).await {
            Ok(view) => view,
            Err(ClientError::Refused(problem)) if problem.code == ErrorCode::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        if view.summary.id != id || !is_of(draft, &view.summary, self.access()) {
            let message = "this idempotency key was used for another command; use a new one";
            return Err(ClientError::Refused(Problem::new(ErrorCode::IdConflict, message)));
        }
        let mut targets: Vec<MachineId> = view.runs.into_iter().map(|run| run.machine).collect();
        targets.sort();
        Ok(Some(Repeated { id, expires_at: view.summary.expires_at, targets }))
    }
}

/// Whether a command is what the draft asks for, as far as is shown of it.
fn is_of(draft: &Draft, summary: &CommandSummary, access: &Access) -> bool {
    summary.by == principal(access.operator.as_str())
        && summary.on == draft.on
        && summary.command == draft.command
        && summary.timeout_ms == draft.timeout_ms
        && summary.created_by == draft.created_by
        && summary.target == draft.target()
        && summary.rollout.as_ref().map(|rollout| &rollout.plan) == draft.rollout.as_ref()
        && !summary.changes
        && (!draft.is_expiry_named
            || summary.expires_at.checked_sub(summary.created_at) == Some(draft.expires_in_ms))
}
