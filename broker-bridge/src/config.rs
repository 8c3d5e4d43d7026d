//! What the command line means: checked, before anything is opened.

use std::{
    collections::BTreeSet,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use signalbox_schemas::{
    id::{IdError, MachineId, OperatorId},
    layout::Layout,
};

use crate::{
    args::{InitArgs, ServeArgs},
    broker,
    identity::Init,
};

/// What is wrong with the command line.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// No address with a port.
    #[error("{flag} is `{value}`, which is no ADDR:PORT like 127.0.0.1:4222")]
    Address {
        /// The flag.
        flag: &'static str,
        /// What was given.
        value: String,
    },
    /// No URL that a NATS client takes.
    #[error("{flag} is `{value}`, which is no URL like nats://127.0.0.1:4222")]
    Url {
        /// The flag.
        flag: &'static str,
        /// What was given.
        value: String,
    },
    /// A name breaks its rule.
    #[error("{flag} cannot be used")]
    Name {
        /// The flag.
        flag: &'static str,
        /// What rule.
        source: IdError,
    },
    /// Two machines would be one.
    #[error("--machines names {id} twice")]
    Twice {
        /// The machine.
        id: MachineId,
    },
    /// A path has no absolute form.
    #[error("{flag} is {}, which leads nowhere", .path.display())]
    Path {
        /// The flag.
        flag: &'static str,
        /// What was given.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// Where `serve` finds its broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BrokerConfig {
    /// It runs already, at this URL.
    Join(String),
    /// The bridge starts it.
    Embedded(broker::Wanted),
}

/// What `serve` shall do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServeConfig {
    /// The state directory, absolute.
    pub state_dir: PathBuf,
    /// Where the bridge keeps its own view, absolute.
    pub data: PathBuf,
    /// Where HTTP listens.
    pub http: SocketAddr,
    /// The broker.
    pub broker: BrokerConfig,
    /// Where relays are told to find it; empty: where this bridge finds it.
    pub relay_nats: Vec<String>,
    /// Copies of the streams that this bridge makes: 1, 3 or 5.
    pub replicas: u8,
}

impl ServeConfig {
    /// Checks the arguments. `search` are the directories in which a nats-server is looked for.
    ///
    /// # Errors
    /// [`ConfigError`] naming the flag.
    pub fn from_args(args: &ServeArgs, search: Vec<PathBuf>) -> Result<Self, ConfigError> {
        let state_dir = absolute("--state-dir", &args.state_dir)?;
        let data = match &args.data {
            Some(data) => absolute("--data", data)?,
            None => Layout::new(&state_dir).bridge_data(),
        };
        let broker = match &args.nats {
            _ if args.embedded_broker => BrokerConfig::Embedded(broker::Wanted {
                listen: address("--nats-listen", &args.nats_listen)?,
                server: args.nats_server.clone(),
                search,
                restart: !args.no_restart,
            }),
            Some(url) if is_url(url) => BrokerConfig::Join(url.clone()),
            other => return Err(no_url("--nats", other.as_deref().unwrap_or_default())),
        };
        let relay_nats = args.relay_nats.clone();
        if let Some(url) = relay_nats.iter().find(|url| !is_url(url)) {
            return Err(no_url("--relay-nats", url));
        }
        let http = address("--http", &args.http)?;
        Ok(Self { state_dir, data, http, broker, relay_nats, replicas: args.replicas })
    }
}

impl Init {
    /// Checks the arguments.
    ///
    /// # Errors
    /// [`ConfigError`] naming the flag.
    pub fn from_args(args: &InitArgs) -> Result<Self, ConfigError> {
        let name = |flag| move |source| ConfigError::Name { flag, source };
        let machines: Vec<MachineId> =
            args.machines.iter().map(MachineId::new).collect::<Result<_, _>>().map_err(name("--machines"))?;
        let operators = args
            .operators
            .iter()
            .map(OperatorId::new)
            .collect::<Result<_, _>>()
            .map_err(name("--operators"))?;
        let mut tokens = BTreeSet::new();
        if let Some(id) = machines.iter().find(|id| !tokens.insert(id.token())) {
            return Err(ConfigError::Twice { id: id.clone() });
        }
        Ok(Self { state_dir: absolute("--state-dir", &args.state_dir)?, machines, operators })
    }
}

fn absolute(flag: &'static str, path: &Path) -> Result<PathBuf, ConfigError> {
    std::path::absolute(path).map_err(|source| ConfigError::Path { flag, path: path.to_owned(), source })
}

fn address(flag: &'static str, value: &str) -> Result<SocketAddr, ConfigError> {
    value.parse().map_err(|_| ConfigError::Address { flag, value: value.to_owned() })
}

fn no_url(flag: &'static str, value: &str) -> ConfigError {
    ConfigError::Url { flag, value: value.to_owned() }
}

fn is_url(text: &str) -> bool {
    let schemes = ["nats://", "tls://", "ws://", "wss://"];
    schemes.iter().any(|scheme| text.strip_prefix(scheme).is_some_and(|rest| !rest.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Command};
    use clap::Parser as _;
    use rstest::rstest;

    fn serve(args: &[&str]) -> Result<ServeConfig, ConfigError> {
        let line = [&["signalbox-bridge", "serve", "--state-dir", "/s"], args].concat();
        match Cli::try_parse_from(line).unwrap().command {
            Command::Serve(args) => ServeConfig::from_args(&args, Vec::new()),
            Command::Init(_) => unreachable!(),
        }
    }

    #[rstest]
    #[case(&["--nats", "127.0.0.1:4222"], "--nats")]
    #[case(&["--nats", "nats://"], "--nats")]
    #[case(&["--nats", "nats://h", "--http", "4280"], "--http")]
    #[case(&["--nats", "nats://h", "--relay-nats", "tls://a", "--relay-nats", "b:1"], "--relay-nats is `b:1`")]
    #[case(&["--embedded-broker", "--nats-listen", "localhost"], "--nats-listen")]
    #[case(&["--embedded-broker", "--nats-listen", "127.0.0.1:99999"], "--nats-listen")]
    fn mistakes_name_their_flag(#[case] args: &[&str], #[case] flag: &str) {
        let error = serve(args).unwrap_err().to_string();
        assert!(error.starts_with(flag), "{error}");
    }

    #[test]
    fn the_view_lies_in_the_state_directory_unless_said_otherwise() {
        assert_eq!(serve(&["--nats", "nats://h"]).unwrap().data, Path::new("/s/bridge"));
        assert_eq!(serve(&["--nats", "nats://h", "--data", "/d"]).unwrap().data, Path::new("/d"));
    }

    #[test]
    fn a_machine_is_named_once() {
        let args = InitArgs {
            state_dir: "/s".into(),
            machines: vec!["a".into(), "b".into(), "a".into()],
            operators: vec![],
        };
        assert!(matches!(Init::from_args(&args), Err(ConfigError::Twice { .. })));
    }
}
