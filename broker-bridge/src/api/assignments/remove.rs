//! Removing an assignment, with what stands beside it if that is wished.
//!
//! Its key counts no more from the first write on. What follows can be taken up again: a removal that broke off answers
//! an error, and is asked for once more.

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use signalbox_link::StoreError;
use signalbox_schemas::{
    api::{RemoveAssignment, RemovedAssignment},
    authors::Role,
    config::ConfigPushRecord,
    credential::SharedCredentialRecord,
    error::{ErrorCode, Problem, report},
    id::{CommandId, MachineToken, Nonce},
    label::{GivenLabels, LabelMap},
    record::{AssignmentRecord, MachineRecord, table},
    relay::RelayRecord,
    run::{Lost, LostReason, Via, WithdrawReason, Withdrawal},
    stream::{RUN, STATE},
    subject::FactKind,
};
use tracing::warn;

use super::{
    super::{Api, Caller, now_ms, records::is_id, store_problem},
    not_found,
};
use crate::{
    store::StoreError as ViewError,
    view::{Cursors, View},
};

/// Writes under way at once.
const AT_ONCE: usize = 64;

const DOING: &str = "remove the assignment";

/// Removes an assignment. With `cascade` its report, inventory and pushes go too, and its place in shared credentials;
/// what its relay had claimed is lost, and what waits for its machine is taken back if nobody else can do it.
///
/// # Errors
/// `forbidden`, `not_caught_up`, `not_found` when it was removed and nothing that was wished for is left to do,
/// `not_accepted`: some of it may be done, ask again.
pub async fn remove(
    api: &Api,
    caller: &Caller,
    args: RemoveAssignment,
) -> Result<(RemovedAssignment, Cursors), Problem> {
    caller.require(Role::Admin, DOING)?;
    let record = ever_known(api, &args.id).await?;
    let mut beside = if args.cascade { Beside::of(api, &record).await? } else { Beside::default() };
    if record.removed_at.is_some() && beside.is_empty() {
        return Err(not_found());
    }
    let now = now_ms();
    let edit = |stands: Option<AssignmentRecord>| {
        let record = stands.filter(|record| record.removed_at.is_none())?;
        Some(AssignmentRecord { removed_at: Some(now), updated_at: Some(now), ..record })
    };
    let (_, mut cursors) = api.edit(caller.principal(), DOING, table::ASSIGNMENTS, &args.id, edit).await?;
    // What it has enrolled goes with it: the machine is free for another key, and for old relays.
    let forget = |stands: Option<MachineRecord>| {
        let machine = stands.filter(|machine| machine.enrolled_by.as_deref() == Some(&*args.id))?;
        let labels = GivenLabels { enrolment: LabelMap::new(), ..machine.labels.clone() };
        Some(MachineRecord { enrolled_by: None, labels, ..machine.with_keys(None) })
    };
    let (_, at) = api
        .edit(caller.principal(), DOING, table::MACHINES, record.machine_id.token().as_str(), forget)
        .await?;
    cursors.advance(&at);
    let mut withdrawn = 0;
    if args.cascade {
        // Once more: until the key counted no more there could be more.
        beside = Beside::of(api, &record).await?;
        withdrawn = beside.remove(api, caller.principal(), &record, now, &mut cursors).await?;
        api.settle_write(&cursors).await;
    }
    Ok((RemovedAssignment { id: args.id, withdrawn }, cursors))
}

/// An assignment, removed or not, or surely none.
async fn ever_known(api: &Api, id: &str) -> Result<AssignmentRecord, Problem> {
    api.ready()?;
    if !is_id(id) {
        return Err(not_found());
    }
    if let Some(record) = api.view().assignment_ever(id) {
        return Ok(record);
    }
    api.read_through(STATE).await?;
    api.view().assignment_ever(id).ok_or_else(not_found)
}

/// What stands beside an assignment.
#[derive(Default)]
struct Beside {
    has_relay: bool,
    shared: Vec<String>,
    pushes: Vec<String>,
    /// Runs that wait for its machine, if nobody else can do them.
    waiting: Vec<CommandId>,
    /// Runs that its relay has claimed.
    claimed: Vec<(CommandId, Nonce)>,
}

impl Beside {
    async fn of(api: &Api, record: &AssignmentRecord) -> Result<Self, Problem> {
        let record = record.clone();
        api.read(move |view| Self::read(view, &record)).await
    }

    fn read(view: &View, record: &AssignmentRecord) -> Result<Self, ViewError> {
        let id = &record.id;
        let mid = record.machine_id.token();
        let has_keys = view
            .machine(mid.as_str())
            .is_none_or(|machine| machine.keys.is_some() && machine.enrolled_by.as_ref() != Some(id));
        let is_other = |other: &AssignmentRecord| {
            other.id != *id && other.enabled && other.machine_id == record.machine_id
        };
        let is_alone = !has_keys && !view.assignments().iter().any(is_other);
        let is_its =
            |push: &Result<ConfigPushRecord, _>| push.as_ref().map_or(true, |push| push.assignment == *id);
        let pushes = view.config_pushes(None).filter(is_its);
        let mut beside = Self {
            has_relay: view.relay(id).is_some(),
            shared: view.shared_with(id).into_iter().map(|shared| shared.id).collect(),
            pushes: pushes.map(|push| push.map(|push| push.id)).collect::<Result<_, _>>()?,
            ..Self::default()
        };
        for (cid, claim) in view.open_runs(&mid) {
            match claim {
                None if is_alone => beside.waiting.push(cid),
                None => {}
                Some(nonce) => {
                    let (facts, _) = view.run_facts(cid, &mid)?;
                    if facts.via().is_some_and(|Via::Legacy(assignment)| assignment == id) {
                        beside.claimed.push((cid, nonce));
                    }
                }
            }
        }
        Ok(beside)
    }

