//! What relay and keeper say to each other over `STORE/keeper.sock`.
//!
//! A frame is a big-endian `u32` length and that many bytes of JSON. Both ends are the same user on the same
//! machine (checked by `SO_PEERCRED`), so there is no signature; output bytes never travel here, they are read
//! from the spool.
//!
//! ```text
//! relay                         keeper
//! hello{version}           ─▶
//!                          ◀─  welcome{version, nonce, instance, pid, runs: n}, then n × status
//! start{cid, …}            ─▶
//!                          ◀─  started{cid} | refused{cid, reason}, then status … status(ended)
//! forget{cid} decline{cid} ─▶
//! ```

use std::{fmt, io};

use bytes::{Buf as _, BytesMut};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use signalbox_schemas::{
    id::{CommandId, Nonce, Sha256},
    ssh::SshFault,
};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use zeroize::Zeroize as _;

use crate::ssh::route::Route;

/// Version of this protocol. A relay that meets another one leaves the keeper's runs alone.
pub const PROTOCOL_VERSION: u32 = 1;

/// Largest frame: an encoded command is at most 96 KiB, a status is below 1 KiB.
pub(crate) const MAX_FRAME_BYTES: usize = 256 * 1024;

/// Longest text of a fault, bytes.
pub const FAULT_TEXT_BYTES: usize = 400;

/// Bytes of the length before a frame.
const LENGTH_BYTES: usize = 4;

/// A run to be started.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartRun {
    /// The command.
    pub cid: CommandId,
    /// Text for `sh -c`.
    pub command: String,
    /// The run is ended this long after its start, ms, 1 to 172,800,000.
    pub timeout_ms: u64,
    /// Output kept from the beginning, both streams together, bytes.
    pub max_output: u64,
    /// What is left in the process group when the run is over by itself is left alone.
    pub leave_children: bool,
    /// When the command expires, Unix ms: its id is remembered until a day after that. Absent (0) from a relay that is
    /// older than this field; then the id is remembered for as long as the keeper lives.
    #[serde(default)]
    pub expires_at: u64,
    /// Where it begins. Absent: in the home folder of the keeper's user, as from a relay that is older than this field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<String>,
    /// The run is over only when both its pipes are closed, or `timeout_ms` has passed, and not 1 s after its shell. Not
    /// known to a keeper that is older than this field.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub await_pipes: bool,
    /// The host on which `command` is run, as it is, in place of this machine; `folder` then means nothing, and
    /// `leave_children` is what hosts do anyhow. Only said to a keeper that says `remote`: another one
    /// would run the command here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<Box<Route>>,
}

impl fmt::Debug for StartRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The command text stays out of logs.
        write!(f, "StartRun({}, {} bytes", self.cid, self.command.len())?;
        self.route.as_ref().map_or(Ok(()), |route| write!(f, ", on {}", route.place()))?;
        f.write_str(")")
    }
}

/// From the relay to the keeper.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum ToKeeper {
    /// The first frame of a connection.
    Hello {
        /// [`PROTOCOL_VERSION`] of the relay.
        version: u32,
    },
    /// Starts a run, once; a repeat answers `started` and changes nothing.
    Start(StartRun),
    /// Ends a run with TERM and KILL. Unknown and ended runs are left as they are.
    Cancel {
        /// The command.
        cid: CommandId,
    },
    /// The relay needs this run's output no more.
    Forget {
        /// The command.
        cid: CommandId,
    },
    /// This run was reported as never started: its id is remembered as forgotten, so that it never will be. Only said
    /// to a keeper that tells how many ids it can remember: older ones do not know it.
    Decline {
        /// The command.
        cid: CommandId,
        /// When it expires, Unix ms.
        expires_at: u64,
    },
    /// Ends all children and the keeper.
    Shutdown,
}

/// From the keeper to the relay.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum ToRelay {
    /// The answer to `hello`; `runs` status frames follow.
    Welcome(Greeting),
    /// The run was started by this keeper, now or earlier.
    Started {
        /// The command.
        cid: CommandId,
    },
    /// A `start` or `forget` was refused.
    Refused {
        /// The command.
        cid: CommandId,
        /// Why.
        reason: Refusal,
    },
    /// The newest state of a run.
    Status(Box<RunStatus>),
}

