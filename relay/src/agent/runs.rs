//! From a claim that stands to a report that is acknowledged.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use signalbox_link::{
    StoreError,
    crash::{Part, Point, hit},
};
use signalbox_schemas::{
    Base64Url,
    error::report,
    id::{CommandId, Nonce},
    limit::MAX_EXPIRES_IN_MS,
    run::{Exit, Lost},
    signed::{Message as _, Signed},
    subject::FactKind,
};
use tokio::{sync::watch, time::Instant};

use super::{Agent, Done, Keeper, Run, Stage, claims::SAY_AGAIN_AFTER, notes::Unwritten};
use crate::{
    backoff::Backoff,
    clock::unix_ms,
    journal::{Entry, Progress, RecordState, Report, ledger::ChunkLog},
    keeper::{
        client::{KeeperClient, KeeperEvent, Welcome},
        protocol::{Phase, Refusal, RunStatus},
        spool::left_behind,
    },
    keeper_life::mark,
    lock::LockError,
    nats_link::FactMessage,
    outbox::{Delivered, attempt, deliver},
    output::{Pump, Pumped},
    run::{NotStarted, RunNames, exit, summary_line},
    serve::ServeError,
};

/// Wait for the acknowledgement of what is said again; as long as the pause before it is said once more, so that
/// there are never two of one.
const REPEAT_PATIENCE: Duration = SAY_AGAIN_AFTER;
/// Waits between questions to a register, for runs that are picked up.
const FIRST_RETRY: Duration = Duration::from_millis(50);
const LONGEST_RETRY: Duration = Duration::from_secs(1);

impl Agent {
    /// # Errors
    /// When the store is another relay's.
    pub(super) async fn on_keeper_up(
        &mut self,
        (client, welcome): (KeeperClient, Welcome),
    ) -> Result<(), ServeError> {
        tracing::info!(pid = welcome.pid, instance = %welcome.instance, runs = welcome.runs.len(), "keeper is up");
        let Welcome { nonce, instance, pid, free, remote: is_remote, .. } = welcome;
        if self.journal.borrow().ledger().keeper(instance).is_none() {
            // A keeper ends when its store is removed: perhaps with the lock, and somebody else took both.
            match self.place.lock.hold() {
                Err(error @ LockError::InUse { .. }) => return Err(error.into()),
                Err(error) => tracing::warn!(error = report(&error), "store is not locked"),
                Ok(()) => {}
            }
            self.note(Entry::Keeper { mark: mark(&welcome) });
            self.journal.borrow_mut().begin_life(instance);
        }
        self.leave_former_lives(instance);
        let since = Instant::now();
        self.keeper =
            Some(Keeper { client, nonce, instance, pid, free, is_free_its_word: true, is_remote, since });
        self.pick_up_claims(instance, nonce, &welcome.runs);
        for status in welcome.runs {
            self.pick_up(status, instance, nonce);
        }
        self.restart().await;
        self.look_into_spool();
        // A cancel may have been lost with the connection; saying it twice is saying it once.
        self.runs.values_mut().filter(|run| run.is_alive()).for_each(|run| run.is_cancelled = false);
        self.look = true;
        self.announce();
        Ok(())
    }

    /// Runs of another keeper's life are over, except that what had ended is still reported as it ended.
    fn leave_former_lives(&mut self, instance: Nonce) {
        let ghosts = &mut self.ghosts;
        self.runs.retain(|cid, run| {
            let is_being_made = run.is_change() && run.is_prepared();
            let stays = run.instance == instance || !run.holds_slot() || is_being_made;
            if let Some(status) = run.status.as_ref().filter(|_| !stays) {
                let status = status.borrow();
                ghosts.insert(*cid, [status.stdout.bytes, status.stderr.bytes]);
            }
            stays
        });
        let open = self.open_claims();
        // The others are not asked about, so nobody would take them.
        self.ghosts.retain(|cid, _| open.iter().any(|(claimed, _)| claimed == cid));
        let former: BTreeSet<Nonce> =
            open.into_iter().map(|(_, life)| life).filter(|life| *life != instance).collect();
        for life in former {
            self.bury(life);
        }
    }

