//! One client for the terminal and for the command line.
//!
//! | room | holds |
//! |---|---|
//! | [`access`] | who asks, and where |
//! | [`nats`] | requests and answers over the broker |
//! | [`feed`] | what is, then what changes |
//! | `in_base64` | bytes as they are written down in JSON |
//! | [`digest`] | what was told of a stream, in 32 bytes (pure) |
//! | [`flow`] | what a feed has delivered: numbers, positions, credit, order (pure) |
//! | [`list`] | lists, page by page |
//! | [`look`] | lists that a screen looks at |
//! | [`machine`] | what a screen looks at of one machine |
//! | [`meant`] | what a selector means, before anything is signed |
//! | [`sign`] | a command and its grants, signed by the operator |
//! | [`change`] | a change of what relays keep, sealed for each of them |
//! | [`known`] | the keys that machines are known by |
//! | [`recovery`] | what is sealed for those who get it later |
//! | [`repeat`] | a command that was submitted before under the same idempotency key |
//! | [`mod@session`] | the long-lived connection behind the terminal, as two channels |
//! | [`clock`] | time as this machine has it |
//! | [`error`] | what can go wrong |
//!
//! The terminal never touches a connection: it sends [`Ask`]s and is [`Told`] what happened.

pub mod access;
pub mod change;
pub mod clock;
pub mod digest;
pub mod error;
pub mod feed;
pub mod flow;
mod in_base64;
pub mod known;
pub mod list;
pub mod look;
pub mod machine;
pub mod meant;
pub mod nats;
pub mod recovery;
pub mod repeat;
pub mod session;
pub mod sign;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use signalbox_schemas::{
    api::{
        Accepted, CommandSummary, Counts, FleetThen, HealthView, MachineSeries, MachineView, RolloutView,
        RunView,
    },
    error::Problem,
    heartbeat::Heartbeat,
    id::{CommandId, MachineId, MachineToken},
    output::OutputStream,
    rollout::Steer,
};

pub use access::Access;
pub use error::ClientError;
pub use meant::Meant;
pub use nats::Client;
pub use session::session;
pub use sign::Draft;

/// Most asks that wait for the session. A person types slower than this; a full channel is shown.
pub const ASKS: usize = 64;
/// Most tellings that wait for the terminal. Output has its own credit, so this bounds everything else: the largest, a
/// page of machines, has about a megabyte.
pub const TOLD: usize = 64;

/// What the terminal wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// Tell which machines a selector means. Answered by [`Told::Meant`] with the same tag.
    LookUp {
        /// Chosen by the asker; comes back in the answer.
        tag: u64,
        /// The selector.
        on: String,
        /// Another one: how many of them are protected. Empty: none is.
        protected: String,
    },
    /// Run a command. Answered by [`Told::Accepted`] or [`Told::Refused`] with the same tag.
    Run {
        /// Chosen by the asker; comes back in the answer.
        tag: u64,
        /// What, where and how.
        draft: Box<Draft>,
    },
    /// Tell of a command's runs and output, from the first byte.
    Watch {
        /// The command.
        id: CommandId,
    },
    /// No longer.
    Unwatch {
        /// The command.
        id: CommandId,
    },
    /// Cancel a command. Answered by [`Told::Cancelling`] or [`Told::Refused`] with the same tag.
    Cancel {
        /// Chosen by the asker; comes back in the answer.
        tag: u64,
        /// The command.
        id: CommandId,
    },
    /// Pause, resume or abort the rollout of a command. Answered by [`Told::Steered`] or [`Told::Refused`] with the same tag.
    Steer {
        /// Chosen by the asker; comes back in the answer.
        tag: u64,
        /// The command.
        id: CommandId,
        /// What is wished.
        wish: Steer,
    },
    /// Take a new snapshot of the machines.
    Refresh,
    /// Read a list. Answered by [`Told::Found`].
    Look(look::ListKind),
    /// Read what there is of one machine. Answered by [`Told::Part`].
    LookAt {
        /// The machine.
        machine: MachineToken,
        /// What of it.
        tab: machine::Tab,
    },
    /// Read the figures of one machine over time. Answered by [`Told::Series`].
    Over {
        /// The machine.
        machine: MachineToken,
        /// The time, Unix ms; comes back in the answer.
        time: machine::Span,
    },
    /// Read the fleet as it was at a moment, Unix ms. Answered by [`Told::Then`].
    FleetAt(u64),
    /// Read a range of output. Answered by [`Told::OutputRange`] of the same beginning.
    ReadOutput {
        /// The command.
        id: CommandId,
        /// The machine.
        machine: MachineId,
        /// The stream.
        stream: OutputStream,
        /// Offset of the first byte.
        from: u64,
        /// Most bytes, 1 to 512 KiB.
        most: u32,
    },
    /// Write streams to files that are not there yet. Answered by [`Told::Saving`], over and over, then by [`Told::Saved`]
    /// or [`Told::Refused`] with the same tag.
    Save(session::save::Save),
    /// Write no further; what was written of it is removed.
    StopSave {
        /// That of the save.
        tag: u64,
    },
}

/// The connection as it is shown.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LinkView {
    /// Whether the broker is reached.
    pub connected: bool,
    /// The bridge that answered last; `None` when none answered since the connection was made or lost.
    pub bridge: Option<String>,
    /// Round trip to a bridge and back, ms; `None` when not measured.
    pub rtt_ms: Option<f64>,
}

