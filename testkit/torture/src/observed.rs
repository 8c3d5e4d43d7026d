//! What is left when all is healed: side effects, streams and answers. All that the checker looks at, so that what failed
//! once can be looked at again.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use signalbox_schemas::{
    Base64Url,
    id::{CommandId, MachineToken, Sha256},
    output::{ChunkHead, OutputStream},
    signed::PublicKey,
};

use crate::{
    fault::Fault,
    plan::{Harm, Plan},
    told::{Piece, Said},
};

/// One world after its torture.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Observed {
    /// What was done to it.
    pub(crate) plan: Plan,
    /// What this place could not do.
    #[serde(default)]
    pub(crate) skipped: Vec<Harm>,
    /// What was done and met nobody.
    #[serde(default)]
    pub(crate) missed: Vec<Fault>,
    /// What was done and met somebody, by its beginning. Nothing in what was observed before this was written down.
    #[serde(default)]
    pub(crate) done: Option<Vec<Done>>,
    /// How parts ended that nobody had ended. No promise, but nothing to pass over.
    #[serde(default)]
    pub(crate) ends: Vec<String>,
    /// When the machine had been up for 0 s, Unix ms: marks have uptime.
    pub(crate) booted_at: u64,
    /// What operators asked and heard.
    pub(crate) said: Said,
    /// When everything was healthy again, Unix ms.
    pub(crate) healed_at: u64,
    /// When the streams were read, Unix ms.
    pub(crate) seen_at: u64,
    /// The key that vouches for the authors document.
    pub(crate) fleet_key: PublicKey,
    /// The machines, by number.
    pub(crate) machines: Vec<MachineSeen>,
    /// What stands in the streams of signed messages, each in its order.
    pub(crate) stored: Vec<Stored>,
    /// What stands in the audit chain, in its order; nothing where it was not looked at.
    #[serde(default)]
    pub(crate) audit: Option<Vec<Stored>>,
    /// What stands in OUT, in its order.
    pub(crate) chunks: Vec<Chunk>,
    /// What each bridge answers: those of the world, then one that began with nothing.
    pub(crate) answers: Vec<Answers>,
}

/// A harm as it was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Done {
    /// What was done.
    pub(crate) fault: Fault,
    /// When it began, Unix ms: nothing was done before.
    pub(crate) from: u64,
    /// When it was healed, Unix ms.
    pub(crate) until: u64,
}

/// A machine's side effects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MachineSeen {
    /// The machine.
    pub(crate) token: MachineToken,
    /// Its file of marks.
    pub(crate) marks: String,
}

/// A message of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stored {
    /// Its subject.
    pub(crate) subject: String,
    /// Its sequence.
    pub(crate) sequence: u64,
    /// When the broker stored it, Unix ms.
    pub(crate) at: u64,
    /// Its body.
    pub(crate) body: Base64Url,
}

/// A chunk of output in OUT.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Chunk {
    /// Its subject.
    pub(crate) subject: String,
    /// Its sequence.
    pub(crate) sequence: u64,
    /// Where it belongs; `Err` says which header is wrong.
    pub(crate) head: Result<Head, String>,
    /// Its bytes; the offset is 0 where the head is wrong.
    pub(crate) piece: Piece,
}

/// Head of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Head {
    /// SHA-256 of the stream up to and with this chunk.
    pub(crate) sha256: Option<Sha256>,
    /// Whether it is the notice of a cut.
    pub(crate) cut: bool,
}

impl From<ChunkHead> for Head {
    fn from(head: ChunkHead) -> Self {
        Self { sha256: head.sha256, cut: head.cut }
    }
}

/// What one bridge answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Answers {
    /// Which bridge, for people.
    pub(crate) bridge: String,
    /// All commands as its list has them, newest first.
    pub(crate) listed: Vec<Value>,
    /// Each command with its runs.
    pub(crate) commands: BTreeMap<CommandId, Value>,
    /// The output of each run, sorted by command, machine and stream.
    pub(crate) outputs: Vec<Output>,
}

/// One stream of a run as a bridge answers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Output {
    /// The command.
    pub(crate) command: CommandId,
    /// The machine.
    pub(crate) machine: MachineToken,
    /// Which stream.
    pub(crate) stream: OutputStream,
    /// Bytes there are in all, as it says.
    pub(crate) total: u64,
    /// Whether it says that bytes were left out.
    pub(crate) truncated: bool,
    /// What it gives, by offset.
    pub(crate) pieces: Vec<Piece>,
}
