//! Making and keeping the connection.
//!
//! Once made, a [`Link`] reconnects for ever: 0.1 s doubling to 15 s, with full jitter, so that ten thousand
//! relays do not come back in the same instant. What is bounded is every single operation on it, connected or
//! not.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use async_nats::client::Statistics;
use async_nats::connection::State;
use async_nats::jetstream::{self, context::ContextBuilder};
use async_nats::{
    Client, ConnectErrorKind, ConnectOptions, Event, RequestErrorKind, ServerAddr, ServerError,
};
use signalbox_schemas::limit;
use tokio::sync::watch;

use crate::error::ConnectError;
use crate::login::Login;

/// Wait for an acknowledgement. Loopback answers in 0.3 ms, a busy replicated stream in tens of them; a
/// leader election takes 6 s and is bridged by trying again.
pub const ACK_TIMEOUT: Duration = Duration::from_secs(3);
/// Wait for administrative answers (making a stream touches the disk).
pub(crate) const API_TIMEOUT: Duration = Duration::from_secs(10);
/// Wait for TCP, TLS and login together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Wait for the first connection as a whole, over all addresses of a name. One that is tried for ever has returned by
/// then, at once.
const FIRST_CONNECT: Duration = Duration::from_secs(10);
/// Silence after which the server is asked for a sign of life; after two unanswered the connection is dropped.
/// A broker that hangs is so noticed within 30 s; the client's default would take 3 min.
const PING_INTERVAL: Duration = Duration::from_secs(10);
/// First and longest delay before a reconnect.
const RECONNECT_MIN: Duration = Duration::from_millis(100);
const RECONNECT_MAX: Duration = Duration::from_secs(15);
/// Acknowledgements that may be awaited at once. The dispatcher's window is 1,000.
const ACKS_IN_FLIGHT: usize = 5_000;

/// How to connect.
#[derive(Debug, Clone)]
pub struct Options {
    /// `nats://`, `tls://`, `ws://` or `wss://` with host and port; several are separated by commas, and any of them will
    /// do. Without user and password: those would be read in lists of processes and in logs.
    pub url: String,
    /// Name shown in the broker's list of connections.
    pub name: String,
    /// Credentials; none only for brokers without accounts.
    pub login: Option<Login>,
    /// First part of the subjects on which answers come; must be within the principal's permissions.
    pub inbox_prefix: Option<String>,
    /// Longest wait for one acknowledgement or answer.
    pub ack_timeout: Duration,
    /// Operations that wait for the socket; further ones block their caller.
    pub client_capacity: usize,
    /// Messages that wait in one subscription; further ones are dropped and counted.
    pub subscription_capacity: usize,
    /// Largest message, headers included, bytes. The server may allow more to others: it closes the
    /// connection of whoever exceeds his own, so it is checked here.
    pub max_message_bytes: usize,
    /// A subject that this principal may ask and that somebody answers, or does not exist: used to confirm
    /// the connection and to measure it.
    pub probe: Option<String>,
    /// Do not wait for the first connection, and never give up on it.
    pub retry_forever: bool,
    /// Servers that keep a copy of each stream this link makes: 1, or 3 or 5 on a cluster of at least so many.
    pub replicas: u8,
}

impl Options {
    /// For a relay: few messages in memory, answers on its own inbox, for ever.
    ///
    /// `machine` is the machine's subject token.
    pub fn relay(url: &str, machine: &str, login: Login) -> Self {
        Self {
            inbox_prefix: Some(format!("_INBOX_{machine}")),
            client_capacity: 64,
            subscription_capacity: 256,
            max_message_bytes: limit::RELAY_PAYLOAD_BYTES,
            retry_forever: true,
            ..Self::plain(url, "signalbox-relay", Some(login))
        }
    }

    /// For an operator: fails at once when there is no broker. Has no inbox: answers come on the feed.
    pub fn operator(url: &str, login: Login) -> Self {
        Self {
            client_capacity: 64,
            // Feeds hold at most 1 MiB by credit; heartbeats of 10,000 machines arrive in bursts of hundreds.
            subscription_capacity: 4_096,
            ..Self::plain(url, "signalbox-console", Some(login))
        }
    }

    /// For the bridge: wide windows; confirms that JetStream answers.
    pub fn bridge(url: &str, login: Login) -> Self {
        Self {
            client_capacity: 4_096,
            subscription_capacity: 8_192,
            probe: Some("$JS.API.INFO".to_owned()),
            ..Self::plain(url, "signalbox-bridge", Some(login))
        }
    }

