//! The bridge between the broker's streams, the store and HTTP.
//!
//! | rooms | hold |
//! |---|---|
//! | `main` `args` `config` `serve` | the program: what is wanted, checked, wired, ended |
//! | `identity` | keys, accounts, logins and documents of a state directory |
//! | `broker` | the embedded nats-server |
//! | `broker_link` `submit` | what the bridge writes to the streams |
//! | `ingest` `projection` `store` `view` `gauge` | what it reads from them, folded, and kept in sled |
//! | `lease` `mailbox` `dispatcher` `deadline` `held` `rollout` `done` | what it decides, mostly while it holds the lease |
//! | `audit` `chronicle` | what it writes down: who did what; what happened, and how machines were |
//! | `api` `rpc` `feed` `http` | the operations and their fronts |

#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
compile_error!("signalbox-bridge runs on Linux on x86-64 or arm64 only");

pub mod api;
pub mod args;
mod audit;
pub mod broker;
pub mod broker_link;
pub mod chronicle;
pub mod config;
pub mod core;
mod deadline;
mod descriptors;
mod dispatcher;
mod done;
mod feed;
#[cfg(fuzzing)]
pub mod fuzzing;
mod gauge;
mod held;
pub mod http;
pub mod identity;
mod ingest;
mod lease;
mod listening;
mod mailbox;
mod projection;
mod rollout;
pub mod rpc;
pub mod serve;
#[cfg(test)]
mod stage;
pub mod store;
pub mod submit;
pub mod view;
mod waiters;
