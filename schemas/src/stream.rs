//! The JetStream streams, as data.
//!
//! All of them live in the account CTRL. Streams that relays write to never allow rollup, TTL, schedules,
//! atomic batches or counters: a relay sets its own headers, and each of these would let a header change
//! what is stored for somebody else.

use crate::{
    audit::ENTRY_BYTES,
    event::EVENT_BYTES,
    history::FRAME_BYTES,
    limit::{DAY_MS, RECORD_BYTES, RELAY_PAYLOAD_BYTES},
};

/// Where a stream keeps its messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storage {
    /// On disk.
    File,
    /// In memory: gone with the server.
    Memory,
}

/// What a full stream does with a new message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Discard {
    /// Drops the oldest.
    Old,
    /// Refuses the new one.
    New,
}

/// One stream.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "these are the broker's own independent switches")]
pub struct StreamDef {
    /// Its name.
    pub name: &'static str,
    /// Subjects it stores, wildcards allowed.
    pub subjects: Vec<String>,
    /// Where.
    pub storage: Storage,
    /// Messages older than this go; none = never.
    pub max_age_ms: Option<u64>,
    /// Largest size of the whole stream.
    pub max_bytes: Option<u64>,
    /// Messages kept per subject.
    pub max_msgs_per_subject: Option<u64>,
    /// Largest message, headers included.
    pub max_message_bytes: Option<u32>,
    /// What a full stream does.
    pub discard: Discard,
    /// With [`Discard::New`]: also refuse when the *subject* is full. With one message per subject this is
    /// what makes a subject write-once.
    pub discard_new_per_subject: bool,
    /// Whether direct get works.
    pub allow_direct: bool,
    /// Whether single messages can be deleted.
    pub deny_delete: bool,
    /// Whether subjects can be purged.
    pub deny_purge: bool,
    /// Publishers get no acknowledgement.
    pub no_ack: bool,
    /// Several messages may be stored all or none.
    pub allow_atomic: bool,
    /// Stored messages are published again: from subject, to subject.
    pub republish: Option<(String, String)>,
    /// Whether it is compressed on disk. Only for what is written in large messages, seldom.
    pub compress: bool,
    /// How long message ids are remembered. Nobody uses ids; the shortest allowed keeps the cost away.
    pub duplicate_window_ms: Option<u64>,
}

impl StreamDef {
    fn file(name: &'static str, subjects: &[&str]) -> Self {
        Self {
            name,
            subjects: subjects.iter().map(ToString::to_string).collect(),
            storage: Storage::File,
            max_age_ms: None,
            max_bytes: None,
            max_msgs_per_subject: None,
            max_message_bytes: None,
            discard: Discard::Old,
            discard_new_per_subject: false,
            allow_direct: true,
            deny_delete: false,
            deny_purge: false,
            no_ack: false,
            allow_atomic: false,
            republish: None,
            compress: false,
            duplicate_window_ms: Some(2_000),
        }
    }
}

/// The bucket of entities.
pub const STATE: &str = "KV_state";
/// Commands: grants, specs, cancels.
pub const CMD: &str = "CMD";
/// Mailboxes.
pub const MBOX: &str = "MBOX";
/// Facts about runs.
pub const RUN: &str = "RUN";
/// Output.
pub const OUT: &str = "OUT";
/// Settled history.
pub const DONE: &str = "DONE";
/// Who dispatches.
pub const LEASE: &str = "KV_lease";
/// Newest heartbeats.
pub const HB: &str = "HB";
/// What relays keep.
pub const INV: &str = "INV";
/// Documents.
pub const DOC: &str = "DOC";
/// Events.
pub const EVT: &str = "EVT";
/// The history of figures.
pub const HIST: &str = "HIST";
/// The audit chain.
pub const AUDIT: &str = "AUDIT";

/// How long a lease lives without renewal on a single server.
pub const LEASE_MS: u64 = 3_000;

