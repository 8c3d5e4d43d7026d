//! Simulated relays at their default pace, all in one process.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use signalbox_testkit::{eventually_within, http::Answer, old_relay::OldRelay};
use tokio::{task::JoinSet, time::sleep_until};

use super::board::Board;

/// The pace of relays.
const POLL: Duration = Duration::from_secs(5);
const BEAT: Duration = Duration::from_secs(30);
/// Within which all relays of a fleet start: a center that is taken over by Signalbox hears the first report of each relay
/// within a round of reports.
const START: Duration = BEAT;

/// An assignment.
#[derive(Debug, Clone)]
pub(super) struct Assigned {
    pub(super) machine: String,
    pub(super) id: String,
    pub(super) key: String,
}

/// Relays that run.
pub(super) struct Fleet {
    machines: Vec<String>,
    /// Relays that have polled twice: from then on their polls are held.
    held: Arc<AtomicUsize>,
    tasks: JoinSet<()>,
}

impl Fleet {
    /// Starts a relay for each assignment, spread over one round of reports.
    pub(super) fn start(base: &str, relays: Vec<Assigned>, board: &Arc<Board>) -> Self {
        let held = Arc::new(AtomicUsize::new(0));
        let begin = Instant::now();
        let machines: Vec<String> = relays.iter().map(|relay| relay.machine.clone()).collect();
        let mut tasks = JoinSet::new();
        for (n, assigned) in relays.into_iter().enumerate() {
            let part = share(n, machines.len());
            let polls = Relay {
                requests: OldRelay::new(base, &assigned.key),
                assigned: assigned.clone(),
                board: Arc::clone(board),
            };
            let beats =
                Relay { requests: OldRelay::new(base, &assigned.key), assigned, board: Arc::clone(board) };
            tasks.spawn(polls.work(begin + START.mul_f64(part), Arc::clone(&held)));
            tasks.spawn(beats.beat(begin + BEAT.mul_f64(part)));
        }
        Self { machines, held, tasks }
    }

    /// Waits until every relay has a poll that is held.
    pub(super) async fn until_all_are_held(&mut self) -> Result<()> {
        let all = self.machines.len();
        eventually_within("held polls", Duration::from_mins(1), || async {
            let held = self.held.load(Ordering::Relaxed);
            ensure!(held == all, "{held} of {all}");
            Ok(())
        })
        .await
    }

    /// The machine of some number, in a round.
    pub(super) fn machine(&self, n: usize) -> &str {
        self.machines.get(n % self.machines.len()).map_or("", String::as_str)
    }

    /// Connections of the polls; as many again are for heartbeats, and idle.
    pub(super) fn connections(&self) -> usize {
        self.machines.len()
    }

    pub(super) async fn stop(mut self) {
        self.tasks.shutdown().await;
    }
}

/// `n` of `all`.
fn share(n: usize, all: usize) -> f64 {
    let [n, all] = [n, all].map(|count| f64::from(u32::try_from(count).unwrap_or(u32::MAX)));
    n / all
}

/// One connection's half of a relay.
struct Relay {
    requests: OldRelay,
    assigned: Assigned,
    board: Arc<Board>,
}

impl Relay {
    /// Verifies and reports, then polls at a fixed rate and does what is listed.
    async fn work(mut self, begin: Instant, held: Arc<AtomicUsize>) {
        sleep_until(begin.into()).await;
        let verified = Instant::now();
        let answer = self.requests.verify().await;
        self.take("verify", verified, answer);
        let reported = Instant::now();
        let answer = self.requests.status(&self.assigned.id).await;
        self.take("status", reported, answer);
        let mut next = begin;
        for round in 0_u64.. {
            sleep_until(next.into()).await;
            if round == 1 {
                // It is sent within microseconds.
                held.fetch_add(1, Ordering::Relaxed);
            }
            if let Err(error) = self.poll().await {
                self.board.failed(&error);
            }
            next += POLL;
            while next < Instant::now() {
                next += POLL;
            }
        }
    }

    async fn poll(&mut self) -> Result<()> {
        let sent = Instant::now();
        let commands = self.requests.commands().await?;
        let received = Instant::now();
        let ids = commands.iter().map(|command| command.get("_id").and_then(Value::as_str).context("no id"));
        let ids = ids.collect::<Result<Vec<_>>>()?;
        for id in &ids {
            self.board.listed(id, sent, received);
        }
        for id in ids {
            let claimed = Instant::now();
            let answer = self.requests.claim(id).await;
            let Some(answer) = self.take("claim", claimed, answer) else { continue };
            if answer.json()?.get("success") != Some(&Value::Bool(true)) {
                continue;
            }
            self.board.granted(id);
            let ended = Instant::now();
            let answer = self.requests.result(id, 0, "done\n").await;
            let Some(answer) = self.take("result", ended, answer) else { continue };
            ensure!(answer.text() == r#"{"success":true}"#, "a result is answered {}", answer.text());
            self.board.ended(id);
        }
        Ok(())
    }

    /// Heartbeats and reports at a fixed rate.
    async fn beat(mut self, begin: Instant) {
        let mut next = begin;
        loop {
            sleep_until(next.into()).await;
            let sent = Instant::now();
            let answer = self.requests.heartbeat().await;
            self.take("heartbeat", sent, answer);
            let sent = Instant::now();
            let answer = self.requests.status(&self.assigned.id).await;
            self.take("status", sent, answer);
            next += BEAT;
        }
    }

    /// Notes how long an answer took; anything but 200 is an error.
    fn take(&self, what: &'static str, sent: Instant, answer: Result<Answer>) -> Option<Answer> {
        let took = sent.elapsed();
        let checked = answer.and_then(|answer| {
            ensure!(answer.status == 200, "{what} is answered {}: {}", answer.status, answer.text());
            Ok(answer)
        });
        match checked {
            Ok(answer) => {
                self.board.answered(what, took);
                Some(answer)
            }
            Err(error) => {
                self.board.failed(&error);
                None
            }
        }
    }
}
