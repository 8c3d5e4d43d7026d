//! Files that are replaced.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

/// Replaces a file: all of it or nothing, also when the power fails. A link is followed, what is there keeps its mode, what
/// is not is for its owner alone, and so are the folders that are made for it. Blocks.
///
/// # Errors
/// That of the file system.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let real = match fs::canonicalize(path) {
        Ok(real) => real,
        Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_owned(),
        Err(error) => return Err(error),
    };
    let folder = real.parent().unwrap_or(Path::new("."));
    private_folder(folder)?;
    let mode = fs::metadata(&real).map_or(0o600, |found| found.permissions().mode() & 0o777);
    let mut name = real.file_name().unwrap_or_default().to_owned();
    // Two programs that write at once do not write into one file.
    name.push(format!(".{}.new", std::process::id()));
    let beside = folder.join(name);
    let write = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, &real)?;
        fs::File::open(folder)?.sync_all()
    };
    write().inspect_err(|_| {
        // What is left of it is nobody's; that it cannot be removed either changes nothing.
        let _ = fs::remove_file(&beside);
    })
}

/// Makes a folder and those above it, for their owner alone, unless they are there. Blocks.
///
/// # Errors
/// That of the file system.
pub fn private_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_where_it_lies_and_keeps_its_mode() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().join("kept/in/git.toml");
        replace(&real, b"one").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&real), mode(real.parent().unwrap())), (0o600, 0o700));
        fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).unwrap();
        let link = dir.path().join("config.toml");
        std::os::unix::fs::symlink(&real, &link).unwrap();
        replace(&link, b"two").unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!((fs::read(&real).unwrap().as_slice(), mode(&real)), (&b"two"[..], 0o640));
        assert_eq!(fs::read_dir(real.parent().unwrap()).unwrap().count(), 1, "something is left beside it");
    }
}
