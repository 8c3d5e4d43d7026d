//! Files that are there whole or not at all, and still there after a power failure. This user alone can read them, unless
//! another mode is asked for. Blocks.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

/// Mode of a private file.
pub(crate) const PRIVATE: u32 = 0o600;

/// A file's next content, durable, beside the file. Dropped, it is removed, and the file is what it was.
#[derive(Debug)]
pub(crate) struct Draft<'a> {
    path: &'a Path,
    written: PathBuf,
    is_in_place: bool,
}

impl<'a> Draft<'a> {
    /// Writes what is to be at `path`.
    pub(crate) fn write(path: &'a Path, bytes: &[u8]) -> io::Result<Self> {
        Self::write_as(path, bytes, PRIVATE)
    }

    fn write_as(path: &'a Path, bytes: &[u8], mode: u32) -> io::Result<Self> {
        let written = draft_of(path);
        // What an interrupted write left behind keeps its own mode; begin anew.
        remove_if_there(&written)?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(PRIVATE).open(&written)?;
        let draft = Self { path, written, is_in_place: false };
        file.write_all(bytes)?;
        if mode != PRIVATE {
            // As it is said, whatever this process takes from the files that it makes.
            file.set_permissions(fs::Permissions::from_mode(mode))?;
        }
        file.sync_all()?;
        Ok(draft)
    }

    /// Makes it the file. What fails here after the file was replaced leaves the new one.
    pub(crate) fn put_in_place(mut self) -> io::Result<()> {
        fs::rename(&self.written, self.path)?;
        self.is_in_place = true;
        self.path.parent().map_or(Ok(()), sync_folder)
    }
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        if self.is_in_place {
            return;
        }
        if let Err(error) = fs::remove_file(&self.written) {
            tracing::warn!(path = %self.written.display(), %error, "draft not removed");
        }
    }
}

/// Puts a file in place.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace_as(path, bytes, PRIVATE)
}

/// Puts a file with these permission bits in place.
pub(crate) fn replace_as(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    Draft::write_as(path, bytes, mode)?.put_in_place()
}

/// Where the next content of a file is written.
pub(crate) fn draft_of(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    path.with_file_name(name)
}

/// Removes a file; one that is not there is removed.
pub(crate) fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Makes the names in a folder durable.
pub(crate) fn sync_folder(path: &Path) -> io::Result<()> {
    // The parent of a path of one part is the empty path: here.
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    File::open(path)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_by_what_is_private_and_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        fs::write(&path, "old").unwrap();
        fs::write(draft_of(&path), "interrupted").unwrap();
        replace(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!draft_of(&path).exists());
    }

    #[test]
    fn a_draft_that_is_not_put_in_place_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        fs::write(&path, "old").unwrap();
        let draft = Draft::write(&path, b"new").unwrap();
        assert!(draft_of(&path).exists());
        drop(draft);
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
