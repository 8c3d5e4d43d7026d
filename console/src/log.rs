//! Where our own log goes: never to a screen that shows something else.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Mutex,
};

use signalbox_schemas::layout::Layout;
use tracing_subscriber::EnvFilter;

/// A log file that has grown larger begins anew, bytes.
const LOG_BYTES: u64 = 8 * 1024 * 1024;

/// Makes a log that has grown too large begin anew. Its end is kept beside it, as `NAME.log.old`.
///
/// The file stays the same, so that those who append to it (`O_APPEND`) go on; what they write in this instant may be
/// lost. Cost: reads and writes at most 8 MiB.
///
/// # Errors
/// Those of the file system; the log is as it was then, or begins anew without a copy.
pub fn cap(path: &Path) -> io::Result<()> {
    let mut log = OpenOptions::new().read(true).append(true).open(path)?;
    let len = log.metadata()?.len();
    if len <= LOG_BYTES {
        return Ok(());
    }
    let kept = log.seek(SeekFrom::Start(len - LOG_BYTES)).and_then(|_| {
        let mut old = create(&old_of(path), true)?;
        io::copy(&mut (&log).take(LOG_BYTES), &mut old)
    });
    // On a full disk there is no room for a copy, and the more reason to begin anew.
    log.set_len(0)?;
    kept.map(|_| ())
}

fn old_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".old");
    name.into()
}

fn create(path: &Path, anew: bool) -> io::Result<File> {
    OpenOptions::new().create(true).write(true).append(!anew).truncate(anew).mode(0o600).open(path)
}

/// A log file that stays within its bound while it is written.
struct Capped {
    file: File,
    path: PathBuf,
}

impl Write for Capped {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        if self.file.metadata()?.len() > LOG_BYTES {
            cap(&self.path)?;
        }
        self.file.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// What is logged where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Log<'a> {
    /// A command: nothing, unless `RUST_LOG` says so; to stderr.
    Quiet,
    /// A console, or `up`: to `STATE/log/NAME.log`, if there is such a directory.
    File(&'static str, &'a Layout),
}

/// Begins to log. Once per process.
pub fn begin(log: &Log<'_>) {
    let filter =
        |default: &str| EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    // A line that cannot be written is lost. Told on stderr, as is usual, that would be a panic where stderr is on the
    // same full disk, and a mess on a screen that shows something else.
    let format = tracing_subscriber::fmt().with_ansi(false).log_internal_errors(false);
    match log {
        Log::Quiet => {
            format.with_env_filter(filter("off")).with_writer(std::io::stderr).init();
        }
        // Nothing is written into somebody else's directory.
        Log::File(_, layout) if !layout.state_json().exists() => {}
        Log::File(name, layout) => {
            let path = layout.log(name);
            // No state directory yet: the console has nothing to say without one.
            let Ok(file) = create(&path, false) else { return };
            let log = Mutex::new(Capped { file, path });
            format.with_env_filter(filter(signalbox_link::DEFAULT_LOG)).with_writer(log).init();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_begins_anew_and_its_end_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("demo-1.log");
        let mut log = Capped { file: create(&path, false).unwrap(), path: path.clone() };
        let mut line = vec![b'x'; 1024 * 1024];
        line.push(b'\n');
        for _ in 0..30 {
            log.write_all(&line).unwrap();
            assert!(std::fs::metadata(&path).unwrap().len() < LOG_BYTES + 2 * line.len() as u64);
        }
        let old = std::fs::read(dir.path().join("demo-1.log.old")).unwrap();
        assert_eq!(old.len() as u64, LOG_BYTES);
        assert!(old.ends_with(b"\n"), "what is kept is not the end");
        // Whoever had it open goes on at its new beginning.
        log.write_all(b"last\n").unwrap();
        let text = std::fs::read(&path).unwrap();
        assert!(text.ends_with(b"last\n") && text.first() != Some(&0));
        cap(&path).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), text, "a small log was touched");
    }
}
