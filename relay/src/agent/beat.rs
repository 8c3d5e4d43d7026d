//! Signs of life.
//!
//! The first one over a connection is said when the mailbox was read over it: it tells what was read, and it arrives. Nobody
//! acknowledges a sign of life, and a broker that has just started takes connections some milliseconds before it knows where
//! to take what comes over them: one that is said at once may be lost, and the machine is thought to be away until the next.

use std::time::Duration;

use signalbox_link::random_ratio;
use signalbox_schemas::heartbeat::{Facts, Metrics};
use tokio::time::Instant;

use super::{Agent, Done};
use crate::{
    clock::unix_ms,
    heartbeat::{Vitals, encode, interval},
    metrics::{Sampler, facts},
};

/// How long the mailbox may take, until a sign of life is given without it.
pub(super) const UNREAD: Duration = Duration::from_secs(2);

/// What heartbeats need.
pub(super) struct Beat {
    /// Number of the connection over which the mailbox was read last; 0 = none.
    read_over: u64,
    /// Away while it looks at the machine.
    sampler: Option<Box<Sampler>>,
    facts: Facts,
    started_at_ms: u64,
}

impl Beat {
    pub(super) fn new() -> Self {
        Self {
            read_over: 0,
            sampler: Some(Box::new(Sampler::new())),
            facts: facts(),
            started_at_ms: unix_ms(),
        }
    }
}

impl Agent {
    /// Begins a heartbeat: looks at the machine, on another thread because a hanging file system would hold the
    /// loop. Is that look still under way, the heartbeat goes out without metrics.
    pub(super) fn sample(&mut self) {
        if !self.nats.state().borrow().is_connected {
            return;
        }
        self.timers.heartbeat = Some(Instant::now() + interval(random_ratio()));
        if let Some(mut sampler) = self.beat.sampler.take() {
            self.jobs.spawn_blocking(move || {
                let metrics = sampler.sample();
                Done::Sampled(sampler, metrics)
            });
        } else {
            self.counters.count("metrics_late");
            self.publish_heartbeat(None);
        }
    }

    /// The mailbox was read. Over a connection that is new, that calls for a sign of life.
    pub(super) fn beat_for_mailbox(&mut self) {
        if std::mem::replace(&mut self.beat.read_over, self.connects) != self.connects {
            self.timers.heartbeat = Some(Instant::now());
        }
    }

    pub(super) fn on_sampled(&mut self, sampler: Box<Sampler>, metrics: Option<Metrics>) {
        self.beat.sampler = Some(sampler);
        self.publish_heartbeat(metrics);
    }

    fn publish_heartbeat(&mut self, metrics: Option<Metrics>) {
        let mut counters = self.counters.snapshot();
        let link = self.nats.counters();
        for (name, number) in [("link_slow_messages", link.slow_messages), ("link_denied", link.denied)] {
            if number > 0 {
                counters.insert(name.to_owned(), number);
            }
        }
        let vitals = Vitals {
            now_ms: unix_ms(),
            started_at_ms: self.beat.started_at_ms,
            generation: self.inbox.generation(),
            authors: self.shelf.version(),
            running: self.runs.values().filter(|run| run.is_alive()).count(),
            outbox: self.journal.borrow().ledger().waiting_count(),
            counters,
            facts: self.beat.facts.clone(),
            metrics,
        };
        let body = encode(&self.identity.config.ws, &self.identity.config.mid, vitals);
        let nats = self.nats.clone();
        self.jobs.spawn_local(async move {
            if let Err(error) = nats.publish_heartbeat(body).await {
                tracing::debug!(%error, "heartbeat not published");
            }
            Done::Published
        });
    }
}