    fn is_empty(&self) -> bool {
        let none = self.shared.is_empty() && self.pushes.is_empty();
        none && !self.has_relay && self.waiting.is_empty() && self.claimed.is_empty()
    }

    /// Removes all of it; answers how many runs were taken back.
    async fn remove(
        self,
        api: &Api,
        by: &str,
        record: &AssignmentRecord,
        now: u64,
        cursors: &mut Cursors,
    ) -> Result<u32, Problem> {
        let id = record.id.as_str();
        if self.has_relay {
            let edit = |stands: Option<RelayRecord>| {
                let relay = stands?;
                let removed_at = relay.removed_at.or(Some(now));
                Some(RelayRecord { removed_at, credentials: Vec::new(), ..relay })
            };
            let (_, at) = api.edit(by, DOING, table::RELAYS, id, edit).await?;
            cursors.advance(&at);
        }
        let take_out = |stands: Option<SharedCredentialRecord>| {
            let mut shared = stands?;
            shared.assigned.retain(|assigned| assigned != id);
            Some(shared)
        };
        let shared = stream::iter(self.shared)
            .map(async |shared| api.edit(by, DOING, table::SHARED_CREDENTIALS, &shared, take_out).await);
        let remove_push = |stands: Option<ConfigPushRecord>| {
            let push = stands?;
            let payload = String::new();
            Some(ConfigPushRecord { payload, removed_at: push.removed_at.or(Some(now)), ..push })
        };
        let pushes = stream::iter(self.pushes)
            .map(async |push| api.edit(by, DOING, table::CONFIG_PUSHES, &push, remove_push).await);
        for (_, at) in shared.buffer_unordered(AT_ONCE).try_collect::<Vec<_>>().await? {
            cursors.advance(&at);
        }
        for (_, at) in pushes.buffer_unordered(AT_ONCE).try_collect::<Vec<_>>().await? {
            cursors.advance(&at);
        }
        let mid = record.machine_id.token();
        let waiting = stream::iter(self.waiting).map(|cid| withdraw(api, &mid, cid));
        let mut stored: Vec<Option<u64>> = waiting.buffer_unordered(AT_ONCE).try_collect().await?;
        let claimed = stream::iter(self.claimed).map(|(cid, nonce)| lose(api, &mid, cid, nonce));
        stored.extend(claimed.buffer_unordered(AT_ONCE).try_collect::<Vec<_>>().await?);
        let stored: Vec<u64> = stored.into_iter().flatten().collect();
        if let Some(last) = stored.iter().max() {
            let at = api.broker.cursor(RUN, *last).await;
            cursors.advance(&at.map_err(|error| super::stored_problem(DOING, &error))?);
        }
        Ok(u32::try_from(stored.len()).unwrap_or(u32::MAX))
    }
}

/// Takes a run back; `None` when somebody else decided it first.
async fn withdraw(api: &Api, mid: &MachineToken, cid: CommandId) -> Result<Option<u64>, Problem> {
    let (ws, reason, withdrawn_at) = (api.ws().clone(), WithdrawReason::Cancelled, now_ms());
    let fact = Withdrawal { ws, mid: mid.clone(), cid, reason, withdrawn_at };
    let stored = api.broker.store_fact(mid, cid, FactKind::Claim, &fact, "cancelled").await;
    taken_back(cid, stored)
}

/// Gives a run up that the relay had claimed; `None` when somebody else did before.
async fn lose(api: &Api, mid: &MachineToken, cid: CommandId, nonce: Nonce) -> Result<Option<u64>, Problem> {
    let known_bytes = api.view().received(cid, mid).map_err(|error| store_problem(&error))?;
    let (ws, reason, lost_at) = (api.ws().clone(), LostReason::KeeperGone, now_ms());
    let fact = Lost { ws, mid: mid.clone(), cid, nonce, reason, lost_at, known_bytes };
    let stored = api.broker.store_fact(mid, cid, FactKind::Lost, &fact, reason.as_str()).await;
    taken_back(cid, stored)
}

fn taken_back(
    cid: CommandId,
    stored: Result<signalbox_link::Stored, StoreError>,
) -> Result<Option<u64>, Problem> {
    match stored {
        Ok(stored) => Ok(Some(stored.sequence)),
        Err(StoreError::Taken { .. }) => Ok(None),
        Err(error) => {
            warn!(command = %cid, error = report(&error), "a run was not taken back");
            let message = format!("cannot {DOING}: command {cid} could not be taken back; ask again");
            Err(Problem::new(ErrorCode::NotAccepted, message))
        }
    }
}
