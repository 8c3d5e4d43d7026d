//! Each promise, broken by as little as possible, and no other seen broken.

use rstest::rstest;
use serde_json::json;
use signalbox_schemas::{
    command::CommandSpec,
    output::OutputStream,
    rollout::Rollout,
    run::{Exit, ExitState, LostReason, RejectReason, Rejection, RunError, Start, WithdrawReason},
    subject::FactKind,
};

use super::{
    bench::{BEGIN, Bench, HEALED, Key, blank_exit, cid, mid, nonce, ws},
    seen::ends,
};
use crate::{
    check::{Promise, SLACK_MS, violations},
    fault::{Fault, Part},
    observed::{Observed, Stored},
    plan::{Harm, Work},
    told::{Piece, SlowRead, Word},
};

fn only(observed: &Observed, promise: Promise) {
    let broken = violations(observed);
    assert!(!broken.is_empty(), "nothing is seen");
    for violation in &broken {
        assert_eq!(violation.promise, promise, "{violation}");
    }
}

#[test]
fn where_all_is_right_nothing_is_broken() {
    let broken = violations(&Bench::good().seen());
    assert!(broken.is_empty(), "{}", broken.iter().map(ToString::to_string).collect::<String>());
}

#[test]
fn a_violation_says_which_run_and_why() {
    let mut bench = Bench::good();
    bench.mark('S', 1, 1, BEGIN + 300);
    let broken = violations(&bench.seen());
    assert_eq!(broken.len(), 1);
    assert_eq!((broken[0].command, broken[0].machine.clone()), (Some(cid(1)), Some(mid(1))));
    let text = broken[0].to_string();
    for part in
        ["starts at most once", "started 2 times", "on m1", "claim, nonce", "exit Completed", "mark at"]
    {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
}

#[rstest]
#[case::twice(|bench: &mut Bench| bench.mark('S', 1, 0, BEGIN + 300))]
#[case::on_another_machine(|bench: &mut Bench| bench.mark('S', 2, 1, BEGIN + 300))]
#[case::never_asked_for(|bench: &mut Bench| bench.mark('S', 99, 1, BEGIN + 300))]
#[case::ended_twice(|bench: &mut Bench| bench.mark('E', 1, 0, BEGIN + 300))]
#[case::half_a_line(|bench: &mut Bench| bench.marks[0].push_str("S 0193a2b4-0000"))]
fn what_starts_too_often(#[case] spoil: fn(&mut Bench)) {
    let mut bench = Bench::good();
    spoil(&mut bench);
    only(&bench.seen(), Promise::StartsOnce);
}

#[rstest]
#[case::executing(|bench: &mut Bench| { bench.claim(12, 0, BEGIN + 100); bench.mark('S', 12, 0, BEGIN + 120) }, 90_000 + 10_100)]
#[case::pending(|_: &mut Bench| {}, 30_000)]
fn what_never_settles(#[case] begin: fn(&mut Bench), #[case] due: u64) {
    let mut bench = Bench::good();
    bench.command(12, &Work::Wait(50), &[0]);
    begin(&mut bench);
    let mut seen = bench.seen();
    seen.seen_at = BEGIN + due + SLACK_MS - 1;
    assert_eq!(violations(&seen), [], "its bound is not over");
    seen.seen_at = BEGIN + due + SLACK_MS;
    only(&seen, Promise::Settles);
    assert!(HEALED <= BEGIN + due);
}

#[rstest]
#[case::completed_without_its_end(|bench: &mut Bench| bench.unmark('E', 1, 0))]
#[case::failed_with_its_end(|bench: &mut Bench| {
    let failed = Exit { state: ExitState::Failed, exit_code: None, signal: Some("SIGHUP".to_owned()), ..blank_exit(12, 0, &Work::Nothing) };
    bench.run_to(12, &Work::Nothing, 0, &failed, "SE");
})]
#[case::another_code(|bench: &mut Bench| {
    let failed = Exit { state: ExitState::Failed, exit_code: Some(4), ..blank_exit(12, 0, &Work::Fail(3)) };
    bench.run_to(12, &Work::Fail(3), 0, &failed, "SE");
})]
#[case::another_signal(|bench: &mut Bench| {
    let failed = Exit { state: ExitState::Failed, exit_code: None, signal: Some("SIGTERM".to_owned()), ..blank_exit(12, 0, &Work::Die) };
    bench.run_to(12, &Work::Die, 0, &failed, "S");
})]
#[case::an_unknown_error(|bench: &mut Bench| {
    let error = Some(RunError { code: "bad_luck".to_owned(), message: String::new() });
    let failed = Exit { state: ExitState::Failed, exit_code: None, error, ..blank_exit(12, 0, &Work::Die) };
    bench.run_to(12, &Work::Die, 0, &failed, "S");
})]
#[case::an_exit_of_another(|bench: &mut Bench| {
    let foreign = Exit { nonce: nonce(1), ..blank_exit(12, 0, &Work::Nothing) };
    bench.run_to(12, &Work::Nothing, 0, &foreign, "SE");
})]
fn what_ended_otherwise_than_it_says(#[case] spoil: fn(&mut Bench)) {
    let mut bench = Bench::good();
    spoil(&mut bench);
    only(&bench.seen(), Promise::RanToItsEnd);
}

