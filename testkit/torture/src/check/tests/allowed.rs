//! What looks odd and is as promised.

use rstest::rstest;
use signalbox_schemas::{
    command::CommandSpec,
    output::OutputStream,
    rollout::Rollout,
    run::{Exit, ExitState, LostReason, RunError, WithdrawReason},
};

use super::bench::{BEGIN, Bench, HEALED, blank_exit, cid};
use crate::{
    check::violations,
    fault::{Fault, Part},
    observed::Head,
    plan::{Harm, Work},
    script,
    told::{Piece, SlowRead, Word},
};

#[rstest]
#[case::a_lost_run_that_did_not_start(|bench: &mut Bench| bench.unmark('S', 8, 0))]
#[case::a_lost_run_that_ran_to_its_end(|bench: &mut Bench| bench.mark('E', 8, 0, BEGIN + 900))]
#[case::a_lost_run_whose_exit_came_after_all(|bench: &mut Bench| {
    bench.command(12, &Work::Nothing, &[1]);
    bench.claim(12, 1, BEGIN + 100);
    bench.lost(12, 1, LostReason::Deadline, BEGIN + 2_000);
    bench.mark('S', 12, 1, BEGIN + 110);
    bench.mark('E', 12, 1, BEGIN + 120);
    bench.exit(1, &blank_exit(12, 1, &Work::Nothing));
})]
#[case::a_run_cancelled_between_its_last_deed_and_its_end(|bench: &mut Bench| {
    let ended = Exit { state: ExitState::Cancelled, exit_code: Some(0), ..blank_exit(12, 0, &Work::Wait(9)) };
    bench.run_to(12, &Work::Wait(9), 0, &ended, "SE");
    bench.cancel(12, BEGIN + 150);
})]
#[case::a_run_cancelled_before_its_first_deed(|bench: &mut Bench| {
    let ended = Exit { state: ExitState::Cancelled, exit_code: None, signal: Some("SIGTERM".to_owned()), ..blank_exit(12, 0, &Work::Wait(9)) };
    bench.run_to(12, &Work::Wait(9), 0, &ended, "");
    bench.cancel(12, BEGIN + 150);
})]
#[case::a_claim_that_was_answered_too_late(|bench: &mut Bench| {
    let error = Some(RunError { code: "expired".to_owned(), message: String::new() });
    let failed = Exit { state: ExitState::Failed, exit_code: None, error, ..blank_exit(12, 1, &Work::Die) };
    bench.run_to(12, &Work::Die, 1, &failed, "");
})]
#[case::a_run_that_was_let_go_before(|bench: &mut Bench| {
    let work = Work::Nothing;
    let spec = CommandSpec { rollout: Some(Rollout::default()), ..Bench::spec(12, &work, &[1]) };
    bench.command_of(&spec, &work, &[1]);
    bench.let_go(12, 0, BEGIN + 50);
    bench.claim(12, 1, BEGIN + 100);
    bench.mark('S', 12, 1, BEGIN + 110);
    bench.mark('E', 12, 1, BEGIN + 120);
    bench.exit(1, &blank_exit(12, 1, &work));
})]
#[case::an_unanswered_submit_that_was_stored(|bench: &mut Bench| bench.told_mut(1).submit = Word::Unknown(5))]
#[case::a_cancel_that_came_too_late(|bench: &mut Bench| bench.told_mut(1).cancel = Some(Word::Accepted(0)))]
#[case::a_command_that_was_moved_to_done(|bench: &mut Bench| bench.move_to_done(1))]
#[case::a_cancelled_command_that_was_moved_to_done(|bench: &mut Bench| bench.move_to_done(5))]
#[case::an_unanswered_cancel(|bench: &mut Bench| bench.told_mut(1).cancel = Some(Word::Unknown(5)))]
#[case::a_chunk_twice(|bench: &mut Bench| bench.chunk(3, 0, &Work::Lines(600, 0), 0, 4_096))]
#[case::chunks_that_overlap(|bench: &mut Bench| bench.chunk(3, 0, &Work::Lines(600, 0), 2_000, 4_000))]
#[case::a_run_that_is_marked_cut(|bench: &mut Bench| {
    let work = Work::Lines(600, 0);
    let mut exit = Exit { chunks: 2, ..blank_exit(12, 0, &work) };
    exit.stdout.truncated = true;
    bench.chunk(12, 0, &work, 0, 1_600);
    bench.chunk(12, 0, &work, 1_600, 0);
    bench.chunks.last_mut().unwrap().head = Ok(Head { sha256: None, cut: true });
    bench.chunk(12, 0, &work, 8_000, 1_600);
    bench.run_to(12, &work, 0, &exit, "SE");
})]
#[case::a_relay_that_was_lost_when_a_later_chunk_was_stored(|bench: &mut Bench| {
    bench.forget("08.lost");
    bench.lost(8, 0, LostReason::Deadline, BEGIN + 101_000);
    bench.chunk(8, 0, &Work::Lines(900, 10), 8_192, 4_096);
})]
#[case::a_feed_that_was_cut_off(|bench: &mut Bench| {
    let bytes = script::output(&Work::Lines(600, 0), 0, 100);
    let pieces = vec![Piece::of(OutputStream::Stdout, 0, &bytes)];
    bench.slow.push(SlowRead { command: cid(3), machine: "m0".to_owned(), pieces });
})]
#[case::a_feed_of_pieces_that_were_stored_the_other_way_round(|bench: &mut Bench| {
    let [first, second] = [0, 1].map(|n| bench.chunks[n].sequence);
    (bench.chunks[0].sequence, bench.chunks[1].sequence) = (second, first);
    let pieces = [1, 0].map(|n: usize| bench.chunks[n].piece.clone()).to_vec();
    bench.slow.push(SlowRead { command: cid(3), machine: "m0".to_owned(), pieces });
})]
#[case::a_start_by_a_clock_that_is_off(|bench: &mut Bench| {
    harm(bench, Fault::Jump(Part::Relay(1), -600));
    bench.unmark('S', 9, 1);
    bench.mark('S', 9, 1, BEGIN + 40_000);
})]
#[case::an_end_by_a_bridges_clock_that_is_off(|bench: &mut Bench| {
    harm(bench, Fault::Jump(Part::Bridge(0), 86_400));
    bench.command(12, &Work::Die, &[0]);
    bench.withdraw(12, 0, WithdrawReason::Expired, BEGIN + 300);
    let spec = CommandSpec { not_before: Some(BEGIN + 9_000), ..Bench::spec(13, &Work::Die, &[0]) };
    bench.command_of(&spec, &Work::Die, &[0]);
    bench.claim(13, 0, BEGIN + 100);
})]
#[case::an_expiry_before_all_was_healthy_for_long(|bench: &mut Bench| {
    let spec = CommandSpec { expires_at: HEALED + 19_999, ..Bench::spec(12, &Work::Die, &[0]) };
    bench.command_of(&spec, &Work::Die, &[0]);
    bench.withdraw(12, 0, WithdrawReason::Expired, HEALED + 22_000);
})]
#[case::an_expiry_on_a_machine_that_is_busy(|bench: &mut Bench| {
    let spec = CommandSpec { expires_at: HEALED + 20_000, ..Bench::spec(12, &Work::Die, &[0]) };
    bench.command_of(&spec, &Work::Die, &[0]);
    bench.withdraw(12, 0, WithdrawReason::Expired, HEALED + 22_000);
    let spec = CommandSpec { expires_at: HEALED + 20_000, ..Bench::spec(13, &Work::Nothing, &[0]) };
    bench.command_of(&spec, &Work::Nothing, &[0]);
    bench.claim(13, 0, HEALED + 100);
    bench.mark('S', 13, 0, HEALED + 120);
    bench.mark('E', 13, 0, HEALED + 130);
    bench.exit(0, &blank_exit(13, 0, &Work::Nothing));
})]
#[case::a_run_that_a_halted_keeper_saw_to_too_late(|bench: &mut Bench| {
    harm(bench, Fault::Halt(Part::Keeper(0)));
    bench.run_to(12, &Work::Wait(12_001), 0, &blank_exit(12, 0, &Work::Wait(12_001)), "SE");
})]
#[case::a_run_that_took_a_little_longer(|bench: &mut Bench| {
    bench.run_to(12, &Work::Wait(12_000), 0, &blank_exit(12, 0, &Work::Wait(12_000)), "SE");
})]
#[case::grants_that_another_bridge_stored_too(|bench: &mut Bench| {
    let other = CommandSpec { expires_at: BEGIN + 11_000, ..Bench::spec(12, &Work::Die, &[0]) };
    bench.command_of(&other, &Work::Die, &[0]);
    // Its spec came second, and was refused.
    bench.stored.pop();
    bench.told.pop();
    bench.command(12, &Work::Die, &[0]);
})]
fn what_may_be(#[case] change: fn(&mut Bench)) {
    let mut bench = Bench::good();
    change(&mut bench);
    let broken = violations(&bench.seen());
    assert!(broken.is_empty(), "{}", broken.iter().map(ToString::to_string).collect::<String>());
}

fn harm(bench: &mut Bench, fault: Fault) {
    bench.plan.harms.push(Harm { at_ms: 0, for_ms: 1, fault });
}

/// What failed once is written down, and read again as it was.
#[test]
fn what_was_observed_survives_a_file() {
    let seen = Bench::good().seen();
    let json = serde_json::to_vec(&seen).unwrap();
    assert_eq!(serde_json::from_slice::<crate::observed::Observed>(&json).unwrap(), seen);
}
