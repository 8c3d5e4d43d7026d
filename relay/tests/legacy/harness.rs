//! Real relay processes of a center.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use anyhow::{Context as _, Result};
use signalbox_relay::keeper::client::KeeperClient;
use signalbox_testkit::process::Daemon;
use tempfile::TempDir;

use crate::center::{Center, KEY};

/// Nothing here takes this long on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// Intervals of a test: the shortest there are.
pub(crate) const QUICK: [&str; 4] = ["--poll-interval", "1000", "--heartbeat-interval", "5000"];

/// A machine: a home folder, and a store that does not exist before somebody makes it.
pub(crate) struct Machine {
    pub(crate) home: TempDir,
}

impl Machine {
    pub(crate) fn new() -> Result<Self> {
        let home = tempfile::tempdir()?;
        std::fs::create_dir(home.path().join("work"))?;
        Ok(Self { home })
    }

    /// Where its relays are started.
    pub(crate) fn work(&self) -> PathBuf {
        self.file("work")
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.home.path().join("store")
    }

    /// The program, without anything of this test's own environment that it looks at.
    pub(crate) fn program(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_signalbox-relay"));
        command.env("HOME", self.home.path()).env_remove("SIGNALBOX_API_KEY").current_dir(self.work());
        command
    }

    /// Runs it to its end.
    pub(crate) fn output(&self, args: &[&str]) -> Result<Output> {
        Ok(self.program().args(args).output()?)
    }

    /// Starts a relay of a center, with the key among its arguments.
    pub(crate) fn relay(&self, center: &Center) -> Result<Daemon> {
        self.relay_with(center, &[])
    }

    pub(crate) fn relay_with(&self, center: &Center, args: &[&str]) -> Result<Daemon> {
        let mut command = self.program();
        command.args([KEY, &center.url]).args(QUICK).args(["--log-level", "debug", "--store-dir"]);
        Daemon::spawn(command.arg(self.store()).args(args))
    }

    /// The process id of the keeper, which outlives its relay.
    pub(crate) async fn keeper_pid(&self) -> Result<u32> {
        let (_, welcome) = KeeperClient::connect(&self.store().join("http")).await?;
        Ok(welcome.pid)
    }

    /// A file in the machine's home.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }
}

/// A file's lines.
pub(crate) fn lines(path: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    Ok(text.lines().map(str::to_owned).collect())
}
