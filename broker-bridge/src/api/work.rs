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
    if standing.is_none() && api.view().command_spec(cid).map_err(|error| store_problem(&error))?.is_none() {
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
    let Some(nonce) = claimed_by(api, assignment, mid, cid).await? else { return Ok(false) };
    // One result after the other: the output of two must not be mixed.
    let _turn = api.turn(&(cid, mid)).await;
    let (facts, _) = facts(api, mid, cid)?;
    if facts.exit().is_some() {
        return Ok(true);
    }
    let stored = api.view().command_spec(cid).map_err(|error| store_problem(&error))?;
    let Some(stored) = stored else { return Ok(false) };
    let deadline = Instant::now() + RESULT_FOR;
    let place = output::Place { mid, cid };
    let texts = [ended.output.as_bytes(), ended.stderr.as_bytes()];
    let written = output::write(api, place, texts, stored.spec.max_output, deadline).await;
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
            && let Some(mine) = read_back(api, mid, cid, kind, &is_mine).await?
        {
            if kind != FactKind::Exit || facts(api, mid, cid)?.0.exit().is_some() {
                return Ok(mine);
            }
            // A relay with a login wrote what is no end of this run: it must not stand in the way of the one that is.
            remove_foreign(api, mid, cid, kind).await;
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

async fn remove_foreign(api: &Api, mid: &MachineToken, cid: CommandId, kind: FactKind) {
    let subject = Subject::Run(api.ws().clone(), mid.clone(), cid, kind).to_string();
    let purged = api.link().purge_subject(RUN, &subject).await;
    api.count("legacy", "foreign_exit");
    warn!(command = %cid, machine = %mid, purged = purged.is_ok(), "foreign exit removed");
}

/// Whether what stands on a fact's subject is ours; `None` when nothing stands there or the broker does not say.
async fn read_back(
    api: &Api,
    mid: &MachineToken,
    cid: CommandId,
    kind: FactKind,
    is_mine: impl Fn(&[u8]) -> bool,
) -> Result<Option<bool>, Problem> {
    let subject = Subject::Run(api.ws().clone(), mid.clone(), cid, kind).to_string();
    let Ok(Some(message)) = api.broker.last(RUN, &subject).await else { return Ok(None) };
    let mine = is_mine(&message.payload);
    // Known at once, so that the next list does not offer it again.
    apply_fact(api.view().shared(), message).await.map_err(|error| unsaid(cid, &error))?;
    Ok(Some(mine))
}

fn unsaid(cid: CommandId, error: &dyn std::error::Error) -> Problem {
    warn!(command = %cid, error = report(error), "a fact of an old relay's run was not stored for sure");
    let message =
        format!("cannot store what was said of command {cid}: the broker did not acknowledge it; try again");
    Problem::new(ErrorCode::NotAccepted, message)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn exit(state: ExitState, exit_code: Option<i32>, error: Option<RunError>) -> Exit {
        Exit {
            ws: signalbox_schemas::id::Workspace::main(),
            mid: MachineToken::new("a").unwrap(),
            cid: "0193a2b4-0000-7000-8000-000000000000".parse().unwrap(),
            nonce: Nonce([0; 16]),
            state,
            exit_code,
            signal: None,
            error,
            started_at: 0,
            duration_ms: 0,
            group_dead: true,
            stdout: signalbox_schemas::run::StreamSummary::empty(),
            stderr: signalbox_schemas::run::StreamSummary::empty(),
            chunks: 0,
            inline: None,
            via: None,
        }
    }

    fn ended(success: bool, exit_code: Option<i64>, error: Option<&str>) -> Ended {
        Ended { success, exit_code, error: error.map(str::to_owned), ..Ended::default() }
    }

    #[rstest]
    #[case(ended(true, Some(0), None), ExitState::Completed, Some(0), None)]
    #[case(ended(true, None, None), ExitState::Completed, Some(0), None)]
    #[case(ended(true, Some(0), Some("")), ExitState::Completed, Some(0), None)]
    #[case(ended(false, Some(42), None), ExitState::Failed, Some(42), None)]
    // The old contract would call it completed.
    #[case(ended(true, Some(3), None), ExitState::Failed, Some(3), None)]
    #[case(ended(false, Some(0), None), ExitState::Failed, None, Some("no_exit_code"))]
    #[case(ended(false, None, None), ExitState::Failed, None, Some("no_exit_code"))]
    #[case(ended(false, Some(-1), None), ExitState::Failed, None, Some("exit_code"))]
    #[case(ended(false, Some(100_000), None), ExitState::Failed, None, Some("exit_code"))]
    #[case(ended(false, Some(-1), Some(TIMED_OUT)), ExitState::Timeout, None, Some("timeout"))]
    #[case(ended(true, Some(0), Some(TIMED_OUT)), ExitState::Failed, Some(0), Some("relay_error"))]
    #[case(ended(false, Some(-1), Some("no key")), ExitState::Failed, None, Some("relay_error"))]
    #[case(ended(false, Some(137), Some("Killed")), ExitState::Failed, Some(137), Some("relay_error"))]
    fn a_result_has_one_meaning_and_the_fold_takes_it(
        #[case] result: Ended,
        #[case] state: ExitState,
        #[case] code: Option<i32>,
        #[case] error: Option<&str>,
    ) {
        let (found, found_code, found_error) = outcome(&result);
        assert_eq!((found, found_code), (state, code));
        assert_eq!(found_error.as_ref().map(|error| error.code.as_str()), error);
        let exit = exit(found, found_code, found_error);
        assert!(exit.is_consistent(), "{exit:?}");
    }

    #[test]
    fn a_long_error_is_cut_between_characters() {
        let (_, _, error) = outcome(&ended(false, None, Some(&"é".repeat(1_000))));
        assert_eq!(error.unwrap().message, "é".repeat(256));
    }
}
