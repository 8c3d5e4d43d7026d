//! Signed, over NATS.

use anyhow::Result;
use signalbox_schemas::{
    api::Submit,
    command::CommandSpec,
    id::{CommandId, MachineToken},
    limit,
};
use signalbox_testkit::operator::{Operator, Order};

use super::{PATIENCE, Try, cancelling, counted, targets};
use crate::plan::Wish;

/// The command that a wish is, granted.
pub(super) fn signed(
    operator: &Operator,
    wish: &Wish,
    on: &str,
    machines: &[MachineToken],
    text: &str,
) -> Result<(CommandSpec, Submit)> {
    operator.sign(&Order {
        timeout_ms: wish.timeout_ms,
        expires_in_ms: wish.expires_in_ms,
        not_before_in_ms: wish.not_before_in_ms,
        max_output: wish.max_output.unwrap_or(limit::DEFAULT_MAX_OUTPUT),
        ..Order::new(on, machines.to_vec(), text)
    })
}

/// One try.
pub(super) async fn submit(operator: &Operator, submit: &Submit) -> Result<Try> {
    counted(operator.submit(submit, PATIENCE).await?, targets)
}

/// One try.
pub(super) async fn cancel(operator: &Operator, command: CommandId) -> Result<Try> {
    counted(operator.cancel(command, PATIENCE).await?, cancelling)
}
