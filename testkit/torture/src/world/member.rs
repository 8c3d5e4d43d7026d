//! A part with all that is its own: process, host, disk, clock; and how it is made to be as it should.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use signalbox_testkit::clock::Clock;

use super::disk::Disk;
use super::host::Host;
use super::machine::Machine;
use super::net::{Net, fate::Line};
use super::process::Process;
use super::wanted::Wanted;
use crate::fault::Part;

/// A broker's server, a bridge or a relay.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) part: Part,
    pub(crate) process: Arc<Process>,
    /// Of relays.
    pub(crate) machine: Option<Machine>,
    pub(crate) disk: Disk,
    pub(crate) clock: Option<Arc<Clock>>,
    pub(crate) host: Arc<Host>,
    /// What is true of it now.
    pub(crate) is: Wanted,
}

impl Member {
    /// Makes it as it should be.
    ///
    /// # Errors
    /// When the system refuses; what was done before stays done.
    pub(crate) async fn become_as(&mut self, wanted: Wanted, net: Option<&Net>) -> Result<()> {
        let was = std::mem::replace(&mut self.is, wanted);
        if let Some(net) = net {
            net.set(self.host.address(), Line { cut: wanted.is_cut, weather: wanted.weather });
        }
        if let Some(clock) = &self.clock
            && was.offset_s != wanted.offset_s
        {
            clock.set(wanted.offset_s)?;
        }
        if was.is_down != wanted.is_down && wanted.is_down {
            self.process.set_down(true).await?;
        }
        if was.is_full != wanted.is_full {
            self.set_full(wanted.is_full).await?;
        }
        if was.is_halted != wanted.is_halted {
            self.process.set_halted(wanted.is_halted)?;
        }
        if was.has_twin != wanted.has_twin
            && let (Some(machine), Part::Relay(number)) = (&mut self.machine, self.part)
        {
            machine.set_twin(number, wanted.has_twin).await?;
        }
        if was.is_down != wanted.is_down && !wanted.is_down {
            self.process.set_down(false).await?;
        }
        Ok(())
    }

    /// A server of the broker that met a full disk gives its streams up until it is started again, which is what its
    /// administrator does.
    async fn set_full(&mut self, is_full: bool) -> Result<()> {
        if is_full {
            return self.disk.fill();
        }
        self.disk.free()?;
        if matches!(self.part, Part::Broker(_)) && !self.is.is_down {
            self.process.set_down(true).await?;
            self.process.set_down(false).await?;
        }
        Ok(())
    }

    /// The machine that it is the relay of.
    ///
    /// # Errors
    /// When it is no relay.
    pub(crate) fn machine(&mut self) -> Result<&mut Machine> {
        self.machine.as_mut().with_context(|| format!("{:?} is no relay", self.part))
    }

    /// Deletes its store, or puts the one from the beginning in its place. It is down, and its keeper is killed.
    ///
    /// # Errors
    /// When the system refuses.
    pub(crate) async fn lose_store(&mut self, set_back: bool) -> Result<()> {
        if let Some(machine) = &mut self.machine {
            machine.kill_keepers().await?;
        }
        // There must be room for the copy.
        self.disk.free()?;
        if set_back {
            self.disk.set_back()?;
        } else {
            self.disk.wipe()?;
        }
        if self.is.is_full { self.disk.fill() } else { Ok(()) }
    }

    /// Keeps a copy of its store, made while it stands still.
    ///
    /// # Errors
    /// When the system refuses.
    pub(crate) fn keep_store(&mut self) -> Result<()> {
        self.halt_all(true)?;
        let kept = self.disk.keep();
        self.halt_all(false)?;
        kept.with_context(|| format!("keeping a copy of {:?}", self.part))
    }

    fn halt_all(&mut self, is_halted: bool) -> Result<()> {
        self.process.set_halted(is_halted)?;
        self.machine.as_mut().map_or(Ok(()), |machine| machine.set_halted(is_halted))
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.process.end();
        if let Some(machine) = &self.machine {
            machine.end();
        }
    }
}