/// Who the keeper is.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Greeting {
    /// [`PROTOCOL_VERSION`] of the keeper.
    pub(crate) version: u32,
    /// The claim nonce of this keeper's life.
    pub(crate) nonce: Nonce,
    /// The public name of this keeper's life; stands in the environment of its processes.
    pub(crate) instance: Nonce,
    /// Its process id.
    pub(crate) pid: u32,
    /// How many status frames follow.
    pub(crate) runs: u32,
    /// How many more ids can be remembered. Absent from a keeper that is older than this field, and does not say.
    #[serde(default)]
    pub(crate) free: Option<u32>,
    /// Whether it runs commands on hosts behind this machine. Absent, and no, from a keeper that is older than this field.
    #[serde(default)]
    pub(crate) remote: bool,
}

impl fmt::Debug for Greeting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The claim nonce stays out of logs.
        f.debug_struct("Greeting")
            .field("instance", &self.instance)
            .field("pid", &self.pid)
            .finish_non_exhaustive()
    }
}

/// Why the keeper did not do what it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// `start`: it ran in this keeper's life and was forgotten since. It is never started again.
    Forgotten,
    /// `start`: the keeper remembers as many ids as it can. Only a new keeper starts anything again.
    JournalFull,
    /// `start`: too many runs are going on or wait to be forgotten. May be tried again.
    Busy,
    /// `start`: `timeout_ms` or `route` is out of range.
    Invalid,
    /// `start`: commands that expired no earlier are forgotten already, so nobody knows whether it ran. Only said to a
    /// relay that names `expires_at`.
    Expired,
    /// `forget`: it is still going on.
    Running,
    /// The keeper is about to end.
    ShuttingDown,
}

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Its processes may still be there.
    Running,
    /// It is over and `end` says how.
    Ended,
}

/// What is known of one run. Byte counts only grow; an ended run changes no more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunStatus {
    /// The command.
    pub cid: CommandId,
    /// Running or ended.
    pub phase: Phase,
    /// When the shell was started, Unix ms by this machine's clock; of a run on another host, when that was dialled.
    pub started_at_ms: u64,
    /// When the other host took the command, Unix ms by this machine's clock. Absent before, and for a run on this
    /// machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begun_at_ms: Option<u64>,
    /// Process id of the shell and id of its group. Absent when it could not be started, and for a run on another host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Standard output.
    pub stdout: StreamStatus,
    /// Standard error.
    pub stderr: StreamStatus,
    /// How it ended. Present exactly when `phase` is `ended`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<End>,
}

/// One output stream of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamStatus {
    /// Bytes the processes wrote.
    pub bytes: u64,
    /// Bytes from the beginning that can be read from the spool.
    pub kept: u64,
    /// SHA-256 of all `bytes`, kept or not. Present when the run has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Sha256>,
    /// Whether `kept` stops short of what was printed, and will not grow: of `bytes`, or of what another host still sent when
    /// the run was over.
    pub truncated: bool,
    /// The last bytes of a truncated stream. Present at the earliest when the run has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tail: Option<Tail>,
}

/// The end of a truncated stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tail {
    /// Where it begins in the stream, bytes; at least `kept`.
    pub offset: u64,
    /// Its length, bytes; `offset + len` is `bytes` of the stream.
    pub len: u64,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// When it was over, Unix ms by this machine's clock.
    pub ended_at_ms: u64,
    /// From start to over, ms, by the monotonic clock.
    pub duration_ms: u64,
    /// Why it ended.
    pub cause: Cause,
    /// Whether its process group was seen empty. `false` also for children that were left on request. Of a run on another
    /// host: whether nothing runs there, since it never began, or the host said how it ended.
    pub group_dead: bool,
    /// What went wrong beside `cause`: of a run on another host that was to be ended, what the host did not confirm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
}

/// What went wrong with a run on another host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// An [`SshFault`], as it is spelled.
    pub code: String,
    /// For people: clean text of at most [`FAULT_TEXT_BYTES`].
    pub message: String,
}

