//! Signalbox: the operator's console and command line.
//!
//! `main` → [`cli`], [`up`], `tui` → [`client`] → the broker. The pure rooms (`client::flow`, `cli::lines`, …)
//! call nothing of the others.

pub mod args;
pub mod cli;
pub mod client;
pub mod config;
pub mod contexts;
pub mod file;
pub mod log;
pub mod question;
pub mod settings;
pub mod tui;
pub mod up;
