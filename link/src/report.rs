//! What the server says of itself, of the account and of streams, for people who look whether all is well.

use async_nats::jetstream::account::Account;
use async_nats::jetstream::stream::{ClusterInfo, DiscardPolicy, Info};
use serde::Deserialize;
use serde_json::json;

use crate::api::ApiError;
use crate::connect::Link;
use crate::error::StreamError;
use crate::read::unix_ms;
use crate::stream::{StreamState, failed, state};

/// The server at the other end of the connection, as it introduced itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerReport {
    /// Its version.
    pub version: String,
    /// Its name.
    pub name: String,
    /// Name of its cluster; none: it stands alone.
    pub cluster: Option<String>,
}

/// What all streams of the account take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AccountReport {
    /// On disk, bytes.
    pub store_bytes: u64,
    /// Most of that; none = the account has no limit.
    pub store_max_bytes: Option<u64>,
    /// In memory, bytes.
    pub memory_bytes: u64,
    /// Most of that; none = the account has no limit.
    pub memory_max_bytes: Option<u64>,
    /// Requests to the API that failed, ever.
    pub api_errors: u64,
}

/// A server that keeps a copy of a stream and does not lead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FollowerReport {
    /// Its name.
    pub name: String,
    /// Whether it has everything.
    pub is_current: bool,
    /// Whether the others take it for gone.
    pub is_offline: bool,
    /// Operations that it is behind.
    pub lag: u64,
    /// Since it was last heard, ms.
    pub silent_ms: u64,
}

/// The consumers of a stream, together; of more than 256 the first 256.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ConsumersReport {
    /// How many there are.
    pub count: u64,
    /// Messages that are yet to be delivered.
    pub pending: u64,
    /// Messages that were delivered and not acknowledged.
    pub ack_pending: u64,
    /// Messages that are being delivered again.
    pub redelivered: u64,
}

/// A stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamReport {
    /// What it holds.
    pub state: StreamState,
    /// Whether it refuses new messages when it is full.
    pub refuses_when_full: bool,
    /// Messages older than this go, ms; none = never.
    pub max_age_ms: Option<u64>,
    /// When its oldest message was stored, Unix ms; none = it is empty.
    pub first_ms: Option<u64>,
    /// When its newest message was stored, Unix ms; none = there never was one.
    pub last_ms: Option<u64>,
    /// The server that leads; none on a single server, or while there is none.
    pub leader: Option<String>,
    /// The others.
    pub followers: Vec<FollowerReport>,
    /// What reads it on the server's side.
    pub consumers: ConsumersReport,
}

#[derive(Deserialize)]
struct Consumers {
    total: u64,
    #[serde(default)]
    consumers: Option<Vec<Consumer>>,
}

#[derive(Deserialize)]
#[expect(clippy::struct_field_names, reason = "they are the server's names")]
struct Consumer {
    #[serde(default)]
    num_ack_pending: u64,
    #[serde(default)]
    num_redelivered: u64,
    #[serde(default)]
    num_pending: u64,
}

impl Link {
    /// The server at the other end. Asks nobody.
    pub fn server_report(&self) -> ServerReport {
        let info = self.client.server_info();
        ServerReport { version: info.version, name: info.server_name, cluster: info.cluster }
    }

    /// What all streams of the account take.
    ///
    /// # Errors
    /// [`StreamError`], which names no stream.
    pub async fn account_report(&self) -> Result<AccountReport, StreamError> {
        let account: Account =
            self.api("INFO".to_owned(), &()).await.map_err(|error| failed("(all)", error))?;
        let most =
            |limit: Option<i64>| limit.and_then(|most| u64::try_from(most).ok()).filter(|most| *most > 0);
        Ok(AccountReport {
            store_bytes: account.storage,
            store_max_bytes: most(account.limits.max_storage),
            memory_bytes: account.memory,
            memory_max_bytes: most(account.limits.max_memory),
            api_errors: account.requests.errors,
        })
    }

    /// How a stream is, from its leader.
    ///
    /// # Errors
    /// [`StreamError`].
    pub async fn stream_report(&self, name: &str) -> Result<StreamReport, StreamError> {
        let info = self.stream_info(name).await?;
        let consumers = self.consumers_report(name).await.map_err(|error| failed(name, error))?;
        let max_age_ms = u64::try_from(info.config.max_age.as_millis()).unwrap_or(u64::MAX);
        let has_any = info.state.messages > 0;
        let cluster = info.cluster.as_ref();
        Ok(StreamReport {
            state: state(&info),
            refuses_when_full: info.config.discard == DiscardPolicy::New,
            max_age_ms: Some(max_age_ms).filter(|age| *age > 0),
            first_ms: has_any.then(|| unix_ms(info.state.first_timestamp)),
            last_ms: last(&info),
            leader: cluster.and_then(|cluster| cluster.leader.clone()),
            followers: cluster.map(followers).unwrap_or_default(),
            consumers,
        })
    }

    async fn consumers_report(&self, stream: &str) -> Result<ConsumersReport, ApiError> {
        let (subject, page) = (format!("CONSUMER.LIST.{stream}"), json!({ "offset": 0 }));
        let Consumers { total, consumers } = self.api(subject, &page).await?;
        let mut report = ConsumersReport { count: total, ..ConsumersReport::default() };
        for consumer in consumers.unwrap_or_default() {
            report.pending = report.pending.saturating_add(consumer.num_pending);
            report.ack_pending = report.ack_pending.saturating_add(consumer.num_ack_pending);
            report.redelivered = report.redelivered.saturating_add(consumer.num_redelivered);
        }
        Ok(report)
    }
}

/// When the newest message was stored: its time stays when it is gone, and lies before 1970 where there never was one.
fn last(info: &Info) -> Option<u64> {
    (info.state.last_sequence > 0).then(|| unix_ms(info.state.last_timestamp)).filter(|at| *at > 0)
}

fn followers(cluster: &ClusterInfo) -> Vec<FollowerReport> {
    let follower = |peer: &async_nats::jetstream::stream::PeerInfo| FollowerReport {
        name: peer.name.clone(),
        is_current: peer.current,
        is_offline: peer.offline,
        lag: peer.lag.unwrap_or_default(),
        silent_ms: u64::try_from(peer.active.as_millis()).unwrap_or(u64::MAX),
    };
    cluster.replicas.iter().map(follower).collect()
}
