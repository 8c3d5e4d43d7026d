//! When things happened, and when they must have.

use signalbox_schemas::{
    id::MachineToken,
    limit::{EXPIRY_GRACE_MS, LOST_GRACE_MS},
    run::{ExitState, Register, RunState, WithdrawReason},
};

use super::{
    Case, Promise, RunId, Violation,
    ledger::{Command, Ledger},
};
use crate::{
    fault::{Fault, Part},
    script,
};

/// What is granted to busy machines beyond a bound, ms: several worlds share two cores.
pub(crate) const SLACK_MS: u64 = 20_000;
/// Marks are exact to 10 ms, and the clock may be slewed, ms.
const INEXACT_MS: u64 = 50;
/// How late a start may be that was decided in time, ms: a loaded machine takes a while from the keeper's word to the shell's
/// first deed.
const START_MS: u64 = 5_000;
/// How long everything must have been healthy before a command may not expire any more on a machine that starts nothing, ms:
/// longer than any work takes, so that no slot is taken all the while.
const HEALTHY_MS: u64 = 20_000;
/// How much longer than it may a run is let go on, ms, until it must have been seen to.
const OVERRUN_MS: u64 = 2_000;

/// Until when a run must be settled, Unix ms, where everything was healthy from `healed_at` on; nothing where it is.
///
/// An offer ends 2 s after `expires_at`, a claim `timeout_ms` + 90 s after it was stored; what fell due in the dark is done
/// in the light.
pub(crate) fn bound(ledger: &Ledger, command: &Command, run: RunId<'_>, healed_at: u64) -> Option<u64> {
    if ledger.state(run.0, run.1).is_settled() {
        return None;
    }
    let claim = ledger.run(run.0, run.1).and_then(|run| run.facts.claim());
    let due = match claim {
        Some((_, stored_at)) => stored_at + command.spec.timeout_ms + LOST_GRACE_MS,
        None => command.spec.expires_at.saturating_add(EXPIRY_GRACE_MS),
    };
    Some(due.max(healed_at).saturating_add(SLACK_MS))
}

pub(super) fn settles(case: &Case<'_>) -> Vec<Violation> {
    let mut broken = Vec::new();
    for (id, command, machine) in case.ledger.accepted() {
        let run = (id, machine);
        let Some(bound) = bound(&case.ledger, command, run, case.observed.healed_at) else { continue };
        if case.observed.seen_at >= bound {
            let state = case.ledger.state(id, machine);
            let what = format!("it is {state} at {}, its bound was {bound}", case.observed.seen_at);
            broken.push(case.broken_run(Promise::Settles, run, what));
        }
    }
    broken
}

pub(super) fn in_its_time(case: &Case<'_>) -> Vec<Violation> {
    let mut broken = Vec::new();
    for (id, command, machine) in case.ledger.accepted() {
        let run = (id, machine);
        let why = start(case, command, run)
            .or_else(|| withdrawal(case, command, run))
            .or_else(|| exit(case, command, run));
        broken.extend(why.map(|why| case.broken_run(Promise::InItsTime, run, why)));
    }
    broken
}

fn start(case: &Case<'_>, command: &Command, (id, machine): RunId<'_>) -> Option<String> {
    let claim = case.ledger.run(id, machine).and_then(|run| run.facts.claim());
    if let Some((_, stored_at)) = claim
        && let Some(not_before) = command.spec.not_before
        && stored_at + INEXACT_MS < not_before
        && !case.observed.plan.bridge_clocks_jump()
    {
        return Some(format!("it was claimed at {stored_at}, not to be before {not_before}"));
    }
    // Of a command in history the editions are gone.
    if let Some((_, stored_at)) = claim.filter(|_| command.spec.rollout.is_some() && !command.is_done) {
        match case.ledger.let_go_at(id, command, machine) {
            None => return Some("it was claimed, and nobody has let it go".to_owned()),
            Some(at) if stored_at < at => {
                return Some(format!("it was claimed {} ms before it was let go", at - stored_at));
            }
            Some(_) => {}
        }
    }
    let started = *case.marks.of(id, machine).starts.first()?;
    if let Some((_, stored_at)) = claim
        && started + INEXACT_MS < stored_at
    {
        return Some(format!("it started {} ms before its claim was stored", stored_at - started));
    }
    let latest = command.spec.expires_at.saturating_add(EXPIRY_GRACE_MS + START_MS);
    if started > latest && !case.harmed(machine, may_be_late) {
        return Some(format!("it started {} ms after it had expired", started - command.spec.expires_at));
    }
    None
}