/// A stretch of the list of machines, which is sorted by token. It replaces what was known of that stretch: a machine
/// of it that is not named here is no more.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Stretch {
    /// The last token before it; `None`: it begins the list.
    pub after: Option<MachineToken>,
    /// The machines, sorted by token.
    pub machines: Vec<MachineView>,
    /// The last token of it; `None`: it ends the list.
    pub until: Option<MachineToken>,
}

impl Stretch {
    /// The whole list.
    pub fn whole(machines: Vec<MachineView>) -> Self {
        Self { after: None, machines, until: None }
    }

    /// Whether a token lies in it.
    pub fn has(&self, token: &MachineToken) -> bool {
        self.after.as_ref().is_none_or(|after| token > after)
            && self.until.as_ref().is_none_or(|until| token <= until)
    }
}

/// A sign of life as it was received.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Heard {
    /// The machine.
    pub token: MachineToken,
    /// When it was received, ms by [`clock::steady_ms`].
    pub at_ms: u64,
    /// What it said. Foreign text: cleaned before it is shown.
    pub heartbeat: Heartbeat,
}

/// What the terminal is told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Told {
    /// The connection changed, or its round trip was measured anew.
    Link(LinkView),
    /// The machines there are, or some of them that follow each other.
    Machines(Stretch),
    /// Machines gave signs of life, in the order in which they came.
    Heartbeats(Vec<Heard>),
    /// A command is new or changed.
    Command(CommandSummary),
    /// What the selector of [`Ask::LookUp`] means, or why that is not known.
    Meant {
        /// The asker's tag.
        tag: u64,
        /// The machines.
        meant: Result<Meant, Problem>,
    },
    /// The command of [`Ask::Run`] was accepted.
    Accepted {
        /// The asker's tag.
        tag: u64,
        /// Its id and targets.
        accepted: Accepted,
    },
    /// The wish of [`Ask::Cancel`] is stored.
    Cancelling {
        /// The asker's tag.
        tag: u64,
        /// The command.
        id: CommandId,
        /// Runs that had not ended.
        n: u32,
    },
    /// The wish of [`Ask::Steer`] is stored.
    Steered {
        /// The asker's tag.
        tag: u64,
        /// The command.
        id: CommandId,
        /// How its rollout stands.
        rollout: Box<RolloutView>,
    },
    /// An ask was refused, or nobody answered it.
    Refused {
        /// The asker's tag.
        tag: u64,
        /// Why.
        problem: Problem,
    },
    /// How bridge and broker are.
    Health(Box<HealthView>),
    /// The rows of a list that was asked for, or why there are none.
    Found {
        /// Which list.
        kind: look::ListKind,
        /// Its rows.
        found: Result<look::Found, Problem>,
    },
    /// What there is of a machine, or why there is nothing.
    Part {
        /// The machine.
        machine: MachineToken,
        /// What of it.
        tab: machine::Tab,
        /// Its rows.
        part: Result<machine::Looked, Problem>,
    },
    /// The figures of a machine over time, or why there are none.
    Series {
        /// The machine.
        machine: MachineToken,
        /// The time that was asked for.
        time: machine::Span,
        /// Its points.
        series: Result<Box<MachineSeries>, Problem>,
    },
    /// The fleet as it was, or why that is not told.
    Then {
        /// The moment that was asked for, Unix ms.
        at: u64,
        /// The machines.
        then: Result<Box<FleetThen>, Problem>,
    },
    /// A bridge tells no more of something, for now: what is known of it may be old. It is asked again after a while;
    /// whatever is told of it then is new.
    Stale {
        /// The watched command; `None`: the list of commands.
        id: Option<CommandId>,
        /// Why.
        problem: Problem,
    },
    /// A run of a watched command, as it is now.
    Run {
        /// The command.
        id: CommandId,
        /// The run.
        run: RunView,
    },
    /// Output of a watched command. Each byte comes once and in order per machine and stream; a jump in
    /// `offset` means that bytes in between were left out.
    Output {
        /// The command.
        id: CommandId,
        /// The machine.
        machine: MachineId,
        /// The stream.
        stream: OutputStream,
        /// Offset of the first byte within its stream.
        offset: u64,
        /// The bytes as the process wrote them.
        #[serde(with = "in_base64")]
        data: Bytes,
    },
    /// A range of output that was asked for, or why there is none.
    OutputRange {
        /// The command.
        id: CommandId,
        /// The machine.
        machine: MachineId,
        /// The stream.
        stream: OutputStream,
        /// Offset from which on it was asked for.
        from: u64,
        /// The bytes.
        range: Result<nats::OutputRange, Problem>,
    },
    /// So much of the streams of [`Ask::Save`] was written.
    Saving {
        /// The asker's tag.
        tag: u64,
        /// Bytes that were written.
        bytes: u64,
        /// Bytes that the streams have which were begun.
        of: u64,
    },
    /// All of it is in its files.
    Saved {
        /// The asker's tag.
        tag: u64,
        /// What was written.
        saved: session::save::Saved,
    },
    /// Every run of a watched command has settled, and all output was told before.
    Settled {
        /// The command.
        id: CommandId,
        /// Runs by state.
        counts: Counts,
    },
}
