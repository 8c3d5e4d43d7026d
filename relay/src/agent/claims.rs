//! From an offer to a claim that stands, or does not.

use std::{sync::Arc, time::Duration};

use futures_util::FutureExt as _;
use signalbox_link::{
    Message,
    crash::{Part, Point, hit},
};
use signalbox_schemas::{
    id::{CommandId, Nonce, Sha256},
    run::{Claim, Lost, LostReason, RejectReason, Rejection},
    signed::Signed,
    subject::FactKind,
};
use tokio::time::{Instant, sleep};

use super::{Agent, Done, MAX_UNREPORTED, Run, Stage};
use crate::{
    backoff::Backoff,
    claim::{Answer, Claimer, Outcome, attempt},
    clock::unix_ms,
    journal::{Entry, Progress, RecordState, Report},
    keeper_life::bury,
    nats_link::FactMessage,
    policy::Fault,
    reconcile::{Action, Situation, Standing, reconcile},
    work::Work,
};

/// First and longest wait before a register is asked again.
const FIRST_RETRY: Duration = Duration::from_millis(50);
const LONGEST_RETRY: Duration = Duration::from_secs(1);
/// A settled run that is on offer for this long is reported again: its report may have been lost with the
/// broker's disk. Settled offers leave a mailbox within 5 s.
pub(super) const SAY_AGAIN_AFTER: Duration = Duration::from_secs(10);
/// Longest sleep before a `not_before` is looked at again: clocks are set.
const LONGEST_SLEEP_MS: u64 = 60_000;

impl Agent {
    pub(super) fn claimer(&self) -> Claimer {
        let config = &self.identity.config;
        Claimer { ws: config.ws.clone(), mid: config.mid.clone(), key: self.identity.public_key().clone() }
    }

    /// Compares what should be with what is, and acts; only when something has changed.
    pub(super) async fn reconcile(&mut self) {
        if !std::mem::take(&mut self.look) {
            return;
        }
        self.check_keeper_room();
        let now_ms = unix_ms();
        // What is passed over by a time is noticed as soon as that time is taken back, also between two looks at the clock.
        if self.clock.was_set(now_ms, Instant::now()) {
            self.on_clock_set();
        }
        let plan = {
            let journal = self.journal.borrow();
            let standing = |cid| {
                if self.runs.contains_key(&cid) {
                    return Standing::Active;
                }
                match journal.ledger().record(cid).map(|record| &record.state) {
                    None => Standing::Unknown,
                    Some(RecordState::Claimed(_) | RecordState::Reporting(..)) => Standing::Active,
                    Some(RecordState::Reported(..) | RecordState::Known) => Standing::Settled,
                }
            };
            let can_remember = journal.ledger().has_room();
            let situation = Situation { now_ms, free_slots: self.free_slots(now_ms), can_remember };
            reconcile(&self.inbox.desired(), self.inbox.cancels(), standing, situation)
        };
        if let Some(at) = plan.wake_at_ms {
            let sleep_ms = at.saturating_sub(now_ms).min(LONGEST_SLEEP_MS);
            self.wake_at(Instant::now() + Duration::from_millis(sleep_ms));
        }
        for action in plan.actions {
            match action {
                Action::Claim(work) => self.claim(work),
                Action::Reject(cid, fault) => self.reject(cid, fault),
                Action::RejectFull(cid) => self.reject_full(cid),
                Action::Repeat(cid) => self.say_again(cid),
                Action::Cancel(cid) => self.cancel(cid).await,
            }
        }
    }

    fn free_slots(&self, now_ms: u64) -> usize {
        let taken = self.runs.values().filter(|run| run.holds_slot()).count();
        // Verdicts may be older than the end of the document they were made under.
        let authors_count = self.shelf.held().is_some_and(|held| held.document.is_valid_at(now_ms));
        let Some(keeper) = &self.keeper else { return 0 };
        if self.runs.len() - taken >= MAX_UNREPORTED || !authors_count {
            return 0;
        }
        let claiming = |run: &&Run| matches!(run.stage, Stage::Claiming { .. } | Stage::Waiting { .. });
        let claiming = self.runs.values().filter(claiming).count();
        let taken_by_keeper = keeper.free.map_or(usize::MAX, |free| (free as usize).saturating_sub(claiming));
        (self.identity.config.max_parallel as usize).saturating_sub(taken).min(taken_by_keeper)
    }

