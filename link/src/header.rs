//! Message headers, and whom to believe about them.
//!
//! Two rules, kept here so that nobody has to remember them:
//!
//! * `Nats-*` headers are written by the server *after* whatever the publisher sent. A publisher can send its
//!   own `Nats-Sequence`, and it then stands first. Hence [`Headers::nats`] reads the **last** value.
//! * Our own headers (`Sb-*`) have one value. If there are two, somebody appended one, and none is believed:
//!   [`Headers::get`].
//!
//! Headers are for eyes and for transport. Who sent something and what it means is decided by the subject and
//! by signatures, never here.

use std::str::FromStr as _;

use async_nats::{HeaderMap, HeaderName, HeaderValue};

/// First line of a header block.
const VERSION_LINE: &str = "NATS/1.0";
/// `NATS/1.0\r\n` and the empty line that ends the block.
const FRAME_BYTES: usize = 12;
/// `: ` and `\r\n` around each value.
const PER_VALUE_BYTES: usize = 4;

/// The headers of one message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers {
    map: HeaderMap,
    is_malformed: bool,
}

impl Headers {
    /// No headers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// Sets one of our own headers, replacing what stood there. Control characters in `value` become spaces,
    /// because a line break would end the header.
    ///
    /// `name` is a constant of ours: visible ASCII without a colon, not beginning with `Nats-` (those are set
    /// by this crate from typed arguments only).
    pub fn insert(&mut self, name: &'static str, value: &str) {
        debug_assert!(!name.starts_with("Nats-"), "server headers are set from typed arguments");
        self.set(name, value);
    }

    /// The same, by value, for building in one expression.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        self.insert(name, value);
        self
    }

    /// The value of one of our own headers, if exactly one value stands there.
    pub fn get(&self, name: &str) -> Option<&str> {
        let name = HeaderName::from_str(name).ok()?;
        let mut values = self.map.get_all(name);
        match (values.next(), values.next()) {
            (Some(value), None) => Some(value.as_str()),
            _ => None,
        }
    }

    /// The value that the *server* gave to one of its headers: the last one.
    ///
    /// Only meaningful on a message that the server itself has marked: a direct read or a republished message.
    /// On a message that merely passed through, all of them are the publisher's.
    pub fn nats(&self, name: &str) -> Option<&str> {
        let name = HeaderName::from_str(name).ok()?;
        self.map.get_last(name).map(HeaderValue::as_str)
    }

    /// Like [`Headers::nats`], as a number.
    pub fn nats_number(&self, name: &str) -> Option<u64> {
        self.nats(name)?.parse().ok()
    }

    /// Whether the sender stored something else than headers in their place. No client library does that: it
    /// is meant to break readers, and does break the connection of those that read it in the plain protocol.
    /// Seen only on messages that were read from the leader.
    pub fn is_malformed(&self) -> bool {
        self.is_malformed
    }

    /// Size of the encoded block in bytes; 0 without headers.
    pub fn wire_bytes(&self) -> usize {
        if self.is_empty() {
            return 0;
        }
        let values = self.map.iter().flat_map(|(name, values)| values.iter().map(move |value| (name, value)));
        values.fold(FRAME_BYTES, |sum, (name, value)| {
            sum + AsRef::<str>::as_ref(name).len() + value.as_str().len() + PER_VALUE_BYTES
        })
    }

    /// Sets a header of the server's protocol.
    pub(crate) fn set(&mut self, name: &'static str, value: &str) {
        let clean: String = value.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        self.map.insert(name, clean.as_str());
    }

    pub(crate) fn from_received(headers: Option<HeaderMap>) -> Self {
        Self { map: headers.unwrap_or_default(), is_malformed: false }
    }

    pub(crate) fn into_inner(self) -> HeaderMap {
        self.map
    }

    /// Reads a stored header block. A publisher can store any bytes as headers; a block that is not text is
    /// none, and a line that is no header is skipped, because nothing that matters stands in headers.
    pub(crate) fn from_block(block: &[u8]) -> Self {
        let text = std::str::from_utf8(block).ok();
        let mut headers = Self { map: HeaderMap::new(), is_malformed: text.is_none() };
        for line in text.unwrap_or_default().split("\r\n") {
            if line.is_empty() || line.starts_with(VERSION_LINE) {
                continue;
            }
            match header(line) {
                Some((name, value)) => headers.map.append(name, value),
                None => headers.is_malformed = true,
            }
        }
        headers
    }
}

/// One line, if it is a header.
fn header(line: &str) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = line.split_once(':').filter(|(name, _)| !name.is_empty())?;
    Some((HeaderName::from_str(name).ok()?, HeaderValue::from_str(value.trim()).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_value_is_the_last_one() {
        let headers = Headers::from_block(b"NATS/1.0\r\nNats-Sequence: 999999\r\nNats-Sequence: 7\r\n\r\n");
        assert_eq!(headers.nats_number("Nats-Sequence"), Some(7));
    }

    #[test]
    fn two_values_of_ours_are_none() {
        let headers =
            Headers::from_block(b"NATS/1.0\r\nSb-Offset: 1\r\nSb-Offset: 2\r\nSb-Type: out\r\n\r\n");
        assert_eq!(headers.get("Sb-Offset"), None);
        assert_eq!(headers.get("Sb-Type"), Some("out"));
        assert_eq!(headers.get("Sb-None"), None);
    }

    #[test]
    fn a_value_cannot_end_its_line() {
        let headers = Headers::new().with("Sb-Summary", "a\r\nSb-By: root");
        assert_eq!(headers.get("Sb-Summary"), Some("a  Sb-By: root"));
        assert_eq!(headers.get("Sb-By"), None);
    }

    #[test]
    fn a_block_of_rubbish_is_no_headers() {
        for block in [&b"GARBAGE"[..], b"NATS/1.0\r\nnocolon\r\n\r\n", b"", b"NATS/1.0\r\n: \xff\r\n\r\n"] {
            let headers = Headers::from_block(block);
            assert!(headers.is_empty(), "{block:?}");
            assert_eq!(headers.is_malformed(), !block.is_empty(), "{block:?}");
        }
        assert!(!Headers::from_block(b"NATS/1.0 503\r\nSb-Type: a\r\n\r\n").is_malformed());
    }

    #[test]
    fn the_size_is_that_of_the_wire() {
        let headers = Headers::new().with("Sb-A", "1").with("Sb-Bcd", "22");
        assert_eq!(headers.wire_bytes(), "NATS/1.0\r\nSb-A: 1\r\nSb-Bcd: 22\r\n\r\n".len());
        assert_eq!(Headers::new().wire_bytes(), 0);
    }
}