#[rstest]
#[case::expired(|bench: &mut Bench| bench.mark('S', 4, 0, BEGIN + 300))]
#[case::cancelled(|bench: &mut Bench| bench.mark('S', 5, 1, BEGIN + 300))]
#[case::nothing_in_the_register(|bench: &mut Bench| {
    bench.command(12, &Work::Die, &[0]);
    bench.mark('S', 12, 0, BEGIN + 300);
})]
#[case::claimed_and_said_not_to_be_started(|bench: &mut Bench| {
    let error = Some(RunError { code: "expired".to_owned(), message: String::new() });
    let failed = Exit { state: ExitState::Failed, exit_code: None, error, ..blank_exit(12, 0, &Work::Die) };
    bench.run_to(12, &Work::Die, 0, &failed, "S");
})]
#[case::ended_without_a_start(|bench: &mut Bench| {
    bench.unmark('S', 6, 1);
    bench.unmark('E', 6, 1);
})]
fn what_started_though_it_did_not(#[case] spoil: fn(&mut Bench)) {
    let mut bench = Bench::good();
    spoil(&mut bench);
    only(&bench.seen(), Promise::NeverStarted);
}

#[rstest]
#[case::before_its_claim(|bench: &mut Bench| {
    bench.unmark('S', 7, 0);
    bench.mark('S', 7, 0, BEGIN + 40);
})]
#[case::before_its_time(|bench: &mut Bench| {
    let spec = CommandSpec { not_before: Some(BEGIN + 500), ..Bench::spec(12, &Work::Die, &[0]) };
    bench.command_of(&spec, &Work::Die, &[0]);
    bench.claim(12, 0, BEGIN + 100);
})]
#[case::before_it_was_let_go(|bench: &mut Bench| {
    let spec = CommandSpec { rollout: Some(Rollout::default()), ..Bench::spec(12, &Work::Die, &[0, 1]) };
    bench.command_of(&spec, &Work::Die, &[0, 1]);
    bench.let_go(12, 0, BEGIN + 200);
    bench.claim(12, 0, BEGIN + 100);
})]
#[case::though_it_was_held(|bench: &mut Bench| {
    let spec = CommandSpec { rollout: Some(Rollout::default()), ..Bench::spec(12, &Work::Die, &[0, 1]) };
    bench.command_of(&spec, &Work::Die, &[0, 1]);
    bench.let_go(12, 1, BEGIN + 50);
    bench.claim(12, 0, BEGIN + 100);
})]
#[case::after_it_expired(|bench: &mut Bench| {
    bench.unmark('S', 9, 1);
    bench.mark('S', 9, 1, BEGIN + 17_100);
})]
#[case::expired_early(|bench: &mut Bench| {
    bench.command(12, &Work::Die, &[0]);
    bench.withdraw(12, 0, WithdrawReason::Expired, BEGIN + 9_000);
})]
#[case::withdrawn_by_nobody(|bench: &mut Bench| {
    bench.command(12, &Work::Die, &[0]);
    bench.withdraw(12, 0, WithdrawReason::Cancelled, BEGIN + 9_000);
})]
#[case::cancelled_by_nobody(|bench: &mut Bench| {
    let ended = Exit { state: ExitState::Cancelled, exit_code: None, signal: Some("SIGTERM".to_owned()), ..blank_exit(12, 0, &Work::Wait(9)) };
    bench.run_to(12, &Work::Wait(9), 0, &ended, "S");
})]
#[case::timed_out_early(|bench: &mut Bench| {
    let ended = Exit { state: ExitState::Timeout, exit_code: None, duration_ms: 9_999, ..blank_exit(12, 0, &Work::Wait(9)) };
    bench.run_to(12, &Work::Wait(9), 0, &ended, "S");
})]
#[case::rejected_for_nothing(|bench: &mut Bench| {
    bench.command(12, &Work::Die, &[0]);
    let (reason, message) = (RejectReason::Forbidden, String::new());
    let rejection = Rejection { ws: ws(), mid: mid(0), cid: cid(12), reason, message, rejected_at: BEGIN };
    bench.fact(12, 0, FactKind::Claim, BEGIN + 100, &rejection, Key::Machine(0));
})]
#[case::expired_for_nothing(|bench: &mut Bench| {
    let spec = CommandSpec { expires_at: HEALED + 20_000, ..Bench::spec(12, &Work::Die, &[0]) };
    bench.command_of(&spec, &Work::Die, &[0]);
    bench.withdraw(12, 0, WithdrawReason::Expired, HEALED + 22_000);
})]
#[case::never_timed_out(|bench: &mut Bench| {
    bench.run_to(12, &Work::Wait(12_001), 0, &blank_exit(12, 0, &Work::Wait(12_001)), "SE");
})]
fn what_happens_at_the_wrong_time(#[case] spoil: fn(&mut Bench)) {
    let mut bench = Bench::good();
    spoil(&mut bench);
    only(&bench.seen(), Promise::InItsTime);
}

