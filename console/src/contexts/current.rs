//! The context that is used, and the one before.
//!
//! Not in the configuration, which people keep in git, and not in the default state directory either: that one belongs to the
//! fleet in it, and is only taken into use while it is empty.

use std::{
    fs::File,
    io::{self, Read as _},
    path::PathBuf,
};

use crate::{config::Environment, file, settings::context::is_name};

/// Beside the default state directory: the file, and a folder for each context that names no state directory.
const FOLDER: &str = "signalbox-contexts";
/// No context has this name.
const FILE: &str = ".current";
/// Two names and their ends.
const MOST_BYTES: u64 = 1024;

/// What is used.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Used {
    /// The context; `None`: none.
    pub name: Option<String>,
    /// The one before; `None`: there was none, or that was it.
    pub before: Option<String>,
}

/// Where it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    folder: PathBuf,
}

impl Place {
    /// In `$XDG_STATE_HOME`, or in `~/.local/state`. `None` when neither is known.
    pub fn of(environment: &Environment) -> Option<Self> {
        environment.state_home().map(|base| Self { folder: base.join(FOLDER) })
    }

    /// The folder of what contexts have of their own.
    pub fn folder(&self) -> &std::path::Path {
        &self.folder
    }

    /// The file.
    pub fn file(&self) -> PathBuf {
        self.folder.join(FILE)
    }

    /// What is used; nothing where there is no file. Blocks.
    ///
    /// # Errors
    /// That of the file system; [`io::ErrorKind::InvalidData`] for a file that this program did not write.
    pub fn read(&self) -> io::Result<Used> {
        let mut text = String::new();
        match File::open(self.file()) {
            Ok(file) => file.take(MOST_BYTES + 1).read_to_string(&mut text)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Used::default()),
            Err(error) => return Err(error),
        };
        if text.len() as u64 > MOST_BYTES {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut lines = text.lines().map(|line| match line {
            "" => Ok(None),
            name if is_name(name) => Ok(Some(name.to_owned())),
            _ => Err(io::Error::from(io::ErrorKind::InvalidData)),
        });
        let mut next = || lines.next().transpose().map(Option::flatten);
        Ok(Used { name: next()?, before: next()? })
    }

    /// Keeps it, at once or not at all. Blocks.
    ///
    /// # Errors
    /// That of the file system.
    pub fn write(&self, used: &Used) -> io::Result<()> {
        let line = |name: &Option<String>| name.clone().unwrap_or_default();
        file::replace(&self.file(), format!("{}\n{}\n", line(&used.name), line(&used.before)).as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_is_kept_and_what_is_none_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place { folder: dir.path().join("new") };
        assert_eq!(place.read().unwrap(), Used::default());
        for (name, before) in
            [(Some("prod"), Some("lab")), (None, Some("lab")), (Some("prod"), None), (None, None)]
        {
            let used = Used { name: name.map(str::to_owned), before: before.map(str::to_owned) };
            place.write(&used).unwrap();
            assert_eq!(place.read().unwrap(), used);
        }
        for text in ["a b\n", "../x\n", "\u{1b}[2J\n", &"x".repeat(2_000)] {
            std::fs::write(place.file(), text).unwrap();
            assert_eq!(place.read().unwrap_err().kind(), io::ErrorKind::InvalidData, "{text:?}");
        }
    }
}
