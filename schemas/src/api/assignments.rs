//! Assignments, and what stands beside them: relays of the old contract, credentials, configuration pushes, and work that
//! somebody does in a relay's name.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    config::{PushState, PushType},
    credential::{CredentialLabel, CredentialMeta, CredentialType, SharedSecret, StorageMode},
    id::{CommandId, CredentialName, MachineId, MachineToken, Sha256},
    label::LabelMap,
    relay::LegacyMetrics,
    run::RunState,
    signed::Signed,
};

use super::whole::whole;

/// A wish for an assignment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewAssignment {
    /// The machine, by id or token. One that is not known becomes one whose relay speaks the old contract.
    pub machine_id: String,
    /// For people, 1 to 128 printable characters.
    pub name: String,
    /// Who made it; absent: whoever asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// SHA-256 of its key, which does not go through the broker: see [`ApiKey`](crate::api_key::ApiKey).
    pub key_hash: Sha256,
    /// What its relay brings to its machine when it enrols, at most 32. A relay of the old contract never does.
    #[serde(default, skip_serializing_if = "LabelMap::is_empty")]
    pub labels: LabelMap,
}

/// An assignment as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssignmentView {
    /// Its id.
    pub id: String,
    /// The machine.
    pub machine_id: MachineId,
    /// For people.
    pub name: String,
    /// Whether its key counts.
    pub enabled: bool,
    /// Who made it; `null` = not known.
    pub created_by: Option<String>,
    /// Since when, Unix ms.
    pub created_at: u64,
    /// When it was last changed, Unix ms.
    pub updated_at: u64,
    /// When its relay was last heard, Unix ms by the broker's clock; `null` = not lately.
    pub last_seen_at: Option<u64>,
    /// Whether its relay was heard in the last minute.
    pub is_online: bool,
    /// What its relay brings to its machine when it enrols.
    #[serde(default, skip_serializing_if = "LabelMap::is_empty")]
    pub labels: LabelMap,
}

/// Which assignments: newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListAssignments {
    /// Those of this machine only, by id or token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine_id: Option<String>,
    /// Most items, 1 to 1,000; 100 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// One thing by its id: an assignment, a relay (by assignment), a push or a shared credential.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ById {
    /// Its id.
    pub id: String,
}

/// Changes to an assignment; what is absent stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpdateAssignment {
    /// Its id; over HTTP it stands in the path.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Whether its key counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
}

/// Removes an assignment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoveAssignment {
    /// Its id.
    pub id: String,
    /// With all that stands beside it: report, inventory, pushes, its place in shared credentials, and the machine's open
    /// work if nobody else can do it.
    #[serde(default)]
    pub cascade: bool,
}

/// An assignment is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemovedAssignment {
    /// Its id.
    pub id: String,
    /// Runs that were taken back with it.
    pub withdrawn: u32,
}

/// What a relay of the old contract says about itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// The assignment; over HTTP it stands in the path.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// What it can do.
    pub capabilities: Vec<String>,
    /// How its machine is; absent: not known, also if it was.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "whole")]
    pub metrics: Option<LegacyMetrics>,
    /// Its version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Host name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Operating system and architecture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// Credentials it holds; absent: as before.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "whole")]
    pub credentials: Option<Vec<CredentialMeta>>,
}

/// What waits for a relay that has reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reported {
    /// Pushes without an answer.
    pub pending_config_pushes: u64,
    /// Shared credentials that are assigned to it.
    pub shared_credentials_count: u64,
}

/// Which relays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListRelays {
    /// Those with this capability only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capability: Option<String>,
    /// Those that are, or are not, online only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub online: Option<bool>,
    /// Most items, 1 to 1,000; 100 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// A relay of the old contract as it is shown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RelayView {
    /// Its assignment.
    pub assignment_id: String,
    /// Its machine.
    pub machine_id: MachineId,
    /// What it can do.
    pub capabilities: Vec<String>,
    /// Its version.
    pub version: Option<String>,
    /// Host name.
    pub hostname: Option<String>,
    /// Operating system and architecture.
    pub platform: Option<String>,
    /// How its machine is; `null` = not known.
    pub metrics: Option<LegacyMetrics>,
    /// When it first reported, Unix ms.
    pub created_at: u64,
    /// When it was last heard, Unix ms by the broker's clock; `null` = not lately.
    pub last_heartbeat_at: Option<u64>,
    /// Whether that was in the last minute.
    pub is_online: bool,
}

/// Which entries of the inventory: of one relay, or those that open a host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListCredentials {
    /// Those that the relay of this assignment holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assignment_id: Option<String>,
    /// Those that open this host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_host: Option<String>,
    /// Most items, 1 to 1,000; 100 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// A credential that a relay holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CredentialView {
    /// Whose relay holds it.
    pub assignment_id: String,
    /// On which machine.
    pub machine_id: MachineId,
    /// What it is.
    #[serde(flatten)]
    pub meta: CredentialMeta,
    /// When that was reported, Unix ms.
    pub reported_at: u64,
}

