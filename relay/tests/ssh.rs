//! Runs on other hosts, as a relay has them from its keeper: real servers, real keys, and peers that fail.

#[path = "ssh/cli.rs"]
mod cli;
#[path = "ssh/commands.rs"]
mod commands;
#[path = "ssh/failing.rs"]
mod failing;
#[path = "ssh/harness.rs"]
mod harness;
#[path = "ssh/host_keys.rs"]
mod host_keys;
#[path = "ssh/hostile.rs"]
mod hostile;
#[path = "ssh/login.rs"]
mod login;
#[path = "ssh/old_server.rs"]
mod old_server;
#[path = "ssh/peer.rs"]
mod peer;
#[path = "ssh/sharing.rs"]
mod sharing;