    fn claim(&mut self, work: Arc<Work>) {
        let Some((nonce, instance)) = self.keeper.as_ref().map(|keeper| (keeper.nonce, keeper.instance))
        else {
            return;
        };
        let (cid, expires_at) = (work.spec.cid, work.spec.expires_at);
        let text = serde_json::to_string(&*work).unwrap_or_default();
        if !self.note(Entry::Claim { cid, instance, expires_at, spec: text, before: Progress::default() }) {
            self.wake_at(Instant::now() + LONGEST_RETRY);
            return;
        }
        let run = Run {
            stage: Stage::Claiming { may_stand: false },
            nonce,
            instance,
            expires_at,
            work: Some(work),
            backoff: Backoff::new(FIRST_RETRY, LONGEST_RETRY),
            is_cancelled: false,
            is_begun_told: false,
            status: None,
        };
        self.runs.insert(cid, run);
        self.ask_register(cid, nonce, true);
    }

    /// Asks a register: with a claim, or only what stands there.
    pub(super) fn ask_register(&mut self, cid: CommandId, nonce: Nonce, with_claim: bool) {
        let claim = with_claim.then(|| self.sign_claim(cid, nonce)).flatten();
        let (nats, claimer) = (self.nats.clone(), self.claimer());
        let asked = attempt(nats, claimer, (cid, nonce), claim, self.counters.clone());
        self.claims.push_back(asked.boxed_local());
    }

    fn sign_claim(&self, cid: CommandId, nonce: Nonce) -> Option<FactMessage> {
        let config = &self.identity.config;
        let claimed_at = unix_ms();
        let claim =
            Claim { ws: config.ws.clone(), mid: config.mid.clone(), cid, nonce, claimed_at, via: None };
        let signed = Signed::sign(&claim, &self.identity.key).ok()?;
        Some(FactMessage::new(cid, FactKind::Claim, &signed, "claimed".to_owned()))
    }

    pub(super) async fn on_claim(&mut self, answer: Answer) {
        let Answer { cid, nonce, outcome } = answer;
        let Some(run) = self.runs.get_mut(&cid) else { return };
        let Stage::Claiming { may_stand } = run.stage else { return };
        if run.nonce != nonce {
            return;
        }
        match outcome {
            Outcome::Mine => {
                hit(Part::Relay, Point::ClaimAcked);
                tracing::debug!(%cid, "claimed");
                self.start(cid).await;
            }
            Outcome::Theirs => {
                tracing::info!(%cid, "decided by somebody else");
                self.counters.count("claim_decided_elsewhere");
                self.settle(cid, Entry::Decided { cid });
            }
            Outcome::Absent | Outcome::Refused | Outcome::Unknown => {
                let until = Instant::now() + run.backoff.delay();
                // A refusal says nothing about what was sent before.
                let may_stand = match outcome {
                    Outcome::Absent => false,
                    Outcome::Refused => may_stand,
                    _ => true,
                };
                run.stage = Stage::Waiting { until, may_stand };
                self.wake_at(until);
            }
        }
    }

    /// Asks again about claims whose time has come, and looks at the offers.
    pub(super) fn retry_claims(&mut self, now: Instant) {
        self.look = true;
        let now_ms = unix_ms();
        let mut due = Vec::new();
        for (cid, run) in &mut self.runs {
            if let Stage::Waiting { until, may_stand } = run.stage {
                if now < until {
                    due.push((*cid, run.nonce, Some(until), may_stand));
                } else {
                    run.stage = Stage::Claiming { may_stand };
                    due.push((*cid, run.nonce, None, may_stand));
                }
            }
        }
        for (cid, nonce, later, may_stand) in due {
            match later {
                Some(until) => self.wake_at(until),
                None if self.inbox.still_offers(cid, now_ms) => self.ask_register(cid, nonce, true),
                // Not wanted any more. A claim that may stand there all the same must be known before it is let go.
                None if may_stand => self.ask_register(cid, nonce, false),
                None => self.settle(cid, Entry::Unclaimed { cid }),
            }
        }
    }

