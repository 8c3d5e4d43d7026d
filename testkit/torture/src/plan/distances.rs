//! How far away machines are. On one host a message is acknowledged within a millisecond, and hardly ever is anything on its
//! way when a server is killed.

use std::ops::RangeInclusive;

use super::{Plan, draw::Draws};

/// How much later a packet comes, ms: from the same country to another continent.
const RANGE_MS: RangeInclusive<u64> = 20..=80;

/// Of each machine.
pub(super) fn draw(plan: &Plan) -> Vec<u16> {
    let mut draws = Draws::new(plan.seed, "distances");
    (0..plan.machines).map(|_| u16::try_from(draws.within(RANGE_MS)).unwrap_or(0)).collect()
}
