//! A bridge with machines that only relays of the old contract stand for.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use signalbox_schemas::{
    config::{ConfigPushRecord, PushState, PushType},
    credential::SharedCredentialRecord,
    id::{MachineId, Workspace},
    label::GivenLabels,
    record::{AssignmentRecord, Edition, MachineRecord, table},
};
use signalbox_testkit::{
    eventually,
    http::{Answer, run_on},
    old_relay::OldRelay,
};

use super::bench::{Bench, now_ms};

/// A bridge and its machines.
pub(crate) struct World {
    pub(crate) bench: Bench,
}

/// An assignment and its key.
#[derive(Debug, Clone)]
pub(crate) struct Assigned {
    pub(crate) id: String,
    pub(crate) key: String,
}

impl World {
    /// Without machines.
    pub(crate) async fn start() -> Result<Self> {
        Self::start_with(&[], None).await
    }

    /// With machines that have relays of their own, and another patience with claimed runs.
    pub(crate) async fn start_with(machines: &[&str], lost_grace: Option<Duration>) -> Result<Self> {
        Ok(Self { bench: Bench::start_with(machines, lost_grace).await? })
    }

    /// An assignment to a machine, which is made if there is none.
    pub(crate) async fn assign(&self, machine: &str) -> Result<Assigned> {
        if self.bench.view.machine(machine).is_none() {
            self.make_machine(machine).await?;
        }
        let body = json!({"machine_id": machine, "name": format!("Relay of {machine}")});
        let answer = self.bench.http.post("/api/v1/assignments", &body).await?;
        let made = answer.json()?;
        ensure!((200..300).contains(&answer.status), "assigning answers {}: {made}", answer.status);
        let text = |name: &str| made[name].as_str().map(str::to_owned).context("a text");
        Ok(Assigned { id: text("id")?, key: text("api_key")? })
    }

    async fn make_machine(&self, name: &str) -> Result<()> {
        let id = MachineId::new(name)?;
        let record = MachineRecord {
            ws: Workspace::main(),
            token: id.token(),
            id,
            keys: None,
            enrolled_at: 1,
            enrolled_by: None,
            former_keys: Vec::new(),
            allow_legacy: false,
            labels: GivenLabels::default(),
            revision: 0,
        };
        self.put(table::MACHINES, record.token.as_str(), &record).await?;
        eventually("the machine", || async { self.bench.view.machine(name).context("none") }).await?;
        Ok(())
    }

    /// Changes a machine, and waits until the bridge knows.
    pub(crate) async fn edit_machine(
        &self,
        name: &str,
        edit: impl Fn(MachineRecord) -> MachineRecord,
    ) -> Result<()> {
        let record = self.edit(table::MACHINES, MachineId::new(name)?.token().as_str(), edit).await?;
        eventually("the machine's change", || async {
            let machine = self.bench.view.machine(name).context("no machine")?;
            ensure!(machine == record, "{machine:?}");
            Ok(())
        })
        .await
    }

    /// Changes an assignment, and waits until the bridge knows.
    pub(crate) async fn edit_assignment(
        &self,
        id: &str,
        edit: impl Fn(AssignmentRecord) -> AssignmentRecord,
    ) -> Result<()> {
        let record = self.edit(table::ASSIGNMENTS, id, edit).await?;
        eventually("the assignment's change", || async {
            let known = self.bench.view.assignment(id);
            ensure!(known.is_none() == record.removed_at.is_some(), "{known:?}");
            ensure!(known.is_none_or(|known| known == record), "not yet");
            Ok(())
        })
        .await
    }

    pub(crate) async fn disable(&self, assigned: &Assigned) -> Result<()> {
        let edit = |record| AssignmentRecord { enabled: false, ..record };
        self.edit_assignment(&assigned.id, edit).await
    }

    pub(crate) async fn remove(&self, assigned: &Assigned) -> Result<()> {
        let edit = |record| AssignmentRecord { removed_at: Some(now_ms()), ..record };
        self.edit_assignment(&assigned.id, edit).await
    }

