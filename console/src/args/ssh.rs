//! A host behind a machine, as people write it.

use signalbox_schemas::{
    command::{SSH_PORT, SshHop, SshTarget},
    credential::is_username,
    host::{self, is_host},
};

/// The text names no such host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("write HOST, USER@HOST or USER@HOST:PORT; an IPv6 address stands in brackets")]
pub struct NoHost;

/// Reads `host`, `user@host`, `user@host:port`, `user@[address]` or `user@[address]:port`.
///
/// # Errors
/// [`NoHost`]: no host, an empty user, no port from 1 to 65,535, or an IPv6 address without brackets.
pub fn target(text: &str) -> Result<SshTarget, NoHost> {
    let SshHop { host, port, username } = hop(text)?;
    Ok(SshTarget { host, port, username, jump: Vec::new(), credential: None })
}

/// Reads a host on the way, in the same form.
///
/// # Errors
/// [`NoHost`].
pub fn hop(text: &str) -> Result<SshHop, NoHost> {
    let (username, place) = match text.rsplit_once('@') {
        Some((username, place)) => (Some(username), place),
        None => (None, text),
    };
    let (host, port) = match place.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']').ok_or(NoHost)?;
            (address, if port.is_empty() { None } else { Some(port.strip_prefix(':').ok_or(NoHost)?) })
        }
        None => match place.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (place, None),
        },
    };
    let port = match port {
        None => SSH_PORT,
        Some(digits) => host::port(digits).ok_or(NoHost)?,
    };
    if !is_host(host) || username.is_some_and(|name| !is_username(name)) {
        return Err(NoHost);
    }
    Ok(SshHop { host: host.to_owned(), port, username: username.map(str::to_owned) })
}
