//! The one connection to NATS, used by relay, bridge and console.
//!
//! What it settles once for everybody: login by callback with the nonce rule ([`login`]), reconnecting with
//! jitter for ever ([`connect`]), who may be believed about a header ([`header`]), publishing with an answer
//! whose meaning is a type ([`publish`]), reading single messages ([`read`]) and following a stream without
//! losing or doubling anything ([`follow`]). It knows subjects and payloads as text and bytes; what they mean
//! is the business of `signalbox-schemas` and of the parts.
//!
//! The only crate that imports the NATS client. None of its types appear in a signature here.

/// What a daemon logs when nobody says: what it does itself, and of the NATS client only what is wrong. Its own lines
/// repeat ours at each connection.
pub const DEFAULT_LOG: &str = "info,async_nats=warn";

mod api;
pub mod connect;
pub mod crash;
pub mod error;
pub mod follow;
pub mod header;
pub mod login;
pub mod publish;
pub mod read;
pub mod report;
pub mod stream;
pub mod subscribe;

pub use connect::{ACK_TIMEOUT, Counters, Link, LinkState, Options, random_ratio, shown};
pub use error::{
    ConnectError, FollowError, LoginError, PublishError, ReadError, StoreError, StreamError, SubscribeError,
};
pub use follow::Follow;
pub use header::Headers;
pub use login::{Claims, Login};
pub use publish::{PendingStore, Store, Stored};
pub use read::Message;
pub use report::{AccountReport, ConsumersReport, FollowerReport, ServerReport, StreamReport};
pub use stream::StreamState;
pub use subscribe::{Delivery, Origin, Subscription};
