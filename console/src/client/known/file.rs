//! The file of the keys that machines are known by.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs, io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use signalbox_schemas::{id::MachineToken, signed::PublicKey};
use tokio::time::{Instant, sleep};

use super::Known;

/// Largest file: a hundred bytes for each machine, and more of them than a fleet has.
const FILE_BYTES: u64 = 16 * 1024 * 1024;

/// Longest wait for another console, which keeps the file while it reads, checks and writes it.
const HELD: Duration = Duration::from_secs(30);
/// How often it is looked whether that has ended.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KnownError {
    /// The system refused.
    #[error("cannot {doing} {}", .path.display())]
    File {
        /// What was being done.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It was not written by this program.
    #[error("line {line} of {} is no machine with its key; put it right, or remove the file to trust all machines anew", .path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
    },
    /// Another console keeps it.
    #[error("another console has kept {} for {} s; try again once it has ended", .path.display(), .waited.as_secs())]
    Held {
        /// The file.
        path: PathBuf,
        /// For so long.
        waited: Duration,
    },
    /// It is too large.
    #[error("{} is larger than any that this program writes", .path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
}

impl Known {
    /// Reads the file; without it nothing is known. Blocks.
    ///
    /// # Errors
    /// [`KnownError`].
    pub fn read(path: &Path) -> Result<Self, KnownError> {
        let failed = |source| KnownError::File { doing: "read", path: path.to_owned(), source };
        match fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(failed(error)),
            Ok(found) if found.len() > FILE_BYTES => {
                return Err(KnownError::TooLarge { path: path.to_owned() });
            }
            Ok(_) => {}
        }
        let text = fs::read_to_string(path).map_err(failed)?;
        Self::parse(&text).map_err(|line| KnownError::Line { path: path.to_owned(), line })
    }

    /// The text's machines, or the number of the line that is none.
    fn parse(text: &str) -> Result<Self, usize> {
        let mut known = BTreeMap::new();
        for (n, line) in (1..).zip(text.lines()) {
            let read = line
                .split_once(' ')
                .and_then(|(mid, key)| Some((MachineToken::new(mid).ok()?, key.parse::<PublicKey>().ok()?)));
            let (mid, key) = read.ok_or(n)?;
            if known.insert(mid, key).is_some() {
                return Err(n);
            }
        }
        Ok(Self(known))
    }

    fn to_text(&self) -> String {
        let mut text = String::new();
        for (mid, key) in &self.0 {
            // A string takes everything.
            let _ = writeln!(text, "{mid} {key}");
        }
        text
    }

    /// Replaces the file by this: all of it or nothing, also when the power fails. Blocks.
    ///
    /// # Errors
    /// [`KnownError`].
    pub fn write(&self, path: &Path) -> Result<(), KnownError> {
        let failed = |source| KnownError::File { doing: "write", path: path.to_owned(), source };
        let beside = path.with_extension("new");
        let write = || {
            let mut file = fs::OpenOptions::new();
            let file = file.write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
            io::Write::write_all(&mut &file, self.to_text().as_bytes())?;
            file.sync_all()?;
            fs::rename(&beside, path)?;
            fs::File::open(path.parent().unwrap_or(path))?.sync_all()
        };
        write().map_err(failed)
    }
}

/// The file, held against another console until this is dropped.
#[derive(Debug)]
pub struct KnownFile {
    path: PathBuf,
    _lock: fs::File,
}

impl KnownFile {
    /// Waits for whoever holds it, 30 s at the most; `waits` is called when there is somebody.
    ///
    /// # Errors
    /// [`KnownError`].
    pub async fn hold(path: PathBuf, waits: impl FnOnce()) -> Result<Self, KnownError> {
        Self::hold_within(path, waits, HELD).await
    }

    async fn hold_within(path: PathBuf, waits: impl FnOnce(), most: Duration) -> Result<Self, KnownError> {
        let lock = path.with_extension("lock");
        let failed = |source| KnownError::File { doing: "lock", path: lock.clone(), source };
        let mut options = fs::OpenOptions::new();
        let file =
            options.write(true).create(true).truncate(false).mode(0o600).open(&lock).map_err(failed)?;
        let (begun, mut waits) = (Instant::now(), Some(waits));
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { path, _lock: file }),
                Err(fs::TryLockError::Error(error)) => return Err(failed(error)),
                Err(fs::TryLockError::WouldBlock) if begun.elapsed() >= most => {
                    return Err(KnownError::Held { path, waited: most });
                }
                Err(fs::TryLockError::WouldBlock) => {
                    if let Some(waits) = waits.take() {
                        waits();
                    }
                    sleep(LOOK_EVERY).await;
                }
            }
        }
    }

    /// Reads what is known. Blocks.
    ///
    /// # Errors
    /// [`KnownError`].
    pub fn read(&self) -> Result<Known, KnownError> {
        Known::read(&self.path)
    }

    /// Writes what is known. Blocks.
    ///
    /// # Errors
    /// [`KnownError`].
    pub fn write(&self, known: &Known) -> Result<(), KnownError> {
        known.write(&self.path)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn key(byte: u8) -> PublicKey {
        nkeys::KeyPair::new_from_raw(nkeys::KeyPairType::User, [byte; 32])
            .unwrap()
            .public_key()
            .parse()
            .unwrap()
    }

    #[tokio::test]
    async fn the_file_is_read_as_it_was_written_and_nobody_else_can_read_it() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("known-machines");
        let file = KnownFile::hold(path.clone(), || panic!("nobody has it")).await.unwrap();
        assert_eq!(file.read().unwrap(), Known::default());
        let machine = |name: &str| MachineToken::new(name).unwrap();
        let known = Known([(machine("web-2"), key(2)), (machine("web-1"), key(1))].into());
        file.write(&known).unwrap();
        assert_eq!(Known::read(&path).unwrap(), known);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(fs::read_to_string(&path).unwrap().starts_with("web-1 U"));
    }

    #[tokio::test]
    async fn another_console_is_waited_for_and_not_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("known-machines");
        let first = KnownFile::hold(path.clone(), || {}).await.unwrap();
        let mut was_told = false;
        let short = Duration::from_millis(120);
        let refused = KnownFile::hold_within(path.clone(), || was_told = true, short).await.unwrap_err();
        assert!(matches!(refused, KnownError::Held { .. }) && was_told, "{refused:?}");
        // It goes on as soon as the other one has ended.
        let mut first = Some(first);
        KnownFile::hold_within(path, || drop(first.take()), HELD).await.unwrap();
    }

    #[rstest]
    #[case("web-1 rubbish\n", 1)]
    #[case("web-1\n", 1)]
    #[case("W U\n", 1)]
    #[case("\n", 1)]
    fn a_file_of_somebody_else_is_refused(#[case] text: &str, #[case] line: usize) {
        assert_eq!(Known::parse(text), Err(line));
        let good = format!("web-1 {}\n", key(1));
        assert_eq!(Known::parse(&format!("{good}{good}")), Err(2), "a machine has one key");
    }
}
