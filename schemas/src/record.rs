//! What is stored beside commands and runs: entities, the lease, settled history.
//!
//! Records of the `state` bucket stand at `$KV.state.<ws>.<table>.<id>`, signed by a bridge; each is the full
//! record of one entity. Uniqueness is a record of its own, created in the same atomic batch.

use serde::{Deserialize, Serialize};

use crate::{
    bytes::Base64Url,
    id::{BridgeId, CommandId, MachineId, MachineToken, OperatorId, Sha256, Workspace},
    label::{GivenLabels, LabelMap},
    limit,
    run::RunState,
    signed::{Message, PublicKey},
    subject::FactKind,
};

/// Names of the tables of the `state` bucket.
pub mod table {
    /// [`MachineRecord`](super::MachineRecord) by machine token.
    pub const MACHINES: &str = "machines";
    /// [`OperatorRecord`](super::OperatorRecord) by operator id.
    pub const OPERATORS: &str = "operators";
    /// [`AssignmentRecord`](super::AssignmentRecord) by assignment id.
    pub const ASSIGNMENTS: &str = "assignments";
    /// [`ApiKeyRecord`](super::ApiKeyRecord) by the key's keyed BLAKE2b, hex.
    pub const API_KEYS: &str = "unique-api-key";
    /// [`RelayRecord`](crate::relay::RelayRecord) by assignment id.
    pub const RELAYS: &str = "relays";
    /// [`SharedCredentialRecord`](crate::credential::SharedCredentialRecord) by its id.
    pub const SHARED_CREDENTIALS: &str = "shared-credentials";
    /// [`ConfigPushRecord`](crate::config::ConfigPushRecord) by its id.
    pub const CONFIG_PUSHES: &str = "config-pushes";
}

/// A record that is written more than once.
pub trait Edition: Message + Clone + PartialEq {
    /// Which edition it is.
    fn revision(&mut self) -> &mut u64;
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
pub(crate) fn is_first(revision: &u64) -> bool {
    *revision == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_false(value: &bool) -> bool {
    !value
}

/// Keys of a machine's relay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayKeys {
    /// Login key (an nkey of kind user).
    pub login_key: PublicKey,
    /// Signing key.
    pub signing_key: PublicKey,
}

/// A machine that belongs to the fleet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineRecord {
    /// Workspace.
    pub ws: Workspace,
    /// What people call it.
    pub id: MachineId,
    /// What subjects call it.
    pub token: MachineToken,
    /// Keys of its relay. Absent while only relays of the old contract, which have none, stand for it.
    #[serde(flatten)]
    pub keys: Option<RelayKeys>,
    /// Since when, Unix ms.
    pub enrolled_at: u64,
    /// The assignment whose API key its keys were enrolled with: it may enrol others. Absent when they were made beside the
    /// bridge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enrolled_by: Option<String>,
    /// Signing keys that its relay had before, the oldest first, at most [`FORMER_KEYS`]: what they signed is history, and
    /// stays believed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub former_keys: Vec<PublicKey>,
    /// Whether relays of the old contract may take its work though it has keys.
    #[serde(default, skip_serializing_if = "is_false")]
    pub allow_legacy: bool,
    /// What it is for, as others than itself say.
    #[serde(default, skip_serializing_if = "GivenLabels::is_empty")]
    pub labels: GivenLabels,
    /// Grows with each edition, so that an older one that is published again changes nothing.
    #[serde(default, skip_serializing_if = "is_first")]
    pub revision: u64,
}

/// Former signing keys that a machine's record names.
pub const FORMER_KEYS: usize = 64;

impl MachineRecord {
    /// The same machine with other keys, or none; those it had become former ones.
    #[must_use]
    pub fn with_keys(mut self, keys: Option<RelayKeys>) -> Self {
        let had = std::mem::replace(&mut self.keys, keys).map(|keys| keys.signing_key);
        let has = self.keys.as_ref().map(|keys| &keys.signing_key);
        let gone = had.filter(|key| Some(key) != has && !self.former_keys.contains(key));
        self.former_keys.extend(gone);
        self.former_keys.drain(..self.former_keys.len().saturating_sub(FORMER_KEYS));
        self
    }

    /// The key that its relay signs with.
    pub fn signing_key(&self) -> Option<&PublicKey> {
        self.keys.as_ref().map(|keys| &keys.signing_key)
    }

    /// Whether relays of the old contract may take its work.
    pub fn takes_legacy(&self) -> bool {
        self.keys.is_none() || self.allow_legacy
    }
}

impl Message for MachineRecord {
    const TYPE: &'static str = "machine";
    const MAX_BYTES: usize = limit::RECORD_BYTES;
}

impl Edition for MachineRecord {
    fn revision(&mut self) -> &mut u64 {
        &mut self.revision
    }
}

