//! Signs of life.

use signalbox_link::random_ratio;
use signalbox_schemas::heartbeat::{Facts, Metrics};
use tokio::time::Instant;

use super::{Agent, Done};
use crate::{
    clock::unix_ms,
    heartbeat::{Vitals, encode, interval},
    metrics::{Sampler, facts},
};

/// What heartbeats need.
pub(super) struct Beat {
    /// Away while it looks at the machine.
    sampler: Option<Box<Sampler>>,
    facts: Facts,
    started_at_ms: u64,
}

impl Beat {
    pub(super) fn new() -> Self {
        Self { sampler: Some(Box::new(Sampler::new())), facts: facts(), started_at_ms: unix_ms() }
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
