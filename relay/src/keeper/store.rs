//! The keeper's place: the store folder, its lock and its socket address.
//!
//! ```text
//! STORE/              0700
//!   keeper.lock       0600  held with flock while the keeper lives; {"pid", "instance", "started_at"}
//!   keeper.sock       0600
//!   keeper.log        0600  what the keeper says on stderr
//!   open/             0700  which runs are open, see `open`
//!   spool/            0700  output, see `spool`
//! ```

use std::{
    ffi::OsStr,
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, Read as _, Seek as _, Write as _},
    os::{
        fd::AsRawFd as _,
        unix::{
            ffi::OsStrExt as _,
            fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
        },
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};
use serde::{Deserialize, Serialize};
use signalbox_schemas::id::Nonce;

use super::KeeperError;

/// Longest socket path that fits `sockaddr_un` with its closing NUL (unix(7)).
const MAX_SOCKET_PATH_BYTES: usize = 107;
/// How often a lock file that was replaced while it was being locked is opened anew.
const LOCK_ATTEMPTS: u32 = 5;
/// Largest lock file that is read back for its pid.
const MAX_LOCK_FILE_BYTES: u64 = 4096;

/// An existing store folder that belongs to this user alone.
pub(crate) struct Store {
    root: PathBuf,
    folder: File,
}

impl Store {
    /// Opens `path`, making it where it is missing. Its parents must be there: a keeper that starts while its
    /// machine's folder is being removed does not bring it back.
    pub(crate) fn open(path: &Path) -> Result<Self, KeeperError> {
        let failed = |source| KeeperError::Store { path: path.to_owned(), source };
        make_private_folder(path).map_err(failed)?;
        let root = path.canonicalize().map_err(failed)?;
        let folder = File::open(&root).map_err(failed)?;
        if folder.metadata().map_err(failed)?.uid() != rustix::process::geteuid().as_raw() {
            return Err(KeeperError::ForeignStore { path: root });
        }
        folder.set_permissions(Permissions::from_mode(0o700)).map_err(failed)?;
        Ok(Self { root, folder })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    pub(crate) fn lock_path(&self) -> PathBuf {
        self.path("keeper.lock")
    }

    pub(crate) fn log_path(&self) -> PathBuf {
        self.path("keeper.log")
    }

    pub(crate) fn socket_path(&self) -> PathBuf {
        self.path("keeper.sock")
    }

    /// The socket's path in a spelling that fits an address, valid while `self` lives.
    pub(crate) fn socket_address(&self) -> PathBuf {
        let path = self.socket_path();
        if OsStr::as_bytes(path.as_os_str()).len() <= MAX_SOCKET_PATH_BYTES {
            return path;
        }
        PathBuf::from(format!("/proc/self/fd/{}/keeper.sock", self.folder.as_raw_fd()))
    }
}

/// Makes `path`, readable by this user alone, if it is not there.
pub(crate) fn make_private_folder(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        made => made,
    }
}

/// What stands in the lock file, for people.
#[derive(Debug, Serialize, Deserialize)]
struct LockFile {
    pid: u32,
    instance: Nonce,
    /// Unix ms.
    started_at: u64,
}

/// The right to be the only keeper of a store, as long as the file stays where it is.
pub(crate) struct Lock {
    path: PathBuf,
    file: File,
    identity: (u64, u64),
}

impl Lock {
    /// Takes the lock and says in it who holds it, where the disk takes that.
    ///
    /// # Errors
    /// [`KeeperError::Locked`] when another keeper holds it, [`KeeperError::Lock`] when it cannot be taken.
    pub(crate) fn acquire(store: &Store, instance: Nonce, started_at: u64) -> Result<Self, KeeperError> {
        let path = store.lock_path();
        let failed = |source| KeeperError::Lock { path: store.lock_path(), source };
        for _ in 0..LOCK_ATTEMPTS {
            let mut file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&path)
                .map_err(failed)?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => return Err(KeeperError::Locked { path, pid: read_pid(&mut file) }),
                Err(errno) => return Err(failed(errno.into())),
            }
            let identity = identity(&file.metadata().map_err(failed)?);
            let lock = Self { path: path.clone(), file, identity };
            // Between open and flock a former holder may have removed the file: then this lock is on nothing.
            if lock.is_in_place() {
                if let Err(error) = lock.write(&LockFile { pid: std::process::id(), instance, started_at }) {
                    // It is for people. What counts is the lock, and that is had on a full disk too.
                    tracing::warn!(%error, "lock file does not say who holds it");
                }
                return Ok(lock);
            }
        }
        Err(failed(io::Error::other("the file was replaced again and again")))
    }

    fn write(&self, content: &LockFile) -> io::Result<()> {
        let mut file = &self.file;
        file.set_len(0)?;
        file.rewind()?;
        file.write_all(&serde_json::to_vec(content)?)
    }

    /// Whether the path still leads to the file that was locked.
    pub(crate) fn is_in_place(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok_and(|found| identity(&found) == self.identity)
    }

    /// Removes the file, if it is still the one that was locked, and gives the lock up.
    pub(crate) fn release(self) -> io::Result<()> {
        if self.is_in_place() { fs::remove_file(&self.path) } else { Ok(()) }
    }
}

fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = Vec::new();
    file.take(MAX_LOCK_FILE_BYTES).read_to_end(&mut text).ok()?;
    serde_json::from_slice::<LockFile>(&text).ok().map(|content| content.pid)
}

/// Device and inode: the same file under any name.
pub(crate) fn identity(metadata: &fs::Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock(store: &Store) -> Result<Lock, KeeperError> {
        Lock::acquire(store, Nonce([7; 16]), 1)
    }

    #[test]
    fn a_store_has_one_lock_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store")).unwrap();
        assert_eq!(fs::metadata(&store.root).unwrap().mode() & 0o777, 0o700);
        let first = lock(&store).unwrap();
        assert!(
            matches!(lock(&store), Err(KeeperError::Locked { pid: Some(pid), .. }) if pid == std::process::id())
        );
        first.release().unwrap();
        assert!(!store.lock_path().exists());
        lock(&store).unwrap();
    }

    #[test]
    fn a_lock_that_was_replaced_is_not_in_place_and_not_removed() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let first = lock(&store).unwrap();
        fs::remove_file(store.lock_path()).unwrap();
        assert!(!first.is_in_place());
        let second = lock(&store).unwrap();
        assert!(!first.is_in_place());
        first.release().unwrap();
        assert!(second.is_in_place());
    }

    #[test]
    fn a_long_store_path_still_has_a_socket_address() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("x".repeat(120))).unwrap();
        assert!(store.socket_address().as_os_str().len() <= MAX_SOCKET_PATH_BYTES);
        let _listener = std::os::unix::net::UnixListener::bind(store.socket_address()).unwrap();
        assert!(store.socket_path().exists());
    }
}
