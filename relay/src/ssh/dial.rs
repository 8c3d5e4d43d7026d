//! From a route to a connection on which its user is logged in.
//!
//! ```text
//! resolve ── may its addresses be dialled? ── connect ── exchange keys ── is it the host? ── log in
//!                                                ▲                                             │
//!                  a channel through the host before, where that resolves the name ◀───────────┘ next hop
//! ```

use std::{
    borrow::Cow,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use russh::{
    Disconnect, Preferred, SshId, cipher,
    client::{self, DisconnectReason, Handle, Handler, Session},
    compression, kex,
    keys::{Algorithm, EcdsaCurve, HashAlg, PublicKeyOrCertificate},
    mac,
};
use signalbox_schemas::ssh::SshFault;
use tokio::{
    net::{TcpStream, lookup_host},
    sync::Notify,
    task::spawn_blocking,
    time::{Instant, timeout, timeout_at},
};

use super::{
    failure::Failure,
    guard::Guard,
    host_key::HostKeys,
    known_hosts::file::KnownHosts,
    line::{Cutter, Line, Stream},
    login::{self, Prepared},
    no_channels::no_channels,
    route::{Hop, HostKeyPolicy, Route, SetBy},
};

/// A name is resolved within this time.
const RESOLVE_WAIT: Duration = Duration::from_secs(10);
/// A socket, or a channel through another host, is connected within this time, whatever number of addresses is tried.
const CONNECT_WAIT: Duration = Duration::from_secs(10);
/// One address has at least so long.
const ADDRESS_WAIT: Duration = Duration::from_secs(2);
/// Addresses of one name that are tried.
const MAX_ADDRESSES: usize = 8;
/// The host greets and exchanges keys within this time.
const HANDSHAKE_WAIT: Duration = Duration::from_secs(10);
/// It lets the login in within this time.
const LOGIN_WAIT: Duration = Duration::from_secs(20);
/// A goodbye is said for no longer than this.
const GOODBYE_WAIT: Duration = Duration::from_millis(500);
/// A host that is silent for so long is asked whether it is still there.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// It is gone when it has not answered so many times.
const KEEPALIVES: usize = 3;
/// Bytes that may be on their way for each command: enough to fill 100 MB/s over 80 ms. While keys are exchanged anew, twice as
/// many may still come, over all commands: above what the buffers of both systems hold.
pub(crate) const WINDOW_BYTES: u32 = 8 * 1024 * 1024;
/// Messages of one channel that wait to be taken, at 32 KiB each, before the connection is not read any more.
const CHANNEL_MESSAGES: usize = 64;

/// A connection to the last host of a route, with the user logged in.
pub(crate) struct Connection {
    pub(crate) handle: Handle<Watch>,
    heard: Arc<Heard>,
    /// The connections that this one goes through, and what cuts all of them.
    before: Vec<Reached>,
    _cutter: Cutter,
}

/// One host of a route that was reached.
struct Reached {
    handle: Handle<Watch>,
    heard: Arc<Heard>,
    cutter: Cutter,
}

/// What a connection's task has to tell.
pub(crate) struct Heard {
    /// What the host said, or what became of it, when the connection ended.
    last: Mutex<Option<String>>,
    /// What it showed to be who it is, and was believed.
    shown: Mutex<Option<Arc<PublicKeyOrCertificate>>>,
    /// Rung when it ended.
    ended: Arc<Notify>,
}

/// Hears what a host says beside what commands print.
pub(crate) struct Watch {
    keys: Arc<HostKeys>,
    allow_non_strict: bool,
    set_by: SetBy,
    place: String,
    heard: Arc<Heard>,
}

/// Why a handshake ends.
#[derive(Debug)]
pub(crate) enum Ended {
    Ssh(russh::Error),
    Refused(Failure),
}

impl From<russh::Error> for Ended {
    fn from(error: russh::Error) -> Self {
        Self::Ssh(error)
    }
}

impl Connection {
    /// Whether it is no more.
    pub(crate) fn is_closed(&self) -> bool {
        self.handle.is_closed()
    }

    /// What is known of its end.
    pub(crate) fn last_words(&self) -> Option<String> {
        self.heard.last_words()
    }

    /// Whether the known hosts, as they are now, still say that all hosts on its way are who they showed to be.
    pub(crate) async fn is_believed(&self, route: &Route) -> bool {
        let heard = self.before.iter().map(|hop| &hop.heard).chain([&self.heard]);
        let shown: Vec<_> = heard.map(|heard| heard.shown()).collect();
        let (file, hops) = (KnownHosts::at(&route.known_hosts), route.hops.clone());
        let check = move || {
            hops.iter().zip(shown).all(|(hop, shown)| {
                // Nothing is learnt here, whatever the policy.
                let keys = HostKeys::read(file.clone(), HostKeyPolicy::Strict, &hop.host, hop.port);
                shown.is_some_and(|shown| keys.and_then(|keys| keys.check(&shown)).is_ok())
            })
        };
        spawn_blocking(check).await.unwrap_or(false)
    }

    /// Says goodbye; the connection ends with its drop.
    pub(crate) async fn goodbye(&self) {
        for handle in std::iter::once(&self.handle).chain(self.before.iter().rev().map(|hop| &hop.handle)) {
            drop(timeout(GOODBYE_WAIT, handle.disconnect(Disconnect::ByApplication, "", "")).await);
        }
    }
}

impl Heard {
    fn last_words(&self) -> Option<String> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn shown(&self) -> Option<Arc<PublicKeyOrCertificate>> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Handler for Watch {
    type Error = Ended;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, Ended> {
        // A new key is written to the disk.
        let shown = match shown {
            PublicKeyOrCertificate::PublicKey { key, .. } => PublicKeyOrCertificate::from(key.clone()),
            PublicKeyOrCertificate::Certificate(certificate) => {
                PublicKeyOrCertificate::from(certificate.clone())
            }
        };
        let (keys, shown) = (Arc::clone(&self.keys), Arc::new(shown));
        let checked = Arc::clone(&shown);
        match spawn_blocking(move || keys.check(&checked)).await {
            Ok(Ok(())) => {
                *self.heard.shown.lock().unwrap_or_else(PoisonError::into_inner) = Some(shown);
                Ok(true)
            }
            Ok(Err(failure)) => Err(Ended::Refused(failure)),
            // The check panicked: nothing is believed.
            Err(_) => Err(Ended::Ssh(russh::Error::Inconsistent)),
        }
    }

    async fn kex_done(
        &mut self,
        _secret: Option<&[u8]>,
        names: &russh::Names,
        _session: &mut Session,
    ) -> Result<(), Ended> {
        if names.strict_kex() || self.allow_non_strict {
            return Ok(());
        }
        let message = format!(
            "{} does not know strict key exchange (CVE-2023-48795); {}",
            self.place,
            self.set_by.cure_for_old_hosts()
        );
        Err(Ended::Refused(Failure::new(SshFault::AlgorithmMismatch, message)))
    }

    no_channels!();

    async fn disconnected(&mut self, reason: DisconnectReason<Ended>) -> Result<(), Ended> {
        let last = match reason {
            DisconnectReason::ReceivedDisconnect(said) => format!("the host said: {}", said.message),
            DisconnectReason::Error(Ended::Refused(failure)) => failure.message,
            DisconnectReason::Error(Ended::Ssh(error)) => error.to_string(),
        };
        tracing::debug!(place = %self.place, last, "ssh connection ended");
        *self.heard.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(last);
        self.heard.ended.notify_one();
        Ok(())
    }
}

/// Makes a connection; `ended` is rung when it is no more. What was begun is cut when the future is dropped.
pub(crate) async fn dial(route: &Route, ended: &Arc<Notify>) -> Result<Connection, Failure> {
    let guard = Guard::new(route.targets.as_deref(), route.set_by);
    let mut hops = Vec::new();
    for hop in &route.hops {
        let reached = reach(route, hop, guard, hops.last(), ended).await?;
        hops.push(reached);
    }
    let Some(Reached { handle, heard, cutter }) = hops.pop() else {
        return Err(Failure::new(SshFault::Protocol, "the route has no hosts"));
    };
    Ok(Connection { handle, heard, before: hops, _cutter: cutter })
}

/// Makes the connection to one host, through the one before.
async fn reach(
    route: &Route,
    hop: &Hop,
    guard: Guard<'_>,
    before: Option<&Reached>,
    ended: &Arc<Notify>,
) -> Result<Reached, Failure> {
    let place = hop.to_string();
    // Keys are opened while the host is dialled: a passphrase takes a tenth of a second.
    let ways = hop.ways.clone();
    let prepared = spawn_blocking(move || ways.into_iter().map(Prepared::new).collect::<Vec<_>>());
    let (file, policy) = (KnownHosts::at(&route.known_hosts), route.host_keys);
    let (host, port) = (hop.host.clone(), hop.port);
    let keys = spawn_blocking(move || HostKeys::read(file, policy, &host, port));
    let stream: Box<dyn Stream> = match before {
        None => Box::new(connect(hop, &place, guard).await?),
        Some(before) => through(before, hop, &place, guard).await?,
    };
    let interrupted = |_| Failure::new(SshFault::Protocol, "the keeper is ending");
    let keys = Arc::new(keys.await.map_err(interrupted)??);
    let (line, cutter) = Line::new(stream);
    let heard = Arc::new(Heard { last: Mutex::default(), shown: Mutex::default(), ended: Arc::clone(ended) });
    let config = Arc::new(config(preferred(&keys, hop.allow_non_strict)));
    let watch = Watch {
        keys,
        allow_non_strict: hop.allow_non_strict,
        set_by: route.set_by,
        place: place.clone(),
        heard: Arc::clone(&heard),
    };
    let handle = shake_hands(config, line, watch, (&place, route.set_by)).await?;
    let mut reached = Reached { handle, heard, cutter };
    let login = async {
        let prepared = prepared.await.map_err(interrupted)?;
        login::log_in(&mut reached.handle, hop, (&place, route.set_by), prepared).await
    };
    let logged_in = timeout(LOGIN_WAIT, login).await.unwrap_or_else(|_| {
        let message =
            format!("{place} did not answer the login within {} s; its log says why", LOGIN_WAIT.as_secs());
        Err(Failure::new(SshFault::Timeout, message))
    });
    match logged_in {
        Ok(()) => Ok(reached),
        Err(failure) => Err(with_last_words(failure, &reached.heard)),
    }
}

/// What the host said last tells more than that it is gone.
fn with_last_words(mut failure: Failure, heard: &Heard) -> Failure {
    if let Some(last) = heard.last_words().filter(|_| failure.code != SshFault::KeyPassphrase) {
        failure.message = format!("{}; {last}", failure.message);
    }
    failure
}

/// Greets and exchanges keys.
pub(crate) async fn shake_hands<H: Handler<Error = Ended> + 'static>(
    config: Arc<client::Config>,
    line: Line,
    handler: H,
    (place, set_by): (&str, SetBy),
) -> Result<Handle<H>, Failure> {
    match timeout(HANDSHAKE_WAIT, client::connect_stream(config, line, handler)).await {
        Ok(Ok(handle)) => Ok(handle),
        Ok(Err(Ended::Refused(failure))) => Err(failure),
        Ok(Err(Ended::Ssh(error))) => Err(Failure::of_handshake(place, set_by, &error)),
        Err(_) => {
            let message = format!(
                "{place} took the connection and did not finish the handshake within {} s; is an SSH server on that port, and \
                 is the host overloaded?",
                HANDSHAKE_WAIT.as_secs()
            );
            Err(Failure::new(SshFault::Timeout, message))
        }
    }
}

/// Connects a socket to a host that may be dialled.
pub(crate) async fn connect(hop: &Hop, place: &str, guard: Guard<'_>) -> Result<TcpStream, Failure> {
    let found = resolve(&hop.host, hop.port).await?;
    let allowed = guard.addresses(&hop.host, hop.port, &found)?;
    let until = Instant::now() + CONNECT_WAIT;
    let mut failure = Failure::new(SshFault::Dns, format!("{} leads to no address", hop.host));
    let mut left = allowed.len().min(MAX_ADDRESSES);
    for address in allowed.into_iter().take(MAX_ADDRESSES) {
        let now = Instant::now();
        let share = until.saturating_duration_since(now) / u32::try_from(left).unwrap_or(1).max(1);
        left -= 1;
        match timeout_at(until.min(now + share.max(ADDRESS_WAIT)), TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // Without it each key press of a protocol of small messages waits for the one before.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "socket not told to send at once");
                }
                return Ok(stream);
            }
            Ok(Err(error)) => failure = Failure::of_connecting(place, &error),
            Err(_) => failure = Failure::of_connecting(place, &std::io::ErrorKind::TimedOut.into()),
        }
    }
    Err(failure)
}

