//! The command line, as typed. What it means is decided in [`config`](crate::config).

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// The bridge of a Signalbox fleet.
#[derive(Debug, Parser)]
#[command(name = "signalbox-bridge", version, about)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Set a state directory up: keys, accounts, logins, configuration. Can be repeated at any time.
    Init(InitArgs),
    /// Run the bridge.
    Serve(ServeArgs),
}

/// Arguments of `init`.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// Where everything lies; made when it is absent.
    #[arg(long, value_name = "DIR", env = "SIGNALBOX_STATE_DIR")]
    pub state_dir: PathBuf,
    /// Machines to set up, separated by commas; those set up before stay.
    #[arg(long, value_name = "ID,ID", value_delimiter = ',')]
    pub machines: Vec<String>,
    /// Operators to set up, separated by commas; those set up before stay.
    #[arg(long, value_name = "ID,ID", value_delimiter = ',', default_value = "local")]
    pub operators: Vec<String>,
}

/// Arguments of `serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// The state directory that `init` made.
    #[arg(long, value_name = "DIR", env = "SIGNALBOX_STATE_DIR")]
    pub state_dir: PathBuf,
    /// Where the bridge keeps its own view; may be deleted [default: STATE/bridge].
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Where HTTP listens; port 0 is any free one.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:0")]
    pub http: String,
    /// The broker to join.
    #[arg(long, value_name = "URL", env = "SIGNALBOX_NATS", required_unless_present = "embedded_broker")]
    pub nats: Option<String>,
    /// Where relays that enrol are told to find the broker; repeat it for several [default: where this bridge finds it,
    /// and on the host that the relay asked if that is this one].
    #[arg(long, value_name = "URL")]
    pub relay_nats: Vec<String>,
    /// Servers of a cluster that keep a copy of each stream which this bridge makes: 1, 3 or 5. Streams that are there
    /// stay as they are.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = replicas, conflicts_with = "embedded_broker")]
    pub replicas: u8,
    /// Start a broker and see that it runs.
    #[arg(long)]
    pub embedded_broker: bool,
    /// Where the embedded broker listens; port 0 is any free one.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:0", requires = "embedded_broker")]
    pub nats_listen: String,
    /// End with an error when the embedded broker dies, instead of starting it again.
    #[arg(long, requires = "embedded_broker")]
    pub no_restart: bool,
    /// The nats-server binary [default: beside this binary, else from PATH].
    #[arg(long, value_name = "PATH", env = "SIGNALBOX_NATS_SERVER")]
    pub nats_server: Option<PathBuf>,
    /// How log lines look.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,
    /// What is logged, like `info` or `signalbox_bridge=debug` [default: `RUST_LOG`, else info].
    #[arg(long, value_name = "FILTER")]
    pub log: Option<String>,
}

/// An even number would survive no more than the odd one below it.
fn replicas(text: &str) -> Result<u8, &'static str> {
    match text {
        "1" => Ok(1),
        "3" => Ok(3),
        "5" => Ok(5),
        _ => Err("there can be 1, 3 or 5"),
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON document a line.
    Json,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_bridge_joins_a_broker_or_brings_one() {
        let parse = |args: &[&str]| {
            Cli::try_parse_from([&["signalbox-bridge", "serve", "--state-dir", "/s"], args].concat())
        };
        assert!(parse(&[]).is_err(), "there is no broker");
        assert!(parse(&["--nats", "nats://h:1"]).is_ok());
        assert!(parse(&["--embedded-broker"]).is_ok());
        assert!(parse(&["--nats", "nats://h:1", "--no-restart"]).is_err());
        assert!(parse(&["--nats", "nats://h:1", "--replicas", "3"]).is_ok());
        assert!(parse(&["--nats", "nats://h:1", "--replicas", "2"]).is_err());
        assert!(parse(&["--embedded-broker", "--replicas", "3"]).is_err(), "one server keeps one copy");
    }
}