#[rstest]
#[case(LostReason::KeeperGone)]
#[case(LostReason::Deadline)]
fn what_is_lost_where_no_keeper_was_hurt(#[case] reason: LostReason) {
    let mut bench = Bench::good();
    bench.command(12, &Work::Wait(50), &[1]);
    bench.claim(12, 1, BEGIN + 100);
    bench.lost(12, 1, reason, BEGIN + 2_000);
    only(&bench.seen(), Promise::LostForAReason);
}

/// Its keeper was killed at 1,000 ms.
#[rstest]
#[case::that_was_claimed_later(4_001, 4_200, Fault::Kill(Part::Keeper(0)))]
#[case::that_was_lost_before(100, 999, Fault::Kill(Part::Keeper(0)))]
#[case::that_was_claimed_when_its_store_was_back(4_501, 6_000, Fault::Forget(Part::Relay(0)))]
#[case::of_another_machine(100, 2_000, Fault::Rollback(Part::Relay(1)))]
fn what_is_lost_and_was_not_there_when_its_keeper_was_hurt(
    #[case] claimed: u64,
    #[case] lost: u64,
    #[case] fault: Fault,
) {
    only(&lost_run(claimed, lost, fault).seen(), Promise::LostForAReason);
}

#[rstest]
#[case::a_keeper_that_is_killed_in_the_middle(100, 2_000, Fault::Kill(Part::Keeper(0)))]
#[case::a_claim_of_a_keeper_that_is_just_gone(4_000, 4_200, Fault::Kill(Part::Keeper(0)))]
#[case::a_store_that_is_lost_in_the_middle(100, 100_000, Fault::Forget(Part::Relay(0)))]
#[case::a_claim_by_a_second_relay(1_400, 100_000, Fault::Twin(0))]
fn what_is_lost_and_was_hurt_meanwhile(#[case] claimed: u64, #[case] lost: u64, #[case] fault: Fault) {
    let mut seen = lost_run(claimed, lost, fault).seen();
    assert_eq!(violations(&seen), []);
    // What met nobody excuses nothing.
    seen.missed = seen.done.take().into_iter().flatten().map(|done| done.fault).collect();
    seen.done = Some(vec![]);
    only(&seen, Promise::LostForAReason);
}

