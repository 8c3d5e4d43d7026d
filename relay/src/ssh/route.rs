//! A way to a host: what the relay resolved, and the keeper goes by.
//!
//! A route holds secrets. It travels over the keeper's socket and is in memory only: nothing of it is logged, and neither
//! `Debug` nor an error shows more than names.

use std::{fmt, io, path::PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256 as Hasher};
use signalbox_schemas::{
    Secret,
    credential::is_username,
    host::{HostPattern, is_host},
    id::Sha256,
    limit,
};

/// Most hosts of a route: those to go through, and the one where the command runs.
pub const HOPS: usize = limit::SSH_JUMPS + 1;
/// Most ways to log in at one host: a server hears six tries by default, and two of these may be one try each.
pub const WAYS: usize = 8;
/// Longest encoded route. With the longest command, in JSON at most 96 KiB, it fits a frame of 256 KiB.
pub const ROUTE_BYTES: usize = 144 * 1024;

/// Where a command runs, and how to come there.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// The hosts in the order in which they are reached, 1 to 5; the command runs on the last one.
    pub hops: Vec<Hop>,
    /// The file with the host keys that are known.
    pub known_hosts: PathBuf,
    /// What becomes of a host whose key is not known.
    pub host_keys: HostKeyPolicy,
    /// The hosts that may be dialled. Absent: all, but those that are denied by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub targets: Option<Vec<HostPattern>>,
    /// Who says all that.
    #[serde(default, skip_serializing_if = "SetBy::is_owner")]
    pub set_by: SetBy,
}

/// One host of a route.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hop {
    /// Name or address.
    pub host: String,
    /// Port, 1 to 65,535.
    pub port: u16,
    /// Login name.
    pub user: String,
    /// The ways to log in, tried in this order, 1 to 8.
    pub ways: Vec<Way>,
    /// Whether the host may be spoken to without strict key exchange, and with algorithms of yesterday.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_non_strict: bool,
}

/// One way to log in.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "way", rename_all = "snake_case")]
pub enum Way {
    /// With a private key.
    Key {
        /// The credential's name.
        name: String,
        /// OpenSSH or PEM.
        key: Secret,
        /// What it is encrypted with, if it is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        passphrase: Option<Secret>,
        /// The certificate that goes with it: a line as in a `…-cert.pub` file.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        certificate: Option<String>,
    },
    /// With a password, also where the host asks for it interactively.
    Password {
        /// The credential's name.
        name: String,
        /// The text.
        password: Secret,
    },
    /// With the keys of an agent.
    Agent {
        /// Where it listens.
        socket: PathBuf,
    },
}

/// What becomes of a host whose key is not known. One that shows another key than the known one is always refused.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HostKeyPolicy {
    /// It is refused.
    #[default]
    Strict,
    /// Its key is written down, and known from then on.
    AcceptNew,
}

/// Who sets what may be dialled, and how: what is advised to people depends on it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SetBy {
    /// The machine's owner, in `relay.toml`.
    #[default]
    Owner,
    /// A center that speaks HTTP, by what it pushes. Its relays have no `relay.toml`.
    Center,
}

impl SetBy {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
    fn is_owner(&self) -> bool {
        *self == Self::Owner
    }

    /// The list of what may be dialled.
    pub(crate) fn targets(self) -> &'static str {
        match self {
            Self::Owner => "the `targets` under [ssh] in relay.toml",
            Self::Center => "the `ssh_targets` that the center pushes",
        }
    }

    /// What is to be done about a host that speaks as one did long ago.
    pub(crate) fn cure_for_old_hosts(self) -> &'static str {
        match self {
            Self::Owner => "renew it, or name it in `allow_non_strict` under [ssh] in relay.toml",
            Self::Center => "renew it: a relay of a center that speaks HTTP cannot be told to speak to it",
        }
    }
}

/// A route is out of range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidRoute(&'static str);

impl Route {
    /// Checks every range.
    ///
    /// # Errors
    /// [`InvalidRoute`] with the first rule that is broken.
    pub fn validate(&self) -> Result<(), InvalidRoute> {
        let rule = |good: bool, rule| if good { Ok(()) } else { Err(InvalidRoute(rule)) };
        rule((1..=HOPS).contains(&self.hops.len()), "a route has 1 to 5 hosts")?;
        for hop in &self.hops {
            rule(is_host(&hop.host) && hop.port > 0, "a host of a route is no host")?;
            rule(is_username(&hop.user), "a login name of a route is none")?;
            rule((1..=WAYS).contains(&hop.ways.len()), "a host of a route has 1 to 8 ways to log in")?;
        }
        rule(self.known_hosts.is_absolute(), "the file of known hosts is not named from the root")?;
        let mut counter = Counter(0);
        let is_encoded = serde_json::to_writer(&mut counter, self).is_ok();
        rule(is_encoded && counter.0 <= ROUTE_BYTES, "a route with its credentials has at most 144 KiB")
    }

    /// Tells this route from every other one, by its secrets too: a credential that was replaced makes another route.
    pub fn fingerprint(&self) -> Sha256 {
        let mut hasher = Digesting(Hasher::new());
        // Only a path that is no text has no JSON form; such a route does not come over the socket.
        drop(serde_json::to_writer(&mut hasher, self));
        Sha256(hasher.0.finalize().into())
    }

