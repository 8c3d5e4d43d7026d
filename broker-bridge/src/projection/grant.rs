//! Grants, and whether they are to be believed.
//!
//! A relay with a key checks its own. Where a relay has none, nobody but the bridge does, and it is as strict: what such a
//! relay would not run is neither listed nor claimed.

use std::{collections::HashMap, sync::OnceLock};

use signalbox_schemas::{
    authors::{Authors, Right},
    command::Grant,
    id::MachineToken,
    run::RejectReason,
    signed::{Signed, SignedError},
};

use super::memory::{Memory, OpenCommand};

/// A grant that fits its command, by an author who may be anybody.
#[derive(Debug)]
pub(crate) struct KnownGrant {
    pub(crate) signed: Signed<Grant>,
    /// Whether its signature is its key's, which no document changes. Checked when it is first asked for, and once: it
    /// costs some 50 µs, lists are asked for all the time, and most grants are for relays that check themselves.
    signature: OnceLock<Result<(), SignedError>>,
}

/// Why a grant is not believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) reason: RejectReason,
    /// For people.
    pub(crate) message: String,
}

/// What is to be said of the grant of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It may begin.
    Granted,
    /// Nothing may begin now, as long as there is no authors document that counts, or no grant.
    Undecided,
    /// A relay with a key would reject it.
    Refused(Fault),
}

impl KnownGrant {
    /// Why its machine must not run what it grants, by the authors document that counts. What it speaks of was compared
    /// with its command already.
    fn fault(&self, authors: &Authors) -> Option<Fault> {
        if !authors.may_author(self.signed.key(), Right::Command) {
            let message = "the author has no right to give commands".to_owned();
            return Some(Fault { reason: RejectReason::Forbidden, message });
        }
        let signature = self.signature.get_or_init(|| self.signed.open(|_| true).map(drop));
        let error = signature.as_ref().err()?;
        let message = format!("the grant is not to be believed: {error}");
        Some(Fault { reason: RejectReason::from(error), message })
    }
}

/// Grants by the machine they name.
pub(crate) fn by_machine(grants: Vec<Signed<Grant>>) -> HashMap<MachineToken, KnownGrant> {
    let named = |signed: Signed<Grant>| {
        let mid = signed.peek().ok()?.mid;
        Some((mid, KnownGrant { signed, signature: OnceLock::new() }))
    };
    grants.into_iter().filter_map(named).collect()
}

impl Memory {
    /// What a relay with a key would say of a run's grant at `now`, Unix ms.
    pub(crate) fn verdict(&self, command: &OpenCommand, mid: &MachineToken, now: u64) -> Verdict {
        if !command.spec.is_of_old_contract() {
            let message = "a relay without keys takes no changes of what it keeps, and no SSH target with hosts to go through, with a \
                           credential, or without a login name"
                .to_owned();
            return Verdict::Refused(Fault { reason: RejectReason::Critical, message });
        }
        let authors = self.authors.as_ref().filter(|known| known.doc.is_valid_at(now));
        match (authors, command.grants.get(mid)) {
            (Some(authors), Some(grant)) => {
                grant.fault(&authors.doc).map_or(Verdict::Granted, Verdict::Refused)
            }
            _ => Verdict::Undecided,
        }
    }

    /// Whether a relay of the old contract may have a run on a machine at `now`, Unix ms.
    pub(crate) fn may_be_claimed(&self, command: &OpenCommand, mid: &MachineToken, now: u64) -> bool {
        command.waits(mid, now) && self.verdict(command, mid, now) == Verdict::Granted
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use signalbox_schemas::{
        Base64Url,
        authors::{Author, Role},
        id::{Sha256, Workspace},
        signed::SigningKey,
    };

    use super::*;
    use crate::core::still::key;

    fn grant(by: &SigningKey) -> Signed<Grant> {
        let mid = MachineToken::new("web-1").unwrap();
        let cid = crate::stage::CID.parse().unwrap();
        let grant = Grant {
            ws: Workspace::main(),
            cid,
            mid,
            spec_sha256: Sha256::of(b"spec"),
            expires_at: 9,
            sealed: None,
        };
        Signed::sign(&grant, by).unwrap()
    }

    /// A grant with one envelope member taken from another one.
    fn mixed(by: &SigningKey, member: &str, from: &SigningKey) -> Signed<Grant> {
        let mut json = serde_json::to_value(grant(by)).unwrap();
        json[member] = serde_json::to_value(grant(from)).unwrap()[member].clone();
        serde_json::from_value(json).unwrap()
    }

    /// Operator 1 may give commands, operator 2 may not.
    fn authors() -> Authors {
        let author = |byte, rights: &[Right]| Author {
            key: key(byte).public().clone(),
            name: format!("operator:{byte}"),
            role: Role::Member,
            rights: rights.to_vec(),
        };
        Authors {
            ws: Workspace::main(),
            version: 1,
            issued_at: 0,
            not_after: 1_000,
            authors: vec![author(1, &[Right::Command]), author(2, &[Right::Config])],
            issuers: vec![],
            bridges: vec![],
            former_bridges: Vec::new(),
            next_fleet_key: None,
            crit: vec![],
        }
    }

    #[rstest]
    #[case::good(grant(&key(1)), None)]
    #[case::without_right(grant(&key(2)), Some(RejectReason::Forbidden))]
    #[case::stranger(grant(&key(3)), Some(RejectReason::Forbidden))]
    #[case::forged(mixed(&key(3), "key", &key(1)), Some(RejectReason::Signature))]
    #[case::other_signature(mixed(&key(1), "sig", &key(3)), Some(RejectReason::Signature))]
    fn a_grant_is_believed_like_by_a_relay_with_a_key(
        #[case] signed: Signed<Grant>,
        #[case] reason: Option<RejectReason>,
    ) {
        let grants = by_machine(vec![signed]);
        let grant = grants.values().next().unwrap();
        // The second time it is remembered.
        for _ in 0..2 {
            assert_eq!(grant.fault(&authors()).map(|fault| fault.reason), reason);
        }
    }

    #[test]
    fn what_is_remembered_outlives_no_right() {
        let grants = by_machine(vec![grant(&key(1))]);
        let grant = grants.values().next().unwrap();
        assert_eq!(grant.fault(&authors()), None);
        let without = Authors { authors: vec![], ..authors() };
        assert_eq!(grant.fault(&without).map(|fault| fault.reason), Some(RejectReason::Forbidden));
        assert_eq!(grant.fault(&authors()), None);
    }

    #[test]
    fn a_payload_that_was_changed_is_not_believed() {
        let mut json = serde_json::to_value(grant(&key(1))).unwrap();
        let payload = String::from_utf8(grant(&key(1)).payload().to_vec()).unwrap();
        let other = payload.replace("\"expires_at\":9", "\"expires_at\":8");
        assert_ne!(payload, other);
        json["payload"] = serde_json::to_value(Base64Url(other.into_bytes())).unwrap();
        let grants = by_machine(vec![serde_json::from_value(json).unwrap()]);
        let fault = grants.values().next().unwrap().fault(&authors()).unwrap();
        assert_eq!(fault.reason, RejectReason::Signature);
        assert!(fault.message.contains("wrong signature"), "{}", fault.message);
    }
}
