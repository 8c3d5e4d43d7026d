//! `relay.toml`, checked before anything is opened.
//!
//! ```toml
//! workspace = "main"
//! machine_id = "demo-1"
//! fleet_key = "U…"
//! max_parallel = 4
//! require_operator_signature = ["root", "terminal", "config", "credential"]
//! allow_legacy = false
//! vault_secret_file = "/run/credentials/signalbox-relay.service/vault"
//! ```
//!
//! a table `labels` that says what the machine is for, such as `role = "web"`, and a table `ssh` for hosts behind it.

mod ssh;

use std::{fs, io, path::PathBuf};

use serde::Deserialize;
use signalbox_schemas::{
    authors::Right,
    id::{MachineId, MachineToken, Workspace},
    label::{LABELS, LabelMap},
    signed::PublicKey,
};

pub use ssh::{MAX_PATTERNS, Ssh};

/// Runs at once when the file does not say.
pub const DEFAULT_MAX_PARALLEL: u32 = 4;
/// Most runs at once: each holds two pipes and, while it prints, up to 1 MiB of output in flight.
pub const MAX_MAX_PARALLEL: u32 = 64;

/// What a relay is, and what its machine lets others do. The local file wins over anything pushed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Workspace.
    pub ws: Workspace,
    /// The machine as people call it.
    pub machine_id: MachineId,
    /// The machine as it stands in subjects.
    pub mid: MachineToken,
    /// The pinned key that signs the authors document.
    pub fleet_key: PublicKey,
    /// Runs at once, 1 to 64.
    pub max_parallel: u32,
    /// What a bridge may not author on this machine.
    pub require_operator_signature: Vec<Right>,
    /// Whether relays of the old contract, which check no signature, may take this machine's work too. Whoever keeps the
    /// record of the machine is told at `init` and at enrolment.
    pub allow_legacy: bool,
    /// What the vault of credentials opens with, an absolute path; absent: a file of the store.
    pub vault_secret_file: Option<PathBuf>,
    /// What the machine is for, as its owner says here; at most [`LABELS`]. Operators and the assignment go before it.
    pub labels: LabelMap,
    /// What may be done by SSH.
    pub ssh: Ssh,
}

/// `relay.toml` cannot be used. Never retryable without help.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("configuration `{}` cannot be read", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It is not what it should be.
    #[error("configuration `{}` is not valid", path.display())]
    Toml {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A value is out of range.
    #[error("configuration `{}`: {key} is {value}, allowed is {allowed}", path.display())]
    Range {
        /// The file.
        path: PathBuf,
        /// Which key.
        key: &'static str,
        /// What stands there.
        value: String,
        /// What may stand there.
        allowed: &'static str,
    },
}

/// The file as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    workspace: Workspace,
    machine_id: MachineId,
    fleet_key: PublicKey,
    #[serde(default = "default_max_parallel")]
    max_parallel: u32,
    #[serde(default)]
    require_operator_signature: Vec<Right>,
    #[serde(default)]
    allow_legacy: bool,
    #[serde(default, rename = "vault_secret_file")]
    vault_secret: Option<PathBuf>,
    #[serde(default)]
    labels: LabelMap,
    #[serde(default)]
    ssh: Ssh,
}

fn default_max_parallel() -> u32 {
    DEFAULT_MAX_PARALLEL
}

