//! Since when this bridge hears heartbeats. Pure.
//!
//! A relay can have a bridge lose its connection, again and again. What stands in HB outlives that, so a lost connection is no
//! time in which nobody listened, unless HB itself is another one.

use signalbox_link::LinkState;
use signalbox_schemas::mailbox::Position;

/// A bridge whose looks are further apart was suspended, or its clock was set: it has not listened meanwhile, ms.
const FAR_MS: u64 = 10_000;
/// What HB holds comes a moment after a connection does, ms.
const PAUSE_MS: u64 = 3_000;
/// A pause follows another one only after so long: whoever breaks the connection keeps nothing from being told, ms.
const PAUSE_EVERY_MS: u64 = 30_000;

#[derive(Debug, Default)]
pub(super) struct Listening {
    /// Since when, Unix ms.
    since: u64,
    looked: u64,
    /// The connection, by its number.
    connects: u64,
    /// Where HB stood when it was made.
    stood: Position,
    paused: u64,
}

/// What a look finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// There is no connection, or it was made a moment ago.
    NotYet,
    /// There is another connection than before: where HB ends has to be asked.
    Anew,
    Everything,
}

impl Listening {
    pub(super) fn since(&self) -> u64 {
        self.since
    }

    /// Looks at `now`, Unix ms.
    pub(super) fn look(&mut self, now: u64, state: LinkState) -> Heard {
        if now.abs_diff(self.looked) > FAR_MS {
            self.since = now;
        }
        self.looked = now;
        if !state.is_connected {
            return Heard::NotYet;
        }
        if state.connects != self.connects {
            return Heard::Anew;
        }
        if now.abs_diff(self.paused) < PAUSE_MS { Heard::NotYet } else { Heard::Everything }
    }

    /// Over another connection HB ends at `stands`.
    pub(super) fn connected(&mut self, now: u64, connects: u64, stands: Position) {
        if stands.created != self.stood.created || stands.sequence < self.stood.sequence {
            // What was heard before stands there no more.
            self.since = now;
        } else if now.abs_diff(self.paused) >= PAUSE_EVERY_MS {
            self.paused = now;
        }
        (self.connects, self.stood) = (connects, stands);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_795_000_000_000;

    fn state(connects: u64) -> LinkState {
        LinkState { is_connected: true, connects, is_closed: false }
    }

    fn listening() -> Listening {
        let mut listening = Listening::default();
        assert_eq!(listening.look(NOW, state(1)), Heard::Anew);
        listening.connected(NOW, 1, Position { created: 1, sequence: 5 });
        assert_eq!(listening.look(NOW + PAUSE_MS, state(1)), Heard::Everything);
        assert_eq!(listening.since(), NOW);
        listening
    }

    #[test]
    fn a_connection_that_breaks_again_and_again_keeps_nothing_from_being_told() {
        let mut listening = listening();
        let mut everything = 0;
        let before = listening.look(NOW + 3_500, state(1));
        assert_eq!(before, Heard::Everything);
        for connects in 2..200 {
            let now = NOW + connects * 2_000;
            assert_eq!(listening.look(now, state(connects)), Heard::Anew);
            listening.connected(now, connects, Position { created: 1, sequence: 5 + connects });
            everything += u64::from(listening.look(now + 1, state(connects)) == Heard::Everything);
        }
        assert_eq!(listening.since(), NOW);
        assert!(everything > 150, "{everything}");
    }

    #[test]
    fn who_was_suspended_or_lost_what_was_heard_listens_anew() {
        let mut suspended = listening();
        suspended.look(NOW + PAUSE_MS + FAR_MS, state(1));
        assert_eq!(suspended.since(), NOW);
        suspended.look(NOW + 50_000, state(1));
        assert_eq!(suspended.since(), NOW + 50_000);
        for stands in [Position { created: 2, sequence: 9 }, Position { created: 1, sequence: 4 }] {
            let mut anew = listening();
            assert_eq!(anew.look(NOW + 5_000, state(2)), Heard::Anew);
            anew.connected(NOW + 5_000, 2, stands);
            assert_eq!(anew.since(), NOW + 5_000);
        }
    }
}
