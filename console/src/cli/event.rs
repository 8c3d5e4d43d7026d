//! The lines of `run --json`. Pure; fixed, others read them.

use data_encoding::BASE64;
use serde::Serialize;
use signalbox_schemas::{
    api::{Counts, RolloutView, RunView},
    id::{CommandId, MachineId},
    output::OutputStream,
    signed::PublicKey,
};

use super::clean;
use crate::client::flow::Piece;

/// One line.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event<'a> {
    /// The key of a machine is known here from now on.
    Trusted {
        /// The machine.
        machine: &'a MachineId,
        /// The key that its relay signs with.
        key: &'a PublicKey,
        /// Whether it was known by another one.
        replaced: bool,
    },
    /// The command is accepted.
    Accepted {
        /// Its id.
        id: CommandId,
        /// Its machines, sorted.
        targets: &'a [MachineId],
    },
    /// Output.
    Output {
        /// The machine.
        machine: &'a MachineId,
        /// `stdout` or `stderr`.
        stream: OutputStream,
        /// Offset of the first byte within its stream.
        offset: u64,
        /// Standard base64 with padding.
        data: String,
    },
    /// A run is in another state, or its end is known.
    Run(&'a RunView),
    /// It spreads further, or does not any more.
    Rollout(&'a RolloutView),
    /// The wait of `exec` was over before the command.
    GaveUp {
        /// The command.
        id: CommandId,
        /// Runs that had not ended and are cancelled; `null`: it goes on, as far as is known.
        cancelling: Option<u32>,
        /// The exit code of this program.
        exit: u8,
    },
    /// Everything has settled.
    Done {
        /// Runs by state.
        counts: &'a Counts,
        /// The exit code of this program.
        exit: u8,
    },
}

impl<'a> Event<'a> {
    /// Output as a line.
    pub fn output(piece: &'a Piece) -> Self {
        let data = BASE64.encode(&piece.data);
        Self::Output { machine: &piece.machine, stream: piece.stream, offset: piece.offset, data }
    }

    /// The line, with its end.
    pub fn line(&self) -> Vec<u8> {
        line(self)
    }
}

/// A value as one line of JSON, with its end.
pub fn line<T: Serialize>(value: &T) -> Vec<u8> {
    // Our types always have a JSON form: string keys, no maps of other kinds, finite numbers or null.
    let mut text = clean::json(&serde_json::to_string(value).unwrap_or_default());
    text.push('\n');
    text.into_bytes()
}
