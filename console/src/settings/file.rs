//! Where the file lies, and reading it.

use std::{
    fmt,
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use super::{Settings, problem::Problem};
use crate::config::Environment;

/// Most bytes of the file.
pub const MOST_BYTES: u64 = 1 << 20;

/// The file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// It cannot be read.
    #[error("{} cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is larger than [`MOST_BYTES`].
    #[error("{} is no configuration: it has more than {MOST_BYTES} bytes", .0.display())]
    TooLarge(PathBuf),
    /// It is not what it should be.
    #[error("{}; `signalbox config check` lists everything that is wrong", Wrong { path, problems })]
    Wrong {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, at least one thing.
        problems: Vec<Problem>,
    },
}

/// The first problem, and how many there are beside it.
struct Wrong<'a> {
    path: &'a Path,
    problems: &'a [Problem],
}

impl fmt::Display for Wrong<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((first, others)) = self.problems.split_first() else { return Ok(()) };
        write!(f, "{}:{first}", self.path.display())?;
        match others.len() {
            0 => Ok(()),
            more => write!(f, " (and {more} more)"),
        }
    }
}

/// Where the file is: `$SIGNALBOX_CONFIG`, `$XDG_CONFIG_HOME/signalbox/config.toml`, or `~/.config/signalbox/config.toml`; by
/// an absolute path. `None` when none of them is known.
pub fn path(environment: &Environment) -> Option<PathBuf> {
    if let Some(path) = &environment.config_file {
        return std::path::absolute(path).ok();
    }
    let base = environment.xdg_config_home.clone();
    let base = base.or_else(|| environment.home.as_ref().map(|home| home.join(".config")));
    base.map(|base| base.join("signalbox").join("config.toml"))
}

/// The text of a file; `None` when it does not exist.
///
/// # Errors
/// [`SettingsError::Read`], [`SettingsError::TooLarge`].
pub fn read_text(path: &Path) -> Result<Option<String>, SettingsError> {
    let failed = |source| SettingsError::Read { path: path.to_owned(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut bytes = Vec::new();
    file.take(MOST_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(SettingsError::TooLarge(path.to_owned()));
    }
    let text = String::from_utf8(bytes).map_err(|_| failed(io::ErrorKind::InvalidData.into()))?;
    Ok(Some(text))
}

/// The settings in a file; the defaults when it does not exist.
///
/// # Errors
/// [`SettingsError`].
pub fn read(path: &Path) -> Result<Settings, SettingsError> {
    match read_text(path)? {
        Some(text) => of_text(&text, path),
        None => Ok(Settings::default()),
    }
}

/// The settings in the text of a file.
///
/// # Errors
/// [`SettingsError::Wrong`].
pub fn of_text(text: &str, path: &Path) -> Result<Settings, SettingsError> {
    Settings::read(text).map_err(|problems| SettingsError::Wrong { path: path.to_owned(), problems })
}

/// A path as it stands in the file: from the home directory after `~/`, otherwise from the folder of the file.
pub fn resolve(written: &Path, file: &Path, home: Option<&Path>) -> PathBuf {
    match (written.strip_prefix("~"), home) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => file.parent().unwrap_or(Path::new("/")).join(written),
    }
}
