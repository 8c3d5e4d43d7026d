//! `enrol`: a relay trades the API key of an assignment for a login of its machine.
//!
//! Whoever holds the key may name the machine's keys, and name others later: a relay that lost its store has no other way
//! back. What it may not do is to replace keys that were made known with another assignment, unless that was removed, nor to
//! bring former ones back: so a request that is sent again changes nothing, and two relays with one key do not take turns.

use signalbox_schemas::{
    enrol::{Enrolled, Enrolment},
    error::{Problem, report},
    label::GivenLabels,
    record::{AssignmentRecord, MachineRecord, RelayKeys, table},
    signed::{PublicKey, Signed},
    stream,
};
use tokio::sync::{Semaphore, SemaphorePermit};
use tracing::{info, warn};

use super::{Api, assignments::key, now_ms};
use crate::identity::RelayLogins;

/// Enrolments at once. Each asks the broker a few questions, and anybody who reaches HTTP can send one.
const AT_ONCE: usize = 16;

/// What a bridge needs to enrol relays.
#[derive(Debug)]
pub struct Enroller {
    logins: RelayLogins,
    fleet_key: PublicKey,
    permits: Semaphore,
}

impl Enroller {
    /// Signs with `logins`, and tells relays of the fleet key.
    pub fn new(logins: RelayLogins, fleet_key: PublicKey) -> Self {
        Self { logins, fleet_key, permits: Semaphore::new(AT_ONCE) }
    }

    fn permit(&self) -> Result<SemaphorePermit<'_>, Refused> {
        self.permits.try_acquire().map_err(|_| {
            Refused::Later("too many relays enrol at this moment; try again in a moment".to_owned())
        })
    }
}

/// Why a relay is not enrolled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It brings no key.
    #[error("API key is required")]
    NoKey,
    /// It brings one that was never given out.
    #[error("Invalid API key")]
    UnknownKey,
    /// The assignment of its key was removed.
    #[error("No relay assignment found for this API key")]
    NoAssignment,
    /// The key does not count.
    #[error("Relay assignment is disabled")]
    Disabled,
    /// What it sent is no enrolment.
    #[error("{0}")]
    Invalid(String),
    /// The machine's keys are not this assignment's to replace.
    #[error("{0}")]
    Conflict(String),
    /// The same may succeed in a moment.
    #[error("{0}")]
    Later(String),
}

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Self {
        Self::Later(problem.message)
    }
}

/// Enrols the relay that brings `api_key` and `body`; it is told to find the broker at `nats`.
///
/// The same request again gives the same keys a new login, and changes nothing else: an answer may have been lost.
///
/// # Errors
/// [`Refused`].
pub async fn enrol(
    api: &Api,
    enroller: &Enroller,
    api_key: Option<&str>,
    body: &[u8],
    nats: Vec<String>,
) -> Result<Enrolled, Refused> {
    let given = api_key.filter(|key| !key.is_empty()).ok_or(Refused::NoKey)?;
    api.ready()?;
    let _permit = enroller.permit()?;
    let hash = key::hash(&api.settings.pepper, given).map_err(|_| Refused::UnknownKey)?;
    // Which keys count, and which were replaced, must not depend on the bridge that was asked.
    api.read_through(stream::STATE).await?;
    let assignment = assignment(api, &hash)?;
    let signed = Signed::<Enrolment>::from_json(body).map_err(|error| Refused::Invalid(error.to_string()))?;
    let enrolment =
        Enrolment::open(&signed, now_ms()).map_err(|error| Refused::Invalid(error.to_string()))?;
    if enrolment.ws.as_ref().is_some_and(|ws| ws != api.ws()) {
        return Err(Refused::Invalid(
            "the relay was enrolled in another workspace; use another store".into(),
        ));
    }
    let machine = record(api, &assignment, &enrolment).await?;
    let minted = enroller.logins.mint(&machine.token, &enrolment.login_key, now_ms());
    let jwt = minted.map_err(|error| {
        warn!(error = report(&error), "no login was made");
        Refused::Later("no login could be made; try again".to_owned())
    })?;
    let Enrolment { hostname, version, .. } = &enrolment;
    info!(machine = %machine.token, assignment = assignment.id, hostname, version, "relay enrolled");
    Ok(Enrolled {
        ws: machine.ws,
        machine_id: machine.id,
        token: machine.token,
        assignment_id: assignment.id,
        name: assignment.name,
        jwt,
        nats,
        fleet_key: enroller.fleet_key.clone(),
    })
}

