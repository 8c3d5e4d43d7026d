//! Lists that a screen looks at: read anew while they are on it, and kept nowhere else.

use signalbox_schemas::{
    api::{
        AssignmentView, AuditView, ConfigPushView, CredentialView, EventView, HealthView, InventoryView,
        ListAssignments, ListConfigPushes, ListCredentials, ListEvents, ListRelays, ListRuns, MachineRunView,
        OperatorView, Page, RelayView, SharedCredentialView, StreamHealth, op,
    },
    credential::CredentialMeta,
    id::{MachineId, MachineToken},
};

use super::{
    Client, ClientError,
    known::{Accepted, Known},
    list::MOST,
};

/// Rows that are read of a list: what a person may look through.
pub const ROWS: usize = 10_000;
/// Entries of the audit chain and events that are read, the newest.
const ENTRIES: usize = 1_000;
/// Runs of one machine that are read, the newest.
const RUNS: usize = 500;

/// A list.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Look {
    /// What relays with keys say that they keep.
    Kept,
    /// What relays of the older system hold.
    Held,
    /// Shared credentials.
    Shared,
    /// Assignments.
    Assignments,
    /// Relays of the older system.
    Relays,
    /// Configuration pushes.
    Pushes,
    /// The audit chain.
    Audit,
    /// Events.
    Events,
    /// Operators.
    Operators,
    /// Streams of the broker.
    Streams,
    /// How bridge and broker are.
    Health,
    /// What waits for one machine, runs there, or ran.
    Runs(MachineToken),
}

/// A credential that a relay with keys says that it keeps. For eyes: whoever seals something asks for the signed list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptView {
    /// On which machine.
    pub machine: MachineId,
    /// What is known of it; `Err`: what is told of the machine is not its own word, and why.
    pub meta: Result<CredentialMeta, String>,
    /// When the broker stored the list, Unix ms.
    pub seen_at: Option<u64>,
}

/// The rows of a list.
#[derive(Debug, Clone, PartialEq)]
pub enum Found {
    /// Of [`Look::Kept`].
    Kept(Vec<KeptView>),
    /// Of [`Look::Held`].
    Held(Vec<CredentialView>),
    /// Of [`Look::Shared`].
    Shared(Vec<SharedCredentialView>),
    /// Of [`Look::Assignments`].
    Assignments(Vec<AssignmentView>),
    /// Of [`Look::Relays`].
    Relays(Vec<RelayView>),
    /// Of [`Look::Pushes`].
    Pushes(Vec<ConfigPushView>),
    /// Of [`Look::Audit`], the newest first.
    Audit(Vec<AuditView>),
    /// Of [`Look::Events`], the newest first.
    Events(Vec<EventView>),
    /// Of [`Look::Operators`].
    Operators(Vec<OperatorView>),
    /// Of [`Look::Streams`].
    Streams(Vec<StreamHealth>),
    /// Of [`Look::Health`].
    Health(Box<HealthView>),
    /// Of [`Look::Runs`].
    Runs(Vec<MachineRunView>),
}

impl Client {
    /// Reads a list, the first [`ROWS`] of it at most.
    ///
    /// # Errors
    /// As [`list`](Self::list).
    pub async fn look(&self, look: &Look) -> Result<Found, ClientError> {
        Ok(match look {
            Look::Kept => Found::Kept(self.kept().await?),
            Look::Held => {
                Found::Held(self.list(op::CREDENTIALS_LIST, ListCredentials::default(), ROWS).await?)
            }
            Look::Shared => Found::Shared(self.list(op::SHARED_LIST, Page::default(), ROWS).await?),
            Look::Assignments => {
                let asked = ListAssignments::default();
                Found::Assignments(self.list(op::ASSIGNMENTS_LIST, asked, ROWS).await?)
            }
            Look::Relays => Found::Relays(self.list(op::RELAYS_LIST, ListRelays::default(), ROWS).await?),
            Look::Pushes => {
                Found::Pushes(self.list(op::PUSHES_LIST, ListConfigPushes::default(), ROWS).await?)
            }
            Look::Audit => Found::Audit(self.list(op::AUDIT_LIST, Page::default(), ENTRIES).await?),
            Look::Events => Found::Events(self.list(op::EVENTS_LIST, ListEvents::default(), ENTRIES).await?),
            Look::Operators => Found::Operators(self.list(op::OPERATORS_LIST, Page::default(), ROWS).await?),
            Look::Streams => Found::Streams(self.health().await?.streams),
            Look::Health => Found::Health(Box::new(self.health().await?)),
            Look::Runs(machine) => {
                let asked = ListRuns { machine_id: Some(machine.to_string()), ..ListRuns::default() };
                Found::Runs(self.list(op::RUNS_LIST, asked, RUNS).await?)
            }
        })
    }

    /// How bridge and broker are.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub async fn health(&self) -> Result<HealthView, ClientError> {
        self.ask(op::HEALTH_GET, &serde_json::json!({})).await
    }

    async fn kept(&self) -> Result<Vec<KeptView>, ClientError> {
        let mut kept = Vec::new();
        let ws = &self.access().ws;
        let take = |view: InventoryView| {
            let room = ROWS.saturating_sub(kept.len());
            // Whose key it is matters to who seals something, and is checked there.
            let opened = Known::default().open(ws, &view, &Accepted::default());
            let row = |meta| KeptView { machine: view.machine.clone(), meta, seen_at: view.seen_at };
            match opened {
                Ok(inventory) => {
                    let metas = inventory.into_iter().flat_map(|inventory| inventory.credentials);
                    kept.extend(metas.take(room).map(|meta| row(Ok(meta))));
                }
                Err(distrust) if room > 0 => kept.push(row(Err(distrust.to_string()))),
                Err(_) => {}
            }
        };
        self.inventories("all".to_owned(), MOST, take).await?;
        Ok(kept)
    }
}
