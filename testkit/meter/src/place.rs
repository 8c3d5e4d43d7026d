//! A whole Signalbox to be measured, in a directory of its own, with as many machines set up as are wanted.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use signalbox_link::{Link, Login, Options as LinkOptions};
use signalbox_schemas::stream;
use signalbox_testkit::{
    eventually_within,
    operator::Operator,
    process::{Daemon, bin},
    stack::{Options, Stack},
};
use tempfile::TempDir;

use crate::machine::memory_folder;

/// Setting ten thousand machines up makes forty thousand files.
const INIT: Duration = Duration::from_mins(10);
/// Names in one argument, which has at most 128 KiB.
const NAMES: usize = 2_000;
/// Names that are handed to `init` at once, which looks at all machines there are each time: all arguments have at most 2 MiB.
const AT_ONCE: usize = 50_000;

/// Operators of a system with machines. A bridge works on few requests of one at once, so clients that are many are several
/// operators' clients.
pub(crate) const OPERATORS: [&str; 5] = ["local", "first", "second", "third", "fourth"];

/// A running system; gone on drop.
pub(crate) struct Place {
    // Dropped first: the processes end before their directory goes.
    pub(crate) stack: Stack,
    _dir: TempDir,
}

impl Place {
    /// Sets `machines` up and starts everything with so many demo relays: `demo-1`, `demo-2`, …
    pub(crate) async fn start(machines: &[String], demo: u32) -> Result<Self> {
        let dir = TempDir::new().context("making a folder")?;
        let state = dir.path().join("state");
        prepare(&state, machines).await?;
        let stack = Stack::start(Options::relays(demo).state_dir(&state).ready_within(INIT)).await?;
        Ok(Self { stack, _dir: dir })
    }

    /// An operator's client.
    pub(crate) async fn operator(&self) -> Result<Operator> {
        Operator::connect(&self.stack.ready().nats, &self.stack.ready().state_dir).await
    }

    /// Another operator's client, of the n-th beside `local`.
    pub(crate) async fn other_operator(&self, n: usize) -> Result<Operator> {
        let others = OPERATORS.get(1..).unwrap_or_default();
        let id = others.get(n % others.len()).context("no other operator")?;
        Operator::connect_as(&self.stack.ready().nats, &self.stack.ready().state_dir, id).await
    }

    /// A connection that may do everything.
    pub(crate) async fn admin(&self) -> Result<Link> {
        let login = Login::from_creds_file(&self.stack.ready().ctrl_creds)?;
        let options = LinkOptions::plain(&self.stack.ready().nats, "signalbox-meter", Some(login));
        Ok(Link::connect(LinkOptions { client_capacity: 4_096, ..options }).await?)
    }

    /// Waits until the broker answers.
    pub(crate) async fn answers_within(&self, bound: Duration) -> Result<()> {
        eventually_within("the broker", bound, || async {
            let link = self.admin().await?;
            link.stream_state(stream::CMD).await?;
            Ok(())
        })
        .await
    }

    /// The bridge and the broker.
    pub(crate) fn servers(&self) -> Result<[(&'static str, u32); 2]> {
        Ok([("bridge", self.stack.pid("bridge")?), ("broker", self.stack.pid("broker")?)])
    }

    /// Starts the real relay of a machine that was set up.
    pub(crate) async fn relay(&self, name: &str) -> Result<Daemon> {
        let dir = self.stack.ready().state_dir.join("machines").join(name);
        let mut command = Command::new(bin("signalbox-relay")?);
        command.arg("run").arg("--store").arg(dir.join("store")).arg("--creds").arg(dir.join("relay.creds"));
        let relay = Daemon::spawn(command.arg("--nats").arg(&self.stack.ready().nats))?;
        relay.first_line(Duration::from_mins(1)).await?;
        Ok(relay)
    }
}

/// Makes a state directory with these machines. In memory first: `init` makes sure that every key is on the disk, which is
/// right once and slow ten thousand times.
async fn prepare(state: &Path, machines: &[String]) -> Result<()> {
    let scratch = tempfile::tempdir_in(memory_folder()).context("making a folder in memory")?;
    let made = scratch.path().join("state");
    for names in machines.chunks(AT_ONCE) {
        let mut command = Command::new(bin("signalbox-bridge")?);
        command.arg("init").arg("--state-dir").arg(&made).arg("--operators").arg(OPERATORS.join(","));
        for part in names.chunks(NAMES) {
            command.arg("--machines").arg(part.join(","));
        }
        let init = Daemon::spawn(&mut command)?;
        let status = init.wait(INIT).await?;
        ensure!(status.success(), "init ended with {status}: {}", init.stderr()?);
    }
    if !machines.is_empty() {
        let copy = Daemon::spawn(Command::new("cp").arg("-a").args([&made, &PathBuf::from(state)]))?;
        ensure!(copy.wait(INIT).await?.success(), "copying {} failed: {}", made.display(), copy.stderr()?);
    }
    Ok(())
}

/// Names of simulated machines, in tens: `sim-0-0000`, `sim-1-0000`, … so that each tenth is a selector of its own.
pub(crate) fn simulated(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("sim-{}-{:04}", n % 10, n / 10)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_tenth_of_a_fleet_has_a_selector() {
        let names = simulated(10_000);
        assert_eq!(names.iter().filter(|name| name.starts_with("sim-7-")).count(), 1_000);
        assert_eq!(names.iter().collect::<std::collections::BTreeSet<_>>().len(), 10_000);
    }
}