/// The assignment that a key stands for, if it counts.
fn assignment(api: &Api, hash: &str) -> Result<AssignmentRecord, Refused> {
    let assignment = api.view.assignment_by_key(hash).ok_or(Refused::UnknownKey)?;
    match (assignment.removed_at, assignment.enabled) {
        (Some(_), _) => Err(Refused::NoAssignment),
        (None, false) => Err(Refused::Disabled),
        (None, true) => Ok(assignment),
    }
}

/// Sees that the machine's record names the relay's keys, and answers it.
async fn record(
    api: &Api,
    assignment: &AssignmentRecord,
    enrolment: &Enrolment,
) -> Result<MachineRecord, Refused> {
    let token = assignment.machine_id.token();
    let had_key = api.view.had_key(&token, &enrolment.signing_key);
    let now = now_ms();
    let is_removed = |id: &str| api.view.assignment_ever(id).is_some_and(|known| known.removed_at.is_some());
    let next = |stands: Option<&MachineRecord>| next(stands, assignment, enrolment, had_key, is_removed, now);
    let by = format!("relay:{}", assignment.id);
    let edited =
        api.edit(&by, "enrol the relay", table::MACHINES, token.as_str(), |stands: Option<MachineRecord>| {
            next(stands.as_ref()).ok()
        });
    let (stands, _) = edited.await?;
    // What stands now is either what was made of this enrolment, and then it would be made again, or in its way.
    next(stands.as_ref())
}

