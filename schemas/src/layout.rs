//! Where things lie in a state directory.
//!
//! ```text
//! STATE/state.json                  marks the directory as ours: {"format":1,"workspace":"main"}
//! STATE/lock                        held by `signalbox up`; its pid
//! STATE/nats.conf operator.conf     the broker's configuration; the second is generated
//! STATE/jwt/                        account JWTs for the broker's resolver
//! STATE/jetstream/                  the broker's store
//! STATE/authors.json                the signed authors document
//! STATE/admin.token                 the bearer token of HTTP administrators
//! STATE/operators.json              who the operators are: public keys only
//! STATE/keys/NAME.seed              fleet, operator-local, bridge (signing); accounts and their signing keys
//! STATE/keys/fleet.pub              the public half of the fleet key: all that a bridge needs of it
//! STATE/keys/relay.pub              the public half of the key of the relays' account, for bridges that enrol
//! STATE/creds/NAME.creds            ctrl, bridge, operator-local (login only)
//! STATE/machines/MID/relay.creds    login only; beside it signing.seed and relay.toml
//! STATE/machines/MID/store/         journal, spool, keeper socket; may be deleted
//! STATE/machines/MID/machine.json   what the bridge records about it
//! STATE/bridge/                     the bridge's sled; may be deleted
//! STATE/run/NAME.pid                broker, bridge, and one per relay
//! STATE/log/NAME.log                what each of them says
//! ```
//!
//! The directory is 0700, every file 0600.

use std::path::{Path, PathBuf};

use crate::id::MachineToken;

/// Version of this layout.
pub const FORMAT: u32 = 1;

/// Name of the login file of a relay; its two neighbours are named below.
pub const RELAY_CREDS: &str = "relay.creds";
/// Name of the file with a relay's signing seed, beside its login file.
pub const SIGNING_SEED: &str = "signing.seed";
/// Name of a relay's configuration, beside its login file.
pub const RELAY_TOML: &str = "relay.toml";
/// Name of the keeper's lock file in a relay's store: `{"pid":…}`.
pub const KEEPER_LOCK: &str = "keeper.lock";

/// Paths of one state directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// Paths below `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Marks the directory as ours.
    pub fn state_json(&self) -> PathBuf {
        self.root.join("state.json")
    }

    /// Held by `up`.
    pub fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    /// The broker's configuration.
    pub fn nats_conf(&self) -> PathBuf {
        self.root.join("nats.conf")
    }

    /// The generated part of it.
    pub fn operator_conf(&self) -> PathBuf {
        self.root.join("operator.conf")
    }

    /// Account JWTs.
    pub fn jwt_dir(&self) -> PathBuf {
        self.root.join("jwt")
    }

    /// The broker's store.
    pub fn jetstream_dir(&self) -> PathBuf {
        self.root.join("jetstream")
    }

    /// The signed authors document.
    pub fn authors(&self) -> PathBuf {
        self.root.join("authors.json")
    }

    /// Who the operators are, with public keys only.
    pub fn operators(&self) -> PathBuf {
        self.root.join("operators.json")
    }

    /// The public half of the fleet key.
    pub fn fleet_pub(&self) -> PathBuf {
        self.root.join("keys").join("fleet.pub")
    }

    /// The public half of the key of the relays' account.
    pub fn relay_account_pub(&self) -> PathBuf {
        self.root.join("keys").join("relay.pub")
    }

    /// The bearer token of HTTP administrators.
    pub fn admin_token(&self) -> PathBuf {
        self.root.join("admin.token")
    }

    /// A seed: `fleet`, `operator-local`, `bridge`, ….
    pub fn seed(&self, name: &str) -> PathBuf {
        self.root.join("keys").join(format!("{name}.seed"))
    }

    /// A login file: `ctrl`, `bridge`, `operator-local`.
    pub fn creds(&self, name: &str) -> PathBuf {
        self.root.join("creds").join(format!("{name}.creds"))
    }

    /// All machines that were set up here.
    pub fn machines_dir(&self) -> PathBuf {
        self.root.join("machines")
    }

    /// One machine's directory.
    pub fn machine_dir(&self, mid: &MachineToken) -> PathBuf {
        self.machines_dir().join(mid.as_str())
    }

    /// One machine's login file.
    pub fn relay_creds(&self, mid: &MachineToken) -> PathBuf {
        self.machine_dir(mid).join(RELAY_CREDS)
    }

    /// One machine's store.
    pub fn relay_store(&self, mid: &MachineToken) -> PathBuf {
        self.machine_dir(mid).join("store")
    }

    /// What the bridge records about a machine (a [`MachineRecord`](crate::record::MachineRecord) as JSON).
    pub fn machine_json(&self, mid: &MachineToken) -> PathBuf {
        self.machine_dir(mid).join("machine.json")
    }

    /// The bridge's sled.
    pub fn bridge_data(&self) -> PathBuf {
        self.root.join("bridge")
    }

    /// Pid file of `broker`, `bridge` or a relay.
    pub fn pid(&self, name: &str) -> PathBuf {
        self.root.join("run").join(format!("{name}.pid"))
    }

    /// Log of `broker`, `bridge` or a relay.
    pub fn log(&self, name: &str) -> PathBuf {
        self.root.join("log").join(format!("{name}.log"))
    }

    /// Directories that must exist, all 0700.
    pub fn directories(&self) -> Vec<PathBuf> {
        let sub = ["keys", "creds", "machines", "run", "log", "jwt", "jetstream"];
        std::iter::once(self.root.clone()).chain(sub.iter().map(|name| self.root.join(name))).collect()
    }
}
