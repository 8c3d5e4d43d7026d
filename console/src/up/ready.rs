//! The one line of `up --headless`. Pure; fixed, others read it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use signalbox_schemas::{
    id::{MachineId, MachineToken},
    signed::PublicKey,
};

/// What the bridge says when it is ready.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct BridgeReady {
    /// Base URL of HTTP.
    pub http: String,
    /// The broker's URL.
    pub nats: String,
    /// Its pid.
    pub pid: u32,
    /// The embedded broker's pid.
    pub broker_pid: Option<u32>,
    /// Its own view.
    pub data: PathBuf,
}

/// What a relay says when it is ready.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct RelayReady {
    /// Its machine.
    pub machine: MachineId,
    /// Its pid.
    pub pid: u32,
    /// Its keeper's.
    pub keeper_pid: u32,
}

/// Everything is ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Ready {
    /// Base URL of HTTP.
    pub http: String,
    /// The broker's URL.
    pub nats: String,
    /// The state directory.
    pub state_dir: PathBuf,
    /// Bearer token of HTTP administrators.
    pub admin_token: String,
    /// Login of an administrator's NATS client.
    pub ctrl_creds: PathBuf,
    /// The operator that was made.
    pub operator: String,
    /// Whose pid is what.
    pub pids: Pids,
    /// The bridge's own view; may be deleted while it does not run.
    pub bridge_data: PathBuf,
    /// The demo relays.
    pub machines: Vec<MachineReady>,
}

/// Pids of those that are no relays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Pids {
    /// nats-server.
    pub broker: u32,
    /// signalbox-bridge.
    pub bridge: u32,
}

/// A relay that is ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MachineReady {
    /// Its machine.
    pub id: MachineId,
    /// The machine in subjects.
    pub token: MachineToken,
    /// Its login.
    pub creds: PathBuf,
    /// Its store.
    pub store: PathBuf,
    /// Its pid.
    pub pid: u32,
    /// Its keeper's.
    pub keeper_pid: u32,
    /// The public half of its signing key.
    pub signing_key: PublicKey,
}
