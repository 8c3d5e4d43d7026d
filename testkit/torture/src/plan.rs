//! The schedule of a torture, from its seed alone: the same seed is the same schedule on every machine.

mod chatter;
mod distances;
mod draw;
mod harms;
mod wishes;

use serde::{Deserialize, Serialize};

use crate::fault::{Fault, Part};
use draw::Draws;

/// What is built, and what happens to it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// Where it comes from.
    pub(crate) seed: u64,
    /// Servers of the broker, 1 or 3.
    pub(crate) brokers: u8,
    /// Bridges, 1 or 2.
    pub(crate) bridges: u8,
    /// Machines, each with a relay, 2 to 4.
    pub(crate) machines: u8,
    /// How long commands are submitted and harm is done, ms.
    pub(crate) length_ms: u64,
    /// Harms, by their beginning.
    pub(crate) harms: Vec<Harm>,
    /// What operators ask for, by time.
    pub(crate) wishes: Vec<Wish>,
    /// What writes output meanwhile, all the time and on each machine, by time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) chatter: Vec<Wish>,
    /// How far each machine is from all others, ms: so much later comes each packet. None of those that are not named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) distances_ms: Vec<u16>,
}

/// One harm and its time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Harm {
    /// When it begins, ms from the start.
    pub(crate) at_ms: u64,
    /// When it is healed, ms after that.
    pub(crate) for_ms: u64,
    /// What is done.
    pub(crate) fault: Fault,
}

/// One thing that an operator asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Wish {
    /// When, ms from the start.
    pub(crate) at_ms: u64,
    /// Machines that it is for.
    pub(crate) on: Vec<u8>,
    /// What the command does.
    pub(crate) work: Work,
    /// How long the command may run, ms.
    pub(crate) timeout_ms: u64,
    /// How long it may wait to start, ms.
    pub(crate) expires_in_ms: u64,
    /// How long it must wait to start, ms. Only of those that come over NATS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) not_before_in_ms: Option<u64>,
    /// Output that is kept of each run, bytes, where it is not as usual.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) max_output: Option<u64>,
    /// When it is cancelled, ms after its submission.
    pub(crate) cancel_after_ms: Option<u64>,
    /// Whether it comes by HTTP (granted by the bridge), else signed over NATS.
    pub(crate) by_http: bool,
}

/// What a command does between its two marks: `S <cid> <uptime>` first of all, `E <cid> <uptime>` last of all, each one
/// line appended to a file of its machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Work {
    /// Nothing.
    Nothing,
    /// Waits, ms.
    Wait(u32),
    /// Writes so many numbered lines of 16 bytes to stdout, and waits after every 256 of them, ms.
    Lines(u32, u32),
    /// Writes numbered lines of 16 bytes to stdout, all in one process: some at once, and waits after them, ms.
    Chatter {
        /// All of them.
        lines: u32,
        /// Those between two waits.
        at_once: u32,
        /// How long it waits.
        pause_ms: u32,
    },
    /// Ends with this code, 1 to 125.
    Fail(u8),
    /// Ends itself by SIGKILL.
    Die,
}

impl Plan {
    /// The plan of a seed, the same everywhere: see [`Plan::without`] for places that cannot do all of it.
    ///
    /// `length_ms` is how long commands are submitted and harm is done, 5,000 to 600,000.
    pub(crate) fn from_seed(seed: u64, length_ms: u64) -> Self {
        let length_ms = length_ms.clamp(5_000, 600_000);
        let mut shape = Draws::new(seed, "shape");
        let brokers = if seed % 4 == 3 { 3 } else { 1 };
        let bridges = if shape.one_in(2) { 2 } else { 1 };
        let machines = u8::try_from(shape.within(2..=4)).unwrap_or(2);
        let mut plan = Self { seed, brokers, bridges, machines, length_ms, ..Self::default() };
        plan.wishes = wishes::draw(&plan);
        plan.chatter = chatter::draw(&plan);
        plan.harms = harms::draw(&plan);
        plan.distances_ms = distances::draw(&plan);
        plan
    }

    /// The same with its first `n` harms only.
    pub(crate) fn prefix(&self, n: usize) -> Self {
        Self { harms: self.harms.iter().take(n).cloned().collect(), ..self.clone() }
    }

    /// The same without the harms that cannot be done; and those.
    pub(crate) fn without(&self, cannot: impl Fn(&Fault) -> bool) -> (Self, Vec<Harm>) {
        let (skipped, harms) = self.harms.iter().cloned().partition(|harm| cannot(&harm.fault));
        (Self { harms, ..self.clone() }, skipped)
    }

    /// Whether any harm is one of these.
    pub(crate) fn harms_any(&self, is_one: impl Fn(&Fault) -> bool) -> bool {
        self.harms.iter().any(|harm| is_one(&harm.fault))
    }

    /// Whether a bridge's clock is set wrong.
    pub(crate) fn bridge_clocks_jump(&self) -> bool {
        self.harms_any(|fault| matches!(fault, Fault::Jump(Part::Bridge(_), _)))
    }
}

#[cfg(test)]
mod tests;
