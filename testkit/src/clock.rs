//! A wall clock that can be wrong: libfaketime is loaded before a program, and a file says by how much it is off. The
//! monotonic clock stays as it is, so timers do.
//!
//! What a program starts inherits it. libfaketime 0.9.10 refuses absolute sleeps on the monotonic clock (`clock_nanosleep`
//! with `TIMER_ABSTIME`, which Python's `time.sleep` uses); shells, coreutils and our programs do not use them.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// Where Debian and its kin keep libfaketime, and where others do.
const LIBRARIES: [&str; 4] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib64/faketime/libfaketime.so.1",
    "/usr/lib/faketime/libfaketime.so.1",
];

/// The library that shifts a program's clock, where it is installed.
pub fn faketime() -> Option<PathBuf> {
    LIBRARIES.map(PathBuf::from).into_iter().find(|file| file.is_file())
}

/// How long a jump may take to be noticed, seconds: reading the file at each look at the clock costs 20 µs.
pub const NOTICED_WITHIN_S: u32 = 1;

/// The clock of one host's programs.
#[derive(Debug)]
pub struct Clock {
    file: PathBuf,
    library: PathBuf,
}

impl Clock {
    /// A clock that is right, told by `file`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn new(file: &Path, library: &Path) -> Result<Self> {
        let clock = Self { file: file.to_owned(), library: library.to_owned() };
        clock.set(0)?;
        Ok(clock)
    }

    /// From now on it is off by so many seconds; programs notice within [`NOTICED_WITHIN_S`].
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn set(&self, offset_s: i32) -> Result<()> {
        let doing = || format!("setting the clock {}", self.file.display());
        // Whoever reads an empty file takes it for a mistake.
        let next = self.file.with_extension("next");
        fs::write(&next, format!("{offset_s:+}\n")).with_context(doing)?;
        fs::rename(&next, &self.file).with_context(doing)
    }

    /// The environment of programs that go by this clock.
    pub fn environment(&self) -> [(&'static str, OsString); 5] {
        [
            ("LD_PRELOAD", self.library.clone().into()),
            ("FAKETIME_TIMESTAMP_FILE", self.file.clone().into()),
            ("FAKETIME_CACHE_DURATION", NOTICED_WITHIN_S.to_string().into()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
            // Files have the times that they got.
            ("NO_FAKE_STAT", "1".into()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lacking;
    use std::process::Command;
    use std::time::{Duration, Instant, SystemTime};

    fn seconds(clock: &Clock, command: &str) -> (i64, Duration) {
        let mut shell = Command::new("sh");
        shell.args(["-c", command]);
        shell.envs(clock.environment());
        let began = Instant::now();
        let said = shell.output().unwrap();
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
        (String::from_utf8(said.stdout).unwrap().trim().parse().unwrap(), began.elapsed())
    }

    #[test]
    fn a_clock_jumps_and_waits_stay_as_long() {
        let Some(library) = faketime() else {
            return lacking::not_installed("libfaketime (Debian: faketime)").unwrap();
        };
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::new(&dir.path().join("m0"), &library).unwrap();
        let now = || i64::try_from(SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs()).unwrap();
        for offset in [0, 86_400, -86_400, 0] {
            clock.set(offset).unwrap();
            let (said, took) = seconds(&clock, "sleep 0.2; date +%s");
            assert!((said - now() - i64::from(offset)).abs() <= 2, "{said} by {offset}");
            assert!(took > Duration::from_millis(200) && took < Duration::from_secs(20), "{took:?}");
        }
    }
}
