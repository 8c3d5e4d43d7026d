//! Whose turn it is among changes: in the order in which they were claimed, whatever order the answers come in. Pure.
//!
//! Of two pushes of one credential the later one is to stay. So a change waits while it is not known whether an earlier one is
//! to be made, for a while: an answer may never come. Then the earlier one is left, and is not made after the later one.

use std::time::Duration;

use signalbox_schemas::id::CommandId;
use tokio::time::Instant;

/// A change waits so long for the answer to an earlier claim. A register is asked again within a second.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// How a claim stands, for the changes after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Claimed {
    /// A change whose claim stands. It has waited since then.
    Ready(Instant),
    /// A change of which it is not known whether its claim stands.
    Undecided,
    /// No change, or one that is not made any more.
    Other,
}

/// What is to be done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// This change is made.
    Make(CommandId),
    /// This one is left: nobody knows whether its claim stands, and another one has waited for that.
    Leave(CommandId),
    /// Nothing, before this time.
    Wait(Instant),
    /// Nothing: no change is ready.
    Nothing,
}

/// Whose turn it is. `claims`: all that were made and not reported, in their order.
pub(super) fn next(claims: impl Iterator<Item = (CommandId, Claimed)>, now: Instant) -> Next {
    let (mut undecided, mut until) = (None, None::<Instant>);
    for (cid, claimed) in claims {
        match (claimed, undecided) {
            (Claimed::Other, _) => {}
            (Claimed::Undecided, _) => undecided = undecided.or(Some(cid)),
            (Claimed::Ready(_), None) => return Next::Make(cid),
            (Claimed::Ready(since), Some(earlier)) if now >= since + PATIENCE => return Next::Leave(earlier),
            (Claimed::Ready(since), Some(_)) => {
                until = Some(until.map_or(since + PATIENCE, |until| until.min(since + PATIENCE)));
            }
        }
    }
    until.map_or(Next::Nothing, Next::Wait)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::tests::cid;
    use Claimed::{Other, Ready, Undecided};

    fn next_of(claims: &[Claimed], now: Instant) -> Next {
        next(claims.iter().zip(1..).map(|(claimed, number)| (cid(number), *claimed)), now)
    }

    #[test]
    fn the_earliest_claim_goes_first_and_what_is_not_known_of_it_is_waited_for() {
        let now = Instant::now();
        let ready = Ready(now);
        assert_eq!(next_of(&[], now), Next::Nothing);
        assert_eq!(next_of(&[Other, Undecided], now), Next::Nothing);
        assert_eq!(next_of(&[Other, ready, Undecided, ready], now), Next::Make(cid(2)));
        assert_eq!(next_of(&[Undecided, ready], now), Next::Wait(now + PATIENCE));
        let later = Ready(now + Duration::from_secs(1));
        assert_eq!(next_of(&[Undecided, later, ready], now), Next::Wait(now + PATIENCE));
    }

    #[test]
    fn an_answer_that_never_comes_holds_nobody_for_ever() {
        let since = Instant::now();
        let mut claims = [Undecided, Other, Undecided, Ready(since), Undecided];
        for (index, left) in [(0, cid(1)), (2, cid(3))] {
            assert_eq!(next_of(&claims, since + PATIENCE), Next::Leave(left));
            claims[index] = Other;
        }
        assert_eq!(next_of(&claims, since + PATIENCE), Next::Make(cid(4)));
    }
}
