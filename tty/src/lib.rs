//! Asking the terminal for a secret: what is typed is not shown, and however it ends the terminal is as it was.
//!
//! The terminal hands over key by key: as lines it would keep 4,095 bytes of each and drop the rest, and the keys that send signals
//! would leave it silent. Signals that end programs end the question first, and what they do else they do again afterwards.

use std::{
    fs::{File, OpenOptions},
    future::poll_fn,
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::Duration,
};

use rustix::{
    fs::OFlags,
    termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr},
};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM},
    flag::register_conditional_default,
};
use signalbox_schemas::Secret;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::sleep,
};
use zeroize::Zeroizing;

/// The terminal that the operator sits at, whatever standard input is.
const TERMINAL: &str = "/dev/tty";
/// How often it is looked whether a key was pressed, so that what ends the program can end the question, too.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The signals that tell a program to end.
const ENDS: [i32; 3] = [SIGTERM, SIGHUP, SIGQUIT];

/// Nobody answered.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// There is nobody to ask.
    #[error("there is no terminal to ask")]
    NoTerminal(#[source] io::Error),
    /// Whoever was asked gave up, or the program was told to end.
    #[error("it was given up")]
    GivenUp,
    /// Nothing was typed.
    #[error("it is empty")]
    Empty,
    /// More was typed than fits.
    #[error("it is longer than {0} bytes")]
    TooLong(usize),
    /// What was typed is no UTF-8.
    #[error("it is no text in UTF-8")]
    NoText,
    /// The terminal refuses, or is gone.
    #[error("the terminal cannot be asked")]
    System(#[from] io::Error),
}

/// Asks for a line that is not shown, of 1 to `most` bytes; `what` it is stands before it. For a program that listens to SIGINT
/// itself; to drop the question is to give the terminal back.
///
/// # Errors
/// [`AskError`]. Ctrl-C, SIGTERM, SIGHUP and SIGQUIT are [`AskError::GivenUp`].
pub async fn ask(what: &str, most: usize) -> Result<Secret, AskError> {
    ask_until(what, most, &ENDS).await
}

/// The same for a program that SIGINT is to end.
///
/// # Errors
/// As [`ask`]; SIGINT is [`AskError::GivenUp`] too.
pub fn ask_blocking(what: &str, most: usize) -> Result<Secret, AskError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let [term, hup, quit] = ENDS;
    runtime.block_on(ask_until(what, most, &[term, hup, quit, SIGINT]))
}

async fn ask_until(what: &str, most: usize, ends: &[i32]) -> Result<Secret, AskError> {
    // From before the terminal is silent, to after it has been given back.
    let mut ends = Ends::new(ends)?;
    let tty = Tty::open()?;
    (&tty.file).write_all(format!("{what}: ").as_bytes())?;
    let typed = tokio::select! {
        typed = tty.typed(most) => typed,
        () = ends.one() => Ok(Typed::GivenUp),
    };
    // The line end that was typed was not shown.
    let ended = (&tty.file).write_all(b"\n");
    drop(tty);
    let typed = typed?;
    ended?;
    match typed {
        Typed::GivenUp => Err(AskError::GivenUp),
        Typed::TooLong => Err(AskError::TooLong(most)),
        Typed::Line(line) if line.is_empty() => Err(AskError::Empty),
        Typed::Line(line) => {
            let text = std::str::from_utf8(&line).map_err(|_| AskError::NoText)?;
            Ok(Secret::new(text.to_owned()))
        }
    }
}

/// Listens to signals, which do nothing else until this is dropped.
struct Ends {
    signals: Vec<Signal>,
    is_closed: Arc<AtomicBool>,
}

impl Ends {
    fn new(kinds: &[i32]) -> io::Result<Self> {
        let is_closed = Self::is_closed(kinds)?;
        is_closed.store(false, Ordering::SeqCst);
        let listen = |kind: &i32| signal(SignalKind::from_raw(*kind));
        let signals = kinds.iter().map(listen).collect::<io::Result<_>>();
        if signals.is_err() {
            is_closed.store(true, Ordering::SeqCst);
        }
        Ok(Self { signals: signals?, is_closed })
    }

    /// Whether no question is open. What a signal does by itself is gone for good once it was listened to, so it is done here.
    fn is_closed(kinds: &[i32]) -> io::Result<Arc<AtomicBool>> {
        static KEPT: Mutex<Option<Arc<AtomicBool>>> = Mutex::new(None);
        let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(is_closed) = &*kept {
            return Ok(Arc::clone(is_closed));
        }
        let is_closed = Arc::new(AtomicBool::new(false));
        for kind in kinds {
            register_conditional_default(*kind, Arc::clone(&is_closed))?;
        }
        *kept = Some(Arc::clone(&is_closed));
        Ok(is_closed)
    }

