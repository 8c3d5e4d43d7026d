//! What a settled run waits for before it is told.

use signalbox_schemas::{
    api::RunView,
    id::{CommandId, MachineToken},
    run::InlineOutput,
};

use crate::{store::StoreError, view::View};

/// What must have been sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Barrier {
    /// Not known yet: not all bytes have been seen, and nobody asked how far the stream goes.
    Unknown,
    /// As above, and somebody has asked.
    Asked,
    /// The stream was read as far as it went when it was asked for: what has not been seen was cut, lost or dropped.
    Read,
    /// Everything up to this position.
    At(u64),
    /// What the exit carries itself.
    Inline(InlineOutput),
}

impl Barrier {
    /// Whether another look may tell more.
    pub(super) fn is_open(&self) -> bool {
        matches!(self, Self::Unknown | Self::Asked | Self::Read)
    }
}

/// Looks once more at what is not known; `None` when it still is not. Blocks.
pub(super) fn look(
    view: &View,
    id: CommandId,
    token: &MachineToken,
    run: &RunView,
    barrier: &Barrier,
) -> Result<Option<Barrier>, StoreError> {
    if run.stdout.bytes + run.stderr.bytes == 0 {
        return Ok(Some(Barrier::At(0)));
    }
    if run.stdout.sha256.is_none() && run.stderr.sha256.is_none() {
        // No exit says how much there is: the run was lost.
        return view.last_of_command(id).map(Barrier::At).map(Some);
    }
    if let Some(inline) = view.inline(id, token)? {
        return Ok(Some(Barrier::Inline(inline)));
    }
    // The last byte alone says nothing: after a reconnect chunks may be stored in another order than they were written.
    if view.received(id, token)? == [run.stdout.bytes, run.stderr.bytes] {
        return view.last_of_run(id, token).map(Barrier::At).map(Some);
    }
    match barrier {
        Barrier::Read => view.last_of_command(id).map(Barrier::At).map(Some),
        _ => Ok(None),
    }
}
