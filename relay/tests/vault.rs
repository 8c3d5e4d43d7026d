//! The vault of a relay as its owner uses it: the real program, several of them at once, killed, and on a full disk.

#[path = "vault/cli.rs"]
mod cli;
#[path = "vault/crash.rs"]
mod crash;
#[path = "vault/harness.rs"]
mod harness;
#[path = "vault/import.rs"]
mod import;
#[path = "vault/prompt.rs"]
mod prompt;
#[path = "vault/together.rs"]
mod together;
