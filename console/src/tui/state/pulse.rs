//! What is looked at first: how much is heard, what needs a look, who is busiest. Made from what is known anyway, once a
//! second while it is on the screen.

use std::collections::VecDeque;

use signalbox_schemas::{
    api::{self, Liveness},
    id::{CommandId, MachineToken},
    run::RunState,
};

use super::{Screen, Severity, State, cursor::Cursor, machine::Machine};
use crate::tui::{
    lists::{ListKind, system},
    text,
    view::amount,
};

/// Seconds of which it is kept how much was heard.
const SECONDS: usize = 120;
/// Most things that need a look.
const MOST_CONCERNS: usize = 100;
/// Machines in the same trouble above this many are one line.
const MOST_ALIKE: usize = 5;
/// The fullest disk from which on a machine needs a look, and memory, percent.
const FULL_PERCENT: u8 = 95;
/// What went wrong longer ago needs no look any more, ms.
const LATELY_MS: u64 = 3_600_000;
/// Most machines of which it is said that they are busy.
pub const MOST_BUSY: usize = 20;

/// What a line leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lead {
    /// A machine.
    Machine(MachineToken),
    /// Machines that a filter shows.
    Filter(String),
    /// A command.
    Command(CommandId),
    /// A list.
    List(ListKind),
}

/// Something that needs a look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Concern {
    /// Which one it is, whatever is said about it.
    pub key: String,
    /// How much.
    pub severity: Severity,
    /// What.
    pub what: String,
    /// Why.
    pub why: String,
    /// Where it is seen.
    pub lead: Lead,
}

/// The pulse of the fleet.
#[derive(Debug, Default)]
pub struct Pulse {
    /// Signs of life in each of the last seconds, the newest last.
    heard: VecDeque<u32>,
    /// Those of this second.
    now: u32,
    /// What needs a look, the worst first.
    pub concerns: Vec<Concern>,
    /// The busiest machines, the busiest first.
    pub busiest: Vec<MachineToken>,
    /// The line the operator is on.
    pub cursor: Cursor<String>,
    /// When all this was made, ms; `None`: it is to be made.
    pub made_ms: Option<u64>,
}

impl Pulse {
    /// The line the operator is on.
    pub fn here(&self) -> Option<&Concern> {
        self.cursor.key().and_then(|key| self.concerns.iter().find(|concern| concern.key == *key))
    }

    /// Keys of what needs a look, in order.
    pub fn keys(&self) -> Vec<String> {
        self.concerns.iter().map(|concern| concern.key.clone()).collect()
    }

    /// So many signs of life were heard.
    pub fn hear(&mut self, count: usize) {
        self.now = self.now.saturating_add(u32::try_from(count).unwrap_or(u32::MAX));
    }

    /// A second has passed.
    pub fn tick(&mut self) {
        self.heard.push_back(std::mem::take(&mut self.now));
        self.heard.drain(..self.heard.len().saturating_sub(SECONDS));
    }

    /// Signs of life per minute over so many stretches of the last two minutes, the newest last.
    pub fn rates(&self, stretches: usize) -> Vec<u32> {
        let length = SECONDS.div_ceil(stretches.max(1));
        let mut rates: Vec<u32> = self
            .heard
            .iter()
            .rev()
            .copied()
            .collect::<Vec<_>>()
            .chunks(length)
            .map(|seconds| {
                let length = u32::try_from(seconds.len()).unwrap_or(1).max(1);
                seconds.iter().sum::<u32>().saturating_mul(60) / length
            })
            .collect();
        rates.reverse();
        rates
    }
}

/// What needs a look, the worst first.
pub fn concerns(state: &State) -> Vec<Concern> {
    let mut all = warnings(state);
    all.extend(commands(state));
    all.extend(silent(state));
    all.extend(full(state, "disk", Machine::disk_percent, "the fullest disk"));
    all.extend(full(state, "mem", Machine::memory_percent, "memory"));
    all.sort_by_key(|concern| match concern.severity {
        Severity::Bad => 0,
        Severity::Warn => 1,
        Severity::Good => 2,
    });
    all.truncate(MOST_CONCERNS);
    all
}

/// What a bridge says should be done.
fn warnings(state: &State) -> Vec<Concern> {
    let warnings = state.health.iter().flat_map(|health| &health.warnings);
    let serious = warnings.filter(|warning| warning.severity > api::Severity::Info);
    let concern = |warning: &api::Warning| Concern {
        key: format!("system {}", warning.code),
        severity: system::shown(warning.severity),
        what: "system".to_owned(),
        why: format!("{}: {}", text::line(&warning.text), text::line(&warning.advice)),
        lead: Lead::List(ListKind::Health),
    };
    serious.map(concern).collect()
}

