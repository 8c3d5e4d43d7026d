//! The view of the streams on disk: one sled tree, disposable.
//!
//! What stands here can be made again from the streams, so a store of another format, of another fleet or with
//! damage is deleted and built anew. It lives in a directory of its own within the one that was named, and nothing
//! else is ever deleted; nor is the store when the system only refuses it (no permission, no room). Cursors are
//! written in the same batch as the rows they stand for.
//! Functions block for some microseconds (a read, a few rows) to milliseconds (a batch): large batches are written from
//! blocking threads only. The layout of keys stands in `store/key.rs`.

pub(crate) mod key;
pub(crate) mod retention;
mod txn;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::de::DeserializeOwned;
use signalbox_schemas::{error::report, mailbox::Position};
use tokio::sync::watch;
use tracing::{info, warn};

pub(crate) use txn::Txn;

/// Version of the rows and keys. Another one on disk means: build anew.
const FORMAT: &str = "signalbox-view-6";
/// Directory of the store within the one that was named: that one may hold anything, by a slip of whoever named it.
const OWN: &str = "view";
/// Memory for pages, bytes. The working set is open commands and their runs, some megabytes.
const CACHE_BYTES: u64 = 64 * 1024 * 1024;
/// How often sled writes out by itself, ms. Losing the last second means reading it from the streams again.
const FLUSH_EVERY_MS: u64 = 1_000;

