//! What operators asked for, and what they heard.

use serde::{Deserialize, Serialize};
use signalbox_schemas::{
    error::ErrorCode,
    id::{CommandId, MachineToken, Sha256},
    output::OutputStream,
};

use crate::plan::Work;

/// One wish, as it was asked and answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Told {
    /// The command.
    pub(crate) command: CommandId,
    /// The machines that it was for, sorted.
    pub(crate) machines: Vec<MachineToken>,
    /// What it does.
    pub(crate) work: Work,
    /// Its text.
    pub(crate) text: String,
    /// How long it may run, ms.
    pub(crate) timeout_ms: u64,
    /// Whether a bridge granted it.
    pub(crate) by_http: bool,
    /// When it was first asked for, Unix ms.
    pub(crate) asked_at: u64,
    /// What was heard.
    pub(crate) submit: Word,
    /// What was heard of the wish to cancel it, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cancel: Option<Word>,
}

/// The last word about one wish.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Word {
    /// Acknowledged: it is stored. Of a cancel, how many runs had not ended; of a submit, how many machines it is for.
    Accepted(u64),
    /// Refused at the first try: it is not stored.
    Refused(ErrorCode, String),
    /// Nobody knows, after so many tries: an answer is lost, or says that nothing is promised.
    Unknown(u32),
}

/// A piece of output, without its bytes: what they must be is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Piece {
    /// Which stream.
    pub(crate) stream: OutputStream,
    /// Where it begins.
    pub(crate) offset: u64,
    /// Bytes.
    pub(crate) len: u64,
    /// Of the bytes.
    pub(crate) sha256: Sha256,
    /// How they begin, for people.
    pub(crate) begins: String,
}

/// How much of a piece is kept for people, bytes.
const SHOWN: usize = 48;

impl Piece {
    /// Of these bytes.
    pub(crate) fn of(stream: OutputStream, offset: u64, bytes: &[u8]) -> Self {
        let shown = bytes.get(..SHOWN).unwrap_or(bytes);
        let begins = String::from_utf8_lossy(shown).into_owned();
        Self { stream, offset, len: bytes.len() as u64, sha256: Sha256::of(bytes), begins }
    }

    /// Where it ends.
    pub(crate) fn end(&self) -> u64 {
        self.offset.saturating_add(self.len)
    }
}

/// What a slow reader saw of one run in one feed, in the order in which it came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SlowRead {
    /// The command.
    pub(crate) command: CommandId,
    /// The machine, by its id.
    pub(crate) machine: String,
    /// The pieces.
    pub(crate) pieces: Vec<Piece>,
}

/// Everything that operators asked and heard.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Said {
    /// By the time they were asked for.
    pub(crate) told: Vec<Told>,
    /// What slow readers saw.
    pub(crate) slow: Vec<SlowRead>,
}
