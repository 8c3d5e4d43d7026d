//! A program in a real pseudo-terminal: type to it, read its screen, resize it, watch it end.

use std::fmt;
use std::io::{Read, Write};
use std::num::NonZeroU16;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use portable_pty::{CommandBuilder, ExitStatus, MasterPty, PtySize, native_pty_system};
use rustix::process::Pid;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::picture::{self, Ground};
use crate::process::{Signal, kill_group, pid, watch_end};

/// Bytes kept of what the program wrote; a screen test writes far less, and a runaway program fills no memory.
const KEPT_BYTES: usize = 4 * 1024 * 1024;

/// How long the last bytes of a program that has ended may take to arrive.
const DRAIN: Duration = Duration::from_secs(1);

/// How long the end of a killed program may take to arrive.
const KILL_GRACE: Duration = Duration::from_secs(5);

/// A program in a pseudo-terminal. It is killed, with its process group, when this is dropped.
pub struct Pty {
    master: Box<dyn MasterPty + Send>,
    keyboard: Box<dyn Write + Send>,
    terminal: Arc<Mutex<Terminal>>,
    /// Bytes read so far; closed after the last one.
    written: watch::Receiver<u64>,
    status: watch::Receiver<Option<ExitStatus>>,
    ended: mpsc::Receiver<()>,
    pid: Pid,
}

/// What the program wrote, as bytes and as the screen that they make.
struct Terminal {
    parser: vt100::Parser,
    bytes: Vec<u8>,
}

impl Pty {
    /// Starts a command in a terminal of `cols` × `rows` cells.
    ///
    /// The program, arguments, working directory and environment of `command` are taken; `TERM` is
    /// `xterm-256color` unless the command sets it.
    ///
    /// # Errors
    /// When there is no terminal to be had, or the program cannot be started.
    pub fn spawn(command: &Command, cols: u16, rows: u16) -> Result<Self> {
        let (screen_rows, screen_cols) = cells(cols, rows)?;
        let pair = native_pty_system().openpty(size(cols, rows)).context("opening a pseudo-terminal")?;
        let mut child = pair.slave.spawn_command(builder(command)).context("starting the program")?;
        let pid = pid(child.process_id().context("the program has no process id")?)?;
        // The reader sees the end only when nobody but the program holds the terminal's other side.
        drop(pair.slave);
        let reader = pair.master.try_clone_reader().context("reading the terminal")?;
        let keyboard = pair.master.take_writer().context("writing to the terminal")?;
        let parser = vt100::Parser::new(screen_rows, screen_cols, 0);
        let terminal = Arc::new(Mutex::new(Terminal { parser, bytes: Vec::new() }));
        let written = read_all(reader, Arc::clone(&terminal));
        let (status, ended) = watch_end(move || child.wait());
        Ok(Self { master: pair.master, keyboard, terminal, written, status, ended, pid })
    }

    /// Types bytes: text, `\r` for Enter, `\x1b` for Escape, `\x03` for Ctrl-C, `\x1b[A` for the arrow up.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn type_keys(&mut self, keys: impl AsRef<[u8]>) -> Result<()> {
        self.keyboard.write_all(keys.as_ref()).context("typing")?;
        self.keyboard.flush().context("typing")
    }

    /// Makes the terminal `cols` × `rows` cells large; the program gets its `SIGWINCH`.
    ///
    /// # Errors
    /// When the terminal is gone, or a side is 0.
    pub fn resize(&self, cols: u16, rows: u16) -> Result<()> {
        let (screen_rows, screen_cols) = cells(cols, rows)?;
        lock(&self.terminal).parser.screen_mut().set_size(screen_rows, screen_cols);
        self.master.resize(size(cols, rows)).context("resizing the terminal")
    }

    /// What stands on the screen now, a line per row, without trailing spaces.
    pub fn screen(&self) -> String {
        lock(&self.terminal).parser.screen().contents()
    }

    /// The screen as a picture, SVG.
    pub fn picture(&self, ground: Ground) -> String {
        picture::svg(lock(&self.terminal).parser.screen(), ground)
    }

    /// Whether the program shows the alternate screen, as a console does from start to end.
    pub fn is_alternate_screen(&self) -> bool {
        lock(&self.terminal).parser.screen().alternate_screen()
    }

    /// Every byte the program wrote, escape sequences included; the newest 4 MiB of them.
    pub fn bytes(&self) -> Vec<u8> {
        lock(&self.terminal).bytes.clone()
    }

    /// How many bytes the program has written so far.
    pub fn written(&self) -> u64 {
        *self.written.borrow()
    }

    /// The program's process id.
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Waits until the screen shows `text`, and returns that screen.
    ///
    /// # Errors
    /// When it does not within `bound`, or the program has closed the terminal; the error shows the screen.
    pub async fn wait_for(&self, text: &str, bound: Duration) -> Result<String> {
        self.wait_until(&format!("{text:?}"), bound, |screen| screen.contains(text)).await
    }

    /// Waits until `is_so` says yes to the screen, and returns that screen. Looks after everything that the program
    /// writes, and so at once. `what` is for the error.
    ///
    /// # Errors
    /// As [`Pty::wait_for`].
    pub async fn wait_until(
        &self,
        what: &str,
        bound: Duration,
        is_so: impl Fn(&str) -> bool,
    ) -> Result<String> {
        let shown = || is_so(&self.screen());
        let mut written = self.written.clone();
        let found = timeout(bound, written.wait_for(|_| shown())).await;
        match found.map(|found| found.map(drop)) {
            Ok(Ok(())) => Ok(self.screen()),
            // The last bytes come before the end does.
            Ok(Err(_)) if shown() => Ok(self.screen()),
            Ok(Err(_)) => bail!("the program ended without {what}; the screen:\n{}", self.screen()),
            Err(_) => bail!("no {what} within {bound:?}; the screen:\n{}", self.screen()),
        }
    }

    /// Waits for the program's end, and for the last of what it wrote.
    ///
    /// # Errors
    /// When it still runs after `bound`; the error shows the screen.
    pub async fn wait(&self, bound: Duration) -> Result<ExitStatus> {
        let Ok(status) = timeout(bound, self.end()).await else {
            bail!("the program still runs after {bound:?}; the screen:\n{}", self.screen());
        };
        // A grandchild may keep the terminal open for ever: then what is there must do.
        let mut written = self.written.clone();
        let _in_time = timeout(DRAIN, written.wait_for(|_| false)).await;
        status
    }

    async fn end(&self) -> Result<ExitStatus> {
        let mut status = self.status.clone();
        let ended = status.wait_for(Option::is_some).await.context("nobody watches the program any more")?;
        ended.clone().context("invariant: waited for some status")
    }
}