/// All streams, in the order in which they are made.
pub fn all() -> Vec<StreamDef> {
    vec![
        StreamDef {
            max_msgs_per_subject: Some(8),
            max_message_bytes: Some(size(RECORD_BYTES)),
            deny_delete: true,
            allow_atomic: true,
            ..StreamDef::file(STATE, &["$KV.state.>"])
        },
        StreamDef { max_age_ms: Some(10 * DAY_MS), ..StreamDef::file(CMD, &["cmd.*.*.*"]) },
        StreamDef {
            max_msgs_per_subject: Some(1),
            republish: Some(("mbox.*.*".into(), "live.mbox.{{wildcard(1)}}.{{wildcard(2)}}".into())),
            ..StreamDef::file(MBOX, &["mbox.*.*"])
        },
        StreamDef {
            max_age_ms: Some(9 * DAY_MS),
            max_bytes: Some(1 << 30),
            max_msgs_per_subject: Some(1),
            max_message_bytes: Some(size(RELAY_PAYLOAD_BYTES)),
            discard: Discard::New,
            discard_new_per_subject: true,
            ..StreamDef::file(RUN, &["run.*.*.*.*"])
        },
        StreamDef {
            max_age_ms: Some(9 * DAY_MS),
            max_bytes: Some(4 << 30),
            max_msgs_per_subject: Some(200_000),
            max_message_bytes: Some(size(RELAY_PAYLOAD_BYTES)),
            ..StreamDef::file(OUT, &["out.*.*.*"])
        },
        StreamDef { max_age_ms: Some(400 * DAY_MS), ..StreamDef::file(DONE, &["done.*.*"]) },
        StreamDef {
            max_age_ms: Some(LEASE_MS),
            max_msgs_per_subject: Some(1),
            ..StreamDef::file(LEASE, &["$KV.lease.>"])
        },
        StreamDef {
            storage: Storage::Memory,
            max_age_ms: Some(600_000),
            max_msgs_per_subject: Some(1),
            no_ack: true,
            republish: Some(("hb.*.*".into(), "live.hb.{{wildcard(1)}}.{{wildcard(2)}}".into())),
            ..StreamDef::file(HB, &["hb.*.*"])
        },
        StreamDef {
            max_bytes: Some(512 << 20),
            max_msgs_per_subject: Some(1),
            max_message_bytes: Some(size(RELAY_PAYLOAD_BYTES)),
            ..StreamDef::file(INV, &["inv.*.*"])
        },
        StreamDef { max_msgs_per_subject: Some(1), ..StreamDef::file(DOC, &["doc.>"]) },
        StreamDef {
            max_age_ms: Some(90 * DAY_MS),
            max_bytes: Some(256 << 20),
            max_message_bytes: Some(size(EVENT_BYTES)),
            ..StreamDef::file(EVT, &["evt.*.*"])
        },
        StreamDef {
            max_age_ms: Some(7 * DAY_MS),
            max_bytes: Some(512 << 20),
            max_message_bytes: Some(size(FRAME_BYTES)),
            compress: true,
            ..StreamDef::file(HIST, &["hist.*.*"])
        },
        StreamDef {
            max_age_ms: Some(400 * DAY_MS),
            max_message_bytes: Some(size(ENTRY_BYTES)),
            deny_delete: true,
            deny_purge: true,
            ..StreamDef::file(AUDIT, &["audit.*.*.*.*"])
        },
    ]
}

/// The stream of that name.
pub fn named(name: &str) -> Option<StreamDef> {
    all().into_iter().find(|stream| stream.name == name)
}

/// Headers are a few hundred bytes; twice the payload limit of 512 KiB still fits a `u32` by far.
fn size(payload: usize) -> u32 {
    u32::try_from(payload + 4096).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_relays_write_to_is_plain() {
        for stream in all() {
            if [RUN, OUT, HB, INV].contains(&stream.name) {
                assert!(!stream.allow_atomic, "{} takes batches from relays", stream.name);
            }
        }
    }

    #[test]
    fn the_register_is_write_once() {
        let run = named(RUN).unwrap();
        assert_eq!(run.max_msgs_per_subject, Some(1));
        assert_eq!(run.discard, Discard::New);
        assert!(run.discard_new_per_subject);
    }
}