/// A person who may use the console.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorRecord {
    /// Workspace.
    pub ws: Workspace,
    /// Its id.
    pub id: OperatorId,
    /// Login key.
    pub login_key: PublicKey,
    /// Signing key.
    pub signing_key: PublicKey,
    /// Since when, Unix ms.
    pub created_at: u64,
    /// Grows with each edition, so that an older one that is published again changes nothing.
    #[serde(default, skip_serializing_if = "is_first")]
    pub revision: u64,
}

impl Message for OperatorRecord {
    const TYPE: &'static str = "operator";
    const MAX_BYTES: usize = limit::RECORD_BYTES;
}

impl Edition for OperatorRecord {
    fn revision(&mut self) -> &mut u64 {
        &mut self.revision
    }
}

/// A machine's place in the old contract: an API key stands for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssignmentRecord {
    /// Workspace.
    pub ws: Workspace,
    /// Its id, a UUIDv7.
    pub id: String,
    /// The machine.
    pub machine_id: MachineId,
    /// For people.
    pub name: String,
    /// Whether the key counts.
    pub enabled: bool,
    /// Keyed BLAKE2b-256 of the API key's SHA-256, hex; also the id of its [`ApiKeyRecord`].
    pub api_key_hash: String,
    /// Since when, Unix ms.
    pub created_at: u64,
    /// Who made it: `operator:<id>` or `token:<id>`, or whom that one named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// What its relay brings to its machine when it enrols.
    #[serde(default, skip_serializing_if = "LabelMap::is_empty")]
    pub labels: LabelMap,
    /// When it was last changed, Unix ms; absent = never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<u64>,
    /// When it was removed, Unix ms: its key counts no more, and is not given out again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removed_at: Option<u64>,
    /// Grows with each edition, so that an older one that is published again changes nothing.
    #[serde(default, skip_serializing_if = "is_first")]
    pub revision: u64,
}

impl Message for AssignmentRecord {
    const TYPE: &'static str = "assignment";
    const MAX_BYTES: usize = limit::RECORD_BYTES;
}

impl Edition for AssignmentRecord {
    fn revision(&mut self) -> &mut u64 {
        &mut self.revision
    }
}

/// Makes an API key unique and leads to its assignment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiKeyRecord {
    /// Workspace.
    pub ws: Workspace,
    /// The assignment it stands for.
    pub assignment: String,
}

impl Message for ApiKeyRecord {
    const TYPE: &'static str = "api_key";
    const MAX_BYTES: usize = limit::RECORD_BYTES;
}

/// Who dispatches; `$KV.lease.<ws>`. It only avoids double work: no write relies on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The bridge.
    pub bridge: BridgeId,
    /// When it last renewed, Unix ms by its clock.
    pub renewed_at: u64,
}

/// One fact as it stood in RUN.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredFact {
    /// `claim`, `start`, `exit` or `lost`.
    #[serde(with = "fact_kind")]
    pub kind: FactKind,
    /// Its sequence in RUN.
    pub sequence: u64,
    /// When the broker stored it, Unix ms.
    pub stored_at: u64,
    /// The message's body, untouched; of a `claim` above its limit, which decides as well, just enough to be above it.
    pub body: Base64Url,
}

mod fact_kind {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    use crate::subject::FactKind;

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    pub(super) fn serialize<S: Serializer>(kind: &FactKind, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(kind.as_str())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<FactKind, D::Error> {
        let text = String::deserialize(deserializer)?;
        let known = FactKind::ALL.into_iter().find(|kind| kind.as_str() == text);
        known.ok_or_else(|| D::Error::custom("unknown kind of fact"))
    }
}

/// A run that has been settled for an hour; `done.<ws>.<mid>`. A second record of the same run is one that
/// learned of an exit after all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoneRun {
    /// Workspace.
    pub ws: Workspace,
    /// The machine.
    pub mid: MachineToken,
    /// The command.
    pub cid: CommandId,
    /// The state that the facts fold to, for eyes.
    pub state: RunState,
    /// All facts, claim included; the reader folds them again.
    pub facts: Vec<StoredFact>,
}

impl Message for DoneRun {
    const TYPE: &'static str = "done_run";
    const MAX_BYTES: usize = limit::RECORD_BYTES;
}

/// A command that has been settled for an hour; `done.<ws>._`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoneCommand {
    /// Workspace.
    pub ws: Workspace,
    /// The command.
    pub cid: CommandId,
    /// Exact bytes of its spec; of one that brought something sealed, the same without that.
    pub spec: Base64Url,
    /// SHA-256 of its exact bytes, of which its grants speak, where `spec` has left something out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec_sha256: Option<Sha256>,
    /// Sequence of the spec in CMD: the order of commands.
    pub sequence: u64,
    /// When it was accepted, Unix ms.
    pub accepted_at: u64,
    /// Who granted it.
    pub author: PublicKey,
    /// The machines it was for. Above [`limit::PART_GRANTS`] of them one text with commas between, so that the longest
    /// names of the most machines fit a message.
    #[serde(with = "machines")]
    pub machines: Vec<MachineToken>,
    /// Runs by state.
    pub counts: std::collections::BTreeMap<RunState, u32>,
    /// How far it had spread, of one with a rollout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<crate::rollout::Progress>,
}