    /// The host where the command runs, and how it is reached, for people.
    pub fn place(&self) -> String {
        let hops: Vec<String> = self.hops.iter().map(ToString::to_string).collect();
        match hops.split_last() {
            Some((last, [])) => last.clone(),
            Some((last, before)) => format!("{last} through {}", before.join(", ")),
            None => "nowhere".to_owned(),
        }
    }
}

impl Way {
    /// What it is called in what is said to people.
    pub fn name(&self) -> String {
        match self {
            Self::Key { name, .. } | Self::Password { name, .. } => format!("`{name}`"),
            Self::Agent { socket } => format!("agent {}", socket.display()),
        }
    }
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Route")
            .field("hops", &self.hops)
            .field("host_keys", &self.host_keys)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Hop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self} {:?}", self.ways)
    }
}

impl fmt::Debug for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key { name, .. } => write!(f, "Key({name})"),
            Self::Password { name, .. } => write!(f, "Password({name})"),
            Self::Agent { socket } => write!(f, "Agent({})", socket.display()),
        }
    }
}

impl fmt::Display for Hop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        write!(f, "{}@{host}:{}", self.user, self.port)
    }
}

/// Counts what is written to it, and keeps none of it.
struct Counter(usize);

impl io::Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self.0.saturating_add(bytes.len());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Hashes what is written to it.
struct Digesting(Hasher);

impl io::Write for Digesting {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn route() -> Route {
        let key = Way::Key {
            name: "deploy".into(),
            key: Secret::new("hunter1".into()),
            passphrase: Some(Secret::new("hunter2".into())),
            certificate: None,
        };
        let password = Way::Password { name: "root-pw".into(), password: Secret::new("hunter3".into()) };
        let hop = |host: &str, ways| Hop {
            host: host.into(),
            port: 22,
            user: "root".into(),
            ways,
            allow_non_strict: false,
        };
        Route {
            hops: vec![hop("bastion", vec![password]), hop("fe80::1", vec![key])],
            known_hosts: "/var/lib/known_hosts".into(),
            host_keys: HostKeyPolicy::Strict,
            targets: None,
            set_by: SetBy::Owner,
        }
    }

    #[test]
    fn nothing_that_is_printed_shows_a_secret() {
        let text = format!("{:?} {}", route(), route().place());
        assert!(!text.contains("hunter"), "{text}");
        assert!(
            text.contains("deploy") && text.contains("root@[fe80::1]:22 through root@bastion:22"),
            "{text}"
        );
    }

    #[test]
    fn a_route_comes_over_the_socket_as_it_was() {
        let text = serde_json::to_string(&route()).unwrap();
        assert_eq!(serde_json::from_str::<Route>(&text).unwrap(), route());
        assert_eq!(serde_json::from_str::<Route>(&text).unwrap().fingerprint(), route().fingerprint());
    }

    #[rstest]
    #[case::key(|route: &mut Route| {
        if let Way::Key { key, .. } = &mut route.hops[1].ways[0] { *key = Secret::new("hunter0".into()); }
    })]
    #[case::passphrase(|route: &mut Route| {
        if let Way::Key { passphrase, .. } = &mut route.hops[1].ways[0] { *passphrase = None; }
    })]
    #[case::user(|route: &mut Route| route.hops[0].user = "admin".into())]
    #[case::policy(|route: &mut Route| route.host_keys = HostKeyPolicy::AcceptNew)]
    #[case::targets(|route: &mut Route| route.targets = Some(vec![]))]
    #[case::strict(|route: &mut Route| route.hops[0].allow_non_strict = true)]
    #[case::set_by(|route: &mut Route| route.set_by = SetBy::Center)]
    fn another_route_has_another_fingerprint(#[case] change: fn(&mut Route)) {
        let mut other = route();
        change(&mut other);
        assert_ne!(other.fingerprint(), route().fingerprint());
    }

    #[rstest]
    #[case(|route: &mut Route| route.hops.clear())]
    #[case(|route: &mut Route| route.hops = vec![route.hops[0].clone(); 6])]
    #[case(|route: &mut Route| route.hops[0].ways.clear())]
    #[case(|route: &mut Route| route.hops[0].ways = vec![route.hops[0].ways[0].clone(); 9])]
    #[case(|route: &mut Route| route.hops[0].host = "a b".into())]
    #[case(|route: &mut Route| route.hops[0].port = 0)]
    #[case(|route: &mut Route| route.hops[0].user = String::new())]
    #[case(|route: &mut Route| route.known_hosts = "known_hosts".into())]
    #[case(|route: &mut Route| {
        let password = Secret::new("x".repeat(ROUTE_BYTES));
        route.hops[0].ways = vec![Way::Password { name: "long".into(), password }];
    })]
    fn routes_out_of_range_are_refused(#[case] change: fn(&mut Route)) {
        assert_eq!(route().validate(), Ok(()));
        let mut other = route();
        change(&mut other);
        assert!(other.validate().is_err(), "{other:?}");
    }
}