#[test]
fn a_claim_that_was_stored_late_was_there_when_its_keeper_was_hurt() {
    let mut bench = lost_run(100, 9_000, Fault::Kill(Part::Keeper(0)));
    bench.stored.iter_mut().find(|stored| stored.subject.ends_with("12.claim")).unwrap().at = BEGIN + 8_000;
    assert_eq!(violations(&bench.seen()), []);
}

#[test]
fn where_nobody_wrote_down_when_it_was_done_any_harm_of_a_keeper_counts() {
    let mut json = serde_json::to_value(lost_run(9_000, 9_100, Fault::Kill(Part::Keeper(0))).seen()).unwrap();
    only(&serde_json::from_value(json.clone()).unwrap(), Promise::LostForAReason);
    json.as_object_mut().unwrap().remove("done").unwrap();
    assert_eq!(violations(&serde_json::from_value(json).unwrap()), []);
}

#[test]
fn what_is_said_to_be_lost_too_early_is_lost_when_its_keeper_is() {
    let mut bench = lost_run(100, 200, Fault::Kill(Part::Keeper(0)));
    only(&bench.seen(), Promise::LostForAReason);
    bench.forget("12.lost");
    bench.lost(12, 0, LostReason::Deadline, BEGIN + 200);
    assert_eq!(violations(&bench.seen()), []);
}

/// A run of machine 0 that was claimed and lost so many ms after the beginning, and a harm from 1,000 to 1,500.
fn lost_run(claimed: u64, lost: u64, fault: Fault) -> Bench {
    let mut bench = Bench::good();
    // Which has a lost run of its own.
    bench.forget("08.lost");
    bench.plan.harms = vec![Harm { at_ms: 1_000, for_ms: 500, fault }];
    bench.command(12, &Work::Wait(50), &[0]);
    bench.claim(12, 0, BEGIN + claimed);
    bench.lost(12, 0, LostReason::KeeperGone, BEGIN + lost);
    bench
}

#[rstest]
#[case::an_accepted_command(|bench: &mut Bench| bench.forget("07.spec"))]
#[case::an_accepted_cancel(|bench: &mut Bench| bench.told_mut(1).cancel = Some(Word::Accepted(2)))]
#[case::another_text(|bench: &mut Bench| bench.told_mut(1).text = "true".to_owned())]
#[case::another_number_of_machines(|bench: &mut Bench| bench.told_mut(1).submit = Word::Accepted(1))]
#[case::a_refused_one_is_there(|bench: &mut Bench| {
    bench.told_mut(1).submit = Word::Refused(signalbox_schemas::error::ErrorCode::Invalid, String::new());
})]
fn what_was_acknowledged_and_is_missing(#[case] spoil: fn(&mut Bench)) {
    let mut bench = Bench::good();
    spoil(&mut bench);
    only(&bench.seen(), Promise::NothingMissing);
}

#[test]
fn what_no_bridge_shows_is_missing() {
    let mut seen = Bench::good().seen();
    let name = cid(7).to_string();
    for answers in &mut seen.answers {
        answers.listed.retain(|item| item["id"] != *name);
    }
    only(&seen, Promise::NothingMissing);
}

#[test]
fn what_nobody_asked_for_is_seen() {
    let mut bench = Bench::good();
    bench.forget("04.claim");
    let seen = bench.seen();
    bench.told.retain(|told| told.command != cid(4));
    let seen = Observed { said: crate::told::Said { told: bench.told, slow: vec![] }, ..seen };
    only(&seen, Promise::NothingMissing);
}

