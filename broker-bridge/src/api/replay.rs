//! A signed request counts once: nonces that were seen, for as long as a copy could still pass.
//!
//! They are in memory. What was signed before that memory began may have counted before, and does not count any more: its
//! author signs anew.

use std::collections::{HashMap, HashSet, VecDeque};

use signalbox_schemas::{id::Nonce, limit::REQUEST_SKEW_MS, signed::PublicKey};

/// A request passes from `issued_at` - 5 min to `issued_at` + 5 min: its nonce is kept that long.
const KEPT_MS: u64 = 2 * REQUEST_SKEW_MS;
/// Most nonces kept: at about 100 bytes each some 6 MB, and 109 requests/s for ten minutes.
const NONCES: usize = 65_536;
/// Most of one key: 13 requests/s for ten minutes, and eight keys before there are too many in all.
const NONCES_OF_ONE: usize = 8_192;

/// Why a request does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unfresh {
    /// Issued more than 5 min ago, or ahead.
    Skewed,
    /// Issued before anything was remembered: it may have been seen.
    Early,
    /// Seen before.
    Repeated,
    /// Too many requests in ten minutes to remember them all.
    Full,
}

/// The nonces.
#[derive(Debug, Default)]
pub(super) struct Replay {
    seen: HashSet<(PublicKey, Nonce)>,
    by_age: VecDeque<(u64, PublicKey, Nonce)>,
    /// How many of each key; those without any are not in it.
    of_one: HashMap<PublicKey, usize>,
}

impl Replay {
    /// Lets a request pass once, `up_ms` after this memory began. `now_ms` and `issued_at` are Unix ms.
    pub(super) fn admit(
        &mut self,
        key: &PublicKey,
        nonce: Nonce,
        issued_at: u64,
        now_ms: u64,
        up_ms: u64,
    ) -> Result<(), Unfresh> {
        if now_ms.abs_diff(issued_at) > REQUEST_SKEW_MS {
            return Err(Unfresh::Skewed);
        }
        // Counted back from now: a clock that is set back must not make all that follows early.
        if issued_at < now_ms.saturating_sub(up_ms) {
            return Err(Unfresh::Early);
        }
        while let Some((_, key, nonce)) = self.by_age.pop_front_if(|(at, ..)| *at + KEPT_MS < now_ms) {
            if let Some(left) = self.of_one.get_mut(&key) {
                *left = left.saturating_sub(1);
                if *left == 0 {
                    self.of_one.remove(&key);
                }
            }
            self.seen.remove(&(key, nonce));
        }
        if self.seen.contains(&(key.clone(), nonce)) {
            return Err(Unfresh::Repeated);
        }
        let own = self.of_one.get(key).copied().unwrap_or_default();
        if own >= NONCES_OF_ONE || self.seen.len() >= NONCES {
            return Err(Unfresh::Full);
        }
        self.of_one.insert(key.clone(), own + 1);
        self.seen.insert((key.clone(), nonce));
        self.by_age.push_back((now_ms, key.clone(), nonce));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::still;

    const NOW: u64 = 1_000_000_000;
    /// Long enough for everything that is not too old.
    const UP: u64 = 2 * REQUEST_SKEW_MS;

    fn key() -> PublicKey {
        "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4".parse().unwrap()
    }

    fn nonce(n: u32) -> Nonce {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&n.to_be_bytes());
        Nonce(bytes)
    }

    #[test]
    fn a_request_counts_once_while_a_copy_could_pass() {
        let mut replay = Replay::default();
        let ahead = NOW + REQUEST_SKEW_MS;
        assert_eq!(replay.admit(&key(), nonce(1), ahead, NOW, UP), Ok(()));
        for now in [NOW, NOW + REQUEST_SKEW_MS, NOW + 2 * REQUEST_SKEW_MS] {
            assert_eq!(replay.admit(&key(), nonce(1), ahead, now, UP), Err(Unfresh::Repeated));
        }
        let late = replay.admit(&key(), nonce(1), ahead, NOW + 2 * REQUEST_SKEW_MS + 1, UP);
        assert_eq!(late, Err(Unfresh::Skewed));
    }

    #[test]
    fn requests_from_another_time_are_refused() {
        let mut replay = Replay::default();
        for issued_at in [NOW - REQUEST_SKEW_MS - 1, NOW + REQUEST_SKEW_MS + 1, 0, u64::MAX] {
            assert_eq!(replay.admit(&key(), nonce(1), issued_at, NOW, UP), Err(Unfresh::Skewed));
        }
    }

    #[test]
    fn what_may_have_counted_before_this_memory_began_does_not_count() {
        let mut replay = Replay::default();
        assert_eq!(replay.admit(&key(), nonce(1), NOW - 1, NOW, 0), Err(Unfresh::Early));
        assert_eq!(replay.admit(&key(), nonce(1), NOW - 1, NOW + 9_000, 9_000), Err(Unfresh::Early));
        assert_eq!(replay.admit(&key(), nonce(1), NOW, NOW + 9_000, 9_000), Ok(()), "signed since");
        // A clock that was set back by an hour.
        let now = NOW - 3_600_000;
        assert_eq!(replay.admit(&key(), nonce(2), now, now, 9_000), Ok(()));
    }

    #[test]
    fn memory_is_bounded_and_comes_back() {
        let mut replay = Replay::default();
        let fits = u32::try_from(NONCES_OF_ONE).unwrap();
        let keys: Vec<PublicKey> = (0..=NONCES / NONCES_OF_ONE)
            .map(|n| still::key(u8::try_from(n).unwrap()).public().clone())
            .collect();
        let (last, others) = keys.split_last().unwrap();
        for key in others {
            for n in 0..fits {
                assert_eq!(replay.admit(key, nonce(n), NOW, NOW, UP), Ok(()));
            }
            assert_eq!(
                replay.admit(key, nonce(fits), NOW, NOW, UP),
                Err(Unfresh::Full),
                "more than its share"
            );
        }
        assert_eq!(replay.admit(last, nonce(0), NOW, NOW, UP), Err(Unfresh::Full), "more than in all");
        let later = NOW + KEPT_MS + 1;
        assert_eq!(replay.admit(last, nonce(0), later, later, UP), Ok(()));
        assert_eq!((replay.seen.len(), replay.by_age.len(), replay.of_one.len()), (1, 1, 1));
    }
}
