//! Runs that a bridge claims and reports for relays which have no key of their own: those of the old contract.
//!
//! The register decides as everywhere. What the bridge writes names the assignment whose API key was brought, and only
//! that assignment can end the run: any bridge reads who it is, and with which nonce, from the register.

mod output;

use std::{sync::Arc, time::Duration};

use orion::util::secure_rand_bytes;
use signalbox_link::StoreError;
use signalbox_schemas::{
    command::CommandSpec,
    error::{ErrorCode, Problem, report},
    id::{CommandId, MachineToken, Nonce},
    limit::{EXPIRY_GRACE_MS, FACT_TEXT_BYTES, LOST_GRACE_MS, TIMEOUT_MS},
    mailbox::Position,
    run::{Claim, Exit, ExitState, RunError, RunFacts, RunState, Start, StreamSummary, Via},
    signed::{Message, Signed},
    stream::{CMD, RUN},
    subject::{FactKind, Subject},
};
use tokio::time::{Instant, sleep};
use tracing::{debug, warn};

use super::{Api, OWN_WRITE, now_ms, store_problem};
use crate::{ingest::apply_fact, view::Cursors};

/// How long a claim is tried while the broker does not answer: whoever asks waits for it.
const CLAIM_FOR: Duration = Duration::from_secs(10);
/// How long a result is tried: old relays send it once.
const RESULT_FOR: Duration = Duration::from_mins(1);
/// Pause between two tries.
const PAUSE: Duration = Duration::from_millis(100);

/// What became of a claim.
#[derive(Debug, Clone)]
pub(crate) enum Claimed {
    /// The run is the caller's.
    Won(Arc<CommandSpec>),
    /// There is such a run, and it is not to be had.
    NotPending,
    /// There is no such run for this machine.
    NotFound,
}

/// How a run ended, in the words of the old contract.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Ended {
    pub(crate) success: bool,
    pub(crate) output: String,
    pub(crate) stderr: String,
    pub(crate) exit_code: Option<i64>,
    pub(crate) error: Option<String>,
    pub(crate) duration_ms: u64,
}

/// What the old contract says of a run that took too long.
const TIMED_OUT: &str = "Command timed out";

/// Claims a run for the relay of an assignment. Of any number of claimers, on any number of bridges, one wins.
///
/// # Errors
/// `not_caught_up`; `not_accepted` when the broker did not say what stands in the register: the run may have been claimed,
/// and is lost then once its time is over.
pub(crate) async fn claim(
    api: &Api,
    assignment: &str,
    mid: &MachineToken,
    cid: CommandId,
) -> Result<Claimed, Problem> {
    let mut standing = api.view().standing(cid, mid, now_ms());
    if standing.is_none() && api.view().command_text(cid).map_err(|error| store_problem(&error))?.is_none() {
        // Listed by a bridge that has read further.
        api.read_through(CMD).await?;
        standing = api.view().standing(cid, mid, now_ms());
    }
    let Some(standing) = standing else {
        // Known, but settled everywhere or for others.
        let run = api.view().run(cid, mid).map_err(|error| store_problem(&error))?;
        return Ok(if run.is_some() { Claimed::NotPending } else { Claimed::NotFound });
    };
    if !standing.waits {
        return Ok(Claimed::NotPending);
    }
    let mut nonce = [0; 16];
    secure_rand_bytes(&mut nonce).map_err(|error| unsaid(cid, &error))?;
    let claim = Claim {
        ws: api.ws().clone(),
        mid: mid.clone(),
        cid,
        nonce: Nonce(nonce),
        claimed_at: now_ms(),
        via: Some(Via::Legacy(assignment.to_owned())),
    };
    let is_mine = |body: &[u8]| {
        let found = Signed::<Claim>::from_json(body).and_then(|signed| signed.peek());
        found.is_ok_and(|found| found == claim)
    };
    // Nobody waits for its start any longer than that.
    let over = standing.spec.expires_at.saturating_add(EXPIRY_GRACE_MS);
    let within = CLAIM_FOR.min(Duration::from_millis(over.saturating_sub(now_ms())));
    if !store_once(api, mid, cid, FactKind::Claim, &claim, within, is_mine).await? {
        return Ok(Claimed::NotPending);
    }
    if now_ms() <= over {
        return Ok(Claimed::Won(standing.spec));
    }
    // Its acknowledgement took too long: it is the caller's, and must not begin.
    let exit = expired(claim);
    store_once(api, mid, cid, FactKind::Exit, &exit, RESULT_FOR, |_| true).await?;
    Ok(Claimed::NotPending)
}

/// The end of a run that was claimed too late to begin.
fn expired(claim: Claim) -> Exit {
    let message = "it was claimed after it had expired, and did not start".to_owned();
    Exit {
        ws: claim.ws,
        mid: claim.mid,
        cid: claim.cid,
        nonce: claim.nonce,
        state: ExitState::Failed,
        exit_code: None,
        signal: None,
        error: Some(RunError { code: "expired".to_owned(), message }),
        started_at: now_ms(),
        duration_ms: 0,
        group_dead: true,
        stdout: StreamSummary::empty(),
        stderr: StreamSummary::empty(),
        chunks: 0,
        inline: None,
        via: claim.via,
    }
}

