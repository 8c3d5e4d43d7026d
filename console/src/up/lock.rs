//! One `up` per state directory.
//!
//! Two locks: one on the directory itself, which needs no file and so leaves nothing behind in a directory that
//! turns out to be somebody else's; and `STATE/lock` with our pid in it, for people.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};
use signalbox_schemas::layout::Layout;

/// The directory cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another `up` has it.
    #[error("{} is in use by `signalbox up`{}; stop it, or choose another with --state-dir", .path.display(), .pid.map_or(String::new(), |pid| format!(" (pid {pid})")))]
    InUse {
        /// The directory.
        path: PathBuf,
        /// Its process, if it said so.
        pid: Option<u32>,
    },
    /// It cannot be made or opened.
    #[error("{} cannot be used as a state directory", .path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A state directory that is ours until this is dropped.
#[derive(Debug)]
pub struct StateLock {
    root: PathBuf,
    /// The outermost directory that was made for it.
    made: Option<PathBuf>,
    was_empty: bool,
    directory: File,
    named: Option<File>,
}

/// Whether the lock is ours now; an error where locks do not work.
fn try_lock(file: &File) -> io::Result<bool> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

impl StateLock {
    /// Takes the directory; makes it if it is missing.
    ///
    /// # Errors
    /// [`LockError`].
    pub fn take(path: &Path) -> Result<Self, LockError> {
        let failed = |source| LockError::Directory { path: path.to_owned(), source };
        let made = path.ancestors().take_while(|folder| !folder.exists()).last().map(Path::to_owned);
        if made.is_some() {
            DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
        }
        // Children are told apart by the path they were started with: one directory, one path.
        let root = fs::canonicalize(path).map_err(failed)?;
        let directory = File::open(&root).map_err(failed)?;
        // By its real path too, to be compared.
        let made = made.map(|made| fs::canonicalize(&made)).transpose().map_err(failed)?;
        let mut lock = Self { root, made, was_empty: false, directory, named: None };
        if !lock.try_directory().map_err(failed)? {
            let pid = read_pid(&Layout::new(&lock.root).lock());
            return Err(LockError::InUse { path: lock.root.clone(), pid });
        }
        lock.was_empty = fs::read_dir(&lock.root).map_err(failed)?.next().is_none();
        Ok(lock)
    }

    fn try_directory(&self) -> io::Result<bool> {
        try_lock(&self.directory)
    }

    /// The directory by its real path.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Leaves our pid, once the directory is known to be one of ours.
    ///
    /// # Errors
    /// [`LockError`].
    pub fn name(&mut self) -> Result<(), LockError> {
        let path = Layout::new(&self.root).lock();
        let failed = |source| LockError::Directory { path: self.root.clone(), source };
        let options =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).clone();
        let mut file = options.open(&path).map_err(failed)?;
        if !try_lock(&file).map_err(failed)? {
            return Err(LockError::InUse { path: self.root.clone(), pid: read_pid(&path) });
        }
        file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(failed)?;
        self.named = Some(file);
        Ok(())
    }

    /// Leaves nothing behind of a start that failed: what was made in a directory that was empty or missing.
    pub fn undo(self) {
        if !self.was_empty {
            return;
        }
        let entries = fs::read_dir(&self.root).into_iter().flatten().flatten();
        for entry in entries {
            let path = entry.path();
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            if let Err(error) = removed {
                tracing::warn!(path = %path.display(), %error, "left behind");
            }
        }
        let Some(made) = &self.made else { return };
        // Only what is empty goes.
        for folder in self.root.ancestors().take_while(|folder| folder.starts_with(made)) {
            if let Err(error) = fs::remove_dir(folder) {
                tracing::warn!(path = %folder.display(), %error, "left behind");
                return;
            }
        }
    }
}

impl Drop for StateLock {
    fn drop(&mut self) {
        // The file stays, empty: removing it would let two processes hold locks on two files of one name.
        if let Some(file) = &self.named
            && let Err(error) = file.set_len(0)
        {
            tracing::debug!(%error, "pid stays in the lock file");
        }
    }
}

/// The pid in a pid file.
pub fn read_pid(path: &Path) -> Option<u32> {
    let mut text = String::new();
    // A pid has at most 10 digits; a file with more in it is none.
    File::open(path).ok()?.take(64).read_to_string(&mut text).ok()?;
    text.trim().parse().ok().filter(|pid| *pid > 1)
}

/// Writes a pid file, at once or not at all.
///
/// # Errors
/// That of the file system.
pub fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(text.as_bytes())?;
    drop(file);
    fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_start_leaves_no_directory_that_it_made() {
        let dir = tempfile::tempdir().unwrap();
        let ours = dir.path().join("ours");
        fs::create_dir(&ours).unwrap();
        let state = ours.join("made/by/us");
        let lock = StateLock::take(&state).unwrap();
        fs::write(state.join("nats.conf"), "").unwrap();
        lock.undo();
        assert!(ours.exists() && !ours.join("made").exists());
        // What somebody else put there meanwhile stays.
        let lock = StateLock::take(&state).unwrap();
        fs::write(ours.join("made/theirs"), "").unwrap();
        lock.undo();
        assert!(ours.join("made/theirs").exists() && !ours.join("made/by").exists());
        // A directory that was there is not ours to remove.
        let lock = StateLock::take(&ours).unwrap();
        lock.undo();
        assert!(ours.exists());
    }
}
