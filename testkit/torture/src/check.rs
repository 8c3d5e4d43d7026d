//! What was promised, and whether it was kept. Pure: it looks at what was observed and at nothing else.

mod agreement;
mod audit;
mod ending;
mod ledger;
mod marks;
mod output;
mod starting;
mod storing;
#[cfg(test)]
mod tests;
mod time;

use std::{collections::BTreeMap, fmt, ops::RangeInclusive};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use signalbox_schemas::id::{CommandId, MachineToken};

pub(crate) use audit::is_complete as is_audited;
pub(crate) use ledger::Ledger;
pub(crate) use time::{SLACK_MS, bound};

use crate::{
    fault::{Fault, Part},
    observed::Observed,
    told::Told,
};
use marks::Marks;

/// What the system promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub(crate) enum Promise {
    /// A command starts at most once on a machine, and only on machines that it is for.
    StartsOnce,
    /// Every accepted command is settled on each target within its bound.
    Settles,
    /// `completed` if and only if it ran to its end; an exit says how it ended.
    RanToItsEnd,
    /// `expired`, `rejected`, and `cancelled` before the start, if and only if it never started.
    NeverStarted,
    /// Nothing starts before its claim is stored, before its time, or after it; nothing expires early, or while its machine
    /// could have started it; nothing is rejected, or cancelled by nobody; nothing times out too soon, or not at all.
    InItsTime,
    /// A run is `lost` only where its keeper was hurt while it went on.
    LostForAReason,
    /// What was acknowledged is there, as it was acknowledged; what was refused is not.
    NothingMissing,
    /// No byte of output is lost, doubled or reordered in a run that is not marked cut.
    OutputIsWhole,
    /// Bridges, and one that reads the streams from their beginning, give the same answers, and those are what the facts say.
    AnswersAgree,
    /// Every stored record and fact verifies by its signature.
    Verifies,
    /// Everything that is stored stands in the audit chain, once, and the chain is whole.
    AuditHolds,
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::StartsOnce => "a command starts at most once on a machine",
            Self::Settles => "an accepted command is settled within its bound",
            Self::RanToItsEnd => "completed means that it ran to its end",
            Self::NeverStarted => "what ended before its start never started",
            Self::InItsTime => "everything happens in its time",
            Self::LostForAReason => "a run is lost only where its keeper was hurt",
            Self::NothingMissing => "what was acknowledged is there",
            Self::OutputIsWhole => "no byte of output is lost, doubled or reordered",
            Self::AnswersAgree => "all bridges answer the same, and what the facts say",
            Self::Verifies => "what is stored verifies",
            Self::AuditHolds => "what was done stands in the audit chain once, and that is whole",
        })
    }
}

/// A promise that was broken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Violation {
    /// Which.
    pub(crate) promise: Promise,
    /// The machine, if it is about one.
    pub(crate) machine: Option<MachineToken>,
    /// The command, if it is about one.
    pub(crate) command: Option<CommandId>,
    /// What is wrong.
    pub(crate) what: String,
    /// What was heard, stored and marked, for people.
    pub(crate) evidence: Vec<String>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "broken: {}. {}", self.promise, self.what)?;
        if let Some(command) = self.command {
            write!(f, "\n  command {command}")?;
        }
        if let Some(machine) = &self.machine {
            write!(f, " on {machine}")?;
        }
        self.evidence.iter().try_for_each(|line| write!(f, "\n  {line}"))
    }
}

/// What is looked at: everything, sorted.
struct Case<'a> {
    observed: &'a Observed,
    ledger: Ledger,
    told: BTreeMap<CommandId, &'a Told>,
    marks: Marks,
}

/// How long after a harm of a keeper or its store a claim may still be its victim, ms: until its relay has seen that the keeper
/// is gone or its clock is right, what it claims it claims for a keeper that is hurt. Relays see it at once, if the machine is
/// not busy.
const HURTS_ON_MS: u64 = 3_000;

/// A command on a machine.
type RunId<'a> = (CommandId, &'a MachineToken);