/// Says that a run has begun, for the relay of the assignment that has claimed it. Answers whether it is that one's; said
/// again, or of a run that has its end already, it changes nothing.
///
/// # Errors
/// `not_caught_up`; `not_accepted` when the broker did not acknowledge it: try again.
pub(crate) async fn start(
    api: &Api,
    assignment: &str,
    mid: &MachineToken,
    cid: CommandId,
) -> Result<bool, Problem> {
    let Some(nonce) = claimed_by(api, assignment, mid, cid).await? else { return Ok(false) };
    if facts(api, mid, cid)?.1.is_settled() {
        return Ok(true);
    }
    let via = Some(Via::Legacy(assignment.to_owned()));
    let start = Start { ws: api.ws().clone(), mid: mid.clone(), cid, nonce, started_at: now_ms(), via };
    // The first one counts, and no state depends on it.
    store_once(api, mid, cid, FactKind::Start, &start, CLAIM_FOR, |_| true).await
}

/// Ends a run for the relay of the assignment that has claimed it. Answers whether the result counts: not if it was
/// claimed by somebody else or by nobody. The result of a run that has its end already changes nothing.
///
/// # Errors
/// `not_caught_up`; `not_accepted` when the broker did not acknowledge it: try again.
pub(crate) async fn complete(
    api: &Api,
    assignment: &str,
    mid: &MachineToken,
    cid: CommandId,
    ended: Ended,
) -> Result<bool, Problem> {
    let Some(nonce) = claimed_by_at_last(api, assignment, mid, cid).await? else { return Ok(false) };
    // One result after the other: the output of two must not be mixed.
    let _turn = api.results.of(&(cid, mid)).await;
    let (facts, _) = facts(api, mid, cid)?;
    if facts.exit().is_some() {
        return Ok(true);
    }
    let spec = api.view().command_text(cid).map_err(|error| store_problem(&error))?;
    let Some(spec) = spec else { return Ok(false) };
    let deadline = Instant::now() + RESULT_FOR;
    let place = output::Place { mid, cid };
    let texts = [ended.output.as_bytes(), ended.stderr.as_bytes()];
    let written = output::write(api, place, texts, spec.max_output, deadline).await;
    let written = written.map_err(|error| unsaid(cid, &error))?;
    let (state, exit_code, error) = outcome(&ended);
    let [stdout, stderr] = written.summaries;
    let exit = Exit {
        ws: api.ws().clone(),
        mid: mid.clone(),
        cid,
        nonce,
        state,
        exit_code,
        signal: None,
        error,
        started_at: now_ms().saturating_sub(ended.duration_ms),
        duration_ms: ended.duration_ms.min(TIMEOUT_MS.end().saturating_add(LOST_GRACE_MS)),
        // Old relays leave running what a time-out has not reached.
        group_dead: state != ExitState::Timeout,
        stdout,
        stderr,
        chunks: written.chunks,
        inline: written.inline,
        via: Some(Via::Legacy(assignment.to_owned())),
    };
    // Whatever exit counts is this claimer's.
    store_once(api, mid, cid, FactKind::Exit, &exit, RESULT_FOR, |_| true).await
}

/// The nonce of the run, if this assignment has claimed it.
async fn claimed_by(
    api: &Api,
    assignment: &str,
    mid: &MachineToken,
    cid: CommandId,
) -> Result<Option<Nonce>, Problem> {
    let nonce = |facts: &RunFacts| {
        let is_its = facts.via() == Some(&Via::Legacy(assignment.to_owned()));
        facts.claim().map(|(nonce, _)| nonce).filter(|_| is_its)
    };
    if let Some(nonce) = nonce(&facts(api, mid, cid)?.0) {
        return Ok(Some(nonce));
    }
    // Claimed through a bridge that has read further.
    api.read_through(RUN).await?;
    Ok(nonce(&facts(api, mid, cid)?.0))
}

/// The same, asked for as long as this bridge has not read enough to tell: a result is sent once.
async fn claimed_by_at_last(
    api: &Api,
    assignment: &str,
    mid: &MachineToken,
    cid: CommandId,
) -> Result<Option<Nonce>, Problem> {
    let deadline = Instant::now() + RESULT_FOR;
    loop {
        match claimed_by(api, assignment, mid, cid).await {
            Err(problem) if problem.code == ErrorCode::NotCaughtUp && Instant::now() < deadline => {
                api.count("legacy", "result_unread");
                sleep(PAUSE).await;
            }
            told => return told,
        }
    }
}

fn facts(api: &Api, mid: &MachineToken, cid: CommandId) -> Result<(RunFacts, RunState), Problem> {
    api.view().run_facts(cid, mid).map_err(|error| store_problem(&error))
}