    /// Waits for one of them.
    async fn one(&mut self) {
        poll_fn(|context| {
            let is_one = self.signals.iter_mut().any(|end| end.poll_recv(context).is_ready());
            if is_one { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

impl Drop for Ends {
    fn drop(&mut self) {
        self.is_closed.store(true, Ordering::SeqCst);
    }
}

/// A terminal that shows nothing of what is typed, until it is dropped.
struct Tty {
    file: File,
    before: Termios,
}

impl Tty {
    fn open() -> Result<Self, AskError> {
        let flags = i32::try_from((OFlags::NONBLOCK | OFlags::NOCTTY).bits()).map_err(io::Error::other)?;
        let open = OpenOptions::new().read(true).write(true).custom_flags(flags).open(TERMINAL);
        let file = open.map_err(AskError::NoTerminal)?;
        let before = tcgetattr(&file).map_err(|error| AskError::NoTerminal(error.into()))?;
        let mut silent = before.clone();
        silent.local_modes -= LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG | LocalModes::IEXTEN;
        tcsetattr(&file, OptionalActions::Flush, &silent).map_err(io::Error::from)?;
        Ok(Self { file, before })
    }

    async fn typed(&self, most: usize) -> io::Result<Typed> {
        let mut line = Line::new(most);
        loop {
            let mut keys = Zeroizing::new([0; 64]);
            let read = match (&self.file).read(&mut keys[..]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    sleep(LOOK_EVERY).await;
                    continue;
                }
                read => read?,
            };
            if read == 0 {
                return Ok(Typed::GivenUp);
            }
            for key in keys.iter().take(read) {
                if let Some(typed) = line.press(*key) {
                    return Ok(typed);
                }
            }
        }
    }
}

impl Drop for Tty {
    fn drop(&mut self) {
        if let Err(error) = tcsetattr(&self.file, OptionalActions::Now, &self.before) {
            let line =
                format!("the terminal does not show what is typed ({error}); `stty sane` makes it so\n");
            // A terminal that takes neither is gone, and nobody sits at it.
            drop((&self.file).write_all(line.as_bytes()));
        }
    }
}

/// What became of a question.
#[derive(Debug, PartialEq, Eq)]
enum Typed {
    Line(Zeroizing<Vec<u8>>),
    TooLong,
    GivenUp,
}

/// What was typed so far.
struct Line {
    typed: Zeroizing<Vec<u8>>,
    most: usize,
    /// What is too long is read to its end: the rest of it is not for the shell to run.
    is_too_long: bool,
}

impl Line {
    fn new(most: usize) -> Self {
        // Room for all of it, so that nothing is left behind where it grew.
        Self { typed: Zeroizing::new(Vec::with_capacity(most)), most, is_too_long: false }
    }

    /// Takes a key; what was typed, if that ends it.
    fn press(&mut self, key: u8) -> Option<Typed> {
        const INTERRUPT: u8 = 0x03;
        const END: u8 = 0x04;
        const QUIT: u8 = 0x1c;
        const SUSPEND: u8 = 0x1a;
        const BACKSPACE: u8 = 0x08;
        const DELETE: u8 = 0x7f;
        const KILL_LINE: u8 = 0x15;
        match key {
            INTERRUPT | QUIT => return Some(Typed::GivenUp),
            END if self.typed.is_empty() => return Some(Typed::GivenUp),
            b'\n' | b'\r' | END => {
                if self.is_too_long {
                    return Some(Typed::TooLong);
                }
                return Some(Typed::Line(std::mem::take(&mut self.typed)));
            }
            // Nothing is left to come back to while a question is open.
            SUSPEND => {}
            KILL_LINE => {
                self.typed.clear();
                self.is_too_long = false;
            }
            BACKSPACE | DELETE => {
                // A character of several bytes goes as a whole.
                while self.typed.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {}
            }
            byte if self.typed.len() < self.most => self.typed.push(byte),
            _ => self.is_too_long = true,
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("hunter2\r", Typed::Line(b"hunter2".to_vec().into()))]
    #[case("hunt3\u{7f}er2\n", Typed::Line(b"hunter2".to_vec().into()))]
    #[case("h\u{fc}\u{7f}i\n", Typed::Line(b"hi".to_vec().into()))]
    #[case("wrong\u{15}right\n", Typed::Line(b"right".to_vec().into()))]
    #[case("a\u{1a}b\u{4}", Typed::Line(b"ab".to_vec().into()))]
    #[case("\n", Typed::Line(Vec::new().into()))]
    #[case("12345678\n", Typed::Line(b"12345678".to_vec().into()))]
    #[case("123456789\n", Typed::TooLong)]
    #[case("1234567890\u{7f}\u{7f}\u{7f}\n", Typed::TooLong)]
    #[case("\u{4}", Typed::GivenUp)]
    #[case("abc\u{3}", Typed::GivenUp)]
    #[case("abc\u{1c}", Typed::GivenUp)]
    fn keys_make_a_line(#[case] keys: &str, #[case] expected: Typed) {
        let mut line = Line::new(8);
        let mut typed: Vec<_> = keys.bytes().map(|key| line.press(key)).collect();
        assert_eq!(typed.pop(), Some(Some(expected)), "the last key ends it");
        assert!(typed.iter().all(Option::is_none), "it ended before");
    }
}
