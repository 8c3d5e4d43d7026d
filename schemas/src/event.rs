//! Events: what happened to machines, runs and the system itself, for people who were not looking.
//!
//! An event stands at `evt.<ws>.<type>`, signed by the bridge that noticed it. Nothing is decided by one. Which state of a
//! machine was told last follows from the newest [frames](crate::history) and the events behind them, and each event is
//! stored only behind the last one that its writer knew: so each is told once, however many bridges there are.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    api::Liveness,
    id::{BridgeId, CommandId, MachineId, MachineToken, Workspace},
    mailbox::Position,
    signed::Message,
    subject::Subject,
};

/// Largest event.
pub const EVENT_BYTES: usize = 8 * 1024;
/// Longest text of an event, bytes.
pub const TEXT_BYTES: usize = 512;
/// Longest name of a type, bytes.
pub const TYPE_BYTES: usize = 64;

/// Types of events. A newer bridge may have others.
pub mod kind {
    /// A machine was heard again.
    pub const MACHINE_ONLINE: &str = "machine.online";
    /// A machine was not heard for 25 s.
    pub const MACHINE_STALE: &str = "machine.stale";
    /// A machine was not heard for 60 s.
    pub const MACHINE_OFFLINE: &str = "machine.offline";
    /// A machine belongs to the fleet now.
    pub const MACHINE_NEW: &str = "machine.new";
    /// The relay of a machine is another process than before.
    pub const RELAY_RESTARTED: &str = "relay.restarted";
    /// The relay of a machine has another version than before.
    pub const RELAY_VERSION: &str = "relay.version";
    /// Nobody knows how a run ended.
    pub const RUN_LOST: &str = "run.lost";
    /// A bridge has read the streams, and answers.
    pub const BRIDGE_STARTED: &str = "bridge.started";
    /// A bridge holds the lease now.
    pub const BRIDGE_LEASE: &str = "bridge.lease";
    /// A stream that refuses what it has no room for is more than half full.
    pub const STREAM_NEARLY_FULL: &str = "stream.nearly_full";
    /// It has room again.
    pub const STREAM_RELIEVED: &str = "stream.relieved";
    /// The clock of a machine is off.
    pub const CLOCK_SKEW: &str = "clock.skew";
    /// It is right again.
    pub const CLOCK_RIGHT: &str = "clock.right";
    /// There were more events in a minute than are told one by one; these are counted.
    pub const EVENTS_DROPPED: &str = "events.dropped";

    /// All of them.
    pub const ALL: [&str; 14] = [
        MACHINE_ONLINE,
        MACHINE_STALE,
        MACHINE_OFFLINE,
        MACHINE_NEW,
        RELAY_RESTARTED,
        RELAY_VERSION,
        RUN_LOST,
        BRIDGE_STARTED,
        BRIDGE_LEASE,
        STREAM_NEARLY_FULL,
        STREAM_RELIEVED,
        CLOCK_SKEW,
        CLOCK_RIGHT,
        EVENTS_DROPPED,
    ];

    /// The type that says that a machine is in a state now.
    pub fn of_state(state: super::Liveness) -> &'static str {
        match state {
            super::Liveness::Online => MACHINE_ONLINE,
            super::Liveness::Stale => MACHINE_STALE,
            super::Liveness::Offline => MACHINE_OFFLINE,
        }
    }
}

/// Something happened; `evt.<ws>.<type>`, with `-` for what is no letter, digit or `_` in the type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Workspace.
    pub ws: Workspace,
    /// What kind of thing: one of [`kind`], or one of a newer bridge.
    #[serde(rename = "type")]
    pub kind: String,
    /// When it was noticed, Unix ms by the clock of the bridge.
    pub at: u64,
    /// Who noticed it.
    pub bridge: BridgeId,
    /// The machine it is about, as subjects call it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<MachineToken>,
    /// The same as people call it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine_id: Option<MachineId>,
    /// The command it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<CommandId>,
    /// One sentence for people, at most [`TEXT_BYTES`]; parts of it are foreign.
    pub text: String,
    /// The same for programs, by type.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub details: BTreeMap<String, Value>,
    /// Up to where in RUN lost runs have been told, this event included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told_runs: Option<Position>,
}

impl Message for Event {
    const TYPE: &'static str = "event";
    const MAX_BYTES: usize = EVENT_BYTES;
}

impl Event {
    /// Where it is stored.
    pub fn subject(&self) -> Subject {
        Subject::Event(self.ws.clone(), token(&self.kind))
    }

    /// The state of its machine that it tells, if that is what it tells.
    pub fn state(&self) -> Option<Liveness> {
        let states = [Liveness::Online, Liveness::Stale, Liveness::Offline];
        states.into_iter().find(|state| kind::of_state(*state) == self.kind)
    }
}

/// A type as one token of a subject.
pub fn token(kind: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' };
    let token: String = kind.chars().take(TYPE_BYTES).map(plain).collect();
    if token.is_empty() { "-".to_owned() } else { token }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_type_has_a_subject_of_its_own() {
        let subjects: BTreeSet<String> = kind::ALL.into_iter().map(token).collect();
        assert_eq!(subjects.len(), kind::ALL.len());
        for (kind, expected) in [("machine.online", "machine-online"), ("größe > *", "gr--e----"), ("", "-")]
        {
            let subject = Subject::Event(Workspace::main(), token(kind));
            assert_eq!(subject.to_string(), format!("evt.main.{expected}"));
            assert_eq!(Subject::parse(&subject.to_string()), Ok(subject));
        }
        assert!(Subject::parse(&format!("evt.main.{}", token(&"x".repeat(1_000)))).is_ok());
    }
}
