//! Why a command did not run on a host behind a machine: the codes of [`RunError`](crate::run::RunError) for it.

use std::fmt;

/// What went wrong on the way to a host, or there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SshFault {
    /// Its name leads to no address.
    Dns,
    /// It answers, and takes no connection on that port.
    Refused,
    /// No way leads there.
    Unreachable,
    /// It did not answer in time: the connection, the handshake, or the login.
    Timeout,
    /// It shows another host key than the one that is known.
    HostKeyChanged,
    /// Its host key is not known.
    HostKeyUnknown,
    /// It took none of the credentials, or none of them can be used.
    AuthFailed,
    /// There is no credential, or no login name, for it.
    NoCredential,
    /// The private key is encrypted, and is not opened by the passphrase, or none is known.
    KeyPassphrase,
    /// It let the login in and refused the command.
    ChannelRefused,
    /// The two sides have no algorithm in common that is safe enough.
    AlgorithmMismatch,
    /// The policy of the machine does not let it be dialled.
    TargetDenied,
    /// The connection ended while the command ran: whether that goes on is not known.
    ConnectionLost,
    /// It said something that is no SSH, or broke the protocol.
    Protocol,
    /// The command ended with a status that is no exit code, 0 to 255.
    ExitStatus,
    /// The command was to be ended, and the host did not confirm that it did.
    NotConfirmed,
}

impl SshFault {
    /// All faults.
    pub const ALL: [Self; 16] = [
        Self::Dns,
        Self::Refused,
        Self::Unreachable,
        Self::Timeout,
        Self::HostKeyChanged,
        Self::HostKeyUnknown,
        Self::AuthFailed,
        Self::NoCredential,
        Self::KeyPassphrase,
        Self::ChannelRefused,
        Self::AlgorithmMismatch,
        Self::TargetDenied,
        Self::ConnectionLost,
        Self::Protocol,
        Self::ExitStatus,
        Self::NotConfirmed,
    ];

    /// The spelling on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::HostKeyChanged => "host_key_changed",
            Self::HostKeyUnknown => "host_key_unknown",
            Self::AuthFailed => "auth_failed",
            Self::NoCredential => "no_credential",
            Self::KeyPassphrase => "key_passphrase",
            Self::ChannelRefused => "channel_refused",
            Self::AlgorithmMismatch => "algorithm_mismatch",
            Self::TargetDenied => "target_denied",
            Self::ConnectionLost => "connection_lost",
            Self::Protocol => "protocol",
            Self::ExitStatus => "exit_status",
            Self::NotConfirmed => "not_confirmed",
        }
    }
}

impl fmt::Display for SshFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
