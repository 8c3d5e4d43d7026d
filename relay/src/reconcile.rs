//! What to do next, from what should be and what is. Pure.
//!
//! Level-triggered: it looks at the newest mailbox as a whole each time, so doing it once more, or having missed
//! a mailbox in between, changes nothing.

use std::{collections::BTreeSet, sync::Arc};

use signalbox_schemas::id::CommandId;

use crate::{policy::Fault, work::Work};

/// An offer of the newest mailbox, judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Desired {
    pub(crate) cid: CommandId,
    pub(crate) verdict: Result<Arc<Work>, Fault>,
}

/// What this relay knows of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Never heard of.
    Unknown,
    /// A claim is being made, or it runs, or its report is on its way.
    Active,
    /// Its report was acknowledged.
    Settled,
}

/// What is, now.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Situation {
    /// Unix ms by this machine's clock.
    pub(crate) now_ms: u64,
    /// Runs that may begin.
    pub(crate) free_slots: usize,
    /// Whether another id can be remembered.
    pub(crate) can_remember: bool,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Write a claim to the register; start when it is acknowledged.
    Claim(Arc<Work>),
    /// Write a rejection to the register.
    Reject(CommandId, Fault),
    /// No id can be remembered any more: reject as `journal_full`.
    RejectFull(CommandId),
    /// Say again what was reported.
    Repeat(CommandId),
    /// End what was claimed.
    Cancel(CommandId),
}

/// What to do now, and when to look again at the latest.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) actions: Vec<Action>,
    /// Unix ms; absent when only a new fact can change anything.
    pub(crate) wake_at_ms: Option<u64>,
}

