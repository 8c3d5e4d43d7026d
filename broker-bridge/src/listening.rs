//! Since when this bridge hears heartbeats.
//!
//! That a machine is silent is the one thing that no message tells of: it is known only by who has listened for so long. A bridge
//! that starts has not read a single heartbeat, and a broker that starts has none (they are in its memory); neither says
//! anything about the machines.

use std::sync::{Mutex, PoisonError};

use signalbox_link::{Link, LinkState};
use signalbox_schemas::api::Liveness;

use crate::projection::memory::Machine;

/// Counts the time for which this bridge has listened, by whichever clock it is asked with: always the same one.
#[derive(Debug)]
pub(crate) struct Listening {
    link: Link,
    heard: Mutex<Heard>,
}

/// A connection, by its number, and since when it is heard, Unix ms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Heard {
    connects: u64,
    since: u64,
}

impl Heard {
    /// What is known at `now`, Unix ms, of a connection in this state. While there is none nothing is heard.
    fn look(self, state: LinkState, now: u64) -> Self {
        if state.connects == self.connects && state.is_connected {
            return self;
        }
        Self { connects: state.connects, since: now }
    }
}

impl Listening {
    /// Begins to listen at `now`, Unix ms.
    pub(crate) fn new(link: Link, now: u64) -> Self {
        let connects = link.state().borrow().connects;
        Self { link, heard: Mutex::new(Heard { connects, since: now }) }
    }

    /// Since when every heartbeat is heard, Unix ms; `now` where that cannot be said. A connection that came and went between
    /// two looks is seen by its number.
    pub(crate) fn since(&self, now: u64) -> u64 {
        let state = *self.link.state().borrow();
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        *heard = heard.look(state, now);
        heard.since
    }
}

/// Whether a machine is silent at `now`, Unix ms, as far as is known by who has listened since `listening`, Unix ms.
pub(crate) fn is_absent(machine: Option<&Machine>, listening: u64, now: u64) -> bool {
    let silence = machine.and_then(|machine| machine.silence(now)).unwrap_or(u64::MAX);
    Liveness::of(Some(silence.min(now.saturating_sub(listening)))) == Liveness::Offline
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use signalbox_schemas::limit::OFFLINE_MS;

    use super::*;

    fn state(connects: u64, is_connected: bool) -> LinkState {
        LinkState { connects, is_connected, ..LinkState::default() }
    }

    #[rstest]
    #[case::the_same_connection(state(1, true), 5)]
    #[case::another_one(state(2, true), 9)]
    #[case::none(state(1, false), 9)]
    fn what_is_not_heard_is_no_silence(#[case] state: LinkState, #[case] since: u64) {
        assert_eq!(Heard { connects: 1, since: 5 }.look(state, 9).since, since);
    }

    #[test]
    fn a_machine_is_absent_for_who_has_listened_for_so_long() {
        let now = 10 * OFFLINE_MS;
        assert!(!is_absent(None, now, now));
        assert!(!is_absent(None, now - OFFLINE_MS, now));
        assert!(is_absent(None, now - OFFLINE_MS - 1, now));
        // A clock that was set back has not listened at all.
        assert!(!is_absent(None, now + 1, now));
    }
}
