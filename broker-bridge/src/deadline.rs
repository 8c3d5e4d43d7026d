//! Decides what nobody else decides in time: offers that expire or were cancelled, claims without an exit, and offers to
//! relays without a key whose grant is not to be believed.
//!
//! The register decides as everywhere: a withdrawal is written only as the first message there, and a claim
//! that was faster wins. Only the holder of the lease does this, once it has read the streams.

use std::{ops::ControlFlow, time::Duration};

use signalbox_link::StoreError;
use signalbox_schemas::{
    error::report,
    id::{CommandId, MachineToken, Nonce},
    limit,
    run::{Lost, LostReason, Rejection, WithdrawReason, Withdrawal},
    stream::{DOC, RUN, STATE},
    subject::{FactKind, Subject},
};
use tokio::{task::JoinSet, time::sleep};
use tracing::{debug, info, warn};

use crate::{
    core::{Context, CoreError, now_ms},
    ingest::{FOLLOWED, apply_fact, read_to_end},
    projection::{
        grant::{Fault, Verdict},
        output::Received,
    },
    store::key,
};

/// Decisions under way at once: a command to 10,000 machines that expires takes some hundreds of milliseconds.
const IN_FLIGHT: usize = 64;
/// When a decision is tried again, if nothing has come of it, ms.
const AGAIN_MS: u64 = 5_000;
/// How often in a row a decision is tried against somebody who is always first.
const TRIES: u32 = 8;
/// Longest sleep: clocks are set, and machines sleep.
const LONGEST: Duration = Duration::from_secs(30);

/// What is due about one run.
struct Due {
    cid: CommandId,
    mid: MachineToken,
    decision: Decision,
}

enum Decision {
    Judge,
    Withdraw(WithdrawReason),
    Lose(Nonce),
}

/// Keeps deadlines whenever this bridge holds the lease, until told to stop.
pub(crate) async fn run(context: Context) -> Result<(), CoreError> {
    let mut lease = context.lease.clone();
    let mut caught_up = context.shared.caught_up.subscribe();
    let stop = context.stop.clone();
    let work = async {
        loop {
            let Ok(epoch) = lease.wait_for(Option::is_some).await.map(|epoch| *epoch) else { return Ok(()) };
            let Some(epoch) = epoch else { continue };
            if caught_up.wait_for(|is| *is).await.is_err() {
                return Ok(());
            }
            read_to_end(&context.shared, &FOLLOWED).await;
            info!(epoch = epoch.0, "keeping deadlines");
            tokio::select! {
                ended = keep(&context, JoinSet::new()) => return ended,
                _ = lease.wait_for(|held| *held != Some(epoch)) => {}
            }
        }
    };
    tokio::select! {
        () = stop.cancelled() => Ok(()),
        ended = work => ended,
    }
}

/// Decides what is due, for ever.
///
/// # Errors
/// When a decision panicked, or a fact could not be applied: memory may be wrong then, and nothing is decided by it.
async fn keep(context: &Context, mut decisions: JoinSet<Result<(), CoreError>>) -> Result<(), CoreError> {
    loop {
        while decisions.len() < IN_FLIGHT {
            let Some(due) = take_due(context) else { break };
            let context = context.clone();
            decisions.spawn(async move { decide(&context, due).await });
        }
        let next = context.shared.memory().deadlines.first().map(|(at, _, _)| *at);
        let wait = next.map_or(LONGEST, |at| Duration::from_millis(at.saturating_sub(now_ms())).min(LONGEST));
        tokio::select! {
            () = context.shared.deadline.notified() => {}
            Some(ended) = decisions.join_next() => ended.unwrap_or(Err(CoreError::Ended("decision")))?,
            () = sleep(wait), if decisions.len() < IN_FLIGHT => {}
        }
    }
}

