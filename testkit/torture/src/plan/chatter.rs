//! Runs that write all the time. Of sixty short commands few are writing when a part is hurt, and what goes wrong only with
//! output under way, or with a run that lives, would show in few seeds.

use std::ops::RangeInclusive;

use super::{Plan, Wish, Work, draw::Draws};

/// About how long one of them writes, ms: where harms take an end from one, the next is not far.
const ABOUT_MS: u64 = 10_000;
/// How much earlier or later than its turn one begins, and how much longer it writes, ms: so that they overlap.
const LOOSE_MS: u64 = 1_000;
/// Between two pieces, ms: each costs all parts together some ms of a core, and seven worlds share two. What makes it likely that
/// one is on its way is how far it has to go.
const PAUSES_MS: RangeInclusive<u64> = 60..=160;
/// Lines of one piece, of 16 bytes each.
const LINES: RangeInclusive<u64> = 1..=60;
/// How much longer than it takes it may run, ms: longer than any harm, and no longer than it must be, since what nobody tells the
/// end of is waited for until then and 90 s more.
const SPARE_MS: RangeInclusive<u64> = 10_000..=15_000;

/// One after the other on each machine, by time.
pub(super) fn draw(plan: &Plan) -> Vec<Wish> {
    let mut draws = Draws::new(plan.seed, "chatter");
    let turns = plan.length_ms.div_ceil(ABOUT_MS).max(1);
    let each_ms = plan.length_ms / turns;
    let all = (0..plan.machines).flat_map(|machine| (0..turns).map(move |turn| (machine, turn * each_ms)));
    let mut chatter: Vec<Wish> =
        all.map(|(machine, turn_ms)| wish(machine, turn_ms, each_ms, &mut draws)).collect();
    chatter.sort_by_key(|wish| (wish.at_ms, wish.on.clone()));
    chatter
}

fn wish(machine: u8, turn_ms: u64, each_ms: u64, draws: &mut Draws) -> Wish {
    let narrow = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    let at_ms = (turn_ms + draws.below(LOOSE_MS)).saturating_sub(LOOSE_MS / 2);
    let takes_ms = each_ms + draws.within(LOOSE_MS / 2..=2 * LOOSE_MS);
    let (at_once, pause_ms) = (draws.within(LINES), draws.within(PAUSES_MS));
    let lines = takes_ms.div_ceil(pause_ms) * at_once;
    Wish {
        at_ms,
        on: vec![machine],
        work: Work::Chatter { lines: narrow(lines), at_once: narrow(at_once), pause_ms: narrow(pause_ms) },
        timeout_ms: takes_ms + draws.within(SPARE_MS),
        expires_in_ms: draws.within(30_000..=60_000),
        not_before_in_ms: None,
        max_output: None,
        cancel_after_ms: None,
        by_http: draws.one_in(2),
    }
}