    async fn edit<T: Edition + Clone + PartialEq>(
        &self,
        table: &str,
        id: &str,
        edit: impl Fn(T) -> T,
    ) -> Result<T> {
        let records = &self.bench.records;
        let own = |key: &_, _| key == records.public();
        let (stands, _) = records.edit_record(table, id, own, |stands| stands.map(&edit)).await?;
        stands.context("there is no such record")
    }

    async fn put<T: Edition + Clone + PartialEq>(&self, table: &str, id: &str, record: &T) -> Result<()> {
        self.bench.records.put_record(table, id, record).await?;
        Ok(())
    }

    /// A configuration push; answers its id when the bridge knows it.
    pub(crate) async fn push(&self, to: &Assigned, push_type: PushType, payload: &str) -> Result<String> {
        let record = ConfigPushRecord {
            ws: Workspace::main(),
            id: uuid::Uuid::now_v7().to_string(),
            assignment: to.id.clone(),
            push_type,
            payload: payload.to_owned(),
            state: PushState::Pending,
            error: None,
            created_by: "token:admin".to_owned(),
            created_at: now_ms(),
            sent_at: None,
            acked_at: None,
            removed_at: None,
            revision: 0,
        };
        self.put(table::CONFIG_PUSHES, &record.id, &record).await?;
        eventually("the push", || async {
            self.bench.view.config_push(&record.id)?.context("no push")?;
            Ok(())
        })
        .await?;
        Ok(record.id)
    }

    /// How far a push came.
    pub(crate) fn pushed(&self, id: &str) -> Result<ConfigPushRecord> {
        self.bench.view.config_push(id)?.context("no push")
    }

    /// Shares a credential.
    pub(crate) async fn share(&self, record: SharedCredentialRecord) -> Result<()> {
        self.put(table::SHARED_CREDENTIALS, &record.id, &record).await?;
        eventually("the credential", || async {
            self.bench.view.shared_credential(&record.id).context("no credential")
        })
        .await?;
        Ok(())
    }

    /// The relay of an assignment.
    pub(crate) fn relay(&self, assigned: &Assigned) -> OldRelay {
        OldRelay::new(&self.bench.base, &assigned.key)
    }

    /// A command that is listed for its machine.
    pub(crate) async fn submit(&self, machine: &str, command: &str) -> Result<String> {
        self.submit_with(machine, &json!({"command": command})).await
    }

    /// The same with further members.
    pub(crate) async fn submit_with(&self, machine: &str, body: &Value) -> Result<String> {
        let mut body = body.clone();
        body["machine_id"] = machine.into();
        self.bench.http.submit_with(&body).await
    }

    /// The run of a command as applications see it.
    pub(crate) async fn run(&self, id: &str, machine: &str) -> Result<Value> {
        let command = self.bench.http.json(&format!("/api/v1/commands/{id}")).await?;
        Ok(run_on(&command, machine)?.clone())
    }

    /// Waits for a state of a run.
    pub(crate) async fn run_is(&self, id: &str, machine: &str, state: &str) -> Result<Value> {
        eventually(state, || async {
            let run = self.run(id, machine).await?;
            ensure!(run["state"] == state, "{run}");
            Ok(run)
        })
        .await
    }
}

/// An answer that is JSON as every old relay takes it.
pub(crate) fn is_json(answer: &Answer) -> Result<()> {
    let headers = [
        ("content-type", "application/json"),
        ("access-control-allow-origin", "*"),
        ("access-control-allow-methods", "GET, POST, OPTIONS"),
        ("access-control-allow-headers", "Content-Type, X-API-Key, Authorization"),
    ];
    for (name, value) in headers {
        ensure!(answer.header(name) == Some(value), "{name} is {:?}", answer.header(name));
    }
    answer.json()?;
    Ok(())
}

/// Status and exact text of an answer, which must be JSON.
pub(crate) fn said(answer: &Answer) -> Result<(u16, String)> {
    is_json(answer)?;
    Ok((answer.status, answer.text()))
}

/// The same as [`said`], expected.
pub(crate) fn says(status: u16, text: &str) -> (u16, String) {
    (status, text.to_owned())
}