async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, Failure> {
    let failed = |why: String| {
        Failure::new(SshFault::Dns, format!("resolving {host}: {why}; does this machine know the name?"))
    };
    match timeout(RESOLVE_WAIT, lookup_host((host, port))).await {
        Ok(Ok(found)) => {
            let found: Vec<SocketAddr> = found.collect();
            if found.is_empty() { Err(failed("no address".to_owned())) } else { Ok(found) }
        }
        Ok(Err(error)) => Err(failed(error.to_string())),
        Err(_) => Err(failed(format!("no answer within {} s", RESOLVE_WAIT.as_secs()))),
    }
}

/// Opens a channel to a host through the one before.
async fn through(
    before: &Reached,
    hop: &Hop,
    place: &str,
    guard: Guard<'_>,
) -> Result<Box<dyn Stream>, Failure> {
    guard.behind_another(&hop.host, hop.port)?;
    let opening =
        before.handle.channel_open_direct_tcpip(hop.host.clone(), u32::from(hop.port), "127.0.0.1", 0);
    match timeout(CONNECT_WAIT, opening).await {
        Ok(Ok(channel)) => Ok(Box::new(channel.into_stream())),
        Ok(Err(russh::Error::ChannelOpenFailure(why))) => {
            let (code, advice) = match why {
                russh::ChannelOpenFailure::AdministrativelyProhibited => {
                    (SshFault::ChannelRefused, "does that host allow forwarding (AllowTcpForwarding)?")
                }
                _ => (SshFault::Unreachable, "does that host know it and reach it?"),
            };
            Err(Failure::new(
                code,
                format!("the host before {place} did not connect to it ({why:?}); {advice}"),
            ))
        }
        Ok(Err(error)) => {
            Err(Failure::of_protocol(place, "a channel was opened through the host before", &error))
        }
        Err(_) => {
            let message =
                format!("the host before {place} did not connect to it within {} s", CONNECT_WAIT.as_secs());
            Err(Failure::new(SshFault::Timeout, message))
        }
    }
}

