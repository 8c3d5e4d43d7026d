//! How many requests are in work: bounded in all, and for each operator, so that one leaves room for the others.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use signalbox_schemas::id::OperatorId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Requests in work, by operator; those without any are not in it.
type Held = Arc<Mutex<HashMap<OperatorId, usize>>>;

/// What is left.
pub(super) struct Permits {
    in_all: Arc<Semaphore>,
    of_one: usize,
    held: Held,
}

impl Permits {
    pub(super) fn new(in_all: usize, of_one: usize) -> Self {
        Self { in_all: Arc::new(Semaphore::new(in_all)), of_one, held: Held::default() }
    }

    /// Lets one more request of this operator into work; `None` when there are too many.
    pub(super) fn take(&self, operator: &OperatorId) -> Option<Permit> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let own = held.get(operator).copied().unwrap_or_default();
        if own >= self.of_one {
            return None;
        }
        let in_all = Arc::clone(&self.in_all).try_acquire_owned().ok()?;
        held.insert(operator.clone(), own + 1);
        Some(Permit { held: Arc::clone(&self.held), operator: operator.clone(), _in_all: in_all })
    }
}

/// Held while a request is in work.
pub(super) struct Permit {
    held: Held,
    operator: OperatorId,
    _in_all: OwnedSemaphorePermit,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let left = held.get(&self.operator).copied().unwrap_or_default().saturating_sub(1);
        if left == 0 {
            held.remove(&self.operator);
        } else {
            held.insert(self.operator.clone(), left);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_operator_leaves_room_for_the_others() {
        let [one, two, three] = ["one", "two", "three"].map(|id| OperatorId::new(id).unwrap());
        let permits = Permits::new(3, 2);
        let [first, second] = [(); 2].map(|()| permits.take(&one).unwrap());
        assert!(permits.take(&one).is_none(), "one took more than its share");
        let third = permits.take(&two).unwrap();
        assert!(permits.take(&three).is_none(), "there are more than in all");
        drop(first);
        assert!(permits.take(&three).is_some());
        assert!(permits.take(&one).is_some());
        drop((second, third));
        assert!(permits.held.lock().unwrap().is_empty());
    }
}