#[rstest]
#[case::a_chunk_is_missing(|bench: &mut Bench| bench.chunks.retain(|chunk| chunk.piece.offset != 4_096))]
#[case::a_chunk_has_other_bytes(|bench: &mut Bench| {
    bench.chunks[0].piece = Piece::of(OutputStream::Stdout, 0, &[b'x'; 4_096]);
})]
#[case::a_chunk_is_elsewhere(|bench: &mut Bench| bench.chunks[1].piece.offset += 16)]
#[case::a_chunk_has_another_hash(|bench: &mut Bench| {
    let head = bench.chunks[0].head.clone();
    bench.chunks[1].head = head;
})]
#[case::an_exit_has_other_bytes(|bench: &mut Bench| {
    let short = Exit { stdout: blank_exit(12, 0, &Work::Lines(2, 0)).stdout, ..blank_exit(12, 0, &Work::Lines(3, 0)) };
    bench.chunk(12, 0, &Work::Lines(3, 0), 0, 48);
    bench.run_to(12, &Work::Lines(3, 0), 0, &short, "SE");
})]
#[case::an_exit_has_another_hash(|bench: &mut Bench| {
    let mut exit = blank_exit(12, 0, &Work::Lines(3, 0));
    exit.stdout.sha256 = signalbox_schemas::id::Sha256::of(b"x");
    bench.chunk(12, 0, &Work::Lines(3, 0), 0, 48);
    bench.run_to(12, &Work::Lines(3, 0), 0, &exit, "SE");
})]
#[case::a_feed_goes_against_the_stream(|bench: &mut Bench| {
    let pieces = [1, 0].map(|n: usize| bench.chunks[n].piece.clone()).to_vec();
    bench.slow.push(SlowRead { command: cid(3), machine: "m0".to_owned(), pieces });
})]
#[case::a_feed_gives_bytes_twice(|bench: &mut Bench| {
    let piece = |offset, len| Piece::of(OutputStream::Stdout, offset, &crate::script::output(&Work::Lines(600, 0), offset, len));
    bench.slow.push(SlowRead { command: cid(3), machine: "m0".to_owned(), pieces: vec![piece(0, 64), piece(48, 64)] });
})]
#[case::a_feed_has_other_bytes(|bench: &mut Bench| {
    let pieces = vec![Piece::of(OutputStream::Stdout, 16, b"000000000000001\n")];
    bench.slow.push(SlowRead { command: cid(3), machine: "m0".to_owned(), pieces });
})]
fn output_that_is_not_whole(#[case] spoil: fn(&mut Bench)) {
    let mut bench = Bench::good();
    spoil(&mut bench);
    only(&bench.seen(), Promise::OutputIsWhole);
}

/// A relay that says so has brought out what it had; and what is stored is given.
#[rstest]
#[case::of_whose_keeper_only_is_gone(LostReason::KeeperGone, 1)]
#[case::that_is_stored(LostReason::Deadline, 2)]
fn output_of_a_lost_run_that_is_not_whole(#[case] reason: LostReason, #[case] lacking: usize) {
    let mut bench = Bench::good();
    bench.forget("08.lost");
    bench.lost(8, 0, reason, BEGIN + 101_000);
    for offset in [8_192, 9_216] {
        bench.chunk(8, 0, &Work::Lines(900, 10), offset, 512);
    }
    let mut seen = bench.seen();
    for answers in &mut seen.answers {
        let output = answers.outputs.iter_mut().find(|output| output.command == cid(8)).unwrap();
        assert_eq!(output.pieces.len(), 3);
        output.pieces.drain(1..lacking);
    }
    only(&seen, Promise::OutputIsWhole);
}

