//! What operators ask for.

use super::{Plan, Wish, Work, draw::Draws};
use crate::script::LINES_AT_ONCE;

/// Mean time between two wishes, ms: two cores serve four worlds at once.
const GAP_MS: u64 = 500;
/// Longest work, ms.
const LONGEST_MS: u64 = 6_000;

/// A kind of work.
#[derive(Clone, Copy)]
enum Kind {
    Nothing,
    Wait,
    FewLines,
    SlowLines,
    ManyLines,
    Fail,
    Die,
}

const KINDS: [(u64, Kind); 7] = [
    (24, Kind::Nothing),
    (24, Kind::Wait),
    (18, Kind::FewLines),
    (12, Kind::SlowLines),
    (4, Kind::ManyLines),
    (10, Kind::Fail),
    (8, Kind::Die),
];

pub(super) fn draw(plan: &Plan) -> Vec<Wish> {
    let mut draws = Draws::new(plan.seed, "wishes");
    let count = plan.length_ms / GAP_MS;
    let mut wishes: Vec<Wish> = (0..count).map(|n| wish(plan, n * GAP_MS, &mut draws)).collect();
    wishes.sort_by_key(|wish| wish.at_ms);
    wishes
}

fn wish(plan: &Plan, slot_ms: u64, draws: &mut Draws) -> Wish {
    let at_ms = slot_ms + draws.below(2 * GAP_MS).min(plan.length_ms - slot_ms);
    let on = machines(plan.machines, draws);
    let work = work(draws);
    let by_http = draws.one_in(3);
    // Most have all the time, some too little of it.
    let timeout_ms = if draws.one_in(6) { draws.within(200..=2_000) } else { draws.within(8_000..=15_000) };
    let expires_in_ms =
        if draws.one_in(5) { draws.within(300..=3_000) } else { draws.within(15_000..=40_000) };
    let waits = draws.one_in(8).then(|| draws.within(1..=expires_in_ms.min(6_000) / 2));
    let cancel_after_ms = draws.one_in(6).then(|| {
        // Before it starts, or in the middle of the longer ones.
        if draws.one_in(2) { draws.within(0..=60) } else { draws.within(300..=3_000) }
    });
    let is_cut = matches!(work, Work::Lines(..)) && draws.one_in(8);
    let max_output = is_cut.then(|| draws.within(0..=20_000));
    Wish {
        at_ms,
        on,
        work,
        timeout_ms,
        expires_in_ms,
        not_before_in_ms: waits.filter(|_| !by_http),
        max_output,
        cancel_after_ms,
        by_http,
    }
}

/// One machine, some, or all; sorted.
fn machines(all: u8, draws: &mut Draws) -> Vec<u8> {
    let one = u8::try_from(draws.below(u64::from(all))).unwrap_or(0);
    let others = if draws.one_in(2) { 0 } else { draws.within(1..=2) };
    let is_in = |n: &u8| *n == one || (others == 2) || (others == 1 && *n == (one + 1) % all);
    (0..all).filter(is_in).collect()
}

fn work(draws: &mut Draws) -> Work {
    let narrow = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    match draws.weighted(&KINDS).unwrap_or(Kind::Nothing) {
        Kind::Nothing => Work::Nothing,
        Kind::Wait => Work::Wait(narrow(draws.within(20..=LONGEST_MS))),
        Kind::FewLines => Work::Lines(narrow(draws.within(1..=600)), 0),
        Kind::SlowLines => {
            let pauses = draws.within(2..=40);
            let lines = pauses * u64::from(LINES_AT_ONCE) + draws.below(u64::from(LINES_AT_ONCE));
            Work::Lines(narrow(lines), narrow(draws.within(10..=LONGEST_MS / pauses)))
        }
        Kind::ManyLines => Work::Lines(narrow(draws.within(20_000..=100_000)), 0),
        Kind::Fail => Work::Fail(u8::try_from(draws.within(1..=125)).unwrap_or(1)),
        Kind::Die => Work::Die,
    }
}
