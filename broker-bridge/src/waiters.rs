//! Those who wait for a machine's work, woken one machine at a time: thousands may wait, and each new command concerns few.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use signalbox_schemas::id::MachineToken;
use tokio::sync::Notify;

/// Everybody who waits, by machine. Bounded by the number of connections.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    waiting: Mutex<HashMap<MachineToken, Place>>,
}

#[derive(Debug, Default)]
struct Place {
    notify: Arc<Notify>,
    waiters: usize,
}

impl Waiters {
    /// Begins to wait for a machine's work. What comes from now on wakes it, also between two looks.
    pub(crate) fn wait_for(&self, mid: &MachineToken) -> Waiter<'_> {
        let mut waiting = self.lock();
        let place = waiting.entry(mid.clone()).or_default();
        place.waiters += 1;
        Waiter { waiters: self, mid: mid.clone(), notify: Arc::clone(&place.notify) }
    }

    /// Wakes all who wait for one of these machines.
    pub(crate) fn wake(&self, machines: &BTreeSet<MachineToken>) {
        if machines.is_empty() {
            return;
        }
        let waiting = self.lock();
        let concerned = machines.iter().filter_map(|mid| waiting.get(mid));
        concerned.for_each(|place| place.notify.notify_waiters());
    }

    /// A lock whose holder panicked still counts right: each change is one step.
    fn lock(&self) -> MutexGuard<'_, HashMap<MachineToken, Place>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One who waits.
#[derive(Debug)]
pub(crate) struct Waiter<'a> {
    waiters: &'a Waiters,
    mid: MachineToken,
    notify: Arc<Notify>,
}

impl Waiter<'_> {
    /// Looks, and if `look` answers nothing waits for the next wake and looks again. Ends with its first answer.
    pub(crate) async fn until<T>(&self, mut look: impl FnMut() -> Option<T>) -> T {
        loop {
            // Made before the look: a wake in between is not missed.
            let woken = self.notify.notified();
            if let Some(found) = look() {
                return found;
            }
            woken.await;
        }
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let mut waiting = self.waiters.lock();
        if let Some(place) = waiting.get_mut(&self.mid) {
            place.waiters -= 1;
            if place.waiters == 0 {
                waiting.remove(&self.mid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicBool, Ordering},
        time::Duration,
    };

    use tokio::time::timeout;

    use super::*;

    fn mid(text: &str) -> MachineToken {
        MachineToken::new(text).unwrap()
    }

    #[tokio::test]
    async fn a_wake_between_look_and_wait_is_not_missed() {
        let waiters = Waiters::default();
        let waiter = waiters.wait_for(&mid("a"));
        let looked = AtomicBool::new(false);
        let look = || {
            let again = looked.swap(true, Ordering::Relaxed);
            if !again {
                waiters.wake(&BTreeSet::from([mid("a")]));
            }
            again.then_some(7)
        };
        assert_eq!(timeout(Duration::from_secs(5), waiter.until(look)).await, Ok(7));
    }

    #[tokio::test]
    async fn others_are_left_alone_and_who_is_gone_is_forgotten() {
        let waiters = Waiters::default();
        let (a, again, b) =
            (waiters.wait_for(&mid("a")), waiters.wait_for(&mid("a")), waiters.wait_for(&mid("b")));
        let mut looks = 0;
        let look = || {
            looks += 1;
            None::<()>
        };
        waiters.wake(&BTreeSet::from([mid("b")]));
        assert!(timeout(Duration::from_millis(50), a.until(look)).await.is_err());
        assert_eq!(looks, 1);
        drop((a, b));
        assert_eq!(waiters.lock().keys().collect::<Vec<_>>(), [&mid("a")]);
        drop(again);
        assert!(waiters.lock().is_empty());
    }
}