/// What the old contract's result amounts to. `completed` is exit code 0 and nothing else.
fn outcome(ended: &Ended) -> (ExitState, Option<i32>, Option<RunError>) {
    let code =
        ended.exit_code.and_then(|code| i32::try_from(code).ok()).filter(|code| (0..=255).contains(code));
    let error = |code: &str, message: &str| {
        let end = message.floor_char_boundary(FACT_TEXT_BYTES);
        Some(RunError { code: code.to_owned(), message: message.get(..end).unwrap_or_default().to_owned() })
    };
    match &ended.error {
        Some(text) if text == TIMED_OUT && !ended.success => {
            (ExitState::Timeout, code, error("timeout", text))
        }
        Some(text) if !text.is_empty() => (ExitState::Failed, code, error("relay_error", text)),
        _ if ended.success && matches!(ended.exit_code, None | Some(0)) => {
            (ExitState::Completed, Some(0), None)
        }
        _ if code.is_some_and(|code| code != 0) => (ExitState::Failed, code, None),
        _ if matches!(ended.exit_code, None | Some(0)) => {
            let message = "it did not succeed, and its relay names no exit code; a signal may have ended it";
            (ExitState::Failed, None, error("no_exit_code", message))
        }
        _ => {
            let message = format!("its relay names the exit code {}", ended.exit_code.unwrap_or_default());
            (ExitState::Failed, None, error("exit_code", &message))
        }
    }
}

/// Writes a fact as the first of its subject, for as long as `within` while the broker does not answer, and waits a moment
/// for it to be readable here. Answers whether it, or another one that `is_mine`, stands there.
async fn store_once<T: Message>(
    api: &Api,
    mid: &MachineToken,
    cid: CommandId,
    kind: FactKind,
    fact: &T,
    within: Duration,
    is_mine: impl Fn(&[u8]) -> bool,
) -> Result<bool, Problem> {
    let deadline = Instant::now() + within;
    loop {
        let error = match api.broker.store_fact(mid, cid, kind, fact, "legacy").await {
            Ok(stored) => {
                let created = api.view().cursors().get(RUN).created;
                let at = Cursors::of(RUN, Position { created, sequence: stored.sequence });
                // Not read in time is no failure: it is stored.
                let _ = api.view().reached(&at, OWN_WRITE).await;
                return Ok(true);
            }
            Err(error) => error,
        };
        if let StoreError::Taken { .. } | StoreError::Unanswered { .. } = error
            && let Some(stands) = read_back(api, mid, cid, kind, &is_mine).await?
        {
            if kind != FactKind::Exit || facts(api, mid, cid)?.0.exit().is_some() {
                return Ok(stands.is_mine);
            }
            // A relay with a login wrote what is no end of this run: it must not stand in the way of the one that is.
            remove_foreign(api, mid, cid, stands.sequence).await;
        }
        let is_passing =
            matches!(error, StoreError::Taken { .. } | StoreError::Unanswered { .. } | StoreError::Full);
        if !is_passing || Instant::now() >= deadline {
            return Err(unsaid(cid, &error));
        }
        debug!(command = %cid, machine = %mid, kind = kind.as_str(), error = report(&error), "not stored yet");
        sleep(PAUSE).await;
    }
}

/// Removes a message, and nothing else that may stand on its subject by now: another bridge may have removed it before, and
/// stored the exit that counts.
async fn remove_foreign(api: &Api, mid: &MachineToken, cid: CommandId, sequence: u64) {
    let removed = api.link().delete_message(RUN, sequence).await;
    api.count("legacy", "foreign_exit");
    warn!(command = %cid, machine = %mid, sequence, removed = removed.is_ok(), "foreign exit removed");
}

/// What stands on a fact's subject.
struct Stands {
    is_mine: bool,
    /// Its place in RUN.
    sequence: u64,
}

/// Whether what stands on a fact's subject is ours; `None` when nothing stands there or the broker does not say.
async fn read_back(
    api: &Api,
    mid: &MachineToken,
    cid: CommandId,
    kind: FactKind,
    is_mine: impl Fn(&[u8]) -> bool,
) -> Result<Option<Stands>, Problem> {
    let subject = Subject::Run(api.ws().clone(), mid.clone(), cid, kind).to_string();
    let Ok(Some(message)) = api.broker.last(RUN, &subject).await else { return Ok(None) };
    let stands = Stands { is_mine: is_mine(&message.payload), sequence: message.sequence };
    // Known at once, so that the next list does not offer it again.
    apply_fact(api.view().shared(), message).await.map_err(|error| unsaid(cid, &error))?;
    Ok(Some(stands))
}

fn unsaid(cid: CommandId, error: &dyn std::error::Error) -> Problem {
    warn!(command = %cid, error = report(error), "a fact of an old relay's run was not stored for sure");
    let message =
        format!("cannot store what was said of command {cid}: the broker did not acknowledge it; try again");
    Problem::new(ErrorCode::NotAccepted, message)
}

#[cfg(test)]
mod tests;
