//! What is secret: read from a file or from stdin, or asked for without showing it. Never an argument, which others can see.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Write as _},
    path::Path,
};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use signalbox_schemas::{Secret, error::report};
use tokio::signal::unix::{SignalKind, signal};
use zeroize::Zeroizing;

use super::{
    exit::{self, Failure},
    input::{is_stdin, name},
};

/// The terminal that the operator sits at, whatever stdin is.
const TERMINAL: &str = "/dev/tty";

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
    let text = text(path, most, what).await?;
    let line = text.expose().trim_end_matches(['\r', '\n']);
    if line.is_empty() {
        return Err(Failure::new(exit::USAGE, format!("cannot read {what}: {} is empty", name(path))));
    }
    Ok(Secret::new(line.to_owned()))
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

/// A terminal that does not show what is typed, until this is dropped.
struct Blind {
    terminal: File,
    before: Termios,
}

impl Blind {
    fn new() -> std::io::Result<Self> {
        let terminal = OpenOptions::new().read(true).write(true).open(TERMINAL)?;
        let before = tcgetattr(&terminal)?;
        let mut blind = before.clone();
        blind.local_modes.remove(LocalModes::ECHO);
        blind.local_modes.insert(LocalModes::ECHONL);
        tcsetattr(&terminal, OptionalActions::Flush, &blind)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Blind {
    fn drop(&mut self) {
        // Best effort: there is nobody to tell but on that very terminal.
        let _ = tcsetattr(&self.terminal, OptionalActions::Now, &self.before);
    }
}

/// Asks for a line that is not shown. `what` it is completes «cannot ask for …».
///
/// # Errors
/// [`Failure`] when there is no terminal to ask at, when nothing is typed, and for Ctrl-C.
pub(super) async fn ask(what: &'static str, most: usize, instead: &str) -> Result<Secret, Failure> {
    let failed = |error: &std::io::Error| {
        Failure::new(
            exit::USAGE,
            format!("cannot ask for {what}, for there is no terminal ({}); {instead}", report(error)),
        )
    };
    let mut interrupts =
        signal(SignalKind::interrupt()).map_err(|error| Failure::system("listen to Ctrl-C", &error))?;
    let mut blind = Blind::new().map_err(|error| failed(&error))?;
    let source = blind.terminal.try_clone().map_err(|error| failed(&error))?;
    write!(blind.terminal, "{what}: ").map_err(|error| failed(&error))?;
    let reading = tokio::task::spawn_blocking(move || read_line(source, most));
    let typed = tokio::select! {
        typed = reading => typed,
        // Whoever still reads ends with this program.
        _ = interrupts.recv() => {
            drop(blind);
            return Err(Failure::new(exit::INTERRUPTED, "interrupted; nothing was submitted"));
        }
    };
    drop(blind);
    let typed = typed.map_err(|error| Failure::system(&format!("ask for {what}"), &error))?;
    match typed.map_err(|error| failed(&error))? {
        Some(typed) if !typed.expose().is_empty() => Ok(typed),
        _ => Err(Failure::new(
            exit::USAGE,
            format!("cannot go on: {what} is empty, or longer than {most} bytes"),
        )),
    }
}

/// A line, byte by byte, so that it stands in one place only; `None`: it is too long, or no UTF-8.
fn read_line(mut source: impl Read, most: usize) -> std::io::Result<Option<Secret>> {
    let mut line = Zeroizing::new(Vec::with_capacity(most));
    let mut byte = [0];
    while source.read(&mut byte)? > 0 && byte != *b"\n" {
        if line.len() == most {
            return Ok(None);
        }
        line.extend(byte);
    }
    Ok(std::str::from_utf8(&line).ok().map(|line| Secret::new(line.to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(b"hunter2\n", Some("hunter2"))]
    #[case(b"hunter2", Some("hunter2"))]
    #[case(b"a\nb\n", Some("a"))]
    #[case(b"123456789", None)]
    #[case(b"\xff\n", None)]
    fn one_line_is_read_and_no_more_than_it_may_be(#[case] typed: &[u8], #[case] line: Option<&str>) {
        let read = read_line(typed, 8).unwrap();
        assert_eq!(read.as_ref().map(Secret::expose), line);
    }

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
