//! A signed request counts once: nonces that were seen, for as long as a copy could still pass.

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
    /// Lets a request pass once. `now_ms` and `issued_at` are Unix ms.
    pub(super) fn admit(
        &mut self,
        key: &PublicKey,
        nonce: Nonce,
        issued_at: u64,
        now_ms: u64,
    ) -> Result<(), Unfresh> {
        if now_ms.abs_diff(issued_at) > REQUEST_SKEW_MS {
            return Err(Unfresh::Skewed);
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
        assert_eq!(replay.admit(&key(), nonce(1), ahead, NOW), Ok(()));
        for now in [NOW, NOW + REQUEST_SKEW_MS, NOW + 2 * REQUEST_SKEW_MS] {
            assert_eq!(replay.admit(&key(), nonce(1), ahead, now), Err(Unfresh::Repeated));
        }
        let late = replay.admit(&key(), nonce(1), ahead, NOW + 2 * REQUEST_SKEW_MS + 1);
        assert_eq!(late, Err(Unfresh::Skewed));
    }

    #[test]
    fn requests_from_another_time_are_refused() {
        let mut replay = Replay::default();
        for issued_at in [NOW - REQUEST_SKEW_MS - 1, NOW + REQUEST_SKEW_MS + 1, 0, u64::MAX] {
            assert_eq!(replay.admit(&key(), nonce(1), issued_at, NOW), Err(Unfresh::Skewed));
        }
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
                assert_eq!(replay.admit(key, nonce(n), NOW, NOW), Ok(()));
            }
            assert_eq!(replay.admit(key, nonce(fits), NOW, NOW), Err(Unfresh::Full), "more than its share");
        }
        assert_eq!(replay.admit(last, nonce(0), NOW, NOW), Err(Unfresh::Full), "more than in all");
        let later = NOW + KEPT_MS + 1;
        assert_eq!(replay.admit(last, nonce(0), later, later), Ok(()));
        assert_eq!((replay.seen.len(), replay.by_age.len(), replay.of_one.len()), (1, 1, 1));
    }
}