/// The store cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The directory is used by another bridge. Not retryable until that one ends.
    #[error("the store in {} is used by another bridge", .0.display())]
    InUse(PathBuf),
    /// The directory cannot be made, opened or deleted.
    #[error("cannot {action} the store in {}", path.display())]
    Open {
        /// What was being done.
        action: &'static str,
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Reading or writing failed: the disk is full or broken. sled takes nothing on after that, however much room there is
    /// again, so the bridge ends; one that is started anew opens the store again.
    #[error("cannot {action} the store")]
    Io {
        /// What was being done.
        action: &'static str,
        /// Why.
        #[source]
        source: sled::Error,
    },
    /// A row is not what it should be: delete the directory, and it is built anew.
    #[error("a row of kind `{0}` in the store is damaged")]
    Damaged(&'static str),
}

/// An opened store. Clones share it.
#[derive(Debug, Clone)]
pub struct Store {
    db: sled::Db,
    fault: Fault,
}

/// The first failure of a store: what was being done, and why. Clones share it.
#[derive(Debug, Clone, Default)]
struct Fault(Arc<watch::Sender<Option<(&'static str, sled::Error)>>>);

impl Fault {
    /// Makes an error of what sled answered, and remembers it if it is the first.
    fn of(&self, action: &'static str, source: sled::Error) -> StoreError {
        self.0.send_if_modified(|first| {
            let is_first = first.is_none();
            first.get_or_insert_with(|| (action, source.clone()));
            is_first
        });
        StoreError::Io { action, source }
    }
}

impl Store {
    /// Opens the store in `view` below `data`, or makes it anew when it is of another format or fleet, or damaged.
    /// `identity` names what the rows are about (workspace and fleet key). Blocks.
    ///
    /// # Errors
    /// [`StoreError::InUse`] and [`StoreError::Open`].
    pub fn open(data: &Path, identity: &str) -> Result<Self, StoreError> {
        let path = &data.join(OWN);
        let stamp = format!("{FORMAT}\n{identity}");
        match Self::try_open(path) {
            Ok(store) => match store.db.get(key::STAMP) {
                Ok(Some(found)) if found == stamp.as_bytes() => return Ok(store),
                Ok(None) if store.db.is_empty() => return store.stamped(&stamp),
                Ok(_) => {
                    info!(path = %path.display(), "store is of another format or fleet, building it anew");
                }
                Err(error) => damaged(path, error)?,
            },
            Err(error) => damaged(path, error)?,
        }
        let failed = |source: std::io::Error| StoreError::Open {
            action: "delete",
            path: path.to_owned(),
            source: Box::new(source),
        };
        std::fs::remove_dir_all(path).map_err(failed)?;
        Self::try_open(path).map_err(|error| refused(path, error))?.stamped(&stamp)
    }

    fn try_open(path: &Path) -> Result<Self, sled::Error> {
        let config = sled::Config::new().path(path).cache_capacity(CACHE_BYTES);
        config.flush_every_ms(Some(FLUSH_EVERY_MS)).open().map(|db| Self { db, fault: Fault::default() })
    }

    fn stamped(self, stamp: &str) -> Result<Self, StoreError> {
        self.db.insert(key::STAMP, stamp).map_err(|source| self.fault.of("write", source))?;
        Ok(self)
    }

    /// Makes the next [`Store::open`] build the view anew. Blocks until the file system knows.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub(crate) fn discard(&self) -> Result<(), StoreError> {
        self.db.remove(key::STAMP).map_err(|source| self.fault.of("discard", source))?;
        self.flush()
    }

    /// Writes everything out. Blocks until the file system has it.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn flush(&self) -> Result<(), StoreError> {
        self.db.flush().map(|_| ()).map_err(|source| self.fault.of("flush", source))
    }

    /// Writes out what is there before the bridge ends. What was found damaged is built anew by the next
    /// [`Store::open`]: a bridge that met it again at each start would never come up. Blocks.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub(crate) fn close(&self) -> Result<(), StoreError> {
        let is_damaged = matches!(&*self.fault.0.borrow(), Some((_, sled::Error::Corruption { .. })));
        if is_damaged { self.discard() } else { self.flush() }
    }

    /// Whether a read or write has failed. None succeeds for certain from then on.
    pub(crate) fn is_broken(&self) -> bool {
        self.fault.0.borrow().is_some()
    }

    /// Waits for the first read or write that fails, whoever asked for it; answers why.
    pub(crate) async fn broken(&self) -> StoreError {
        let mut fault = self.fault.0.subscribe();
        loop {
            if let Some((action, source)) = fault.borrow_and_update().clone() {
                return StoreError::Io { action, source };
            }
            // The sender is in this store, so there is always another one to come.
            let _ = fault.changed().await;
        }
    }

    /// As if the disk had been full at a read.
    #[cfg(test)]
    pub(crate) fn break_down(&self) -> StoreError {
        self.fault.of("read", sled::Error::Io(std::io::ErrorKind::StorageFull.into()))
    }

    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let row = self.db.get(key).map_err(|source| self.fault.of("read", source))?;
        Ok(row.map(|bytes| bytes.to_vec()))
    }

    pub(crate) fn has(&self, key: &[u8]) -> Result<bool, StoreError> {
        self.db.contains_key(key).map_err(|source| self.fault.of("read", source))
    }

    /// A row as JSON.
    pub(crate) fn json<T: DeserializeOwned>(
        &self,
        key: &[u8],
        kind: &'static str,
    ) -> Result<Option<T>, StoreError> {
        self.get(key)?.map(|bytes| parse(&bytes, kind)).transpose()
    }

    /// Rows whose key begins with `prefix`, in order.
    pub(crate) fn scan(
        &self,
        prefix: &[u8],
    ) -> impl DoubleEndedIterator<Item = Result<Row, StoreError>> + use<> {
        self.rows(self.db.scan_prefix(prefix))
    }

    /// Rows with `from <= key < to`, in order.
    pub(crate) fn range(
        &self,
        from: Vec<u8>,
        to: Vec<u8>,
    ) -> impl DoubleEndedIterator<Item = Result<Row, StoreError>> + use<> {
        self.rows(self.db.range(from..to))
    }

    /// Keys with `from <= key < to`, in order. What they stand for is not copied.
    pub(crate) fn keys(
        &self,
        from: Vec<u8>,
        to: Vec<u8>,
    ) -> impl Iterator<Item = Result<Vec<u8>, StoreError>> + use<> {
        let fault = self.fault.clone();
        self.db
            .range(from..to)
            .keys()
            .map(move |found| found.map(|found| found.to_vec()).map_err(|source| fault.of("read", source)))
    }

    fn rows(&self, found: sled::Iter) -> impl DoubleEndedIterator<Item = Result<Row, StoreError>> + use<> {
        let fault = self.fault.clone();
        found.map(move |row| {
            let (key, value) = row.map_err(|source| fault.of("read", source))?;
            Ok((key.to_vec(), value.to_vec()))
        })
    }

    pub(crate) fn cursor(&self, stream: &str) -> Result<Position, StoreError> {
        let row = self.get(&key::cursor(stream))?;
        Ok(row.and_then(|bytes| key::parse_position(&bytes)).unwrap_or_default())
    }

    /// When the last message that was read of a stream was stored, Unix ms.
    pub(crate) fn cursor_time(&self, stream: &str) -> Result<Option<u64>, StoreError> {
        let row = self.get(&key::cursor(stream))?;
        Ok(row.and_then(|bytes| key::Reader(bytes.get(16..)?).u64()))
    }

    pub(crate) fn write(&self, batch: sled::Batch) -> Result<(), StoreError> {
        self.db.apply_batch(batch).map_err(|source| self.fault.of("write", source))
    }
}

/// Whether an error of the store is about what stands in it, which then may be deleted. What the system refuses
/// says nothing about that.
fn damaged(path: &Path, error: sled::Error) -> Result<(), StoreError> {
    let is_refused = match &error {
        sled::Error::Io(error) => error.raw_os_error().is_some() || is_locked(error),
        _ => false,
    };
    if is_refused {
        return Err(refused(path, error));
    }
    warn!(path = %path.display(), error = report(&error), "store is damaged, building it anew");
    Ok(())
}

