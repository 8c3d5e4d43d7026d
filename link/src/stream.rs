//! Making streams, looking at them, and taking things out of them.

use std::time::Duration;

use async_nats::jetstream::stream::{
    Compression, Config, DiscardPolicy, Info, Republish, RetentionPolicy, StorageType,
};
use serde_json::json;
use signalbox_schemas::stream::{Discard, Storage, StreamDef};

use crate::api::{ApiError, DELETE_FAILED, SEQUENCE_NOT_FOUND, STREAM_NOT_FOUND};
use crate::connect::Link;
use crate::error::StreamError;
use crate::read::unix_ms;

/// The server's words for a sequence that was deleted, and for one that the stream has not reached.
const NOTHING_THERE: [&str; 2] = ["no message found", "stream store EOF"];

/// What a stream holds now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamState {
    /// When it was made, Unix milliseconds. A stream that was deleted and made anew has another.
    pub created_ms: u64,
    /// Sequence of the first message it still holds; last + 1 when empty.
    pub first: u64,
    /// Sequence of the last message ever stored; 0 if none ever was.
    pub last: u64,
    /// Messages it holds.
    pub messages: u64,
    /// Their size with headers, bytes.
    pub bytes: u64,
    /// Largest allowed size, bytes; none = no limit of its own.
    pub max_bytes: Option<u64>,
    /// Servers that keep a copy of it.
    pub replicas: usize,
}

impl Link {
    /// Makes the stream if it does not exist, with as many replicas as [`Options`](crate::Options) say. If it does exist, sizes, ages and replicas are the administrator's and
    /// are left alone, but what the system relies on must be as defined.
    ///
    /// # Errors
    /// [`StreamError`]; [`StreamError::Mismatch`] names the first setting that differs.
    pub async fn ensure_stream(&self, def: &StreamDef) -> Result<StreamState, StreamError> {
        let existing = match self.stream_info(def.name).await {
            Ok(info) => info,
            Err(StreamError::Missing { .. }) => {
                // Somebody may make it in the same moment: creating it with the same settings is no error.
                let made = self
                    .api::<Info>(format!("STREAM.CREATE.{}", def.name), &config(def, self.replicas))
                    .await;
                return made.map(|info| state(&info)).map_err(|error| failed(def.name, error));
            }
            Err(error) => return Err(error),
        };
        match mismatch(&existing.config, &config(def, self.replicas)) {
            Some(setting) => Err(StreamError::Mismatch { stream: def.name.to_owned(), setting }),
            None => Ok(state(&existing)),
        }
    }

    /// What the stream holds now, from its leader.
    ///
    /// # Errors
    /// [`StreamError`].
    pub async fn stream_state(&self, name: &str) -> Result<StreamState, StreamError> {
        self.stream_info(name).await.map(|info| state(&info))
    }

    /// Removes all messages whose subject matches; answers how many.
    ///
    /// # Errors
    /// [`StreamError`].
    pub async fn purge_subject(&self, name: &str, filter: &str) -> Result<u64, StreamError> {
        #[derive(serde::Deserialize)]
        struct Purged {
            purged: u64,
        }
        let answer = self.api::<Purged>(format!("STREAM.PURGE.{name}"), &json!({ "filter": filter })).await;
        answer.map(|purged| purged.purged).map_err(|error| failed(name, error))
    }

    /// Removes one message, without overwriting its bytes on disk. Answers whether it was there.
    ///
    /// # Errors
    /// [`StreamError`].
    pub async fn delete_message(&self, name: &str, sequence: u64) -> Result<bool, StreamError> {
        #[derive(serde::Deserialize)]
        struct Deleted {
            #[serde(rename = "success")]
            _success: bool,
        }
        let body = json!({ "seq": sequence, "no_erase": true });
        let answer = self.api::<Deleted>(format!("STREAM.MSG.DELETE.{name}"), &body).await;
        match answer {
            Ok(_) => Ok(true),
            Err(ApiError::Refused { code: SEQUENCE_NOT_FOUND, .. }) => Ok(false),
            // One code for every failure; the words tell.
            Err(ApiError::Refused { code: DELETE_FAILED, description })
                if NOTHING_THERE.contains(&description.as_str()) =>
            {
                Ok(false)
            }
            Err(error) => Err(failed(name, error)),
        }
    }

    pub(crate) async fn stream_info(&self, name: &str) -> Result<Info, StreamError> {
        self.api::<Info>(format!("STREAM.INFO.{name}"), &()).await.map_err(|error| failed(name, error))
    }
}

