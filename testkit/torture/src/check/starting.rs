//! What started, how often, and what did not.

use signalbox_schemas::run::{Register, RunState};

use super::{Case, Promise, Violation};

/// Errors of exits that say that nothing was started.
pub(super) const NOT_STARTED: [&str; 5] =
    ["expired", "cancelled", "keeper_refused", "unreadable", "spawn_failed"];

pub(super) fn starts_once(case: &Case<'_>) -> Vec<Violation> {
    let mut broken = Vec::new();
    for (command, machine, marks) in case.marks.all() {
        let mut say = |what: String| {
            broken.push(case.broken(Promise::StartsOnce, Some(command), Some(machine), what));
        };
        if marks.starts.len() > 1 {
            say(format!("it started {} times", marks.starts.len()));
        }
        if marks.ends.len() > marks.starts.len() {
            say(format!("it ran to its end {} times and started {}", marks.ends.len(), marks.starts.len()));
        }
        match case.told.get(&command) {
            None => say("nobody asked for it".to_owned()),
            Some(told) if !told.machines.contains(machine) => say("it was not for this machine".to_owned()),
            Some(_) => {}
        }
    }
    for (machine, line) in &case.marks.odd {
        let what = format!("{line:?} stands among the marks of {machine}");
        broken.push(case.broken(Promise::StartsOnce, None, Some(machine), what));
    }
    broken
}

pub(super) fn never_started(case: &Case<'_>) -> Vec<Violation> {
    let mut broken = Vec::new();
    for (command, _, machine) in case.ledger.accepted() {
        let run = case.ledger.run(command, machine);
        let has_started = !case.marks.of(command, machine).starts.is_empty();
        let register = run.and_then(|run| run.facts.register());
        let why = match register {
            None if has_started => Some("it started, and nothing stands in its register".to_owned()),
            Some(Register::Rejected { .. } | Register::Withdrawn(_)) if has_started => {
                let state = case.ledger.state(command, machine);
                Some(format!("it is {state} by its register, and started"))
            }
            _ => None,
        };
        let exit = run.and_then(|run| run.facts.exit());
        let said =
            exit.and_then(|exit| exit.error.as_ref()).filter(|error| NOT_STARTED.contains(&&*error.code));
        let why = why.or_else(|| {
            let error = said.filter(|_| has_started)?;
            Some(format!("its exit says that it was not started ({}), and it was", error.code))
        });
        // The other way round: a shell that ended by itself has begun, and its first deed is the mark.
        let why = why.or_else(|| {
            let code = exit.filter(|_| !has_started)?.exit_code?;
            let state = case.ledger.state(command, machine);
            matches!(state, RunState::Completed | RunState::Failed)
                .then(|| format!("it is {state} with code {code}, and has never started"))
        });
        broken.extend(why.map(|why| case.broken_run(Promise::NeverStarted, (command, machine), why)));
    }
    broken
}
