//! From a claim that stands to a run that goes on: here, on a host behind this machine, or not at all.

use std::sync::Arc;

use signalbox_schemas::{
    command::{SshTarget, Target},
    error::report,
    id::CommandId,
    limit::EXPIRY_GRACE_MS,
    run::{RunError, Start},
    signed::{Message as _, Signed},
    subject::FactKind,
};
use tokio::time::{Instant, timeout};

use super::{
    Agent, Done, Stage,
    inventory::in_turn,
    keeping::{KEEPER_PATIENCE, Untold},
    notes::Unwritten,
};
use crate::{
    clock::unix_ms,
    journal::Report,
    keeper::{
        KeeperError,
        protocol::{RunStatus, StartRun},
    },
    nats_link::FactMessage,
    outbox::deliver,
    run::{NotStarted, exit_not_started},
    ssh::route::{Route, SetBy},
    way::{Precedence, Rules, find},
};

impl Agent {
    /// Begins what was claimed.
    pub(super) async fn start(&mut self, cid: CommandId) {
        let is_applying = self.is_applying(cid);
        let Some(run) = self.runs.get_mut(&cid) else { return };
        let Some(work) = run.work.clone() else {
            return self.report_not_started(cid, &NotStarted::Unreadable);
        };
        if run.is_cancelled && !is_applying {
            return self.report_not_started(cid, &NotStarted::Cancelled);
        }
        // The claim was first in the register, so the command is not expired yet: the bridge would take it back only
        // this much later. A claim that was answered later still (a long outage) is not started any more.
        if unix_ms() >= run.expires_at.saturating_add(EXPIRY_GRACE_MS) && !is_applying {
            return self.report_not_started(cid, &NotStarted::Expired);
        }
        match (&work.spec.change, &work.spec.target) {
            (Some(_), _) => {
                run.stage = Stage::Preparing;
                self.change_later(cid);
            }
            (None, Some(Target::Ssh(target))) => {
                run.stage = Stage::Preparing;
                self.find_route(cid, target.clone());
            }
            (None, None) => self.hand_over(cid, None).await,
        }
    }

    /// Looks on another thread how the target is reached: the vault may have to be opened.
    fn find_route(&mut self, cid: CommandId, target: SshTarget) {
        let (keepsakes, ssh) = (Arc::clone(&self.keeping.shared), self.identity.config.ssh.clone());
        let turn = Arc::clone(&self.keeping.turn);
        self.jobs.spawn_local(in_turn(turn, move || {
            let known_hosts = &keepsakes.known_hosts;
            let rules =
                Rules { ssh: &ssh, known_hosts, precedence: Precedence::Command, set_by: SetBy::Owner };
            Done::Routed(cid, find(&target, &keepsakes.vault, rules).map(Box::new))
        }));
    }

    pub(super) async fn on_routed(&mut self, cid: CommandId, found: Result<Box<Route>, RunError>) {
        let Some(run) = self.runs.get(&cid).filter(|run| matches!(run.stage, Stage::Preparing)) else {
            return;
        };
        match found {
            _ if run.is_cancelled => self.report_not_started(cid, &NotStarted::Cancelled),
            Ok(route) => self.hand_over(cid, Some(route)).await,
            Err(error) => self.report_not_started(cid, &NotStarted::Fault(error)),
        }
    }

