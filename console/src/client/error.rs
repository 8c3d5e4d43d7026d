//! What can go wrong between an operator and the bridges.

use std::{path::PathBuf, time::Duration};

use signalbox_link::{ConnectError, LoginError, PublishError, SubscribeError};
use signalbox_schemas::{
    error::{ErrorCode, Problem},
    id::CommandId,
    signed::SignedError,
};

/// An operation was not, or not surely, done.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// A file of the operator's identity cannot be read. Not retryable.
    #[error("{} cannot be read", .path.display())]
    Identity {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The signing seed is none. Not retryable.
    #[error("{} holds no signing seed", .0.display())]
    Seed(PathBuf),
    /// The login file cannot be used. Not retryable.
    #[error("the operator's login cannot be used")]
    Login(#[source] LoginError),
    /// Nothing was started with this state directory, or it was not told where the broker is.
    #[error("no broker is known for {}", .0.display())]
    NoBroker(PathBuf),
    /// No connection to the broker. Retryable.
    #[error("the broker cannot be reached")]
    Connect(#[source] ConnectError),
    /// The connection took nothing. Retryable.
    #[error("the request could not be sent")]
    Publish(#[source] PublishError),
    /// The connection took nothing. Retryable.
    #[error("no answer can be received")]
    Subscribe(#[source] SubscribeError),
    /// No bridge answered in time. Retryable; whether a change was made is not known.
    #[error("no bridge answered within {} s", .0.as_secs())]
    NoBridge(Duration),
    /// No bridge acknowledged a submit, several times. It may be accepted.
    #[error("nobody acknowledged it; whether {0} was accepted is not known")]
    Unsure(CommandId),
    /// The bridge refused. The code says whether it may pass later.
    #[error("{}", .0.message)]
    Refused(Problem),
    /// A bridge cannot do it just now. Retryable.
    #[error("{}", .0.message)]
    Busy(Problem),
    /// An answer makes no sense. Not retryable.
    #[error("the answer to {0} cannot be read")]
    Malformed(&'static str),
    /// A bridge answers with something else than was asked: it is of another version, or it lies. Not retryable.
    #[error("the bridge's answer is not to be trusted: {0}")]
    NotAsMeant(String),
    /// What should be signed cannot be. Not retryable.
    #[error("the request cannot be signed")]
    Sign(#[source] SignedError),
    /// The system gave no random bytes.
    #[error("the system has no random bytes")]
    Random,
    /// The connection was closed for good.
    #[error("the connection is closed")]
    Closed,
}

impl ClientError {
    /// As a refusal, for those who show refusals.
    pub fn problem(&self) -> Problem {
        match self {
            Self::Refused(problem) | Self::Busy(problem) => problem.clone(),
            other => Problem::new(ErrorCode::NotAccepted, signalbox_schemas::error::report(other)),
        }
    }

    /// What to do about it, as a clause; `None` when the message says so itself.
    pub fn advice(&self) -> Option<String> {
        Some(match self {
            Self::NoBroker(_) => "start it with `signalbox up`, or name the broker with --nats".to_owned(),
            Self::Identity { .. } | Self::Seed(_) | Self::Login(_) => {
                "choose another state directory with --state-dir, or make one with `signalbox up`".to_owned()
            }
            Self::Connect(_) | Self::NoBridge(_) | Self::Publish(_) | Self::Subscribe(_) => {
                "see whether `signalbox up` is running".to_owned()
            }
            Self::Unsure(id) => format!("look with `signalbox show {id}`"),
            Self::Refused(_) | Self::Busy(_) | Self::NotAsMeant(_) => return None,
            Self::Malformed(_) => "use the same version of console and bridge".to_owned(),
            Self::Sign(_) => "make it shorter".to_owned(),
            Self::Closed | Self::Random => "try again".to_owned(),
        })
    }
}
