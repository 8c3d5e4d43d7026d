//! The relay as a process of a center that is spoken to by HTTP: a stub center over real TCP, real keepers, real shells.

#[path = "legacy/center.rs"]
mod center;
#[path = "legacy/cli.rs"]
mod cli;
#[path = "legacy/commands.rs"]
mod commands;
#[cfg(feature = "crash-points")]
#[path = "legacy/crash.rs"]
mod crash;
#[path = "legacy/enrol.rs"]
mod enrol;
#[path = "legacy/full.rs"]
mod full;
#[path = "legacy/harness.rs"]
mod harness;
#[path = "legacy/protocol.rs"]
mod protocol;
#[path = "legacy/results.rs"]
mod results;
#[path = "legacy/shared.rs"]
mod shared;
#[path = "legacy/ssh.rs"]
mod ssh;
#[path = "legacy/tls.rs"]
mod tls;