    fn reject(&mut self, cid: CommandId, fault: Fault) {
        // One that could not be written down comes back, and is not said in a circle.
        if !self.is_time_to_say(cid, Duration::ZERO) {
            return;
        }
        tracing::warn!(%cid, reason = fault.reason.as_str(), message = fault.message, "offer rejected");
        self.counters.count(rejected(fault.reason));
        if let Some(fact) = self.sign_rejection(cid, fault) {
            // Nothing was begun: that it is known for a day saves a question to the register and no more.
            self.report(Report::Rejection, unix_ms(), fact);
        }
    }

    /// Rejects what cannot be remembered: it is not written down either, so it is said at most every 10 s.
    fn reject_full(&mut self, cid: CommandId) {
        if !self.is_time_to_say(cid, Duration::ZERO) {
            return;
        }
        self.counters.count(rejected(RejectReason::JournalFull));
        let message = "this relay remembers as many commands as it can".to_owned();
        if let Some(fact) = self.sign_rejection(cid, Fault { reason: RejectReason::JournalFull, message }) {
            self.repeat(fact);
        }
    }

    fn sign_rejection(&self, cid: CommandId, fault: Fault) -> Option<FactMessage> {
        let config = &self.identity.config;
        let Fault { reason, message } = fault;
        let rejected_at = unix_ms();
        let (ws, mid) = (config.ws.clone(), config.mid.clone());
        let rejection = Rejection { ws, mid, cid, reason, message, rejected_at };
        let signed = Signed::sign(&rejection, &self.identity.key).ok()?;
        Some(FactMessage::new(cid, FactKind::Claim, &signed, format!("rejected: {}", reason.as_str())))
    }

    /// Whether a command on offer may be answered (again); the first answer is due `first` after it was noticed.
    fn is_time_to_say(&mut self, cid: CommandId, first: Duration) -> bool {
        let now = Instant::now();
        let next = *self.inbox.said.entry(cid).or_insert(now + first);
        if now < next {
            self.wake_at(next);
            return false;
        }
        self.inbox.said.insert(cid, now + SAY_AGAIN_AFTER);
        true
    }

    /// Says again what was reported of a run that is settled here and still on offer.
    fn say_again(&mut self, cid: CommandId) {
        let record = self.journal.borrow().ledger().record(cid).map(|record| record.state.clone());
        let Some(RecordState::Reported(report, body)) = record else { return };
        if !self.is_time_to_say(cid, SAY_AGAIN_AFTER) {
            return;
        }
        self.counters.count("report_repeated");
        let fact = super::runs::fact_from(cid, report, &body.0);
        if let Some(nonce) = super::runs::nonce_of(report, &body.0)
            && let Some(claim) = self.sign_claim(cid, nonce)
        {
            self.repeat(claim);
        }
        self.repeat(fact);
    }

    /// Makes sure that a former keeper is gone; what it had claimed is looked at then.
    pub(super) fn bury(&mut self, instance: Nonce) {
        let mark = self.journal.borrow().ledger().keeper(instance).cloned();
        match mark {
            Some(_) if self.burying.contains(&instance) => {}
            Some(mark) => {
                self.burying.push(instance);
                let open = self.claims_of(instance);
                self.jobs.spawn_local(async move { Done::Buried(bury(mark, open).await) });
            }
            // Its line in the journal is broken: nothing can be said about it, and the bridge's deadline speaks.
            None => self.on_buried(instance),
        }
    }

    pub(super) fn on_buried(&mut self, instance: Nonce) {
        self.burying.retain(|other| *other != instance);
        for cid in self.claims_of(instance) {
            // While the broker is away each new keeper comes by here; one question is enough.
            if self.runs.contains_key(&cid) || !self.asking.insert(cid) {
                continue;
            }
            tracing::debug!(%cid, "asking the register of a former keeper's claim");
            let nats = self.nats.clone();
            self.jobs.spawn_local(async move {
                let mut backoff = Backoff::new(FIRST_RETRY, LONGEST_RETRY);
                loop {
                    nats.connected().await;
                    match nats.read_register(cid).await {
                        Ok(found) => return Done::Ghost(cid, found),
                        Err(error) => tracing::debug!(%cid, %error, "register not read"),
                    }
                    sleep(backoff.delay()).await;
                }
            });
        }
    }

