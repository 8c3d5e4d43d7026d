//! What a settled run waits for before it is told.

use signalbox_schemas::{
    api::{OutputView, RunView},
    id::{CommandId, MachineToken},
    output::OutputStream,
    run::InlineOutput,
};

use crate::{api::Api, store::StoreError};

/// What must have been sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Barrier {
    /// Not known yet: the last byte has not been seen, and nobody asked how far the stream goes.
    Unknown,
    /// As above, and somebody has asked.
    Asked,
    /// Everything up to this position.
    At(u64),
    /// Everything there is.
    Drained,
    /// What the exit carries itself.
    Inline(InlineOutput),
}

impl Barrier {
    /// Looks once more at what is not known.
    pub(super) fn look(
        &mut self,
        api: &Api,
        id: CommandId,
        token: &MachineToken,
        run: &RunView,
    ) -> Result<(), StoreError> {
        if !matches!(self, Self::Unknown | Self::Asked) {
            return Ok(());
        }
        if run.stdout.sha256.is_none() && run.stderr.sha256.is_none() {
            // No exit says how much there is: a run that never started, or was lost.
            *self = if run.stdout.bytes + run.stderr.bytes == 0 { Self::At(0) } else { Self::Drained };
            return Ok(());
        }
        if run.stdout.bytes + run.stderr.bytes == 0 {
            *self = Self::At(0);
        } else if let Some(inline) = api.view().inline(id, token)? {
            *self = Self::Inline(inline);
        } else if let Some(position) = last_bytes(api, id, token, run)? {
            *self = Self::At(position);
        }
        Ok(())
    }
}

/// The position at which the last byte of both streams is stored.
fn last_bytes(
    api: &Api,
    id: CommandId,
    token: &MachineToken,
    run: &RunView,
) -> Result<Option<u64>, StoreError> {
    let mut position = 0;
    for (stream, known) in [(OutputStream::Stdout, &run.stdout), (OutputStream::Stderr, &run.stderr)] {
        let &OutputView { bytes, .. } = known;
        let Some(last) = bytes.checked_sub(1) else { continue };
        match api.view().chunk_covering(id, token, stream, last)? {
            Some(chunk) if chunk.offset <= last => position = position.max(chunk.position),
            _ => return Ok(None),
        }
    }
    Ok(Some(position))
}
