//! The key that a center knows this relay by: where it is read, and how it is kept out of sight.
//!
//! Everybody on a machine can read the arguments of its processes, and whoever runs as the same user its environment. A
//! key that came there is therefore handed over by a pipe to the same program, which takes this process's place: the new
//! image has it in neither, and so has no command that the relay runs.

use std::{
    env,
    ffi::OsString,
    fmt,
    fs::File,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::Command,
};

use crate::{
    identity::{IdentityError, read_secret},
    legacy_args::KeySource,
};

/// Environment variable with the key.
pub const VARIABLE: &str = "SIGNALBOX_API_KEY";
/// Longest key. Well below what a pipe takes at once.
const MAX_BYTES: usize = 4096;

/// The key. It is shown nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(String);

impl ApiKey {
    /// Takes 1 to 4096 visible ASCII characters: what a header can carry.
    pub fn new(text: &str) -> Option<Self> {
        let fits = (1..=MAX_BYTES).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
        fits.then(|| Self(text.to_owned()))
    }

    /// The key itself, for a header or the body that asks about it.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey")
    }
}

/// The key cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ApiKeyError {
    /// Its file cannot be read, or can be by others.
    #[error("no API key")]
    File(#[from] IdentityError),
    /// Standard input cannot be read.
    #[error("the API key cannot be read from standard input")]
    Stdin(#[source] io::Error),
    /// What is there is no key.
    #[error("{place} holds no API key: 1 to 4096 visible ASCII characters are expected")]
    NoKey {
        /// Where it should be.
        place: String,
    },
    /// This program cannot take its own place.
    #[error("the API key cannot be taken out of sight: `{}` is not started again", exe.display())]
    HandOver {
        /// The program.
        exe: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl KeySource {
    /// Reads the key. Waits for a line where it is on standard input.
    ///
    /// # Errors
    /// [`ApiKeyError`].
    pub fn read(&self) -> Result<ApiKey, ApiKeyError> {
        let (place, text) = match self {
            Self::Argument(key) => return Ok(key.clone()),
            Self::Environment => (VARIABLE.to_owned(), env::var(VARIABLE).unwrap_or_default()),
            Self::File(path) => (format!("`{}`", path.display()), read_secret(path)?),
            Self::Stdin => ("standard input".to_owned(), first_line().map_err(ApiKeyError::Stdin)?),
        };
        ApiKey::new(text.trim()).ok_or(ApiKeyError::NoKey { place })
    }

    /// Whether others see the key for as long as this image of the process lives.
    pub fn is_in_sight(&self) -> bool {
        matches!(self, Self::Argument(_)) || env::var_os(VARIABLE).is_some()
    }
}

fn first_line() -> io::Result<String> {
    let mut line = String::new();
    // Two more than the longest key: its line end, and one by which it is too long.
    BufReader::new(io::stdin().take(MAX_BYTES as u64 + 2)).read_line(&mut line)?;
    Ok(line)
}

/// Puts the same program in this process's place, with `args`, and the key on its standard input only. Does not return
/// when it succeeds.
pub fn hand_over(key: &ApiKey, args: impl IntoIterator<Item = String>) -> ApiKeyError {
    let exe = match env::current_exe() {
        Ok(exe) => exe,
        Err(source) => return ApiKeyError::HandOver { exe: "/proc/self/exe".into(), source },
    };
    let failed = |source| ApiKeyError::HandOver { exe: exe.clone(), source };
    let piped = || -> io::Result<io::PipeReader> {
        let (reader, mut writer) = io::pipe()?;
        writeln!(writer, "{}", key.reveal())?;
        Ok(reader)
    };
    let reader = match piped() {
        Ok(reader) => reader,
        Err(source) => return failed(source),
    };
    let name = env::args_os().next().unwrap_or_else(|| OsString::from("signalbox-relay"));
    failed(Command::new(&exe).arg0(name).arg("-").args(args).env_remove(VARIABLE).stdin(reader).exec())
}

/// Lets standard input be what it is for everything else here: nothing.
pub(crate) fn close_stdin() -> io::Result<()> {
    Ok(rustix::stdio::dup2_stdin(File::open("/dev/null")?)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_key_is_short_visible_and_never_shown() {
        for bad in ["", "a b", "a\n", "\u{fc}", "\u{7f}"] {
            assert!(ApiKey::new(bad).is_none(), "{bad:?}");
        }
        assert!(ApiKey::new(&"k".repeat(MAX_BYTES + 1)).is_none());
        let key = ApiKey::new(&"k".repeat(MAX_BYTES)).unwrap();
        assert!(!format!("{key:?}").contains('k'), "{key:?}");
    }

    #[test]
    fn a_file_is_read_if_nobody_else_can_read_it() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), " secret-key\n").unwrap();
        let source = KeySource::File(file.path().to_owned());
        assert_eq!(source.read().unwrap(), ApiKey::new("secret-key").unwrap());
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(source.read(), Err(ApiKeyError::File(IdentityError::Exposed { .. }))));
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(file.path(), "two words").unwrap();
        assert!(matches!(source.read(), Err(ApiKeyError::NoKey { .. })));
    }
}