/// A wish for a shared credential.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewSharedCredential {
    /// What it is called, 1 to 128 printable characters.
    pub name: String,
    /// What it is good for.
    pub credential_type: CredentialType,
    /// The host it opens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_host: Option<String>,
    /// Ciphertext, 1 byte to 64 KiB, opaque here.
    pub encrypted_value: String,
    /// Assignments whose relays get it, up to 1,000.
    #[serde(default)]
    pub assigned: Vec<String>,
}

/// Changes to a shared credential; what is absent stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpdateSharedCredential {
    /// Its id; over HTTP it stands in the path.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// What it is called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The host it opens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_host: Option<String>,
    /// Ciphertext.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encrypted_value: Option<String>,
    /// Assignments whose relays get it, all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assigned: Option<Vec<String>>,
}

/// A shared credential as it is shown: without its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedCredentialView {
    /// Its id.
    pub id: String,
    /// What it is called.
    pub name: String,
    /// What it is good for.
    pub credential_type: CredentialType,
    /// The host it opens.
    pub target_host: Option<String>,
    /// Where its value lives at a relay.
    pub storage_mode: StorageMode,
    /// Assignments whose relays get it, sorted.
    pub assigned: Vec<String>,
    /// Machines with keys that it is assigned to, sorted; relays of the old contract get none of those.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub machines: Vec<MachineToken>,
    /// Who made it.
    pub created_by: String,
    /// Since when, Unix ms.
    pub created_at: u64,
    /// When it was last changed, Unix ms.
    pub updated_at: u64,
}

/// Says to whom a credential is given that is shared among relays with keys, and what it is if it is pushed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeepShared {
    /// What it is called: unique among these.
    pub name: CredentialName,
    /// Given when a value is pushed: the one that was known before is forgotten. Absent: only the machines change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<CredentialLabel>,
    /// That value for the recovery key; with `label` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Signed<SharedSecret>>,
    /// Machines that get it.
    #[serde(default)]
    pub add: Vec<MachineToken>,
    /// Machines that lose it.
    #[serde(default)]
    pub remove: Vec<MachineToken>,
}

/// One shared credential by its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ByName {
    /// What it is called.
    pub name: CredentialName,
}

/// A wish for a configuration push.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewConfigPush {
    /// The assignment.
    pub assignment_id: String,
    /// What it changes.
    pub push_type: PushType,
    /// A JSON object, up to 64 KiB.
    pub payload: Value,
}

/// Which pushes: oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListConfigPushes {
    /// Those to this assignment only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assignment_id: Option<String>,
    /// Those in this state only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<PushState>,
    /// Most items, 1 to 1,000; 100 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// What became of a push.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AckConfigPush {
    /// Its id; over HTTP it stands in the path.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// Whether it is applied.
    pub success: bool,
    /// Why it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A push as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigPushView {
    /// Its id.
    pub id: String,
    /// To whom.
    pub assignment_id: String,
    /// What it changes.
    pub push_type: PushType,
    /// The document; of a credential without its value, which is blank.
    pub payload: Value,
    /// How far it came.
    pub state: PushState,
    /// Why it failed; `null` = it did not, or nobody said.
    pub error: Option<String>,
    /// Who queued it.
    pub created_by: String,
    /// Since when, Unix ms.
    pub created_at: u64,
    /// When its relay was first told, Unix ms.
    pub sent_at: Option<u64>,
    /// When its relay answered, Unix ms.
    pub acked_at: Option<u64>,
}

/// Which runs: of one machine, or in one state.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListRuns {
    /// Those of this machine only, by id or token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine_id: Option<String>,
    /// Those in this state only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<RunState>,
    /// Most items, 1 to 1,000; 100 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// Takes a run in the name of an assignment's relay, or says that one which it took has begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClaimRun {
    /// The command.
    pub id: CommandId,
    /// The assignment.
    pub assignment_id: String,
}

/// Whether a run was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimedRun {
    /// False: somebody else has it, or it has ended.
    pub claimed: bool,
}

/// Whether a run has begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartedRun {
    /// False: somebody else had claimed it, or nobody.
    pub started: bool,
}

/// Says how a run ended, in the name of the relay that had claimed it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CompleteRun {
    /// The command.
    pub id: CommandId,
    /// The assignment that had claimed it.
    pub assignment_id: String,
    /// Whether it did what it should.
    pub success: bool,
    /// Standard output.
    #[serde(default)]
    pub output: String,
    /// Standard error.
    #[serde(default)]
    pub stderr: String,
    /// Exit code; absent = none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i64>,
    /// What went wrong beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// How long it ran, ms.
    #[serde(default)]
    pub duration_ms: u64,
}

/// Whether a result counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompletedRun {
    /// False: somebody else had claimed it, or nobody.
    pub accepted: bool,
}
