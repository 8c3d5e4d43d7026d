//! The one writer to stdout and stderr.
//!
//! A thread of its own does the writing, because a pipe that nobody reads would otherwise hold up everything
//! else, Ctrl-C included. What waits for it is bounded; who prints waits with it.

use std::{
    fs::File,
    io::{self, IsTerminal as _, Write as _},
    os::fd::AsFd as _,
};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use crate::tui::text;

/// Pieces that wait to be written. With chunks of 128 KiB at most 1 MiB.
const WAITING: usize = 8;
/// Back to the first column, and the rest of the line is emptied.
const ERASE_LINE: &[u8] = b"\r\x1b[K";

/// Something to write.
#[derive(Debug)]
pub enum Piece {
    /// To stdout.
    Out(Bytes),
    /// To stderr.
    Err(Bytes),
    /// A line about how far we are, below everything else; replaces the one before. On stderr, and only when
    /// it is a terminal.
    Progress(String),
    /// A line on stderr, on a line of its own.
    Note(String),
}

/// Whoever read our stdout is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the reader of the output went away")]
pub struct Hangup;

/// The writer.
#[derive(Debug)]
pub struct Printer {
    pieces: mpsc::Sender<Piece>,
    done: oneshot::Receiver<io::Result<()>>,
}

impl Printer {
    /// Starts the writer.
    ///
    /// # Errors
    /// When stdout or stderr is closed, or no thread can be had.
    pub fn start() -> io::Result<Self> {
        let (pieces, waiting) = mpsc::channel(WAITING);
        let (finished, done) = oneshot::channel();
        let mut writer = Writer {
            // Unbuffered on purpose: what a machine said is shown when it arrives.
            out: File::from(io::stdout().as_fd().try_clone_to_owned()?),
            err: File::from(io::stderr().as_fd().try_clone_to_owned()?),
            out_is_terminal: io::stdout().is_terminal(),
            err_is_terminal: io::stderr().is_terminal(),
            progress: String::new(),
            is_progress_shown: false,
            at_line_start: true,
        };
        // Not joined: it ends with its channel, and a pipe that is never read must not keep us from leaving.
        std::thread::Builder::new().name("printer".to_owned()).spawn(move || {
            // Nobody may be waiting.
            let _ = finished.send(writer.run(waiting));
        })?;
        Ok(Self { pieces, done })
    }

    /// Hands over a piece.
    ///
    /// # Errors
    /// [`Hangup`] when stdout takes nothing any more.
    pub async fn print(&self, piece: Piece) -> Result<(), Hangup> {
        self.pieces.send(piece).await.map_err(|_| Hangup)
    }

    /// Waits until everything is written.
    ///
    /// # Errors
    /// Why stdout took no more: the reader went away, or the disk behind it is full. What was handed over is not all
    /// there then.
    pub async fn finish(self) -> io::Result<()> {
        drop(self.pieces);
        self.done.await.unwrap_or_else(|_| Err(io::Error::other("the writer ended early")))
    }
}

#[expect(clippy::struct_excessive_bools, reason = "two facts of two terminals each")]
struct Writer {
    out: File,
    err: File,
    out_is_terminal: bool,
    err_is_terminal: bool,
    progress: String,
    is_progress_shown: bool,
    /// Whether the terminal's cursor is in the first column, as far as we know.
    at_line_start: bool,
}

impl Writer {
    fn run(&mut self, mut waiting: mpsc::Receiver<Piece>) -> io::Result<()> {
        while let Some(piece) = waiting.blocking_recv() {
            // Errors of stderr are nobody's business: there is no third place to tell them.
            let written = match piece {
                Piece::Out(data) => self.write_out(&data),
                Piece::Err(data) => {
                    self.erase_progress();
                    let _ = self.err.write_all(&data);
                    self.note_end(&data, self.err_is_terminal);
                    Ok(())
                }
                Piece::Progress(line) => {
                    self.erase_progress();
                    self.progress = line;
                    Ok(())
                }
                Piece::Note(line) => {
                    self.erase_progress();
                    let start = if self.at_line_start { "" } else { "\n" };
                    let _ = self.err.write_all(format!("{start}{line}\n").as_bytes());
                    self.at_line_start = true;
                    Ok(())
                }
            };
            written?;
            // Only when nothing more is waiting: a flood of output is not interrupted by it.
            if waiting.is_empty() {
                self.show_progress();
            }
        }
        self.erase_progress();
        Ok(())
    }

    fn write_out(&mut self, data: &[u8]) -> io::Result<()> {
        if self.out_is_terminal {
            self.erase_progress();
        }
        self.out.write_all(data)?;
        self.note_end(data, self.out_is_terminal);
        Ok(())
    }

    fn note_end(&mut self, data: &[u8], is_terminal: bool) {
        if let Some(last) = data.last().filter(|_| is_terminal) {
            self.at_line_start = *last == b'\n';
        }
    }

    fn erase_progress(&mut self) {
        if std::mem::take(&mut self.is_progress_shown) {
            let _ = self.err.write_all(ERASE_LINE);
        }
    }

    fn show_progress(&mut self) {
        if self.err_is_terminal && self.at_line_start && !self.progress.is_empty() {
            let columns = rustix::termios::tcgetwinsize(&self.err).map_or(0, |size| usize::from(size.ws_col));
            let shown = one_row(&self.progress, columns);
            self.is_progress_shown = self.err.write_all(shown.as_bytes()).is_ok();
        }
    }
}

/// As much of a line as stays on one row of a terminal with so many columns (0: not known): only that row is emptied
/// when the line is replaced. The last column stays free, as some terminals go on to the next row there.
fn one_row(line: &str, columns: usize) -> &str {
    match columns.checked_sub(1) {
        Some(columns) => text::beginning(line, columns),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_stays_on_its_row() {
        let line = "1/3 · 2 executing, 1 completed · 12s";
        assert_eq!(one_row(line, 120), line);
        assert_eq!(one_row(line, 10), "1/3 · 2 e");
        assert_eq!(one_row("日本語", 6), "日本");
        assert_eq!(one_row(line, 1), "");
        assert_eq!(one_row(line, 0), line);
    }
}
