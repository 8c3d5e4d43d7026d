//! Who dispatches: a message that lives three seconds and is renewed each second.
//!
//! The lease only keeps two bridges from doing the same work; every write they make is safe without it. The
//! holder counts its time from *before* it sent the last renewal that was acknowledged, and stops half a second
//! early.

use std::time::Duration;

use bytes::Bytes;
use signalbox_link::{Store, StoreError};
use signalbox_schemas::{
    error::report,
    record::Lease as Body,
    stream::{LEASE, LEASE_MS},
    subject::Subject,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::{
    broker_link::BrokerLink,
    core::{CoreError, Epoch, now_ms},
};

/// How often the holder renews.
const RENEW: Duration = Duration::from_millis(LEASE_MS / 3);
/// The holder's own end of its lease: half a second early, for clocks that run differently.
const HELD_FOR: Duration = Duration::from_millis(LEASE_MS - 500);
/// How often others try to become the holder.
const TRY: Duration = Duration::from_millis(250);
/// Pause after a renewal that was not acknowledged.
const RETRY: Duration = Duration::from_millis(100);
/// How long giving the lease back may take when the bridge stops.
const RELEASE: Duration = Duration::from_millis(500);

/// The lease, from the side of one bridge.
#[derive(Debug)]
pub(crate) struct Lease {
    broker: BrokerLink,
    subject: String,
    held: watch::Sender<Option<Epoch>>,
}

/// A renewal of ours that was acknowledged.
struct Renewed {
    sequence: u64,
    /// When it was sent.
    at: Instant,
}

impl Lease {
    pub(crate) fn new(broker: BrokerLink) -> (Self, watch::Receiver<Option<Epoch>>) {
        let subject = Subject::Lease(broker.ws().clone()).to_string();
        let (held, receiver) = watch::channel(None);
        (Self { broker, subject, held }, receiver)
    }

    fn body(&self) -> Bytes {
        let body = Body { bridge: self.broker.bridge().clone(), renewed_at: now_ms() };
        // A name and a number always have a JSON form.
        serde_json::to_vec(&body).unwrap_or_default().into()
    }

    async fn acquire(&self) -> Renewed {
        loop {
            let at = Instant::now();
            let message = Store::new(self.subject.clone(), self.body()).only_first();
            match self.broker.link().store(message).await {
                Ok(stored) => return Renewed { sequence: stored.sequence, at },
                Err(StoreError::Taken { .. }) => {}
                Err(error) => debug!(error = report(&error), "lease cannot be asked for"),
            }
            sleep(TRY).await;
        }
    }

    /// Renews until that is not possible any more.
    async fn hold(&self, sequence: &mut u64, mut at: Instant) {
        loop {
            sleep(RENEW).await;
            let renewed = loop {
                let left = HELD_FOR.saturating_sub(at.elapsed());
                match timeout(left, self.renew(*sequence)).await {
                    Ok(Ok(Some(renewed))) => break Some(renewed),
                    Ok(Err(error)) => {
                        debug!(error = report(&error), "lease was not renewed yet");
                        sleep(RETRY.min(left)).await;
                    }
                    Ok(Ok(None)) | Err(_) => break None,
                }
            };
            let Some(renewed) = renewed else { return };
            *sequence = renewed.sequence;
            at = renewed.at;
        }
    }

    /// `None`: somebody else has it.
    async fn renew(&self, sequence: u64) -> Result<Option<Renewed>, StoreError> {
        let at = Instant::now();
        let body = self.body();
        let message = Store::new(self.subject.clone(), body.clone()).only_after(sequence);
        match self.broker.link().store(message).await {
            Ok(stored) => Ok(Some(Renewed { sequence: stored.sequence, at })),
            Err(StoreError::Taken { .. }) => {
                // Perhaps an earlier renewal of ours whose acknowledgement was lost: it counts from when it was sent, which
                // its own words say, by the clock of this machine.
                let found = self.broker.link().last_from_leader(LEASE, &self.subject).await;
                let found = found.ok().flatten();
                Ok(found.and_then(|message| {
                    Some(Renewed { sequence: message.sequence, at: self.sent(&message.payload)? })
                }))
            }
            Err(error) => Err(error),
        }
    }

    /// When a renewal of ours was sent; none when it is somebody else's.
    fn sent(&self, body: &[u8]) -> Option<Instant> {
        let lease =
            serde_json::from_slice::<Body>(body).ok().filter(|it| it.bridge == *self.broker.bridge())?;
        let ago = now_ms().saturating_sub(lease.renewed_at);
        Instant::now().checked_sub(Duration::from_millis(ago))
    }

    /// Gives the lease back, if it is still ours.
    async fn release(&self, sequence: u64) {
        let deleted = timeout(RELEASE, self.broker.link().delete_message(LEASE, sequence)).await;
        info!(released = deleted.is_ok_and(|deleted| deleted.is_ok()), "lease given back");
    }
}

/// Tries to hold the lease until `stop`.
pub(crate) async fn run(lease: Lease, stop: CancellationToken) -> Result<(), CoreError> {
    loop {
        let got = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            got = lease.acquire() => got,
        };
        info!(epoch = got.sequence, bridge = %lease.broker.bridge(), "lease acquired: this bridge dispatches");
        lease.held.send_replace(Some(Epoch(got.sequence)));
        let mut sequence = got.sequence;
        let stopped = tokio::select! {
            () = stop.cancelled() => true,
            () = lease.hold(&mut sequence, got.at) => false,
        };
        lease.held.send_replace(None);
        if stopped {
            lease.release(sequence).await;
            return Ok(());
        }
        warn!(epoch = got.sequence, "lease lost: another bridge dispatches, or the broker does not answer");
    }
}
