//! What is done to the parts of a world. Words only: `world` does it.

use serde::{Deserialize, Serialize};

/// A part of the world that can be hurt. Numbers count from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Part {
    /// A server of the broker: one, or three that are a cluster.
    Broker(u8),
    /// A bridge.
    Bridge(u8),
    /// The relay process of a machine, not its keeper.
    Relay(u8),
    /// The keeper of a machine.
    Keeper(u8),
}

impl Part {
    /// The part whose host, disk and clock this one has: a keeper has its relay's.
    pub(crate) fn with_relay(self) -> Self {
        match self {
            Self::Keeper(machine) => Self::Relay(machine),
            part => part,
        }
    }
}

/// One harm. It begins, and is healed after its time: what was killed is started again, what was cut off is joined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Fault {
    /// SIGKILL. Healing starts the part again with the store it has. A keeper is started by its relay.
    Kill(Part),
    /// SIGSTOP. Healing is SIGCONT.
    Halt(Part),
    /// No packet to or from the part's host. Not for keepers, which share their relay's host.
    Cut(Part),
    /// A bad line to the part's host, both ways.
    Weather(Part, Weather),
    /// The file system that holds the part's store is filled to the last byte. Healing frees it.
    Fill(Part),
    /// The wall clock of a bridge or of a relay with its keeper is off by so many seconds, ±86,400 at most.
    Jump(Part, i32),
    /// The part is killed, its store deleted, and healing starts it with none. Of bridges and relays (with their keeper).
    Forget(Part),
    /// The part is killed, and healing starts it with a copy of its store that was made when the world was ready.
    Rollback(Part),
    /// A second relay with the same machine's keys and a store of its own. Healing ends it (TERM).
    Twin(u8),
    /// The relay's program is replaced by another file of it, and the relay ended (TERM) and started. Its keeper stays.
    Upgrade(u8),
    /// An operator opens feeds with output and reads them at a few KB/s.
    SlowReader,
}

impl Fault {
    /// The part that it is about, where it is about one.
    pub(crate) fn part(&self) -> Option<Part> {
        match *self {
            Self::Kill(part)
            | Self::Halt(part)
            | Self::Cut(part)
            | Self::Weather(part, _)
            | Self::Fill(part)
            | Self::Jump(part, _)
            | Self::Forget(part)
            | Self::Rollback(part) => Some(part),
            Self::Twin(machine) | Self::Upgrade(machine) => Some(Part::Relay(machine)),
            Self::SlowReader => None,
        }
    }
}

/// How a line treats packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Weather {
    /// How late each packet comes, ms, 0 to 2,000.
    pub(crate) delay_ms: u16,
    /// By how much that varies, ms: packets overtake each other.
    pub(crate) jitter_ms: u16,
    /// Packets that never come, of 1,000.
    pub(crate) lost: u16,
    /// Packets that come twice, of 1,000.
    pub(crate) doubled: u16,
}
