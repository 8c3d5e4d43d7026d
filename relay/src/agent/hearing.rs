//! Whether this machine hears of its mailbox live, or asks for it. Pure.
//!
//! The subject on which mailboxes come live can be guessed, and the broker does not check where an answer goes: another
//! relay can have the answer to a question of its own sent there. What it says is not believed, but headers that are none
//! make the client drop its connection, as often as they are sent. Answers to this machine's own questions go to an inbox
//! that nobody can guess. So a machine whose connection does not hold asks for a while.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

/// So many connections lost …
const LOST: usize = 8;
/// … in this time are more than a broker that restarts can cost.
const WITHIN: Duration = Duration::from_secs(20);
/// How long is asked before it is listened again.
const ASKING: Duration = Duration::from_mins(2);
/// The mailbox is read this often while it is asked for …
const ASK_EVERY: Duration = Duration::from_secs(2);
/// … and this often even when nothing seems to have been missed.
const READ_EVERY: Duration = Duration::from_mins(1);

/// How it stands.
#[derive(Debug, Default)]
pub(super) struct Hearing {
    /// When connections were lost, at most [`LOST`].
    lost: VecDeque<Instant>,
    asks_until: Option<Instant>,
}

impl Hearing {
    /// There is a connection again, after so many were lost. Answers whether asking begins with that.
    pub(super) fn connected(&mut self, lost: u64, now: Instant) -> bool {
        for _ in 0..lost.min(LOST as u64) {
            self.lost.push_back(now);
        }
        let is_old = |at: &Instant| now.duration_since(*at) > WITHIN;
        while self.lost.len() > LOST || self.lost.front().is_some_and(is_old) {
            self.lost.pop_front();
        }
        if self.lost.len() < LOST {
            return false;
        }
        self.lost.clear();
        self.asks_until.replace(now + ASKING).is_none()
    }

    /// Whether it asks instead of listening.
    pub(super) fn asks(&self) -> bool {
        self.asks_until.is_some()
    }

    /// Ends asking when its time is over; answers whether it did.
    pub(super) fn listens_again(&mut self, now: Instant) -> bool {
        self.asks_until.take_if(|until| *until <= now).is_some()
    }

    /// Time from one read of the mailbox to the next.
    pub(super) fn read_every(&self) -> Duration {
        if self.asks() { ASK_EVERY } else { READ_EVERY }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_is_no_reason_to_ask_and_a_connection_that_does_not_hold_is() {
        let (mut hearing, start) = (Hearing::default(), Instant::now());
        let second = Duration::from_secs(1);
        // As fast as connections are lost while a broker restarts again and again.
        for restart in 0..20 {
            assert!(!hearing.connected(1, start + restart * 3 * second));
        }
        let attack = start + 100 * second;
        assert!(!hearing.connected(7, attack));
        assert!(hearing.connected(1, attack + second));
        assert!(hearing.asks() && hearing.read_every() == ASK_EVERY);
        assert!(!hearing.listens_again(attack + 2 * second));
        assert!(hearing.listens_again(attack + second + ASKING));
        assert!(!hearing.asks() && hearing.read_every() == READ_EVERY);
        // Once more, from nothing.
        assert!(!hearing.connected(7, attack + 200 * second));
        assert!(hearing.connected(100, attack + 201 * second));
    }
}
