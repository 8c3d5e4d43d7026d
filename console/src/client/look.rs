//! Lists that a screen looks at: read anew while they are on it, and kept nowhere else.

use serde::{Deserialize, Serialize};
use signalbox_schemas::{
    api::{
        AssignmentView, AuditView, ConfigPushView, CredentialView, EventView, HealthView, InventoryView,
        ListAssignments, ListConfigPushes, ListCredentials, ListEvents, ListRelays, OperatorView, Page,
        RelayView, SharedCredentialView, StreamHealth, op,
    },
    credential::CredentialMeta,
    id::MachineId,
};

use super::{
    Client, ClientError,
    known::{Accepted, Known},
    list::MOST,
    machine::Tab,
};

/// Rows that are read of a list: what a person may look through.
pub const ROWS: usize = 10_000;
/// Entries of the audit chain and events that are read, the newest.
const ENTRIES: usize = 1_000;

/// A list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ListKind {
    /// What relays with keys say that they keep.
    Credentials,
    /// What relays of the older system hold.
    Held,
    /// Credentials that are shared.
    Shared,
    /// API keys, and whose they are.
    Assignments,
    /// Relays of the older system.
    Relays,
    /// Configuration pushes.
    Pushes,
    /// The audit chain.
    Audit,
    /// What happened.
    Events,
    /// Who may use the console.
    Operators,
    /// The streams of the broker.
    Streams,
    /// How bridge and broker are, and what should be done.
    Health,
    /// What there is of one machine: read by [`Client::look_at`].
    Of(Tab),
}

/// A credential that a relay with keys says that it keeps. For eyes: whoever seals something asks for the signed list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptView {
    /// On which machine.
    pub machine: MachineId,
    /// What is known of it; `Err`: what is told of the machine is not its own word, and why.
    pub meta: Result<CredentialMeta, String>,
    /// When the broker stored the list, Unix ms.
    pub seen_at: Option<u64>,
}

/// The rows of a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Found {
    /// Of [`ListKind::Credentials`].
    Kept(Vec<KeptView>),
    /// Of [`ListKind::Held`].
    Held(Vec<CredentialView>),
    /// Of [`ListKind::Shared`].
    Shared(Vec<SharedCredentialView>),
    /// Of [`ListKind::Assignments`].
    Assignments(Vec<AssignmentView>),
    /// Of [`ListKind::Relays`].
    Relays(Vec<RelayView>),
    /// Of [`ListKind::Pushes`].
    Pushes(Vec<ConfigPushView>),
    /// Of [`ListKind::Audit`], the newest first.
    Audit(Vec<AuditView>),
    /// Of [`ListKind::Events`], the newest first.
    Events(Vec<EventView>),
    /// Of [`ListKind::Operators`].
    Operators(Vec<OperatorView>),
    /// Of [`ListKind::Streams`].
    Streams(Vec<StreamHealth>),
    /// Of [`ListKind::Health`].
    Health(Box<HealthView>),
}

impl Client {
    /// Reads a list, the first [`ROWS`] of it at most.
    ///
    /// # Errors
    /// As [`list`](Self::list).
    pub async fn look(&self, kind: ListKind) -> Result<Found, ClientError> {
        Ok(match kind {
            ListKind::Credentials => Found::Kept(self.kept("all".to_owned()).await?),
            ListKind::Held => {
                Found::Held(self.list(op::CREDENTIALS_LIST, ListCredentials::default(), ROWS).await?)
            }
            ListKind::Shared => Found::Shared(self.list(op::SHARED_LIST, Page::default(), ROWS).await?),
            ListKind::Assignments => {
                let asked = ListAssignments::default();
                Found::Assignments(self.list(op::ASSIGNMENTS_LIST, asked, ROWS).await?)
            }
            ListKind::Relays => Found::Relays(self.list(op::RELAYS_LIST, ListRelays::default(), ROWS).await?),
            ListKind::Pushes => {
                Found::Pushes(self.list(op::PUSHES_LIST, ListConfigPushes::default(), ROWS).await?)
            }
            ListKind::Audit => Found::Audit(self.list(op::AUDIT_LIST, Page::default(), ENTRIES).await?),
            ListKind::Events => {
                Found::Events(self.list(op::EVENTS_LIST, ListEvents::default(), ENTRIES).await?)
            }
            ListKind::Operators => {
                Found::Operators(self.list(op::OPERATORS_LIST, Page::default(), ROWS).await?)
            }
            ListKind::Streams => Found::Streams(self.health().await?.streams),
            ListKind::Health => Found::Health(Box::new(self.health().await?)),
            ListKind::Of(_) => return Err(ClientError::NotAsMeant("it is a list of one machine".to_owned())),
        })
    }

    /// How bridge and broker are.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub async fn health(&self) -> Result<HealthView, ClientError> {
        self.ask(op::HEALTH_GET, &serde_json::json!({})).await
    }

    /// What the relays of these machines say that they keep, as far as a person may look through it.
    ///
    /// # Errors
    /// As [`inventories`](Self::inventories).
    pub(super) async fn kept(&self, on: String) -> Result<Vec<KeptView>, ClientError> {
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
        self.inventories(on, MOST, take).await?;
        Ok(kept)
    }
}