impl Drop for Pty {
    fn drop(&mut self) {
        kill_group(self.pid, Signal::KILL);
        let _in_time = self.ended.recv_timeout(KILL_GRACE);
    }
}

impl fmt::Debug for Pty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pty").field("pid", &self.pid).finish_non_exhaustive()
    }
}

/// Feeds the terminal on a thread of its own, which ends when nobody holds the terminal's other side.
fn read_all(mut reader: Box<dyn Read + Send>, terminal: Arc<Mutex<Terminal>>) -> watch::Receiver<u64> {
    let (written_tx, written_rx) = watch::channel(0);
    std::thread::spawn(move || {
        let mut buffer = [0; 8 * 1024];
        // Linux says EIO, not an end of file, once the other side is closed: both are the end here.
        while let Ok(length @ 1..) = reader.read(&mut buffer) {
            let chunk = buffer.get(..length).unwrap_or_default();
            lock(&terminal).take(chunk);
            written_tx.send_modify(|written| *written += chunk.len() as u64);
        }
    });
    written_rx
}

impl Terminal {
    fn take(&mut self, chunk: &[u8]) {
        self.parser.process(chunk);
        self.bytes.extend_from_slice(chunk);
        let excess = self.bytes.len().saturating_sub(KEPT_BYTES);
        self.bytes.drain(..excess);
    }
}

fn builder(command: &Command) -> CommandBuilder {
    let mut builder = CommandBuilder::new(command.get_program());
    builder.args(command.get_args());
    builder.env("TERM", "xterm-256color");
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => builder.env(name, value),
            None => builder.env_remove(name),
        }
    }
    // Without one the builder goes to the home folder, which a fresh machine may not have.
    match command.get_current_dir() {
        Some(folder) => builder.cwd(folder),
        None => builder.cwd("."),
    }
    builder
}

fn size(cols: u16, rows: u16) -> PtySize {
    PtySize { rows, cols, pixel_width: 0, pixel_height: 0 }
}

/// Rows and columns in the order and the type of the screen's parser.
fn cells(cols: u16, rows: u16) -> Result<(NonZeroU16, NonZeroU16)> {
    let side = |cells| NonZeroU16::new(cells).context("a terminal has at least one cell");
    Ok((side(rows)?, side(cols)?))
}

/// A test that panicked elsewhere must not hide what stands on the screen.
fn lock(terminal: &Mutex<Terminal>) -> MutexGuard<'_, Terminal> {
    terminal.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUND: Duration = Duration::from_secs(10);

    fn sh(script: &str) -> Pty {
        Pty::spawn(Command::new("sh").args(["-c", script]), 80, 24).unwrap()
    }

    #[tokio::test]
    async fn what_is_typed_reaches_the_program_and_the_screen() {
        let mut pty = sh("read -r line; printf '\\033[2J\\033[Hgot <%s>' \"$line\"; exit 3");
        pty.type_keys("hello\r").unwrap();
        let status = pty.wait(BOUND).await.unwrap();
        assert_eq!(status.exit_code(), 3);
        assert_eq!(pty.screen(), "got <hello>");
        assert_eq!(pty.written(), pty.bytes().len() as u64);
        assert!(pty.bytes().starts_with(b"hello"), "the terminal echoes");
    }

    #[tokio::test]
    async fn the_program_learns_its_new_size() {
        let mut pty = sh("trap 'stty size' WINCH; stty size; while :; do read -r _; done");
        pty.wait_for("24 80", BOUND).await.unwrap();
        pty.resize(100, 30).unwrap();
        pty.type_keys("\r").unwrap();
        pty.wait_for("30 100", BOUND).await.unwrap();
    }

    #[tokio::test]
    async fn the_alternate_screen_is_seen_and_ctrl_c_interrupts() {
        let mut pty = sh("printf '\\033[?1049hfull'; exec sleep 60");
        pty.wait_for("full", BOUND).await.unwrap();
        assert!(pty.is_alternate_screen());
        pty.type_keys("\x03").unwrap();
        let status = pty.wait(BOUND).await.unwrap();
        assert!(status.signal().is_some(), "{status:?}");
    }

    #[tokio::test]
    async fn a_text_that_never_comes_is_an_error_with_the_screen() {
        let pty = sh("echo something else");
        let error = pty.wait_for("the text", BOUND).await.unwrap_err().to_string();
        assert!(error.contains("something else"), "{error}");
    }
}
