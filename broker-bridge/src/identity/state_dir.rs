//! A state directory: taken over once, then recognised; its files private and written whole or not at all.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use signalbox_schemas::{id::Workspace, layout};

/// Mode of every directory.
const DIRECTORY_MODE: u32 = 0o700;
/// Mode of every file.
const FILE_MODE: u32 = 0o600;
/// Bits that let anybody but the owner in.
const OTHERS: u32 = 0o077;
/// The mark while it is being written. A directory with nothing else is one whose taking over was cut short.
const UNFINISHED_MARK: &str = "state.json.new";

/// What is wrong with a state directory or a file in it. None of these passes by trying again.
#[derive(Debug, thiserror::Error)]
pub enum StateDirError {
    /// Something else lies there.
    #[error("{} is not a Signalbox state directory; choose another with --state-dir", .path.display())]
    Foreign {
        /// The directory.
        path: PathBuf,
    },
    /// Nothing lies there.
    #[error("{} is not there; make it with `signalbox-bridge init`", .path.display())]
    Missing {
        /// The directory or file.
        path: PathBuf,
    },
    /// Others may read it.
    #[error("{0} is open to others (mode {mode:03o}); close it with `chmod go= {0}`", .path.display())]
    Exposed {
        /// The directory or file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Another `init` is at work.
    #[error("{} is being set up by another process; try again when it is done", .path.display())]
    Busy {
        /// The directory.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("cannot {doing} {}", .path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

impl StateDirError {
    fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { doing, path, source }
    }
}

/// `state.json`: what marks a directory as ours.
#[derive(Debug, Serialize, Deserialize)]
struct Mark {
    format: u32,
    workspace: Workspace,
}

/// Makes `root` a state directory, or sees that it is one. Afterwards all its directories exist.
///
/// The answer holds the directory against a second `init` for as long as it lives.
///
/// # Errors
/// [`StateDirError`]; of a foreign directory nothing was changed.
pub(crate) fn take(layout: &layout::Layout) -> Result<File, StateDirError> {
    let root = layout.root();
    if !is_ours(root)? {
        claim(root, &layout.state_json())?;
    }
    for path in layout.directories() {
        make_private(&path)?;
    }
    let keys = layout.seed("any");
    let keys = keys.parent().unwrap_or(root);
    let lock = File::open(keys).map_err(StateDirError::io("open", keys))?;
    lock.try_lock().map_err(|_| StateDirError::Busy { path: root.to_owned() })?;
    Ok(lock)
}

/// Sees that `root` is a state directory of ours.
///
/// # Errors
/// [`StateDirError`].
pub(crate) fn require(root: &Path) -> Result<(), StateDirError> {
    if is_ours(root)? { Ok(()) } else { Err(StateDirError::Missing { path: root.to_owned() }) }
}

/// Whether `root` is ours; `false` when it is absent or empty.
fn is_ours(root: &Path) -> Result<bool, StateDirError> {
    let entries = match fs::read_dir(root) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => return Err(foreign(root)),
        Err(error) => return Err(StateDirError::io("read", root)(error)),
    };
    let names: Vec<_> = entries
        .map(|entry| entry.map(|entry| entry.file_name()))
        .collect::<Result<_, _>>()
        .map_err(StateDirError::io("read", root))?;
    if names.iter().all(|name| name == UNFINISHED_MARK) {
        return Ok(false);
    }
    let mark = fs::read(root.join("state.json")).map_err(|_| foreign(root))?;
    let mark: Mark = serde_json::from_slice(&mark).map_err(|_| foreign(root))?;
    if mark.format != layout::FORMAT {
        return Err(foreign(root));
    }
    check_mode(root)?;
    Ok(true)
}

fn foreign(root: &Path) -> StateDirError {
    StateDirError::Foreign { path: root.to_owned() }
}

fn claim(root: &Path, mark_path: &Path) -> Result<(), StateDirError> {
    if let Some(parent) = root.parent() {
        fs::create_dir_all(parent).map_err(StateDirError::io("make", parent))?;
    }
    if root.is_dir() {
        // It is empty: nobody loses anything when others are shut out.
        let mode = Permissions::from_mode(DIRECTORY_MODE);
        fs::set_permissions(root, mode).map_err(StateDirError::io("close", root))?;
    }
    make_private(root)?;
    let mark = Mark { format: layout::FORMAT, workspace: Workspace::main() };
    let mut text = serde_json::to_vec(&mark).unwrap_or_default();
    text.push(b'\n');
    write_private(mark_path, &text)
}

/// Makes the directory `path` with its mode, or sees that it has it.
pub(crate) fn make_private(path: &Path) -> Result<(), StateDirError> {
    match DirBuilder::new().mode(DIRECTORY_MODE).create(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => check_mode(path),
        Err(error) => Err(StateDirError::io("make", path)(error)),
    }
}

fn check_mode(path: &Path) -> Result<(), StateDirError> {
    let metadata = fs::metadata(path).map_err(StateDirError::io("look at", path))?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & OTHERS == 0 { Ok(()) } else { Err(StateDirError::Exposed { path: path.to_owned(), mode }) }
}

/// Reads a file that nobody else may read; `None` when there is none.
///
/// # Errors
/// [`StateDirError::Exposed`] when others may, else [`StateDirError::Io`].
pub(crate) fn read_private(path: &Path) -> Result<Option<Vec<u8>>, StateDirError> {
    match fs::read(path) {
        Ok(bytes) => check_mode(path).map(|()| Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StateDirError::io("read", path)(error)),
    }
}

/// Like [`read_private`], for a file that must be there.
pub(crate) fn require_private(path: &Path) -> Result<Vec<u8>, StateDirError> {
    read_private(path)?.ok_or_else(|| StateDirError::Missing { path: path.to_owned() })
}

/// Puts a file in place whole or not at all, 0600, and durable: written beside it, synced, renamed.
///
/// # Errors
/// [`StateDirError::Io`]; the old file, if any, is as it was.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> Result<(), StateDirError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let unfinished = path.with_file_name(name);
    let write = || -> io::Result<()> {
        // What an interrupted write left behind keeps its own mode; begin anew.
        match fs::remove_file(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(&unfinished)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&unfinished, path)?;
        path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
    };
    write().map_err(StateDirError::io("write", path))
}