    /// Commands that were claimed and whose end is not known, with the keeper's life. A run that has ended and waits with
    /// its output is none of them: what it left on request is not ended with its keeper.
    pub(super) fn open_claims(&self) -> Vec<(CommandId, Nonce)> {
        let journal = self.journal.borrow();
        let is_open = |cid: &CommandId| self.runs.get(cid).is_none_or(Run::holds_slot);
        let open = journal.ledger().claims().filter(|(cid, ..)| is_open(cid));
        open.map(|(cid, _, claimed)| (cid, claimed.instance)).collect()
    }

    fn claims_of(&self, instance: Nonce) -> Vec<CommandId> {
        let open = self.open_claims().into_iter();
        open.filter(|(_, life)| *life == instance).map(|(cid, _)| cid).collect()
    }

    /// What stands in the register of a claim of a former keeper's life.
    pub(super) fn on_ghost(&mut self, cid: CommandId, register: Option<Message>) {
        self.asking.remove(&cid);
        if self.unwritten.contains_key(&cid) {
            // It is decided already, and only not written down.
            return;
        }
        let known_bytes = self.ghosts.remove(&cid).unwrap_or_default();
        let known = {
            let journal = self.journal.borrow();
            let ledger = journal.ledger();
            let claimed = ledger.claimed(cid);
            claimed.map(|claimed| {
                let nonce_sha256 = ledger.keeper(claimed.instance).map(|mark| mark.nonce_sha256);
                (claimed.instance, nonce_sha256, ledger.expires_at(cid))
            })
        };
        let Some((instance, nonce_sha256, expires_at)) = known else { return };
        let Some(register) = register else {
            return self.settle(cid, Entry::Unclaimed { cid });
        };
        let nonce = self.claimer().nonce_in(&register.payload, cid);
        match nonce.filter(|nonce| nonce_sha256 == Some(Sha256::of(&nonce.0))) {
            // It is made by this process, whatever became of the keeper; once more is as good as once.
            Some(nonce) if self.is_claimed_change(cid) => {
                self.change_after_all(cid, (nonce, instance), expires_at);
            }
            Some(nonce) => self.bring_out_lost(cid, (nonce, instance), expires_at, known_bytes),
            None => self.settle(cid, Entry::Decided { cid }),
        }
    }

    pub(super) fn is_claimed_change(&self, cid: CommandId) -> bool {
        self.claimed_work(cid).is_some_and(|work| work.spec.change.is_some())
    }

    pub(super) fn claimed_work(&self, cid: CommandId) -> Option<Work> {
        serde_json::from_str(&self.journal.borrow().ledger().claimed(cid)?.spec).ok()
    }

    /// Makes a change that was claimed in the life of a former keeper.
    fn change_after_all(&mut self, cid: CommandId, (nonce, instance): (Nonce, Nonce), expires_at: u64) {
        let run = Run {
            stage: Stage::Preparing { since: Instant::now(), _wanted: None },
            nonce,
            instance,
            expires_at,
            work: self.claimed_work(cid).map(Arc::new),
            backoff: Backoff::new(FIRST_RETRY, LONGEST_RETRY),
            is_cancelled: false,
            is_begun_told: false,
            status: None,
        };
        self.runs.insert(cid, run);
        self.change_later(cid);
    }

    pub(super) fn report_lost(
        &mut self,
        cid: CommandId,
        nonce: Nonce,
        expires_at: u64,
        known_bytes: [u64; 2],
    ) {
        let config = &self.identity.config;
        let lost = Lost {
            ws: config.ws.clone(),
            mid: config.mid.clone(),
            cid,
            nonce,
            reason: LostReason::KeeperGone,
            lost_at: unix_ms(),
            known_bytes,
        };
        tracing::warn!(%cid, "run lost with its keeper");
        self.counters.count("run_lost");
        if let Ok(signed) = Signed::sign(&lost, &self.identity.key) {
            let fact = FactMessage::new(cid, FactKind::Lost, &signed, "lost: keeper_gone".to_owned());
            self.report(Report::Lost, expires_at, fact);
        }
    }
}

/// Counter of a rejection.
fn rejected(reason: RejectReason) -> &'static str {
    match reason {
        RejectReason::Invalid => "offer_invalid",
        RejectReason::Misplaced => "offer_misplaced",
        RejectReason::Signature => "offer_signature",
        RejectReason::Forbidden => "offer_forbidden",
        RejectReason::Critical => "offer_critical",
        RejectReason::JournalFull => "offer_journal_full",
        RejectReason::BadRegister => "offer_bad_register",
    }
}