    /// Claims of this keeper's life that an earlier relay process made.
    fn pick_up_claims(&mut self, instance: Nonce, nonce: Nonce, known: &[RunStatus]) {
        let claims: Vec<(CommandId, u64, String)> = {
            let journal = self.journal.borrow();
            let of_life = journal.ledger().claims().filter(|(.., claimed)| claimed.instance == instance);
            of_life.map(|(cid, expires_at, claimed)| (cid, expires_at, claimed.spec.clone())).collect()
        };
        for (cid, expires_at, spec) in claims {
            let is_known = known.iter().any(|status| status.cid == cid);
            match self.runs.get(&cid).map(|run| &run.stage) {
                // The frame may have been lost with the connection: starting twice is starting once.
                Some(Stage::Starting { .. } | Stage::Running) if !is_known => self.restart.push(cid),
                Some(_) => {}
                None => {
                    let work = serde_json::from_str(&spec).ok().map(Arc::new);
                    let stage = if is_known { Stage::Running } else { Stage::Claiming { may_stand: true } };
                    let run = Run {
                        stage,
                        nonce,
                        instance,
                        expires_at,
                        work,
                        backoff: Backoff::new(FIRST_RETRY, LONGEST_RETRY),
                        is_cancelled: false,
                        is_begun_told: false,
                        status: None,
                    };
                    self.runs.insert(cid, run);
                    if !is_known {
                        // It was not started. Only a claim that stands may be.
                        self.ask_register(cid, nonce, false);
                    }
                }
            }
        }
    }

    /// A run that the keeper has.
    fn pick_up(&mut self, status: RunStatus, instance: Nonce, nonce: Nonce) {
        let cid = status.cid;
        if !self.runs.contains_key(&cid) {
            let state = self.journal.borrow().ledger().record(cid).map(|record| record.state.clone());
            match state {
                Some(RecordState::Reported(..) | RecordState::Known) => {
                    if status.phase == Phase::Ended {
                        self.forget(cid);
                    }
                    return;
                }
                Some(RecordState::Reporting(..) | RecordState::Claimed(_)) => return,
                None => self.adopt(cid, instance, nonce),
            }
        }
        self.on_status(status);
    }

    /// Takes on a run that the journal does not know, because it was removed or a power loss took its end. The
    /// keeper starts only what was claimed with its nonce.
    fn adopt(&mut self, cid: CommandId, instance: Nonce, nonce: Nonce) {
        let expires_at = unix_ms().saturating_add(MAX_EXPIRES_IN_MS);
        self.note(Entry::Claim {
            cid,
            instance,
            expires_at,
            spec: String::new(),
            before: Progress::default(),
        });
        self.counters.count("run_adopted");
        let run = Run {
            stage: Stage::Running,
            nonce,
            instance,
            expires_at,
            work: None,
            backoff: Backoff::new(FIRST_RETRY, LONGEST_RETRY),
            is_cancelled: false,
            is_begun_told: false,
            status: None,
        };
        self.runs.insert(cid, run);
    }

    pub(super) fn on_keeper(&mut self, event: KeeperEvent) {
        match event {
            KeeperEvent::Started { cid } => {
                let starting = |run: &&mut Run| matches!(run.stage, Stage::Starting { .. });
                if let Some(run) = self.runs.get_mut(&cid).filter(starting) {
                    hit(Part::Relay, Point::Spawned);
                    run.stage = Stage::Running;
                }
            }
            KeeperEvent::Status(status) => self.on_status(*status),
            KeeperEvent::Refused { cid, reason } => self.on_refused(cid, reason),
            KeeperEvent::Gone => {
                tracing::error!("keeper connection lost");
                self.counters.count("keeper_gone");
                self.keeper = None;
                self.bring_keeper_up();
            }
        }
    }

    fn on_status(&mut self, status: RunStatus) {
        let cid = status.cid;
        let ended = status.phase == Phase::Ended;
        if !ended {
            self.tell_begun(&status);
        }
        let Some(run) = self.runs.get_mut(&cid).filter(|run| run.is_alive()) else { return };
        run.stage = if ended { Stage::Ended } else { Stage::Running };
        self.look |= ended;
        if let Some(newest) = &run.status {
            newest.send_replace(status);
        } else {
            let (status_tx, status_rx) = watch::channel(status);
            run.status = Some(status_tx);
            self.pump(cid, status_rx, false);
        }
    }

