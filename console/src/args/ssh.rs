//! A host behind a machine, as people write it.

use signalbox_schemas::command::SshTarget;

/// Where SSH servers listen.
const PORT: u16 = 22;

/// The text names no such host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("write USER@HOST or USER@HOST:PORT; an IPv6 address stands in brackets")]
pub struct NoHost;

/// Reads `user@host`, `user@host:port`, `user@[address]` or `user@[address]:port`.
///
/// # Errors
/// [`NoHost`]: no user, no host, no port from 1 to 65,535, or an IPv6 address without brackets.
pub fn target(text: &str) -> Result<SshTarget, NoHost> {
    let (username, place) = text.rsplit_once('@').ok_or(NoHost)?;
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
        None => PORT,
        // A sign would be read, too.
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            digits.parse().ok().filter(|port| *port > 0).ok_or(NoHost)?
        }
        Some(_) => return Err(NoHost),
    };
    if username.is_empty() || host.is_empty() {
        return Err(NoHost);
    }
    Ok(SshTarget { host: host.to_owned(), port, username: username.to_owned() })
}
