//! What is done to the parts.

use super::{Harm, Plan, draw::Draws};
use crate::fault::{Fault, Part, Weather};

/// Mean time between the beginnings of two harms, ms.
const GAP_MS: u64 = 2_500;
/// Nothing is done in the first time, ms, so that some work is under way.
const QUIET_MS: u64 = 1_000;
/// Between the healing of a part and its next harm, ms.
const REST_MS: u64 = 500;
/// Shortest and longest harm, ms.
const SHORTEST_MS: u64 = 200;
const LONGEST_MS: u64 = 8_000;
/// Tries to find a part that is free for one more harm.
const TRIES: u32 = 8;

/// A kind of harm.
#[derive(Clone, Copy)]
enum Kind {
    KillBroker,
    KillBridge,
    KillRelay,
    KillKeeper,
    Halt,
    Cut,
    Weather,
    Fill,
    Jump,
    ForgetBridge,
    ForgetRelay,
    Rollback,
    Twin,
    Upgrade,
    SlowReader,
}

const KINDS: [(u64, Kind); 15] = [
    (12, Kind::KillBroker),
    (8, Kind::KillBridge),
    (12, Kind::KillRelay),
    (6, Kind::KillKeeper),
    (12, Kind::Halt),
    (12, Kind::Cut),
    (12, Kind::Weather),
    (6, Kind::Fill),
    (6, Kind::Jump),
    (4, Kind::ForgetBridge),
    (4, Kind::ForgetRelay),
    (6, Kind::Rollback),
    (5, Kind::Twin),
    (5, Kind::Upgrade),
    (4, Kind::SlowReader),
];

/// What can only be harmed in one way at a time: a relay and its keeper share their host and their store.
#[derive(PartialEq, Eq)]
enum Place {
    Part(Part),
    Twin(u8),
    Reader,
}

fn place(fault: &Fault) -> Place {
    match (fault, fault.part()) {
        (Fault::Twin(machine), _) => Place::Twin(*machine),
        (_, Some(part)) => Place::Part(part.with_relay()),
        (_, None) => Place::Reader,
    }
}

pub(super) fn draw(plan: &Plan) -> Vec<Harm> {
    let mut draws = Draws::new(plan.seed, "harms");
    let mut harms: Vec<Harm> = Vec::new();
    for _ in 0..plan.length_ms.saturating_sub(QUIET_MS) / GAP_MS {
        for _ in 0..TRIES {
            let new = some(plan, &mut draws);
            if new.iter().all(|new| harms.iter().all(|old| are_apart(old, new))) {
                harms.extend(new);
                break;
            }
        }
    }
    harms.sort_by_key(|harm| harm.at_ms);
    harms
}

fn are_apart(one: &Harm, other: &Harm) -> bool {
    let follows = |first: &Harm, second: &Harm| second.at_ms >= first.at_ms + first.for_ms + REST_MS;
    place(&one.fault) != place(&other.fault) || follows(one, other) || follows(other, one)
}

/// One harm, or the same to several servers of the broker at once.
fn some(plan: &Plan, draws: &mut Draws) -> Vec<Harm> {
    let kind = draws.weighted(&KINDS).unwrap_or(Kind::KillRelay);
    let at_ms = draws.within(QUIET_MS..=plan.length_ms - SHORTEST_MS);
    // Short ones are more likely: they hit what is under way, and much of it.
    let longest = (plan.length_ms - at_ms).min(if draws.one_in(3) { LONGEST_MS } else { 2_500 });
    let for_ms = draws.within(SHORTEST_MS..=longest.max(SHORTEST_MS));
    let faults = faults(kind, plan, draws);
    faults.into_iter().map(|fault| Harm { at_ms, for_ms, fault }).collect()
}

fn faults(kind: Kind, plan: &Plan, draws: &mut Draws) -> Vec<Fault> {
    let number = |count: u8, draws: &mut Draws| u8::try_from(draws.below(u64::from(count))).unwrap_or(0);
    let bridge = Part::Bridge(number(plan.bridges, draws));
    let machine = number(plan.machines, draws);
    let relay = Part::Relay(machine);
    let brokers = brokers(plan, draws);
    let any = match draws.below(3) {
        0 => brokers.clone(),
        1 => vec![bridge],
        _ => vec![relay],
    };
    let each = |parts: Vec<Part>, fault: &dyn Fn(Part) -> Fault| parts.into_iter().map(fault).collect();
    match kind {
        Kind::KillBroker => each(brokers, &Fault::Kill),
        Kind::KillBridge => vec![Fault::Kill(bridge)],
        Kind::KillRelay => vec![Fault::Kill(relay)],
        Kind::KillKeeper => vec![Fault::Kill(Part::Keeper(machine))],
        Kind::Halt if draws.one_in(4) => vec![Fault::Halt(Part::Keeper(machine))],
        Kind::Halt => each(any, &Fault::Halt),
        Kind::Cut => each(any, &Fault::Cut),
        Kind::Weather => {
            let weather = weather(draws);
            each(any, &|part| Fault::Weather(part, weather))
        }
        Kind::Fill => each(any.into_iter().take(1).collect(), &Fault::Fill),
        Kind::Jump => {
            let by = jump(draws);
            vec![Fault::Jump(if draws.one_in(2) { bridge } else { relay }, by)]
        }
        Kind::ForgetBridge => vec![Fault::Forget(bridge)],
        Kind::ForgetRelay => vec![Fault::Forget(relay)],
        Kind::Rollback => vec![Fault::Rollback(if draws.one_in(3) { bridge } else { relay })],
        Kind::Twin => vec![Fault::Twin(machine)],
        Kind::Upgrade => vec![Fault::Upgrade(machine)],
        Kind::SlowReader => vec![Fault::SlowReader],
    }
}

/// Of a cluster one, two or all.
fn brokers(plan: &Plan, draws: &mut Draws) -> Vec<Part> {
    let all = u64::from(plan.brokers.max(1));
    let (first, count) = (draws.below(all), draws.within(1..=all));
    (0..count).map(|n| Part::Broker(u8::try_from((first + n) % all).unwrap_or(0))).collect()
}

fn weather(draws: &mut Draws) -> Weather {
    let narrow = |number: u64| u16::try_from(number).unwrap_or(0);
    let delay = if draws.one_in(4) { draws.within(200..=1_000) } else { draws.within(1..=120) };
    Weather {
        delay_ms: narrow(delay),
        jitter_ms: narrow(draws.within(0..=delay)),
        lost: narrow(if draws.one_in(3) { 0 } else { draws.within(1..=150) }),
        doubled: narrow(if draws.one_in(2) { 0 } else { draws.within(1..=200) }),
    }
}

/// Seconds: a little, more than anybody's patience, or as far as is promised.
fn jump(draws: &mut Draws) -> i32 {
    let most = draws.weighted(&[(2, 10), (2, 600), (1, 86_400)]).unwrap_or(10);
    let by = i32::try_from(draws.within(1..=most)).unwrap_or(1);
    if draws.one_in(2) { -by } else { by }
}