    /// Without account or limits of its own: for tests and measurements.
    pub fn plain(url: &str, name: &str, login: Option<Login>) -> Self {
        Self {
            url: url.to_owned(),
            name: name.to_owned(),
            login,
            inbox_prefix: None,
            ack_timeout: ACK_TIMEOUT,
            client_capacity: 1_024,
            subscription_capacity: 4_096,
            max_message_bytes: limit::BROKER_PAYLOAD_BYTES,
            probe: None,
            retry_forever: false,
            replicas: 1,
        }
    }
}

/// Whether there is a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LinkState {
    /// There is one now.
    pub is_connected: bool,
    /// How often a connection was made. A higher number than before means that whatever was in flight is
    /// unanswered, and that messages without acknowledgement may be missing.
    pub connects: u64,
    /// [`Link::close`] was called; there will be none again.
    pub is_closed: bool,
}

/// What went by unseen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Messages dropped because a subscription was not read fast enough.
    pub slow_messages: u64,
    /// Publishes or subscriptions that the server refused for lack of permission.
    pub denied: u64,
}

/// A connection to the broker. Cheap to clone; the connection ends with [`Link::close`] or the last clone.
#[derive(Clone)]
pub struct Link {
    pub(crate) client: Client,
    pub(crate) jetstream: jetstream::Context,
    pub(crate) ack_timeout: Duration,
    pub(crate) subscription_capacity: usize,
    pub(crate) replicas: u8,
    max_message_bytes: usize,
    probe: Option<String>,
    watcher: Arc<Watcher>,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("state", &*self.watcher.state.borrow()).finish_non_exhaustive()
    }
}

impl Link {
    /// Connects. With `retry_forever` it returns at once and connects in the background; otherwise there is a
    /// connection when it returns, confirmed where there is a probe, or an error within about 15 s.
    ///
    /// # Errors
    /// [`ConnectError`]; with `retry_forever` only for a URL that is none.
    pub async fn connect(options: Options) -> Result<Self, ConnectError> {
        let addresses = options.url.split(',').map(address).collect::<Result<Vec<_>, _>>()?;
        // One that asks for it speaks for all: the login would go to the others in the clear.
        let needs_tls = addresses.iter().any(ServerAddr::tls_required);
        let url = options.url.clone();
        let watcher = Arc::new(Watcher::default());
        let connecting = connect_options(&options, &watcher).require_tls(needs_tls).connect(addresses);
        // The client bounds each of its steps, and tries every address of a name.
        let connected = tokio::time::timeout(FIRST_CONNECT, connecting).await;
        let client = connected
            .map_err(|_| ConnectError::Silent { url: url.clone() })?
            .map_err(|error| refused_or_unreachable(&url, error))?;
        let jetstream =
            ContextBuilder::new().timeout(API_TIMEOUT).max_ack_inflight(ACKS_IN_FLIGHT).build(client.clone());
        watcher.attach(&client);
        let link = Self {
            client,
            jetstream,
            ack_timeout: options.ack_timeout,
            subscription_capacity: options.subscription_capacity,
            replicas: options.replicas,
            max_message_bytes: options.max_message_bytes,
            probe: options.probe,
            watcher,
        };
        // The client takes *any* first word of the server for success, a PING too. Ask something.
        if !options.retry_forever && link.probe.is_some() && link.rtt().await.is_none() {
            return Err(ConnectError::Silent { url });
        }
        Ok(link)
    }

    /// The state, to be read or awaited.
    pub fn state(&self) -> watch::Receiver<LinkState> {
        self.watcher.state.subscribe()
    }

    /// What went by unseen since the start.
    pub fn counters(&self) -> Counters {
        Counters {
            slow_messages: self.watcher.slow_messages.load(Ordering::Relaxed),
            denied: self.watcher.denied.load(Ordering::Relaxed),
        }
    }

    /// Waits until what was published so far is handed to the operating system, at most `ack_timeout`. True
    /// if it was. It says nothing about the server: for that, see [`Link::store`].
    pub async fn flush(&self) -> bool {
        matches!(tokio::time::timeout(self.ack_timeout, self.client.flush()).await, Ok(Ok(())))
    }

