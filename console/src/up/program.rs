//! Where the other binaries are: beside this one, else in `PATH`.

use std::{
    ffi::OsStr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

/// A binary is nowhere.
#[derive(Debug, thiserror::Error)]
#[error("{name} is neither beside this program nor in PATH; build it with `cargo build --release -p {name}`")]
pub struct NoProgram {
    name: &'static str,
}

/// Finds a binary.
///
/// # Errors
/// [`NoProgram`].
pub fn find(name: &'static str, path: Option<&OsStr>) -> Result<PathBuf, NoProgram> {
    let own = std::env::current_exe().ok().and_then(|exe| exe.parent().map(Path::to_owned));
    let dirs = own.into_iter().chain(path.into_iter().flat_map(std::env::split_paths));
    let found = dirs.map(|dir| dir.join(name)).find(|path| is_executable(path));
    found.ok_or(NoProgram { name })
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};

    use super::*;

    fn put(dir: &Path, name: &str, mode: u32) -> PathBuf {
        let path = dir.join(name);
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn what_lies_beside_this_program_goes_before_the_path() {
        let own = std::env::current_exe().unwrap();
        let name: &'static str = own.file_name().unwrap().to_str().unwrap().to_owned().leak();
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), name, 0o700);
        assert_eq!(find(name, Some(dir.path().as_os_str())).unwrap(), own);
    }

    #[test]
    fn the_path_is_searched_in_its_order_for_what_can_be_run() {
        const NAME: &str = "signalbox-of-the-test";
        let dirs: [tempfile::TempDir; 4] = std::array::from_fn(|_| tempfile::tempdir().unwrap());
        let [folder, text, first, second] = &dirs;
        fs::create_dir(folder.path().join(NAME)).unwrap();
        put(text.path(), NAME, 0o600);
        let found = put(first.path(), NAME, 0o700);
        put(second.path(), NAME, 0o700);
        let path = std::env::join_paths(dirs.iter().map(tempfile::TempDir::path)).unwrap();
        assert_eq!(find(NAME, Some(&path)).unwrap(), found);
        let nowhere = find(NAME, Some(text.path().as_os_str())).unwrap_err().to_string();
        assert!(
            nowhere.starts_with("signalbox-of-the-test is neither beside this program nor in PATH"),
            "{nowhere}"
        );
        assert!(find(NAME, None).is_err());
    }
}
