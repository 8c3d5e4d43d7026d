//! Machines whose mailbox can wait a while: in the order in which they are due, which is that of their coming.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use signalbox_schemas::id::MachineToken;
use tokio::time::Instant;

/// The machines, each at most once.
#[derive(Debug)]
pub(super) struct Later {
    wait: Duration,
    due: HashMap<MachineToken, Instant>,
    /// With places of machines that have left since, and came again; those are passed over.
    order: VecDeque<(Instant, MachineToken)>,
}

impl Later {
    pub(super) fn new(wait: Duration) -> Self {
        Self { wait, due: HashMap::new(), order: VecDeque::new() }
    }

    /// Waits from now on, unless it waits already.
    pub(super) fn insert(&mut self, mid: MachineToken, now: Instant) {
        let at = now + self.wait;
        if !self.due.contains_key(&mid) {
            self.due.insert(mid.clone(), at);
            self.order.push_back((at, mid));
        }
    }

    /// Waits no longer.
    pub(super) fn remove(&mut self, mid: &MachineToken) {
        self.due.remove(mid);
    }

    /// When the next one is due.
    pub(super) fn next(&mut self) -> Option<Instant> {
        while let Some((at, mid)) = self.order.front() {
            if self.due.get(mid) == Some(at) {
                return Some(*at);
            }
            self.order.pop_front();
        }
        None
    }

    /// Takes one that is due.
    pub(super) fn take(&mut self, now: Instant) -> Option<MachineToken> {
        self.next().filter(|at| *at <= now)?;
        let (_, mid) = self.order.pop_front()?;
        self.due.remove(&mid);
        Some(mid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_waits_once_and_from_its_first_coming() {
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let mid = |text: &str| MachineToken::new(text).unwrap();
        let mut later = Later::new(5 * second);
        later.insert(mid("a"), now);
        later.insert(mid("b"), now + second);
        later.insert(mid("a"), now + 2 * second);
        assert_eq!(later.next(), Some(now + 5 * second));
        assert_eq!(later.take(now + 4 * second), None);
        assert_eq!(later.take(now + 9 * second), Some(mid("a")));
        // One that left and came again waits anew.
        later.remove(&mid("b"));
        later.insert(mid("b"), now + 3 * second);
        assert_eq!(later.next(), Some(now + 8 * second));
        assert_eq!(later.take(now + 9 * second), Some(mid("b")));
        assert_eq!((later.take(now + 99 * second), later.order.len()), (None, 0));
    }
}