    /// Time of one question and answer on the probe subject of [`Options`]; none without a probe, or when
    /// nothing came within `ack_timeout`.
    pub async fn rtt(&self) -> Option<Duration> {
        let probe = self.probe.clone()?;
        let asked = Instant::now();
        let answer = self.client.request(probe, bytes::Bytes::new());
        match tokio::time::timeout(self.ack_timeout, answer).await {
            Ok(Ok(_)) => Some(asked.elapsed()),
            // «Nobody listens there» is an answer of the server too.
            Ok(Err(error)) if error.kind() == RequestErrorKind::NoResponders => Some(asked.elapsed()),
            Ok(Err(_)) | Err(_) => None,
        }
    }

    /// Drops the connection and logs in again with the present token. What is in flight stays unanswered.
    /// Returns before the new connection stands; watch [`LinkState::connects`].
    pub async fn reconnect(&self) {
        // Fails only when the link is closed, and then there is nothing to reconnect.
        let asked = tokio::time::timeout(self.ack_timeout, self.client.force_reconnect()).await;
        if !matches!(asked, Ok(Ok(()))) {
            tracing::debug!("reconnect was not asked for, there is no connection");
        }
    }

    /// Largest message that may be sent, headers included, bytes.
    pub fn max_payload(&self) -> usize {
        self.max_message_bytes.min(self.client.max_payload())
    }

    /// Sends what waits, ends all subscriptions and the connection. Takes at most two `ack_timeout`.
    pub async fn close(&self) {
        let mut state = self.state();
        if state.borrow().is_connected && !self.flush().await {
            tracing::debug!("link closes with unsent messages");
        }
        let drained = async {
            if self.client.drain().await.is_ok() {
                // Fails only when the watcher is gone, and so is the connection then.
                let _ = state.wait_for(|state| state.is_closed).await;
            }
        };
        if tokio::time::timeout(self.ack_timeout, drained).await.is_err() {
            tracing::debug!("link closes without a connection");
        }
        self.watcher.state.send_modify(|state| {
            state.is_closed = true;
            state.is_connected = false;
        });
    }
}

/// Follows the client's events. They come through a short queue that drops when full, so each one only makes
/// us look again.
#[derive(Debug, Default)]
struct Watcher {
    state: watch::Sender<LinkState>,
    // Not the client: it would keep the connection alive for ever.
    statistics: OnceLock<Arc<Statistics>>,
    slow_messages: AtomicU64,
    denied: AtomicU64,
}

impl Watcher {
    fn attach(&self, client: &Client) {
        if self.statistics.set(client.statistics()).is_ok() && client.connection_state() == State::Connected {
            self.note(Some(true));
        }
    }

    fn see(&self, event: &Event) {
        match event {
            Event::Connected => self.note(Some(true)),
            Event::Disconnected => self.note(Some(false)),
            Event::Closed => self.state.send_modify(|state| {
                state.is_closed = true;
                state.is_connected = false;
            }),
            Event::SlowConsumer(_) => {
                self.slow_messages.fetch_add(1, Ordering::Relaxed);
                self.note(None);
            }
            Event::ServerError(error) => self.see_server_error(error),
            Event::LameDuckMode | Event::Draining | Event::ClientError(_) => self.note(None),
        }
    }

    fn see_server_error(&self, error: &ServerError) {
        let text = error.to_string();
        if text.to_ascii_lowercase().contains("permissions violation") {
            self.denied.fetch_add(1, Ordering::Relaxed);
        }
        tracing::warn!(error = text, "broker reported an error");
        self.note(None);
    }

    /// Takes the present count of connections. A connect whose event was dropped is so seen with the next.
    fn note(&self, is_connected: Option<bool>) {
        let connects = self.statistics.get().map(|statistics| statistics.connects.load(Ordering::Relaxed));
        self.state.send_if_modified(|state| {
            let before = *state;
            let connects = connects.unwrap_or(1);
            let is_new = connects > state.connects;
            state.connects = state.connects.max(connects);
            // A new connection that nobody announced stands until somebody says otherwise.
            state.is_connected = !state.is_closed && is_connected.unwrap_or(state.is_connected || is_new);
            *state != before
        });
    }
}