#[rstest]
#[case::bytes_are_missing(|pieces: &mut Vec<Piece>| { pieces.pop(); })]
#[case::bytes_are_given_twice(|pieces: &mut Vec<Piece>| pieces.push(pieces[0].clone()))]
#[case::bytes_are_others(|pieces: &mut Vec<Piece>| pieces[0].sha256 = signalbox_schemas::id::Sha256::of(b"x"))]
fn answered_output_that_is_not_whole(#[case] spoil: fn(&mut Vec<Piece>)) {
    let mut seen = Bench::good().seen();
    for answers in &mut seen.answers {
        let output = answers.outputs.iter_mut().find(|output| output.command == cid(3)).unwrap();
        spoil(&mut output.pieces);
    }
    only(&seen, Promise::OutputIsWhole);
}

#[rstest]
#[case::a_total(|seen: &mut Observed, id| output(seen, id).total += 1)]
#[case::a_cut_that_is_none(|seen: &mut Observed, id| output(seen, id).truncated = true)]
fn an_output_that_says_otherwise_than_its_exit(#[case] spoil: fn(&mut Observed, usize)) {
    let mut seen = Bench::good().seen();
    spoil(&mut seen, 0);
    spoil(&mut seen, 1);
    only(&seen, Promise::OutputIsWhole);
}

fn output(seen: &mut Observed, bridge: usize) -> &mut crate::observed::Output {
    seen.answers[bridge].outputs.iter_mut().find(|output| output.command == cid(3)).unwrap()
}

#[rstest]
#[case::another_state(|seen: &mut Observed| seen.answers[0].commands.get_mut(&cid(3)).unwrap()["runs"][0]["state"] = json!("lost"))]
#[case::another_code(|seen: &mut Observed| seen.answers[1].commands.get_mut(&cid(6)).unwrap()["runs"][0]["exit_code"] = json!(4))]
#[case::no_view(|seen: &mut Observed| seen.answers[1].commands.get_mut(&cid(6)).unwrap()["runs"] = json!(7))]
#[case::another_order(|seen: &mut Observed| seen.answers[1].listed.swap(1, 2))]
#[case::another_line(|seen: &mut Observed| seen.answers[1].listed[2]["settled"] = json!(false))]
#[case::other_pieces(|seen: &mut Observed| output(seen, 1).pieces[0].begins.push('x'))]
fn answers_that_do_not_agree(#[case] spoil: fn(&mut Observed)) {
    let mut seen = Bench::good().seen();
    spoil(&mut seen);
    only(&seen, Promise::AnswersAgree);
}

#[rstest]
#[case(9, "state", json!("failed"))]
#[case(6, "exit_code", json!(4))]
#[case(7, "signal", json!("SIGTERM"))]
#[case(8, "error", json!(null))]
fn answers_that_agree_with_each_other_and_not_with_the_facts(
    #[case] n: u8,
    #[case] member: &str,
    #[case] value: serde_json::Value,
) {
    let mut seen = Bench::good().seen();
    for answers in &mut seen.answers {
        answers.commands.get_mut(&cid(n)).unwrap()["runs"][0][member] = value.clone();
    }
    only(&seen, Promise::AnswersAgree);
}

#[rstest]
#[case::of_another_machine(|bench: &mut Bench| start(bench, Key::Machine(1)))]
#[case::of_a_bridge(|bench: &mut Bench| start(bench, Key::Bridge))]
#[case::of_another_run(|bench: &mut Bench| {
    let start = Start { ws: ws(), mid: mid(0), cid: cid(2), nonce: nonce(0), started_at: BEGIN, via: None };
    bench.fact(1, 0, FactKind::Start, BEGIN, &start, Key::Machine(0));
})]
#[case::changed_later(|bench: &mut Bench| {
    start(bench, Key::Machine(0));
    let body = &mut bench.stored.last_mut().unwrap().body.0;
    let at = body.windows(8).position(|window| window == b"\"sig\":\"A" || window.starts_with(b"\"sig\":\"")).unwrap() + 7;
    body[at] = if body[at] == b'A' { b'B' } else { b'A' };
})]
#[case::no_subject_of_ours(|bench: &mut Bench| bench.stored.last_mut().unwrap().subject = "run.main.m0.x".to_owned())]
fn what_does_not_verify(#[case] spoil: fn(&mut Bench)) {
    let mut bench = Bench::good();
    start(&mut bench, Key::Machine(0));
    spoil(&mut bench);
    only(&bench.seen(), Promise::Verifies);
}