impl Message for DoneCommand {
    const TYPE: &'static str = "done_command";
    // Headers have a little room beside it.
    const MAX_BYTES: usize = limit::BROKER_PAYLOAD_BYTES - 8 * 1024;
}

/// The largest one fits: its spec as base64, a token of 63 bytes and its comma for each machine, and below 6 KiB of the rest,
/// all of it once more as base64 in the envelope.
const _: () = {
    let payload = limit::SPEC_BYTES / 3 * 4 + limit::TARGETS * 64 + 6 * 1024;
    assert!(payload / 3 * 4 + 1024 <= <DoneCommand as Message>::MAX_BYTES);
};

mod machines {
    use serde::{Deserialize, Deserializer, Serialize as _, Serializer, de::Error as _};

    use crate::{id::MachineToken, limit};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Listed {
        Array(Vec<MachineToken>),
        Text(String),
    }

    pub(super) fn serialize<S: Serializer>(
        machines: &[MachineToken],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        if machines.len() <= limit::PART_GRANTS {
            return machines.serialize(serializer);
        }
        let tokens: Vec<&str> = machines.iter().map(MachineToken::as_str).collect();
        serializer.serialize_str(&tokens.join(","))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<MachineToken>, D::Error> {
        match Listed::deserialize(deserializer)? {
            Listed::Array(machines) => Ok(machines),
            Listed::Text(text) => {
                text.split(',').map(|token| MachineToken::new(token).map_err(D::Error::custom)).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        rollout::{Progress, WHY_BYTES},
        signed::{Signed, SigningKey},
    };

    /// A record for so many machines with names as long as can be, with the largest spec.
    fn largest(machines: usize) -> DoneCommand {
        let pair = nkeys::KeyPair::new_from_raw(nkeys::KeyPairType::User, [1; 32]).unwrap();
        let states = [RunState::Completed, RunState::Failed, RunState::Timeout, RunState::Cancelled];
        DoneCommand {
            ws: Workspace::main(),
            cid: "0193a2b4-0000-7000-8000-000000000000".parse().unwrap(),
            spec: Base64Url(vec![b'x'; limit::SPEC_BYTES]),
            spec_sha256: Some(Sha256::of(b"x")),
            sequence: u64::MAX,
            accepted_at: u64::MAX,
            author: pair.public_key().parse().unwrap(),
            machines: (0..machines).map(|n| MachineToken::new(format!("{n:063}")).unwrap()).collect(),
            counts: states.map(|state| (state, u32::MAX)).into(),
            rollout: (machines > 0).then(|| largest_progress(machines)),
        }
    }

    fn largest_progress(machines: usize) -> Progress {
        let mut progress =
            Progress::new(Workspace::main(), "0193a2b4-0000-7000-8000-000000000000".parse().unwrap());
        for place in 0..u32::try_from(machines).unwrap() {
            progress.released.insert(place);
        }
        Progress {
            revision: u64::MAX,
            wave: u32::MAX,
            why: Some("x".repeat(WHY_BYTES)),
            by: "x".repeat(limit::PRINCIPAL_BYTES),
            at: u64::MAX,
            ..progress
        }
    }

    #[rstest]
    #[case(0, true)]
    #[case(1_000, true)]
    #[case(1_001, false)]
    #[case(limit::TARGETS, false)]
    fn a_settled_command_fits_a_message_whatever_its_machines_are_called(
        #[case] machines: usize,
        #[case] is_array: bool,
    ) {
        let pair = nkeys::KeyPair::new_from_raw(nkeys::KeyPairType::User, [1; 32]).unwrap();
        let key = SigningKey::from_seed(&pair.seed().unwrap()).unwrap();
        let done = largest(machines);
        assert_eq!(serde_json::to_value(&done).unwrap()["machines"].is_array(), is_array);
        let signed = Signed::sign(&done, &key).unwrap().to_json();
        assert_eq!(Signed::<DoneCommand>::from_json(&signed).unwrap().open(|_| true).unwrap(), done);
    }

    #[rstest]
    #[case(json!("a,b"), true)]
    #[case(json!(["a", "b"]), true)]
    #[case(json!("a,,b"), false)]
    #[case(json!(""), false)]
    #[case(json!(["A"]), false)]
    #[case(json!(7), false)]
    fn machines_are_read_strictly(#[case] machines: Value, #[case] is_read: bool) {
        let mut json = serde_json::to_value(largest(0)).unwrap();
        json["machines"] = machines;
        let read = serde_json::from_value::<DoneCommand>(json).ok().map(|done| done.machines);
        let both = ["a", "b"].map(|token| MachineToken::new(token).unwrap());
        assert_eq!(read, is_read.then(|| both.to_vec()));
    }
}
