//! What may be told of an earlier moment.

use signalbox_schemas::api::{FiguresView, FleetThen, Kept, Listed, Liveness, MomentView};

use super::{NOW_MS, Stage, machine_id};
use crate::client::{Ask, Told};

/// When the history of the stage begins, Unix ms.
pub(in crate::tui) const BEGINS_MS: u64 = NOW_MS - 6 * 86_400_000;

/// The moment that was asked for last.
pub(in crate::tui) fn asked(stage: &Stage) -> u64 {
    let moments = stage.asks.iter().rev().filter_map(|ask| match ask {
        Ask::FleetAt(at) => Some(*at),
        _ => None,
    });
    moments.clone().next().unwrap()
}

/// Machine 1 was stale and 3 online at the moment that was asked for last; 2 was not there yet, and 4 was.
pub(in crate::tui) fn then(stage: &Stage) -> Told {
    then_at(asked(stage))
}

pub(in crate::tui) fn then_at(at: u64) -> Told {
    let moment = |n: u32, state: Liveness, age_ms: u64| MomentView {
        id: machine_id(n),
        token: machine_id(n).token(),
        at: at.saturating_sub(20_000),
        state,
        last_seen_at: Some(at.saturating_sub(20_000 + age_ms)),
        figures: FiguresView {
            cpu_percent: Some(91),
            memory_percent: Some(30),
            disk_percent: None,
            load_tenths: Some(71),
            running: 2,
            pending: 0,
        },
        relay: Some("0.0.9".to_owned()),
    };
    let items = vec![
        moment(1, Liveness::Stale, 40_000),
        moment(3, Liveness::Online, 4_000),
        moment(4, Liveness::Online, 9_000),
    ];
    let kept = Some(Kept { earliest: BEGINS_MS, latest: NOW_MS });
    let is_held = at >= BEGINS_MS;
    let items = if is_held { items } else { vec![] };
    let then = FleetThen { listed: Listed { items, next: None }, at: is_held.then(|| at - 20_000), kept };
    Told::Then { at, then: Ok(Box::new(then)) }
}
