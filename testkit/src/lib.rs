//! What tests need to run against the real things: a nats-server of their own, and patience with a bound.

pub mod broker;
pub mod clock;
pub mod eventually;
pub mod http;
pub mod lacking;
pub mod leaks;
pub mod old_relay;
#[cfg(feature = "operator")]
pub mod operator;
pub mod ordinary;
pub mod picture;
pub mod process;
pub mod pty;
pub mod slow_link;
pub mod small_disk;
pub mod sshd;
pub mod stack;
pub mod tmux;

pub use broker::Broker;
pub use eventually::{eventually, eventually_within};
