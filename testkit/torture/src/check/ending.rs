//! How runs ended, and how they say they did.

use signalbox_schemas::run::{LostReason, RunState};

use super::{Case, Promise, RunId, Violation, hurts_keeper, starting::NOT_STARTED};
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

/// A relay that is back tells how its runs ended, and an exit replaces `lost`; so only a keeper that was hurt leaves one.
pub(super) fn lost_for_a_reason(case: &Case<'_>) -> Vec<Violation> {
    let mut broken = Vec::new();
    for (command, _, machine) in case.ledger.accepted() {
        let Some(lost) = case.ledger.run(command, machine).and_then(|run| run.facts.lost()) else { continue };
        if case.harmed(machine, hurts_keeper) {
            continue;
        }
        let why = match lost.reason {
            LostReason::KeeperGone => "its keeper is said to be gone, and nobody hurt it",
            LostReason::Deadline => "no exit came, and nobody hurt its keeper",
        };
        broken.push(case.broken_run(Promise::LostForAReason, (command, machine), why));
    }
    broken
}