fn connect_options(options: &Options, watcher: &Arc<Watcher>) -> ConnectOptions {
    let base = match options.login.clone() {
        Some(login) => ConnectOptions::with_auth_callback(move |nonce| {
            let login = login.clone();
            async move { login.answer(&nonce) }
        }),
        None => ConnectOptions::new(),
    };
    let watcher = Arc::clone(watcher);
    let is_first = AtomicBool::new(true);
    let base = base
        .name(&options.name)
        .connection_timeout(CONNECT_TIMEOUT)
        .ping_interval(PING_INTERVAL)
        .request_timeout(Some(options.ack_timeout))
        .client_capacity(options.client_capacity)
        .subscription_capacity(options.subscription_capacity)
        .reconnect_delay_callback(move |attempt| {
            // The very first attempt is nobody's reconnect: a person waits for it.
            if is_first.swap(false, Ordering::Relaxed) { Duration::ZERO } else { jittered(attempt) }
        })
        .event_callback(move |event| {
            watcher.see(&event);
            std::future::ready(())
        });
    let base = match &options.inbox_prefix {
        Some(prefix) => base.custom_inbox_prefix(prefix),
        None => base,
    };
    // Servers that a server names would be dialled without TLS, and it names them before it is known: in the clear.
    let base = base.ignore_discovered_servers();
    if options.retry_forever { base.retry_on_initial_connect() } else { base }
}

/// The address in a URL. What has a user name or password in it is refused, and shown without.
fn address(url: &str) -> Result<ServerAddr, ConnectError> {
    match url.parse::<ServerAddr>() {
        Ok(address) if address.has_user_pass() => {
            let shown = format!("{}://{}:{}", address.scheme(), address.host(), address.port());
            Err(ConnectError::UserInfo { url: shown })
        }
        Ok(address) => Ok(address),
        Err(_) => Err(ConnectError::Url { url: shown(url) }),
    }
}

/// A URL as it may be shown: without user name and password.
pub fn shown(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    rest.rsplit_once('@').map_or(url.to_owned(), |(_, host)| format!("{scheme}://…@{host}"))
}

fn refused_or_unreachable(url: &str, error: async_nats::ConnectError) -> ConnectError {
    let url = url.to_owned();
    match error.kind() {
        ConnectErrorKind::ServerParse => ConnectError::Url { url },
        ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => {
            ConnectError::Refused { url, source: Box::new(error) }
        }
        _ => ConnectError::Unreachable { url, source: Box::new(error) },
    }
}

/// Longest delay before attempt number `attempt` (from 1).
fn ceiling(attempt: usize) -> Duration {
    let doublings = u32::try_from(attempt.saturating_sub(1)).unwrap_or(u32::MAX).min(16);
    RECONNECT_MIN.saturating_mul(1 << doublings).min(RECONNECT_MAX)
}

/// Full jitter: anything from 0 to the ceiling.
fn jittered(attempt: usize) -> Duration {
    ceiling(attempt).mul_f64(random_ratio())
}

/// A random number from 0 to 1. The seed of a hash map is random enough to spread a herd, and not for secrets.
pub fn random_ratio() -> f64 {
    let random = u32::try_from(RandomState::new().build_hasher().finish() >> 32).unwrap_or(u32::MAX);
    f64::from(random) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_in_a_url_is_refused_and_not_told() {
        for (url, shown) in [
            (
                "nats://me:hunter2@broker:4222",
                "broker url nats://broker:4222 has a user name or password in it; name it without, credentials come from a file",
            ),
            (
                "hunter2@broker",
                "broker url nats://broker:4222 has a user name or password in it; name it without, credentials come from a file",
            ),
            ("nats://me:hunter2@broker:no", "broker url \"nats://…@broker:no\" is not valid"),
            ("nats://broker:no", "broker url \"nats://broker:no\" is not valid"),
        ] {
            assert_eq!(address(url).unwrap_err().to_string(), shown);
        }
        assert_eq!(address("nats://broker").unwrap().port(), 4222);
    }

    #[test]
    fn delays_double_up_to_fifteen_seconds() {
        let delays: Vec<u128> = (1..=10).map(|attempt| ceiling(attempt).as_millis()).collect();
        assert_eq!(delays, [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 15_000, 15_000]);
        assert_eq!(ceiling(usize::MAX), RECONNECT_MAX);
    }

    #[test]
    fn delays_are_spread() {
        let delays: std::collections::HashSet<u128> = (0..50).map(|_| jittered(8).as_nanos()).collect();
        assert!(delays.len() > 40, "only {} different delays", delays.len());
        assert!(delays.iter().all(|delay| *delay <= ceiling(8).as_nanos()));
    }
}
