//! What results mean, and what becomes of those that wait or find something foreign.

use rstest::rstest;
use signalbox_schemas::{
    record::{MachineRecord, table},
    run::{Fact, Register},
};
use signalbox_testkit::eventually;
use tokio::{task::JoinSet, time::timeout};

use super::*;
use crate::{
    api::turns::Turns,
    projection::RunRow,
    stage::{CID, Stage},
    store::{Txn, key},
};

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

/// The run of a stage, claimed for this assignment.
fn claim_for(stage: &Stage, assignment: &str) {
    let mut facts = RunFacts::default();
    let via = Some(Via::Legacy(assignment.to_owned()));
    facts.apply(1, Fact::Register(Register::Claimed { nonce: Nonce([1; 16]), stored_at: 1, via }));
    let mut txn = Txn::new(&stage.still.context.shared.store);
    txn.put(key::run(stage.id, &stage.mid), RunRow::told(facts).to_bytes());
    txn.commit().unwrap();
}

/// RUN was read from its beginning up to this sequence.
async fn run_was_read_to(stage: &Stage, sequence: u64) {
    let created = stage.api.link().stream_state(RUN).await.unwrap().created_ms;
    let at = Position { created, sequence };
    stage.still.context.shared.cursors.send_modify(|cursors| cursors.set(RUN, at));
}

async fn last(stage: &Stage, kind: FactKind) -> Option<signalbox_link::Message> {
    let subject = Subject::Run(stage.api.ws().clone(), stage.mid.clone(), stage.id, kind).to_string();
    stage.api.broker.last(RUN, &subject).await.unwrap()
}

#[tokio::test]
async fn a_result_waits_until_its_claim_is_read() {
    let stage = Stage::start().await;
    // The claim stands there, and was not read.
    let claim =
        Subject::Run(stage.api.ws().clone(), stage.mid.clone(), stage.id, FactKind::Claim).to_string();
    let claimed = stage.api.link().store(signalbox_link::Store::new(claim, "claim")).await.unwrap();
    run_was_read_to(&stage, claimed.sequence - 1).await;
    let (api, mid) = (Arc::clone(&stage.api), stage.mid.clone());
    let mut completing = JoinSet::new();
    completing.spawn(async move {
        complete(&api, "a", &mid, CID.parse().unwrap(), ended(true, Some(0), None)).await
    });
    eventually("it is not known whose the run is", || async {
        let counted = stage.api.counters().contains_key("legacy.result_unread");
        anyhow::ensure!(counted);
        Ok(())
    })
    .await
    .unwrap();
    claim_for(&stage, "a");
    run_was_read_to(&stage, claimed.sequence).await;
    assert_eq!(completing.join_next().await.unwrap().unwrap(), Ok(true));
    assert!(last(&stage, FactKind::Exit).await.is_some());
}

#[tokio::test]
async fn results_and_records_and_submits_do_not_wait_for_each_other() {
    let stage = Stage::start().await;
    claim_for(&stage, "a");
    {
        let _others = (all(&stage.api.edits).await, all(&stage.api.submits).await);
        let result = complete(&stage.api, "a", &stage.mid, stage.id, ended(true, Some(0), None));
        assert_eq!(timeout(Duration::from_secs(10), result).await.unwrap(), Ok(true));
    }
    let _results = all(&stage.api.results).await;
    let edit = stage.api.edit::<MachineRecord>("bridge:b1", "edit", table::MACHINES, "web-1", |_| None);
    assert_eq!(edit.await.unwrap().0, None);
    assert!(timeout(Duration::from_secs(10), stage.api.submits.of(&stage.id)).await.is_ok());
}

/// Every turn of a set.
async fn all(turns: &Turns) -> Vec<tokio::sync::MutexGuard<'_, ()>> {
    let mut held = Vec::new();
    for lock in &turns.0 {
        held.push(lock.lock().await);
    }
    held
}

#[tokio::test]
async fn what_stands_where_a_foreign_exit_stood_is_left_alone() {
    let stage = Stage::start().await;
    let subject =
        Subject::Run(stage.api.ws().clone(), stage.mid.clone(), stage.id, FactKind::Exit).to_string();
    let store = |body: &'static str| {
        let message = signalbox_link::Store::new(subject.clone(), body).only_first();
        let link = stage.api.link().clone();
        async move { link.store(message).await.unwrap().sequence }
    };
    let foreign = store("foreign").await;
    remove_foreign(&stage.api, &stage.mid, stage.id, foreign).await;
    assert!(last(&stage, FactKind::Exit).await.is_none());
    let good = store("good").await;
    // A bridge that read the foreign one before is late.
    remove_foreign(&stage.api, &stage.mid, stage.id, foreign).await;
    assert_eq!(last(&stage, FactKind::Exit).await.map(|message| message.sequence), Some(good));
}

#[test]
fn a_long_error_is_cut_between_characters() {
    let (_, _, error) = outcome(&ended(false, None, Some(&"é".repeat(1_000))));
    assert_eq!(error.unwrap().message, "é".repeat(256));
}