pub(crate) fn state(info: &Info) -> StreamState {
    StreamState {
        created_ms: unix_ms(info.created),
        first: info.state.first_sequence,
        last: info.state.last_sequence,
        messages: info.state.messages,
        bytes: info.state.bytes,
        max_bytes: u64::try_from(info.config.max_bytes).ok().filter(|bytes| *bytes > 0),
        replicas: info.config.num_replicas,
    }
}

pub(crate) fn failed(name: &str, error: ApiError) -> StreamError {
    let stream = name.to_owned();
    match error {
        ApiError::Refused { code: STREAM_NOT_FOUND, .. } => StreamError::Missing { stream },
        ApiError::Refused { code, description } => StreamError::Refused { stream, code, description },
        ApiError::Unanswered(source) => StreamError::Unanswered { stream, source },
    }
}

/// The definition in the server's terms. -1 is its «no limit».
fn config(def: &StreamDef, replicas: u8) -> Config {
    let limit = |value: Option<u64>| value.map_or(-1, |value| i64::try_from(value).unwrap_or(i64::MAX));
    let millis = |value: Option<u64>| value.map_or(Duration::ZERO, Duration::from_millis);
    Config {
        name: def.name.to_owned(),
        subjects: def.subjects.clone(),
        storage: match def.storage {
            Storage::File => StorageType::File,
            Storage::Memory => StorageType::Memory,
        },
        retention: RetentionPolicy::Limits,
        discard: match def.discard {
            Discard::Old => DiscardPolicy::Old,
            Discard::New => DiscardPolicy::New,
        },
        max_age: millis(def.max_age_ms),
        max_bytes: limit(def.max_bytes),
        max_messages: -1,
        max_messages_per_subject: limit(def.max_msgs_per_subject),
        max_message_size: def.max_message_bytes.map_or(-1, |size| i32::try_from(size).unwrap_or(i32::MAX)),
        max_consumers: -1,
        discard_new_per_subject: def.discard_new_per_subject,
        allow_direct: def.allow_direct,
        deny_delete: def.deny_delete,
        deny_purge: def.deny_purge,
        no_ack: def.no_ack,
        allow_atomic_publish: def.allow_atomic,
        republish: def.republish.clone().map(|(source, destination)| Republish {
            source,
            destination,
            headers_only: false,
        }),
        duplicate_window: millis(def.duplicate_window_ms),
        num_replicas: replicas.into(),
        compression: def.compress.then_some(Compression::S2),
        ..Config::default()
    }
}

/// The first setting that the system relies on and that is not as wanted.
fn mismatch(is: &Config, wanted: &Config) -> Option<&'static str> {
    let sorted = |subjects: &[String]| {
        let mut subjects = subjects.to_vec();
        subjects.sort();
        subjects
    };
    let settings = [
        ("subjects", sorted(&is.subjects) == sorted(&wanted.subjects)),
        ("storage", is.storage == wanted.storage),
        ("retention", is.retention == wanted.retention),
        ("discard", is.discard == wanted.discard),
        ("discard_new_per_subject", is.discard_new_per_subject == wanted.discard_new_per_subject),
        ("max_msgs_per_subject", is.max_messages_per_subject == wanted.max_messages_per_subject),
        ("allow_direct", is.allow_direct == wanted.allow_direct),
        ("deny_delete", is.deny_delete == wanted.deny_delete),
        ("deny_purge", is.deny_purge == wanted.deny_purge),
        ("no_ack", is.no_ack == wanted.no_ack),
        ("allow_atomic", is.allow_atomic_publish == wanted.allow_atomic_publish),
        ("republish", is.republish == wanted.republish),
        // Each of these would let a header change what is stored for somebody else.
        ("allow_rollup_hdrs", is.allow_rollup == wanted.allow_rollup),
        ("allow_msg_ttl", is.allow_message_ttl == wanted.allow_message_ttl),
        ("allow_msg_schedules", is.allow_message_schedules == wanted.allow_message_schedules),
        ("allow_msg_counter", is.allow_message_counter == wanted.allow_message_counter),
        ("allow_batched", is.allow_batch_publish == wanted.allow_batch_publish),
        // Each of these would make the stream hold something else than what was published to it.
        ("sealed", is.sealed == wanted.sealed),
        ("mirror", is.mirror == wanted.mirror),
        ("sources", is.sources == wanted.sources),
        ("subject_transform", is.subject_transform == wanted.subject_transform),
        ("persist_mode", is.persist_mode.is_none()),
    ];
    settings.into_iter().find_map(|(setting, holds)| (!holds).then_some(setting))
}
