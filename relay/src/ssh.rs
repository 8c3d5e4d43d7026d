//! SSH to hosts behind the machine. Runs in the keeper.
//!
//! | room | holds |
//! |---|---|
//! | [`route`] | where a command runs, by which way, with which credentials |
//! | `guard` | which hosts may be dialled; pure |
//! | [`known_hosts`], `host_key` | host keys that are known, their file, and whether a host is who it is said to be |
//! | `dial`, `login`, `line` | from a route to a connection on which its user is logged in |
//! | `no_channels` | what refuses the channels that a host wants to open |
//! | `pool` | connections that are kept, and the channels on them |
//! | `session` | one command on a channel |
//! | [`scan`] | which keys a host shows |
//! | `failure` | why a command did not run, in words |

mod dial;
mod failure;
mod guard;
mod host_key;
pub mod known_hosts;
mod line;
mod login;
mod no_channels;
mod pool;
pub mod route;
pub mod scan;
mod session;

pub(crate) use dial::WINDOW_BYTES;
pub(crate) use failure::Failure;
pub(crate) use pool::Pool;
pub(crate) use session::{Event, Session};
