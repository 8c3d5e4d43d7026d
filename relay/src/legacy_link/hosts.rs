//! Ways to hosts behind the machine, for commands of this transport. Blocks on the disk.
//!
//! What goes with a host is found as such centers know it: a credential's user goes before the command's, and where there is
//! no credential, the key `~/.ssh/id_rsa` is tried with the command's user.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use signalbox_schemas::{
    Secret, command::SshTarget, host::HostPattern, limit::CREDENTIAL_VALUE_BYTES, ssh::SshFault,
};

use crate::{
    config::Ssh,
    keepsakes::Keepsakes,
    ssh::route::{HostKeyPolicy, Route, SetBy},
    way::{Precedence, Rules, find, with_key},
};

/// The key that is tried where there is no credential, in the home folder.
const DEFAULT_KEY: &str = ".ssh/id_rsa";

/// What this transport keeps of hosts.
pub(super) struct Hosts {
    pub(super) keepsakes: Keepsakes,
    host_keys: HostKeyPolicy,
    default_key: Option<PathBuf>,
}

impl Hosts {
    pub(super) fn new(store: &Path, host_keys: HostKeyPolicy) -> Self {
        let home = env::var_os("HOME").filter(|home| !home.is_empty());
        let default_key = home.map(|home| Path::new(&home).join(DEFAULT_KEY));
        Self { keepsakes: Keepsakes::new(store, &Ssh::default(), None), host_keys, default_key }
    }

    /// The route to a target. `targets`: what the center lets be dialled, if it has said so.
    ///
    /// # Errors
    /// Why there is none, for people.
    pub(super) fn route(
        &self,
        target: &SshTarget,
        targets: Option<Vec<HostPattern>>,
    ) -> Result<Route, String> {
        let mut ssh = Ssh::default();
        (ssh.targets, ssh.host_keys) = (targets, self.host_keys);
        let known_hosts = &self.keepsakes.known_hosts;
        let rules =
            Rules { ssh: &ssh, known_hosts, precedence: Precedence::Credential, set_by: SetBy::Center };
        match find(target, &self.keepsakes.vault, rules) {
            Err(error) if error.code == SshFault::NoCredential.as_str() => {
                let key = self.default_key().ok_or_else(|| {
                    let host = &target.host;
                    format!("No credentials found for {host} and failed to read default SSH key")
                })?;
                let name = format!("~/{DEFAULT_KEY}");
                with_key(target, (name, key), rules).map_err(|error| error.message)
            }
            found => found.map_err(|error| error.message),
        }
    }

    fn default_key(&self) -> Option<Secret> {
        let path = self.default_key.as_ref()?;
        let is_small = fs::metadata(path).ok()?.len() <= CREDENTIAL_VALUE_BYTES as u64;
        let text = is_small.then(|| fs::read_to_string(path).ok()).flatten()?;
        Some(Secret::new(text))
    }
}
