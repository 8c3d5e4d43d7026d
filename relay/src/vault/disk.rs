//! Files of a vault: reading them with bounds, and the lock that those who change one hold.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Read as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
    time::Duration,
};

use rustix::fs::OFlags;
use zeroize::Zeroizing;

use super::VaultError;
use crate::lock::{self, Held};

/// A change takes a fraction of a second; who holds the lock for longer than this hangs.
const LOCK_WAIT: Duration = Duration::from_secs(10);

/// What tells one content of a file from another: each change makes another file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    file: (u64, u64),
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    /// Permission bits.
    pub(super) mode: u32,
}

impl Stamp {
    fn of(found: &fs::Metadata) -> Self {
        Self {
            file: (found.dev(), found.ino()),
            length: found.len(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
            mode: found.mode() & 0o777,
        }
    }
}

/// Bytes of a file, and which content they are.
pub(super) type Read = (Zeroizing<Vec<u8>>, Stamp);

/// Turns what the system says into an error about a path.
pub(super) fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> VaultError {
    let path = path.to_owned();
    move |source| VaultError::System { what, path, source }
}

/// The stamp of what lies at a path; absent where nothing does.
pub(super) fn stamp(path: &Path) -> Result<Option<Stamp>, VaultError> {
    match fs::metadata(path) {
        Ok(found) => Ok(Some(Stamp::of(&found))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("looked for", path)(error)),
    }
}

/// Reads a file: at most one byte more than `most`, so that the caller sees that it is longer. Absent where there is none.
pub(super) fn read(path: &Path, most: u64) -> Result<Option<Read>, VaultError> {
    let no_file = || io::Error::other("it is no regular file");
    let read = || -> io::Result<Read> {
        // Without waiting: a pipe in its place would hold whoever opens it.
        let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
        let flags = i32::try_from(flags.bits()).map_err(|_| no_file())?;
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
        let found = file.metadata()?;
        if !found.is_file() {
            return Err(no_file());
        }
        let most = most.saturating_add(1);
        // Room for all of it, so that nothing is left behind where it grew.
        let room = usize::try_from(found.len().min(most)).unwrap_or_default().saturating_add(1);
        let mut bytes = Zeroizing::new(Vec::with_capacity(room));
        file.take(most).read_to_end(&mut bytes)?;
        Ok((bytes, Stamp::of(&found)))
    };
    match read() {
        Ok(read) => Ok(Some(read)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("read", path)(error)),
    }
}

/// Takes from others what they could do with a file or folder of this user: nobody else needs them, and what they may have
/// read of the file without its secret are labels.
pub(super) fn hide(path: &Path, mode: u32) -> Result<(), VaultError> {
    let found = fs::metadata(path).map_err(failed("looked at", path))?.mode() & 0o777;
    if found & 0o077 != 0 {
        let mode_found = format!("{found:03o}");
        tracing::warn!(path = %path.display(), mode = mode_found, "others could read it; it is private again");
        fs::set_permissions(path, Permissions::from_mode(mode)).map_err(failed("made private", path))?;
    }
    Ok(())
}

/// Takes the lock of the vault at `vault`, waiting for its turn. The lock ends with the file that is answered.
pub(super) fn lock(path: &Path, vault: &Path) -> Result<File, VaultError> {
    lock_within(LOCK_WAIT, path, vault)
}

fn lock_within(wait: Duration, path: &Path, vault: &Path) -> Result<File, VaultError> {
    match lock::take_within(path, wait).map_err(failed("locked", path))? {
        Held::Here(file) => Ok(file),
        Held::Elsewhere(pid) => Err(VaultError::Busy { path: vault.to_owned(), pid }),
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn a_lock_that_is_held_says_by_whom_and_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let (path, vault) = (folder.path().join("vault.lock"), folder.path().join("vault.json"));
        let held = lock(&path, &vault).unwrap();
        let refused = lock_within(Duration::from_millis(30), &path, &vault).unwrap_err();
        assert!(refused.to_string().contains(&format!("pid {}", std::process::id())), "{refused}");
        thread::scope(|scope| {
            let waiting = scope.spawn(|| lock(&path, &vault));
            drop(held);
            waiting.join().unwrap().unwrap();
        });
    }

    #[test]
    fn a_lock_that_was_removed_keeps_nobody_away() {
        let folder = tempfile::tempdir().unwrap();
        let (path, vault) = (folder.path().join("vault.lock"), folder.path().join("vault.json"));
        let _held = lock(&path, &vault).unwrap();
        fs::remove_file(&path).unwrap();
        let _other = lock(&path, &vault).unwrap();
    }

    #[test]
    fn what_is_no_file_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        assert!(matches!(read(&path, 10), Err(VaultError::System { .. })));
        assert!(matches!(read(folder.path(), 10), Err(VaultError::System { .. })));
        assert!(read(&folder.path().join("none"), 10).unwrap().is_none());
    }

    #[test]
    fn no_more_is_read_than_may_be() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), [0; 100]).unwrap();
        assert_eq!(read(file.path(), 10).unwrap().unwrap().0.len(), 11);
        assert_eq!(read(file.path(), 100).unwrap().unwrap().0.len(), 100);
    }
}
