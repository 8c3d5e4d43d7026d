//! Asking a terminal for a secret: what is typed is not shown, and however it ends the terminal is as it was.

use std::{
    fs::{File, OpenOptions},
    future::poll_fn,
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    task::Poll,
    time::Duration,
};

use rustix::{
    fs::OFlags,
    termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr},
};
use signalbox_schemas::Secret;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::sleep,
};
use zeroize::Zeroizing;

/// The terminal of this process, wherever its standard input comes from.
const TERMINAL: &str = "/dev/tty";
/// How often it is looked whether a key was pressed, so that what ends the process can end the question too.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Longest answer, bytes.
const MAX_BYTES: usize = 16 * 1024;

/// Nobody answered.
#[derive(Debug, thiserror::Error)]
pub enum PromptError {
    /// There is nobody to ask.
    #[error("there is no terminal to ask")]
    NoTerminal,
    /// Whoever was asked gave up, or the process was told to end.
    #[error("it was given up")]
    GivenUp,
    /// What was typed is no text, or too long.
    #[error("what was typed is no text of 1 to {MAX_BYTES} bytes")]
    NoText,
    /// The terminal refuses.
    #[error("the terminal cannot be asked")]
    System(#[from] io::Error),
}

/// Asks for one line.
///
/// # Errors
/// [`PromptError`].
pub(super) fn ask(question: &str) -> Result<Secret, PromptError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        // From before the terminal is silent.
        let ends = Ends::new()?;
        let tty = Tty::open()?;
        (&tty.file).write_all(format!("{question}: ").as_bytes())?;
        let line = tokio::select! {
            line = tty.typed() => line,
            () = ends.one() => Err(PromptError::GivenUp),
        };
        // The line end that was typed was not shown.
        let ended = (&tty.file).write_all(b"\n");
        let line = line?;
        ended?;
        let text = std::str::from_utf8(&line).map_err(|_| PromptError::NoText)?;
        if text.is_empty() { Err(PromptError::NoText) } else { Ok(Secret::new(text.to_owned())) }
    })
}

/// The signals that tell a process to end.
struct Ends(Vec<Signal>);

impl Ends {
    fn new() -> io::Result<Self> {
        let kinds =
            [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup(), SignalKind::quit()];
        kinds.into_iter().map(signal).collect::<io::Result<_>>().map(Self)
    }

    /// Waits for one of them.
    async fn one(mut self) {
        poll_fn(|context| {
            let is_one = self.0.iter_mut().any(|end| end.poll_recv(context).is_ready());
            if is_one { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

/// A terminal that shows nothing of what is typed, until it is dropped.
struct Tty {
    file: File,
    before: Termios,
}

impl Tty {
    fn open() -> Result<Self, PromptError> {
        let flags = i32::try_from((OFlags::NONBLOCK | OFlags::NOCTTY).bits()).map_err(io::Error::other)?;
        let open = OpenOptions::new().read(true).write(true).custom_flags(flags).open(TERMINAL);
        let file = open.map_err(|_| PromptError::NoTerminal)?;
        let before = tcgetattr(&file).map_err(|_| PromptError::NoTerminal)?;
        let mut silent = before.clone();
        // Key by key, and the keys that send signals as well: a signal would leave the terminal like this.
        silent.local_modes -= LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG | LocalModes::IEXTEN;
        tcsetattr(&file, OptionalActions::Flush, &silent).map_err(io::Error::from)?;
        Ok(Self { file, before })
    }

    async fn typed(&self) -> Result<Zeroizing<Vec<u8>>, PromptError> {
        let mut line = Line::default();
        loop {
            let mut keys = Zeroizing::new([0; 64]);
            let read = match (&self.file).read(&mut keys[..]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    sleep(LOOK_EVERY).await;
                    continue;
                }
                read => read,
            };
            let read = read?;
            if read == 0 {
                return Err(PromptError::GivenUp);
            }
            for key in keys.iter().take(read) {
                if line.press(*key)? {
                    return Ok(line.0);
                }
            }
        }
    }
}

impl Drop for Tty {
    fn drop(&mut self) {
        if let Err(error) = tcsetattr(&self.file, OptionalActions::Now, &self.before) {
            tracing::warn!(%error, "the terminal does not show what is typed; `stty sane` makes it so");
        }
    }
}

/// What was typed so far.
struct Line(Zeroizing<Vec<u8>>);

impl Default for Line {
    fn default() -> Self {
        // Room for all of it, so that nothing is left behind where it grew.
        Self(Zeroizing::new(Vec::with_capacity(MAX_BYTES)))
    }
}

impl Line {
    /// Takes a key; whether it ends the line.
    fn press(&mut self, key: u8) -> Result<bool, PromptError> {
        const INTERRUPT: u8 = 0x03;
        const END: u8 = 0x04;
        const QUIT: u8 = 0x1c;
        const BACKSPACE: u8 = 0x08;
        const DELETE: u8 = 0x7f;
        const KILL_LINE: u8 = 0x15;
        match key {
            b'\n' | b'\r' => return Ok(true),
            INTERRUPT | QUIT => return Err(PromptError::GivenUp),
            END if self.0.is_empty() => return Err(PromptError::GivenUp),
            END => return Ok(true),
            KILL_LINE => self.0.clear(),
            BACKSPACE | DELETE => {
                // A character of several bytes goes as a whole.
                while self.0.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {}
            }
            byte if self.0.len() < MAX_BYTES => self.0.push(byte),
            _ => return Err(PromptError::NoText),
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("hunter2\r", Some("hunter2"))]
    #[case("hunter2\n", Some("hunter2"))]
    #[case("hunter3\u{7f}2\n", Some("hunter2"))]
    #[case("ab\u{8}\u{8}\u{8}c\n", Some("c"))]
    #[case("h\u{fc}\u{7f}i\n", Some("hi"))]
    #[case("wrong\u{15}right\n", Some("right"))]
    #[case("right\u{4}", Some("right"))]
    #[case("\u{4}", None)]
    #[case("abc\u{3}", None)]
    #[case("abc\u{1c}", None)]
    fn keys_make_a_line(#[case] keys: &str, #[case] expected: Option<&str>) {
        let mut line = Line::default();
        let ended =
            keys.bytes().find_map(|key| line.press(key).map_or(Some(false), |ends| ends.then_some(true)));
        assert_eq!(ended, Some(expected.is_some()), "the last key ends it");
        if let Some(expected) = expected {
            assert_eq!(line.0[..], *expected.as_bytes());
        }
    }

    #[test]
    fn a_line_has_an_end() {
        let mut line = Line::default();
        assert!((0..MAX_BYTES).all(|_| !line.press(b'x').unwrap()));
        assert!(matches!(line.press(b'x'), Err(PromptError::NoText)));
    }
}
