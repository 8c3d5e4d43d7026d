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
