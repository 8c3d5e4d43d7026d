//! The agent on each machine, as a library for its binary and its tests.
//!
//! | room | holds |
//! |---|---|
//! | [`args`], [`config`], [`identity`], [`lock`] | what it is told, who it is, its store |
//! | [`legacy_args`], [`api_key`], [`legacy_cli`], `legacy_log` | the same of the positional command line |
//! | [`enroll`], [`legacy_link`] | centers that know this relay by an API key |
//! | `agent` | the loop that owns everything |
//! | `gate`, `policy`, `work`, `reconcile`, `run` | decisions; pure |
//! | `claim`, `outbox`, `output` | what goes out, until it is acknowledged |
//! | `way`, `change`, `keepsakes` | ways to hosts behind the machine; what it keeps for that, and changes of it |
//! | `journal`, `authors` | what survives a restart |
//! | [`keeper`], `keeper_life` | the process that owns the runs' processes |
//! | [`vault`], [`credentials_cli`] | the credentials that this machine keeps |
//! | `private_file` | files that are there whole or not at all |
//! | [`ssh`], [`known_hosts_cli`] | hosts behind the machine; in the keeper, and on the command line |
//! | [`hardening`] | what keeps secrets out of others' sight |
//! | `nats_link` | the broker |
//! | `metrics`, `heartbeat` | signs of life |

#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
compile_error!("signalbox-relay runs on Linux on x86-64 or arm64 only");

mod agent;
pub mod api_key;
pub mod args;
mod authors;
mod backoff;
mod change;
mod claim;
mod clock;
pub mod config;
mod counters;
pub mod credentials_cli;
pub mod enroll;
#[cfg(fuzzing)]
pub mod fuzzing;
mod gate;
pub mod hardening;
mod heartbeat;
pub mod identity;
mod journal;
pub mod keeper;
mod keeper_life;
mod keepsakes;
pub mod known_hosts_cli;
pub mod legacy_args;
pub mod legacy_cli;
pub mod legacy_link;
mod legacy_log;
pub mod lock;
mod metrics;
mod nats_link;
mod outbox;
mod output;
mod policy;
mod private_file;
mod reconcile;
mod run;
pub mod serve;
pub mod ssh;
pub mod vault;
mod way;
mod work;
