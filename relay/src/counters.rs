//! What was refused, dropped or retried since this process began, by reason: nothing goes uncounted.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc};

/// Counters by reason. Cheap to clone; all clones count together.
///
/// Reasons are constants of this crate and of the contract, so there are few and they need no bound.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counters(Rc<RefCell<BTreeMap<&'static str, u64>>>);

impl Counters {
    /// Counts one. Answers whether it was the first of its kind, which is worth a line in the log.
    pub(crate) fn count(&self, reason: &'static str) -> bool {
        self.add(reason, 1)
    }

    /// Counts some.
    pub(crate) fn add(&self, reason: &'static str, number: u64) -> bool {
        let mut counters = self.0.borrow_mut();
        let counter = counters.entry(reason).or_default();
        let first = *counter == 0;
        *counter += number;
        first
    }

    /// All of them, for the heartbeat.
    pub(crate) fn snapshot(&self) -> BTreeMap<String, u64> {
        self.0.borrow().iter().map(|(reason, count)| ((*reason).to_owned(), *count)).collect()
    }
}
