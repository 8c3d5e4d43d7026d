//! `[ssh]` of `relay.toml`: which hosts behind this machine may be dialled, and how.
//!
//! ```toml
//! [ssh]
//! targets = ["*.lan", "10.0.0.0/8", "127.0.0.1"]    # absent: all but what `ssh::guard` denies
//! host_keys = "strict"                              # or "accept-new"
//! known_hosts = "/etc/signalbox/known_hosts"        # absent: STORE/known_hosts
//! allow_non_strict = ["old-switch.lan"]
//! agent = "/run/user/1000/ssh-agent.socket"         # absent: no agent is asked
//! ```

use std::path::{Path, PathBuf};

use serde::Deserialize;
use signalbox_schemas::host::HostPattern;

use crate::ssh::route::HostKeyPolicy;

/// Most patterns of one list: a route carries the targets, and has room for them beside its credentials.
pub const MAX_PATTERNS: usize = 64;
/// Name of the file of known hosts in the store.
const KNOWN_HOSTS: &str = "known_hosts";

/// What the machine lets be done by SSH. The default is what a file without `[ssh]` says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ssh {
    /// The hosts that may be dialled. Absent: all but those that are denied by default.
    #[serde(default)]
    pub targets: Option<Vec<HostPattern>>,
    /// What becomes of a host whose key is not known.
    #[serde(default)]
    pub host_keys: HostKeyPolicy,
    /// The file with the host keys that are known, from the root. Absent: the one in the store.
    #[serde(default)]
    known_hosts: Option<PathBuf>,
    /// Hosts that may be spoken to without strict key exchange, and with algorithms of yesterday.
    #[serde(default)]
    allow_non_strict: Vec<HostPattern>,
    /// The socket of an agent that may be asked, from the root.
    #[serde(default)]
    pub agent: Option<PathBuf>,
}

impl Ssh {
    /// The file with the host keys that are known, for a relay with this store.
    pub fn known_hosts(&self, store: &Path) -> PathBuf {
        self.known_hosts.clone().unwrap_or_else(|| store.join(KNOWN_HOSTS))
    }

    /// Whether a host may be spoken to without strict key exchange.
    pub fn allows_non_strict(&self, host: &str, port: u16) -> bool {
        self.allow_non_strict.iter().any(|pattern| pattern.matches(host, port).is_some())
    }

    /// The first value that is out of range: its key, what stands there, and what may.
    pub(super) fn out_of_range(&self) -> Option<(&'static str, String, &'static str)> {
        let paths = [("ssh.known_hosts", &self.known_hosts), ("ssh.agent", &self.agent)];
        let relative = paths.into_iter().find_map(|(key, path)| {
            let path = path.as_ref().filter(|path| !path.is_absolute())?;
            Some((key, path.display().to_string(), "a path from the root"))
        });
        let lists =
            [("ssh.targets", self.targets.as_ref()), ("ssh.allow_non_strict", Some(&self.allow_non_strict))];
        let long = lists.into_iter().find_map(|(key, list)| {
            let count = list.map(Vec::len).filter(|count| *count > MAX_PATTERNS)?;
            Some((key, format!("{count} patterns"), "at most 64 patterns"))
        });
        relative.or(long)
    }
}