/// Commands of which something went wrong lately.
fn commands(state: &State) -> Vec<Concern> {
    let is_late = |at: u64| state.wall_ms.saturating_sub(at) <= LATELY_MS;
    let bad = [RunState::Lost, RunState::Failed, RunState::Timeout, RunState::Rejected];
    let newest = state.commands.newest();
    let lately = newest.into_iter().take_while(|command| is_late(command.created_at));
    let concern = |command: &super::command::Command| {
        let counts = command.counts();
        let told: Vec<String> = bad
            .iter()
            .filter_map(|state| counts.get(state).filter(|n| **n > 0).map(|n| format!("{n} {state}")))
            .collect();
        let is_lost = counts.get(&RunState::Lost).is_some_and(|n| *n > 0);
        (!told.is_empty()).then(|| Concern {
            key: command.id.to_string(),
            severity: if is_lost { Severity::Bad } else { Severity::Warn },
            what: command.text.clone(),
            why: format!(
                "{}, {} ago",
                told.join(", "),
                amount::age(state.wall_ms.saturating_sub(command.created_at))
            ),
            lead: Lead::Command(command.id),
        })
    };
    lately.filter_map(concern).take(MOST_ALIKE).collect()
}

/// Machines that are not heard.
fn silent(state: &State) -> Vec<Concern> {
    let concern = |machine: &Machine, liveness: Liveness| Concern {
        key: format!("heard {}", machine.token),
        severity: if liveness == Liveness::Offline { Severity::Bad } else { Severity::Warn },
        what: machine.name.clone(),
        why: match machine.age_ms(state.now_ms) {
            Some(age_ms) => format!("{}, heard {} ago", liveness.as_str(), amount::age(age_ms)),
            None => "never heard".to_owned(),
        },
        lead: Lead::Machine(machine.token.clone()),
    };
    [Liveness::Offline, Liveness::Stale]
        .into_iter()
        .flat_map(|liveness| {
            let is_so = |machine: &&Machine| machine.state(state.now_ms) == liveness;
            let word = liveness.as_str();
            alike(state, is_so, word, &format!("state={word}"), |machine| concern(machine, liveness))
        })
        .collect()
}

/// Machines with something that is nearly full.
fn full(state: &State, field: &str, of: fn(&Machine) -> Option<u8>, words: &str) -> Vec<Concern> {
    let is_full = |machine: &&Machine| {
        machine.state(state.now_ms) == Liveness::Online && of(machine).is_some_and(|n| n >= FULL_PERCENT)
    };
    let concern = |machine: &Machine| Concern {
        key: format!("{field} {}", machine.token),
        severity: Severity::Warn,
        what: machine.name.clone(),
        why: format!("{words} is {}% full", of(machine).unwrap_or(0)),
        lead: Lead::Machine(machine.token.clone()),
    };
    let why = format!("{words} above {FULL_PERCENT}%");
    alike(state, is_full, &why, &format!("{field}>={FULL_PERCENT}"), concern)
}

/// A line for each machine, or one for all of them where they are many.
fn alike(
    state: &State,
    is_so: impl Fn(&&Machine) -> bool,
    why: &str,
    filter: &str,
    concern: impl Fn(&Machine) -> Concern,
) -> Vec<Concern> {
    let machines: Vec<&Machine> = state.fleet.all().filter(is_so).collect();
    if machines.len() <= MOST_ALIKE {
        return machines.into_iter().map(concern).collect();
    }
    let worst = machines.first().map_or(Severity::Warn, |machine| concern(machine).severity);
    vec![Concern {
        key: filter.to_owned(),
        severity: worst,
        what: amount::machines(machines.len()),
        why: why.to_owned(),
        lead: Lead::Filter(filter.to_owned()),
    }]
}

/// The busiest machines, the busiest first.
pub fn busiest(state: &State) -> Vec<MachineToken> {
    let online = state.fleet.all().filter(|machine| machine.state(state.now_ms) == Liveness::Online);
    let mut loads: Vec<(u8, &MachineToken)> =
        online.filter_map(|machine| Some((machine.cpu_percent()?, &machine.token))).collect();
    loads.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(b.1)));
    loads.into_iter().take(MOST_BUSY).map(|(_, token)| token.clone()).collect()
}

impl Lead {
    /// The screen that it leads to.
    pub fn screen(&self) -> Screen {
        match self {
            Self::Machine(token) => Screen::Machine(token.clone()),
            Self::Filter(_) => Screen::Machines,
            Self::Command(id) => Screen::Command(*id),
            Self::List(kind) => Screen::List(*kind),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_means_of_stretches() {
        let mut pulse = Pulse::default();
        for second in 0..200 {
            pulse.hear(if second < 190 { 10 } else { 30 });
            pulse.tick();
        }
        let rates = pulse.rates(12);
        assert_eq!((rates.len(), rates.first(), rates.last()), (12, Some(&600), Some(&1_800)));
    }
}
