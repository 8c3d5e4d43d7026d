//! One machine, and the fleet at one moment: each is a question with one answer.

use signalbox_schemas::id::MachineToken;
use tokio::sync::mpsc;

use super::Gone;
use crate::client::{
    Client, Told,
    machine::{Span, Tab},
};

/// Reads what there is of a machine.
pub(super) async fn read(
    client: Client,
    machine: MachineToken,
    tab: Tab,
    told: mpsc::Sender<Told>,
) -> Result<(), Gone> {
    let part = client.look_at(&machine, tab).await.map_err(|error| error.problem());
    told.send(Told::Part { machine, tab, part }).await
}

/// Reads the figures of a machine over time.
pub(super) async fn over(
    client: Client,
    machine: MachineToken,
    time: Span,
    told: mpsc::Sender<Told>,
) -> Result<(), Gone> {
    let series = client.figures(&machine, time).await.map(Box::new).map_err(|error| error.problem());
    told.send(Told::Series { machine, time, series }).await
}

/// Reads the fleet as it was.
pub(super) async fn then(client: Client, at: u64, told: mpsc::Sender<Told>) -> Result<(), Gone> {
    let then = client.fleet_at(at).await.map(Box::new).map_err(|error| error.problem());
    told.send(Told::Then { at, then }).await
}
