//! `cargo xtask fleet` in a terminal of its own, as somebody has it who looks at it with a console in another.
//!
//! Relays, broker and bridge are of that terminal's session. Where the kernel shares the processors out among sessions, as it
//! does unless it is told otherwise, the console has its own share, as it has on an operator's machine.

use std::{path::PathBuf, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};
use signalbox_testkit::{process::bin, pty::Pty};

/// Setting a hundred thousand machines up takes some minutes.
const SET_UP: Duration = Duration::from_mins(30);
const END: Duration = Duration::from_mins(1);
const STATE: &str = "SIGNALBOX_STATE_DIR=";

/// A fleet that stands until it is [ended](Standing::end).
pub(super) struct Standing {
    terminal: Pty,
    state_dir: PathBuf,
    /// How many machines it has.
    pub(super) machines: usize,
}

impl Standing {
    /// Sets machines up and connects their relays: each with a connection of its own, as far as there may be so many, or all
    /// on one.
    pub(super) async fn start(machines: usize, is_shared: bool) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe().context("finding this program")?);
        command.args(["fleet", "--relays", &machines.to_string()]);
        if is_shared {
            command.arg("--shared");
        }
        let terminal = Pty::spawn(&command, 200, 24)?;
        let screen = terminal.wait_for("Ctrl-C ends everything", SET_UP).await?;
        let word_before = |what: &str| -> Option<usize> {
            let line = screen.lines().find(|line| line.contains(what))?;
            line.split(' ').next()?.parse().ok()
        };
        let machines = word_before(" machines: ").with_context(|| format!("how many machines?\n{screen}"))?;
        let state_dir = screen.lines().find_map(|line| line.split_once(STATE)?.1.split(' ').next());
        let state_dir = PathBuf::from(state_dir.with_context(|| format!("where is it?\n{screen}"))?);
        ensure!(state_dir.is_dir(), "{} is no folder:\n{screen}", state_dir.display());
        Ok(Self { terminal, state_dir, machines })
    }

    /// The program of an operator of this fleet.
    pub(super) fn cli(&self) -> Result<Command> {
        let mut command = Command::new(bin("signalbox")?);
        command.env("SIGNALBOX_STATE_DIR", &self.state_dir);
        Ok(command)
    }

    /// Ends everything, as an operator would.
    pub(super) async fn end(mut self) -> Result<()> {
        self.terminal.type_keys("\x03")?;
        self.terminal.wait(END).await.map(drop)
    }
}
