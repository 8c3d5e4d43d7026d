//! Output as the inside of a JSON string. Pure.
//!
//! The bytes are read as UTF-8 over the whole stream, however they are cut into pieces, and what is none becomes U+FFFD.

/// Longest sequence of bytes that may still become a character.
const MAX_CARRIED: usize = 3;

/// Turns the bytes of one stream into JSON text.
#[derive(Debug, Default)]
pub(super) struct Escaper {
    /// Bytes that are the beginning of a character, and the end of what came so far.
    carried: Vec<u8>,
}

impl Escaper {
    /// Takes the next bytes and appends their text to `out`.
    pub(super) fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let mut rest = bytes;
        let mut whole;
        if !self.carried.is_empty() {
            whole = std::mem::take(&mut self.carried);
            whole.extend_from_slice(bytes);
            rest = &whole;
        }
        loop {
            match std::str::from_utf8(rest) {
                Ok(text) => return escape(text, out),
                Err(error) => {
                    let (valid, invalid) = rest.split_at(error.valid_up_to());
                    escape(&String::from_utf8_lossy(valid), out);
                    let Some(length) = error.error_len() else {
                        debug_assert!(invalid.len() <= MAX_CARRIED, "no character is longer");
                        self.carried = invalid.to_vec();
                        return;
                    };
                    escape("\u{fffd}", out);
                    rest = invalid.get(length..).unwrap_or_default();
                }
            }
        }
    }

    /// Ends the stream: what was begun is none.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        if !std::mem::take(&mut self.carried).is_empty() {
            escape("\u{fffd}", out);
        }
    }
}

/// Appends a text as it stands between the quotes of a JSON string.
pub(super) fn escape(text: &str, out: &mut Vec<u8>) {
    // A string always has a JSON form.
    let quoted = serde_json::to_vec(text).unwrap_or_default();
    out.extend_from_slice(
        quoted.strip_prefix(b"\"").and_then(|text| text.strip_suffix(b"\"")).unwrap_or(&quoted),
    );
}

/// Whether a byte is in the middle of a character, so that nothing is to be cut before it.
pub(super) fn continues(byte: u8) -> bool {
    byte & 0b1100_0000 == 0b1000_0000
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text_of(pieces: &[&[u8]]) -> String {
        let (mut escaper, mut out) = (Escaper::default(), vec![b'"']);
        for piece in pieces {
            escaper.push(piece, &mut out);
        }
        escaper.finish(&mut out);
        out.push(b'"');
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn a_character_is_whole_however_it_is_cut() {
        let bytes = "aß€😀".as_bytes();
        for cut in 0..=bytes.len() {
            let (begin, end) = bytes.split_at(cut);
            assert_eq!(text_of(&[begin, end]), "aß€😀", "cut at {cut}");
        }
        assert_eq!(text_of(&[&bytes[..bytes.len() - 1]]), "aß€\u{fffd}");
    }

    #[test]
    fn what_is_no_text_is_replaced_and_a_nul_stays() {
        assert_eq!(text_of(&[b"a\xffb\0c"]), "a\u{fffd}b\0c");
        let mut out = Vec::new();
        Escaper::default().push(b"\0\n\"\\\x1f", &mut out);
        assert_eq!(out, br#"\u0000\n\"\\\u001f"#);
    }

    proptest! {
        #[test]
        fn pieces_read_as_the_whole_does(
            bytes in prop::collection::vec(prop_oneof![any::<u8>(), Just(0xe2), Just(0x82), Just(0xac)], 0..200),
            cuts in prop::collection::vec(0_usize..200, 0..6),
        ) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.sort_unstable();
            cuts.push(bytes.len());
            let mut from = 0;
            let pieces: Vec<&[u8]> = cuts.iter().map(|to| &bytes[std::mem::replace(&mut from, *to)..*to]).collect();
            prop_assert_eq!(text_of(&pieces), String::from_utf8_lossy(&bytes));
        }
    }
}
