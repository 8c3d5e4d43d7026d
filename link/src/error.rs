//! What can go wrong, one type per family of operations.
//!
//! Each variant says whether trying again makes sense. Nobody has to read a text to decide.

use std::time::Duration;

/// A boxed cause from the client library.
pub(crate) type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Credentials could not be read or used.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// The file could not be read. Not retryable without help.
    #[error("credentials file {path} cannot be read")]
    File {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The text lacks one of its two blocks.
    #[error("credentials have no {block} block")]
    MissingBlock {
        /// `USER JWT` or `USER NKEY SEED`.
        block: &'static str,
    },
    /// The seed is not the seed of a user key.
    #[error("login seed is not a user seed")]
    Seed,
    /// The token is not a token.
    #[error("login token cannot be read")]
    Token,
    /// The token was made for another key.
    #[error("login token is for another key")]
    OtherKey,
}

/// No connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The URL is not one. Not retryable.
    #[error("broker url {url:?} is not valid")]
    Url {
        /// As given.
        url: String,
    },
    /// The URL has a user name or a password in it. Not retryable.
    #[error(
        "broker url {url} has a user name or password in it; name it without, credentials come from a file"
    )]
    UserInfo {
        /// Scheme, host and port.
        url: String,
    },
    /// The server refused the login, or asked for a signature that is never given (see [`crate::login`]).
    /// Not retryable with the same credentials.
    #[error("broker at {url} refused the login")]
    Refused {
        /// The broker.
        url: String,
        /// Why.
        #[source]
        source: Cause,
    },
    /// Nobody there, or not a NATS server. Retryable.
    #[error("no connection to the broker at {url}")]
    Unreachable {
        /// The broker.
        url: String,
        /// Why.
        #[source]
        source: Cause,
    },
    /// Connected, but the server did not answer a first question in time. Retryable.
    #[error("broker at {url} does not answer")]
    Silent {
        /// The broker.
        url: String,
    },
}

/// A message without acknowledgement was not handed to the connection.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// Larger than this connection may send. Not retryable.
    #[error("message of {size} bytes is above the limit of {limit}")]
    TooLarge {
        /// Payload and headers, bytes.
        size: usize,
        /// Most that is allowed, bytes.
        limit: usize,
    },
    /// Not a subject. Not retryable.
    #[error("subject {subject:?} is not valid")]
    Subject {
        /// As given.
        subject: String,
    },
    /// The outgoing queue stayed full (no connection) or the link was closed. Retryable.
    #[error("message was not taken within {waited:?}")]
    Stalled {
        /// How long it was tried.
        waited: Duration,
    },
}

/// A message was not, or not surely, stored.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The subject already stands beyond the expected sequence (codes 10071, 10164). Somebody else was first,
    /// or an earlier attempt of one's own: read it back. Never retried as it is.
    #[error("another message stands there")]
    Taken {
        /// Sequence that stands there, where the server names it.
        last: Option<u64>,
    },
    /// The stream, its server or its account has no room (10077 and its kin). Not stored; retryable later.
    #[error("stream is full")]
    Full,
    /// No answer in time: lost, not sent, no such stream right now, or no connection. **May be stored**, and a
    /// message that waited in the queue of a broken connection is sent when it is back. Retryable by those
    /// whose repeats are harmless.
    #[error("no acknowledgement within {waited:?}")]
    Unanswered {
        /// How long it was awaited.
        waited: Duration,
    },
    /// Larger than this connection may send. Not sent, not retryable.
    #[error("message of {size} bytes is above the limit of {limit}")]
    TooLarge {
        /// Payload and headers, bytes.
        size: usize,
        /// Most that is allowed, bytes.
        limit: usize,
    },
    /// The server or this crate refused it for another reason. Not stored, not retryable as it is.
    #[error("message was refused with code {code}: {description}")]
    Refused {
        /// The server's error code; 0 when it never got there.
        code: u64,
        /// The server's words.
        description: String,
    },
}

impl StoreError {
    /// Whether the same message may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Full | Self::Unanswered { .. } => true,
            Self::Taken { .. } | Self::TooLarge { .. } | Self::Refused { .. } => false,
        }
    }
}

/// A stored message could not be read. «Not there» is not an error.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// No answer in time. Retryable.
    #[error("no answer from stream {stream} within {waited:?}")]
    Unanswered {
        /// The stream.
        stream: String,
        /// How long it was awaited.
        waited: Duration,
    },
    /// The server refused. Not retryable as it is, except after the stream came to be.
    #[error("reading stream {stream} was refused with {code}: {description}")]
    Refused {
        /// The stream.
        stream: String,
        /// Status or error code.
        code: u64,
        /// The server's words.
        description: String,
    },
    /// The answer makes no sense. Not retryable.
    #[error("answer of stream {stream} cannot be read")]
    Malformed {
        /// The stream.
        stream: String,
    },
}

/// Following a stream cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// The stream does not exist (any more). The reader has to make it, and start from the beginning.
    #[error("stream {stream} does not exist")]
    Gone {
        /// The stream.
        stream: String,
    },
    /// The stream was deleted and made anew since the reader began. Positions in it mean nothing now.
    #[error("stream {stream} was made anew")]
    Recreated {
        /// The stream.
        stream: String,
        /// When the new one was made, Unix milliseconds.
        created_ms: u64,
    },
    /// The stream ends before the reader's position: its end was lost. Positions mean nothing now.
    #[error("stream {stream} ends at {last}, before the position {position}")]
    Rewound {
        /// The stream.
        stream: String,
        /// Its last sequence.
        last: u64,
        /// Last sequence that was delivered.
        position: u64,
    },
    /// The server will not let us. Not retryable.
    #[error("following stream {stream} was refused with code {code}: {description}")]
    Refused {
        /// The stream.
        stream: String,
        /// The server's error code.
        code: u64,
        /// The server's words.
        description: String,
    },
    /// The link was closed.
    #[error("link is closed")]
    Closed,
}

/// A stream could not be made, read about or changed.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// It exists with a setting that must hold and does not. Needs the administrator.
    #[error("stream {stream} has another {setting}")]
    Mismatch {
        /// The stream.
        stream: String,
        /// Name of the setting, as in the server's configuration.
        setting: &'static str,
    },
    /// It does not exist.
    #[error("stream {stream} does not exist")]
    Missing {
        /// The stream.
        stream: String,
    },
    /// No answer in time. Retryable.
    #[error("no answer about stream {stream}")]
    Unanswered {
        /// The stream.
        stream: String,
        /// Why.
        #[source]
        source: Cause,
    },
    /// The server refused. Not retryable as it is.
    #[error("stream {stream}: refused with code {code}: {description}")]
    Refused {
        /// The stream.
        stream: String,
        /// The server's error code.
        code: u64,
        /// The server's words.
        description: String,
    },
}

/// A subscription could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SubscribeError {
    /// Not a subject. Not retryable.
    #[error("subject {subject:?} is not valid")]
    Subject {
        /// As given.
        subject: String,
    },
    /// The outgoing queue stayed full (no connection) or the link was closed. Retryable.
    #[error("subscription was not taken within {waited:?}")]
    Stalled {
        /// How long it was tried.
        waited: Duration,
    },
}
