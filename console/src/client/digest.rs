//! What was told of a stream, in 32 bytes: the same for the same bytes, in whatever pieces they came. Pure.

use sha2::{Digest as _, Sha256};

/// A stream of which pieces are told, in order.
#[derive(Debug, Clone, Default)]
pub struct Digest {
    hash: Sha256,
    /// Offset of the byte that comes next.
    next: u64,
}

impl Digest {
    /// Takes the bytes at an offset: those that were told before count once, and those that are missing before them count as
    /// missing.
    pub fn take(&mut self, offset: u64, data: &[u8]) {
        let known = usize::try_from(self.next.saturating_sub(offset)).unwrap_or(usize::MAX);
        let Some(new) = data.get(known..).filter(|new| !new.is_empty()) else { return };
        self.skip_to(offset);
        self.hash.update(new);
        self.next = offset.saturating_add(data.len() as u64);
    }

    /// Nothing comes any more, and so many bytes were written: those that are missing at the end count as missing.
    pub fn end(&mut self, total_bytes: u64) {
        self.skip_to(total_bytes);
    }

    fn skip_to(&mut self, offset: u64) {
        let missing = offset.saturating_sub(self.next);
        if missing > 0 {
            // No output says this by accident, and who says it on purpose is folded with his like.
            self.hash.update(b"\0missing\0");
            self.hash.update(missing.to_be_bytes());
            self.next = offset;
        }
    }

    /// The digest of what was told so far.
    pub fn get(&self) -> [u8; 32] {
        self.hash.clone().finalize().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pieces: &[(u64, &str)], total_bytes: u64) -> [u8; 32] {
        let mut digest = Digest::default();
        for (offset, data) in pieces {
            digest.take(*offset, data.as_bytes());
        }
        digest.end(total_bytes);
        digest.get()
    }

    #[test]
    fn the_same_bytes_in_other_pieces_are_the_same_and_missing_ones_are_not() {
        let whole = of(&[(0, "abcdef")], 6);
        for pieces in [&[(0, "ab"), (2, "cdef")][..], &[(0, "abcd"), (2, "cd"), (2, "cdef"), (6, "")]] {
            assert_eq!(of(pieces, 6), whole, "{pieces:?}");
        }
        for (pieces, total) in [
            (&[(0, "abcdef")][..], 7),
            (&[(1, "abcdef")], 7),
            (&[(0, "abc"), (4, "def")], 7),
            (&[(0, "abc"), (5, "def")], 8),
            (&[(0, "abcde")], 6),
            (&[], 6),
            (&[], 0),
        ] {
            assert_ne!(of(pieces, total), whole, "{pieces:?}");
        }
        assert_eq!(of(&[(0, "ab"), (4, ""), (5, "f")], 6), of(&[(0, "ab"), (5, "f")], 6));
    }
}
