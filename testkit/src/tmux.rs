//! A program in tmux, on a server of its own: the end-to-end tests type and look as a person would.

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::eventually::eventually_within;

/// The whole window is the program's; its last screen stays to be read when it has ended; a lone Escape is one.
const CONFIG: &str = "\
set -g status off
set -g remain-on-exit on
set -g escape-time 0
set -g default-shell /bin/sh
set -g default-terminal tmux-256color
";

/// Notes the exit code itself, since tmux 3.3 forgets it now and then. An interrupt from the keyboard is the
/// program's affair: the trap keeps this shell alive and, unlike an ignored signal, is not inherited.
const WRAPPER: &str = "trap : INT QUIT; sh -c \"$1\"; echo $? >\"$0\"";

/// Tells the servers of one test process apart.
static STARTED: AtomicU32 = AtomicU32::new(0);

/// One program in one tmux window, on a server of its own that ends when this is dropped.
#[derive(Debug)]
pub struct Tmux {
    socket: String,
    folder: TempDir,
}

impl Tmux {
    /// Starts a shell command in a window of `cols` × `rows` cells. The command sets its environment itself
    /// (`NAME=value program …`).
    ///
    /// # Errors
    /// When tmux is not installed or does not start.
    pub fn start(shell_command: &str, cols: u16, rows: u16) -> Result<Self> {
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let socket = format!("signalbox-test-{}-{number}", std::process::id());
        let folder = tempfile::tempdir().context("making a folder for tmux")?;
        fs::write(folder.path().join("tmux.conf"), CONFIG).context("writing tmux.conf")?;
        let tmux = Self { socket, folder };
        let (cols, rows) = (cols.to_string(), rows.to_string());
        let noted = tmux.exit_file().to_string_lossy().into_owned();
        let wrapped = ["sh", "-c", WRAPPER, &noted, shell_command];
        tmux.run(&[&["new-session", "-d", "-x", &cols, "-y", &rows, "--"], &wrapped[..]].concat())?;
        Ok(tmux)
    }

    /// Presses keys by their tmux names: `Enter`, `Escape`, `C-c`, `Up`, `Space`, `q`.
    ///
    /// # Errors
    /// When the server is gone.
    pub fn keys(&self, keys: &[&str]) -> Result<()> {
        let mut args = vec!["send-keys", "--"];
        args.extend(keys);
        self.run(&args).map(drop)
    }

    /// Types a text letter by letter; no part of it is taken for a key name.
    ///
    /// # Errors
    /// When the server is gone.
    pub fn type_text(&self, text: &str) -> Result<()> {
        self.run(&["send-keys", "-l", "--", text]).map(drop)
    }

    /// What stands in the window, a line per row, without trailing spaces and without colours.
    ///
    /// # Errors
    /// When the server is gone.
    pub fn screen(&self) -> Result<String> {
        self.run(&["capture-pane", "-p"])
    }

    /// Makes the window `cols` × `rows` cells large.
    ///
    /// # Errors
    /// When the server is gone.
    pub fn resize(&self, cols: u16, rows: u16) -> Result<()> {
        self.run(&["resize-window", "-x", &cols.to_string(), "-y", &rows.to_string()]).map(drop)
    }

    /// The exit code of a program that has ended, as a shell tells it (128 + the number of a signal that ended
    /// it); `None` while it runs.
    ///
    /// # Errors
    /// When the note of it cannot be read.
    pub fn exit_code(&self) -> Result<Option<i32>> {
        let noted = match fs::read_to_string(self.exit_file()) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            noted => noted.context("reading the exit code")?,
        };
        // Without its line end it is still being written.
        noted.strip_suffix('\n').map(|code| code.parse().context("the exit code is no number")).transpose()
    }

    /// Waits until the window shows `text`, and returns that screen.
    ///
    /// # Errors
    /// When it does not within `bound`; the error shows the screen.
    pub async fn wait_for(&self, text: &str, bound: Duration) -> Result<String> {
        eventually_within(&format!("{text:?} on the screen"), bound, || async {
            let screen = self.screen()?;
            ensure!(screen.contains(text), "the screen:\n{screen}");
            Ok(screen)
        })
        .await
    }

    /// Waits until the program has ended, and returns its exit code.
    ///
    /// # Errors
    /// When it still runs after `bound`; the error shows the screen.
    pub async fn wait(&self, bound: Duration) -> Result<i32> {
        eventually_within("the program's end", bound, || async {
            let code = self.exit_code()?;
            code.with_context(|| format!("the screen:\n{}", self.screen().unwrap_or_default()))
        })
        .await
    }

    fn exit_file(&self) -> PathBuf {
        self.folder.path().join("exit")
    }

    fn run(&self, args: &[&str]) -> Result<String> {
        let output = self.tmux().args(args).output().context("starting tmux: is it installed?")?;
        let name = args.first().copied().unwrap_or_default();
        ensure!(
            output.status.success(),
            "tmux {name} failed: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn tmux(&self) -> Command {
        let mut command = Command::new("tmux");
        command
            .args(["-u", "-L", &self.socket, "-f"])
            .arg(self.folder.path().join("tmux.conf"))
            // The socket lies in this folder, and goes with it; a tmux around the test is none of its business.
            .env("TMUX_TMPDIR", self.folder.path())
            .env_remove("TMUX")
            .stdin(Stdio::null());
        command
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        // It fails when the server has ended already, which is as good.
        let _ended = self.tmux().arg("kill-server").output();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUND: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn a_person_types_and_looks() {
        let tmux = Tmux::start("read -r line; echo \"got <$line>\"; read -r _; exit 4", 60, 10).unwrap();
        tmux.type_text("Enter the house; it's $HOME").unwrap();
        tmux.keys(&["Enter"]).unwrap();
        tmux.wait_for("got <Enter the house; it's $HOME>", BOUND).await.unwrap();
        assert_eq!(tmux.exit_code().unwrap(), None);
        tmux.keys(&["Enter"]).unwrap();
        assert_eq!(tmux.wait(BOUND).await.unwrap(), 4);
        assert!(tmux.screen().unwrap().contains("got <Enter"), "the last screen stays");
    }

    #[tokio::test]
    async fn the_window_has_the_size_that_was_asked_for() {
        let tmux =
            Tmux::start("trap 'stty size' WINCH; stty size; while :; do sleep 0.1; done", 60, 10).unwrap();
        tmux.wait_for("10 60", BOUND).await.unwrap();
        tmux.resize(100, 30).unwrap();
        tmux.wait_for("30 100", BOUND).await.unwrap();
    }

    #[tokio::test]
    async fn an_interrupt_ends_the_program_and_its_code_is_known() {
        let tmux = Tmux::start("echo started; exec sleep 60", 60, 10).unwrap();
        tmux.wait_for("started", BOUND).await.unwrap();
        tmux.keys(&["C-c"]).unwrap();
        assert_eq!(tmux.wait(BOUND).await.unwrap(), 128 + 2);
    }

    #[tokio::test]
    async fn glyphs_arrive_as_they_are() {
        let tmux = Tmux::start("printf '● ▁▂▃ ─'; sleep 60", 60, 10).unwrap();
        tmux.wait_for("● ▁▂▃ ─", BOUND).await.unwrap();
    }
}