fn withdrawal(case: &Case<'_>, command: &Command, (id, machine): RunId<'_>) -> Option<String> {
    let run = case.ledger.run(id, machine)?;
    let stored_at = run.register_at?;
    match run.facts.register()? {
        Register::Withdrawn(WithdrawReason::Expired)
            if stored_at + INEXACT_MS < command.spec.expires_at
                && !case.observed.plan.bridge_clocks_jump() =>
        {
            Some(format!("it expired {} ms too early", command.spec.expires_at - stored_at))
        }
        Register::Withdrawn(WithdrawReason::Expired) if is_passed_over(case, command, machine) => {
            Some("it expired though everything was healthy, and its machine started nothing".to_owned())
        }
        Register::Withdrawn(WithdrawReason::Cancelled) if command.was_never_cancelled() => {
            Some("it is cancelled, and no wish to cancel it is stored".to_owned())
        }
        Register::Rejected { reason, message } => {
            Some(format!("it is rejected ({}: {message}), and nothing is wrong with it", reason.as_str()))
        }
        _ => None,
    }
}

/// Whether there was all the time in the world for it. Where something else started, it may have had no slot.
fn is_passed_over(case: &Case<'_>, command: &Command, machine: &MachineToken) -> bool {
    let healthy = case.observed.healed_at..command.spec.expires_at;
    let mut starts =
        case.marks.all().filter(|(_, of, _)| *of == machine).flat_map(|(.., marks)| &marks.starts);
    healthy.end.saturating_sub(healthy.start) >= HEALTHY_MS
        && !case.observed.plan.bridge_clocks_jump()
        && !starts.any(|at| healthy.contains(at))
}

fn exit(case: &Case<'_>, command: &Command, (id, machine): RunId<'_>) -> Option<String> {
    let run = case.ledger.run(id, machine)?;
    let exit = run.facts.exit()?;
    match exit.state {
        ExitState::Timeout if exit.duration_ms < command.spec.timeout_ms => {
            let (ran, may) = (exit.duration_ms, command.spec.timeout_ms);
            Some(format!("it timed out after {ran} ms and may run for {may} ms"))
        }
        ExitState::Cancelled if command.was_never_cancelled() => {
            Some("it was cancelled, and no wish to cancel it is stored".to_owned())
        }
        ExitState::Completed if overran(case, command, (id, machine)) => {
            Some(format!("it may run for {} ms, and went on to its end", command.spec.timeout_ms))
        }
        _ if run.state() == RunState::Lost => Some("it is lost, and has an exit that counts".to_owned()),
        _ => None,
    }
}

/// A relay and its keeper go by their own clock, and who is halted between looking at it and acting acts late.
fn may_be_late(fault: &Fault, machine: u8) -> bool {
    match fault {
        Fault::Jump(Part::Relay(n), _) | Fault::Halt(Part::Relay(n) | Part::Keeper(n)) => *n == machine,
        _ => false,
    }
}

/// Whether its work takes so long that it must have been ended.
fn overran(case: &Case<'_>, command: &Command, (id, machine): RunId<'_>) -> bool {
    let takes = case.told.get(&id).and_then(|told| script::least_ms(&told.work));
    takes.is_some_and(|ms| ms > command.spec.timeout_ms + OVERRUN_MS) && !case.harmed(machine, may_be_late)
}