    /// Brings out what a run had written that was lost with its keeper; then the loss is reported. `known_bytes` is what
    /// the keeper had told of; a relay that was restarted has only the spool's word.
    pub(super) fn bring_out_lost(
        &mut self,
        cid: CommandId,
        (nonce, instance): (Nonce, Nonce),
        expires_at: u64,
        known_bytes: [u64; 2],
    ) {
        let [stdout, stderr] = left_behind(&self.place.store, cid);
        let [known_stdout, known_stderr] = known_bytes;
        let known_bytes = [known_stdout.max(stdout.bytes), known_stderr.max(stderr.bytes)];
        let phase = Phase::Ended;
        let status = RunStatus {
            cid,
            phase,
            started_at_ms: 0,
            begun_at_ms: None,
            pid: None,
            stdout,
            stderr,
            end: None,
        };
        let (status_tx, status_rx) = watch::channel(status);
        let run = Run {
            stage: Stage::Lost { known_bytes },
            nonce,
            instance,
            expires_at,
            work: None,
            backoff: Backoff::new(FIRST_RETRY, LONGEST_RETRY),
            is_cancelled: false,
            is_begun_told: false,
            status: Some(status_tx),
        };
        self.runs.insert(cid, run);
        self.pump(cid, status_rx, true);
    }

    fn pump(&mut self, cid: CommandId, status: watch::Receiver<RunStatus>, is_lost: bool) {
        let log: ChunkLog = {
            let journal = self.journal.borrow();
            journal.ledger().claimed(cid).map(|claimed| claimed.chunks.clone()).unwrap_or_default()
        };
        let pump = Pump {
            cid,
            nats: self.nats.clone(),
            store: self.place.store.clone(),
            journal: self.journal.clone(),
            counters: self.counters.clone(),
            status,
            is_lost,
        };
        self.jobs.spawn_local(async move { Done::Pumped(cid, pump.run(log).await.map(Box::new)) });
    }

    fn on_refused(&mut self, cid: CommandId, reason: Refusal) {
        let starting = self.runs.get(&cid).is_some_and(|run| matches!(run.stage, Stage::Starting { .. }));
        if !starting {
            return;
        }
        tracing::warn!(%cid, ?reason, "keeper refused");
        match reason {
            // It ran in this keeper's life and was reported; the journal lost that.
            Refusal::Forgotten => self.settle(cid, Entry::Decided { cid }),
            Refusal::Expired => self.report_not_started(cid, &NotStarted::Expired),
            Refusal::JournalFull | Refusal::Busy | Refusal::Invalid => {
                self.report_not_started(cid, &NotStarted::KeeperRefused);
            }
            // It ends, and the next one's life begins without this claim.
            Refusal::ShuttingDown | Refusal::Running => {}
        }
    }

    pub(super) fn on_pumped(&mut self, cid: CommandId, pumped: Option<Pumped>) {
        let Some(pumped) = pumped else { return };
        let Some(run) = self.runs.get(&cid) else { return };
        if let Stage::Lost { known_bytes } = run.stage {
            let (nonce, expires_at) = (run.nonce, run.expires_at);
            return self.report_lost(cid, nonce, expires_at, known_bytes);
        }
        let (names, expires_at) = (self.names(cid, run.nonce), run.expires_at);
        if let Some(fact) = self.sign_exit(&exit(names, pumped)) {
            self.report(Report::Exit, expires_at, fact);
        }
    }

    pub(super) fn names(&self, cid: CommandId, nonce: Nonce) -> RunNames {
        let config = &self.identity.config;
        RunNames { ws: config.ws.clone(), mid: config.mid.clone(), cid, nonce }
    }

    pub(super) fn sign_exit(&self, exit: &Exit) -> Option<FactMessage> {
        let line = summary_line(exit);
        tracing::info!(cid = %exit.cid, how = line, "run ended");
        match Signed::sign(exit, &self.identity.key) {
            Ok(signed) => Some(FactMessage::new(exit.cid, FactKind::Exit, &signed, line)),
            Err(error) => {
                // Cannot be: what it carries is bounded far below. The bridge's deadline would speak.
                tracing::error!(cid = %exit.cid, %error, "exit not signed");
                self.counters.count("exit_not_signed");
                None
            }
        }
    }

    /// Writes a fact down and sends it until it is acknowledged, also while it cannot be written: what happened is to be
    /// known, however full the disk is.
    pub(super) fn report(&mut self, report: Report, expires_at: u64, fact: FactMessage) {
        if let Err(entry) = self.write_report(report, expires_at, &fact)
            && report != Report::Rejection
        {
            self.write_later(fact.cid, Unwritten { entry, fact: None });
        }
        self.deliver(report, fact);
    }