impl Case<'_> {
    fn broken(
        &self,
        promise: Promise,
        command: Option<CommandId>,
        machine: Option<&MachineToken>,
        what: String,
    ) -> Violation {
        let mut evidence = Vec::new();
        if let Some(told) = command.and_then(|command| self.told.get(&command)) {
            let cancel = told.cancel.as_ref().map(|word| format!("; cancel: {word:?}")).unwrap_or_default();
            let by = if told.by_http { "by HTTP" } else { "over NATS" };
            evidence
                .push(format!("asked {by} at {}, {:?}: {:?}{cancel}", told.asked_at, told.work, told.submit));
        }
        if let Some((command, machine)) = command.zip(machine) {
            let run = self.ledger.run(command, machine);
            evidence.extend(run.into_iter().flat_map(|run| run.lines.iter().cloned()));
            evidence.extend(self.marks.lines(command, machine));
        }
        Violation { promise, machine: machine.cloned(), command, what, evidence }
    }

    fn broken_run(&self, promise: Promise, run: RunId<'_>, what: impl Into<String>) -> Violation {
        self.broken(promise, Some(run.0), Some(run.1), what.into())
    }

    fn number_of(&self, machine: &MachineToken) -> Option<usize> {
        self.observed.machines.iter().position(|seen| seen.token == *machine)
    }

    /// Whether any harm that was done is one of these, to this machine.
    fn harmed(&self, machine: &MachineToken, is_one: impl Fn(&Fault, u8) -> bool) -> bool {
        let Some(number) = self.number_of(machine).and_then(|number| u8::try_from(number).ok()) else {
            return true;
        };
        match &self.observed.done {
            Some(done) => done.iter().any(|done| is_one(&done.fault, number)),
            None => self.observed.plan.harms_any(|fault| is_one(fault, number)),
        }
    }

    /// Whether the keeper of a machine, or the store it works on, was hurt in these ms of Unix time, or so shortly before
    /// that what began then may still have met it. Where it is not known when harms were done, any of them counts.
    fn keeper_was_hurt(&self, machine: &MachineToken, within: &RangeInclusive<u64>) -> bool {
        let number = self.number_of(machine).and_then(|number| u8::try_from(number).ok());
        let Some((done, number)) = self.observed.done.as_ref().zip(number) else {
            return self.harmed(machine, hurts_keeper);
        };
        done.iter().filter(|done| hurts_keeper(&done.fault, number)).any(|done| {
            // Nobody keeps a keeper down: its relay starts the next one at once.
            let until = if matches!(done.fault, Fault::Kill(_)) { done.from } else { done.until };
            done.from <= *within.end() && until + HURTS_ON_MS >= *within.start()
        })
    }
}

/// Every promise that was broken.
pub(crate) fn violations(observed: &Observed) -> Vec<Violation> {
    let case = Case {
        observed,
        ledger: Ledger::read(&observed.fleet_key, &observed.stored),
        told: observed.said.told.iter().map(|told| (told.command, told)).collect(),
        marks: Marks::read(observed),
    };
    let promises: [fn(&Case<'_>) -> Vec<Violation>; 11] = [
        starting::starts_once,
        time::settles,
        ending::ran_to_its_end,
        starting::never_started,
        time::in_its_time,
        ending::lost_for_a_reason,
        storing::nothing_missing,
        output::output_is_whole,
        agreement::answers_agree,
        storing::verifies,
        audit::audit_holds,
    ];
    promises.iter().flat_map(|promise| promise(&case)).collect()
}

/// Whether a harm hurts the keeper of a machine, or the store it works on.
fn hurts_keeper(fault: &Fault, machine: u8) -> bool {
    match fault {
        Fault::Kill(Part::Keeper(n))
        | Fault::Twin(n)
        | Fault::Halt(Part::Keeper(n))
        | Fault::Jump(Part::Relay(n), _)
        | Fault::Forget(Part::Relay(n))
        | Fault::Rollback(Part::Relay(n))
        | Fault::Fill(Part::Relay(n)) => *n == machine,
        _ => false,
    }
}