fn start(bench: &mut Bench, key: Key) {
    let start = Start { ws: ws(), mid: mid(0), cid: cid(1), nonce: nonce(0), started_at: BEGIN, via: None };
    bench.fact(1, 0, FactKind::Start, BEGIN + 150, &start, key);
}

#[test]
fn a_chunk_without_a_head_does_not_verify() {
    let mut bench = Bench::good();
    bench.chunk(3, 0, &Work::Lines(600, 0), 0, 16);
    bench.chunks.last_mut().unwrap().head = Err("chunk header Sb-Offset is missing or malformed".to_owned());
    only(&bench.seen(), Promise::Verifies);
}

#[test]
fn counts_that_are_not_those_of_the_facts() {
    let mut seen = Bench::good().seen();
    for answers in &mut seen.answers {
        answers.commands.get_mut(&cid(6)).unwrap()["counts"] = json!({"executing": 1, "failed": 1});
    }
    only(&seen, Promise::AnswersAgree);
}

/// Spoils the chain of what is stored.
type Spoil = fn(&Bench, &mut Vec<Stored>);

#[rstest]
#[case::an_entry_is_gone(|_: &Bench, audit: &mut Vec<Stored>| drop(audit.remove(3)))]
#[case::the_last_entry_is_gone(|_: &Bench, audit: &mut Vec<Stored>| drop(audit.pop()))]
#[case::all_are_gone(|_: &Bench, audit: &mut Vec<Stored>| audit.clear())]
#[case::an_entry_twice(|_: &Bench, audit: &mut Vec<Stored>| audit.insert(3, audit[3].clone()))]
#[case::two_have_changed_places(|_: &Bench, audit: &mut Vec<Stored>| audit.swap(3, 4))]
#[case::one_is_another_place(|_: &Bench, audit: &mut Vec<Stored>| audit[3].subject.push_str("-x"))]
#[case::one_is_no_entry(|_: &Bench, audit: &mut Vec<Stored>| audit[3].body.0.clear())]
#[case::a_command_is_entered_twice(|bench: &Bench, audit: &mut Vec<Stored>| {
    let again = bench.stored.iter().find(|message| ends(message, "spec")).unwrap();
    *audit = bench.audit(bench.stored.iter().chain([again]));
})]
#[case::a_command_was_never_entered(|bench: &Bench, audit: &mut Vec<Stored>| {
    let first = bench.stored.iter().position(|message| ends(message, "spec")).unwrap();
    *audit = bench.audit(bench.stored.iter().enumerate().filter(|(at, _)| *at != first).map(|(_, message)| message));
})]
#[case::a_cancel_was_never_entered(|bench: &Bench, audit: &mut Vec<Stored>| {
    *audit = bench.audit(bench.stored.iter().filter(|message| !ends(message, "cancel")));
})]
#[case::a_record_was_never_entered(|bench: &Bench, audit: &mut Vec<Stored>| {
    *audit = bench.audit(bench.stored.iter().filter(|message| !ends(message, "m1")));
})]
#[case::somebody_else_is_said_to_have_done_it(|bench: &Bench, audit: &mut Vec<Stored>| {
    *audit = bench.audit_by("operator:other", &bench.stored);
})]
#[case::something_else_was_entered(|bench: &Bench, audit: &mut Vec<Stored>| {
    let mut other = bench.stored.clone();
    for message in &mut other {
        message.at += u64::from(ends(message, "spec"));
    }
    *audit = bench.audit(&other);
})]
fn an_audit_chain_that_is_not_what_was_done(#[case] spoil: Spoil) {
    let bench = Bench::good();
    let mut seen = bench.seen();
    spoil(&bench, seen.audit.as_mut().unwrap());
    only(&seen, Promise::AuditHolds);
}