/// Takes the earliest run that is due, and puts it off until its decision should have been read.
fn take_due(context: &Context) -> Option<Due> {
    let now = now_ms();
    let mut memory = context.shared.memory_mut();
    let (at, cid, mid) = memory.deadlines.first().cloned()?;
    if at > now {
        return None;
    }
    let decision = memory.open.get(&cid).and_then(|command| {
        let run = command.runs.get(&mid)?;
        let expiry = command.spec.expires_at.saturating_add(limit::EXPIRY_GRACE_MS);
        Some(match run.claim {
            Some((nonce, _)) => (Decision::Lose(nonce), now + AGAIN_MS),
            None if command.is_withdrawn() => (Decision::Withdraw(WithdrawReason::Cancelled), now + AGAIN_MS),
            None if expiry > now => (Decision::Judge, expiry),
            None => (Decision::Withdraw(WithdrawReason::Expired), now + AGAIN_MS),
        })
    });
    memory.put_off(cid, &mid, decision.as_ref().map_or(now + AGAIN_MS, |(_, again)| *again));
    let Some((decision, _)) = decision else {
        memory.deadlines.remove(&(at, cid, mid));
        return None;
    };
    Some(Due { cid, mid, decision })
}

async fn decide(context: &Context, due: Due) -> Result<(), CoreError> {
    for _ in 0..TRIES {
        if decide_once(context, &due).await?.is_break() {
            break;
        }
    }
    Ok(())
}

/// Breaks when there is nothing more to do just now.
async fn decide_once(context: &Context, due: &Due) -> Result<ControlFlow<()>, CoreError> {
    let Due { cid, mid, decision } = due;
    let (cid, ws) = (*cid, context.broker.ws().clone());
    let (kind, stored) = match *decision {
        Decision::Withdraw(reason) => {
            let fact = Withdrawal { ws, mid: mid.clone(), cid, reason, withdrawn_at: now_ms() };
            let summary = match reason {
                WithdrawReason::Expired => "expired",
                WithdrawReason::Cancelled => "cancelled",
            };
            (FactKind::Claim, context.broker.store_fact(mid, cid, FactKind::Claim, &fact, summary).await)
        }
        Decision::Judge => {
            let Some(Fault { reason, message }) = refused(context, cid, mid).await else {
                return Ok(ControlFlow::Break(()));
            };
            let fact = Rejection { ws, mid: mid.clone(), cid, reason, message, rejected_at: now_ms() };
            (
                FactKind::Claim,
                context.broker.store_fact(mid, cid, FactKind::Claim, &fact, reason.as_str()).await,
            )
        }
        Decision::Lose(nonce) => {
            let known_bytes = known_bytes(context, cid, mid);
            let (reason, lost_at) = (LostReason::Deadline, now_ms());
            let fact = Lost { ws, mid: mid.clone(), cid, nonce, reason, lost_at, known_bytes };
            (FactKind::Lost, context.broker.store_fact(mid, cid, FactKind::Lost, &fact, "deadline").await)
        }
    };
    match stored {
        Ok(_) => info!(command = %cid, machine = %mid, kind = kind.as_str(), "decided what was due"),
        Err(StoreError::Taken { .. }) => return read_on(context, cid, mid, kind).await,
        // It stays due, and is tried again.
        Err(error) => {
            let count = context.shared.counters.add("deadline.unwritten");
            if count.is_power_of_two() {
                warn!(command = %cid, machine = %mid, count, error = report(&error), "deadline was not written");
            }
        }
    }
    Ok(ControlFlow::Break(()))
}

/// Why a run is to be rejected in the name of a relay that has no key, and would be by one that has. It is looked at again
/// until it is settled.
async fn refused(context: &Context, cid: CommandId, mid: &MachineToken) -> Option<Fault> {
    let judge = || {
        let memory = context.shared.memory();
        let command = memory.open.get(&cid)?;
        let keyless = memory.machines.get(mid).is_some_and(|machine| machine.record.keys.is_none());
        match memory.verdict(command, mid, now_ms()) {
            Verdict::Refused(fault) if keyless && !command.is_held(mid) => Some(fault),
            _ => None,
        }
    };
    judge()?;
    // What is written is for good, and an author may have been added that was not read of yet.
    read_to_end(&context.shared, &[DOC, STATE]).await;
    let fault = judge()?;
    context.shared.memory_mut().put_off(cid, mid, now_ms() + AGAIN_MS);
    context.shared.counters.add("grant.refused");
    Some(fault)
}

