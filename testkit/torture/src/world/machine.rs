//! A machine: a relay from a program of its own, the keeper that it starts, and at times a second relay with its keys.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use signalbox_testkit::clock::Clock;
use signalbox_testkit::process::{Signal, is_alive, signal};
use signalbox_testkit::{eventually, eventually_within};

use super::host::Host;
use super::process::{Process, find};
use crate::script::MARKS_VARIABLE;

/// How long a second relay may take to end after TERM.
const TWIN_ENDS: Duration = Duration::from_secs(10);

/// How the relays of one machine are started.
#[derive(Debug, Clone)]
pub(crate) struct Launch {
    /// The file that is replaced by an upgrade.
    pub(crate) program: PathBuf,
    pub(crate) host: Arc<Host>,
    pub(crate) clock: Option<Arc<Clock>>,
    pub(crate) creds: PathBuf,
    /// URLs of the broker, separated by commas.
    pub(crate) nats: String,
    /// The file to which commands append their marks: one text is for many machines, so their environment names it.
    pub(crate) marks: PathBuf,
}

impl Launch {
    /// A relay with this store.
    pub(crate) fn relay(&self, store: &Path) -> Command {
        let mut command = self.host.command(&self.program);
        command
            .arg("run")
            .arg("--store")
            .arg(store)
            .arg("--creds")
            .arg(&self.creds)
            .arg("--nats")
            .arg(&self.nats)
            .env(MARKS_VARIABLE, &self.marks);
        if let Some(clock) = &self.clock {
            command.envs(clock.environment());
        }
        command
    }
}

/// What a machine has beside its relay.
#[derive(Debug)]
pub(crate) struct Machine {
    /// How its relays are started.
    launch: Launch,
    /// The relay's store.
    store: PathBuf,
    /// Where its programs come from.
    original: PathBuf,
    twin: Option<Arc<Process>>,
    twin_store: PathBuf,
    logs: PathBuf,
    /// Keepers that were halted.
    halted: Vec<u32>,
}

impl Machine {
    /// Copies the relay's program for this machine.
    ///
    /// # Errors
    /// When it cannot be copied.
    pub(crate) fn new(
        launch: Launch,
        original: &Path,
        store: PathBuf,
        twin_store: PathBuf,
        logs: PathBuf,
    ) -> Result<Self> {
        let original = original.to_owned();
        let machine = Self { launch, store, original, twin: None, twin_store, logs, halted: Vec::new() };
        machine.replace_program()?;
        Ok(machine)
    }

    /// Puts another file of the program in its place, as a package manager does.
    ///
    /// # Errors
    /// When it cannot be copied.
    pub(crate) fn replace_program(&self) -> Result<()> {
        let next = self.launch.program.with_extension("next");
        fs::copy(&self.original, &next).with_context(|| format!("copying {}", self.original.display()))?;
        fs::rename(&next, &self.launch.program).context("replacing a relay's program")
    }

    /// Its keepers: one, none between two, or several where one that lost its store has not noticed yet.
    pub(crate) fn keepers(&self) -> Vec<u32> {
        keepers(&self.store)
    }

    /// Kills its keepers; they are gone when this returns. Answers whether there was one.
    ///
    /// # Errors
    /// When they do not go.
    pub(crate) async fn kill_keepers(&mut self) -> Result<bool> {
        kill(&self.store).await
    }

    /// From now on its keepers stand still, or go on.
    ///
    /// # Errors
    /// When the system refuses.
    pub(crate) fn set_halted(&mut self, is_halted: bool) -> Result<()> {
        if is_halted {
            self.halted = self.keepers();
        }
        let signals = if is_halted { Signal::STOP } else { Signal::CONT };
        let still_its: Vec<u32> = self.keepers();
        for keeper in self.halted.iter().filter(|keeper| still_its.contains(keeper)) {
            signal(*keeper, signals)?;
        }
        if !is_halted {
            self.halted.clear();
        }
        Ok(())
    }

    /// Whether a keeper stands still.
    pub(crate) fn has_halted(&self) -> bool {
        !self.halted.is_empty()
    }

    /// From now on a second relay runs, or is asked to end and ends.
    ///
    /// # Errors
    /// When it cannot be started, or does not end in time.
    pub(crate) async fn set_twin(&mut self, number: u8, has_twin: bool) -> Result<()> {
        if has_twin {
            let (launch, store) = (self.launch.clone(), self.twin_store.clone());
            let start = Box::new(move || Ok(launch.relay(&store)));
            self.twin = Some(Process::run(&format!("twin-{number}"), &self.logs, start)?);
            return Ok(());
        }
        let Some(twin) = self.twin.take() else { return Ok(()) };
        let pid = twin.pid();
        twin.retire()?;
        let ended = eventually_within("the second relay's end", TWIN_ENDS, || async {
            ensure!(!pid.is_some_and(is_alive), "it lives; it said {}", twin.last_words());
            Ok(())
        })
        .await;
        twin.end();
        ended
    }

    /// Whether a second relay runs.
    #[cfg(test)]
    pub(crate) fn has_twin(&self) -> bool {
        self.twin.as_ref().is_some_and(|twin| twin.pid().is_some())
    }

    /// Ends what is not the relay, without ceremony.
    pub(crate) fn end(&self) {
        if let Some(twin) = &self.twin {
            twin.end();
        }
        for keeper in self.keepers().into_iter().chain(keepers(&self.twin_store)) {
            let _ = signal(keeper, Signal::KILL);
        }
    }
}

/// The keepers of a store.
fn keepers(store: &Path) -> Vec<u32> {
    let Some(path) = store.to_str() else { return Vec::new() };
    // The relay names the folder to its keeper with a slash at its end, and nobody names it so to a relay.
    let folder = format!("{path}/");
    find(&[b"--store", folder.as_bytes()])
}

async fn kill(store: &Path) -> Result<bool> {
    let killed = keepers(store);
    for keeper in &killed {
        signal(*keeper, Signal::KILL)?;
    }
    // Those and no others: a relay that runs starts the next one at once.
    eventually("the keeper's end", || async {
        ensure!(!killed.iter().any(|keeper| is_alive(*keeper)), "it lives");
        Ok(())
    })
    .await?;
    Ok(!killed.is_empty())
}