fn refused(path: &Path, error: sled::Error) -> StoreError {
    match error {
        sled::Error::Io(error) if is_locked(&error) => StoreError::InUse(path.to_owned()),
        error => StoreError::Open { action: "open", path: path.to_owned(), source: Box::new(error) },
    }
}

/// The lock of a bridge that runs is reported as this text and nothing better.
fn is_locked(error: &std::io::Error) -> bool {
    error.to_string().contains("could not acquire lock")
}

/// A key and its value.
pub(crate) type Row = (Vec<u8>, Vec<u8>);

/// Reads a row's JSON.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8], kind: &'static str) -> Result<T, StoreError> {
    serde_json::from_slice(bytes).map_err(|_| StoreError::Damaged(kind))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    /// Opens a store again: the threads of sled hold it for a moment after the last of its users is gone.
    fn reopen(data: &Path, identity: &str) -> Store {
        let until = Instant::now() + Duration::from_secs(10);
        loop {
            match Store::open(data, identity) {
                Err(StoreError::InUse(_)) if Instant::now() < until => std::thread::yield_now(),
                opened => return opened.unwrap(),
            }
        }
    }

    #[test]
    fn another_fleet_or_format_builds_anew_and_the_same_keeps() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        let put = |store: &Store| {
            let mut txn = Txn::new(store);
            txn.put(b"x".to_vec(), b"1".to_vec());
            txn.commit().unwrap();
        };
        let store = Store::open(&path, "main U1").unwrap();
        put(&store);
        drop(store);
        let store = reopen(&path, "main U1");
        assert_eq!(store.get(b"x").unwrap(), Some(b"1".to_vec()));
        drop(store);
        let store = reopen(&path, "main U2");
        assert_eq!(store.get(b"x").unwrap(), None);
    }

    #[test]
    fn a_store_in_use_is_not_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        let first = Store::open(&path, "main").unwrap();
        assert!(matches!(Store::open(&path, "main"), Err(StoreError::InUse(_))));
        assert_eq!(first.get(key::STAMP).unwrap(), Some(format!("{FORMAT}\nmain").into_bytes()));
    }

    #[test]
    fn damage_builds_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        drop(Store::open(&path, "main").unwrap());
        std::fs::write(path.join(OWN).join("conf"), b"rubbish").unwrap();
        let store = reopen(&path, "main");
        assert_eq!(store.get(b"x").unwrap(), None);
    }

    #[test]
    fn what_else_stands_in_the_directory_is_not_touched() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["letter", "conf", "db"] {
            std::fs::write(dir.path().join(name), b"dear").unwrap();
        }
        for fleet in ["U1", "U2"] {
            drop(reopen(dir.path(), fleet));
        }
        for name in ["letter", "conf", "db"] {
            assert_eq!(std::fs::read(dir.path().join(name)).unwrap(), b"dear", "{name}");
        }
    }

    fn io(kind: std::io::ErrorKind) -> sled::Error {
        sled::Error::Io(std::io::Error::from(kind))
    }

    #[tokio::test]
    async fn the_first_failure_is_told_to_whoever_waits() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), "main").unwrap();
        let (told, ()) = tokio::join!(store.broken(), async {
            assert!(!store.is_broken());
            let clone = store.clone();
            clone.fault.of("read", io(std::io::ErrorKind::StorageFull));
            clone.fault.of("write", io(std::io::ErrorKind::Other));
        });
        assert!(matches!(told, StoreError::Io { action: "read", .. }), "{told:?}");
        assert!(store.is_broken() && store.clone().is_broken());
        assert!(matches!(store.broken().await, StoreError::Io { action: "read", .. }), "it stays");
    }

    #[test]
    fn what_was_found_damaged_is_built_anew_and_a_full_disk_is_no_damage() {
        let dir = tempfile::tempdir().unwrap();
        for (error, is_kept) in [
            (io(std::io::ErrorKind::StorageFull), true),
            (sled::Error::Corruption { at: None, bt: () }, false),
        ] {
            let store = reopen(dir.path(), "main");
            let mut txn = Txn::new(&store);
            txn.put(b"x".to_vec(), b"1".to_vec());
            txn.commit().unwrap();
            store.fault.of("read", error);
            store.close().unwrap();
            drop(store);
            assert_eq!(reopen(dir.path(), "main").has(b"x").unwrap(), is_kept);
        }
    }

    #[test]
    fn what_the_system_refuses_is_no_damage() {
        let dir = tempfile::tempdir().unwrap();
        // A file that cannot be opened: permissions would not stop a test that runs as root.
        let file = dir.path().join(OWN).join("db");
        std::fs::create_dir_all(&file).unwrap();
        let refused = Store::open(dir.path(), "main").unwrap_err();
        assert!(matches!(refused, StoreError::Open { action: "open", .. }), "{refused:?}");
        assert!(file.exists());
    }
}