impl Fault {
    /// Takes a text over, without what is no text, and cut where it is too long.
    pub fn new(code: SshFault, message: &str) -> Self {
        let mut clean = String::new();
        for letter in message.chars().map(|letter| if letter.is_control() { ' ' } else { letter }) {
            if clean.len() + letter.len_utf8() > FAULT_TEXT_BYTES {
                break;
            }
            clean.push(letter);
        }
        Self { code: code.as_str().to_owned(), message: clean }
    }
}

/// Why a run ended: by itself, or what the keeper did first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Cause {
    /// The shell ended by itself with this exit code.
    Exited {
        /// 0 to 255.
        code: u8,
    },
    /// The shell was ended by a signal that the keeper did not send.
    Signalled {
        /// `SIGKILL`, `SIGRTMIN+1`, ...
        name: String,
    },
    /// `timeout_ms` passed.
    Timeout {
        /// How the shell ended then. Absent when it did not.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        shell: Option<ShellEnd>,
    },
    /// The relay asked.
    Cancelled {
        /// How the shell ended then. Absent when it did not.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        shell: Option<ShellEnd>,
    },
    /// No process came into being.
    SpawnFailed {
        /// What the system said, at most 200 characters.
        message: String,
    },
    /// It was not run on the other host, or nobody knows how it ended there.
    Fault(Fault),
}

/// How a shell ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ShellEnd {
    /// With this exit code, 0 to 255.
    Exited(u8),
    /// By this signal: `SIGKILL`, `SIGRTMIN+1`, ...
    Signalled(String),
}

impl From<ShellEnd> for Cause {
    fn from(end: ShellEnd) -> Self {
        match end {
            ShellEnd::Exited(code) => Self::Exited { code },
            ShellEnd::Signalled(name) => Self::Signalled { name },
        }
    }
}

