//! Turns: those who change one thing do it one after the other.

use std::hash::{DefaultHasher, Hash, Hasher as _};

use tokio::sync::{Mutex, MutexGuard};

/// Locks of one set.
const LOCKS: usize = 64;

/// The turns of one kind of change. Those who change one thing share a lock, and others do by chance: harmlessly, as long
/// as all of one set are over about as soon. So what may take minutes has a set of its own.
#[derive(Debug)]
pub(crate) struct Turns(pub(super) Vec<Mutex<()>>);

impl Default for Turns {
    fn default() -> Self {
        Self((0..LOCKS).map(|_| Mutex::default()).collect())
    }
}

impl Turns {
    /// Waits for the turn to change a thing; it lasts for as long as the answer is kept.
    pub(crate) async fn of(&self, thing: &impl Hash) -> Option<MutexGuard<'_, ()>> {
        let mut hasher = DefaultHasher::new();
        thing.hash(&mut hasher);
        let index = hasher.finish().checked_rem(self.0.len() as u64)?;
        Some(self.0.get(usize::try_from(index).ok()?)?.lock().await)
    }
}