/// Somebody was first. Usually that is on its way to the projection, or was applied already; but it is made
/// sure, for nothing else would ever end this run. Goes on when what stood there was removed: then the place is taken
/// at once, before a hostile relay writes there again.
async fn read_on(
    context: &Context,
    cid: CommandId,
    mid: &MachineToken,
    kind: FactKind,
) -> Result<ControlFlow<()>, CoreError> {
    debug!(command = %cid, machine = %mid, kind = kind.as_str(), "somebody was first");
    let subject = Subject::Run(context.broker.ws().clone(), mid.clone(), cid, kind).to_string();
    let sequence = match context.broker.last(RUN, &subject).await {
        Ok(Some(message)) => {
            let sequence = message.sequence;
            apply_fact(&context.shared, message).await?;
            sequence
        }
        Ok(None) => return Ok(ControlFlow::Continue(())),
        Err(error) => {
            warn!(command = %cid, machine = %mid, error = report(&error), "register cannot be read");
            return Ok(ControlFlow::Break(()));
        }
    };
    let still_claimed = {
        let memory = context.shared.memory();
        let run = memory.open.get(&cid).and_then(|command| command.runs.get(mid));
        run.is_some_and(|run| run.state.is_running())
    };
    if kind == FactKind::Lost && still_claimed {
        // What stands there is not the claimer's: it says nothing, and must not keep the run open for ever.
        remove_foreign(context, cid, mid, sequence).await;
        return Ok(ControlFlow::Continue(()));
    }
    Ok(ControlFlow::Break(()))
}

/// Removes a message, and nothing else that may stand on its subject by now: whoever held the lease before may have removed
/// it already, and said there what counts.
async fn remove_foreign(context: &Context, cid: CommandId, mid: &MachineToken, sequence: u64) {
    context.shared.counters.add("lost.foreign");
    let removed = context.broker.link().delete_message(RUN, sequence).await;
    warn!(command = %cid, machine = %mid, sequence, removed = removed.is_ok(), "foreign `lost` removed");
}

fn known_bytes(context: &Context, cid: CommandId, mid: &MachineToken) -> [u64; 2] {
    let row = context.shared.store.get(&key::received(cid, mid)).ok().flatten();
    row.and_then(|row| Received::parse(&row)).unwrap_or_default().bytes
}

/// The bridge withdraws an offer this long after `expires_at`, when relays have long been silent.
const _: () = assert!(limit::EXPIRY_GRACE_MS < AGAIN_MS);

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;
    use crate::core::still::Still;

    #[tokio::test]
    async fn what_stands_where_a_foreign_lost_stood_is_left_alone() {
        let stage = crate::stage::Stage::start().await;
        let (context, cid, mid) = (&stage.still.context, stage.id, &stage.mid);
        let subject = Subject::Run(context.broker.ws().clone(), mid.clone(), cid, FactKind::Lost).to_string();
        let store = |body: &'static str| {
            let message = signalbox_link::Store::new(subject.clone(), body).only_first();
            async move { context.broker.link().store(message).await.unwrap().sequence }
        };
        let last =
            || async { context.broker.last(RUN, &subject).await.unwrap().map(|message| message.sequence) };
        let foreign = store("foreign").await;
        remove_foreign(context, cid, mid, foreign).await;
        assert_eq!(last().await, None);
        let good = store("good").await;
        remove_foreign(context, cid, mid, foreign).await;
        assert_eq!(last().await, Some(good));
    }

    #[tokio::test]
    async fn a_decision_that_panics_ends_the_core() {
        let still = Still::start().await.unwrap();
        let mut decisions = JoinSet::new();
        decisions.spawn(async { panic!("on purpose") });
        let ended = timeout(Duration::from_secs(5), keep(&still.context, decisions)).await.unwrap();
        assert!(matches!(ended, Err(CoreError::Ended(_))), "{ended:?}");
    }
}