/// Like [`write_private`], when the file holds something else.
pub(crate) fn update_private(path: &Path, bytes: &[u8]) -> Result<(), StateDirError> {
    if read_private(path)?.is_some_and(|old| old == bytes) { Ok(()) } else { write_private(path, bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use signalbox_schemas::layout::Layout;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn an_absent_and_an_empty_directory_are_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        for root in [dir.path().join("a/b"), dir.path().join("c")] {
            fs::create_dir_all(root.parent().unwrap()).unwrap();
            let layout = Layout::new(&root);
            drop(take(&layout).unwrap());
            assert!(layout.directories().iter().all(|path| mode(path) == 0o700));
            assert_eq!(mode(&layout.state_json()), 0o600);
            drop(take(&layout).unwrap());
        }
    }

    #[test]
    fn a_foreign_directory_is_left_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("letter.txt"), "dear").unwrap();
        let error = take(&Layout::new(dir.path())).unwrap_err();
        assert!(matches!(error, StateDirError::Foreign { .. }));
        assert!(
            error
                .to_string()
                .ends_with("is not a Signalbox state directory; choose another with --state-dir")
        );
        fs::write(dir.path().join("state.json"), r#"{"format":2,"workspace":"main"}"#).unwrap();
        assert!(matches!(take(&Layout::new(dir.path())), Err(StateDirError::Foreign { .. })));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
        let file = dir.path().join("letter.txt");
        assert!(matches!(take(&Layout::new(file)), Err(StateDirError::Foreign { .. })));
    }

    #[test]
    fn taking_over_can_be_cut_short_and_repeated() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(UNFINISHED_MARK), "{").unwrap();
        drop(take(&Layout::new(dir.path())).unwrap());
    }

    #[test]
    fn what_others_may_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path().join("s"));
        drop(take(&layout).unwrap());
        let path = layout.seed("fleet");
        write_private(&path, b"x").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        let error = read_private(&path).unwrap_err().to_string();
        assert!(error.contains("mode 640") && error.contains("chmod"), "{error}");
        fs::set_permissions(layout.root(), Permissions::from_mode(0o750)).unwrap();
        assert!(matches!(take(&layout), Err(StateDirError::Exposed { .. })));
    }

    #[test]
    fn two_at_once_are_one_after_the_other() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path().join("s"));
        let _first = take(&layout).unwrap();
        assert!(matches!(take(&layout), Err(StateDirError::Busy { .. })));
    }
}