/// How SSH is spoken.
pub(crate) fn config(preferred: Preferred) -> client::Config {
    client::Config {
        client_id: SshId::Standard(Cow::Borrowed("SSH-2.0-Signalbox")),
        window_size: WINDOW_BYTES,
        channel_buffer_size: CHANNEL_MESSAGES,
        preferred,
        keepalive_interval: Some(KEEPALIVE),
        keepalive_max: KEEPALIVES,
        ..client::Config::default()
    }
}

const ED25519: Algorithm = Algorithm::Ed25519;
const P256: Algorithm = Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 };
const P384: Algorithm = Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 };
const P521: Algorithm = Algorithm::Ecdsa { curve: EcdsaCurve::NistP521 };
const RSA_512: Algorithm = Algorithm::Rsa { hash: Some(HashAlg::Sha512) };
const RSA_256: Algorithm = Algorithm::Rsa { hash: Some(HashAlg::Sha256) };
const RSA_1: Algorithm = Algorithm::Rsa { hash: None };

/// Kinds of host key, the best first.
pub(crate) const HOST_KEYS: [Algorithm; 6] = [ED25519, P256, P384, P521, RSA_512, RSA_256];

/// Algorithms in the order in which they are wished for.
pub(crate) fn algorithms(
    host_keys: Vec<Algorithm>,
    certificates: Vec<Algorithm>,
    allow_non_strict: bool,
) -> Preferred {
    let mut kexes = vec![
        kex::MLKEM768X25519_SHA256,
        kex::CURVE25519,
        kex::CURVE25519_PRE_RFC_8731,
        kex::ECDH_SHA2_NISTP256,
        kex::ECDH_SHA2_NISTP384,
        kex::ECDH_SHA2_NISTP521,
        kex::DH_G16_SHA512,
        kex::DH_G18_SHA512,
        kex::DH_GEX_SHA256,
        kex::DH_G14_SHA256,
    ];
    let mut ciphers = vec![
        cipher::CHACHA20_POLY1305,
        cipher::AES_256_GCM,
        cipher::AES_128_GCM,
        cipher::AES_256_CTR,
        cipher::AES_192_CTR,
        cipher::AES_128_CTR,
    ];
    let mut macs = vec![mac::HMAC_SHA512_ETM, mac::HMAC_SHA256_ETM, mac::HMAC_SHA512, mac::HMAC_SHA256];
    if allow_non_strict {
        kexes.push(kex::DH_G14_SHA1);
        ciphers.extend([cipher::AES_256_CBC, cipher::AES_128_CBC]);
        macs.extend([mac::HMAC_SHA1_ETM, mac::HMAC_SHA1]);
    }
    kexes.extend([kex::EXTENSION_SUPPORT_AS_CLIENT, kex::EXTENSION_OPENSSH_STRICT_KEX_AS_CLIENT]);
    Preferred {
        kex: kexes.into(),
        key: host_keys.into(),
        host_key_certificates: certificates.into(),
        cipher: ciphers.into(),
        mac: macs.into(),
        compression: vec![compression::NONE].into(),
    }
}

/// Algorithms for a host of which something is known: kinds of key that are known to be its own go before others, since it
/// would show another one otherwise, which would look like a changed key.
fn preferred(keys: &HostKeys, allow_non_strict: bool) -> Preferred {
    let known = keys.known_types();
    let mut wished = HOST_KEYS.to_vec();
    if allow_non_strict {
        wished.push(RSA_1);
    }
    let is_known = |algorithm: &Algorithm| {
        let kind = if matches!(algorithm, Algorithm::Rsa { .. }) { "ssh-rsa" } else { algorithm.as_str() };
        known.iter().any(|known| known == kind)
    };
    wished.sort_by_key(|algorithm| !is_known(algorithm));
    let certificates = if keys.has_authority() { HOST_KEYS.to_vec() } else { Vec::new() };
    algorithms(wished, certificates, allow_non_strict)
}