    /// Has a claimed run started by the keeper.
    async fn hand_over(&mut self, cid: CommandId, route: Option<Box<Route>>) {
        let Some(run) = self.runs.get_mut(&cid) else { return };
        let Some(work) = run.work.clone() else { return };
        run.stage = Stage::Starting { until: Instant::now() };
        let start = StartRun {
            cid,
            command: work.spec.command.clone(),
            timeout_ms: work.spec.timeout_ms,
            max_output: work.spec.max_output,
            leave_children: work.spec.leave_children,
            expires_at: run.expires_at,
            folder: None,
            await_pipes: false,
            route,
        };
        // Without a keeper just now: it is picked up or left behind when there is one.
        let Some(keeper) = &mut self.keeper else { return };
        if start.route.is_some() && !keeper.is_remote {
            return self.report_not_started(cid, &NotStarted::KeeperIsOlder);
        }
        keeper.free = keeper.free.map(|free| free.saturating_sub(1));
        keeper.is_free_its_word = false;
        let told = timeout(KEEPER_PATIENCE, keeper.client.start(start)).await;
        if let Ok(Err(error @ KeeperError::Frame(_))) = &told {
            // Nothing of it was sent, and it would not fit the next time either.
            let error = RunError { code: "too_large".to_owned(), message: report(error) };
            return self.report_not_started(cid, &NotStarted::Fault(error));
        }
        self.check_told(told);
        let until = Instant::now() + KEEPER_PATIENCE;
        if let Some(run) = self.runs.get_mut(&cid).filter(|run| matches!(run.stage, Stage::Starting { .. })) {
            run.stage = Stage::Starting { until };
            self.wake_at(until);
        }
    }

    /// Starts again what may not have reached the keeper.
    pub(super) async fn restart(&mut self) {
        for cid in std::mem::take(&mut self.restart) {
            self.start(cid).await;
        }
    }

    pub(super) async fn cancel(&mut self, cid: CommandId) {
        let Some(run) = self.runs.get_mut(&cid).filter(|run| run.holds_slot()) else { return };
        if std::mem::replace(&mut run.is_cancelled, true) || !run.is_alive() {
            return;
        }
        tracing::info!(%cid, "cancelling");
        let Some(keeper) = &mut self.keeper else {
            // Said again when there is one.
            run.is_cancelled = false;
            return;
        };
        let told = timeout(KEEPER_PATIENCE, keeper.client.cancel(cid)).await;
        self.check_told(told);
    }

    /// Says once that a host has taken the command. What has ended by then says so itself.
    pub(super) fn tell_begun(&mut self, status: &RunStatus) {
        let (cid, Some(started_at)) = (status.cid, status.begun_at_ms) else { return };
        let Some(run) = self.runs.get_mut(&cid).filter(|run| !run.is_begun_told) else { return };
        run.is_begun_told = true;
        let nonce = run.nonce;
        let config = &self.identity.config;
        let start =
            Start { ws: config.ws.clone(), mid: config.mid.clone(), cid, nonce, started_at, via: None };
        let Ok(signed) = Signed::sign(&start, &self.identity.key) else { return };
        let fact = FactMessage::new(cid, FactKind::Start, &signed, Start::TYPE.to_owned());
        let (nats, counters) = (self.nats.clone(), self.counters.clone());
        self.jobs.spawn_local(async move {
            deliver(nats, fact, counters).await;
            Done::Repeated
        });
    }

    /// Reports a run that will never be started, and makes sure that it is not: the keeper is told, and nothing is said
    /// before it is written down. A claim that the journal still tells of would be started when it is picked up.
    pub(super) fn report_not_started(&mut self, cid: CommandId, why: &NotStarted) {
        let Some(run) = self.runs.get(&cid) else { return };
        let (names, expires_at) = (self.names(cid, run.nonce), run.expires_at);
        self.counters.count("run_not_started");
        self.tell_later(Untold::Decline(cid, expires_at));
        let Some(fact) = self.sign_exit(&exit_not_started(names, why, unix_ms())) else { return };
        self.report_when_written(cid, expires_at, fact);
    }

    /// Reports an end, and not before it is written down.
    pub(super) fn report_when_written(&mut self, cid: CommandId, expires_at: u64, fact: FactMessage) {
        match self.write_report(Report::Exit, expires_at, &fact) {
            Ok(()) => self.deliver(Report::Exit, fact),
            Err(entry) => self.write_later(cid, Unwritten { entry, fact: Some((Report::Exit, fact)) }),
        }
    }
}
