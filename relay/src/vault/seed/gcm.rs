//! AES-256-GCM (NIST SP 800-38D) with an IV of any length, for reading only. Pure.
//!
//! The crate that has the mode knows lengths of IVs as types: one copy of its code for each. So it is put together here from
//! the same parts, and compared with that crate by the tests.

use aes::{
    Aes256,
    cipher::{BlockCipherEncrypt as _, KeyInit as _, KeyIvInit as _, StreamCipher as _},
};
use ctr::Ctr32BE;
use data_encoding::HEXLOWER_PERMISSIVE;
use ghash::{GHash, universal_hash::UniversalHash as _};
use zeroize::Zeroizing;

const BLOCK_BYTES: usize = 16;
/// The length for which the counter's first block is not hashed.
const PLAIN_IV_BYTES: usize = 12;
/// Longest IV that anybody makes, bytes.
const MAX_IV_BYTES: usize = 128;

type Block = [u8; BLOCK_BYTES];

/// What was sealed, taken apart.
pub(super) struct Sealed {
    iv: Vec<u8>,
    tag: Block,
    ciphertext: Vec<u8>,
}

/// Reads `iv:tag:ciphertext`, in hexadecimal digits.
pub(super) fn parse(text: &str) -> Option<Sealed> {
    let mut parts = text.trim().split(':').map(|digits| HEXLOWER_PERMISSIVE.decode(digits.as_bytes()).ok());
    let (iv, tag, ciphertext) = (parts.next()??, parts.next()??, parts.next()??);
    let has_iv = (1..=MAX_IV_BYTES).contains(&iv.len());
    (has_iv && parts.next().is_none()).then_some(())?;
    Some(Sealed { iv, tag: tag.try_into().ok()?, ciphertext })
}

impl Sealed {
    /// What was sealed with this key; absent where it was another, or anything was changed.
    pub(super) fn open(&self, key: &[u8; 32]) -> Option<Zeroizing<Vec<u8>>> {
        let mut hash_key = ghash::Key::default();
        Aes256::new(key.into()).encrypt_block(&mut hash_key);
        let hash = GHash::new(&hash_key);
        let first = first_block(&hash, &self.iv);
        let mut stream = Ctr32BE::<Aes256>::new(key.into(), &first.into());
        // The key stream's first block goes over the hash and makes the tag.
        let mut tag = [0; BLOCK_BYTES];
        stream.apply_keystream(&mut tag);
        let hashed = hashed(&hash, &self.ciphertext, [0, bits(&self.ciphertext)]);
        tag.iter_mut().zip(hashed).for_each(|(tag, hashed)| *tag ^= hashed);
        orion::util::secure_cmp(&tag, &self.tag).ok()?;
        let mut value = Zeroizing::new(self.ciphertext.clone());
        stream.apply_keystream(&mut value);
        Some(value)
    }
}

fn first_block(hash: &GHash, iv: &[u8]) -> Block {
    if iv.len() != PLAIN_IV_BYTES {
        return hashed(hash, iv, [0, bits(iv)]);
    }
    let mut block = [0; BLOCK_BYTES];
    block.iter_mut().zip(iv).for_each(|(to, from)| *to = *from);
    if let Some(last) = block.last_mut() {
        *last = 1;
    }
    block
}

/// The hash of bytes and the two lengths behind them.
fn hashed(hash: &GHash, bytes: &[u8], lengths: [u64; 2]) -> Block {
    let mut hash = hash.clone();
    hash.update_padded(bytes);
    let mut last = [0; BLOCK_BYTES];
    let lengths = lengths.into_iter().flat_map(u64::to_be_bytes);
    last.iter_mut().zip(lengths).for_each(|(to, from)| *to = from);
    hash.update(&[last.into()]);
    hash.finalize().into()
}

fn bits(bytes: &[u8]) -> u64 {
    (bytes.len() as u64).saturating_mul(8)
}

#[cfg(test)]
mod tests {
    use aes_gcm::{
        AesGcm,
        aead::{Aead as _, KeyInit as _, consts},
    };
    use data_encoding::HEXLOWER;
    use proptest::prelude::*;

    use super::*;

    /// `iv:tag:ciphertext` as the crate with the mode seals it.
    macro_rules! sealed_by_crate {
        ($size:ty, $key:expr, $iv:expr, $value:expr) => {{
            let cipher = AesGcm::<Aes256, $size>::new($key.into());
            let mut sealed = cipher.encrypt($iv[..].try_into().unwrap(), $value).unwrap();
            let tag = sealed.split_off(sealed.len() - BLOCK_BYTES);
            [&$iv[..], &tag, &sealed].map(|part| HEXLOWER.encode(part)).join(":")
        }};
    }

    proptest! {
        #[test]
        fn it_opens_what_others_seal(key: [u8; 32], iv: [u8; 60], value: Vec<u8>, flip: prop::sample::Index) {
            for text in [
                sealed_by_crate!(consts::U1, &key, iv[..1], &value[..]),
                sealed_by_crate!(consts::U8, &key, iv[..8], &value[..]),
                sealed_by_crate!(consts::U12, &key, iv[..12], &value[..]),
                sealed_by_crate!(consts::U16, &key, iv[..16], &value[..]),
                sealed_by_crate!(consts::U17, &key, iv[..17], &value[..]),
                sealed_by_crate!(consts::U60, &key, iv[..60], &value[..]),
            ] {
                prop_assert_eq!(parse(&text).unwrap().open(&key).unwrap().to_vec(), value.clone());
                // One digit that is another, anywhere.
                let digits: Vec<usize> = text.match_indices(|c| c != ':').map(|(at, _)| at).collect();
                let at = digits[flip.index(digits.len())];
                let other = if &text[at..=at] == "0" { "1" } else { "0" };
                let changed = format!("{}{other}{}", &text[..at], &text[at + 1..]);
                prop_assert!(parse(&changed).unwrap().open(&key).is_none());
            }
        }

        #[test]
        fn any_text_is_taken_or_refused(text in "[0-9a-f:]{0,200}") {
            if let Some(sealed) = parse(&text) {
                prop_assert!(sealed.open(&[7; 32]).is_none());
            }
        }
    }
}