/// The edition of a machine's record that an enrolment makes of the one that stands.
fn next(
    stands: Option<&MachineRecord>,
    assignment: &AssignmentRecord,
    enrolment: &Enrolment,
    had_key: bool,
    is_removed: impl Fn(&str) -> bool,
    now_ms: u64,
) -> Result<MachineRecord, Refused> {
    let keys =
        RelayKeys { login_key: enrolment.login_key.clone(), signing_key: enrolment.signing_key.clone() };
    let own = assignment.id.as_str();
    let known = stands.and_then(|stands| stands.keys.as_ref().map(|keys| (stands, keys)));
    let mut enrolled_at = now_ms;
    if let Some((stands, known)) = known {
        match &stands.enrolled_by {
            Some(by) if by == own || is_removed(by) => {}
            Some(by) => {
                return Err(Refused::Conflict(format!(
                    "machine {} has keys that were enrolled with the API key of assignment {by}; its owner must remove \
                     that assignment first",
                    stands.id
                )));
            }
            None => {
                return Err(Refused::Conflict(format!(
                    "machine {} has keys that were made beside the bridge: start its relay with its login file, or \
                     assign the API key to another machine",
                    stands.id
                )));
            }
        }
        if *known == keys {
            enrolled_at = stands.enrolled_at;
        } else if had_key && known.signing_key != keys.signing_key {
            return Err(Refused::Conflict(format!(
                "the keys of this relay were replaced: another relay has enrolled for machine {} with this API key \
                 since; stop that one, or remove this one's store, and start it again",
                stands.id
            )));
        }
    }
    let id = assignment.machine_id.clone();
    let first = || MachineRecord {
        ws: assignment.ws.clone(),
        token: id.token(),
        id: id.clone(),
        keys: None,
        enrolled_at,
        enrolled_by: None,
        former_keys: Vec::new(),
        allow_legacy: false,
        labels: GivenLabels::default(),
        revision: 0,
    };
    let record = MachineRecord {
        enrolled_at,
        enrolled_by: Some(own.to_owned()),
        allow_legacy: enrolment.allow_legacy,
        ..stands.cloned().unwrap_or_else(first)
    };
    let labels = GivenLabels { enrolment: assignment.labels.clone(), ..record.labels.clone() };
    let record = MachineRecord { labels, ..record };
    Ok(record.with_keys(Some(keys)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nkeys::KeyPair;
    use signalbox_schemas::{
        id::{MachineId, Workspace},
        label::{LabelKey, LabelMap, LabelValue},
    };

    fn key() -> PublicKey {
        KeyPair::new_user().public_key().parse().unwrap()
    }

    fn assignment(id: &str) -> AssignmentRecord {
        AssignmentRecord {
            ws: Workspace::main(),
            id: id.to_owned(),
            machine_id: MachineId::new("Web 1").unwrap(),
            name: "web".to_owned(),
            enabled: true,
            api_key_hash: "00".to_owned(),
            created_at: 1,
            created_by: None,
            labels: LabelMap::new(),
            updated_at: None,
            removed_at: None,
            revision: 0,
        }
    }

    fn enrolment() -> Enrolment {
        Enrolment {
            ws: None,
            login_key: key(),
            signing_key: key(),
            hostname: "h".to_owned(),
            version: "1".to_owned(),
            requested_at: 1,
            allow_legacy: false,
        }
    }

    /// No assignment was removed.
    fn kept(_: &str) -> bool {
        false
    }

    #[test]
    fn a_machine_without_keys_gets_them_and_the_same_again_changes_nothing() {
        let (own, wish) = (assignment("a"), enrolment());
        let legacy = MachineRecord {
            keys: None,
            enrolled_by: None,
            former_keys: Vec::new(),
            ..next(None, &own, &wish, false, kept, 5).unwrap()
        };
        for stands in [None, Some(&legacy)] {
            let first = next(stands, &own, &wish, false, kept, 7).unwrap();
            assert_eq!((first.enrolled_by.as_deref(), first.enrolled_at), (Some("a"), 7));
            assert_eq!(first.signing_key(), Some(&wish.signing_key));
            assert_eq!(first.token, own.machine_id.token());
            assert_eq!(next(Some(&first), &own, &wish, true, kept, 9), Ok(first));
        }
    }

    #[test]
    fn an_assignment_replaces_its_own_keys_and_never_brings_former_ones_back() {
        let own = assignment("a");
        let (old, new) = (enrolment(), enrolment());
        let first = next(None, &own, &old, false, kept, 1).unwrap();
        let second = next(Some(&first), &own, &new, false, kept, 2).unwrap();
        assert_eq!((second.signing_key(), second.enrolled_at), (Some(&new.signing_key), 2));
        assert!(matches!(next(Some(&second), &own, &old, true, kept, 3), Err(Refused::Conflict(_))));
        // Once the owner has removed the keys, whoever has the API key begins anew.
        let removed = MachineRecord { keys: None, enrolled_by: None, ..second };
        assert!(next(Some(&removed), &own, &old, true, kept, 4).is_ok());
    }

    #[test]
    fn an_assignment_brings_its_labels_and_leaves_those_of_operators() {
        let map =
            |value: &str| LabelMap::from([(LabelKey::new("role").unwrap(), LabelValue::new(value).unwrap())]);
        let (plain, wish) = (assignment("a"), enrolment());
        let own = AssignmentRecord { labels: map("web"), ..plain.clone() };
        let first = next(None, &own, &wish, false, kept, 1).unwrap();
        assert_eq!(first.labels, GivenLabels { enrolment: map("web"), ..GivenLabels::default() });
        let labels = GivenLabels { operator: map("db"), ..first.labels.clone() };
        let set = MachineRecord { labels: labels.clone(), ..first };
        // Another login is no other label.
        assert_eq!(next(Some(&set), &own, &wish, true, kept, 2).unwrap(), set);
        let other = next(Some(&set), &plain, &wish, true, kept, 2).unwrap();
        assert_eq!(other.labels, GivenLabels { enrolment: LabelMap::new(), ..labels });
    }

    #[test]
    fn keys_of_others_are_left_alone() {
        let (own, wish) = (assignment("a"), enrolment());
        let others = next(None, &assignment("b"), &wish, false, kept, 1).unwrap();
        let beside_the_bridge = MachineRecord { enrolled_by: None, ..others.clone() };
        for stands in [others, beside_the_bridge] {
            for wish in [&wish, &enrolment()] {
                let refused = next(Some(&stands), &own, wish, false, kept, 2);
                assert!(matches!(refused, Err(Refused::Conflict(_))), "{refused:?}");
            }
        }
    }

    #[test]
    fn keys_of_a_removed_assignment_are_replaced() {
        let (old, new, wish) = (assignment("a"), assignment("b"), enrolment());
        let first = next(None, &old, &wish, false, kept, 1).unwrap();
        let is_removed = |id: &str| id == "a";
        for (wish, since) in [(&wish, 1), (&enrolment(), 2)] {
            let taken = next(Some(&first), &new, wish, false, is_removed, 2).unwrap();
            assert_eq!((taken.enrolled_by.as_deref(), taken.enrolled_at), (Some("b"), since));
            assert_eq!(taken.signing_key(), Some(&wish.signing_key));
        }
        assert!(matches!(
            next(Some(&first), &new, &wish, false, |id| id == "b", 2),
            Err(Refused::Conflict(_))
        ));
    }
}
