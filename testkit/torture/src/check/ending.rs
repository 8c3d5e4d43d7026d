//! How runs ended, and how they say they did.

use signalbox_schemas::{
    limit::LOST_GRACE_MS,
    run::{LostReason, RunState},
};

use super::{Case, Promise, RunId, Violation, starting::NOT_STARTED};
use crate::{plan::Work, script, told::Told};

pub(super) fn ran_to_its_end(case: &Case<'_>) -> Vec<Violation> {
    let mut broken = Vec::new();
    for (command, _, machine) in case.ledger.accepted() {
        let Some(told) = case.told.get(&command) else { continue };
        let run = (command, machine);
        let why = state_and_marks(case, run, told).or_else(|| exit_and_work(case, run, told));
        broken.extend(why.map(|why| case.broken_run(Promise::RanToItsEnd, run, why)));
    }
    broken
}

fn state_and_marks(case: &Case<'_>, (command, machine): RunId<'_>, told: &Told) -> Option<String> {
    let state = case.ledger.state(command, machine);
    let has_ended = !case.marks.of(command, machine).ends.is_empty();
    match state {
        RunState::Completed if !has_ended => Some("it is completed, and did not run to its end".to_owned()),
        // Between its last deed and the end of its shell it can be cancelled, time out, or lose its keeper; and what ends
        // with a code of its own has failed.
        RunState::Failed if has_ended && !matches!(told.work, Work::Fail(_)) => {
            Some("it is failed, and ran to its end with code 0".to_owned())
        }
        RunState::Expired | RunState::Rejected if has_ended => {
            Some(format!("it is {state}, and ran to its end"))
        }
        _ => None,
    }
}

/// Where nobody interfered, an exit says what the work does.
fn exit_and_work(case: &Case<'_>, (command, machine): RunId<'_>, told: &Told) -> Option<String> {
    let stored = case.ledger.run(command, machine)?;
    if let Some(exit) = stored.exit.as_ref().filter(|_| stored.facts.exit().is_none()) {
        return Some(format!("its exit is not its claimer's: nonce {}", exit.nonce));
    }
    let exit = stored.facts.exit()?;
    let state = stored.state();
    if !matches!(state, RunState::Completed | RunState::Failed) {
        return None;
    }
    if let Some(error) = &exit.error {
        let is_known = NOT_STARTED.contains(&&*error.code);
        return (!is_known)
            .then(|| format!("it failed with an error that nothing here leads to: {}", error.code));
    }
    match script::exit_code(&told.work) {
        Some(code) if exit.exit_code != Some(code) => Some(format!(
            "it ends with code {code}, and its exit says {:?}, {:?}",
            exit.exit_code, exit.signal
        )),
        None if exit.signal.as_deref() != Some("SIGKILL") => {
            Some(format!("it kills itself, and its exit says {:?}, {:?}", exit.exit_code, exit.signal))
        }
        _ => None,
    }
}

/// A relay that is back tells how its runs ended, and an exit replaces `lost`; so only a keeper that was hurt leaves one, and
/// only of what it had then: from the claim until somebody said that it is lost.
///
/// No harm reaches further. Whose end was not told yet when a store was lost or set back has no exit for ever, and neither has
/// what a second relay had claimed when it was ended; but both were claimed before. A relay's wrong clock hurts what is under
/// way, and nothing that is claimed when it is right again. A bridge whose clock is ahead says too early that no exit came:
/// that becomes true only if none comes by its time.
pub(super) fn lost_for_a_reason(case: &Case<'_>) -> Vec<Violation> {
    let mut broken = Vec::new();
    for (command, granted, machine) in case.ledger.accepted() {
        let Some(run) = case.ledger.run(command, machine) else { continue };
        let Some(lost) = run.facts.lost() else { continue };
        let Some((from, said)) = run.claimed_at.zip(run.lost_at.get(&lost.nonce)) else { continue };
        let until = match lost.reason {
            LostReason::KeeperGone => *said,
            LostReason::Deadline => (from + granted.spec.timeout_ms + LOST_GRACE_MS).max(*said),
        };
        if case.keeper_was_hurt(machine, &(from..=until)) {
            continue;
        }
        let why = match lost.reason {
            LostReason::KeeperGone => "its keeper is said to be gone",
            LostReason::Deadline => "no exit came",
        };
        let why = format!("{why}, and nobody hurt it from {from} to {until}");
        broken.push(case.broken_run(Promise::LostForAReason, (command, machine), why));
    }
    broken
}
