//! What is secret: read from a file, from stdin or from the terminal, never an argument, which others can see.

use std::{fs::File, io::Read, path::Path};

use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use signalbox_schemas::{Secret, error::report};
use signalbox_tty::AskError;
use zeroize::Zeroizing;

use super::{
    exit::{self, Failure},
    input::{is_stdin, name},
    run::nothing_submitted,
};

/// What a file, or stdin for `-`, holds as text; `what` it is completes «cannot read …».
///
/// # Errors
/// [`Failure`] when it cannot be read, is empty, is no UTF-8, or has more than `most` bytes.
pub(super) async fn text(path: &Path, most: usize, what: &'static str) -> Result<Secret, Failure> {
    let path = path.to_owned();
    // Stdin may say nothing for long.
    let job = tokio::task::spawn_blocking(move || {
        let failed = |error: &std::io::Error| {
            Failure::new(exit::FAILED, format!("cannot read {what} from {}: {}", name(&path), report(error)))
        };
        if is_stdin(&path) {
            read(std::io::stdin().lock(), most, what, &name(&path))
        } else {
            read(File::open(&path).map_err(|error| failed(&error))?, most, what, &name(&path))
        }
    });
    job.await.map_err(|error| Failure::system(&format!("read {what}"), &error))?
}

/// The same as one line, without the line end that editors put there.
///
/// # Errors
/// As [`text`].
pub(super) async fn line(path: &Path, most: usize, what: &'static str) -> Result<Secret, Failure> {
    let line = text(path, most, what).await?.without_line_end();
    if line.expose().is_empty() {
        return Err(Failure::new(exit::USAGE, format!("cannot read {what}: {} is empty", name(path))));
    }
    Ok(line)
}

/// What is typed at the terminal, of at most `most` bytes; `instead` names another way.
///
/// # Errors
/// [`Failure`] when there is no terminal to ask at, when what is typed is empty, too long or no text, for Ctrl-C, and for a signal that
/// ends programs.
pub(super) async fn asked(what: &'static str, most: usize, instead: &str) -> Result<Secret, Failure> {
    signalbox_tty::ask(what, most).await.map_err(|error| match error {
        AskError::GivenUp => nothing_submitted(),
        AskError::Empty => Failure::new(exit::USAGE, format!("cannot go on: {what} is empty")),
        error => Failure::new(exit::USAGE, format!("cannot ask for {what}: {}; {instead}", report(&error))),
    })
}

fn read(source: impl Read, most: usize, what: &str, name: &str) -> Result<Secret, Failure> {
    let wrong = |why: &str| Failure::new(exit::USAGE, format!("cannot read {what}: {name} {why}"));
    // Room for all of it at once: nothing is left behind where it grew.
    let mut bytes = Zeroizing::new(Vec::with_capacity(most + 1));
    source.take(most as u64 + 1).read_to_end(&mut bytes).map_err(|error| {
        Failure::new(exit::FAILED, format!("cannot read {what} from {name}: {}", report(&error)))
    })?;
    if bytes.len() > most {
        return Err(wrong(&format!("has more than the {most} bytes that are allowed")));
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| wrong("is no text"))?;
    if text.trim().is_empty() { Err(wrong("is empty")) } else { Ok(Secret::new(text.to_owned())) }
}

/// Values are in memory from here on: nobody who runs as the same user looks into it, and none is written where this ends badly.
///
/// # Errors
/// [`Failure`] when the system refuses.
pub(super) fn harden(what: &str) -> Result<(), Failure> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(|error| {
        let line = format!("cannot {what}: the system does not keep others out of this process: {error}");
        Failure::new(exit::NOT_ACCEPTED, line)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(b"key\n", Some("key\n"))]
    #[case(b" \n", None)]
    #[case(b"\xff", None)]
    #[case(b"123456789", None)]
    fn a_file_is_taken_as_it_is_or_not_at_all(#[case] held: &[u8], #[case] text: Option<&str>) {
        let read = read(held, 8, "the key", "key.txt");
        assert_eq!(read.as_ref().ok().map(Secret::expose), text);
        // Nothing of it is told.
        assert!(read.err().and_then(|failure| failure.line).is_none_or(|line| !line.contains("123")));
    }
}