/// A frame could not be read or written. Never retryable on the same connection.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The connection broke.
    #[error("the keeper connection broke")]
    Io(#[source] io::Error),
    /// The connection ended inside a frame.
    #[error("the keeper connection ended inside a frame")]
    Cut,
    /// A length above the limit was announced or asked for.
    #[error("a frame of {bytes} bytes is above the limit of {MAX_FRAME_BYTES}")]
    TooLarge {
        /// Its length.
        bytes: usize,
    },
    /// The bytes are no message of this protocol.
    #[error("a frame is no message of this protocol")]
    Malformed(#[source] serde_json::Error),
}

/// Appends one frame to `buffer`.
pub(crate) fn encode<T: Serialize>(message: &T, buffer: &mut Vec<u8>) -> Result<(), FrameError> {
    let begin = buffer.len();
    buffer.extend_from_slice(&[0; LENGTH_BYTES]);
    // Written in place: what is said to a keeper may hold secrets, and is in no other buffer then.
    let written = serde_json::to_writer(&mut *buffer, message).map_err(FrameError::Malformed);
    let bytes = buffer.len() - begin - LENGTH_BYTES;
    let fits = if bytes > MAX_FRAME_BYTES { Err(FrameError::TooLarge { bytes }) } else { Ok(()) };
    if let Err(error) = written.and(fits) {
        buffer.truncate(begin);
        return Err(error);
    }
    let length = u32::try_from(bytes).map_err(|_| FrameError::TooLarge { bytes })?;
    if let Some(place) = buffer.get_mut(begin..begin + LENGTH_BYTES) {
        place.copy_from_slice(&length.to_be_bytes());
    }
    Ok(())
}

/// Cuts a byte stream into frames.
pub(crate) struct FrameReader<R> {
    io: R,
    buffer: BytesMut,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub(crate) fn new(io: R) -> Self {
        Self { io, buffer: BytesMut::new() }
    }

    /// The next message, or `None` at a clean end.
    ///
    /// Cancel-safe: what was read stays in the buffer, which holds at most one frame and one read.
    pub(crate) async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, FrameError> {
        loop {
            if let Some(mut frame) = self.take_frame()? {
                let message = serde_json::from_slice(&frame).map(Some).map_err(FrameError::Malformed);
                // It may hold secrets. What the buffer held before it grew is freed as it was.
                frame.zeroize();
                return message;
            }
            if self.io.read_buf(&mut self.buffer).await.map_err(FrameError::Io)? == 0 {
                return if self.buffer.is_empty() { Ok(None) } else { Err(FrameError::Cut) };
            }
        }
    }

    fn take_frame(&mut self) -> Result<Option<BytesMut>, FrameError> {
        let Some(length) = self.buffer.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let bytes = u32::from_be_bytes(*length) as usize;
        if bytes > MAX_FRAME_BYTES {
            return Err(FrameError::TooLarge { bytes });
        }
        if self.buffer.len() < LENGTH_BYTES + bytes {
            self.buffer.reserve(LENGTH_BYTES + bytes - self.buffer.len());
            return Ok(None);
        }
        self.buffer.advance(LENGTH_BYTES);
        Ok(Some(self.buffer.split_to(bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cid() -> CommandId {
        "0193a2b4-0000-7000-8000-000000000000".parse().unwrap()
    }

    async fn read_all(mut bytes: &[u8]) -> Result<Vec<ToKeeper>, FrameError> {
        let mut reader = FrameReader::new(&mut bytes);
        let mut messages = Vec::new();
        while let Some(message) = reader.next().await? {
            messages.push(message);
        }
        Ok(messages)
    }

    #[tokio::test]
    async fn frames_are_read_as_they_were_written() {
        let mut bytes = Vec::new();
        encode(&ToKeeper::Hello { version: 1 }, &mut bytes).unwrap();
        encode(&ToKeeper::Cancel { cid: cid() }, &mut bytes).unwrap();
        let read = read_all(&bytes).await.unwrap();
        assert!(
            matches!(read[..], [ToKeeper::Hello { version: 1 }, ToKeeper::Cancel { cid: c }] if c == cid())
        );
    }

    #[tokio::test]
    async fn bad_frames_are_refused() {
        let mut whole = Vec::new();
        encode(&ToKeeper::Shutdown, &mut whole).unwrap();
        assert!(matches!(read_all(&whole[..whole.len() - 1]).await, Err(FrameError::Cut)));
        assert!(matches!(read_all(&[0xff; 8]).await, Err(FrameError::TooLarge { .. })));
        assert!(matches!(read_all(b"\0\0\0\x02{}").await, Err(FrameError::Malformed(_))));
        let long = "x".repeat(MAX_FRAME_BYTES);
        assert!(matches!(encode(&long, &mut Vec::new()), Err(FrameError::TooLarge { .. })));
    }

    #[test]
    fn debug_output_shows_neither_command_nor_nonce() {
        let start = StartRun {
            cid: cid(),
            command: "secret".into(),
            timeout_ms: 1,
            max_output: 1,
            leave_children: false,
            expires_at: 1,
            folder: None,
            await_pipes: false,
            route: None,
        };
        assert!(!format!("{:?}", ToKeeper::Start(start)).contains("secret"));
        let (nonce, instance) = (Nonce([0xab; 16]), Nonce([1; 16]));
        let greeting = Greeting { version: 1, nonce, instance, pid: 1, runs: 0, free: Some(1), remote: true };
        let text = format!("{:?}", ToRelay::Welcome(greeting));
        assert!(!text.contains("171") && !text.contains("abab"), "{text}");
    }

    /// Relay and keeper of one machine may be of different releases: a keeper outlives its relay.
    #[test]
    fn what_a_former_release_says_is_understood() {
        let start = r#"{"type":"start","cid":"0193a2b4-0000-7000-8000-000000000000","command":"true","timeout_ms":1,"max_output":1,"leave_children":false}"#;
        let ToKeeper::Start(start) = serde_json::from_str(start).unwrap() else { panic!("no start") };
        assert_eq!((start.expires_at, start.folder, start.await_pipes), (0, None, false));
        let id = "01".repeat(16);
        let greeting =
            format!(r#"{{"type":"welcome","version":1,"nonce":"{id}","instance":"{id}","pid":1,"runs":0}}"#);
        let ToRelay::Welcome(greeting) = serde_json::from_str(&greeting).unwrap() else {
            panic!("no welcome")
        };
        assert_eq!(greeting.free, None);
    }
}