    /// Notes that a run is being reported.
    ///
    /// # Errors
    /// What is still to be written down.
    pub(super) fn write_report(
        &mut self,
        report: Report,
        expires_at: u64,
        fact: &FactMessage,
    ) -> Result<(), Entry> {
        let cid = fact.cid;
        let entry = Entry::Fact { cid, report, expires_at, body: Base64Url(fact.body.to_vec()) };
        let noted = self.note(entry.clone());
        if report == Report::Exit {
            hit(Part::Relay, Point::ExitWritten);
        }
        let run = self.runs.entry(cid).or_insert_with(|| Run {
            stage: Stage::Reporting,
            nonce: Nonce([0; 16]),
            instance: Nonce([0; 16]),
            expires_at,
            work: None,
            backoff: Backoff::new(FIRST_RETRY, LONGEST_RETRY),
            is_cancelled: false,
            is_begun_told: false,
            status: None,
        });
        run.stage = Stage::Reporting;
        self.look = true;
        if noted { Ok(()) } else { Err(entry) }
    }

    pub(super) fn deliver(&mut self, report: Report, fact: FactMessage) {
        let (nats, counters, cid) = (self.nats.clone(), self.counters.clone(), fact.cid);
        self.jobs.spawn_local(async move { Done::Fact(cid, report, deliver(nats, fact, counters).await) });
    }

    /// Says something again that is written down as reported, or that is not to be written down: once, and only while
    /// there is a connection. The caller comes back as long as it is on offer.
    pub(super) fn repeat(&mut self, fact: FactMessage) {
        if !self.nats.state().borrow().is_connected {
            return;
        }
        let (nats, counters) = (self.nats.clone(), self.counters.clone());
        self.jobs.spawn_local(async move {
            match attempt(&nats, &fact, REPEAT_PATIENCE).await {
                Ok(()) | Err(StoreError::Taken { .. }) => {}
                Err(error) => {
                    tracing::debug!(cid = %fact.cid, %error, "fact not said again");
                    counters.count("repeat_not_sent");
                }
            }
            Done::Repeated
        });
    }

    /// Sends what an earlier relay process wrote down and did not see acknowledged.
    pub(super) fn deliver_waiting(&mut self) {
        let waiting: Vec<_> = self.journal.borrow().ledger().waiting().collect();
        for fact in waiting {
            self.deliver(fact.report, fact_from(fact.cid, fact.report, &fact.body.0));
        }
    }

    pub(super) fn on_fact(&mut self, cid: CommandId, report: Report, delivered: Delivered) {
        match delivered {
            Delivered::Stored | Delivered::Taken { first_try: false } => {}
            Delivered::Taken { first_try: true } => {
                self.counters.count("fact_taken");
            }
            Delivered::Impossible => {
                self.counters.count("fact_impossible");
            }
        }
        let was_written = matches!(
            self.journal.borrow().ledger().record(cid).map(|record| &record.state),
            Some(RecordState::Reporting(..))
        );
        let entry = if was_written { Entry::Acked { cid } } else { Entry::Decided { cid } };
        if report == Report::Rejection {
            // Nothing was claimed: one that is not written down is said again and no more.
            self.note(entry);
            self.runs.remove(&cid);
            self.look = true;
        } else {
            self.settle(cid, entry);
            self.forget(cid);
        }
    }
}

/// A fact made ready again from its written form.
pub(super) fn fact_from(cid: CommandId, report: Report, body: &[u8]) -> FactMessage {
    let exit_line = || Some(summary_line(&Signed::<Exit>::from_json(body).ok()?.peek().ok()?));
    let (kind, type_name, summary) = match report {
        Report::Rejection => {
            (FactKind::Claim, signalbox_schemas::run::Rejection::TYPE, Some("rejected".to_owned()))
        }
        Report::Exit => (FactKind::Exit, Exit::TYPE, exit_line()),
        Report::Lost => (FactKind::Lost, Lost::TYPE, Some("lost: keeper_gone".to_owned())),
    };
    let summary = summary.unwrap_or_default();
    FactMessage { cid, kind, type_name, summary, body: body.to_vec().into() }
}

/// The nonce of the claim that a report of ours belongs to.
pub(super) fn nonce_of(report: Report, body: &[u8]) -> Option<Nonce> {
    match report {
        Report::Rejection => None,
        Report::Exit => Some(Signed::<Exit>::from_json(body).ok()?.peek().ok()?.nonce),
        Report::Lost => Some(Signed::<Lost>::from_json(body).ok()?.peek().ok()?.nonce),
    }
}
