//! Why a command did not run on another host.

use std::io;

use signalbox_schemas::ssh::SshFault;

use super::route::SetBy;
use crate::keeper::protocol::Fault;

/// What went wrong, and what is said of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub(crate) struct Failure {
    pub(crate) code: SshFault,
    pub(crate) message: String,
}

/// How a socket says that the other side has closed it.
const CLOSED: [io::ErrorKind; 3] =
    [io::ErrorKind::UnexpectedEof, io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe];

impl Failure {
    pub(crate) fn new(code: SshFault, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// What a socket that was to be connected says.
    pub(crate) fn of_connecting(place: &str, error: &io::Error) -> Self {
        let (code, advice) = match error.kind() {
            io::ErrorKind::ConnectionRefused => {
                (SshFault::Refused, "is an SSH server listening on that port?")
            }
            io::ErrorKind::TimedOut => {
                (SshFault::Timeout, "is the host up, and does a firewall let this machine through?")
            }
            _ => (SshFault::Unreachable, "does a route lead there from this machine?"),
        };
        Self::new(code, format!("connecting to {place}: {error}; {advice}"))
    }

    /// What a handshake fails with.
    pub(crate) fn of_handshake(place: &str, set_by: SetBy, error: &russh::Error) -> Self {
        let russh::Error::NoCommonAlgo { kind, theirs, .. } = error else {
            return Self::of_protocol(place, "keys were exchanged", error);
        };
        let theirs: Vec<&str> = theirs.iter().map(String::as_str).take(6).collect();
        let (theirs, cure) = (theirs.join(", "), set_by.cure_for_old_hosts());
        let message = format!("{place} has no {kind:?} algorithm that is safe enough, only {theirs}; {cure}");
        Self::new(SshFault::AlgorithmMismatch, message)
    }

    /// What SSH itself fails with while `doing` something with a host.
    pub(crate) fn of_protocol(place: &str, doing: &str, error: &russh::Error) -> Self {
        match error {
            russh::Error::KeepaliveTimeout
            | russh::Error::InactivityTimeout
            | russh::Error::ConnectionTimeout => {
                Self::new(SshFault::Timeout, format!("{place} does not answer any more while {doing}"))
            }
            russh::Error::Version => Self::new(
                SshFault::Protocol,
                format!("{place} does not greet as an SSH server does; is it the right port?"),
            ),
            russh::Error::Disconnect
            | russh::Error::HUP
            | russh::Error::SendError
            | russh::Error::RecvError => Self::new(
                SshFault::Protocol,
                format!("{place} closed the connection while {doing}; its log says why"),
            ),
            russh::Error::IO(error) if CLOSED.contains(&error.kind()) => Self::new(
                SshFault::Protocol,
                format!("{place} closed the connection while {doing}; its log says why"),
            ),
            russh::Error::IO(error) => Self::new(
                SshFault::Protocol,
                format!("the connection to {place} broke while {doing}: {error}"),
            ),
            other => {
                Self::new(SshFault::Protocol, format!("{place} broke the protocol while {doing}: {other}"))
            }
        }
    }
}

impl From<Failure> for Fault {
    fn from(failure: Failure) -> Self {
        Self::new(failure.code, &failure.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(io::ErrorKind::ConnectionRefused, SshFault::Refused)]
    #[case(io::ErrorKind::TimedOut, SshFault::Timeout)]
    #[case(io::ErrorKind::HostUnreachable, SshFault::Unreachable)]
    #[case(io::ErrorKind::NetworkUnreachable, SshFault::Unreachable)]
    #[case(io::ErrorKind::AddrNotAvailable, SshFault::Unreachable)]
    #[case(io::ErrorKind::PermissionDenied, SshFault::Unreachable)]
    fn what_a_socket_says_has_a_code(#[case] kind: io::ErrorKind, #[case] code: SshFault) {
        let failure = Failure::of_connecting("db-1.lan:22", &kind.into());
        assert_eq!(failure.code, code);
        assert!(failure.message.starts_with("connecting to db-1.lan:22: "), "{failure}");
    }
}
