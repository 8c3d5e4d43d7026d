//! One room per promise.

mod assignments;
mod audit;
mod by_http;
mod cli;
mod console;
mod crash;
mod credentials;
mod enrol;
mod facts;
mod hands;
mod hostile;
mod jump;
mod labels;
mod lifecycle;
mod main_job;
mod offline;
mod old_relays;
mod output;
mod processes;
mod rebuild;
mod rollout;
mod secrets;
mod shared;
mod store;
mod wire;
