//! What can go wrong with a keeper, on its own side and on the relay's.

use std::{io, path::PathBuf};

use signalbox_schemas::id::CommandId;
use tokio::task::JoinError;

use super::protocol::{FrameError, PROTOCOL_VERSION};

/// The keeper, or the relay's connection to it, failed.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// The store folder cannot be made or used.
    #[error("store `{}` cannot be used", path.display())]
    Store {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The store folder belongs to somebody else.
    #[error("store `{}` belongs to another user", path.display())]
    ForeignStore {
        /// The folder.
        path: PathBuf,
    },
    /// Another keeper serves this store. Retryable once that one has ended.
    #[error("`{}` is held by another keeper{}", path.display(), pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default())]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// The holder, where the file says so.
        pid: Option<u32>,
    },
    /// The lock file cannot be made or locked.
    #[error("`{}` cannot be locked", path.display())]
    Lock {
        /// The lock file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The lock file was removed or replaced; children were ended.
    #[error("`{}` is no longer this keeper's", path.display())]
    LockLost {
        /// The lock file.
        path: PathBuf,
    },
    /// The socket cannot be made.
    #[error("cannot listen on `{}`", path.display())]
    Listen {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The system refused something that a keeper cannot be without.
    #[error("{what}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A task of the keeper panicked; children were ended.
    #[error("a task of the keeper panicked")]
    Panicked(#[source] JoinError),
    /// The keeper's program cannot be started.
    #[error("cannot start a keeper from `{}`", exe.display())]
    Spawn {
        /// The program.
        exe: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Nobody answers on the socket. Retryable.
    #[error("no keeper answers on `{}`", path.display())]
    NotReady {
        /// The socket.
        path: PathBuf,
    },
    /// The socket is served by another user.
    #[error("`{}` is served by another user", path.display())]
    ForeignKeeper {
        /// The socket.
        path: PathBuf,
    },
    /// The keeper speaks another protocol version; its runs are left alone.
    #[error("the keeper speaks protocol version {theirs}, this relay {}", PROTOCOL_VERSION)]
    Version {
        /// The keeper's.
        theirs: u32,
    },
    /// The keeper is gone; what it ran is lost.
    #[error("the keeper is gone")]
    Gone,
    /// The connection carries what it should not.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A spool file is there and cannot be read.
    #[error("the spool of {cid} cannot be read")]
    Spool {
        /// The command.
        cid: CommandId,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}
