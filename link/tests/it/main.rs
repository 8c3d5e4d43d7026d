//! The link against a real nats-server, and against servers that lie.

mod accounts;
mod cluster;
mod connection;
#[cfg(feature = "crash-points")]
mod crash;
mod follow;
mod hostile;
mod nonce;
mod store;
mod stream;
mod time;

use std::time::Duration;

use anyhow::Result;
use signalbox_link::{Link, Options};
use signalbox_schemas::stream::{Discard, Storage, StreamDef};
use signalbox_testkit::Broker;

/// Short, so that what is bounded by it can be awaited in a test.
const ACK_TIMEOUT: Duration = Duration::from_millis(700);

/// A link without account.
async fn link(broker: &Broker) -> Result<Link> {
    let mut options = Options::plain(&broker.url(), "test", None);
    options.ack_timeout = ACK_TIMEOUT;
    options.probe = Some("$JS.API.INFO".to_owned());
    Ok(Link::connect(options).await?)
}

/// A plain stream of that name on `<name>.>`, in lower case.
fn def(name: &'static str) -> StreamDef {
    StreamDef {
        name,
        subjects: vec![format!("{}.>", name.to_lowercase())],
        storage: Storage::File,
        max_age_ms: None,
        max_bytes: None,
        max_msgs_per_subject: None,
        max_message_bytes: None,
        discard: Discard::Old,
        discard_new_per_subject: false,
        allow_direct: true,
        deny_delete: false,
        deny_purge: false,
        no_ack: false,
        allow_atomic: false,
        republish: None,
        compress: false,
        duplicate_window_ms: Some(2_000),
    }
}

/// A stream whose subjects can be written once.
fn write_once(name: &'static str) -> StreamDef {
    StreamDef {
        max_msgs_per_subject: Some(1),
        discard: Discard::New,
        discard_new_per_subject: true,
        ..def(name)
    }
}