impl Config {
    /// Reads and checks the file.
    ///
    /// # Errors
    /// [`ConfigError`] naming file, key and what is allowed.
    pub fn read(path: &std::path::Path) -> Result<Self, ConfigError> {
        let failed = |source| ConfigError::File { path: path.to_owned(), source };
        let text = fs::read_to_string(path).map_err(failed)?;
        let file: File = toml::from_str(&text)
            .map_err(|source| ConfigError::Toml { path: path.to_owned(), source: Box::new(source) })?;
        if !(1..=MAX_MAX_PARALLEL).contains(&file.max_parallel) {
            return Err(ConfigError::Range {
                path: path.to_owned(),
                key: "max_parallel",
                value: file.max_parallel.to_string(),
                allowed: "1 to 64",
            });
        }
        if let Some(secret) = file.vault_secret.as_ref().filter(|secret| !secret.is_absolute()) {
            return Err(ConfigError::Range {
                path: path.to_owned(),
                key: "vault_secret_file",
                value: format!("`{}`", secret.display()),
                allowed: "an absolute path",
            });
        }
        if file.labels.len() > LABELS {
            return Err(ConfigError::Range {
                path: path.to_owned(),
                key: "labels",
                value: format!("{} of them", file.labels.len()),
                allowed: "at most 32",
            });
        }
        if let Some((key, value, allowed)) = file.ssh.out_of_range() {
            return Err(ConfigError::Range { path: path.to_owned(), key, value, allowed });
        }
        Ok(Self {
            mid: file.machine_id.token(),
            ws: file.workspace,
            machine_id: file.machine_id,
            fleet_key: file.fleet_key,
            max_parallel: file.max_parallel,
            require_operator_signature: file.require_operator_signature,
            allow_legacy: file.allow_legacy,
            vault_secret_file: file.vault_secret,
            labels: file.labels,
            ssh: file.ssh,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::ssh::route::HostKeyPolicy;
    use rstest::rstest;

    const KEY: &str = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4";

    fn read(text: &str) -> Result<Config, ConfigError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("relay.toml");
        fs::write(&path, text.replace("KEY", KEY)).unwrap();
        Config::read(&path)
    }

    const GOOD: &str = "workspace = \"main\"\nmachine_id = \"Web 1\"\nfleet_key = \"KEY\"\n";

    #[test]
    fn what_is_not_said_has_a_default() {
        let config = read(GOOD).unwrap();
        assert_eq!(config.max_parallel, DEFAULT_MAX_PARALLEL);
        assert_eq!(config.mid, config.machine_id.token());
        assert!(config.require_operator_signature.is_empty());
        assert_eq!(config.vault_secret_file, None);
        let named = read(&format!("{GOOD}vault_secret_file = \"/run/secret\"\n")).unwrap();
        assert_eq!(named.vault_secret_file, Some(PathBuf::from("/run/secret")));
    }

    #[test]
    fn ssh_is_what_the_file_says_of_it() {
        let store = Path::new("/store");
        let plain = read(GOOD).unwrap().ssh;
        assert_eq!((plain.targets.as_ref(), plain.host_keys), (None, HostKeyPolicy::Strict));
        assert_eq!(plain.known_hosts(store), store.join("known_hosts"));
        assert!(!plain.allows_non_strict("old.lan", 22));
        let ssh = read(&format!(
            "{GOOD}[ssh]\ntargets = [\"*.lan\", \"10.0.0.0/8\"]\nhost_keys = \"accept-new\"\n\
             known_hosts = \"/etc/kh\"\nallow_non_strict = [\"old.lan\"]\nagent = \"/run/agent\"\n"
        ));
        let ssh = ssh.unwrap().ssh;
        assert_eq!((ssh.targets.as_ref().map(Vec::len), ssh.host_keys), (Some(2), HostKeyPolicy::AcceptNew));
        assert_eq!(
            (ssh.known_hosts(store), ssh.agent.as_deref()),
            ("/etc/kh".into(), Some(Path::new("/run/agent")))
        );
        assert!(ssh.allows_non_strict("OLD.lan", 22) && !ssh.allows_non_strict("new.lan", 22));
    }

    #[rstest]
    #[case::unknown("[ssh]\ntarget = []")]
    #[case::pattern("[ssh]\ntargets = [\"a b\"]")]
    #[case::policy("[ssh]\nhost_keys = \"no\"")]
    #[case::relative("[ssh]\nknown_hosts = \"known_hosts\"")]
    #[case::relative("[ssh]\nagent = \"agent\"")]
    #[case::label_key("[labels]\nRole = \"web\"")]
    #[case::label_value("[labels]\nrole = \" web\"")]
    #[case::label_number("[labels]\nrole = 1")]
    #[case::label_twice("[labels]\nrole = \"a\"\nrole = \"b\"")]
    #[case::unknown("max_paralel = 4")]
    #[case::range("max_parallel = 0")]
    #[case::range("max_parallel = 65")]
    #[case::relative("vault_secret_file = \"vault.secret\"")]
    #[case::right("require_operator_signature = [\"sudo\"]")]
    fn refuses(#[case] line: &str) {
        assert!(read(&format!("{GOOD}{line}\n")).is_err(), "accepted {line}");
    }

    #[test]
    fn labels_are_read_as_they_are_written_and_so_many_at_most() {
        assert!(read(GOOD).unwrap().labels.is_empty());
        let labels = read(&format!("{GOOD}[labels]\nrole = \"web\"\n\"example.com/rack\" = \"\"\n"));
        let labels = labels.unwrap().labels;
        let shown: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(shown, ["example.com/rack=", "role=web"]);
        let many = |count: usize| -> String {
            let lines = (0..count).map(|n| format!("l{n} = \"x\"\n"));
            format!("{GOOD}[labels]\n{}", lines.collect::<String>())
        };
        assert_eq!(read(&many(LABELS)).unwrap().labels.len(), LABELS);
        assert!(matches!(read(&many(LABELS + 1)), Err(ConfigError::Range { key: "labels", .. })));
    }

    #[test]
    fn patterns_are_so_many_at_most() {
        let targets = |count: usize| format!("{GOOD}[ssh]\ntargets = [{}]\n", "\"a\",".repeat(count));
        assert!(read(&targets(MAX_PATTERNS)).is_ok());
        assert!(matches!(
            read(&targets(MAX_PATTERNS + 1)),
            Err(ConfigError::Range { key: "ssh.targets", .. })
        ));
    }
}