/// Compares what should be with what is.
///
/// Offers are taken in their order. What has expired by this machine's clock is passed over in silence (the
/// bridge withdraws it), what is too early is passed over until its time.
pub(crate) fn reconcile(
    offers: &[Desired],
    cancels: &[CommandId],
    standing: impl Fn(CommandId) -> Standing,
    situation: Situation,
) -> Plan {
    let Situation { now_ms, mut free_slots, can_remember } = situation;
    let cancels: BTreeSet<CommandId> = cancels.iter().copied().collect();
    let mut plan = Plan::default();
    for cid in &cancels {
        if standing(*cid) == Standing::Active {
            plan.actions.push(Action::Cancel(*cid));
        }
    }
    let mut seen = BTreeSet::new();
    for offer in offers.iter().filter(|offer| seen.insert(offer.cid)) {
        match (standing(offer.cid), &offer.verdict) {
            (Standing::Active, _) => {}
            (Standing::Settled, _) => plan.actions.push(Action::Repeat(offer.cid)),
            // A rejection is remembered too.
            (Standing::Unknown, Err(_)) if !can_remember => plan.actions.push(Action::RejectFull(offer.cid)),
            (Standing::Unknown, Err(fault)) => {
                plan.actions.push(Action::Reject(offer.cid, fault.clone()));
            }
            // To be cancelled before it began: the bridge withdraws it.
            (Standing::Unknown, Ok(_)) if cancels.contains(&offer.cid) => {}
            (Standing::Unknown, Ok(work)) if now_ms >= work.spec.expires_at => {}
            (Standing::Unknown, Ok(work)) => match work.spec.not_before.filter(|at| now_ms < *at) {
                Some(at) => plan.wake_at_ms = Some(plan.wake_at_ms.map_or(at, |wake| wake.min(at))),
                None if !can_remember => plan.actions.push(Action::RejectFull(offer.cid)),
                None if free_slots > 0 => {
                    free_slots -= 1;
                    plan.actions.push(Action::Claim(Arc::clone(work)));
                }
                None => {}
            },
        }
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::tests::{cid, spec, work};
    use proptest::prelude::*;
    use signalbox_schemas::{command::CommandSpec, run::RejectReason};
    use std::collections::BTreeMap;

    const NOW: u64 = 1_500;

    fn situation(free_slots: usize) -> Situation {
        Situation { now_ms: NOW, free_slots, can_remember: true }
    }

    fn offer(number: u128) -> Desired {
        Desired { cid: cid(number), verdict: Ok(work(spec(number))) }
    }

    fn claims(plan: &Plan) -> Vec<CommandId> {
        let claim = |action: &Action| match action {
            Action::Claim(work) => Some(work.spec.cid),
            _ => None,
        };
        plan.actions.iter().filter_map(claim).collect()
    }

    #[test]
    fn what_is_too_early_waits_and_blocks_nobody() {
        let mut early = offer(1);
        early.verdict = Ok(work(CommandSpec { not_before: Some(NOW + 7), ..spec(1) }));
        let plan = reconcile(&[early.clone(), offer(2)], &[], |_| Standing::Unknown, situation(1));
        assert_eq!((claims(&plan), plan.wake_at_ms), (vec![cid(2)], Some(NOW + 7)));
        let later = Situation { now_ms: NOW + 7, ..situation(1) };
        assert_eq!(claims(&reconcile(&[early, offer(2)], &[], |_| Standing::Unknown, later)), [cid(1)]);
    }

    #[test]
    fn a_full_memory_takes_nothing_on() {
        let full = Situation { can_remember: false, ..situation(4) };
        let fault = Fault { reason: RejectReason::Invalid, message: String::new() };
        let wrong = Desired { cid: cid(2), verdict: Err(fault) };
        let plan = reconcile(&[offer(1), wrong], &[], |_| Standing::Unknown, full);
        assert_eq!(plan.actions, [Action::RejectFull(cid(1)), Action::RejectFull(cid(2))]);
    }

    #[test]
    fn what_shall_be_cancelled_is_not_begun() {
        let active = |id| if id == cid(2) { Standing::Active } else { Standing::Unknown };
        let plan = reconcile(&[offer(1), offer(2)], &[cid(1), cid(2)], active, situation(4));
        assert_eq!(plan.actions, [Action::Cancel(cid(2))]);
    }

    #[derive(Debug, Clone)]
    struct Case {
        offers: Vec<Desired>,
        standing: BTreeMap<CommandId, Standing>,
        free_slots: usize,
    }

    fn any_case() -> impl Strategy<Value = Case> {
        let offer = (0..12_u128, 0..4_u8).prop_map(|(number, kind)| {
            let mut desired = offer(number);
            match kind {
                0 => {
                    let fault = Fault { reason: RejectReason::Invalid, message: String::new() };
                    desired.verdict = Err(fault);
                }
                1 => desired.verdict = Ok(work(CommandSpec { expires_at: NOW, ..spec(number) })),
                2 => {
                    desired.verdict = Ok(work(CommandSpec { not_before: Some(NOW + 1), ..spec(number) }));
                }
                _ => {}
            }
            desired
        });
        let standing = prop_oneof![Just(Standing::Unknown), Just(Standing::Active), Just(Standing::Settled)];
        let standing = prop::collection::btree_map((0..12_u128).prop_map(cid), standing, 0..12);
        (prop::collection::vec(offer, 0..16), standing, 0..6_usize)
            .prop_map(|(offers, standing, free_slots)| Case { offers, standing, free_slots })
    }

    fn standing_in(case: &Case) -> impl Fn(CommandId) -> Standing + '_ {
        |cid| case.standing.get(&cid).copied().unwrap_or(Standing::Unknown)
    }

    proptest! {
        #[test]
        fn only_what_is_new_alive_and_has_room_is_claimed_in_order(case in any_case()) {
            let plan = reconcile(&case.offers, &[], standing_in(&case), situation(case.free_slots));
            let claimed = claims(&plan);
            prop_assert!(claimed.len() <= case.free_slots);
            let mut seen = BTreeSet::new();
            let eligible: Vec<_> = case.offers.iter()
                .filter(|offer| seen.insert(offer.cid))
                .filter(|offer| standing_in(&case)(offer.cid) == Standing::Unknown)
                .filter(|offer| offer.verdict.as_ref().is_ok_and(|work| NOW < work.spec.expires_at && work.spec.not_before.is_none()))
                .map(|offer| offer.cid)
                .collect();
            prop_assert_eq!(&claimed, &eligible[..eligible.len().min(case.free_slots)]);
        }

        #[test]
        fn looking_again_after_acting_begins_nothing_twice(mut case in any_case()) {
            let plan = reconcile(&case.offers, &[], standing_in(&case), situation(case.free_slots));
            for action in &plan.actions {
                let (cid, next) = match action {
                    Action::Claim(work) => (work.spec.cid, Standing::Active),
                    Action::Reject(cid, _) | Action::RejectFull(cid) => (*cid, Standing::Active),
                    Action::Repeat(cid) | Action::Cancel(cid) => (*cid, Standing::Settled),
                };
                case.standing.insert(cid, next);
            }
            let left = case.free_slots - claims(&plan).len();
            let again = reconcile(&case.offers, &[], standing_in(&case), situation(left));
            prop_assert!(again.actions.iter().all(|action| matches!(action, Action::Repeat(_))), "{:?}", again);
        }
    }
}
