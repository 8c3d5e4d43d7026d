//! One relay per store.

use std::{
    fs::{self, File, OpenOptions, create_dir_all},
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};

use crate::keeper::{identity, make_private_folder};

/// Name of the file in the store.
const FILE: &str = "relay.lock";
/// So much of it is read to find out who holds it.
const MAX_FILE_BYTES: u64 = 64;

/// The store cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another relay has it.
    #[error("store `{}` is in use by another relay{}", store.display(), pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default())]
    InUse {
        /// The store.
        store: PathBuf,
        /// The holder, where the file says so.
        pid: Option<u32>,
    },
    /// The folder or the file cannot be made or locked.
    #[error("store `{}` cannot be used", store.display())]
    Store {
        /// The store.
        store: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// The right to be the only relay of a store, as long as the file stays where it is; ends with the process.
#[derive(Debug)]
pub struct Lock {
    store: PathBuf,
    file: File,
}

impl Lock {
    /// Takes the store, making it (0700) where it is missing.
    ///
    /// # Errors
    /// [`LockError`].
    pub fn acquire(store: &Path) -> Result<Self, LockError> {
        let failed = |source| LockError::Store { store: store.to_owned(), source };
        if let Some(parent) = store.parent() {
            create_dir_all(parent).map_err(failed)?;
        }
        make_private_folder(store).map_err(failed)?;
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = options.open(store.join(FILE)).map_err(failed)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                let mut text = String::new();
                let read = file.take(MAX_FILE_BYTES).read_to_string(&mut text).ok();
                let pid = read.and_then(|_| text.trim().parse().ok());
                return Err(LockError::InUse { store: store.to_owned(), pid });
            }
            Err(errno) => return Err(failed(errno.into())),
        }
        let written = file.set_len(0).and_then(|()| file.rewind());
        if let Err(error) = written.and_then(|()| writeln!(file, "{}", std::process::id())) {
            // It is for people. What counts is the lock, and that is had on a full disk too.
            tracing::warn!(%error, "lock file does not say who holds it");
        }
        Ok(Self { store: store.to_owned(), file })
    }

    /// Takes the store again if its file was removed, with the store or alone: somebody else may have made it anew.
    ///
    /// # Errors
    /// [`LockError`]; with [`LockError::InUse`] this relay is not the store's any more.
    pub(crate) fn hold(&mut self) -> Result<(), LockError> {
        let place = fs::metadata(self.store.join(FILE)).map(|found| identity(&found)).ok();
        if self.file.metadata().map(|held| identity(&held)).ok() != place || place.is_none() {
            *self = Self::acquire(&self.store)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_has_one_relay() {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("a/store");
        let lock = Lock::acquire(&store).unwrap();
        let refused = Lock::acquire(&store).unwrap_err();
        assert!(refused.to_string().contains(&format!("pid {}", std::process::id())), "{refused}");
        drop(lock);
        Lock::acquire(&store).unwrap();
    }

    #[test]
    fn a_lock_whose_file_takes_nothing_is_a_lock() {
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/dev/full", folder.path().join(FILE)).unwrap();
        let _lock = Lock::acquire(folder.path()).unwrap();
        assert!(matches!(Lock::acquire(folder.path()), Err(LockError::InUse { pid: None, .. })));
    }

    #[test]
    fn a_removed_lock_is_taken_again_unless_somebody_else_has_it() {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("store");
        let mut lock = Lock::acquire(&store).unwrap();
        lock.hold().unwrap();
        fs::remove_dir_all(&store).unwrap();
        lock.hold().unwrap();
        assert!(matches!(Lock::acquire(&store), Err(LockError::InUse { .. })), "it was not taken again");
        fs::remove_dir_all(&store).unwrap();
        let _other = Lock::acquire(&store).unwrap();
        assert!(matches!(lock.hold(), Err(LockError::InUse { .. })));
    }
}
