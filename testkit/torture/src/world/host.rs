//! A host of a world: a network namespace with an address, or, without namespaces, this machine.

use std::ffi::OsStr;
use std::net::Ipv4Addr;
use std::process::Command;

use anyhow::Result;

use super::place::{NETNS, run};

/// Where the parts of one host run.
#[derive(Debug)]
pub(crate) struct Host {
    /// The namespace's name; none = this machine.
    namespace: Option<String>,
    /// Where others reach it.
    address: Ipv4Addr,
}

impl Host {
    /// This machine, on its loopback interface.
    pub(crate) fn here() -> Self {
        Self { namespace: None, address: Ipv4Addr::LOCALHOST }
    }

    /// A new namespace that will have this address once it has joined a net.
    ///
    /// # Errors
    /// When the system refuses.
    pub(crate) fn namespace(name: &str, address: Ipv4Addr) -> Result<Self> {
        run("ip", &["netns", "add", name])?;
        let host = Self { namespace: Some(name.to_owned()), address };
        run("ip", &["-n", name, "link", "set", "lo", "up"])?;
        Ok(host)
    }

    /// Where others reach it.
    pub(crate) fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Its namespace.
    pub(crate) fn name(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    /// A program on this host. `nsenter` becomes the program, so the process is its own. Unlike `ip netns exec` it leaves
    /// the mounts alone.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let Some(name) = &self.namespace else { return Command::new(program) };
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={NETNS}/{name}")).arg("--").arg(program);
        command
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(name) = &self.namespace {
            // It goes with the process at the latest.
            let _ = run("ip", &["netns", "delete", name]);
        }
    }
}
