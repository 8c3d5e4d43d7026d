//! What does not belong on a command line: read from a file, or from stdin.

use std::{fs::File, io::Read, path::Path};

use signalbox_schemas::error::report;

use super::exit::{self, Failure};

/// Names stdin.
const STDIN: &str = "-";

/// Bytes of a file, or of stdin for `-`; `what` they are completes «cannot read …».
///
/// # Errors
/// [`Failure`] when it cannot be read, or has more than `most` bytes.
pub(super) async fn bytes(path: &Path, most: usize, what: &'static str) -> Result<Vec<u8>, Failure> {
    let path = path.to_owned();
    // Stdin may say nothing for long.
    match tokio::task::spawn_blocking(move || read(&path, most, what)).await {
        Ok(read) => read,
        Err(error) => Err(Failure::system(&format!("read {what}"), &error)),
    }
}

/// The same as text, without the line end that editors put there.
///
/// # Errors
/// As [`bytes()`]; also for what is empty or no UTF-8.
pub(super) async fn text(path: &Path, most: usize, what: &'static str) -> Result<String, Failure> {
    let wrong = |why: &str| Failure::new(exit::USAGE, format!("cannot read {what}: {} {why}", name(path)));
    let mut text = String::from_utf8(bytes(path, most, what).await?).map_err(|_| wrong("is no text"))?;
    text.truncate(text.trim_end_matches(['\r', '\n']).len());
    if text.is_empty() { Err(wrong("is empty")) } else { Ok(text) }
}

fn read(path: &Path, most: usize, what: &'static str) -> Result<Vec<u8>, Failure> {
    let name = name(path);
    let failed = |error: &std::io::Error| {
        Failure::new(exit::FAILED, format!("cannot read {what} from {name}: {}", report(error)))
    };
    let source: Box<dyn Read> = if is_stdin(path) {
        Box::new(std::io::stdin().lock())
    } else {
        Box::new(File::open(path).map_err(|error| failed(&error))?)
    };
    let mut read = Vec::new();
    source.take(most as u64 + 1).read_to_end(&mut read).map_err(|error| failed(&error))?;
    if read.len() > most {
        let line = format!("cannot read {what}: {name} has more than the {most} bytes that are allowed");
        return Err(Failure::new(exit::USAGE, line));
    }
    Ok(read)
}

/// Whether a path means stdin.
pub(super) fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == STDIN
}

/// What a path is called, also when it means stdin.
pub(super) fn name(path: &Path) -> String {
    if is_stdin(path) { "stdin".to_owned() } else { path.display().to_string() }
}
