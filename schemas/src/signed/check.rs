//! Signatures that are checked together.

use ed25519_zebra::batch::{Item, Verifier};
use rand_core::OsRng;

use super::PublicKey;

/// Below this many, checking each by itself is no slower.
const FEW: usize = 4;

/// Signatures whose check was put off. Memory: about 130 bytes each, the signed bytes are not kept.
#[derive(Debug, Default)]
#[must_use = "what was put off is not to be believed before it was checked"]
pub struct Checks(Vec<Option<Item>>);

impl Checks {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn put_off(&mut self, key: &PublicKey, bytes: &[u8], sig: &[u8]) {
        self.0.push(key.check(bytes, sig));
    }

    /// Whether each of them is valid, in the order in which they were put off. Blocks for some 25 µs each, and for as much as
    /// three times that when one of them is not valid.
    pub fn verdicts(self) -> Vec<bool> {
        let count = self.0.len();
        if count >= FEW && self.all_valid() {
            return vec![true; count];
        }
        let is_valid = |item: Option<Item>| item.is_some_and(|item| item.verify_single().is_ok());
        self.0.into_iter().map(is_valid).collect()
    }

    fn all_valid(&self) -> bool {
        let mut verifier = Verifier::new();
        for item in &self.0 {
            let Some(item) = item else { return false };
            verifier.queue(item.clone());
        }
        verifier.verify(OsRng).is_ok()
    }
}
