//! What a relay keeps for its machine, said by the relay itself: the key that secrets for it are sealed to, and which
//! credentials it has. Never a value.

use serde::{Deserialize, Serialize};

use crate::{
    credential::CredentialMeta,
    heartbeat::Facts,
    id::{MachineToken, Workspace},
    label::LabelMap,
    limit,
    sealed::SealingKey,
    signed::Message,
};

/// The newest list of one relay; `inv.<ws>.<mid>`. It is said anew when it has changed, and when the relay has begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    /// Workspace.
    pub ws: Workspace,
    /// The machine.
    pub mid: MachineToken,
    /// Grows with each list: max(previous + 1, Unix ms by the relay's clock). For eyes: the one that was stored last counts.
    pub revision: u64,
    /// Secrets for this relay are sealed to it.
    pub sealing_key: SealingKey,
    /// What it has, sorted by name; at most [`limit::CREDENTIALS`], and as many as fit.
    pub credentials: Vec<CredentialMeta>,
    /// How many more it has that did not fit.
    #[serde(default, skip_serializing_if = "is_none")]
    pub left_out: u32,
    /// Why its credentials cannot be read, if they cannot; they are not listed then. At most 512 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// What the machine is for, as its own configuration says; at most [`LABELS`](crate::label::LABELS).
    #[serde(default, skip_serializing_if = "LabelMap::is_empty")]
    pub labels: LabelMap,
    /// What the machine is: known, too, while no heartbeat is. Each text at most [`limit::FACT_TEXT_BYTES`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub facts: Option<Facts>,
    /// Members that a reader must understand.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub crit: Vec<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature serde asks for")]
fn is_none(count: &u32) -> bool {
    *count == 0
}

impl Message for Inventory {
    const TYPE: &'static str = "inventory";
    // The payload is base64 in its envelope.
    const MAX_BYTES: usize = limit::INVENTORY_BYTES / 3 * 4 + 1024;
    const CRIT: &'static [&'static str] = &["sealing_key"];
}

/// The largest one fits what a relay may publish.
const _: () = assert!(<Inventory as Message>::MAX_BYTES + 4096 <= limit::RELAY_PAYLOAD_BYTES);

impl Inventory {
    /// Takes from the end what does not fit into a message, and counts it.
    #[must_use]
    pub fn fit(mut self) -> Self {
        let size = |it: &Self| serde_json::to_vec(it).map_or(0, |json| json.len());
        while size(&self) > limit::INVENTORY_BYTES {
            // A part of them each round, so that there are few rounds.
            let too_many = (self.credentials.len() / 8).max(1);
            self.credentials.truncate(self.credentials.len().saturating_sub(too_many));
            self.left_out = self.left_out.saturating_add(u32::try_from(too_many).unwrap_or(u32::MAX));
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        credential::{CredentialType, StorageMode},
        signed::{Signed, SigningKey},
    };

    fn inventory(count: usize) -> Inventory {
        let meta = |n| CredentialMeta {
            credential_name: format!("{n:>120}").replace(' ', "x"),
            credential_type: CredentialType::SshKey,
            target_host: Some("h".repeat(200)),
            storage_mode: StorageMode::RelayOnly,
            last_updated_at: 1,
            username: Some("u".repeat(100)),
            created_at: Some(1),
        };
        Inventory {
            ws: Workspace::main(),
            mid: MachineToken::new("web-1").unwrap(),
            revision: 1,
            sealing_key: SealingKey::from_bytes([7; 32]),
            credentials: (0..count).map(meta).collect(),
            left_out: 0,
            problem: None,
            labels: LabelMap::new(),
            facts: None,
            crit: vec![],
        }
    }

    #[test]
    fn what_does_not_fit_is_counted() {
        let few = inventory(10);
        assert_eq!(few.clone().fit(), few);
        let many = inventory(limit::CREDENTIALS).fit();
        assert_eq!(many.credentials.len() + many.left_out as usize, limit::CREDENTIALS);
        assert!(serde_json::to_vec(&many).unwrap().len() <= limit::INVENTORY_BYTES);
        assert!(many.credentials.len() > 250, "{}", many.credentials.len());
        let pair = nkeys::KeyPair::new_from_raw(nkeys::KeyPairType::User, [1; 32]).unwrap();
        let key = SigningKey::from_seed(&pair.seed().unwrap()).unwrap();
        let envelope = Signed::sign(&many, &key).unwrap().to_json();
        assert_eq!(Signed::<Inventory>::from_json(&envelope).unwrap().open(|_| true).unwrap(), many);
    }
}
