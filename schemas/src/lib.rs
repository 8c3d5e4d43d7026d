//! The contract between the parts of Signalbox: what is said, how it is spelled, and what it means.
//!
//! Everything here is a value or a pure function of values. There is no I/O, no async, no clock and no
//! randomness, so that every rule can be tested on a table and reads the same in the relay, the bridge and
//! the console.
//!
//! | room | holds |
//! |---|---|
//! | [`id`] | workspaces, machines, operators, commands and other names, with their spelling rules |
//! | [`subject`] | every NATS subject, built and parsed in one place |
//! | [`stream`] | the JetStream streams as data |
//! | [`permission`] | who may publish and subscribe what, and what crosses the accounts |
//! | [`signed`] | the envelope around everything that must be believed |
//! | [`command`] | a command, its grants, its parts |
//! | [`rollout`] | how a command spreads over its machines, and what comes next |
//! | [`run`] | the facts about one command on one machine, and the fold that turns them into a state |
//! | [`mailbox`] | what should be true of a machine now |
//! | [`heartbeat`] | a sign of life, with metrics |
//! | [`number`] | numbers that others have measured, brought into their ranges |
//! | [`output`] | headers of output chunks |
//! | [`authors`] | who may author what |
//! | [`audit`] | who did what, in a chain |
//! | [`event`] | what happened, for people who were not looking |
//! | [`history`] | how machines were, minute by minute |
//! | [`record`] | entities kept in the `state` bucket, the lease, settled history |
//! | [`api_key`] | the key of an assignment, and the hash that speaks for it |
//! | [`enrol`], [`relay_files`] | how a relay gets its login, and the files that it runs on |
//! | [`relay`], [`credential`], [`config`] | what relays of the old contract report, and what they are given |
//! | [`inventory`] | what a relay keeps for its machine, without a value |
//! | [`sealed`], [`Secret`] | secrets on their way to a machine, and in memory |
//! | [`host`], [`ssh`] | hosts behind machines: what they are called, and why a command did not run there |
//! | [`label`] | what people and relays say a machine is for |
//! | [`selector`] | which machines are meant |
//! | [`api`] | operations, views and feeds |
//! | [`layout`] | where things lie in a state directory |
//! | [`error`], [`limit`] | error codes and sizes |

pub mod api;
pub mod api_key;
pub mod audit;
pub mod authors;
mod bytes;
pub mod command;
pub mod config;
pub mod credential;
pub mod enrol;
pub mod error;
pub mod event;
pub mod heartbeat;
pub mod history;
pub mod host;
pub mod id;
pub mod inventory;
pub mod label;
pub mod layout;
pub mod limit;
pub mod mailbox;
pub mod number;
pub mod output;
pub mod permission;
pub mod record;
pub mod relay;
pub mod relay_files;
pub mod rollout;
pub mod run;
pub mod sealed;
mod secret;
pub mod selector;
pub mod signed;
pub mod ssh;
pub mod stream;
pub mod subject;

pub use bytes::Base64Url;
pub use secret::Secret;
