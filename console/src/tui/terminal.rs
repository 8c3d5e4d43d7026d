//! The terminal: taken into raw mode and alternate screen, and given back however the console ends.
//!
//! It is given back when the guard is dropped (the end, an error, a signal, a dropped future) and by a panic
//! hook that is in place before anything is changed, so that a panic's message is read on the normal screen.

mod clipboard;
mod job;
mod sparing;

use std::{
    io::{self, BufWriter, Stdout},
    sync::{
        Once,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crossterm::{
    cursor::{Hide, Show},
    event::{DisableBracketedPaste, DisableMouseCapture, EnableBracketedPaste, EnableMouseCapture},
    execute,
    style::ResetColor,
    terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode},
};
use ratatui::{Terminal, backend::CrosstermBackend};
use rustix::process::{Signal, kill_current_process_group};
use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinSet,
    time::timeout,
};

pub use clipboard::{Clipboard, Program};
pub use sparing::Sparing;

/// A frame is one write: larger than any frame of a large screen.
const FRAME_BYTES: usize = 256 * 1024;
/// Longest wait for being continued after stopping. It passes while stopped, and it bounds the wait for a
/// signal that comes too early to be heard.
const CONTINUED: Duration = Duration::from_millis(300);

/// Whether the terminal is ours.
static IS_TAKEN: AtomicBool = AtomicBool::new(false);
/// Whether a panic gave it back.
static HAS_PANICKED: AtomicBool = AtomicBool::new(false);
static HOOK: Once = Once::new();

/// The terminal as it is drawn on.
pub type Screen = Terminal<Sparing<CrosstermBackend<BufWriter<Stdout>>>>;

/// While it lives, the terminal is ours.
#[derive(Debug)]
pub struct Guard {
    /// Programs that take text for the clipboard.
    tasks: JoinSet<()>,
    has_mouse: bool,
}

impl Guard {
    /// Takes the terminal.
    ///
    /// # Errors
    /// When it refuses raw mode or cannot be written to; it is given back then.
    pub fn take() -> io::Result<Self> {
        HOOK.call_once(|| {
            let before = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                if IS_TAKEN.load(Ordering::SeqCst) {
                    HAS_PANICKED.store(true, Ordering::SeqCst);
                }
                give_back();
                before(panic);
            }));
        });
        // From here on, whatever fails, the guard is dropped.
        let guard = Self { tasks: JoinSet::new(), has_mouse: false };
        take()?;
        Ok(guard)
    }

    /// Gives the terminal back, stops as Ctrl-Z does, and takes it again when continued. `false`: there is no shell
    /// that could continue us, and nothing was done.
    ///
    /// # Errors
    /// When the terminal cannot be taken again.
    pub async fn suspend(&mut self) -> io::Result<bool> {
        if !job::has_shell() {
            return Ok(false);
        }
        let mut continued = signal(SignalKind::from_raw(Signal::CONT.as_raw()))?;
        give_back();
        // The whole group, as the terminal would: what started the console stops with it. Not by TSTP, which we
        // listen to and which stops us no more.
        kill_current_process_group(Signal::STOP)?;
        let _ = timeout(CONTINUED, continued.recv()).await;
        take()?;
        self.mouse(self.has_mouse)?;
        Ok(true)
    }

    /// Takes the mouse, or leaves it to the terminal.
    ///
    /// # Errors
    /// When the terminal cannot be written to.
    pub fn mouse(&mut self, is_ours: bool) -> io::Result<()> {
        self.has_mouse = is_ours;
        if is_ours {
            execute!(io::stdout(), EnableMouseCapture)
        } else {
            execute!(io::stdout(), DisableMouseCapture)
        }
    }

    /// Puts text of at most `most_bytes` on the clipboard.
    ///
    /// # Errors
    /// When nothing takes it.
    pub fn copy(&mut self, by: Clipboard, most_bytes: usize, text: &str) -> io::Result<()> {
        by.copy(text, most_bytes, &mut self.tasks)
    }

    /// Takes the terminal once more: whoever had us stopped may have left it in any state.
    ///
    /// # Errors
    /// When the terminal cannot be taken again.
    pub fn retake(&mut self) -> io::Result<()> {
        // Without this raw mode would pass for set.
        disable_raw_mode()?;
        take()?;
        self.mouse(self.has_mouse)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        give_back();
    }
}

/// The screen to draw on.
///
/// # Errors
/// When its size cannot be read.
pub fn screen() -> io::Result<Screen> {
    let out = BufWriter::with_capacity(FRAME_BYTES, io::stdout());
    Terminal::new(Sparing::new(CrosstermBackend::new(out)))
}

/// Whether a panic gave the terminal back while the console was shown.
pub fn has_panicked() -> bool {
    HAS_PANICKED.load(Ordering::SeqCst)
}

fn take() -> io::Result<()> {
    IS_TAKEN.store(true, Ordering::SeqCst);
    enable_raw_mode()?;
    execute!(io::stdout(), EnterAlternateScreen, EnableBracketedPaste, Hide)
}

/// Undoes [`take`], once. Every step is tried: a terminal half restored is worse than an error nobody reads.
fn give_back() {
    if IS_TAKEN.swap(false, Ordering::SeqCst) {
        let _ = execute!(
            io::stdout(),
            ResetColor,
            DisableMouseCapture,
            DisableBracketedPaste,
            Show,
            LeaveAlternateScreen
        );
        let _ = disable_raw_mode();
    }
}
