//! One relay per store, and the locks of files.

use std::{
    fs::{self, File, OpenOptions, create_dir_all},
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
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
/// How often a lock that is waited for is tried.
const POLL: Duration = Duration::from_millis(5);

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

/// Makes a store's folder (0700), with its parents, where it is missing.
pub(crate) fn make_store(store: &Path) -> io::Result<()> {
    if let Some(parent) = store.parent() {
        create_dir_all(parent)?;
    }
    make_private_folder(store)
}

/// A lock file, or who has it.
pub(crate) enum Held {
    /// This process, until the file is closed.
    Here(File),
    /// Another one: its pid, where the file says so.
    Elsewhere(Option<u32>),
}

/// Takes the lock of a file, making that (0600) where it is missing, and writes there who has it. Does not wait.
pub(crate) fn take(path: &Path) -> io::Result<Held> {
    let mut options = OpenOptions::new();
    let options = options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let mut file = options.open(path)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => {
            let mut text = String::new();
            let read = file.take(MAX_FILE_BYTES).read_to_string(&mut text).ok();
            return Ok(Held::Elsewhere(read.and_then(|_| text.trim().parse().ok())));
        }
        Err(errno) => return Err(errno.into()),
    }
    let written = file.set_len(0).and_then(|()| file.rewind());
    if let Err(error) = written.and_then(|()| writeln!(file, "{}", std::process::id())) {
        // It is for people. What counts is the lock, and that is had on a full disk too.
        tracing::warn!(%error, "lock file does not say who holds it");
    }
    Ok(Held::Here(file))
}

/// Takes the lock of a file as [`take`] does, and waits for it for so long.
pub(crate) fn take_within(path: &Path, wait: Duration) -> io::Result<Held> {
    let until = Instant::now() + wait;
    loop {
        let pid = match take(path)? {
            Held::Here(file) if is_at(&file, path) => return Ok(Held::Here(file)),
            // One that was removed meanwhile keeps nobody away.
            Held::Here(_) => None,
            Held::Elsewhere(pid) => pid,
        };
        if Instant::now() >= until {
            return Ok(Held::Elsewhere(pid));
        }
        thread::park_timeout(POLL);
    }
}

/// Whether `file` is what lies at `path`: it may have been removed, and somebody else have made it anew.
pub(crate) fn is_at(file: &File, path: &Path) -> bool {
    let place = fs::metadata(path).map(|found| identity(&found)).ok();
    place.is_some() && file.metadata().map(|held| identity(&held)).ok() == place
}

impl Lock {
    /// Takes the store, making it (0700) where it is missing.
    ///
    /// # Errors
    /// [`LockError`].
    pub fn acquire(store: &Path) -> Result<Self, LockError> {
        let failed = |source| LockError::Store { store: store.to_owned(), source };
        make_store(store).map_err(failed)?;
        match take(&store.join(FILE)).map_err(failed)? {
            Held::Here(file) => Ok(Self { store: store.to_owned(), file }),
            Held::Elsewhere(pid) => Err(LockError::InUse { store: store.to_owned(), pid }),
        }
    }

    /// Takes the store again if its file was removed, with the store or alone: somebody else may have made it anew.
    ///
    /// # Errors
    /// [`LockError`]; with [`LockError::InUse`] this relay is not the store's any more.
    pub(crate) fn hold(&mut self) -> Result<(), LockError> {
        if !is_at(&self.file, &self.store.join(FILE)) {
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
