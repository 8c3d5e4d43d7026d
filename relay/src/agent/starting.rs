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
use tokio::{
    sync::oneshot,
    time::{Instant, timeout},
};

use super::{
    Agent, Done, Run, Stage,
    inventory::in_turn_if_wanted,
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
        let Some(run) = self.runs.get(&cid) else { return };
        let Some(work) = run.work.clone() else {
            return self.report_not_started(cid, &NotStarted::Unreadable);
        };
        if let Some(why) = self.why_not(cid) {
            return self.report_not_started(cid, &why);
        }
        match (&work.spec.change, &work.spec.target) {
            (Some(_), _) => {
                self.prepare(cid, None);
                self.change_later(cid);
            }
            (None, Some(Target::Ssh(target))) => self.find_route(cid, target.clone()),
            (None, None) => self.hand_over(cid, None).await,
        }
    }

    /// Why something that was claimed is not begun any more, if it is not. What was asked for is looked at again after each
    /// wait; a change that was begun is made whatever is said since.
    ///
    /// The claim was first in the register, so the command was not expired then: the bridge would take it back only so much
    /// later. One that is answered later still (a long outage), or waited here for as long, is not started any more.
    pub(super) fn why_not(&self, cid: CommandId) -> Option<NotStarted> {
        let run = self.runs.get(&cid).filter(|_| !self.is_applying(cid))?;
        if run.is_cancelled {
            return Some(NotStarted::Cancelled);
        }
        (unix_ms() >= run.expires_at.saturating_add(EXPIRY_GRACE_MS)).then_some(NotStarted::Expired)
    }

    /// Looks on another thread how the target is reached: the vault may have to be opened.
    fn find_route(&mut self, cid: CommandId, target: SshTarget) {
        let (wanted_tx, wanted_rx) = oneshot::channel();
        self.prepare(cid, Some(wanted_tx));
        let (keepsakes, ssh) = (Arc::clone(&self.keeping.shared), self.identity.config.ssh.clone());
        let turn = Arc::clone(&self.keeping.turn);
        self.jobs.spawn_local(in_turn_if_wanted(wanted_rx, turn, move || {
            let known_hosts = &keepsakes.known_hosts;
            let rules =
                Rules { ssh: &ssh, known_hosts, precedence: Precedence::Command, set_by: SetBy::Owner };
            Done::Routed(cid, find(&target, &keepsakes.vault, rules).map(Box::new))
        }));
    }

    pub(super) async fn on_routed(&mut self, cid: CommandId, found: Result<Box<Route>, RunError>) {
        if !self.runs.get(&cid).is_some_and(Run::is_prepared) {
            return;
        }
        match (self.why_not(cid), found) {
            (Some(why), _) => self.report_not_started(cid, &why),
            (None, Ok(route)) => self.hand_over(cid, Some(route)).await,
            (None, Err(error)) => self.report_not_started(cid, &NotStarted::Fault(error)),
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
        let is_applying = self.is_applying(cid);
        let Some(run) = self.runs.get_mut(&cid).filter(|run| run.holds_slot()) else { return };
        if std::mem::replace(&mut run.is_cancelled, true) {
            return;
        }
        if run.is_prepared() && !is_applying {
            // What it waits for may take long.
            return self.report_not_started(cid, &NotStarted::Cancelled);
        }
        if !run.is_alive() {
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
