//! SSH to hosts behind the machine. Runs in the keeper.
//!
//! | room | holds |
//! |---|---|
//! | [`route`] | where a command runs, by which way, with which credentials |

pub mod route;
