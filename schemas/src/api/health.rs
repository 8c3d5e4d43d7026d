//! How the system itself is: the bridge that answers, the streams, the broker, and what should be done about it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::BridgeId;

/// Everything that one bridge knows of how the system is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthView {
    /// `ok`, `starting` while streams are read, `degraded` without a broker, `ending` once its store has failed.
    pub status: String,
    /// The bridge that answers. Others may answer the next question.
    pub bridge: BridgeHealth,
    /// The broker, as that bridge sees it.
    pub broker: BrokerHealth,
    /// The streams, in the order in which they are made; a warning names those that did not answer, which are not in it. Empty
    /// until the broker has answered once.
    pub streams: Vec<StreamHealth>,
    /// When broker and streams were read, Unix ms; `null` = not yet. Younger than 10 s unless the broker does not answer.
    pub read_at: Option<u64>,
    /// What an operator should know, the worst first.
    pub warnings: Vec<Warning>,
    /// What that bridge has refused, dropped or doubled since it started, by reason.
    pub counters: BTreeMap<String, u64>,
}

/// One bridge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BridgeHealth {
    /// Its name: another one for each start.
    pub id: BridgeId,
    /// Its version.
    pub version: String,
    /// Since when it runs, Unix ms.
    pub since: u64,
    /// Whether it has read every stream up to the end that it had at the start.
    pub caught_up: bool,
    /// In which epoch it dispatches; `null`: another one does, or nobody.
    pub epoch: Option<u64>,
    /// The bridge that dispatches; `null`: nobody, or it is not known.
    pub lease_holder: Option<BridgeId>,
    /// By how much the clock of the bridge that dispatches is ahead of the broker's, ms, as far as its last renewal tells;
    /// `null` = not known.
    pub clock_ahead_ms: Option<i64>,
    /// How many messages each stream is ahead of what this bridge has read, by name of the stream.
    pub lag: BTreeMap<String, u64>,
}

/// The broker.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokerHealth {
    /// Whether the bridge has a connection to it.
    pub connected: bool,
    /// How often that was made.
    pub connects: u64,
    /// Version of the server that the bridge is connected to.
    pub version: String,
    /// Name of that server.
    pub server: String,
    /// Name of its cluster; `null`: it stands alone.
    pub cluster: Option<String>,
    /// Servers that keep streams, as far as the streams name them.
    pub servers: Vec<String>,
    /// Bytes that all streams of the account take on disk.
    pub store_bytes: u64,
    /// Most that they may take; `null` = no limit of the account.
    pub store_max_bytes: Option<u64>,
    /// The same in memory.
    pub memory_bytes: u64,
    /// Most that they may take in memory; `null` = no limit of the account.
    pub memory_max_bytes: Option<u64>,
    /// Requests to its API that failed, ever.
    pub api_errors: u64,
}

/// One stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamHealth {
    /// Its name.
    pub name: String,
    /// Messages it holds.
    pub messages: u64,
    /// Their size with headers, bytes, before compression.
    pub bytes: u64,
    /// Largest allowed size, bytes; `null` = no limit of its own.
    pub max_bytes: Option<u64>,
    /// How full it is, percent of `max_bytes`; `null` without a limit.
    pub fill_percent: Option<u8>,
    /// Whether it refuses new messages when it is full; others drop the oldest.
    pub refuses_when_full: bool,
    /// Messages older than this go, ms; `null` = never.
    pub max_age_ms: Option<u64>,
    /// When its oldest message was stored, Unix ms; `null` = it is empty.
    pub first_at: Option<u64>,
    /// When its newest message was stored, Unix ms; `null` = there never was one.
    pub last_at: Option<u64>,
    /// Copies that it should have.
    pub replicas: u32,
    /// The server that leads; `null` on a single server, or while there is none.
    pub leader: Option<String>,
    /// The other servers that keep a copy.
    pub followers: Vec<FollowerHealth>,
    /// What reads it on the broker's side.
    pub consumers: ConsumerHealth,
}

/// A server that keeps a copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FollowerHealth {
    /// Its name.
    pub name: String,
    /// Whether it has everything.
    pub current: bool,
    /// Whether the others take it for gone.
    pub offline: bool,
    /// Operations that it is behind.
    pub lag: u64,
    /// Since it was last heard, ms.
    pub silent_ms: u64,
}

/// The consumers of a stream, together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsumerHealth {
    /// How many there are.
    pub count: u64,
    /// Messages that are yet to be delivered.
    pub pending: u64,
    /// Messages that were delivered and not acknowledged.
    pub ack_pending: u64,
    /// Messages that are being delivered again.
    pub redelivered: u64,
}

/// How bad something is, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Good to know; nothing has to be done.
    Info,
    /// It will hurt.
    Warning,
    /// It hurts now.
    Critical,
}

impl Severity {
    /// The spelling on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// Something that an operator should know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    /// What kind of thing: `stream_full`, `authors_end`, `single_server`, ….
    pub code: String,
    /// How bad.
    pub severity: Severity,
    /// What is so, in one sentence without a full stop.
    pub text: String,
    /// What to do about it, likewise.
    pub advice: String,
}
